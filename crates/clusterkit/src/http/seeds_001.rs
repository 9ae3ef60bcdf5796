//! The routes of the Raft edition, which smart clients poll: `/cluster`, `/partitions`,
//! `/consensus/...`, `/nodes`, `/join`. `primary` is its word for the leader.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use clusterkit_core::hash::{KeyHash, SLOT_COUNT};
use clusterkit_core::id::NodeId;
use clusterkit_core::topology::{Cluster, Node, Partition, Topology};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::conditional::{Known, unless_known};
use super::dto::checked_limit;
use super::endpoint::Endpoint;
use super::limits::NODES_PAGE_LIMIT_DEFAULT;
use super::problem::{Code, Problem};
use super::request::{Body, Key, Query, find_partition};
use super::seeds_004::check_member;
use super::topology::KeyQuery;

/// How long a cache between may keep an answer before it asks again.
const CACHE_CONTROL: &str = "max-age=30";

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    vec![
        Endpoint::get("/cluster", cluster)
            .summary("The cluster with its nodes and partitions.")
            .conditional()
            .json::<ClusterAnswer>("The cluster."),
        Endpoint::get("/partitions", partitions)
            .summary("Every partition with the nodes that hold it.")
            .conditional()
            .json::<PartitionList>("The partitions."),
        Endpoint::get("/partitions/stats", partition_stats)
            .summary("How many partitions each node leads and holds.")
            .json::<PartitionStats>("The counts."),
        Endpoint::get("/partitions/key", partition_of_key)
            .summary("The partition of a key.")
            .query::<KeyQuery>()
            .json::<PartitionEntry>("The partition.")
            .fails(&[Code::InvalidValue, Code::MissingParameter, Code::NotFormed]),
        Endpoint::get("/consensus/leader", consensus_leader)
            .summary("The controller.")
            .json::<ConsensusLeader>("The controller.")
            .fails(&[Code::ControllerUnknown]),
        Endpoint::get("/consensus/stats", consensus_stats)
            .summary("This node's place in the control plane.")
            .json::<ConsensusStats>("The place."),
        Endpoint::get("/nodes", nodes)
            .summary("The nodes, in pages.")
            .query::<NodesQuery>()
            .json::<NodeList>("A page of nodes.")
            .fails(&[Code::InvalidValue, Code::UnknownField]),
        Endpoint::post("/join", join)
            .summary("Whether a node is a member; a node joins by itself.")
            .body::<JoinRequest>()
            .json::<JoinAnswer>("It is a member.")
            .fails(&[Code::CrossSite, Code::InvalidValue, Code::JoinFromNode, Code::MissingParameter]),
    ]
}

/// The cluster, and how keys are hashed.
#[derive(Debug, Serialize, ToSchema)]
struct ClusterAnswer {
    cluster: ClusterEntry,
    /// None before the cluster formed.
    hash_config: Option<HashFormat>,
}

/// The cluster.
#[derive(Debug, Serialize, ToSchema)]
struct ClusterEntry {
    id: String,
    name: String,
    nodes: Vec<NodeEntry>,
    partition_map: PartitionMap,
    config: ClusterSettings,
}

/// The partitions by their names.
#[derive(Debug, Serialize, ToSchema)]
struct PartitionMap {
    partitions: BTreeMap<String, PartitionEntry>,
}

/// What the cluster was formed with.
#[derive(Debug, Serialize, ToSchema)]
struct ClusterSettings {
    cluster_name: String,
    partition_count: usize,
    replication_factor: u32,
}

/// A node.
#[derive(Debug, Serialize, ToSchema)]
struct NodeEntry {
    id: String,
    /// Where clients reach it, as `host:port`.
    ip: String,
    port: Option<u16>,
    name: String,
    #[schema(value_type = String)]
    status: &'static str,
}

impl From<&Node> for NodeEntry {
    fn from(node: &Node) -> Self {
        let port = node.public_addr.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        Self {
            id: node.id.to_string(),
            ip: node.public_addr.clone(),
            port,
            name: node.id.to_string(),
            status: node.status().as_str(),
        }
    }
}

/// A partition.
#[derive(Debug, Serialize, ToSchema)]
struct PartitionEntry {
    /// As in `partition-5`.
    id: String,
    /// The leader; empty while there is none.
    primary_node: String,
    /// The other nodes that hold it.
    replica_nodes: Vec<String>,
}

impl From<&Partition> for PartitionEntry {
    fn from(record: &Partition) -> Self {
        Self {
            id: record.id.to_string(),
            primary_node: record.leader.as_ref().map(ToString::to_string).unwrap_or_default(),
            replica_nodes: record.followers().map(ToString::to_string).collect(),
        }
    }
}

/// How a key becomes a partition.
#[derive(Debug, Serialize, ToSchema)]
struct HashFormat {
    #[schema(value_type = String)]
    algorithm: &'static str,
    /// How the hash becomes a number, in words.
    #[schema(value_type = String)]
    encoding: &'static str,
    /// What the number is divided by.
    modulo: u32,
    /// How a partition's number becomes its name.
    #[schema(value_type = String)]
    format: &'static str,
}

impl From<&Cluster> for HashFormat {
    fn from(cluster: &Cluster) -> Self {
        let (hash, partitions) = (cluster.config.key_hash, cluster.config.partition_count);
        let (encoding, modulo) = match hash {
            KeyHash::Crc16Slots => ("slot_times_partition_count_over_16384", SLOT_COUNT),
            KeyHash::Fnv1a32 => ("uint32", partitions),
            KeyHash::Md5Be32 | KeyHash::Sha256Be32 => ("big_endian_uint32_of_first_4_bytes", partitions),
            KeyHash::Xxh3_64 => ("uint64", partitions),
        };
        Self { algorithm: hash.as_str(), encoding, modulo, format: "partition-%d" }
    }
}

impl From<&Topology> for ClusterAnswer {
    fn from(topology: &Topology) -> Self {
        let cluster = topology.cluster.as_deref();
        let partition =
            |record: &Arc<Partition>| (record.id.to_string(), PartitionEntry::from(record.as_ref()));
        let name = cluster.map(|cluster| cluster.name.clone()).unwrap_or_default();
        let config = ClusterSettings {
            cluster_name: name.clone(),
            partition_count: topology.partitions.len(),
            replication_factor: cluster.map_or(0, |cluster| cluster.config.replication_factor),
        };
        let cluster_entry = ClusterEntry {
            id: cluster.map(|cluster| cluster.id.to_string()).unwrap_or_default(),
            name,
            nodes: node_entries(topology).collect(),
            partition_map: PartitionMap { partitions: topology.partitions.iter().map(partition).collect() },
            config,
        };
        Self { cluster: cluster_entry, hash_config: cluster.map(HashFormat::from) }
    }
}

fn node_entries(topology: &Topology) -> impl Iterator<Item = NodeEntry> {
    topology.nodes.values().map(|node| NodeEntry::from(node.as_ref()))
}

async fn cluster(State(api): State<Api>, headers: HeaderMap) -> Response {
    let topology = api.ck().topology();
    cached(&headers, &topology, || ClusterAnswer::from(topology.as_ref()))
}

fn cached<T: Serialize>(headers: &HeaderMap, topology: &Topology, answer: impl FnOnce() -> T) -> Response {
    let mut response = unless_known(Known::of(headers), topology.route_version, || Json(answer()));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(CACHE_CONTROL));
    response
}

/// Every partition.
#[derive(Debug, Serialize, ToSchema)]
struct PartitionList {
    partitions: Vec<PartitionEntry>,
    count: usize,
}

async fn partitions(State(api): State<Api>, headers: HeaderMap) -> Response {
    let topology = api.ck().topology();
    cached(&headers, &topology, || PartitionList {
        partitions: topology.partitions.iter().map(|record| PartitionEntry::from(record.as_ref())).collect(),
        count: topology.partitions.len(),
    })
}

/// How many partitions each node leads and holds.
#[derive(Debug, Serialize, ToSchema)]
struct PartitionStats {
    total_partitions: u32,
    /// Partitions that each node leads.
    partitions_per_node: BTreeMap<String, u32>,
    /// Partitions that each node holds without leading them.
    replicas_per_node: BTreeMap<String, u32>,
}

async fn partition_stats(State(api): State<Api>) -> Json<PartitionStats> {
    let stats = api.ck().stats();
    let nodes = || stats.nodes.iter().map(|(node, share)| (node.to_string(), *share));
    Json(PartitionStats {
        total_partitions: stats.partitions,
        partitions_per_node: nodes().map(|(node, share)| (node, share.leaders)).collect(),
        replicas_per_node: nodes()
            .map(|(node, share)| (node, share.replicas.saturating_sub(share.leaders)))
            .collect(),
    })
}

async fn partition_of_key(State(api): State<Api>, Key(key): Key) -> Result<Json<PartitionEntry>, Problem> {
    let topology = api.ck().topology();
    let partition = topology.partition_of(&key).ok_or_else(Problem::not_formed)?;
    Ok(Json(find_partition(&topology, partition)?.into()))
}

/// The controller.
#[derive(Debug, Serialize, ToSchema)]
struct ConsensusLeader {
    leader_id: String,
    leader_name: String,
    leader_ip: String,
    term: u64,
}

async fn consensus_leader(State(api): State<Api>) -> Result<Json<ConsensusLeader>, Problem> {
    let (control_plane, topology) = (api.ck().control_plane(), api.ck().topology());
    let controller = control_plane.controller.as_ref().and_then(|node| topology.node(node));
    let unknown = || Problem::new(Code::ControllerUnknown, "this node knows no controller just now");
    let controller = controller.ok_or_else(unknown)?;
    Ok(Json(ConsensusLeader {
        leader_id: controller.id.to_string(),
        leader_name: controller.id.to_string(),
        leader_ip: controller.public_addr.clone(),
        term: control_plane.term,
    }))
}

/// This node's place in the control plane.
#[derive(Debug, Serialize, ToSchema)]
struct ConsensusStats {
    #[schema(value_type = String)]
    state: &'static str,
    term: u64,
    last_log_index: u64,
    last_log_term: u64,
    commit_index: u64,
    applied_index: u64,
    /// The other nodes of the control plane.
    num_peers: usize,
    /// The controller; empty when none is known.
    leader: String,
}

async fn consensus_stats(State(api): State<Api>) -> Json<ConsensusStats> {
    let status = api.ck().control_plane();
    let others = status.voters.union(&status.learners).filter(|node| *node != api.ck().node_id());
    Json(ConsensusStats {
        state: status.state,
        term: status.term,
        last_log_index: status.log_index_last,
        last_log_term: status.log_term_last,
        commit_index: status.index_committed,
        applied_index: status.index_applied,
        num_peers: others.count(),
        leader: status.controller.as_ref().map(ToString::to_string).unwrap_or_default(),
    })
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct NodesQuery {
    /// Nodes at most, 1 to 1,000, default 50.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Nodes to leave out at the beginning.
    #[serde(default)]
    offset: usize,
}

/// A page of nodes.
#[derive(Debug, Serialize, ToSchema)]
struct NodeList {
    nodes: Vec<NodeEntry>,
    total: usize,
    offset: usize,
    limit: usize,
    has_more: bool,
    /// Where the next page begins; the number of nodes on the last one.
    next_offset: usize,
}

async fn nodes(State(api): State<Api>, Query(query): Query<NodesQuery>) -> Result<Json<NodeList>, Problem> {
    let limit = checked_limit(query.limit, NODES_PAGE_LIMIT_DEFAULT)?;
    let topology = api.ck().topology();
    let total = topology.nodes.len();
    let next_offset = query.offset.saturating_add(limit).min(total);
    Ok(Json(NodeList {
        nodes: node_entries(&topology).skip(query.offset).take(limit).collect(),
        total,
        offset: query.offset,
        limit,
        has_more: next_offset < total,
        next_offset,
    }))
}

/// A node that somebody wants to join.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct JoinRequest {
    node: JoiningNode,
    /// Where other nodes would reach it. Not used: the node says so itself.
    raft_addr: Option<String>,
}

/// The node. Only its id is used.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct JoiningNode {
    #[schema(value_type = String, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    id: NodeId,
    ip: Option<String>,
    port: Option<u16>,
    name: Option<String>,
    status: Option<String>,
}

/// The node is a member.
#[derive(Debug, Serialize, ToSchema)]
struct JoinAnswer {
    success: bool,
    #[schema(value_type = String)]
    message: &'static str,
    data: JoinedCluster,
}

/// What it is a member of.
#[derive(Debug, Serialize, ToSchema)]
struct JoinedCluster {
    node_id: String,
    cluster_id: String,
    node_count: usize,
}

async fn join(State(api): State<Api>, Body(request): Body<JoinRequest>) -> Result<Json<JoinAnswer>, Problem> {
    check_member(&api, &request.node.id)?;
    let topology = api.ck().topology();
    let cluster_id = topology.cluster.as_ref().map(|cluster| cluster.id.to_string()).unwrap_or_default();
    let data =
        JoinedCluster { node_id: request.node.id.to_string(), cluster_id, node_count: topology.nodes.len() };
    Ok(Json(JoinAnswer { success: true, message: "the node is a member", data }))
}
