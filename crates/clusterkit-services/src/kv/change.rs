//! What a command changes of the rows, and what it tells those who watch.

use std::collections::BTreeMap;

use bytes::Bytes;
use clusterkit_core::replica::LogTime;
use clusterkit_data::{Entry, Transaction};
use clusterkit_storage::state_store::StateError;

use super::event::{Event, EventKind, EventValue};
use super::question::{Description, Stats};
use super::{Version, row};
use crate::namespace::Namespace;

/// The changes of one command.
///
/// Invariants, once it is finished:
/// - an entry has a row of expiry, for the time that it has and with the size of its value, or expires never;
/// - the stats of a namespace are what its entries come to, and are missing where there are none.
#[derive(Debug)]
pub(super) struct Changes<'a, 's> {
    pub(super) state: &'a mut Transaction<'s>,
    /// Of all entries that are written.
    pub(super) version: Version,
    pub(super) now: LogTime,
    deltas: BTreeMap<Namespace, Delta>,
}

/// By how much the stats of a namespace change.
#[derive(Debug, Default)]
struct Delta {
    keys: i64,
    value_bytes: i64,
}

impl<'a, 's> Changes<'a, 's> {
    pub(super) fn new(state: &'a mut Transaction<'s>, entry: &Entry<'_>) -> Self {
        Self { state, version: Version(entry.offset + 1), now: entry.time, deltas: BTreeMap::new() }
    }

    /// Writes an entry in the place of another or of none.
    pub(super) fn put(
        &mut self,
        (namespace, key): (&Namespace, &Bytes),
        before: Option<&Description>,
        (value, expires_at): (&Bytes, Option<LogTime>),
    ) {
        if let Some(before) = before {
            self.clear(namespace, key, before);
        }
        let value_bytes = row::count(value);
        self.state.put(row::entry_key(namespace, key), row::entry(self.version, expires_at, value));
        if let Some(at) = expires_at {
            self.state.put(row::expiry_key(at, namespace, key), row::expiry(value_bytes));
        }
        self.delta(namespace, 1, i64::from(value_bytes));
        self.emit(namespace, key, EventKind::Put { value: EventValue::of(value), expires_at });
    }

    /// Removes an entry that is there.
    pub(super) fn remove(
        &mut self,
        (namespace, key): (&Namespace, &Bytes),
        before: &Description,
        kind: EventKind,
    ) {
        self.clear(namespace, key, before);
        self.state.delete(row::entry_key(namespace, key));
        self.emit(namespace, key, kind);
    }

    /// Brings the stats up to date.
    pub(super) fn finish(self) -> Result<(), StateError> {
        for (namespace, delta) in &self.deltas {
            let key = row::stats_key(namespace);
            let stats = delta.add_to(row::read_stats(self.state.get(&key)?));
            match stats.keys {
                0 => self.state.delete(key),
                _ => self.state.put(key, row::stats(stats)),
            }
        }
        Ok(())
    }

    /// Takes away what is kept beside an entry.
    fn clear(&mut self, namespace: &Namespace, key: &Bytes, before: &Description) {
        if let Some(at) = before.expires_at {
            self.state.delete(row::expiry_key(at, namespace, key));
        }
        self.delta(namespace, -1, -i64::from(before.value_bytes));
    }

    fn delta(&mut self, namespace: &Namespace, keys: i64, value_bytes: i64) {
        if !self.deltas.contains_key(namespace) {
            self.deltas.insert(namespace.clone(), Delta::default());
        }
        let delta = self.deltas.get_mut(namespace).expect("it was put there");
        delta.keys += keys;
        delta.value_bytes += value_bytes;
    }

    fn emit(&mut self, namespace: &Namespace, key: &Bytes, kind: EventKind) {
        let event = Event { key: key.clone(), version: self.version, kind };
        self.state.emit(event.encode(namespace));
    }
}

impl Delta {
    fn add_to(&self, stats: Stats) -> Stats {
        let add = |count: u64, delta| count.checked_add_signed(delta).expect("stats count every entry");
        Stats { keys: add(stats.keys, self.keys), value_bytes: add(stats.value_bytes, self.value_bytes) }
    }
}
