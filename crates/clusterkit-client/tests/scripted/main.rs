//! The client against nodes that answer as a test wants.

mod server;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clusterkit_client::{Client, Error, Kv, Options, PutCondition, PutOptions, Read, Ttl, Version};
use tokio::time::timeout;

use server::{Act, Cluster, Seen};

const PATIENCE: Duration = Duration::from_secs(20);

async fn client(cluster: &Cluster, deadline: Duration) -> Client {
    let options = Options::default().deadline(deadline);
    Client::connect([cluster.addrs["n2"].clone()], options).await.expect("a seed answers")
}

async fn kv(cluster: &Cluster) -> Kv {
    client(cluster, Duration::from_secs(10)).await.kv()
}

/// Runs one call against nodes that act in this order, then succeed, and compares everything that they were asked.
async fn check<T>(acts: Vec<Act>, call: impl AsyncFnOnce(Kv) -> T, expect: &[&str]) -> T {
    let cluster =
        Cluster::start(move |_, before| acts.get(before).cloned().unwrap_or_else(|| Act::put(9))).await;
    let kv = kv(&cluster).await;
    let result = timeout(PATIENCE, call(kv)).await.expect("the call ends");
    assert_eq!(cluster.lines(), expect);
    result
}

async fn until(holds: impl Fn() -> bool) {
    let looking = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, looking).await.expect("it comes to hold");
}

const OPEN: &str = "n1 POST /v1/kv/sessions?key=a direct";

#[tokio::test]
async fn writes_go_straight_to_the_leader_and_count_up_in_one_session() {
    let put = async |kv: Kv| (kv.put("a", "x").await.unwrap(), kv.delete("a").await);
    let (version, deleted) = check(
        vec![Act::put(7), Act::json(r#"{"existed":true}"#)],
        put,
        &[OPEN, "n1 PUT /v1/kv/a direct 1.1.1", "n1 DELETE /v1/kv/a direct 1.1.2"],
    )
    .await;
    assert_eq!((version, deleted.unwrap()), (Version(7), true));
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_sent_again_under_its_number() {
    let put = async |kv: Kv| kv.put("a", "x").await;
    let cluster = Cluster::start(|_, before| if before == 0 { Act::Cut } else { Act::put(9) }).await;
    assert_eq!(put(kv(&cluster).await).await.unwrap(), Version(9));
    let lines = cluster.lines();
    assert_eq!(lines[..2], [OPEN, "n1 PUT /v1/kv/a direct 1.1.1"]);
    // Another holder than the leader passes it on.
    assert!(["n2 PUT /v1/kv/a 1.1.1", "n3 PUT /v1/kv/a 1.1.1"].contains(&lines[2].as_str()), "{lines:?}");
    assert_eq!(lines.len(), 3);
}

#[tokio::test]
async fn a_node_that_names_the_leader_is_believed_at_once_but_only_once() {
    let named = |addr: &str| Act::problem(421, "not_leader", &format!(r#","leader":"{addr}","epoch":2"#));
    let addr = Arc::new(OnceLock::<[String; 2]>::new());
    let known = addr.clone();
    let script = move |seen: &Seen, _: usize| match (seen.node, known.get()) {
        ("n1", Some([_, n3])) => named(n3),
        ("n3", Some([n1, _])) if seen.line.contains("direct") => named(n1),
        _ => Act::put(9),
    };
    let cluster = Cluster::start(script).await;
    addr.set(["n1", "n3"].map(|name| cluster.addrs[name].clone())).unwrap();
    let kv = kv(&cluster).await;
    assert_eq!(kv.get("a").await.unwrap().unwrap().version, Version(9));
    let lines = cluster.lines();
    assert_eq!(lines[..2], ["n1 GET /v1/kv/a direct", "n3 GET /v1/kv/a direct"]);
    assert!(!lines[2].contains("direct"), "the third is passed on: {lines:?}");
}

#[tokio::test]
async fn a_session_that_is_over_is_replaced_while_nothing_was_sent_in_it() {
    let put = async |kv: Kv| kv.put("a", "x").await;
    let over = Act::problem(410, "session_expired", "");
    let expect = [OPEN, "n1 PUT /v1/kv/a direct 1.1.1", OPEN, "n1 PUT /v1/kv/a direct 1.2.1"];
    assert_eq!(check(vec![over], put, &expect).await.unwrap(), Version(9));
}

#[tokio::test]
async fn sessions_that_are_always_over_are_replaced_at_leisure() {
    let cluster = Cluster::start(|_, _| Act::problem(410, "session_expired", "")).await;
    let kv = client(&cluster, Duration::from_millis(400)).await.kv();
    let error = kv.put("a", "x").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(cluster.lines().len() < 40, "{} requests", cluster.lines().len());
}

#[tokio::test]
async fn a_session_that_is_over_after_an_unknown_attempt_leaves_the_outcome_unknown() {
    let acts = [Act::problem(504, "outcome_unknown", ""), Act::problem(410, "session_expired", "")];
    let expect = [OPEN, "n1 PUT /v1/kv/a direct 1.1.1", "n1 PUT /v1/kv/a direct 1.1.1"];
    let error = check(acts.to_vec(), async |kv: Kv| kv.put("a", "x").await, &expect).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    assert!(error.may_have_taken_effect() && error.is_retryable());
    assert_eq!(error.request_id().map(str::len), Some(16));
}

#[tokio::test]
async fn a_write_that_nobody_answers_is_unknown_and_a_read_is_unavailable() {
    let cluster = Cluster::start(|_, _| Act::Hang).await;
    let kv = client(&cluster, Duration::from_millis(300)).await.kv();
    let unknown = kv.put("a", "x").await.unwrap_err();
    assert!(matches!(unknown, Error::OutcomeUnknown { .. }), "{unknown}");
    let unavailable = kv.get("a").await.unwrap_err();
    assert!(matches!(unavailable, Error::Unavailable { .. }), "{unavailable}");
    assert!(!unavailable.may_have_taken_effect());
}

#[tokio::test]
async fn a_write_that_only_was_turned_away_did_nothing() {
    let cluster = Cluster::start(|_, _| Act::problem(503, "unavailable", "")).await;
    let kv = client(&cluster, Duration::from_millis(300)).await.kv();
    let error = kv.put("a", "x").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("it is unavailable"), "{error}");
}

#[tokio::test]
async fn a_node_that_asks_to_come_back_after_the_deadline_is_not_waited_for() {
    let cluster = Cluster::start(|_, _| Act::problem(429, "overloaded", "").with("retry-after", "30")).await;
    let started = Instant::now();
    let error = kv(&cluster).await.get("a").await.unwrap_err();
    assert!(
        matches!(error, Error::Overloaded { retry_after: Some(after), .. } if after.as_secs() == 30),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_leader_that_cannot_be_reached_is_passed_over() {
    let mut cluster = Cluster::start(|_, _| Act::put(9)).await;
    cluster.move_away("n1").await;
    cluster.publish(2, "crc16-slots", &[("n1", 1)]);
    let kv = kv(&cluster).await;
    for _ in 0..5 {
        assert_eq!(kv.put("a", "x").await.unwrap(), Version(9));
    }
    assert!(cluster.lines().iter().all(|line| !line.contains("direct")), "{:?}", cluster.lines());
}

#[tokio::test]
async fn a_write_that_hangs_follows_the_leader_to_another_node() {
    let cluster = Cluster::start(|seen, _| if seen.node == "n1" { Act::Hang } else { Act::put(9) }).await;
    let kv = kv(&cluster).await;
    let started = Instant::now();
    let put = tokio::spawn(async move { kv.put("a", "x").await });
    until(|| cluster.lines().len() == 2).await;
    cluster.publish(2, "crc16-slots", &[("n3", 2)]);
    assert_eq!(put.await.unwrap().unwrap(), Version(9));
    assert_eq!(cluster.lines()[1..], ["n1 PUT /v1/kv/a direct 1.1.1", "n3 PUT /v1/kv/a direct 1.1.1"]);
    assert!(started.elapsed() < Duration::from_secs(2), "sooner than a node's time is up");
}

#[tokio::test]
async fn the_topology_is_followed_until_the_last_clone_is_gone() {
    let cluster = Cluster::start(|_, _| Act::put(9)).await;
    let client = client(&cluster, Duration::from_secs(10)).await;
    cluster.publish(5, "crc16-slots", &[("n2", 2)]);
    until(|| client.route_version() == 5).await;
    client.kv().get("a").await.unwrap();
    assert_eq!(cluster.lines(), ["n2 GET /v1/kv/a direct"]);
    let clone = client.clone();
    drop(client);
    cluster.publish(6, "crc16-slots", &[("n2", 2)]);
    until(|| clone.route_version() == 6 && cluster.waiting() == 1).await;
    drop(clone);
    until(|| cluster.waiting() == 0).await;
}

#[tokio::test]
async fn an_answer_of_a_newer_epoch_brings_the_topology_at_once() {
    let cluster = Cluster::start(|_, _| Act::put(9).with("ck-partition", "0").with("ck-epoch", "8")).await;
    let client = client(&cluster, Duration::from_secs(10)).await;
    until(|| cluster.waiting() == 1).await;
    client.kv().get("a").await.unwrap();
    // The long poll is broken off, two nodes are asked, and after their answers a new question waits.
    until(|| cluster.asked_at_once() == 3 && cluster.waiting() == 1).await;
}

#[tokio::test]
async fn without_a_known_hash_any_node_is_asked_and_writes_are_sent_once() {
    let cluster = Cluster::start(|_, before| if before == 0 { Act::put(9) } else { Act::Cut }).await;
    cluster.publish(2, "of-tomorrow", &[("n1", 1)]);
    let kv = kv(&cluster).await;
    assert_eq!(kv.put("a", "x").await.unwrap(), Version(9));
    let error = kv.put("a", "x").await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    let lines = cluster.lines();
    assert!(lines.iter().all(|line| line.ends_with(" PUT /v1/kv/a")) && lines.len() == 2, "{lines:?}");
}

#[tokio::test]
async fn a_session_read_asks_for_what_was_written() {
    let cluster = Cluster::start(|_, _| Act::put(9).with("ck-partition", "0").with("ck-index", "17")).await;
    let kv = kv(&cluster).await;
    assert!(kv.token().is_empty());
    kv.put("a", "x").await.unwrap();
    assert_eq!(kv.token().to_string(), "0:17");
    kv.clone().read(Read::Session).get("a").await.unwrap();
    kv.clone().read(Read::After("0:5".parse().unwrap())).get("a").await.unwrap();
    kv.read(Read::Any).get("a").await.unwrap();
    let asked: Vec<_> = cluster.lines()[2..].iter().map(|line| line[3..].to_owned()).collect();
    let expect = ["read=session&min_index=17", "read=session&min_index=5", "read=any"];
    assert_eq!(asked, expect.map(|query| format!("GET /v1/kv/a?{query}")));
}

#[tokio::test]
async fn conditions_travel_as_headers_and_come_back_as_errors() {
    let put = async |kv: Kv| {
        let created = PutOptions::default().condition(PutCondition::Missing).ttl(Duration::from_secs(2));
        let exists = kv.put_with("a", "x", &created).await.unwrap_err();
        let mismatch = kv.compare_and_set("a", Version(3), "x").await.unwrap_err();
        let there = PutOptions::default().condition(PutCondition::Exists);
        (exists, mismatch, kv.put_with("a", "x", &there).await.unwrap_err())
    };
    let acts = [
        Act::problem(412, "exists", "").with("etag", "\"4\""),
        Act::problem(412, "version_mismatch", "").with("etag", "\"5\""),
        Act::problem(404, "not_found_key", ""),
    ];
    let expect = [
        OPEN,
        "n1 PUT /v1/kv/a?ttl=2000ms direct 1.1.1 *",
        "n1 PUT /v1/kv/a direct 1.1.2 \"3\"",
        "n1 PUT /v1/kv/a direct 1.1.3 *",
    ];
    let (exists, mismatch, missing) = check(acts.to_vec(), put, &expect).await;
    assert!(matches!(exists, Error::AlreadyExists { current: Some(Version(4)), .. }), "{exists:?}");
    assert!(matches!(mismatch, Error::VersionMismatch { current: Some(Version(5)), .. }), "{mismatch:?}");
    assert!(matches!(missing, Error::VersionMismatch { current: None, .. }), "{missing:?}");
    assert_eq!((mismatch.code(), mismatch.request_id()), ("version_mismatch", Some("r1")));
}

#[tokio::test]
async fn changes_in_place_read_their_answers() {
    let change = async |kv: Kv| {
        assert_eq!(kv.incr("a", 5).await.unwrap(), 6);
        assert_eq!(kv.append("a", "x").await.unwrap(), 3);
        assert!(kv.expire("a", Duration::from_secs(1)).await.unwrap());
        assert!(!kv.persist("a").await.unwrap());
        assert_eq!(kv.ttl("a").await.unwrap(), Ttl::Expires(Duration::from_millis(29_500)));
        assert!(matches!(kv.decr("a", 1).await.unwrap_err(), Error::NotANumber { .. }));
        assert!(kv.get("a").await.unwrap().is_none());
    };
    let acts = [
        Act::json(r#"{"version":1,"number":6}"#),
        Act::json(r#"{"version":2,"value_bytes":3}"#),
        Act::json(r#"{"version":3,"expires_at":"2026-01-31T12:00:00.000Z"}"#),
        Act::json(r#"{"version":3,"changed":false}"#),
        Act::json(r#"{"ttl":"29500ms","version":3,"value_bytes":1}"#),
        Act::problem(409, "not_a_number", ""),
        Act::problem(404, "not_found_key", ""),
    ];
    let expect = [
        OPEN,
        "n1 POST /v1/kv/a/incr?by=5 direct 1.1.1",
        "n1 POST /v1/kv/a/append direct 1.1.2",
        "n1 POST /v1/kv/a/expire?ttl=1000ms direct 1.1.3",
        "n1 POST /v1/kv/a/persist direct 1.1.4",
        "n1 GET /v1/kv/a/ttl direct",
        "n1 POST /v1/kv/a/decr?by=1 direct 1.1.5",
        "n1 GET /v1/kv/a direct",
    ];
    check(acts.to_vec(), change, &expect).await;
}

#[tokio::test]
async fn many_keys_travel_by_node_and_many_pairs_by_partition() {
    let cluster = Cluster::start(|seen, _| {
        let result =
            if seen.body.contains("true") { r#"{"version":4}"# } else { r#"{"entry":{"found":false}}"# };
        let results = vec![result; seen.body.matches("\"op\"").count()].join(",");
        Act::json(&format!(r#"{{"results":[{results}]}}"#))
    })
    .await;
    cluster.publish(2, "crc16-slots", &[("n1", 1), ("n1", 1), ("n2", 1), ("n2", 1)]);
    let kv = kv(&cluster).await;
    let keys: Vec<_> = (0..40).map(|number| format!("key-{number}")).collect();
    let found = kv.get_many(&keys).await;
    assert!(found.len() == 40 && found.iter().all(|entry| matches!(entry, Ok(None))), "{found:?}");
    let mut nodes: Vec<_> = cluster.lines().iter().map(|line| line[..2].to_owned()).collect();
    nodes.sort();
    assert_eq!(nodes, ["n1", "n2"]);
    let put = kv.put_many(keys.iter().map(|key| (key, Bytes::from_static(b"\xff")))).await;
    assert!(put.len() == 40 && put.iter().all(|version| matches!(version, Ok(Version(4)))), "{put:?}");
    let batches: Vec<_> = cluster.seen().into_iter().filter(|seen| seen.body.contains("true")).collect();
    assert_eq!(batches.len(), 4);
    assert!(
        batches
            .iter()
            .all(|seen| seen.line.ends_with(".1") && seen.body.contains(r#""value_base64":"/w==""#))
    );
}

#[tokio::test]
async fn keys_that_are_wrong_fail_alone() {
    let found = check(vec![], async |kv: Kv| kv.get_many(["a", ""]).await, &["n1 GET /v1/kv/a direct"]).await;
    assert!(found[0].is_ok() && matches!(found[1], Err(Error::InvalidArgument { .. })), "{found:?}");
}

#[tokio::test]
async fn a_scan_goes_on_where_the_page_before_ended() {
    let cluster = Cluster::start(|_, before| match before {
        0 => Act::json(
            r#"{"items":[{"key":"u:1","version":3,"value_bytes":1,"value_base64":"dg==","expires_at_ms":5}],
            "next_cursor":"c1"}"#,
        ),
        1 => Act::Cut,
        _ => Act::json(r#"{"items":[],"next_cursor":null}"#),
    })
    .await;
    let mut scan = kv(&cluster).await.namespace("blue").unwrap().scan("u:").unwrap().page_entries(10);
    let page = scan.next_page().await.unwrap().unwrap();
    assert_eq!((page[0].key.as_ref(), page[0].value.as_deref()), (&b"u:1"[..], Some(&b"v"[..])));
    assert_eq!(scan.next_page().await.unwrap(), Some(vec![]));
    assert_eq!(scan.next_page().await.unwrap(), None);
    let asked: Vec<_> = cluster.lines().iter().map(|line| line[3..].to_owned()).collect();
    let first = "GET /v1/kv?ns=blue&prefix=u%3A&limit=10&values=true";
    let next = "GET /v1/kv?ns=blue&prefix=u%3A&limit=10&cursor=c1&values=true";
    assert_eq!(asked, [first, next, next]);
}

#[tokio::test]
async fn a_prefix_that_may_be_partly_deleted_is_unknown() {
    let cluster = Cluster::start(|_, _| Act::problem(503, "unavailable", "")).await;
    let kv = client(&cluster, Duration::from_millis(200)).await.kv();
    let error = kv.delete_prefix("u:").await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
}

#[tokio::test]
async fn requests_under_way_to_a_node_are_bounded() {
    let cluster = Cluster::start(|_, _| Act::Hang).await;
    let options = Options::default().requests_per_node_max(2);
    let client = Client::connect([cluster.addrs["n1"].clone()], options).await.unwrap();
    let call = |kv: Kv| tokio::spawn(async move { kv.get("a").await });
    let first = [call(client.kv()), call(client.kv())];
    until(|| cluster.lines().len() == 2).await;
    for _ in 0..3 {
        let error = call(client.kv().deadline(Duration::from_millis(50))).await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Overloaded { retry_after: None, .. }), "{error}");
    }
    assert_eq!(cluster.lines().len(), 2);
    first.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_seed_that_is_no_node_is_told_from_one_that_is_away() {
    let connect = async |seed: &str| {
        let options = Options::default().deadline(Duration::from_millis(200));
        Client::connect([seed], options).await.unwrap_err()
    };
    assert!(matches!(connect("nowhere").await, Error::InvalidArgument { .. }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    drop(listener);
    assert!(matches!(connect(&addr).await, Error::Unavailable { .. }));
    let cluster = Cluster::start(|_, _| Act::Hang).await;
    cluster.publish_text("<html>");
    assert!(matches!(connect(&cluster.addrs["n1"]).await, Error::Protocol { .. }));
}
