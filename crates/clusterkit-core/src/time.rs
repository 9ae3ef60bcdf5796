//! Points in time, given from outside.

use core::ops::Add;
use core::time::Duration;

/// A point on a node's monotonic clock: the time since an origin that the shell chose.
///
/// Two instants compare only when they come from the same node and the same run. Core never asks
/// for one; the shell says what time it is. Its clock must go on while the machine sleeps (`CLOCK_BOOTTIME`):
/// promises between nodes count that time, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

impl Instant {
    /// The clock's origin.
    pub const ORIGIN: Self = Self(Duration::ZERO);

    /// The instant at `elapsed` after the origin.
    #[must_use]
    pub const fn at(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// The time since the origin.
    #[must_use]
    pub const fn elapsed(self) -> Duration {
        self.0
    }

    /// The time since `earlier`, zero when `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_never_goes_below_zero() {
        let early = Instant::at(Duration::from_millis(5));
        let late = early + Duration::from_millis(7);
        assert_eq!(late.since(early), Duration::from_millis(7));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
