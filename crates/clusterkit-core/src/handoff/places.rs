//! How many hooks of one kind run at once, and who is next.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::id::PartitionId;
use crate::time::Instant;

/// Who waits for a stage, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// Nobody serves the partition before it is done.
    Leader,
    /// Writes, since the in-sync set counts on the replica.
    Writes,
    /// A copy that is to be made, or given up.
    Copy,
}

/// The places of one node, in two pools.
///
/// What leaders and writes wait for has places of its own: where copies wait for a leader on another
/// node, and that leader for a place that such copies hold, none would ever end. Nothing that takes one
/// of these waits for another node, and one that is late gives its place up, so that hooks that hang keep
/// no others from running.
///
/// Invariants:
/// - of each pool at most `places_max` are taken;
/// - a partition takes at most one place, and waits for at most one.
#[derive(Debug)]
pub(super) struct Places {
    places_max: usize,
    copies: BTreeSet<PartitionId>,
    /// Each with the time at which it is late.
    needed: BTreeMap<PartitionId, Instant>,
    waiting: BTreeSet<(Need, PartitionId)>,
    waiting_for: BTreeMap<PartitionId, Need>,
}

impl Places {
    pub(super) fn new(places_max: usize) -> Self {
        Self {
            places_max,
            copies: BTreeSet::new(),
            needed: BTreeMap::new(),
            waiting: BTreeSet::new(),
            waiting_for: BTreeMap::new(),
        }
    }

    pub(super) fn has_room(&self, need: Need) -> bool {
        match need {
            Need::Copy => self.copies.len() < self.places_max,
            Need::Leader | Need::Writes => self.needed.len() < self.places_max,
        }
    }

    /// Takes a place, until it is left or, where it is needed, until `late_at`.
    pub(super) fn take(&mut self, partition: PartitionId, need: Need, late_at: Instant) {
        assert!(self.has_room(need), "room was looked for");
        match need {
            Need::Copy => _ = self.copies.insert(partition),
            Need::Leader | Need::Writes => _ = self.needed.insert(partition, late_at),
        }
    }

    pub(super) fn leave(&mut self, partition: PartitionId) {
        self.copies.remove(&partition);
        self.needed.remove(&partition);
    }

    /// Waits for a place, and for no other one any more.
    pub(super) fn wait(&mut self, partition: PartitionId, need: Need) {
        self.wait_no_more(partition);
        self.waiting.insert((need, partition));
        self.waiting_for.insert(partition, need);
    }

    pub(super) fn wait_no_more(&mut self, partition: PartitionId) {
        if let Some(need) = self.waiting_for.remove(&partition) {
            self.waiting.remove(&(need, partition));
        }
    }

    pub(super) fn waits(&self, partition: PartitionId) -> bool {
        self.waiting_for.contains_key(&partition)
    }

    /// The next one for which there is room; it waits no more.
    pub(super) fn next(&mut self) -> Option<PartitionId> {
        let first_copy = (Need::Copy, PartitionId(0));
        let needed = self.waiting.range(..first_copy).next().filter(|_| self.has_room(Need::Writes));
        let copy = || self.waiting.range(first_copy..).next().filter(|_| self.has_room(Need::Copy));
        let (_, partition) = needed.or_else(copy).copied()?;
        self.wait_no_more(partition);
        Some(partition)
    }

    /// Frees the places of those that are late.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.needed.retain(|_, late_at| *late_at > now);
    }

    /// When a place becomes free that somebody waits for, if nothing ends before.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let first = self.waiting.first()?;
        self.needed.values().min().copied().filter(|_| first.0 != Need::Copy)
    }
}
