//! Nodes that answer as a test wants, on real sockets.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What a node does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// A status, headers and a body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// Ends the connection without an answer.
    Cut,
    /// Never answers.
    Hang,
}

impl Act {
    pub(crate) fn json(body: &str) -> Self {
        Self::Answer(200, Vec::new(), body.to_owned())
    }

    pub(crate) fn problem(status: u16, code: &str, more: &str) -> Self {
        let body = format!(r#"{{"code":"{code}","detail":"it is {code}","request_id":"r1"{more}}}"#);
        Self::Answer(status, Vec::new(), body)
    }

    pub(crate) fn put(version: u64) -> Self {
        let body = format!(r#"{{"version":{version},"replaced":false}}"#);
        Self::Answer(200, Vec::new(), body).with("etag", &format!("\"{version}\""))
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Answer(_, headers, _) = &mut self {
            headers.push((name, value.to_owned()));
        }
        self
    }
}

/// A request as a test sees it, without what is random or a matter of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) node: &'static str,
    /// Method and target, then `direct` and the number of the request where they are given.
    pub(crate) line: String,
    pub(crate) body: String,
}

type Script = dyn Fn(&Seen, usize) -> Act + Send + Sync;

/// Some nodes, their topology, and what they were asked.
pub(crate) struct Cluster {
    pub(crate) addrs: BTreeMap<&'static str, String>,
    seen: Arc<Mutex<Vec<Seen>>>,
    topology: watch::Sender<(u64, String)>,
    /// Clients that wait for a newer topology.
    waiting: Arc<AtomicUsize>,
    asked_at_once: Arc<AtomicUsize>,
}

impl Cluster {
    /// Starts nodes `n1`, `n2` and `n3`, which answer by `script`: it gets the request, and how many came before it.
    /// Sessions are opened without it. `n1` leads the one partition, and all hold it.
    pub(crate) async fn start(script: impl Fn(&Seen, usize) -> Act + Send + Sync + 'static) -> Self {
        let (topology, script) = (watch::Sender::new((0, String::new())), Arc::new(script));
        let (seen, waiting) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let asked_at_once = Arc::new(AtomicUsize::new(0));
        let mut addrs = BTreeMap::new();
        for name in ["n1", "n2", "n3"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            addrs.insert(name, listener.local_addr().expect("a listener has an address").to_string());
            let script: Arc<Script> = script.clone();
            let node = Node {
                name,
                script,
                seen: seen.clone(),
                topology: topology.clone(),
                waiting: waiting.clone(),
                asked_at_once: asked_at_once.clone(),
            };
            tokio::spawn(node.serve(listener));
        }
        let cluster = Self { addrs, seen, topology, waiting, asked_at_once };
        cluster.publish(1, "crc16-slots", &[("n1", 1)]);
        cluster
    }

    /// Publishes a version of the topology, with the leader and the epoch of each partition.
    pub(crate) fn publish(&self, version: u64, hash: &str, leaders: &[(&str, u64)]) {
        let node = |(id, addr): (&&str, &String)| {
            format!(r#"{{"id":"{id}","status":"alive","public_addr":"{addr}"}}"#)
        };
        let nodes: Vec<_> = self.addrs.iter().map(node).collect();
        let replicas = r#"[{"node":"n1"},{"node":"n2"},{"node":"n3"}]"#;
        let partition = |(leader, epoch): &(&str, u64)| {
            format!(r#"{{"epoch":{epoch},"leader":"{leader}","replicas":{replicas}}}"#)
        };
        let partitions: Vec<_> = leaders.iter().map(partition).collect();
        let body = format!(
            r#"{{"cluster":{{"id":"c"}},"route_version":{version},"hash_config":{{"algorithm":"{hash}",
            "partition_count":{},"samples":[]}},"nodes":[{}],"partitions":[{}]}}"#,
            leaders.len(),
            nodes.join(","),
            partitions.join(",")
        );
        self.topology.send_replace((version, body));
    }

    /// Publishes something that is no topology.
    pub(crate) fn publish_text(&self, text: &str) {
        self.topology.send_replace((99, text.to_owned()));
    }

    /// Another address of `name` from now on, at which nobody listens.
    pub(crate) async fn move_away(&mut self, name: &'static str) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        self.addrs.insert(name, listener.local_addr().expect("a listener has an address").to_string());
    }

    /// Every request but for the topology so far, as `node line`.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(|seen| format!("{} {}", seen.node, seen.line)).collect()
    }

    /// How often the topology was asked for without waiting.
    pub(crate) fn asked_at_once(&self) -> usize {
        self.asked_at_once.load(Ordering::SeqCst)
    }

    /// How many clients wait for a newer topology.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no test holds it while it fails").clone()
    }
}

struct Node {
    name: &'static str,
    script: Arc<Script>,
    seen: Arc<Mutex<Vec<Seen>>>,
    topology: watch::Sender<(u64, String)>,
    waiting: Arc<AtomicUsize>,
    asked_at_once: Arc<AtomicUsize>,
}

impl Node {
    async fn serve(self, listener: TcpListener) {
        let node = Arc::new(self);
        loop {
            let (stream, _) = listener.accept().await.expect("a listener accepts");
            let node = node.clone();
            let service = service_fn(move |request| node.clone().answer(request));
            tokio::spawn(async move {
                // A connection that is cut ends with an error.
                drop(
                    Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await,
                );
            });
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Act> {
        if request.uri().path() == "/v1/topology" {
            return Ok(self.tell(&request).await);
        }
        let seen = self.see(request).await;
        let (act, opened) = {
            let mut all = self.seen.lock().expect("no test holds it while it fails");
            let opened = all.iter().filter(|seen| is_opening(seen)).count() + 1;
            all.push(seen.clone());
            let before = all.iter().filter(|seen| !is_opening(seen)).count();
            (if is_opening(&seen) { None } else { Some((self.script)(&seen, before - 1)) }, opened)
        };
        match act.unwrap_or_else(|| Act::json(&format!(r#"{{"session":"1.{opened}"}}"#))) {
            Act::Answer(status, headers, body) => {
                let mut answer = Response::builder().status(status);
                for (name, value) in headers {
                    answer = answer.header(name, value);
                }
                Ok(answer.body(body.into()).expect("an answer"))
            }
            Act::Cut => Err(Act::Cut),
            Act::Hang => pending().await,
        }
    }

    /// The topology, once it is newer than the client's if it wants to wait.
    async fn tell(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let known = request.headers()["if-none-match"]
            .to_str()
            .expect("text")
            .trim_matches('"')
            .parse()
            .expect("a version");
        let mut topology = self.topology.subscribe();
        if request.uri().query().is_some() {
            let _waiting = Waiting::new(&self.waiting);
            topology.wait_for(|(version, _)| *version > known).await.expect("the sender lives");
        } else {
            self.asked_at_once.fetch_add(1, Ordering::SeqCst);
        }
        let (version, body) = topology.borrow().clone();
        let status = if version > known { 200 } else { 304 };
        Response::builder()
            .status(status)
            .header("etag", format!("\"{version}\""))
            .body(body.into())
            .expect("an answer")
    }

    async fn see(&self, request: Request<Incoming>) -> Seen {
        let (head, body) = request.into_parts();
        let body =
            String::from_utf8(body.collect().await.expect("a whole body").to_bytes().to_vec()).expect("text");
        let query = head.uri.query().unwrap_or_default();
        let query: Vec<_> =
            query.split('&').filter(|part| !part.starts_with("timeout=") && !part.is_empty()).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        let mut line = format!("{} {}{mark}{}", head.method, head.uri.path(), query.join("&"));
        for name in ["ck-route", "ck-request", "if-match", "if-none-match"] {
            if let Some(value) = head.headers.get(name) {
                line = format!("{line} {}", value.to_str().expect("text"));
            }
        }
        Seen { node: self.name, line, body }
    }
}

fn is_opening(seen: &Seen) -> bool {
    seen.line.contains("/v1/kv/sessions")
}

/// Counts a client until it has its answer or hangs up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl std::fmt::Display for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Act {}
