//! What can go wrong, one enum an operation.

use std::path::{Path, PathBuf};

use clusterkit_core::control::Rejected;
use clusterkit_core::id::{ClusterId, InvalidNodeId, NodeId};
use clusterkit_storage::checked::{ReadFileError, WriteFileError};
use clusterkit_storage::disk::{DiskError, LockError};
use clusterkit_wire::versioned::DecodeError;

pub use crate::node::message::JoinRefusal;

/// The node could not become part of its cluster. Nothing runs any more.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot be meant. Nothing was touched.
    #[error(transparent)]
    Settings(#[from] std::sync::Arc<InvalidSettings>),
    /// The data directory cannot be used. Nothing in it was changed.
    #[error(transparent)]
    DataDir(#[from] std::sync::Arc<DataDirError>),
    /// The node address cannot be listened on.
    #[error("cannot listen for other nodes on {addr}: {reason}; choose another --listen address")]
    Listen {
        /// The address.
        addr: String,
        /// What the system said.
        reason: String,
    },
    /// The control plane's log cannot be opened. Nothing in it was changed.
    #[error("cannot open the control-plane log: {reason}")]
    Log {
        /// What is wrong with it.
        reason: String,
    },
    /// The cluster does not want this node as it is.
    #[error("cannot join the cluster: {0}")]
    Refused(JoinRefusal),
    /// The data directory belongs to a cluster that the seeds are not of.
    #[error(
        "the data directory belongs to cluster {ours}, but {addr} is of cluster {theirs} ({name:?}); give the right seeds or another data directory"
    )]
    OtherCluster {
        /// What the data directory says.
        ours: ClusterId,
        /// What the seed says.
        theirs: ClusterId,
        /// The seed's cluster name.
        name: String,
        /// The seed.
        addr: String,
    },
    /// No cluster was found or formed in time. The vote this node may have given stays.
    #[error("found no cluster within {seconds} s: {problems}")]
    NoCluster {
        /// How long it looked.
        seconds: u64,
        /// What each seed answered, in one line.
        problems: String,
    },
    /// The node was stopped before it was ready, or failed.
    #[error("the node stopped before it was ready: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

impl From<InvalidSettings> for StartError {
    fn from(error: InvalidSettings) -> Self {
        Self::Settings(std::sync::Arc::new(error))
    }
}

impl From<DataDirError> for StartError {
    fn from(error: DataDirError) -> Self {
        Self::DataDir(std::sync::Arc::new(error))
    }
}

/// A setting cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSettings {
    /// An address is not `host:port`.
    #[error("{what} must be host:port, as in 10.0.0.1:7000, not {addr:?}")]
    Address {
        /// Which one.
        what: &'static str,
        /// What was given.
        addr: String,
    },
    /// The cluster name is empty, too long, or has control characters.
    #[error("a cluster name has 1 to 64 bytes without control characters")]
    ClusterName,
    /// The failure detector's timeouts do not fit each other.
    #[error("the failure detector's timeouts do not fit each other: {0}")]
    Detector(clusterkit_core::member::InvalidConfig),
    /// The times or bounds of the hooks cannot be meant.
    #[error("the times of the hooks cannot be meant: {0}")]
    Hooks(clusterkit_core::handoff::InvalidConfig),
    /// Several nodes are expected and none of them is named.
    #[error("expecting several nodes needs seeds: name at least one of them")]
    ExpectWithoutSeeds,
    /// The node id cannot be one.
    #[error("node id {name:?}: {source}")]
    NodeId {
        /// What was given.
        name: String,
        /// What is wrong with it.
        source: InvalidNodeId,
    },
    /// A number is out of range.
    #[error("{field} must be between 1 and {max}, not {value}")]
    OutOfRange {
        /// Which one.
        field: &'static str,
        /// What was given.
        value: u32,
        /// The largest value.
        max: u32,
    },
    /// A text is too long or has control characters.
    #[error("{text:?} is longer than 256 bytes, or has control characters")]
    Text {
        /// Its beginning.
        text: String,
    },
    /// More metadata than a node may have.
    #[error("a node has at most 64 metadata entries, not {entries}")]
    TooMuchMetadata {
        /// How many were given.
        entries: usize,
    },
}

/// The data directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// A file in it is damaged. It is kept as it is.
    #[error("{} is damaged; restore it, or start with an empty --data-dir: the node then comes back as a new replica", file.display())]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        source: ReadFileError,
    },
    /// The disk refused.
    #[error("cannot use the data directory {}: {source}", dir.display())]
    Disk {
        /// The directory.
        dir: PathBuf,
        /// What the disk said.
        source: DiskError,
    },
    /// Another process uses it.
    #[error("the data directory {} is in use by another process; stop it or choose another --data-dir", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The control plane's log is gone, though it was written once.
    #[error("the control-plane log in {} is gone; start with an empty --data-dir: the node then comes back as a new replica", dir.display())]
    LogMissing {
        /// Where it was.
        dir: PathBuf,
    },
    /// It belongs to another node.
    #[error("the data directory {} belongs to node {found}, not {wanted}; choose another --data-dir", dir.display())]
    OtherNode {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who asked.
        wanted: NodeId,
    },
    /// A file in it could not be written.
    #[error("cannot write {}: {source}", file.display())]
    Write {
        /// Which file.
        file: PathBuf,
        /// What the disk said.
        source: WriteFileError,
    },
    /// Another release wrote it.
    #[error("{} was written by another release: {source}", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        source: DecodeError,
    },
}

impl DataDirError {
    pub(crate) fn of_lock(dir: &Path, error: LockError) -> Self {
        match error {
            LockError::Disk(source) => Self::Disk { dir: dir.to_owned(), source },
            _ => Self::InUse { dir: dir.to_owned() },
        }
    }

    pub(crate) fn of_read(file: &Path, error: ReadFileError) -> Self {
        Self::Damaged { file: file.to_owned(), source: error }
    }
}

/// A change of the cluster that was asked for did not happen, or may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The control plane refused. Nothing changed.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// No controller is known just now, or it cannot be reached. Nothing changed; try again.
    #[error("no controller can be reached just now; nothing changed, try again")]
    NoController,
    /// The answer was lost. It may or may not have happened: look at the topology, then try again;
    /// asking twice does no harm.
    #[error("the outcome is unknown: look at the topology, then try again")]
    OutcomeUnknown,
    /// It was accepted, and is still under way when the time was up. It goes on.
    #[error("still under way after {seconds} s; it goes on")]
    UnderWay {
        /// How long was waited.
        seconds: u64,
    },
    /// This node has stopped.
    #[error("this node has stopped")]
    Stopped,
}
