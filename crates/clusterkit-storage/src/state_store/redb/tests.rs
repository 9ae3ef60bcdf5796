//! Pages that have their checksums and are wrong nevertheless. What the engine makes of pages that contradict each
//! other: no value is wrong, no panic gets out, and whatever is missing is found by the scrub.

use std::path::Path;
use std::sync::Arc;

use ::redb::StorageBackend;
use bytes::Bytes;

use super::pages::{Backend, Identity, Pages};
use super::{Health, Options, RedbStore};
use crate::disk::{Disk, OpenMode, SimDisk};
use crate::limits::PAGE_BYTES;
use crate::state_store::{
    Change, DamageKind, Digest, Gathered, OpenError, Query, ReplicaKey, Snapshot, StateError, StateStore,
};

const DIR: &str = "/state";
const KEYS: u64 = 400;
const ROUNDS: u64 = 300;

fn options() -> Options {
    Options { file_count: 1, cache_bytes: 0, ..Options::default() }
}

fn open(disk: &SimDisk) -> Result<RedbStore, OpenError> {
    RedbStore::open(Arc::new(disk.clone()), Path::new(DIR), &options())
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("{number:06}"))
}

fn value(replica: u64, number: u64) -> Bytes {
    let length = if number.is_multiple_of(40) { 6_000 } else { 60 };
    format!("{replica} {number} ").into_bytes().into_iter().cycle().take(length).collect()
}

fn filled() -> SimDisk {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    for replica in 0..2 {
        let put = |number| Change::Put { key: key(number), value: value(replica, number) };
        let changes: Vec<Change> = (0..KEYS).map(put).collect();
        store.apply(ReplicaKey(replica), &changes, 1).unwrap();
    }
    store.checkpoint().unwrap();
    disk.crash_clean();
    disk
}

fn below(chance: &mut u64, bound: usize) -> usize {
    *chance = chance.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
    (*chance >> 33) as usize % bound
}

/// Changes some bytes of pages that are in use, as a mistake of the engine would: with the checksums that belong to
/// them.
fn contradict(disk: &SimDisk, chance: &mut u64) {
    let backend = open_pages(disk);
    let count = (StorageBackend::len(&backend).unwrap() / PAGE_BYTES as u64) as usize;
    let mut page = vec![0; PAGE_BYTES];
    for _ in 0..40 {
        // Page 0 is checked by the engine itself.
        let at = (1 + below(chance, count - 1)) as u64;
        if !backend.0.is_written(at) {
            continue;
        }
        StorageBackend::read(&backend, at * PAGE_BYTES as u64, &mut page).unwrap();
        // What describes a page is in its front.
        for _ in 0..3 {
            let reach = [8, 64, PAGE_BYTES][below(chance, 3)];
            let byte = below(chance, reach);
            page[byte] ^= 1 << below(chance, 8);
        }
        StorageBackend::write(&backend, at * PAGE_BYTES as u64, &page).unwrap();
    }
    StorageBackend::sync_data(&backend).unwrap();
}

/// Reads everything in every way. Says whether all of it was there.
fn read_all(store: &RedbStore, context: &str) -> bool {
    let mut is_whole = true;
    for replica in 0..2 {
        for number in 0..KEYS {
            match store.get(ReplicaKey(replica), &key(number)) {
                Ok(Some(found)) => assert_eq!(found, value(replica, number), "{context}"),
                Ok(None) | Err(StateError::Damaged(_)) => is_whole = false,
                Err(other) => panic!("{context}: {other:?}"),
            }
        }
        is_whole &= read_snapshot(store.snapshot(ReplicaKey(replica)), replica, context);
    }
    is_whole
}

fn read_snapshot(
    snapshot: Result<Option<Box<dyn Snapshot>>, StateError>,
    replica: u64,
    context: &str,
) -> bool {
    let Ok(Some(mut snapshot)) = snapshot else { return false };
    let mut count = 0;
    // A tree that leads back into itself has no end.
    for _ in 0..KEYS {
        match snapshot.next_chunk(2_000) {
            Ok(None) => return count == KEYS,
            Ok(Some(chunk)) => {
                for (key, found) in chunk {
                    let number: u64 = std::str::from_utf8(&key).unwrap().parse().unwrap();
                    assert_eq!(found, value(replica, number), "{context}");
                    count += 1;
                }
            }
            Err(StateError::Damaged(_)) => return false,
            Err(other) => panic!("{context}: {other:?}"),
        }
    }
    false
}

fn scrub_finds(store: &RedbStore) -> bool {
    for _ in 0..1_000 {
        let Ok(step) = store.scrub(1_000) else { return true };
        if !step.damages.is_empty() {
            return true;
        }
        if step.is_complete {
            return false;
        }
    }
    panic!("a scrub never ends");
}

#[test]
fn pages_that_contradict_each_other_never_give_a_wrong_value_or_a_panic() {
    let filled = filled();
    let (mut refused, mut damaged) = (0, 0);
    for round in 0..ROUNDS {
        let disk = filled.fork();
        contradict(&disk, &mut (round * 1_000));
        match open(&disk) {
            Err(OpenError::State(StateError::Damaged(_) | StateError::Engine(_))) => refused += 1,
            Err(other) => panic!("round {round}: {other:?}"),
            Ok(store) => {
                let is_whole = read_all(&store, &format!("round {round}"));
                damaged += u64::from(!is_whole);
                assert!(is_whole || scrub_finds(&store), "round {round}: the scrub finds what is missing");
                // To close it would write with lists of free pages that were changed as well.
                std::mem::forget(store);
            }
        }
    }
    assert!(damaged > 20, "{refused} of {ROUNDS} were refused, {damaged} were damaged");
}

#[test]
fn a_file_that_is_stopped_midway_by_another_one_says_so() {
    let store = open(&filled()).unwrap();
    let file = store.inner.file_of(ReplicaKey(1));
    let (view, row) = file.view(ReplicaKey(1)).unwrap().unwrap();
    let stopped = file.read_view(&view, |view| {
        store.inner.health.poison();
        let mut gathered = Gathered::new(usize::MAX, usize::MAX);
        view.gather(ReplicaKey(1), row.generation, &Query::default(), &mut gathered)
    });
    assert!(matches!(stopped, Err(StateError::Poisoned)), "{stopped:?}");
}

#[test]
fn checksums_that_a_short_file_lacks_are_not_those_of_other_pages() {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    let path = Path::new(DIR).join("000.pages");
    let identity = Identity { store: 0, file: 0 };
    let backend =
        Backend(Arc::new(Pages::create(&disk, &path, identity, Arc::new(Health::default())).unwrap()));
    let page = PAGE_BYTES as u64;
    StorageBackend::set_len(&backend, 1_024 * page).unwrap();
    for number in 1..1_024 {
        StorageBackend::write(&backend, number * page, &[1; PAGE_BYTES]).unwrap();
    }
    StorageBackend::sync_data(&backend).unwrap();
    disk.kill();
    // The headers, and the first group of 512 pages with its checksums.
    disk.open(&path, OpenMode::Write).unwrap().set_length((4 + 1 + 512) * page).unwrap();
    let backend = open_pages(&disk);
    assert!(backend.0.is_written(511) && !(512..1_024).any(|page| backend.0.is_written(page)));
    StorageBackend::write(&backend, 600 * page, &[2; 100]).expect("a part of a new page is written");
}

#[test]
fn a_damaged_row_stops_no_checkpoint() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    store.apply(ReplicaKey(1), &[], 1).unwrap();
    store.apply(ReplicaKey(2), &[], 5).unwrap();
    store.inner.file_of(ReplicaKey(1)).spoil_row(ReplicaKey(1)).unwrap();
    for told in [store.checkpoint().unwrap(), store.replicas().unwrap()] {
        assert_eq!(told.indexes.into_iter().collect::<Vec<_>>(), [(ReplicaKey(2), 5)]);
        let [damage] = &told.damages[..] else { panic!("{:?}", told.damages) };
        assert_eq!((damage.kind, damage.replica), (DamageKind::Row, Some(ReplicaKey(1))));
    }
    let Err(StateError::Damaged(damage)) = store.drop_replica(ReplicaKey(1)) else {
        panic!("where its entries are is not known");
    };
    store.renew(&damage).unwrap();
    store.install(ReplicaKey(1)).unwrap().finish(Digest::empty(9)).unwrap();
    assert_eq!(store.checkpoint().unwrap().indexes.into_iter().collect::<Vec<_>>(), [(ReplicaKey(1), 9)]);
}

fn open_pages(disk: &SimDisk) -> Backend {
    let path = Path::new(DIR).join("000.pages");
    let identity = Identity { store: 0, file: 0 };
    Backend(Arc::new(Pages::open(disk, &path, identity, Arc::new(Health::default())).unwrap()))
}

/// A file whose page 1 was written before the second sync, and again before the third.
fn written_twice() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    let path = Path::new(DIR).join("000.pages");
    let identity = Identity { store: 0, file: 0 };
    let backend =
        Backend(Arc::new(Pages::create(&disk, &path, identity, Arc::new(Health::default())).unwrap()));
    StorageBackend::set_len(&backend, 4 * PAGE_BYTES as u64).unwrap();
    StorageBackend::sync_data(&backend).unwrap();
    for contents in [1, 2] {
        StorageBackend::write(&backend, PAGE_BYTES as u64, &[contents; PAGE_BYTES]).unwrap();
        StorageBackend::sync_data(&backend).unwrap();
    }
    disk.kill();
    disk
}

#[test]
fn a_page_from_after_the_slot_that_is_left_is_damage() {
    let disk = written_twice();
    let mut page = [0; PAGE_BYTES];
    StorageBackend::read(&open_pages(&disk), PAGE_BYTES as u64, &mut page).unwrap();
    assert_eq!(page[0], 2);
    // The third sync wrote the second slot.
    disk.flip_bit(&Path::new(DIR).join("000.pages"), 2 * PAGE_BYTES as u64 + 25, 0).unwrap();
    let backend = open_pages(&disk);
    assert_eq!(backend.0.synced(), 2);
    StorageBackend::read(&backend, PAGE_BYTES as u64, &mut page).unwrap_err();
    assert!(matches!(backend.0.check(), Err(StateError::Damaged(_))));
}

#[test]
fn a_page_that_was_never_written_is_not_read_as_zeros() {
    let backend = open_pages(&written_twice());
    let mut page = [0; PAGE_BYTES];
    StorageBackend::read(&backend, 2 * PAGE_BYTES as u64, &mut page).unwrap_err();
}
