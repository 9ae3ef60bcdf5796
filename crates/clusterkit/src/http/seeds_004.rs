//! The routes under `/v1/cluster/`. Other nodes ask the first of them for the node address behind a
//! public one.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use clusterkit_core::id::NodeId;
use clusterkit_core::topology::{Node, NodeStatus, Topology};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::dto::HealthDto;
use super::endpoint::Endpoint;
use super::nodes::refusal;
use super::problem::{Code, Problem};
use super::request::Body;

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    let joining = [Code::CrossSite, Code::InvalidValue, Code::JoinFromNode, Code::MissingParameter];
    vec![
        Endpoint::get("/v1/cluster/info", info)
            .summary("Who this node is, and who else is in the cluster.")
            .json::<NodeAndMembers>("The node and the members."),
        Endpoint::get("/v1/cluster/members", members)
            .summary("The members alone.")
            .json::<Vec<MemberEntry>>("The members."),
        Endpoint::get("/v1/cluster/sharding", sharding)
            .summary("How partitions are spread over the nodes.")
            .json::<Sharding>("The spread."),
        Endpoint::get("/v1/cluster/stats", stats)
            .summary("How many nodes and partitions there are, and how they stand.")
            .json::<ClusterStats>("The counts."),
        Endpoint::post("/v1/cluster/join", join)
            .summary("Whether a node is a member; a node joins by itself.")
            .body::<JoinWish>()
            .json::<NodeAnswer>("It is a member: `joined`.")
            .fails(&joining),
        Endpoint::post("/v1/cluster/announce", announce)
            .summary("Whether a node is a member; a node says by itself that it lives.")
            .body::<AnnounceWish>()
            .json::<Acknowledged>("It is a member.")
            .fails(&joining),
        Endpoint::post("/v1/cluster/leave", leave)
            .summary("Has a node give everything away and leave.")
            .body::<LeaveWish>()
            .json::<NodeAnswer>("It is `leaving`, or has `left`.")
            .fails(&[Code::InvalidValue, Code::MissingParameter, Code::UnknownNode])
            .changes(),
    ]
}

/// Who a node is, and who else is in its cluster.
#[derive(Debug, Serialize, ToSchema)]
struct NodeAndMembers {
    /// The node that answers.
    local_id: String,
    /// Where other nodes reach it: what `--seeds` of a node that shall join may name.
    node_addr: String,
    /// Where clients reach it.
    public_addr: String,
    /// The cluster it belongs to, or looks for.
    cluster_name: String,
    /// None before the cluster formed.
    cluster_id: Option<String>,
    /// The controller; empty when none is known.
    leader: String,
    member_count: usize,
    members: Vec<MemberEntry>,
}

/// A node of the cluster.
#[derive(Debug, Serialize, ToSchema)]
struct MemberEntry {
    id: String,
    /// Where clients reach it.
    addr: String,
    /// Where other nodes reach it.
    raft_addr: String,
    #[schema(value_type = String)]
    status: &'static str,
    /// Whether it is the controller.
    is_leader: bool,
    /// The release it runs.
    version: String,
}

impl MemberEntry {
    fn new(node: &Node, controller: Option<&NodeId>) -> Self {
        Self {
            id: node.id.to_string(),
            addr: node.public_addr.clone(),
            raft_addr: node.node_addr.clone(),
            status: node.status().as_str(),
            is_leader: controller == Some(&node.id),
            version: node.software.clone(),
        }
    }
}

fn member_entries(topology: &Topology, controller: Option<&NodeId>) -> Vec<MemberEntry> {
    topology.nodes.values().map(|node| MemberEntry::new(node, controller)).collect()
}

async fn info(State(api): State<Api>) -> Json<NodeAndMembers> {
    let (topology, controller) = (api.ck().topology(), api.ck().shared().controller_node());
    let cluster = topology.cluster.as_deref();
    let looked_for = || api.ck().shared().settings.cluster_name.clone();
    Json(NodeAndMembers {
        local_id: api.ck().node_id().to_string(),
        node_addr: api.ck().node_addr(),
        public_addr: api.ck().public_addr(),
        cluster_name: cluster.map_or_else(looked_for, |cluster| cluster.name.clone()),
        cluster_id: cluster.map(|cluster| cluster.id.to_string()),
        leader: controller.as_ref().map(ToString::to_string).unwrap_or_default(),
        member_count: topology.nodes.len(),
        members: member_entries(&topology, controller.as_ref()),
    })
}

async fn members(State(api): State<Api>) -> Json<Vec<MemberEntry>> {
    let controller = api.ck().shared().controller_node();
    Json(member_entries(&api.ck().topology(), controller.as_ref()))
}

/// How partitions are spread over the nodes.
#[derive(Debug, Serialize, ToSchema)]
struct Sharding {
    node_count: usize,
    /// Copies of each partition, leader included.
    replication: u32,
    /// The nodes that hold data, or may.
    nodes: Vec<String>,
    total_partitions: u32,
    /// Partitions that this node leads.
    local_partitions: u32,
    /// Partitions that each node leads.
    leaders_by_node: BTreeMap<String, u32>,
    /// Partitions that each node holds.
    replicas_by_node: BTreeMap<String, u32>,
    /// The variance of the copies over the nodes.
    variance: f64,
    most_loaded: Option<String>,
    least_loaded: Option<String>,
    /// Replica moves under way.
    moves: u32,
}

async fn sharding(State(api): State<Api>) -> Json<Sharding> {
    let stats = api.ck().stats();
    let own = stats.nodes.get(api.ck().node_id()).copied().unwrap_or_default();
    let nodes = || stats.nodes.iter().map(|(node, share)| (node.to_string(), *share));
    Json(Sharding {
        node_count: stats.nodes.len(),
        replication: api.ck().config().map_or(0, |config| config.replication_factor),
        nodes: nodes().map(|(node, _)| node).collect(),
        total_partitions: stats.partitions,
        local_partitions: own.leaders,
        leaders_by_node: nodes().map(|(node, share)| (node, share.leaders)).collect(),
        replicas_by_node: nodes().map(|(node, share)| (node, share.replicas)).collect(),
        variance: stats.variance,
        most_loaded: stats.most_loaded.as_ref().map(ToString::to_string),
        least_loaded: stats.least_loaded.as_ref().map(ToString::to_string),
        moves: stats.moves,
    })
}

/// How many nodes and partitions there are, and how they stand.
#[derive(Debug, Serialize, ToSchema)]
struct ClusterStats {
    total_nodes: usize,
    active_nodes: usize,
    suspected_nodes: usize,
    failed_nodes: usize,
    partition_count: usize,
    replication_factor: u32,
    /// Whether a majority of the voters is in reach.
    has_quorum: bool,
    health: HealthDto,
}

async fn stats(State(api): State<Api>) -> Json<ClusterStats> {
    let topology = api.ck().topology();
    let count = |status: NodeStatus| topology.nodes.values().filter(|node| node.status() == status).count();
    Json(ClusterStats {
        total_nodes: topology.nodes.len(),
        active_nodes: count(NodeStatus::Alive) + count(NodeStatus::Leaving),
        suspected_nodes: count(NodeStatus::Suspect),
        failed_nodes: count(NodeStatus::Dead),
        partition_count: topology.partitions.len(),
        replication_factor: topology.cluster.as_ref().map_or(0, |cluster| cluster.config.replication_factor),
        has_quorum: api.ck().shared().has_controller(),
        health: HealthDto::from(&api.ck().health()),
    })
}

/// A node that somebody wants to join. Only its id is used: the node says the rest itself.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct JoinWish {
    #[schema(value_type = String, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    node_id: NodeId,
    addr: Option<String>,
    raft_addr: Option<String>,
}

/// A node that somebody says lives. Only its id is used.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct AnnounceWish {
    #[schema(value_type = String, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    node_id: NodeId,
    addr: Option<String>,
    raft_addr: Option<String>,
    version: Option<String>,
}

/// The node that shall leave.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LeaveWish {
    #[schema(value_type = String, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    node_id: NodeId,
}

/// How a node stands after a request.
#[derive(Debug, Serialize, ToSchema)]
struct NodeAnswer {
    /// `joined`, `leaving` or `left`.
    #[schema(value_type = String)]
    status: &'static str,
    node_id: String,
}

/// The node is known.
#[derive(Debug, Serialize, ToSchema)]
struct Acknowledged {
    /// `acknowledged`.
    #[schema(value_type = String)]
    status: &'static str,
}

async fn join(State(api): State<Api>, Body(wish): Body<JoinWish>) -> Result<Json<NodeAnswer>, Problem> {
    check_member(&api, &wish.node_id)?;
    Ok(Json(NodeAnswer { status: "joined", node_id: wish.node_id.to_string() }))
}

async fn announce(
    State(api): State<Api>,
    Body(wish): Body<AnnounceWish>,
) -> Result<Json<Acknowledged>, Problem> {
    check_member(&api, &wish.node_id)?;
    Ok(Json(Acknowledged { status: "acknowledged" }))
}

/// Whether `node` is a member. Nobody but the node itself can make it one: it brings its data
/// directory's identity and proves its address by answering there.
pub(super) fn check_member(api: &Api, node: &NodeId) -> Result<(), Problem> {
    let topology = api.ck().topology();
    if topology.node(node).is_some_and(|node| node.status() != NodeStatus::Left) {
        return Ok(());
    }
    let seed = api.ck().node_addr();
    let detail = format!("{node} is no member yet, and joins by itself: start it with `--seeds {seed}`");
    Err(Problem::new(Code::JoinFromNode, detail))
}

async fn leave(State(api): State<Api>, Body(wish): Body<LeaveWish>) -> Result<Json<NodeAnswer>, Problem> {
    let topology = api.ck().topology();
    let has_left = topology.node(&wish.node_id).is_some_and(|node| node.status() == NodeStatus::Left);
    if !has_left {
        api.ck().drain(&wish.node_id).await.map_err(|error| refusal(&api, error))?;
    }
    let status = if has_left { "left" } else { "leaving" };
    Ok(Json(NodeAnswer { status, node_id: wish.node_id.to_string() }))
}
