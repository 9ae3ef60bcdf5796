//! The model in short: nothing breaks in a short walk, what is easily found is found, and what was found once
//! stays found.

use std::time::Duration;

use clusterkit_sim::model::{Bounds, Invariant, Purpose, Rule, Walk, exhaust, hunt, replay};

/// Steps of the short walk, a few seconds without optimisation.
const STEPS: u64 = 400_000;

/// Rules whose absence shows within so many steps.
const QUICK_STEPS: u64 = 150_000;

const QUICK: &[Rule] = &[
    Rule::CommitByMaximalSet,
    Rule::CommitOwnDurable,
    Rule::NoOpOnElection,
    Rule::AppendChecksStart,
    Rule::AckDurable,
    Rule::DeduplicateOnApply,
    Rule::ReplyAfterCommit,
    Rule::LogTimeForward,
    Rule::AttachDurable,
    Rule::TruncateByEpoch,
    Rule::TruncateAtAll,
    Rule::TruncateUntilMatch,
    Rule::SnapshotOfCommitted,
    Rule::ProposalKeptUntilVersion,
    Rule::InSyncAtLeastMinimum,
    Rule::DeleteAfterConfiguration,
    Rule::AdoptForward,
    Rule::RestartEndsEpoch,
    Rule::TaintAfterLoss,
    Rule::DamageStepsOut,
    Rule::ReadsNeedActive,
];

#[test]
fn a_short_walk_breaks_nothing() {
    let mut walk = Walk::new(1, &[]);
    let trace = walk.until(STEPS);
    assert!(trace.is_none(), "{}", trace.expect("a trace"));
    assert!(walk.healings() > 0);
}

/// Far above what a search here takes.
const SEARCH_TIME: Duration = Duration::from_mins(10);

#[test]
fn every_order_of_a_few_events_breaks_nothing() {
    let exhaustion = exhaust(Bounds::SETS[0].1, &[], 2, SEARCH_TIME);
    assert!(exhaustion.is_complete, "{exhaustion}\n{:?}", exhaustion.broken);
    assert!(exhaustion.states > 10_000, "{exhaustion}");
}

#[test]
fn a_search_misses_a_rule_that_is_taken_out() {
    let (_, bounds) = Bounds::SETS[2];
    let exhaustion = exhaust(bounds, &[Rule::AppendChecksStart], 2, SEARCH_TIME);
    assert!(exhaustion.broken.is_some(), "{exhaustion}");
}

#[test]
fn what_is_taken_out_is_missed() {
    for rule in QUICK {
        let finding = hunt(*rule, 1, QUICK_STEPS);
        assert!(finding.is_some(), "{} is not missed", rule.name());
        assert_ne!(rule.purpose(), Purpose::Convenience, "{}", rule.name());
    }
}

#[test]
fn the_same_seed_takes_the_same_way() {
    let trace = || hunt(Rule::TruncateAtAll, 7, QUICK_STEPS).expect("a trace").trace.to_string();
    assert_eq!(trace(), trace());
}

/// Replays a kept trace: it breaks `invariant` without `rule`, and nothing with it.
fn check(trace: &str, rule: Rule, invariant: Invariant) {
    assert_eq!(replay(trace, &[rule]), Ok(Some(invariant)), "without {}", rule.name());
    assert_eq!(replay(trace, &[]), Ok(None), "with {}", rule.name());
}

#[test]
fn late_attach_of_an_earlier_run_is_dropped() {
    let trace = include_str!("traces/late_attach_of_an_earlier_run.txt");
    check(trace, Rule::AttachChecksIncarnation, Invariant::I15);
}

#[test]
fn farewell_that_nobody_can_follow_is_refused() {
    let trace = include_str!("traces/farewell_that_nobody_can_follow.txt");
    check(trace, Rule::FarewellRefused, Invariant::I15);
}

#[test]
fn snapshot_keeps_the_epoch_index() {
    let trace = include_str!("traces/snapshot_without_epoch_index.txt");
    check(trace, Rule::SnapshotKeepsEpochIndex, Invariant::I6);
}

#[test]
fn failed_sync_taints_although_the_machine_did_not_restart() {
    let trace = include_str!("traces/failed_sync_without_restart_of_the_machine.txt");
    check(trace, Rule::TaintAfterSyncError, Invariant::I3);
}

#[test]
fn status_of_an_earlier_run_elects_nobody() {
    let trace = include_str!("traces/status_of_an_earlier_run.txt");
    check(trace, Rule::UncleanChecksIncarnation, Invariant::I3);
}

#[test]
fn status_of_an_earlier_epoch_elects_nobody() {
    let trace = include_str!("traces/status_of_an_earlier_epoch.txt");
    check(trace, Rule::UncleanChecksEpoch, Invariant::I12);
}

#[test]
fn a_trace_that_cannot_be_read_is_named_by_line() {
    let trace = "I1 breaks\nworld nodes 3 copies 3 minimum 2 warm 1 synced 1 clocks 0 0 0 0 0\n1. Dance";
    assert_eq!(replay(trace, &[]).expect_err("unreadable").line, 3);
}
