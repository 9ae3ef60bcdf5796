//! An HTTP client for requests between programs, and a patient one for those who use them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use crate::limits::{
    CLIENT_PATIENCE, IDLE_CONNECTIONS_MAX, REDIRECTS_MAX, REQUEST_TIMEOUT, RETRY_AFTER_MAX, RETRY_PAUSE,
};

/// Marks a request that a node passed on, so that none is passed on twice.
pub const FORWARDED: &str = "x-forwarded-by";

/// A client that keeps connections. Clones share them.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Default for Http {
    fn default() -> Self {
        Self::new()
    }
}

impl Http {
    /// A client without connections yet.
    #[must_use]
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_max_idle_per_host(IDLE_CONNECTIONS_MAX);
        Self { client: builder.build(connector) }
    }

    /// Asks `addr` for `path`.
    ///
    /// # Errors
    ///
    /// See [`HttpError`].
    pub async fn get(&self, addr: &str, path: &str) -> Result<Reply, HttpError> {
        self.send(&Ask::get(addr, path), REQUEST_TIMEOUT).await
    }

    /// Sends `body` to `path` of `addr`.
    ///
    /// # Errors
    ///
    /// See [`HttpError`].
    pub async fn post(&self, addr: &str, path: &str, body: &impl Serialize) -> Result<Reply, HttpError> {
        self.send(&Ask::post(addr, path, body)?, REQUEST_TIMEOUT).await
    }

    /// Sends a request, and reads the whole answer within `patience`.
    ///
    /// # Errors
    ///
    /// See [`HttpError`].
    pub async fn send(&self, ask: &Ask, patience: Duration) -> Result<Reply, HttpError> {
        let asked = async {
            let response = self.client.request(ask.request()?).await.map_err(HttpError::Unreachable)?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(HttpError::CutShort)?.to_bytes();
            Ok(Reply { status: head.status, headers: head.headers, body })
        };
        timeout(patience, asked).await.map_err(|_| HttpError::TimedOut)?
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct Ask {
    method: Method,
    url: String,
    body: Bytes,
    forwarded_by: Option<String>,
}

impl Ask {
    /// A request without a body.
    #[must_use]
    pub fn get(addr: &str, path: &str) -> Self {
        Self::new(Method::GET, addr, path)
    }

    /// A request of any kind, without a body.
    #[must_use]
    pub fn new(method: Method, addr: &str, path: &str) -> Self {
        Self { method, url: format!("http://{addr}{path}"), body: Bytes::new(), forwarded_by: None }
    }

    /// A request with a JSON body.
    ///
    /// # Errors
    ///
    /// [`HttpError::Json`].
    pub fn post(addr: &str, path: &str, body: &impl Serialize) -> Result<Self, HttpError> {
        let body = serde_json::to_vec(body).map_err(HttpError::Json)?.into();
        Ok(Self { body, ..Self::new(Method::POST, addr, path) })
    }

    /// Marks it as passed on by `node`.
    #[must_use]
    pub fn forwarded_by(mut self, node: &str) -> Self {
        self.forwarded_by = Some(node.to_owned());
        self
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, HttpError> {
        let mut request = Request::builder().method(self.method.clone()).uri(&self.url);
        if !self.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(node) = &self.forwarded_by {
            request = request.header(FORWARDED, node);
        }
        request.body(Full::new(self.body.clone())).map_err(HttpError::Request)
    }
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// [`HttpError::Json`].
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        serde_json::from_slice(&self.body).map_err(HttpError::Json)
    }

    /// The body as JSON, where the status says that all is well.
    ///
    /// # Errors
    ///
    /// [`HttpError::Status`] or [`HttpError::Json`].
    pub fn success<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        if self.status.is_success() { self.json() } else { Err(HttpError::Status { status: self.status }) }
    }

    fn header(&self, name: &hyper::header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn retry_after(&self) -> Duration {
        let seconds = self.header(&RETRY_AFTER).and_then(|text| text.parse().ok());
        seconds.map_or(RETRY_PAUSE, Duration::from_secs).min(RETRY_AFTER_MAX)
    }
}

/// A request was not answered, or not as it should be. Unless it was never sent, its outcome is
/// unknown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The answer broke off.
    #[error("the answer broke off")]
    CutShort(#[source] hyper::Error),
    /// A body is not the JSON that it should be.
    #[error("the body is not what it should be")]
    Json(#[source] serde_json::Error),
    /// It is no request that could be sent.
    #[error("the request cannot be sent")]
    Request(#[source] hyper::http::Error),
    /// The answer is an error.
    #[error("the answer is {status}")]
    Status {
        /// Its status.
        status: StatusCode,
    },
    /// There was no answer in time.
    #[error("there was no answer in time")]
    TimedOut,
    /// Nobody answers there.
    #[error("nobody answers")]
    Unreachable(#[source] hyper_util::client::legacy::Error),
}

/// A client as any user of the examples would write it. It knows some nodes, asks one, follows its
/// redirects, waits when it is told to, and asks the next one when nobody answers.
///
/// It repeats requests whose outcome it does not know, so what it sends must bear to be done twice.
#[derive(Debug)]
pub struct PatientClient {
    http: Http,
    addrs: Vec<String>,
    /// Which of them is asked, counted on around.
    at: AtomicUsize,
}

impl PatientClient {
    /// A client that knows these nodes.
    #[must_use]
    pub fn new(http: Http, addrs: Vec<String>) -> Self {
        assert!(!addrs.is_empty(), "a client knows some node");
        Self { http, addrs, at: AtomicUsize::new(0) }
    }

    /// Asks until there is an answer that is neither a redirect nor "try again".
    ///
    /// # Errors
    ///
    /// What kept it from that at last, after [`CLIENT_PATIENCE`].
    pub async fn ask(&self, method: Method, path: &str) -> Result<Reply, HttpError> {
        let deadline = Instant::now() + CLIENT_PATIENCE;
        loop {
            let at = self.at.load(Ordering::Relaxed) % self.addrs.len();
            let ask = Ask::new(method.clone(), &self.addrs[at], path);
            let (pause, error) = match self.follow(ask).await {
                Ok(reply) if reply.status != StatusCode::SERVICE_UNAVAILABLE => return Ok(reply),
                Ok(reply) => (reply.retry_after(), HttpError::Status { status: reply.status }),
                Err(error) => (RETRY_PAUSE, error),
            };
            if Instant::now() + pause > deadline {
                return Err(error);
            }
            self.at.fetch_add(1, Ordering::Relaxed);
            sleep(pause).await;
        }
    }

    async fn follow(&self, mut ask: Ask) -> Result<Reply, HttpError> {
        let mut reply = self.http.send(&ask, REQUEST_TIMEOUT).await?;
        for _ in 0..REDIRECTS_MAX {
            if reply.status != StatusCode::TEMPORARY_REDIRECT {
                return Ok(reply);
            }
            let location = reply.header(&LOCATION);
            ask.url = location.ok_or(HttpError::Status { status: reply.status })?.to_owned();
            reply = self.http.send(&ask, REQUEST_TIMEOUT).await?;
        }
        Err(HttpError::Status { status: reply.status })
    }
}

/// `text` as a part of a path or a query.
#[must_use]
pub fn escape(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let escaped =
        |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_in_a_url_is_escaped() {
        let check = |text, expect: &str| assert_eq!(escape(text), expect);
        check("user-1_a.b~c", "user-1_a.b~c");
        check("a b&c=d/ü", "a%20b%26c%3Dd%2F%C3%BC");
    }
}
