//! What can go wrong, one enum an operation.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clusterkit_core::control::{InvalidState, Rejected};
use clusterkit_core::forming::{Problem, Unreachable};
use clusterkit_core::id::{ClusterId, InvalidNodeId, NodeId, StoreId};
use clusterkit_storage::checked::{ReadFileError, WriteFileError};
use clusterkit_storage::disk::{DiskError, LockError};
use clusterkit_storage::record_log::{OpenError, ReadError, ResetError};
use clusterkit_wire::versioned::DecodeError;

pub use crate::node::message::JoinRefusal;

/// The node could not become part of its cluster, or could not stay part of it. It has stopped. What
/// that leaves on the disk is said at [`Builder::start`](crate::Builder::start).
///
/// Its text is the whole line for people, causes included: whoever prints it prints no
/// [`source`](std::error::Error::source) behind it, which is for programs.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The control plane of this node cannot begin, or has failed. What was acknowledged is on disk.
    /// May be started again when the cause is gone; a disk that failed once should be looked at first.
    #[error("the control plane of this node cannot go on: {source}")]
    ControlPlane {
        /// How.
        source: Arc<ControlPlaneError>,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] Arc<DataDirError>),
    /// The node has left its cluster: it was drained. Started again, it joins anew.
    #[error("this node has left the cluster; start it again to join anew")]
    Left,
    /// The node address cannot be listened on. May be started again when it is free; the data directory
    /// was made by then.
    #[error("cannot listen for other nodes on {addr}: {source}; choose another --listen address")]
    Listen {
        /// The address.
        addr: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// No cluster was found or formed in time. May be started again; a vote that the node gave stays.
    #[error("found no cluster within {seconds} s: {}", in_one_line(problems))]
    NoCluster {
        /// How long it looked.
        seconds: u64,
        /// What was in the way, as it was last seen; empty when nothing was, and nodes were missing.
        problems: Vec<FormingProblem>,
    },
    /// The data directory belongs to a cluster that the seeds are not of. Starting again helps only
    /// with other seeds or another data directory.
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
    /// What the program keeps in the data directory could not be opened: see
    /// [`Builder::opening`](crate::Builder::opening). Whether it may be started again is said by the source.
    #[error("cannot open what is kept in the data directory: {}", Chain(&**source))]
    Opening {
        /// What the program said.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// A task of the node panicked, which is a fault of ClusterKit. May be started again.
    #[error("a task of this node panicked; the log says where")]
    Panicked,
    /// The system gives no random bytes, so no id can be drawn. May be started again.
    #[error("the system gives no random bytes: {source}")]
    Randomness {
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The cluster does not want this node as it is. The reason says what to change before it is
    /// started again.
    #[error("cannot join the cluster: {0}")]
    Refused(JoinRefusal),
    /// The node was removed from the cluster. Started again, it joins anew.
    #[error("this node was removed from the cluster; start it again to join anew")]
    Removed,
    /// Another process registered under this node's id since. Only one of the two can run: find the
    /// other before this one is started again.
    #[error("another process registered under this node id; only one of them can run")]
    Replaced,
    /// A setting cannot be meant. Nothing was touched; starting again helps only with another one.
    #[error(transparent)]
    Settings(#[from] Arc<InvalidSettings>),
    /// The node was told to stop before it took part. May be started again.
    #[error("the node was told to stop before it was ready")]
    Stopped,
}

impl From<InvalidSettings> for StartError {
    fn from(error: InvalidSettings) -> Self {
        Self::Settings(Arc::new(error))
    }
}

impl From<DataDirError> for StartError {
    fn from(error: DataDirError) -> Self {
        Self::DataDir(Arc::new(error))
    }
}

impl From<ControlPlaneError> for StartError {
    fn from(error: ControlPlaneError) -> Self {
        Self::ControlPlane { source: Arc::new(error) }
    }
}

/// What an [opening step](crate::Builder::opening) says when it fails: its text, and those of its sources, are shown.
pub type OpeningError = Box<dyn Error + Send + Sync>;

/// What kept a node from finding or forming its cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormingProblem {
    /// Nodes that were heard do not fit together, or too few were heard.
    #[error(transparent)]
    Candidates(#[from] Problem),
    /// An address gave no answer that counts.
    #[error("{addr}: {}", unreachable_text(reason))]
    Unreachable {
        /// The address: a seed, or one that another node calls its own.
        addr: String,
        /// Why.
        reason: Unreachable,
    },
}

fn unreachable_text(reason: &Unreachable) -> Cow<'static, str> {
    match reason {
        Unreachable::Refused => "nothing listens there".into(),
        Unreachable::TimedOut => "no answer".into(),
        Unreachable::NotClusterKit => {
            "what answers there is no ClusterKit node; a seed is a node's address, as in 10.0.0.1:7000".into()
        }
        Unreachable::OtherCluster { name } => format!("it belongs to another cluster, {name:?}").into(),
    }
}

fn in_one_line(problems: &[FormingProblem]) -> String {
    if problems.is_empty() {
        return "waiting for more nodes".to_owned();
    }
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The control plane of a node cannot begin, or has failed. Nothing more is written by it; what was
/// acknowledged is on disk. Like that of [`StartError`], the text holds its causes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlPlaneError {
    /// It ended, and nobody asked it to.
    #[error("it has ended")]
    Ended,
    /// Its state machine or its core cannot go on, or panicked.
    #[error("{source}")]
    Group {
        /// What it said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Its files cannot be written or read any more.
    #[error("{}", Chain(source))]
    Log {
        /// The first failure; nothing was written after it.
        source: Arc<io::Error>,
    },
    /// The system gives no thread for its log.
    #[error("there is no thread for its log: {source}")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
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
    /// Another node took the opening step that a clone of its builder has. Give each node a step of its own.
    #[error("the opening step of this builder was taken by another node")]
    OpenedBefore,
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

/// The data directory cannot be used.
///
/// What is refused keeps its contents. The directory and its lock file are made where they are
/// missing, and a control-plane log that could be opened was repaired as after any crash, whatever was
/// found wrong beside it then: a torn end is cut off, leftovers are removed. [`Disk`](Self::Disk) and
/// [`Write`](Self::Write) say what else may have changed.
///
/// Like that of [`StartError`], the text is the whole line, causes included.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// A file in it is damaged. Starting again does not help; keep the file aside.
    #[error("{}; {ANEW}", Chain(source))]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        source: ReadFileError,
    },
    /// The disk refused. If it was asked to read then nothing changed; if it was to make, sync or repair
    /// something, a part of that may be done, and the next start does the rest. May be started again
    /// when the cause is gone.
    #[error("cannot use the data directory {}: {}", dir.display(), Chain(source))]
    Disk {
        /// The directory.
        dir: PathBuf,
        /// What the disk said, and of which file.
        source: DiskError,
    },
    /// A file is gone that the control plane's log cannot be used without. Starting again helps only if
    /// that very file is put back.
    #[error("{} is gone, and the control-plane log in {} cannot be used without it; {ANEW}", file.display(), dir.display())]
    FileMissing {
        /// Which file.
        file: PathBuf,
        /// Where the log is.
        dir: PathBuf,
    },
    /// A file is older than the control plane's log: a copy of it was put back, or the disk lost what
    /// it had promised to keep. Starting again helps only if the newest one is put back.
    #[error("{} is older than the control-plane log in {}, which cannot be used with it; {ANEW}", file.display(), dir.display())]
    FileOutdated {
        /// Which file.
        file: PathBuf,
        /// Where the log is.
        dir: PathBuf,
    },
    /// Another process uses it. May be started again when that one has ended.
    #[error("the data directory {} is in use by another process; stop it or choose another --data-dir", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// A newer release wrote a file in it. Start that release.
    #[error("{} was written by a newer release, in version {version} of its format; start that release", file.display())]
    NewerRelease {
        /// Which file.
        file: PathBuf,
        /// The version it has.
        version: u16,
    },
    /// The control plane's log is damaged. As with [`Damaged`](Self::Damaged), keep it aside.
    #[error("the control-plane log in {} is damaged: {}; {ANEW}", dir.display(), Chain(source))]
    LogDamaged {
        /// Where it is.
        dir: PathBuf,
        /// What is wrong with it.
        source: OpenError,
    },
    /// The control plane's log is gone, though it was written once. Starting again helps only if that
    /// very log is put back.
    #[error("the control-plane log in {} is gone; {ANEW}", dir.display())]
    LogMissing {
        /// Where it was.
        dir: PathBuf,
    },
    /// A purge of the control plane's log that was cut off could not be ended: it is as it was, or
    /// ended. May be started again.
    #[error("the purge of the control-plane log in {} cannot be ended: {}", dir.display(), Chain(source))]
    LogReset {
        /// Where it is.
        dir: PathBuf,
        /// What the log said.
        source: ResetError,
    },
    /// The control plane's log was opened and then could not be read. As with
    /// [`Damaged`](Self::Damaged), keep it aside.
    #[error("the control-plane log in {} cannot be read: {}; {ANEW}", dir.display(), Chain(source))]
    LogUnreadable {
        /// Where it is.
        dir: PathBuf,
        /// What the log said.
        source: ReadError,
    },
    /// It belongs to another node. Start that one with it, or this one with another directory.
    #[error("the data directory {} belongs to node {found}, not {wanted}; choose another --data-dir", dir.display())]
    OtherNode {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who asked.
        wanted: NodeId,
    },
    /// The control plane's log in it belongs to another data directory. Put each back where it was.
    #[error("the control-plane log in {} belongs to another data directory, {found} and not {wanted}; put it back there, or {ANEW}", dir.display())]
    OtherStore {
        /// Where the log is.
        dir: PathBuf,
        /// The store that wrote it.
        found: StoreId,
        /// The store that this directory is.
        wanted: StoreId,
    },
    /// A file is read, and what it says contradicts itself: whoever wrote it has a fault. As with
    /// [`Damaged`](Self::Damaged), keep it aside.
    #[error("{} contradicts itself: {}; {ANEW}", file.display(), Chain(source))]
    State {
        /// Which file.
        file: PathBuf,
        /// In what.
        source: InvalidState,
    },
    /// A file in it is whole and says nothing that can be meant. As with
    /// [`Damaged`](Self::Damaged), keep it aside.
    #[error("{} cannot be read: {}; {ANEW}", file.display(), Chain(source))]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        source: DecodeError,
    },
    /// A file in it could not be replaced: the old one or the new one is there, and either will do. May
    /// be started again when the cause is gone.
    #[error("cannot write {}: {}", file.display(), Chain(source))]
    Write {
        /// Which file.
        file: PathBuf,
        /// What the disk said.
        source: WriteFileError,
    },
}

/// What always helps, and costs what the directory held.
const ANEW: &str = "start with an empty --data-dir: the node then comes back as a new replica";

impl DataDirError {
    pub(crate) fn of_lock(dir: &Path, error: LockError) -> Self {
        match error {
            LockError::Disk(source) => Self::Disk { dir: dir.to_owned(), source },
            // There is no other reason than that somebody else holds it.
            _ => Self::InUse { dir: dir.to_owned() },
        }
    }

    /// For a checked file in `dir`.
    pub(crate) fn of_read(dir: &Path, file: &Path, error: ReadFileError) -> Self {
        match error {
            ReadFileError::Disk(source) => Self::Disk { dir: dir.to_owned(), source },
            ReadFileError::Unsupported { path, version } => Self::NewerRelease { file: path, version },
            source => Self::Damaged { file: file.to_owned(), source },
        }
    }

    /// For a `file` without which the log in `dir` cannot be used, and in whose place an older one is,
    /// or none.
    pub(crate) fn of_lost(file: PathBuf, dir: PathBuf, is_there: bool) -> Self {
        if is_there { Self::FileOutdated { file, dir } } else { Self::FileMissing { file, dir } }
    }

    /// For the record in `file`.
    pub(crate) fn of_decode(file: &Path, error: DecodeError) -> Self {
        let file = file.to_owned();
        match error {
            DecodeError::Version { version, supported } if version > *supported.end() => {
                Self::NewerRelease { file, version: version.into() }
            }
            source => Self::Unreadable { file, source },
        }
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

/// An error with everything below it, in one line.
struct Chain<'a, E: ?Sized>(&'a E);

impl<E: Error + ?Sized> fmt::Display for Chain<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
