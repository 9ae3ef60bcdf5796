//! The simulator in short: nothing breaks, it heals, a seed repeats itself, and what is planted is found.

use std::time::Duration;

use clusterkit_core::replica::Mistake;
use clusterkit_sim::replicas::{Options, run};

/// Seeds of the short form.
const SEEDS: u64 = 12;
/// Simulated time of each.
const TIME: Duration = Duration::from_secs(40);
/// Simulated time in which a planted mistake shows.
const MUTANT_TIME: Duration = Duration::from_secs(60);
/// Seeds in which a planted mistake shows.
const MUTANT_SEEDS: u64 = 12;

fn options(time: Duration) -> Options {
    Options { time, ..Options::default() }
}

#[test]
fn no_seed_breaks_an_invariant_and_all_heal() {
    for seed in 0..SEEDS {
        let report = run(seed, &options(TIME));
        assert!(report.breach.is_none(), "seed {seed}: {:?}", report.breach);
        assert!(report.heals.0 > 0 && report.committed > 0, "seed {seed}: {report:?}");
    }
}

#[test]
fn a_cluster_without_faults_serves() {
    let report = run(1, &Options { calm: true, shape: Some((3, 1, 3)), ..options(TIME) });
    assert!(report.breach.is_none(), "{:?}", report.breach);
    assert!(report.committed > 30, "{} committed", report.committed);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let [first, second, other] = [5, 5, 6].map(|seed| run(seed, &options(TIME)));
    assert_eq!((first.hash, first.steps), (second.hash, second.steps));
    assert_ne!(first.hash, other.hash);
}

#[test]
fn what_is_planted_is_found() {
    let quick = [
        Mistake::AckBeforeDurable,
        Mistake::ApplyUncommitted,
        Mistake::AttachUnchecked,
        Mistake::CommitByMajority,
        Mistake::CommitOwnUnsynced,
        Mistake::ReplyBeforeCommit,
        Mistake::StampBackwards,
        Mistake::TruncateToCommit,
    ];
    for mistake in quick {
        let options = Options { mistake: Some(mistake), ..options(MUTANT_TIME) };
        let is_found = (0..MUTANT_SEEDS).any(|seed| run(seed, &options).breach.is_some());
        assert!(is_found, "{} is not missed", mistake.name());
    }
}
