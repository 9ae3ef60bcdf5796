//! The clocks of one node. The monotonic one runs within five percent of true time, counts pauses, and begins
//! anew when the machine does; the wall clock jumps.

use std::time::Duration;

use clusterkit_core::time::Instant;

/// True rate, in millionths.
pub(super) const RATE_TRUE: u64 = 1_000_000;
/// Rates that a clock may have: five percent off either way.
pub(super) const RATES: (u64, u64) = (950_000, 1_050_000);
/// The wall clock at the start of true time.
const WALL_START_MS: i64 = 1_700_000_000_000;

/// What a node reads time from.
#[derive(Debug)]
pub(super) struct Clock {
    /// At this true time the local clock showed `local`, and has run at `rate` since.
    since: Instant,
    local: Instant,
    rate: u64,
    wall_offset_ms: i64,
}

impl Clock {
    pub(super) fn new(local: Duration, rate: u64) -> Self {
        Self { since: Instant::ORIGIN, local: Instant::at(local), rate, wall_offset_ms: 0 }
    }

    pub(super) fn local(&self, now: Instant) -> Instant {
        let elapsed = nanos(now.since(self.since)) * self.rate / RATE_TRUE;
        self.local + Duration::from_nanos(elapsed)
    }

    /// The first true time at which the local clock shows `local`.
    pub(super) fn true_time(&self, local: Instant) -> Instant {
        let ahead = nanos(local.since(self.local));
        self.since + Duration::from_nanos((ahead * RATE_TRUE).div_ceil(self.rate) + 2)
    }

    pub(super) fn wall_ms(&self, now: Instant) -> u64 {
        let true_ms = i64::try_from(now.elapsed().as_millis()).unwrap_or(i64::MAX);
        u64::try_from(WALL_START_MS + true_ms + self.wall_offset_ms).unwrap_or(0)
    }

    pub(super) fn change_rate(&mut self, now: Instant, rate: u64) {
        self.local = self.local(now);
        self.since = now;
        self.rate = rate;
    }

    /// The machine starts: its monotonic clock begins anew.
    pub(super) fn restart(&mut self, now: Instant, local: Duration) {
        self.since = now;
        self.local = Instant::at(local);
    }

    pub(super) fn jump(&mut self, by_ms: i64) {
        self.wall_offset_ms = (self.wall_offset_ms + by_ms).clamp(-100_000_000, 1_000_000_000);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
