//! What can go wrong with a log, one enum for each operation.

use std::path::PathBuf;

use crate::checked::ReadFileError;
use crate::disk::DiskError;
use crate::limits::{RECORD_BYTES_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENTS_MAX};

/// A log could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A record that was durable is not whole, or is gone. Nothing changed on the disk. Never retry, and never
    /// go on with a part of the log: keep its directory aside and have the records sent by another node.
    #[error(
        "record {index} is not whole in {} at byte {offset}, though all below {synced} were synced",
        segment.display()
    )]
    Damaged {
        /// The file.
        segment: PathBuf,
        /// Where in the file the first record lies that is not whole.
        offset: u64,
        /// The index of that record.
        index: u64,
        /// All records below this index had been synced, as far as can be proved.
        synced: u64,
    },
    /// The disk failed. What was durable still is. Retry only in a new process.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The manifest is damaged or not readable. Nothing changed on the disk. As with
    /// [`OpenError::Damaged`], keep the directory aside.
    #[error("the manifest of the log cannot be used")]
    Manifest(#[source] ReadFileError),
    /// There are segments and no manifest. Nothing changed on the disk. As with [`OpenError::Damaged`], keep
    /// the directory aside.
    #[error("{} has segments and no manifest", dir.display())]
    ManifestMissing {
        /// The directory.
        dir: PathBuf,
    },
    /// Nothing changed. The options ask for segments that are too small or too large.
    #[error("a segment has from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX} bytes, not {segment_bytes}")]
    SegmentBytes {
        /// What the options asked for.
        segment_bytes: u64,
    },
    /// A file that the manifest names is gone. Nothing changed on the disk. As with
    /// [`OpenError::Damaged`], keep the directory aside.
    #[error("{} is missing, which begins with record {index}", segment.display())]
    SegmentMissing {
        /// The file.
        segment: PathBuf,
        /// The index of its first record.
        index: u64,
    },
    /// A newer program wrote it. Nothing changed. Use that one.
    #[error("{} has version {version}, which this program does not know", segment.display())]
    Unsupported {
        /// The file.
        segment: PathBuf,
        /// Its version.
        version: u16,
    },
}

/// Records could not be appended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Any of the records may be there after the next open, from the first one on, and the log is poisoned.
    /// That goes for a full disk as well. Stop the node.
    #[error("the outcome of the append is unknown")]
    Disk(#[from] DiskError),
    /// Nothing changed. The log has [`SEGMENTS_MAX`] segments: purge it, then retry.
    #[error("the log would have more than {SEGMENTS_MAX} segments")]
    Full,
    /// Nothing changed. An earlier call failed: stop the node.
    #[error("an earlier operation on this log failed")]
    Poisoned,
    /// Nothing changed. A record is larger than [`RECORD_BYTES_MAX`]; a retry cannot help.
    #[error("a record holds at most {RECORD_BYTES_MAX} bytes, not {bytes}")]
    TooLarge {
        /// Which of the payloads, counted from 0.
        position: usize,
        /// Its bytes.
        bytes: usize,
    },
}

/// Records could not be synced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The records since the last sync may or may not be durable, and the log is poisoned. A second sync would
    /// say nothing about them: stop the node.
    #[error("the records since the last sync may be lost")]
    Disk(#[from] DiskError),
    /// Nothing changed. An earlier call failed: stop the node.
    #[error("an earlier operation on this log failed")]
    Poisoned,
}

/// The end of the log could not be removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TruncateError {
    /// After the next open the records are all there or all gone, and the log is poisoned. Stop the node.
    #[error("the outcome of the truncation is unknown")]
    Disk(#[from] DiskError),
    /// Nothing changed. The log holds no such record and does not end there.
    #[error("the log cannot end before {index}: it holds {first} up to {end}")]
    OutOfRange {
        /// Where it was to end.
        index: u64,
        /// The log's first index.
        first: u64,
        /// The index behind its last one.
        end: u64,
    },
    /// Nothing changed. An earlier call failed: stop the node.
    #[error("an earlier operation on this log failed")]
    Poisoned,
}

/// The beginning of the log could not be removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PurgeError {
    /// Nothing changed. The log ends before that: see [`RecordLog::reset_to`](super::RecordLog::reset_to).
    #[error("the log cannot begin at {index}: it ends before {end}")]
    BehindEnd {
        /// Where it was to begin.
        index: u64,
        /// The index behind the log's last one.
        end: u64,
    },
    /// After the next open the records are all there or all gone, and the log is poisoned. Stop the node.
    #[error("the outcome of the purge is unknown")]
    Disk(#[from] DiskError),
    /// Nothing changed. An earlier call failed: stop the node.
    #[error("an earlier operation on this log failed")]
    Poisoned,
}

/// The log could not be emptied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResetError {
    /// After the next open the log is as it was or empty, and this one is poisoned. Stop the node.
    #[error("the outcome of the reset is unknown")]
    Disk(#[from] DiskError),
    /// Nothing changed. An earlier call failed: stop the node.
    #[error("an earlier operation on this log failed")]
    Poisoned,
}

/// Records could not be read. Nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A record is not whole that was whole when the log was opened. Never retry: stop the node, keep the
    /// directory aside and have the records sent by another node.
    #[error("record {index} is not whole in {} at byte {offset}", segment.display())]
    Damaged {
        /// The file.
        segment: PathBuf,
        /// Where in the file the record lies.
        offset: u64,
        /// Its index.
        index: u64,
    },
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The log does not hold all of these records: they were purged, or are not written yet.
    #[error("the log holds {first} up to {end} only")]
    OutOfRange {
        /// The log's first index.
        first: u64,
        /// The index behind its last one.
        end: u64,
    },
    /// An earlier call failed: stop the node.
    #[error("an earlier operation on this log failed")]
    Poisoned,
}
