//! What is applied is never more than what the next checkpoint has room for.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use clusterkit_storage::disk::{
    Disk, DiskError, DiskFile, DiskLock, LockError, OpenMode, Operation, SimDisk,
};
use clusterkit_storage::limits::PAGE_BYTES;
use clusterkit_storage::state_store::{ApplyError, Change, Options, RedbStore, ReplicaKey, StateStore};

use crate::twin::DIR;

const ONE: ReplicaKey = ReplicaKey(1);
const CAPACITY_BYTES: u64 = 8 << 20;
const VALUE_BYTES: usize = 60_000;

/// A disk on which only what was written takes up space, as on most file systems: a file that grows takes up none.
#[derive(Clone, Debug, Default)]
struct SparseDisk {
    disk: SimDisk,
    written: Written,
}

/// The pages of each file that were written.
type Written = Arc<Mutex<BTreeMap<PathBuf, BTreeSet<u64>>>>;

#[derive(Debug)]
struct SparseFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    written: Written,
}

impl SparseDisk {
    fn free_bytes(&self) -> u64 {
        let pages: usize = self.written.lock().unwrap().values().map(BTreeSet::len).sum();
        CAPACITY_BYTES.saturating_sub((pages * PAGE_BYTES) as u64)
    }
}

impl Disk for SparseDisk {
    fn create_dir_all(&self, dir: &Path) -> Result<(), DiskError> {
        self.disk.create_dir_all(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn DiskFile>, DiskError> {
        let file = self.disk.open(path, mode)?;
        Ok(Box::new(SparseFile { file, path: path.to_path_buf(), written: Arc::clone(&self.written) }))
    }

    fn list(&self, dir: &Path) -> Result<Vec<OsString>, DiskError> {
        self.disk.list(dir)
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.disk.remove(path)
    }

    fn rename(&self, source: &Path, target: &Path) -> Result<(), DiskError> {
        let pages = self.written.lock().unwrap().remove(source).unwrap_or_default();
        self.written.lock().unwrap().insert(target.to_path_buf(), pages);
        self.disk.rename(source, target)
    }

    fn exists(&self, path: &Path) -> Result<bool, DiskError> {
        self.disk.exists(path)
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), DiskError> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> Result<DiskLock, LockError> {
        self.disk.lock(path)
    }

    fn free_bytes(&self, _dir: &Path) -> Result<u64, DiskError> {
        Ok(self.free_bytes())
    }
}

impl DiskFile for SparseFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let page = PAGE_BYTES as u64;
        let mut written = self.written.lock().unwrap();
        let pages = offset / page..(offset + bytes.len() as u64).div_ceil(page);
        written.entry(self.path.clone()).or_default().extend(pages);
        if written.values().map(BTreeSet::len).sum::<usize>() as u64 * page > CAPACITY_BYTES {
            return Err(DiskError::new(Operation::Write, &self.path, ErrorKind::StorageFull.into()));
        }
        self.file.write_at(offset, bytes)
    }

    fn length(&self) -> Result<u64, DiskError> {
        self.file.length()
    }

    fn set_length(&self, length: u64) -> Result<(), DiskError> {
        let end = length.div_ceil(PAGE_BYTES as u64);
        if let Some(pages) = self.written.lock().unwrap().get_mut(&self.path) {
            pages.retain(|page| *page < end);
        }
        self.file.set_length(length)
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> Result<(), DiskError> {
        self.file.sync_all()
    }
}

fn open(disk: &SparseDisk) -> RedbStore {
    let options =
        Options { file_count: 1, cache_bytes: 32 << 20, headroom_bytes: 2 << 20, ..Options::default() };
    RedbStore::open(Arc::new(disk.clone()), Path::new(DIR), &options).unwrap()
}

fn put(index: u64, bytes: usize) -> Change {
    Change::Put {
        key: Bytes::from(format!("{:05}", index * 7_919 % 65_536)),
        value: vec![index as u8; bytes].into(),
    }
}

/// Applies until the disk is full. Says what was applied last.
fn fill(store: &RedbStore, changes: impl Fn(u64) -> Vec<Change>) -> u64 {
    for index in 1..100_000 {
        match store.apply(ONE, &changes(index), index) {
            Ok(()) => {}
            Err(ApplyError::Full { free_bytes, needed_bytes }) => {
                assert!(free_bytes < needed_bytes);
                return index - 1;
            }
            Err(other) => panic!("entry {index}: {other:?}"),
        }
    }
    panic!("the disk is never full");
}

#[test]
fn what_waits_for_a_checkpoint_counts_against_the_free_space() {
    let disk = SparseDisk::default();
    let store = open(&disk);
    let applied = fill(&store, |index| vec![put(index, VALUE_BYTES)]);
    let durable = store.checkpoint().expect("what was applied has room").indexes;
    assert_eq!(durable[&ONE], applied);
    let used = CAPACITY_BYTES - disk.free_bytes();
    assert!(used > CAPACITY_BYTES / 2, "an early checkpoint lets it go on: {used} bytes of entry {applied}");
    store.drop_replica(ONE).unwrap();
    while !store.reclaim(1_000).unwrap().is_complete {}
    store.checkpoint().expect("what frees space has room in the headroom");
}

#[test]
fn small_changes_of_many_pages_count_as_pages() {
    let disk = SparseDisk::default();
    let store = open(&disk);
    let applied = fill(&store, |index| (0..20).map(|number| put(index * 20 + number, 100)).collect());
    let durable = store.checkpoint().expect("what was applied has room").indexes;
    assert_eq!(durable[&ONE], applied);
    drop(store);
    disk.disk.crash_clean();
    assert_eq!(open(&disk).applied_index(ONE).unwrap(), Some(applied));
}

#[test]
fn what_is_installed_counts_against_the_free_space() {
    let disk = SparseDisk::default();
    let store = open(&disk);
    let mut install = store.install(ONE).unwrap();
    let refused = (0..1_000_u64).find_map(|number| {
        let entry = (Bytes::from(format!("{number}")), vec![1; VALUE_BYTES].into());
        install.push(&[entry]).err()
    });
    assert!(
        matches!(refused, Some(clusterkit_storage::state_store::InstallError::Full { .. })),
        "{refused:?}"
    );
    store.checkpoint().expect("what was pushed has room");
}
