//! Metrics of one node, in the text format of Prometheus and as JSON.

mod collect;
mod exposition;
mod hooks;
mod observe;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio_util::task::AbortOnDropHandle;
use utoipa::ToSchema;

use self::collect::{NodeCollector, PartitionCollector, SeedCollector};
use self::exposition::plain_text;
use self::observe::Observed;
use super::Api;
use super::endpoint::{Endpoint, TEXT};
use super::problem::{Code, Problem};
use super::status::PartitionCountsDto;
use crate::handle::ClusterKit;

/// The text format that every Prometheus and every tool around it reads.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Upper bounds of request durations in seconds: a map answered from memory takes well under a
/// millisecond, a long poll up to a minute.
const REQUEST_SECONDS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    vec![
        Endpoint::get("/metrics", text).summary("Metrics for Prometheus.").text(TEXT, "Metrics."),
        Endpoint::get("/metrics/partitions", partitions_text)
            .summary("Metrics of each partition, which may be many.")
            .text(TEXT, "Metrics."),
        Endpoint::get("/v1/metrics", json).summary("A few metrics as JSON.").json::<MetricsDto>("Metrics."),
    ]
}

/// What one router measures, and what it reads of its node.
pub(super) struct Metrics {
    registry: Registry,
    requests: Requests,
    /// Ends with the router.
    _observer: AbortOnDropHandle<()>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    pub(super) fn new(ck: &ClusterKit) -> Self {
        let (mut registry, requests, observed) = (Registry::default(), Requests::new(), Observed::default());
        let help = "How long requests took until their answer began";
        registry.register("clusterkit_http_request_duration_seconds", help, requests.durations.clone());
        observed.register(&mut registry);
        registry.register_collector(Box::new(NodeCollector::new(ck.clone())));
        // Last: the names that others made us keep stand in a block of their own.
        registry.register_collector(Box::new(SeedCollector::new(ck.clone(), observed.clone())));
        let observer = ck.shared().tracker.spawn(observe::run(ck, observed));
        Self { registry, requests, _observer: AbortOnDropHandle::new(observer) }
    }

    pub(super) fn observe_request(&self, labels: &HttpLabels, took: Duration) {
        self.requests.observe(labels, took);
    }
}

/// Requests and how long they took.
struct Requests {
    durations: Family<HttpLabels, Histogram, fn() -> Histogram>,
    count: AtomicU64,
    errors: AtomicU64,
}

impl Requests {
    fn new() -> Self {
        let durations =
            Family::new_with_constructor((|| Histogram::new(REQUEST_SECONDS)) as fn() -> Histogram);
        Self { durations, count: AtomicU64::new(0), errors: AtomicU64::new(0) }
    }

    fn observe(&self, labels: &HttpLabels, took: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if labels.code >= 500 {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        self.durations.get_or_create(labels).observe(took.as_secs_f64());
    }
}

/// What tells requests apart. The route is the pattern that matched, never the path, so that there
/// are few.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct HttpLabels {
    pub(super) route: String,
    pub(super) method: &'static str,
    pub(super) code: u16,
}

impl EncodeLabelSet for HttpLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let code = self.code.to_string();
        let labels = [("route", self.route.as_str()), ("method", self.method), ("code", code.as_str())];
        labels.encode(encoder)
    }
}

async fn text(State(api): State<Api>) -> Result<Response, Problem> {
    exposition(&api.metrics().registry)
}

async fn partitions_text(State(api): State<Api>) -> Result<Response, Problem> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(PartitionCollector::new(api.ck().topology())));
    exposition(&registry)
}

fn exposition(registry: &Registry) -> Result<Response, Problem> {
    let mut text = String::new();
    encode(&mut text, registry).map_err(|_| Problem::new(Code::Internal, "a metric could not be written"))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], plain_text(&text)).into_response())
}

/// A few metrics.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Metrics)]
struct MetricsDto {
    node_count: usize,
    partition_count: usize,
    /// Requests that this interface answered.
    request_count: u64,
    /// Those of them that it could not serve: a status of 500 or more.
    error_count: u64,
    /// Whether this node is the controller.
    is_leader: bool,
    /// What this node is in the control plane.
    #[schema(value_type = String)]
    raft_state: &'static str,
    raft_term: u64,
    index_committed: u64,
    index_applied: u64,
    /// How long this interface has been served.
    uptime_seconds: u64,
    topology_version: u64,
    route_version: u64,
    partitions: PartitionCountsDto,
    /// Replica moves under way.
    moves: u32,
}

async fn json(State(api): State<Api>) -> Json<MetricsDto> {
    let (topology, stats, control_plane) = (api.ck().topology(), api.ck().stats(), api.ck().control_plane());
    let requests = &api.metrics().requests;
    Json(MetricsDto {
        node_count: topology.nodes.len(),
        partition_count: topology.partitions.len(),
        request_count: requests.count.load(Ordering::Relaxed),
        error_count: requests.errors.load(Ordering::Relaxed),
        is_leader: control_plane.controller.as_ref() == Some(api.ck().node_id()),
        raft_state: control_plane.state,
        raft_term: control_plane.term,
        index_committed: control_plane.index_committed,
        index_applied: control_plane.index_applied,
        uptime_seconds: api.uptime().as_secs(),
        topology_version: topology.version.0,
        route_version: topology.route_version.0,
        partitions: PartitionCountsDto::from(&stats),
        moves: stats.moves,
    })
}
