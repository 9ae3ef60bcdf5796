//! Several `serve` processes, and the commands that operate them.

use serde_json::Value;

use crate::harness::{Plan, Running, eventually, plans};

/// A cluster that has formed.
fn formed(plans: &[Plan]) -> Vec<Running> {
    let nodes = plans.iter().map(Plan::start).collect();
    for plan in plans {
        let status = eventually("all nodes alive and healthy", || {
            let status = plan.wait_until("healthy");
            let alive =
                status["nodes"].as_array().expect("nodes").iter().filter(|node| node["status"] == "alive");
            (alive.count() == plans.len()).then_some(status)
        });
        assert_eq!(status["partitions"]["ok"], status["partitions"]["total"]);
    }
    nodes
}

fn store(plan: &Plan, node: &str) -> Value {
    plan.ask(&["node", "show", node, "-o", "json"]).json()["store"].clone()
}

#[test]
fn a_killed_node_costs_copies_and_comes_back_as_itself() {
    let home = tempfile::tempdir().expect("a directory");
    let plans = plans(&home, 3, &[]);
    let mut nodes = formed(&plans);
    let cluster = plans[0].wait_until("healthy")["cluster"]["id"].clone();
    let before = store(&plans[0], "node-3");

    nodes[2].kill();
    // It is unavailable while partitions have no leader, or the control plane has none.
    eventually("node-3 dead and all partitions led", || {
        let status = plans[0].ask(&["status", "-o", "json"]);
        let seen = status.json();
        let dead =
            seen["nodes"].as_array()?.iter().any(|node| node["id"] == "node-3" && node["status"] == "dead");
        (dead && seen["partitions"]["leaderless"] == 0 && status.code == Some(1)).then_some(())
    });
    let sentence = plans[0].ask(&["status"]).stdout;
    assert!(sentence.starts_with("degraded: "), "{sentence}");
    for part in ["node-3 is dead", "64 partitions have fewer than 3 copies in sync"] {
        assert!(sentence.lines().next().is_some_and(|line| line.contains(part)), "{part:?} in {sentence}");
    }

    nodes[2] = plans[2].start();
    let status = eventually("healthy again", || {
        let status = plans[0].wait_until("healthy");
        (status["nodes"][2]["status"] == "alive").then_some(status)
    });
    assert_eq!(status["cluster"]["id"], cluster);
    assert_eq!(store(&plans[0], "node-3"), before);
}

#[test]
fn commands_show_a_cluster_and_take_a_node_out() {
    let home = tempfile::tempdir().expect("a directory");
    let plans = plans(&home, 4, &["--partitions", "8", "--metadata", "rack=r1"]);
    let mut nodes = formed(&plans);
    let ask = |args: &[&str]| {
        let finished = plans[1].ask(args);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{args:?}: {finished:?}");
        finished.stdout
    };

    let list = ask(&["node", "list"]);
    assert_eq!(list.lines().count(), 5, "{list}");
    assert!(list.starts_with("NODE    STATUS  CONTROL"), "{list}");
    assert!(ask(&["node", "show", "node-2"]).contains("metadata     rack=r1\n"));
    assert_eq!(ask(&["partition", "list"]).lines().count(), 9);
    // Copies may still move and leads be handed over: a cluster is healthy meanwhile.
    let comes_to_say = |args: &[&str], part: &str| {
        eventually(part, || {
            let said = plans[1].ask(args);
            (said.code == Some(0) && said.stdout.contains(part)).then_some(())
        });
    };
    for partition in 0..8 {
        comes_to_say(&["partition", "explain", &format!("partition-{partition}")], "It is as it should be.");
    }
    assert!(ask(&["partition", "who", "user:1"]).starts_with("\"user:1\" is in partition-"));
    comes_to_say(&["node", "stop-check", "node-3"], "yes: node-3 may be stopped now");
    assert!(ask(&["node", "drain", "node-3", "--dry-run"]).starts_with("node-3 would give away "));
    plans[1]
        .ask(&["node", "show", "node-33"])
        .assert_refused(1, "no node is called \"node-33\"; did you mean `node-3`?");
    plans[1].ask(&["partition", "explain", "99"]).assert_refused(1, "");
    plans[1].ask(&["node", "remove", "node-3", "--force"]).assert_refused(2, "--yes");

    let drained = ask(&["node", "drain", "node-3"]);
    assert!(drained.ends_with("node-3 has left: its process ends by itself\n"), "{drained}");
    assert_eq!(nodes[2].wait().code(), Some(0), "{}", nodes[2].stderr());
    assert!(nodes[2].stdout().contains("this node has left the cluster"), "{}", nodes[2].stdout());
    assert_eq!(nodes[2].stderr(), "");
    let left = plans[1].ask(&["node", "show", "node-3", "-o", "json"]).json();
    assert_eq!(left["status"], "left");
    assert!(ask(&["events"]).contains("node_left           node-3\n"));
    assert_eq!(ask(&["node", "remove", "node-3"]), "node-3 is removed\n");
    plans[1].ask(&["node", "show", "node-3"]).assert_refused(1, "no node is called \"node-3\"");
}

#[test]
fn a_node_that_is_asked_to_drain_itself_leaves_and_ends() {
    let home = tempfile::tempdir().expect("a directory");
    let plans = plans(&home, 4, &["--partitions", "8", "--log-format", "text"]);
    let mut nodes = formed(&plans);
    let drained = plans[0].ask(&["node", "drain", "node-1"]);
    assert_eq!((drained.code, drained.stderr.as_str()), (Some(0), ""), "{drained:?}");
    assert!(drained.stdout.ends_with("node-1 has left: its process ends by itself\n"), "{drained:?}");
    assert_eq!(nodes[0].wait().code(), Some(0), "{}", nodes[0].stderr());
    assert!(nodes[0].stdout().ends_with("\nthis node has left the cluster\n"), "{}", nodes[0].stdout());
    assert_eq!(nodes[0].stderr(), "");
    assert_eq!(plans[1].ask(&["node", "show", "node-1", "-o", "json"]).json()["status"], "left");
}

#[test]
fn events_are_followed_as_they_happen() {
    let home = tempfile::tempdir().expect("a directory");
    let plan = Plan::new(home.path(), "node-1", &["--bootstrap", "--replication-factor", "1"]);
    let mut node = plan.start();
    plan.wait_until("healthy");
    let command = crate::harness::clusterkit(&["events", "--follow", "-o", "json", "--url", &plan.http]);
    let mut events = Running::start(command, home.path(), "events");
    let joining = Plan::new(home.path(), "node-2", &["--seeds", &plan.http]);
    let _second = joining.start();
    let text = events.wait_for("\"kind\":\"node_joined\",\"node\":\"node-2\"}\n");
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
    node.terminate();
    assert_eq!(events.wait().code(), Some(3));
    assert!(events.stderr().contains("the stream of events has ended"), "{}", events.stderr());
}
