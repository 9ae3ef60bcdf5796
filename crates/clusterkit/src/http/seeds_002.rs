//! The routes of the etcd edition: `/cluster/nodes`, `/cluster/partitions` and so on.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use clusterkit_core::id::NodeId;
use clusterkit_core::topology::{Node, Topology};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::endpoint::Endpoint;
use super::problem::{Code, Problem};
use super::request::{Key, Query, find_partition, parse_partition};
use super::topology::KeyQuery;

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    let by_partition = [Code::InvalidValue, Code::MissingParameter, Code::NotFormed, Code::UnknownPartition];
    vec![
        Endpoint::get("/cluster/nodes", nodes)
            .summary("The nodes that are alive.")
            .json::<EdgeNodes>("The nodes."),
        Endpoint::get("/cluster/partitions", partitions)
            .summary("The nodes that hold each partition, the leader first.")
            .json::<HolderMap>("The partitions."),
        Endpoint::get("/cluster/stats", stats)
            .summary("How many nodes and partitions there are, and how many are this node's.")
            .json::<NodeStats>("The counts."),
        Endpoint::get("/cluster/partition", partition)
            .summary("The partition of a key.")
            .query::<KeyQuery>()
            .json::<KeyPartition>("The partition.")
            .fails(&[Code::InvalidValue, Code::MissingParameter, Code::NotFormed]),
        Endpoint::get("/cluster/leader", leader)
            .summary("The leader of a partition.")
            .query::<PartitionQuery>()
            .json::<PartitionLeader>("The leader, none while an election runs.")
            .fails(&by_partition),
        Endpoint::get("/cluster/replicas", replicas)
            .summary("The nodes that hold a partition, the leader first.")
            .query::<PartitionQuery>()
            .json::<PartitionReplicas>("The nodes.")
            .fails(&by_partition),
    ]
}

/// A node.
#[derive(Debug, Serialize, ToSchema)]
struct EdgeNode {
    id: String,
    /// Where clients reach it.
    addr: String,
    /// The same, as a URL.
    http_endpoint: String,
    /// The same: both protocols share the port.
    grpc_endpoint: String,
    metadata: BTreeMap<String, String>,
}

impl From<&Node> for EdgeNode {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id.to_string(),
            addr: node.public_addr.clone(),
            http_endpoint: format!("http://{}", node.public_addr),
            grpc_endpoint: node.public_addr.clone(),
            metadata: node.metadata.clone(),
        }
    }
}

/// The nodes that are alive.
#[derive(Debug, Serialize, ToSchema)]
struct EdgeNodes {
    nodes: Vec<EdgeNode>,
    count: usize,
}

async fn nodes(State(api): State<Api>) -> Json<EdgeNodes> {
    let nodes: Vec<_> = api.ck().nodes().iter().map(|node| EdgeNode::from(node.as_ref())).collect();
    Json(EdgeNodes { count: nodes.len(), nodes })
}

/// The partitions by their numbers.
#[derive(Debug, Serialize, ToSchema)]
struct HolderMap {
    /// The nodes that hold each, the leader first.
    #[schema(value_type = BTreeMap<String, Vec<String>>)]
    partitions: BTreeMap<u32, Vec<String>>,
    count: usize,
}

async fn partitions(State(api): State<Api>) -> Json<HolderMap> {
    let map = api.ck().partition_map().into_iter();
    let row = |nodes: Vec<NodeId>| nodes.iter().map(ToString::to_string).collect();
    let partitions: BTreeMap<_, _> = map.map(|(partition, nodes)| (partition.0, row(nodes))).collect();
    Json(HolderMap { count: partitions.len(), partitions })
}

/// How many nodes and partitions there are.
#[derive(Debug, Serialize, ToSchema)]
struct NodeStats {
    /// Nodes that are alive.
    node_count: usize,
    partition_count: u32,
    /// Partitions that this node holds.
    local_partitions: u32,
    /// Partitions that this node leads.
    leader_partitions: u32,
    replica_factor: u32,
}

async fn stats(State(api): State<Api>) -> Json<NodeStats> {
    let stats = api.ck().stats();
    let own = stats.nodes.get(api.ck().node_id()).copied().unwrap_or_default();
    Json(NodeStats {
        node_count: api.ck().nodes().len(),
        partition_count: stats.partitions,
        local_partitions: own.replicas,
        leader_partitions: own.leaders,
        replica_factor: api.ck().config().map_or(0, |config| config.replication_factor),
    })
}

/// The partition of a key.
#[derive(Debug, Serialize, ToSchema)]
struct KeyPartition {
    /// The key; escaped where it is no text.
    key: String,
    partition: u32,
}

async fn partition(State(api): State<Api>, Key(key): Key) -> Result<Json<KeyPartition>, Problem> {
    let partition = api.ck().partition(&key).ok_or_else(Problem::not_formed)?;
    let key = String::from_utf8(key).unwrap_or_else(|error| error.as_bytes().escape_ascii().to_string());
    Ok(Json(KeyPartition { key, partition: partition.0 }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct PartitionQuery {
    /// A partition, as `5` or `partition-5`.
    #[param(pattern = "^(partition-)?[0-9]{1,9}$")]
    partition: String,
}

/// The leader of a partition.
#[derive(Debug, Serialize, ToSchema)]
struct PartitionLeader {
    partition: u32,
    epoch: u64,
    leader: Option<EdgeNode>,
}

async fn leader(
    State(api): State<Api>,
    Query(query): Query<PartitionQuery>,
) -> Result<Json<PartitionLeader>, Problem> {
    let topology = api.ck().topology();
    let record = find_partition(&topology, parse_partition(&query.partition)?)?;
    let leader = record.leader.as_ref().and_then(|leader| edge_node(&topology, leader));
    Ok(Json(PartitionLeader { partition: record.id.0, epoch: record.epoch.0, leader }))
}

/// The nodes that hold a partition.
#[derive(Debug, Serialize, ToSchema)]
struct PartitionReplicas {
    partition: u32,
    /// The leader first.
    replicas: Vec<EdgeNode>,
}

async fn replicas(
    State(api): State<Api>,
    Query(query): Query<PartitionQuery>,
) -> Result<Json<PartitionReplicas>, Problem> {
    let topology = api.ck().topology();
    let record = find_partition(&topology, parse_partition(&query.partition)?)?;
    let replicas = record.holders().filter_map(|node| edge_node(&topology, node)).collect();
    Ok(Json(PartitionReplicas { partition: record.id.0, replicas }))
}

fn edge_node(topology: &Topology, node: &NodeId) -> Option<EdgeNode> {
    topology.node(node).map(EdgeNode::from)
}
