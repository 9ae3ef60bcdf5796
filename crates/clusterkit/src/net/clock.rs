//! What time it is.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clusterkit_core::time::Instant;

use super::BoxFuture;

/// The longest that [`SystemClock`] sleeps before it looks at the time again.
const SLEEP_SLICE_MAX: Duration = Duration::from_secs(1);

/// The time of one node.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// The monotonic time, which no one sets. It goes on while the machine sleeps, so that a promise
    /// for a time ends in time.
    fn now(&self) -> Instant;

    /// The time of day, which may jump. For people, and for what is stamped into entries; never to
    /// measure how long something took.
    fn wall(&self) -> WallTime;

    /// Ends at `deadline` or soon after it, at once when it has passed.
    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()>;
}

/// Milliseconds since the beginning of 1970 in UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub u64);

impl WallTime {
    /// The wall time of `time`; zero for a time before 1970.
    #[must_use]
    pub fn from_system(time: SystemTime) -> Self {
        let elapsed = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(millis(elapsed))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The clock of the machine.
///
/// Its origin is the start of the machine where the system says so (Linux), else the first look at
/// the clock. On Linux it counts the time that the machine slept.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::at(since_origin())
    }

    fn wall(&self) -> WallTime {
        WallTime::from_system(SystemTime::now())
    }

    /// Sleeps in slices, since the timers beneath do not count the time that the machine slept: what
    /// should have happened meanwhile happens at most one slice late.
    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        let clock = *self;
        Box::pin(async move {
            loop {
                let rest = deadline.since(clock.now());
                if rest.is_zero() {
                    return;
                }
                tokio::time::sleep(rest.min(SLEEP_SLICE_MAX)).await;
            }
        })
    }
}

#[cfg(target_os = "linux")]
fn since_origin() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}

#[cfg(not(target_os = "linux"))]
fn since_origin() -> Duration {
    static ORIGIN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    ORIGIN.get_or_init(std::time::Instant::now).elapsed()
}

/// The clock of the tokio runtime, for tests: with a paused runtime time goes on only when every
/// task waits, and then at once to the next deadline. Make it inside the runtime.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    origin: tokio::time::Instant,
    wall_at_origin: WallTime,
}

#[cfg(any(test, feature = "testing"))]
impl TokioClock {
    /// A clock whose origin is now, and which shows `wall_at_origin` now.
    #[must_use]
    pub fn new(wall_at_origin: WallTime) -> Self {
        Self { origin: tokio::time::Instant::now(), wall_at_origin }
    }
}

#[cfg(any(test, feature = "testing"))]
impl Clock for TokioClock {
    fn now(&self) -> Instant {
        Instant::at(self.origin.elapsed())
    }

    fn wall(&self) -> WallTime {
        WallTime(self.wall_at_origin.0.saturating_add(millis(self.origin.elapsed())))
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(self.origin + deadline.elapsed()))
    }
}

/// The clock of a machine that can be suspended: the timers of the tokio runtime stand still then, and
/// the time goes on.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct SuspendClock {
    awake: TokioClock,
    slept: std::sync::Mutex<Duration>,
}

#[cfg(test)]
impl SuspendClock {
    pub(crate) fn new(wall_at_origin: WallTime) -> Self {
        Self { awake: TokioClock::new(wall_at_origin), slept: std::sync::Mutex::default() }
    }

    pub(crate) fn suspend(&self, time: Duration) {
        *self.slept.lock().unwrap() += time;
    }

    fn slept(&self) -> Duration {
        *self.slept.lock().unwrap()
    }
}

#[cfg(test)]
impl Clock for SuspendClock {
    fn now(&self) -> Instant {
        self.awake.now() + self.slept()
    }

    fn wall(&self) -> WallTime {
        self.awake.wall()
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        self.awake.sleep_until(Instant::at(deadline.elapsed().saturating_sub(self.slept())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn system_clock_goes_forward_and_wakes_at_the_deadline() {
        let clock = SystemClock;
        let start = clock.now();
        let deadline = start + Duration::from_millis(5);
        clock.sleep_until(deadline).await;
        assert!(clock.now() >= deadline);
        clock.sleep_until(start).await;
    }

    #[test]
    fn wall_time_counts_milliseconds_since_1970() {
        let check = |time, expect| assert_eq!(WallTime::from_system(time), WallTime(expect));
        check(UNIX_EPOCH + Duration::from_millis(1_234), 1_234);
        check(UNIX_EPOCH - Duration::from_secs(1), 0);
        assert!(SystemClock.wall() > WallTime(1_700_000_000_000));
    }

    #[tokio::test(start_paused = true)]
    async fn tokio_clock_follows_virtual_time() {
        let clock = TokioClock::new(WallTime(1_000));
        let hour = Duration::from_secs(3_600);
        clock.sleep_until(Instant::at(hour)).await;
        assert_eq!(clock.now(), Instant::at(hour));
        assert_eq!(clock.wall(), WallTime(3_601_000));
    }
}
