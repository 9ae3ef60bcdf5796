//! What is known of one stream: its range, its note, and where each record lies.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use super::entry::HEADER_BYTES;
use super::segment::SegmentId;

/// Names a stream for ever: the uid of one replica of one partition. A log never reuses one by itself, and its
/// user should not either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a log says of one of its streams.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamStatus {
    /// The stream.
    pub stream: StreamId,
    /// The offsets of the records that it holds: those below were released, the next one to append comes at
    /// the end. Means nothing for a damaged stream.
    pub records: Range<u64>,
    /// The last note, if there ever was one.
    pub note: Option<Bytes>,
    /// Whether something of the stream that was durable is lost. Its records are not served. Remove it, and
    /// have the partition sent by another node under a new uid.
    pub damaged: bool,
}

impl StreamStatus {
    pub(crate) fn new(stream: StreamId, records: Range<u64>, note: Option<Bytes>) -> Self {
        StreamStatus { stream, records, note, damaged: false }
    }
}

/// Where a record's entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: SegmentId,
    pub(super) position: u32,
    /// Bytes of the payload.
    pub(super) length: u32,
}

impl Place {
    /// The record is not where it was, and not anywhere else either.
    pub(super) const LOST: Place = Place { segment: SegmentId(0), position: 0, length: 0 };

    /// Bytes of the whole entry.
    pub(super) fn bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.length)
    }

    /// Where the next entry of the segment lies.
    pub(super) fn end(&self) -> u64 {
        u64::from(self.position) + self.bytes()
    }
}

/// What is lost of a stream. Entries and tables say so, because what proves it may be freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Loss {
    /// Entries are missing that say what the stream is.
    pub(super) broken: bool,
    /// The newest note.
    pub(super) note: bool,
    /// At least one record.
    pub(super) records: bool,
}

impl Loss {
    /// Bits that [`Loss`] does not use: tables have more flags in the same place.
    pub(super) const BITS: u32 = 3;

    pub(super) fn bits(self) -> u16 {
        u16::from(self.broken) | u16::from(self.note) << 1 | u16::from(self.records) << 2
    }

    pub(super) fn of_bits(bits: u64) -> Self {
        Loss { broken: bits & 1 != 0, note: bits & 2 != 0, records: bits & 4 != 0 }
    }

    pub(super) fn is_some(self) -> bool {
        self != Loss::default()
    }
}

/// One stream.
///
/// Invariants:
/// - `places[i]` is where the record `start + i` lies; `lost_count` of them are [`Place::LOST`].
/// - `last` is the number of the newest entry about the stream.
/// - `unsynced` has the records of which it was not known that they are durable when they were appended, but for
///   those that were found to be since.
/// - `told` is what entries say that is lost of the stream, and no more than what is.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    pub(super) start: u64,
    pub(super) places: VecDeque<Place>,
    pub(super) last: u64,
    pub(super) note: Option<Bytes>,
    /// The newest note could not be read.
    pub(super) note_lost: bool,
    /// Entries are missing that say what the stream is. Its range and places mean nothing.
    pub(super) broken: bool,
    pub(super) lost_count: usize,
    pub(super) told: Loss,
    /// The entry that says where the stream begins, 0 if that was read from the disk.
    pub(super) begun: u64,
    pub(super) unsynced: VecDeque<Unsynced>,
}

/// Records of which both numbers and offsets follow one another, up to the next such run or the stream's end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsynced {
    pub(super) number: u64,
    pub(super) offset: u64,
}

impl Stream {
    pub(super) fn end(&self) -> u64 {
        self.start + self.places.len() as u64
    }

    /// The entry `number` says where the stream begins.
    pub(super) fn begin_at(&mut self, number: u64) {
        self.begun = number;
        self.unsynced.clear();
    }

    /// The entry `number` appended the last record.
    pub(super) fn note_append(&mut self, number: u64, synced_end: u64) {
        let offset = self.end() - 1;
        while self.unsynced.get(1).is_some_and(|second| second.number <= synced_end) {
            self.unsynced.pop_front();
        }
        let follows = |run: &Unsynced| number - run.number == offset - run.offset;
        if !self.unsynced.back().is_some_and(follows) {
            self.unsynced.push_back(Unsynced { number, offset });
        }
    }

    /// Where the records end of which every entry has a lower number than `synced_end`, if the stream is known
    /// to begin where it does.
    pub(super) fn durable_end(&self, synced_end: u64) -> Option<u64> {
        if self.begun >= synced_end {
            return None;
        }
        let next = self.unsynced.iter().skip(1).map(|run| run.offset).chain([self.end()]);
        let durable = |(run, end): (&Unsynced, u64)| {
            let durable_end = run.offset + synced_end.saturating_sub(run.number);
            (durable_end < end).then_some(durable_end)
        };
        Some(self.unsynced.iter().zip(next).find_map(durable).unwrap_or(self.end()))
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.loss().is_some()
    }

    pub(super) fn loss(&self) -> Loss {
        Loss { broken: self.broken, note: self.note_lost, records: self.lost_count > 0 }
    }

    /// Where the record lies, if the stream holds it.
    pub(super) fn place(&self, offset: u64) -> Option<Place> {
        self.places.get(offset.checked_sub(self.start)? as usize).copied()
    }

    pub(super) fn status(&self, stream: StreamId) -> StreamStatus {
        StreamStatus {
            stream,
            records: self.start..self.end(),
            note: self.note.clone(),
            damaged: self.is_damaged(),
        }
    }
}
