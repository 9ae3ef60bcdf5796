//! Requests of the program that embeds a node to the public ports of the other nodes.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::uri::{Authority, InvalidUri, Scheme};
use axum::http::{HeaderValue, Method, Request, Response, Uri, header};
use bytes::Bytes;
use clusterkit_core::id::NodeId;
use clusterkit_core::topology::Topology;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{Semaphore, watch};

use super::limits::{
    CLIENT_ANSWER_BYTES_MAX, CLIENT_CONNECT_TIMEOUT, CLIENT_IDLE_TIMEOUT, CLIENT_REQUEST_TIMEOUT,
    CLIENT_REQUESTS_PER_NODE_MAX,
};

/// HTTP requests to other nodes by their ids, over connections that are kept and shared by all clones.
///
/// Addresses are those of the topology that this node knows, looked up anew for each request. To one
/// node go at most [`CLIENT_REQUESTS_PER_NODE_MAX`] requests at once; more wait for their turn, within
/// their own time. Redirects are answers like others.
#[derive(Clone)]
pub struct HttpClient {
    connections: Client<HttpConnector, Full<Bytes>>,
    topology: watch::Receiver<Arc<Topology>>,
    places: Arc<Mutex<BTreeMap<NodeId, Arc<Semaphore>>>>,
    timeout: Duration,
}

/// Why a request to another node has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The topology has no such node.
    #[error("the cluster has no node {node}; look at the topology again")]
    UnknownNode {
        /// Who was asked for.
        node: NodeId,
    },
    /// The topology has an address for the node that nothing can be sent to. Give the node another
    /// `--public-addr`.
    #[error("node {node} has the public address {addr:?}, which is none")]
    Address {
        /// Who was asked for.
        node: NodeId,
        /// What its record says.
        addr: String,
        /// What is wrong with it.
        source: InvalidUri,
    },
    /// The target is not the path of a request.
    #[error("{target:?} is no path of a request; begin it with a slash")]
    Target {
        /// What was given.
        target: String,
        /// What is wrong with it, where it is no URI at all.
        source: Option<axum::http::Error>,
    },
    /// No connection could be made.
    #[error("node {node} cannot be reached at {addr}")]
    Unreachable {
        /// Who was asked.
        node: NodeId,
        /// Where.
        addr: String,
        /// What the network said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The connection broke.
    #[error("node {node} gave no whole answer, and may have carried out the request")]
    Lost {
        /// Who was asked.
        node: NodeId,
        /// What the network said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The time was up.
    #[error("node {node} gave no answer within {after:?}, and may have carried out the request")]
    TimedOut {
        /// Who was asked.
        node: NodeId,
        /// How long the request had.
        after: Duration,
    },
    /// The answer is longer than [`CLIENT_ANSWER_BYTES_MAX`].
    #[error("node {node} answers with more than {limit} bytes; ask for less at a time")]
    AnswerTooLarge {
        /// Who was asked.
        node: NodeId,
        /// How much is read.
        limit: usize,
    },
}

impl RequestError {
    /// Whether the node may have carried out the request. If not, nothing was sent, and asking again
    /// does no harm.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        match self {
            Self::UnknownNode { .. }
            | Self::Address { .. }
            | Self::Target { .. }
            | Self::Unreachable { .. } => false,
            Self::Lost { .. } | Self::TimedOut { .. } | Self::AnswerTooLarge { .. } => true,
        }
    }
}

impl HttpClient {
    pub(crate) fn new(topology: watch::Receiver<Arc<Topology>>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CLIENT_CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let connections = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(CLIENT_IDLE_TIMEOUT)
            .pool_max_idle_per_host(CLIENT_REQUESTS_PER_NODE_MAX)
            .build(connector);
        Self { connections, topology, places: Arc::default(), timeout: CLIENT_REQUEST_TIMEOUT }
    }

    /// The same, with another time for each request, waiting for its turn included;
    /// [`CLIENT_REQUEST_TIMEOUT`] unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Asks `node` for what lies at `path`.
    ///
    /// # Errors
    ///
    /// See [`RequestError`]. Answers of every status are answers, not errors.
    pub async fn get(&self, node: &NodeId, path: &str) -> Result<Response<Bytes>, RequestError> {
        self.send(node, request(Method::GET, path, Bytes::new())?).await
    }

    /// Sends `node` a JSON document.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). Where [`RequestError::was_sent`] says so, it may have been taken.
    pub async fn post_json(
        &self,
        node: &NodeId,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Response<Bytes>, RequestError> {
        let mut request = request(Method::POST, path, body.into())?;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.send(node, request).await
    }

    /// Sends `node` any request; its URI is a path, perhaps with a query.
    ///
    /// # Errors
    ///
    /// As [`post_json`](Self::post_json).
    pub async fn send(
        &self,
        node: &NodeId,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, RequestError> {
        let addr = self.addr(node)?;
        let places = self.places(node);
        let sending = async {
            let _place = places.acquire().await.expect("places are never closed");
            self.exchange(node, &addr, request).await
        };
        let timed_out = |_| RequestError::TimedOut { node: node.clone(), after: self.timeout };
        tokio::time::timeout(self.timeout, sending).await.map_err(timed_out)?
    }

    async fn exchange(
        &self,
        node: &NodeId,
        addr: &str,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, RequestError> {
        let (mut head, body) = request.into_parts();
        head.uri = absolute(node, addr, &head.uri)?;
        let request = Request::from_parts(head, Full::new(body));
        let answer = self.connections.request(request).await;
        let answer = answer.map_err(|error| {
            let node = node.clone();
            match error.is_connect() {
                true => RequestError::Unreachable { node, addr: addr.to_owned(), source: error.into() },
                false => RequestError::Lost { node, source: error.into() },
            }
        })?;
        let (head, body) = answer.into_parts();
        match Limited::new(body, CLIENT_ANSWER_BYTES_MAX).collect().await {
            Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                Err(RequestError::AnswerTooLarge { node: node.clone(), limit: CLIENT_ANSWER_BYTES_MAX })
            }
            Err(source) => Err(RequestError::Lost { node: node.clone(), source }),
        }
    }

    fn addr(&self, node: &NodeId) -> Result<String, RequestError> {
        let unknown = || RequestError::UnknownNode { node: node.clone() };
        self.topology.borrow().node(node).map(|node| node.public_addr.clone()).ok_or_else(unknown)
    }

    /// The places of `node`. Those of nodes that are gone are forgotten when a new one comes.
    fn places(&self, node: &NodeId) -> Arc<Semaphore> {
        let mut all = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = all.get(node) {
            return places.clone();
        }
        let topology = self.topology.borrow().clone();
        all.retain(|known, _| topology.node(known).is_some());
        all.entry(node.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(CLIENT_REQUESTS_PER_NODE_MAX)))
            .clone()
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

fn request(method: Method, path: &str, body: Bytes) -> Result<Request<Bytes>, RequestError> {
    let target = |source| RequestError::Target { target: path.to_owned(), source: Some(source) };
    Request::builder().method(method).uri(path).body(body).map_err(target)
}

/// `path` on the node at `addr`.
fn absolute(node: &NodeId, addr: &str, path: &Uri) -> Result<Uri, RequestError> {
    let wrong = |source| RequestError::Target { target: path.to_string(), source };
    if path.authority().is_some() || path.path() == "*" {
        return Err(wrong(None));
    }
    let invalid = |source| RequestError::Address { node: node.clone(), addr: addr.to_owned(), source };
    let mut parts = path.clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(addr.parse::<Authority>().map_err(invalid)?);
    Uri::from_parts(parts).map_err(|source| wrong(Some(source.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(addr: &str, target: &str) -> String {
        let node = NodeId::new("node-1").expect("a name");
        let uri = target.parse::<Uri>().expect("a URI");
        absolute(&node, addr, &uri).expect_err("refused").to_string()
    }

    #[test]
    fn a_malformed_address_of_a_node_is_not_told_as_a_wrong_path() {
        assert!(refusal("no such:address", "/x").starts_with("node node-1 has the public address"));
    }

    #[test]
    fn a_target_with_an_authority_is_no_path() {
        assert!(refusal("127.0.0.1:80", "http://elsewhere/x").contains("is no path of a request"));
    }

    #[test]
    fn what_was_not_sent_says_so_and_why() {
        let wrong = request(Method::GET, "a b", Bytes::new()).expect_err("no URI");
        assert!(!wrong.was_sent() && wrong.source().is_some());
    }
}
