//! How a call can fail, and what that says about whether it was carried out.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use clusterkit_core::id::NodeId;
use clusterkit_wire::hello::Refusal;

/// A call brought no answer of the service it was meant for.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Nothing was sent: this node is stopping. Do not retry.
    #[error("this node is stopping")]
    Closed,
    /// The request was sent and the connection ended before its answer: it may have been carried out
    /// or not, or may yet be. Retry only what may happen twice.
    #[error("the connection ended before the answer came")]
    Lost,
    /// Nothing was sent: something else than a ClusterKit node listens there. Use another address.
    #[error("{}", if *looks_like_http { "it answers HTTP; this is not a node address" } else { "no ClusterKit node answers there" })]
    NotClusterKit {
        /// It answered with HTTP: perhaps the address is a node's public one.
        looks_like_http: bool,
    },
    /// Nothing was sent. May be retried.
    #[error("nothing was sent: {reason}")]
    NotSent {
        /// Why.
        reason: NotSent,
    },
    /// Nothing was sent: the node there does not take this node's connections. The reason says
    /// whether a retry can help.
    #[error("the node refused the connection: {reason}")]
    Refused {
        /// Why.
        reason: Refusal,
    },
    /// The service answered that it did not do what was asked; its code says what may be retried.
    /// See [`ServiceError`] for the codes that the transport answers with itself.
    #[error("the node answered with error code {code}")]
    Remote {
        /// The service's code.
        code: u8,
        /// What belongs to the code.
        body: Bytes,
    },
    /// The request was sent and no answer came in time: it may have been carried out or not, or may
    /// yet be. Retry only what may happen twice.
    #[error("no answer came in time")]
    TimedOut,
    /// Nothing was sent: the request is larger than a frame of its class. Send less at once.
    #[error("the request takes {bytes} bytes, and {bytes_max} are allowed")]
    TooLarge {
        /// The bytes it would take.
        bytes: usize,
        /// What its class allows.
        bytes_max: usize,
    },
    /// Nothing was sent: another node than the expected one answers at the address. Look the
    /// address up again.
    #[error("node {found} answers there, not {expected}")]
    WrongNode {
        /// The node that the call is for.
        expected: NodeId,
        /// The node that answers.
        found: NodeId,
    },
}

/// Why nothing was sent.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NotSent {
    /// The connection was about to be closed, each time this was tried.
    #[error("the connection was about to be closed")]
    LinkEnded,
    /// The queue to that node is full: it takes requests more slowly than this node makes them.
    #[error("too much waits to be sent there")]
    QueueFull,
    /// This node has links to as many addresses as it keeps.
    #[error("this node has links to as many addresses as it keeps")]
    TooManyLinks,
    /// The time was over before a connection stood, or before it was the request's turn.
    #[error("there was no connection in time")]
    TimedOut,
    /// No connection came about.
    #[error("no connection came about")]
    Unreachable(#[source] Arc<io::Error>),
}

/// What a service answers when it did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceError {
    /// What went wrong, in the service's own numbers below [`ServiceError::RESERVED`].
    pub code: u8,
    /// What belongs to the code.
    pub body: Bytes,
}

impl ServiceError {
    /// The first code that the transport keeps for itself.
    #[allow(dead_code, reason = "the bound of the service's own codes, which tests hold")]
    pub const RESERVED: u8 = 0xfe;
    /// The request was carried out and its answer is larger than a frame of its class.
    pub const ANSWER_TOO_LARGE: u8 = 0xfe;
    /// The service panicked: the request may have been carried out in part.
    pub const PANICKED: u8 = 0xff;

    pub(super) fn from_transport(code: u8) -> Self {
        Self { code, body: Bytes::new() }
    }
}

/// The transport could not start. Nothing runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address cannot be listened at: it is in use, is not this machine's, or needs a privilege.
    /// May be retried when that has changed.
    #[error("cannot listen at {addr}")]
    Bind {
        /// The address.
        addr: String,
        /// What the system says.
        source: io::Error,
    },
}
