//! What users give: a deterministic state machine over ordered keys and values.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use clusterkit_core::id::{Epoch, PartitionId};
use clusterkit_core::replica::LogTime;
use clusterkit_storage::limits::{STATE_BATCH_BYTES_MAX, STATE_ENTRIES_MAX};
use clusterkit_storage::state_store::{Change, Found, Order, Query, ReplicaKey, StateError, StateStore};

use crate::error::Excess;
use crate::limits::{
    ANSWER_BYTES_MAX, COMMAND_BYTES_MAX, COMMAND_CHANGES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX,
};

/// The state of a partition, as the commands in its log make it.
///
/// Every replica applies the same commands in the same order, and all must come to the same state: so `apply`
/// may depend on the command, on what it is told of its place in the log, and on the state, and on nothing
/// else: no clock, no chance, no order of a hash map, no memory of its own. Time is what the entry says.
///
/// One value serves all partitions of a node, from several threads.
pub trait StateMachine: Send + Sync + 'static {
    /// Carries out a command and says what came of it, which the client that sent it gets. A command that
    /// cannot be carried out changes nothing and says so in its answer: it is in the log already. What one that
    /// changes or answers more than it may did is taken back, and its client is told of the [`Excess`].
    ///
    /// # Errors
    ///
    /// Only what the state gave, passed on: the replica is taken out of service then.
    fn apply(&self, entry: &Entry<'_>, state: &mut Transaction<'_>) -> Result<Bytes, StateError>;

    /// Answers a question on the state, which it cannot change.
    ///
    /// # Errors
    ///
    /// As those of [`apply`](Self::apply).
    fn query(&self, question: &Question<'_>, state: &View<'_>) -> Result<Bytes, StateError>;
}

/// A command at its place in the log.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Entry<'a> {
    /// Of which partition.
    pub partition: PartitionId,
    /// Its place: grows by at least one from command to command, on all replicas alike.
    pub offset: u64,
    /// Under which epoch it was written.
    pub epoch: Epoch,
    /// When it was written, in milliseconds since 1970: never earlier than any command before it.
    pub time: LogTime,
    /// What is asked for.
    pub command: &'a Bytes,
}

impl<'a> Entry<'a> {
    /// A command at a place, for tests of a state machine.
    #[must_use]
    pub fn new(
        partition: PartitionId,
        (epoch, offset): (Epoch, u64),
        time: LogTime,
        command: &'a Bytes,
    ) -> Self {
        Self { partition, offset, epoch, time, command }
    }
}

/// A question on the state.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Question<'a> {
    /// On which partition.
    pub partition: PartitionId,
    /// All commands below this offset are applied.
    pub applied: u64,
    /// What time it is: never before the last command that was applied. Two questions may see it go back, when
    /// they are answered by different nodes.
    pub now: LogTime,
    /// What is asked.
    pub question: &'a Bytes,
}

impl<'a> Question<'a> {
    /// A question, for tests of a state machine.
    #[must_use]
    pub fn new(partition: PartitionId, applied: u64, now: LogTime, question: &'a Bytes) -> Self {
        Self { partition, applied, now, question }
    }
}

/// What begins each key of a state machine in the store, so that what the library keeps beside it lies apart.
pub(crate) const USER_PREFIX: u8 = b'u';

/// Reads the state of a replica.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    store: &'a dyn StateStore,
    replica: ReplicaKey,
}

impl<'a> View<'a> {
    /// A view of a replica in a store. Of interest to tests of state machines.
    #[must_use]
    pub fn new(store: &'a dyn StateStore, replica: ReplicaKey) -> Self {
        Self { store, replica }
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.store.get(self.replica, &prefixed(key))
    }

    /// Entries in the order of their keys. Less than everything if so many are there; then `is_complete` says so.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub fn range(&self, query: &Query<'_>) -> Result<Found, StateError> {
        let (start, end) = (prefixed_start(query.start), prefixed_end(query.end));
        let inner = Query { start: as_slice(&start), end: as_slice(&end), ..query.clone() };
        let mut found = self.store.range(self.replica, &inner)?;
        for (key, _) in &mut found.entries {
            *key = key.slice(1..);
        }
        Ok(found)
    }
}

/// Changes the state of a replica: what the commands of one batch come to, all or nothing of which is kept. A
/// command sees what those before it did.
#[derive(Debug)]
pub struct Transaction<'a> {
    view: View<'a>,
    /// By key; nothing where the entry is removed.
    changes: BTreeMap<Bytes, Option<Bytes>>,
    /// Of the commands before.
    bytes: usize,
    effect: Effect,
    events: Vec<Bytes>,
}

/// What the command did that is under way.
#[derive(Debug, Default)]
struct Effect {
    /// What was changed before of each key that it changed; the last comes last.
    before: Vec<(Bytes, Option<Option<Bytes>>)>,
    bytes: usize,
    /// Where it went too far first.
    excess: Option<Excess>,
}

impl Effect {
    fn note(&mut self, key: &Bytes, value_bytes: usize) {
        // The store's key has a prefix.
        self.bytes += 1 + key.len() + value_bytes;
        let checks = [
            (key.len(), KEY_BYTES_MAX, Excess::Key as fn(u64) -> Excess),
            (value_bytes, VALUE_BYTES_MAX, Excess::Value),
            (self.bytes, COMMAND_BYTES_MAX, Excess::Bytes),
            (self.before.len() + 1, COMMAND_CHANGES_MAX, Excess::Changes),
        ];
        let excess = checks.into_iter().find(|(size, limit, _)| size > limit);
        self.excess = self.excess.or(excess.map(|(size, _, excess)| excess(size as u64)));
    }
}

impl<'a> Transaction<'a> {
    /// Nothing is changed yet. Of interest to tests of state machines.
    #[must_use]
    pub fn new(view: View<'a>) -> Self {
        Self { view, changes: BTreeMap::new(), bytes: 0, effect: Effect::default(), events: Vec::new() }
    }

    /// The value of a key, with what was changed before.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        match self.changes.get(key) {
            Some(changed) => Ok(changed.clone()),
            None => self.view.get(key),
        }
    }

    /// Creates an entry, or replaces its value.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.change(key.into(), Some(value.into()));
    }

    /// Removes an entry, if it is there.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.change(key.into(), None);
    }

    fn change(&mut self, key: Bytes, value: Option<Bytes>) {
        self.effect.note(&key, value.as_ref().map_or(0, Bytes::len));
        let before = self.changes.insert(key.clone(), value);
        self.effect.before.push((key, before));
    }

    /// The command is over, and answers this. If that or what it did is too much, all that it did is taken back. It
    /// depends on the command alone, and not on those that came before in the batch.
    pub(crate) fn settle(&mut self, answer: &Bytes) -> Result<(), Excess> {
        let effect = std::mem::take(&mut self.effect);
        let too_long = (answer.len() > ANSWER_BYTES_MAX).then_some(Excess::Answer(answer.len() as u64));
        let Some(excess) = effect.excess.or(too_long) else {
            self.bytes += effect.bytes;
            return Ok(());
        };
        for (key, before) in effect.before.into_iter().rev() {
            match before {
                Some(change) => drop(self.changes.insert(key, change)),
                None => drop(self.changes.remove(&key)),
            }
        }
        self.events.clear();
        Err(excess)
    }

    /// Tells whoever watches the partition on this node what happened, once the command took effect.
    pub fn emit(&mut self, event: impl Into<Bytes>) {
        self.events.push(event.into());
    }

    /// Entries in the order of their keys, with what was changed before: as many as the query allows, on every replica
    /// alike, however its commands were gathered into batches.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub fn range(&self, query: &Query<'_>) -> Result<Found, StateError> {
        let entries_max = query.entries_max.clamp(1, STATE_ENTRIES_MAX);
        let bytes_max = query.bytes_max.min(STATE_BATCH_BYTES_MAX);
        let (mut entries, mut bytes): (Vec<(Bytes, Bytes)>, usize) = (Vec::new(), 0);
        let own = |bound: Bound<&[u8]>| bound.map(Bytes::copy_from_slice);
        let (mut start, mut end) = (own(query.start), own(query.end));
        loop {
            let rest = Query { start: as_slice(&start), end: as_slice(&end), ..query.clone() };
            let found = self.view.range(&rest)?;
            for (key, value) in self.overlay(&rest, &found) {
                bytes += key.len() + value.len();
                if entries.len() == entries_max || bytes > bytes_max && !entries.is_empty() {
                    return Ok(Found { entries, is_complete: false });
                }
                entries.push((key, value));
            }
            let Some((last, _)) = found.entries.last().filter(|_| !found.is_complete) else {
                return Ok(Found { entries, is_complete: true });
            };
            match query.order {
                Order::Ascending => start = Bound::Excluded(last.clone()),
                Order::Descending => end = Bound::Excluded(last.clone()),
            }
        }
    }

    /// What was changed, over what the store has of the part that `found` speaks of.
    fn overlay(&self, query: &Query<'_>, found: &Found) -> Vec<(Bytes, Bytes)> {
        let (start, end) = covered(query, found);
        let mut entries: BTreeMap<Bytes, Bytes> = found.entries.iter().cloned().collect();
        let bounds = (as_slice(&start), as_slice(&end));
        if !is_empty(bounds) {
            for (key, change) in self.changes.range::<[u8], _>(bounds) {
                match change {
                    Some(value) => drop(entries.insert(key.clone(), value.clone())),
                    None => drop(entries.remove(key)),
                }
            }
        }
        match query.order {
            Order::Ascending => entries.into_iter().collect(),
            Order::Descending => entries.into_iter().rev().collect(),
        }
    }

    /// Bytes of keys and values that were changed by commands that are over.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many entries were changed.
    pub(crate) fn count(&self) -> usize {
        self.changes.len()
    }

    /// What was told to those who watch since the last call. Of interest to tests of state machines.
    #[must_use]
    pub fn take_events(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.events)
    }

    /// The changes, as the store takes them. Of interest to tests of state machines.
    #[must_use]
    pub fn into_changes(self) -> Vec<Change> {
        let change = |(key, value): (Bytes, Option<Bytes>)| {
            let key = prefixed(&key);
            match value {
                Some(value) => Change::Put { key, value },
                None => Change::Delete { key },
            }
        };
        self.changes.into_iter().map(change).collect()
    }
}

/// The part of a query that what was found speaks of: all of it, or up to the last key.
fn covered(query: &Query<'_>, found: &Found) -> (Bound<Bytes>, Bound<Bytes>) {
    let own = |bound: Bound<&[u8]>| bound.map(Bytes::copy_from_slice);
    let (start, end) = (own(query.start), own(query.end));
    let last = found.entries.last().map(|(key, _)| key.clone());
    match (found.is_complete, last, query.order) {
        (false, Some(last), Order::Ascending) => (start, Bound::Included(last)),
        (false, Some(last), Order::Descending) => (Bound::Included(last), end),
        _ => (start, end),
    }
}

/// Whether no key can lie between the bounds: a map would panic.
fn is_empty(bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match bounds {
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end))
        | (Bound::Excluded(start), Bound::Included(end)) => start >= end,
        _ => false,
    }
}

fn prefixed(key: &[u8]) -> Bytes {
    [&[USER_PREFIX], key].concat().into()
}

fn prefixed_start(bound: Bound<&[u8]>) -> Bound<Bytes> {
    match bound {
        Bound::Unbounded => Bound::Included(prefixed(&[])),
        bound => bound.map(prefixed),
    }
}

fn prefixed_end(bound: Bound<&[u8]>) -> Bound<Bytes> {
    match bound {
        Bound::Unbounded => Bound::Excluded(Bytes::from_static(&[USER_PREFIX + 1])),
        bound => bound.map(prefixed),
    }
}

fn as_slice(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    bound.as_ref().map(Bytes::as_ref)
}

#[cfg(test)]
mod tests {
    use std::ops::Bound::{Excluded, Included};

    use clusterkit_storage::state_store::MemoryStore;

    use super::*;

    const REPLICA: ReplicaKey = ReplicaKey(1);

    fn store(keys: &[&'static str]) -> MemoryStore {
        let store = MemoryStore::new();
        let mut state = Transaction::new(View::new(&store, REPLICA));
        for key in keys {
            state.put(*key, *key);
        }
        let changes = state.into_changes();
        store.apply(REPLICA, &changes, 1).expect("it has room");
        store
    }

    fn keys(found: &Found) -> Vec<&str> {
        found.entries.iter().map(|(key, _)| std::str::from_utf8(key).expect("text")).collect()
    }

    #[test]
    fn a_command_sees_what_those_before_it_did() {
        let store = store(&["a", "b", "d"]);
        let mut state = Transaction::new(View::new(&store, REPLICA));
        state.put("c", "c");
        state.delete("b");
        assert_eq!(state.get(b"b").expect("reads"), None);
        assert_eq!(keys(&state.range(&Query::default()).expect("reads")), ["a", "c", "d"]);
        let descending = Query { order: Order::Descending, ..Query::default() };
        assert_eq!(keys(&state.range(&descending).expect("reads")), ["d", "c", "a"]);
    }

    #[test]
    fn a_command_that_goes_too_far_is_taken_back_and_those_before_it_stay() {
        let store = store(&["a", "b"]);
        let mut state = Transaction::new(View::new(&store, REPLICA));
        state.put("a", "1");
        state.delete("b");
        assert_eq!(state.settle(&Bytes::new()), Ok(()));
        let (bytes, count) = (state.bytes(), state.count());
        let settled = state.range(&Query::default()).expect("reads");
        state.delete("a");
        state.put("a", "2");
        state.put("b", "2");
        state.put("c", "2");
        state.emit("told");
        state.put("d", vec![0; VALUE_BYTES_MAX + 1]);
        assert_eq!(state.settle(&Bytes::new()), Err(Excess::Value(VALUE_BYTES_MAX as u64 + 1)));
        assert_eq!((state.bytes(), state.count(), state.take_events()), (bytes, count, vec![]));
        assert_eq!(state.range(&Query::default()).expect("reads"), settled);
    }

    #[test]
    fn a_range_in_pieces_gives_every_entry_once() {
        let store = store(&["a", "c", "e", "g"]);
        let mut state = Transaction::new(View::new(&store, REPLICA));
        for key in ["b", "d", "h"] {
            state.put(key, key);
        }
        state.delete("c");
        let (mut all, mut last) = (Vec::new(), Bytes::new());
        loop {
            let query =
                Query { start: Excluded(&last[..]), end: Included(b"g"), entries_max: 2, ..Query::default() };
            let found = state.range(&query).expect("reads");
            all.extend(keys(&found).iter().map(|key| (*key).to_owned()));
            let Some((key, _)) = found.entries.last().filter(|_| !found.is_complete) else { break };
            last = key.clone();
        }
        assert_eq!(all, ["a", "b", "d", "e", "g"]);
    }

    #[test]
    fn a_piece_of_which_all_was_removed_is_passed_over() {
        let store = store(&["a", "b", "c"]);
        let mut state = Transaction::new(View::new(&store, REPLICA));
        state.delete("a");
        state.delete("c");
        let check = |order, expect: &str| {
            let found = state.range(&Query { entries_max: 1, order, ..Query::default() }).expect("reads");
            assert_eq!(keys(&found), [expect]);
        };
        check(Order::Ascending, "b");
        check(Order::Descending, "b");
    }

    /// Replicas that gather commands into other batches must see the same.
    #[test]
    fn what_a_range_gives_does_not_depend_on_what_is_in_the_batch() {
        let keys = ["a", "b", "c", "d", "e", "f"];
        let whole = store(&keys);
        let half = store(&keys[..3]);
        let mut batch = Transaction::new(View::new(&half, REPLICA));
        keys[3..].iter().for_each(|key| batch.put(*key, *key));
        for entries_max in 1..8 {
            for bytes_max in 1..14 {
                for order in [Order::Ascending, Order::Descending] {
                    let query = Query { entries_max, bytes_max, order, ..Query::default() };
                    let expected = Transaction::new(View::new(&whole, REPLICA)).range(&query).expect("reads");
                    assert_eq!(batch.range(&query).expect("reads"), expected, "{query:?}");
                }
            }
        }
    }

    #[test]
    fn what_the_library_keeps_beside_it_is_not_seen() {
        let store = store(&["a"]);
        let own = Change::Put { key: Bytes::from_static(b"s1"), value: Bytes::new() };
        let more = Change::Put { key: Bytes::from_static(b"v1"), value: Bytes::new() };
        store.apply(REPLICA, &[own, more], 2).expect("it has room");
        assert_eq!(keys(&View::new(&store, REPLICA).range(&Query::default()).expect("reads")), ["a"]);
    }
}
