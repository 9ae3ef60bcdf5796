//! Values with versions, partition by partition, in memory.

use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clusterkit::core::id::{Incarnation, ReplicaUid};
use clusterkit::{Epoch, NodeId, PartitionId, PartitionVersion};
use serde::{Deserialize, Serialize};

/// Which of two values of a key is the newer one: the greater.
///
/// A leader numbers its writes: its epoch, then a count. A client that writes the copies by itself
/// takes the time in microseconds, then its own number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ValueVersion(pub u64, pub u64);

/// What a key has: a value, or a tombstone where it was deleted, so that an older value which arrives
/// late stays deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which of two entries is the newer one.
    pub version: ValueVersion,
    /// `None` is a tombstone.
    pub value: Option<String>,
}

/// What a leader does to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Deletes it.
    Delete,
    /// Deletes it, unless it has another version by now.
    DeleteIf(ValueVersion),
    /// Gives it a value.
    Set(String),
}

/// By which record of the partition a request was routed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routed {
    /// The fencing token.
    pub epoch: Epoch,
    /// The version of the record.
    pub version: PartitionVersion,
}

/// A replica that took a copy, in one run of its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copier {
    /// Where it is.
    pub node: NodeId,
    /// Which placement it is.
    pub uid: ReplicaUid,
    /// In which run of the node.
    pub incarnation: Incarnation,
    /// How often it had fallen out of the in-sync set, as its source knew.
    pub lapses: u64,
}

/// A key that has a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The version of the value.
    pub version: ValueVersion,
}

/// Some keys of a partition, in order, and whether there are more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The entries, tombstones included.
    pub entries: BTreeMap<String, Entry>,
    /// Whether the last of them is not the last of all.
    pub more: bool,
}

impl Page {
    /// What its keys and values weigh.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let value = |entry: &Entry| entry.value.as_ref().map_or(0, String::len);
        self.entries.iter().map(|(key, entry)| (key.len() + value(entry)) as u64).sum()
    }
}

/// The store does not do what it was asked for. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The key has another version than the change is for.
    #[error("the key has another version")]
    Changed,
    /// This node holds no copy of the partition, or not yet. Retry by a newer topology.
    #[error("this node holds no copy of the partition")]
    NotHeld,
    /// The request was routed by an older record than this copy has seen. Retry by one that is as new.
    #[error("routed by epoch {} and version {} or later only", floor.epoch, floor.version)]
    Stale {
        /// What is needed.
        floor: Routed,
    },
}

/// All partitions of one node.
///
/// Invariants of each partition:
/// - its floor only rises, and nothing below it is written or read;
/// - an entry is replaced by newer versions alone, so the order in which they arrive does not matter;
/// - a copier is noted together with the look at what it copies, so of a write and a copy either the
///   copy has the write, or the write's leader sees the copier.
#[derive(Debug, Default)]
pub struct Store {
    partitions: Mutex<BTreeMap<PartitionId, Held>>,
}

#[derive(Debug, Default)]
struct Held {
    uid: Option<ReplicaUid>,
    floor: Routed,
    entries: BTreeMap<String, Entry>,
    /// The last version that this node gave out as leader.
    numbered: ValueVersion,
    copiers: BTreeMap<NodeId, Copier>,
}

// What hooks do.
impl Store {
    /// Makes room for a replica. What is there of another placement is of no use, and goes.
    pub fn open(&self, partition: PartitionId, uid: ReplicaUid) {
        let mut partitions = self.partitions();
        let held = partitions.entry(partition).or_default();
        if held.uid != Some(uid) {
            *held = Held { uid: Some(uid), ..Held::default() };
        }
    }

    /// Forgets what a replica has, since it may be what a deposed leader wrote and nobody acknowledged.
    /// It is about to be copied.
    ///
    /// # Errors
    ///
    /// See [`Refused`].
    pub fn clear(&self, partition: PartitionId) -> Result<(), Refused> {
        self.with(partition, |held| held.entries.clear())
    }

    /// Gives up one replica, and nothing else.
    pub fn close(&self, partition: PartitionId, uid: ReplicaUid) {
        let mut partitions = self.partitions();
        if partitions.get(&partition).is_some_and(|held| held.uid == Some(uid)) {
            partitions.remove(&partition);
        }
    }

    /// Takes no writes of an older epoch any more. Who took copies under older ones is forgotten: they
    /// copy anew under this one before they count.
    ///
    /// # Errors
    ///
    /// See [`Refused`].
    pub fn activate(&self, partition: PartitionId, epoch: Epoch) -> Result<(), Refused> {
        self.with(partition, |held| {
            if epoch > held.floor.epoch {
                held.floor.epoch = epoch;
                held.copiers.clear();
            }
        })
    }

    /// Takes up what another copy has, where it is newer.
    ///
    /// # Errors
    ///
    /// See [`Refused`].
    pub fn merge(&self, partition: PartitionId, entries: BTreeMap<String, Entry>) -> Result<(), Refused> {
        self.with(partition, |held| entries.into_iter().for_each(|(key, entry)| held.take(key, entry)))
    }

    /// Serves a part of a copy: up to `count` keys after `after`. From now on nothing that was routed
    /// by an older record than `fence` is written or read here.
    ///
    /// # Errors
    ///
    /// See [`Refused`].
    pub fn copy(
        &self,
        partition: PartitionId,
        fence: Routed,
        copier: Copier,
        after: Option<&str>,
        count: usize,
    ) -> Result<Page, Refused> {
        self.with(partition, |held| {
            held.floor.epoch = held.floor.epoch.max(fence.epoch);
            held.floor.version = held.floor.version.max(fence.version);
            held.copiers.insert(copier.node.clone(), copier);
            held.page(after, count)
        })
    }
}

// What requests do.
impl Store {
    /// Writes an entry that somebody else gave its version. An older one than there is changes nothing,
    /// and is no error: the newer one was written later.
    ///
    /// # Errors
    ///
    /// See [`Refused`].
    pub fn write(
        &self,
        partition: PartitionId,
        routed: Routed,
        key: &str,
        entry: Entry,
    ) -> Result<(), Refused> {
        self.with_routed(partition, routed, |held| held.take(key.to_owned(), entry))
    }

    /// Changes a key as the partition's leader, and gives what it has then the next version of the
    /// epoch.
    ///
    /// # Errors
    ///
    /// See [`Refused`].
    pub fn lead(
        &self,
        partition: PartitionId,
        routed: Routed,
        key: &str,
        change: Change,
    ) -> Result<Entry, Refused> {
        self.with_routed(partition, routed, |held| {
            let value = match change {
                Change::Delete => None,
                Change::DeleteIf(version) if held.version(key) != Some(version) => {
                    return Err(Refused::Changed);
                }
                Change::DeleteIf(_) => None,
                Change::Set(value) => Some(value),
            };
            let count = if held.numbered.0 == routed.epoch.0 { held.numbered.1 + 1 } else { 1 };
            held.numbered = ValueVersion(routed.epoch.0, count);
            let entry = Entry { version: held.numbered, value };
            held.take(key.to_owned(), entry.clone());
            Ok(entry)
        })?
    }

    /// What `key` has, tombstone or value.
    ///
    /// # Errors
    ///
    /// See [`Refused`].
    pub fn read(&self, partition: PartitionId, routed: Routed, key: &str) -> Result<Option<Entry>, Refused> {
        self.with_routed(partition, routed, |held| held.entries.get(key).cloned())
    }

    /// What `key` has, as far as this copy knows.
    #[must_use]
    pub fn peek(&self, partition: PartitionId, key: &str) -> Option<Entry> {
        self.partitions().get(&partition)?.entries.get(key).cloned()
    }

    /// The first `count` values whose key begins with `prefix` and that `wanted` takes, in the order of
    /// their keys.
    pub fn find(
        &self,
        partition: PartitionId,
        prefix: &str,
        count: usize,
        mut wanted: impl FnMut(&str, &str) -> bool,
    ) -> Vec<Found> {
        let partitions = self.partitions();
        let Some(held) = partitions.get(&partition) else { return Vec::new() };
        let entries = held.after(Bound::Included(prefix)).take_while(|(key, _)| key.starts_with(prefix));
        let found = entries.filter_map(|(key, entry)| {
            let value = entry.value.as_ref().filter(|value| wanted(key, value))?;
            Some(Found { key: key.clone(), value: value.clone(), version: entry.version })
        });
        found.take(count).collect()
    }

    /// Who took a copy from here under the current epoch.
    #[must_use]
    pub fn copiers(&self, partition: PartitionId) -> Vec<Copier> {
        let partitions = self.partitions();
        partitions.get(&partition).map(|held| held.copiers.values().cloned().collect()).unwrap_or_default()
    }

    /// The partitions of which this node holds a copy.
    #[must_use]
    pub fn held(&self) -> Vec<PartitionId> {
        self.partitions().keys().copied().collect()
    }

    fn with_routed<T>(
        &self,
        partition: PartitionId,
        routed: Routed,
        act: impl FnOnce(&mut Held) -> T,
    ) -> Result<T, Refused> {
        self.with(partition, |held| held.admit(routed).map(|()| act(held)))?
    }

    fn with<T>(&self, partition: PartitionId, act: impl FnOnce(&mut Held) -> T) -> Result<T, Refused> {
        self.partitions().get_mut(&partition).map(act).ok_or(Refused::NotHeld)
    }

    fn partitions(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Held>> {
        // Nothing in here panics half way through a change.
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn admit(&mut self, routed: Routed) -> Result<(), Refused> {
        if routed.epoch < self.floor.epoch || routed.version < self.floor.version {
            return Err(Refused::Stale { floor: self.floor });
        }
        self.floor.epoch = routed.epoch;
        Ok(())
    }

    fn version(&self, key: &str) -> Option<ValueVersion> {
        self.entries.get(key).map(|entry| entry.version)
    }

    fn take(&mut self, key: String, entry: Entry) {
        let known = self.entries.entry(key).or_insert_with(|| entry.clone());
        if entry.version > known.version {
            *known = entry;
        }
    }

    fn after(&self, key: Bound<&str>) -> Range<'_, String, Entry> {
        self.entries.range::<str, _>((key, Bound::Unbounded))
    }

    fn page(&self, after: Option<&str>, count: usize) -> Page {
        let mut rest = self.after(after.map_or(Bound::Unbounded, Bound::Excluded));
        let entries = rest.by_ref().take(count).map(|(key, entry)| (key.clone(), entry.clone())).collect();
        Page { entries, more: rest.next().is_some() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartitionId = PartitionId(0);
    const UID: ReplicaUid = ReplicaUid(1);

    fn routed(epoch: u64, version: u64) -> Routed {
        Routed { epoch: Epoch(epoch), version: PartitionVersion(version) }
    }

    fn entry(number: u64, value: Option<&str>) -> Entry {
        Entry { version: ValueVersion(number, 0), value: value.map(ToOwned::to_owned) }
    }

    fn copier(name: &str) -> Copier {
        let node = NodeId::new(name).expect("a node id");
        Copier { node, uid: ReplicaUid(2), incarnation: Incarnation(1), lapses: 0 }
    }

    fn open() -> Store {
        let store = Store::default();
        store.open(P, UID);
        store
    }

    #[test]
    fn a_write_of_an_older_epoch_or_record_is_refused_and_says_what_is_needed() {
        let store = open();
        store.activate(P, Epoch(2)).expect("held");
        store.copy(P, routed(2, 5), copier("b"), None, 1).expect("held");
        let check = |routed, expect: Result<(), Refused>| {
            assert_eq!(store.write(P, routed, "k", entry(1, Some("v"))), expect, "{routed:?}");
        };
        let stale = Err(Refused::Stale { floor: routed(2, 5) });
        check(routed(1, 5), stale);
        check(routed(2, 4), stale);
        check(routed(2, 5), Ok(()));
        check(routed(3, 9), Ok(()));
        check(routed(2, 9), Err(Refused::Stale { floor: routed(3, 5) }));
    }

    #[test]
    fn the_newest_version_wins_in_whatever_order_they_arrive() {
        let check = |numbers: [u64; 3]| {
            let store = open();
            for number in numbers {
                store.write(P, routed(1, 1), "k", entry(number, Some(&number.to_string()))).expect("held");
            }
            assert_eq!(store.peek(P, "k"), Some(entry(3, Some("3"))), "{numbers:?}");
        };
        check([1, 2, 3]);
        check([3, 1, 2]);
        check([2, 3, 1]);
    }

    #[test]
    fn an_older_value_that_arrives_after_its_deletion_stays_deleted() {
        let store = open();
        store.write(P, routed(1, 1), "k", entry(2, None)).expect("held");
        store.merge(P, [("k".to_owned(), entry(1, Some("old")))].into()).expect("held");
        assert_eq!(store.peek(P, "k"), Some(entry(2, None)));
    }

    #[test]
    fn a_leader_numbers_its_writes_and_a_newer_epoch_comes_after_all_of_an_older_one() {
        let store = open();
        let lead = |epoch| store.lead(P, routed(epoch, 1), "k", Change::Delete).expect("held").version;
        assert_eq!(
            [lead(1), lead(1), lead(2), lead(2)].map(|version| (version.0, version.1)),
            [(1, 1), (1, 2), (2, 1), (2, 2)]
        );
    }

    #[test]
    fn a_deletion_of_one_version_spares_a_newer_one() {
        let store = open();
        let lead = |change| store.lead(P, routed(1, 1), "k", change);
        let first = lead(Change::Set("old".to_owned())).expect("held");
        lead(Change::Set("new".to_owned())).expect("held");
        assert_eq!(lead(Change::DeleteIf(first.version)), Err(Refused::Changed));
        let newer = store.peek(P, "k").expect("it is there");
        assert_eq!(newer.value.as_deref(), Some("new"));
        assert_eq!(lead(Change::DeleteIf(newer.version)).map(|entry| entry.value), Ok(None));
    }

    #[test]
    fn a_replica_that_comes_anew_begins_empty_and_a_release_takes_no_other_one() {
        let store = open();
        store.write(P, routed(1, 1), "k", entry(1, Some("v"))).expect("held");
        store.open(P, UID);
        assert!(store.peek(P, "k").is_some(), "the same placement");
        store.close(P, ReplicaUid(9));
        assert!(store.peek(P, "k").is_some(), "another placement was released");
        store.open(P, ReplicaUid(9));
        assert_eq!(store.peek(P, "k"), None);
        store.close(P, ReplicaUid(9));
        assert_eq!(store.read(P, routed(1, 1), "k"), Err(Refused::NotHeld));
    }

    #[test]
    fn a_copy_comes_in_pages_with_its_tombstones() {
        let store = open();
        for number in 1..=3 {
            let value = (number != 2).then_some("v");
            store.write(P, routed(1, 1), &format!("k{number}"), entry(number, value)).expect("held");
        }
        let check = |after, keys: &[&str], more| {
            let page = store.copy(P, routed(1, 1), copier("b"), after, 2).expect("held");
            assert!(page.entries.keys().eq(keys), "{page:?}");
            assert_eq!(page.more, more);
        };
        check(None, &["k1", "k2"], true);
        check(Some("k2"), &["k3"], false);
        assert_eq!(store.copiers(P), [copier("b")]);
        store.activate(P, Epoch(2)).expect("held");
        assert_eq!(store.copiers(P), []);
    }
}
