//! What can go wrong with a shared log: one enum for each operation, and one in them for a log that has stopped.

use std::path::PathBuf;

use super::stream::StreamId;
use crate::checked::ReadFileError;
use crate::disk::DiskError;
use crate::limits::{
    NOTE_BYTES_MAX, OFFSET_MAX, RECORD_BYTES_MAX, SEGMENT_BYTES_MAX, SHARED_SEGMENT_BYTES_MIN,
    SHARED_SEGMENTS_MAX,
};

/// A log could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Entries that were durable are not whole, or are gone, and it cannot be told which streams they belong
    /// to: any may be hit. Nothing changed on the disk. Never retry, and never go on with a part of the log:
    /// keep its directory aside and have all partitions sent by other nodes.
    #[error(
        "entry {number} of any stream is not whole in {} at byte {position}, though all below {synced} were synced",
        segment.display()
    )]
    Damaged {
        /// The file.
        segment: PathBuf,
        /// Where in the file the first entry lies that is not whole.
        position: u64,
        /// The number of that entry, as entries of all streams are counted.
        number: u64,
        /// All entries below this number had been synced, as far as can be proved.
        synced: u64,
    },
    /// The disk failed. What was durable still is. Retry only in a new process.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file that says what the directory is cannot be used. Nothing changed on the disk. As with
    /// [`OpenError::Damaged`], keep the directory aside.
    #[error("the file that makes the directory a log cannot be used")]
    Format(#[source] ReadFileError),
    /// There are segments, and the file is missing that makes the directory a log. Nothing changed on the
    /// disk. As with [`OpenError::Damaged`], keep the directory aside.
    #[error("{} has segments and does not say what it is", dir.display())]
    FormatMissing {
        /// The directory.
        dir: PathBuf,
    },
    /// Nothing changed. The options ask for segments that are too small or too large.
    #[error(
        "a segment has from {SHARED_SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX} bytes, not {segment_bytes}"
    )]
    SegmentBytes {
        /// What the options asked for.
        segment_bytes: u64,
    },
    /// No segment is there, or none of which the beginning can be read. Nothing changed on the disk. As with
    /// [`OpenError::Damaged`], keep the directory aside.
    #[error("{} is a log and has no segment that can be read", dir.display())]
    SegmentsMissing {
        /// The directory.
        dir: PathBuf,
    },
    /// The disk cannot read a part of which it cannot be told whether it held something that was durable. Nothing
    /// changed on the disk. Retry once in a new process; if the same part fails again, it is damage: as with
    /// [`OpenError::Damaged`], keep the directory aside.
    #[error("a part of the log cannot be read")]
    Unreadable(#[source] DiskError),
}

/// The log has stopped, because its disk failed in this call or in an earlier one. What was durable still is. Stop the
/// node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The disk failed in this call, and the log is poisoned. What was not synced before may or may not be durable; the
    /// call says what else is in doubt. Never retry: a second sync would say nothing about it.
    #[error("the log cannot go on")]
    Disk(#[from] DiskError),
    /// Nothing changed. An earlier call failed.
    #[error("an earlier operation on this log failed")]
    Poisoned,
}

/// Records could not be appended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Nothing changed. Something of the stream is lost. Remove it, never retry.
    #[error("something of stream {stream} that was durable is lost")]
    Damaged {
        /// The stream.
        stream: StreamId,
    },
    /// Nothing changed. The disk is full, and what is left is kept for changes of streams. Release records or
    /// remove streams, sync twice, since a segment is freed by an entry of its own, run upkeep, then retry.
    #[error("the disk has no room for another segment")]
    DiskFull(#[source] DiskError),
    /// If the disk failed in this call, any of the records may be there after the next open, from the first one on.
    /// If the log was poisoned before, nothing changed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Nothing changed. The records do not begin where the stream ends. Ask for its range, retry from there.
    #[error("stream {stream} ends at {end}, and takes no record at {start}")]
    NotAtEnd {
        /// The stream.
        stream: StreamId,
        /// Where they were to begin.
        start: u64,
        /// Where the stream ends.
        end: u64,
    },
    /// Nothing changed. The log has as many segments as it may: release records or remove streams, compact,
    /// then retry.
    #[error("the log would have more than {SHARED_SEGMENTS_MAX} segments")]
    SegmentsFull,
    /// Nothing changed. A record is larger than [`RECORD_BYTES_MAX`]; a retry cannot help.
    #[error("a record holds at most {RECORD_BYTES_MAX} bytes, not {bytes}")]
    TooLarge {
        /// Which of the payloads, counted from 0.
        position: usize,
        /// Its bytes.
        bytes: usize,
    },
    /// Nothing changed. There is no such stream: create it first.
    #[error("there is no stream {stream}")]
    Unknown {
        /// The stream.
        stream: StreamId,
    },
}

/// A stream could not be created, truncated, released, reset, removed or given a note. These six are one
/// operation to the log: a record that says what becomes of a stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// Nothing changed. Something of the stream is lost, and the change could let it pass for whole. Remove the
    /// stream, never retry.
    #[error("something of stream {stream} that was durable is lost")]
    Damaged {
        /// The stream.
        stream: StreamId,
    },
    /// Nothing changed. The disk is full, down to the headroom that was kept for such changes: what gives
    /// something up has more of it than creations and notes. Release records or remove streams, sync twice,
    /// since a segment is freed by an entry of its own, run upkeep, then retry.
    #[error("the disk has no room for another segment")]
    DiskFull(#[source] DiskError),
    /// Nothing changed. A stream of this name exists; it may be removed.
    #[error("stream {stream} exists")]
    Exists {
        /// The stream.
        stream: StreamId,
    },
    /// If the disk failed in this call, the change has happened or not after the next open. If the log was poisoned
    /// before, nothing changed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Nothing changed. A stream begins at [`OFFSET_MAX`] at most; a retry cannot help.
    #[error("a stream begins at {OFFSET_MAX} at most, not at {offset}")]
    OffsetTooLarge {
        /// Where it was to begin.
        offset: u64,
    },
    /// Nothing changed. The stream neither holds a record there nor ends there.
    #[error("stream {stream} holds {start} up to {end}, and nothing at {offset}")]
    OutOfRange {
        /// The stream.
        stream: StreamId,
        /// What was asked for.
        offset: u64,
        /// Where the stream begins.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// Nothing changed. The log has as many segments as it may: compact, then retry.
    #[error("the log would have more than {SHARED_SEGMENTS_MAX} segments")]
    SegmentsFull,
    /// Nothing changed. All streams and their notes together take more room than a segment has for them.
    /// Remove streams, or give shorter notes, then retry.
    #[error("all streams and their notes take at most {bytes_max} bytes")]
    TableFull {
        /// Bytes that there are.
        bytes_max: usize,
    },
    /// Nothing changed. The note is larger than [`NOTE_BYTES_MAX`]; a retry cannot help.
    #[error("a note holds at most {NOTE_BYTES_MAX} bytes, not {bytes}")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
    },
    /// Nothing changed. There is no such stream.
    #[error("there is no stream {stream}")]
    Unknown {
        /// The stream.
        stream: StreamId,
    },
}

/// Records could not be read. Nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Something of the stream is lost. Never retry: remove the stream, and have the partition sent by another
    /// node.
    #[error("something of stream {stream} that was durable is lost")]
    Damaged {
        /// The stream.
        stream: StreamId,
    },
    /// The disk failed. Unlike a failed write or sync, this does not stop the log.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The stream does not hold all of these records: they were released, or are not appended yet.
    #[error("stream {stream} holds {start} up to {end} only")]
    OutOfRange {
        /// The stream.
        stream: StreamId,
        /// Where it begins.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// An earlier call failed: stop the node.
    #[error("an earlier operation on this log failed")]
    Poisoned,
    /// A record is not whole that was whole when the log was opened. Never retry: as with
    /// [`ReadError::Damaged`].
    #[error("record {offset} of stream {stream} is not whole in {} at byte {position}", segment.display())]
    Torn {
        /// The stream.
        stream: StreamId,
        /// The record.
        offset: u64,
        /// The file.
        segment: PathBuf,
        /// Where in the file the record lies.
        position: u64,
    },
    /// There is no such stream.
    #[error("there is no stream {stream}")]
    Unknown {
        /// The stream.
        stream: StreamId,
    },
}

/// Segments could not be freed or prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpkeepError {
    /// Segments were freed where there were any, and none could be prepared. Retry when there is room.
    #[error("the disk has no room for another segment")]
    DiskFull(#[source] DiskError),
    /// Nothing of any stream is in doubt by this call, but the disk is not to be trusted.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Records could not be moved forward.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompactError {
    /// No record is lost or changed by this call.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Some records may have been moved. The disk failed to read one. Retry; if it fails again and again, remove
    /// the stream, or the records of its segment are never moved.
    #[error("a record could not be read that was to be moved")]
    Read(#[source] ReadError),
}

/// Why there is no room for an entry.
#[derive(Debug)]
pub(super) enum NoRoom {
    DiskFull(DiskError),
    Log(LogError),
    SegmentsFull,
}

impl From<NoRoom> for AppendError {
    fn from(reason: NoRoom) -> Self {
        match reason {
            NoRoom::DiskFull(error) => AppendError::DiskFull(error),
            NoRoom::Log(error) => AppendError::Log(error),
            NoRoom::SegmentsFull => AppendError::SegmentsFull,
        }
    }
}

impl From<NoRoom> for ChangeError {
    fn from(reason: NoRoom) -> Self {
        match reason {
            NoRoom::DiskFull(error) => ChangeError::DiskFull(error),
            NoRoom::Log(error) => ChangeError::Log(error),
            NoRoom::SegmentsFull => ChangeError::SegmentsFull,
        }
    }
}
