//! Writing entries: room, segments that follow one another, bytes that wait to be handed to the disk.

use std::mem;

use bytes::Bytes;

use super::entry::{Header, Standing, Subject};
use super::error::NoRoom;
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
        let rolls = match payloads {
            Payloads::Many(payloads) => self.rolls_for(payloads.iter().map(Bytes::len)),
            Payloads::One(bytes) => self.rolls_for([bytes].into_iter()),
        };
        if rolls > 0 && self.segment_count() + rolls > segments_max {
            return Err(NoRoom::SegmentsFull);
        }
        while self.prepared.len() < rolls + spare {
            let segment = self.prepare()?;
            self.prepared.push_back(segment);
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

    /// Whether the segment that is written to takes another entry. One that holds its table alone takes any.
    pub(super) fn has_room(&self, payload_bytes: usize) -> bool {
        self.position == self.table_end || self.fits(self.position, payload_bytes)
    }

    /// Appends an entry, which is sure to be in the file only after [`SharedLog::flush`]. Says its number, and
    /// where it lies.
    pub(super) fn push(
        &mut self,
        kind: Kind,
        stream: StreamId,
        offset: u64,
        payload: &[u8],
    ) -> Result<(u64, Place), DiskError> {
        let pushed = self.try_push(Subject { kind, stream, offset }, payload);
        self.poisoned |= pushed.is_err();
        pushed
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
        self.table_end = self.position;
    }

    pub(super) fn next_id(&mut self) -> SegmentId {
        let id = self.id_next;
        self.id_next = id.next();
        id
    }

    fn rolls_for(&self, payloads: impl Iterator<Item = usize>) -> usize {
        let mut rolls = 0;
        let (mut position, mut empty) = (self.position, self.position == self.table_end);
        for bytes in payloads {
            if !empty && !self.fits(position, bytes) {
                rolls += 1;
                let table = front_bytes(self.segment_count() + rolls) + self.index.table_bytes();
                position = (HEADER_BYTES + table) as u64;
            }
            empty = false;
            position += (HEADER_BYTES + bytes) as u64;
        }
        rolls
    }

    /// Whether an entry fits in there with the seal behind it.
    fn fits(&self, position: u64, payload_bytes: usize) -> bool {
        position + (2 * HEADER_BYTES + payload_bytes) as u64 <= self.segment_bytes
    }

    fn try_push(&mut self, subject: Subject, payload: &[u8]) -> Result<(u64, Place), DiskError> {
        if !self.has_room(payload.len()) {
            self.roll()?;
        }
        let number = self.number_next;
        let place = self.stage(subject, payload);
        if self.staged.len() >= WRITE_BYTES_MAX {
            self.flush()?;
        }
        Ok((number, place))
    }

    /// Goes on in the next segment. The old one is synced when the next sync is.
    fn roll(&mut self) -> Result<(), DiskError> {
        let next = self.prepared.pop_front().expect("room is made before an entry is pushed");
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
    fn prepare(&mut self) -> Result<Segment, NoRoom> {
        let id = self.next_id();
        match self.home.prepare(id, self.segment_bytes) {
            Ok(segment) => Ok(segment),
            Err(error) if is_full(&error) => Err(NoRoom::DiskFull(error)),
            Err(error) => {
                self.poisoned = true;
                Err(NoRoom::Disk(error))
            }
        }
    }
}
