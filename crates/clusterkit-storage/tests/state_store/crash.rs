//! After a crash at any moment each replica is as it was at the last checkpoint, or later, and never a mixture.

use clusterkit_storage::disk::SimDisk;
use clusterkit_storage::state_store::{Change, ReplicaKey, StateStore};

use crate::support::{Ending, cut_at_every_operation, cut_every_recovery};
use crate::twin::{Step, Twin, contents, open, reopen, run, scripts};

/// What the store holds is what it may hold; a later crash leaves the same; it can go on; and nothing in it is
/// damaged.
fn check_recovered(disk: &SimDisk, mut twin: Twin, context: &str) {
    let expected = twin.clone();
    let found = contents(&reopen(disk));
    assert!(twin.become_found(&found), "{context}\nfound {found:?}\nexpected {expected:?}");
    disk.crash_clean();
    let store = reopen(disk);
    assert_eq!(contents(&store), found, "{context}: what was recovered survives");
    check_goes_on(disk, store, &mut twin, context);
}

fn check_goes_on(disk: &SimDisk, store: impl StateStore, twin: &mut Twin, context: &str) {
    let changes = [Change::Put { key: "later".into(), value: vec![7; 9_000].into() }];
    for replica in (0..4).map(ReplicaKey) {
        let held = twin.held.entry(replica).or_default();
        held.applied += 1;
        held.carry_out(&changes[0]);
        store.apply(replica, &changes, held.applied).unwrap();
    }
    while !store.reclaim(100).unwrap().is_complete {}
    store.checkpoint().unwrap();
    disk.crash_clean();
    drop(store);
    let store = reopen(disk);
    assert_eq!(contents(&store), twin.held, "{context}: it goes on");
    loop {
        let scrubbed = store.scrub(usize::MAX).unwrap();
        assert_eq!(scrubbed.damages, [], "{context}");
        if scrubbed.is_complete {
            return;
        }
    }
}

fn check_every_point(script: &[Step], endings: &[Ending]) {
    cut_at_every_operation(
        endings,
        |disk| run(disk, script),
        |disk, twin, context| check_recovered(disk, twin.clone(), context),
    );
}

#[test]
fn a_crash_at_any_operation_leaves_the_last_checkpoint_or_a_later_state() {
    for (seed, script) in (0..).zip(scripts(3, 14)) {
        check_every_point(&script, &[Ending::Crash(seed), Ending::Crash(seed + 1_000)]);
    }
}

#[test]
fn a_crash_that_keeps_nothing_unsynced_leaves_the_last_checkpoint_or_a_later_state() {
    check_every_point(&scripts(4, 14)[3], &[Ending::CrashClean, Ending::Kill]);
}

#[test]
fn a_crash_during_recovery_changes_nothing_of_what_may_be_found() {
    let script = &scripts(5, 10)[4];
    cut_every_recovery(
        7,
        |disk| run(disk, script),
        open,
        |disk, twin, context| check_recovered(disk, twin.clone(), context),
    );
}
