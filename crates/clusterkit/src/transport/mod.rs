//! Messages between nodes: own frames over [`Net`].
//!
//! A node dials another when it first has something to say to it, once for each [`Class`]; on that
//! connection its requests go out and their answers come back, many at a time, told apart by their
//! call id. What the other node asks comes in on connections that the other dialled. So a connection
//! has one direction, a reader that never waits for the writer, and no order between the two nodes
//! that could deadlock.
//!
//! What each part promises:
//!
//! | part | promise |
//! | --- | --- |
//! | [`Transport::call`] | the error says whether the request was sent |
//! | [`Service`] | requests of one connection are handed over in order; a panic is an answer |
//! | [`ConnectionLoss`] | a hint that a node may be dead, within the time the network takes to say so |
//! | memory | every queue is bounded in number and in bytes; a node that is slow makes only those wait who talk to it |
//!
//! Nothing here is authenticated; a transport below brings TLS.

mod call;
mod error;
mod handshake;
mod inbound;
mod limits;
mod link;
mod probe;
mod public;
mod stream;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::id::{ClusterId, NodeId, StoreId};
pub use clusterkit_wire::hello::{Class, Identity};
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::call::{Attempt, Parcel};
pub use self::error::{CallError, ListenError, NotSent, ServiceError};
use self::inbound::Handshakes;
pub use self::limits::Limits;
use self::limits::{CALL_TIMEOUT_MAX, LINK_ATTEMPTS_MAX, LOSSES_MAX};
use self::link::Links;
pub use self::probe::ProbeOutcome;
pub use self::public::ask_public;
use crate::net::{BoxFuture, Net};

/// What a transport needs to start.
pub struct Options {
    /// Where connections come from.
    pub net: Arc<dyn Net>,
    /// Where to listen, as `host:port`; port 0 chooses a free one.
    pub listen_addr: String,
    /// Who this node says it is, at each hello anew. Its texts must pass [`Identity::check`].
    pub identity: watch::Receiver<Identity>,
    /// Who carries out the requests of other nodes.
    pub service: Arc<dyn Service>,
    /// Every task of the transport runs under it.
    pub tracker: TaskTracker,
    /// Ends the transport: it stops listening, its connections close, and calls fail.
    pub stop: CancellationToken,
    /// How much it gives to others at once.
    pub limits: Limits,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("listen_addr", &self.listen_addr).finish_non_exhaustive()
    }
}

/// This node's way to all others. Cloning it is cheap, and all clones are the same transport; it
/// runs until its stop token is cancelled.
#[derive(Clone)]
pub struct Transport {
    shared: Arc<Shared>,
}

impl Transport {
    /// Listens, and from then on carries out what other nodes ask.
    pub async fn start(options: Options) -> Result<Self, ListenError> {
        let Options { net, listen_addr, identity, service, tracker, stop, limits } = options;
        let listener = match net.listen(&listen_addr).await {
            Ok(listener) => listener,
            Err(source) => return Err(ListenError::Bind { addr: listen_addr, source }),
        };
        let shared = Arc::new(Shared {
            net,
            identity,
            service,
            tracker,
            stop,
            limits,
            local_addr: listener.local_addr(),
            links: Links::default(),
            losses: broadcast::Sender::new(LOSSES_MAX),
            seats: Arc::new(Semaphore::new(limits.connections_max)),
            handshakes: Handshakes::new(limits),
            heard: Mutex::default(),
        });
        shared.tracker.spawn(inbound::accept(shared.clone(), listener));
        Ok(Self { shared })
    }

    /// Where this node listens, with the port that was chosen.
    #[must_use]
    pub fn local_addr(&self) -> &str {
        &self.shared.local_addr
    }

    /// Asks the node at `to` and waits for its answer, at most for `timeout` with everything that
    /// goes before.
    ///
    /// Dials if there is no connection. While dialling just failed, calls fail at once with the same
    /// error until the next dial is due, at most a second later. Dropping the future leaves open
    /// whether the request is carried out.
    ///
    /// # Panics
    ///
    /// When `kind` is one of the transport's own (`0xf0` and above).
    pub async fn call(
        &self,
        to: &Target,
        class: Class,
        kind: u8,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let deadline = Instant::now() + timeout.min(CALL_TIMEOUT_MAX);
        let parcel = Parcel::new(to, class, kind, body)?;
        for _ in 0..LINK_ATTEMPTS_MAX {
            match self.link(to, class)?.call(parcel.clone(), deadline).await {
                Attempt::Done(result) => return result,
                Attempt::LinkEnded => {}
            }
        }
        Err(self.link_ended())
    }

    /// Tells the node at `to` something, without waiting and without an answer. `Ok` says that it is
    /// queued; it is lost when the connection does not come about or ends.
    ///
    /// # Panics
    ///
    /// When `kind` is one of the transport's own (`0xf0` and above).
    pub fn notify(&self, to: &Target, class: Class, kind: u8, body: Bytes) -> Result<(), CallError> {
        let parcel = Parcel::new(to, class, kind, body)?;
        for _ in 0..LINK_ATTEMPTS_MAX {
            match self.link(to, class)?.notify(parcel.clone()) {
                Attempt::Done(result) => return result,
                Attempt::LinkEnded => {}
            }
        }
        Err(self.link_ended())
    }

    fn link(&self, to: &Target, class: Class) -> Result<link::LinkHandle, CallError> {
        if self.shared.stop.is_cancelled() {
            return Err(CallError::Closed);
        }
        Links::open(&self.shared, &to.addr, class)
    }

    fn link_ended(&self) -> CallError {
        if self.shared.stop.is_cancelled() {
            return CallError::Closed;
        }
        CallError::NotSent { reason: NotSent::LinkEnded }
    }

    /// Asks who answers at `addr`, on a connection of its own that carries nothing else. Says within
    /// `timeout` what it found.
    pub async fn probe(&self, addr: &str, timeout: Duration) -> ProbeOutcome {
        probe::probe(&self.shared, addr, timeout).await
    }

    /// Whether a connection that the process of `store` dialled stands: as far as this machine was
    /// told, the process lives. It ends before its loss is reported.
    #[must_use]
    pub fn hears(&self, store: StoreId) -> bool {
        self.shared.heard().contains_key(&store)
    }

    /// Every connection that ends from now on without this node's doing. A listener that is too slow
    /// misses the oldest.
    #[must_use]
    pub fn connection_losses(&self) -> broadcast::Receiver<ConnectionLoss> {
        self.shared.losses.subscribe()
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("local_addr", &self.shared.local_addr).finish_non_exhaustive()
    }
}

/// Whom a call is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The node address to dial.
    pub addr: String,
    /// The node that must answer there; `None` where any will do.
    pub node: Option<NodeId>,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Who the node said it is when it dialled. It may have formed or joined a cluster since.
    pub identity: Arc<Identity>,
    /// The cluster it belongs to as of this request.
    pub cluster: Option<ClusterId>,
    /// The class of the connection on which it asks.
    #[allow(dead_code, reason = "tests tell the connections of a node apart by it")]
    pub class: Class,
}

/// Carries out what other nodes ask.
pub trait Service: Send + Sync + 'static {
    /// Begins to carry out a request. Requests of one connection come in the order in which they
    /// were sent, so this returns without waiting; the futures then run side by side. One-way
    /// messages come here too, and what their future gives is dropped.
    ///
    /// A node without a cluster may ask as well: the service decides by `peer` and `kind` what it
    /// does for whom. A panic, here or in the future, becomes
    /// [`PANICKED`](ServiceError::PANICKED). The future runs on when the asking node is gone, and is
    /// dropped when the transport stops.
    fn call(&self, peer: Peer, kind: u8, body: Bytes) -> BoxFuture<'static, Result<Bytes, ServiceError>>;
}

/// An established connection ended without this node's doing and without a goodbye: a hint, and no
/// more, that the node at its other end may be dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLoss {
    /// Who was at the other end.
    pub node: NodeId,
    /// Where to ask whether it lives: the address that was dialled, or the one it advertised.
    pub addr: String,
}

/// What every task of the transport uses.
struct Shared {
    net: Arc<dyn Net>,
    identity: watch::Receiver<Identity>,
    service: Arc<dyn Service>,
    tracker: TaskTracker,
    stop: CancellationToken,
    limits: Limits,
    local_addr: String,
    links: Links,
    losses: broadcast::Sender<ConnectionLoss>,
    /// One for each established connection that came in.
    seats: Arc<Semaphore>,
    handshakes: Arc<Handshakes>,
    /// How many connections of each store came in and stand; at most as many as there are seats.
    heard: Mutex<BTreeMap<StoreId, usize>>,
}

impl Shared {
    fn heard(&self) -> MutexGuard<'_, BTreeMap<StoreId, usize>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&self) -> Identity {
        self.identity.borrow().clone()
    }

    fn cluster(&self) -> Option<ClusterId> {
        self.identity.borrow().cluster
    }

    fn report_loss(&self, node: &NodeId, addr: &str) {
        if self.stop.is_cancelled() || *node == self.identity.borrow().node {
            return;
        }
        // Nobody may be listening.
        let _ = self.losses.send(ConnectionLoss { node: node.clone(), addr: addr.to_owned() });
    }
}

#[cfg(test)]
mod tests;
