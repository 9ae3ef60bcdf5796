//! What nodes say to each other about replicas.

use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::{EpochIndex, LogTime, Record};
use crate::id::{Epoch, Incarnation, PartitionId, ReplicaUid, TopologyVersion};

/// A message between nodes. Any of them may be lost, repeated, late or out of order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Between the leader of a partition and one that follows it.
    Replica(ReplicaMessage),
    /// Sent by a node that serves linearizable reads, to those that follow what it leads (rule L1): do you
    /// support me? The receiver promises that nothing it is elected for later becomes visible before the
    /// promise has run out.
    SupportRequest {
        /// The asker's run.
        incarnation: Incarnation,
        /// When it was sent, by the asker's clock.
        sent_at: Duration,
    },
    /// The promise. The asker counts it from when it asked, a little shorter than it was given, and only
    /// once it has applied `version` to all of its partitions (rule L3).
    Support {
        /// The asker's run, as it said.
        incarnation: Incarnation,
        /// When it asked, by its clock.
        sent_at: Duration,
        /// The topology that the giver had when it promised.
        version: TopologyVersion,
        /// For how long it promised, by its clock.
        lasts: Duration,
    },
}

/// A message about one replica that follows. The receiver drops it unless epoch, uid and incarnation are those
/// that it knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaMessage {
    /// Which partition.
    pub partition: PartitionId,
    /// The epoch of the configuration that the sender has.
    pub epoch: Epoch,
    /// The follower's placement.
    pub uid: ReplicaUid,
    /// The follower's run.
    pub incarnation: Incarnation,
    /// What is said.
    pub body: Body,
}

/// What is said about a replica that follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// From the follower: its log is durable up to here, is it yours as well (rule T1)? Answered by `Append`,
    /// `Diverge` or a snapshot, and repeated until then.
    Attach {
        /// Where its log ends.
        log_end: u64,
        /// The epoch of its last record.
        last_epoch: Epoch,
    },
    /// From the leader: records that continue the log (rule W4), or none, to say what is committed.
    Append {
        /// The offset of the first.
        start: u64,
        /// The epoch of the record before it.
        previous_epoch: Epoch,
        /// The records.
        records: Vec<Record>,
        /// How far the log is committed.
        commit: u64,
    },
    /// From the follower: so far it has everything on its disk (rule W5).
    Ack {
        /// How far its log is durable.
        durable: u64,
        /// How far it knows the log to be committed.
        commit: u64,
    },
    /// From the leader: the logs part (rule T2). The follower cuts and attaches again.
    Diverge {
        /// The last epoch of the leader's that is not after the follower's last.
        epoch: Epoch,
        /// Where that epoch ends, or the follower's log does.
        end: u64,
        /// The end that the follower named: if it is another one by now, this is late.
        log_end: u64,
        /// The epoch that it named.
        last_epoch: Epoch,
    },
    /// From the leader: do you still follow me (rule L5)?
    Barrier {
        /// Which barrier.
        round: u64,
    },
    /// From the follower: yes, in this epoch.
    BarrierAck {
        /// Which barrier.
        round: u64,
    },
    /// From anyone: you speak for an epoch that is over. `epoch` of the message is the one that is known.
    Fenced,
}

/// What a snapshot is of. It travels before the state itself and is checked before that is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHeader {
    /// Which partition.
    pub partition: PartitionId,
    /// The epoch of the leader that sends it.
    pub epoch: Epoch,
    /// For which placement.
    pub uid: ReplicaUid,
    /// For which run.
    pub incarnation: Incarnation,
    /// The state is that of all records below. They are committed.
    pub end: u64,
    /// The epochs of those records.
    pub epochs: EpochIndex,
    /// The time of the last of them, or later.
    pub time_last: LogTime,
}
