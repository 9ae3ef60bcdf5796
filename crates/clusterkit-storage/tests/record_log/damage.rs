//! Damage to what was synced is reported, and a wrong record is never served.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clusterkit_storage::disk::{Disk, OpenMode, SimDisk};
use clusterkit_storage::limits::{PAGE_BYTES, SECTOR_BYTES};
use clusterkit_storage::record_log::{OpenError, ReadError, RecordLog};

use crate::support::length;
use crate::twin::{DIR, Twin, contents, open, reopen};

/// A disk with a log, what the log holds, and the end of what must be there or reported.
struct Sample {
    disk: SimDisk,
    twin: Twin,
    proved_end: u64,
}

/// Appends batches with a sync after each.
fn append_batches(log: &mut RecordLog, batches: u64, bytes: usize) {
    for batch in 0..batches {
        let payload = |record: u64| Bytes::from(vec![(7 * batch + record) as u8; bytes + record as usize]);
        log.append(&[payload(0), payload(1)]).unwrap();
        log.sync().unwrap();
    }
}

/// A log of two segments, the first of which was cut.
fn build(batches: u64, bytes: usize) -> (SimDisk, RecordLog) {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    append_batches(&mut log, 3, bytes);
    log.truncate_from(5).unwrap();
    append_batches(&mut log, batches, bytes);
    (disk, log)
}

fn samples(batches: u64, bytes: usize) -> [Sample; 3] {
    let sample = |end: fn(&SimDisk, RecordLog), unproved: u64| {
        let (disk, log) = build(batches, bytes);
        let twin = contents(&log);
        end(&disk, log);
        let proved_end = twin.end() - unproved;
        Sample { disk, twin, proved_end }
    };
    let close = |disk: &SimDisk, log: RecordLog| {
        log.close().unwrap();
        disk.crash_clean();
    };
    [sample(close, 0), sample(|disk, _| disk.kill(), 0), sample(|disk, _| disk.crash_clean(), 2)]
}

fn files(disk: &SimDisk) -> Vec<PathBuf> {
    disk.list(Path::new(DIR)).unwrap().iter().map(|name| Path::new(DIR).join(name)).collect()
}

impl Sample {
    /// Opens the log after damage: it is refused, or all that is proved is there and right. Says whether it
    /// was refused.
    fn check(&self, context: &str, harm: impl FnOnce(&SimDisk)) -> bool {
        let disk = self.disk.fork();
        harm(&disk);
        let operations = disk.operation_count();
        match open(&disk) {
            Ok((log, _)) => {
                let found = contents(&log);
                assert!(found.end() >= self.proved_end, "{context}: opened without record {}", found.end());
                assert_eq!(found.records, self.twin.records[..found.records.len()], "{context}");
                false
            }
            Err(OpenError::Disk(error)) => panic!("{context}: {error}"),
            Err(_) => {
                // Creating the directory is asked for each time, and is all that happened.
                assert_eq!(disk.operation_count(), operations + 1, "{context}: a refusal changes nothing");
                true
            }
        }
    }
}

/// Harms every unit of every file of every sample, one at a time.
fn check_everywhere(samples: &[Sample], unit_bytes: usize, harm: impl Fn(&SimDisk, &Path, u64)) {
    for (ending, sample) in samples.iter().enumerate() {
        for path in files(&sample.disk) {
            for unit in 0..length(&sample.disk, &path).div_ceil(unit_bytes as u64) {
                let context = format!("ending {ending}, {}, unit {unit}", path.display());
                sample.check(&context, |disk| harm(disk, &path, unit));
            }
        }
    }
}

#[test]
fn a_flipped_bit_at_any_byte_is_reported_or_harmless() {
    check_everywhere(&samples(3, 20), 1, |disk, path, byte| disk.flip_bit(path, byte, byte as u32).unwrap());
}

#[test]
fn a_flipped_bit_in_a_proved_record_is_reported() {
    let [closed, _, _] = samples(3, 20);
    let [_, sealed, tail] = &files(&closed.disk)[..].rotated();
    // Records 1 to 4 lie in the sealed segment; what lies behind them was truncated.
    let held = [(sealed, 2 * (2 * 24 + 41)), (tail, 3 * (2 * 24 + 41))];
    for (path, bytes) in held {
        for byte in PAGE_BYTES as u64..PAGE_BYTES as u64 + bytes {
            let refused = closed.check("proved", |disk| disk.flip_bit(path, byte, 3).unwrap());
            assert!(refused, "{} byte {byte}", path.display());
        }
    }
    assert_eq!(length(&closed.disk, tail), PAGE_BYTES as u64 + held[1].1);
}

trait Rotated {
    fn rotated(&self) -> [PathBuf; 3];
}

impl Rotated for [PathBuf] {
    /// The manifest first, then the segments in order.
    fn rotated(&self) -> [PathBuf; 3] {
        [self[2].clone(), self[0].clone(), self[1].clone()]
    }
}

#[test]
fn a_lost_page_is_reported_or_harmless() {
    for (batches, bytes) in [(20, 30), (12, 900)] {
        check_everywhere(&samples(batches, bytes), PAGE_BYTES, |disk, path, page| {
            disk.lose_page(path, page).unwrap();
        });
    }
}

#[test]
fn a_lost_end_of_a_file_is_reported_or_harmless() {
    check_everywhere(&samples(4, 20), 1, |disk, path, end| {
        disk.open(path, OpenMode::Write).unwrap().set_length(end).unwrap();
    });
}

#[test]
fn a_missing_file_is_reported() {
    for sample in samples(3, 20) {
        for path in files(&sample.disk) {
            assert!(sample.check("missing", |disk| disk.remove(&path).unwrap()), "{}", path.display());
        }
    }
}

#[test]
fn a_hole_is_reported_with_its_place() {
    let [closed, _, _] = samples(3, 20);
    let tail = files(&closed.disk)[1].clone();
    let second = PAGE_BYTES as u64 + 24 + 20;
    closed.disk.flip_bit(&tail, second + 30, 0).unwrap();
    match open(&closed.disk) {
        Err(OpenError::Damaged { segment, offset, index, synced }) => {
            assert_eq!((segment, offset, index, synced), (tail, second, 6, 11));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn marks_in_records_prove_what_the_header_no_longer_does() {
    let [closed, _, _] = samples(3, 20);
    let tail = files(&closed.disk)[1].clone();
    closed.disk.flip_bit(&tail, SECTOR_BYTES as u64, 0).unwrap();
    assert_eq!(contents(&reopen(&closed.disk.fork())), closed.twin, "a mark that is not whole does no harm");
    closed.disk.flip_bit(&tail, PAGE_BYTES as u64 + 30, 0).unwrap();
    match open(&closed.disk) {
        Err(OpenError::Damaged { index, synced, .. }) => assert_eq!((index, synced), (5, 9)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn records_that_changed_places_are_reported() {
    let (disk, log) = build(3, 20);
    let tail = files(&disk)[1].clone();
    // Records 5 and 7 are of one length.
    let (first, second) = (PAGE_BYTES as u64, PAGE_BYTES as u64 + 2 * 24 + 41);
    let file = disk.open(&tail, OpenMode::Write).unwrap();
    let (mut five, mut seven) = ([0; 44], [0; 44]);
    file.read_at(first, &mut five).unwrap();
    file.read_at(second, &mut seven).unwrap();
    file.write_at(first, &seven).unwrap();
    file.write_at(second, &five).unwrap();
    assert!(matches!(log.read(5..6, 1), Err(ReadError::Damaged { index: 5, .. })));
    assert!(matches!(log.read(7..8, 1), Err(ReadError::Damaged { index: 7, .. })));
    disk.kill();
    assert!(matches!(open(&disk), Err(OpenError::Damaged { index: 5, .. })));
}

#[test]
fn damage_after_opening_is_seen_by_a_read() {
    let (disk, log) = build(3, 20);
    let tail = files(&disk)[1].clone();
    for byte in PAGE_BYTES as u64..length(&disk, &tail) {
        disk.flip_bit(&tail, byte, 5).unwrap();
        let error = log.read(5..11, u64::MAX).expect_err("damage is seen");
        assert!(matches!(error, ReadError::Damaged { .. }), "{error:?}");
        disk.flip_bit(&tail, byte, 5).unwrap();
    }
    assert_eq!(log.read(5..11, u64::MAX).unwrap().len(), 6);
}

#[test]
fn a_torn_tail_is_cut_and_reported() {
    let (disk, mut log) = build(3, 20);
    log.append(&[Bytes::from("one"), Bytes::from("two"), Bytes::from("three")]).unwrap();
    let tail = files(&disk)[1].clone();
    disk.kill();
    // The first byte of the second record of three.
    let torn_at = PAGE_BYTES as u64 + 3 * (2 * 24 + 41) + 27;
    disk.flip_bit(&tail, torn_at, 0).unwrap();
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.records, 1..12);
    assert_eq!(recovery.unproved_count, 1);
    let torn = recovery.torn.expect("the tail is torn");
    assert_eq!((torn.segment, torn.offset, torn.index, torn.bytes), (tail, torn_at, 12, 27 + 29));
    assert_eq!(log.read(11..12, 1).unwrap(), [(11, Bytes::from("one"))]);
    drop(log);
    let (_, recovery) = open(&disk).unwrap();
    assert_eq!((recovery.records, recovery.torn, recovery.unproved_count), (1..12, None, 0));
}

#[test]
fn what_lies_behind_a_torn_record_never_comes_back() {
    let (disk, mut log) = build(3, 20);
    let lost = [Bytes::from("old a"), Bytes::from("old b"), Bytes::from("old c")];
    log.append(&lost).unwrap();
    disk.kill();
    let tail = files(&disk)[1].clone();
    disk.flip_bit(&tail, PAGE_BYTES as u64 + 3 * (2 * 24 + 41), 0).unwrap();
    let (mut log, recovery) = open(&disk).unwrap();
    assert_eq!((recovery.records, recovery.unproved_count), (1..11, 0));
    log.append(&[Bytes::from("new a")]).unwrap();
    disk.kill();
    let log = reopen(&disk);
    assert_eq!(log.read(11..log.next_index(), 1_000).unwrap(), [(11, Bytes::from("new a"))]);
}
