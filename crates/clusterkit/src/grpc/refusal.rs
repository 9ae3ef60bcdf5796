//! Every reason for which a call is refused, with its status code: the one table.

use clusterkit_core::id::{InvalidNodeId, NodeId, PartitionId};
use tonic::{Code, Status};

/// A call was refused. Nothing changed, since no call changes anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// A key has no bytes, as when its field was forgotten.
    #[error("key: must have at least one byte")]
    EmptyKey,
    /// The text cannot be the id of a node.
    #[error("id: {0}")]
    InvalidNodeId(InvalidNodeId),
    /// Neither an id nor a key was named.
    #[error("selector: name the partition by id or by a key that belongs to it")]
    NoSelector,
    /// No such node is registered.
    #[error("no node {node}; ListNodes names all that are registered")]
    NoSuchNode { node: NodeId },
    /// The partition's number is too high.
    #[error("no {partition}; this cluster has {count} partitions, numbered from 0")]
    NoSuchPartition { partition: PartitionId, count: usize },
    /// No cluster to tell of.
    #[error("the cluster has not formed yet; try again")]
    NotFormed,
    /// This node ends.
    #[error("this node is stopping; ask another one")]
    Stopping,
    /// All streams that a node may serve are taken.
    #[error("this node serves {max} streams, as many as it may; watch another one")]
    TooManyStreams { max: usize },
    /// A number that names no status.
    #[error("statuses: {number} names no status")]
    UnknownStatus { number: i32 },
}

impl Refusal {
    fn code(&self) -> Code {
        match self {
            Self::EmptyKey | Self::InvalidNodeId(_) | Self::NoSelector | Self::UnknownStatus { .. } => {
                Code::InvalidArgument
            }
            Self::NoSuchNode { .. } | Self::NoSuchPartition { .. } => Code::NotFound,
            Self::NotFormed | Self::Stopping => Code::Unavailable,
            Self::TooManyStreams { .. } => Code::ResourceExhausted,
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code(), refusal.to_string())
    }
}
