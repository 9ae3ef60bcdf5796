//! Until when the control plane supports this run of the node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clusterkit_core::time::Instant;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::LeaseLost;
use crate::net::Clock;

/// Stands in the place of the time once support has ended for good. It is greater than every time,
/// so that no extension can come after it.
const ENDED: u64 = u64::MAX;
/// The farthest time that support can reach: 584 years after the clock's origin.
const UNTIL_MAX: u64 = ENDED - 1;

/// One for a node. All its leases stand on it.
///
/// Invariants:
/// - the time until which support lasts only moves forward;
/// - after [`end`](Self::end) there is no support, whatever is said later.
#[derive(Debug)]
pub(crate) struct Support {
    clock: Arc<dyn Clock>,
    /// Nanoseconds after the clock's origin, or [`ENDED`].
    until: AtomicU64,
    ended: Notify,
}

impl Support {
    /// No support yet.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, until: AtomicU64::new(0), ended: Notify::new() }
    }

    /// The control plane supports this run until `until`, by this node's clock: counted from when the
    /// question was sent, never from when the answer came. An answer that is late, repeated or out of
    /// order is harmless.
    ///
    /// Call it only after every gate was brought to the topology version that the answer names. Where
    /// support had lapsed, another node may have been elected in between, and an older gate, still
    /// open, would be valid once more.
    pub(crate) fn extend(&self, until: Instant) {
        // Release: who sees this time also sees the gates that were closed before it.
        self.until.fetch_max(to_nanos(until), Ordering::Release);
    }

    /// The node stops: support is over for good, and everybody who waits is told.
    pub(crate) fn end(&self) {
        self.until.store(ENDED, Ordering::Release);
        self.ended.notify_waiters();
    }

    /// When support runs out unless it is extended; the clock's origin once it has ended.
    pub(crate) fn until(&self) -> Instant {
        match self.until.load(Ordering::Acquire) {
            ENDED => Instant::ORIGIN,
            nanos => Instant::at(Duration::from_nanos(nanos)),
        }
    }

    /// Whether there is support at `now`. Takes no lock.
    pub(crate) fn check(&self, now: Instant) -> Result<(), LeaseLost> {
        match self.until.load(Ordering::Acquire) {
            ENDED => Err(LeaseLost::Stopped),
            until if to_nanos(now) < until => Ok(()),
            _ => Err(LeaseLost::Expired),
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Wakes when [`end`](Self::end) is called after this, polled or not.
    pub(super) fn ended(&self) -> Notified<'_> {
        self.ended.notified()
    }

    /// Wakes when support would have run out by what is known now. It may have been extended since.
    pub(super) async fn run_out(&self) {
        self.clock.sleep_until(self.until()).await;
    }
}

fn to_nanos(instant: Instant) -> u64 {
    let nanos = u64::try_from(instant.elapsed().as_nanos()).unwrap_or(UNTIL_MAX);
    nanos.min(UNTIL_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{HandClock, at};
    use super::*;

    #[test]
    fn support_begins_with_an_answer_and_ends_at_its_time() {
        let support = Support::new(Arc::new(HandClock::default()));
        assert_eq!(support.check(Instant::ORIGIN), Err(LeaseLost::Expired));
        support.extend(at(10));
        assert_eq!(support.check(at(9)), Ok(()));
        assert_eq!(support.check(at(10)), Err(LeaseLost::Expired), "the end is not in it");
    }

    #[test]
    fn support_never_moves_back() {
        let support = Support::new(Arc::new(HandClock::default()));
        for (answer, expect) in [(10, 10), (30, 30), (20, 30), (30, 30), (31, 31)] {
            support.extend(at(answer));
            assert_eq!(support.until(), at(expect));
        }
    }

    #[test]
    fn support_that_ended_never_comes_back() {
        let support = Support::new(Arc::new(HandClock::default()));
        support.extend(at(10));
        support.end();
        support.extend(at(20));
        support.extend(Instant::at(Duration::MAX));
        assert_eq!(support.check(at(0)), Err(LeaseLost::Stopped));
        assert_eq!(support.until(), Instant::ORIGIN);
    }

    #[test]
    fn support_without_an_end_is_no_end_of_support() {
        let support = Support::new(Arc::new(HandClock::default()));
        support.extend(Instant::at(Duration::MAX));
        assert_eq!(support.check(at(1_000_000)), Ok(()));
    }
}
