//! Which streams there are, where their records lie, and which segments hold something that is needed. Both a
//! running log and one that is being opened tell it each change in the order of the entries.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, BufMut, Bytes};

use super::segment::SegmentId;
use super::stream::{Loss, Place, Stream, StreamId};

/// Bytes of a stream in a table, without its note.
pub(super) const ROW_BYTES: usize = 38;
/// In a row, whether there is a note; the bits before it say what is lost.
const NOTE: u16 = 1 << Loss::BITS;

/// Invariants:
/// - `live` has for each segment the bytes of the entries that a place leads to, and no zeros.
/// - `table_bytes` is what the rows of all streams take.
#[derive(Debug, Default)]
pub(super) struct Index {
    streams: BTreeMap<StreamId, Stream>,
    live: BTreeMap<SegmentId, u64>,
    table_bytes: usize,
    /// Entries from this number on are not durable, unless a sync said so since. Nothing while all that is told
    /// is read from the disk.
    unsynced: Option<u64>,
}

/// What an entry changes of a stream.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Append(Place),
    Create(u64),
    Lose(Loss),
    Move(u64, Place),
    Note(Bytes),
    Release(u64),
    Remove,
    Reset(u64),
    Truncate(u64),
}

/// What a table says of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) stream: StreamId,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) last: u64,
    pub(super) note: Option<Bytes>,
    pub(super) loss: Loss,
}

impl Index {
    pub(super) fn stream(&self, stream: StreamId) -> Option<&Stream> {
        self.streams.get(&stream)
    }

    pub(super) fn streams(&self) -> impl Iterator<Item = (StreamId, &Stream)> {
        self.streams.iter().map(|(id, stream)| (*id, stream))
    }

    /// The streams from this one on.
    pub(super) fn streams_from(&self, first: StreamId) -> impl Iterator<Item = (StreamId, &Stream)> {
        self.streams.range(first..).map(|(id, stream)| (*id, stream))
    }

    /// Bytes of the entries in a segment that are needed.
    pub(super) fn live_bytes(&self, segment: SegmentId) -> u64 {
        self.live.get(&segment).copied().unwrap_or(0)
    }

    /// Entries from this number on are not durable when they are told.
    pub(super) fn count_from(&mut self, number: u64) {
        self.unsynced = Some(number);
    }

    pub(super) fn table_bytes(&self) -> usize {
        self.table_bytes
    }

    /// The newest entry about a stream, 0 if the stream does not exist.
    pub(super) fn last(&self, stream: StreamId) -> u64 {
        self.streams.get(&stream).map_or(0, |stream| stream.last)
    }

    /// Carries out what the entry `number` says of a stream, which exists, or is to be created.
    pub(super) fn apply(&mut self, id: StreamId, number: u64, change: Change) {
        let synced_end = self.unsynced;
        let is_beginning = matches!(change, Change::Create(_) | Change::Reset(_));
        let is_append = matches!(change, Change::Append(_));
        match change {
            Change::Create(start) => self.create(id, start),
            Change::Remove => return self.remove(id),
            Change::Append(place) => self.append(id, place),
            Change::Move(offset, place) => self.relocate(id, offset, place),
            Change::Lose(loss) => self.lose(id, loss),
            Change::Note(note) => self.note(id, note),
            Change::Release(below) => self.release(id, below),
            Change::Reset(start) => self.reset(id, start),
            Change::Truncate(end) => self.truncate(id, end),
        }
        let stream = self.stream_mut(id);
        stream.last = number;
        match synced_end {
            Some(_) if is_beginning => stream.begin_at(number),
            Some(synced_end) if is_append => stream.note_append(number, synced_end),
            _ => {}
        }
    }

    /// The entry `number` of a stream that exists is known by its header alone.
    pub(super) fn lose_note(&mut self, id: StreamId, number: u64) {
        let stream = self.stream_mut(id);
        stream.last = number;
        stream.note_lost = true;
    }

    /// Entries of a stream are missing, up to `last`.
    pub(super) fn break_stream(&mut self, id: StreamId, last: u64) {
        if !self.streams.contains_key(&id) {
            self.create(id, 0);
        }
        self.clear(id);
        let stream = self.stream_mut(id);
        stream.last = last;
        stream.broken = true;
    }

    /// Forgets a stream.
    pub(super) fn remove(&mut self, id: StreamId) {
        if self.streams.contains_key(&id) {
            self.clear(id);
            let stream = self.streams.remove(&id).expect("it was just found");
            self.table_bytes -= ROW_BYTES + stream.note.map_or(0, |note| note.len());
        }
    }

    /// Takes over what a table says of a stream of which no entry is missing but those of freed segments. The
    /// records whose place is not known have one in a later entry, if they are needed.
    pub(super) fn adopt(&mut self, row: &Row) {
        if !self.streams.contains_key(&row.stream) {
            self.create(row.stream, row.start);
        }
        if row.start < self.stream_mut(row.stream).start {
            self.reset(row.stream, row.start);
        }
        self.release(row.stream, row.start);
        self.truncate(row.stream, row.end);
        let stream = self.stream_mut(row.stream);
        while stream.end() < row.end {
            stream.places.push_back(Place::LOST);
            stream.lost_count += 1;
        }
        self.adopt_note(row);
    }

    /// Takes over all that a table says of a broken stream but its records.
    pub(super) fn adopt_note(&mut self, row: &Row) {
        let bytes = row.note.as_ref().map_or(0, Bytes::len);
        let stream = self.streams.get_mut(&row.stream).expect("the stream was created before");
        self.table_bytes -= stream.note.as_ref().map_or(0, Bytes::len);
        self.table_bytes += bytes;
        stream.note.clone_from(&row.note);
        stream.last = row.last;
        stream.note_lost = row.loss.note;
        self.lose(row.stream, row.loss);
    }

    /// Gives up streams with records in segments that are not held.
    pub(super) fn break_outside(&mut self, held: impl Fn(SegmentId) -> bool) {
        if self.live.keys().all(|segment| held(*segment)) {
            return;
        }
        let is_outside = |place: &Place| *place != Place::LOST && !held(place.segment);
        let outside = self.streams.iter().filter(|(_, stream)| stream.places.iter().any(is_outside));
        let outside: Vec<(StreamId, u64)> = outside.map(|(id, stream)| (*id, stream.last)).collect();
        outside.into_iter().for_each(|(id, last)| self.break_stream(id, last));
    }

    pub(super) fn encode_rows(&self, buffer: &mut Vec<u8>) {
        for (id, stream) in &self.streams {
            let flags = stream.loss().bits() | if stream.note.is_some() { NOTE } else { 0 };
            let note = stream.note.as_deref().unwrap_or_default();
            buffer.put_u64_le(id.0);
            buffer.put_u64_le(stream.start);
            buffer.put_u64_le(stream.end());
            buffer.put_u64_le(stream.last);
            buffer.put_u16_le(flags);
            buffer.put_u32_le(u32::try_from(note.len()).expect("a note is checked against its bound before"));
            buffer.put_slice(note);
        }
    }

    fn stream_mut(&mut self, id: StreamId) -> &mut Stream {
        self.streams.get_mut(&id).expect("a change is told of streams that exist only")
    }

    fn create(&mut self, id: StreamId, start: u64) {
        self.remove(id);
        self.streams.insert(id, Stream { start, ..Stream::default() });
        self.table_bytes += ROW_BYTES;
    }

    fn append(&mut self, id: StreamId, place: Place) {
        self.enliven(place);
        let stream = self.stream_mut(id);
        stream.lost_count += usize::from(place == Place::LOST);
        stream.places.push_back(place);
    }

    fn relocate(&mut self, id: StreamId, offset: u64, place: Place) {
        let stream = self.stream_mut(id);
        let Some(slot) = stream.places.get_mut(offset.wrapping_sub(stream.start) as usize) else {
            return;
        };
        let old = std::mem::replace(slot, place);
        stream.lost_count += usize::from(place == Place::LOST);
        stream.lost_count -= usize::from(old == Place::LOST);
        self.enliven(place);
        self.bury([old]);
    }

    /// Something of a stream is lost for good: records do not keep their segments alive any more.
    fn lose(&mut self, id: StreamId, loss: Loss) {
        if loss.broken {
            self.clear(id);
        }
        let stream = self.stream_mut(id);
        stream.broken |= loss.broken;
        stream.note_lost |= loss.note;
        stream.told = loss;
        if loss.records && !stream.broken {
            let places = std::mem::take(&mut stream.places);
            stream.lost_count = places.len();
            stream.places = places.iter().map(|_| Place::LOST).collect();
            self.bury(places);
        }
    }

    fn note(&mut self, id: StreamId, note: Bytes) {
        self.table_bytes += note.len();
        let stream = self.stream_mut(id);
        stream.note_lost = false;
        let old = stream.note.replace(note);
        self.table_bytes -= old.map_or(0, |note| note.len());
    }

    fn release(&mut self, id: StreamId, below: u64) {
        let stream = self.stream_mut(id);
        let count = below.saturating_sub(stream.start).min(stream.places.len() as u64);
        let gone: Vec<Place> = stream.places.drain(..count as usize).collect();
        stream.start = stream.start.max(below);
        self.forget(id, gone);
    }

    fn truncate(&mut self, id: StreamId, end: u64) {
        let stream = self.stream_mut(id);
        let count = end.saturating_sub(stream.start).min(stream.places.len() as u64);
        let gone: Vec<Place> = stream.places.drain(count as usize..).collect();
        stream.unsynced.retain(|run| run.offset < end);
        self.forget(id, gone);
    }

    /// What was lost of the records does not matter any more. What was lost besides them may be the note.
    fn reset(&mut self, id: StreamId, start: u64) {
        self.clear(id);
        let stream = self.stream_mut(id);
        stream.start = start;
        stream.note_lost |= stream.broken;
        stream.broken = false;
        stream.told = Loss { note: stream.told.note || stream.told.broken, ..Loss::default() };
    }

    fn clear(&mut self, id: StreamId) {
        let start = self.stream_mut(id).start;
        self.truncate(id, start);
        self.stream_mut(id).places = VecDeque::new();
    }

    fn forget(&mut self, id: StreamId, gone: Vec<Place>) {
        let lost = gone.iter().filter(|place| **place == Place::LOST).count();
        self.stream_mut(id).lost_count -= lost;
        self.bury(gone);
    }

    fn enliven(&mut self, place: Place) {
        if place != Place::LOST {
            *self.live.entry(place.segment).or_default() += place.bytes();
        }
    }

    fn bury(&mut self, places: impl IntoIterator<Item = Place>) {
        for place in places.into_iter().filter(|place| *place != Place::LOST) {
            let live = self.live.get_mut(&place.segment).expect("a place keeps its segment alive");
            *live -= place.bytes();
            if *live == 0 {
                self.live.remove(&place.segment);
            }
        }
    }
}

impl Row {
    /// The row at the beginning of `bytes`, which is moved behind it.
    pub(super) fn decode(bytes: &mut Bytes) -> Option<Self> {
        let stream = StreamId(bytes.try_get_u64_le().ok()?);
        let start = bytes.try_get_u64_le().ok()?;
        let end = bytes.try_get_u64_le().ok()?;
        let last = bytes.try_get_u64_le().ok()?;
        let flags = bytes.try_get_u16_le().ok()?;
        let length = bytes.try_get_u32_le().ok()? as usize;
        if length > bytes.len() || start > end {
            return None;
        }
        let note = bytes.split_to(length);
        Some(Row {
            stream,
            start,
            end,
            last,
            note: (flags & NOTE != 0).then_some(note),
            loss: Loss::of_bits(u64::from(flags)),
        })
    }
}
