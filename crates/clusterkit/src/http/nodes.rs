//! The nodes, and what can be done with one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use clusterkit_core::control::Rejected;
use clusterkit_core::id::{NodeId, PartitionId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::drain_plan::{DrainPlan, Step, drain_plan};
use super::dto::{ChangedDto, NodeDto, NodePageDto, PageQuery};
use super::endpoint::Endpoint;
use super::problem::{Code, Problem};
use super::request::{Body, NodeInPath, Query, find_node};
use super::text::nearest;
use crate::error::ChangeError;
use crate::stop_check::StopCheck;

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    vec![
        Endpoint::get("/v1/nodes", list)
            .summary("Every registered node.")
            .query::<PageQuery>()
            .json::<NodePageDto>("A page of nodes.")
            .fails(&[Code::InvalidValue, Code::UnknownField]),
        Endpoint::get("/v1/nodes/{node}", show)
            .summary("One node.")
            .json::<NodeDto>("The node.")
            .fails(&[Code::UnknownNode]),
        Endpoint::get("/v1/nodes/{node}/stop-check", stop_check)
            .summary("Whether the node may be stopped now.")
            .json::<StopCheckDto>("What stopping it would cost.")
            .fails(&[Code::UnknownNode]),
        Endpoint::post("/v1/nodes/{node}/drain", drain)
            .summary(
                "Has the node give everything away and leave; with `dry_run`, says what would move where.",
            )
            .query::<DrainQuery>()
            .json::<ChangedDto>("The node drains.")
            .json_or::<DrainPlanDto>()
            .fails(&[Code::InvalidValue, Code::TooBusy, Code::UnknownField, Code::UnknownNode])
            .changes(),
        Endpoint::post("/v1/nodes/{node}/cancel-drain", cancel_drain)
            .summary("Has a draining node stay.")
            .json::<ChangedDto>("The node stays.")
            .fails(&[Code::InvalidValue, Code::UnknownNode])
            .changes(),
        Endpoint::delete("/v1/nodes/{node}", delete)
            .summary("Deletes the record of a node that holds nothing.")
            .json::<ChangedDto>("The record is gone.")
            .fails(&[Code::HoldsReplicas, Code::UnknownNode])
            .changes(),
        Endpoint::post("/v1/nodes/{node}/remove", remove)
            .summary("Deletes the record of a node, with `force` even while it holds replicas.")
            .body::<RemoveDto>()
            .json::<ChangedDto>("The record is gone.")
            .fails(&[Code::HoldsReplicas, Code::UnknownNode, Code::WouldLoseData])
            .changes(),
    ]
}

async fn list(State(api): State<Api>, Query(page): Query<PageQuery>) -> Result<Json<NodePageDto>, Problem> {
    let topology = api.ck().topology();
    let page = page.page(
        topology.nodes.values(),
        |cursor| NodeId::new(cursor).ok(),
        |node| node.id.clone(),
        |node| (node.id.to_string(), NodeDto::from(node.as_ref())),
    );
    Ok(Json(page?.into()))
}

async fn show(State(api): State<Api>, NodeInPath(node): NodeInPath) -> Result<Json<NodeDto>, Problem> {
    let topology = api.ck().topology();
    Ok(Json(find_node(&topology, &node)?.into()))
}

/// Whether a node may be stopped now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StopCheck)]
struct StopCheckDto {
    node: String,
    /// Whether nothing speaks against it.
    safe: bool,
    /// Partitions that can be written now and could not be without the node.
    partitions_losing_quorum: Vec<u32>,
    /// Partitions that no replica could lead without the node.
    partitions_leaderless: Vec<u32>,
    /// Partitions whose copy on the node catches up: it would begin anew.
    partitions_catching_up: Vec<u32>,
    /// Partitions that the node hands over to another just now.
    partitions_handing_over: Vec<u32>,
    /// Whether the voters that remain would be too few to decide anything.
    control_plane_quorum_lost: bool,
    /// What speaks against it.
    reasons: Vec<StopReasonDto>,
}

/// One thing that speaks against stopping a node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StopReason)]
struct StopReasonDto {
    /// For programs.
    #[schema(value_type = String)]
    code: &'static str,
    /// For people.
    message: String,
}

impl From<StopCheck> for StopCheckDto {
    fn from(check: StopCheck) -> Self {
        let number = |partition: &PartitionId| partition.0;
        let reasons = check.reasons.iter();
        Self {
            safe: check.is_safe(),
            partitions_losing_quorum: check.partitions_losing_quorum.iter().map(number).collect(),
            partitions_leaderless: check.partitions_leaderless.iter().map(number).collect(),
            partitions_catching_up: check.partitions_catching_up.iter().map(number).collect(),
            partitions_handing_over: check.partitions_handing_over.iter().map(number).collect(),
            control_plane_quorum_lost: check.control_plane_quorum_lost,
            reasons: reasons
                .map(|reason| StopReasonDto { code: reason.code(), message: reason.to_string() })
                .collect(),
            node: check.node.to_string(),
        }
    }
}

async fn stop_check(
    State(api): State<Api>,
    NodeInPath(node): NodeInPath,
) -> Result<Json<StopCheckDto>, Problem> {
    let topology = api.ck().topology();
    find_node(&topology, &node)?;
    let check = api.ck().stop_check(&node).ok_or_else(|| Problem::unknown_node(&node, None))?;
    Ok(Json(check.into()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct DrainQuery {
    /// Only say what would move where.
    #[serde(default)]
    dry_run: bool,
}

/// What a drain would do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DrainPlan)]
struct DrainPlanDto {
    node: String,
    /// Copies that would go to another node.
    moves: Vec<PlannedMoveDto>,
    /// Leads that would go to another copy first.
    leads: Vec<PlannedMoveDto>,
    /// Partitions whose copy would go without a new one, since there are fewer nodes than copies.
    drops: Vec<u32>,
    /// Whether the node would have left at the end.
    leaves: bool,
}

/// Where something would go.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlannedMove)]
struct PlannedMoveDto {
    partition: u32,
    target: String,
}

impl DrainPlanDto {
    fn new(node: &NodeId, plan: DrainPlan) -> Self {
        let (mut moves, mut leads, mut drops) = (Vec::new(), Vec::new(), Vec::new());
        let planned = |partition: PartitionId, target: NodeId| PlannedMoveDto {
            partition: partition.0,
            target: target.to_string(),
        };
        for step in plan.steps {
            match step {
                Step::Drop { partition } => drops.push(partition.0),
                Step::Lead { partition, target } => leads.push(planned(partition, target)),
                Step::Move { partition, target } => moves.push(planned(partition, target)),
            }
        }
        Self { node: node.to_string(), moves, leads, drops, leaves: plan.leaves }
    }
}

async fn drain(
    State(api): State<Api>,
    NodeInPath(node): NodeInPath,
    Query(query): Query<DrainQuery>,
) -> Result<Response, Problem> {
    if query.dry_run {
        return rehearse(&api, node).await;
    }
    let applied = api.ck().drain(&node).await.map_err(|error| refusal(&api, error))?;
    Ok(ChangedDto::from(applied).into_response())
}

async fn rehearse(api: &Api, node: NodeId) -> Result<Response, Problem> {
    find_node(&api.ck().topology(), &node)?;
    let busy = || Problem::new(Code::TooBusy, "other plans are being worked out; try again in a moment");
    let permit = Arc::clone(&api.0.drain_plans).try_acquire_owned().map_err(|_| busy())?;
    let view = api.ck().shared().raft.get().ok_or_else(Problem::not_formed)?.view();
    let rehearsal = tokio::task::spawn_blocking(move || {
        // Held until the work is done, even if the client has gone.
        let _permit = permit;
        drain_plan(&view.state, &node).map(|plan| DrainPlanDto::new(&node, plan))
    });
    let lost = |_| Problem::new(Code::Internal, "the plan could not be worked out");
    Ok(Json(rehearsal.await.map_err(lost)??).into_response())
}

async fn cancel_drain(State(api): State<Api>, NodeInPath(node): NodeInPath) -> Result<ChangedDto, Problem> {
    let applied = api.ck().cancel_drain(&node).await.map_err(|error| refusal(&api, error))?;
    Ok(applied.into())
}

async fn delete(State(api): State<Api>, NodeInPath(node): NodeInPath) -> Result<ChangedDto, Problem> {
    let applied = api.ck().remove(&node, false).await.map_err(|error| refusal(&api, error))?;
    Ok(applied.into())
}

/// How a node is removed.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Remove)]
#[serde(deny_unknown_fields)]
struct RemoveDto {
    /// Even when it still holds replicas, unless a partition would lose its last good copy.
    #[serde(default)]
    force: bool,
}

async fn remove(
    State(api): State<Api>,
    NodeInPath(node): NodeInPath,
    Body(wish): Body<RemoveDto>,
) -> Result<ChangedDto, Problem> {
    let applied = api.ck().remove(&node, wish.force).await.map_err(|error| refusal(&api, error))?;
    Ok(applied.into())
}

/// The controller's refusal; where it knows no such node, with the one that was probably meant.
pub(super) fn refusal(api: &Api, error: ChangeError) -> Problem {
    let ChangeError::Rejected(Rejected::UnknownNode { node }) = &error else { return error.into() };
    let topology = api.ck().topology();
    let meant = nearest(node.as_str(), topology.nodes.keys().map(NodeId::as_str));
    Problem::unknown_node(node, meant)
}
