//! A hook that holds things up is named wherever one may look.

use std::time::Duration;

use clusterkit::hooks::{CatchUp, HookConfig, PartitionHandler, StageResult};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::client::{get, get_json};
use super::lint::lint;
use super::node::{TestNode, is_whole, launch_with, single, wait_for};

/// Copies a part, and the rest when it is told to.
#[derive(Debug, Clone)]
struct Slow {
    told: watch::Receiver<bool>,
}

impl PartitionHandler for Slow {
    async fn catch_up(&self, stage: CatchUp) -> StageResult {
        stage.context.progress(10, Some(40));
        let mut told = self.told.clone();
        // An error means that the test is over.
        drop(told.wait_for(|told| *told).await);
        Ok(())
    }
}

/// One node that holds everything, and one that copies all of it until it is told to end.
async fn copying() -> (TestNode, TestNode, watch::Sender<bool>) {
    let (tell, told) = watch::channel(false);
    let first = single().await;
    let hooks = HookConfig { catch_up_deadline: Duration::from_millis(50), ..HookConfig::default() };
    let configure = |builder: clusterkit::Builder| builder.handler(Slow { told }).hook_config(hooks);
    let second = launch_with("node-2", &[first.ck.node_addr()], configure).await;
    second.ck.ready().await.expect("a member");
    for node in [&first, &second] {
        let late = |topology: &clusterkit::Topology| topology.partitions.iter().all(|p| p.overrun.is_some());
        wait_for(&node.ck, late).await;
    }
    (first, second, tell)
}

fn kinds(events: &Value) -> Vec<&str> {
    let items = events["items"].as_array().expect("events").iter();
    items.filter_map(|event| event["kind"].as_str()).collect()
}

#[tokio::test]
async fn a_late_hook_is_named_in_everything_that_tells_of_the_cluster() {
    let (first, second, tell) = copying().await;
    let hook = json!({"node": "node-2", "stage": "catch_up"});
    let status = get_json(first.addr, "/v1/status").await;
    assert_eq!((&status["moves"], &status["overruns"][7]["partition"]), (&json!(8), &json!(7)));
    assert_eq!(
        (&status["overruns"][7]["node"], &status["overruns"][7]["stage"]),
        (&hook["node"], &hook["stage"])
    );
    let expect = json!({"partition": 3, "source": null, "target": "node-2", "awaits": hook});
    assert_eq!(status["movements"][3], expect);
    let sentence = status["health"]["sentence"].as_str().expect("a sentence");
    assert!(
        sentence.contains("catch_up of partition-0 and 7 more on node-2 is past its deadline"),
        "{sentence}"
    );
    let detailed = get_json(first.addr, "/health/detailed").await;
    let codes = detailed["reasons"].as_array().expect("reasons").iter().map(|reason| &reason["code"]);
    assert!(codes.clone().any(|code| code == "hook_overran"), "{detailed}");
    let ready = get(second.addr, "/readyz?verbose").await;
    assert_eq!(ready.status, 200, "{}", ready.text);
    let expect = "[+]hooks catch_up of partition-0 and 7 more are past their deadlines\n";
    assert!(ready.text.contains(expect), "{}", ready.text);
    let check = get_json(first.addr, "/v1/nodes/node-2/stop-check").await;
    assert_eq!(check["partitions_catching_up"], json!([0, 1, 2, 3, 4, 5, 6, 7]));
    assert_eq!(check["safe"], false);
    let events = get_json(first.addr, "/v1/events?follow=false").await;
    assert!(kinds(&events).contains(&"hook_overran"), "{events}");

    tell.send(true).expect("it listens");
    for node in [&first, &second] {
        let on_time =
            |topology: &clusterkit::Topology| topology.partitions.iter().all(|p| p.overrun.is_none());
        wait_for(&node.ck, |topology| is_whole(topology, 2) && on_time(topology)).await;
    }
    let status = get_json(first.addr, "/v1/status").await;
    assert_eq!((&status["movements"], &status["overruns"]), (&json!([]), &json!([])));
    let events = get_json(first.addr, "/v1/events?follow=false").await;
    assert!(kinds(&events).contains(&"hook_on_time"), "{events}");
}

#[tokio::test]
async fn the_node_that_runs_a_hook_tells_how_it_goes_and_others_where_to_ask() {
    let (first, second, tell) = copying().await;
    let here = get_json(second.addr, "/v1/partitions/3").await;
    let stage = &here["stages"][0];
    assert_eq!(
        (&stage["node"], &stage["stage"], &stage["late"]),
        (&json!("node-2"), &json!("catch_up"), &json!(true))
    );
    let attempt = &stage["attempt"];
    for (field, value) in [
        ("running", json!(true)),
        ("calls", json!(1)),
        ("bytes", json!(10)),
        ("bytes_total", json!(40)),
        ("permits", json!(0)),
        ("reason", Value::Null),
    ] {
        assert_eq!(attempt[field], value, "{field} of {attempt}");
    }
    assert!(attempt["since"].as_str() < attempt["late_since"].as_str(), "{attempt}");
    let blocked = "the move waits until node-2 has what the other copies have, which is past its deadline";
    let there = get_json(first.addr, "/v1/partitions/3").await;
    for partition in [&here, &there] {
        assert_eq!(partition["blocked_by"], blocked);
        assert_eq!(partition["overrun"], json!({"node": "node-2", "stage": "catch_up"}));
    }
    let expect = json!([{
        "node": "node-2", "public_addr": second.addr.to_string(), "stage": "catch_up", "late": true, "attempt": null,
    }]);
    assert_eq!(there["stages"], expect);
    let reasons = there["reasons"].as_array().expect("reasons");
    assert!(reasons.contains(&json!("catch_up on node-2 is past its deadline")), "{there}");

    let series = lint(&get(second.addr, "/metrics").await.text);
    let check = |name: &str, expect: f64| assert_eq!(series.get(name).copied(), Some(expect), "{name}");
    check("clusterkit_hook_overruns_total{stage=\"catch_up\"}", 8.0);
    check("clusterkit_hooks_running{stage=\"catch_up\"}", 8.0);
    check("clusterkit_hooks_overdue{stage=\"catch_up\"}", 8.0);
    check("clusterkit_hook_copied_bytes", 80.0);
    check("clusterkit_hook_remaining_bytes", 240.0);
    check("clusterkit_leases", 0.0);
    drop(tell);
}
