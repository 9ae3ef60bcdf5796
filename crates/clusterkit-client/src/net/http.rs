//! Requests over connections that are kept.

use std::error::Error as StdError;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::error::Error;
use crate::limits::{ANSWER_BYTES_MAX, CONNECT_TIMEOUT, IDLE_TIMEOUT};

type BoxError = Box<dyn StdError + Send + Sync>;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum SendError {
    /// The connection broke: the node may have done it.
    Lost(BoxError),
    /// Nothing was sent.
    Unreachable(BoxError),
}

#[derive(Debug, Clone)]
pub(super) struct Http {
    connections: Client<HttpConnector, Full<Bytes>>,
}

impl Http {
    pub(super) fn new(connections_per_node_max: usize) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let connections = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(connections_per_node_max)
            .build(connector);
        Self { connections }
    }

    /// Sends `request`, whose URI is a path, to `addr`.
    pub(super) async fn send(
        &self,
        addr: &str,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, SendError> {
        let (mut head, body) = request.into_parts();
        head.uri = absolute(addr, &head.uri).map_err(|error| SendError::Unreachable(error.into()))?;
        let request = Request::from_parts(head, Full::new(body));
        let answer = self.connections.request(request).await.map_err(|error| match error.is_connect() {
            true => SendError::Unreachable(error.into()),
            false => SendError::Lost(error.into()),
        })?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(SendError::Lost)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

fn absolute(addr: &str, path: &Uri) -> Result<Uri, hyper::http::Error> {
    let path = path.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::builder().scheme(Scheme::HTTP).authority(addr).path_and_query(path).build()
}

/// The addresses of seeds, without what may stand around them.
pub(super) fn addresses(seeds: &[String]) -> Result<Vec<String>, Error> {
    if seeds.is_empty() {
        return Err(Error::invalid("at least one seed is needed"));
    }
    seeds.iter().map(|seed| address(seed)).collect()
}

fn address(seed: &str) -> Result<String, Error> {
    let bare = seed.trim().strip_prefix("http://").unwrap_or(seed.trim()).trim_end_matches('/');
    match bare.parse::<Authority>() {
        Ok(authority) if authority.port().is_some() && !bare.contains('@') => Ok(bare.to_owned()),
        _ => Err(Error::invalid("a seed is the public address of a node, as in 10.0.0.1:8080")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_addresses_with_a_port() {
        let check = |seed: &str, expect: Option<&str>| {
            assert_eq!(address(seed).ok().as_deref(), expect, "{seed}");
        };
        check("10.0.0.1:8080", Some("10.0.0.1:8080"));
        check("http://node-1:8080/", Some("node-1:8080"));
        check("[::1]:8080", Some("[::1]:8080"));
        check("https://node-1:8080", None);
        check("node-1", None);
        check("user@node-1:8080", None);
        check("", None);
    }
}
