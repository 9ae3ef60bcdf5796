//! Removing many entries, a bounded number at once.

use std::ops::Bound;

use bytes::Bytes;
use clusterkit_data::Transaction;
use clusterkit_storage::state_store::{Query, StateError};

use super::answer::Answer;
use super::change::Changes;
use super::event::EventKind;
use super::limits::{REMOVED_BYTES_MAX, REMOVED_ENTRIES_MAX};
use super::question::Description;
use super::{Stop, Version, row};
use crate::namespace::Namespace;

pub(super) fn delete_prefix(
    namespace: &Namespace,
    prefix: &[u8],
    entries_max: u32,
    changes: &mut Changes<'_, '_>,
) -> Result<Answer, Stop> {
    let start = row::entry_key(namespace, prefix);
    let range = (start.clone(), row::prefix_end(&start));
    let (rows, more) = gather(changes.state, &range, entries_max, |_, row| row.len())?;
    let mut deleted = 0;
    for (at, row) in rows {
        let (entry, _) = row::read_entry(row);
        let is_expired = row::has_expired(entry.expires_at, changes.now);
        let kind = if is_expired { EventKind::Expired } else { EventKind::Deleted };
        deleted += u32::from(!is_expired);
        changes.remove((namespace, &row::key_of(namespace, &at)), &entry, kind);
    }
    Ok(Answer::PrefixDeleted { deleted, more })
}

pub(super) fn sweep(entries_max: u32, changes: &mut Changes<'_, '_>) -> Result<Answer, Stop> {
    let range = row::expiry_range(changes.now);
    let value_bytes = |_: &Bytes, row: &Bytes| row::read_expiry(row.clone()) as usize;
    let (rows, more) = gather(changes.state, &range, entries_max, value_bytes)?;
    let mut expired = 0;
    for (at, row) in rows {
        let (time, namespace, key) = row::read_expiry_key(&at);
        // Nobody needs the version of an entry that goes.
        let entry =
            Description { version: Version(0), expires_at: Some(time), value_bytes: row::read_expiry(row) };
        changes.remove((&namespace, &key), &entry, EventKind::Expired);
        expired += 1;
    }
    Ok(Answer::Swept { expired, more })
}

type Rows = Vec<(Bytes, Bytes)>;

/// The first rows of a range, and whether there are more.
///
/// How many a transaction gives at once depends on what its batch changed before, and batches differ between
/// replicas. So they are counted here, and what is returned depends on the state alone.
fn gather(
    state: &Transaction<'_>,
    (start, end): &(Bytes, Bytes),
    entries_max: u32,
    size: impl Fn(&Bytes, &Bytes) -> usize,
) -> Result<(Rows, bool), StateError> {
    let entries_max = (entries_max as usize).clamp(1, REMOVED_ENTRIES_MAX);
    let (mut rows, mut bytes): (Rows, usize) = (Vec::new(), 0);
    loop {
        let behind = rows.last().map(|(key, _)| key.clone());
        let query = Query {
            start: behind.as_deref().map_or(Bound::Included(&start[..]), Bound::Excluded),
            end: Bound::Excluded(end),
            entries_max: entries_max + 1 - rows.len(),
            bytes_max: REMOVED_BYTES_MAX,
            ..Query::default()
        };
        let found = state.range(&query)?;
        for (key, row) in found.entries {
            bytes += key.len() + size(&key, &row);
            if rows.len() == entries_max || bytes > REMOVED_BYTES_MAX && !rows.is_empty() {
                return Ok((rows, true));
            }
            rows.push((key, row));
        }
        if found.is_complete {
            return Ok((rows, false));
        }
    }
}
