//! Segments are freed when nothing in them is needed, compaction sees to it, and a full disk loses nothing.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use clusterkit_storage::disk::{Disk, OpenMode, SimDisk};
use clusterkit_storage::limits::{SHARED_SEGMENT_BYTES_MIN, SHARED_SEGMENTS_MAX, SHARED_SEGMENTS_PREPARED};
use clusterkit_storage::shared_log::{
    AppendError, ChangeError, Log, Options, SharedLog, StreamId, UpkeepError,
};

use crate::twin::{DIR, contents, open, options, reopen};

const COLD: StreamId = StreamId(1);
const HOT: StreamId = StreamId(2);
const SEGMENT: u64 = SHARED_SEGMENT_BYTES_MIN;

fn record(byte: u8) -> Bytes {
    Bytes::from(vec![byte; 2_000])
}

/// Names of segments on the disk, prepared ones too.
fn segments(disk: &SimDisk) -> usize {
    let names = disk.list(Path::new(DIR)).unwrap();
    names.iter().filter(|name| name.to_string_lossy().ends_with(".seg")).count()
}

/// A log with one cold record in each of the first segments, and hot ones that are not needed any more.
fn with_cold_records(disk: &SimDisk, count: u64) -> SharedLog {
    let mut log = reopen(disk);
    log.create(COLD, 0).unwrap();
    log.create(HOT, 0).unwrap();
    for round in 0..count {
        log.append(COLD, round, &[record(round as u8)]).unwrap();
        let start = log.stream(HOT).unwrap().records.end;
        log.append(HOT, start, &[record(0xff), record(0xff), record(0xff), record(0xff), record(0xff)])
            .unwrap();
        log.append(HOT, start + 5, &[record(0xff)]).unwrap();
        log.release(HOT, start + 6).unwrap();
        log.sync().unwrap();
    }
    log
}

/// Syncs until freed segments are gone.
fn settle(log: &mut SharedLog) {
    for _ in 0..3 {
        log.sync().unwrap();
        log.prepare_next().unwrap();
    }
}

#[test]
fn a_segment_is_freed_when_all_its_records_are_released() {
    let disk = SimDisk::new();
    let mut log = with_cold_records(&disk, 10);
    settle(&mut log);
    assert_eq!(log.segment_count(), 10, "a cold record in each");
    for below in 1..10 {
        log.release(COLD, below).unwrap();
        settle(&mut log);
        assert_eq!(log.segment_count(), 10 - below as usize);
        assert_eq!(segments(&disk), log.segment_count() + SHARED_SEGMENTS_PREPARED);
    }
    let found = contents(&log);
    drop(log);
    assert_eq!(contents(&reopen(&disk)), found);
}

#[test]
fn leftovers_are_removed_and_strangers_are_not() {
    let disk = SimDisk::new();
    let mut log = with_cold_records(&disk, 4);
    settle(&mut log);
    log.release(COLD, 3).unwrap();
    log.sync().unwrap();
    log.sync().unwrap();
    let held = log.segment_count() + SHARED_SEGMENTS_PREPARED;
    assert_eq!(segments(&disk), held + 3, "three are freed, and their files are still there");
    let expected = contents(&log);
    drop(log);
    for name in ["0000000099.new", "stranger"] {
        disk.open(&Path::new(DIR).join(name), OpenMode::CreateNew).unwrap();
    }
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!((recovery.leftover_count, segments(&disk)), (4, held));
    assert_eq!(contents(&log), expected);
    let names = disk.list(Path::new(DIR)).unwrap();
    assert_eq!(names.iter().filter(|name| !name.to_string_lossy().ends_with(".seg")).count(), 3, "{names:?}");
}

#[test]
fn a_segment_in_the_middle_is_freed_before_older_ones() {
    let disk = SimDisk::new();
    let mut log = with_cold_records(&disk, 6);
    let before = contents(&log);
    log.create(StreamId(3), 0).unwrap();
    for offset in 0..12 {
        log.append(StreamId(3), offset, &[record(7)]).unwrap();
    }
    log.append(COLD, 6, &[record(6)]).unwrap();
    log.remove(StreamId(3)).unwrap();
    let count = log.segment_count();
    settle(&mut log);
    assert!(log.segment_count() < count);
    disk.crash_clean();
    let found = contents(&reopen(&disk));
    assert_eq!(found[&1].records[..6], before[&1].records[..]);
    assert_eq!(found[&1].records.len(), 7);
}

#[test]
fn a_segment_is_not_freed_before_the_release_is_durable() {
    let disk = SimDisk::new();
    let mut log = with_cold_records(&disk, 6);
    settle(&mut log);
    let before = contents(&log);
    log.release(COLD, 5).unwrap();
    log.prepare_next().unwrap();
    assert_eq!(log.segment_count(), 6);
    disk.crash_clean();
    assert_eq!(contents(&reopen(&disk)), before);
}

#[test]
fn compaction_keeps_cold_records_and_frees_their_segments() {
    let disk = SimDisk::new();
    let mut log = with_cold_records(&disk, 20);
    log.note(COLD, Bytes::from("a note")).unwrap();
    let before = contents(&log);
    assert_eq!(log.segment_count(), 20);
    let mut moved = 0;
    loop {
        let progress = log.compact(5_000).unwrap();
        assert!(progress.moved_bytes <= 5_000 + 2_048, "one record more than the budget at most");
        moved += progress.moved_bytes;
        settle(&mut log);
        if progress.done {
            break;
        }
    }
    assert!(moved < 20 * 2_048 * 2, "a record is not moved again and again, but {moved} bytes were");
    assert!(log.segment_count() <= 6, "{} segments for 20 records of 2 kB", log.segment_count());
    assert_eq!(contents(&log), before);
    disk.crash_clean();
    assert_eq!(contents(&reopen(&disk)), before);
}

#[test]
fn compaction_leaves_segments_alone_that_are_mostly_needed() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    log.create(COLD, 0).unwrap();
    (0..40).for_each(|offset| log.append(COLD, offset, &[record(1)]).unwrap());
    let progress = log.compact(u64::MAX).unwrap();
    assert_eq!((progress.moved_bytes, progress.done), (0, true));
}

/// Lets the disk be full but for what is prepared.
fn fill(disk: &SimDisk) {
    let used: u64 = disk
        .list(Path::new(DIR))
        .unwrap()
        .iter()
        .map(|name| {
            let path = Path::new(DIR).join(name);
            disk.open(&path, OpenMode::Read).unwrap().length().unwrap()
        })
        .sum();
    disk.set_capacity_bytes(Some(used));
}

fn append_until_full(log: &mut SharedLog) -> u64 {
    loop {
        let end = log.stream(HOT).unwrap().records.end;
        match log.append(HOT, end, &[record(9)]) {
            Ok(()) => {}
            Err(AppendError::DiskFull(_) | AppendError::SegmentsFull) => return end,
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[test]
fn a_full_disk_refuses_appends_and_still_takes_changes() {
    let disk = SimDisk::new();
    let mut log = with_cold_records(&disk, 4);
    log.prepare_next().unwrap();
    fill(&disk);
    let end = append_until_full(&mut log);
    log.sync().unwrap();
    let full = contents(&log);
    // The next process starts on the full disk, and has the headroom still.
    drop(log);
    let mut log = reopen(&disk);
    assert_eq!(contents(&log), full, "nothing is lost");
    assert_eq!(append_until_full(&mut log), end, "appends are still refused");
    for round in 0..50_u64 {
        log.note(COLD, Bytes::from(round.to_string())).unwrap();
    }
    log.truncate(COLD, 3).unwrap();
    log.release(COLD, 2).unwrap();
    log.create(StreamId(9), 0).unwrap();
    log.remove(StreamId(9)).unwrap();
    log.sync().unwrap();
    assert_eq!(append_until_full(&mut log), end, "the headroom is not for appends");
    log.release(HOT, end).unwrap();
    for _ in 0..3 {
        log.sync().unwrap();
        let _ = log.prepare_next();
    }
    log.append(HOT, end, &[record(1), record(2)]).unwrap();
    log.sync().unwrap();
    disk.crash_clean();
    let found = contents(&reopen(&disk));
    assert_eq!(found[&2].records, [record(1), record(2)]);
    assert_eq!((found[&1].start, found[&1].records.len()), (2, 1));
    assert_eq!(found[&1].note.as_deref(), Some(&b"49"[..]));
}

#[test]
fn compaction_frees_space_on_a_full_disk() {
    let disk = SimDisk::new();
    let mut log = with_cold_records(&disk, 12);
    settle(&mut log);
    fill(&disk);
    let end = append_until_full(&mut log);
    let before = contents(&log);
    for _ in 0..20 {
        log.compact(u64::MAX).unwrap();
        log.sync().unwrap();
        let upkeep = log.prepare_next();
        assert!(matches!(upkeep, Ok(()) | Err(UpkeepError::DiskFull(_))), "{upkeep:?}");
    }
    assert_eq!(contents(&log), before);
    log.append(HOT, end, &[record(1)]).unwrap();
    log.sync().unwrap();
    drop(log);
    assert_eq!(contents(&reopen(&disk))[&1], before[&1]);
}

#[test]
fn changes_are_refused_at_last_and_lose_nothing() {
    let disk = SimDisk::new();
    let mut log = with_cold_records(&disk, 2);
    log.prepare_next().unwrap();
    fill(&disk);
    let refused = (0..10_000_u64).find_map(|_| log.note(COLD, Bytes::from(vec![1; 100])).err());
    assert!(matches!(refused, Some(ChangeError::DiskFull(_))), "{refused:?}");
    log.sync().unwrap();
    let full = contents(&log);
    drop(log);
    assert_eq!(contents(&reopen(&disk)), full);
    disk.set_capacity_bytes(None);
    let mut log = reopen(&disk);
    log.note(COLD, Bytes::from("again")).unwrap();
}

#[test]
fn a_log_of_too_many_segments_refuses_appends_until_some_are_freed() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    log.create(COLD, 0).unwrap();
    log.create(HOT, 0).unwrap();
    let end = append_until_full(&mut log);
    assert!(log.segment_count() < SHARED_SEGMENTS_MAX);
    log.release(HOT, end - 1).unwrap();
    settle(&mut log);
    log.append(HOT, end, &[record(1)]).unwrap();
    let (_, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.damage, None);
}

#[test]
fn streams_and_notes_are_bounded_by_what_a_table_holds() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    let refused = (0..).find_map(|stream| log.create(StreamId(stream), 0).err());
    assert!(matches!(refused, Some(ChangeError::TableFull { .. })), "{refused:?}");
    let count = log.streams().len() as u64;
    assert!(count > 50 && count < SEGMENT / 4, "{count} streams");
    assert!(matches!(log.note(StreamId(0), Bytes::from(vec![0; 99])), Err(ChangeError::TableFull { .. })));
    log.remove(StreamId(5)).unwrap();
    log.note(StreamId(0), Bytes::from("fits")).unwrap();
    (0..30).for_each(|offset| log.append(StreamId(0), offset, &[record(1)]).unwrap());
    log.sync().unwrap();
    disk.crash_clean();
    assert_eq!(reopen(&disk).streams(), log.streams());
}

#[test]
fn a_sync_of_a_prepared_segment_changes_no_length() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    log.create(HOT, 0).unwrap();
    log.prepare_next().unwrap();
    let before = disk.operation_count();
    (0..5).for_each(|offset| log.append(HOT, offset, &[record(1)]).unwrap());
    log.sync().unwrap();
    log.sync().unwrap();
    assert_eq!(disk.operation_count(), before + 3, "one write, one sync, one mark");
    assert_eq!(log.synced_end(), log.end());
}

#[test]
fn a_record_that_is_larger_than_a_segment_has_one_of_its_own() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    log.create(HOT, 0).unwrap();
    let large = Bytes::from(vec![3; 100_000]);
    log.append(HOT, 0, &[record(1), large.clone(), record(2)]).unwrap();
    log.sync().unwrap();
    disk.crash_clean();
    let log = reopen(&disk);
    assert_eq!(log.read(HOT, 1..2, 0).unwrap(), [(1, large)]);
    assert_eq!(log.read(HOT, 0..3, u64::MAX).unwrap().len(), 3);
}

#[test]
fn notes_on_a_full_disk_leave_room_for_what_frees_space() {
    let disk = SimDisk::new();
    let mut log = with_cold_records(&disk, 4);
    log.prepare_next().unwrap();
    fill(&disk);
    let end = append_until_full(&mut log);
    let note = || Bytes::from(vec![1; 100]);
    let refused = (0..10_000_u64).find_map(|_| {
        log.sync().unwrap();
        log.note(COLD, note()).err()
    });
    assert!(matches!(refused, Some(ChangeError::DiskFull(_))), "{refused:?}");
    let refused = (0..10_000_u64).find_map(|stream| log.create(StreamId(100 + stream), 0).err());
    assert!(matches!(refused, Some(ChangeError::DiskFull(_))), "{refused:?}");
    for below in log.stream(HOT).unwrap().records.start + 1..=end {
        match log.release(HOT, below) {
            Ok(()) => {}
            Err(ChangeError::DiskFull(_)) => break,
            Err(error) => panic!("{error:?}"),
        }
    }
    for _ in 0..3 {
        log.sync().unwrap();
        let _ = log.prepare_next();
    }
    log.note(COLD, note()).unwrap();
}

#[test]
fn space_that_others_need_is_left_to_them() {
    let disk = SimDisk::new();
    let options = Options { free_bytes_min: 4 * SEGMENT, ..options() };
    disk.set_capacity_bytes(Some(10 * SEGMENT));
    let open = || SharedLog::open(Arc::new(disk.clone()), Path::new(DIR), &options).unwrap().0;
    let mut log = open();
    log.create(HOT, 0).unwrap();
    append_until_full(&mut log);
    assert!(disk.free_bytes(Path::new(DIR)).unwrap() >= 4 * SEGMENT);
    log.sync().unwrap();
    drop(log);
    let refused = open().prepare_next();
    assert!(matches!(refused, Ok(()) | Err(UpkeepError::DiskFull(_))), "{refused:?}");
    assert!(disk.free_bytes(Path::new(DIR)).unwrap() >= 4 * SEGMENT);
}

#[test]
fn a_record_larger_than_a_segment_is_refused_on_a_full_disk() {
    let disk = SimDisk::new();
    let mut log = with_cold_records(&disk, 4);
    log.prepare_next().unwrap();
    fill(&disk);
    let end = log.stream(HOT).unwrap().records.end;
    let refused = log.append(HOT, end, &[Bytes::from(vec![3; 100_000])]);
    assert!(matches!(refused, Err(AppendError::DiskFull(_))), "{refused:?}");
    log.append(HOT, end, &[record(1)]).unwrap();
    log.sync().unwrap();
    disk.set_capacity_bytes(None);
    log.append(HOT, end + 1, &[Bytes::from(vec![3; 100_000]), record(2)]).unwrap();
    settle(&mut log);
    let expected = contents(&log);
    disk.crash_clean();
    assert_eq!(contents(&reopen(&disk)), expected);
}

#[test]
fn larger_segments_make_those_that_are_there_no_larger() {
    let disk = SimDisk::new();
    let mut log = with_cold_records(&disk, 4);
    log.prepare_next().unwrap();
    log.close().unwrap();
    fill(&disk);
    let options = Options { segment_bytes: 8 * SEGMENT, ..options() };
    let open = || SharedLog::open(Arc::new(disk.clone()), Path::new(DIR), &options).unwrap().0;
    let mut log = open();
    fill(&disk);
    append_until_full(&mut log);
    log.note(COLD, Bytes::from("there is a spare segment still")).unwrap();
    let refused = (0..1_000).find_map(|_| log.note(COLD, record(1)).err());
    assert!(matches!(refused, Some(ChangeError::DiskFull(_))), "{refused:?}");
    log.sync().unwrap();
    let expected = contents(&log);
    drop(log);
    assert_eq!(contents(&open()), expected);
}
