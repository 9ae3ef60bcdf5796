//! Raft messages over the node transport.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::id::{NodeId, StoreId};
use clusterkit_wire::hello::Class;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::config::{APPEND_TIMEOUT, append_timeout};
use super::types::{RaftNode, TypeConfig, Vote};
use crate::node::message::{self, kind};
use crate::transport::{CallError, Target, Transport};

/// Where each store was last heard of.
///
/// Filled from the topology and from every hello, so that nodes whose addresses all changed while
/// they were down find each other again as soon as one of them dials another.
#[derive(Debug, Clone, Default)]
pub(crate) struct AddressBook {
    addrs: Arc<RwLock<BTreeMap<StoreId, String>>>,
}

impl AddressBook {
    /// Notes where `store` listens.
    pub(crate) fn note(&self, store: StoreId, addr: &str) {
        if self.addr(store).as_deref() != Some(addr) {
            let mut addrs = self.addrs.write().unwrap_or_else(PoisonError::into_inner);
            addrs.insert(store, addr.to_owned());
        }
    }

    /// Notes where `store` listened once, unless something newer is known.
    pub(crate) fn note_first(&self, store: StoreId, addr: &str) {
        if self.addr(store).is_none() {
            self.note(store, addr);
        }
    }

    /// Everywhere that somebody else than `store` was heard of.
    pub(crate) fn addrs_but(&self, store: StoreId) -> BTreeSet<String> {
        let addrs = self.addrs.read().unwrap_or_else(PoisonError::into_inner);
        addrs.iter().filter(|(other, _)| **other != store).map(|(_, addr)| addr.clone()).collect()
    }

    /// Where `store` listens, as far as is known.
    pub(crate) fn addr(&self, store: StoreId) -> Option<String> {
        self.addrs.read().unwrap_or_else(PoisonError::into_inner).get(&store).cloned()
    }
}

/// Makes the clients that openraft asks for, one for each member.
pub(super) struct NetworkFactory {
    pub(super) transport: Transport,
    pub(super) book: AddressBook,
    pub(super) forced_term: Arc<AtomicU64>,
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, node: &RaftNode) -> Network {
        let (transport, book) = (self.transport.clone(), self.book.clone());
        let forced_term = Arc::clone(&self.forced_term);
        Network { transport, book, forced_term, store: StoreId(target), node: node.clone() }
    }
}

/// A client for one member. Every message names the store it is for: another disk may have come up
/// at the same address under the same name, and must not answer for the old one.
pub(super) struct Network {
    transport: Transport,
    book: AddressBook,
    forced_term: Arc<AtomicU64>,
    store: StoreId,
    node: RaftNode,
}

impl Network {
    fn target(&self) -> Target {
        let addr = self.book.addr(self.store).unwrap_or_else(|| self.node.addr.clone());
        Target { addr, node: NodeId::new(&self.node.node).ok() }
    }

    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        kind: u8,
        request: &Q,
        ttl: Duration,
    ) -> Result<A, RPCError<TypeConfig>> {
        self.call_class(Class::Control, kind, message::encode(&(self.store, request)), ttl).await
    }

    async fn call_class<A: DeserializeOwned>(
        &self,
        class: Class,
        kind: u8,
        body: Bytes,
        ttl: Duration,
    ) -> Result<A, RPCError<TypeConfig>> {
        let answer = self.transport.call(&self.target(), class, kind, body, ttl).await.map_err(rpc_error)?;
        message::decode(&answer).map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        // What openraft proposes is less than a heartbeat, and no disk is always that fast. Heartbeats
        // it cuts off itself.
        let body = message::encode(&(self.store, &rpc));
        let ttl = append_timeout(APPEND_TIMEOUT, body.len());
        self.call_class(Class::Control, kind::RAFT_APPEND, body, ttl).await
    }

    async fn vote(
        &mut self,
        mut rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        rpc.leadership_transfer |= rpc.vote.leader_id.term == self.forced_term.load(Ordering::Relaxed);
        // All of the time until openraft counts the answer no more: the voter syncs twice.
        self.call(kind::RAFT_VOTE, &rpc, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(kind::RAFT_PRE_VOTE, &rpc, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::type_config::alias::SnapshotOf<TypeConfig, Bytes>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let body = message::encode(&(self.store, (vote, snapshot.meta, &snapshot.snapshot[..])));
        let call = self.call_class(Class::Bulk, kind::RAFT_SNAPSHOT, body, option.soft_ttl());
        tokio::select! {
            closed = cancel => Err(closed.into()),
            answer = call => answer.map_err(streaming_error),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(kind::RAFT_TRANSFER, &req, option.soft_ttl()).await
    }
}

/// A member that cannot be dialled is unreachable, and openraft backs off; anything else may go
/// better the next time.
fn rpc_error(error: CallError) -> RPCError<TypeConfig> {
    match error {
        error @ (CallError::NotSent { .. } | CallError::Refused { .. } | CallError::NotClusterKit { .. }) => {
            RPCError::Unreachable(Unreachable::new(&error))
        }
        error => RPCError::Network(NetworkError::new(&error)),
    }
}

fn streaming_error(error: RPCError<TypeConfig>) -> StreamingError<TypeConfig> {
    match error {
        RPCError::Timeout(error) => error.into(),
        RPCError::Unreachable(error) => error.into(),
        RPCError::Network(error) => error.into(),
        RPCError::RemoteError(error) => StreamingError::Network(NetworkError::new(&error)),
    }
}
