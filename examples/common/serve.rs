//! One node of an example: ClusterKit, a store, and a port for both.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Json, Router};
use clusterkit::{ClusterKit, Route, StartError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::copies::{Copies, CopyFrom};
use crate::http::Http;
use crate::leader::{Leader, WriteError};
use crate::limits::ROUTE_PATIENCE;
use crate::replica;
use crate::store::Store;

/// What a node is told on its command line.
#[derive(Debug, Clone, clap::Args)]
pub struct NodeArgs {
    /// Its name, unique in the cluster.
    #[arg(long)]
    pub id: String,
    /// Where clients reach it.
    #[arg(long)]
    pub http: String,
    /// Where other nodes reach it.
    #[arg(long)]
    pub listen: String,
    /// The node addresses of others.
    #[arg(long, value_delimiter = ',')]
    pub seeds: Vec<String>,
    /// How many nodes form the cluster together; without it the node joins one.
    #[arg(long)]
    pub expect: Option<u32>,
    /// An empty directory: the store is memory, so a node must not come back as who it was.
    #[arg(long)]
    pub data_dir: PathBuf,
}

/// What an example makes of a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Partitions.
    pub partitions: u32,
    /// Copies of each.
    pub copies: u32,
    /// Whom a new replica copies from.
    pub copy_from: CopyFrom,
}

/// A node that was launched, for the handlers of its requests.
#[derive(Debug, Clone)]
pub struct Node {
    /// The handle of ClusterKit.
    pub ck: ClusterKit,
    /// What it holds.
    pub store: Arc<Store>,
    /// How it writes what it leads.
    pub leader: Leader,
    /// How it asks others.
    pub http: Http,
}

impl Node {
    /// Where a request for `key` goes. Waits while leadership passes from one node to another.
    pub async fn route(&self, key: &str) -> Route {
        match self.ck.partition(key.as_bytes()) {
            Some(partition) => self.ck.route_settled(partition, ROUTE_PATIENCE).await,
            None => Route::NotFormed,
        }
    }
}

/// "Try again, in a second": nobody leads just now, or the outcome of a write is not known.
#[must_use]
pub fn busy(reason: &str) -> Response {
    let body = Json(serde_json::json!({ "error": reason }));
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], body).into_response()
}

/// "Ask there": the same request at the leader, or later, while nobody leads.
#[must_use]
pub fn elsewhere(route: &Route, uri: &Uri) -> Response {
    let Route::Remote { leader, .. } = route else {
        return busy("nobody leads the partition just now");
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Redirect::temporary(&format!("http://{}{path}", leader.public_addr)).into_response()
}

impl IntoResponse for WriteError {
    fn into_response(self) -> Response {
        busy(&self.to_string())
    }
}

/// Runs a node with the routes of an example until its parent is gone, it was drained, or it breaks.
///
/// # Errors
///
/// See [`NodeError`].
pub async fn run(args: NodeArgs, shape: Shape, routes: impl FnOnce(Node) -> Router) -> Result<(), NodeError> {
    let parent_gone = parent_gone().map_err(NodeError::ParentPipe)?;
    let listener = TcpListener::bind(&args.http)
        .await
        .map_err(|source| NodeError::Listen { addr: args.http.clone(), source })?;
    let node = launch(args, shape).await?;
    let app = routes(node.clone())
        .merge(replica::routes(node.ck.clone(), Arc::clone(&node.store)))
        .merge(clusterkit::http::router(&node.ck));
    let stop = CancellationToken::new();
    let port = clusterkit::http::serve(&node.ck, listener, app, stop.clone());
    let life = async {
        let ended = tokio::select! {
            ended = live(&node.ck) => ended,
            () = parent_gone.cancelled() => Ok(()),
        };
        stop.cancel();
        ended
    };
    let (ended, ()) = tokio::join!(life, port);
    node.ck.stop().await;
    ended
}

async fn launch(args: NodeArgs, shape: Shape) -> Result<Node, NodeError> {
    let (store, http) = (Arc::new(Store::default()), Http::new());
    let copies = Copies::new(Arc::clone(&store), http.clone(), shape.copy_from);
    let mut builder = ClusterKit::builder(&args.id, &args.http)
        .listen(&args.listen)
        .seeds(args.seeds)
        .data_dir(args.data_dir)
        .partitions(shape.partitions)
        .replication_factor(shape.copies)
        .handler(copies);
    if let Some(expect) = args.expect {
        builder = builder.expect(expect);
    }
    let ck = builder.launch().await.map_err(NodeError::Start)?;
    let leader = Leader::new(ck.clone(), Arc::clone(&store), http.clone());
    Ok(Node { ck, store, leader, http })
}

/// Takes part until the node breaks, or has been drained.
async fn live(ck: &ClusterKit) -> Result<(), NodeError> {
    ck.ready().await.map_err(NodeError::Start)?;
    ck.stopped().await.map_err(NodeError::Broke)
}

/// Fires when standard input ends: the parent holds the other end, and lets go of it when it dies.
fn parent_gone() -> io::Result<CancellationToken> {
    let gone = CancellationToken::new();
    let fired = gone.clone();
    thread::Builder::new().name("parent-pipe".to_owned()).spawn(move || {
        let mut ignored = [0; 64];
        while matches!(io::stdin().read(&mut ignored), Ok(count) if count > 0) {}
        fired.cancel();
    })?;
    Ok(gone)
}

/// A node does not run any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// It broke.
    #[error("the node broke")]
    Broke(#[source] StartError),
    /// Its address for clients cannot be had.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address.
        addr: String,
        /// Why.
        source: io::Error,
    },
    /// Its parent cannot be watched.
    #[error("standard input cannot be watched")]
    ParentPipe(#[source] io::Error),
    /// It never became part of its cluster.
    #[error("the node cannot start")]
    Start(#[source] StartError),
}
