//! Why a command ended badly: one line for people, one exit code for scripts.

use std::io;
use std::sync::Arc;

use clusterkit::StartError;
use clusterkit_data::StorageError;

use crate::client::ClientError;
use crate::config::ConfigError;

/// The exit code of a command that could not do what it was asked for.
pub(crate) const EXIT_FAILED: u8 = 1;
/// The exit code of settings and arguments that cannot be meant.
pub(crate) const EXIT_USAGE: u8 = 2;
/// The exit code when no node can be reached.
pub(crate) const EXIT_UNREACHABLE: u8 = 3;

/// The text of each is the whole line that the user sees after `error: `.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Failure {
    /// An export or import broke off; what it did before stays.
    #[error("{source}; go on with {resume}")]
    BrokenOff { resume: String, source: ClientError },
    /// A node could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Settings cannot be meant. Nothing was touched.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A development cluster cannot begin.
    #[error(transparent)]
    Dev(#[from] crate::dev::DevError),
    /// A public port cannot be listened on. Nothing was touched.
    #[error("cannot listen for clients on {addr}: {source}; choose another {option}")]
    Listen { option: &'static str, addr: String, source: io::Error },
    /// A file or standard input cannot be read.
    #[error("cannot read {what}: {source}")]
    Input { what: String, source: io::Error },
    /// A line of an import is none that an export writes. Those before it may be set.
    #[error("line {line} is no line of an export: {source}")]
    ImportLine { line: u64, source: serde_json::Error },
    /// Keys of an import could not be set; others were.
    #[error(
        "{count} of the keys up to line {line} were not set, {key:?} for one: {detail}; go on with --skip {skip}"
    )]
    ImportRefused { line: u64, skip: u64, count: usize, key: String, detail: String },
    /// The load of a demonstration could not go on, or its writes could not be looked for.
    #[error("the load failed: {0}")]
    Load(clusterkit_client::Error),
    /// The log level is none.
    #[error("--log-level {text:?}: {reason}")]
    LogLevel { text: String, reason: String },
    /// The node ran, and broke.
    #[error("the node has failed: {0}")]
    NodeFailed(StartError),
    /// Standard output is gone.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// Nothing serves the public port any more, and nobody asked for that.
    #[error("the public port has failed; the log says why")]
    PublicPortEnded,
    /// The process cannot even begin.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    /// The node could not become part of its cluster.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The disk below the replicated partitions failed. What was acknowledged is on it and on other nodes.
    #[error("the disk has failed: {0}")]
    Storage(Arc<StorageError>),
    /// A second signal, or the end of the time for stopping.
    #[error("stopped at once, {reason}; what was promised is on disk, and the others find out by themselves")]
    StoppedAtOnce { reason: &'static str },
    /// Acknowledged writes are missing, or took effect twice.
    #[error("acknowledged writes are lost or took effect twice")]
    WritesLost,
    /// The cluster did not come to stand as was waited for.
    #[error("not {wanted} after {waited}: {last}")]
    WaitedInVain { wanted: &'static str, waited: String, last: String, exit: u8 },
}

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Client(ClientError::Url { .. })
            | Self::Config(_)
            | Self::LogLevel { .. }
            | Self::Start(StartError::Settings(_)) => EXIT_USAGE,
            Self::Client(error) | Self::BrokenOff { source: error, .. } if error.is_unreachable() => {
                EXIT_UNREACHABLE
            }
            Self::WaitedInVain { exit, .. } => *exit,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            _ => EXIT_FAILED,
        }
    }

    /// Whether anybody should be told: nobody reads what a closed pipe would have carried.
    pub(crate) fn is_silent(&self) -> bool {
        self.exit_code() == 0
    }
}

/// Writing to standard output is the only IO without a variant of its own.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}
