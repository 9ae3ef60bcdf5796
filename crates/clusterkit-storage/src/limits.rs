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

/// The smallest segment that the options of a [`SharedLog`](crate::shared_log::SharedLog) may ask for.
pub const SHARED_SEGMENT_BYTES_MIN: u64 = 16 << 10;
/// Segments of one shared log, prepared ones not counted. Each holds an open file, and opening reads all of
/// them, so this bounds how long it takes.
pub const SHARED_SEGMENTS_MAX: usize = 512;
/// Segments out of [`SHARED_SEGMENTS_MAX`] that appends may not take, so that compaction can go on and free
/// others.
pub const SHARED_SEGMENTS_RESERVED: usize = 2;
/// Prepared segments that appends must leave untouched: the headroom in which truncations, releases, removals,
/// notes and compaction still fit when the disk is full.
pub const SHARED_SEGMENTS_SPARE: usize = 1;
/// Prepared segments that upkeep aims at: the spare ones and the next.
pub const SHARED_SEGMENTS_PREPARED: usize = SHARED_SEGMENTS_SPARE + 1;
/// Compaction leaves this part of the last segment it can have (one in so many) to changes of streams.
pub const SHARED_HEADROOM_SHARE: u64 = 8;
/// Where a stream may begin at most, so that no offset of it overflows.
pub const OFFSET_MAX: u64 = 1 << 62;
/// How often a thread that is to sync for others gives way to those who are about to append.
pub const GATHER_ROUNDS_MAX: u32 = 64;
/// After so many times in a row in which nobody appended, nobody is about to.
pub const GATHER_IDLE_ROUNDS: u32 = 3;
/// Bytes of one stream's note.
pub const NOTE_BYTES_MAX: usize = 4_096;
/// Bytes of the table of all streams and their notes, which every segment begins with.
pub const TABLE_BYTES_MAX: usize = 8 << 20;
/// The table of streams takes at most one in so many bytes of a segment.
pub const TABLE_SHARE: u64 = 4;
/// Bytes that opening a shared log, or one read of neighbouring records, takes from the disk at once.
pub const READ_BYTES_MAX: usize = 1 << 20;
/// Compaction leaves segments alone of which more than so many percent are live.
pub const COMPACT_LIVE_PERCENT_MAX: u64 = 50;
/// Places of records that one call of compaction looks at.
pub const COMPACT_EXAMINED_MAX: usize = 1 << 20;
/// How closely opening remembers where records lie that it may have to write anew.
pub const TRAIL_BYTES: u64 = 64 << 10;

/// Pages that a disk may fail to read while a shared log is opened, before the whole disk is taken to have failed.
pub const UNREADABLE_PAGES_MAX: usize = 4_096;

const _: () = assert!(SHARED_SEGMENT_BYTES_MIN <= SEGMENT_BYTES_DEFAULT);
const _: () = assert!(SHARED_SEGMENTS_RESERVED < SHARED_SEGMENTS_MAX);
// A table is an entry like a record, with the names of all segments in front.
const _: () = assert!(TABLE_BYTES_MAX + 4 * (SHARED_SEGMENTS_MAX + 1) + 8 <= RECORD_BYTES_MAX);
// A table leaves most of even the smallest segment to records.
const _: () = assert!(
    SHARED_SEGMENT_BYTES_MIN / TABLE_SHARE + 4 * (SHARED_SEGMENTS_MAX as u64 + 1)
        < SHARED_SEGMENT_BYTES_MIN / 2
);
const _: () = assert!(TABLE_BYTES_MAX > NOTE_BYTES_MAX + 64);
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
