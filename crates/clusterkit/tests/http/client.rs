//! A small HTTP client: one connection a request, and nothing that hides what came back.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any request of these tests takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

/// A request under construction.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    method: Method,
    path: String,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
}

impl Ask {
    pub(crate) fn new(method: &str, path: &str) -> Self {
        let method = method.parse().expect("a method");
        Self { method, path: path.to_owned(), headers: Vec::new(), body: Bytes::new() }
    }

    pub(crate) fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.parse().expect("a header name"), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, media_type: &str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.header(CONTENT_TYPE.as_str(), media_type)
    }

    pub(crate) fn json(self, body: &str) -> Self {
        self.body("application/json", body.to_owned())
    }

    fn request(self, authority: &str) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(self.method).uri(self.path).header("host", authority);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(self.body)).expect("a request")
    }

    /// The answer's head; the body is read as it comes.
    pub(crate) async fn open(self, addr: SocketAddr) -> Response<Incoming> {
        let stream = TcpStream::connect(addr).await.expect("a connection");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let sent = sender.send_request(self.request(&addr.to_string()));
        timeout(PATIENCE, sent).await.expect("an answer in time").expect("an answer")
    }

    /// The whole answer.
    pub(crate) async fn send(self, addr: SocketAddr) -> Reply {
        read(self.open(addr).await).await
    }

    /// The whole answer, over HTTP/2.
    pub(crate) async fn send_http2(mut self, addr: SocketAddr) -> Reply {
        self.path = format!("http://{addr}{}", self.path);
        let stream = TcpStream::connect(addr).await.expect("a connection");
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.expect("HTTP/2");
        tokio::spawn(connection);
        read(sender.send_request(self.request(&addr.to_string())).await.expect("an answer")).await
    }
}

async fn read(response: Response<Incoming>) -> Reply {
    let (parts, body) = response.into_parts();
    let body = timeout(PATIENCE, body.collect()).await.expect("a body in time").expect("a body").to_bytes();
    let text = String::from_utf8(body.to_vec()).expect("text");
    Reply { status: parts.status, headers: parts.headers, text }
}

pub(crate) async fn get(addr: SocketAddr, path: &str) -> Reply {
    Ask::get(path).send(addr).await
}

/// The JSON of a route that answers 200.
pub(crate) async fn get_json(addr: SocketAddr, path: &str) -> Value {
    let reply = get(addr, path).await;
    assert_eq!(reply.status, StatusCode::OK, "{path}: {}", reply.text);
    assert_eq!(reply.header("content-type"), "application/json", "{path}");
    reply.json()
}

/// A stream of events, read frame by frame.
pub(crate) struct EventStream {
    body: Incoming,
    read: String,
}

impl EventStream {
    pub(crate) async fn open(ask: Ask, addr: SocketAddr) -> Self {
        let response = ask.open(addr).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        Self { body: response.into_body(), read: String::new() }
    }

    /// The next event as `(id, kind, data)`; `None` when the stream ends. Skips what has no data.
    pub(crate) async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            while let Some((event, rest)) = self.read.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.read = rest;
                let field = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .unwrap_or_default()
                        .trim()
                        .to_owned()
                };
                if let Ok(data) = serde_json::from_str(&field("data:")) {
                    return Some((field("id:"), field("event:"), data));
                }
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("an event in time")?;
            let bytes = frame.ok()?.into_data().expect("data");
            self.read.push_str(std::str::from_utf8(&bytes).expect("text"));
        }
    }
}
