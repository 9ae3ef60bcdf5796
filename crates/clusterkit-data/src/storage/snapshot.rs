//! States on their way to other nodes and from them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use clusterkit_core::replica::ReplicaKey;
use clusterkit_storage::state_store::{ApplyError, Digest, Install, InstallError, Snapshot, StateError};

use super::shared::{Shared, state_of};

/// Opens states to be sent, and takes those that come. Calls block.
#[derive(Debug, Clone)]
pub(crate) struct Snapshots {
    shared: Arc<Shared>,
}

/// A state to be sent, as it was when it was opened.
pub(crate) struct SnapshotReader {
    snapshot: Box<dyn Snapshot>,
    shared: Arc<Shared>,
    key: ReplicaKey,
}

/// A state that comes. Dropping it leaves everything as it is.
#[derive(Debug)]
pub(crate) struct Receiver {
    install: Box<dyn Install>,
    shared: Arc<Shared>,
    key: ReplicaKey,
}

/// A state that came as a whole, and is not in its place.
#[derive(Debug)]
pub(crate) struct Arrived {
    install: Box<dyn Install>,
    digest: Digest,
}

impl Snapshots {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The state of a replica as it is now, and where it ends. Nothing if nothing was applied to it, or if it is
    /// damaged.
    ///
    /// # Errors
    ///
    /// What the store says; a replica that is damaged is told to be.
    pub(crate) fn open_snapshot(&self, key: ReplicaKey) -> Result<Option<(u64, SnapshotReader)>, StateError> {
        if self.shared.is_damaged(key) {
            return Ok(None);
        }
        let snapshot = self.shared.store.snapshot(state_of(key));
        let Some(snapshot) = noting_damage(&self.shared, key, snapshot)? else { return Ok(None) };
        let end = snapshot.digest().applied_index;
        let reader = SnapshotReader { snapshot, shared: Arc::clone(&self.shared), key };
        Ok((end > 0).then_some((end, reader)))
    }

    /// Begins to take a state for a replica. It may be applied to meanwhile.
    ///
    /// # Errors
    ///
    /// What the store says; nothing changed.
    pub(crate) fn begin_install(&self, key: ReplicaKey) -> Result<Receiver, InstallError> {
        // One that is missing is made now: the store does not replace one that came to be meanwhile.
        match self.shared.store.apply(state_of(key), &[], 0) {
            Ok(()) | Err(ApplyError::NotNewer { .. }) => {}
            Err(ApplyError::Full { free_bytes, needed_bytes }) => {
                return Err(InstallError::Full { free_bytes, needed_bytes });
            }
            Err(ApplyError::State(error)) => return Err(error.into()),
            Err(ApplyError::TooLarge { position }) => return Err(InstallError::TooLarge { position }),
            Err(_) => return Err(InstallError::Replaced),
        }
        let install = self.shared.store.install(state_of(key))?;
        Ok(Receiver { install, shared: Arc::clone(&self.shared), key })
    }

    /// Throws a state away that came as a whole and is not to be installed.
    pub(crate) fn discard(&self, key: ReplicaKey, end: u64) {
        drop(self.shared.take_arrived(key, end));
    }
}

impl SnapshotReader {
    /// What the other side is to compare.
    pub(crate) fn digest(&self) -> Digest {
        self.snapshot.digest()
    }

    /// The next entries, as many as fit into `bytes_max`, and one at least. Nothing at the end.
    ///
    /// # Errors
    ///
    /// What the store says; a replica that is damaged is told to be.
    pub(crate) fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Vec<(Bytes, Bytes)>>, StateError> {
        let chunk = self.snapshot.next_chunk(bytes_max);
        noting_damage(&self.shared, self.key, chunk)
    }
}

impl fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotReader").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Receiver {
    /// Takes more entries, in any order.
    ///
    /// # Errors
    ///
    /// What the store says; begin again, later.
    pub(crate) fn push(&mut self, entries: &[(Bytes, Bytes)]) -> Result<(), InstallError> {
        self.install.push(entries)
    }

    /// Everything came. It is kept until a [`LogChange::Install`](clusterkit_core::replica::LogChange::Install) whose
    /// header names the same end is carried out, which compares the digest, or until it is discarded. Not kept, and
    /// false, if another one with this end is: that one may be about to be installed.
    #[must_use]
    pub(crate) fn ready(self, digest: Digest) -> bool {
        let Self { install, shared, key } = self;
        shared.keep_arrived(key, digest.applied_index, Arrived { install, digest })
    }
}

impl Arrived {
    pub(super) fn finish(self) -> Result<(), InstallError> {
        self.install.finish(self.digest)
    }
}

fn noting_damage<T>(
    shared: &Shared,
    key: ReplicaKey,
    outcome: Result<T, StateError>,
) -> Result<T, StateError> {
    if let Err(StateError::Damaged(damage)) = &outcome {
        shared.damage(key, damage);
        shared.note_damage(damage.clone());
    }
    outcome
}
