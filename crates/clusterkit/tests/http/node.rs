//! Nodes with a public port, each in a folder of its own.

use std::net::SocketAddr;
use std::time::Duration;

use clusterkit::{Builder, ClusterKit, Topology, http};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// Longer than anything these tests wait for takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at something that nobody announces.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

pub(crate) struct TestNode {
    pub(crate) ck: ClusterKit,
    pub(crate) addr: SocketAddr,
    pub(crate) close: CancellationToken,
    pub(crate) served: JoinHandle<()>,
    _dir: TempDir,
}

/// A node that has the cluster to itself, or joins the one that `seeds` are of.
pub(crate) async fn start(name: &str, seeds: &[String]) -> TestNode {
    let node = launch(name, seeds).await;
    node.ck.ready().await.expect("a member");
    node
}

/// A node whose port is served while it looks for its cluster.
pub(crate) async fn launch(name: &str, seeds: &[String]) -> TestNode {
    launch_with(name, seeds, |builder| builder).await
}

/// The same, with more settings.
pub(crate) async fn launch_with(
    name: &str,
    seeds: &[String],
    configure: impl FnOnce(Builder) -> Builder,
) -> TestNode {
    let dir = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let builder = ClusterKit::builder(name, &addr.to_string());
    let builder = builder.listen("127.0.0.1:0").data_dir(dir.path()).partitions(8).seeds(seeds.to_vec());
    let ck = configure(builder.metadata("rack", "r1")).launch().await.expect("a node");
    let close = CancellationToken::new();
    let (served, router) = (ck.clone(), http::router(&ck));
    let stop = close.clone();
    let served = tokio::spawn(async move { http::serve(&served, listener, router, stop).await });
    TestNode { ck, addr, close, served, _dir: dir }
}

/// One node, ready, with its partitions led.
pub(crate) async fn single() -> TestNode {
    let node = start("node-1", &[]).await;
    wait_for(&node.ck, |topology| topology.partitions.iter().all(|record| record.leader.is_some())).await;
    node
}

/// Three nodes with every partition on each of them. The second and third are told public addresses.
pub(crate) async fn three() -> Vec<TestNode> {
    let first = start("node-1", &[]).await;
    let seeds = [first.addr.to_string()];
    let (second, third) = tokio::join!(start("node-2", &seeds), start("node-3", &seeds));
    let nodes = vec![first, second, third];
    for node in &nodes {
        wait_for(&node.ck, |topology| is_whole(topology, 3)).await;
    }
    eventually("three voters", || nodes.iter().all(|node| node.ck.control_plane().voters.len() == 3)).await;
    nodes
}

/// Whether every partition has `copies` in sync, and nothing is under way.
pub(crate) fn is_whole(topology: &Topology, copies: usize) -> bool {
    topology.partitions.iter().all(|record| {
        record.leader.is_some()
            && record.in_sync.len() == copies
            && record.replicas.len() == copies
            && record.movement.is_none()
            && record.transfer.is_none()
    })
}

pub(crate) async fn wait_for(ck: &ClusterKit, wanted: impl Fn(&Topology) -> bool) {
    let mut watch = ck.watch();
    let found = timeout(PATIENCE, watch.wait_for(wanted)).await;
    assert!(matches!(found, Ok(Some(_))), "not in time: {:?}", ck.topology());
}

/// Waits for what no event announces.
pub(crate) async fn eventually(what: &str, wanted: impl Fn() -> bool) {
    let looking = async {
        let mut looks = interval(LOOK_AGAIN);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !wanted() {
            looks.tick().await;
        }
    };
    assert!(timeout(PATIENCE, looking).await.is_ok(), "{what}: not in time");
}
