//! One node: what each mode makes of the requests for data.
//!
//! | route | `sync` | `async` | `server-side` |
//! | --- | --- | --- | --- |
//! | `POST /kv/set` `{"key", "value"}` | - | leader only | any node |
//! | `GET /kv/get?key=` | - | whoever holds it | any node, answered by the leader |
//! | `POST /replica/...` | from clients | from leaders | from leaders |

use std::fmt;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use clusterkit::{Lease, Route};
use common::copies::CopyFrom;
use common::http::{Ask, FORWARDED, escape};
use common::leader::WriteError;
use common::limits::REQUEST_TIMEOUT;
use common::serve::{self, Node, NodeArgs, NodeError, Shape, busy};
use common::store::{Change, Entry, ValueVersion};
use serde::{Deserialize, Serialize};

/// How copies are kept in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// The client writes all copies; a majority is enough.
    Sync,
    /// The leader acknowledges, and copies afterwards.
    Async,
    /// Any node takes it; the leader writes every in-sync copy first.
    ServerSide,
}

impl Mode {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Async => "async",
            Self::ServerSide => "server-side",
        }
    }

    fn shape(self) -> Shape {
        let copy_from = if self == Self::Sync { CopyFrom::Majority } else { CopyFrom::Leader };
        Shape { partitions: 64, copies: 3, copy_from }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Runs one node.
pub(crate) async fn run(mode: Mode, args: NodeArgs) -> Result<(), NodeError> {
    serve::run(args, mode.shape(), |node| routes(App { node, mode })).await
}

#[derive(Clone)]
struct App {
    node: Node,
    mode: Mode,
}

fn routes(app: App) -> Router {
    let router = match app.mode {
        Mode::Sync => Router::new(),
        Mode::Async => Router::new().route("/kv/set", post(set)).route("/kv/get", get(get_here)),
        Mode::ServerSide => Router::new().route("/kv/set", post(set)).route("/kv/get", get(get_from_leader)),
    };
    router.with_state(app)
}

/// What a client sends to set a key.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SetBody {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// What it is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SetAnswer {
    pub(crate) version: ValueVersion,
}

#[derive(Debug, Deserialize)]
struct KeyQuery {
    key: String,
}

async fn set(State(app): State<App>, headers: HeaderMap, Json(body): Json<SetBody>) -> Response {
    match app.node.route(&body.key).await {
        Route::Local(lease) => app.write(&lease, &body.key, Change::Set(body.value)).await,
        Route::Remote { leader, .. } => match Ask::post(&leader.public_addr, "/kv/set", &body) {
            Ok(ask) => app.forward(ask, &headers).await,
            Err(error) => busy(&error.to_string()),
        },
        _ => busy("nobody leads the partition just now"),
    }
}

/// The copy on this node, however old.
async fn get_here(State(app): State<App>, Query(query): Query<KeyQuery>) -> Response {
    let partition = app.node.ck.partition(query.key.as_bytes());
    found(partition.and_then(|partition| app.node.store.peek(partition, &query.key)))
}

/// The leader's copy, read while it leads.
async fn get_from_leader(
    State(app): State<App>,
    headers: HeaderMap,
    Query(query): Query<KeyQuery>,
) -> Response {
    match app.node.route(&query.key).await {
        Route::Local(lease) => {
            let entry = app.node.store.peek(lease.partition(), &query.key);
            // Looked at after the read: nobody else had led, and written, before it.
            if lease.is_valid() { found(entry) } else { busy("the lease ended during the read") }
        }
        Route::Remote { leader, .. } => {
            let path = format!("/kv/get?key={}", escape(&query.key));
            app.forward(Ask::get(&leader.public_addr, &path), &headers).await
        }
        _ => busy("nobody leads the partition just now"),
    }
}

fn found(entry: Option<Entry>) -> Response {
    match entry {
        Some(entry) if entry.value.is_some() => Json(entry).into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

impl App {
    async fn write(&self, lease: &Lease, key: &str, change: Change) -> Response {
        let written: Result<_, WriteError> = match self.mode {
            Mode::Async => self.node.leader.write_behind(lease, key, change).await,
            Mode::Sync | Mode::ServerSide => self.node.leader.write(lease, key, change).await,
        };
        match written {
            Ok(entry) => Json(SetAnswer { version: entry.version }).into_response(),
            Err(error) => error.into_response(),
        }
    }

    /// Passes a request on to the leader, once: who gets one that was passed on and does not lead says
    /// so, and the client tries again.
    async fn forward(&self, ask: Ask, headers: &HeaderMap) -> Response {
        if self.mode == Mode::Async || headers.contains_key(FORWARDED) {
            return busy("this node does not lead the partition");
        }
        let ask = ask.forwarded_by(self.node.ck.node_id().as_str());
        match self.node.http.send(&ask, REQUEST_TIMEOUT).await {
            Ok(reply) if reply.status == StatusCode::SERVICE_UNAVAILABLE => busy("the leader is busy"),
            Ok(reply) => (reply.status, [(CONTENT_TYPE, "application/json")], reply.body).into_response(),
            Err(error) => busy(&error.to_string()),
        }
    }
}
