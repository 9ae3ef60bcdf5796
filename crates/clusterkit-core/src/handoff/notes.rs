//! Which replicas this node may hold something of: written down before the first hook of a replica is
//! called, and struck out after its last, so that nothing is forgotten over a restart.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::call::Token;
use crate::id::{PartitionId, ReplicaUid};

type Entry = (PartitionId, ReplicaUid);

/// The durable list, with at most one write of it under way.
#[derive(Debug)]
pub(super) struct Notes {
    wanted: BTreeSet<Entry>,
    saved: BTreeSet<Entry>,
    saving: Option<(Token, BTreeSet<Entry>)>,
}

impl Notes {
    pub(super) fn new(recovered: impl IntoIterator<Item = Entry>) -> Self {
        let saved: BTreeSet<_> = recovered.into_iter().collect();
        Self { wanted: saved.clone(), saved, saving: None }
    }

    pub(super) fn add(&mut self, entry: Entry) {
        self.wanted.insert(entry);
    }

    pub(super) fn remove(&mut self, entry: Entry) {
        self.wanted.remove(&entry);
    }

    /// Whether `entry` would be known after a crash.
    pub(super) fn is_durable(&self, entry: Entry) -> bool {
        self.saved.contains(&entry)
    }

    /// The list to be written now, if one is.
    pub(super) fn begin(&mut self, token: Token) -> Option<Vec<Entry>> {
        if self.saving.is_some() || self.wanted == self.saved {
            return None;
        }
        self.saving = Some((token, self.wanted.clone()));
        Some(self.wanted.iter().copied().collect())
    }

    /// The write with `token` is durable: gives the entries that are so since.
    pub(super) fn end(&mut self, token: Token) -> Vec<Entry> {
        let Some((_, list)) = self.saving.take_if(|(saving, _)| *saving == token) else { return Vec::new() };
        let new = list.difference(&self.saved).copied().collect();
        self.saved = list;
        new
    }
}
