//! The log and the states of a node's replicas, on a disk: what carries out the actions of [`Replicas`] that concern
//! them.
//!
//! [`Replicas`]: clusterkit_core::replica::Replicas
//!
//! One log is shared by all replicas, and one sync makes durable what all of them have written since the last one. The
//! state is what the log amounts to, and is written down now and then. The name of a replica in both is its uid.
//!
//! | module | does |
//! | --- | --- |
//! | `codec` | how records and notes lie in the log |
//! | `rows` | what the library keeps beside the users' entries: sessions, epochs, time |
//! | `open` | what an earlier run left |
//! | `log_worker` | changes of logs, syncs, reads, upkeep |
//! | `state_worker` | applies records, evaluates questions |
//! | `maintenance` | makes states durable, frees, looks for damage and mends it |
//! | `snapshot` | states on their way to other nodes and from them |
//! | `queue` | what waits for a worker |
//! | `threads` | a thread for each worker |
//!
//! Workers are plain structs that are given inputs and tell [`StorageEvent`]s, so that a simulation can run them.
//!
//! # What is kept
//!
//! - Records, in the stream of the replica. Its note says of which partition it is, how far it was known to be
//!   committed, and whether a snapshot is about to take its place.
//! - The state, with the index of the last record that was applied plus one. It is never ahead of what is durable in
//!   the log, because only durable records are given to be applied.
//! - A snapshot is put in its place in three steps, each durable before the next: the note says where it ends, the
//!   state is replaced, the stream begins anew there. A crash after the second leaves a state ahead of its log, and
//!   the note tells that from damage: the third step is done when the storage is opened.
//!
//! # What fails
//!
//! - A write or sync that fails ends everything, with one [`StorageEvent::Failed`]: nothing is tried again (rule D3).
//!   So does a full disk.
//! - What is damaged takes its replicas out of service, with one [`StorageEvent::Damaged`] each, and no other. Their
//!   states are given up, so that they are still damaged after a restart.

mod codec;
mod limits;
mod log_worker;
mod maintenance;
mod open;
mod queue;
mod rows;
mod shared;
mod snapshot;
mod state_worker;
#[cfg(test)]
mod tests;
mod threads;

use std::sync::Arc;

use bytes::Bytes;
use clusterkit_core::replica::{FetchToken, LogOp, ReadId, Record, ReplicaKey};
use clusterkit_storage::shared_log::{
    AppendError, ChangeError, CompactError, LogError, ReadError, UpkeepError,
};
use clusterkit_storage::state_store::{ApplyError, StateError};

use crate::error::Excess;

pub(crate) use self::limits::QUEUED_BYTES_MAX;
pub(crate) use self::log_worker::{Errand, LogInput, LogWorker};
pub(crate) use self::maintenance::Maintenance;
pub use self::open::OpenError;
pub(crate) use self::open::{NodeStorage, Options, StateOptions};
pub(crate) use self::queue::{LogQueue, StateQueue};
pub(crate) use self::snapshot::{Receiver, SnapshotReader, Snapshots};
pub(crate) use self::state_worker::{StateInput, StateWorker};
pub(crate) use self::threads::Running;

/// Hears what the storage did. It is called by the workers' threads, and must neither block nor call back into the
/// storage but to push into its queues.
pub(crate) type Tell = Arc<dyn Fn(StorageEvent) + Send + Sync>;

/// What the storage did.
#[derive(Debug)]
pub(crate) enum StorageEvent {
    /// A batch was applied as a whole.
    Applied {
        /// To whose state.
        key: ReplicaKey,
        /// The offset of its first record.
        first: u64,
        /// Where it ended.
        end: u64,
        /// What came of each record, by offset.
        answers: Vec<(u64, Answer)>,
        /// What the state machine told those who watch, by offset.
        events: Vec<(u64, Bytes)>,
    },
    /// Something of a replica is not what was written. It is told once for each, and nothing of it is served any more.
    Damaged {
        /// Which one.
        key: ReplicaKey,
    },
    /// These changes are durable, and everything before them.
    Durable(Vec<(ReplicaKey, LogOp)>),
    /// A question was answered.
    Evaluated {
        /// Which one.
        read: ReadId,
        /// The answer.
        answer: Result<Bytes, EvaluateError>,
    },
    /// Everything has stopped. Stop the node. It is told once.
    Failed(StorageError),
    /// Records were read back.
    Fetched {
        /// Of whose log.
        key: ReplicaKey,
        /// As it was given.
        token: FetchToken,
        /// The offset of the first.
        first: u64,
        /// The records; none if they are not there.
        records: Vec<Record>,
    },
    /// The log of a replica begins later now.
    Released {
        /// Whose log.
        key: ReplicaKey,
        /// Where.
        start: u64,
    },
}

/// What came of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The state machine answered this.
    Applied(Bytes),
    /// It is no command.
    Nothing,
    /// The command took effect before, and this was the answer.
    Repeated(Bytes),
    /// Its session is over.
    SessionExpired,
    /// The session that it opens is open.
    SessionOpened,
    /// So many later commands of its session were answered that it cannot be told whether this one was.
    SessionTooOld,
    /// What it comes to is too large: it changed nothing, now or when it was first applied.
    TooLarge(Excess),
}

/// A question was not answered. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EvaluateError {
    /// The replica is damaged. Ask another one.
    #[error("the replica is damaged")]
    Damaged,
    /// The storage has failed. Ask another node.
    #[error("the storage of the node has failed")]
    Failed,
}

/// Why everything has stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Records could not be appended, or may have been.
    #[error("records could not be appended to the log")]
    Append(#[source] AppendError),
    /// A change of a stream could not be written, or may have been.
    #[error("the log could not be changed")]
    Change(#[source] ChangeError),
    /// The log could not be compacted.
    #[error("the log could not be compacted")]
    Compact(#[source] CompactError),
    /// The log takes nothing more: the disk is full, or the log has as many segments or streams as it may. What was
    /// told to be durable is. Start again when there is more room.
    #[error("the log has no room")]
    LogFull(#[source] LogFull),
    /// A thread panicked: a state machine did, or there is a mistake in the library.
    #[error("a thread of the storage panicked")]
    Panicked,
    /// The log failed before.
    #[error("the log could not be read")]
    Read(#[source] ReadError),
    /// The state store failed.
    #[error("the state store failed")]
    State(#[source] StateError),
    /// The state store takes nothing more. Start again when there is more room.
    #[error("the state store has no room")]
    StateFull(#[source] ApplyError),
    /// What was written may not be durable.
    #[error("the log could not be synced")]
    Sync(#[source] LogError),
    /// Segments could not be prepared or freed.
    #[error("segments of the log could not be prepared or freed")]
    Upkeep(#[source] UpkeepError),
}

/// What had no room in the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogFull {
    /// Records.
    #[error(transparent)]
    Append(AppendError),
    /// Another change.
    #[error(transparent)]
    Change(ChangeError),
}
