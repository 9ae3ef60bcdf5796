//! Writing entries: room, segments that follow one another, bytes that wait to be handed to the disk.

use std::mem;

use bytes::Bytes;

use super::entry::{Header, Standing, Subject};
use super::error::{LogError, NoRoom};
use super::segment::is_full;
use super::table::{Table, front_bytes};
use super::{HEADER_BYTES, Kind, Place, Segment, SegmentId, SharedLog, StreamId};
use crate::disk::DiskError;
use crate::limits::{
    SHARED_HEADROOM_SHARE, SHARED_SEGMENTS_MAX, TABLE_BYTES_MAX, TABLE_SHARE, WRITE_BYTES_MAX,
};

/// What room is to be made for.
#[derive(Clone, Copy)]
pub(super) enum Payloads<'a> {
    Many(&'a [Bytes]),
    One(usize),
}

impl SharedLog {
    /// Bytes that all streams and their notes may take in a table.
    pub(super) fn table_bytes_max(&self) -> usize {
        TABLE_BYTES_MAX.min((self.segment_bytes / TABLE_SHARE) as usize)
    }

    /// Makes sure that entries with these payloads can be pushed, that the log then has at most so many
    /// segments, and that so many prepared ones are left. Prepares segments here and now where upkeep did not.
    pub(super) fn make_room(
        &mut self,
        payloads: Payloads<'_>,
        segments_max: usize,
        spare: usize,
    ) -> Result<(), NoRoom> {
        let used = match payloads {
            Payloads::Many(payloads) => self.prepare_for(payloads.iter().map(Bytes::len), segments_max)?,
            Payloads::One(bytes) => self.prepare_for([bytes].into_iter(), segments_max)?,
        };
        while self.prepared.len() < used + spare {
            self.prepare(self.segment_bytes)?;
        }
        Ok(())
    }

    /// Bytes that an entry must leave free in the last segment that there can be. Those that add something leave
    /// room for those that give something up, and these for the entries that free segments.
    pub(super) fn headroom(&self, kind: Kind) -> usize {
        if !self.prepared.is_empty() && self.segment_count() < SHARED_SEGMENTS_MAX {
            return 0;
        }
        let share = self.segment_bytes / SHARED_HEADROOM_SHARE;
        let headroom = match kind {
            Kind::Create | Kind::Move | Kind::Note => share,
            _ => (share / 2).min((self.sealed.len() * HEADER_BYTES) as u64),
        };
        headroom as usize
    }

    /// Whether an entry without a payload fits, into a prepared segment at worst.
    pub(super) fn takes_an_entry(&self) -> bool {
        let bytes = bytes_of(self.table_end_after(1), 0);
        self.has_room(0) || self.prepared.iter().any(|segment| segment.capacity >= bytes)
    }

    /// Whether the segment that is written to takes another entry.
    pub(super) fn has_room(&self, payload_bytes: usize) -> bool {
        fits(self.position, payload_bytes, self.active.capacity)
    }

    /// Appends an entry, which is sure to be in the file only after [`SharedLog::flush`]. Says its number, and
    /// where it lies.
    pub(super) fn push(
        &mut self,
        kind: Kind,
        stream: StreamId,
        offset: u64,
        payload: &[u8],
    ) -> Result<(u64, Place), LogError> {
        let pushed = self.try_push(Subject { kind, stream, offset }, payload);
        self.poisoned |= pushed.is_err();
        Ok(pushed?)
    }

    /// Hands what is staged to the disk.
    pub(super) fn flush(&mut self) -> Result<(), DiskError> {
        if self.staged.is_empty() {
            return Ok(());
        }
        let written = self.active.file.write_at(self.position - self.staged.len() as u64, &self.staged);
        self.poisoned |= written.is_err();
        self.staged.clear();
        self.staged.shrink_to(WRITE_BYTES_MAX);
        written
    }

    /// Writes the table that the active segment begins with.
    pub(super) fn push_table(&mut self) {
        let ids: Vec<SegmentId> = self.sealed.keys().copied().chain([self.active.id]).collect();
        let table = Table::encode(&ids, &self.index);
        self.stage(Subject { kind: Kind::Table, stream: StreamId(0), offset: 0 }, &table);
    }

    pub(super) fn next_id(&mut self) -> SegmentId {
        let id = self.id_next;
        self.id_next = id.next();
        id
    }

    /// Prepares what is missing of the segments that these entries will go on in, and says how many prepared
    /// ones they take.
    fn prepare_for(
        &mut self,
        payloads: impl Iterator<Item = usize>,
        segments_max: usize,
    ) -> Result<usize, NoRoom> {
        let (mut rolls, mut used) = (0, 0);
        let (mut position, mut capacity) = (self.position, self.active.capacity);
        for bytes in payloads {
            if !fits(position, bytes, capacity) {
                rolls += 1;
                if self.segment_count() + rolls > segments_max {
                    return Err(NoRoom::SegmentsFull);
                }
                let begin = self.table_end_after(rolls);
                used += self.prepare_beyond(used, bytes_of(begin, bytes))?;
                (position, capacity) = (begin, self.prepared[used - 1].capacity);
            }
            position += (HEADER_BYTES + bytes) as u64;
        }
        Ok(used)
    }

    /// Makes sure that a segment of these bytes is prepared behind the first `used`, and says how many it takes
    /// to come to it: smaller ones are passed over.
    fn prepare_beyond(&mut self, used: usize, bytes: u64) -> Result<usize, NoRoom> {
        let large = |segment: &Segment| segment.capacity >= bytes;
        if let Some(skipped) = self.prepared.iter().skip(used).position(large) {
            return Ok(skipped + 1);
        }
        self.prepare(self.segment_bytes.max(bytes))?;
        Ok(self.prepared.len() - used)
    }

    /// Where the table of a segment ends that is begun after so many others are.
    fn table_end_after(&self, rolls: usize) -> u64 {
        (HEADER_BYTES + front_bytes(self.segment_count() + rolls) + self.index.table_bytes()) as u64
    }

    fn try_push(&mut self, subject: Subject, payload: &[u8]) -> Result<(u64, Place), DiskError> {
        if !self.has_room(payload.len()) {
            self.roll(payload.len())?;
        }
        let number = self.number_next;
        let place = self.stage(subject, payload);
        if self.staged.len() >= WRITE_BYTES_MAX {
            self.flush()?;
        }
        Ok((number, place))
    }

    /// Goes on in the next segment that takes such an entry. The old one is synced when the next sync is.
    fn roll(&mut self, payload_bytes: usize) -> Result<(), DiskError> {
        let bytes = bytes_of(self.table_end_after(1), payload_bytes);
        let mut next = self.prepared.pop_front().expect("room is made before an entry is pushed");
        while next.capacity < bytes {
            self.doomed.push((0, next.path.to_path_buf()));
            next = self.prepared.pop_front().expect("room is made before an entry is pushed");
        }
        let offset = u64::from(next.id.0);
        self.stage(Subject { kind: Kind::Seal, stream: StreamId(0), offset }, &[]);
        self.flush()?;
        let old = mem::replace(&mut self.active, next);
        self.unsynced.push((self.number_next, old.file.clone()));
        self.sealed.insert(old.id, old);
        self.position = 0;
        self.push_table();
        Ok(())
    }

    fn stage(&mut self, subject: Subject, payload: &[u8]) -> Place {
        let previous = if subject.kind.has_stream() { self.index.last(subject.stream) } else { 0 };
        let standing = Standing { number: self.number_next, previous, synced_end: self.synced_end };
        let header = Header::new(subject, standing, payload);
        header.encode(self.active.key, &mut self.staged);
        self.staged.extend_from_slice(payload);
        let position = u32::try_from(self.position).expect("limits keep positions in 32 bits");
        self.number_next += 1;
        self.position += header.bytes();
        Place { segment: self.active.id, position, length: header.length }
    }

    /// Prepares a segment here and now.
    fn prepare(&mut self, bytes: u64) -> Result<(), NoRoom> {
        let id = self.next_id();
        match self.home.prepare(id, bytes) {
            Ok(segment) => {
                self.prepared.push_back(segment);
                Ok(())
            }
            Err(error) if is_full(&error) => Err(NoRoom::DiskFull(error)),
            Err(error) => {
                self.poisoned = true;
                Err(NoRoom::Log(error.into()))
            }
        }
    }
}

/// Whether an entry fits in there with the seal behind it. A segment is never written to behind its zeros.
fn fits(position: u64, payload_bytes: usize, capacity: u64) -> bool {
    bytes_of(position, payload_bytes) <= capacity
}

/// Where a segment ends with an entry at this position and the seal behind it.
fn bytes_of(position: u64, payload_bytes: usize) -> u64 {
    position + (2 * HEADER_BYTES + payload_bytes) as u64
}
