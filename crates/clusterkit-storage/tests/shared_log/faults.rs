//! A disk that fails once is never trusted again, and what a later process finds is true.

use bytes::Bytes;
use clusterkit_storage::disk::{Operation, SimDisk};
use clusterkit_storage::shared_log::{
    AppendError, ChangeError, CompactError, Log, LogError, ReadError, SharedLog, StreamId, UpkeepError,
};

use crate::crash::check_recovered;
use crate::support::fail_every_operation;
use crate::twin::{contents, reopen, run, script};

const RED: StreamId = StreamId(1);
const CHANGES: [Operation; 6] = [
    Operation::Create,
    Operation::Remove,
    Operation::Rename,
    Operation::Sync,
    Operation::SyncDir,
    Operation::Write,
];

fn assert_poisoned(log: &mut SharedLog) {
    assert!(matches!(log.append(RED, 0, &[]), Err(AppendError::Log(LogError::Poisoned))));
    assert!(matches!(log.create(RED, 0), Err(ChangeError::Log(LogError::Poisoned))));
    assert!(matches!(log.note(RED, Bytes::new()), Err(ChangeError::Log(LogError::Poisoned))));
    assert!(matches!(log.release(RED, 0), Err(ChangeError::Log(LogError::Poisoned))));
    assert!(matches!(log.remove(RED), Err(ChangeError::Log(LogError::Poisoned))));
    assert!(matches!(log.reset(RED, 0), Err(ChangeError::Log(LogError::Poisoned))));
    assert!(matches!(log.truncate(RED, 0), Err(ChangeError::Log(LogError::Poisoned))));
    assert!(matches!(log.sync(), Err(LogError::Poisoned)));
    assert!(matches!(log.compact(1), Err(CompactError::Log(LogError::Poisoned))));
    assert!(matches!(log.prepare_next(), Err(UpkeepError::Log(LogError::Poisoned))));
    assert!(log.begin_upkeep().is_none());
    assert!(matches!(log.read(RED, 0..1, 1), Err(ReadError::Poisoned)));
}

#[test]
fn any_failed_operation_poisons_and_the_next_process_finds_the_truth() {
    for seed in 500..503 {
        let script = script(seed, 60);
        fail_every_operation(
            &CHANGES,
            |disk| run(disk, &script),
            |disk, twin, fault| {
                disk.kill();
                check_recovered(disk, &twin, &format!("script {seed}, {fault:?}"));
            },
        );
    }
}

fn with_record(disk: &SimDisk) -> SharedLog {
    let mut log = reopen(disk);
    log.prepare_next().unwrap();
    log.create(RED, 0).unwrap();
    log.append(RED, 0, &[Bytes::from("a")]).unwrap();
    log
}

#[test]
fn a_failed_sync_is_never_tried_again() {
    let disk = SimDisk::new();
    let mut log = with_record(&disk);
    disk.fail(Operation::Sync, 0);
    assert!(matches!(log.sync(), Err(LogError::Disk(error)) if error.operation == Operation::Sync));
    let operations = disk.operation_count();
    assert_poisoned(&mut log);
    assert_eq!(disk.operation_count(), operations, "a poisoned log leaves the disk alone");
}

#[test]
fn a_sync_that_failed_elsewhere_poisons_what_was_appended_meanwhile() {
    let disk = SimDisk::new();
    let mut log = with_record(&disk);
    let pending = log.begin_sync().unwrap().expect("there is something to sync");
    log.append(RED, 1, &[Bytes::from("b")]).unwrap();
    disk.fail(Operation::Sync, 0);
    let finished = pending.run();
    assert!(matches!(log.finish_sync(finished), Err(LogError::Disk(_))));
    assert_poisoned(&mut log);
}

#[test]
fn a_failed_write_poisons() {
    let disk = SimDisk::new();
    let mut log = with_record(&disk);
    disk.fail(Operation::Write, 0);
    assert!(matches!(log.sync(), Err(LogError::Disk(error)) if error.operation == Operation::Write));
    assert_poisoned(&mut log);
}

#[test]
fn a_read_that_fails_says_so_and_poisons_nothing() {
    let disk = SimDisk::new();
    let mut log = with_record(&disk);
    log.sync().unwrap();
    disk.fail(Operation::Read, 0);
    assert!(matches!(log.read(RED, 0..1, 10), Err(ReadError::Disk(_))));
    assert_eq!(log.read(RED, 0..1, 10).unwrap(), [(0, Bytes::from("a"))]);
}

#[test]
fn a_read_that_fails_while_opening_changes_nothing() {
    let disk = SimDisk::new();
    with_record(&disk).close().unwrap();
    for before in 0..6 {
        let disk = disk.fork();
        disk.fail(Operation::Read, before);
        let _ = crate::twin::open(&disk);
        assert_eq!(contents(&reopen(&disk))[&1].records, [Bytes::from("a")]);
    }
}

#[test]
fn a_sync_behind_one_that_failed_proves_nothing() {
    let disk = SimDisk::new();
    let mut log = with_record(&disk);
    let first = log.begin_sync().unwrap().expect("there is something to sync");
    log.append(RED, 1, &[Bytes::from("b")]).unwrap();
    let second = log.begin_sync().unwrap().expect("there is more to sync");
    disk.fail(Operation::Sync, 0);
    let (_failed, second) = (first.run(), second.run());
    let synced_end = log.synced_end();
    assert!(matches!(log.finish_sync(second), Err(LogError::Poisoned)));
    assert_eq!(log.synced_end(), synced_end);
    assert_poisoned(&mut log);
}

#[test]
fn a_sync_that_failed_poisons_even_if_it_is_never_finished() {
    let disk = SimDisk::new();
    let mut log = with_record(&disk);
    disk.fail(Operation::Sync, 0);
    drop(log.begin_sync().unwrap().expect("there is something to sync").run());
    assert_poisoned(&mut log);
}
