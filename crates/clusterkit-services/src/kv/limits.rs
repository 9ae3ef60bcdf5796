//! Every bound of the key-value service, with the relations between them checked.

use std::time::Duration;

use clusterkit_core::replica::PAYLOAD_BYTES_MAX;
use clusterkit_data::{COMMAND_BYTES_MAX, COMMAND_CHANGES_MAX};

use crate::namespace::NAMESPACE_BYTES_MAX;

/// Bytes of a key, of which it has one at least, and of a prefix, which may have none.
pub const KEY_BYTES_MAX: usize = 4 << 10;
/// Bytes of a value.
pub const VALUE_BYTES_MAX: usize = 4 << 20;
/// Writes of one batch.
pub const BATCH_WRITES_MAX: usize = 1_024;
/// Bytes of the keys and values that one batch carries: with what is written around them, it is a payload of the log.
pub const BATCH_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - BATCH_OVERHEAD_BYTES;
/// Bytes of the entries that one batch writes, those counted too that a later write of it replaces: an append to a
/// large value carries little and writes much.
pub const BATCH_WRITTEN_BYTES_MAX: usize = 16 << 20;
/// Keys of one question.
pub const KEYS_MAX: usize = 1_024;
/// Entries of one page of a scan.
pub const PAGE_ENTRIES_MAX: usize = 1_024;
/// Bytes of the keys and values of one answer. A single entry may always be in it.
pub const READ_BYTES_MAX: usize = 8 << 20;
/// Entries that one question reads, expired ones and those whose value is not asked for counted too.
pub const EXAMINED_ENTRIES_MAX: usize = 4_096;
/// Bytes of entries that one question reads, one entry aside.
pub const EXAMINED_BYTES_MAX: usize = 16 << 20;
/// Entries that one command to delete a prefix or to sweep removes.
pub const REMOVED_ENTRIES_MAX: usize = 1_024;
/// Bytes of entries that one such command removes, one entry aside.
pub const REMOVED_BYTES_MAX: usize = 16 << 20;
/// Bytes of a value that an event carries. Whoever watches reads larger ones by key.
pub const EVENT_VALUE_BYTES_MAX: usize = 64 << 10;
/// The longest time to live.
pub const TTL_MAX: Duration = Duration::from_secs(1_000 * 366 * 24 * 60 * 60);

/// Bytes that are written around the keys and values of a batch: the header and, for each write, lengths, a
/// condition and what is to be done.
const BATCH_OVERHEAD_BYTES: usize = 64 << 10;
/// The most bytes of all that for one write: six numbers and tags of up to 10 bytes.
const WRITE_OVERHEAD_BYTES: usize = 60;
/// Bytes of a value that a batch keeps in memory between its checks and its writes; larger ones are read again.
pub(super) const KEPT_BYTES_MAX: usize = 16 << 10;
/// Bytes of a key or value in the store beside those of users.
pub(super) const ROW_OVERHEAD_BYTES: usize = 2 + 8 + 1 + NAMESPACE_BYTES_MAX;

const _: () =
    assert!(BATCH_WRITES_MAX * WRITE_OVERHEAD_BYTES + NAMESPACE_BYTES_MAX + 16 <= BATCH_OVERHEAD_BYTES);
const _: () = assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX <= BATCH_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX <= BATCH_WRITTEN_BYTES_MAX);
const _: () = assert!(KEY_BYTES_MAX + ROW_OVERHEAD_BYTES <= clusterkit_data::KEY_BYTES_MAX);
const _: () = assert!(VALUE_BYTES_MAX + ROW_OVERHEAD_BYTES <= clusterkit_data::VALUE_BYTES_MAX);
// What one command changes is as much as it may be: each key has an entry and two rows of expiry, the old one
// and the new one.
const _: () = assert!(
    BATCH_WRITTEN_BYTES_MAX + 3 * BATCH_WRITES_MAX * (KEY_BYTES_MAX + 2 * ROW_OVERHEAD_BYTES)
        <= COMMAND_BYTES_MAX
);
const _: () = assert!(3 * BATCH_WRITES_MAX < COMMAND_CHANGES_MAX && REMOVED_ENTRIES_MAX <= BATCH_WRITES_MAX);
const _: () = assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX <= READ_BYTES_MAX);
const _: () = assert!(PAGE_ENTRIES_MAX <= EXAMINED_ENTRIES_MAX);
