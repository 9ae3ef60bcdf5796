//! What other nodes may ask of this one: a flat dispatch over message kinds.

use std::sync::Arc;

use bytes::Bytes;
use clusterkit_core::forming::Greeting;
use clusterkit_core::topology::Stage;

use super::cluster::ClusterInput;
use super::controller::ControllerInput;
use super::message::{self, Heartbeat, HeartbeatAnswer, Standing, kind};
use super::shared::Shared;
use crate::coordinator::raft::View;
use crate::net::BoxFuture;
use crate::transport::{Peer, Service, ServiceError};

/// An error answer: the receiver is not ready for this kind of message. The sender tries again.
const NOT_READY: u8 = 1;
/// An error answer: the body is not what its kind says.
const MALFORMED: u8 = 2;

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
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { serve(&shared, &peer, message_kind, &body).await })
    }
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
        kind::HEARTBEAT => heartbeat(shared, decode(body)?),
        kind::CAUGHT_UP => to_controller(shared, ControllerInput::CaughtUp(decode_some(body)?)),
        kind::HANDOFF => to_controller(shared, ControllerInput::Handoffs(decode_some(body)?)),
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

fn heartbeat(shared: &Shared, beat: Heartbeat) -> Result<Bytes, ServiceError> {
    // Only what is known to be the newest may send a node home.
    let in_charge = shared.is_in_charge();
    let standing = shared.raft.get().map_or(Standing::Known, |raft| standing(&raft.view(), &beat));
    to_controller(shared, ControllerInput::Heartbeat { node: beat.node, incarnation: beat.incarnation })?;
    Ok(message::encode(&HeartbeatAnswer { in_charge, standing }))
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
    if matches!(raft, kind::RAFT_APPEND | kind::RAFT_SNAPSHOT) {
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
