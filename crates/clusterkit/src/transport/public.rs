//! Asking a node's public address for its node address.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::id::NodeId;
use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::time::timeout;

use super::limits::{PUBLIC_ANSWER_BYTES_MAX, PUBLIC_HEAD_BYTES_MAX};
use crate::net::Net;

const PATH: &str = "/v1/cluster/info";

/// What a node says at its public address about its place in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PublicAnswer {
    /// Where other nodes reach it.
    pub node_addr: String,
    /// Its name.
    #[serde(rename = "local_id")]
    pub node_id: NodeId,
    /// The name of its cluster.
    pub cluster_name: String,
}

/// Asks the node whose public address is `addr` where other nodes reach it. Follows no redirect.
pub async fn ask_public(net: &dyn Net, addr: &str, patience: Duration) -> Result<PublicAnswer, AskError> {
    timeout(patience, ask(net, addr)).await.map_err(|_| AskError::TimedOut)?
}

async fn ask(net: &dyn Net, addr: &str) -> Result<PublicAnswer, AskError> {
    let connection = net.connect(addr).await.map_err(AskError::Unreachable)?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(PUBLIC_HEAD_BYTES_MAX);
    let (mut sender, driver) = builder.handshake(TokioIo::new(connection)).await?;
    let exchange = async move {
        let response = sender.send_request(request(addr)?).await?;
        read(response).await
    };
    // The driver moves the bytes, and what it fails with the exchange is told too.
    match select(pin!(exchange), pin!(driver)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, exchange)) => exchange.await,
    }
}

fn request(addr: &str) -> Result<Request<Empty<Bytes>>, AskError> {
    let request = Request::get(PATH).header(HOST, addr).header(ACCEPT, "application/json");
    request.header(CONNECTION, "close").body(Empty::new()).map_err(|_| AskError::Address)
}

async fn read(response: Response<Incoming>) -> Result<PublicAnswer, AskError> {
    let status = response.status();
    if status != StatusCode::OK {
        return Err(AskError::Status { status: status.as_u16() });
    }
    let body = Limited::new(response.into_body(), PUBLIC_ANSWER_BYTES_MAX);
    let body = body.collect().await.map_err(|source| AskError::Body { source })?;
    Ok(serde_json::from_slice(&body.to_bytes())?)
}

/// The public address did not say where the node is. Nothing changed there; each may be retried, and
/// only the first three are likely to pass by themselves.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// No connection came about.
    #[error("no connection came about")]
    Unreachable(#[source] io::Error),
    /// No answer came in time.
    #[error("no answer came in time")]
    TimedOut,
    /// It answered with another status than 200.
    #[error("it answered with status {status}")]
    Status {
        /// The status.
        status: u16,
    },
    /// The address cannot stand in a request.
    #[error("the address cannot stand in a request")]
    Address,
    /// It does not answer with a cluster's description, or leaves out a part of it.
    #[error("it does not answer as a ClusterKit node does")]
    Answer(#[from] serde_json::Error),
    /// The answer is longer than 64 KiB, or ended early.
    #[error("its answer is too long or ended early")]
    Body {
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It does not speak HTTP, or closed the connection.
    #[error("it does not answer HTTP")]
    Http(#[from] hyper::Error),
}
