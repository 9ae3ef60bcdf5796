use super::*;
use clusterkit_wire::hello::Refusal;

fn of_cluster(node: &str, cluster: Option<u64>) -> Identity {
    Identity { cluster: cluster.map(ClusterId), ..identity(node) }
}

async fn pair(net: &MemNet, a: Identity, b: Identity) -> (Node, Node) {
    (node_with(net, a, Limits::default()).await, node_with(net, b, Limits::default()).await)
}

#[tokio::test(start_paused = true)]
async fn nodes_of_two_clusters_refuse_each_other() {
    let net = MemNet::new();
    let other = Identity { cluster_name: "other".into(), ..of_cluster("b", Some(2)) };
    let (a, b) = pair(&net, identity("a"), other.clone()).await;
    let error = a.echo("b").await.unwrap_err();
    let reason = Refusal::OtherCluster { cluster: ClusterId(2), name: "other".into() };
    assert_matches!(error, CallError::Refused { reason: found } if *found == reason);
    assert_eq!(
        error.to_string(),
        r#"the node refused the connection: it belongs to cluster "other" (0000000000000002)"#
    );
    assert_matches!(b.echo("a").await, Err(CallError::Refused { .. }));
    assert_eq!(a.probe("b:7000").await, ProbeOutcome::OtherCluster(other));
    assert_eq!(b.probe("a:7000").await, ProbeOutcome::OtherCluster(identity("a")));
}

#[tokio::test(start_paused = true)]
async fn node_without_a_cluster_may_talk_to_any() {
    let net = MemNet::new();
    let (a, b) = pair(&net, of_cluster("a", None), identity("b")).await;
    let c = node_with(&net, of_cluster("c", None), Limits::default()).await;
    assert_echo(a.echo("b").await);
    assert_echo(b.echo("a").await);
    assert_echo(a.echo("c").await);
    assert_eq!(c.probe("b:7000").await, ProbeOutcome::Answered(identity("b")));
}

#[tokio::test(start_paused = true)]
async fn node_that_joins_another_cluster_is_no_longer_heard() {
    let net = MemNet::new();
    let (a, mut b) = pair(&net, of_cluster("a", None), identity("b")).await;
    assert_echo(a.echo("b").await);
    a.identity.send_modify(|identity| identity.cluster = Some(ClusterId(2)));
    assert_matches!(a.echo("b").await, Err(CallError::Lost));
    assert_eq!(b.loss().await, lost("a"));
    let error = a.echo("b").await.unwrap_err();
    assert_matches!(error, CallError::Refused { reason: Refusal::OtherCluster { .. } });
}

#[tokio::test(start_paused = true)]
async fn call_for_another_node_is_not_sent() {
    let net = MemNet::new();
    let (a, mut b) = pair(&net, identity("a"), identity("b")).await;
    let wrong = Target { addr: "b:7000".into(), node: Some(name("c")) };
    let error = a.transport.call(&wrong, Class::Data, kinds::TELL, Bytes::new(), SECOND).await.unwrap_err();
    assert_matches!(error, CallError::WrongNode { expected, found } if *expected == name("c") && *found == name("b"));
    let any = Target { addr: "b:7000".into(), node: None };
    a.transport.call(&any, Class::Data, kinds::TELL, "told".into(), SECOND).await.unwrap();
    assert_eq!(b.told.recv().await.unwrap(), "told");
}

#[tokio::test(start_paused = true)]
async fn second_node_of_one_name_is_refused() {
    let net = MemNet::new();
    let a = node(&net, "a").await;
    let twin = Identity { store: StoreId(99), ..identity("a") };
    let twin = start(Arc::new(net.host("elsewhere")), ":7000", twin, Limits::default()).await;
    let reason = Refusal::NodeIdClash { node: name("a"), addr: "a:7000".into() };
    assert_eq!(reason.to_string(), "node id a is in use by a:7000");
    let expect = ProbeOutcome::Declined { reason, identity: identity("a") };
    assert_eq!(twin.probe("a:7000").await, expect);
    assert_matches!(a.probe("elsewhere:7000").await, ProbeOutcome::Declined { .. });
}

#[tokio::test(start_paused = true)]
async fn node_with_no_room_says_that_it_is_busy() {
    let net = MemNet::new();
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let b = node_with(&net, identity("b"), limits).await;
    let a = node(&net, "a").await;
    assert_echo(a.echo("b").await);
    let busy = ProbeOutcome::Declined { reason: Refusal::Busy, identity: identity("b") };
    assert_eq!(a.probe("b:7000").await, busy);
    a.stop.cancel();
    let c = node(&net, "c").await;
    assert_eq!(c.probe("b:7000").await, ProbeOutcome::Answered(identity("b")));
    drop(b);
}

#[tokio::test(start_paused = true)]
async fn probe_leaves_no_connection_and_no_loss() {
    let net = MemNet::new();
    let (a, b) = pair(&net, identity("a"), identity("b")).await;
    for _ in 0..3 {
        assert_eq!(a.probe("b:7000").await, ProbeOutcome::Answered(identity("b")));
    }
    tokio::time::sleep(SECOND).await; // tidy: the clock is paused
    assert_eq!(b.transport.shared.seats.available_permits(), Limits::default().connections_max);
    assert!(a.losses.is_empty() && b.losses.is_empty());
}

#[tokio::test(start_paused = true)]
async fn address_in_use_is_an_error() {
    let net = MemNet::new();
    let a = node(&net, "a").await;
    let options = Options {
        net: Arc::new(net.host("a")),
        listen_addr: "a:7000".into(),
        identity: a.identity.subscribe(),
        service: a.transport.shared.service.clone(),
        tracker: TaskTracker::new(),
        stop: CancellationToken::new(),
        limits: Limits::default(),
    };
    let error = Transport::start(options).await.unwrap_err();
    assert_matches!(error, ListenError::Bind { addr, source } if *addr == "a:7000" && source.kind() == std::io::ErrorKind::AddrInUse);
}
