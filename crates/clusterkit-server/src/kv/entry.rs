//! One entry: `PUT`, `GET`, `HEAD` and `DELETE /v1/kv/{key}`.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use clusterkit::http::{Code, Endpoint, Problem, Query, RawBody};
use clusterkit_data::WriteOptions;
use clusterkit_services::kv::limits::VALUE_BYTES_MAX;
use clusterkit_services::kv::{Change, Place, Seen, Value, Write};
use serde::Deserialize;
use utoipa::IntoParams;

use super::answer::{self, WrittenDto};
use super::wish::{
    AckWish, CK_REQUEST, CK_ROUTE, Flag, KeyInPath, Origin, ReadWish, condition, expiry, is_known, namespace,
    read_options, session_request, write_options,
};
use super::{KvApi, READ_CODES, WRITE_CODES, Way};

/// The media type of a value.
pub(super) const BYTES: &str = "application/octet-stream";
pub(super) const ROUTE_NOTE: &str = "`direct`: answer 421 rather than ask another node.";
pub(super) const REQUEST_NOTE: &str =
    "Which request of which session it is, as in `3.17.1`: it takes effect once.";
const IF_MATCH_NOTE: &str = "Only at this version, or with `*` only if the key is there.";

pub(super) fn endpoints() -> Vec<Endpoint<KvApi>> {
    let write_conditions = [Code::Exists, Code::KeyNotFound, Code::VersionMismatch];
    vec![
        Endpoint::get("/v1/kv/{key}", read)
            .summary("The value of a key.")
            .query::<ReadQuery>()
            .header(CK_ROUTE, ROUTE_NOTE)
            .header(
                "if-none-match",
                "The `ETag` of the version that the client has: 304 while it is the same.",
            )
            .text(BYTES, "The value; its version is the `ETag`.")
            .fails(READ_CODES)
            .fails(&[Code::KeyNotFound]),
        Endpoint::put("/v1/kv/{key}", put)
            .summary("Sets the value of a key.")
            .query::<PutQuery>()
            .header(CK_ROUTE, ROUTE_NOTE)
            .header(CK_REQUEST, REQUEST_NOTE)
            .header("if-match", IF_MATCH_NOTE)
            .header("if-none-match", "`*`: only if the key is not there.")
            .body_bytes(BYTES)
            .json::<WrittenDto>("It is set.")
            .fails(WRITE_CODES)
            .fails(&write_conditions),
        Endpoint::delete("/v1/kv/{key}", delete)
            .summary("Removes a key, if it is there.")
            .query::<WriteQuery>()
            .header(CK_ROUTE, ROUTE_NOTE)
            .header(CK_REQUEST, REQUEST_NOTE)
            .header("if-match", IF_MATCH_NOTE)
            .json::<WrittenDto>("It is not there any more.")
            .fails(WRITE_CODES)
            .fails(&write_conditions),
    ]
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadQuery {
    /// The namespace; `default` unless another one is named.
    pub(super) ns: Option<String>,
    /// How new the answer must be; `linearizable` unless said otherwise.
    #[param(inline)]
    pub(super) read: Option<ReadWish>,
    /// With `read=session`: the `ck-index` of the last answer of this partition.
    pub(super) min_index: Option<u64>,
    /// How long it may take, as in `500ms`; 5 s unless said otherwise, 60 s at most.
    pub(super) timeout: Option<String>,
    /// Answer 307 with the address of the leader, rather than ask it.
    #[param(value_type = Option<bool>)]
    pub(super) redirect: Option<Flag>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct WriteQuery {
    /// The namespace; `default` unless another one is named.
    pub(super) ns: Option<String>,
    /// When it is answered; `quorum` unless said otherwise.
    #[param(inline)]
    pub(super) ack: Option<AckWish>,
    /// How long it may take, as in `500ms`; 5 s unless said otherwise, 60 s at most.
    pub(super) timeout: Option<String>,
    /// Answer 307 with the address of the leader, rather than ask it.
    #[param(value_type = Option<bool>)]
    pub(super) redirect: Option<Flag>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct PutQuery {
    /// How long it lives, as in `30s`; for ever unless said otherwise.
    ttl: Option<String>,
    /// Expires when the value that it replaces would have.
    #[param(value_type = Option<bool>)]
    keep_ttl: Option<Flag>,
    /// The namespace; `default` unless another one is named.
    ns: Option<String>,
    /// When it is answered; `quorum` unless said otherwise.
    #[param(inline)]
    ack: Option<AckWish>,
    /// How long it may take, as in `500ms`; 5 s unless said otherwise, 60 s at most.
    timeout: Option<String>,
    /// Answer 307 with the address of the leader, rather than ask it.
    #[param(value_type = Option<bool>)]
    redirect: Option<Flag>,
}

async fn read(
    State(api): State<KvApi>,
    KeyInPath(key): KeyInPath,
    Query(query): Query<ReadQuery>,
    origin: Origin,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let way = Way::new(origin, query.redirect);
    let namespace = namespace(query.ns.as_deref())?;
    let options = read_options(query.read, query.min_index, query.timeout.as_deref(), way.forwards())?;
    Ok(match api.store.read(&namespace, &key, &options).await {
        Ok(Seen { found: Some(value), place }) => told(&headers, value, place),
        Ok(Seen { found: None, place }) => missing(place),
        Err(error) => api.failed(&error, &key, &way),
    })
}

fn told(headers: &HeaderMap, value: Value, place: Place) -> Response {
    let Value { bytes, version, expires_at } = value;
    let about = answer::entry(place, version, expires_at);
    if is_known(headers, version) {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    (about, [(header::CONTENT_TYPE, BYTES)], bytes).into_response()
}

/// There is no such key, as of a place.
pub(super) fn missing(place: Place) -> Response {
    let problem = Problem::new(Code::KeyNotFound, "there is no such key").partition(place.partition);
    (answer::place(place), problem).into_response()
}

async fn put(
    State(api): State<KvApi>,
    KeyInPath(key): KeyInPath,
    Query(query): Query<PutQuery>,
    origin: Origin,
    headers: HeaderMap,
    RawBody(value): RawBody<VALUE_BYTES_MAX>,
) -> Result<Response, Problem> {
    let expiry = expiry(query.ttl.as_deref(), query.keep_ttl.is_some_and(|Flag(keeps)| keeps))?;
    let PutQuery { ns, ack, timeout, redirect, .. } = query;
    let write = Write::new(key, Change::Put { value, expiry });
    carry_out(&api, write, WriteQuery { ns, ack, timeout, redirect }, origin, &headers).await
}

async fn delete(
    State(api): State<KvApi>,
    KeyInPath(key): KeyInPath,
    Query(query): Query<WriteQuery>,
    origin: Origin,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    carry_out(&api, Write::delete(key), query, origin, &headers).await
}

/// Does one write, as query and headers want it.
pub(super) async fn carry_out(
    api: &KvApi,
    write: Write,
    query: WriteQuery,
    origin: Origin,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let way = Way::new(origin, query.redirect);
    let namespace = namespace(query.ns.as_deref())?;
    let options = write_options(query.ack, query.timeout.as_deref(), way.forwards())?;
    let options = WriteOptions { request: session_request(headers, api.partition(&write.key))?, ..options };
    let write = write.only_if(condition(headers, query.ack)?);
    let key = write.key.clone();
    Ok(match api.store.write(&namespace, write, &options).await {
        Ok(done) => answer::written(&done),
        Err(error) => api.failed(&error, &key, &way),
    })
}
