//! A segmented log of indexed records in one directory, that knows what of it was synced.
//!
//! # What is guaranteed
//!
//! - After a crash every record that [`RecordLog::sync`] made durable is there, unless it was truncated or
//!   purged or the log was reset. Of the records appended since, a beginning may be there.
//! - [`RecordLog::truncate_from`], [`RecordLog::purge_to`] and [`RecordLog::reset_to`] are durable when they
//!   return. A crash during one of them leaves the log as before or as after, and nothing that they removed
//!   ever comes back, whatever is appended later.
//! - Each record is checked when the log is opened and again when it is read. A wrong record is never served.
//! - A log never opens shorter than it was synced, as far as the mark goes, which is as follows.
//!
//! # Torn tail or hole
//!
//! Bytes that are no whole record mean one of two things. Above all that was synced they are a torn tail, what
//! a crash leaves of a write: they are cut off, and [`Recovery`] says so. Below, they are a hole in what was
//! acknowledged, and the log refuses to open with [`OpenError::Damaged`]. What was synced is proved by:
//!
//! 1. the manifest: every segment but the last was synced as a whole before the next one was begun;
//! 2. the mark in the header page of the last segment, written after each sync and made durable by the next
//!    one, or earlier by the operating system, so that it costs no sync of its own;
//! 3. the mark in each record: what was durable when it was written.
//!
//! So a flipped bit, a lost page or a lost end anywhere in a synced record is always reported if the record is
//! not of the last sync before the crash. In the last one it is reported if the process ended and the
//! machine went on, if the operating system wrote the mark back by itself (within seconds on usual settings),
//! and after [`RecordLog::close`]. Only if the power went within that time and the disk also lost or changed
//! what that very sync wrote, it passes for a torn tail: then the log opens without the records of that one
//! sync, from the damaged one on. That takes a power cut and a disk that broke its promise at once.
//!
//! # Files
//!
//! A `manifest` names the segments, in order, and is replaced atomically: this is the one moment in which a
//! change of the log's shape happens. Files that it does not name are leftovers and are removed when the log is
//! opened. A truncation does not shorten a file: it notes where the old segment ends and begins a new one, so
//! that the bytes behind a cut are never read and never written over. Segments have ids that are never used
//! twice, and the id is part of each record's checksum.
//!
//! Only one [`RecordLog`] may have a directory open; the caller holds a [lock](crate::disk::Disk::lock) for
//! that.

mod error;
mod manifest;
mod record;
mod recovery;
mod segment;

use std::mem;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

pub use self::error::{AppendError, OpenError, PurgeError, ReadError, ResetError, SyncError, TruncateError};
pub use self::recovery::{Recovery, TornTail};

use self::manifest::{Manifest, Sealed, Tail};
use self::record::HEADER_BYTES;
use self::segment::{RECORDS_AT, Segment, SegmentId};
use crate::disk::{Disk, DiskError};
use crate::limits::{RECORD_BYTES_MAX, SEGMENT_BYTES_DEFAULT, SEGMENTS_MAX};

/// A log of records with contiguous indexes. See the [module](self) for what it guarantees.
///
/// After any failed write or sync it is poisoned: every later call is refused, because nobody knows what the
/// disk holds. Open the log again in a new process.
///
/// It keeps four bytes of memory for each record, and one open file for each segment.
///
/// ```
/// use std::{path::Path, sync::Arc};
/// use bytes::Bytes;
/// use clusterkit_storage::{disk::SimDisk, record_log::{Options, RecordLog}};
///
/// let disk = SimDisk::new();
/// let (mut log, _) = RecordLog::open(Arc::new(disk.clone()), Path::new("/log"), &Options::default())?;
/// log.append(&[Bytes::from("a"), Bytes::from("b")])?;
/// log.sync()?;
/// log.append(&[Bytes::from("not synced")])?;
///
/// disk.crash_clean();
/// let (log, recovery) = RecordLog::open(Arc::new(disk), Path::new("/log"), &Options::default())?;
/// assert_eq!(recovery.records, 0..2);
/// assert_eq!(log.read(1..2, 1_000)?, [(1, Bytes::from("b"))]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Invariants:
/// - Each segment begins where the one before it ends; `sealed` is durable as a whole.
/// - `first` is in the first segment, or where the log ends.
/// - Records below `synced_end` are durable, and it is nowhere below `first` or the base of `tail`.
/// - The manifest on the disk names exactly `sealed` and `tail`, unless the log is poisoned.
#[derive(Debug)]
pub struct RecordLog {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    first: u64,
    id_next: u64,
    synced_end: u64,
    sealed: Vec<Segment>,
    tail: Segment,
    poisoned: bool,
}

/// How to open a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The index of the first record of a log that is created. An existing log keeps its own. Default 0.
    pub index_first: u64,
    /// Bytes after which a segment is full; the record that fills it may reach beyond. Default
    /// [`SEGMENT_BYTES_DEFAULT`], from [`SEGMENT_BYTES_MIN`](crate::limits::SEGMENT_BYTES_MIN) to
    /// [`SEGMENT_BYTES_MAX`](crate::limits::SEGMENT_BYTES_MAX). Space is freed by whole segments, and opening
    /// the log holds one in memory. May change from one opening to the next.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { index_first: 0, segment_bytes: SEGMENT_BYTES_DEFAULT }
    }
}

impl RecordLog {
    /// Opens the log in a directory, which is created if it is missing, and reads all of it. What the log then
    /// holds is durable. An error for damage leaves the disk as it was.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: &Options,
    ) -> Result<(RecordLog, Recovery), OpenError> {
        recovery::open(disk, dir, options)
    }

    /// The index of the first record, or of the next one if the log is empty.
    pub fn first_index(&self) -> u64 {
        self.first
    }

    /// The index of the last record, if there is one.
    pub fn last_index(&self) -> Option<u64> {
        (self.first < self.next_index()).then(|| self.next_index() - 1)
    }

    /// The index that the next appended record gets.
    pub fn next_index(&self) -> u64 {
        self.tail.end()
    }

    /// The index below which every record is durable.
    pub fn synced_end(&self) -> u64 {
        self.synced_end
    }

    /// Reads records from the first of `range` on: all of them, or as many as take at most `bytes_max` bytes on
    /// the disk, but one at least. The payloads share one buffer for each segment that was read.
    pub fn read(&self, range: Range<u64>, bytes_max: u64) -> Result<Vec<(u64, Bytes)>, ReadError> {
        if self.poisoned {
            return Err(ReadError::Poisoned);
        }
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if range.start < self.first || range.end > self.next_index() {
            return Err(ReadError::OutOfRange { first: self.first, end: self.next_index() });
        }
        self.read_held(range, bytes_max)
    }

    /// Appends records behind the last one, and says which indexes they got. They are readable at once, and
    /// durable after [`RecordLog::sync`]. Beginning a new segment syncs what was appended before it.
    pub fn append(&mut self, payloads: &[Bytes]) -> Result<Range<u64>, AppendError> {
        if self.poisoned {
            return Err(AppendError::Poisoned);
        }
        self.check_append(payloads)?;
        let start = self.next_index();
        self.attempt(|log| log.push_all(payloads))?;
        Ok(start..self.next_index())
    }

    /// Makes everything that was appended durable, with one sync for all of it, and none if there is nothing.
    pub fn sync(&mut self) -> Result<(), SyncError> {
        if self.poisoned {
            return Err(SyncError::Poisoned);
        }
        Ok(self.attempt(RecordLog::sync_tail)?)
    }

    /// Removes the record at `index` and all behind it, durably; the next record gets this index. From
    /// [`RecordLog::first_index`], which empties the log, up to [`RecordLog::next_index`], which changes
    /// nothing. Costs four syncs.
    pub fn truncate_from(&mut self, index: u64) -> Result<(), TruncateError> {
        if self.poisoned {
            return Err(TruncateError::Poisoned);
        }
        let (first, end) = (self.first, self.next_index());
        if index < first || index > end {
            return Err(TruncateError::OutOfRange { index, first, end });
        }
        if index < end {
            self.attempt(|log| log.sync_below(index).and_then(|()| log.begin_segment(first, index, &[])))?;
        }
        Ok(())
    }

    /// Removes all records below `index`, durably; segments that hold none but those are freed. Up to
    /// [`RecordLog::next_index`], which empties the log; an index that is already removed changes nothing.
    /// Costs two syncs.
    pub fn purge_to(&mut self, index: u64) -> Result<(), PurgeError> {
        if self.poisoned {
            return Err(PurgeError::Poisoned);
        }
        if index > self.next_index() {
            return Err(PurgeError::BehindEnd { index, end: self.next_index() });
        }
        if index > self.first {
            self.attempt(|log| log.sync_below(index).and_then(|()| log.drop_below(index)))?;
        }
        Ok(())
    }

    /// Removes all records, durably, and lets the log begin at `index`, which may be any: for after a snapshot
    /// was installed. Costs four syncs.
    pub fn reset_to(&mut self, index: u64) -> Result<(), ResetError> {
        if self.poisoned {
            return Err(ResetError::Poisoned);
        }
        Ok(self.attempt(|log| log.begin_segment(index, index, &[]))?)
    }

    /// Makes everything durable, the mark too, so that damage to any record is told from a torn tail.
    pub fn close(mut self) -> Result<(), SyncError> {
        self.sync()?;
        Ok(self.attempt(|log| log.tail.sync())?)
    }

    fn attempt(&mut self, step: impl FnOnce(&mut Self) -> Result<(), DiskError>) -> Result<(), DiskError> {
        let outcome = step(self);
        self.poisoned |= outcome.is_err();
        outcome
    }

    fn check_append(&self, payloads: &[Bytes]) -> Result<(), AppendError> {
        let too_large = |payload: &Bytes| payload.len() > RECORD_BYTES_MAX;
        if let Some(position) = payloads.iter().position(too_large) {
            return Err(AppendError::TooLarge { position, bytes: payloads[position].len() });
        }
        let segments = self.sealed.len() + 1 + self.rolls_for(payloads);
        if segments > SEGMENTS_MAX { Err(AppendError::Full) } else { Ok(()) }
    }

    fn rolls_for(&self, payloads: &[Bytes]) -> usize {
        let mut rolls = 0;
        let mut bytes_end = self.tail.bytes_end;
        for payload in payloads {
            if !self.has_room(bytes_end, payload) {
                rolls += 1;
                bytes_end = RECORDS_AT;
            }
            bytes_end += (HEADER_BYTES + payload.len()) as u64;
        }
        rolls
    }

    /// Whether a segment that ends there takes this record. An empty one takes any.
    fn has_room(&self, bytes_end: u64, payload: &Bytes) -> bool {
        bytes_end == RECORDS_AT || bytes_end + (HEADER_BYTES + payload.len()) as u64 <= self.segment_bytes
    }

    fn push_all(&mut self, payloads: &[Bytes]) -> Result<(), DiskError> {
        for payload in payloads {
            if !self.has_room(self.tail.bytes_end, payload) {
                self.roll()?;
            }
            self.tail.push(payload, self.synced_end)?;
        }
        self.tail.flush()
    }

    fn roll(&mut self) -> Result<(), DiskError> {
        self.tail.flush()?;
        self.sync_below(self.next_index())?;
        self.begin_segment(self.first, self.next_index(), &[])
    }

    fn sync_below(&mut self, index: u64) -> Result<(), DiskError> {
        if self.synced_end < index { self.sync_tail() } else { Ok(()) }
    }

    fn sync_tail(&mut self) -> Result<(), DiskError> {
        let end = self.next_index();
        if self.synced_end < end {
            self.tail.sync()?;
            self.synced_end = end;
            self.tail.write_mark(end)?;
        }
        Ok(())
    }

    /// Begins a new tail at `base` with these records. Of the old segments, records from `first` up to `base`
    /// stay; they are durable. All of it happens when the manifest is replaced.
    fn begin_segment(&mut self, first: u64, base: u64, payloads: &[&[u8]]) -> Result<(), DiskError> {
        let id = SegmentId(self.id_next);
        self.id_next += 1;
        let tail = Segment::create(&*self.disk, &self.dir, (id, base), payloads)?;
        self.disk.sync_dir(&self.dir)?;
        self.synced_end = tail.end();
        let old = mem::replace(&mut self.tail, tail);
        self.sealed.push(old);
        self.reshape(first, base)
    }

    fn drop_below(&mut self, first: u64) -> Result<(), DiskError> {
        self.reshape(first, self.tail.base)
    }

    /// Keeps of the sealed segments what lies from `first` up to `end`, and frees the others.
    fn reshape(&mut self, first: u64, end: u64) -> Result<(), DiskError> {
        let needed = |segment: &Segment| segment.base.max(first) < segment.end().min(end);
        let (kept, dropped): (Vec<_>, Vec<_>) = mem::take(&mut self.sealed).into_iter().partition(needed);
        self.first = first;
        self.sealed = kept;
        if let Some(last) = self.sealed.last_mut() {
            last.cut(end);
        }
        self.write_manifest()?;
        dropped.iter().try_for_each(|segment| self.disk.remove(&segment.path))
    }

    fn write_manifest(&self) -> Result<(), DiskError> {
        let sealed =
            |segment: &Segment| Sealed { id: segment.id, base: segment.base, bytes_end: segment.bytes_end };
        let manifest = Manifest {
            first: self.first,
            id_next: self.id_next,
            sealed: self.sealed.iter().map(sealed).collect(),
            tail: Some(Tail { id: self.tail.id, base: self.tail.base }),
        };
        manifest.write(&*self.disk, &self.dir)
    }

    fn read_held(&self, range: Range<u64>, bytes_max: u64) -> Result<Vec<(u64, Bytes)>, ReadError> {
        let mut records = Vec::new();
        let (mut from, mut left) = (range.start, bytes_max);
        while from < range.end {
            let segment = self.segment_of(from);
            let held = range.end.min(segment.end());
            let least = if records.is_empty() { from + 1 } else { from };
            let until = segment.end_within(from, held, left).max(least);
            left = left.saturating_sub(segment.bytes_of(from..until));
            records.extend(segment.read(from..until)?);
            if until < held {
                break;
            }
            from = until;
        }
        Ok(records)
    }

    fn segment_of(&self, index: u64) -> &Segment {
        let behind = self.sealed.partition_point(|segment| segment.end() <= index);
        self.sealed.get(behind).unwrap_or(&self.tail)
    }

    fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.sealed.iter().chain([&self.tail])
    }
}
