//! `clusterkit demo`: faults under load, and no acknowledged write lost.

use std::time::Duration;

use crate::harness::{clusterkit, finish_within, run};

/// Longer than a demonstration waits for anything.
const PATIENCE: Duration = Duration::from_secs(400);

/// What must hold however slow the machine is. How long clients waited is for a benchmark.
fn check(scenario: &str) {
    let args = ["demo", "--scenario", scenario, "--rate", "200", "--seconds", "1", "--json"];
    let demo = finish_within(PATIENCE, clusterkit(&args));
    assert_eq!(demo.code, Some(0), "{demo:?}");
    let report = demo.json();
    assert_eq!((report["scenario"].as_str(), report["trials"].as_u64()), (Some(scenario), Some(1)));
    assert_eq!((report["lost"].as_u64(), report["duplicated"].as_u64()), (Some(0), Some(0)), "{report}");
    assert!(report["acked"].as_u64().is_some_and(|acked| acked > 100), "{report}");
}

#[test]
fn a_killed_leader_costs_no_acknowledged_write() {
    check("kill-leader");
}

#[test]
fn a_frozen_leader_costs_no_acknowledged_write() {
    check("freeze-leader");
}

#[test]
fn all_nodes_killed_at_once_cost_no_acknowledged_write() {
    check("kill-all");
}

#[test]
fn a_rolling_restart_costs_no_acknowledged_write() {
    check("rolling-restart");
}

#[test]
fn a_scenario_that_is_none_is_refused() {
    let demo = run(&["demo", "--scenario", "earthquake"]);
    assert_eq!(demo.code, Some(2), "{demo:?}");
    assert!(demo.stderr.contains("kill-leader"), "it says what there is: {demo:?}");
}
