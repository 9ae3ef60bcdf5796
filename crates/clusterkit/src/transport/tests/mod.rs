//! Nodes on a network in memory, in virtual time.

mod calls;
mod faults;
mod refusals;
mod strangers;
mod tcp;

use std::time::Duration;

use clusterkit_core::id::{Incarnation, StoreId};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::net::MemNet;

/// The kinds of request that [`Double`] knows.
mod kinds {
    /// Answers with the same body.
    pub(super) const ECHO: u8 = 0;
    /// Answers with an error: code 7 and the same body.
    pub(super) const FAIL: u8 = 1;
    /// Answers with the same body once the gate is open.
    pub(super) const GATED: u8 = 2;
    /// Panics before there is a future.
    pub(super) const PANIC_AT_ONCE: u8 = 3;
    /// Panics in the future.
    pub(super) const PANIC_LATER: u8 = 4;
    /// Puts the body where the test sees it, in the order of the calls.
    pub(super) const TELL: u8 = 5;
    /// Answers with more than fits a frame.
    pub(super) const TOO_MUCH: u8 = 6;
    /// Answers with the name and the cluster of the one who asks.
    pub(super) const WHO: u8 = 0xef;
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A service that does what the kind of a request says.
#[derive(Debug)]
struct Double {
    gate: watch::Receiver<bool>,
    told: mpsc::Sender<Bytes>,
}

impl Service for Double {
    fn call(&self, peer: Peer, kind: u8, body: Bytes) -> BoxFuture<'static, Result<Bytes, ServiceError>> {
        let mut gate = self.gate.clone();
        match kind {
            kinds::PANIC_AT_ONCE => panic!("at once"),
            kinds::TELL => self.told.try_send(body.clone()).unwrap(),
            _ => {}
        }
        Box::pin(async move {
            match kind {
                kinds::FAIL => return Err(ServiceError { code: 7, body }),
                kinds::GATED => drop(gate.wait_for(|open| *open).await.unwrap()),
                kinds::PANIC_LATER => panic!("later"),
                kinds::TOO_MUCH => return Ok(vec![0; peer.class.frame_bytes_max()].into()),
                kinds::WHO => return Ok(format!("{} {:?}", peer.identity.node, peer.cluster).into()),
                _ => {}
            }
            Ok(body)
        })
    }
}

/// A transport with everything that its test commands. Dropping it stops it.
struct Node {
    transport: Transport,
    identity: watch::Sender<Identity>,
    gate: watch::Sender<bool>,
    told: mpsc::Receiver<Bytes>,
    losses: broadcast::Receiver<ConnectionLoss>,
    stop: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn name(node: &str) -> NodeId {
    NodeId::new(node).unwrap()
}

/// A node of cluster 1 that listens at port 7000.
fn identity(node: &str) -> Identity {
    Identity {
        cluster: Some(ClusterId(1)),
        cluster_name: "demo".into(),
        node: name(node),
        store: StoreId(node.bytes().map(u64::from).sum()),
        incarnation: Incarnation(1),
        node_addr: format!("{node}:7000"),
        public_addr: format!("{node}:8080"),
        software: "test".into(),
    }
}

async fn start(net: Arc<dyn Net>, listen_addr: &str, identity: Identity, limits: Limits) -> Node {
    let (identity, identity_seen) = watch::channel(identity);
    let (gate, gate_seen) = watch::channel(false);
    let (tell, told) = mpsc::channel(4_096);
    let stop = CancellationToken::new();
    let options = Options {
        net,
        listen_addr: listen_addr.to_owned(),
        identity: identity_seen,
        service: Arc::new(Double { gate: gate_seen, told: tell }),
        tracker: TaskTracker::new(),
        stop: stop.clone(),
        limits,
    };
    let transport = Transport::start(options).await.unwrap();
    let losses = transport.connection_losses();
    Node { transport, identity, gate, told, losses, stop }
}

/// A node on the host of its name.
async fn node(net: &MemNet, node: &str) -> Node {
    node_with(net, identity(node), Limits::default()).await
}

async fn node_with(net: &MemNet, identity: Identity, limits: Limits) -> Node {
    let host = net.host(identity.node.as_str());
    start(Arc::new(host), ":7000", identity, limits).await
}

impl Node {
    async fn call(&self, to: &str, kind: u8, body: &'static str) -> Result<Bytes, CallError> {
        let body = Bytes::from_static(body.as_bytes());
        self.transport.call(&target(to), Class::Control, kind, body, SECOND).await
    }

    async fn echo(&self, to: &str) -> Result<Bytes, CallError> {
        self.call(to, kinds::ECHO, "hello").await
    }

    async fn probe(&self, addr: &str) -> ProbeOutcome {
        self.transport.probe(addr, SECOND).await
    }

    /// The next loss, which must come.
    async fn loss(&mut self) -> ConnectionLoss {
        timeout(MINUTE, self.losses.recv()).await.expect("a loss").unwrap()
    }
}

fn target(node: &str) -> Target {
    Target { addr: format!("{node}:7000"), node: Some(name(node)) }
}

fn lost(node: &str) -> ConnectionLoss {
    ConnectionLoss { node: name(node), addr: format!("{node}:7000") }
}

#[track_caller]
fn assert_echo(result: Result<Bytes, CallError>) {
    assert_eq!(result.unwrap(), "hello");
}

/// Asserts that a value matches a pattern and shows it when it does not.
macro_rules! assert_matches {
    ($value:expr, $pattern:pat $(if $guard:expr)?) => {{
        let value = &$value;
        assert!(matches!(value, $pattern $(if $guard)?), "{value:?}");
    }};
}
use assert_matches;
