//! Damage to what a checkpoint made durable is reported, and a wrong value is never served.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use clusterkit_storage::disk::{Disk, OpenMode, SimDisk};
use clusterkit_storage::limits::PAGE_BYTES;
use clusterkit_storage::state_store::{
    Change, Damage, DamageKind, OpenError, Options, RedbStore, ReplicaKey, StateError, StateStore,
};
use proptest::prelude::*;

use crate::support::bytes;
use crate::twin::{DIR, Held, contents, open, options, reopen};

const CASES: u32 = 200;

#[derive(Clone, Debug)]
enum Harm {
    /// One bit of one byte.
    Flip(u64, u32),
    /// The file ends there.
    Cut(u64),
    /// A page is zeros.
    Lose(u64),
    /// Two pages change places.
    Swap(u64, u64),
    /// A page is as it was before the last checkpoints.
    Stale(u64),
}

/// A disk with a store, an older copy of it, and what it holds.
pub(crate) struct Sample {
    pub(crate) disk: SimDisk,
    old: SimDisk,
    pub(crate) held: BTreeMap<ReplicaKey, Held>,
}

pub(crate) fn put(key: u64, round: u64) -> Change {
    let length = if key.is_multiple_of(17) { 9_000 } else { 20 + key as usize % 90 };
    let value = format!("{key} {round} ").into_bytes().into_iter().cycle().take(length).collect();
    Change::Put { key: Bytes::from(format!("key {key:05}")), value }
}

pub(crate) fn apply(
    store: &RedbStore,
    twin: &mut BTreeMap<ReplicaKey, Held>,
    replica: u64,
    changes: &[Change],
) {
    let held = twin.entry(ReplicaKey(replica)).or_default();
    held.applied += 1;
    changes.iter().for_each(|change| held.carry_out(change));
    store.apply(ReplicaKey(replica), changes, held.applied).unwrap();
}

/// A store that went through checkpoints and drops, until the power went.
pub(crate) fn sample() -> Sample {
    sample_that(|disk, store| {
        disk.crash_clean();
        drop(store);
    })
}

/// Like [`sample`], of a store that was closed, which changes its files once more.
fn closed_sample() -> Sample {
    sample_that(|_, store| drop(store.close().unwrap()))
}

fn sample_that(ends: impl FnOnce(&SimDisk, RedbStore)) -> Sample {
    let disk = SimDisk::new();
    let mut twin = BTreeMap::new();
    let store = reopen(&disk);
    for round in 0..3 {
        for replica in 0..5 {
            let changes: Vec<Change> = (0..120).map(|key| put(key * (round + 1), round)).collect();
            apply(&store, &mut twin, replica, &changes);
        }
        store.checkpoint().unwrap();
    }
    let old = disk.fork();
    store.drop_replica(ReplicaKey(4)).unwrap();
    twin.remove(&ReplicaKey(4));
    while !store.reclaim(50).unwrap().is_complete {}
    store.checkpoint().unwrap();
    let changes: Vec<Change> = (0..60).map(|key| put(key, 9)).collect();
    for replica in 0..3 {
        apply(&store, &mut twin, replica, &changes);
        store.checkpoint().unwrap();
    }
    store.checkpoint().unwrap();
    ends(&disk, store);
    assert_eq!(contents(&reopen(&disk.fork())), twin);
    Sample { disk, old, held: twin }
}

fn files(disk: &SimDisk) -> Vec<PathBuf> {
    disk.list(Path::new(DIR)).unwrap().iter().map(|name| Path::new(DIR).join(name)).collect()
}

fn page_at(page: u64) -> std::ops::Range<usize> {
    page as usize * PAGE_BYTES..(page as usize + 1) * PAGE_BYTES
}

impl Harm {
    fn happen(&self, sample: &Sample, disk: &SimDisk, path: &Path) {
        let file = disk.open(path, OpenMode::Write).unwrap();
        let now = bytes(disk, path);
        let pages = now.len().div_ceil(PAGE_BYTES) as u64;
        let page_of =
            |bytes: &[u8], page: u64| bytes.get(page_at(page)).map_or_else(Vec::new, <[u8]>::to_vec);
        let write = |page: u64, bytes: &[u8]| file.write_at(page * PAGE_BYTES as u64, bytes).unwrap();
        match self {
            Harm::Flip(byte, bit) => disk.flip_bit(path, byte % now.len() as u64, *bit).unwrap(),
            Harm::Cut(length) => file.set_length(length % now.len() as u64).unwrap(),
            Harm::Lose(page) => disk.lose_page(path, page % pages).unwrap(),
            Harm::Swap(one, other) => {
                let (one, other) = (one % pages, other % pages);
                write(one, &page_of(&now, other));
                write(other, &page_of(&now, one));
            }
            Harm::Stale(page) => {
                let old = bytes(&sample.old, path);
                write(page % pages, &page_of(&old, page % pages));
            }
        }
    }
}

/// Every read gives what was written or says that it is damaged. Says whether any did.
fn check_reads(store: &RedbStore, held: &BTreeMap<ReplicaKey, Held>, context: &str) -> bool {
    let mut is_damaged = false;
    for (replica, expected) in held {
        for (key, value) in &expected.entries {
            match store.get(*replica, key) {
                Ok(found) => assert_eq!(found.as_ref(), Some(value), "{context}, {replica:?} {key:?}"),
                Err(StateError::Damaged(_)) => is_damaged = true,
                Err(other) => panic!("{context}: {other:?}"),
            }
        }
        match store.digest(*replica) {
            Ok(digest) => assert_eq!(digest, Some(crate::twin::digest_of(expected)), "{context}"),
            Err(StateError::Damaged(_)) => is_damaged = true,
            Err(other) => panic!("{context}: {other:?}"),
        }
    }
    if !is_damaged {
        assert_eq!(&contents(store), held, "{context}");
    }
    is_damaged
}

fn scrubbed(store: &RedbStore) -> Vec<Damage> {
    let mut damages = Vec::new();
    loop {
        let step = store.scrub(500).unwrap();
        damages.extend(step.damages);
        if step.is_complete {
            return damages;
        }
    }
}

/// Opens the store after damage: it is refused, or every read is right or refused. Says whether any was.
fn check(disk: &SimDisk, held: &BTreeMap<ReplicaKey, Held>, context: &str) -> bool {
    match open(disk) {
        Ok(store) => {
            let is_damaged = check_reads(&store, held, context);
            let damages = scrubbed(&store);
            assert!(!is_damaged || !damages.is_empty(), "{context}: the scrub sees what a reader sees");
            is_damaged || !damages.is_empty()
        }
        Err(
            OpenError::State(StateError::Damaged(_))
            | OpenError::Manifest(_)
            | OpenError::ManifestMissing { .. },
        ) => true,
        Err(other) => panic!("{context}: {other:?}"),
    }
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        4 => (any::<u64>(), 0_u32..8).prop_map(|(byte, bit)| Harm::Flip(byte, bit)),
        1 => any::<u64>().prop_map(Harm::Cut),
        2 => any::<u64>().prop_map(Harm::Lose),
        2 => (any::<u64>(), any::<u64>()).prop_map(|(one, other)| Harm::Swap(one, other)),
        2 => any::<u64>().prop_map(Harm::Stale),
    ]
}

#[test]
fn damage_anywhere_is_reported_or_harmless() {
    let sample = sample();
    let paths = files(&sample.disk);
    let mut reported = 0;
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let count = std::cell::Cell::new(0);
    let strategy = (0..paths.len(), harm());
    runner
        .run(&strategy, |(path, harm)| {
            let disk = sample.disk.fork();
            harm.happen(&sample, &disk, &paths[path]);
            let context = format!("{}, {harm:?}", paths[path].display());
            count.set(count.get() + u32::from(check(&disk, &sample.held, &context)));
            Ok(())
        })
        .unwrap();
    reported += count.get();
    assert!(reported > CASES / 4, "{reported} of {CASES} were in something that is used");
}

#[test]
fn a_flipped_bit_in_a_header_is_reported_or_harmless() {
    for sample in [sample(), closed_sample()] {
        let path = files(&sample.disk).remove(0);
        for byte in (0..4 * PAGE_BYTES as u64).filter(|byte| byte % 8_192 < 44 || byte % 613 == 0) {
            let disk = sample.disk.fork();
            disk.flip_bit(&path, byte, byte as u32).unwrap();
            check(&disk, &sample.held, &format!("byte {byte}"));
        }
    }
}

#[test]
fn a_file_that_fell_behind_its_checkpoint_is_reported() {
    let sample = sample();
    for path in files(&sample.disk).into_iter().filter(|path| path.extension().is_some()) {
        let disk = sample.disk.fork();
        let old = bytes(&sample.old, &path);
        let file = disk.open(&path, OpenMode::Write).unwrap();
        file.set_length(0).unwrap();
        file.write_at(0, &old).unwrap();
        let refused = open(&disk).expect_err("an old file is refused");
        let OpenError::State(StateError::Damaged(damage)) = refused else { panic!("{refused:?}") };
        assert_eq!((damage.kind, damage.path), (DamageKind::RolledBack, Some(path)));
    }
}

#[test]
fn files_that_changed_places_are_reported() {
    let sample = sample();
    let paths: Vec<PathBuf> =
        files(&sample.disk).into_iter().filter(|path| path.extension().is_some()).collect();
    let aside = Path::new(DIR).join("aside");
    sample.disk.rename(&paths[0], &aside).unwrap();
    sample.disk.rename(&paths[1], &paths[0]).unwrap();
    sample.disk.rename(&aside, &paths[1]).unwrap();
    let refused = open(&sample.disk).expect_err("files of other places are refused");
    let OpenError::State(StateError::Damaged(damage)) = refused else { panic!("{refused:?}") };
    assert_eq!(damage.kind, DamageKind::Header);
}

#[test]
fn a_missing_file_is_reported() {
    let sample = sample();
    for path in files(&sample.disk) {
        let disk = sample.disk.fork();
        disk.remove(&path).unwrap();
        let refused = open(&disk).expect_err("a store without a file is refused");
        let is_manifest = path.extension().is_none();
        match refused {
            OpenError::ManifestMissing { .. } => assert!(is_manifest),
            OpenError::State(StateError::Damaged(damage)) => {
                assert_eq!((damage.kind, damage.path), (DamageKind::Length, Some(path)));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_scrub_sees_damage_behind_the_cache() {
    let sample = sample();
    let options = Options { cache_bytes: 64 << 20, ..options() };
    let store = RedbStore::open(Arc::new(sample.disk.clone()), Path::new(DIR), &options).unwrap();
    assert_eq!(contents(&store), sample.held);
    assert_eq!(scrubbed(&store), []);
    let path = files(&sample.disk).remove(0);
    let pages = bytes(&sample.disk, &path).len() / PAGE_BYTES;
    let mut seen = 0;
    for page in 5..pages as u64 {
        let byte = page * PAGE_BYTES as u64 + page % PAGE_BYTES as u64;
        sample.disk.flip_bit(&path, byte, 1).unwrap();
        assert_eq!(contents(&store), sample.held, "what is cached is right");
        let damages = scrubbed(&store);
        sample.disk.flip_bit(&path, byte, 1).unwrap();
        assert!(damages.len() <= 1);
        for damage in damages {
            // The first group's checksums are on the fourth page of the file, behind two slots of two.
            assert_eq!((damage.kind, damage.path), (DamageKind::Page { page: page - 5 }, Some(path.clone())));
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen} pages are in use");
    assert_eq!(scrubbed(&store), []);
}

#[test]
fn a_scrub_counts_only_pages_that_it_looked_at() {
    let store = reopen(&sample().disk);
    let pages = || {
        let mut pages = 0;
        loop {
            let step = store.scrub(500).unwrap();
            pages += step.pages;
            if step.is_complete {
                return pages;
            }
        }
    };
    let (first, second) = (pages(), pages());
    assert!(0 < first && first < second, "entries prove their pages to the next scrub: {first}, {second}");
}

#[test]
fn a_damaged_page_is_reported_with_file_replica_and_key() {
    let sample = sample();
    let path = files(&sample.disk).remove(0);
    let pages = bytes(&sample.disk, &path).len() / PAGE_BYTES;
    let mut named = 0;
    for page in 5..pages as u64 {
        let disk = sample.disk.fork();
        disk.flip_bit(&path, page * PAGE_BYTES as u64 + 2_000, 1).unwrap();
        let Ok(store) = open(&disk) else { continue };
        let replica = ReplicaKey(0);
        for key in sample.held[&replica].entries.keys() {
            if let Err(StateError::Damaged(damage)) = store.get(replica, key) {
                assert_eq!(damage.path.as_ref(), Some(&path));
                assert_eq!((damage.replica, damage.key.as_ref()), (Some(replica), Some(key)));
                named += 1;
                assert!(store.get(ReplicaKey(1), b"key 00000").is_ok(), "other files are not concerned");
                assert!(store.apply(replica, &[], 1_000).is_err(), "the file is out of service");
                break;
            }
        }
    }
    assert!(named > 10, "{named} pages are of entries");
}
