//! What other nodes may ask of this one: a flat dispatch over message kinds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::forming::Greeting;
use clusterkit_core::topology::Stage;
use tokio::sync::oneshot;

use super::cluster::ClusterInput;
use super::controller::{ControllerInput, Support};
use super::message::code::{MALFORMED, NO_HANDLER, NOT_READY};
use super::message::{self, Adopted, Heartbeat, HeartbeatAnswer, Standing, kind};
use super::shared::{Phase, Shared};
use crate::coordinator::raft::View;
use crate::messages;
use crate::net::BoxFuture;
use crate::transport::{Peer, Service, ServiceError};

/// How long a node that asks whether a record is adopted is kept waiting.
const ADOPTION_PATIENCE: Duration = Duration::from_secs(1);

/// Serves the messages of other nodes.
#[derive(Debug)]
pub(super) struct NodeService {
    pub(super) shared: Arc<Shared>,
}

impl Service for NodeService {
    fn call(
        &self,
        peer: Peer,
        message_kind: u8,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, ServiceError>> {
        match message_kind {
            kind::NOTICE => self.notice(&peer, body),
            kind::REQUEST => self.request(&peer, body),
            own => self.own(peer, own, body),
        }
    }
}

impl NodeService {
    /// Hands a notice to the program at once: that keeps their order.
    fn notice(&self, peer: &Peer, body: Bytes) -> BoxFuture<'static, Result<Bytes, ServiceError>> {
        let handler = recipient(&self.shared, peer);
        let taken = handler.map(|handler| handler.handle_notice(peer.identity.node.clone(), body));
        Box::pin(std::future::ready(taken.map(|()| Bytes::new())))
    }

    fn request(&self, peer: &Peer, body: Bytes) -> BoxFuture<'static, Result<Bytes, ServiceError>> {
        let (handler, from) = (recipient(&self.shared, peer).cloned(), peer.identity.node.clone());
        Box::pin(async move { Ok(handler?.handle_request(from, body).await) })
    }

    /// What nodes say to each other on their own account.
    fn own(&self, peer: Peer, kind: u8, body: Bytes) -> BoxFuture<'static, Result<Bytes, ServiceError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { serve(&shared, &peer, kind, &body).await })
    }
}

/// Who takes a message of the program of `peer`, when both nodes take part in one cluster and the sender's
/// record is that of the data directory that said hello.
fn recipient<'a>(shared: &'a Shared, peer: &Peer) -> Result<&'a messages::Installed, ServiceError> {
    let sender = &peer.identity;
    let ours = peer.cluster.is_some() && peer.cluster == shared.identity.borrow().cluster;
    let takes_part = matches!(*shared.phase.borrow(), Phase::Ready);
    let is_member =
        || shared.topology.borrow().node(&sender.node).is_some_and(|known| known.store == sender.store);
    if !ours || !takes_part || !is_member() {
        return Err(not_ready());
    }
    shared.settings.messages.as_ref().ok_or_else(no_handler)
}

async fn serve(
    shared: &Arc<Shared>,
    peer: &Peer,
    message_kind: u8,
    body: &[u8],
) -> Result<Bytes, ServiceError> {
    shared.note_peer(&peer.identity, peer.cluster);
    let ours = peer.cluster.is_some() && peer.cluster == shared.identity.borrow().cluster;
    if !ours && !matches!(message_kind, kind::GREETING | kind::JOIN) {
        return Err(not_ready());
    }
    match message_kind {
        kind::GREETING => greet(shared, decode(body)?),
        kind::JOIN => Ok(message::encode(&shared.join(decode(body)?).await)),
        kind::HEARTBEAT => heartbeat(shared, decode(body)?).await,
        kind::REPORTS => to_controller(shared, ControllerInput::Reports(decode_some(body)?)),
        kind::ADOPTED => adopted(shared, decode(body)?).await,
        kind::POSITIONS => {
            Ok(message::encode(&shared.positions(&decode_some(body)?.into_iter().collect()).await))
        }
        kind::STOPPING => stopping(shared, decode(body)?),
        kind::PROPOSE => Ok(message::encode(&shared.propose(decode(body)?).await)),
        raft => serve_raft(shared, peer, raft, body).await,
    }
}

/// Answers with the newest own greeting and lets the task that looks for the cluster learn of the
/// other's.
fn greet(shared: &Shared, greeting: Greeting) -> Result<Bytes, ServiceError> {
    let addr = greeting.candidate.node_addr.clone();
    // A full inbox means that the other will be heard at its next beat.
    drop(shared.cluster_inbox.try_send(ClusterInput::Greeted { addr, greeting }));
    match shared.greeting.borrow().as_ref() {
        Some(own) => Ok(message::encode(own)),
        None => Err(not_ready()),
    }
}

async fn heartbeat(shared: &Shared, beat: Heartbeat) -> Result<Bytes, ServiceError> {
    // Only what is known to be the newest may send a node home.
    let in_charge = shared.is_in_charge();
    let standing = shared.raft.get().map_or(Standing::Known, |raft| standing(&raft.view(), &beat));
    let (reply, answer) = oneshot::channel();
    to_controller(
        shared,
        ControllerInput::Heartbeat { node: beat.node, incarnation: beat.incarnation, reply },
    )?;
    let patience = shared.settings.controller.detector.dead_after;
    let answer = tokio::time::timeout(patience, answer).await;
    // No controller, or one that is busy: then nothing is promised.
    let Support { given: support, version } = answer.ok().and_then(Result::ok).unwrap_or_default();
    Ok(message::encode(&HeartbeatAnswer { in_charge, standing, support, version }))
}

/// Whoever asks is about to copy, and asks again when this takes too long.
async fn adopted(shared: &Shared, asked: Adopted) -> Result<Bytes, ServiceError> {
    let adopted = shared.adopted(asked.partition, asked.version);
    match tokio::time::timeout(ADOPTION_PATIENCE, adopted).await {
        Ok(()) => Ok(message::encode(&true)),
        Err(_) => Err(not_ready()),
    }
}

/// What `view` says of the run that sent `beat`.
///
/// A node that gave everything away has left only once the group can do without its vote: if it ended
/// earlier, the others could be short of a majority with the change of voters half done. From then on
/// this stays so until the node registers anew, so that it may believe even its own old view.
pub(super) fn standing(view: &View, beat: &Heartbeat) -> Standing {
    match view.state.topology.node(&beat.node) {
        None => Standing::Removed,
        Some(known) if known.incarnation > beat.incarnation => Standing::Replaced,
        Some(known) if known.incarnation < beat.incarnation => Standing::Known,
        Some(known) if known.stage == Stage::Left && !view.voters.contains(&known.store) => Standing::Left,
        Some(_) => Standing::Known,
    }
}

fn stopping(shared: &Shared, beat: Heartbeat) -> Result<Bytes, ServiceError> {
    to_controller(shared, ControllerInput::Stopping { node: beat.node, incarnation: beat.incarnation })
}

/// Facts are repeated by whoever sends them, so one that finds no room is not missed.
fn to_controller(shared: &Shared, input: ControllerInput) -> Result<Bytes, ServiceError> {
    shared.controller_inbox.try_send(input).map_err(|_| not_ready())?;
    Ok(Bytes::new())
}

async fn serve_raft(shared: &Shared, peer: &Peer, raft: u8, body: &[u8]) -> Result<Bytes, ServiceError> {
    let Some(group) = shared.raft.get() else { return Err(not_ready()) };
    if peer.cluster.is_none() || peer.cluster != shared.identity.borrow().cluster {
        return Err(not_ready());
    }
    if matches!(raft, kind::RAFT_APPEND | kind::RAFT_SNAPSHOT | kind::RAFT_TRANSFER) {
        shared.note_leader_contact(peer.identity.store);
    }
    group.handle(raft, body).await.map_err(|error| {
        tracing::debug!(target: "clusterkit::raft", %error, peer = %peer.identity.node, "a raft message was not served");
        ServiceError { code: NOT_READY, body: Bytes::new() }
    })
}

fn decode<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ServiceError> {
    message::decode(body).map_err(|error| {
        tracing::warn!(target: "clusterkit::transport", %error, "a message from another node cannot be read");
        ServiceError { code: MALFORMED, body: Bytes::new() }
    })
}

/// As many as a well-behaved node sends at once; the others it sends again.
fn decode_some<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<Vec<T>, ServiceError> {
    let mut reports: Vec<T> = decode(body)?;
    reports.truncate(super::agent::REPORTS_MAX);
    Ok(reports)
}

fn not_ready() -> ServiceError {
    ServiceError { code: NOT_READY, body: Bytes::new() }
}

fn no_handler() -> ServiceError {
    ServiceError { code: NO_HANDLER, body: Bytes::new() }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use clusterkit_core::control::Command;
    use clusterkit_core::id::{ClusterId, Incarnation, NodeId, StoreId};
    use clusterkit_wire::hello::{Class, Identity};

    use super::super::cluster::join_request;
    use super::*;
    use crate::testing::Cluster;

    async fn one() -> (Cluster, Arc<Shared>) {
        let cluster = Cluster::start(1).await;
        let shared = Arc::clone(cluster.node(1).shared());
        (cluster, shared)
    }

    /// A node that says it is of `cluster`.
    fn peer(shared: &Shared, cluster: Option<ClusterId>) -> Peer {
        let identity = Arc::new(shared.identity.borrow().clone());
        Peer { identity, cluster, class: Class::Control }
    }

    async fn ask(
        shared: &Arc<Shared>,
        cluster: Option<ClusterId>,
        kind: u8,
        body: Bytes,
    ) -> Result<Bytes, u8> {
        let service = NodeService { shared: Arc::clone(shared) };
        service.call(peer(shared, cluster), kind, body).await.map_err(|error| error.code)
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_may_greet_and_ask_to_join_and_nothing_else() {
        let (_cluster, shared) = one().await;
        let own = shared.identity.borrow().cluster;
        for cluster in [None, Some(ClusterId(1))] {
            for kind in (0..=u8::MAX).filter(|kind| !matches!(*kind, kind::GREETING | kind::JOIN)) {
                assert_eq!(ask(&shared, cluster, kind, Bytes::new()).await, Err(NOT_READY), "kind {kind}");
            }
            let greeting = message::encode(&shared.greeting.borrow().clone().unwrap());
            assert!(ask(&shared, cluster, kind::GREETING, greeting).await.is_ok());
            let join = message::encode(&join_request(&shared));
            assert!(ask(&shared, cluster, kind::JOIN, join).await.is_ok());
        }
        let beat = Heartbeat { node: shared.node.clone(), incarnation: shared.incarnation() };
        assert!(ask(&shared, own, kind::HEARTBEAT, message::encode(&beat)).await.is_ok());
        assert_eq!(ask(&shared, own, kind::HEARTBEAT, Bytes::new()).await, Err(MALFORMED));
    }

    #[tokio::test(start_paused = true)]
    async fn programs_hear_only_nodes_of_the_topology_under_the_store_that_it_has() {
        let (_cluster, shared) = one().await;
        let service = NodeService { shared: Arc::clone(&shared) };
        let own = shared.identity.borrow().clone();
        let check = async |identity: Identity, expect: u8| {
            let peer = Peer { cluster: own.cluster, identity: Arc::new(identity), class: Class::Data };
            for kind in [kind::NOTICE, kind::REQUEST] {
                let answer = service.call(peer.clone(), kind, Bytes::new()).await;
                assert_eq!(answer.map_err(|error| error.code), Err(expect), "kind {kind}");
            }
        };
        check(own.clone(), NO_HANDLER).await;
        check(Identity { store: StoreId(own.store.0 + 1), ..own.clone() }, NOT_READY).await;
        check(Identity { node: NodeId::new("node-9").unwrap(), ..own.clone() }, NOT_READY).await;
        shared.phase.send_replace(Phase::Registering);
        check(own.clone(), NOT_READY).await;
    }

    /// A controller that has not applied everything yet may miss nodes that registered long ago.
    #[tokio::test(start_paused = true)]
    async fn a_controller_sends_nobody_home_before_it_governs() {
        let (_cluster, shared) = one().await;
        let beat = Heartbeat { node: NodeId::new("node-2").unwrap(), incarnation: Incarnation(1) };
        let cluster = shared.identity.borrow().cluster;
        let answer = async || -> HeartbeatAnswer {
            let body = ask(&shared, cluster, kind::HEARTBEAT, message::encode(&beat)).await.unwrap();
            message::decode(&body).unwrap()
        };
        let in_charge = |in_charge| {
            let (standing, version) = (Standing::Removed, shared.topology().version);
            HeartbeatAnswer { in_charge, standing, support: None, version }
        };
        let term = shared.governing.swap(0, Ordering::Relaxed);
        assert_eq!(answer().await, in_charge(false));
        shared.governing.store(term - 1, Ordering::Relaxed);
        assert!(!answer().await.in_charge, "that was an earlier term");
        shared.governing.store(term, Ordering::Relaxed);
        assert_eq!(answer().await, in_charge(true));
    }

    /// The other side of the same rule.
    #[tokio::test(start_paused = true)]
    async fn a_node_is_sent_home_only_by_one_that_governs() {
        let cluster = Cluster::start(3).await;
        cluster.until(1, "healthy", |topology| topology.health(true).is_healthy()).await;
        let nodes: Vec<_> = (1..=3).map(|number| cluster.node(number)).collect();
        let (controller, others): (Vec<_>, Vec<_>) =
            nodes.into_iter().partition(|node| node.shared().is_in_charge());
        let (controller, removed) = (controller[0].shared(), others[0]);
        let term = controller.governing.swap(0, Ordering::Relaxed);
        let command = Command::RemoveNode { node: removed.node_id().clone(), force: true };
        controller.raft.get().unwrap().propose(&[command]).await.unwrap();
        let beats = 3 * controller.settings.controller.detector.heartbeat;
        tokio::time::sleep(beats).await; // tidy: the clock is paused
        assert!(removed.is_ready());
        controller.governing.store(term, Ordering::Relaxed);
        let ended = tokio::time::timeout(beats, removed.stopped()).await.unwrap();
        assert!(ended.unwrap_err().to_string().contains("removed from the cluster"));
    }
}
