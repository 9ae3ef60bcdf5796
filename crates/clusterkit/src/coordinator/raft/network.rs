//! Raft messages over the node transport.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::id::{NodeId, StoreId};
use clusterkit_core::limits::{EXPECT_MAX, TEXT_BYTES_MAX};
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

/// Stores that an address is kept for though they belong to no member: more than any cluster is
/// formed of, so that those who form one do not push each other out.
const STRANGERS_MAX: usize = 4 * EXPECT_MAX as usize;

/// Where each store was last heard of.
///
/// Filled from the topology and from what nodes say, so that nodes whose addresses all changed while
/// they were down find each other again as soon as one of them dials another.
#[derive(Debug, Clone, Default)]
pub(crate) struct AddressBook {
    entries: Arc<RwLock<Entries>>,
}

/// Invariants:
/// - no store is in both lists, and those of `members` are founders or recorded;
/// - `strangers` has at most [`STRANGERS_MAX`] entries, and no address is longer than a text may be.
#[derive(Debug, Default)]
struct Entries {
    founders: BTreeSet<StoreId>,
    recorded: BTreeSet<StoreId>,
    members: BTreeMap<StoreId, String>,
    /// Everybody else, whoever spoke last comes last.
    strangers: VecDeque<(StoreId, String)>,
}

impl AddressBook {
    /// Notes where `store` listens.
    pub(crate) fn note(&self, store: StoreId, addr: &str) {
        if addr.len() <= TEXT_BYTES_MAX && self.addr(store).as_deref() != Some(addr) {
            self.write().note(store, addr.to_owned());
        }
    }

    /// Notes where `store` listened once, unless something newer is known.
    pub(crate) fn note_first(&self, store: StoreId, addr: &str) {
        if self.addr(store).is_none() {
            self.note(store, addr);
        }
    }

    /// These form the cluster, and vote in it though no record may tell of them yet.
    pub(crate) fn set_founders(&self, stores: impl IntoIterator<Item = StoreId>) {
        let mut entries = self.write();
        entries.founders = stores.into_iter().collect();
        entries.sort();
    }

    /// These are the nodes of the topology. Whoever was one before is a stranger now.
    pub(crate) fn set_recorded(&self, stores: impl IntoIterator<Item = StoreId>) {
        let recorded = stores.into_iter().collect();
        if self.read().recorded != recorded {
            let mut entries = self.write();
            entries.recorded = recorded;
            entries.sort();
        }
    }

    /// Everywhere that somebody else than `store` was heard of, members first, and of the others those
    /// that were heard last.
    pub(crate) fn addrs_but(&self, store: StoreId) -> Vec<String> {
        let entries = self.read();
        let members = entries.members.iter().map(|(member, addr)| (*member, addr));
        let strangers = entries.strangers.iter().rev().map(|(stranger, addr)| (*stranger, addr));
        let mut addrs = Vec::new();
        for (_, addr) in members.chain(strangers).filter(|(other, _)| *other != store) {
            if !addrs.contains(addr) {
                addrs.push(addr.clone());
            }
        }
        addrs
    }

    /// Where `store` listens, as far as is known.
    pub(crate) fn addr(&self, store: StoreId) -> Option<String> {
        let entries = self.read();
        let stranger = || entries.strangers.iter().find(|(other, _)| *other == store).map(|(_, addr)| addr);
        entries.members.get(&store).or_else(stranger).cloned()
    }

    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn is_member(&self, store: StoreId) -> bool {
        self.recorded.contains(&store) || self.founders.contains(&store)
    }

    fn note(&mut self, store: StoreId, addr: String) {
        self.strangers.retain(|(other, _)| *other != store);
        if self.is_member(store) {
            self.members.insert(store, addr);
            return;
        }
        if self.strangers.len() >= STRANGERS_MAX {
            self.strangers.pop_front();
        }
        self.strangers.push_back((store, addr));
    }

    /// Puts every entry where it belongs, after it was said who is a member.
    fn sort(&mut self) {
        let entries: Vec<_> =
            mem::take(&mut self.members).into_iter().chain(self.strangers.drain(..)).collect();
        for (store, addr) in entries {
            self.note(store, addr);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_push_out_strangers_and_never_members() {
        let book = AddressBook::default();
        book.set_founders([StoreId(1), StoreId(2)]);
        book.note_first(StoreId(1), "founder:1");
        book.note(StoreId(3), "recorded:3");
        book.set_recorded([StoreId(3), StoreId(4)]);
        for number in 0..10_000 {
            book.note(StoreId(1_000 + number), &format!("stranger:{number}"));
        }
        assert_eq!(book.read().strangers.len(), STRANGERS_MAX);
        book.note(StoreId(4), "recorded:4");
        for (store, addr) in
            [(1, "founder:1"), (3, "recorded:3"), (4, "recorded:4"), (10_999, "stranger:9999")]
        {
            assert_eq!(book.addr(StoreId(store)).as_deref(), Some(addr));
        }
        assert_eq!(book.addr(StoreId(1_000)), None);
        let addrs = book.addrs_but(StoreId(3));
        assert_eq!(addrs[..3], ["founder:1", "recorded:4", "stranger:9999"]);
    }

    #[test]
    fn whoever_is_a_member_no_more_is_a_stranger() {
        let book = AddressBook::default();
        book.set_recorded([StoreId(1)]);
        book.note(StoreId(1), "left:1");
        book.set_recorded([]);
        assert_eq!(book.addr(StoreId(1)).as_deref(), Some("left:1"));
        for number in 0..STRANGERS_MAX as u64 {
            book.note(StoreId(1_000 + number), "stranger:1");
        }
        assert_eq!(book.addr(StoreId(1)), None);
    }

    #[test]
    fn a_text_too_long_is_no_address() {
        let book = AddressBook::default();
        book.note(StoreId(1), &"x".repeat(TEXT_BYTES_MAX + 1));
        assert_eq!(book.addr(StoreId(1)), None);
    }
}
