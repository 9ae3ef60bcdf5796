//! What the streams are, after all entries in order, and which of them lost something.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use bytes::Bytes;

use super::entry::{Header, Kind};
use super::index::{Change, Index, Row};
use super::segment::SegmentId;
use super::stream::{Loss, Place, Stream, StreamId};
use super::table::Table;
use super::walk::{Found, Gap, Source};
use crate::limits::TRAIL_BYTES;

/// Invariants:
/// - `trail` begins with a place at or before the first entry that is not proved to be synced, and has more at
///   distances of about [`TRAIL_BYTES`].
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) index: Index,
    /// The segments that are not freed.
    pub(super) kept: BTreeSet<SegmentId>,
    /// Entries below this number were synced, as far as what was read proves.
    pub(super) mark: u64,
    /// Where something was lost: segment among the sources, and position.
    pub(super) holes: Vec<(usize, u64)>,
    /// Segments of which the table is lost: only those before them tell what they are about.
    pub(super) crippled: BTreeSet<SegmentId>,
    /// Numbers of lost entries of which it is not known yet which streams they are of.
    pub(super) untold: Vec<Range<u64>>,
    pub(super) trail: VecDeque<Milestone>,
    pub(super) lost: Vec<Range<u64>>,
}

/// Where an entry lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Milestone {
    pub(super) number: u64,
    pub(super) at: usize,
    pub(super) position: u64,
}

impl Replay {
    /// Takes the next entry.
    pub(super) fn entry(&mut self, source: &Source, found: &Found) {
        let header = &found.header;
        self.mark = self.mark.max(header.mark());
        self.leave_trail(Milestone { number: header.number, at: found.at, position: found.position });
        match header.kind {
            Kind::Free => {
                self.kept.retain(|id| u64::from(id.0) != header.offset);
            }
            Kind::Seal => {}
            Kind::Table => self.table(source, found),
            _ => {
                let position = u32::try_from(found.position).expect("limits keep positions in 32 bits");
                let place = Place { segment: source.id, position, length: header.length };
                self.stream_entry(header, found, place);
            }
        }
    }

    /// Takes a gap below what was synced.
    pub(super) fn hole(&mut self, source: &Source, gap: &Gap) {
        self.holes.push((gap.at, gap.position));
        if gap.position == 0 {
            self.crippled.insert(source.id);
        }
        match &gap.header {
            Some(header) if header.kind.has_stream() => self.lost_payload(header),
            // What the table says is known from before, unless segments before it were freed.
            Some(_) if !gap.jump => {
                self.kept.insert(source.id);
            }
            // A segment begins with its table, so nothing else is lost.
            None if gap.position == 0 && !gap.jump && gap.lost.end - gap.lost.start == 1 => {
                self.kept.insert(source.id);
            }
            _ => {
                self.kept.insert(source.id);
                self.lost.push(gap.lost.clone());
                self.untold.push(gap.lost.clone());
            }
        }
    }

    fn table(&mut self, source: &Source, found: &Found) {
        let Some(table) = Table::decode(found.payload.clone()) else {
            self.crippled.insert(source.id);
            self.holes.push((found.at, found.position));
            self.untold.push(found.header.number..found.header.number + 1);
            return;
        };
        self.kept = table.segments.into_iter().collect();
        let told: BTreeSet<StreamId> = table.rows.iter().map(|row| row.stream).collect();
        let gone: Vec<StreamId> =
            self.index.streams().map(|(id, _)| id).filter(|id| !told.contains(id)).collect();
        gone.into_iter().for_each(|id| self.index.remove(id));
        table.rows.into_iter().for_each(|row| self.row(row));
        self.untold.clear();
    }

    fn row(&mut self, mut row: Row) {
        // The payload is part of a large buffer, which the note shall not keep alive.
        row.note = row.note.map(|note| Bytes::copy_from_slice(&note));
        let hit = self.lost_between(self.index.last(row.stream), row.last);
        if hit || row.loss.broken {
            self.index.break_stream(row.stream, row.last);
        }
        match self.index.stream(row.stream) {
            Some(stream) if stream.broken => self.index.adopt_note(&row),
            _ => self.index.adopt(&row),
        }
    }

    /// Whether an entry behind `last` and up to `next` is lost.
    fn lost_between(&self, last: u64, next: u64) -> bool {
        self.lost.iter().any(|lost| lost.start.max(last + 1) < lost.end.min(next.saturating_add(1)))
    }

    fn stream_entry(&mut self, header: &Header, found: &Found, place: Place) {
        let id = header.stream;
        let change = match header.kind {
            Kind::Append => Change::Append(place),
            Kind::Create => Change::Create(header.offset),
            Kind::Lose => Change::Lose(Loss::of_bits(header.offset)),
            Kind::Move => Change::Move(header.offset, place),
            Kind::Note => Change::Note(Bytes::copy_from_slice(&found.payload)),
            Kind::Release => Change::Release(header.offset),
            Kind::Remove => Change::Remove,
            Kind::Reset => Change::Reset(header.offset),
            _ => Change::Truncate(header.offset),
        };
        if self.is_continued_by(header) {
            self.index.apply(id, header.number, change);
            return;
        }
        let was_broken = self.index.stream(id).is_some_and(|stream| stream.broken);
        if !was_broken && self.lost.is_empty() {
            self.holes.push((found.at, found.position));
        }
        self.explain(header);
        self.index.break_stream(id, header.number);
        match change {
            Change::Remove => self.index.remove(id),
            Change::Note(_) | Change::Reset(_) => self.index.apply(id, header.number, change),
            _ => {}
        }
    }

    /// Whether nothing is missing between an entry and the one before it of its stream.
    fn is_continued_by(&self, header: &Header) -> bool {
        if matches!(header.kind, Kind::Create) {
            return true;
        }
        let fits = |stream: &Stream| {
            let at_end = header.kind != Kind::Append || header.offset == stream.end();
            !stream.broken && at_end && header.follows(stream.last)
        };
        self.index.stream(header.stream).is_some_and(fits)
    }

    /// An entry that does not follow the last one of its stream tells that a hole hit this stream. It tells
    /// everything of a hole in which but one entry was lost, and that is the one it names.
    fn explain(&mut self, header: &Header) {
        let previous = header.previous();
        self.untold.retain(|lost| *lost != (previous..previous + 1));
    }

    /// An entry of which the header is known.
    fn lost_payload(&mut self, header: &Header) {
        let id = header.stream;
        if !self.is_continued_by(header) {
            self.explain(header);
            self.index.break_stream(id, header.number);
            return;
        }
        match header.kind {
            Kind::Append => self.index.apply(id, header.number, Change::Append(Place::LOST)),
            Kind::Move => self.index.apply(id, header.number, Change::Move(header.offset, Place::LOST)),
            _ => self.index.lose_note(id, header.number),
        }
    }

    fn leave_trail(&mut self, here: Milestone) {
        let near = |last: &Milestone| last.at == here.at && here.position - last.position < TRAIL_BYTES;
        if !self.trail.back().is_some_and(near) {
            self.trail.push_back(here);
        }
        while self.trail.get(1).is_some_and(|second| second.number <= self.mark) {
            self.trail.pop_front();
        }
    }
}
