//! Every bound of the storage of a node, in one place, with the relations between them checked.

use std::time::Duration;

use clusterkit_core::replica::{PAYLOAD_BYTES_MAX, SESSIONS_ENDED_MAX, SessionConfig};
use clusterkit_storage::limits::{
    NOTE_BYTES_MAX, RECORD_BYTES_MAX, STATE_BATCH_BYTES_MAX, STATE_CHANGES_MAX, STATE_RECLAIM_ENTRIES_MAX,
    STATE_SCRUB_UNITS_MAX,
};

use crate::limits::{ANSWER_BYTES_MAX, COMMAND_BYTES_MAX, COMMAND_CHANGES_MAX};

/// Threads that apply and evaluate. A replica always has the same one.
pub(crate) const STATE_THREADS: usize = 2;
/// Bytes that may wait in a queue before the engine is to refuse writes. What is under way then still comes.
pub(crate) const QUEUED_BYTES_MAX: usize = 64 << 20;
/// Inputs that one step of a worker takes from its queue.
pub(crate) const STEP_INPUTS_MAX: usize = 4_096;
/// Bytes of inputs that one step of a worker takes from its queue, and one input at least.
pub(crate) const STEP_BYTES_MAX: usize = 16 << 20;
/// Reads and upkeep that wait for their threads, before the log worker does them itself.
pub(crate) const ERRANDS_MAX: usize = 1_024;
/// How often states are made durable at least.
pub(crate) const CHECKPOINT_PAUSE: Duration = Duration::from_secs(1);
/// Bytes that are appended to the log before states are made durable early.
pub(crate) const CHECKPOINT_BYTES: u64 = 64 << 20;
/// Records below a checkpoint that a log keeps, for replicas that are a little behind.
pub(crate) const RECORDS_KEPT: u64 = 4_096;
/// Entries of dropped replicas that one step of maintenance frees.
pub(crate) const RECLAIM_ENTRIES: usize = 8_192;
/// Pages and entries that one step of maintenance looks at.
pub(crate) const SCRUB_UNITS: usize = 1_024;
/// Segments of the log from which on it is compacted.
pub(crate) const COMPACT_SEGMENTS: usize = 8;
/// Bytes that one step of the log worker moves to compact the log.
pub(crate) const COMPACT_BYTES: u64 = 1 << 20;
/// Damages that wait to be mended. Others are seen again later.
pub(crate) const DAMAGES_MAX: usize = 1_024;
/// Bytes of a log that recovery reads at once.
pub(crate) const RECOVERY_BYTES: u64 = 1 << 20;
/// Bytes of changes after which the records so far are handed to the state store, and the batch goes on.
pub(crate) const PART_BYTES: usize = 16 << 20;
/// Changes after which the records so far are handed to the state store, and the batch goes on.
pub(crate) const PART_CHANGES: usize = 16_384;
/// Bytes of a record in the log, beside its payload.
pub(crate) const RECORD_HEADER_BYTES_MAX: usize = 42;
/// Bytes of a note.
pub(crate) const NOTE_LENGTH_MAX: usize = 64;

const _: () = assert!(PAYLOAD_BYTES_MAX + RECORD_HEADER_BYTES_MAX <= RECORD_BYTES_MAX);
const _: () = assert!(NOTE_LENGTH_MAX <= NOTE_BYTES_MAX);
const _: () = assert!(STEP_BYTES_MAX <= QUEUED_BYTES_MAX);
const _: () = assert!(RECLAIM_ENTRIES <= STATE_RECLAIM_ENTRIES_MAX && SCRUB_UNITS <= STATE_SCRUB_UNITS_MAX);
// Whatever follows a part that is almost full fits into its batch: what a command changes and answers, and the rows of
// sessions and epochs.
const _: () =
    assert!(PART_BYTES + COMMAND_BYTES_MAX + ANSWER_BYTES_MAX + 1 + ROWS_BYTES <= STATE_BATCH_BYTES_MAX);
const _: () = assert!(PART_CHANGES + COMMAND_CHANGES_MAX + SESSION_ROWS + 4 <= STATE_CHANGES_MAX);
const _: () = assert!((PART_CHANGES + SESSION_ROWS) * SESSION_ROW_BYTES < ROWS_BYTES);
/// Rows of as many sessions as a record ends at most, with as many answers as they have by default.
const SESSION_ROWS: usize = 2 * SESSIONS_ENDED_MAX * (1 + SessionConfig::ANSWERS_MAX_DEFAULT);
/// Bytes of the row of a session, or of an answer beside the answer itself.
const SESSION_ROW_BYTES: usize = 64;
/// Bytes of rows that the library keeps beside the users' entries, without answers.
const ROWS_BYTES: usize = 2 << 20;
