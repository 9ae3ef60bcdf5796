//! Keys and values, through the commands and over plain HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{DEADLINE, Finished, Plan, Running, clusterkit, eventually, plans};

/// One node that takes writes.
fn single(home: &tempfile::TempDir) -> (Plan, Running) {
    let plan =
        Plan::new(home.path(), "node-1", &["--bootstrap", "--replication-factor", "1", "--partitions", "8"]);
    let node = plan.start();
    plan.wait_until("healthy");
    serves(&plan);
    (plan, node)
}

/// Waits until a node takes requests on keys, which is a moment after it has joined.
fn serves(plan: &Plan) {
    eventually("keys are served", || {
        plan.ask(&["kv", "get", "none"]).stderr.contains("there is no such key").then_some(())
    });
}

/// What a node answers to one request.
struct Reply {
    head: String,
    body: String,
}

impl Reply {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// One request, with headers as lines.
fn ask(addr: &str, method: &str, target: &str, headers: &[&str], body: &str) -> Reply {
    let mut stream = TcpStream::connect(addr).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("set");
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!(
        "{method} {target} HTTP/1.0\r\nhost: {addr}\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).expect("sent");
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).expect("an answer");
    let reply = String::from_utf8_lossy(&reply);
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    Reply { head: head.to_owned(), body: body.to_owned() }
}

fn fine(finished: &Finished) -> &str {
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
    &finished.stdout
}

#[test]
fn a_value_is_put_read_changed_and_removed_over_http() {
    let home = tempfile::tempdir().expect("a directory");
    let (plan, _node) = single(&home);
    let ask = |method: &str, target: &str, headers: &[&str], body: &str| {
        ask(&plan.http, method, target, headers, body)
    };

    let put = ask("PUT", "/v1/kv/a%2Fb%ff?ttl=1h", &[], "one");
    assert_eq!((put.status(), put.json()["replaced"].clone()), (200, json!(false)));
    let tag = put.header("etag").expect("a version").to_owned();
    let got = ask("GET", "/v1/kv/a%2Fb%ff", &[], "");
    assert_eq!((got.status(), got.body.as_str(), got.header("etag")), (200, "one", Some(tag.as_str())));
    for name in ["ck-partition", "ck-epoch", "ck-index", "ck-expires-at"] {
        assert!(got.header(name).is_some(), "{name}: {}", got.head);
    }
    let known = format!("if-none-match: {tag}");
    assert_eq!(ask("GET", "/v1/kv/a%2Fb%ff", &[&known], "").status(), 304);
    let head = ask("HEAD", "/v1/kv/a%2Fb%ff", &[], "");
    assert_eq!((head.status(), head.body.as_str(), head.header("content-length")), (200, "", Some("3")));

    let stale = ask("PUT", "/v1/kv/a%2Fb%ff", &["if-match: \"0\""], "two");
    assert_eq!((stale.status(), stale.json()["code"].clone()), (412, json!("version_mismatch")));
    assert_eq!(stale.header("etag"), Some(tag.as_str()));
    let again = ask("PUT", "/v1/kv/a%2Fb%ff", &["if-none-match: *"], "two");
    assert_eq!((again.status(), again.json()["code"].clone()), (412, json!("exists")));
    let matched = ask("PUT", "/v1/kv/a%2Fb%ff?keep_ttl=1", &[&format!("if-match: {tag}")], "two");
    assert_eq!((matched.status(), matched.json()["replaced"].clone()), (200, json!(true)));

    let index = matched.header("ck-index").expect("a place").to_owned();
    let session = ask("GET", &format!("/v1/kv/a%2Fb%ff?min_index={index}"), &[], "");
    assert_eq!((session.status(), session.body.as_str()), (200, "two"));
    assert!(ask("GET", "/v1/kv/a%2Fb%ff/ttl", &[], "").json()["ttl"].is_string());
    assert_eq!(ask("POST", "/v1/kv/a%2Fb%ff/persist", &[], "").json()["changed"], true);
    assert_eq!(ask("GET", "/v1/kv/a%2Fb%ff/ttl", &[], "").json()["ttl"], json!(null));
    assert_eq!(ask("POST", "/v1/kv/a%2Fb%ff/append", &[], "!").json()["value_bytes"], 4);
    let number = ask("POST", "/v1/kv/a%2Fb%ff/incr", &[], "");
    assert_eq!((number.status(), number.json()["code"].clone()), (409, json!("not_a_number")));
    assert_eq!(ask("POST", "/v1/kv/n/incr?by=5", &[], "").json()["number"], 5);
    assert_eq!(ask("POST", "/v1/kv/n/decr", &[], "").json()["number"], 4);

    assert_eq!(ask("DELETE", "/v1/kv/a%2Fb%ff", &[], "").json()["existed"], true);
    let missing = ask("GET", "/v1/kv/a%2Fb%ff", &[], "");
    assert_eq!((missing.status(), missing.json()["code"].clone()), (404, json!("not_found_key")));
    let misspelt = ask("PUT", "/v1/kv/a?tll=1s", &[], "");
    assert!(misspelt.json()["detail"].as_str().is_some_and(|detail| detail.contains("did you mean `ttl`?")));
    assert_eq!(ask("PUT", "/v1/kv/a", &[], &"x".repeat(5 << 20)).status(), 413);
}

#[test]
fn a_scan_goes_through_all_partitions_and_a_batch_into_them() {
    let home = tempfile::tempdir().expect("a directory");
    let (plan, _node) = single(&home);
    let json_type = "content-type: application/json";
    let batch = |body: Value| ask(&plan.http, "POST", "/v1/kv/batch", &[json_type], &body.to_string());

    let puts: Vec<_> =
        (0..50).map(|n| json!({"op": "put", "key": format!("k{n}"), "value": n.to_string()})).collect();
    let results = batch(json!({ "operations": puts })).json()["results"].clone();
    assert!(
        results
            .as_array()
            .is_some_and(|all| all.len() == 50 && all.iter().all(|one| one["version"].is_u64()))
    );
    let mixed = batch(
        json!({"operations": [{"op": "get", "key": "k7"}, {"op": "get", "key": "none"}, {"op": "incr", "key": "k7"}]}),
    );
    let mixed = mixed.json()["results"].clone();
    assert_eq!(mixed[0]["entry"]["value_base64"], "OA==", "writes come first");
    assert_eq!((mixed[1]["entry"]["found"].clone(), mixed[2]["number"].clone()), (json!(false), json!(8)));

    let atomic = |second: &str| {
        batch(json!({"atomic": true, "operations": [
        {"op": "put", "key": "{t}.a", "value": "1"}, {"op": "check", "key": second, "if_exists": true}]}))
    };
    let refused = atomic("{t}.b");
    assert_eq!((refused.status(), refused.json()["code"].clone()), (404, json!("not_found_key")));
    assert!(refused.json()["detail"].as_str().is_some_and(|detail| detail.starts_with("operation 1: ")));
    assert_eq!(ask(&plan.http, "GET", "/v1/kv/%7Bt%7D.a", &[], "").status(), 404, "all or none");
    let split = (0..)
        .map(|n| atomic(&format!("k{n}")))
        .find(|reply| reply.status() == 400)
        .expect("another partition");
    assert_eq!(split.json()["code"], "cross_partition");

    let (mut keys, mut target) = (Vec::new(), "/v1/kv?prefix=k&limit=7".to_owned());
    loop {
        let page = ask(&plan.http, "GET", &target, &[], "").json();
        keys.extend(page["items"].as_array().expect("items").iter().map(|item| item["key"].to_string()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        target = format!("/v1/kv?prefix=k&limit=7&cursor={cursor}");
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 50);
    assert_eq!(ask(&plan.http, "DELETE", "/v1/kv?prefix=k", &[], "").json()["deleted"], 50);
    assert_eq!(ask(&plan.http, "DELETE", "/v1/kv", &[], "").status(), 400, "not everything by mistake");
}

#[test]
fn the_routes_of_another_product_answer_in_its_shapes() {
    let home = tempfile::tempdir().expect("a directory");
    let (plan, _node) = single(&home);
    let set = ask(&plan.http, "POST", "/kv/set", &[], r#"{"key":"user:789","value":"Jane Doe"}"#);
    assert_eq!((set.status(), set.json()), (200, json!({"status": "ok", "role": "primary"})));
    let got = ask(&plan.http, "GET", "/kv/get?key=user:789", &[], "");
    assert_eq!(got.json(), json!({"key": "user:789", "value": "Jane Doe"}));
    let stats = ask(&plan.http, "GET", "/kv/stats", &[], "").json();
    assert_eq!(stats, json!({"node_id": "node-1", "keys": 1, "mode": "server-side"}));
    assert_eq!(ask(&plan.http, "GET", "/kv/partitions", &[], "").json()["count"], 8);
    assert_eq!(ask(&plan.http, "DELETE", "/kv/delete?key=user:789", &[], "").json(), json!({"status": "ok"}));
    assert_eq!(ask(&plan.http, "GET", "/kv/get?key=user:789", &[], "").status(), 404);
}

#[test]
fn commands_read_write_export_and_import() {
    let home = tempfile::tempdir().expect("a directory");
    let (plan, _node) = single(&home);
    assert!(
        fine(&plan.ask(&["kv", "put", "user:1", "Ada", "--ttl", "1h"]))
            .starts_with("user:1 is set, at version ")
    );
    assert_eq!(fine(&plan.ask(&["kv", "get", "user:1"])), "Ada");
    assert_eq!(plan.ask(&["kv", "get", "user:1", "-o", "json"]).json()["value"], "Ada");
    plan.ask(&["kv", "get", "user:2"]).assert_refused(1, "there is no such key");
    plan.ask(&["kv", "put", "user:1", "Eve", "--if-absent"]).assert_refused(1, "the entry is there");
    assert!(fine(&plan.ask(&["kv", "ttl", "user:1"])).ends_with("s\n"));
    assert_eq!(fine(&plan.ask(&["kv", "incr", "visits", "--by", "3"])), "3\n");
    fine(&plan.ask(&["kv", "put", "watch", "a word of its own"]));
    assert_eq!(fine(&plan.ask(&["kv", "get", "watch"])), "a word of its own");
    let scan = plan.ask(&["kv", "scan", "user:", "--values"]);
    assert!(
        fine(&scan).lines().nth(1).is_some_and(|row| row.starts_with("user:1") && row.ends_with("Ada")),
        "{scan:?}"
    );

    let exported = fine(&plan.ask(&["kv", "export"])).to_owned();
    assert_eq!(exported.lines().count(), 3, "{exported}");
    let file = home.path().join("all.ndjson");
    std::fs::write(&file, &exported).expect("written");
    let file = file.display().to_string();
    fine(&plan.ask(&["kv", "import", &file, "--ns", "copy"]));
    assert_eq!(fine(&plan.ask(&["kv", "get", "user:1", "--ns", "copy"])), "Ada");
    assert_eq!(fine(&plan.ask(&["kv", "del", "--prefix", "user:", "--ns", "copy"])), "1 key removed\n");
    assert_eq!(fine(&plan.ask(&["kv", "get", "user:1"])), "Ada", "another namespace");
    std::fs::write(&file, "{}\n").expect("written");
    plan.ask(&["kv", "import", &file]).assert_refused(1, "line 1 is no line of an export");
}

#[test]
fn a_value_comes_from_standard_input_byte_by_byte() {
    let home = tempfile::tempdir().expect("a directory");
    let (plan, _node) = single(&home);
    let mut put = clusterkit(&["kv", "put", "raw", "--url", &plan.http]);
    let mut put = put.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("started");
    put.stdin.take().expect("a pipe").write_all(&[0, 255, b'\n', 7]).expect("written");
    assert!(put.wait().expect("ended").success());
    let got = clusterkit(&["kv", "get", "raw", "--url", &plan.http]).output().expect("ran");
    assert_eq!(got.stdout, [0, 255, b'\n', 7]);
}

#[test]
fn a_watch_tells_what_changes() {
    let home = tempfile::tempdir().expect("a directory");
    let (plan, _node) = single(&home);
    let command = clusterkit(&["kv", "watch", "--prefix", "user:", "-o", "json", "--url", &plan.http]);
    let mut watch = Running::start(command, home.path(), "watch");
    // Nothing says when the watch has begun: a key is changed until it is heard of.
    let first = eventually("the first change", || {
        fine(&plan.ask(&["kv", "put", "user:1", "Ada"]));
        watch.stdout().lines().next().map(str::to_owned)
    });
    let first: Value = serde_json::from_str(&first).expect("JSON");
    assert_eq!((first["kind"].clone(), first["value_base64"].clone()), (json!("put"), json!("QWRh")));
    fine(&plan.ask(&["kv", "put", "other", "x"]));
    fine(&plan.ask(&["kv", "del", "user:1"]));
    let all = watch.wait_for("\"kind\":\"deleted\"");
    assert!(!all.contains("other") && !all.contains("\"lost\""), "{all}");
}

#[test]
fn what_expired_is_swept_and_told() {
    let home = tempfile::tempdir().expect("a directory");
    let (plan, _node) = single(&home);
    let command = clusterkit(&["kv", "watch", "--prefix", "", "-o", "json", "--url", &plan.http]);
    let watch = Running::start(command, home.path(), "watch");
    eventually("a key that expired", || {
        fine(&plan.ask(&["kv", "put", "brief", "x", "--ttl", "50ms"]));
        watch.stdout().contains("\"kind\":\"expired\"").then_some(())
    });
}

#[test]
fn any_node_answers_and_says_where_the_leader_is_if_it_is_asked() {
    let home = tempfile::tempdir().expect("a directory");
    let plans = plans(&home, 3, &["--partitions", "8"]);
    let _nodes: Vec<_> = plans.iter().map(Plan::start).collect();
    for plan in &plans {
        plan.wait_until("healthy");
        serves(plan);
    }
    assert_eq!(ask(&plans[0].http, "PUT", "/v1/kv/a", &[], "1").status(), 200);
    for plan in &plans {
        assert_eq!(ask(&plan.http, "GET", "/v1/kv/a", &[], "").body, "1");
    }
    let direct: Vec<_> =
        plans.iter().map(|plan| ask(&plan.http, "GET", "/v1/kv/a", &["ck-route: direct"], "")).collect();
    let leads: Vec<_> = direct.iter().map(Reply::status).collect();
    assert_eq!(leads.iter().filter(|status| **status == 200).count(), 1, "{leads:?}");
    let leader = &plans[leads.iter().position(|status| *status == 200).expect("a leader")].http;
    for (plan, reply) in plans.iter().zip(&direct).filter(|(plan, _)| plan.http != *leader) {
        assert_eq!((reply.status(), reply.json()["leader"].clone()), (421, json!(leader)));
        let sent = ask(&plan.http, "PUT", "/v1/kv/a?redirect=1", &[], "2");
        let location = format!("http://{leader}/v1/kv/a?redirect=1");
        assert_eq!((sent.status(), sent.header("location")), (307, Some(location.as_str())));
    }
    assert_eq!(ask(leader, "PUT", "/v1/kv/a?redirect=1", &[], "2").status(), 200);
}
