//! The time in a record: wall time that never goes back and never jumps (rule W3).

use core::time::Duration;

use super::config::Config;
use super::record::LogTime;
use crate::time::Instant;

/// How far a wall clock may be from the last record of a log before people are told.
const JUMP_MAX: Duration = Duration::from_mins(1);
/// A leader's time runs at most this many percent faster or slower than its monotonic clock, to meet the wall.
const SLEW_PERCENT: u128 = 10;

/// The clock of a leader's records: the wall clock at its election, carried on by the monotonic one, and slewed
/// to the wall clock since.
#[derive(Debug)]
pub(super) struct Stamps {
    anchored_at: Instant,
    anchor_us: u128,
}

impl Stamps {
    /// Begins at the wall clock, or at the last stamp of the log if that is later. The second value is by how much
    /// the wall clock is ahead, where that is more than a minute either way.
    pub(super) fn new(now: Instant, wall_ms: u64, last: LogTime, _: &Config) -> (Self, Option<i64>) {
        let ahead = i64::try_from(i128::from(wall_ms) - i128::from(last.0)).unwrap_or(i64::MAX);
        let is_jump = last.0 > 0 && u128::from(ahead.unsigned_abs()) > JUMP_MAX.as_millis();
        let anchor_us = u128::from(wall_ms.max(last.0)) * 1_000;
        (Self { anchored_at: now, anchor_us }, is_jump.then_some(ahead))
    }

    /// The stamp of the next record.
    pub(super) fn stamp(&mut self, now: Instant, wall_ms: u64, last: LogTime) -> LogTime {
        let elapsed = now.since(self.anchored_at).as_micros();
        let carried = self.anchor_us + elapsed;
        let slew = elapsed * SLEW_PERCENT / 100;
        let wall = u128::from(wall_ms) * 1_000;
        self.anchor_us = wall.clamp(carried - slew.min(carried), carried + slew);
        self.anchored_at = now;
        LogTime(u64::try_from(self.anchor_us / 1_000).unwrap_or(u64::MAX).max(last.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn at(ms: u64) -> Instant {
        Instant::at(Duration::from_millis(ms))
    }

    #[test]
    fn a_wall_clock_that_jumps_is_met_slowly() {
        let (mut stamps, ahead) = Stamps::new(at(0), HOUR_MS, LogTime(HOUR_MS), &Config::default());
        assert_eq!(ahead, None);
        let mut check =
            |now, wall, expect| assert_eq!(stamps.stamp(at(now), wall, LogTime(0)), LogTime(expect));
        check(1_000, HOUR_MS + 1_000, HOUR_MS + 1_000);
        check(2_000, 3 * HOUR_MS, HOUR_MS + 2_100);
        check(3_000, 0, HOUR_MS + 3_000);
    }

    #[test]
    fn stamps_never_go_back() {
        let (mut stamps, _) = Stamps::new(at(0), 0, LogTime(500), &Config::default());
        assert_eq!(stamps.stamp(at(0), 0, LogTime(500)), LogTime(500));
        assert_eq!(stamps.stamp(at(100), 0, LogTime(700)), LogTime(700));
    }

    #[test]
    fn a_clock_far_from_the_log_is_told() {
        let check = |wall, last, expect| {
            assert_eq!(Stamps::new(at(0), wall, LogTime(last), &Config::default()).1, expect);
        };
        check(HOUR_MS, HOUR_MS + 60_000, None);
        check(HOUR_MS, HOUR_MS + 60_001, Some(-60_001));
        check(2 * HOUR_MS, HOUR_MS, Some(HOUR_MS as i64));
        check(HOUR_MS, 0, None);
    }
}
