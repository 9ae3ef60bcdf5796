//! How old the majority behind the group's leader is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clusterkit_core::time::Instant;
use openraft::Instant as _;
use openraft_rt_tokio::TokioInstant;

use crate::net::Clock;

/// Dates what Raft's clock measured by the node's clock.
///
/// Raft's clock stands still while the machine sleeps, and the node's goes on. A leader that slept would
/// otherwise take a majority for fresh that has elected another one since. So the age counts from a
/// moment that both clocks showed and that was not later than the one to be dated: if the machine slept
/// at any time since, the age has all of that in it.
#[derive(Debug)]
pub(super) struct QuorumAge {
    clock: Arc<dyn Clock>,
    moments: Mutex<Moments>,
}

/// Two moments are kept, so that the older one follows what is dated, however often it is looked at.
#[derive(Debug)]
struct Moments {
    /// No later than what was dated last.
    before: Moment,
    /// Takes the place of `before` once something later is dated.
    after: Moment,
}

/// One moment by both clocks.
#[derive(Debug, Clone, Copy)]
struct Moment {
    node: Instant,
    raft: TokioInstant,
}

impl Moment {
    fn now(clock: &dyn Clock) -> Self {
        // In this order: where the machine sleeps between the two, an age turns out too great, and
        // never too small.
        let node = clock.now();
        Self { node, raft: TokioInstant::now() }
    }
}

impl QuorumAge {
    /// Make it before anything that it is to date: of what was before, it says nothing.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let start = Moment::now(&*clock);
        Self { clock, moments: Mutex::new(Moments { before: start, after: start }) }
    }

    /// How long ago `acked` was; more than that for a moment after the machine slept, and never less.
    pub(super) fn of(&self, acked: TokioInstant) -> Option<Duration> {
        let now = Moment::now(&*self.clock);
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        // At the same moment of Raft's clock it may have been before the machine slept.
        if moments.after.raft < acked {
            *moments = Moments { before: moments.after, after: now };
        }
        let before = moments.before;
        (before.raft <= acked).then(|| now.node.since(before.node + (acked - before.raft)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{SuspendClock, WallTime};

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    async fn pass(time: Duration) {
        tokio::time::sleep(time).await; // tidy: the clock is paused
    }

    fn start() -> (Arc<SuspendClock>, QuorumAge) {
        let clock = Arc::new(SuspendClock::new(WallTime(0)));
        (Arc::clone(&clock), QuorumAge::new(clock))
    }

    #[tokio::test(start_paused = true)]
    async fn an_age_is_the_time_that_passed_while_the_machine_is_awake() {
        let (_clock, age) = start();
        for _ in 0..5 {
            pass(SECOND).await;
            let acked = TokioInstant::now();
            assert_eq!(age.of(acked), Some(Duration::ZERO));
            pass(SECOND / 4).await;
            assert_eq!(age.of(acked), Some(SECOND / 4));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_that_the_machine_slept_is_in_the_age_of_all_before() {
        let (clock, age) = start();
        for _ in 0..3 {
            pass(SECOND).await;
            let acked = TokioInstant::now();
            assert_eq!(age.of(acked), Some(Duration::ZERO));
            pass(SECOND / 10).await;
            clock.suspend(MINUTE);
            assert_eq!(age.of(acked), Some(MINUTE + SECOND / 10));
            // An answer that came just before, and that nobody had looked at.
            assert!(age.of(acked + SECOND / 20) >= Some(MINUTE + SECOND / 20));
            // The second answer since then is dated exactly again.
            for expect in [MINUTE, Duration::ZERO] {
                pass(SECOND / 10).await;
                assert!(age.of(TokioInstant::now()) <= Some(expect));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_said_of_what_was_before_the_first_look() {
        let acked = TokioInstant::now();
        pass(SECOND).await;
        assert_eq!(start().1.of(acked), None);
    }
}
