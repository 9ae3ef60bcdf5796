//! What replicas want done.

use alloc::vec::Vec;
use core::ops::Range;

use serde::{Deserialize, Serialize};

use super::log::LogOp;
use super::message::{Message, SnapshotHeader};
use super::record::Record;
use crate::control::InSyncProposal;
use crate::id::{Epoch, Incarnation, NodeId, PartitionId, PartitionVersion, ReplicaUid};

/// A write on its way, by its number on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A read on its way, by its number on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// Work for the shell, to be begun in the order in which it comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Something is wrong that people should see.
    Alarm {
        /// With which partition.
        partition: PartitionId,
        /// What.
        alarm: Alarm,
    },
    /// Apply these records, in order, and say so by `handle_applied`. They are committed. Another one for the
    /// same replica comes only after that.
    Apply {
        /// Whose state.
        replica: ReplicaKey,
        /// The offset of the first.
        first: u64,
        /// The records.
        records: Vec<Record>,
    },
    /// The read cannot be served.
    FailRead {
        /// Which one.
        read: ReadId,
        /// Why.
        error: ReadError,
    },
    /// Read records back from the disk, of about `bytes_max` bytes but one at least, and hand them over by
    /// `handle_fetched`. They are durable.
    Fetch {
        /// Whose log.
        replica: ReplicaKey,
        /// To be handed back.
        token: FetchToken,
        /// Which records.
        range: Range<u64>,
        /// How many bytes of them.
        bytes_max: usize,
    },
    /// Change the log, after all earlier changes of it, and say by `handle_durable` when it is durable.
    Log {
        /// Whose log.
        replica: ReplicaKey,
        /// Its number.
        op: LogOp,
        /// What to do.
        change: LogChange,
    },
    /// Look for a newer topology: somebody knows a later epoch. It may come with every message, so that the shell
    /// is to look once for many.
    RefreshTopology,
    /// Delete log and state of a replica that is placed here no more.
    Remove {
        /// Which one.
        replica: ReplicaKey,
    },
    /// Answer a write.
    Reply {
        /// Which one.
        request: RequestId,
        /// What became of it.
        outcome: WriteOutcome,
    },
    /// Send a message to a node. It may get lost.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Send the applied state to a follower that is too far behind, with the header that `snapshot_header`
    /// gives for it; say by `handle_snapshot_ended` when that is over.
    SendSnapshot {
        /// Whose state.
        replica: ReplicaKey,
        /// To whom.
        to: NodeId,
    },
    /// Evaluate the read on the applied state, and then ask `finish_read` whether it may be answered.
    Serve {
        /// On whose state.
        replica: ReplicaKey,
        /// Which one.
        read: ReadId,
    },
    /// Ask the control plane for something. It may get lost, and is repeated until a newer record is known; those
    /// of many partitions may be sent together.
    Wish(Wish),
}

/// A copy of a partition on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaKey {
    /// Of which partition.
    pub partition: PartitionId,
    /// Which placement.
    pub uid: ReplicaUid,
}

/// A change of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogChange {
    /// Append records.
    Append {
        /// The offset of the first: the log ends there.
        first: u64,
        /// The records.
        records: Vec<Record>,
    },
    /// Make an empty log, and note that it exists.
    Create,
    /// Put the snapshot that has arrived into the place of the state, and of all records, once no batch is being
    /// applied to that state any more; the log goes on at its end. A crash leaves the old or the new.
    Install(SnapshotHeader),
    /// Cut the log.
    Truncate {
        /// Its new end.
        end: u64,
    },
}

/// What a replica wants of the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Let the target of the transfer lead: it has everything (rule M3).
    Handoff {
        /// Which partition.
        partition: PartitionId,
        /// The record that asks for the transfer.
        version: PartitionVersion,
        /// The leader's epoch.
        epoch: Epoch,
        /// Where its log ends.
        log_end: u64,
    },
    /// Let somebody else lead (rule F6b).
    Resign {
        /// Which partition.
        partition: PartitionId,
        /// The record that the leader knows.
        version: PartitionVersion,
        /// The leader's epoch.
        epoch: Epoch,
    },
    /// Change the in-sync set (rules S1 to S3).
    SetInSync(InSyncProposal),
    /// Nothing is committed any more, though somebody waits for it: let somebody else try (rule F6). The leader goes
    /// on meanwhile, so this is no resignation.
    Stalled {
        /// Which partition.
        partition: PartitionId,
        /// The record that the leader knows.
        version: PartitionVersion,
        /// The leader's epoch.
        epoch: Epoch,
    },
}

/// For what records were read back from the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchToken {
    /// To be applied.
    Apply,
    /// To be sent.
    Stream {
        /// To whom.
        follower: NodeId,
        /// Its run.
        incarnation: Incarnation,
        /// The leader's epoch.
        epoch: Epoch,
    },
}

/// What became of a write that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It is as safe as was asked for. Except with [`Ack::Leader`] it is applied, too.
    Done {
        /// The epoch that it was written in.
        epoch: Epoch,
        /// Its place in the log.
        offset: u64,
    },
    /// It may take effect or not. A retry of the same session request is safe.
    Unknown,
}

/// When a write is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ack {
    /// When every replica has it, and it is applied.
    All,
    /// When the leader has it on its disk: without result, and lost when the leader is lost.
    Leader,
    /// When it is committed and applied: no failure that leaves one in-sync replica loses it.
    #[default]
    Quorum,
}

/// A write was not taken. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// The leadership is on its way to another replica. Retry in a moment, at whoever leads then.
    #[error("the leadership is being handed over")]
    HandingOver,
    /// Another replica leads, or none. Retry there.
    #[error("not the leader at epoch {epoch}")]
    NotLeader {
        /// Who leads, as far as is known.
        leader: Option<NodeId>,
        /// The epoch that is known.
        epoch: Epoch,
    },
    /// With [`Ack::All`]: a replica is away. Retry later, or with [`Ack::Quorum`].
    #[error("a replica is not attached")]
    NotAllReplicas,
    /// Too few in-sync replicas can be reached for anything to be committed. Retry later.
    #[error("not enough in-sync replicas make progress")]
    NotEnoughReplicas,
    /// Too much is on its way already. Retry later.
    #[error("too many writes are under way")]
    Overloaded,
    /// A session that may be lost with the leader is none. Open it with [`Ack::Quorum`] or [`Ack::All`].
    #[error("a session is opened with ack quorum or all")]
    SessionNeedsQuorum,
    /// The payload is above the limit. Split it.
    #[error("{bytes} bytes are too many, the limit is {limit}")]
    TooLarge {
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
}

/// A read was not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It was not ready in time. Retry.
    #[error("the read was not ready in time")]
    Late,
    /// Another replica leads, or none. Retry there.
    #[error("not the leader at epoch {epoch}")]
    NotLeader {
        /// Who leads, as far as is known.
        leader: Option<NodeId>,
        /// The epoch that is known.
        epoch: Epoch,
    },
    /// Too many reads wait already. Retry later.
    #[error("too many reads are waiting")]
    Overloaded,
    /// This node has no such replica, or a damaged one. Retry elsewhere.
    #[error("there is no usable replica here")]
    NoReplica,
}

/// How new an answer is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// It has everything that was acknowledged to anybody before the read began. By the leader only.
    Linearizable,
    /// It has all records below this offset: what the asker has seen so far.
    Session {
        /// Everything below is to be applied.
        min_end: u64,
    },
}

/// What an answer to a read says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadStamp {
    /// The epoch of the replica's configuration.
    pub epoch: Epoch,
    /// All records below are applied.
    pub applied: u64,
}

/// What became of a read that was evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadOutcome {
    /// It is to be evaluated once more: another `Serve`, or `FailRead`, follows.
    Again,
    /// It may be answered.
    Done(ReadStamp),
    /// It is known no more; `FailRead` said why.
    Gone,
}

/// What people should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Alarm {
    /// The wall clock of a new leader is more than a minute away from the last record's.
    ClockJump {
        /// By how many milliseconds it is ahead of the last record, or behind it.
        ahead_ms: i64,
    },
    /// The replica misses what it must have. It serves nothing, and is to be replaced.
    Damaged,
}
