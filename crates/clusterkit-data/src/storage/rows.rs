//! What the library keeps beside the users' entries in the state of a replica, in the same batches, so that all of it
//! belongs to the same index, travels in snapshots and counts in digests:
//!
//! - `e`: the epochs of all records that were applied, written when a new one began;
//! - `t`: the time of the last record that was applied;
//! - `s`, epoch, offset: a session, when it was used last and its floor;
//! - `a`, epoch, offset, sequence: an answer of that session.
//!
//! Numbers in keys are big-endian, so that they sort. The users' keys begin with [`USER_PREFIX`].

use std::ops::Bound;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use clusterkit_core::id::Epoch;
use clusterkit_core::replica::{EpochIndex, LogTime, SessionChanges, SessionId, SessionRow, Sessions};
use clusterkit_storage::state_store::{Change, Query, ReplicaKey as StateKey, StateError, StateStore};

use super::codec::{Unknown, unversioned, versioned};
use crate::machine::USER_PREFIX;

const EPOCHS_KEY: &[u8] = b"e";
const TIME_KEY: &[u8] = b"t";
const SESSION_PREFIX: u8 = b's';
const ANSWER_PREFIX: u8 = b'a';

const _: () = assert!(USER_PREFIX != SESSION_PREFIX && USER_PREFIX != ANSWER_PREFIX);
const _: () = assert!(USER_PREFIX != EPOCHS_KEY[0] && USER_PREFIX != TIME_KEY[0]);

/// What is known of the records that were applied to a state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// All below this offset.
    pub(crate) end: u64,
    /// Their epochs.
    pub(crate) epochs: EpochIndex,
    /// The time of the last of them.
    pub(crate) time: LogTime,
}

/// The rows of a state cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    /// A row is nothing that this program wrote. The replica is damaged.
    #[error(transparent)]
    Row(#[from] Unknown),
    /// The store failed.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Applied {
    /// Reads the rows `e` and `t`. Nothing was applied to a state that is missing.
    pub(crate) fn read(store: &dyn StateStore, state: StateKey) -> Result<Self, RowError> {
        let Some(end) = store.applied_index(state)? else { return Ok(Self::default()) };
        let epochs = store.get(state, EPOCHS_KEY)?.map(|row| unversioned(&row)).transpose()?;
        let time = store.get(state, TIME_KEY)?.map(|row| unversioned(&row)).transpose()?;
        Ok(Self { end, epochs: epochs.unwrap_or_default(), time: time.unwrap_or_default() })
    }

    /// The rows that changed since it was `before`.
    pub(crate) fn changes_since(&self, before: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut put = |key, value| changes.push(Change::Put { key: Bytes::from_static(key), value });
        if self.epochs != before.epochs {
            put(EPOCHS_KEY, versioned(&self.epochs));
        }
        if self.time != before.time {
            put(TIME_KEY, versioned(&self.time));
        }
        changes
    }
}

/// Reads the table of sessions.
pub(crate) fn read_sessions(store: &dyn StateStore, state: StateKey) -> Result<Sessions, RowError> {
    let mut sessions = Vec::new();
    each(store, state, SESSION_PREFIX, |key, row| {
        let (used_at, floor) = unversioned(row)?;
        sessions.push((session_in(key)?, SessionRow { used_at, floor }));
        Ok(())
    })?;
    let mut answers = Vec::new();
    each(store, state, ANSWER_PREFIX, |key, answer| {
        let (session, mut sequence) = key.split_at_checked(17).ok_or(Unknown)?;
        let session = session_in(session)?;
        let sequence = if sequence.len() == 8 { sequence.get_u64() } else { return Err(Unknown) };
        answers.push(((session, sequence), answer.clone()));
        Ok(())
    })?;
    Ok(Sessions::restored(sessions, answers))
}

/// The rows that changed in a table of sessions.
pub(crate) fn session_changes(changes: SessionChanges) -> Vec<Change> {
    let session = |(id, row): (SessionId, Option<SessionRow>)| {
        let row = row.map(|row| versioned(&(row.used_at, row.floor)));
        change(session_key(SESSION_PREFIX, id).freeze(), row)
    };
    let answer = |((id, sequence), answer): ((SessionId, u64), Option<Bytes>)| {
        let mut key = session_key(ANSWER_PREFIX, id);
        key.put_u64(sequence);
        change(key.freeze(), answer)
    };
    let SessionChanges { sessions, answers } = changes;
    sessions.into_iter().map(session).chain(answers.into_iter().map(answer)).collect()
}

fn change(key: Bytes, value: Option<Bytes>) -> Change {
    match value {
        Some(value) => Change::Put { key, value },
        None => Change::Delete { key },
    }
}

fn session_key(prefix: u8, id: SessionId) -> BytesMut {
    let mut key = BytesMut::with_capacity(25);
    key.put_u8(prefix);
    key.put_u64(id.epoch.0);
    key.put_u64(id.offset);
    key
}

fn session_in(key: &[u8]) -> Result<SessionId, Unknown> {
    match key.split_first() {
        Some((_, mut rest)) if rest.len() == 16 => {
            Ok(SessionId { epoch: Epoch(rest.get_u64()), offset: rest.get_u64() })
        }
        _ => Err(Unknown),
    }
}

/// Goes through all rows whose keys begin with `prefix`.
fn each(
    store: &dyn StateStore,
    state: StateKey,
    prefix: u8,
    mut visit: impl FnMut(&[u8], &Bytes) -> Result<(), Unknown>,
) -> Result<(), RowError> {
    let end = [prefix + 1];
    let mut after = Bytes::copy_from_slice(&[prefix]);
    loop {
        // No row has the prefix alone as its key.
        let query = Query { start: Bound::Excluded(&after), end: Bound::Excluded(&end), ..Query::default() };
        let found = store.range(state, &query)?;
        for (key, value) in &found.entries {
            visit(key, value)?;
        }
        match found.entries.into_iter().next_back() {
            Some((last, _)) if !found.is_complete => after = last,
            _ => return Ok(()),
        }
    }
}
