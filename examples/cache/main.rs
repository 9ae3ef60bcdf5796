//! A cache: entries live for a time, and a write is answered as soon as the leader has it. The other
//! copies follow.
//!
//! ```console
//! $ cargo run --release --example cache
//! ```
//!
//! starts three nodes, with 16 partitions in two copies, fills the cache while one node is drained, and
//! looks at what is there afterwards. With `-- --stay` the nodes run on, to be tried by hand:
//!
//! ```console
//! $ NODE=http://127.0.0.1:40001
//! $ curl -L -X POST "$NODE/set?key=page:1&value=hello&ttl=60"
//! {"expires_at":1767225660000,"key":"page:1"}
//! $ curl -L "$NODE/get?key=page:1"
//! {"expires_at":1767225660000,"key":"page:1","value":"hello"}
//! $ curl -L -X DELETE "$NODE/delete?key=page:1"
//! ```
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /set?key=&value=&ttl=` | 200 once the leader has it; `ttl` in seconds, 3,600 without |
//! | `GET /get?key=` | 200, or 404 once the time is up |
//! | `DELETE /delete?key=` | 200 once the leader has it |
//!
//! A leader that is killed takes with it what it had not passed on: a cache can be filled again. A
//! planned change loses nothing, since a handover waits until the copies have followed. Deletions are
//! tombstones, so no copy brings back what was deleted or has expired. The leader stamps the time, and
//! removes what has expired on all copies.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use clusterkit::{Lease, Route};
use common::copies::CopyFrom;
use common::demo::{self, DemoError, promised};
use common::http::{HttpError, PatientClient};
use common::leader::WriteError;
use common::process::Processes;
use common::serve::{Node, Shape, busy, elsewhere};
use common::store::{Change, Refused};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::sleep;

const SHAPE: Shape = Shape { partitions: 16, copies: 2, copy_from: CopyFrom::Leader };
/// Seconds that an entry lives where nobody says how long.
const TTL_DEFAULT: u64 = 3_600;
/// Between two looks for what has expired.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// Entries removed in one look at a partition.
const SWEEP_MAX: usize = 1_000;
/// Pages that the demonstration keeps.
const PAGES: usize = 200;
/// How long what it sets besides may live.
const SESSION_TTL: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> ExitCode {
    demo::main(SHAPE, routes, story).await
}

/// What a user sees: a planned change loses nothing, and what is gone stays gone.
async fn story(cluster: &mut Processes, client: &PatientClient) -> Result<(), DemoError> {
    let node = cluster.nodes()[1].id.clone();
    for number in 0..PAGES {
        if number == PAGES / 4 {
            cluster.drain(&node).await?;
            println!("{node} is being drained after {number} writes");
        }
        set_one(client, &format!("page-{number}"), 3_600).await?;
        set_one(client, &format!("session-{number}"), SESSION_TTL.as_secs()).await?;
        set_one(client, &format!("draft-{number}"), 3_600).await?;
        client.ask(Method::DELETE, &format!("/delete?key=draft-{number}")).await?.success::<Value>()?;
    }
    cluster.ended(&node).await?;
    println!("{node} has given everything to the others, and ended");
    sleep(SESSION_TTL).await;

    let kept = count(client, "page").await?;
    promised("all pages are there", PAGES - kept)?;
    promised("no session outlives its time", count(client, "session").await?)?;
    promised("no draft comes back that was deleted", count(client, "draft").await?)
}

async fn set_one(client: &PatientClient, key: &str, ttl: u64) -> Result<(), HttpError> {
    let path = format!("/set?key={key}&value=hello&ttl={ttl}");
    client.ask(Method::POST, &path).await?.success::<Value>().map(drop)
}

/// How many of the keys of a kind have a value.
async fn count(client: &PatientClient, kind: &str) -> Result<usize, HttpError> {
    let mut found = 0;
    for number in 0..PAGES {
        let reply = client.ask(Method::GET, &format!("/get?key={kind}-{number}")).await?;
        if reply.status != StatusCode::NOT_FOUND {
            reply.success::<Value>()?;
            found += 1;
        }
    }
    Ok(found)
}

fn routes(node: Node) -> Router {
    tokio::spawn(sweep(node.clone()));
    Router::new()
        .route("/set", post(set))
        .route("/get", get(read))
        .route("/delete", delete(remove))
        .with_state(node)
}

/// What is kept of an entry. Times are milliseconds since 1970.
#[derive(Debug, Serialize, Deserialize)]
struct Cached {
    value: String,
    expires_at: u64,
}

impl Cached {
    fn new(value: String, ttl: u64) -> Self {
        Self { value, expires_at: now().saturating_add(ttl.saturating_mul(1_000)) }
    }

    /// The entry that `text` is, while it lives.
    fn living(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|cached: &Self| cached.expires_at > now())
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Debug, Deserialize)]
struct Set {
    key: String,
    value: String,
    ttl: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Key {
    key: String,
}

async fn set(State(node): State<Node>, uri: Uri, Query(ask): Query<Set>) -> Response {
    let lease = match node.route(&ask.key).await {
        Route::Local(lease) => lease,
        route => return elsewhere(&route, &uri),
    };
    let cached = Cached::new(ask.value, ask.ttl.unwrap_or(TTL_DEFAULT));
    let text = serde_json::to_string(&cached).expect("text and numbers are JSON");
    match node.leader.write_behind(&lease, &ask.key, Change::Set(text)).await {
        Ok(_) => Json(json!({ "key": ask.key, "expires_at": cached.expires_at })).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn read(State(node): State<Node>, uri: Uri, Query(ask): Query<Key>) -> Response {
    let lease = match node.route(&ask.key).await {
        Route::Local(lease) => lease,
        route => return elsewhere(&route, &uri),
    };
    let text = node.store.peek(lease.partition(), &ask.key).and_then(|entry| entry.value);
    // Looked at after the read: while this holds nobody else wrote.
    if !lease.is_valid() {
        return busy("the lease ended during the read");
    }
    match text.and_then(|text| Cached::living(&text)) {
        Some(Cached { value, expires_at }) => {
            Json(json!({ "key": ask.key, "value": value, "expires_at": expires_at })).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn remove(State(node): State<Node>, uri: Uri, Query(ask): Query<Key>) -> Response {
    let lease = match node.route(&ask.key).await {
        Route::Local(lease) => lease,
        route => return elsewhere(&route, &uri),
    };
    match node.leader.write_behind(&lease, &ask.key, Change::Delete).await {
        Ok(_) => Json(json!({ "key": ask.key })).into_response(),
        Err(error) => error.into_response(),
    }
}

/// The leases of all partitions that this node leads now.
fn leases(node: &Node) -> Vec<Lease> {
    node.store.held().into_iter().filter_map(|partition| node.ck.lead(partition).ok()).collect()
}

/// Deletes up to `count` entries that `wanted` names, on all copies. One that was set anew meanwhile
/// stays.
async fn delete_where(
    node: &Node,
    lease: &Lease,
    count: usize,
    wanted: impl Fn(&str) -> bool,
) -> Result<usize, WriteError> {
    let mut deleted = 0;
    for found in node.store.find(lease.partition(), "", count, |_, text| wanted(text)) {
        match node.leader.write_behind(lease, &found.key, Change::DeleteIf(found.version)).await {
            Ok(_) => deleted += 1,
            Err(WriteError::Refused(Refused::Changed)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

/// Deletes what has expired, without end. What is not deleted now is the next time, here or where the
/// partition is led then.
async fn sweep(node: Node) {
    loop {
        sleep(SWEEP_PAUSE).await;
        for lease in leases(&node) {
            drop(delete_where(&node, &lease, SWEEP_MAX, |text| Cached::living(text).is_none()).await);
        }
    }
}
