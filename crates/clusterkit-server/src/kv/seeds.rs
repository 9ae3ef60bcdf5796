//! The routes of keys and values that the clients of another product know: `/kv/...`, with text as values.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use clusterkit::PartitionId;
use clusterkit::http::{Code, Endpoint, Problem, Query, RawBody};
use clusterkit_data::{ReadOptions, WriteOptions};
use clusterkit_services::Namespace;
use clusterkit_services::kv::{KvError, Write};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::limits::SEED_BODY_BYTES_MAX;
use super::text::bytes_in_query;
use super::{KvApi, READ_CODES, WRITE_CODES, failure};

/// How requests find their node: any one takes them.
const MODE: &str = "server-side";

pub(super) fn endpoints() -> Vec<Endpoint<KvApi>> {
    vec![
        Endpoint::post("/kv/set", set)
            .summary("Sets the value of a key, which is text: `{\"key\": ..., \"value\": ...}`.")
            .body_bytes("application/json")
            .json::<SetAnswer>("It is set.")
            .fails(WRITE_CODES)
            .fails(&[Code::MalformedJson]),
        Endpoint::get("/kv/get", get)
            .summary("The value of a key, which is text.")
            .query::<KeyQuery>()
            .json::<GetAnswer>("The value.")
            .fails(READ_CODES)
            .fails(&[Code::KeyNotFound]),
        Endpoint::delete("/kv/delete", delete)
            .summary("Removes a key.")
            .query::<KeyQuery>()
            .json::<StatusAnswer>("It is not there any more.")
            .fails(WRITE_CODES)
            .fails(&[Code::MissingParameter]),
        Endpoint::post("/kv/delete", delete)
            .summary("Removes a key.")
            .query::<KeyQuery>()
            .json::<StatusAnswer>("It is not there any more.")
            .fails(WRITE_CODES)
            .fails(&[Code::MissingParameter]),
        Endpoint::get("/kv/stats", stats)
            .summary("How many keys there are.")
            .json::<StatsAnswer>("The count.")
            .fails(READ_CODES),
        Endpoint::get("/kv/partitions", partitions)
            .summary("The partitions that this node holds.")
            .json::<PartitionsAnswer>("The partitions."),
    ]
}

#[derive(Debug, Deserialize, IntoParams)]
struct KeyQuery {
    /// The key.
    #[allow(dead_code, reason = "read from the address, where it may have any bytes")]
    key: Option<String>,
}

/// A key and its value. `replicate` marks what a node sends on to others, which here nobody needs.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = KvSetRequest)]
struct SetRequest {
    key: String,
    value: String,
    #[serde(default)]
    #[allow(dead_code, reason = "copies are made whatever it says")]
    replicate: bool,
}

/// It is set.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KvSetAnswer)]
struct SetAnswer {
    #[schema(value_type = String)]
    status: &'static str,
    /// What this node is to the partition: `primary`, `replica` or `none`.
    #[schema(value_type = String)]
    role: &'static str,
}

/// The value of a key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KvGetAnswer)]
struct GetAnswer {
    key: String,
    value: String,
}

/// It is done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KvStatusAnswer)]
struct StatusAnswer {
    #[schema(value_type = String)]
    status: &'static str,
}

/// How many keys the cluster has.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KvStatsAnswer)]
struct StatsAnswer {
    node_id: String,
    keys: u64,
    #[schema(value_type = String)]
    mode: &'static str,
}

/// The partitions that a node holds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KvPartitionsAnswer)]
struct PartitionsAnswer {
    node_id: String,
    partitions: Vec<HeldPartition>,
    count: usize,
}

/// A partition that a node holds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KvHeldPartition)]
struct HeldPartition {
    id: String,
    #[schema(value_type = String)]
    role: &'static str,
}

impl KvApi {
    fn role(&self, partition: PartitionId) -> &'static str {
        match (self.ck.is_leader(partition), self.ck.holds(partition)) {
            (true, _) => "primary",
            (false, true) => "replica",
            (false, false) => "none",
        }
    }

    fn seed_failed(&self, error: &KvError, key: &[u8]) -> Response {
        failure::answer(&self.ck, error, self.partition(key), None)
    }
}

fn key_of(uri: &Uri) -> Result<Bytes, Problem> {
    let missing = || Problem::new(Code::MissingParameter, "`key` is missing: give `?key=`");
    bytes_in_query(uri.query().unwrap_or_default(), "key")?.ok_or_else(missing)
}

/// Its clients send JSON under many names, `curl -d` among them.
async fn set(
    State(api): State<KvApi>,
    RawBody(body): RawBody<SEED_BODY_BYTES_MAX>,
) -> Result<Response, Problem> {
    let wrong = |error: serde_json::Error| Problem::new(Code::MalformedJson, format!("the body: {error}"));
    let SetRequest { key, value, .. } = serde_json::from_slice(&body).map_err(wrong)?;
    let (key, write) = (Bytes::from(key.clone()), Write::put(key, value));
    Ok(match api.store.write(&Namespace::default(), write, &WriteOptions::default()).await {
        Ok(done) => Json(SetAnswer { status: "ok", role: api.role(done.place.partition) }).into_response(),
        Err(error) => api.seed_failed(&error, &key),
    })
}

async fn get(State(api): State<KvApi>, uri: Uri, _: Query<KeyQuery>) -> Result<Response, Problem> {
    let key = key_of(&uri)?;
    let found = match api.store.read(&Namespace::default(), &key, &ReadOptions::default()).await {
        Ok(seen) => seen,
        Err(error) => return Ok(api.seed_failed(&error, &key)),
    };
    let Some(value) = found.found else { return Ok(super::entry::missing(found.place)) };
    let text = |bytes: &[u8]| {
        let wrong = |_| Problem::new(Code::InvalidValue, "it is no text: GET /v1/kv/{key} gives its bytes");
        std::str::from_utf8(bytes).map(str::to_owned).map_err(wrong)
    };
    Ok(Json(GetAnswer { key: text(&key)?, value: text(&value.bytes)? }).into_response())
}

async fn delete(State(api): State<KvApi>, uri: Uri, _: Query<KeyQuery>) -> Result<Response, Problem> {
    let key = key_of(&uri)?;
    let write = Write::delete(key.clone());
    Ok(match api.store.write(&Namespace::default(), write, &WriteOptions::default()).await {
        Ok(_) => Json(StatusAnswer { status: "ok" }).into_response(),
        Err(error) => api.seed_failed(&error, &key),
    })
}

async fn stats(State(api): State<KvApi>) -> Response {
    match api.store.stats(&Namespace::default(), &ReadOptions::default()).await {
        Ok(stats) => {
            let node_id = api.ck.node_id().to_string();
            Json(StatsAnswer { node_id, keys: stats.keys, mode: MODE }).into_response()
        }
        Err(error) => failure::answer(&api.ck, &error, None, None),
    }
}

async fn partitions(State(api): State<KvApi>) -> Json<PartitionsAnswer> {
    let topology = api.ck.topology();
    let all = (0..topology.partitions.len()).filter_map(|number| u32::try_from(number).ok().map(PartitionId));
    let held = all.filter(|partition| api.ck.holds(*partition));
    let held = held.map(|partition| HeldPartition { id: partition.to_string(), role: api.role(partition) });
    let partitions: Vec<_> = held.collect();
    Json(PartitionsAnswer { node_id: api.ck.node_id().to_string(), count: partitions.len(), partitions })
}
