//! What the workers of a node share: the states, which replicas are damaged, and whether everything has stopped.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clusterkit_core::id::ReplicaUid;
use clusterkit_core::replica::{ReplicaKey, Sessions};
use clusterkit_storage::state_store::{Damage, ReplicaKey as StateKey, StateError, StateStore};
use tracing::error;

use super::limits::DAMAGES_MAX;
use super::rows::{Applied, RowError, read_sessions};
use super::snapshot::Arrived;
use super::{StorageError, StorageEvent, Tell};

/// What the workers share.
///
/// Invariants:
/// - a batch is applied, and a state replaced or given up, only by whoever holds the replica's slot;
/// - a replica that is damaged stays so until it is removed, and is told of once;
/// - no event is told, and the store not called, while the table is held.
pub(crate) struct Shared {
    pub(super) store: Arc<dyn StateStore>,
    tell: Tell,
    failed: AtomicBool,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    keys: BTreeMap<ReplicaUid, ReplicaKey>,
    damaged: BTreeSet<ReplicaKey>,
    slots: BTreeMap<ReplicaKey, Arc<Mutex<Slot>>>,
    arrived: BTreeMap<(ReplicaKey, u64), Arrived>,
    damages: Vec<Damage>,
}

/// What is known of a state, if it was used before.
pub(super) type Slot = Option<Loaded>;

/// What was applied to a state, as its rows say.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) applied: Applied,
    pub(super) sessions: Sessions,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        store: Arc<dyn StateStore>,
        tell: Tell,
        keys: BTreeSet<ReplicaKey>,
        damaged: BTreeSet<ReplicaKey>,
        damages: Vec<Damage>,
    ) -> Self {
        let keys = keys.into_iter().map(|key| (key.uid, key)).collect();
        let table = Table { keys, damaged, damages, ..Table::default() };
        Self { store, tell, failed: AtomicBool::new(false), table: Mutex::new(table) }
    }

    pub(super) fn tell(&self, event: StorageEvent) {
        (self.tell)(event);
    }

    /// Everything stops.
    pub(super) fn fail(&self, reason: StorageError) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            error!(error = &reason as &dyn std::error::Error, "the storage of this node has failed");
            self.tell(StorageEvent::Failed(reason));
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// A replica is there from now on.
    pub(super) fn insert(&self, key: ReplicaKey) {
        self.table().keys.insert(key.uid, key);
    }

    /// A replica is there no more.
    pub(super) fn forget(&self, key: ReplicaKey) {
        let mut table = self.table();
        table.keys.remove(&key.uid);
        table.damaged.remove(&key);
        table.slots.remove(&key);
        let arrived: Vec<_> = table.arrived.range((key, 0)..=(key, u64::MAX)).map(|(of, _)| *of).collect();
        let dropped: Vec<_> = arrived.iter().map(|of| table.arrived.remove(of)).collect();
        drop(table);
        drop(dropped);
    }

    pub(super) fn key_of(&self, state: StateKey) -> Option<ReplicaKey> {
        self.table().keys.get(&ReplicaUid(state.0)).copied()
    }

    /// What is to be held to change a state.
    pub(super) fn slot(&self, key: ReplicaKey) -> Arc<Mutex<Slot>> {
        Arc::clone(self.table().slots.entry(key).or_default())
    }

    pub(super) fn is_damaged(&self, key: ReplicaKey) -> bool {
        self.table().damaged.contains(&key)
    }

    /// Nothing of a replica is served any more.
    pub(super) fn damage(&self, key: ReplicaKey, why: &(dyn std::error::Error + 'static)) {
        let is_new = self.table().damaged.insert(key);
        if is_new {
            error!(partition = %key.partition, uid = key.uid.0, error = why, "a replica is damaged");
            self.tell(StorageEvent::Damaged { key });
        }
    }

    /// The state store has seen damage: of the replica that it names, and of all that cannot be read any more.
    pub(super) fn note_damage(&self, damage: Damage) {
        let keys: Vec<ReplicaKey> = self.table().keys.values().copied().collect();
        for key in keys {
            let is_named = damage.replica == Some(state_of(key));
            if is_named || matches!(self.store.digest(state_of(key)), Err(StateError::Damaged(_))) {
                self.damage(key, &damage);
            }
        }
        let mut table = self.table();
        if table.damages.len() < DAMAGES_MAX && !table.damages.contains(&damage) {
            table.damages.push(damage);
        }
    }

    /// What is to be mended.
    pub(super) fn take_damages(&self) -> Vec<Damage> {
        std::mem::take(&mut self.table().damages)
    }

    /// A call about one replica failed: the store goes on without it, or does not go on. What a state machine made up
    /// by itself is its replica's.
    pub(super) fn note_state_error(&self, key: ReplicaKey, error: StateError) {
        if let StateError::Damaged(damage) = error {
            self.damage(key, &damage);
            return self.note_damage(damage);
        }
        match self.store.digest(state_of(key)) {
            Err(StateError::Damaged(damage)) => {
                self.damage(key, &error);
                self.note_damage(damage);
            }
            Ok(_) => self.damage(key, &error),
            Err(_) => self.fail(StorageError::State(error)),
        }
    }

    /// What was applied to a state, whose slot is held. Nothing if it cannot be told, which is noted.
    pub(super) fn load<'a>(&self, key: ReplicaKey, slot: &'a mut Slot) -> Option<&'a mut Loaded> {
        if slot.is_none() {
            match self.read(key) {
                Ok(loaded) => *slot = Some(loaded),
                Err(RowError::State(error)) => self.note_state_error(key, error),
                Err(error @ RowError::Row(_)) => self.damage(key, &error),
            }
        }
        slot.as_mut()
    }

    fn read(&self, key: ReplicaKey) -> Result<Loaded, RowError> {
        let (store, state) = (&*self.store, state_of(key));
        Ok(Loaded { applied: Applied::read(store, state)?, sessions: read_sessions(store, state)? })
    }

    /// A snapshot is here as a whole.
    /// Whether it is kept. One that came before stays: it may be about to be installed.
    pub(super) fn keep_arrived(&self, key: ReplicaKey, end: u64, arrived: Arrived) -> bool {
        let surplus = match self.table().arrived.entry((key, end)) {
            Entry::Occupied(_) => Some(arrived),
            Entry::Vacant(place) => {
                place.insert(arrived);
                None
            }
        };
        // Dropped only after the table is let go: the store hears of it.
        surplus.is_none()
    }

    pub(super) fn take_arrived(&self, key: ReplicaKey, end: u64) -> Option<Arrived> {
        self.table().arrived.remove(&(key, end))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

/// Holds a mutex. A thread that panicked with it has stopped everything already.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the state store calls a replica.
pub(super) fn state_of(key: ReplicaKey) -> StateKey {
    StateKey(key.uid.0)
}
