//! What a simulated disk keeps, loses and refuses.

#![allow(clippy::unwrap_used, reason = "steps of a test that cannot go on without the value")]

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use clusterkit_storage::disk::{
    Disk, DiskError, DiskFile, LockError, OpenMode, Operation, SimDisk, SimFault,
};

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn create(disk: &SimDisk, name: &str, bytes: &[u8]) -> Box<dyn DiskFile> {
    let file = disk.open(path(name), OpenMode::CreateNew).unwrap();
    file.write_at(0, bytes).unwrap();
    file
}

fn contents(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    let file = disk.open(path(name), OpenMode::Read).ok()?;
    let mut bytes = vec![0; file.length().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    Some(bytes)
}

fn fault(error: &DiskError) -> Option<&SimFault> {
    error.source.get_ref().and_then(|source| source.downcast_ref())
}

#[test]
fn a_name_survives_only_when_its_directory_was_synced() {
    let disk = SimDisk::new();
    create(&disk, "/kept", b"kept").sync_all().unwrap();
    disk.sync_dir(path("/")).unwrap();
    create(&disk, "/lost", b"lost").sync_all().unwrap();
    disk.crash_clean();
    assert_eq!(disk.list(path("/")).unwrap(), ["kept"]);
    assert_eq!(contents(&disk, "/kept").unwrap(), b"kept");
}

#[test]
fn a_removal_is_undone_by_a_crash_unless_it_was_synced() {
    let disk = SimDisk::new();
    create(&disk, "/file", b"bytes").sync_all().unwrap();
    disk.sync_dir(path("/")).unwrap();
    disk.remove(path("/file")).unwrap();
    disk.fork().crash_clean();
    let synced = disk.fork();
    synced.sync_dir(path("/")).unwrap();
    synced.crash_clean();
    assert_eq!(contents(&synced, "/file"), None);
    disk.crash_clean();
    assert_eq!(contents(&disk, "/file").unwrap(), b"bytes");
}

#[test]
fn an_unsynced_rename_happens_as_a_whole_or_not_at_all() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..50 {
        let disk = SimDisk::new();
        create(&disk, "/old", b"old").sync_all().unwrap();
        create(&disk, "/new", b"new").sync_all().unwrap();
        disk.sync_dir(path("/")).unwrap();
        disk.rename(path("/new"), path("/old")).unwrap();
        disk.crash(seed);
        outcomes.insert((contents(&disk, "/old").unwrap(), contents(&disk, "/new")));
    }
    let expected = [(b"new".to_vec(), None), (b"old".to_vec(), Some(b"new".to_vec()))];
    assert_eq!(outcomes, BTreeSet::from(expected));
}

#[test]
fn a_crash_repeats_for_its_seed() {
    let disk = SimDisk::new();
    create(&disk, "/file", &[1; 9_000]).sync_all().unwrap();
    disk.sync_dir(path("/")).unwrap();
    disk.open(path("/file"), OpenMode::Write).unwrap().write_at(0, &[2; 9_000]).unwrap();
    let outcome = |seed| {
        let disk = disk.fork();
        disk.crash(seed);
        contents(&disk, "/file")
    };
    let outcomes: BTreeSet<_> = (0..100).map(outcome).collect();
    (0..100).for_each(|seed| assert_eq!(outcome(seed), outcome(seed)));
    assert!(outcomes.len() > 7, "pages survive one by one: {}", outcomes.len());
}

#[test]
fn a_stopped_disk_answers_nothing_until_it_crashes() {
    let disk = SimDisk::new();
    let file = create(&disk, "/file", b"");
    disk.sync_dir(path("/")).unwrap();
    disk.stop_after(1);
    file.write_at(0, b"a").unwrap();
    let error = file.write_at(1, b"b").unwrap_err();
    assert_eq!(fault(&error), Some(&SimFault::PowerOff));
    assert!(file.length().is_err() && disk.list(path("/")).is_err() && disk.lock(path("/lock")).is_err());
    disk.crash_clean();
    assert_eq!(fault(&file.length().unwrap_err()), Some(&SimFault::Stale));
    assert_eq!(contents(&disk, "/file").unwrap(), b"");
}

#[test]
fn a_killed_process_loses_its_files_and_no_bytes() {
    let disk = SimDisk::new();
    let file = create(&disk, "/file", b"bytes");
    disk.kill();
    assert!(file.read_at(0, &mut [0]).is_err());
    assert_eq!(contents(&disk, "/file").unwrap(), b"bytes");
    disk.crash_clean();
    assert_eq!(contents(&disk, "/file"), None, "what was unsynced still is");
}

#[test]
fn a_lock_ends_with_the_process_and_an_old_guard_releases_no_new_lock() {
    let disk = SimDisk::new();
    let old = disk.lock(path("/lock")).unwrap();
    disk.kill();
    let _new = disk.lock(path("/lock")).unwrap();
    drop(old);
    assert!(matches!(disk.lock(path("/lock")), Err(LockError::Locked { .. })));
}

#[test]
fn an_ordered_fault_comes_once_and_at_its_place() {
    let disk = SimDisk::new();
    let file = create(&disk, "/file", b"");
    disk.fail(Operation::Write, 1);
    file.write_at(0, b"ab").unwrap();
    let error = file.write_at(0, b"cd").unwrap_err();
    assert_eq!((error.operation, fault(&error)), (Operation::Write, Some(&SimFault::Injected)));
    file.write_at(0, b"ef").unwrap();
    assert_eq!(contents(&disk, "/file").unwrap(), b"ef");
}

#[test]
fn a_full_disk_takes_what_fits() {
    let disk = SimDisk::new();
    disk.set_capacity_bytes(Some(10));
    let file = create(&disk, "/file", b"12345");
    assert_eq!(disk.free_bytes(path("/")).unwrap(), 5);
    assert_eq!(file.write_at(4, b"56789abc").unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(contents(&disk, "/file").unwrap(), b"123456789a");
    assert_eq!(file.set_length(11).unwrap_err().kind(), ErrorKind::StorageFull);
    disk.remove(path("/file")).unwrap();
    create(&disk, "/other", &[0; 10]);
}

#[test]
fn a_fork_goes_its_own_way() {
    let disk = SimDisk::new();
    create(&disk, "/file", b"both");
    let fork = disk.fork();
    fork.open(path("/file"), OpenMode::Write).unwrap().write_at(0, b"fork").unwrap();
    assert_eq!(contents(&disk, "/file").unwrap(), b"both");
    assert_eq!(contents(&fork, "/file").unwrap(), b"fork");
}
