//! What every implementation of [`Disk`], of [`Log`](crate::shared_log::Log) and of
//! [`StateStore`](crate::state_store::StateStore) has to do, as suites that their tests call.
//!
//! A disk passes if [`disk()`] returns, a log if [`log()`] does, a state store if [`state_store()`] does. What a
//! crash leaves cannot be asked through the trait: the simulated disk has tests of its own for that.

mod log;
mod state_store;

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;

pub use self::log::log;
pub use self::state_store::state_store;

use crate::checked::{read_checked, write_atomic, write_checked};
use crate::disk::{Disk, DiskFile, LockError, OpenMode};

/// Checks a disk below `dir`, which the disk must be able to create, and which is empty or missing.
///
/// # Panics
///
/// Where the disk does not do what [`Disk`] and [`DiskFile`] promise.
pub fn disk(disk: &dyn Disk, dir: &Path) {
    let checks: [(&str, Check); 11] = [
        ("bytes", bytes_are_read_as_written),
        ("checked", checked_files_are_replaced_as_a_whole),
        ("dirs", directories_are_created_with_those_above),
        ("gap", a_gap_reads_as_zeros),
        ("handles", an_open_file_outlives_its_name),
        ("length", a_cut_is_not_undone_by_growing),
        ("list", a_list_names_what_lies_directly_inside),
        ("lock", a_lock_has_one_holder),
        ("modes", each_mode_opens_what_it_should),
        ("rename", a_rename_replaces),
        ("sync", a_sync_of_what_exists_succeeds),
    ];
    for (name, check) in checks {
        let dir = dir.join(name);
        disk.create_dir_all(&dir).expect("a directory is created");
        check(disk, &dir);
    }
    assert!(disk.free_bytes(dir).expect("free space is known") > 0);
}

type Check = fn(&dyn Disk, &Path);

fn bytes_are_read_as_written(disk: &dyn Disk, dir: &Path) {
    let file = create(disk, &dir.join("file"), b"abcdef");
    file.write_at(2, b"XY").expect("a write inside the file succeeds");
    file.write_at(6, b"gh").expect("a write at the end succeeds");
    file.write_at(3, b"").expect("an empty write succeeds");
    assert_eq!(file.length().expect("a file has a length"), 8);
    assert_eq!(read(&*file, 0, 100), b"abXYefgh", "a read stops at the end");
    assert_eq!(read(&*file, 3, 2), b"Ye", "a read fills its buffer");
    assert_eq!(read(&*file, 8, 4), b"", "nothing lies at the end");
    assert_eq!(read(&*file, 80, 4), b"", "nothing lies behind the end");
}

fn checked_files_are_replaced_as_a_whole(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("file");
    assert_eq!(read_checked(disk, &path).expect("a missing file is not an error"), None);
    for body in [&b"a longer body"[..], b"short", b""] {
        write_checked(disk, &path, body).expect("a checked file is written");
        let read = read_checked(disk, &path).expect("a checked file is read");
        assert_eq!(read.as_deref(), Some(body));
    }
    write_atomic(disk, &path, b"raw").expect("a file is replaced");
    assert_eq!(contents(disk, &path), b"raw");
    assert_eq!(names(disk, dir), ["file"], "nothing is left beside it");
}

fn directories_are_created_with_those_above(disk: &dyn Disk, dir: &Path) {
    let deep = dir.join("one/two");
    disk.create_dir_all(&deep).expect("directories are created");
    disk.create_dir_all(&deep).expect("a directory that exists is fine");
    create(disk, &deep.join("file"), b"x");
    assert!(exists(disk, &dir.join("one")) && exists(disk, &deep));
    assert!(disk.create_dir_all(&deep.join("file/three")).is_err(), "a file is not a directory");
}

fn a_gap_reads_as_zeros(disk: &dyn Disk, dir: &Path) {
    let file = create(disk, &dir.join("file"), b"a");
    file.write_at(3, b"d").expect("a write behind the end succeeds");
    assert_eq!(read(&*file, 0, 9), b"a\0\0d");
}

fn an_open_file_outlives_its_name(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("file");
    let first = create(disk, &path, b"old");
    let second = disk.open(&path, OpenMode::Read).expect("a file opens twice");
    first.write_at(0, b"new").expect("a write succeeds");
    assert_eq!(read(&*second, 0, 9), b"new", "both see one file");
    disk.remove(&path).expect("a file is removed");
    assert!(!exists(disk, &path));
    create(disk, &path, b"another");
    assert_eq!(read(&*second, 0, 9), b"new", "an open file stays");
}

fn a_cut_is_not_undone_by_growing(disk: &dyn Disk, dir: &Path) {
    let file = create(disk, &dir.join("file"), b"abcdef");
    file.set_length(2).expect("a file is cut");
    assert_eq!(read(&*file, 0, 9), b"ab");
    file.set_length(4).expect("a file is extended");
    assert_eq!(read(&*file, 0, 9), b"ab\0\0", "what was cut is gone");
    assert_eq!(file.length().expect("a file has a length"), 4);
}

fn a_list_names_what_lies_directly_inside(disk: &dyn Disk, dir: &Path) {
    assert!(names(disk, dir).is_empty());
    create(disk, &dir.join("b"), b"");
    create(disk, &dir.join("a"), b"");
    disk.create_dir_all(&dir.join("c/d")).expect("directories are created");
    assert_eq!(names(disk, dir), ["a", "b", "c"]);
    let missing = disk.list(&dir.join("missing")).expect_err("a missing directory has no list");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

fn a_lock_has_one_holder(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("lock");
    let held = disk.lock(&path).expect("a free lock is taken");
    assert!(matches!(disk.lock(&path), Err(LockError::Locked { .. })), "a held lock is refused");
    let _other = disk.lock(&dir.join("other")).expect("another lock is free");
    drop(held);
    disk.lock(&path).expect("a lock is free when its guard is gone");
}

fn each_mode_opens_what_it_should(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("file");
    for mode in [OpenMode::Read, OpenMode::Write] {
        assert_eq!(refusal(disk, &path, mode), ErrorKind::NotFound);
    }
    assert_eq!(refusal(disk, &dir.join("missing/file"), OpenMode::Create), ErrorKind::NotFound);
    assert_eq!(disk.remove(&path).expect_err("nothing is there").kind(), ErrorKind::NotFound);
    create(disk, &path, b"kept");
    assert_eq!(refusal(disk, &path, OpenMode::CreateNew), ErrorKind::AlreadyExists);
    for mode in [OpenMode::Create, OpenMode::Read, OpenMode::Write] {
        let file = disk.open(&path, mode).expect("a file that exists opens");
        assert_eq!(read(&*file, 0, 9), b"kept", "opening keeps the bytes");
        assert_eq!(file.write_at(0, b"k").is_ok(), mode != OpenMode::Read);
    }
}

fn a_rename_replaces(disk: &dyn Disk, dir: &Path) {
    let (source, target) = (dir.join("source"), dir.join("target"));
    create(disk, &source, b"new");
    disk.rename(&source, &target).expect("a file is renamed");
    create(disk, &source, b"newer");
    let open = disk.open(&target, OpenMode::Read).expect("a file opens");
    disk.rename(&source, &target).expect("a file is renamed over another");
    assert_eq!(names(disk, dir), ["target"]);
    assert_eq!(contents(disk, &target), b"newer");
    assert_eq!(read(&*open, 0, 9), b"new", "an open file stays");
    assert_eq!(disk.rename(&source, &target).expect_err("nothing is there").kind(), ErrorKind::NotFound);
}

fn a_sync_of_what_exists_succeeds(disk: &dyn Disk, dir: &Path) {
    let file = create(disk, &dir.join("file"), b"abc");
    file.sync_data().expect("data is synced");
    file.sync_all().expect("all is synced");
    disk.sync_dir(dir).expect("a directory is synced");
    assert!(disk.sync_dir(&dir.join("missing")).is_err());
    assert_eq!(read(&*file, 0, 9), b"abc");
}

fn create(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Box<dyn DiskFile> {
    let file = disk.open(path, OpenMode::CreateNew).expect("a file is created");
    file.write_at(0, bytes).expect("a write succeeds");
    file
}

fn read(file: &dyn DiskFile, offset: u64, bytes_max: usize) -> Vec<u8> {
    let mut buffer = vec![0xff; bytes_max];
    let count = file.read_at(offset, &mut buffer).expect("a read succeeds");
    buffer.truncate(count);
    buffer
}

fn contents(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    read(&*disk.open(path, OpenMode::Read).expect("a file opens"), 0, 100)
}

fn names(disk: &dyn Disk, dir: &Path) -> Vec<OsString> {
    disk.list(dir).expect("a directory is listed")
}

fn exists(disk: &dyn Disk, path: &Path) -> bool {
    disk.exists(path).expect("a name is looked for")
}

fn refusal(disk: &dyn Disk, path: &Path, mode: OpenMode) -> ErrorKind {
    disk.open(path, mode).expect_err("it must not open").kind()
}
