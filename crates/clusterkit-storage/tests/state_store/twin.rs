//! A naive state store, and scripts that run on it and on real ones.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use clusterkit_storage::disk::SimDisk;
use clusterkit_storage::state_store::{
    Change, Digest, OpenError, Options, Query, RedbStore, ReplicaKey, Replicas, StateStore,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

pub(crate) const DIR: &str = "/state";
pub(crate) const REPLICAS: u64 = 4;

/// What a replica holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) applied: u64,
    pub(crate) entries: BTreeMap<Bytes, Bytes>,
}

/// What a store holds, replica by replica, and each state that a crash may leave instead.
#[derive(Clone, Debug, Default)]
pub(crate) struct Twin {
    pub(crate) held: BTreeMap<ReplicaKey, Held>,
    /// What was there since the last checkpoint, with the state at that checkpoint first.
    since: BTreeMap<ReplicaKey, Vec<Option<Held>>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// One batch, under the next index.
    Apply(ReplicaKey, Vec<Change>),
    Checkpoint,
    Drop(ReplicaKey),
    /// Entries in chunks of two, and whether the installation ends.
    Install(ReplicaKey, Vec<(Bytes, Bytes)>, bool),
    Reclaim(usize),
    /// The store is dropped as it is, and opened again.
    Reopen,
    Scrub(usize),
}

impl Twin {
    pub(crate) fn apply(&mut self, step: &Step) {
        match step {
            Step::Apply(replica, changes) => {
                let held = self.held.entry(*replica).or_default();
                held.applied += 1;
                changes.iter().for_each(|change| held.carry_out(change));
                self.note(*replica);
            }
            Step::Checkpoint | Step::Reopen => self.since.clear(),
            Step::Drop(replica) => {
                self.since.entry(*replica).or_insert_with(|| vec![self.held.get(replica).cloned()]);
                self.held.remove(replica);
                self.note(*replica);
            }
            Step::Install(replica, entries, true) => {
                let applied = self.held.get(replica).map_or(7, |held| held.applied + 7);
                self.held.insert(*replica, Held { applied, entries: entries.iter().cloned().collect() });
                self.note(*replica);
            }
            Step::Install(..) | Step::Reclaim(_) | Step::Scrub(_) => {}
        }
    }

    /// Begins a step: what is there before it may be there after it.
    fn remember(&mut self) {
        for replica in (0..REPLICAS).map(ReplicaKey) {
            self.since.entry(replica).or_insert_with(|| vec![self.held.get(&replica).cloned()]);
        }
    }

    fn note(&mut self, replica: ReplicaKey) {
        let now = self.held.get(&replica).cloned();
        self.since.entry(replica).or_default().push(now);
    }

    /// Whether a crash may leave this. From then on it is what the store holds.
    pub(crate) fn become_found(&mut self, found: &BTreeMap<ReplicaKey, Held>) -> bool {
        self.remember();
        let possible = (0..REPLICAS)
            .map(ReplicaKey)
            .all(|replica| self.since[&replica].iter().any(|state| state.as_ref() == found.get(&replica)));
        *self = Twin { held: found.clone(), since: BTreeMap::new() };
        possible
    }
}

impl Held {
    pub(crate) fn carry_out(&mut self, change: &Change) {
        match change {
            Change::Delete { key } => self.entries.remove(key),
            Change::Put { key, value } => self.entries.insert(key.clone(), value.clone()),
        };
    }
}

pub(crate) fn options() -> Options {
    Options { file_count: 2, cache_bytes: 512 << 10, store: 5, ..Options::default() }
}

pub(crate) fn open(disk: &SimDisk) -> Result<RedbStore, OpenError> {
    RedbStore::open(Arc::new(disk.clone()), Path::new(DIR), &options())
}

pub(crate) fn reopen(disk: &SimDisk) -> RedbStore {
    open(disk).unwrap_or_else(|error| panic!("the store must open: {error:?}"))
}

/// What a store holds, as its reads tell, checked against its digests.
pub(crate) fn contents(store: &dyn StateStore) -> BTreeMap<ReplicaKey, Held> {
    let Replicas { indexes, damages } = store.replicas().unwrap();
    assert_eq!(damages, []);
    let held = |(replica, applied)| {
        let found = store.range(replica, &Query::default()).unwrap();
        assert!(found.is_complete);
        let held = Held { applied, entries: found.entries.into_iter().collect() };
        assert_eq!(store.digest(replica).unwrap(), Some(digest_of(&held)), "{replica:?}");
        (replica, held)
    };
    indexes.into_iter().map(held).collect()
}

/// The digest that a store in memory gives, which keeps no record of the way.
pub(crate) fn digest_of(held: &Held) -> Digest {
    let store = clusterkit_storage::state_store::MemoryStore::new();
    let put = |(key, value): (&Bytes, &Bytes)| Change::Put { key: key.clone(), value: value.clone() };
    let changes: Vec<Change> = held.entries.iter().map(put).collect();
    store.apply(ReplicaKey(0), &changes, held.applied).unwrap();
    store.digest(ReplicaKey(0)).unwrap().unwrap()
}

/// Carries out a step that does not open the store anew. Says whether the store let it.
pub(crate) fn take(store: &dyn StateStore, twin: &Twin, step: &Step) -> bool {
    match step {
        Step::Apply(replica, changes) => {
            let index = twin.held.get(replica).map_or(1, |held| held.applied + 1);
            store.apply(*replica, changes, index).is_ok()
        }
        Step::Checkpoint => match store.checkpoint() {
            Ok(durable) => {
                let applied = twin.held.iter().map(|(replica, held)| (*replica, held.applied));
                assert!(applied.eq(durable.indexes), "a checkpoint says what is durable");
                assert_eq!(durable.damages, [], "nothing is damaged");
                true
            }
            Err(_) => false,
        },
        Step::Drop(replica) => store.drop_replica(*replica).is_ok(),
        Step::Install(replica, entries, ends) => install(store, twin, *replica, entries, *ends),
        Step::Reclaim(entries) => store.reclaim(*entries).is_ok(),
        Step::Scrub(units) => match store.scrub(*units) {
            Ok(scrubbed) => {
                assert_eq!(scrubbed.damages, [], "nothing is damaged");
                true
            }
            Err(_) => false,
        },
        Step::Reopen => true,
    }
}

fn install(
    store: &dyn StateStore,
    twin: &Twin,
    replica: ReplicaKey,
    entries: &[(Bytes, Bytes)],
    ends: bool,
) -> bool {
    let applied = twin.held.get(&replica).map_or(7, |held| held.applied + 7);
    let Ok(mut install) = store.install(replica) else { return false };
    let pushed = entries.chunks(2).all(|chunk| install.push(chunk).is_ok());
    let held = Held { applied, entries: entries.iter().cloned().collect() };
    pushed && (!ends || install.finish(digest_of(&held)).is_ok())
}

/// Runs steps until one fails. Gives the twin of what may be found then, or the disk if none did.
pub(crate) fn run(disk: &SimDisk, script: &[Step]) -> Result<SimDisk, Twin> {
    let mut twin = Twin::default();
    let Ok(mut store) = open(disk) else { return Err(twin) };
    for step in script {
        twin.remember();
        let before = twin.clone();
        twin.apply(step);
        if matches!(step, Step::Reopen) {
            drop(store);
            let Ok(opened) = open(disk) else { return Err(either(before, &twin)) };
            store = opened;
        } else if !take(&store, &before, step) {
            return Err(either(before, &twin));
        }
    }
    assert_eq!(contents(&store), twin.held);
    Ok(disk.fork())
}

/// All that may be found if a step may or may not have been done.
fn either(mut before: Twin, after: &Twin) -> Twin {
    for (replica, states) in &after.since {
        before.since.entry(*replica).or_default().extend(states.iter().cloned());
    }
    before
}

pub(crate) fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), count)
}

fn step() -> impl Strategy<Value = Step> {
    let replica = || (0..REPLICAS).prop_map(ReplicaKey);
    prop_oneof![
        8 => (replica(), prop::collection::vec(change(), 0..8)).prop_map(|(replica, changes)| Step::Apply(replica, changes)),
        3 => Just(Step::Checkpoint),
        1 => replica().prop_map(Step::Drop),
        2 => (replica(), prop::collection::vec((key(), value()), 0..7), any::<bool>())
            .prop_map(|(replica, entries, ends)| Step::Install(replica, entries, ends)),
        1 => Just(Step::Reopen),
        1 => (1_usize..20).prop_map(Step::Reclaim),
        1 => (1_usize..2_000).prop_map(Step::Scrub),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (key(), value()).prop_map(|(key, value)| Change::Put { key, value }),
        1 => key().prop_map(|key| Change::Delete { key }),
    ]
}

fn key() -> impl Strategy<Value = Bytes> {
    "[a-d]{0,2}".prop_map(Bytes::from)
}

fn value() -> impl Strategy<Value = Bytes> {
    let bytes = |(length, fill): (usize, u8)| Bytes::from(vec![fill; length]);
    prop_oneof![4 => (0_usize..60, any::<u8>()), 1 => (3_000_usize..14_000, any::<u8>())].prop_map(bytes)
}

/// The same scripts on every run.
pub(crate) fn scripts(count: usize, steps_each: usize) -> Vec<Vec<Step>> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| steps(steps_each).new_tree(&mut runner).unwrap().current()).collect()
}
