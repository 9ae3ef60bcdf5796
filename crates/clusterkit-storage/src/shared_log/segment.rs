//! One file of a shared log: entries one behind the other, and zeros behind the last.
//!
//! A segment is filled with zeros before it is used, so that a sync of what is written into it later has no
//! metadata to write. Until it is filled and synced it has another name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskError, DiskFile, OpenMode, Operation};
use crate::limits::WRITE_BYTES_MAX;

const SUFFIX: &str = ".seg";
const SUFFIX_UNFINISHED: &str = ".new";

/// Names a segment. Ids grow; one is used again only if no segment that was used had it, or when a crash left
/// nothing of the newest. The first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentId(pub(super) u32);

impl SegmentId {
    pub(super) fn next(self) -> SegmentId {
        SegmentId(self.0.checked_add(1).expect("no log lives to see four billion segments"))
    }
}

/// What all checksums of a segment's headers begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) u32);

impl Key {
    pub(super) fn new(salt: u64, id: SegmentId) -> Self {
        Key(crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &id.0.to_le_bytes()))
    }
}

/// Where the segments of a log are.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: Arc<Path>,
    pub(super) salt: u64,
    pub(super) free_bytes_min: u64,
}

/// An open segment.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) id: SegmentId,
    pub(super) key: Key,
    pub(super) path: Arc<Path>,
    pub(super) file: Arc<dyn DiskFile>,
    /// Bytes that the file had when it was opened, or when it was filled.
    pub(super) capacity: u64,
}

impl Home {
    pub(super) fn open(&self, id: SegmentId) -> Result<Segment, DiskError> {
        let file = self.disk.open(&self.path(id), OpenMode::Write)?;
        let capacity = file.length()?;
        Ok(self.segment(id, Arc::from(file), capacity))
    }

    /// Creates a segment of zeros. It is durable, and has its name for ever, when this returns. Where the disk
    /// is full, [`io::ErrorKind::StorageFull`] is answered and nothing left behind.
    pub(super) fn prepare(&self, id: SegmentId, bytes: u64) -> Result<Segment, DiskError> {
        let file = self.prepare_unnamed(id, bytes)?;
        self.give_name(id, file, bytes)
    }

    /// Creates a segment of zeros that has not its name yet.
    pub(super) fn prepare_unnamed(&self, id: SegmentId, bytes: u64) -> Result<Arc<dyn DiskFile>, DiskError> {
        // A full disk is asked first, so that it is not filled to the brim again and again.
        if self.disk.free_bytes(&self.dir)? < bytes.saturating_add(self.free_bytes_min) {
            return Err(DiskError::new(Operation::Write, &self.dir, io::ErrorKind::StorageFull.into()));
        }
        let unfinished = self.path_unfinished(id);
        match self.fill(&unfinished, bytes) {
            Err(error) if is_full(&error) => {
                self.disk.remove(&unfinished)?;
                Err(error)
            }
            outcome => outcome,
        }
    }

    pub(super) fn give_name(
        &self,
        id: SegmentId,
        file: Arc<dyn DiskFile>,
        bytes: u64,
    ) -> Result<Segment, DiskError> {
        self.disk.rename(&self.path_unfinished(id), &self.path(id))?;
        self.disk.sync_dir(&self.dir)?;
        Ok(self.segment(id, file, bytes))
    }

    fn path_unfinished(&self, id: SegmentId) -> PathBuf {
        self.path(id).with_extension(&SUFFIX_UNFINISHED[1..])
    }

    pub(super) fn path(&self, id: SegmentId) -> PathBuf {
        self.dir.join(format!("{:010}{SUFFIX}", id.0))
    }

    fn fill(&self, path: &Path, bytes: u64) -> Result<Arc<dyn DiskFile>, DiskError> {
        let file: Arc<dyn DiskFile> = Arc::from(self.disk.open(path, OpenMode::Create)?);
        write_zeros(&*file, 0, bytes)?;
        file.sync_all()?;
        Ok(file)
    }

    fn segment(&self, id: SegmentId, file: Arc<dyn DiskFile>, capacity: u64) -> Segment {
        Segment { id, key: Key::new(self.salt, id), path: Arc::from(self.path(id)), file, capacity }
    }
}

/// Whether the disk, or what of it a user may have, is full.
pub(super) fn is_full(error: &DiskError) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Writes zeros from `start` up to `end`.
pub(super) fn write_zeros(file: &dyn DiskFile, start: u64, end: u64) -> Result<(), DiskError> {
    let zeros = vec![0; (end.saturating_sub(start)).min(WRITE_BYTES_MAX as u64) as usize];
    let mut at = start;
    while at < end {
        let count = (end - at).min(zeros.len() as u64);
        file.write_at(at, &zeros[..count as usize])?;
        at += count;
    }
    Ok(())
}

/// The id in a file's name, if it is the name of a segment.
pub(super) fn id_in_name(name: &str) -> Option<SegmentId> {
    name.strip_suffix(SUFFIX)?.parse().ok().map(SegmentId)
}

/// Whether this is the name of a segment that was not finished.
pub(super) fn is_unfinished(name: &str) -> bool {
    name.strip_suffix(SUFFIX_UNFINISHED).is_some_and(|id| id.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_that_is_used_up_is_a_full_disk() {
        let is_full =
            |kind: io::ErrorKind| is_full(&DiskError::new(Operation::Write, Path::new("/"), kind.into()));
        assert!(is_full(io::ErrorKind::StorageFull) && is_full(io::ErrorKind::QuotaExceeded));
        assert!(!is_full(io::ErrorKind::Other));
    }
}
