//! What a log holds, how it is cut into segments, and what it refuses.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use clusterkit_storage::disk::{Disk, OpenMode, RealDisk, SimDisk};
use clusterkit_storage::limits::{RECORD_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENTS_MAX};
use clusterkit_storage::record_log::{
    AppendError, OpenError, Options, PurgeError, ReadError, RecordLog, TruncateError,
};

use crate::twin::{DIR, contents, open, options, reopen, run, script};

fn payloads(count: u8, bytes: usize) -> Vec<Bytes> {
    (0..count).map(|index| Bytes::from(vec![index; bytes])).collect()
}

/// Files of the log, without the manifest.
fn segment_count(disk: &SimDisk) -> usize {
    disk.list(Path::new(DIR)).unwrap().len() - 1
}

fn indexes(log: &RecordLog, range: std::ops::Range<u64>, bytes_max: u64) -> Vec<u64> {
    log.read(range, bytes_max).unwrap().into_iter().map(|(index, _)| index).collect()
}

#[test]
fn a_new_log_is_empty_and_begins_where_it_is_told() {
    let (log, recovery) = open(&SimDisk::new()).unwrap();
    assert_eq!((log.first_index(), log.next_index(), log.last_index()), (1, 1, None));
    assert_eq!((recovery.records, recovery.torn, recovery.leftover_count), (1..1, None, 0));
}

#[test]
fn random_steps_agree_with_the_twin() {
    for seed in 1_000..1_100 {
        let disk = SimDisk::new();
        run(&disk, &script(seed, 60)).unwrap();
    }
}

#[test]
fn a_log_lives_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let open = || RecordLog::open(Arc::new(RealDisk), &dir.path().join("log"), &options()).unwrap();
    let (mut log, _) = open();
    assert_eq!(log.append(&payloads(20, 1_000)).unwrap(), 1..21);
    log.truncate_from(15).unwrap();
    log.purge_to(10).unwrap();
    log.append(&payloads(3, 9_000)).unwrap();
    log.close().unwrap();
    let (mut log, recovery) = open();
    assert_eq!((recovery.records, recovery.unproved_count, recovery.torn), (10..18, 0, None));
    assert_eq!(log.read(10..18, u64::MAX).unwrap().len(), 8);
    log.reset_to(100).unwrap();
    drop(log);
    let (log, recovery) = open();
    assert_eq!((recovery.records, recovery.leftover_count), (100..100, 0));
    assert_eq!(log.last_index(), None);
}

#[test]
fn one_sync_makes_all_appends_durable() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    let before = disk.operation_count();
    payloads(9, 10).into_iter().for_each(|payload| assert!(log.append(&[payload]).is_ok()));
    assert_eq!(log.synced_end(), 1);
    log.sync().unwrap();
    log.sync().unwrap();
    log.append(&[]).unwrap();
    log.sync().unwrap();
    assert_eq!(log.synced_end(), 10);
    assert_eq!(disk.operation_count(), before + 9 + 2, "nine writes, one sync, one mark");
}

#[test]
fn a_full_segment_is_followed_by_another() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    log.append(&payloads(9, 1_000)).unwrap();
    assert_eq!(segment_count(&disk), 3, "four records of 1024 bytes behind a page of header");
    assert_eq!(log.synced_end(), 9, "a segment is synced before the next one begins");
    log.append(&payloads(1, 20_000)).unwrap();
    assert_eq!(segment_count(&disk), 4, "a record that is larger than a segment has one of its own");
    assert_eq!(contents(&log).records.len(), 10);
}

#[test]
fn a_purge_frees_whole_segments() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    log.append(&payloads(9, 1_000)).unwrap();
    for (index, segments) in [(3, 3), (5, 2), (6, 2), (9, 1), (10, 1)] {
        log.purge_to(index).unwrap();
        assert_eq!((log.first_index(), segment_count(&disk)), (index, segments));
    }
    assert_eq!(log.last_index(), None);
    assert_eq!(log.append(&payloads(1, 1)).unwrap(), 10..11);
}

#[test]
fn a_read_stops_at_its_bytes_and_gives_one_record_at_least() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    log.append(&payloads(9, 1_000)).unwrap();
    assert_eq!(indexes(&log, 2..10, 0), [2]);
    assert_eq!(indexes(&log, 2..10, 1_024), [2]);
    assert_eq!(indexes(&log, 2..10, 2_047), [2]);
    assert_eq!(indexes(&log, 2..10, 2_048), [2, 3]);
    assert_eq!(indexes(&log, 2..10, 5 * 1_024 + 1), [2, 3, 4, 5, 6], "over the edge of a segment");
    assert_eq!(indexes(&log, 4..6, u64::MAX), [4, 5]);
    assert_eq!(indexes(&log, 1..10, u64::MAX).len(), 9);
    assert!(log.read(5..5, 9).unwrap().is_empty());
}

#[test]
fn what_is_not_held_is_refused() {
    let mut log = reopen(&SimDisk::new());
    log.append(&payloads(5, 10)).unwrap();
    log.purge_to(3).unwrap();
    for range in [2..4, 3..7, 6..7] {
        assert!(matches!(log.read(range, 9), Err(ReadError::OutOfRange { first: 3, end: 6 })));
    }
    for index in [2, 7] {
        let refused = log.truncate_from(index);
        assert!(matches!(refused, Err(TruncateError::OutOfRange { first: 3, end: 6, .. })));
    }
    assert!(matches!(log.purge_to(7), Err(PurgeError::BehindEnd { index: 7, end: 6 })));
    log.purge_to(2).unwrap();
    log.truncate_from(6).unwrap();
    assert_eq!((log.first_index(), log.next_index()), (3, 6));
}

#[test]
fn a_record_that_is_too_large_changes_nothing() {
    let mut log = reopen(&SimDisk::new());
    let batch = [Bytes::from("fits"), Bytes::from(vec![0; RECORD_BYTES_MAX + 1])];
    let refused = log.append(&batch);
    assert!(matches!(refused, Err(AppendError::TooLarge { position: 1, .. })));
    assert_eq!(log.next_index(), 1);
    let largest = Bytes::from(vec![7; RECORD_BYTES_MAX]);
    log.append(std::slice::from_ref(&largest)).unwrap();
    log.sync().unwrap();
    assert_eq!(log.read(1..2, 0).unwrap(), [(1, largest)]);
}

#[test]
fn a_log_of_too_many_segments_refuses_appends_until_it_is_purged() {
    let mut log = reopen(&SimDisk::new());
    let large = payloads(1, SEGMENT_BYTES_MIN as usize);
    (0..SEGMENTS_MAX).for_each(|_| assert!(log.append(&large).is_ok()));
    assert!(matches!(log.append(&large), Err(AppendError::Full)));
    log.truncate_from(log.next_index() - 1).unwrap();
    log.append(&large).unwrap();
    log.purge_to(100).unwrap();
    log.append(&large).unwrap();
}

#[test]
fn segments_of_an_impossible_size_are_refused() {
    let options = Options { segment_bytes: SEGMENT_BYTES_MIN - 1, ..Options::default() };
    let refused = RecordLog::open(Arc::new(SimDisk::new()), Path::new(DIR), &options);
    assert!(matches!(refused, Err(OpenError::SegmentBytes { .. })));
}

#[test]
fn leftovers_are_removed_and_strangers_are_not() {
    let disk = SimDisk::new();
    drop(reopen(&disk));
    let names = ["00000000000000000001-0000000099.log", "manifest.tmp", "stranger"];
    for name in names {
        disk.open(&Path::new(DIR).join(name), OpenMode::CreateNew).unwrap();
    }
    let (mut log, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.leftover_count, 2);
    log.truncate_from(1).unwrap();
    log.append(&payloads(1, 1)).unwrap();
    log.truncate_from(1).unwrap();
    let left = disk.list(Path::new(DIR)).unwrap();
    assert_eq!(left, ["00000000000000000001-0000000100.log", "manifest", "stranger"]);
}
