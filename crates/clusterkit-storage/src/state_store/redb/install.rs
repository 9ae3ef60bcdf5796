//! Copies of replicas: out of a store, and into one.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::file::{StateFile, View};
use super::record::{Generation, Row};
use super::space::{Admitted, MissingRoom, cost_bytes};
use super::{Health, Inner};
use crate::state_store::digest::Tally;
use crate::state_store::{
    Digest, Gathered, Install, InstallError, Query, ReplicaKey, Snapshot, StateError, check_entries,
};

/// A view of a replica in a file.
pub(super) struct FileSnapshot {
    file: Arc<StateFile>,
    replica: ReplicaKey,
    view: View,
    row: Row,
    after: Option<Bytes>,
    is_complete: bool,
}

impl FileSnapshot {
    pub(super) fn new(file: Arc<StateFile>, replica: ReplicaKey, view: View, row: Row) -> Self {
        FileSnapshot { file, replica, view, row, after: None, is_complete: false }
    }
}

impl fmt::Debug for FileSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSnapshot").field("replica", &self.replica).finish_non_exhaustive()
    }
}

impl Snapshot for FileSnapshot {
    fn digest(&self) -> Digest {
        self.row.digest()
    }

    fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Vec<(Bytes, Bytes)>>, StateError> {
        if self.is_complete {
            return Ok(None);
        }
        let start = self.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let query = Query { start, ..Query::default() };
        let mut gathered = Gathered::new(query.entries_max, bytes_max);
        let gather = |view: &View| view.gather(self.replica, self.row.generation, &query, &mut gathered);
        let is_complete = self.file.read_view(&self.view, gather).map_err(|error| match error {
            StateError::Damaged(damage) => damage.at(self.replica, self.after.as_deref()).into(),
            other => other,
        })?;
        self.is_complete = is_complete;
        self.after = gathered.entries.last().map(|(key, _)| key.clone()).or(self.after.take());
        Ok(Some(gathered.entries).filter(|entries| !entries.is_empty()))
    }
}

/// A generation of entries that is to replace a replica's.
pub(super) struct FileInstall {
    inner: Arc<Inner>,
    file: Arc<StateFile>,
    replica: ReplicaKey,
    generation: Generation,
    /// The generation that it may replace.
    replaced: Option<Generation>,
    tally: Tally,
}

impl FileInstall {
    pub(super) fn begin(inner: Arc<Inner>, replica: ReplicaKey) -> Result<Self, InstallError> {
        let file = inner.file_of(replica);
        let admitted = inner.admit_install(0, 0)?;
        let (generation, replaced) = file.begin_install(replica)?;
        drop(admitted);
        Ok(FileInstall { inner, file, replica, generation, replaced, tally: Tally::default() })
    }
}

impl fmt::Debug for FileInstall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileInstall").field("replica", &self.replica).finish_non_exhaustive()
    }
}

impl Install for FileInstall {
    fn push(&mut self, entries: &[(Bytes, Bytes)]) -> Result<(), InstallError> {
        let bytes = check_entries(entries)?;
        let _admitted = self.inner.admit_install(entries.len(), bytes)?;
        self.tally = self.file.push_installed((self.replica, self.generation), entries, self.tally)?;
        Ok(())
    }

    fn finish(self: Box<Self>, expected: Digest) -> Result<(), InstallError> {
        if self.tally.at(expected.applied_index) != expected {
            return Err(InstallError::Different { pushed: self.tally.entries, expected: expected.entries });
        }
        let _admitted = self.inner.unwritten.admit(cost_bytes(0, 0));
        let row = Row { generation: self.generation, applied: expected.applied_index, tally: self.tally };
        self.file.finish_install(self.replica, self.replaced, row)
    }
}

impl Drop for FileInstall {
    fn drop(&mut self) {
        self.file.end_install(self.generation);
    }
}

impl Inner {
    fn admit_install(&self, entries: usize, bytes: usize) -> Result<Admitted<'_>, InstallError> {
        self.admit(cost_bytes(entries, bytes))?.map_err(|MissingRoom { free_bytes, needed_bytes }| {
            InstallError::Full { free_bytes, needed_bytes }
        })
    }
}

impl Health {
    /// Refuses everything once a write failed.
    pub(super) fn check(&self) -> Result<(), StateError> {
        if self.is_poisoned() { Err(StateError::Poisoned) } else { Ok(()) }
    }
}
