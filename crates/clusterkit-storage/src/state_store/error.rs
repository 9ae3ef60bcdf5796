//! What can go wrong with a state store.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;

use super::ReplicaKey;
use crate::checked::ReadFileError;
use crate::disk::DiskError;
use crate::limits::{
    STATE_BATCH_BYTES_MAX, STATE_CHANGES_MAX, STATE_ENTRIES_MAX, STATE_FILES_MAX, STATE_KEY_BYTES_MAX,
    STATE_VALUE_BYTES_MAX,
};

/// A store could not do what was asked, for a reason that is not the caller's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// What is stored is not what was written. Nothing was changed or served. Never retry: take the replica out
    /// of every in-sync set and have it sent by another node. Damage to a page takes its whole file out of
    /// service, with all replicas in it, until [`StateStore::renew`](super::StateStore::renew).
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The disk failed. After a failed write or sync, what the last checkpoint made durable still is, and all later
    /// state is in doubt; the store refuses every later call: stop the node. A failed read takes its file out of
    /// service as damage does, and later calls report it as [`DamageKind::Unreadable`]. A full disk is of the kind
    /// [`StorageFull`](std::io::ErrorKind::StorageFull).
    #[error("the state store cannot go on")]
    Disk(#[from] DiskError),
    /// The engine refused. Nothing changed. It does not happen unless there is a mistake in the store.
    #[error("the engine of the state store refused")]
    Engine(#[source] Box<dyn Error + Send + Sync>),
    /// Nothing changed. An earlier call failed: stop the node.
    #[error("an earlier operation on this state store failed")]
    Poisoned,
}

/// A batch could not be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Nothing of the batch changed, and the disk has too little free space for it, after a checkpoint made what
    /// it could of it. Retry when it has more.
    #[error("{free_bytes} bytes are free on the disk, and {needed_bytes} must be")]
    Full {
        /// Bytes that are free.
        free_bytes: u64,
        /// Bytes that must be, with the headroom and what the next checkpoint may write.
        needed_bytes: u64,
    },
    /// Nothing changed. That index was applied before.
    #[error("entry {index} comes after {applied}, which is applied")]
    NotNewer {
        /// The index of the batch.
        index: u64,
        /// What was applied.
        applied: u64,
    },
    /// Nothing of the batch is visible.
    #[error(transparent)]
    State(#[from] StateError),
    /// Nothing changed; a retry cannot help. A key has more than [`STATE_KEY_BYTES_MAX`] bytes or a value more
    /// than [`STATE_VALUE_BYTES_MAX`].
    #[error(
        "change {position} has a key above {STATE_KEY_BYTES_MAX} or a value above {STATE_VALUE_BYTES_MAX} bytes"
    )]
    TooLarge {
        /// Which of the changes, counted from 0.
        position: usize,
    },
    /// Nothing changed; split the batch. It has more than [`STATE_CHANGES_MAX`] changes or
    /// [`STATE_BATCH_BYTES_MAX`] bytes.
    #[error(
        "{changes} changes of {bytes} bytes are more than {STATE_CHANGES_MAX} or {STATE_BATCH_BYTES_MAX}"
    )]
    TooMany {
        /// Its changes.
        changes: usize,
        /// Their bytes.
        bytes: usize,
    },
}

/// A replica could not be installed. The old one stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// What was pushed is not what was to be installed. Have it sent again.
    #[error("{pushed} entries were pushed, which are not the {expected} that were to be installed")]
    Different {
        /// Entries that came.
        pushed: u64,
        /// Entries that should have come.
        expected: u64,
    },
    /// The disk has too little free space. Retry when it has more.
    #[error("{free_bytes} bytes are free on the disk, and {needed_bytes} must be")]
    Full {
        /// Bytes that are free.
        free_bytes: u64,
        /// Bytes that must be, with the headroom and what the next checkpoint may write.
        needed_bytes: u64,
    },
    /// What was to be installed is older than what was applied meanwhile, and may be older than what a checkpoint
    /// told the log. Have a newer state sent.
    #[error("a state as of entry {index} comes before {applied}, which is applied")]
    Outdated {
        /// The index of what was to be installed.
        index: u64,
        /// What was applied.
        applied: u64,
    },
    /// The replica is not the one of which the installation began: it was created, dropped or replaced since.
    /// Begin again if it is still wanted.
    #[error("the replica was created, dropped or replaced since the installation began")]
    Replaced,
    /// The store failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// A key has more than [`STATE_KEY_BYTES_MAX`] bytes or a value more than [`STATE_VALUE_BYTES_MAX`]. A retry
    /// cannot help.
    #[error(
        "entry {position} has a key above {STATE_KEY_BYTES_MAX} or a value above {STATE_VALUE_BYTES_MAX} bytes"
    )]
    TooLarge {
        /// Which of the entries, counted from 0.
        position: usize,
    },
    /// There are more than [`STATE_ENTRIES_MAX`] entries or [`STATE_BATCH_BYTES_MAX`] bytes. Push fewer at once.
    #[error(
        "{entries} entries of {bytes} bytes are more than {STATE_ENTRIES_MAX} or {STATE_BATCH_BYTES_MAX}"
    )]
    TooMany {
        /// Entries that were pushed.
        entries: usize,
        /// Their bytes.
        bytes: usize,
    },
}

/// A store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Nothing changed. The options ask for no files, for more than [`STATE_FILES_MAX`], or for another number
    /// than the store was made with.
    #[error("the store has {stored} files, not {asked}; the most is {STATE_FILES_MAX}")]
    FileCount {
        /// What the options asked for.
        asked: u16,
        /// What the store has, or 0 if there is none.
        stored: u16,
    },
    /// Nothing changed. The files belong to another store.
    #[error("{} belongs to store {found:032x}", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// The store that they belong to.
        found: u128,
    },
    /// The manifest is damaged or not readable. Nothing changed. Keep the directory aside and have the replicas
    /// sent by other nodes.
    #[error("the manifest of the state store cannot be used")]
    Manifest(#[source] ReadFileError),
    /// There are files and no manifest. Nothing changed. Keep the directory aside and have the replicas sent by
    /// other nodes.
    #[error("{} has files of a state store and no manifest", dir.display())]
    ManifestMissing {
        /// The directory.
        dir: PathBuf,
    },
    /// A file is damaged, or the disk or the engine failed. With damage, set the file aside with
    /// [`RedbStore::set_aside`](super::RedbStore::set_aside), and have its replicas sent by other nodes.
    #[error(transparent)]
    State(#[from] StateError),
    /// A newer program wrote it. Nothing changed. Use that one.
    #[error("{} has version {version}, which this program does not know", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
}

impl From<DiskError> for OpenError {
    fn from(error: DiskError) -> Self {
        OpenError::State(error.into())
    }
}

impl From<Damage> for OpenError {
    fn from(damage: Damage) -> Self {
        OpenError::State(damage.into())
    }
}

/// Something that is stored is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// How it was seen.
    pub kind: DamageKind,
    /// The file, unless it was in memory.
    pub path: Option<PathBuf>,
    /// The replica that was read. Without one, every replica of the file may be damaged.
    pub replica: Option<ReplicaKey>,
    /// The key that was read, or the last one before the damage.
    pub key: Option<Bytes>,
}

impl Damage {
    pub(super) fn new(kind: DamageKind) -> Self {
        Damage { kind, path: None, replica: None, key: None }
    }

    pub(super) fn in_file(kind: DamageKind, path: &std::path::Path) -> Self {
        Damage { path: Some(path.to_path_buf()), ..Damage::new(kind) }
    }

    /// Names the replica and the key that were read, unless they are known better.
    pub(super) fn at(mut self, replica: ReplicaKey, key: Option<&[u8]>) -> Self {
        self.replica.get_or_insert(replica);
        self.key = self.key.or_else(|| key.map(Bytes::copy_from_slice));
        self
    }
}

impl Error for Damage {}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(path) = &self.path {
            write!(f, " in {}", path.display())?;
        }
        if let Some(ReplicaKey(replica)) = self.replica {
            write!(f, ", replica {replica}")?;
        }
        match &self.key {
            Some(key) => write!(f, ", key {key:?}"),
            None => Ok(()),
        }
    }
}

/// How damage to stored state was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DamageKind {
    /// The entries of a replica do not add up to its digest: one is missing or too many.
    #[error("the entries do not add up to their digest")]
    Digest,
    /// An entry's checksum does not match its replica, key and value.
    #[error("an entry's checksum does not match")]
    Entry,
    /// The header of the file is not whole.
    #[error("the header is not whole")]
    Header,
    /// The file is shorter than it was, or gone.
    #[error("the file is shorter than it was, or gone")]
    Length,
    /// A page is not what was written there.
    #[error("page {page} is not whole")]
    Page {
        /// The page, counted from 0.
        page: u64,
    },
    /// The file is older than a checkpoint that it was part of.
    #[error("the file is older than its last checkpoint")]
    RolledBack,
    /// The record of a replica is not whole.
    #[error("the record of a replica is not whole")]
    Row,
    /// The engine found that its pages contradict each other.
    #[error("the pages contradict each other")]
    Structure,
    /// The disk failed to read the file, which is out of service since.
    #[error("the disk failed to read the file")]
    Unreadable,
}
