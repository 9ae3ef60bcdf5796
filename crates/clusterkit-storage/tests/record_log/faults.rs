//! A disk that fails once is never trusted again, and what a later process finds is true.

use std::path::Path;

use bytes::Bytes;
use clusterkit_storage::disk::{Operation, SimDisk};
use clusterkit_storage::record_log::{
    AppendError, PurgeError, ReadError, RecordLog, ResetError, SyncError, TruncateError,
};

use crate::crash::check_recovered;
use crate::support::fail_every_operation;
use crate::twin::{DIR, contents, open, reopen, run, script};

const CHANGES: [Operation; 7] = [
    Operation::Create,
    Operation::Remove,
    Operation::Rename,
    Operation::SetLength,
    Operation::Sync,
    Operation::SyncDir,
    Operation::Write,
];

fn assert_poisoned(log: &mut RecordLog) {
    assert!(matches!(log.append(&[Bytes::new()]), Err(AppendError::Poisoned)));
    assert!(matches!(log.sync(), Err(SyncError::Poisoned)));
    assert!(matches!(log.truncate_from(log.first_index()), Err(TruncateError::Poisoned)));
    assert!(matches!(log.purge_to(log.first_index()), Err(PurgeError::Poisoned)));
    assert!(matches!(log.reset_to(1), Err(ResetError::Poisoned)));
    assert!(matches!(log.read(1..2, 1), Err(ReadError::Poisoned)));
}

#[test]
fn any_failed_operation_poisons_and_the_next_process_finds_the_truth() {
    for seed in 500..503 {
        let script = script(seed, 40);
        fail_every_operation(
            &CHANGES,
            |disk| run(disk, &script),
            |disk, twins, fault| {
                disk.kill();
                check_recovered(disk, &twins, &format!("script {seed}, {fault:?}"));
            },
        );
    }
}

#[test]
fn a_failed_sync_is_never_tried_again() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    log.append(&[Bytes::from("a")]).unwrap();
    disk.fail(Operation::Sync, 0);
    assert!(matches!(log.sync(), Err(SyncError::Disk(error)) if error.operation == Operation::Sync));
    let operations = disk.operation_count();
    assert_poisoned(&mut log);
    assert_eq!(disk.operation_count(), operations, "a poisoned log leaves the disk alone");
}

#[test]
fn a_full_disk_poisons_and_keeps_what_was_synced() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    log.append(&[Bytes::from("synced")]).unwrap();
    log.sync().unwrap();
    disk.set_capacity_bytes(Some(6_000));
    let error = log.append(&[Bytes::from(vec![1; 1_000]), Bytes::from(vec![2; 2_000])]).unwrap_err();
    let AppendError::Disk(error) = error else { panic!("{error:?}") };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert_poisoned(&mut log);
    disk.kill();
    assert!(open(&disk).is_err(), "a torn tail cannot be cut on a full disk");
    disk.kill();
    disk.set_capacity_bytes(None);
    assert_eq!(contents(&reopen(&disk)).records[0], "synced");
}

#[test]
fn a_read_that_fails_says_so_and_poisons_nothing() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    log.append(&[Bytes::from("a")]).unwrap();
    disk.fail(Operation::Read, 0);
    assert!(matches!(log.read(1..2, 10), Err(ReadError::Disk(_))));
    assert_eq!(log.read(1..2, 10).unwrap(), [(1, Bytes::from("a"))]);
}

#[test]
fn a_directory_that_cannot_be_created_is_an_error_of_the_disk() {
    let disk = SimDisk::new();
    let file = Path::new(DIR).parent().unwrap();
    clusterkit_storage::checked::write_atomic(&disk, file, b"a file").unwrap();
    let error = open(&disk).unwrap_err();
    assert!(error.to_string().contains("cannot create the directory /node/log"), "{error}");
}
