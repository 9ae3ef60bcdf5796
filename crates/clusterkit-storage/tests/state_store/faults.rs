//! A disk that fails once is never trusted again, and what a later process finds is true.

use std::io::ErrorKind;

use bytes::Bytes;
use clusterkit_storage::disk::{Operation, SimDisk};
use clusterkit_storage::state_store::{
    ApplyError, Change, DamageKind, InstallError, OpenError, Options, Query, RedbStore, ReplicaKey,
    StateError, StateStore,
};

use crate::support::fail_every_operation;
use crate::twin::{DIR, Held, Step, contents, open, options, reopen, run, scripts};

const ONE: ReplicaKey = ReplicaKey(1);

fn put(key: u64, bytes: usize) -> Change {
    Change::Put { key: Bytes::from(format!("{key}")), value: vec![key as u8; bytes].into() }
}

fn assert_poisoned(store: &RedbStore) {
    assert!(matches!(store.apply(ONE, &[], u64::MAX), Err(ApplyError::State(StateError::Poisoned))));
    for replica in (0..4).map(ReplicaKey) {
        assert!(matches!(store.get(replica, b"a"), Err(StateError::Poisoned)));
    }
    assert!(matches!(store.checkpoint(), Err(StateError::Poisoned)));
    assert!(matches!(store.scrub(1), Err(StateError::Poisoned)));
    assert!(matches!(store.install(ONE), Err(InstallError::State(StateError::Poisoned))));
    assert!(matches!(store.drop_replica(ONE), Err(StateError::Poisoned)));
}

/// A store with changes that came after its last checkpoint.
fn with_unsynced(disk: &SimDisk) -> RedbStore {
    let store = reopen(disk);
    store.apply(ONE, &[put(1, 100)], 1).unwrap();
    store.checkpoint().unwrap();
    store.apply(ONE, &[put(1, 200), put(2, 9_000)], 2).unwrap();
    store.apply(ReplicaKey(2), &[put(1, 200)], 1).unwrap();
    store
}

/// Takes the error that stopped the store, which is told once.
fn first_error(result: Result<impl Sized, StateError>) -> ErrorKind {
    match result {
        Err(StateError::Disk(error)) => error.kind(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("a failure is told"),
    }
}

#[test]
fn a_failed_write_or_sync_of_a_checkpoint_poisons_the_store() {
    for (operation, most) in
        [(Operation::Write, 8), (Operation::Sync, 4), (Operation::Rename, 1), (Operation::SyncDir, 1)]
    {
        for before in 0..most {
            let disk = SimDisk::new();
            let store = with_unsynced(&disk);
            disk.set_fault_seed(before);
            disk.fail(operation, before);
            assert_eq!(first_error(store.checkpoint()), ErrorKind::Other, "{operation:?} {before}");
            assert_poisoned(&store);
            let operations = disk.operation_count();
            drop(store);
            assert_eq!(disk.operation_count(), operations, "a store that failed writes nothing more");
            disk.crash(before);
            let store = reopen(&disk);
            let applied = store.applied_index(ONE).unwrap();
            assert!(applied == Some(1) || applied == Some(2), "{operation:?} {before}: {applied:?}");
            contents(&store);
        }
    }
}

#[test]
fn a_fault_at_any_operation_leaves_the_last_checkpoint_or_a_later_state() {
    let script: Vec<Step> =
        scripts(6, 12).remove(5).into_iter().filter(|step| !matches!(step, Step::Reopen)).collect();
    fail_every_operation(
        &[Operation::Write, Operation::Sync, Operation::SetLength],
        |disk| run(disk, &script),
        |disk, mut twin, (operation, before)| {
            disk.crash(before);
            let found = contents(&reopen(disk));
            assert!(twin.become_found(&found), "{operation:?} {before}");
        },
    );
}

/// After a sync that failed, a new process on the same machine sees what the disk forgot, until the power goes. What
/// it was told to be durable is there then, or is reported as damage.
#[test]
fn what_a_failed_sync_forgot_is_never_missing_unseen() {
    let (mut damaged, mut whole) = (0, 0);
    for (before, seed) in (0..4).flat_map(|before| (0..12).map(move |seed| (before, seed))) {
        let disk = SimDisk::new();
        let store = with_unsynced(&disk);
        disk.set_fault_seed(seed);
        disk.fail(Operation::Sync, before);
        first_error(store.checkpoint());
        disk.kill();
        drop(store);
        let Ok(store) = open(&disk) else { continue };
        let applied = store.applied_index(ONE).unwrap().unwrap();
        store.apply(ONE, &[put(3, 100)], applied + 1).unwrap();
        if store.checkpoint().is_ok_and(|told| told.damages.is_empty()) {
            let expected = contents(&store);
            disk.crash(seed);
            drop(store);
            match try_contents(&disk, ONE) {
                Some(found) => {
                    assert_eq!(Some(&found), expected.get(&ONE), "{before} {seed}");
                    whole += 1;
                }
                None => damaged += 1,
            }
        }
    }
    assert!(whole > 5, "{whole} were whole, {damaged} damaged");
}

/// What a replica holds, if nothing of it is reported as damaged.
fn try_contents(disk: &SimDisk, replica: ReplicaKey) -> Option<Held> {
    let store = match open(disk) {
        Ok(store) => store,
        Err(OpenError::State(StateError::Damaged(_))) => return None,
        Err(other) => panic!("{other:?}"),
    };
    match (store.applied_index(replica), store.range(replica, &Query::default())) {
        (Ok(applied), Ok(found)) => Some(Held {
            applied: applied.expect("a replica is not missing"),
            entries: found.entries.into_iter().collect(),
        }),
        (Err(StateError::Damaged(_)), _) | (_, Err(StateError::Damaged(_))) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_failed_read_is_told_as_such() {
    let disk = SimDisk::new();
    let store = reopen(&disk);
    let changes: Vec<Change> = (0..50).map(|key| put(key, 9_000)).collect();
    store.apply(ONE, &changes, 1).unwrap();
    drop(store);
    let store = reopen(&disk);
    disk.fail(Operation::Read, 0);
    assert_eq!(first_error(store.get(ONE, b"1")), ErrorKind::Other);
    let Err(StateError::Damaged(damage)) = store.get(ONE, b"1") else {
        panic!("its file is out of service");
    };
    assert_eq!(damage.kind, DamageKind::Unreadable);
    assert_eq!(store.get(ReplicaKey(2), b"1").unwrap(), None, "other files are not concerned");
    store.apply(ReplicaKey(2), &[], 7).unwrap();
    let durable = store.checkpoint().unwrap();
    assert_eq!(durable.indexes.into_iter().collect::<Vec<_>>(), [(ReplicaKey(2), 7)]);
    assert_eq!(durable.damages[0].kind, DamageKind::Unreadable);
    store.renew(&damage).unwrap();
    assert_eq!(store.get(ONE, b"1").unwrap(), None, "its file is empty and in service again");
}

#[test]
fn a_full_disk_is_refused_before_anything_is_written() {
    let disk = SimDisk::new();
    let store = reopen(&disk);
    store.apply(ONE, &[put(1, 100)], 1).unwrap();
    disk.set_capacity_bytes(Some(options().headroom_bytes + 10_000));
    let refused = store.apply(ONE, &[put(2, 100_000)], 2);
    assert!(matches!(refused, Err(ApplyError::Full { .. })), "{refused:?}");
    assert!(matches!(store.install(ONE), Err(InstallError::Full { .. })));
    assert_eq!(store.applied_index(ONE).unwrap(), Some(1));
    store.checkpoint().unwrap();
    store.drop_replica(ONE).unwrap();
    disk.set_capacity_bytes(None);
    store.apply(ONE, &[put(2, 100_000)], 2).unwrap();
}

#[test]
fn a_disk_that_is_full_without_headroom_poisons_with_its_kind() {
    let disk = SimDisk::new();
    let options = Options { headroom_bytes: 0, ..options() };
    let open_tight =
        || RedbStore::open(std::sync::Arc::new(disk.clone()), std::path::Path::new(DIR), &options);
    let store = open_tight().unwrap();
    store.apply(ONE, &[put(1, 100)], 1).unwrap();
    store.checkpoint().unwrap();
    disk.set_capacity_bytes(Some(3_600_000));
    let mut durable = 1;
    let failed = (2..200).find_map(|index| {
        let outcome = store.apply(ONE, &[put(index, 50_000)], index).and_then(|()| Ok(store.checkpoint()?));
        durable = outcome.as_ref().map_or(durable, |told| told.indexes[&ONE]);
        outcome.err()
    });
    let Some(ApplyError::State(StateError::Disk(error))) = failed else { panic!("{failed:?}") };
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_poisoned(&store);
    drop(store);
    disk.crash_clean();
    disk.set_capacity_bytes(None);
    let store = open_tight().unwrap();
    let found = store.applied_index(ONE).unwrap();
    assert!(durable > 10 && (found == Some(durable) || found == Some(durable + 1)), "{durable} {found:?}");
    contents(&store);
}

#[test]
fn a_store_of_another_owner_or_shape_is_refused() {
    let disk = SimDisk::new();
    drop(reopen(&disk));
    let open_as = |options: &Options| {
        RedbStore::open(std::sync::Arc::new(disk.clone()), std::path::Path::new(DIR), options)
    };
    let other = open_as(&Options { store: 6, ..options() });
    assert!(matches!(other, Err(OpenError::Foreign { found: 5, .. })), "{other:?}");
    for asked in [0, 3, 1_000] {
        let other = open_as(&Options { file_count: asked, ..options() });
        assert!(matches!(other, Err(OpenError::FileCount { stored: 2, .. })), "{other:?}");
    }
    open(&disk).unwrap();
}
