//! After a crash at any moment everything synced is there, and nothing that was removed comes back.

use bytes::Bytes;
use clusterkit_storage::disk::SimDisk;

use crate::support::{Ending, cut_at, cut_at_every_operation, cut_every_recovery};
use crate::twin::{Step, Twin, contents, open, reopen, run, script};

/// What the log holds is one of what it may hold, and from then on it is durable.
pub(crate) fn check_recovered(disk: &SimDisk, (before, after): &(Twin, Twin), context: &str) -> Twin {
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

fn check_every_point(seed: u64, endings: &[Ending]) {
    let script = script(seed, 40);
    cut_at_every_operation(
        endings,
        |disk| run(disk, &script),
        |disk, twins, context| {
            let context = format!("script {seed}, {context}");
            let found = check_recovered(disk, twins, &context);
            check_goes_on(disk, found, &context);
        },
    );
}

#[test]
fn a_crash_at_any_operation_keeps_what_was_synced() {
    for seed in 0..6 {
        check_every_point(seed, &[Ending::Crash(seed), Ending::Crash(seed + 1_000)]);
    }
}

#[test]
fn a_crash_that_keeps_nothing_unsynced_keeps_what_was_synced() {
    for seed in 100..103 {
        check_every_point(seed, &[Ending::CrashClean]);
    }
}

#[test]
fn a_process_that_ends_at_any_operation_leaves_a_log_that_survives_a_later_crash() {
    for seed in 200..203 {
        check_every_point(seed, &[Ending::Kill]);
    }
}

#[test]
fn a_crash_during_recovery_changes_nothing_of_what_may_be_found() {
    let script = script(300, 40);
    cut_every_recovery(
        1,
        |disk| run(disk, &script),
        open,
        |disk, twins, context| {
            check_recovered(disk, twins, context);
        },
    );
}

#[test]
fn a_run_repeats_exactly() {
    let outcome = |seed| {
        let (disk, _) = cut_at(60, |disk| run(disk, &script(400, 40)));
        disk.crash(seed);
        contents(&reopen(&disk))
    };
    (0..20).for_each(|seed| assert_eq!(outcome(seed), outcome(seed)));
}
