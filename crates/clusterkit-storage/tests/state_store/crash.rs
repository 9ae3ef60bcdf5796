//! After a crash at any moment each replica is as it was at the last checkpoint, or later, and never a mixture.

use clusterkit_storage::disk::SimDisk;
use clusterkit_storage::state_store::{Change, ReplicaKey, StateStore};

use crate::twin::{Step, Twin, contents, open, reopen, run, scripts};

#[derive(Clone, Copy, Debug)]
enum Ending {
    /// Power cut, with a seed for what survives.
    Crash(u64),
    /// Power cut, nothing unsynced survives.
    CrashClean,
    /// The process ends, the machine goes on.
    Kill,
}

impl Ending {
    fn happen(self, disk: &SimDisk) {
        match self {
            Ending::Crash(seed) => disk.crash(seed),
            Ending::CrashClean => disk.crash_clean(),
            Ending::Kill => disk.kill(),
        }
    }
}

fn operations(script: &[Step]) -> u64 {
    run(&SimDisk::new(), script).expect("the script runs through")
}

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
    for count in 0..operations(script) {
        let disk = SimDisk::new();
        disk.stop_after(count);
        let twin = run(&disk, script).expect_err("the power goes");
        for ending in endings {
            let disk = disk.fork();
            ending.happen(&disk);
            check_recovered(&disk, twin.clone(), &format!("operation {count}, {ending:?}"));
        }
    }
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
    for count in (0..operations(script)).step_by(7) {
        let disk = SimDisk::new();
        disk.stop_after(count);
        let twin = run(&disk, script).expect_err("the power goes");
        disk.crash(count);
        for recovery_count in 0.. {
            let disk = disk.fork();
            disk.stop_after(recovery_count);
            if open(&disk).is_ok() {
                break;
            }
            disk.crash(recovery_count);
            check_recovered(&disk, twin.clone(), &format!("operation {count}, of recovery {recovery_count}"));
        }
    }
}
