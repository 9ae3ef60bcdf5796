//! The gRPC side of a real node, asked by a real client over a socket.
#![cfg(feature = "grpc")]
#![allow(clippy::unwrap_used, reason = "steps of a test that cannot go on without the value")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::serve::ListenerExt as _;
use clusterkit::core::hash::KeyHash;
use clusterkit::grpc::ChannelError;
use clusterkit::{Builder, ClusterKit, NodeStatus, Topology};
use clusterkit_wire::grpc::cluster::v1;
use clusterkit_wire::grpc::cluster::v1::cluster_service_client::ClusterServiceClient;
use clusterkit_wire::grpc::cluster::v1::get_partition_request::Selector;
use clusterkit_wire::grpc::cluster::v1::get_topology_response::Result as TopologyResult;
use clusterkit_wire::grpc::cluster::v1::topology_update::Update;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const SERVICE: &str = "clusterkit.cluster.v1.ClusterService";
const NODE: &str = "node-1";
const PUBLIC_ADDR: &str = "10.0.0.1:8080";
/// No cluster has this id: an id is never zero.
const OTHER_CLUSTER: &str = "0000000000000000";
const KEY: &[u8] = b"user:1";

/// Longer than anything here takes: a test that hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(60);

/// The controller has nothing left to do for the one node.
fn is_settled(topology: &Topology) -> bool {
    let is_led = topology.partitions.iter().all(|partition| partition.leader.is_some());
    is_led && topology.nodes.values().all(|node| node.status() == NodeStatus::Alive)
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it takes far less")
}

/// A node, and a client that is connected to it.
struct World {
    node: ClusterKit,
    channel: Channel,
    client: ClusterServiceClient<Channel>,
    _dir: TempDir,
}

impl World {
    /// A cluster of one node.
    async fn formed() -> Self {
        let world = Self::launched(|builder| builder.zone("east").metadata("rack", "7")).await;
        within(world.node.ready()).await.unwrap();
        within(world.node.watch().wait_for(is_settled)).await.unwrap();
        world
    }

    /// A node that may be looking for its cluster still.
    async fn launched(setup: impl FnOnce(Builder) -> Builder) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let builder = ClusterKit::builder(NODE, PUBLIC_ADDR).listen("127.0.0.1:0").data_dir(dir.path());
        let node = within(setup(builder).launch()).await.unwrap();
        let channel = serve(&node).await;
        Self { node, client: ClusterServiceClient::new(channel.clone()), channel, _dir: dir }
    }

    async fn topology(&mut self) -> v1::Topology {
        let answer = within(self.client.get_topology(v1::GetTopologyRequest::default())).await.unwrap();
        match answer.into_inner().result {
            Some(TopologyResult::Topology(topology)) => topology,
            other => panic!("asked without a version: {other:?}"),
        }
    }

    async fn not_modified(&mut self, version: u64, cluster_id: Option<String>) -> Option<v1::NotModified> {
        let request = v1::GetTopologyRequest { known_route_version: Some(version), cluster_id };
        let answer = within(self.client.get_topology(request)).await.unwrap().into_inner();
        match answer.result.unwrap() {
            TopologyResult::NotModified(word) => Some(word),
            TopologyResult::Topology(_) => None,
        }
    }

    async fn watch(&mut self, from_version: Option<u64>) -> Streaming<v1::TopologyUpdate> {
        self.watch_of(from_version, None).await
    }

    async fn watch_of(
        &mut self,
        from_version: Option<u64>,
        cluster_id: Option<String>,
    ) -> Streaming<v1::TopologyUpdate> {
        let request = v1::WatchTopologyRequest { from_version, cluster_id };
        within(self.client.watch_topology(request)).await.unwrap().into_inner()
    }

    async fn partition(&mut self, selector: Option<Selector>) -> Result<v1::Partition, Status> {
        Ok(self.partition_answer(selector).await?.partition.unwrap())
    }

    async fn partition_answer(
        &mut self,
        selector: Option<Selector>,
    ) -> Result<v1::GetPartitionResponse, Status> {
        let answer = within(self.client.get_partition(v1::GetPartitionRequest { selector })).await?;
        Ok(answer.into_inner())
    }

    async fn route(&mut self, key: &[u8]) -> Result<v1::GetRouteResponse, Status> {
        let key = key.to_vec().into();
        Ok(within(self.client.get_route(v1::GetRouteRequest { key })).await?.into_inner())
    }

    async fn node(&mut self, id: &str) -> Result<v1::Node, Status> {
        let answer = within(self.client.get_node(v1::GetNodeRequest { id: id.to_owned() })).await?;
        Ok(answer.into_inner().node.unwrap())
    }

    async fn node_ids(&mut self, statuses: &[i32]) -> Result<Vec<String>, Status> {
        let request = v1::ListNodesRequest { statuses: statuses.to_vec() };
        let nodes = within(self.client.list_nodes(request)).await?.into_inner().nodes;
        Ok(nodes.into_iter().map(|node| node.id).collect())
    }

    async fn status(&mut self) -> v1::GetStatusResponse {
        within(self.client.get_status(v1::GetStatusRequest {})).await.unwrap().into_inner()
    }

    async fn health(&self, service: &str) -> Result<ServingStatus, Status> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = within(HealthClient::new(self.channel.clone()).check(request)).await?;
        Ok(answer.into_inner().status())
    }
}

/// Serves the node on a free port until the test ends, and connects to it.
async fn serve(node: &ClusterKit) -> Channel {
    serve_with_window(node, 65_535).await
}

/// The same, with a client that takes so many bytes of a stream before it reads them.
async fn serve_with_window(node: &ClusterKit, window_bytes: u32) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    // As a program merges them into its own routes, which have a fallback.
    let router = axum::Router::new().fallback(|| async { "not gRPC" }).merge(clusterkit::grpc::routes(node));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).unwrap();
    within(endpoint.initial_stream_window_size(window_bytes).connect()).await.unwrap()
}

async fn next(updates: &mut Streaming<v1::TopologyUpdate>) -> Result<Update, Status> {
    let update = within(updates.message()).await?.expect("a watch ends with a status");
    Ok(update.update.unwrap())
}

async fn next_whole(updates: &mut Streaming<v1::TopologyUpdate>) -> v1::Topology {
    match next(updates).await.unwrap() {
        Update::Topology(topology) => topology,
        Update::Delta(delta) => panic!("expected the whole topology, not {delta:?}"),
    }
}

async fn next_delta(updates: &mut Streaming<v1::TopologyUpdate>) -> v1::TopologyDelta {
    match next(updates).await.unwrap() {
        Update::Delta(delta) => delta,
        Update::Topology(topology) => panic!("expected a delta, not {topology:?}"),
    }
}

/// Moves `topology` on until `wanted` holds.
async fn follow(
    updates: &mut Streaming<v1::TopologyUpdate>,
    topology: &mut v1::Topology,
    wanted: impl Fn(&v1::Topology) -> bool,
) {
    while !wanted(topology) {
        topology.apply(next_delta(updates).await).unwrap();
    }
}

fn copies(topology: &v1::Topology) -> u32 {
    topology.cluster.as_ref().unwrap().replication_factor
}

fn code<T: std::fmt::Debug>(outcome: Result<T, Status>) -> Code {
    outcome.unwrap_err().code()
}

#[tokio::test]
async fn topology_is_told_whole() {
    let mut world = World::formed().await;
    let topology = world.topology().await;
    assert_eq!(topology, v1::Topology::from(&*world.node.topology()));
    let hash = topology.cluster.unwrap().hash_config.unwrap();
    assert_eq!((hash.algorithm.as_str(), hash.partition_count), ("crc16-slots", 64));
    assert_eq!(topology.partitions.len(), 64);
}

#[tokio::test]
async fn known_routes_are_not_sent_again() {
    let mut world = World::formed().await;
    let topology = world.topology().await;
    let (version, cluster_id) = (topology.route_version, topology.cluster.unwrap().id);
    let expect =
        v1::NotModified { version: topology.version, route_version: version, cluster_id: cluster_id.clone() };
    assert_eq!(world.not_modified(version, None).await, Some(expect.clone()));
    assert_eq!(world.not_modified(version, Some(cluster_id)).await, Some(expect));
    assert_eq!(world.not_modified(version + 1, None).await, None);
    assert_eq!(world.not_modified(version, Some(OTHER_CLUSTER.to_owned())).await, None);
}

#[tokio::test]
async fn watch_sees_every_change_after_the_whole_topology() {
    let mut world = World::formed().await;
    let mut updates = world.watch(None).await;
    let mut topology = next_whole(&mut updates).await;
    assert_eq!(copies(&topology), 3);
    for wanted in [2, 5] {
        within(world.node.set_replication_factor(wanted)).await.unwrap();
        follow(&mut updates, &mut topology, |topology| copies(topology) == wanted).await;
    }
    let newest = world.topology().await;
    follow(&mut updates, &mut topology, |topology| topology.version >= newest.version).await;
    assert_eq!(topology, newest);
}

#[tokio::test]
async fn watch_from_the_current_version_begins_with_the_next_change() {
    let mut world = World::formed().await;
    let mut topology = world.topology().await;
    let mut updates = world.watch(Some(topology.version)).await;
    within(world.node.set_replication_factor(2)).await.unwrap();
    follow(&mut updates, &mut topology, |topology| copies(topology) == 2).await;
}

#[tokio::test]
async fn watch_takes_no_notice_of_a_version_of_another_cluster() {
    let mut world = World::formed().await;
    let mut updates = world.watch_of(Some(u64::MAX), Some(OTHER_CLUSTER.to_owned())).await;
    let topology = next_whole(&mut updates).await;
    assert_eq!(topology, world.topology().await);
}

/// The client's window holds a part of the first message only, so the node can prepare hardly more
/// than that before the client reads: at most what lies in buffers on the way, and the rest at once.
#[tokio::test]
async fn client_that_does_not_read_gets_what_it_missed_as_one_larger_delta() {
    let mut world = World::formed().await;
    world.client = ClusterServiceClient::new(serve_with_window(&world.node, 1_024).await);
    let mut updates = world.watch(None).await;
    for wanted in [2, 5, 4, 6, 2, 5, 4, 6, 1] {
        within(world.node.set_replication_factor(wanted)).await.unwrap();
    }
    let mut topology = next_whole(&mut updates).await;
    let (mut deltas, mut versions) = (0, 0);
    while copies(&topology) != 1 {
        let delta = next_delta(&mut updates).await;
        versions += delta.to_version - delta.from_version;
        deltas += 1;
        topology.apply(delta).unwrap();
    }
    assert!(deltas <= 3 && versions >= 9, "{deltas} deltas for {versions} versions");
    assert_eq!(topology, world.topology().await);
}

#[tokio::test]
async fn node_is_found_by_its_id() {
    let mut world = World::formed().await;
    let node = world.node(NODE).await.unwrap();
    assert_eq!(node, v1::Node::from(world.node.topology().node(world.node.node_id()).unwrap()));
    assert_eq!((node.public_addr.as_str(), node.zone.as_deref()), (PUBLIC_ADDR, Some("east")));
    assert_eq!((node.role(), node.status()), (v1::NodeRole::Voter, v1::NodeStatus::Alive));
    assert_eq!(node.metadata["rack"], "7");
    assert_eq!(code(world.node("node-2").await), Code::NotFound);
    assert_eq!(code(world.node("").await), Code::InvalidArgument);
    assert_eq!(code(world.node("a/b").await), Code::InvalidArgument);
}

#[tokio::test]
async fn nodes_are_listed_by_status() {
    let mut world = World::formed().await;
    let alive = v1::NodeStatus::Alive.into();
    assert_eq!(world.node_ids(&[]).await.unwrap(), [NODE]);
    assert_eq!(world.node_ids(&[v1::NodeStatus::Dead.into(), alive]).await.unwrap(), [NODE]);
    assert!(world.node_ids(&[v1::NodeStatus::Dead.into()]).await.unwrap().is_empty());
    assert_eq!(code(world.node_ids(&[alive, 0]).await), Code::InvalidArgument);
    assert_eq!(code(world.node_ids(&[99]).await), Code::InvalidArgument);
}

#[tokio::test]
async fn partition_is_found_by_number_and_by_key() {
    let mut world = World::formed().await;
    let number = KeyHash::Crc16Slots.partition_of(KEY, 64).0;
    let by_key = world.partition(Some(Selector::Key(KEY.into()))).await.unwrap();
    let by_number = world.partition(Some(Selector::Id(number))).await.unwrap();
    assert_eq!((by_key.id, by_key.leader.as_deref()), (number, Some(NODE)));
    assert_eq!(by_key, by_number);
    assert_eq!(by_key.health(), v1::PartitionHealth::UnderReplicated);
    let answer = world.partition_answer(Some(Selector::Id(number))).await.unwrap();
    let current = v1::EpochRecord { epoch: by_key.epoch, leader: NODE.to_owned(), origin: by_key.origin };
    assert_eq!(answer.history.last(), Some(&current));
    assert_ne!(by_key.origin(), v1::EpochOrigin::Unspecified);
    assert_eq!(code(world.partition(Some(Selector::Id(64))).await), Code::NotFound);
    assert_eq!(code(world.partition(Some(Selector::Key(vec![].into()))).await), Code::InvalidArgument);
    assert_eq!(code(world.partition(None).await), Code::InvalidArgument);
}

#[tokio::test]
async fn route_names_the_leader_and_its_address() {
    let mut world = World::formed().await;
    let route = world.route(KEY).await.unwrap();
    assert_eq!(route.partition, KeyHash::Crc16Slots.partition_of(KEY, 64).0);
    let leader = route.leader.unwrap();
    assert_eq!((leader.id.as_str(), leader.public_addr.as_str()), (NODE, PUBLIC_ADDR));
    assert!(route.epoch > 0);
    assert_eq!(route.followers, []);
    assert_eq!(code(world.route(b"").await), Code::InvalidArgument);
}

#[tokio::test]
async fn request_beyond_its_bound_is_refused() {
    let mut world = World::formed().await;
    let key = vec![b'k'; clusterkit::grpc::REQUEST_BYTES_MAX];
    assert_eq!(code(world.route(&key).await), Code::OutOfRange);
    assert!(world.route(&key[..key.len() - 8]).await.is_ok());
}

#[tokio::test]
async fn status_says_why_the_cluster_is_not_healthy() {
    let mut world = World::formed().await;
    let status = world.status().await;
    assert_eq!((status.node.as_str(), status.ready), (NODE, true));
    assert_eq!(status.cluster_name, clusterkit::CLUSTER_NAME_DEFAULT);
    assert_eq!(status.control_plane.unwrap().controller.as_deref(), Some(NODE));
    let alive = v1::NodeCount { status: v1::NodeStatus::Alive.into(), count: 1 };
    let under = v1::PartitionCount { health: v1::PartitionHealth::UnderReplicated.into(), count: 64 };
    assert_eq!((status.nodes, status.partitions), (vec![alive], vec![under]));
    let health = status.health.unwrap();
    assert_eq!(health.state(), v1::HealthState::Degraded);
    let reasons: Vec<_> =
        health.reasons.iter().map(|reason| (reason.code.as_str(), reason.partitions)).collect();
    assert_eq!(reasons, [("under_replicated", Some(64))]);
}

#[tokio::test]
async fn stats_count_what_each_node_holds() {
    let mut world = World::formed().await;
    let stats = within(world.client.get_stats(v1::GetStatsRequest {})).await.unwrap().into_inner();
    assert_eq!(stats.nodes, [v1::NodeShare { node: NODE.to_owned(), replicas: 64, leaders: 64 }]);
    assert_eq!((stats.partitions, stats.moves), (64, 0));
    assert_eq!((stats.replication_factor, stats.replication_factor_effective), (3, 1));
    assert_eq!(stats.most_loaded.as_deref(), Some(NODE));
}

#[tokio::test]
async fn health_follows_readiness() {
    let world = World::formed().await;
    assert_eq!(world.health("").await.unwrap(), ServingStatus::Serving);
    assert_eq!(world.health(SERVICE).await.unwrap(), ServingStatus::Serving);
    assert_eq!(code(world.health("clusterkit.kv.v1.KvService").await), Code::NotFound);
    within(world.node.stop()).await;
    assert_eq!(world.health("").await.unwrap(), ServingStatus::NotServing);
    assert_eq!(world.health(SERVICE).await.unwrap(), ServingStatus::NotServing);
}

#[tokio::test]
async fn draining_node_is_not_healthy_to_balancers() {
    let world = World::formed().await;
    let id = world.node.node_id();
    within(world.node.drain(id)).await.unwrap();
    let is_leaving = |topology: &Topology| topology.node(id).unwrap().status() == NodeStatus::Leaving;
    within(world.node.watch().wait_for(is_leaving)).await.unwrap();
    assert_eq!(world.health("").await.unwrap(), ServingStatus::NotServing);
}

#[tokio::test]
async fn node_without_a_majority_is_not_healthy_to_balancers() {
    let mut world = World::formed().await;
    let dir = tempfile::tempdir().unwrap();
    let other = ClusterKit::builder("node-2", "10.0.0.2:8080").listen("127.0.0.1:0").data_dir(dir.path());
    let other = within(other.seeds([world.node.node_addr()]).start()).await.unwrap();
    within(async { while world.status().await.control_plane.unwrap().voters.len() < 2 {} }).await;

    let service = SERVICE.to_owned();
    let mut client = HealthClient::new(world.channel.clone());
    let mut health = within(client.watch(HealthCheckRequest { service })).await.unwrap().into_inner();
    assert_eq!(within(health.message()).await.unwrap().unwrap().status(), ServingStatus::Serving);
    within(other.stop()).await;
    assert_eq!(within(health.message()).await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(world.health("").await.unwrap(), ServingStatus::NotServing);
    assert_eq!(world.topology().await.nodes.len(), 2, "what it knows can be asked still");
}

#[tokio::test]
async fn health_watch_tells_the_stop_and_ends() {
    let world = World::formed().await;
    let watch = |service: &str| {
        let (mut client, service) = (HealthClient::new(world.channel.clone()), service.to_owned());
        async move { within(client.watch(HealthCheckRequest { service })).await.unwrap().into_inner() }
    };
    let (mut served, mut unknown) = (watch(SERVICE).await, watch("unheard.of").await);
    let status = |answer: Option<tonic_health::pb::HealthCheckResponse>| answer.map(|answer| answer.status());
    assert_eq!(status(within(served.message()).await.unwrap()), Some(ServingStatus::Serving));
    assert_eq!(status(within(unknown.message()).await.unwrap()), Some(ServingStatus::ServiceUnknown));
    within(world.node.stop()).await;
    assert_eq!(status(within(served.message()).await.unwrap()), Some(ServingStatus::NotServing));
    assert_eq!(status(within(served.message()).await.unwrap()), None);
    assert_eq!(status(within(unknown.message()).await.unwrap()), None);
}

#[tokio::test]
async fn node_without_a_cluster_tells_its_status_and_nothing_else() {
    // A seed that takes connections and never answers.
    let seed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = seed.local_addr().unwrap().to_string();
    let mut world = World::launched(|builder| builder.seeds([addr])).await;
    let status = world.status().await;
    assert_eq!((status.ready, status.cluster_id), (false, None));
    assert_eq!(status.health.unwrap().reasons[0].code, "not_formed");
    assert_eq!(world.health("").await.unwrap(), ServingStatus::NotServing);
    let request = v1::GetTopologyRequest::default();
    assert_eq!(code(within(world.client.get_topology(request)).await), Code::Unavailable);
    let request = v1::WatchTopologyRequest::default();
    assert_eq!(code(within(world.client.watch_topology(request)).await), Code::Unavailable);
    assert_eq!(code(world.route(KEY).await), Code::Unavailable);
    assert_eq!(code(world.node(NODE).await), Code::Unavailable);
}

#[tokio::test]
async fn stopping_node_sends_its_clients_to_others() {
    let mut world = World::formed().await;
    let mut updates = world.watch(None).await;
    next_whole(&mut updates).await;
    within(world.node.stop()).await;
    let ended = loop {
        match next(&mut updates).await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unavailable);
    assert_eq!(code(world.route(KEY).await), Code::Unavailable);
    assert!(!world.status().await.node.is_empty());
}

#[tokio::test]
async fn a_program_calls_other_nodes_over_one_channel_each() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let listener = listener.tap_io(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let dir = tempfile::tempdir().unwrap();
    let builder = ClusterKit::builder(NODE, &addr).listen("127.0.0.1:0").data_dir(dir.path());
    let node = within(builder.start()).await.unwrap();
    let router = clusterkit::grpc::routes(&node);
    tokio::spawn(async move { axum::serve(listener, router).await });
    for _ in 0..3 {
        let channel = node.channel(node.node_id()).unwrap();
        let request = v1::GetNodeRequest { id: NODE.to_owned() };
        let answer = within(ClusterServiceClient::new(channel).get_node(request)).await.unwrap();
        assert_eq!(answer.into_inner().node.unwrap().id, NODE);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let stranger = clusterkit::NodeId::new("stranger").unwrap();
    assert!(matches!(node.channel(&stranger), Err(ChannelError::UnknownNode { .. })));
}
