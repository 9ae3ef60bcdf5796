//! The Raft group as the rest of the node sees it: propose, watch, who leads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::control::{Applied, Command, ControlState, Rejected, VoterSet, VoterStep};
use clusterkit_core::id::{NodeId, StoreId};
use clusterkit_storage::disk::DiskLock;
use clusterkit_wire::versioned::DecodeError;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, RaftError};
use openraft::storage::Snapshot;
use openraft::{ChangeMembers, Membership, ReadPolicy, ServerState};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::timeout;

use super::config::raft_config;
use super::files::{RaftFiles, Recovered};
use super::log_store::LogStore;
use super::log_worker::{IoMode, LogFailure, LogWorker, LogWorkerHandle};
use super::network::{AddressBook, NetworkFactory};
use super::quorum::QuorumAge;
use super::state_machine::StateMachine;
use super::types::{BatchTooLarge, CommandBatch, Raft, RaftNode, SnapshotMeta, TypeConfig, Vote};
use crate::error::{ControlPlaneError, StartError};
use crate::events::EventLog;
use crate::net::Clock;
use crate::node::message::{self, kind};
use crate::transport::Transport;

/// How far behind the leader's log a learner may be and still be promoted.
const CAUGHT_UP_ENTRIES: u64 = 64;
/// How long one change of the group may take before it counts as lost.
const MEMBERSHIP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the group may take to stop. It waits for its disk.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what was asked of the disk by then may take to be written.
const FILES_TIMEOUT: Duration = Duration::from_secs(5);

/// What a group needs.
pub(crate) struct RaftOptions {
    pub(crate) files: RaftFiles,
    pub(crate) io: IoMode,
    /// What keeps others away from the files.
    pub(crate) lock: Arc<DiskLock>,
    pub(crate) identity: RaftIdentity,
}

/// Who this node is in the group, and what it sees of the others.
pub(crate) struct RaftIdentity {
    pub(crate) store: StoreId,
    pub(crate) cluster_name: String,
    pub(crate) transport: Transport,
    pub(crate) book: AddressBook,
    pub(crate) events: Arc<EventLog>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The group. Clones share it.
#[derive(Clone)]
pub(crate) struct RaftGroup {
    raft: Raft,
    store: StoreId,
    /// The term in which this node stands although voters heard the leader lately.
    forced_term: Arc<AtomicU64>,
    views: watch::Receiver<Arc<View>>,
    log_failure: LogFailure,
    quorum: Arc<QuorumAge>,
    worker: LogWorkerHandle,
}

/// The control state at one index, and who belonged to the group then.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) state: ControlState,
    pub(crate) voters: BTreeSet<StoreId>,
    /// The nodes of the members by store, as their membership entries name them.
    pub(crate) members: BTreeMap<StoreId, (String, String)>,
}

impl View {
    pub(super) fn new(state: ControlState, membership: &Membership<u64, RaftNode>) -> Self {
        let member =
            |(store, node): (&u64, &RaftNode)| (StoreId(*store), (node.node.clone(), node.addr.clone()));
        Self {
            state,
            voters: membership.voter_ids().map(StoreId).collect(),
            members: membership.nodes().map(member).collect(),
        }
    }
}

/// Who leads the group, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Leadership {
    pub(crate) term: u64,
    pub(crate) leader: Option<StoreId>,
    pub(crate) is_me: bool,
}

/// Numbers for status pages and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RaftNodeStats {
    pub(crate) state: &'static str,
    pub(crate) term: u64,
    pub(crate) log_index_last: u64,
    pub(crate) log_term_last: u64,
    pub(crate) index_committed: u64,
    pub(crate) index_applied: u64,
    pub(crate) leader: Option<StoreId>,
    pub(crate) voters: BTreeSet<StoreId>,
    pub(crate) learners: BTreeSet<StoreId>,
}

impl RaftGroup {
    /// Joins the group as whatever the files say: voter, learner, or nobody yet.
    pub(crate) async fn start(options: RaftOptions) -> Result<Self, StartError> {
        let RaftOptions { files, identity, io, lock } = options;
        let snapshot_path = files.snapshot_path();
        let RaftFiles { disk, dir, log, recovered } = files;
        let worker = LogWorker::new(disk, dir, log).holding(lock);
        let worker =
            LogWorkerHandle::start(worker, io).map_err(|source| ControlPlaneError::Thread { source })?;
        let joined = Self::join(identity, worker.clone(), recovered, &snapshot_path).await;
        if joined.is_err() {
            close(&worker).await;
        }
        joined
    }

    async fn join(
        identity: RaftIdentity,
        worker: LogWorkerHandle,
        recovered: Recovered,
        snapshot_path: &Path,
    ) -> Result<Self, StartError> {
        let log_failure = worker.failure();
        let (sender, views) = watch::channel(Arc::new(View::default()));
        let snapshot = recovered.snapshot.clone();
        let machine = StateMachine::open(worker.clone(), snapshot.as_deref(), sender, identity.events)
            .map_err(|error| error.in_file(snapshot_path))?;
        let log = LogStore::new(worker.clone(), recovered);
        let config = raft_config(&identity.cluster_name).validate();
        let config = Arc::new(config.expect("the constants were checked against each other"));
        let forced_term = Arc::new(AtomicU64::new(0));
        let (transport, book) = (identity.transport, identity.book);
        let network = NetworkFactory { transport, book, forced_term: Arc::clone(&forced_term) };
        let quorum = Arc::new(QuorumAge::new(identity.clock));
        let raft = Raft::new(identity.store.0, config, network, log, machine)
            .await
            .map_err(|fatal| failure_of(&log_failure, fatal))?;
        Ok(Self { raft, store: identity.store, forced_term, views, log_failure, quorum, worker })
    }

    /// Whether nothing was ever written here: what is applied from now on happens now.
    pub(crate) async fn is_pristine(&self) -> bool {
        self.raft.is_initialized().await.is_ok_and(|initialized| !initialized)
    }

    /// Makes a new group of these voters. Every one of them may do it with the same set: the votes
    /// make one leader. Does nothing when the log is not empty.
    pub(crate) async fn initialize(&self, voters: &[(StoreId, NodeId, String)]) -> Result<(), ProposeError> {
        if self.raft.is_initialized().await? {
            return Ok(());
        }
        let node = |(store, node, addr): &(StoreId, NodeId, String)| {
            (store.0, RaftNode { node: node.to_string(), addr: addr.clone() })
        };
        let members: BTreeMap<_, _> = voters.iter().map(node).collect();
        match self.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(_)) => Ok(()),
            Err(RaftError::Fatal(fatal)) => Err(fatal.into()),
        }
    }

    /// Writes `commands` as one entry and waits until it is applied here.
    pub(crate) async fn propose(
        &self,
        commands: &[Command],
    ) -> Result<Vec<Result<Applied, Rejected>>, ProposeError> {
        let response = self.raft.client_write(CommandBatch::new(commands)?).await?;
        Ok(response.data.0)
    }

    /// Waits until this node, as the leader, has applied everything committed before the call.
    pub(crate) async fn barrier(&self) -> Result<(), ProposeError> {
        match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(_)) => Err(ProposeError::NotController),
            Err(RaftError::Fatal(fatal)) => Err(fatal.into()),
        }
    }

    /// The applied states, newest only.
    pub(crate) fn views(&self) -> watch::Receiver<Arc<View>> {
        self.views.clone()
    }

    /// The newest applied state.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.views.borrow())
    }

    /// Who leads now.
    pub(crate) fn leadership(&self) -> Leadership {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let is_me = metrics.state == ServerState::Leader;
        let leader = metrics.current_leader.map(StoreId);
        Leadership { term: metrics.vote.leader_id.term, leader, is_me }
    }

    /// Waits until the leadership may differ from what it was; `false` when the group has stopped.
    pub(crate) async fn leadership_changed(&self, known: Leadership) -> bool {
        let mut metrics = self.raft.server_metrics();
        while self.leadership() == known {
            if metrics.changed().await.is_err() {
                return false;
            }
        }
        true
    }

    /// Waits until the group fails for good: a broken disk, or a panic inside.
    pub(crate) async fn failed(&self) -> ControlPlaneError {
        let mut metrics = self.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_watched().running_state {
                return failure_of(&self.log_failure, fatal.clone());
            }
            if metrics.changed().await.is_err() {
                return ControlPlaneError::Ended;
            }
        }
    }

    /// Serves a Raft message of another member.
    pub(crate) async fn handle(&self, message_kind: u8, body: &[u8]) -> Result<Bytes, RaftMessageError> {
        match message_kind {
            kind::RAFT_APPEND => self.handle_append(body).await,
            kind::RAFT_VOTE => Ok(message::encode(&self.raft.vote(self.decode(body)?).await?)),
            kind::RAFT_PRE_VOTE => Ok(message::encode(&self.raft.pre_vote(self.decode(body)?).await?)),
            kind::RAFT_SNAPSHOT => self.handle_snapshot(body).await,
            kind::RAFT_TRANSFER => {
                Ok(message::encode(&self.raft.handle_transfer_leader(self.decode(body)?).await?))
            }
            other => Err(RaftMessageError::Kind { kind: other }),
        }
    }

    async fn handle_append(&self, body: &[u8]) -> Result<Bytes, RaftMessageError> {
        Ok(message::encode(&self.raft.append_entries(self.decode(body)?).await?))
    }

    async fn handle_snapshot(&self, body: &[u8]) -> Result<Bytes, RaftMessageError> {
        let (vote, meta, bytes): (Vote, SnapshotMeta, Vec<u8>) = self.decode(body)?;
        let snapshot = Snapshot { meta, snapshot: Bytes::from(bytes) };
        Ok(message::encode(&self.raft.install_full_snapshot(vote, snapshot).await?))
    }

    /// The message in `body`, when it is for this store.
    fn decode<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, RaftMessageError> {
        let (store, message): (StoreId, T) = message::decode(body)?;
        if store == self.store { Ok(message) } else { Err(RaftMessageError::OtherStore { store }) }
    }

    /// Who belongs to the group, as its leader sees it.
    pub(crate) fn voter_set(&self) -> VoterSet {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let last = metrics.last_log_index.unwrap_or(0);
        let near = |index: u64| index + CAUGHT_UP_ENTRIES >= last;
        let progress = metrics.replication.iter().flatten();
        let caught_up =
            progress.filter(|(_, matched)| matched.as_ref().is_some_and(|log_id| near(log_id.index)));
        VoterSet {
            voters: membership.voter_ids().map(StoreId).collect(),
            learners: membership.learner_ids().map(StoreId).collect(),
            caught_up: caught_up.map(|(store, _)| StoreId(*store)).collect(),
        }
    }

    /// Whether a change of the voters was begun and not ended: both the old and the new voters must
    /// agree to everything until it is.
    pub(crate) fn is_changing(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().get_joint_config().len() > 1
    }

    /// Ends a change of the voters that an earlier leader, or a lost connection, left half done.
    pub(crate) async fn end_change(&self) -> Result<(), ProposeError> {
        let voters = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.membership().get_joint_config().last().cloned().unwrap_or_default()
        };
        let change = self.raft.change_membership(ChangeMembers::ReplaceAllVoters(voters), true);
        match timeout(MEMBERSHIP_TIMEOUT, change).await {
            Ok(outcome) => outcome.map(drop).map_err(ProposeError::from),
            Err(_) => Err(ProposeError::OutcomeUnknown),
        }
    }

    /// Carries out one change of the group.
    pub(crate) async fn change(
        &self,
        step: VoterStep,
        node: Option<(NodeId, String)>,
    ) -> Result<(), ProposeError> {
        let change = async {
            match step {
                VoterStep::AddLearner(store) => {
                    let (node, addr) =
                        node.map_or_else(Default::default, |(node, addr)| (node.to_string(), addr));
                    self.raft.add_learner(store.0, RaftNode { node, addr }, false).await
                }
                VoterStep::Promote(store) => {
                    self.raft.change_membership(ChangeMembers::AddVoterIds([store.0].into()), true).await
                }
                VoterStep::Demote(store) => {
                    self.raft.change_membership(ChangeMembers::RemoveVoters([store.0].into()), true).await
                }
                VoterStep::Remove(store) => self.remove(store).await,
            }
        };
        match timeout(MEMBERSHIP_TIMEOUT, change).await {
            Ok(outcome) => outcome.map(drop).map_err(ProposeError::from),
            Err(_) => Err(ProposeError::OutcomeUnknown),
        }
    }

    async fn remove(
        &self,
        store: StoreId,
    ) -> Result<
        openraft::raft::ClientWriteResponse<TypeConfig>,
        RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
    > {
        if self.voter_set().voters.contains(&store) {
            return self.raft.change_membership(ChangeMembers::RemoveVoters([store.0].into()), false).await;
        }
        self.raft.change_membership(ChangeMembers::RemoveNodes([store.0].into()), false).await
    }

    /// Asks another voter to take over. Returns as soon as it was asked.
    pub(crate) async fn transfer_leadership(&self, to: StoreId) -> Result<(), ProposeError> {
        Ok(self.raft.trigger().transfer_leader(to.0).await?)
    }

    /// Stands for election in the term after `term`, whose leader is known to be dead. Voters are
    /// told that it is, so that they do not wait until its lease is over: nothing here reads under
    /// that lease.
    pub(crate) async fn campaign(&self, term: u64) {
        self.forced_term.store(term + 1, Ordering::Relaxed);
        if let Err(error) = self.raft.trigger().elect(false).await {
            tracing::warn!(target: "clusterkit::raft", %error, "cannot stand for election");
        }
    }

    /// Numbers for status pages and metrics.
    pub(crate) fn stats(&self) -> RaftNodeStats {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let data = self.raft.data_metrics();
        let log_term_last = data.borrow_watched().last_log.map_or(0, |log_id| log_id.leader_id.term);
        let membership = metrics.membership_config.membership();
        RaftNodeStats {
            state: server_state(metrics.state),
            term: metrics.current_term,
            log_index_last: metrics.last_log_index.unwrap_or(0),
            log_term_last,
            index_committed: metrics.local_committed.map_or(0, |log_id| log_id.index),
            index_applied: metrics.last_applied.map_or(0, |log_id| log_id.index),
            leader: metrics.current_leader.map(StoreId),
            voters: membership.voter_ids().map(StoreId).collect(),
            learners: membership.learner_ids().map(StoreId).collect(),
        }
    }

    /// How long ago the oldest message was sent that a majority of the voters has answered since, as
    /// the leader knows it; of any other node it says nothing.
    ///
    /// The voters are those of the newest entry that names them, applied or not: from when it is
    /// written, nothing is decided without them. The time that the machine slept counts: the others
    /// went on.
    pub(crate) fn quorum_age(&self) -> Option<Duration> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let is_alone = metrics.membership_config.membership().voter_ids().count() <= 1;
        if is_alone {
            Some(Duration::ZERO)
        } else {
            metrics.last_quorum_acked.and_then(|at| self.quorum.of(*at))
        }
    }

    /// Stops taking part. What was promised stays on disk. Returns in any case: a disk that hangs keeps
    /// the group from stopping, and it does nothing more then than wait for that.
    pub(crate) async fn shutdown(&self) {
        match timeout(STOP_TIMEOUT, self.raft.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(target: "clusterkit::raft", %error, "the raft group did not stop cleanly");
            }
            Err(_) => tracing::warn!(target: "clusterkit::raft", "the raft group does not stop"),
        }
    }

    /// Waits until nothing of this group is written any more. A disk that hangs is not waited for: the
    /// files stay locked until it goes on.
    pub(crate) async fn close_files(&self) {
        close(&self.worker).await;
    }
}

async fn close(worker: &LogWorkerHandle) {
    if timeout(FILES_TIMEOUT, worker.end()).await.is_err() {
        tracing::warn!(target: "clusterkit::storage", "the disk hangs; the data directory stays locked until it goes on");
    }
}

fn server_state(state: ServerState) -> &'static str {
    match state {
        ServerState::Leader => "leader",
        ServerState::Follower => "follower",
        ServerState::Candidate => "candidate",
        ServerState::Learner => "learner",
        ServerState::Shutdown => "shutdown",
    }
}

/// Why the group stands still: what broke its files, or else what it says itself.
fn failure_of(log: &LogFailure, fatal: Fatal<TypeConfig>) -> ControlPlaneError {
    match (log.get().cloned(), fatal) {
        (Some(source), _) => ControlPlaneError::Log { source },
        (None, Fatal::Stopped) => ControlPlaneError::Ended,
        (None, fatal) => ControlPlaneError::Group { source: Box::new(fatal) },
    }
}

/// A proposal did not come back applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ProposeError {
    /// The group is broken or stopped; nothing more can be written on this node.
    #[error("the control plane of this node has stopped: {0}")]
    Stopped(String),
    /// Another node leads, or none: nothing was written.
    #[error("this node is not the controller")]
    NotController,
    /// Leadership moved, or time ran out, before the entry was committed: it may still be.
    #[error("leadership moved before the outcome was known")]
    OutcomeUnknown,
    /// The group cannot be changed so now, for instance because a change is under way.
    #[error("the control plane cannot be changed now: {0}")]
    Membership(String),
    /// The commands are more than one entry holds: nothing was written. Propose fewer at once.
    #[error(transparent)]
    TooLarge(#[from] BatchTooLarge),
}

impl From<Fatal<TypeConfig>> for ProposeError {
    fn from(fatal: Fatal<TypeConfig>) -> Self {
        Self::Stopped(fatal.to_string())
    }
}

impl From<RaftError<TypeConfig, ClientWriteError<TypeConfig>>> for ProposeError {
    fn from(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Self {
        match error {
            RaftError::Fatal(fatal) => fatal.into(),
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => Self::NotController,
            RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
                Self::Membership(error.to_string())
            }
            RaftError::APIError(_) => Self::OutcomeUnknown,
        }
    }
}

/// A Raft message was not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RaftMessageError {
    /// The body is not what its kind says.
    #[error("the raft message cannot be read")]
    Decode(#[from] DecodeError),
    /// There is no such message.
    #[error("no raft message has kind {kind}")]
    Kind {
        /// The kind.
        kind: u8,
    },
    /// It is for a store that lay here before, or elsewhere.
    #[error("the message is for store {store}, which is not here")]
    OtherStore {
        /// The store it is for.
        store: StoreId,
    },
    /// The group is broken or stopped.
    #[error("raft has stopped")]
    Stopped(#[from] Fatal<TypeConfig>),
}

impl From<RaftError<TypeConfig>> for RaftMessageError {
    fn from(error: RaftError<TypeConfig>) -> Self {
        match error {
            RaftError::Fatal(fatal) => Self::Stopped(fatal),
            RaftError::APIError(never) => match never {},
        }
    }
}

#[cfg(all(test, feature = "http", feature = "testing"))]
mod tests {
    use clusterkit_core::control::{InvalidReason, Registration};
    use clusterkit_core::limits::ENTRY_BYTES_MAX;
    use clusterkit_wire::limits::FRAME_BYTES_MAX_CONTROL;

    use super::*;
    use crate::testing::{Cluster, PATIENCE};

    const MIB: usize = 1024 * 1024;

    fn group(cluster: &Cluster, number: u32) -> &RaftGroup {
        cluster.node(number).shared().raft.get().expect("the node is ready")
    }

    fn controller(cluster: &Cluster) -> u32 {
        let leads = |number: &u32| group(cluster, *number).leadership().is_me;
        cluster.running().into_iter().find(leads).expect("somebody leads")
    }

    /// A command of so many bytes, which apply refuses.
    fn large(cluster: &Cluster, bytes: usize) -> Command {
        let registration = cluster.node(1).shared().registration();
        let metadata = BTreeMap::from([("key".to_owned(), "x".repeat(bytes))]);
        Command::RegisterNode { registration: Registration { metadata, ..registration }, replace: false }
    }

    async fn propose_large(cluster: &Cluster, number: u32, bytes: usize) {
        let outcomes = group(cluster, number).propose(&[large(cluster, bytes)]).await;
        let refused = Rejected::Invalid { reason: InvalidReason::Metadata };
        assert_eq!(outcomes, Ok(vec![Err(refused)]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_entry_holds_is_refused_and_not_written() {
        let cluster = Cluster::start(1).await;
        let before = group(&cluster, 1).stats().log_index_last;
        let outcome = group(&cluster, 1).propose(&[large(&cluster, ENTRY_BYTES_MAX)]).await;
        assert!(matches!(outcome, Err(ProposeError::TooLarge(_))), "{outcome:?}");
        assert_eq!(group(&cluster, 1).stats().log_index_last, before);
    }

    /// All entries that it missed together are more than a frame holds, and the network is slow.
    #[tokio::test(start_paused = true)]
    async fn a_voter_that_missed_many_large_entries_catches_up() {
        let cluster = Cluster::start(3).await;
        let leader = controller(&cluster);
        let late = (1..=3).find(|number| *number != leader).expect("three nodes run");
        let (leader_host, late_host) = (format!("node-{leader}"), format!("node-{late}"));
        cluster.net().block(&leader_host, &late_host);
        for _ in 0..=FRAME_BYTES_MAX_CONTROL / MIB {
            propose_large(&cluster, leader, MIB).await;
        }
        propose_large(&cluster, leader, ENTRY_BYTES_MAX - MIB).await;
        let written = group(&cluster, leader).stats().log_index_last;
        cluster.net().unblock(&leader_host, &late_host);
        cluster.net().delay(&leader_host, &late_host, Duration::from_millis(20));
        let caught_up = async {
            while group(&cluster, late).stats().index_applied < written {
                tokio::time::sleep(Duration::from_millis(50)).await; // tidy: the clock is paused
            }
        };
        timeout(PATIENCE, caught_up).await.expect("it catches up");
    }
}
