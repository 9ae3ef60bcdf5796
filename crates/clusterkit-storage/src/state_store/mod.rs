//! The applied state of all replicas that a node holds: ordered maps from bytes to bytes, each with the index
//! of the last entry of its log that was applied.
//!
//! The log alone makes a write durable; a state store is what the log amounts to, so that it need not be
//! replayed from its beginning. There are two: [`RedbStore`] on disk, and [`MemoryStore`] for state that may
//! be lost with the process. Both pass [`conformance::state_store`](crate::conformance::state_store()).
//!
//! # What is guaranteed
//!
//! - [`StateStore::apply`] makes a batch and its index visible together, or nothing of it. It costs no sync but
//!   where a file has to grow, and where space is low.
//! - What was applied survives a crash from the next [`StateStore::checkpoint`] on. After a crash each replica is
//!   as it was at the last checkpoint or at a later moment, with the index of that moment, never a mixture: so
//!   the log is replayed from [`StateStore::applied_index`], and may be released up to what the checkpoint
//!   returned. The same goes for [`Install::finish`] and [`StateStore::drop_replica`].
//! - An installation that did not end is never visible, and neither is one that a crash ended. One that ends never
//!   takes a replica back behind what was applied, and never takes the place of a replica that it did not begin with.
//! - A wrong value is never served. What the disk changed or lost is reported as [`Damage`], with its place. It
//!   stops nothing beyond its file, and [`StateStore::renew`] makes a damaged file usable again.
//! - What is applied has room on the disk together with all that waits for the next checkpoint, or is refused before
//!   anything of it is done. When space is low, a checkpoint is made early.
//! - After a failed write or sync every later call is refused: stop the node, and open the store in a new process.
//!
//! # Digests
//!
//! The digest of a replica is the sum, modulo 2^128, of one hash for each entry: XXH3 with 128 bits of the value,
//! seeded with XXH3 with 64 bits of the key. A sum does not depend on the order in which entries came to be, and
//! follows each change at the cost of hashing what is replaced and what replaces it. Two replicas that applied
//! the same entries of a log have equal digests at equal indexes, whatever store they are in. It finds accidents
//! and mistakes; it is no proof against somebody who chooses values.

mod digest;
mod error;
mod memory;
mod redb;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;

use bytes::Bytes;

pub use self::digest::Digest;
pub use self::error::{ApplyError, Damage, DamageKind, InstallError, OpenError, StateError};
pub use self::memory::MemoryStore;
pub use self::redb::{Options, RedbStore};

use crate::limits::{
    STATE_BATCH_BYTES_MAX, STATE_CHANGES_MAX, STATE_ENTRIES_MAX, STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX,
};

/// The state of the replicas of a node. All calls block, and any thread may make them. See the
/// [module](self) for what they guarantee.
pub trait StateStore: Send + Sync + fmt::Debug + 'static {
    /// Whether a checkpoint outlives the process. If not, every replica is missing after a restart, and its
    /// owner has it copied from another node.
    fn is_durable(&self) -> bool;

    /// Carries out changes in order and notes the index of the entry that asked for them, both or neither. A
    /// replica that is missing is created. The index must be above the one applied before.
    fn apply(&self, replica: ReplicaKey, changes: &[Change], index: u64) -> Result<(), ApplyError>;

    /// The value of a key. Nothing if the key or the replica is missing.
    fn get(&self, replica: ReplicaKey, key: &[u8]) -> Result<Option<Bytes>, StateError>;

    /// Entries in the order of their keys, as of one moment. None if the replica is missing.
    fn range(&self, replica: ReplicaKey, query: &Query<'_>) -> Result<Found, StateError>;

    /// The index of the last entry that was applied. Nothing if the replica is missing.
    fn applied_index(&self, replica: ReplicaKey) -> Result<Option<u64>, StateError>;

    /// The digest of all entries, with their number and the index. It is kept up to date, and costs as much as
    /// a [`StateStore::get`]. Nothing if the replica is missing.
    fn digest(&self, replica: ReplicaKey) -> Result<Option<Digest>, StateError>;

    /// The replicas, with what was applied to each.
    fn replicas(&self) -> Result<Replicas, StateError>;

    /// A view of a replica as it is now, to be read piece by piece while writes go on. What is replaced or
    /// removed meanwhile takes up space until the view is dropped. Nothing if the replica is missing.
    fn snapshot(&self, replica: ReplicaKey) -> Result<Option<Box<dyn Snapshot>>, StateError>;

    /// Begins to replace all of a replica by what another node sends, or to create it. The replica stays as it is,
    /// and may be written, until [`Install::finish`].
    fn install(&self, replica: ReplicaKey) -> Result<Box<dyn Install>, InstallError>;

    /// Removes a replica at once; its space comes back by [`StateStore::reclaim`]. Fine if it is missing.
    fn drop_replica(&self, replica: ReplicaKey) -> Result<(), StateError>;

    /// Frees up to `entries_max` entries (at most
    /// [`STATE_RECLAIM_ENTRIES_MAX`](crate::limits::STATE_RECLAIM_ENTRIES_MAX)) of replicas that were dropped or
    /// replaced, and of installations that did not end. What is damaged is passed by and reported.
    fn reclaim(&self, entries_max: usize) -> Result<Reclaimed, StateError>;

    /// Makes everything durable that was applied before the call. Says what is durable now for each replica:
    /// the log is not needed up to there. What is damaged is passed by and reported, and of it nothing is said.
    fn checkpoint(&self) -> Result<Replicas, StateError>;

    /// Gives up what is damaged, so that other nodes can send it again: the replica that was damaged is missing from
    /// then on, and on disk all replicas that share its file. Damage of an entry or of a digest needs no more than to
    /// drop or to install its replica.
    ///
    /// Take the replicas out of every in-sync set first, and stop whoever applies to them: a batch that comes later
    /// would create its replica with nothing else in it. On disk the damaged file is kept under another name, with
    /// `damaged` at its end, in the place of an earlier one; it may be removed. Nothing happens if the damage is of a
    /// file or replica that was renewed or replaced since, so a retry does no harm.
    fn renew(&self, damage: &Damage) -> Result<(), StateError>;

    /// Looks at the next `units_max` pages and entries (at most
    /// [`STATE_SCRUB_UNITS_MAX`](crate::limits::STATE_SCRUB_UNITS_MAX)) of everything that is stored, going on
    /// where the last call ended. Damage is reported in the result, and the scrub goes on behind it.
    fn scrub(&self, units_max: usize) -> Result<Scrubbed, StateError>;
}

/// A consistent view of a replica.
pub trait Snapshot: Send + fmt::Debug {
    /// Index, number and digest of all entries of the view, to be compared where they are installed.
    fn digest(&self) -> Digest;

    /// The next entries in the order of their keys: as many as fit into `bytes_max` (at most
    /// [`STATE_BATCH_BYTES_MAX`]), and one at least. Nothing at the end.
    fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Vec<(Bytes, Bytes)>>, StateError>;
}

/// A replica that is being replaced. Dropping it leaves the replica as it is.
pub trait Install: Send + fmt::Debug {
    /// Takes more entries, in any order. An entry that comes twice is there once.
    fn push(&mut self, entries: &[(Bytes, Bytes)]) -> Result<(), InstallError>;

    /// Replaces the replica by what was pushed, if that is what `expected` says. All reads that begin
    /// later see the new state. The index may be that of the replica or above. A replica that was missing when the
    /// installation began must still be, and one that was there must not have been dropped or replaced.
    fn finish(self: Box<Self>, expected: Digest) -> Result<(), InstallError>;
}

/// One replica of one partition on this node. The owner chooses it; one that was dropped may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaKey(pub u64);

/// A change of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Removes the entry, if it is there.
    Delete {
        /// Its key.
        key: Bytes,
    },
    /// Creates the entry, or replaces its value.
    Put {
        /// Its key, of at most [`STATE_KEY_BYTES_MAX`] bytes, and none is fine.
        key: Bytes,
        /// Its value, of at most [`STATE_VALUE_BYTES_MAX`] bytes, and none is fine.
        value: Bytes,
    },
}

impl Change {
    /// The key that is changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Change::Delete { key } | Change::Put { key, .. } => key,
        }
    }

    fn value_bytes(&self) -> usize {
        match self {
            Change::Delete { .. } => 0,
            Change::Put { value, .. } => value.len(),
        }
    }
}

/// Which entries to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// Where the keys begin.
    pub start: Bound<&'a [u8]>,
    /// Where the keys end.
    pub end: Bound<&'a [u8]>,
    /// From which end to read.
    pub order: Order,
    /// The most entries, at most [`STATE_ENTRIES_MAX`].
    pub entries_max: usize,
    /// The most bytes of keys and values, at most [`STATE_BATCH_BYTES_MAX`]. One entry is read at least.
    pub bytes_max: usize,
}

impl Default for Query<'_> {
    fn default() -> Self {
        Query {
            start: Bound::Unbounded,
            end: Bound::Unbounded,
            order: Order::Ascending,
            entries_max: STATE_ENTRIES_MAX,
            bytes_max: STATE_BATCH_BYTES_MAX,
        }
    }
}

impl Query<'_> {
    /// Whether no key can lie between the bounds.
    fn is_empty(&self) -> bool {
        match (self.start, self.end) {
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end))
            | (Bound::Excluded(start), Bound::Included(end)) => start >= end,
            _ => false,
        }
    }
}

/// From which end entries are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The smallest key first.
    Ascending,
    /// The largest key first.
    Descending,
}

/// Entries that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Keys and values, in the order that was asked for.
    pub entries: Vec<(Bytes, Bytes)>,
    /// Whether these are all between the bounds. If not, ask again from behind the last key.
    pub is_complete: bool,
}

/// Replicas of a store, with the index of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// The index of each replica that is whole, as far as it was looked at.
    pub indexes: BTreeMap<ReplicaKey, u64>,
    /// What is damaged. The owner takes the replicas named, or all of the file, out of every in-sync set. They may
    /// be missing from `indexes`, which does not mean that they were dropped.
    pub damages: Vec<Damage>,
}

impl Replicas {
    fn append(&mut self, mut more: Replicas) {
        self.indexes.append(&mut more.indexes);
        self.damages.append(&mut more.damages);
    }
}

/// What a step of reclaiming did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Entries that it removed.
    pub entries: usize,
    /// What is damaged and was passed by.
    pub damages: Vec<Damage>,
    /// Whether nothing is left that can be reclaimed.
    pub is_complete: bool,
}

/// What a step of a scrub saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Pages of files that it looked at. Not those that nobody has read or written since the store was opened:
    /// what is in use of them is read with the entries, and counted the next time.
    pub pages: u64,
    /// Entries that it looked at.
    pub entries: u64,
    /// What is damaged. The owner takes the replicas named, or all of the file, out of every in-sync set.
    pub damages: Vec<Damage>,
    /// Whether everything was looked at since the scrub began; the next step begins again.
    pub is_complete: bool,
}

/// Counts entries against the bounds of one reading.
#[derive(Debug)]
struct Gathered {
    entries: Vec<(Bytes, Bytes)>,
    entries_max: usize,
    bytes_left: usize,
}

impl Gathered {
    fn new(entries_max: usize, bytes_max: usize) -> Self {
        let entries_max = entries_max.min(STATE_ENTRIES_MAX);
        Gathered { entries: Vec::new(), entries_max, bytes_left: bytes_max.min(STATE_BATCH_BYTES_MAX) }
    }

    /// Whether an entry of these sizes still fits.
    fn has_room(&self, key: &[u8], value: &[u8]) -> bool {
        let fits = key.len() + value.len() <= self.bytes_left || self.entries.is_empty();
        self.entries.len() < self.entries_max && fits
    }

    fn push(&mut self, key: Bytes, value: Bytes) {
        self.bytes_left = self.bytes_left.saturating_sub(key.len() + value.len());
        self.entries.push((key, value));
    }
}

/// Refuses a batch that is too large, before anything of it is done.
fn check_changes(changes: &[Change]) -> Result<usize, ApplyError> {
    let sizes = changes.iter().map(|change| (change.key().len(), change.value_bytes()));
    let bytes = sizes.clone().map(|(key, value)| key + value).sum();
    if changes.len() > STATE_CHANGES_MAX || bytes > STATE_BATCH_BYTES_MAX {
        return Err(ApplyError::TooMany { changes: changes.len(), bytes });
    }
    let too_large = |(key, value): (usize, usize)| key > STATE_KEY_BYTES_MAX || value > STATE_VALUE_BYTES_MAX;
    match sizes.clone().position(too_large) {
        Some(position) => Err(ApplyError::TooLarge { position }),
        None => Ok(bytes),
    }
}

/// As [`check_changes`], for entries of an installation.
fn check_entries(entries: &[(Bytes, Bytes)]) -> Result<usize, InstallError> {
    let bytes = entries.iter().map(|(key, value)| key.len() + value.len()).sum();
    if entries.len() > STATE_ENTRIES_MAX || bytes > STATE_BATCH_BYTES_MAX {
        return Err(InstallError::TooMany { entries: entries.len(), bytes });
    }
    let too_large = |(key, value): &(Bytes, Bytes)| {
        key.len() > STATE_KEY_BYTES_MAX || value.len() > STATE_VALUE_BYTES_MAX
    };
    match entries.iter().position(too_large) {
        Some(position) => Err(InstallError::TooLarge { position }),
        None => Ok(bytes),
    }
}
