//! Changes of one entry that are made where it lies: numbers, appending, expiry.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use clusterkit::http::{Code, Endpoint, Problem, Query, RawBody};
use clusterkit_data::LogTime;
use clusterkit_services::kv::limits::VALUE_BYTES_MAX;
use clusterkit_services::kv::{Change, Description, Seen, Write};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::{self, WrittenDto, time};
use super::entry::{BYTES, ROUTE_NOTE, ReadQuery, WriteQuery, carry_out, missing};
use super::wish::{AckWish, CK_ROUTE, Flag, KeyInPath, Origin, namespace, read_options, ttl};
use super::{KvApi, READ_CODES, WRITE_CODES, Way};

pub(super) fn endpoints() -> Vec<Endpoint<KvApi>> {
    let change = |endpoint: Endpoint<KvApi>| {
        let endpoint = endpoint.header(CK_ROUTE, ROUTE_NOTE).json::<WrittenDto>("It is done.");
        let endpoint =
            endpoint.header("if-match", "Only at this version, or with `*` only if the key is there.");
        endpoint.fails(WRITE_CODES).fails(&[Code::Exists, Code::KeyNotFound, Code::VersionMismatch])
    };
    let number = [Code::NotANumber, Code::NumberOverflow];
    vec![
        change(Endpoint::post("/v1/kv/{key}/incr", increment))
            .summary("Adds to the number that the value is; a missing one is 0.")
            .query::<NumberQuery>()
            .fails(&number),
        change(Endpoint::post("/v1/kv/{key}/decr", decrement))
            .summary("Subtracts from the number that the value is; a missing one is 0.")
            .query::<NumberQuery>()
            .fails(&number),
        change(Endpoint::post("/v1/kv/{key}/append", append))
            .summary("Adds the body to the end of the value; a missing one is empty.")
            .query::<WriteQuery>()
            .body_bytes(BYTES),
        change(Endpoint::post("/v1/kv/{key}/expire", expire))
            .summary("Sets when a key expires.")
            .query::<ExpireQuery>()
            .fails(&[Code::MissingParameter]),
        change(Endpoint::post("/v1/kv/{key}/persist", persist))
            .summary("Makes a key one that does not expire.")
            .query::<WriteQuery>(),
        Endpoint::get("/v1/kv/{key}/ttl", time_to_live)
            .summary("How long a key lives, with its version and the size of its value.")
            .query::<ReadQuery>()
            .header(CK_ROUTE, ROUTE_NOTE)
            .json::<TtlDto>("How long.")
            .fails(READ_CODES)
            .fails(&[Code::KeyNotFound]),
    ]
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct NumberQuery {
    /// How much; 1 unless said otherwise, and it may be negative.
    by: Option<i64>,
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

impl NumberQuery {
    fn split(self) -> (i64, WriteQuery) {
        let Self { by, ns, ack, timeout, redirect } = self;
        (by.unwrap_or(1), WriteQuery { ns, ack, timeout, redirect })
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ExpireQuery {
    /// How long it lives from now on, as in `30s`.
    ttl: String,
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

async fn increment(
    State(api): State<KvApi>,
    KeyInPath(key): KeyInPath,
    Query(query): Query<NumberQuery>,
    origin: Origin,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (by, query) = query.split();
    carry_out(&api, Write::new(key, Change::Increment { by }), query, origin, &headers).await
}

async fn decrement(
    State(api): State<KvApi>,
    KeyInPath(key): KeyInPath,
    Query(query): Query<NumberQuery>,
    origin: Origin,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (by, query) = query.split();
    carry_out(&api, Write::new(key, Change::Decrement { by }), query, origin, &headers).await
}

async fn append(
    State(api): State<KvApi>,
    KeyInPath(key): KeyInPath,
    Query(query): Query<WriteQuery>,
    origin: Origin,
    headers: HeaderMap,
    RawBody(suffix): RawBody<VALUE_BYTES_MAX>,
) -> Result<Response, Problem> {
    carry_out(&api, Write::new(key, Change::Append { suffix }), query, origin, &headers).await
}

async fn expire(
    State(api): State<KvApi>,
    KeyInPath(key): KeyInPath,
    Query(query): Query<ExpireQuery>,
    origin: Origin,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let ExpireQuery { ttl: text, ns, ack, timeout, redirect } = query;
    let write = Write::new(key, Change::Expire { deadline: ttl(&text)? });
    carry_out(&api, write, WriteQuery { ns, ack, timeout, redirect }, origin, &headers).await
}

async fn persist(
    State(api): State<KvApi>,
    KeyInPath(key): KeyInPath,
    Query(query): Query<WriteQuery>,
    origin: Origin,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    carry_out(&api, Write::new(key, Change::Persist), query, origin, &headers).await
}

/// How long a key lives.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KvTtl)]
struct TtlDto {
    /// How long it has to live, as in `29500ms` or `30s`; null for one that does not expire.
    ttl: Option<String>,
    /// When it expires; null for never.
    expires_at: Option<String>,
    /// Its version.
    version: u64,
    /// Bytes of its value.
    value_bytes: u32,
}

impl TtlDto {
    fn new(description: &Description, now: LogTime) -> Self {
        Self {
            ttl: description.ttl(now).map(|ttl| crate::config::Span(ttl).to_string()),
            expires_at: description.expires_at.map(time),
            version: description.version.0,
            value_bytes: description.value_bytes,
        }
    }
}

async fn time_to_live(
    State(api): State<KvApi>,
    KeyInPath(key): KeyInPath,
    Query(query): Query<ReadQuery>,
    origin: Origin,
) -> Result<Response, Problem> {
    let way = Way::new(origin, query.redirect);
    let namespace = namespace(query.ns.as_deref())?;
    let options = read_options(query.read, query.min_index, query.timeout.as_deref(), way.forwards())?;
    Ok(match api.store.describe(&namespace, &key, &options).await {
        Ok(Seen { found: (Some(description), now), place }) => {
            let headers = answer::entry(place, description.version, description.expires_at);
            (headers, Json(TtlDto::new(&description, now))).into_response()
        }
        Ok(Seen { found: (None, _), place }) => missing(place),
        Err(error) => api.failed(&error, &key, &way),
    })
}

#[cfg(test)]
mod tests {
    use clusterkit_services::kv::Version;

    use super::*;

    #[test]
    fn a_time_to_live_is_told_to_the_millisecond() {
        let check = |expires_at: Option<u64>, expect: Option<&str>| {
            let expires_at = expires_at.map(LogTime);
            let description = Description { version: Version(1), expires_at, value_bytes: 2 };
            assert_eq!(TtlDto::new(&description, LogTime(1_000)).ttl.as_deref(), expect);
        };
        check(None, None);
        check(Some(31_000), Some("30s"));
        check(Some(30_500), Some("29500ms"));
        check(Some(500), Some("0s"));
    }
}
