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

/// Files of a durable state store, unless the options say otherwise. Each holds the replicas of many partitions.
pub const STATE_FILES_DEFAULT: u16 = 16;
/// The most files that options may ask for. Each is kept open, with a cache of its own.
pub const STATE_FILES_MAX: u16 = 256;
/// Bytes of cache of all files of a state store together, unless the options say otherwise.
pub const STATE_CACHE_BYTES_DEFAULT: usize = 256 << 20;
/// The smallest cache that a file of a state store is given. Half of it gathers writes.
pub const STATE_FILE_CACHE_BYTES_MIN: usize = 256 << 10;
/// Bytes of a disk that a state store leaves free: with less, it refuses to grow.
pub const STATE_HEADROOM_BYTES_DEFAULT: u64 = 64 << 20;
/// Bytes of a key in a state store.
pub const STATE_KEY_BYTES_MAX: usize = 64 << 10;
/// Bytes of a value in a state store: what one record of a log can hold.
pub const STATE_VALUE_BYTES_MAX: usize = RECORD_BYTES_MAX;
/// Changes that a state store applies at once.
pub const STATE_CHANGES_MAX: usize = 65_536;
/// Bytes of keys and values that a state store applies or reads at once.
pub const STATE_BATCH_BYTES_MAX: usize = 64 << 20;
/// Entries that a state store reads at once.
pub const STATE_ENTRIES_MAX: usize = 65_536;
/// Entries that one step of reclaiming removes at most.
pub const STATE_RECLAIM_ENTRIES_MAX: usize = 65_536;
/// Pages and entries that one step of a scrub looks at, at most.
pub const STATE_SCRUB_UNITS_MAX: usize = 65_536;

const _: () = assert!(STATE_FILES_DEFAULT <= STATE_FILES_MAX);
const _: () = assert!(STATE_CACHE_BYTES_DEFAULT / STATE_FILES_DEFAULT as usize >= STATE_FILE_CACHE_BYTES_MIN);
// The largest entry fits into a batch and into a chunk.
const _: () = assert!(STATE_KEY_BYTES_MAX + STATE_VALUE_BYTES_MAX <= STATE_BATCH_BYTES_MAX);
