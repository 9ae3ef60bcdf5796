//! Whom to greet next, and when.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::{BACKOFF_MAX, CANDIDATES_MAX, SEEDS_MAX};
use crate::time::Instant;

/// Addresses that are no seeds; more are not greeted until others are forgotten.
const HINTS_MAX: usize = CANDIDATES_MAX * 2;
/// Beats after which a greeting without any outcome counts as lost.
const LOST_AFTER_BEATS: u32 = 5;

/// The addresses this node greets: its seeds for good, all others while somebody speaks of them.
#[derive(Debug)]
pub(super) struct Contacts {
    beat: Duration,
    /// This node's own address, which is never greeted.
    me: String,
    by_addr: BTreeMap<String, Contact>,
}

#[derive(Debug)]
struct Contact {
    is_seed: bool,
    /// When it is forgotten, unless it is a seed.
    until: Instant,
    next_at: Instant,
    failing_since: Option<Instant>,
    failures: u32,
}

impl Contacts {
    pub(super) fn new(beat: Duration, me: String) -> Self {
        Self { beat, me, by_addr: BTreeMap::new() }
    }

    /// The seeds are exactly these, but for what is over the bound. A seed of before stays as long
    /// as any address that was heard of.
    pub(super) fn replace_seeds(&mut self, now: Instant, seeds: impl IntoIterator<Item = String>) {
        for contact in self.by_addr.values_mut() {
            contact.is_seed = false;
        }
        for seed in seeds.into_iter().filter(|seed| *seed != self.me).take(SEEDS_MAX) {
            self.by_addr.entry(seed).or_insert_with(|| Contact::new(now, now)).is_seed = true;
        }
    }

    /// Somebody is at `addr`: it is greeted until `until` at least, if there is room.
    pub(super) fn mention(&mut self, now: Instant, addr: &str, until: Instant) {
        if let Some(contact) = self.by_addr.get_mut(addr) {
            contact.until = contact.until.max(until);
        } else if addr != self.me && self.has_room(now) {
            self.by_addr.insert(addr.to_string(), Contact::new(now, until));
        }
    }

    /// The node that is reached at `node_addr` answered at `addr`. An address that is another name
    /// for it is greeted from time to time only.
    pub(super) fn answered(&mut self, now: Instant, addr: &str, node_addr: &str) {
        let pause = if addr == node_addr { self.beat / 2 } else { BACKOFF_MAX.max(self.beat) };
        if let Some(contact) = self.by_addr.get_mut(addr) {
            contact.next_at = now + pause;
            contact.failures = 0;
            contact.failing_since = None;
        }
    }

    /// `addr` did not answer, and is greeted again after a while.
    pub(super) fn failed(&mut self, now: Instant, addr: &str, pause: Duration) {
        let Some(contact) = self.by_addr.get_mut(addr) else { return };
        contact.next_at = now + pause;
        contact.failures = contact.failures.saturating_add(1);
        contact.failing_since.get_or_insert(now);
    }

    /// How often in a row `addr` did not answer.
    pub(super) fn failures(&self, addr: &str) -> u32 {
        self.by_addr.get(addr).map_or(0, |contact| contact.failures)
    }

    /// Since when `addr` does not answer.
    pub(super) fn failing_since(&self, addr: &str) -> Option<Instant> {
        self.by_addr.get(addr)?.failing_since
    }

    /// This node itself is at `addr`.
    pub(super) fn forget(&mut self, addr: &str) {
        self.by_addr.remove(addr);
    }

    /// There is news for `addr`.
    pub(super) fn hurry(&mut self, now: Instant, addr: &str) {
        if let Some(contact) = self.by_addr.get_mut(addr) {
            contact.next_at = now;
        }
    }

    /// Those whose turn it is, at most `count`, the longest waiting first.
    pub(super) fn take_due(&mut self, now: Instant, count: usize) -> Vec<String> {
        self.by_addr.retain(|_, contact| contact.is_wanted(now));
        let due = self.by_addr.iter().filter(|(_, contact)| contact.next_at <= now);
        let mut due: Vec<_> = due.map(|(addr, contact)| (contact.next_at, addr.clone())).collect();
        due.sort();
        due.truncate(count);
        let lost_at = now + self.beat * LOST_AFTER_BEATS;
        for (_, addr) in &due {
            self.hurry(lost_at, addr);
        }
        due.into_iter().map(|(_, addr)| addr).collect()
    }

    fn has_room(&mut self, now: Instant) -> bool {
        self.by_addr.retain(|_, contact| contact.is_wanted(now));
        self.by_addr.values().filter(|contact| !contact.is_seed).count() < HINTS_MAX
    }
}

impl Contact {
    fn new(now: Instant, until: Instant) -> Self {
        Self { is_seed: false, until, next_at: now, failing_since: None, failures: 0 }
    }

    fn is_wanted(&self, now: Instant) -> bool {
        self.is_seed || self.until >= now
    }
}
