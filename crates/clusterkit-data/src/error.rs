//! What can go wrong, and what to do then.

use clusterkit_core::id::{Epoch, NodeId};
use serde::{Deserialize, Serialize};

use crate::limits::{
    ANSWER_BYTES_MAX, COMMAND_BYTES_MAX, COMMAND_CHANGES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX,
};

/// A write was not confirmed. Unless it is [`OutcomeUnknown`](Self::OutcomeUnknown), nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum WriteError {
    /// What the command would change or answer is above a limit. It changed nothing, and the same command fails again
    /// unless the state is another one by then. Split it.
    #[error(transparent)]
    EffectTooLarge(Excess),
    /// The cluster has not formed, or has no such partition.
    #[error("there is no such partition yet")]
    NoPartition,
    /// Another node leads, or none, and the request was not to be passed on. Retry there.
    #[error("not the leader at epoch {epoch}")]
    NotLeader {
        /// Who leads, as far as is known.
        leader: Option<NodeId>,
        /// The epoch that is known.
        epoch: Epoch,
    },
    /// With [`Ack::All`](clusterkit_core::replica::Ack::All): a replica is away. Retry later, or with less.
    #[error("not all replicas are there")]
    NotAllReplicas,
    /// Too few replicas can be reached for anything to be committed. Retry once they are back.
    #[error("fewer in-sync replicas can be reached than a write needs; missing: {}", names(missing))]
    NotEnoughReplicas {
        /// The nodes that are not there.
        missing: Vec<NodeId>,
    },
    /// It may have taken effect or not. A retry with the same session request is safe.
    #[error("whether it was written is unknown")]
    OutcomeUnknown,
    /// Too much is under way. Retry later.
    #[error("too much is under way")]
    Overloaded,
    /// The session of the request is over, or never was: whether an earlier copy took effect is not known any more.
    #[error("the session is over")]
    SessionExpired,
    /// A session is opened with ack quorum or all.
    #[error("a session is opened with ack quorum or all")]
    SessionNeedsQuorum,
    /// So many later requests of the session were answered that this one's answer is forgotten.
    #[error("the session's answer to this request is forgotten")]
    SessionTooOld,
    /// The node stops, or its disk failed. Retry at another.
    #[error("the node stops")]
    Stopped,
    /// The command is above the limit. Split it.
    #[error("{bytes} bytes are too many, the limit is {limit}")]
    TooLarge {
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// Nobody could take it before the deadline. Nothing was written; retry.
    #[error("nobody leads the partition, or its leader could not be reached in time")]
    Unavailable,
}

/// What a command comes to is more than the state takes, on every replica alike: nothing of it took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Excess {
    /// So many bytes of an answer.
    #[error("the command's answer has {0} bytes, the limit is {ANSWER_BYTES_MAX}")]
    Answer(u64),
    /// So many bytes of all keys and values that it changes, or more.
    #[error("the command changes {0} bytes or more, the limit is {COMMAND_BYTES_MAX}")]
    Bytes(u64),
    /// So many entries that it changes, or more.
    #[error("the command changes {0} entries or more, the limit is {COMMAND_CHANGES_MAX}")]
    Changes(u64),
    /// So many bytes of a key.
    #[error("the command changes a key of {0} bytes, the limit is {KEY_BYTES_MAX}")]
    Key(u64),
    /// So many bytes of a value.
    #[error("the command writes a value of {0} bytes, the limit is {VALUE_BYTES_MAX}")]
    Value(u64),
}

/// A question was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum QueryError {
    /// The replica that was asked is damaged. Retry: another one answers.
    #[error("the replica is damaged")]
    Damaged,
    /// The cluster has not formed, or has no such partition.
    #[error("there is no such partition yet")]
    NoPartition,
    /// Another node leads, or none, and the request was not to be passed on. Retry there.
    #[error("not the leader at epoch {epoch}")]
    NotLeader {
        /// Who leads, as far as is known.
        leader: Option<NodeId>,
        /// The epoch that is known.
        epoch: Epoch,
    },
    /// Too much is under way. Retry later.
    #[error("too many requests are under way")]
    Overloaded,
    /// The node stops, or its disk failed. Retry at another.
    #[error("the node stops")]
    Stopped,
    /// Nobody could answer before the deadline. Retry.
    #[error("no replica could answer in time")]
    Unavailable,
}

fn names(nodes: &[NodeId]) -> String {
    let names: Vec<_> = nodes.iter().map(NodeId::as_str).collect();
    names.join(", ")
}
