//! The one log of a node, in which the replicas of all its partitions write: many streams of records, one
//! sequence of entries, one sync for all of them.
//!
//! # What is guaranteed
//!
//! - Everything is an entry of one sequence: a record, and also that a stream is created, truncated, released,
//!   reset, removed or given a note. A crash leaves a beginning of that sequence, and never less of it than was
//!   synced. So every change is durable with the next sync, in order, and costs no sync of its own; and nothing
//!   that was truncated, released, reset or removed comes back once what followed it is durable.
//! - Each entry is checked when the log is opened and each record again when it is read: that it is whole, and
//!   that it is the record of that offset of that stream. A wrong record is never served.
//! - A log never opens shorter than it was synced, as far as that can be proved, which is as follows.
//! - A stream of which something is lost stays damaged until it is reset or removed: entries and tables say so
//!   before what proves it is freed. It takes no other change.
//! - After a failed write or sync the log is poisoned for ever. A full disk is not a failed write: appends are
//!   refused and nothing changed, while truncations, releases, removals and notes still fit into a spare segment
//!   that is kept for them, so that space can be freed.
//!
//! # Torn tail or hole
//!
//! Bytes that are no whole entry, where one should be, mean one of two things. Above all that was synced they
//! are a torn tail, what a crash leaves of a write: they are cut off. Below, they are a hole in what was
//! acknowledged. What was synced is proved by the mark in each entry, which says what was durable when it was
//! written, also by entries behind the hole; and by the file `mark`, which is written after each sync and made
//! durable by [`SharedLog::close`] or, within seconds, by the operating system. So damage to a synced entry
//! passes for a torn tail only if it is of the last sync before a power cut that came within those seconds, or
//! if nothing behind it is left; that takes a power cut and a disk that broke its promise at once.
//!
//! What the disk cannot read is a hole where the log goes on behind it. Where the log may end there, it does not
//! open: [`OpenError::Unreadable`].
//!
//! A hole hits only streams that lost an entry there. Which ones did, is told by the header of the entry, which
//! has a checksum of its own, or by what comes behind: each entry names the previous one of its stream, and
//! each segment begins with a table that names the newest entry of every stream. The log then opens, names
//! place and streams in [`Recovery::damage`], serves the other streams as if nothing happened, and refuses
//! records of the ones that are hit. If it cannot be told which streams are hit, it does not open:
//! [`OpenError::Damaged`].
//!
//! # Files
//!
//! Segments are filled with zeros before they are used ([upkeep](SharedLog::begin_upkeep)), so that a sync
//! writes no metadata. Because each begins with a table of all segments and streams, there is no manifest, and
//! any segment can be freed in which no needed record lies, not only the oldest: first an entry says so, and
//! once that is durable the file is removed. [`SharedLog::compact`] moves the records of sparse segments
//! forward, so that a stream with few cold records does not pin them. The file `format` says that the directory
//! is such a log, and in which version.
//!
//! # Cost
//!
//! An entry takes 48 bytes and its payload, a stream 38 bytes and its note in each segment's table, a record 12
//! bytes of memory, and up to 16 more until it is durable. Opening reads each segment once, in pieces of [`READ_BYTES_MAX`](crate::limits::READ_BYTES_MAX)
//! or one record, and there are at most [`SHARED_SEGMENTS_MAX`] of them; what lies behind damage is read twice.
//!
//! # Threads
//!
//! A [`SharedLog`] has one writer and blocks. There are two ways to use it from many threads: a [`GroupCommit`]
//! lets callers append and wait, with one sync for all who wait; an owner that is a task of its own appends,
//! and gives the [`PendingSync`] and [`PendingUpkeep`] that it takes from the log to other threads, so that it
//! goes on appending while they run.
//!
//! Only one [`SharedLog`] may have a directory open; the caller holds a [lock](crate::disk::Disk::lock) for
//! that.

mod compact;
mod entry;
mod error;
mod group;
mod index;
mod memory;
mod read;
mod recovery;
mod replay;
mod segment;
mod stream;
mod sync;
mod table;
mod upkeep;
mod walk;
mod write;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

pub use self::compact::Compaction;
pub use self::error::{AppendError, ChangeError, CompactError, LogError, OpenError, ReadError, UpkeepError};
pub use self::group::{CommitError, GroupCommit};
pub use self::memory::MemoryLog;
pub use self::read::PendingRead;
pub use self::recovery::{Damage, Place as DamagedPlace, Recovery, TornTail};
pub use self::stream::{StreamId, StreamStatus};
pub use self::sync::{FinishedSync, PendingSync};
pub use self::upkeep::{FinishedUpkeep, PendingUpkeep};

use self::compact::Cursor;
use self::entry::{HEADER_BYTES, Kind};
use self::index::{Change, Index, ROW_BYTES};
use self::segment::{Home, Segment, SegmentId};
use self::stream::{Place, Stream};
use self::sync::SyncTurn;
use self::upkeep::Lease;
use self::write::Payloads;
use crate::disk::{Disk, DiskFile};
use crate::limits::{
    NOTE_BYTES_MAX, OFFSET_MAX, RECORD_BYTES_MAX, SEGMENT_BYTES_DEFAULT, SHARED_SEGMENTS_MAX,
    SHARED_SEGMENTS_RESERVED, SHARED_SEGMENTS_SPARE,
};

/// What the replicas of a node need of the log that they share. [`SharedLog`] is one on a disk, [`MemoryLog`]
/// one that a process takes with it; both pass the [suite](crate::conformance::log).
///
/// Every change is durable after the next [`Log::sync`], in order. Each method's errors say what changed.
pub trait Log {
    /// Lets a stream exist, empty, whose first record will have the offset `start`, [`OFFSET_MAX`] at most.
    fn create(&mut self, stream: StreamId, start: u64) -> Result<(), ChangeError>;

    /// Appends records at the end of a stream, which must be `start`. They are readable at once.
    fn append(&mut self, stream: StreamId, start: u64, payloads: &[Bytes]) -> Result<(), AppendError>;

    /// Removes the record at `end` and all behind it: from the stream's start, which empties it, up to its end,
    /// which changes nothing.
    fn truncate(&mut self, stream: StreamId, end: u64) -> Result<(), ChangeError>;

    /// Gives up the records below an offset, because a snapshot covers them: up to the stream's end, which
    /// empties it. What was released before changes nothing.
    fn release(&mut self, stream: StreamId, below: u64) -> Result<(), ChangeError>;

    /// Gives up all records, and lets the stream go on at `start`, [`OFFSET_MAX`] at most: for after a snapshot was
    /// installed. The note stays.
    fn reset(&mut self, stream: StreamId, start: u64) -> Result<(), ChangeError>;

    /// Lets a stream exist no more.
    fn remove(&mut self, stream: StreamId) -> Result<(), ChangeError>;

    /// Replaces the small note that a stream carries, of at most [`NOTE_BYTES_MAX`] bytes.
    fn note(&mut self, stream: StreamId, note: Bytes) -> Result<(), ChangeError>;

    /// Makes everything before it durable, with one sync for all of it, and none if there is nothing. After an error
    /// what was changed since the last sync may or may not be durable.
    fn sync(&mut self) -> Result<(), LogError>;

    /// Reads records from the first of `range` on: all of them, or as many as take at most `bytes_max` bytes
    /// with their headers, but one at least.
    fn read(
        &self,
        stream: StreamId,
        range: Range<u64>,
        bytes_max: u64,
    ) -> Result<Vec<(u64, Bytes)>, ReadError>;

    /// What the log holds of a stream, if it exists.
    fn stream(&self, stream: StreamId) -> Option<StreamStatus>;

    /// What the log holds of all streams, in the order of their ids.
    fn streams(&self) -> Vec<StreamStatus>;
}

/// How to open a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a segment, all of which are taken from the disk when it is prepared, and
    /// [`SHARED_SEGMENTS_PREPARED`](crate::limits::SHARED_SEGMENTS_PREPARED) are prepared ahead. Default
    /// [`SEGMENT_BYTES_DEFAULT`], from
    /// [`SHARED_SEGMENT_BYTES_MIN`](crate::limits::SHARED_SEGMENT_BYTES_MIN) to
    /// [`SEGMENT_BYTES_MAX`](crate::limits::SEGMENT_BYTES_MAX). Space is freed by whole segments; the smaller
    /// they are, the more of it the tables of streams take. A record that is larger has a segment of its own.
    /// May change from one opening to the next.
    pub segment_bytes: u64,
    /// Any number, chosen by chance, that a log which is created mixes into its checksums, so that no record
    /// that a client made up passes for an entry when damage is searched for entries behind it. An existing
    /// log keeps its own.
    pub salt: u64,
    /// Bytes of the disk that are left to others, as a state store that must write before this log can be
    /// released: with less, no segment is prepared, as if the disk were full. Default 0.
    pub free_bytes_min: u64,
}

impl Options {
    /// Options with this salt, and defaults besides.
    pub fn new(salt: u64) -> Self {
        Options { segment_bytes: SEGMENT_BYTES_DEFAULT, salt, free_bytes_min: 0 }
    }
}

/// A log that many streams share. See the [module](self) for what it guarantees.
///
/// ```
/// use std::{path::Path, sync::Arc};
/// use bytes::Bytes;
/// use clusterkit_storage::disk::SimDisk;
/// use clusterkit_storage::shared_log::{Log, Options, SharedLog, StreamId};
///
/// let disk = SimDisk::new();
/// let options = Options { segment_bytes: 1 << 20, ..Options::new(0) };
/// let (mut log, _) = SharedLog::open(Arc::new(disk.clone()), Path::new("/log"), &options)?;
/// let (red, blue) = (StreamId(1), StreamId(2));
/// log.create(red, 0)?;
/// log.create(blue, 100)?;
/// log.append(red, 0, &[Bytes::from("a"), Bytes::from("b")])?;
/// log.append(blue, 100, &[Bytes::from("c")])?;
/// log.sync()?;
/// log.append(red, 2, &[Bytes::from("not synced")])?;
///
/// disk.crash_clean();
/// let (log, _) = SharedLog::open(Arc::new(disk), Path::new("/log"), &options)?;
/// assert_eq!(log.stream(red).unwrap().records, 0..2);
/// assert_eq!(log.read(blue, 100..101, 1_000)?, [(100, Bytes::from("c"))]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Invariants:
/// - Entries below `synced_end` are durable, and those from there on lie in the files of `unsynced` and in
///   `active`; the last bytes of `active`, those of `staged`, are not in the file yet.
/// - `sealed`, `active` and `prepared` have ids that grow, in this order.
/// - Every place that the index knows lies in `sealed` or `active`.
/// - An entry is pushed only after room was made for it.
#[derive(Debug)]
pub struct SharedLog {
    home: Home,
    segment_bytes: u64,
    index: Index,
    sealed: BTreeMap<SegmentId, Segment>,
    active: Segment,
    /// Where the next entry of `active` will lie.
    position: u64,
    staged: Vec<u8>,
    number_next: u64,
    synced_end: u64,
    /// Sealed segments that are not known to be durable, each with the number that follows its last entry.
    unsynced: Vec<(u64, Arc<dyn DiskFile>)>,
    prepared: VecDeque<Segment>,
    id_next: SegmentId,
    /// Files that may be removed once the entry of this number is durable.
    doomed: Vec<(u64, PathBuf)>,
    mark: Arc<dyn DiskFile>,
    cursor: Option<Cursor>,
    /// Segments whose table was found damaged. While one is there, none before it is freed.
    crippled: BTreeSet<SegmentId>,
    poisoned: bool,
    turn: Arc<SyncTurn>,
    lease: Lease,
}

impl SharedLog {
    /// Opens the log in a directory, which is created if it is missing, and reads all of it. What the log then
    /// holds is durable. An error for damage leaves the disk as it was.
    ///
    /// A log that is created prepares its first segment at once; call [`SharedLog::prepare_next`] before the
    /// first append to have the others prepared off the hot path as well.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: &Options,
    ) -> Result<(SharedLog, Recovery), OpenError> {
        recovery::open(disk, dir, options)
    }

    /// The number that the next entry of any stream gets. All that was appended until now is durable when
    /// [`SharedLog::synced_end`] has reached it.
    pub fn end(&self) -> u64 {
        self.number_next
    }

    /// The number below which every entry is durable.
    pub fn synced_end(&self) -> u64 {
        self.synced_end
    }

    /// Where the records of a stream end that are durable as they are now: all below this offset are there after
    /// a crash, unless something is changed before. Nothing if the stream does not exist, or if it is not
    /// durable yet that it begins where it does. May lie below the stream's start, after a release.
    pub fn durable_end(&self, stream: StreamId) -> Option<u64> {
        self.index.stream(stream)?.durable_end(self.synced_end)
    }

    /// How many segments hold entries. Compact when they become many, [`SHARED_SEGMENTS_MAX`] at the latest.
    pub fn segment_count(&self) -> usize {
        self.sealed.len() + 1
    }

    /// Bytes of records that are needed, with their headers, in all segments.
    pub fn live_bytes(&self) -> u64 {
        let ids = self.sealed.keys().chain([&self.active.id]);
        ids.map(|id| self.index.live_bytes(*id)).sum()
    }

    /// Makes everything durable, the mark too, so that damage to any entry is told from a torn tail.
    pub fn close(mut self) -> Result<(), LogError> {
        self.sync()?;
        Ok(self.mark.sync_data()?)
    }

    fn check_append(&self, id: StreamId, start: u64, payloads: &[Bytes]) -> Result<(), AppendError> {
        self.check_poisoned()?;
        let stream = self.index.stream(id).ok_or(AppendError::Unknown { stream: id })?;
        if stream.is_damaged() {
            return Err(AppendError::Damaged { stream: id });
        }
        check_payloads(id, start..stream.end(), payloads)
    }

    /// The stream that a change is about.
    fn subject(&self, id: StreamId) -> Result<&Stream, ChangeError> {
        self.check_poisoned()?;
        self.index.stream(id).ok_or(ChangeError::Unknown { stream: id })
    }

    /// The stream that a change is about which builds on what the stream is.
    fn whole(&self, id: StreamId) -> Result<&Stream, ChangeError> {
        let stream = self.subject(id)?;
        if stream.is_damaged() { Err(ChangeError::Damaged { stream: id }) } else { Ok(stream) }
    }

    fn is_poisoned(&self) -> bool {
        self.poisoned || self.turn.has_failed()
    }

    fn check_poisoned(&self) -> Result<(), LogError> {
        if self.is_poisoned() { Err(LogError::Poisoned) } else { Ok(()) }
    }

    fn check_table(&self, bytes: usize) -> Result<(), ChangeError> {
        let bytes_max = self.table_bytes_max();
        if bytes > bytes_max { Err(ChangeError::TableFull { bytes_max }) } else { Ok(()) }
    }

    /// Records a change of one stream, for which the checks were made.
    fn change(
        &mut self,
        kind: Kind,
        (stream, offset): (StreamId, u64),
        change: Change,
    ) -> Result<(), ChangeError> {
        let payload = match &change {
            Change::Note(note) => note.clone(),
            _ => Bytes::new(),
        };
        let headroom = self.headroom(kind);
        self.make_room(Payloads::One(payload.len() + headroom), SHARED_SEGMENTS_MAX, 0)?;
        let (number, _) = self.push(kind, stream, offset, &payload)?;
        self.index.apply(stream, number, change);
        Ok(())
    }
}

impl Log for SharedLog {
    fn create(&mut self, stream: StreamId, start: u64) -> Result<(), ChangeError> {
        match self.subject(stream) {
            Ok(_) => return Err(ChangeError::Exists { stream }),
            Err(ChangeError::Unknown { .. }) => {}
            Err(error) => return Err(error),
        }
        check_start(start)?;
        self.check_table(self.index.table_bytes() + ROW_BYTES)?;
        self.change(Kind::Create, (stream, start), Change::Create(start))
    }

    fn append(&mut self, stream: StreamId, start: u64, payloads: &[Bytes]) -> Result<(), AppendError> {
        self.check_append(stream, start, payloads)?;
        let segments_max = SHARED_SEGMENTS_MAX - SHARED_SEGMENTS_RESERVED;
        self.make_room(Payloads::Many(payloads), segments_max, SHARED_SEGMENTS_SPARE)?;
        for (offset, payload) in (start..).zip(payloads) {
            let (number, place) = self.push(Kind::Append, stream, offset, payload)?;
            self.index.apply(stream, number, Change::Append(place));
        }
        Ok(())
    }

    fn truncate(&mut self, id: StreamId, end: u64) -> Result<(), ChangeError> {
        let stream = self.whole(id)?;
        let unchanged = end == stream.end();
        check_range(id, end, stream.start..stream.end())?;
        if unchanged { Ok(()) } else { self.change(Kind::Truncate, (id, end), Change::Truncate(end)) }
    }

    fn release(&mut self, id: StreamId, below: u64) -> Result<(), ChangeError> {
        let stream = self.whole(id)?;
        let unchanged = below <= stream.start;
        check_range(id, below, 0..stream.end())?;
        if unchanged { Ok(()) } else { self.change(Kind::Release, (id, below), Change::Release(below)) }
    }

    fn reset(&mut self, stream: StreamId, start: u64) -> Result<(), ChangeError> {
        self.subject(stream)?;
        check_start(start)?;
        self.change(Kind::Reset, (stream, start), Change::Reset(start))
    }

    fn remove(&mut self, stream: StreamId) -> Result<(), ChangeError> {
        self.subject(stream)?;
        self.change(Kind::Remove, (stream, 0), Change::Remove)
    }

    fn note(&mut self, id: StreamId, note: Bytes) -> Result<(), ChangeError> {
        let stream = self.whole(id)?;
        check_note(&note)?;
        let old = stream.note.as_ref().map_or(0, Bytes::len);
        self.check_table(self.index.table_bytes() - old + note.len())?;
        self.change(Kind::Note, (id, 0), Change::Note(note))
    }

    fn sync(&mut self) -> Result<(), LogError> {
        match self.begin_sync()? {
            Some(pending) => self.finish_sync(pending.run()).map(|_| ()),
            None => Ok(()),
        }
    }

    fn read(
        &self,
        stream: StreamId,
        range: Range<u64>,
        bytes_max: u64,
    ) -> Result<Vec<(u64, Bytes)>, ReadError> {
        self.begin_read(stream, range, bytes_max)?.run()
    }

    fn stream(&self, stream: StreamId) -> Option<StreamStatus> {
        self.index.stream(stream).map(|found| found.status(stream))
    }

    fn streams(&self) -> Vec<StreamStatus> {
        self.index.streams().map(|(id, stream)| stream.status(id)).collect()
    }
}

/// `start..end` is where the records are to begin and where the stream ends, which should be the same.
fn check_payloads(stream: StreamId, place: Range<u64>, payloads: &[Bytes]) -> Result<(), AppendError> {
    let Range { start, end } = place;
    if start != end {
        return Err(AppendError::NotAtEnd { stream, start, end });
    }
    let too_large = |payload: &Bytes| payload.len() > RECORD_BYTES_MAX;
    match payloads.iter().position(too_large) {
        Some(position) => Err(AppendError::TooLarge { position, bytes: payloads[position].len() }),
        None => Ok(()),
    }
}

fn check_start(offset: u64) -> Result<(), ChangeError> {
    if offset > OFFSET_MAX { Err(ChangeError::OffsetTooLarge { offset }) } else { Ok(()) }
}

fn check_note(note: &Bytes) -> Result<(), ChangeError> {
    let bytes = note.len();
    if bytes > NOTE_BYTES_MAX { Err(ChangeError::TooLarge { bytes }) } else { Ok(()) }
}

/// Whether an offset lies in a stream or at its end.
fn check_range(stream: StreamId, offset: u64, held: Range<u64>) -> Result<(), ChangeError> {
    let Range { start, end } = held;
    let inside = (start..=end).contains(&offset);
    if inside { Ok(()) } else { Err(ChangeError::OutOfRange { stream, offset, start, end }) }
}
