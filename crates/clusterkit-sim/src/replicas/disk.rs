//! The disk of one node. Changes are handed to the operating system in order and made durable together by syncs;
//! what no sync has covered is lost in a power cut, but for a drawn prefix.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use clusterkit_core::replica::{LogOp, Record, ReplicaKey};

use super::machine::Machine;
use super::store::{Cut, Package, Store};

/// The disk of one node, which outlives its process.
///
/// Invariants:
/// - `stores` is what the operating system shows, `journal` how to undo what is not durable, oldest first;
/// - a sync covers the oldest changes, and one runs at a time.
#[derive(Debug, Default)]
pub(super) struct Disk {
    stores: BTreeMap<ReplicaKey, Store>,
    journal: VecDeque<Change>,
    /// How many changes the running sync covers.
    syncing: Option<usize>,
    /// How many changes were called durable though no sync has covered them.
    told: usize,
    /// Numbers runs of the process, so that a sync of an earlier one is not taken for one of this.
    pub(super) run: u64,
}

#[derive(Debug)]
struct Change {
    key: ReplicaKey,
    op: Option<LogOp>,
    undo: Undo,
}

#[derive(Debug)]
enum Undo {
    Append { first: u64, count: u64 },
    Checkpoint(Rc<Machine>),
    CommitNote(u64),
    Replace(Option<Box<Store>>),
    Truncate(Cut),
}

/// A change that is durable now.
#[derive(Debug)]
pub(super) struct Durable {
    pub(super) key: ReplicaKey,
    pub(super) op: Option<LogOp>,
    /// A checkpoint covers everything below.
    pub(super) covered: Option<u64>,
}

// What the process asks for.
impl Disk {
    pub(super) fn store(&self, key: ReplicaKey) -> Option<&Store> {
        self.stores.get(&key)
    }

    pub(super) fn store_mut(&mut self, key: ReplicaKey) -> Option<&mut Store> {
        self.stores.get_mut(&key)
    }

    pub(super) fn stores(&self) -> impl Iterator<Item = (&ReplicaKey, &Store)> {
        self.stores.iter()
    }

    pub(super) fn append(&mut self, key: ReplicaKey, op: LogOp, first: u64, records: Vec<Record>) -> bool {
        let Some(store) = self.stores.get_mut(&key) else { return false };
        if store.end() != first {
            return false;
        }
        let undo = Undo::Append { first, count: records.len() as u64 };
        store.append(records);
        self.journal.push_back(Change { key, op: Some(op), undo });
        true
    }

    pub(super) fn truncate(&mut self, key: ReplicaKey, op: LogOp, end: u64) -> bool {
        let Some(store) = self.stores.get_mut(&key) else { return false };
        if end < store.start() || end > store.end() {
            return false;
        }
        let undo = Undo::Truncate(store.truncate(end));
        // What is cut off will not be made durable by a sync of what is on its way.
        for change in self.journal.iter_mut().filter(|change| change.key == key) {
            if let Undo::Append { first, count } = &mut change.undo {
                *count = end.saturating_sub(*first).min(*count);
            }
        }
        self.journal.push_back(Change { key, op: Some(op), undo });
        true
    }

    pub(super) fn create(&mut self, key: ReplicaKey, op: LogOp) {
        self.replace(key, Some(op), Some(Store::default()));
    }

    pub(super) fn install(&mut self, key: ReplicaKey, op: LogOp, package: &Package) {
        self.replace(key, Some(op), Some(Store::installed(package)));
    }

    pub(super) fn remove(&mut self, key: ReplicaKey) {
        self.replace(key, None, None);
    }

    fn replace(&mut self, key: ReplicaKey, op: Option<LogOp>, store: Option<Store>) {
        let before = match store {
            Some(store) => self.stores.insert(key, store),
            None => self.stores.remove(&key),
        };
        self.journal.push_back(Change { key, op, undo: Undo::Replace(before.map(Box::new)) });
    }

    pub(super) fn checkpoint(&mut self, key: ReplicaKey, machine: Machine) {
        let Some(store) = self.stores.get_mut(&key) else { return };
        let before = std::mem::replace(&mut store.checkpoint, Rc::new(machine));
        self.journal.push_back(Change { key, op: None, undo: Undo::Checkpoint(before) });
    }

    pub(super) fn note_commit(&mut self, key: ReplicaKey, commit: u64) {
        let Some(store) = self.stores.get_mut(&key) else { return };
        let before = std::mem::replace(&mut store.commit_noted, commit);
        self.journal.push_back(Change { key, op: None, undo: Undo::CommitNote(before) });
    }

    /// Begins a sync of everything so far, unless one runs or there is nothing to be synced.
    pub(super) fn begin_sync(&mut self) -> bool {
        let begins = self.syncing.is_none() && self.journal.len() > self.told;
        if begins {
            self.syncing = Some(self.journal.len());
        }
        begins
    }

    /// The sync has ended: what it covered is durable.
    pub(super) fn end_sync(&mut self) -> Vec<Durable> {
        let count = self.syncing.take().unwrap_or(0);
        let changes: Vec<_> = self.journal.drain(..count).collect();
        changes.iter().map(|change| self.harden(change)).collect()
    }

    /// Calls everything durable that the operating system has, though no sync has covered it. Checkpoints, by which
    /// logs are freed, have to wait for one.
    pub(super) fn pretend_sync(&mut self) -> Vec<Durable> {
        self.syncing = None;
        let untold = self.journal.drain(self.told..).collect::<Vec<_>>();
        let durable = untold.iter().map(|change| Durable { covered: None, ..self.harden(change) }).collect();
        self.journal.extend(untold);
        self.told = self.journal.len();
        durable
    }

    /// A sync of all that was called durable before.
    pub(super) fn sync_all(&mut self) -> Vec<Durable> {
        self.syncing = Some(std::mem::take(&mut self.told));
        self.end_sync().into_iter().map(|durable| Durable { op: None, ..durable }).collect()
    }

    fn harden(&mut self, change: &Change) -> Durable {
        let mut durable = Durable { key: change.key, op: change.op, covered: None };
        let Some(store) = self.stores.get_mut(&change.key) else { return durable };
        match &change.undo {
            Undo::Append { first, count } => store.durable = store.durable.max(first + count),
            Undo::Replace(_) => store.durable = store.durable.max(store.start()),
            Undo::Checkpoint(_) => durable.covered = Some(store.checkpoint.applied),
            Undo::CommitNote(_) | Undo::Truncate(_) => {}
        }
        durable
    }
}

// What happens to it.
impl Disk {
    /// How many changes no sync has covered.
    pub(super) fn unsynced(&self) -> usize {
        self.journal.len()
    }

    /// The process or the machine stops. The first `kept` of the unsynced changes survive, and of the one after
    /// them so many records, if it is an append.
    pub(super) fn crash(&mut self, kept: usize, records: u64) {
        while self.journal.len() > kept {
            let Some(change) = self.journal.pop_back() else { break };
            let is_first_lost = self.journal.len() == kept;
            self.undo(change, if is_first_lost { records } else { 0 });
        }
        self.journal.clear();
        (self.syncing, self.told) = (None, 0);
        self.stores.values_mut().for_each(|store| store.durable = store.end());
        self.run += 1;
    }

    fn undo(&mut self, change: Change, records: u64) {
        if let Undo::Replace(before) = change.undo {
            match before {
                Some(store) => drop(self.stores.insert(change.key, *store)),
                None => drop(self.stores.remove(&change.key)),
            }
            return;
        }
        let Some(store) = self.stores.get_mut(&change.key) else { return };
        match change.undo {
            Undo::Append { first, count } => {
                store.truncate(first + records.min(count));
            }
            Undo::Checkpoint(before) => store.checkpoint = before,
            Undo::CommitNote(before) => store.commit_noted = before,
            Undo::Truncate(cut) => store.restore(cut),
            Undo::Replace(_) => {}
        }
    }

    /// Everything is gone, or put aside.
    pub(super) fn put_aside(&mut self, which: impl Fn(&Store) -> bool) {
        self.stores.retain(|_, store| !which(store));
    }
}
