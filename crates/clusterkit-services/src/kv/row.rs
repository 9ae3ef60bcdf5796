//! The rows of the state, as the [module](super) lists them.

use bytes::{Buf, Bytes};
use clusterkit_core::replica::LogTime;

use super::question::{Description, Stats};
use super::{Version, limits};
use crate::header::SERVICE_KV;
use crate::namespace::Namespace;

const ENTRY: u8 = b'e';
const EXPIRY: u8 = b'x';
const STATS: u8 = b's';

/// Stands for never where a row says when an entry expires.
const NEVER: u64 = u64::MAX;
/// Bytes before the value in the row of an entry.
const ENTRY_HEADER_BYTES: usize = 16;
/// Bytes of a row's key before its namespace or time.
const KIND_BYTES: usize = 2;

const _: () = assert!(limits::VALUE_BYTES_MAX <= u32::MAX as usize);

/// Whether an entry that expires then is gone now.
pub(super) fn has_expired(expires_at: Option<LogTime>, now: LogTime) -> bool {
    expires_at.is_some_and(|at| at <= now)
}

/// Bytes of a value.
pub(super) fn count(value: &[u8]) -> u32 {
    u32::try_from(value.len()).expect("a value is far below 4 GiB")
}

/// Where the row of an entry lies.
pub(super) fn entry_key(namespace: &Namespace, key: &[u8]) -> Bytes {
    let mut row = begin(ENTRY, key.len());
    namespace.write(&mut row);
    row.extend_from_slice(key);
    row.into()
}

/// The key of an entry, of where its row lies.
pub(super) fn key_of(namespace: &Namespace, row: &Bytes) -> Bytes {
    row.slice(KIND_BYTES + 1 + namespace.as_str().len()..)
}

/// Before which rows of entries with the prefix end, which begin at `start`.
pub(super) fn prefix_end(start: &[u8]) -> Bytes {
    let last = start.iter().rposition(|byte| *byte < u8::MAX).expect("the service byte is below 255");
    let mut end = start[..=last].to_vec();
    end[last] += 1;
    end.into()
}

/// The row of an entry.
pub(super) fn entry(version: Version, expires_at: Option<LogTime>, value: &[u8]) -> Bytes {
    let mut row = Vec::with_capacity(ENTRY_HEADER_BYTES + value.len());
    row.extend_from_slice(&version.0.to_be_bytes());
    row.extend_from_slice(&expires_at.map_or(NEVER, |at| at.0).to_be_bytes());
    row.extend_from_slice(value);
    row.into()
}

/// What the row of an entry says.
pub(super) fn read_entry(mut row: Bytes) -> (Description, Bytes) {
    let (version, at) = (Version(row.get_u64()), row.get_u64());
    let expires_at = (at != NEVER).then_some(LogTime(at));
    (Description { version, expires_at, value_bytes: count(&row) }, row)
}

/// Where the row lies that says when an entry expires.
pub(super) fn expiry_key(at: LogTime, namespace: &Namespace, key: &[u8]) -> Bytes {
    let mut row = begin(EXPIRY, key.len());
    row.extend_from_slice(&at.0.to_be_bytes());
    namespace.write(&mut row);
    row.extend_from_slice(key);
    row.into()
}

/// When which entry expires, of where the row lies that says so.
pub(super) fn read_expiry_key(row: &Bytes) -> (LogTime, Namespace, Bytes) {
    let mut rest = row.slice(KIND_BYTES..);
    let at = LogTime(rest.get_u64());
    let name_bytes = usize::from(rest.get_u8());
    let name = rest.split_to(name_bytes);
    (at, Namespace::read(&name).expect("rows have names that were checked"), rest)
}

/// The row that says when an entry expires: the size of its value, so that a sweep need not read it.
pub(super) fn expiry(value_bytes: u32) -> Bytes {
    value_bytes.to_be_bytes().to_vec().into()
}

/// The size of the value, of the row that says when it expires.
pub(super) fn read_expiry(mut row: Bytes) -> u32 {
    row.get_u32()
}

/// The rows of entries that expire up to a time: the first one, and before which they end.
pub(super) fn expiry_range(until: LogTime) -> (Bytes, Bytes) {
    let mut end = begin(EXPIRY, 0);
    match until.0.checked_add(1) {
        Some(after) => end.extend_from_slice(&after.to_be_bytes()),
        None => end[1] += 1,
    }
    (begin(EXPIRY, 0).into(), end.into())
}

/// Where the row of a namespace's stats lies.
pub(super) fn stats_key(namespace: &Namespace) -> Bytes {
    let mut row = begin(STATS, 0);
    namespace.write(&mut row);
    row.into()
}

/// The row of stats.
pub(super) fn stats(stats: Stats) -> Bytes {
    [stats.keys.to_be_bytes(), stats.value_bytes.to_be_bytes()].concat().into()
}

/// What the row of stats says; nothing is there without one.
pub(super) fn read_stats(row: Option<Bytes>) -> Stats {
    row.map(|mut row| Stats { keys: row.get_u64(), value_bytes: row.get_u64() }).unwrap_or_default()
}

fn begin(kind: u8, key_bytes: usize) -> Vec<u8> {
    let mut row = Vec::with_capacity(limits::ROW_OVERHEAD_BYTES + key_bytes);
    row.extend_from_slice(&[SERVICE_KV, kind]);
    row
}
