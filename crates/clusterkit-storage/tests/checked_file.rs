//! A checked file is the old one or the new one, and damage to it is seen.

#![allow(clippy::unwrap_used, reason = "steps of a test that cannot go on without the value")]

use std::path::Path;

use bytes::Bytes;
use clusterkit_storage::checked::{
    Damage, ReadFileError, WriteFileError, read_checked, temporary, write_atomic, write_checked,
};
use clusterkit_storage::disk::{Disk, Operation, SimDisk};

const PATH: &str = "/vote";

fn path() -> &'static Path {
    Path::new(PATH)
}

fn disk_with(body: &[u8]) -> SimDisk {
    let disk = SimDisk::new();
    write_checked(&disk, path(), body).unwrap();
    disk
}

fn read(disk: &SimDisk) -> Option<Bytes> {
    read_checked(disk, path()).unwrap()
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_file_or_the_new_one() {
    let (old, new) = (vec![1; 5_000], vec![2; 9_000]);
    let mut outcomes = [false; 2];
    for count in 0..100 {
        for seed in 0..20 {
            let disk = disk_with(&old);
            disk.stop_after(count);
            let written = write_checked(&disk, path(), &new).is_ok();
            disk.crash(seed);
            let found = read(&disk).expect("a file is there");
            assert!(found == old || found == new);
            assert!(!written || found == new, "what was written survives");
            outcomes[usize::from(found == new)] = true;
        }
    }
    assert_eq!(outcomes, [true; 2]);
}

#[test]
fn a_process_that_ends_in_a_write_hinders_no_later_one() {
    for count in 0..8 {
        let disk = disk_with(b"old");
        disk.stop_after(count);
        let _ = write_checked(&disk, path(), &[7; 100]);
        disk.kill();
        write_checked(&disk, path(), b"new").unwrap();
        disk.crash_clean();
        assert_eq!(read(&disk).unwrap(), "new");
        assert!(!disk.exists(&temporary(path())).unwrap());
    }
}

#[test]
fn an_error_says_whether_the_file_may_be_replaced() {
    for operation in [Operation::Create, Operation::SetLength, Operation::Write, Operation::Sync] {
        let disk = disk_with(b"old");
        disk.fail(operation, 0);
        let error = write_atomic(&disk, path(), b"new").unwrap_err();
        assert!(matches!(error, WriteFileError::NotReplaced { .. }), "{error:?}");
        assert_eq!(read(&disk).unwrap(), "old");
    }
    for operation in [Operation::Rename, Operation::SyncDir] {
        let disk = disk_with(b"old");
        disk.fail(operation, 0);
        let error = write_atomic(&disk, path(), b"new").unwrap_err();
        assert!(matches!(error, WriteFileError::OutcomeUnknown { .. }), "{error:?}");
    }
}

#[test]
fn any_flipped_bit_is_damage() {
    let disk = disk_with(b"a vote");
    for byte in 0..26 {
        for bit in 0..8 {
            let disk = disk.fork();
            disk.flip_bit(path(), byte, bit).unwrap();
            let error = read_checked(&disk, path()).unwrap_err();
            assert!(matches!(error, ReadFileError::Damaged { .. }), "byte {byte} bit {bit}: {error:?}");
        }
    }
}

#[test]
fn a_file_of_another_length_is_damage() {
    let full = [b"a vote".as_slice(), b"and more".as_slice()].concat();
    for length in 0..20 {
        let disk = SimDisk::new();
        write_atomic(&disk, path(), &full[..length.min(full.len())]).unwrap();
        let error = read_checked(&disk, path()).unwrap_err();
        assert!(matches!(error, ReadFileError::Damaged { damage: Damage::Length, .. }), "{error:?}");
    }
}
