//! After a crash at any moment everything synced is there, and nothing that was removed comes back.

use bytes::Bytes;
use clusterkit_storage::disk::SimDisk;

use crate::twin::{Step, Twin, contents, open, reopen, run, script};

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

/// How many operations the script takes without a crash.
fn operations(script: &[Step]) -> u64 {
    let disk = SimDisk::new();
    assert_eq!(run(&disk, script), None, "the script runs through");
    disk.operation_count()
}

/// Runs the script up to one operation, and lets the power go in it.
fn stopped(script: &[Step], count: u64) -> (SimDisk, Twin, Twin) {
    let disk = SimDisk::new();
    disk.stop_after(count);
    let (before, after) = run(&disk, script).expect("the power goes");
    (disk, before, after)
}

/// What the log holds is one of what it may hold, and from then on it is durable.
fn check_recovered(disk: &SimDisk, before: &Twin, after: &Twin, context: &str) -> Twin {
    let found = contents(&reopen(disk));
    let possible = before.can_become(&found) || after.can_become(&found);
    assert!(possible, "{context}\nbefore {before:?}\nafter {after:?}\nfound {found:?}");
    assert_eq!(found.durable_end, found.end(), "{context}: what was recovered is durable");
    disk.crash_clean();
    assert_eq!(contents(&reopen(disk)), found, "{context}: what was recovered survives");
    found
}

/// Later appends are followed by nothing old.
fn check_goes_on(disk: &SimDisk, mut found: Twin, context: &str) {
    for round in 0..2_u64 {
        let mut log = reopen(disk);
        let payload = Bytes::from(format!("later {round}"));
        log.append(&[payload.clone(), payload.clone()]).unwrap();
        log.sync().unwrap();
        log.truncate_from(log.next_index() - 1).unwrap();
        found.apply(&Step::Append(vec![payload]));
        log.append(&[Bytes::from("unsynced")]).unwrap();
        disk.crash_clean();
        let now = contents(&reopen(disk));
        assert_eq!((now.first, &now.records), (found.first, &found.records), "{context}, round {round}");
    }
}

fn check_every_point(seed: u64, steps: usize, endings: &[Ending]) {
    let script = script(seed, steps);
    for count in 0..operations(&script) {
        for ending in endings {
            let context = format!("script {seed}, operation {count}, {ending:?}");
            let (disk, before, after) = stopped(&script, count);
            ending.happen(&disk);
            let found = check_recovered(&disk, &before, &after, &context);
            check_goes_on(&disk, found, &context);
        }
    }
}

#[test]
fn a_crash_at_any_operation_keeps_what_was_synced() {
    for seed in 0..6 {
        check_every_point(seed, 40, &[Ending::Crash(seed), Ending::Crash(seed + 1_000)]);
    }
}

#[test]
fn a_crash_that_keeps_nothing_unsynced_keeps_what_was_synced() {
    for seed in 100..103 {
        check_every_point(seed, 40, &[Ending::CrashClean]);
    }
}

#[test]
fn a_process_that_ends_at_any_operation_leaves_a_log_that_survives_a_later_crash() {
    for seed in 200..203 {
        check_every_point(seed, 40, &[Ending::Kill]);
    }
}

#[test]
fn a_crash_during_recovery_changes_nothing_of_what_may_be_found() {
    let script = script(300, 40);
    for count in 0..operations(&script) {
        let (disk, before, after) = stopped(&script, count);
        disk.crash(count);
        for recovery_count in 0.. {
            let disk = disk.fork();
            disk.stop_after(recovery_count);
            if open(&disk).is_ok() {
                break;
            }
            disk.crash(recovery_count);
            let context = format!("operation {count}, operation {recovery_count} of the recovery");
            check_recovered(&disk, &before, &after, &context);
        }
    }
}

#[test]
fn a_run_repeats_exactly() {
    let outcome = |seed| {
        let (disk, _, _) = stopped(&script(400, 40), 60);
        disk.crash(seed);
        contents(&reopen(&disk))
    };
    (0..20).for_each(|seed| assert_eq!(outcome(seed), outcome(seed)));
}
