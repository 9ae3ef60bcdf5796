//! One node, from its start to its end.

use crate::harness::{Plan, eventually, free_addr, plans, run};

fn get(addr: &str, path: &str) -> Option<(u16, String)> {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent();
    let mut answer = agent.get(format!("http://{addr}{path}")).call().ok()?;
    Some((answer.status().as_u16(), answer.body_mut().read_to_string().ok()?))
}

#[test]
fn one_node_serves_health_and_stops_in_order() {
    let home = tempfile::tempdir().expect("a directory");
    let plan = Plan::new(
        home.path(),
        "node-1",
        &["--bootstrap", "--replication-factor", "1", "--log-format", "text"],
    );
    let mut node = plan.start();
    let live = eventually("/livez", || get(&plan.http, "/livez"));
    assert_eq!(live.0, 200);
    let status = plan.wait_until("healthy");
    assert_eq!(status["health"]["state"], "healthy");
    let shown = plan.ask(&["status"]);
    assert_eq!(shown.code, Some(0));
    assert!(shown.stdout.starts_with("healthy: 1 node, 64 partitions, all led and in sync\n"), "{shown:?}");
    let text = node.wait_for("ready in ");
    let cluster = status["cluster"]["id"].as_str().expect("an id");
    assert!(text.contains("settings  defaults < options\n"), "{text}");
    assert!(
        text.contains(&format!(" ms: cluster {cluster} (\"clusterkit-cluster\"), 1 node alive")),
        "{text}"
    );
    assert_eq!(node.terminate().code(), Some(0));
    assert_eq!(node.stderr(), "");
    plan.ask(&["status"]).assert_refused(3, "connection refused; is a node running there?");
}

#[test]
fn fewer_nodes_than_copies_are_degraded() {
    let home = tempfile::tempdir().expect("a directory");
    let plan = Plan::new(home.path(), "node-1", &["--bootstrap"]);
    let _node = plan.start();
    plan.wait_until("available");
    let status = plan.ask(&["status"]);
    assert_eq!(status.code, Some(1), "{status:?}");
    assert!(
        status.stdout.starts_with("degraded: 64 partitions have fewer than 3 copies in sync"),
        "{status:?}"
    );
    plan.ask(&["status", "--wait", "healthy", "--timeout", "0s"])
        .assert_refused(1, "not healthy after 0s: degraded: ");
}

#[test]
fn health_is_served_while_the_cluster_forms() {
    let home = tempfile::tempdir().expect("a directory");
    let plan = plans(&home, 3, &[]).remove(0);
    let mut node = plan.start();
    assert_eq!(eventually("/livez", || get(&plan.http, "/livez")).0, 200);
    assert_eq!(eventually("/readyz", || get(&plan.http, "/readyz")).0, 503);
    let status = plan.ask(&["status"]);
    assert_eq!(status.code, Some(2), "{status:?}");
    assert!(status.stdout.starts_with("unavailable: the cluster has not formed yet"), "{status:?}");
    assert_eq!(node.terminate().code(), Some(0));
}

#[test]
fn any_free_port_will_do_and_is_shown() {
    let home = tempfile::tempdir().expect("a directory");
    let mut plan = Plan::new(home.path(), "node-1", &["--bootstrap", "--log-format", "text"]);
    (plan.http, plan.node) = ("127.0.0.1:0".to_owned(), "127.0.0.1:0".to_owned());
    let mut node = plan.start();
    let text = node.wait_for("ready in ");
    let row = |name: &str| {
        text.lines().find_map(|line| line.trim().strip_prefix(name)).expect(name).trim().to_owned()
    };
    plan.http = row("clients");
    assert_ne!(row("nodes"), "127.0.0.1:0");
    assert_eq!(plan.ask(&["node", "show", "node-1", "-o", "json"]).json()["public_addr"], plan.http);
}

#[test]
fn settings_come_from_a_file_and_from_older_variables() {
    let home = tempfile::tempdir().expect("a directory");
    let plan = Plan::new(home.path(), "node-1", &[]);
    let file = home.path().join("node.yaml");
    let grpc = free_addr();
    let text = format!(
        "server: {{http_addr: {:?}, grpc_addr: {grpc:?}}}\ncluster: {{bootstrap: true, replication: 1}}\nzone: a\n",
        plan.http
    );
    std::fs::write(&file, text).expect("written");
    let mut command = crate::harness::clusterkit(&["serve", "--log-format", "json"]);
    command.env("CK_CONFIG", &file).env("NODE_ID", "node-1").env("NODE_NAME", "Server-1");
    command.env("RAFT_ADDR", &plan.node).env("DATA_DIR", &plan.dir).env("CK_ZONE", "b");
    let mut node = crate::harness::Running::start(command, home.path(), "node-1");
    plan.wait_until("healthy");
    let shown = plan.ask(&["node", "show", "node-1", "-o", "json"]).json();
    assert_eq!((&shown["zone"], &shown["node_addr"]), (&"b".into(), &plan.node.clone().into()));
    assert_eq!(shown["metadata"]["name"], "Server-1");
    assert_eq!(
        get(&grpc, "/livez").map(|(code, _)| code),
        Some(200),
        "the second port has the same services"
    );
    let text = node.wait_for("ready in ");
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{text}");
}

#[test]
fn nobody_there_is_said_with_the_url() {
    let addr = free_addr();
    let expect = format!(
        "cannot reach http://{addr}: connection refused; is a node running there? (--url or CK_URL names another)"
    );
    run(&["status", "--url", &addr]).assert_refused(3, &expect);
    run(&["node", "list", "--url", &addr]).assert_refused(3, &expect);
    run(&["status", "--url", "https://127.0.0.1:1"]).assert_refused(2, "is no URL of a node");
}
