//! Every bound of this crate, in one place, with the relations between them checked.

/// Bytes of one record's payload in a [`RecordLog`](crate::record_log::RecordLog).
pub const RECORD_BYTES_MAX: usize = 16 << 20;
/// Bytes after which a segment is full, unless the options say otherwise.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// The smallest segment that options may ask for: one page of header and one of records.
pub const SEGMENT_BYTES_MIN: u64 = 2 * PAGE_BYTES as u64;
/// The largest segment that options may ask for. Opening a log holds one whole segment in memory.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Segments of one log before it refuses appends until it is purged. Each holds an open file.
pub const SEGMENTS_MAX: usize = 512;
/// Bytes that an append gathers before it hands them to the disk.
pub const WRITE_BYTES_MAX: usize = 1 << 20;
/// Bytes of the body of a checked file, which is read and written as a whole.
pub const CHECKED_BYTES_MAX: usize = 256 << 20;
/// Bytes that a disk is assumed to keep or lose together.
pub const PAGE_BYTES: usize = 4_096;
/// Bytes that a disk is assumed never to tear.
pub const SECTOR_BYTES: usize = 512;

const _: () = assert!(PAGE_BYTES.is_multiple_of(SECTOR_BYTES));
const _: () =
    assert!(SEGMENT_BYTES_MIN <= SEGMENT_BYTES_DEFAULT && SEGMENT_BYTES_DEFAULT <= SEGMENT_BYTES_MAX);
// A segment ends at most one record behind its limit, and offsets in it are kept in 32 bits.
const _: () = assert!(SEGMENT_BYTES_MAX + (RECORD_BYTES_MAX + PAGE_BYTES) as u64 <= u32::MAX as u64);
// The manifest of a log is a checked file with an entry for each segment.
const _: () = assert!(SEGMENTS_MAX * 64 < CHECKED_BYTES_MAX);
