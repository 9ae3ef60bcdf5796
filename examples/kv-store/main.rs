//! A key-value store: the leader of a key's partition writes, and answers once every in-sync copy has
//! the write. Any other node redirects there.
//!
//! ```console
//! $ cargo run --release --example kv-store
//! ```
//!
//! starts three nodes, with 16 partitions in three copies, sets keys, kills a node half way, and reads
//! everything back. With `-- --stay` the nodes run on, to be tried by hand:
//!
//! ```console
//! $ NODE=http://127.0.0.1:40001
//! $ curl -L -X POST "$NODE/set?key=user:1&value=Ada"
//! {"key":"user:1","partition":10,"version":[1,11]}
//! $ curl -L "$NODE/get?key=user:1"
//! {"key":"user:1","value":"Ada"}
//! $ curl -L -X DELETE "$NODE/delete?key=user:1"
//! ```
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /set?key=&value=`, `DELETE /delete?key=` | 200 once every in-sync copy has it |
//! | `GET /get?key=` | 200 with the value, 404 without one |
//!
//! Where another node leads the answer is 307, and `curl -L` follows. While nobody does, and where the
//! outcome of a write is not known, it is 503 with `Retry-After`: to set or delete twice does no harm.

use std::process::ExitCode;

use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use clusterkit::{Lease, Route};
use common::copies::CopyFrom;
use common::demo::{self, DemoError, promised};
use common::http::{HttpError, PatientClient};
use common::process::Processes;
use common::serve::{Node, Shape, busy, elsewhere};
use common::store::Change;
use serde::Deserialize;
use serde_json::{Value, json};

const SHAPE: Shape = Shape { partitions: 16, copies: 3, copy_from: CopyFrom::Leader };
/// Keys that the demonstration sets.
const KEYS: usize = 200;

#[tokio::main]
async fn main() -> ExitCode {
    demo::main(SHAPE, routes, story).await
}

/// What a user sees: every key that was set is there, although a node died meanwhile.
async fn story(cluster: &mut Processes, client: &PatientClient) -> Result<(), DemoError> {
    for number in 0..KEYS {
        if number == KEYS / 2 {
            println!("{} is killed after {number} writes", cluster.kill(1).await?);
        }
        let path = format!("/set?key=user-{number}&value={number}");
        client.ask(Method::POST, &path).await?.success::<Value>()?;
    }
    println!("{KEYS} keys were set");
    client.ask(Method::DELETE, "/delete?key=user-0").await?.success::<Value>()?;

    let mut missing = 0;
    for number in 1..KEYS {
        let found = value_of(client, number).await?;
        missing += usize::from(found != Some(number.to_string()));
    }
    promised("every key that was set has its value", missing)?;
    let risen = usize::from(value_of(client, 0).await?.is_some());
    promised("the key that was deleted has none", risen)
}

async fn value_of(client: &PatientClient, number: usize) -> Result<Option<String>, HttpError> {
    let reply = client.ask(Method::GET, &format!("/get?key=user-{number}")).await?;
    if reply.status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    Ok(reply.success::<Value>()?["value"].as_str().map(ToOwned::to_owned))
}

fn routes(node: Node) -> Router {
    Router::new()
        .route("/set", post(set))
        .route("/get", get(read))
        .route("/delete", delete(remove))
        .with_state(node)
}

#[derive(Debug, Deserialize)]
struct Pair {
    key: String,
    value: String,
}

#[derive(Debug, Deserialize)]
struct Key {
    key: String,
}

async fn set(State(node): State<Node>, uri: Uri, Query(pair): Query<Pair>) -> Response {
    match node.route(&pair.key).await {
        Route::Local(lease) => write(&node, &lease, &pair.key, Change::Set(pair.value)).await,
        route => elsewhere(&route, &uri),
    }
}

async fn remove(State(node): State<Node>, uri: Uri, Query(key): Query<Key>) -> Response {
    match node.route(&key.key).await {
        Route::Local(lease) => write(&node, &lease, &key.key, Change::Delete).await,
        route => elsewhere(&route, &uri),
    }
}

async fn write(node: &Node, lease: &Lease, key: &str, change: Change) -> Response {
    match node.leader.write(lease, key, change).await {
        Ok(entry) => {
            let partition = lease.partition().0;
            Json(json!({ "key": key, "partition": partition, "version": entry.version })).into_response()
        }
        Err(error) => error.into_response(),
    }
}

async fn read(State(node): State<Node>, uri: Uri, Query(key): Query<Key>) -> Response {
    let lease = match node.route(&key.key).await {
        Route::Local(lease) => lease,
        route => return elsewhere(&route, &uri),
    };
    let entry = node.store.peek(lease.partition(), &key.key);
    // Looked at after the read: while this holds nobody else wrote.
    if !lease.is_valid() {
        return busy("the lease ended during the read");
    }
    match entry.and_then(|entry| entry.value) {
        Some(value) => Json(json!({ "key": key.key, "value": value })).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
