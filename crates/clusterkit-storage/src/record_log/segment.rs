//! One file of a log: a page of header, then records one behind the other.
//!
//! The header page holds, in its first sector, magic `CKRL`, version (2 bytes), 2 bytes of zero, the segment's
//! id (8), the index of its first record (8) and their CRC-32C (4); in its second sector the mark: how far the
//! segment is synced (8) and the CRC-32C of the segment's id and that (4). All little-endian.

use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes};

use super::error::ReadError;
use super::record::{HEADER_BYTES, Record};
use crate::disk::{Disk, DiskError, DiskFile, OpenMode};
use crate::limits::{PAGE_BYTES, RECORD_BYTES_MAX, SECTOR_BYTES, SEGMENT_BYTES_MAX, WRITE_BYTES_MAX};

/// Where the first record of a segment lies.
pub(super) const RECORDS_AT: u64 = PAGE_BYTES as u64;
/// No segment of any log is longer.
pub(super) const BYTES_MAX: u64 = SEGMENT_BYTES_MAX + (HEADER_BYTES + RECORD_BYTES_MAX) as u64;
const MAGIC: [u8; 4] = *b"CKRL";
const VERSION: u16 = 1;
const CHECKSUM_AT: usize = 24;
const MARK_AT: usize = SECTOR_BYTES;
const SUFFIX: &str = ".log";

/// Names a segment for ever: an id is used once in the life of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentId(pub(super) u64);

/// An open segment.
///
/// Invariants:
/// - `offsets[i]` is where the record `base + i` lies, and they grow.
/// - The bytes of `staged` end at `bytes_end`, and are not in the file yet.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: SegmentId,
    pub(super) base: u64,
    pub(super) path: PathBuf,
    pub(super) bytes_end: u64,
    file: Box<dyn DiskFile>,
    offsets: Vec<u32>,
    staged: Vec<u8>,
}

/// What a header page that does not fit its segment turned out to be.
pub(super) enum HeaderFlaw {
    Damaged,
    Version(u16),
}

impl Segment {
    /// Creates the file of a segment that holds these records, all of it durable but for its name.
    pub(super) fn create(
        disk: &dyn Disk,
        dir: &Path,
        (id, base): (SegmentId, u64),
        payloads: &[&[u8]],
    ) -> Result<Self, DiskError> {
        let path = dir.join(file_name(id, base));
        let file = disk.open(&path, OpenMode::CreateNew)?;
        let mut segment =
            Segment { id, base, path, bytes_end: RECORDS_AT, file, offsets: Vec::new(), staged: Vec::new() };
        for payload in payloads {
            segment.push(payload, base)?;
        }
        segment.flush()?;
        segment.file.write_at(0, &header_page(id, base, segment.end()))?;
        segment.file.sync_all()?;
        Ok(segment)
    }

    /// A segment whose records were found at these offsets.
    pub(super) fn found(
        (id, base): (SegmentId, u64),
        path: PathBuf,
        file: Box<dyn DiskFile>,
        offsets: Vec<u32>,
        bytes_end: u64,
    ) -> Self {
        Segment { id, base, path, bytes_end, file, offsets, staged: Vec::new() }
    }

    /// The index behind the last record.
    pub(super) fn end(&self) -> u64 {
        self.base + self.offsets.len() as u64
    }

    /// Appends a record, which is sure to be in the file only after [`Segment::flush`].
    pub(super) fn push(&mut self, payload: &[u8], synced_end: u64) -> Result<(), DiskError> {
        let record = Record { index: self.end(), synced_end, payload };
        let offset = u32::try_from(self.bytes_end).expect("limits keep offsets in 32 bits");
        record.encode(self.id, &mut self.staged);
        self.offsets.push(offset);
        self.bytes_end += record.bytes() as u64;
        if self.staged.len() >= WRITE_BYTES_MAX { self.flush() } else { Ok(()) }
    }

    pub(super) fn flush(&mut self) -> Result<(), DiskError> {
        if !self.staged.is_empty() {
            self.file.write_at(self.bytes_end - self.staged.len() as u64, &self.staged)?;
            self.staged.clear();
            self.staged.shrink_to(WRITE_BYTES_MAX);
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), DiskError> {
        self.file.sync_data()
    }

    /// Notes how far the segment is synced. The note itself is durable with the next sync.
    pub(super) fn write_mark(&self, synced_end: u64) -> Result<(), DiskError> {
        self.file.write_at(MARK_AT as u64, &mark(self.id, synced_end))
    }

    /// Forgets the records from `end` on. Their bytes stay behind the end of the segment.
    pub(super) fn cut(&mut self, end: u64) {
        self.bytes_end = self.offset_of(end);
        self.offsets.truncate((end - self.base) as usize);
    }

    /// The highest end such that the records from `from` up to it take at most `bytes_max` on the disk.
    pub(super) fn end_within(&self, from: u64, end_max: u64, bytes_max: u64) -> u64 {
        let limit = self.offset_of(from).saturating_add(bytes_max);
        let candidates = &self.offsets[(from - self.base) as usize..];
        let begun = candidates.partition_point(|offset| u64::from(*offset) <= limit) as u64;
        let whole = if self.bytes_end <= limit { begun } else { begun - 1 };
        end_max.min(from + whole)
    }

    /// Bytes that these records take on the disk.
    pub(super) fn bytes_of(&self, range: Range<u64>) -> u64 {
        self.offset_of(range.end) - self.offset_of(range.start)
    }

    /// The payloads of these records in the bytes of the whole file.
    pub(super) fn payloads<'a>(&self, bytes: &'a [u8], range: Range<u64>) -> Vec<&'a [u8]> {
        let place = |index| self.offset_of(index) as usize + HEADER_BYTES..self.offset_of(index + 1) as usize;
        range.map(|index| &bytes[place(index)]).collect()
    }

    /// Reads records that are in this segment, and checks each.
    pub(super) fn read(&self, range: Range<u64>) -> Result<Vec<(u64, Bytes)>, ReadError> {
        let start = self.offset_of(range.start);
        let mut bytes = vec![0; self.bytes_of(range.clone()) as usize];
        let filled = self.file.read_at(start, &mut bytes)?;
        bytes.truncate(filled);
        let bytes = Bytes::from(bytes);
        range.map(|index| Ok((index, self.payload_in(&bytes, start, index)?))).collect()
    }

    fn payload_in(&self, bytes: &Bytes, start: u64, index: u64) -> Result<Bytes, ReadError> {
        let offset = self.offset_of(index);
        let expected = (offset - start) as usize..(self.offset_of(index + 1) - start) as usize;
        let record = bytes.get(expected.clone()).and_then(|bytes| Record::decode(self.id, bytes));
        match record {
            Some(record) if record.index == index && record.bytes() == expected.len() => {
                Ok(bytes.slice(expected.start + HEADER_BYTES..expected.end))
            }
            _ => Err(ReadError::Damaged { segment: self.path.clone(), offset, index }),
        }
    }

    fn offset_of(&self, index: u64) -> u64 {
        self.offsets.get((index - self.base) as usize).map_or(self.bytes_end, |offset| u64::from(*offset))
    }
}

pub(super) fn file_name(id: SegmentId, base: u64) -> String {
    format!("{base:020}-{:010}{SUFFIX}", id.0)
}

/// The id in a file's name, if it is the name of a segment.
pub(super) fn id_in_name(name: &str) -> Option<SegmentId> {
    let (base, id) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    base.parse::<u64>().ok()?;
    id.parse().ok().map(SegmentId)
}

/// Checks a header page.
pub(super) fn check_header(bytes: &[u8], id: SegmentId, base: u64) -> Result<(), HeaderFlaw> {
    if bytes.len() < PAGE_BYTES {
        return Err(HeaderFlaw::Damaged);
    }
    let found = &bytes[..CHECKSUM_AT + 4];
    let version = (&found[4..6]).get_u16_le();
    if found == header(id, base, version) {
        return if version == VERSION { Ok(()) } else { Err(HeaderFlaw::Version(version)) };
    }
    Err(HeaderFlaw::Damaged)
}

/// The mark of a header page that was checked, if it is whole. One that is not proves nothing: the mark is the one place that
/// is written over, so a crash may tear it.
pub(super) fn mark_in(bytes: &[u8], id: SegmentId) -> Option<u64> {
    let found = &bytes[MARK_AT..MARK_AT + 12];
    let synced_end = (&found[..8]).get_u64_le();
    (found == mark(id, synced_end)).then_some(synced_end)
}

fn header_page(id: SegmentId, base: u64, synced_end: u64) -> Vec<u8> {
    let mut page = header(id, base, VERSION);
    page.resize(MARK_AT, 0);
    page.extend_from_slice(&mark(id, synced_end));
    page.resize(PAGE_BYTES, 0);
    page
}

fn header(id: SegmentId, base: u64, version: u16) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.put_u16_le(version);
    header.put_u16_le(0);
    header.put_u64_le(id.0);
    header.put_u64_le(base);
    header.put_u32_le(crc32c::crc32c(&header));
    header
}

fn mark(id: SegmentId, synced_end: u64) -> Vec<u8> {
    let mut mark = synced_end.to_le_bytes().to_vec();
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&id.0.to_le_bytes()), &mark);
    mark.put_u32_le(checksum);
    mark
}
