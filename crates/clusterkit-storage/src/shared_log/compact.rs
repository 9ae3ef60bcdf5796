//! Moving needed records out of sparse segments, so that those can be freed.

use super::error::{CompactError, NoRoom, ReadError};
use super::write::Payloads;
use super::{Change, Kind, Place, SegmentId, SharedLog, StreamId};
use crate::limits::{COMPACT_EXAMINED_MAX, COMPACT_LIVE_PERCENT_MAX, SHARED_SEGMENTS_MAX};

/// How far compaction came in the segment that it empties.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    segment: SegmentId,
    stream: StreamId,
    offset: u64,
}

/// What a call of [`SharedLog::compact`] came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compaction {
    /// Bytes that were moved, with their headers.
    pub moved_bytes: u64,
    /// Records that were whole when the log was opened and are not any more. Their streams are damaged now.
    pub lost_count: u64,
    /// There is no segment left that is worth it, or no room to move anything to. Otherwise call again.
    pub done: bool,
}

enum Next {
    Examined,
    Record(StreamId, u64, Place),
    SegmentDone,
}

impl SharedLog {
    /// Moves records of the sparsest segment forward, at most about `budget_bytes` of them, one record more at
    /// most. The segment is freed by later syncs, when all of them were moved. Segments that are more than
    /// [`COMPACT_LIVE_PERCENT_MAX`] percent live are left alone. Reads and writes in the caller's thread and
    /// takes part of what appends get, so give it a budget that is small against them.
    pub fn compact(&mut self, budget_bytes: u64) -> Result<Compaction, CompactError> {
        self.check_poisoned()?;
        let mut progress = Compaction::default();
        let mut examined = 0;
        while progress.moved_bytes < budget_bytes && examined < COMPACT_EXAMINED_MAX {
            let Some(cursor) = self.compact_cursor() else {
                progress.done = true;
                break;
            };
            match self.next_in(cursor, &mut examined) {
                Next::Examined => {}
                Next::Record(stream, offset, place) => {
                    if !self.make_room_to_move(place)? {
                        progress.done = true;
                        break;
                    }
                    if self.relocate(stream, offset)? {
                        progress.moved_bytes += place.bytes();
                    } else {
                        progress.lost_count += 1;
                    }
                }
                Next::SegmentDone => self.cursor = None,
            }
        }
        Ok(progress)
    }

    /// Where compaction goes on: in the segment that it is emptying, or else in the sparsest one.
    fn compact_cursor(&mut self) -> Option<Cursor> {
        let held = self.cursor.filter(|cursor| self.index.live_bytes(cursor.segment) > 0);
        let cursor = held.or_else(|| {
            let segment = self.sparsest()?;
            Some(Cursor { segment, stream: StreamId(0), offset: 0 })
        });
        self.cursor = cursor;
        cursor
    }

    fn sparsest(&self) -> Option<SegmentId> {
        // What is crippled keeps others from being freed.
        let crippled = self.crippled.iter().filter(|id| self.sealed.contains_key(id));
        if let Some(id) = crippled.copied().find(|id| self.index.live_bytes(*id) > 0) {
            return Some(id);
        }
        let live_max = self.segment_bytes * COMPACT_LIVE_PERCENT_MAX / 100;
        let live = self.sealed.keys().map(|id| (self.index.live_bytes(*id), *id));
        live.filter(|(bytes, _)| (1..=live_max).contains(bytes)).min().map(|(_, id)| id)
    }

    /// The next record that lies in the cursor's segment; the cursor is moved behind it.
    fn next_in(&mut self, cursor: Cursor, examined: &mut usize) -> Next {
        let mut from = cursor.offset;
        for (id, stream) in self.index.streams_from(cursor.stream) {
            from = from.max(stream.start);
            let skipped = (from - stream.start) as usize;
            for (offset, place) in (from..).zip(stream.places.iter().skip(skipped)) {
                *examined += 1;
                let found = place.segment == cursor.segment;
                if found || *examined >= COMPACT_EXAMINED_MAX {
                    self.cursor = Some(Cursor { stream: id, offset: offset + 1, ..cursor });
                    return if found { Next::Record(id, offset, *place) } else { Next::Examined };
                }
            }
            *examined += 1;
            from = 0;
        }
        Next::SegmentDone
    }

    /// Whether a record can be moved with room left for changes of streams.
    fn make_room_to_move(&mut self, place: Place) -> Result<bool, CompactError> {
        let bytes = place.length as usize + self.headroom(Kind::Move);
        let room = match self.make_room(Payloads::One(bytes), SHARED_SEGMENTS_MAX, 0) {
            Ok(()) => return Ok(true),
            Err(NoRoom::Log(error)) => Err(CompactError::Log(error)),
            Err(NoRoom::DiskFull(_) | NoRoom::SegmentsFull) => Ok(false),
        };
        // The cursor has passed the record: come back to it.
        self.cursor = None;
        room
    }

    /// Moves a record, or gives it up if it is not whole any more: its stream is damaged then, and the others
    /// of the segment need not wait for it. Answers whether it was moved.
    fn relocate(&mut self, stream: StreamId, offset: u64) -> Result<bool, CompactError> {
        let pending = self.plan_read(stream, offset..offset + 1, 0);
        let mut records = match pending.run() {
            Ok(records) => records,
            Err(ReadError::Torn { .. }) => {
                let last = self.index.last(stream);
                self.index.apply(stream, last, Change::Move(offset, Place::LOST));
                return Ok(false);
            }
            Err(error) => return Err(CompactError::Read(error)),
        };
        let (_, payload) = records.pop().expect("a read gives one record at least");
        let (number, place) = self.push(Kind::Move, stream, offset, &payload)?;
        self.index.apply(stream, number, Change::Move(offset, place));
        Ok(true)
    }
}
