//! Whatever the order in which nodes start, they form one cluster.

use std::collections::BTreeSet;

use crate::harness::{Running, plans};

/// Nodes that are expected.
const NODES: usize = 5;
/// Formations, unless `CLUSTERKIT_FORMATION_RUNS` says otherwise.
const RUNS_DEFAULT: u64 = 20;

/// The next number of a sequence that a seed fixes (splitmix64, Steele 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The order of run `seed` (Fisher and Yates).
fn order(seed: u64) -> Vec<usize> {
    let mut state = seed;
    let mut order: Vec<usize> = (0..NODES).collect();
    for last in (1..NODES).rev() {
        let chosen = usize::try_from(next(&mut state) % (last as u64 + 1)).expect("small");
        order.swap(last, chosen);
    }
    order
}

fn form(seed: u64) -> BTreeSet<String> {
    let home = tempfile::tempdir().expect("a directory");
    let plans = plans(&home, NODES, &["--log-format", "text"]);
    let mut nodes: Vec<Running> = order(seed).into_iter().map(|index| plans[index].start()).collect();
    for node in &mut nodes {
        node.wait_for("ready in ");
    }
    let id = |plan: &crate::harness::Plan| {
        let status = plan.ask(&["status", "-o", "json"]).json();
        status["cluster"]["id"].as_str().unwrap_or("none").to_owned()
    };
    plans.iter().map(id).collect()
}

#[test]
fn forms_one_cluster() {
    let runs = std::env::var("CLUSTERKIT_FORMATION_RUNS").ok().and_then(|runs| runs.parse().ok());
    for seed in 0..runs.unwrap_or(RUNS_DEFAULT) {
        let clusters = form(seed);
        assert!(clusters.len() == 1 && !clusters.contains("none"), "run {seed}, order {:?}: {clusters:?}", order(seed));
    }
}
