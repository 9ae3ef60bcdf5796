//! Which segments a log consists of: the one file whose replacement makes a change of the log's shape happen.
//! Until it is replaced nothing happened; from then on all of it did.
//!
//! The body of the checked file: version (2 bytes), index of the first record (8), next id (8), 1 or 0 for
//! whether there is a tail (1), its id and base (8 and 8), then for each sealed segment its id, base and end in
//! bytes (8 each); all little-endian.

use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes};

use super::segment::SegmentId;
use crate::checked::{Damage, ReadFileError, WriteFileError, read_checked, write_checked};
use crate::disk::{Disk, DiskError};

const FILE_NAME: &str = "manifest";
const VERSION: u16 = 1;
const FIXED_BYTES: usize = 35;
const SEALED_BYTES: usize = 24;

/// The shape of a log.
///
/// Invariants, checked when it is read:
/// - Bases grow from segment to segment, and none is above `first` but the ones behind the first segment.
/// - All ids are below `id_next`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) first: u64,
    pub(super) id_next: u64,
    pub(super) sealed: Vec<Sealed>,
    /// Missing only while a new log is being created.
    pub(super) tail: Option<Tail>,
}

/// A segment that is never appended to again. It ends where the next one begins, and all of it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) id: SegmentId,
    pub(super) base: u64,
    pub(super) bytes_end: u64,
}

/// The segment that is appended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) id: SegmentId,
    pub(super) base: u64,
}

impl Manifest {
    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join(FILE_NAME)
    }

    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, ReadFileError> {
        let path = Manifest::path(dir);
        match read_checked(disk, &path)? {
            None => Ok(None),
            Some(body) => Manifest::decode(body, path).map(Some),
        }
    }

    pub(super) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), DiskError> {
        match write_checked(disk, &Manifest::path(dir), &self.encode()) {
            Ok(()) => Ok(()),
            Err(WriteFileError::NotReplaced { source } | WriteFileError::OutcomeUnknown { source }) => {
                Err(source)
            }
            Err(WriteFileError::TooLarge { .. }) => unreachable!("the bound on segments bounds the manifest"),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(FIXED_BYTES + self.sealed.len() * SEALED_BYTES);
        let tail = self.tail.unwrap_or(Tail { id: SegmentId(0), base: 0 });
        body.put_u16_le(VERSION);
        body.put_u64_le(self.first);
        body.put_u64_le(self.id_next);
        body.put_u8(u8::from(self.tail.is_some()));
        body.put_u64_le(tail.id.0);
        body.put_u64_le(tail.base);
        for sealed in &self.sealed {
            body.put_u64_le(sealed.id.0);
            body.put_u64_le(sealed.base);
            body.put_u64_le(sealed.bytes_end);
        }
        body
    }

    fn decode(mut body: Bytes, path: PathBuf) -> Result<Self, ReadFileError> {
        let version = body.try_get_u16_le().unwrap_or(VERSION);
        if version != VERSION {
            return Err(ReadFileError::Unsupported { path, version });
        }
        let manifest = Manifest::decode_fields(body).filter(Manifest::is_consistent);
        manifest.ok_or(ReadFileError::Damaged { path, damage: Damage::Contents })
    }

    fn decode_fields(mut body: Bytes) -> Option<Self> {
        let first = body.try_get_u64_le().ok()?;
        let id_next = body.try_get_u64_le().ok()?;
        let has_tail = body.try_get_u8().ok()? == 1;
        let id = SegmentId(body.try_get_u64_le().ok()?);
        let base = body.try_get_u64_le().ok()?;
        let entries = body.chunks_exact(SEALED_BYTES);
        let whole = entries.remainder().is_empty();
        let sealed = entries.map(decode_sealed).collect();
        let tail = has_tail.then_some(Tail { id, base });
        whole.then_some(Manifest { first, id_next, sealed, tail })
    }

    fn is_consistent(&self) -> bool {
        let segments = self.sealed.iter().map(|sealed| (sealed.id, sealed.base));
        let segments: Vec<_> = segments.chain(self.tail.map(|tail| (tail.id, tail.base))).collect();
        let known = segments.iter().all(|(id, _)| id.0 < self.id_next);
        let in_order = segments.is_sorted_by(|(_, lower), (_, upper)| lower < upper);
        let reach_first = segments.first().is_none_or(|(_, base)| *base <= self.first);
        known && in_order && reach_first && (self.tail.is_some() || self.sealed.is_empty())
    }
}

fn decode_sealed(mut entry: &[u8]) -> Sealed {
    let id = SegmentId(entry.get_u64_le());
    let base = entry.get_u64_le();
    Sealed { id, base, bytes_end: entry.get_u64_le() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Manifest {
        let sealed = |id, base| Sealed { id: SegmentId(id), base, bytes_end: 5_000 + id };
        let tail = Some(Tail { id: SegmentId(3), base: 30 });
        Manifest { first: 12, id_next: 5, sealed: vec![sealed(4, 10), sealed(1, 20)], tail }
    }

    fn decoded(body: Vec<u8>) -> Result<Manifest, ReadFileError> {
        Manifest::decode(Bytes::from(body), PathBuf::from("manifest"))
    }

    fn check_refused(change: impl FnOnce(&mut Manifest)) {
        let mut manifest = sample();
        change(&mut manifest);
        let refused = decoded(manifest.encode());
        assert!(
            matches!(refused, Err(ReadFileError::Damaged { damage: Damage::Contents, .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let empty = Manifest { first: 7, id_next: 1, sealed: Vec::new(), tail: None };
        for manifest in [sample(), empty] {
            assert_eq!(decoded(manifest.encode()).unwrap(), manifest);
        }
    }

    #[test]
    fn a_manifest_that_contradicts_itself_is_damaged() {
        check_refused(|manifest| manifest.id_next = 4);
        check_refused(|manifest| manifest.sealed[1].base = 10);
        check_refused(|manifest| manifest.sealed[1].base = 31);
        check_refused(|manifest| manifest.first = 9);
        check_refused(|manifest| manifest.tail = None);
    }

    #[test]
    fn a_newer_version_is_not_damage() {
        let mut body = sample().encode();
        body[0] = 2;
        assert!(matches!(decoded(body), Err(ReadFileError::Unsupported { version: 2, .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decoded(body);
        }
    }
}
