//! Messages between the programs that embed nodes, over the connections of their nodes.
//!
//! Give a [`MessageHandler`] to [`Builder::messages`](crate::Builder::messages), and send by
//! [`ClusterKit::notify`](crate::ClusterKit::notify) and
//! [`ClusterKit::request`](crate::ClusterKit::request). What is in a body is the programs' own affair.
//!
//! What is promised:
//! - a message goes to the address that the topology has for its receiver, and only to a node of that name;
//! - it is taken only from a node that the receiver's topology has, under the data directory that the
//!   sender named in its hello, and only while the receiver takes part in its cluster;
//! - notices of one connection are handed over in the order in which they were sent. A connection carries
//!   one lane in one direction; after one that ended another begins, and what was on its way is lost;
//! - requests are carried out side by side, in no order;
//! - nothing is sent twice: whoever repeats a message makes sure that it may take effect twice.
//!
//! A message to the own node goes the same way as any other.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::id::NodeId;
use clusterkit_wire::hello::Class;
use clusterkit_wire::limits::FRAME_HEADER_BYTES;

use crate::net::BoxFuture;
use crate::node::Shared;
use crate::node::message::{code, kind};
use crate::transport::{self, CallError, ServiceError, Target};

/// On which connection to a node a message goes. What waits in one lane holds nothing up in another, and
/// neither holds up the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Writes and reads of partitions: a body has at most 16 MiB with the 36 bytes before it.
    Data,
    /// Copies of partitions, and what else is large and can wait: at most 64 MiB.
    Bulk,
}

impl Lane {
    /// The bytes of the largest body, of a message or of an answer.
    #[must_use]
    pub fn body_bytes_max(self) -> usize {
        self.class().frame_bytes_max() - FRAME_HEADER_BYTES
    }

    fn class(self) -> Class {
        match self {
            Self::Data => Class::Data,
            Self::Bulk => Class::Bulk,
        }
    }
}

/// Takes the messages that the programs of other nodes send to this one. See the [module](self) for what
/// is promised.
///
/// `from` is the node that sent the message, as its hello said, checked against the topology. That it is who
/// it says is proved only where the network below proves it.
///
/// Messages may come before [`Builder::start`](crate::Builder::start) has returned.
pub trait MessageHandler: Send + Sync + 'static {
    /// Takes a notice. Called in the order of one connection, which reads nothing more before it returns:
    /// do not block, and hand over what takes time. A panic is logged, and the notice is lost.
    fn handle_notice(&self, from: NodeId, body: Bytes);

    /// Carries out a request and gives the answer, of at most [`Lane::body_bytes_max`] bytes. It goes on
    /// when the asking node is gone, and is dropped when this node stops. A panic is logged, and the asking
    /// side is told ([`MessageError::Failed`]).
    ///
    /// At most 1,024 requests of one connection are carried out at once; the next are read when one of them
    /// has ended, and notices behind them wait as well.
    fn handle_request(&self, from: NodeId, body: Bytes) -> impl Future<Output = Bytes> + Send;
}

/// A message was not sent, or brought no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The request was carried out, and its answer fits no message of its lane. Retrying brings the same;
    /// ask for less, or in another lane.
    #[error("the request was carried out, and its answer is larger than a message may be")]
    AnswerTooLarge,
    /// The handler over there panicked: the request may have been carried out in part. Retry only what
    /// may happen twice.
    #[error("the other side failed while it carried out the request")]
    Failed,
    /// The request was sent and the connection ended before its answer: it may have been carried out or not,
    /// or may yet be. Retry only what may happen twice.
    #[error("the connection ended before the answer came")]
    Lost,
    /// The request arrived and nothing was done: the node there does not take part in its cluster yet, or does
    /// not know of this one yet. Retry after a moment.
    #[error("the other node is not ready to take messages of this one")]
    NotReady,
    /// Nothing was sent. The reason says whether to retry.
    #[error("nothing was sent")]
    NotSent {
        /// Why.
        #[source]
        reason: NotSent,
    },
    /// The request arrived and nothing was done: the program there has no handler. Do not retry.
    #[error("the program of the other node takes no messages")]
    NotTaken,
    /// The request was sent and no answer came in time: it may have been carried out or not, or may yet be.
    /// Retry only what may happen twice.
    #[error("no answer came in time")]
    TimedOut,
    /// Nothing was sent: the body is larger than one of its lane may be. Send less at once.
    #[error("the body has {bytes} bytes, and {bytes_max} are allowed")]
    TooLarge {
        /// The bytes it has.
        bytes: usize,
        /// What its lane allows.
        bytes_max: usize,
    },
    /// Nothing was sent: the topology that this node knows has no such node. Look at the topology again.
    #[error("the cluster has no node {node}")]
    UnknownNode {
        /// Who was meant.
        node: NodeId,
    },
}

impl MessageError {
    /// Whether the message left this node. What was not sent has no effect anywhere; what was sent may have
    /// one unless the variant says otherwise.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        match self {
            Self::AnswerTooLarge
            | Self::Failed
            | Self::Lost
            | Self::NotReady
            | Self::NotTaken
            | Self::TimedOut => true,
            Self::NotSent { .. } | Self::TooLarge { .. } | Self::UnknownNode { .. } => false,
        }
    }

    fn not_sent(reason: NotSent) -> Self {
        Self::NotSent { reason }
    }

    fn of(error: CallError) -> Self {
        match error {
            CallError::Closed => Self::not_sent(NotSent::Stopping),
            CallError::Lost => Self::Lost,
            CallError::NotSent { reason } => Self::not_sent(NotSent::of(reason)),
            CallError::Remote { code: code::NOT_READY, .. } => Self::NotReady,
            CallError::Remote { code: code::NO_HANDLER, .. } => Self::NotTaken,
            CallError::Remote { code: ServiceError::ANSWER_TOO_LARGE, .. } => Self::AnswerTooLarge,
            CallError::Remote { .. } => Self::Failed,
            CallError::TimedOut => Self::TimedOut,
            CallError::TooLarge { bytes, bytes_max } => Self::TooLarge {
                bytes: bytes - FRAME_HEADER_BYTES,
                bytes_max: bytes_max - FRAME_HEADER_BYTES,
            },
            CallError::WrongNode { found, .. } => Self::not_sent(NotSent::OtherNode { found }),
            CallError::NotClusterKit { .. } | CallError::Refused { .. } => {
                Self::not_sent(NotSent::Refused(Arc::new(error)))
            }
        }
    }
}

/// Why a message was not sent.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NotSent {
    /// Too much waits to be sent there, or this node has as many connections as it keeps. Retry later, and
    /// send less.
    #[error("too much waits to be sent")]
    Busy,
    /// The connection was about to be closed, each time this was tried. Retry.
    #[error("the connection was about to be closed")]
    Closing,
    /// This node does not take part in its cluster yet. Await [`ClusterKit::ready`](crate::ClusterKit::ready).
    #[error("this node does not take part in its cluster yet")]
    NotReady,
    /// Another node answers at the receiver's address. Retry when the topology has changed.
    #[error("node {found} answers at the address")]
    OtherNode {
        /// Who answers.
        found: NodeId,
    },
    /// Whatever answers at the address does not take connections of this node. Retry later.
    #[error("the connection was refused")]
    Refused(#[source] Arc<dyn Error + Send + Sync>),
    /// This node is stopping. Do not retry.
    #[error("this node is stopping")]
    Stopping,
    /// The time was over before a connection stood, or before it was the message's turn. Retry.
    #[error("there was no connection in time")]
    TimedOut,
    /// No connection came about. Retry, after a second at the latest it is tried anew.
    #[error("no connection came about")]
    Unreachable(#[source] Arc<io::Error>),
}

impl NotSent {
    fn of(reason: transport::NotSent) -> Self {
        match reason {
            transport::NotSent::LinkEnded => Self::Closing,
            transport::NotSent::QueueFull | transport::NotSent::TooManyLinks => Self::Busy,
            transport::NotSent::TimedOut => Self::TimedOut,
            transport::NotSent::Unreachable(source) => Self::Unreachable(source),
        }
    }
}

// The way out.

pub(crate) fn notify(shared: &Shared, to: &NodeId, lane: Lane, body: Bytes) -> Result<(), MessageError> {
    let target = target(shared, to)?;
    shared.transport().notify(&target, lane.class(), kind::NOTICE, body).map_err(MessageError::of)
}

pub(crate) async fn request(
    shared: &Shared,
    to: &NodeId,
    lane: Lane,
    body: Bytes,
    timeout: Duration,
) -> Result<Bytes, MessageError> {
    let target = target(shared, to)?;
    let answer = shared.transport().call(&target, lane.class(), kind::REQUEST, body, timeout).await;
    answer.map_err(MessageError::of)
}

/// Where `node` listens. A run that is not registered says nothing: others could take it for the one that
/// is.
fn target(shared: &Shared, node: &NodeId) -> Result<Target, MessageError> {
    if !shared.is_registered() {
        return Err(MessageError::not_sent(NotSent::NotReady));
    }
    let topology = shared.topology.borrow();
    let known = topology.node(node).ok_or_else(|| MessageError::UnknownNode { node: node.clone() })?;
    Ok(Target { addr: known.node_addr.clone(), node: Some(node.clone()) })
}

/// The twin of [`MessageHandler`] that can be shared behind a pointer.
trait AnyHandler: Send + Sync {
    fn handle_notice(&self, from: NodeId, body: Bytes);
    fn handle_request(&self, from: NodeId, body: Bytes) -> BoxFuture<'_, Bytes>;
}

impl<H: MessageHandler> AnyHandler for H {
    fn handle_notice(&self, from: NodeId, body: Bytes) {
        MessageHandler::handle_notice(self, from, body);
    }

    fn handle_request(&self, from: NodeId, body: Bytes) -> BoxFuture<'_, Bytes> {
        Box::pin(MessageHandler::handle_request(self, from, body))
    }
}

/// The handler of a node.
#[derive(Clone)]
pub(crate) struct Installed(Arc<dyn AnyHandler>);

impl Installed {
    pub(crate) fn new(handler: impl MessageHandler) -> Self {
        Self(Arc::new(handler))
    }

    pub(crate) fn handle_notice(&self, from: NodeId, body: Bytes) {
        self.0.handle_notice(from, body);
    }

    pub(crate) async fn handle_request(self, from: NodeId, body: Bytes) -> Bytes {
        self.0.handle_request(from, body).await
    }
}

impl fmt::Debug for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Installed").finish_non_exhaustive()
    }
}
