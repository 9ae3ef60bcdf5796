//! The one door to the file system.
//!
//! Calls block. What a call promises about a crash is said with it, and is the least that the supported
//! platforms give: a file's bytes survive once [`DiskFile::sync_data`] returned, a name survives once
//! [`Disk::sync_dir`] returned, and nothing else does. After a failed sync the bytes since the last good one
//! are in doubt for ever, because an operating system may mark them clean: never sync again, stop instead.

mod real;
mod sim;

use std::any::Any;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use real::RealDisk;
pub use sim::{SimDisk, SimFault};

/// A file system, or something that behaves like one.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Creates a directory and those above it that are missing. They survive a crash once this returned.
    fn create_dir_all(&self, dir: &Path) -> Result<(), DiskError>;

    /// Opens a file. A name that this created survives a crash only after [`Disk::sync_dir`].
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn DiskFile>, DiskError>;

    /// The names in a directory, sorted, without those in directories below it.
    fn list(&self, dir: &Path) -> Result<Vec<OsString>, DiskError>;

    /// Removes a file's name. The removal survives a crash only after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> Result<(), DiskError>;

    /// Renames a file within one directory, replacing a file that has the target's name, atomically. The new
    /// name survives a crash only after [`Disk::sync_dir`].
    fn rename(&self, source: &Path, target: &Path) -> Result<(), DiskError>;

    /// Whether a file or directory has this name.
    fn exists(&self, path: &Path) -> Result<bool, DiskError>;

    /// Makes all creations, renames and removals in a directory survive a crash.
    fn sync_dir(&self, dir: &Path) -> Result<(), DiskError>;

    /// Takes an exclusive lock on a file, created if missing, without waiting. It ends with the guard or with
    /// the process.
    fn lock(&self, path: &Path) -> Result<DiskLock, LockError>;

    /// Bytes that can still be written below a directory. An estimate: others may write as well.
    fn free_bytes(&self, dir: &Path) -> Result<u64, DiskError>;
}

/// An open file. It stays usable when its name is removed or replaced.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Fills `buffer` from `offset` on and says how much of it was filled: less than all only where the file
    /// ends.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError>;

    /// Writes all of `bytes` at `offset`. A gap before it reads as zeros. After an error any part of it may
    /// have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// The file's length in bytes.
    fn length(&self) -> Result<u64, DiskError>;

    /// Cuts the file, or extends it by zeros.
    fn set_length(&self, length: u64) -> Result<(), DiskError>;

    /// Makes the file's bytes and its length survive a crash.
    fn sync_data(&self) -> Result<(), DiskError>;

    /// Like [`DiskFile::sync_data`], and the file's metadata too.
    fn sync_all(&self) -> Result<(), DiskError>;
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Read and write; create the file if it is missing.
    Create,
    /// Read and write; the name must be free.
    CreateNew,
    /// Only read; the file must exist.
    Read,
    /// Read and write; the file must exist.
    Write,
}

impl OpenMode {
    /// What opening in this mode is called when it fails.
    pub fn operation(self) -> Operation {
        match self {
            OpenMode::Create | OpenMode::CreateNew => Operation::Create,
            OpenMode::Read | OpenMode::Write => Operation::Open,
        }
    }
}

/// What was asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Operation {
    /// Creating a file by opening it.
    Create,
    /// Creating a directory.
    CreateDir,
    /// Asking for a name.
    Exists,
    /// Asking for free space.
    FreeBytes,
    /// Asking for a file's length.
    Length,
    /// Listing a directory.
    List,
    /// Locking a file.
    Lock,
    /// Opening a file that exists.
    Open,
    /// Reading.
    Read,
    /// Removing a name.
    Remove,
    /// Renaming.
    Rename,
    /// Cutting or extending a file.
    SetLength,
    /// Syncing a file.
    Sync,
    /// Syncing a directory.
    SyncDir,
    /// Writing.
    Write,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Create => "create",
            Operation::CreateDir => "create the directory",
            Operation::Exists => "look for",
            Operation::FreeBytes => "ask for the free space of",
            Operation::Length => "ask for the length of",
            Operation::List => "list",
            Operation::Lock => "lock",
            Operation::Open => "open",
            Operation::Read => "read",
            Operation::Remove => "remove",
            Operation::Rename => "rename",
            Operation::SetLength => "set the length of",
            Operation::Sync => "sync",
            Operation::SyncDir => "sync the directory",
            Operation::Write => "write",
        })
    }
}

/// An operation of a disk failed. A read changed nothing; after anything else the change may be there, in
/// part or as a whole, now or after a crash.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
#[non_exhaustive]
pub struct DiskError {
    /// What was tried.
    pub operation: Operation,
    /// Where.
    pub path: PathBuf,
    /// What the operating system answered.
    pub source: io::Error,
}

impl DiskError {
    /// Names the operation and the place of an error.
    pub fn new(operation: Operation, path: &Path, source: io::Error) -> Self {
        DiskError { operation, path: path.to_path_buf(), source }
    }

    /// The kind that the operating system answered.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

impl From<DiskError> for io::Error {
    fn from(error: DiskError) -> Self {
        io::Error::new(error.kind(), error)
    }
}

/// A lock could not be taken. Nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The file cannot be opened or locked at all.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Another holder has it. Retry when that one ended.
    #[error("{} is locked by another holder", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
}

/// Holds a lock until it is dropped.
pub struct DiskLock {
    _held: Box<dyn Any + Send + Sync>,
}

impl DiskLock {
    /// Wraps whatever releases the lock when it is dropped.
    pub fn new(held: impl Any + Send + Sync) -> Self {
        DiskLock { _held: Box::new(held) }
    }
}

impl fmt::Debug for DiskLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskLock")
    }
}

/// The directory that holds a path's name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}
