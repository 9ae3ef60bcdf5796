//! Reading records. What is to be read is found out under the log, and read without it.

use std::ops::Range;

use bytes::Bytes;

use super::entry::Header;
use super::error::ReadError;
use super::{HEADER_BYTES, Kind, Place, Segment, SegmentId, SharedLog, StreamId};
use crate::disk::DiskError;
use crate::limits::READ_BYTES_MAX;

/// A read that is to be run, on any thread. What it reads stays readable, whatever becomes of the log.
#[derive(Debug)]
#[must_use = "nothing is read before it was run"]
pub struct PendingRead {
    stream: StreamId,
    runs: Vec<Run>,
}

/// Records that lie one behind the other.
#[derive(Debug)]
struct Run {
    offset: u64,
    places: Vec<Place>,
    segment: Segment,
    /// Their bytes, if they are not in the file yet.
    staged: Option<Bytes>,
}

impl PendingRead {
    /// Reads.
    pub fn run(self) -> Result<Vec<(u64, Bytes)>, ReadError> {
        let mut records = Vec::new();
        for run in &self.runs {
            run.read(self.stream, &mut records)?;
        }
        Ok(records)
    }
}

impl Run {
    fn read(&self, stream: StreamId, records: &mut Vec<(u64, Bytes)>) -> Result<(), ReadError> {
        let start = self.start();
        let bytes = self.bytes()?;
        for (offset, place) in (self.offset..).zip(&self.places) {
            let at = (u64::from(place.position) - start) as usize;
            let entry = bytes.slice(at.min(bytes.len())..(at + place.bytes() as usize).min(bytes.len()));
            let payload = self.payload(stream, offset, &entry);
            let torn = || ReadError::Torn {
                stream,
                offset,
                segment: self.segment.path.to_path_buf(),
                position: u64::from(place.position),
            };
            records.push((offset, payload.ok_or_else(torn)?));
        }
        Ok(())
    }

    /// The payload of an entry, if it is the entry of this record.
    fn payload(&self, stream: StreamId, offset: u64, entry: &Bytes) -> Option<Bytes> {
        let header = Header::decode(self.segment.key, entry)?;
        let payload = entry.slice(HEADER_BYTES..);
        let is_record = matches!(header.kind, Kind::Append | Kind::Move);
        let is_this = is_record && header.stream == stream && header.offset == offset;
        (is_this && header.fits(&payload)).then_some(payload)
    }

    fn bytes(&self) -> Result<Bytes, DiskError> {
        if let Some(staged) = &self.staged {
            return Ok(staged.clone());
        }
        let mut bytes = vec![0; (self.end() - self.start()) as usize];
        let filled = self.segment.file.read_at(self.start(), &mut bytes)?;
        bytes.truncate(filled);
        Ok(Bytes::from(bytes))
    }

    fn start(&self) -> u64 {
        u64::from(self.places.first().expect("a run has a record").position)
    }

    fn end(&self) -> u64 {
        self.places.last().expect("a run has a record").end()
    }

    fn is_followed_by(&self, place: &Place) -> bool {
        let adjacent = self.segment.id == place.segment && self.end() == u64::from(place.position);
        adjacent && place.end() - self.start() <= READ_BYTES_MAX as u64
    }
}

impl SharedLog {
    /// Finds out where the records lie that [`Log::read`](super::Log::read) would read, for a caller that does
    /// not want to hold the log while the disk is asked.
    pub fn begin_read(
        &self,
        stream: StreamId,
        range: Range<u64>,
        bytes_max: u64,
    ) -> Result<PendingRead, ReadError> {
        self.check_read(stream, &range)?;
        Ok(self.plan_read(stream, range, bytes_max))
    }

    /// Like [`SharedLog::begin_read`], for records that are held.
    pub(super) fn plan_read(&self, stream: StreamId, range: Range<u64>, bytes_max: u64) -> PendingRead {
        let mut runs: Vec<Run> = Vec::new();
        let mut left = bytes_max;
        for offset in range.clone() {
            let place = self.place(stream, offset);
            if place.bytes() > left && offset > range.start {
                break;
            }
            left = left.saturating_sub(place.bytes());
            // A run is in the file as a whole, or not at all.
            let begins_staged = self.is_staged(place.segment, u64::from(place.position))
                && !runs.last().is_some_and(|run| self.is_staged(run.segment.id, run.start()));
            match runs.last_mut().filter(|run| !begins_staged && run.is_followed_by(&place)) {
                Some(run) => run.places.push(place),
                None => runs.push(self.run_of(offset, place)),
            }
        }
        runs.iter_mut().for_each(|run| run.staged = self.staged_bytes(run));
        PendingRead { stream, runs }
    }

    fn check_read(&self, id: StreamId, range: &Range<u64>) -> Result<(), ReadError> {
        if self.is_poisoned() {
            return Err(ReadError::Poisoned);
        }
        let stream = self.index.stream(id).ok_or(ReadError::Unknown { stream: id })?;
        if stream.is_damaged() {
            return Err(ReadError::Damaged { stream: id });
        }
        let (start, end) = (stream.start, stream.end());
        if !range.is_empty() && (range.start < start || range.end > end) {
            return Err(ReadError::OutOfRange { stream: id, start, end });
        }
        Ok(())
    }

    fn place(&self, stream: StreamId, offset: u64) -> Place {
        let place = self.index.stream(stream).and_then(|stream| stream.place(offset));
        place.expect("the range was checked before")
    }

    fn run_of(&self, offset: u64, place: Place) -> Run {
        let segment = self.sealed.get(&place.segment).unwrap_or(&self.active).clone();
        assert_eq!(segment.id, place.segment, "a place lies in a segment that is held");
        Run { offset, places: vec![place], segment, staged: None }
    }

    /// A copy of the bytes of a run of which some are not in the file yet.
    fn staged_bytes(&self, run: &Run) -> Option<Bytes> {
        if !self.is_staged(run.segment.id, run.start()) {
            return None;
        }
        let staged_at = self.position - self.staged.len() as u64;
        let (start, end) = ((run.start() - staged_at) as usize, (run.end() - staged_at) as usize);
        Some(Bytes::copy_from_slice(&self.staged[start..end]))
    }

    fn is_staged(&self, segment: SegmentId, position: u64) -> bool {
        segment == self.active.id && position >= self.position - self.staged.len() as u64
    }
}
