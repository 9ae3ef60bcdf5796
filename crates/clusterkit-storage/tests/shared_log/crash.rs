//! After a crash at any moment everything synced is there, and nothing that was removed comes back.

use bytes::Bytes;
use clusterkit_storage::disk::SimDisk;
use clusterkit_storage::shared_log::{Log, SharedLog, StreamId};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::support::{Ending, cut_at, cut_at_every_operation, cut_every_recovery, operations};
use crate::twin::{Step, Streams, Twin, contents, open, reopen, run, script};

/// What the log holds is one of what it may hold, and from then on it is durable.
pub(crate) fn check_recovered(disk: &SimDisk, twin: &Twin, context: &str) -> Streams {
    let found = contents(&reopen(disk));
    assert!(twin.possible.contains(&found), "{context}\npossible {:?}\nfound {found:?}", twin.possible);
    disk.crash_clean();
    assert_eq!(contents(&reopen(disk)), found, "{context}: what was recovered survives");
    found
}

/// Later changes are followed by nothing old.
fn check_goes_on(disk: &SimDisk, found: Streams, context: &str) {
    let mut twin = Twin { possible: Vec::new(), now: found };
    for round in 0..2_u64 {
        let mut log = reopen(disk);
        let payload = Bytes::from(format!("later {round}"));
        for (id, stream) in twin.now.clone() {
            let batch = [payload.clone(), payload.clone()];
            log.append(StreamId(id), stream.end(), &batch).unwrap();
            log.truncate(StreamId(id), stream.end() + 1).unwrap();
            twin.apply(&Step::Append(id, vec![payload.clone()]));
        }
        log.sync().unwrap();
        for (id, stream) in &twin.now {
            log.append(StreamId(*id), stream.end(), &[Bytes::from("unsynced")]).unwrap();
        }
        disk.crash_clean();
        assert_eq!(contents(&reopen(disk)), twin.now, "{context}, round {round}");
    }
}

fn check_every_point(seed: u64, endings: &[Ending]) {
    let script = script(seed, 60);
    cut_at_every_operation(
        endings,
        |disk| run(disk, &script),
        |disk, twin, context| {
            let context = format!("script {seed}, {context}");
            let found = check_recovered(disk, twin, &context);
            check_goes_on(disk, found, &context);
        },
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    // A script of fewer steps is the beginning of the longer one, so a failure shrinks to its last step.
    #[test]
    fn random_steps_agree_with_the_twin(seed in any::<u64>(), steps in 1..160_usize) {
        run(&SimDisk::new(), &script(seed, steps)).expect("the script runs through");
    }

    #[test]
    fn a_crash_anywhere_leaves_what_may_be_left(seed in any::<u64>(), steps in 1..160_usize, cut in any::<Index>()) {
        let script = script(seed, steps);
        let operations = operations(|disk| run(disk, &script));
        let count = cut.index(operations as usize) as u64;
        let (disk, twin) = cut_at(count, |disk| run(disk, &script));
        disk.crash(seed);
        let found = check_recovered(&disk, &twin, "random");
        check_goes_on(&disk, found, "random");
    }
}

#[test]
fn a_crash_at_any_operation_keeps_what_was_synced() {
    for seed in 0..4 {
        check_every_point(seed, &[Ending::Crash(seed), Ending::Crash(seed + 1_000)]);
    }
}

#[test]
fn a_crash_that_keeps_nothing_unsynced_keeps_what_was_synced() {
    for seed in 100..102 {
        check_every_point(seed, &[Ending::CrashClean]);
    }
}

#[test]
fn a_process_that_ends_at_any_operation_leaves_a_log_that_survives_a_later_crash() {
    for seed in 200..202 {
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
        |disk, twin, context| {
            check_recovered(disk, twin, context);
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

#[test]
fn a_prepared_segment_that_came_too_late_is_no_hole() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    log.create(StreamId(1), 0).unwrap();
    log.prepare_next().unwrap();
    let fill = |log: &mut SharedLog, count| {
        while log.segment_count() < count {
            let end = log.stream(StreamId(1)).unwrap().records.end;
            log.append(StreamId(1), end, &[Bytes::from(vec![1; 900])]).unwrap();
        }
    };
    fill(&mut log, 2);
    let late = log.begin_upkeep().expect("a segment is missing");
    fill(&mut log, 3);
    log.finish_upkeep(late.run()).unwrap();
    fill(&mut log, 4);
    // The table of the last segment is not written yet.
    drop(log);
    disk.kill();
    let found = contents(&reopen(&disk));
    assert!(found[&1].records.len() > 40, "{}", found[&1].records.len());
}
