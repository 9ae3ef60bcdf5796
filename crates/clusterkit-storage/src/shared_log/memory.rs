//! A log in memory, for caches and tests.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;

use super::entry::HEADER_BYTES;
use super::error::{AppendError, ChangeError, LogError, ReadError};
use super::stream::{StreamId, StreamStatus};
use super::{Log, check_note, check_payloads, check_range, check_start};

/// A [`Log`] that a process takes with it when it ends. It never is full and never fails.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    streams: BTreeMap<StreamId, Stream>,
}

#[derive(Clone, Debug, Default)]
struct Stream {
    start: u64,
    records: VecDeque<Bytes>,
    note: Option<Bytes>,
}

impl Stream {
    fn end(&self) -> u64 {
        self.start + self.records.len() as u64
    }

    fn status(&self, stream: StreamId) -> StreamStatus {
        StreamStatus::new(stream, self.start..self.end(), self.note.clone())
    }

    fn release(&mut self, below: u64) {
        let count = below.saturating_sub(self.start) as usize;
        self.records.drain(..count);
        self.start = self.start.max(below);
    }
}

impl MemoryLog {
    /// A log without streams.
    pub fn new() -> Self {
        Self::default()
    }

    fn subject(&mut self, id: StreamId) -> Result<&mut Stream, ChangeError> {
        self.streams.get_mut(&id).ok_or(ChangeError::Unknown { stream: id })
    }
}

impl Log for MemoryLog {
    fn create(&mut self, stream: StreamId, start: u64) -> Result<(), ChangeError> {
        if self.streams.contains_key(&stream) {
            return Err(ChangeError::Exists { stream });
        }
        check_start(start)?;
        self.streams.insert(stream, Stream { start, ..Stream::default() });
        Ok(())
    }

    fn append(&mut self, id: StreamId, start: u64, payloads: &[Bytes]) -> Result<(), AppendError> {
        let stream = self.streams.get_mut(&id).ok_or(AppendError::Unknown { stream: id })?;
        check_payloads(id, start..stream.end(), payloads)?;
        stream.records.extend(payloads.iter().cloned());
        Ok(())
    }

    fn truncate(&mut self, id: StreamId, end: u64) -> Result<(), ChangeError> {
        let stream = self.subject(id)?;
        check_range(id, end, stream.start..stream.end())?;
        stream.records.truncate((end - stream.start) as usize);
        Ok(())
    }

    fn release(&mut self, id: StreamId, below: u64) -> Result<(), ChangeError> {
        let stream = self.subject(id)?;
        check_range(id, below, 0..stream.end())?;
        stream.release(below);
        Ok(())
    }

    fn reset(&mut self, id: StreamId, start: u64) -> Result<(), ChangeError> {
        let stream = self.subject(id)?;
        check_start(start)?;
        stream.records.clear();
        stream.start = start;
        Ok(())
    }

    fn remove(&mut self, id: StreamId) -> Result<(), ChangeError> {
        self.subject(id)?;
        self.streams.remove(&id);
        Ok(())
    }

    fn note(&mut self, id: StreamId, note: Bytes) -> Result<(), ChangeError> {
        let stream = self.subject(id)?;
        check_note(&note)?;
        stream.note = Some(note);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LogError> {
        Ok(())
    }

    fn read(&self, id: StreamId, range: Range<u64>, bytes_max: u64) -> Result<Vec<(u64, Bytes)>, ReadError> {
        let stream = self.streams.get(&id).ok_or(ReadError::Unknown { stream: id })?;
        let (start, end) = (stream.start, stream.end());
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if range.start < start || range.end > end {
            return Err(ReadError::OutOfRange { stream: id, start, end });
        }
        let mut taken = 0;
        let held = stream.records.range((range.start - start) as usize..(range.end - start) as usize);
        let fits = |(offset, payload): &(u64, Bytes)| {
            taken += (HEADER_BYTES + payload.len()) as u64;
            taken <= bytes_max || *offset == range.start
        };
        Ok((range.start..).zip(held.cloned()).take_while(fits).collect())
    }

    fn stream(&self, id: StreamId) -> Option<StreamStatus> {
        self.streams.get(&id).map(|stream| stream.status(id))
    }

    fn streams(&self) -> Vec<StreamStatus> {
        self.streams.iter().map(|(id, stream)| stream.status(*id)).collect()
    }
}
