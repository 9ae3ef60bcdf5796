//! What is not to be tried again for a while, and for longer each time.

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::time::Instant;

/// The first pause; it doubles each time.
pub(super) const PAUSE_MIN: Duration = Duration::from_secs(2);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The pauses of whatever `Key` names. One that is over is remembered for as long again, so that the next
/// one is longer.
#[derive(Debug)]
pub(super) struct Pauses<Key> {
    pauses: BTreeMap<Key, Pause>,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Instant,
    length: Duration,
}

impl<Key> Default for Pauses<Key> {
    fn default() -> Self {
        Self { pauses: BTreeMap::new() }
    }
}

impl<Key: Ord> Pauses<Key> {
    pub(super) fn begin(&mut self, now: Instant, key: Key) {
        let earlier = self.pauses.get(&key).filter(|pause| pause.is_remembered(now));
        let length = earlier.map_or(PAUSE_MIN, |pause| (pause.length * 2).min(PAUSE_MAX));
        self.pauses.insert(key, Pause { until: now + length, length });
    }

    pub(super) fn holds(&self, now: Instant, key: &Key) -> bool {
        self.pauses.get(key).is_some_and(|pause| pause.until > now)
    }

    /// Whatever pauses now.
    pub(super) fn held(&self, now: Instant) -> impl Iterator<Item = &Key> {
        self.pauses.iter().filter(move |(_, pause)| pause.until > now).map(|(key, _)| key)
    }

    /// When the next pause is over.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.pauses.values().map(|pause| pause.until).filter(|until| *until > now).min()
    }

    /// Forgets pauses that are long over; whether one has ended since `earlier`.
    pub(super) fn handle_timeout(&mut self, earlier: Instant, now: Instant) -> bool {
        let ended = self.pauses.values().any(|pause| pause.until > earlier && pause.until <= now);
        self.pauses.retain(|_, pause| pause.is_remembered(now));
        ended
    }
}

impl Pause {
    fn is_remembered(self, now: Instant) -> bool {
        self.until + self.length > now
    }
}
