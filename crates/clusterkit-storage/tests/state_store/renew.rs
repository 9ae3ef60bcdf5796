//! A damaged file stops nothing beyond itself, and can be made anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clusterkit_storage::disk::{Disk, SimDisk};
use clusterkit_storage::limits::PAGE_BYTES;
use clusterkit_storage::state_store::{Damage, OpenError, RedbStore, ReplicaKey, StateError, StateStore};

use crate::damage::{Sample, apply, put, sample};
use crate::support::bytes;
use crate::twin::{DIR, Held, contents, digest_of, open, options, reopen};

/// In the file that is damaged.
const DAMAGED: ReplicaKey = ReplicaKey(0);
/// In the other one.
const WHOLE: ReplicaKey = ReplicaKey(1);

fn path() -> PathBuf {
    Path::new(DIR).join("000.pages")
}

fn aside() -> PathBuf {
    Path::new(DIR).join("000.damaged")
}

/// A store that met damage in all pages of one of its two files.
fn damaged() -> (Sample, RedbStore, Damage) {
    let sample = sample();
    let store = reopen(&sample.disk);
    let pages = bytes(&sample.disk, &path()).len() / PAGE_BYTES;
    for page in 5..pages as u64 {
        sample.disk.flip_bit(&path(), page * PAGE_BYTES as u64 + page % 4_000, 1).unwrap();
    }
    for key in sample.held[&DAMAGED].entries.keys() {
        if let Err(StateError::Damaged(damage)) = store.get(DAMAGED, key) {
            return (sample, store, damage);
        }
    }
    panic!("damage is met");
}

/// What is left when the damaged file is not.
fn without_damaged(sample: &Sample) -> BTreeMap<ReplicaKey, Held> {
    sample.held.clone().into_iter().filter(|(replica, _)| replica.0 % 2 == 1).collect()
}

#[test]
fn a_damaged_file_stops_no_checkpoint_of_the_others() {
    let (sample, store, damage) = damaged();
    let mut left = without_damaged(&sample);
    apply(&store, &mut left, WHOLE.0, &[put(1, 77)]);
    let applied = || left.iter().map(|(replica, held)| (*replica, held.applied));
    for told in [store.checkpoint().unwrap(), store.replicas().unwrap()] {
        assert!(applied().eq(told.indexes));
        assert_eq!((told.damages.len(), &told.damages[0].path), (1, &damage.path));
    }
    store.drop_replica(ReplicaKey(3)).unwrap();
    let reclaimed = store.reclaim(10_000).unwrap();
    assert!(reclaimed.entries > 0 && reclaimed.is_complete && reclaimed.damages.len() == 1, "{reclaimed:?}");
    sample.disk.crash_clean();
    drop(store);
    RedbStore::set_aside(&sample.disk, Path::new(DIR), &options(), &damage).unwrap();
    assert_eq!(contents(&reopen(&sample.disk)), left, "what the checkpoint told is durable");
}

#[test]
fn a_damaged_file_is_made_anew_while_the_others_go_on() {
    let (sample, store, damage) = damaged();
    let mut left = without_damaged(&sample);
    let was = bytes(&sample.disk, &path());
    let sent = &sample.held[&DAMAGED];
    store.renew(&damage).unwrap();
    assert_eq!(contents(&store), left, "the replicas of the file are missing");
    assert!(bytes(&sample.disk, &aside()) == was, "the damaged file is kept");
    let mut install = store.install(DAMAGED).unwrap();
    let entries: Vec<_> = sent.entries.clone().into_iter().collect();
    entries.chunks(100).for_each(|chunk| install.push(chunk).unwrap());
    install.finish(digest_of(sent)).unwrap();
    left.insert(DAMAGED, sent.clone());
    apply(&store, &mut left, DAMAGED.0, &[put(1, 78)]);
    store.renew(&damage).unwrap();
    assert_eq!(contents(&store), left, "damage that was mended takes nothing more");
    assert_eq!(store.checkpoint().unwrap().damages, []);
    sample.disk.crash_clean();
    drop(store);
    assert_eq!(contents(&reopen(&sample.disk)), left);
}

#[test]
fn what_was_held_of_a_damaged_file_is_refused_when_it_is_made_anew() {
    let sample = sample();
    let store = reopen(&sample.disk);
    let mut snapshot = store.snapshot(DAMAGED).unwrap().unwrap();
    let mut install = store.install(DAMAGED).unwrap();
    let pages = bytes(&sample.disk, &path()).len() / PAGE_BYTES;
    (5..pages as u64).for_each(|page| sample.disk.lose_page(&path(), page).unwrap());
    let damage = loop {
        if let Some(damage) = store.scrub(100).unwrap().damages.pop() {
            break damage;
        }
    };
    store.renew(&damage).unwrap();
    assert!(matches!(snapshot.next_chunk(100), Err(StateError::Damaged(_))));
    assert!(install.push(&[]).is_err());
    assert!(install.finish(digest_of(&sample.held[&DAMAGED])).is_err());
    drop(snapshot);
    assert_eq!(contents(&store), without_damaged(&sample));
}

/// Opens the store, and sets aside what it is refused for.
fn open_without_damaged(disk: &SimDisk) -> RedbStore {
    match open(disk) {
        Err(OpenError::State(StateError::Damaged(damage))) => {
            for _ in 0..2 {
                RedbStore::set_aside(disk, Path::new(DIR), &options(), &damage).unwrap();
            }
            reopen(disk)
        }
        other => other.unwrap(),
    }
}

#[test]
fn a_crash_while_a_file_is_made_anew_loses_neither_the_others_nor_the_damaged_one() {
    for count in 0.. {
        let (sample, store, damage) = damaged();
        let was = bytes(&sample.disk, &path());
        sample.disk.stop_after(count);
        let is_done = store.renew(&damage).is_ok();
        sample.disk.crash(count);
        drop(store);
        let store = open_without_damaged(&sample.disk);
        if !sample.disk.exists(&aside()).unwrap() {
            store.get(DAMAGED, b"key 00000").unwrap_err();
            continue;
        }
        // What opening wrote into the headers was not synced.
        let kept = bytes(&sample.disk, &aside());
        assert!(kept[5 * PAGE_BYTES..] == was[5 * PAGE_BYTES..], "operation {count}");
        assert_eq!(contents(&store), without_damaged(&sample), "operation {count}");
        if is_done {
            return;
        }
    }
}
