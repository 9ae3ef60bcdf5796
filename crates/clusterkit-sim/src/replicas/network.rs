//! The network: who hears whom, how late, how often.

use std::time::Duration;

use clusterkit_core::time::Instant;

use super::chance::Chance;

/// The control plane's place among the sites; nodes are 0 to 6.
pub(super) const CONTROL: usize = 7;
/// Sites there are at most.
pub(super) const SITES: usize = 8;

/// The links between all sites.
#[derive(Debug)]
pub(super) struct Network {
    blocked_until: [[Instant; SITES]; SITES],
    /// Added to every link from a site.
    slow_until: [Instant; SITES],
    slow_by: Duration,
    latency: Duration,
    jitter: Duration,
    pub(super) loss_permille: u64,
    pub(super) repeat_permille: u64,
    pub(super) late_permille: u64,
}

impl Network {
    pub(super) fn new(latency: Duration, jitter: Duration) -> Self {
        Self {
            blocked_until: [[Instant::ORIGIN; SITES]; SITES],
            slow_until: [Instant::ORIGIN; SITES],
            slow_by: Duration::ZERO,
            latency,
            jitter,
            loss_permille: 0,
            repeat_permille: 0,
            late_permille: 0,
        }
    }

    /// Nothing passes from one site to the other until then.
    pub(super) fn block(&mut self, from: usize, to: usize, until: Instant) {
        let blocked = &mut self.blocked_until[from][to];
        *blocked = until.max(*blocked);
    }

    /// Everything from a site takes longer until then.
    pub(super) fn slow(&mut self, from: usize, until: Instant, by: Duration) {
        self.slow_until[from] = until;
        self.slow_by = by;
    }

    pub(super) fn is_open(&self, now: Instant, from: usize, to: usize) -> bool {
        self.blocked_until[from][to] <= now
    }

    /// When copies of a message that is sent now arrive: none, one or two.
    pub(super) fn arrivals(
        &self,
        chance: &mut Chance,
        now: Instant,
        (from, to): (usize, usize),
    ) -> [Option<Duration>; 2] {
        if !self.is_open(now, from, to) || chance.permille(self.loss_permille) {
            return [None, None];
        }
        let first = Some(self.delay(chance, now, from));
        let second = chance.permille(self.repeat_permille).then(|| self.delay(chance, now, from) * 4);
        [first, second]
    }

    fn delay(&self, chance: &mut Chance, now: Instant, from: usize) -> Duration {
        let jitter = self.jitter.as_micros() as u64;
        let late = match chance.permille(self.late_permille) {
            true if chance.permille(500) => chance.millis(5, 120),
            true => chance.millis(10, 1_500),
            false => Duration::ZERO,
        };
        let slow = if self.slow_until[from] > now { self.slow_by } else { Duration::ZERO };
        self.latency + chance.micros(0, jitter) + late + slow
    }

    /// Everybody hears everybody, soon and once.
    pub(super) fn heal(&mut self) {
        *self = Self::new(self.latency, self.jitter);
    }
}
