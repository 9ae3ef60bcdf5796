//! The public port: HTTP routes, metrics and the OpenAPI document of one node.
//!
//! [`router`] gives the routes, to be nested in or merged with those of the program that embeds the
//! node; [`serve()`] serves a router on a listener, with the limits of [`limits`]. gRPC services are
//! merged into the same router by whoever serves it, and then share the port.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use tokio_util::sync::CancellationToken;
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! let ck = clusterkit::ClusterKit::builder("node-1", "127.0.0.1:8080").launch().await?;
//! let app = clusterkit::http::router(&ck);
//! clusterkit::http::serve(&ck, listener, app, CancellationToken::new()).await;
//! # Ok(()) }
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`limits`] | every bound of the port |

#[cfg(feature = "http-client")]
mod client;
mod cluster;
mod conditional;
mod drain_plan;
mod dto;
mod edge;
mod endpoint;
mod events;
mod explain;
mod health;
pub mod limits;
mod metrics;
mod nodes;
mod openapi;
mod partitions;
mod problem;
mod request;
mod seeds_001;
mod seeds_002;
mod seeds_004;
mod serve;
mod stages;
mod status;
mod text;
mod topology;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use clusterkit_core::time::Instant;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

#[cfg(feature = "http-client")]
pub use self::client::{HttpClient, RequestError};
pub use self::endpoint::Endpoint;
pub use self::openapi::{openapi, openapi_with};
pub use self::problem::{Code, Problem};
pub use self::request::{Body as JsonBody, Closing, Query, RawBody};
pub use self::serve::serve;
pub use self::text::{parse_duration, rfc3339};

use self::edge::RequestIds;
use self::limits::{DRAIN_PLANS_MAX, EVENT_STREAMS_MAX};
use self::metrics::Metrics;
use crate::handle::ClusterKit;

/// The routes of `ck`, ready to be served, nested or merged.
///
/// The router keeps the node running as a handle does: drop it, or [`stop`](ClusterKit::stop) the
/// node. It has no fallback of its own, so that it merges with any other router. Each call makes
/// metrics of its own, which count from then on.
///
/// # Panics
///
/// Outside a tokio runtime: a task follows the events of the node for its metrics.
pub fn router(ck: &ClusterKit) -> Router {
    routes(ck, Vec::new(), openapi())
}

/// The same with routes of the program: they pass what all others do, so that their errors have one shape
/// and they are measured, and `/v1/openapi.json` describes them. `state` is what their handlers share.
///
/// # Panics
///
/// As [`router`], and if a route is there twice.
pub fn router_with<S: Clone + Send + Sync + 'static>(
    ck: &ClusterKit,
    endpoints: impl Fn() -> Vec<Endpoint<S>>,
    state: S,
) -> Router {
    let more = endpoints().into_iter().map(|endpoint| endpoint.with_state(state.clone()));
    routes(ck, more.collect(), openapi_with(endpoints()))
}

fn routes(ck: &ClusterKit, more: Vec<Endpoint<Api>>, openapi: impl Into<Bytes>) -> Router {
    let api = Api::new(ck.clone(), openapi.into());
    endpoint::router(endpoints().into_iter().chain(more).collect())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(api.clone(), edge::edge))
        .with_state(api)
}

fn endpoints() -> Vec<Endpoint<Api>> {
    let mut endpoints = Vec::new();
    endpoints.extend(topology::endpoints());
    endpoints.extend(events::endpoints());
    endpoints.extend(status::endpoints());
    endpoints.extend(nodes::endpoints());
    endpoints.extend(partitions::endpoints());
    endpoints.extend(cluster::endpoints());
    endpoints.extend(seeds_004::endpoints());
    endpoints.extend(seeds_001::endpoints());
    endpoints.extend(seeds_002::endpoints());
    endpoints.extend(health::endpoints());
    endpoints.extend(metrics::endpoints());
    endpoints
}

/// A handler panicked: its request fails, and nothing else does.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!(target: "clusterkit::http", "a request handler panicked");
    Problem::new(Code::Internal, "the server made an error; its log says more under this request's time")
        .into_response()
}

/// What the handlers share.
#[derive(Clone)]
struct Api(Arc<Inner>);

struct Inner {
    ck: ClusterKit,
    metrics: Metrics,
    start: Instant,
    request_ids: RequestIds,
    event_streams: Arc<Semaphore>,
    drain_plans: Arc<Semaphore>,
    openapi: Bytes,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("ck", &self.0.ck).finish_non_exhaustive()
    }
}

impl Api {
    fn new(ck: ClusterKit, openapi: Bytes) -> Self {
        let start = ck.shared().now();
        let event_streams = Arc::new(Semaphore::new(EVENT_STREAMS_MAX));
        Self(Arc::new(Inner {
            metrics: Metrics::new(&ck),
            request_ids: RequestIds::new(&ck),
            ck,
            start,
            event_streams,
            drain_plans: Arc::new(Semaphore::new(DRAIN_PLANS_MAX)),
            openapi,
        }))
    }

    fn ck(&self) -> &ClusterKit {
        &self.0.ck
    }

    fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    fn now(&self) -> Instant {
        self.0.ck.shared().now()
    }

    /// How long this port is served.
    fn uptime(&self) -> Duration {
        self.now().since(self.0.start)
    }

    fn request_ids(&self) -> &RequestIds {
        &self.0.request_ids
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_handler_that_panics_fails_its_request_alone() {
        let broken = get(async || {
            if true {
                panic!("a bug")
            }
        });
        let app = Router::new().route("/", broken).layer(CatchPanicLayer::custom(panicked));
        for _ in 0..2 {
            let request = Request::get("/").body(Body::empty()).expect("a request");
            let response = app.clone().oneshot(request).await.expect("an answer");
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            let rendered = problem::render(response, "/", "r1");
            assert_eq!(rendered.headers()["content-type"], problem::PROBLEM_JSON);
        }
    }
}
