//! A state store in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::digest::Tally;
use super::{
    ApplyError, Change, Damage, DamageKind, Digest, Found, Gathered, Install, InstallError, Order, Query,
    Reclaimed, ReplicaKey, Replicas, Scrubbed, Snapshot, StateError, StateStore, check_changes,
    check_entries,
};
use crate::limits::STATE_SCRUB_UNITS_MAX;

/// State that ends with the process, for caches and for tests. See the [module](super) for what it guarantees.
///
/// A checkpoint costs nothing and promises nothing beyond the process. A write to a replica of which a view is
/// held copies the replica's map, without its keys and values, once for each view.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    replicas: RwLock<BTreeMap<ReplicaKey, Replica>>,
    life_next: AtomicU64,
    /// Behind which replica the scrub goes on.
    scrub: Mutex<Option<ReplicaKey>>,
}

#[derive(Clone, Debug)]
struct Replica {
    /// Tells it from one that had the same key before.
    life: u64,
    applied: u64,
    tally: Tally,
    entries: Arc<BTreeMap<Bytes, Bytes>>,
}

impl MemoryStore {
    /// A store without replicas.
    pub fn new() -> Self {
        Self::default()
    }

    fn read<T>(&self, replica: ReplicaKey, step: impl FnOnce(&Replica) -> T) -> Option<T> {
        self.inner.read().get(&replica).map(step)
    }
}

impl Inner {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<ReplicaKey, Replica>> {
        self.replicas.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_life(&self) -> u64 {
        self.life_next.fetch_add(1, Ordering::Relaxed)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<ReplicaKey, Replica>> {
        self.replicas.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replica {
    fn new(life: u64) -> Self {
        Replica { life, applied: 0, tally: Tally::default(), entries: Arc::default() }
    }

    fn carry_out(&mut self, change: &Change) {
        match change {
            Change::Delete { key } => {
                let old = Arc::make_mut(&mut self.entries).remove(key);
                self.forget(key, old.as_ref());
            }
            Change::Put { key, value } => self.put(key, value),
        }
    }

    fn put(&mut self, key: &Bytes, value: &Bytes) {
        let old = Arc::make_mut(&mut self.entries).insert(key.clone(), value.clone());
        self.forget(key, old.as_ref());
        self.tally.add(key, value);
    }

    fn forget(&mut self, key: &Bytes, old: Option<&Bytes>) {
        if let Some(old) = old {
            self.tally.subtract(key, old);
        }
    }

    fn gather(&self, query: &Query<'_>) -> Found {
        if query.is_empty() {
            return Found { entries: Vec::new(), is_complete: true };
        }
        let range = self.entries.range::<[u8], _>((query.start, query.end));
        match query.order {
            Order::Ascending => gather(range, query),
            Order::Descending => gather(range.rev(), query),
        }
    }

    fn add_up(&self) -> Tally {
        let mut tally = Tally::default();
        self.entries.iter().for_each(|(key, value)| tally.add(key, value));
        tally
    }
}

fn gather<'a>(range: impl Iterator<Item = (&'a Bytes, &'a Bytes)>, query: &Query<'_>) -> Found {
    let mut gathered = Gathered::new(query.entries_max, query.bytes_max);
    for (key, value) in range {
        if !gathered.has_room(key, value) {
            return Found { entries: gathered.entries, is_complete: false };
        }
        gathered.push(key.clone(), value.clone());
    }
    Found { entries: gathered.entries, is_complete: true }
}

impl StateStore for MemoryStore {
    fn is_durable(&self) -> bool {
        false
    }

    fn apply(&self, replica: ReplicaKey, changes: &[Change], index: u64) -> Result<(), ApplyError> {
        check_changes(changes)?;
        let mut replicas = self.inner.write();
        if let Some(applied) =
            replicas.get(&replica).map(|held| held.applied).filter(|applied| *applied >= index)
        {
            return Err(ApplyError::NotNewer { index, applied });
        }
        let held = replicas.entry(replica).or_insert_with(|| Replica::new(self.inner.next_life()));
        changes.iter().for_each(|change| held.carry_out(change));
        held.applied = index;
        Ok(())
    }

    fn get(&self, replica: ReplicaKey, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        Ok(self.read(replica, |held| held.entries.get(key).cloned()).flatten())
    }

    fn range(&self, replica: ReplicaKey, query: &Query<'_>) -> Result<Found, StateError> {
        let nothing = || Found { entries: Vec::new(), is_complete: true };
        Ok(self.read(replica, |held| held.gather(query)).unwrap_or_else(nothing))
    }

    fn applied_index(&self, replica: ReplicaKey) -> Result<Option<u64>, StateError> {
        Ok(self.read(replica, |held| held.applied))
    }

    fn digest(&self, replica: ReplicaKey) -> Result<Option<Digest>, StateError> {
        Ok(self.read(replica, |held| held.tally.at(held.applied)))
    }

    fn replicas(&self) -> Result<Replicas, StateError> {
        let indexes = self.inner.read().iter().map(|(replica, held)| (*replica, held.applied)).collect();
        Ok(Replicas { indexes, damages: Vec::new() })
    }

    fn snapshot(&self, replica: ReplicaKey) -> Result<Option<Box<dyn Snapshot>>, StateError> {
        let view = self.read(replica, Replica::clone);
        Ok(view.map(|view| Box::new(MemorySnapshot { view, after: None }) as Box<dyn Snapshot>))
    }

    fn install(&self, replica: ReplicaKey) -> Result<Box<dyn Install>, InstallError> {
        let inner = Arc::clone(&self.inner);
        let replaced = self.read(replica, |held| held.life);
        let pushed = Replica::new(inner.next_life());
        Ok(Box::new(MemoryInstall { inner, replica, replaced, pushed }))
    }

    fn drop_replica(&self, replica: ReplicaKey) -> Result<(), StateError> {
        self.inner.write().remove(&replica);
        Ok(())
    }

    fn reclaim(&self, _entries_max: usize) -> Result<Reclaimed, StateError> {
        Ok(Reclaimed { is_complete: true, ..Reclaimed::default() })
    }

    fn checkpoint(&self) -> Result<Replicas, StateError> {
        self.replicas()
    }

    fn renew(&self, damage: &Damage) -> Result<(), StateError> {
        let mut replicas = self.inner.write();
        if let Some(replica) = damage.replica
            && replicas.get(&replica).is_some_and(|held| held.add_up() != held.tally)
        {
            replicas.remove(&replica);
        }
        Ok(())
    }

    /// A replica is looked at as a whole, however many entries it has.
    fn scrub(&self, units_max: usize) -> Result<Scrubbed, StateError> {
        let mut behind = self.inner.scrub.lock().unwrap_or_else(PoisonError::into_inner);
        let units_max = units_max.clamp(1, STATE_SCRUB_UNITS_MAX) as u64;
        let mut scrubbed = Scrubbed::default();
        while scrubbed.entries < units_max {
            let start = behind.map_or(Bound::Unbounded, Bound::Excluded);
            let next = self
                .inner
                .read()
                .range((start, Bound::Unbounded))
                .next()
                .map(|(key, held)| (*key, held.clone()));
            let Some((replica, held)) = next else {
                *behind = None;
                scrubbed.is_complete = true;
                break;
            };
            if held.add_up() != held.tally {
                scrubbed.damages.push(Damage::new(DamageKind::Digest).at(replica, None));
            }
            scrubbed.entries += 1 + held.entries.len() as u64;
            *behind = Some(replica);
        }
        Ok(scrubbed)
    }
}

#[derive(Debug)]
struct MemorySnapshot {
    view: Replica,
    after: Option<Bytes>,
}

impl Snapshot for MemorySnapshot {
    fn digest(&self) -> Digest {
        self.view.tally.at(self.view.applied)
    }

    fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Vec<(Bytes, Bytes)>>, StateError> {
        let start = self.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.view.gather(&Query { start, bytes_max, ..Query::default() });
        self.after = found.entries.last().map(|(key, _)| key.clone()).or(self.after.take());
        Ok(Some(found.entries).filter(|entries| !entries.is_empty()))
    }
}

#[derive(Debug)]
struct MemoryInstall {
    inner: Arc<Inner>,
    replica: ReplicaKey,
    /// The life that it may replace.
    replaced: Option<u64>,
    pushed: Replica,
}

impl Install for MemoryInstall {
    fn push(&mut self, entries: &[(Bytes, Bytes)]) -> Result<(), InstallError> {
        check_entries(entries)?;
        entries.iter().for_each(|(key, value)| self.pushed.put(key, value));
        Ok(())
    }

    fn finish(self: Box<Self>, expected: Digest) -> Result<(), InstallError> {
        let pushed = Replica { applied: expected.applied_index, ..self.pushed };
        if pushed.tally.at(pushed.applied) != expected {
            let different =
                InstallError::Different { pushed: pushed.tally.entries, expected: expected.entries };
            return Err(different);
        }
        let mut replicas = self.inner.write();
        match replicas.get(&self.replica) {
            old if old.map(|old| old.life) != self.replaced => return Err(InstallError::Replaced),
            Some(old) if old.applied > pushed.applied => {
                return Err(InstallError::Outdated { index: pushed.applied, applied: old.applied });
            }
            _ => replicas.insert(self.replica, pushed),
        };
        Ok(())
    }
}
