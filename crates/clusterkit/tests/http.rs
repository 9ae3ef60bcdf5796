//! The public port of real nodes, over real connections.

#[path = "http/client.rs"]
mod client;
#[path = "http/hooks.rs"]
mod hooks;
#[path = "http/lint.rs"]
mod lint;
#[path = "http/node.rs"]
mod node;
#[cfg(feature = "http-client")]
#[path = "http/requests.rs"]
mod requests;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clusterkit::http::limits::{BODY_BYTES_MAX, HEADER_BYTES_MAX, KEY_BYTES_MAX};
use clusterkit::{ClusterKit, NodeStatus, Topology, http};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::client::{Ask, EventStream, Reply, get, get_json};
use self::lint::{Series, lint};
use self::node::{TestNode, eventually, is_whole, launch, single, start, three, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);

/// A problem document with this status and code; gives its detail.
fn check_problem(reply: &Reply, status: u16, code: &str) -> String {
    assert_eq!(reply.status.as_u16(), status, "{}", reply.text);
    assert_eq!(reply.header("content-type"), "application/problem+json");
    let problem = reply.json();
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["status"], status);
    assert_eq!(problem["request_id"], reply.header("x-request-id"));
    assert!(problem["type"].as_str().is_some_and(|link| link.ends_with(&format!("#{code}"))), "{problem}");
    for field in ["title", "detail", "instance"] {
        assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {problem}");
    }
    assert!(problem["retryable"].is_boolean());
    problem["detail"].as_str().unwrap_or_default().to_owned()
}

/// Every name of `fields` is there.
fn check_fields(object: &Value, fields: &[&str]) {
    for field in fields {
        assert!(object.get(field).is_some(), "{field} is missing in {object}");
    }
}

#[tokio::test]
async fn the_topology_has_all_that_a_client_routes_by() {
    let node = single().await;
    let topology = get_json(node.addr, "/v1/topology").await;
    check_fields(&topology, &["cluster", "version", "route_version", "hash_config", "nodes", "partitions"]);
    assert_eq!(topology["cluster"]["name"], "clusterkit-cluster");
    assert_eq!(topology["hash_config"]["algorithm"], "crc16-slots");
    assert_eq!(topology["hash_config"]["partition_count"], 8);
    assert_eq!(topology["hash_config"]["slot_count"], 16_384);
    for sample in topology["hash_config"]["samples"].as_array().expect("samples") {
        let partition = node.ck.partition(sample["key"].as_str().expect("a key").as_bytes());
        assert_eq!(Some(sample["partition"].clone()), partition.map(|partition| json!(partition.0)));
    }
    let partition = &topology["partitions"][5];
    assert_eq!((&partition["id"], &partition["name"]), (&json!(5), &json!("partition-5")));
    assert_eq!(partition["leader"], "node-1");
    assert_eq!(partition["replicas"][0]["node"], "node-1");
    check_fields(
        partition,
        &[
            "epoch",
            "origin",
            "version",
            "in_sync",
            "min_in_sync",
            "transfer",
            "movement",
            "overrun",
            "health",
        ],
    );
    assert_eq!(partition["replicas"][0]["lapses"], 0);
    let shown = &topology["nodes"][0];
    assert_eq!((&shown["id"], &shown["status"]), (&json!("node-1"), &json!("alive")));
    assert_eq!(shown["public_addr"], node.addr.to_string());
    assert_eq!(shown["metadata"]["rack"], "r1");
}

#[tokio::test]
async fn a_topology_that_the_client_has_is_not_sent_again() {
    let node = single().await;
    for path in ["/v1/topology", "/cluster", "/partitions"] {
        let first = get(node.addr, path).await;
        let tag = first.header("etag").to_owned();
        assert_eq!(tag, format!("\"{}\"", node.ck.topology().route_version), "{path}");
        assert_eq!(first.header("ck-topology"), tag.trim_matches('"'));
        for known in [tag.clone(), format!("W/{tag}"), format!("\"0\", {tag}"), "*".to_owned()] {
            let again = Ask::get(path).header("if-none-match", &known).send(node.addr).await;
            assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""), "{path} {known}");
            assert_eq!(again.header("etag"), tag);
        }
        let other = Ask::get(path).header("if-none-match", "\"0\"").send(node.addr).await;
        assert_eq!(other.status, 200, "{path}");
        let head = Ask::new("HEAD", path).send(node.addr).await;
        assert_eq!((head.status.as_u16(), head.text.as_str(), head.header("etag")), (200, "", tag.as_str()));
    }
}

#[tokio::test]
async fn a_long_poll_is_answered_as_soon_as_routes_change() {
    let node = single().await;
    let tag = get(node.addr, "/v1/topology").await.header("etag").to_owned();
    let waiting = Ask::get("/v1/topology?wait=30s").header("if-none-match", &tag).send(node.addr);
    let waiting = tokio::spawn(waiting);
    let second = start("node-2", &[node.ck.node_addr()]).await;
    let answer = timeout(PATIENCE, waiting).await.expect("in time").expect("an answer");
    assert_eq!(answer.status, 200);
    assert_ne!(answer.header("etag"), tag);
    assert_eq!(answer.json()["nodes"][1]["id"], "node-2");
    drop(second);
}

#[tokio::test]
async fn a_long_poll_without_news_ends_in_time_or_when_the_port_closes() {
    let node = single().await;
    let settled = node.ck.topology().route_version;
    let tag = format!("\"{settled}\"");
    let poll = |wait: &str, tag: &str| {
        Ask::get(&format!("/v1/topology?wait={wait}")).header("if-none-match", tag).send(node.addr)
    };
    assert_eq!(poll("100ms", &tag).await.status, 304);
    let ahead = format!("\"{}\"", settled.0 + 100);
    assert_eq!(poll("100ms", &ahead).await.status, 200, "a client of another history gets this one");
    assert_eq!(poll("60s", "\"0\"").await.status, 200, "older than what there is: at once");
    let waiting = tokio::spawn(poll("60s", &tag));
    let streaming = EventStream::open(Ask::get("/v1/events"), node.addr).await;
    node.close.cancel();
    timeout(PATIENCE, node.served).await.expect("the port closes in time").expect("no panic");
    assert_eq!(timeout(PATIENCE, waiting).await.expect("in time").expect("an answer").status, 304);
    let mut streaming = streaming;
    while streaming.next().await.is_some() {}
}

#[tokio::test]
async fn a_key_is_routed_as_the_library_routes_it() {
    let node = single().await;
    for (query, key) in
        [("key=user%3A1", b"user:1".as_slice()), ("key_hex=ff00", &[0xff, 0]), ("key=%FF%00", &[0xff, 0])]
    {
        let route = get_json(node.addr, &format!("/v1/route?{query}")).await;
        let partition = node.ck.partition(key).expect("formed");
        assert_eq!(route["partition"], partition.0, "{query}");
        assert_eq!(route["name"], partition.to_string());
        assert_eq!(route["slot"], clusterkit::core::hash::slot_of(key));
        assert_eq!(route["leader"]["id"], "node-1");
        assert_eq!(route["leader"]["public_addr"], node.addr.to_string());
        assert_eq!(route["replicas"][0]["id"], "node-1");
        assert_eq!(route["epoch"], node.ck.partition_info(partition).expect("a record").epoch.0);
        let number = get_json(node.addr, &format!("/cluster/partition?{query}")).await;
        assert_eq!(number["partition"], partition.0);
        let object = get_json(node.addr, &format!("/partitions/key?{query}")).await;
        assert_eq!(
            (&object["id"], &object["primary_node"]),
            (&json!(partition.to_string()), &json!("node-1"))
        );
    }
    assert_eq!(get_json(node.addr, "/v1/route?key=user:1").await["key"], "user:1");
    assert_eq!(get_json(node.addr, "/v1/route?key_hex=ff00").await["key"], Value::Null);
}

#[tokio::test]
async fn partitions_are_paged_and_found_by_number_and_by_name() {
    let node = single().await;
    let page = get_json(node.addr, "/v1/partitions?limit=5").await;
    assert_eq!(page["items"].as_array().map(Vec::len), Some(5));
    let cursor = page["next_cursor"].as_str().expect("more");
    let rest = get_json(node.addr, &format!("/v1/partitions?limit=5&cursor={cursor}")).await;
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(3));
    assert_eq!((&rest["items"][0]["id"], &rest["next_cursor"]), (&json!(5), &Value::Null));
    let (by_number, by_name) = (
        get_json(node.addr, "/v1/partitions/5").await,
        get_json(node.addr, "/v1/partitions/partition-5").await,
    );
    assert_eq!(by_number, by_name);
    assert_eq!(by_number["health"], "under_replicated");
    assert_eq!((&by_number["blocked_by"], &by_number["movement"]), (&Value::Null, &Value::Null));
    let epoch = by_number["history"].as_array().and_then(|epochs| epochs.last()).expect("an epoch");
    assert_eq!((&epoch["epoch"], &epoch["leader"]), (&by_number["epoch"], &json!("node-1")));
    assert_eq!(epoch["origin"], by_number["origin"]);
    assert!(epoch["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{epoch}");
    assert!(by_number["stages"].is_array(), "{by_number}");
    let reason = by_number["reasons"][0].as_str().expect("a reason");
    assert_eq!(reason, "1 of 3 copies are in sync and alive; only 1 nodes take data, add more");
}

#[tokio::test]
async fn the_status_says_in_a_sentence_how_the_cluster_stands() {
    let node = single().await;
    let status = get_json(node.addr, "/v1/status").await;
    assert_eq!(status["health"]["state"], "degraded");
    let sentence =
        "degraded: 8 partitions have fewer than 3 copies in sync (there are fewer nodes than copies)";
    assert_eq!(status["health"]["sentence"], sentence);
    assert_eq!(status["health"]["reasons"][0]["code"], "under_replicated");
    assert_eq!(status["control_plane"]["controller"], "node-1");
    assert_eq!(status["control_plane"]["state"], "leader");
    assert_eq!(status["partitions"]["total"], 8);
    assert_eq!(status["partitions"]["under_replicated"], 8);
    assert_eq!((&status["movements"], &status["overruns"]), (&json!([]), &json!([])));
    let row = &status["nodes"][0];
    assert_eq!((&row["replicas"], &row["leaders"], &row["raft"]), (&json!(8), &json!(8), &json!("voter")));
    assert_eq!(row["is_controller"], true);
}

#[tokio::test]
async fn the_routes_of_the_raft_edition_keep_their_shapes() {
    let node = single().await;
    let cluster = get_json(node.addr, "/cluster").await;
    check_fields(&cluster["cluster"], &["id", "name", "nodes", "partition_map", "config"]);
    check_fields(&cluster["cluster"]["config"], &["cluster_name", "partition_count", "replication_factor"]);
    check_fields(&cluster["hash_config"], &["algorithm", "encoding", "modulo", "format"]);
    check_fields(&cluster["cluster"]["nodes"][0], &["id", "ip", "port", "name", "status"]);
    let partition = &cluster["cluster"]["partition_map"]["partitions"]["partition-5"];
    let expect = json!({"id": "partition-5", "primary_node": "node-1", "replica_nodes": []});
    assert_eq!(*partition, expect);
    assert_eq!(get(node.addr, "/cluster").await.header("cache-control"), "max-age=30");
    let partitions = get_json(node.addr, "/partitions").await;
    assert_eq!((&partitions["count"], &partitions["partitions"][5]), (&json!(8), &expect));
    let stats = get_json(node.addr, "/partitions/stats").await;
    let expect = json!({"total_partitions": 8, "partitions_per_node": {"node-1": 8}, "replicas_per_node": {"node-1": 0}});
    assert_eq!(stats, expect);
    let leader = get_json(node.addr, "/consensus/leader").await;
    assert_eq!(
        (&leader["leader_id"], &leader["leader_ip"]),
        (&json!("node-1"), &json!(node.addr.to_string()))
    );
    let stats = get_json(node.addr, "/consensus/stats").await;
    let fields = [
        "state",
        "term",
        "last_log_index",
        "last_log_term",
        "commit_index",
        "applied_index",
        "num_peers",
        "leader",
    ];
    check_fields(&stats, &fields);
    assert_eq!((&stats["state"], &stats["num_peers"]), (&json!("leader"), &json!(0)));
    assert!(stats["applied_index"].as_u64() > Some(0), "{stats}");
    let nodes = get_json(node.addr, "/nodes?limit=10&offset=0").await;
    let expect = json!({"total": 1, "offset": 0, "limit": 10, "has_more": false, "next_offset": 1});
    for (field, value) in expect.as_object().expect("an object") {
        assert_eq!(nodes[field], *value, "{field}");
    }
    assert_eq!(nodes["nodes"][0]["id"], "node-1");
    assert_eq!(get_json(node.addr, "/nodes?offset=7").await["nodes"], json!([]));
}

#[tokio::test]
async fn the_routes_of_the_etcd_edition_keep_their_shapes() {
    let node = single().await;
    let nodes = get_json(node.addr, "/cluster/nodes").await;
    assert_eq!(nodes["count"], 1);
    let first = &nodes["nodes"][0];
    assert_eq!((&first["id"], &first["addr"]), (&json!("node-1"), &json!(node.addr.to_string())));
    assert_eq!(first["http_endpoint"], format!("http://{}", node.addr));
    assert_eq!(first["metadata"]["rack"], "r1");
    let partitions = get_json(node.addr, "/cluster/partitions").await;
    assert_eq!((&partitions["count"], &partitions["partitions"]["5"]), (&json!(8), &json!(["node-1"])));
    let expect = json!({
        "node_count": 1, "partition_count": 8, "local_partitions": 8, "leader_partitions": 8, "replica_factor": 3
    });
    assert_eq!(get_json(node.addr, "/cluster/stats").await, expect);
    let leader = get_json(node.addr, "/cluster/leader?partition=5").await;
    assert_eq!((&leader["partition"], &leader["leader"]["id"]), (&json!(5), &json!("node-1")));
    let replicas = get_json(node.addr, "/cluster/replicas?partition=partition-5").await;
    assert_eq!((&replicas["partition"], &replicas["replicas"][0]["id"]), (&json!(5), &json!("node-1")));
}

#[tokio::test]
async fn the_routes_under_v1_cluster_keep_their_shapes() {
    let node = single().await;
    let info = get_json(node.addr, "/v1/cluster/info").await;
    let member = json!({
        "id": "node-1", "addr": node.addr.to_string(), "raft_addr": node.ck.node_addr(), "status": "alive",
        "is_leader": true, "version": env!("CARGO_PKG_VERSION")
    });
    let expect = json!({
        "local_id": "node-1", "node_addr": node.ck.node_addr(), "public_addr": node.addr.to_string(),
        "cluster_name": "clusterkit-cluster",
        "cluster_id": node.ck.topology().cluster.as_ref().map(|cluster| cluster.id.to_string()),
        "leader": "node-1", "member_count": 1, "members": [member]
    });
    assert_eq!(info, expect);
    assert_eq!(get_json(node.addr, "/v1/cluster/members").await, json!([member]));
    let sharding = get_json(node.addr, "/v1/cluster/sharding").await;
    let fields = ["node_count", "replication", "nodes", "total_partitions", "leaders_by_node", "variance"];
    check_fields(&sharding, &fields);
    assert_eq!((&sharding["nodes"], &sharding["total_partitions"]), (&json!(["node-1"]), &json!(8)));
    let stats = get_json(node.addr, "/v1/cluster/stats").await;
    assert_eq!(
        (&stats["active_nodes"], &stats["failed_nodes"], &stats["has_quorum"]),
        (&json!(1), &json!(0), &json!(true))
    );
}

#[tokio::test]
async fn a_member_has_joined_and_a_stranger_is_told_how_to() {
    let node = single().await;
    let post = |path: &str, body: Value| Ask::new("POST", path).json(&body.to_string()).send(node.addr);
    let joined =
        post("/v1/cluster/join", json!({"node_id": "node-1", "addr": "a:1", "raft_addr": "a:2"})).await;
    assert_eq!(joined.json(), json!({"status": "joined", "node_id": "node-1"}));
    let announce = json!({"node_id": "node-1", "addr": "a:1", "raft_addr": "a:2", "version": "1"});
    assert_eq!(post("/v1/cluster/announce", announce).await.json(), json!({"status": "acknowledged"}));
    let old =
        post("/join", json!({"node": {"id": "node-1", "ip": ":8080"}, "raft_addr": "a:2"})).await.json();
    assert_eq!(
        (&old["success"], &old["data"]["node_id"], &old["data"]["node_count"]),
        (&json!(true), &json!("node-1"), &json!(1))
    );
    let strangers = [
        ("/v1/cluster/join", json!({"node_id": "node-9"})),
        ("/v1/cluster/announce", json!({"node_id": "node-9"})),
        ("/join", json!({"node": {"id": "node-9"}})),
    ];
    for (path, body) in strangers {
        let detail = check_problem(&post(path, body).await, 409, "join_from_node");
        assert!(detail.contains(&format!("--seeds {}", node.ck.node_addr())), "{path}: {detail}");
    }
}

#[tokio::test]
async fn a_node_tells_its_node_address_before_it_has_a_cluster() {
    let node = launch("node-2", &["127.0.0.1:1".to_owned()]).await;
    let info = get_json(node.addr, "/v1/cluster/info").await;
    assert_eq!((&info["local_id"], &info["node_addr"]), (&json!("node-2"), &json!(node.ck.node_addr())));
    assert_eq!((&info["cluster_name"], &info["cluster_id"]), (&json!("clusterkit-cluster"), &Value::Null));
    assert_eq!(get(node.addr, "/livez").await.status, 200);
    let ready = get(node.addr, "/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text.starts_with("[-]joined not a member of its cluster\n"), "{}", ready.text);
    let health = get_json(node.addr, "/health").await;
    assert_eq!((&health["success"], &health["state"]), (&json!(true), &json!("unavailable")));
    for path in [
        "/v1/route?key=a",
        "/partitions/key?key=a",
        "/cluster/partition?key=a",
        "/v1/partitions/0",
        "/cluster/leader?partition=0",
    ] {
        check_problem(&get(node.addr, path).await, 503, "not_formed");
    }
    check_problem(&get(node.addr, "/consensus/leader").await, 404, "controller_unknown");
    let topology = get(node.addr, "/v1/topology").await;
    assert_eq!((topology.json()["cluster"].clone(), topology.header("etag")), (Value::Null, "\"0\""));
    check_problem(&Ask::new("POST", "/v1/nodes/node-2/drain").send(node.addr).await, 503, "no_controller");
    lint(&get(node.addr, "/metrics").await.text);
    check_every_route(&node).await;
}

#[tokio::test]
async fn health_is_said_in_every_way_that_is_asked_for() {
    let node = single().await;
    for path in ["/livez", "/healthz", "/readyz"] {
        let plain = get(node.addr, path).await;
        assert_eq!((plain.status.as_u16(), plain.text.as_str()), (200, "ok"), "{path}");
        let as_json = Ask::get(path).header("accept", "application/json").send(node.addr).await;
        assert_eq!(as_json.header("content-type"), "application/json", "{path}");
    }
    let verbose = get(node.addr, "/readyz?verbose").await.text;
    let expect =
        "[+]joined ok\n[+]registered ok\n[+]controller ok\n[+]staying ok\n[+]hooks ok\nreadyz check passed\n";
    assert_eq!(verbose, expect);
    assert_eq!(get(node.addr, "/livez?verbose").await.text, "[+]running ok\nlivez check passed\n");
    let ready = get_json(node.addr, "/ready").await;
    for (field, value) in [
        ("ready", json!(true)),
        ("nodes", json!(1)),
        ("partitions", json!(8)),
        ("valid_partitions", json!(8)),
        ("message", json!("ready")),
    ] {
        assert_eq!(ready[field], value, "{field}");
    }
    let health = get_json(node.addr, "/health").await;
    assert_eq!((&health["success"], &health["message"]), (&json!(true), &json!("degraded")));
    assert_eq!((&health["status"], &health["node_id"]), (&json!("degraded"), &json!("node-1")));
    assert_eq!(health["reasons"][0]["code"], "under_replicated");
    let detailed = get_json(node.addr, "/health/detailed").await;
    let fields = [
        "healthy",
        "node_id",
        "node_name",
        "is_leader",
        "node_count",
        "partition_count",
        "raft_state",
        "uptime",
    ];
    check_fields(&detailed, &fields);
    assert_eq!((&detailed["is_leader"], &detailed["raft_state"]), (&json!(true), &json!("leader")));
}

#[tokio::test]
async fn wrong_requests_are_told_what_is_wrong() {
    let node = single().await;
    let check = async |ask: Ask, status: u16, code: &str, words: &str| {
        let detail = check_problem(&ask.clone().send(node.addr).await, status, code);
        assert!(detail.contains(words), "{ask:?}: {detail}");
    };
    let post = |path: &str, body: &str| Ask::new("POST", path).json(body);
    check(Ask::get("/v1/nothing"), 404, "not_found", "/v1/nothing").await;
    check(Ask::new("POST", "/livez"), 405, "method_not_allowed", "/livez").await;
    assert_eq!(
        Ask::new("PATCH", "/v1/nodes/node-1").send(node.addr).await.header("allow"),
        "GET,HEAD,DELETE"
    );
    check(Ask::get("/v1/nodes/nod-1"), 404, "unknown_node", "did you mean `node-1`?").await;
    check(Ask::get("/v1/nodes/a%20b"), 404, "unknown_node", "a b").await;
    check(Ask::get("/v1/nodes/other/stop-check"), 404, "unknown_node", "other").await;
    check(Ask::new("POST", "/v1/nodes/other/drain"), 404, "unknown_node", "other").await;
    check(Ask::new("POST", "/v1/nodes/other/drain?dry_run=true"), 404, "unknown_node", "other").await;
    check(Ask::new("POST", "/v1/nodes/other/cancel-drain"), 404, "unknown_node", "other").await;
    check(Ask::new("DELETE", "/v1/nodes/node-2"), 404, "unknown_node", "did you mean `node-1`?").await;
    check(Ask::get("/v1/partitions/8"), 404, "unknown_partition", "from 0 to 7").await;
    check(Ask::get("/v1/partitions/five"), 400, "invalid_value", "partition-5").await;
    check(Ask::get("/cluster/leader?partition=99"), 404, "unknown_partition", "partition-99").await;
    check(Ask::get("/cluster/leader"), 400, "missing_parameter", "`partition`").await;
    check(Ask::get("/v1/topology?wait=soon"), 400, "invalid_value", "30s").await;
    check(Ask::get("/v1/topology?wait=61s"), 400, "invalid_value", "60 s").await;
    check(Ask::get("/v1/topology?wiat=1s"), 400, "unknown_field", "did you mean `wait`?").await;
    check(Ask::get("/v1/route"), 400, "missing_parameter", "`key`").await;
    check(Ask::get("/v1/route?kye=a"), 400, "unknown_field", "did you mean `key`?").await;
    let long = "a".repeat(KEY_BYTES_MAX + 1);
    check(Ask::get(&format!("/v1/route?key={long}")), 400, "invalid_value", "4096 bytes").await;
    check(Ask::get("/v1/nodes?limit=0"), 400, "invalid_value", "between 1 and 1000").await;
    check(Ask::get("/nodes?limit=1001"), 400, "invalid_value", "between 1 and 1000").await;
    check(Ask::get("/v1/events?after=x"), 400, "invalid_value", "42.0").await;
    check(Ask::get("/v1/events?follow=perhaps"), 400, "invalid_value", "").await;
    check(
        Ask::new("POST", "/v1/nodes/node-1/drain?dryrun=true"),
        400,
        "unknown_field",
        "did you mean `dry_run`?",
    )
    .await;
    check(post("/v1/cluster/leave", "{\"node_id\":"), 400, "malformed_json", "EOF").await;
    check(post("/v1/cluster/leave", "{\"nodeId\":\"n\"}"), 400, "unknown_field", "did you mean `node_id`?")
        .await;
    check(post("/v1/cluster/leave", "{}"), 400, "missing_parameter", "`node_id`").await;
    check(post("/v1/cluster/leave", "{\"node_id\":\"a b\"}"), 400, "invalid_value", "node id").await;
    check(post("/v1/cluster/leave", "{\"node_id\":\"other\"}"), 404, "unknown_node", "other").await;
    check(post("/v1/nodes/node-1/remove", "{\"forse\":true}"), 400, "unknown_field", "did you mean `force`?")
        .await;
    check(post("/v1/nodes/node-1/remove", "{}"), 409, "holds_replicas", "drain it first").await;
    let text = Ask::new("POST", "/v1/cluster/leave").body("text/plain", "{}");
    check(text, 415, "unsupported_media_type", "application/json").await;
    let large =
        Ask::new("POST", "/v1/cluster/leave").body("application/json", vec![b' '; BODY_BYTES_MAX + 1]);
    check(large, 413, "body_too_large", "1048576").await;
    let copies = |copies: u32| {
        Ask::new("PUT", "/v1/cluster/replication_factor")
            .json(&json!({"replication_factor": copies}).to_string())
    };
    check(copies(0), 400, "invalid_value", "between 1 and 15").await;
    let foreign = Ask::new("POST", "/v1/nodes/node-1/drain").header("sec-fetch-site", "cross-site");
    check(foreign, 403, "cross_site", "another web site").await;
    assert_eq!(node.ck.nodes_all()[0].status(), NodeStatus::Alive, "none of them changed anything");
}

#[tokio::test]
async fn every_answer_has_an_id_and_the_clients_own_is_kept() {
    let node = single().await;
    let ids = [
        get(node.addr, "/livez").await,
        get(node.addr, "/nothing").await,
        get(node.addr, "/v1/topology").await,
    ];
    let ids: std::collections::BTreeSet<_> =
        ids.iter().map(|reply| reply.header("x-request-id").to_owned()).collect();
    assert!(ids.len() == 3 && !ids.contains(""), "{ids:?}");
    let own = Ask::get("/livez").header("x-request-id", "abc-1").send(node.addr).await;
    assert_eq!(own.header("x-request-id"), "abc-1");
    let long = Ask::get("/livez").header("x-request-id", &"x".repeat(1_000)).send(node.addr).await;
    assert!(long.header("x-request-id").len() < 100);
}

#[tokio::test]
async fn copies_can_be_changed_at_run_time() {
    let node = single().await;
    let put = |copies: u32| {
        let body = json!({"replication_factor": copies}).to_string();
        Ask::new("PUT", "/v1/cluster/replication_factor").json(&body).send(node.addr)
    };
    assert_eq!(put(1).await.json(), json!({"changed": true}));
    assert_eq!(put(1).await.json(), json!({"changed": false}));
    eventually("one copy is enough", || node.ck.health().is_healthy()).await;
    assert_eq!(get_json(node.addr, "/health").await["message"], "healthy");
}

#[tokio::test]
async fn events_are_streamed_and_resumed_where_they_broke_off() {
    let node = single().await;
    let mut stream = EventStream::open(Ask::get("/v1/events"), node.addr).await;
    node.ck.set_replication_factor(2).await.expect("changed");
    let (first, kind, body) = stream.next().await.expect("an event");
    assert_eq!(
        (kind.as_str(), &body["kind"], &body["id"]),
        ("config_changed", &json!("config_changed"), &json!(first))
    );
    assert!(body["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{body}");
    drop(stream);
    node.ck.set_replication_factor(3).await.expect("changed");
    let resume = Ask::get("/v1/events").header("last-event-id", &first);
    let (second, kind, _) = EventStream::open(resume, node.addr).await.next().await.expect("an event");
    assert_eq!(kind, "config_changed");
    assert_ne!(first, second);
    let kept = get_json(node.addr, &format!("/v1/events?follow=false&after={first}")).await;
    assert_eq!(kept["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(kept["items"][0]["id"], second);
    let all = get_json(node.addr, "/v1/events?follow=false").await;
    assert!(all["items"].as_array().is_some_and(|items| items.len() >= 2), "{all}");
}

#[tokio::test]
async fn a_stream_that_resumes_too_late_says_that_events_are_lost() {
    let node = single().await;
    let resume = Ask::get("/v1/events").header("last-event-id", "0.0");
    let (_, kind, body) = EventStream::open(resume, node.addr).await.next().await.expect("an event");
    assert_eq!((kind.as_str(), &body["count"]), ("lost", &Value::Null));
}

/// The metrics as soon as `series` is among them: events are counted a little after they happen.
async fn metrics_until(addr: SocketAddr, series: &str) -> Series {
    let looking = async {
        loop {
            let found = lint(&get(addr, "/metrics").await.text);
            if found.contains_key(series) {
                return found;
            }
        }
    };
    timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("{series}: not in time"))
}

#[tokio::test]
async fn metrics_pass_the_lint_and_come_from_what_is() {
    let node = single().await;
    node.ck.set_replication_factor(1).await.expect("changed");
    eventually("one copy is enough", || node.ck.health().is_healthy()).await;
    let may_write = |number| node.ck.lead(clusterkit::PartitionId(number)).is_ok();
    eventually("every lease is open", || (0..8).all(may_write)).await;
    get(node.addr, "/v1/nodes/node-1").await;
    get(node.addr, "/nothing/at/all").await;
    metrics_until(node.addr, "clusterkit_events_total{kind=\"config_changed\"}").await;
    let reply = get(node.addr, "/metrics").await;
    assert_eq!(reply.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let series = lint(&reply.text);
    let check = |name: &str, expect: f64| assert_eq!(series.get(name).copied(), Some(expect), "{name}");
    check("clusterkit_nodes{status=\"alive\"}", 1.0);
    check("clusterkit_nodes{status=\"dead\"}", 0.0);
    check("clusterkit_partitions{health=\"ok\"}", 8.0);
    check("clusterkit_partition_leaders{node_id=\"node-1\"}", 8.0);
    check("clusterkit_partition_replicas{node_id=\"node-1\"}", 8.0);
    check("clusterkit_health{state=\"healthy\"}", 1.0);
    check("clusterkit_health{state=\"degraded\"}", 0.0);
    check("clusterkit_is_controller", 1.0);
    check("clusterkit_ready", 1.0);
    check("clusterkit_moves_running", 0.0);
    check("clusterkit_hook_overruns_total{stage=\"seal\"}", 0.0);
    check("clusterkit_hooks_running{stage=\"catch_up\"}", 0.0);
    check("clusterkit_hooks_overdue{stage=\"activate\"}", 0.0);
    check("clusterkit_hook_copied_bytes", 0.0);
    check("clusterkit_hook_remaining_bytes", 0.0);
    check("clusterkit_leases", 8.0);
    assert!(series["clusterkit_lease_support_seconds"] > 0.0);
    check("clusterkit_forward_errors_total", 0.0);
    check("clusterkit_topology_version", node.ck.topology().version.0 as f64);
    check("clusterkit_route_version", node.ck.topology().route_version.0 as f64);
    check(&format!("clusterkit_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0);
    let count = "clusterkit_http_request_duration_seconds_count{route=\"/v1/nodes/{node}\",method=\"GET\",code=\"200\"}";
    check(count, 1.0);
    check("clusterkit_http_request_duration_seconds_count{route=\"none\",method=\"GET\",code=\"404\"}", 1.0);
    let operations = series["clusterkit_control_operations_total{op=\"propose\"}"];
    assert!(operations >= 1.0);
    check("clusterkit_control_operation_duration_seconds_count{op=\"propose\"}", operations);
    assert!(series["clusterkit_control_operation_duration_seconds_sum{op=\"propose\"}"] > 0.0);
    assert!(series["clusterkit_raft_index_applied"] >= 1.0);
    assert!(series["process_start_time_seconds"] > 1.7e9);
    assert!(series["clusterkit_events_total{kind=\"config_changed\"}"] >= 1.0);
}

#[tokio::test]
async fn the_names_of_other_products_are_kept_at_the_end_of_the_metrics() {
    let node = single().await;
    let text = get(node.addr, "/metrics").await.text;
    lint(&text);
    let aliases = [
        "clusterkit_nodes_total",
        "clusterkit_partitions_assigned",
        "clusterkit_partitions_leader",
        "clusterkit_rebalance_total",
        "clusterkit_rebalance_duration_seconds",
        "clusterkit_partition_migrations_total",
        "clusterkit_etcd_operations_total",
        "clusterkit_etcd_operation_duration_seconds",
        "rivetq_cluster_nodes",
        "rivetq_cluster_is_leader",
        "rivetq_raft_committed_index",
        "rivetq_raft_applied_index",
        "rivetq_proxy_forwarded_total",
        "rivetq_proxy_forward_errors_total",
    ];
    let described: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let tail = &described[described.len() - aliases.len()..];
    let names: Vec<_> = tail.iter().map(|typed| typed.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(names, aliases);
    assert!(text.contains("\nclusterkit_nodes_total 1\n") && text.contains("\nrivetq_cluster_is_leader 1\n"));
}

#[tokio::test]
async fn partitions_have_metrics_of_their_own_and_a_few_come_as_json() {
    let node = single().await;
    let series = lint(&get(node.addr, "/metrics/partitions").await.text);
    let record = node.ck.partition_info(clusterkit::PartitionId(7)).expect("a record");
    assert_eq!(series["clusterkit_partition_epoch{partition=\"7\"}"], record.epoch.0 as f64);
    assert_eq!(series["clusterkit_partition_in_sync_replicas{partition=\"7\"}"], 1.0);
    assert_eq!(series.len(), 24);
    let metrics = get_json(node.addr, "/v1/metrics").await;
    let fields = [
        "node_count",
        "partition_count",
        "request_count",
        "error_count",
        "is_leader",
        "raft_state",
        "uptime_seconds",
    ];
    check_fields(&metrics, &fields);
    assert_eq!(metrics["request_count"], 1);
}

#[tokio::test]
async fn the_description_is_the_one_in_the_repository() {
    let node = single().await;
    let served = get(node.addr, "/v1/openapi.json").await;
    assert_eq!(served.text, http::openapi());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, http::openapi()).expect("the file can be written");
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(golden == http::openapi(), "docs/openapi.json is not up to date: run this test with BLESS=1");
}

#[tokio::test]
async fn every_route_is_described_and_answers() {
    check_every_route(&single().await).await;
}

async fn check_every_route(node: &TestNode) {
    let description: Value = serde_json::from_str(http::openapi()).expect("JSON");
    let paths = description["paths"].as_object().expect("paths");
    assert!(paths.len() > 40, "{} routes", paths.len());
    for (path, methods) in paths {
        let path = path.replace("{node}", "node-1").replace("{partition}", "0");
        for (method, operation) in methods.as_object().expect("methods") {
            let ask = Ask::new(&method.to_uppercase(), &(path.clone() + query(operation)));
            let ask = if operation.get("requestBody").is_some() { ask.json("{}") } else { ask };
            check_route(ask, node.addr, operation).await;
        }
    }
}

/// Values for the parameters that a route cannot do without.
fn query(operation: &Value) -> &'static str {
    let has = |name: &str| {
        operation["parameters"].as_array().into_iter().flatten().any(|parameter| parameter["name"] == name)
    };
    match () {
        () if has("key") => "?key=user:1",
        () if has("partition") && !has("limit") => "?partition=0",
        () if has("dry_run") => "?dry_run=true",
        () => "",
    }
}

/// The answer has a status and a media type that the description names.
async fn check_route(ask: Ask, addr: SocketAddr, operation: &Value) {
    let response = ask.clone().open(addr).await;
    let status = response.status().as_u16();
    let described = &operation["responses"][status.to_string()];
    assert!(described.is_object(), "{ask:?}: {status} is not described");
    let media_type =
        response.headers()["content-type"].to_str().expect("text").split(';').next().unwrap_or_default();
    assert!(described["content"].get(media_type).is_some(), "{ask:?}: {media_type} is not described");
    assert!(status != 405 && status != 500, "{ask:?}");
}

#[tokio::test]
async fn one_port_speaks_both_protocols() {
    let node = single().await;
    let reply = Ask::get("/v1/cluster/info").send_http2(node.addr).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["local_id"]), (200, &json!("node-1")));
    check_problem(&Ask::get("/nothing").send_http2(node.addr).await, 404, "not_found");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let node = single().await;
    let mut stream = TcpStream::connect(node.addr).await.expect("a connection");
    let head =
        format!("GET /livez HTTP/1.1\r\nhost: a\r\nx-filler: {}\r\n\r\n", "x".repeat(HEADER_BYTES_MAX));
    // The server may close before it has read everything.
    drop(stream.write_all(head.as_bytes()).await);
    let mut answer = Vec::new();
    drop(timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end"));
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn two_lengths_in_one_request_are_refused() {
    let node = single().await;
    let smuggled = "POST /v1/cluster/leave HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n\
                    0\r\n\r\nGET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
    let twice =
        "POST /v1/cluster/leave HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}";
    for request in [smuggled, twice] {
        let mut stream = TcpStream::connect(node.addr).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("sent");
        stream.shutdown().await.expect("no more");
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an end").expect("text");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "nothing after it is taken for a request: {answer}"
        );
    }
}

#[tokio::test]
async fn the_routes_nest_in_and_merge_with_those_of_the_program() {
    let node = single().await;
    let own = axum::Router::new().route("/hello", axum::routing::get(async || "hello"));
    let own = own.fallback(async || "anything else");
    let app = own.merge(http::router(&node.ck)).nest("/ck", http::router(&node.ck));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let (ck, stop) = (node.ck.clone(), node.close.clone());
    let served = tokio::spawn(async move { http::serve(&ck, listener, app, stop).await });
    assert_eq!(get(addr, "/hello").await.text, "hello");
    assert_eq!(get(addr, "/hello").await.header("ck-topology"), node.ck.topology().route_version.to_string());
    assert_eq!(get(addr, "/elsewhere").await.text, "anything else");
    assert_eq!(get_json(addr, "/v1/cluster/info").await, get_json(addr, "/ck/v1/cluster/info").await);
    node.close.cancel();
    timeout(PATIENCE, served).await.expect("in time").expect("no panic");
}

/// Three nodes.
mod several {
    use super::*;

    fn stop_check_of(name: &str) -> String {
        format!("/v1/nodes/{name}/stop-check")
    }

    #[tokio::test]
    async fn one_of_three_nodes_may_stop_and_then_none() {
        let mut nodes = three().await;
        let addr = nodes[0].addr;
        let check = get_json(addr, &stop_check_of("node-3")).await;
        let expect = json!({
            "node": "node-3", "safe": true, "partitions_losing_quorum": [], "partitions_leaderless": [],
            "partitions_catching_up": [], "partitions_handing_over": [],
            "control_plane_quorum_lost": false, "reasons": []
        });
        assert_eq!(check, expect);
        let last = nodes.pop().expect("three");
        last.close.cancel();
        last.ck.stop().await;
        wait_for(&nodes[0].ck, |topology| {
            topology.nodes.values().any(|node| node.status() == NodeStatus::Dead)
        })
        .await;
        let check = get_json(addr, &stop_check_of("node-2")).await;
        assert_eq!((&check["safe"], &check["control_plane_quorum_lost"]), (&json!(false), &json!(true)));
        assert_eq!(check["partitions_losing_quorum"].as_array().map(Vec::len), Some(8));
        assert_eq!(check["reasons"].as_array().map(Vec::len), Some(2), "{check}");
        let status = get_json(addr, "/v1/status").await;
        assert_eq!(status["health"]["state"], "degraded");
        assert!(
            status["health"]["sentence"].as_str().is_some_and(|line| line.contains("node-3 is dead")),
            "{status}"
        );
    }

    #[tokio::test]
    async fn a_node_without_majority_lives_and_is_not_ready() {
        let mut nodes = three().await;
        for node in nodes.drain(1..) {
            node.close.cancel();
            drop(node.served.await);
            node.ck.stop().await;
        }
        let node = &nodes[0];
        eventually("no controller", || !node.ck.health().is_healthy() && !sees_controller(&node.ck)).await;
        assert_eq!(get(node.addr, "/livez").await.status, 200);
        assert_eq!(get(node.addr, "/health").await.status, 200);
        assert_eq!(get_json(node.addr, "/health").await["state"], "unavailable");
        let ready = get(node.addr, "/readyz").await;
        assert_eq!(ready.status, 503);
        assert!(ready.text.contains("[-]controller not reachable\n"), "{}", ready.text);
        assert_eq!(get(node.addr, "/readyz?exclude=controller").await.status, 200);
        let refused = Ask::new("POST", "/v1/nodes/node-2/drain").send(node.addr).await;
        assert!(matches!(refused.status.as_u16(), 503 | 504), "{}", refused.text);
    }

    /// Sends a change as a client should: again while the answer says that it may succeed later, which
    /// it does while the control plane changes its voters.
    async fn change(ask: Ask, addr: SocketAddr) -> Value {
        let trying = async {
            loop {
                let answer = ask.clone().send(addr).await.json();
                if answer["retryable"] != true {
                    return answer;
                }
            }
        };
        timeout(PATIENCE, trying).await.expect("an answer in time")
    }

    fn sees_controller(ck: &ClusterKit) -> bool {
        !ck.health().reasons.contains(&clusterkit::HealthReason::NoController)
    }

    #[tokio::test]
    async fn a_drain_is_planned_begun_called_off_and_done_from_any_node() {
        let mut nodes = three().await;
        let fourth = start("node-4", &[nodes[1].addr.to_string()]).await;
        nodes.push(fourth);
        let addr = nodes[2].addr;
        let alive = |topology: &Topology| {
            topology.nodes.values().filter(|node| node.status() == NodeStatus::Alive).count()
        };
        wait_for(&nodes[2].ck, |topology| alive(topology) == 4 && is_whole(topology, 3)).await;
        let plan = Ask::new("POST", "/v1/nodes/node-2/drain?dry_run=true").send(addr).await.json();
        let held = nodes[2].ck.stats().nodes[nodes[1].ck.node_id()].replicas as usize;
        assert_eq!(plan["moves"].as_array().map(Vec::len), Some(held), "{plan}");
        assert_eq!((&plan["leaves"], &plan["drops"]), (&json!(true), &json!([])));
        assert_eq!(get_json(addr, "/v1/nodes/node-2").await["status"], "alive", "a plan changes nothing");
        let begun = change(Ask::new("POST", "/v1/nodes/node-2/drain"), addr).await;
        assert!(begun["changed"].is_boolean(), "{begun}");
        let called_off = change(Ask::new("POST", "/v1/nodes/node-2/cancel-drain"), addr).await;
        assert!(called_off["changed"].is_boolean(), "{called_off}");
        let leave = Ask::new("POST", "/v1/cluster/leave").json(r#"{"node_id":"node-2"}"#);
        assert_eq!(change(leave.clone(), addr).await, json!({"status": "leaving", "node_id": "node-2"}));
        let node = nodes[1].ck.node_id().clone();
        wait_for(&nodes[2].ck, |topology| {
            topology.node(&node).is_some_and(|node| node.status() == NodeStatus::Left)
        })
        .await;
        assert_eq!(change(leave, addr).await, json!({"status": "left", "node_id": "node-2"}));
        let ready = get(nodes[1].addr, "/readyz").await;
        assert!(ready.text.contains("[-]staying the node drains\n"), "{}", ready.text);
        let gone = change(Ask::new("DELETE", "/v1/nodes/node-2"), addr).await;
        assert!(gone["changed"].is_boolean(), "{gone}");
        wait_for(&nodes[2].ck, |topology| topology.nodes.len() == 3).await;
        check_moves(&nodes[2]).await;
    }

    /// The moves of the drain show in the metrics, and requests that were passed on to the
    /// controller show as such.
    async fn check_moves(node: &TestNode) {
        let series = metrics_until(node.addr, "clusterkit_events_total{kind=\"node_removed\"}").await;
        assert!(series["clusterkit_partition_migrations_total"] >= 1.0);
        assert!(series["clusterkit_rebalance_total"] >= 1.0);
        assert_eq!(
            series["clusterkit_rebalance_duration_seconds_count"],
            series["clusterkit_rebalance_total"]
        );
        assert!(series["clusterkit_events_total{kind=\"node_left\"}"] >= 1.0);
        let forwarded: Vec<_> =
            series.keys().filter(|name| name.starts_with("clusterkit_forwarded_requests_total{")).collect();
        assert!(!forwarded.is_empty() || series["clusterkit_is_controller"] == 1.0);
    }

    #[tokio::test]
    async fn nodes_are_listed_in_pages() {
        let nodes = three().await;
        let addr = nodes[1].addr;
        let page = get_json(addr, "/v1/nodes?limit=2").await;
        assert_eq!((&page["items"][1]["id"], &page["next_cursor"]), (&json!("node-2"), &json!("node-2")));
        let rest = get_json(addr, "/v1/nodes?limit=2&cursor=node-2").await;
        assert_eq!((&rest["items"][0]["id"], &rest["next_cursor"]), (&json!("node-3"), &Value::Null));
        let old = get_json(addr, "/nodes?limit=2").await;
        assert_eq!(
            (&old["has_more"], &old["next_offset"], &old["total"]),
            (&json!(true), &json!(2), &json!(3))
        );
        let holders = get_json(addr, "/cluster/partitions").await;
        let first = holders["partitions"]["0"][0].clone();
        assert_eq!(get_json(addr, "/cluster/leader?partition=0").await["leader"]["id"], first);
        let route = get_json(addr, "/v1/route?key=a").await;
        assert_eq!(route["replicas"].as_array().map(Vec::len), Some(3));
        assert_eq!(route["replicas"][0], route["leader"]);
        let leader = get_json(addr, "/consensus/leader").await["leader_id"].clone();
        assert_eq!(get_json(nodes[2].addr, "/v1/cluster/info").await["leader"], leader);
    }
}
