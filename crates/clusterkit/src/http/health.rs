//! Health for machines and people: is the process alive, may it be given work, how does the cluster
//! stand.

use std::borrow::Cow;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use clusterkit_core::handoff;
use clusterkit_core::id::PartitionId;
use clusterkit_core::topology::Stage;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::dto::HealthDto;
use super::endpoint::{Endpoint, JSON, TEXT};
use super::text::seconds;
use crate::handle::ClusterKit;
use crate::node::Phase;

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    let live =
        |endpoint: Endpoint<Api>| endpoint.probe().text(TEXT, "It lives.").json::<LiveDto>("It lives.");
    vec![
        live(Endpoint::get("/livez", livez)).summary("Whether the process lives; never whether others do."),
        live(Endpoint::get("/healthz", livez)).summary("The same as `/livez`."),
        Endpoint::get("/readyz", readyz)
            .summary("Whether the node may be given work: 503 while it may not.")
            .probe()
            .text(TEXT, "It may.")
            .json::<ReadyDto>("It may."),
        Endpoint::get("/ready", ready)
            .summary("The same as `/readyz`, as JSON.")
            .probe()
            .json::<ReadyDto>("It may."),
        Endpoint::get("/health", health)
            .summary("How the cluster stands. 200 as long as the node can answer.")
            .json::<HealthAnswerDto>("The state, with reasons."),
        Endpoint::get("/health/detailed", detailed)
            .summary("How the cluster stands, with this node's place in it.")
            .json::<HealthDetailedDto>("The state, with reasons."),
    ]
}

/// How a probe is asked. The handlers read it by hand, since a probe is not to fail for a query.
#[derive(IntoParams)]
#[allow(dead_code)]
pub(super) struct ProbeQuery {
    /// Show every check, also when all is well.
    verbose: Option<String>,
    /// Leave out the checks of these names, separated by commas.
    exclude: Option<String>,
}

/// One thing that is checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct Check {
    #[schema(value_type = String)]
    name: &'static str,
    ok: bool,
    /// `ok`, or what is to be said of it.
    #[schema(value_type = String)]
    message: Cow<'static, str>,
}

fn check(name: &'static str, ok: bool, wrong: &'static str) -> Check {
    Check { name, ok, message: Cow::Borrowed(if ok { "ok" } else { wrong }) }
}

fn live_checks(ck: &ClusterKit) -> Vec<Check> {
    let stopped = matches!(*ck.shared().phase.borrow(), Phase::Stopped(_));
    vec![check("running", !stopped, "the node has stopped")]
}

fn ready_checks(ck: &ClusterKit) -> Vec<Check> {
    let shared = ck.shared();
    let phase = shared.phase.borrow().clone();
    let joined = matches!(phase, Phase::Registering | Phase::Ready);
    let registered = matches!(phase, Phase::Ready);
    let topology = ck.topology();
    let leaving = topology.node(ck.node_id()).is_some_and(|node| node.stage != Stage::Member);
    vec![
        check("joined", joined, "not a member of its cluster"),
        check("registered", registered, "not registered under this run"),
        check("controller", shared.has_controller(), "not reachable"),
        check("staying", !leaving, "the node drains"),
        hooks_check(&late_hooks(ck)),
    ]
}

/// The hooks of this node that are past their deadline.
fn late_hooks(ck: &ClusterKit) -> Vec<(handoff::Stage, PartitionId)> {
    let late = ck.stages().into_iter().filter(|status| status.overdue_since.is_some());
    late.map(|status| (status.stage, status.partition)).collect()
}

/// It never fails: what the node leads it serves meanwhile.
fn hooks_check(late: &[(handoff::Stage, PartitionId)]) -> Check {
    let message = match late {
        [] => Cow::Borrowed("ok"),
        [(stage, partition)] => Cow::Owned(format!("{stage} of {partition} is past its deadline")),
        [(stage, partition), others @ ..] => {
            let others = others.len();
            Cow::Owned(format!("{stage} of {partition} and {others} more are past their deadlines"))
        }
    };
    Check { name: "hooks", ok: true, message }
}

/// What a probe asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Probe {
    verbose: bool,
    excluded: Vec<String>,
    json: bool,
}

impl Probe {
    fn of(query: Option<&str>, headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        let json = accept.is_some_and(|accept| accept.contains(JSON));
        let mut probe = Self { json, ..Self::default() };
        for pair in query.unwrap_or_default().split('&') {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("verbose", value) => probe.verbose = !matches!(value, "0" | "false"),
                ("exclude", names) => probe.excluded.extend(names.split(',').map(ToOwned::to_owned)),
                _ => {}
            }
        }
        probe
    }

    fn left(&self, checks: Vec<Check>) -> Vec<Check> {
        checks.into_iter().filter(|check| !self.excluded.iter().any(|name| name == check.name)).collect()
    }

    /// The checks as lines, when they are asked for or one of them failed.
    fn text(&self, what: &str, checks: &[Check]) -> String {
        let passed = passed(checks);
        if passed && !self.verbose {
            return "ok".to_owned();
        }
        let line = |check: &Check| {
            let sign = if check.ok { '+' } else { '-' };
            format!("[{sign}]{} {}\n", check.name, check.message)
        };
        let lines: String = checks.iter().map(line).collect();
        format!("{lines}{what} check {}\n", if passed { "passed" } else { "failed" })
    }
}

fn passed(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.ok)
}

fn status_code(checks: &[Check]) -> StatusCode {
    if passed(checks) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// Whether the process lives.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Live)]
struct LiveDto {
    /// `ok` or `failed`.
    #[schema(value_type = String)]
    status: &'static str,
    checks: Vec<Check>,
}

async fn livez(State(api): State<Api>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let probe = Probe::of(query.as_deref(), &headers);
    let checks = probe.left(live_checks(api.ck()));
    if probe.json {
        let status = if passed(&checks) { "ok" } else { "failed" };
        return (status_code(&checks), Json(LiveDto { status, checks })).into_response();
    }
    (status_code(&checks), probe.text("livez", &checks)).into_response()
}

/// Whether the node may be given work.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ready)]
struct ReadyDto {
    ready: bool,
    /// `ready`, or what is missing.
    message: String,
    /// Nodes that are alive.
    nodes: usize,
    /// All partitions.
    partitions: usize,
    /// Partitions that have a leader.
    valid_partitions: usize,
    checks: Vec<Check>,
}

async fn readyz(State(api): State<Api>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let probe = Probe::of(query.as_deref(), &headers);
    let checks = probe.left(ready_checks(api.ck()));
    if probe.json {
        return readiness(api.ck(), checks);
    }
    (status_code(&checks), probe.text("readyz", &checks)).into_response()
}

async fn ready(State(api): State<Api>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let probe = Probe::of(query.as_deref(), &headers);
    readiness(api.ck(), probe.left(ready_checks(api.ck())))
}

fn readiness(ck: &ClusterKit, checks: Vec<Check>) -> Response {
    let failed = checks.iter().filter(|check| !check.ok);
    let failed: Vec<_> = failed.map(|check| format!("{}: {}", check.name, check.message)).collect();
    let topology = ck.topology();
    let answer = ReadyDto {
        ready: failed.is_empty(),
        message: if failed.is_empty() { "ready".to_owned() } else { failed.join("; ") },
        nodes: ck.nodes().len(),
        partitions: topology.partitions.len(),
        valid_partitions: topology.partitions.iter().filter(|record| record.leader.is_some()).count(),
        checks,
    };
    (status_code(&answer.checks), Json(answer)).into_response()
}

/// How the cluster stands, in few words.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HealthAnswer)]
struct HealthAnswerDto {
    /// Whether the node can answer: always `true`.
    success: bool,
    /// `healthy`, `degraded` or `unavailable`.
    #[schema(value_type = String)]
    message: &'static str,
    /// The same word.
    #[schema(value_type = String)]
    status: &'static str,
    node_id: String,
    /// All partitions.
    partitions: usize,
    #[serde(flatten)]
    health: HealthDto,
}

async fn health(State(api): State<Api>) -> Json<HealthAnswerDto> {
    let health = HealthDto::from(&api.ck().health());
    Json(HealthAnswerDto {
        success: true,
        message: health.state,
        status: health.state,
        node_id: api.ck().node_id().to_string(),
        partitions: api.ck().topology().partitions.len(),
        health,
    })
}

/// How the cluster stands, with this node's place in it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HealthDetailed)]
struct HealthDetailedDto {
    /// Whether nothing is wrong.
    healthy: bool,
    node_id: String,
    node_name: String,
    /// Whether this node is the controller.
    is_leader: bool,
    node_count: usize,
    partition_count: usize,
    /// What this node is in the control plane.
    #[schema(value_type = String)]
    raft_state: &'static str,
    /// How long it has served this interface, as in `30s`.
    uptime: String,
    #[serde(flatten)]
    health: HealthDto,
}

async fn detailed(State(api): State<Api>) -> Json<HealthDetailedDto> {
    let (health, topology) = (api.ck().health(), api.ck().topology());
    let control_plane = api.ck().control_plane();
    Json(HealthDetailedDto {
        healthy: health.is_healthy(),
        node_id: api.ck().node_id().to_string(),
        node_name: api.ck().node_id().to_string(),
        is_leader: control_plane.controller.as_ref() == Some(api.ck().node_id()),
        node_count: topology.nodes.len(),
        partition_count: topology.partitions.len(),
        raft_state: control_plane.state,
        uptime: seconds(api.uptime()),
        health: HealthDto::from(&health),
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn checks() -> Vec<Check> {
        vec![check("joined", true, ""), check("controller", false, "not reachable")]
    }

    #[test]
    fn a_failed_check_is_shown_even_if_nobody_asked() {
        let expect = "[+]joined ok\n[-]controller not reachable\nreadyz check failed\n";
        assert_eq!(Probe::default().text("readyz", &checks()), expect);
        assert_eq!(status_code(&checks()), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn late_hooks_are_named_and_fail_nothing() {
        let late = [(handoff::Stage::CatchUp, PartitionId(5)), (handoff::Stage::Seal, PartitionId(7))];
        let check = |late: &[(handoff::Stage, PartitionId)], expect: &str| {
            let found = hooks_check(late);
            assert_eq!((found.ok, found.message.as_ref()), (true, expect));
        };
        check(&[], "ok");
        check(&late[..1], "catch_up of partition-5 is past its deadline");
        check(&late, "catch_up of partition-5 and 1 more are past their deadlines");
    }

    #[test]
    fn excluded_checks_count_for_nothing() {
        let probe = Probe::of(Some("verbose&exclude=controller,x"), &HeaderMap::new());
        let left = probe.left(checks());
        assert_eq!(status_code(&left), StatusCode::OK);
        assert_eq!(probe.text("readyz", &left), "[+]joined ok\nreadyz check passed\n");
    }

    #[test]
    fn all_well_is_one_word_unless_more_is_asked_for() {
        let well = [check("joined", true, "")];
        assert_eq!(Probe::default().text("livez", &well), "ok");
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        assert_eq!(Probe::of(None, &headers), Probe { json: true, ..Probe::default() });
    }
}
