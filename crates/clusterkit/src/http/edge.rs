//! What every request passes on its way in and out: an id, the versions it was answered under,
//! errors in one shape, and a measurement.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use clusterkit_core::id::BootId;
use clusterkit_core::time::Instant;

use super::Api;
use super::limits::REQUEST_ID_BYTES_MAX;
use super::metrics::HttpLabels;
use super::problem::{Code, Problem, render};
use crate::handle::ClusterKit;

/// The route version that an answer was given under.
pub(super) const CK_TOPOLOGY: HeaderName = HeaderName::from_static("ck-topology");
/// The id of a request, the client's own or ours.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// The route in metrics of a request that none matched.
const NO_ROUTE: &str = "none";

/// The edge of our own routes.
pub(super) async fn edge(State(api): State<Api>, request: Request, next: Next) -> Response {
    let seen = Seen::of(&request, &api);
    let response = match foreign(&request) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    };
    let response = finish(response, api.ck(), &seen.path, &seen.request_id);
    api.measure(&seen, &response);
    response
}

/// The edge of one port, whatever it serves: what has passed [`edge`] stays as it is.
pub(super) async fn outer_edge(State(outer): State<Outer>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let request_id = request_id(request.headers(), &outer.ids);
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        request.headers_mut().insert(X_REQUEST_ID, id);
    }
    let response = next.run(request).await;
    if response.headers().contains_key(X_REQUEST_ID) {
        return response;
    }
    finish(response, &outer.ck, &path, &request_id)
}

/// What [`outer_edge`] needs.
#[derive(Clone)]
pub(super) struct Outer {
    ck: ClusterKit,
    ids: Arc<RequestIds>,
}

impl Outer {
    pub(super) fn new(ck: &ClusterKit) -> Self {
        Self { ck: ck.clone(), ids: Arc::new(RequestIds::new(ck)) }
    }
}

/// Ids that no other request of any node has.
#[derive(Debug)]
pub(super) struct RequestIds {
    boot: BootId,
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new(ck: &ClusterKit) -> Self {
        Self { boot: ck.shared().boot, next: AtomicU64::new(0) }
    }

    fn draw(&self) -> String {
        format!("{}-{:x}", self.boot, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// What is remembered of a request while it is answered.
struct Seen {
    path: String,
    route: String,
    method: &'static str,
    request_id: String,
    start: Instant,
}

impl Seen {
    fn of(request: &Request, api: &Api) -> Self {
        let route = request.extensions().get::<MatchedPath>();
        Self {
            path: request.uri().path().to_owned(),
            route: route.map_or_else(|| NO_ROUTE.to_owned(), |route| route.as_str().to_owned()),
            method: method_label(request.method()),
            request_id: request_id(request.headers(), api.request_ids()),
            start: api.now(),
        }
    }
}

impl Api {
    fn measure(&self, seen: &Seen, response: &Response) {
        let labels =
            HttpLabels { route: seen.route.clone(), method: seen.method, code: response.status().as_u16() };
        self.metrics().observe_request(&labels, self.now().since(seen.start));
    }
}

/// Clients may send any method; a metric has a label for few.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

fn request_id(headers: &HeaderMap, ids: &RequestIds) -> String {
    let given = headers.get(X_REQUEST_ID).and_then(|id| id.to_str().ok());
    let is_usable = |id: &&str| !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX;
    given.filter(is_usable).map_or_else(|| ids.draw(), ToOwned::to_owned)
}

/// A page of another site may make a browser send simple requests here; browsers then say so.
fn foreign(request: &Request) -> Option<Problem> {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let from = request.headers().get(SEC_FETCH_SITE);
    let is_foreign = changes && from.is_some_and(|site| site == "cross-site");
    let detail = "a page of another web site sent this; use the command line or this cluster's own page";
    is_foreign.then(|| Problem::new(Code::CrossSite, detail))
}

fn finish(response: Response, ck: &ClusterKit, path: &str, request_id: &str) -> Response {
    let mut response = render(response, path, request_id);
    let version = ck.topology().route_version.0;
    let headers = response.headers_mut();
    headers.insert(CK_TOPOLOGY, HeaderValue::from(version));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(X_REQUEST_ID, id);
    }
    response
}
