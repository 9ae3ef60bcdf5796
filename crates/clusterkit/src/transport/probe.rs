//! Who answers at an address?

use std::io;
use std::time::Duration;

use clusterkit_wire::frame::kind;
use clusterkit_wire::hello::{Class, Identity, Refusal};
use tokio::time::timeout;

use super::Shared;
use super::handshake::{DialError, dial};
use super::stream::own_frame;

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProbeOutcome {
    /// A node that takes this node's connections.
    Answered(Identity),
    /// A node that lives and does not take this node's connections, for another reason than its
    /// cluster.
    Declined {
        /// Why.
        reason: Refusal,
        /// Who it is.
        identity: Identity,
    },
    /// Something that is no ClusterKit node.
    NotClusterKit {
        /// It answered with HTTP: perhaps the address is a node's public one.
        looks_like_http: bool,
    },
    /// A node of another cluster.
    OtherCluster(Identity),
    /// Nobody: the machine there said that nothing listens, or ended the connection by force. A
    /// process that listened there has died.
    Refused,
    /// No answer in time: the node is slow, frozen or cut off, or the machine is down.
    TimedOut,
    /// The address cannot be connected to for another reason, such as a name that is not known, or
    /// the connection ended before it said who is there. It says nothing about a node.
    Unreachable(io::ErrorKind),
}

pub(super) async fn probe(shared: &Shared, addr: &str, patience: Duration) -> ProbeOutcome {
    let found = timeout(patience, ask(shared, addr)).await;
    match found.unwrap_or(Err(DialError::TimedOut)) {
        Ok(identity) => ProbeOutcome::Answered(identity),
        Err(error) => error.into(),
    }
}

async fn ask(shared: &Shared, addr: &str) -> Result<Identity, DialError> {
    let mut greeted = dial(shared, addr, Class::Control).await?;
    // The answer is there: whether the goodbye arrives changes nothing about it.
    let bye = own_frame(kind::BYE, shared.cluster(), Vec::new());
    if greeted.writer.send(&bye).await.is_ok() {
        let _ = greeted.writer.shutdown().await;
    }
    Ok(Identity::clone(&greeted.peer))
}

impl From<DialError> for ProbeOutcome {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Io(error) => Self::from(error.kind()),
            DialError::NotClusterKit { looks_like_http } => Self::NotClusterKit { looks_like_http },
            DialError::Refused(refused) => match refused.reason {
                Refusal::OtherCluster { .. } => Self::OtherCluster(refused.identity),
                reason => Self::Declined { reason, identity: refused.identity },
            },
            DialError::TimedOut => Self::TimedOut,
        }
    }
}

impl From<io::ErrorKind> for ProbeOutcome {
    fn from(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset => Self::Refused,
            kind => Self::Unreachable(kind),
        }
    }
}
