//! Opening a log: find every record, prove what was synced, and refuse what contradicts it.
//!
//! Nothing on the disk is changed before all of it was read and believed.

use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::OpenError;
use super::manifest::{Manifest, Sealed, Tail};
use super::record::{Record, synced_end_behind};
use super::segment::{self, HeaderFlaw, RECORDS_AT, Segment, SegmentId, check_header, mark_in};
use super::{Options, RecordLog};
use crate::checked::temporary;
use crate::disk::{Disk, DiskError, DiskFile, OpenMode};
use crate::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};

/// What opening a log found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The records that the log holds now, all of them durable.
    pub records: Range<u64>,
    /// How many of them, at the end, were not proved to be synced before. They were written anew.
    pub unproved_count: u64,
    /// The torn end that was cut off, if there was one. None of its records had been proved to be synced.
    pub torn: Option<TornTail>,
    /// How many files of an unfinished change were removed.
    pub leftover_count: usize,
}

/// What a crash left of records that were being written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TornTail {
    /// The file.
    pub segment: PathBuf,
    /// Where in the file the first record lies that is not whole.
    pub offset: u64,
    /// The index of that record. The log ended before it when it was opened.
    pub index: u64,
    /// How many bytes were cut.
    pub bytes: u64,
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
) -> Result<(RecordLog, Recovery), OpenError> {
    let segment_bytes = options.segment_bytes;
    if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes) {
        return Err(OpenError::SegmentBytes { segment_bytes });
    }
    disk.create_dir_all(dir)?;
    let files = segment_files(&*disk, dir)?;
    let manifest = manifest(&*disk, dir, &files, options)?;
    let sealed = sealed_segments(&*disk, dir, &manifest)?;
    let tail = manifest.tail.map(|tail| FoundTail::read(&*disk, dir, tail, manifest.first)).transpose()?;

    // Everything was believed. An earlier process may have ended before it synced the names that were just
    // read, and from here on the log builds on them.
    disk.sync_dir(dir)?;
    let id_next = files.iter().map(|(id, _)| id.0 + 1).fold(manifest.id_next, u64::max);
    let shape = Shape { first: manifest.first, id_next, sealed };
    let (log, mut recovery) = match tail {
        Some(tail) => tail.into_log(disk, dir, segment_bytes, shape)?,
        None => first_segment(disk, dir, segment_bytes, shape)?,
    };
    recovery.leftover_count = remove_leftovers(&log, &files)?;
    Ok((log, recovery))
}

/// What is known of a log before its tail.
struct Shape {
    first: u64,
    id_next: u64,
    sealed: Vec<Segment>,
}

/// The last segment as it was found.
struct FoundTail {
    segment: Segment,
    bytes: Vec<u8>,
    synced_end: u64,
    torn: Option<TornTail>,
}

impl FoundTail {
    fn read(disk: &dyn Disk, dir: &Path, tail: Tail, first: u64) -> Result<Self, OpenError> {
        let found = Found::read(disk, dir, (tail.id, tail.base), segment::BYTES_MAX)?;
        let (offsets, stop) = found.records();
        let end = tail.base + offsets.len() as u64;
        let synced_end = found.synced_end(&offsets, stop).max(first).max(tail.base);
        if end < synced_end {
            return Err(found.damaged(stop, end, synced_end));
        }
        let bytes = (found.bytes.len() - stop) as u64;
        let torn = TornTail { segment: found.path.clone(), offset: stop as u64, index: end, bytes };
        let torn = (bytes > 0).then_some(torn);
        let segment = Segment::found((tail.id, tail.base), found.path, found.file, offsets, stop as u64);
        Ok(FoundTail { segment, bytes: found.bytes, synced_end, torn })
    }

    /// Records that are not proved to be synced may be in the operating system's cache alone, even after a
    /// failed sync: so they are written anew, into a segment of their own. What is torn stays behind the end
    /// of the old segment, where nothing reads it.
    fn into_log(
        self,
        disk: Arc<dyn Disk>,
        dir: &Path,
        segment_bytes: u64,
        shape: Shape,
    ) -> Result<(RecordLog, Recovery), DiskError> {
        let end = self.segment.end();
        let recovery = Recovery {
            records: shape.first..end,
            unproved_count: end - self.synced_end,
            torn: self.torn,
            leftover_count: 0,
        };
        let mut log = new_log(disk, dir, segment_bytes, shape, self.segment);
        if recovery.unproved_count > 0 || recovery.torn.is_some() {
            let unproved = log.tail.payloads(&self.bytes, self.synced_end..end);
            log.begin_segment(log.first, self.synced_end, &unproved)?;
        }
        Ok((log, recovery))
    }
}

/// A segment's file, read as a whole.
struct Found {
    id: SegmentId,
    base: u64,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    bytes: Vec<u8>,
}

impl Found {
    fn read(
        disk: &dyn Disk,
        dir: &Path,
        (id, base): (SegmentId, u64),
        bytes_max: u64,
    ) -> Result<Self, OpenError> {
        let path = dir.join(segment::file_name(id, base));
        let file = match disk.open(&path, OpenMode::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::SegmentMissing { segment: path, index: base });
            }
            other => other?,
        };
        let bytes = read_whole(&*file, bytes_max)?;
        match check_header(&bytes, id, base) {
            Ok(()) => Ok(Found { id, base, path, file, bytes }),
            Err(HeaderFlaw::Version(version)) => Err(OpenError::Unsupported { segment: path, version }),
            Err(HeaderFlaw::Damaged) => {
                Err(OpenError::Damaged { segment: path, offset: 0, index: base, synced: base })
            }
        }
    }

    /// Where each record lies, from the first one on, and where the first byte lies that belongs to none.
    fn records(&self) -> (Vec<u32>, usize) {
        let mut offsets = Vec::new();
        let mut stop = RECORDS_AT as usize;
        while let Some(record) = self.record_at(stop, self.base + offsets.len() as u64) {
            offsets.push(u32::try_from(stop).expect("limits keep offsets in 32 bits"));
            stop += record.bytes();
        }
        (offsets, stop)
    }

    /// How far the segment was synced, as far as anything in it proves: its mark, the marks of its records,
    /// and the marks of whole records behind the first one that is not.
    fn synced_end(&self, offsets: &[u32], stop: usize) -> u64 {
        let last = offsets.last().and_then(|offset| Record::decode(self.id, &self.bytes[*offset as usize..]));
        let end = self.base + offsets.len() as u64;
        let behind = synced_end_behind(self.id, &self.bytes[stop..], end);
        let proofs = [mark_in(&self.bytes, self.id), last.map(|record| record.synced_end), behind];
        proofs.into_iter().flatten().fold(self.base, u64::max)
    }

    fn record_at(&self, offset: usize, index: u64) -> Option<Record<'_>> {
        let record = Record::decode(self.id, self.bytes.get(offset..)?)?;
        (record.index == index).then_some(record)
    }

    fn damaged(&self, stop: usize, index: u64, synced: u64) -> OpenError {
        OpenError::Damaged { segment: self.path.clone(), offset: stop as u64, index, synced }
    }
}

fn manifest(
    disk: &dyn Disk,
    dir: &Path,
    files: &[(SegmentId, PathBuf)],
    options: &Options,
) -> Result<Manifest, OpenError> {
    if let Some(manifest) = Manifest::read(disk, dir).map_err(OpenError::Manifest)? {
        return Ok(manifest);
    }
    if !files.is_empty() {
        return Err(OpenError::ManifestMissing { dir: dir.to_path_buf() });
    }
    // The manifest comes before the first segment, so that segments without one are always damage.
    let manifest = Manifest { first: options.index_first, id_next: 1, sealed: Vec::new(), tail: None };
    manifest.write(disk, dir)?;
    Ok(manifest)
}

fn sealed_segments(disk: &dyn Disk, dir: &Path, manifest: &Manifest) -> Result<Vec<Segment>, OpenError> {
    let bases = manifest.sealed.iter().map(|sealed| sealed.base).chain(manifest.tail.map(|tail| tail.base));
    let ends = bases.skip(1);
    manifest.sealed.iter().zip(ends).map(|(sealed, end)| sealed_segment(disk, dir, *sealed, end)).collect()
}

fn sealed_segment(disk: &dyn Disk, dir: &Path, sealed: Sealed, end: u64) -> Result<Segment, OpenError> {
    let found = Found::read(disk, dir, (sealed.id, sealed.base), sealed.bytes_end.min(segment::BYTES_MAX))?;
    let (offsets, stop) = found.records();
    let index = sealed.base + offsets.len() as u64;
    if index != end || stop as u64 != sealed.bytes_end {
        return Err(found.damaged(stop, index, end));
    }
    Ok(Segment::found((sealed.id, sealed.base), found.path, found.file, offsets, sealed.bytes_end))
}

fn first_segment(
    disk: Arc<dyn Disk>,
    dir: &Path,
    segment_bytes: u64,
    mut shape: Shape,
) -> Result<(RecordLog, Recovery), DiskError> {
    let id = SegmentId(shape.id_next);
    shape.id_next += 1;
    let first = shape.first;
    let tail = Segment::create(&*disk, dir, (id, first), &[])?;
    disk.sync_dir(dir)?;
    let log = new_log(disk, dir, segment_bytes, shape, tail);
    log.write_manifest()?;
    let records = first..first;
    Ok((log, Recovery { records, unproved_count: 0, torn: None, leftover_count: 0 }))
}

fn new_log(disk: Arc<dyn Disk>, dir: &Path, segment_bytes: u64, shape: Shape, tail: Segment) -> RecordLog {
    RecordLog {
        disk,
        dir: dir.to_path_buf(),
        segment_bytes,
        first: shape.first,
        id_next: shape.id_next,
        synced_end: tail.end(),
        sealed: shape.sealed,
        tail,
        poisoned: false,
    }
}

/// Files that look like segments.
fn segment_files(disk: &dyn Disk, dir: &Path) -> Result<Vec<(SegmentId, PathBuf)>, DiskError> {
    let names = disk.list(dir)?;
    let names = names.iter().filter_map(|name| OsStr::to_str(name));
    Ok(names.filter_map(|name| Some((segment::id_in_name(name)?, dir.join(name)))).collect())
}

/// Removes what no manifest names any more, or none named yet.
fn remove_leftovers(log: &RecordLog, files: &[(SegmentId, PathBuf)]) -> Result<usize, DiskError> {
    let temporary = temporary(&Manifest::path(&log.dir));
    let named = |id: SegmentId| log.segments().any(|segment| segment.id == id);
    let unnamed = files.iter().filter(|(id, _)| !named(*id)).map(|(_, path)| path).chain([&temporary]);
    let mut count = 0;
    for path in unnamed {
        if log.disk.exists(path)? {
            log.disk.remove(path)?;
            count += 1;
        }
    }
    Ok(count)
}

fn read_whole(file: &dyn DiskFile, bytes_max: u64) -> Result<Vec<u8>, DiskError> {
    let mut bytes = vec![0; file.length()?.min(bytes_max) as usize];
    let filled = file.read_at(0, &mut bytes)?;
    bytes.truncate(filled);
    Ok(bytes)
}
