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
fn order(seed: u64, nodes: usize) -> Vec<usize> {
    let mut state = seed;
    let mut order: Vec<usize> = (0..nodes).collect();
    for last in (1..nodes).rev() {
        let chosen = usize::try_from(next(&mut state) % (last as u64 + 1)).expect("small");
        order.swap(last, chosen);
    }
    order
}

/// The clusters that `nodes` nodes form.
fn form(seed: u64, nodes: usize) -> BTreeSet<String> {
    let home = tempfile::tempdir().expect("a directory");
    let plans = plans(&home, nodes, &["--log-format", "text"]);
    let mut running: Vec<Running> =
        order(seed, nodes).into_iter().map(|index| plans[index].start()).collect();
    for node in &mut running {
        node.wait_for("ready in ");
    }
    let id = |plan: &crate::harness::Plan| {
        let status = plan.ask(&["status", "-o", "json"]).json();
        status["cluster"]["id"].as_str().unwrap_or("none").to_owned()
    };
    plans.iter().map(id).collect()
}

fn check(seed: u64, nodes: usize) {
    let clusters = form(seed, nodes);
    let order = order(seed, nodes);
    assert!(clusters.len() == 1 && !clusters.contains("none"), "run {seed}, order {order:?}: {clusters:?}");
}

#[test]
fn forms_one_cluster() {
    let runs = std::env::var("CLUSTERKIT_FORMATION_RUNS").ok().and_then(|runs| runs.parse().ok());
    for seed in 0..runs.unwrap_or(RUNS_DEFAULT) {
        check(seed, NODES);
    }
}

#[test]
fn more_nodes_than_can_vote_form_one_cluster() {
    check(0, clusterkit::core::limits::VOTERS_MAX + 2);
}
