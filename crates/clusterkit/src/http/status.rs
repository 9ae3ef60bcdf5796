//! Everything a status page shows, and the description of this interface.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use clusterkit_core::id::{NodeId, PartitionId};
use clusterkit_core::topology::{Node, Overrun, PartitionHealth, Topology};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::dto::{ClusterDto, HealthDto, HookDto, MovementDto};
use super::endpoint::{Endpoint, JSON};
use super::limits::STATUS_ROWS_MAX;
use super::openapi;
use super::text::seconds;
use crate::status::{ControlPlaneStatus, MoveStatus, NodeShare, Stats, Status};

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    vec![
        Endpoint::get("/v1/status", status)
            .summary("How the cluster stands, as this node sees it.")
            .json::<StatusDto>("The status."),
        Endpoint::get("/v1/openapi.json", openapi::serve)
            .summary("This description.")
            .text(JSON, "An OpenAPI document."),
    ]
}

/// How the cluster stands, as one node sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Status)]
struct StatusDto {
    /// The node that says so.
    node: String,
    /// Whether it takes part.
    ready: bool,
    /// How long it has served this interface, as in `30s`.
    uptime: String,
    /// None before the cluster formed.
    cluster: Option<ClusterDto>,
    /// The topology version it applied.
    version: u64,
    /// The version of its routes.
    route_version: u64,
    health: HealthDto,
    control_plane: ControlPlaneDto,
    partitions: PartitionCountsDto,
    /// Replica moves under way.
    moves: u32,
    /// Those moves by partition, the first 100 of them.
    movements: Vec<MoveDto>,
    /// The hooks that are past their deadline, by partition, the first 100 of them.
    overruns: Vec<OverrunDto>,
    /// The variance of the copies over the nodes: 0 when every node holds as many.
    variance: f64,
    /// Every registered node.
    nodes: Vec<NodeStatusDto>,
}

/// The control plane, as one node sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ControlPlane)]
pub(super) struct ControlPlaneDto {
    /// What this node is in it: `leader`, `follower`, `candidate`, `learner`, `starting` or
    /// `shutdown`.
    #[schema(value_type = String)]
    state: &'static str,
    term: u64,
    /// The node that decides.
    controller: Option<String>,
    /// The nodes that vote.
    voters: Vec<String>,
    /// The nodes that follow.
    learners: Vec<String>,
    log_index_last: u64,
    index_committed: u64,
    index_applied: u64,
}

impl From<&ControlPlaneStatus> for ControlPlaneDto {
    fn from(status: &ControlPlaneStatus) -> Self {
        Self {
            state: status.state,
            term: status.term,
            controller: status.controller.as_ref().map(ToString::to_string),
            voters: status.voters.iter().map(ToString::to_string).collect(),
            learners: status.learners.iter().map(ToString::to_string).collect(),
            log_index_last: status.log_index_last,
            index_committed: status.index_committed,
            index_applied: status.index_applied,
        }
    }
}

/// Partitions by how they stand.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PartitionCounts)]
pub(super) struct PartitionCountsDto {
    total: u32,
    /// Led, with all copies in sync on living nodes.
    ok: u32,
    /// Led, with fewer copies than configured.
    under_replicated: u32,
    /// Led, and not to be written until another copy is back.
    below_min_in_sync: u32,
    /// Without a leader.
    leaderless: u32,
}

impl From<&Stats> for PartitionCountsDto {
    fn from(stats: &Stats) -> Self {
        let count = |health| stats.partitions_by_health.get(&health).copied().unwrap_or_default();
        Self {
            total: stats.partitions,
            ok: count(PartitionHealth::Ok),
            under_replicated: count(PartitionHealth::UnderReplicated),
            below_min_in_sync: count(PartitionHealth::BelowMinInSync),
            leaderless: count(PartitionHealth::Leaderless),
        }
    }
}

/// A node in the status.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NodeStatus)]
struct NodeStatusDto {
    id: String,
    /// `joining`, `alive`, `suspect`, `dead`, `leaving` or `left`.
    #[schema(value_type = String)]
    status: &'static str,
    public_addr: String,
    node_addr: String,
    zone: Option<String>,
    weight: u32,
    holds_data: bool,
    /// Whether it decides.
    is_controller: bool,
    /// What it is in the control plane: `voter`, `learner` or `none`.
    #[schema(value_type = String)]
    raft: &'static str,
    /// Partitions it has a copy of.
    replicas: u32,
    /// Partitions it leads.
    leaders: u32,
    incarnation: u64,
    software: String,
}

impl NodeStatusDto {
    fn new(node: &Node, control_plane: &ControlPlaneStatus, shares: &BTreeMap<NodeId, NodeShare>) -> Self {
        let share = shares.get(&node.id).copied().unwrap_or_default();
        Self {
            id: node.id.to_string(),
            status: node.status().as_str(),
            public_addr: node.public_addr.clone(),
            node_addr: node.node_addr.clone(),
            zone: node.zone.clone(),
            weight: node.weight,
            holds_data: node.holds_data,
            is_controller: control_plane.controller.as_ref() == Some(&node.id),
            raft: raft_role(control_plane, &node.id),
            replicas: share.replicas,
            leaders: share.leaders,
            incarnation: node.incarnation.0,
            software: node.software.clone(),
        }
    }
}

/// The move of a copy.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Move)]
struct MoveDto {
    partition: u32,
    #[serde(flatten)]
    movement: MovementDto,
}

impl From<&MoveStatus> for MoveDto {
    fn from(status: &MoveStatus) -> Self {
        let movement = MovementDto::new(&status.movement, status.awaits.clone());
        Self { partition: status.partition.0, movement }
    }
}

/// A hook that is past its deadline.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Overrun)]
struct OverrunDto {
    partition: u32,
    #[serde(flatten)]
    hook: HookDto,
}

impl From<(&PartitionId, &Overrun)> for OverrunDto {
    fn from((partition, overrun): (&PartitionId, &Overrun)) -> Self {
        Self { partition: partition.0, hook: overrun.into() }
    }
}

fn raft_role(control_plane: &ControlPlaneStatus, node: &NodeId) -> &'static str {
    if control_plane.voters.contains(node) {
        "voter"
    } else if control_plane.learners.contains(node) {
        "learner"
    } else {
        "none"
    }
}

async fn status(State(api): State<Api>) -> Json<StatusDto> {
    let (status, topology) = (api.ck().status(), api.ck().topology());
    Json(StatusDto {
        node: status.node.to_string(),
        ready: status.ready,
        uptime: seconds(api.uptime()),
        cluster: topology.cluster.as_deref().map(ClusterDto::from),
        version: status.version.0,
        route_version: status.route_version.0,
        health: HealthDto::from(&status.health),
        control_plane: ControlPlaneDto::from(&status.control_plane),
        partitions: PartitionCountsDto::from(&status.stats),
        moves: status.stats.moves,
        movements: status.moves.iter().take(STATUS_ROWS_MAX).map(MoveDto::from).collect(),
        overruns: status.overruns.iter().take(STATUS_ROWS_MAX).map(OverrunDto::from).collect(),
        variance: status.stats.variance,
        nodes: nodes(&topology, &status),
    })
}

fn nodes(topology: &Topology, status: &Status) -> Vec<NodeStatusDto> {
    let row = |node| NodeStatusDto::new(node, &status.control_plane, &status.stats.nodes);
    topology.nodes.values().map(|node| row(node.as_ref())).collect()
}
