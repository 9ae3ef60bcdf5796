//! The handle of a running node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::control::{Applied, InSyncProposal, Rejected};
use clusterkit_core::handoff::StageStatus;
use clusterkit_core::id::{Epoch, Incarnation, NodeId, PartitionId, PartitionVersion, ReplicaUid, StoreId};
use clusterkit_core::topology::{ClusterConfig, Health, Node, Partition, Topology};
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use crate::builder::Builder;
use crate::coordinator::raft::{RaftGroup, RaftNodeStats};
use crate::error::{ChangeError, StartError};
use crate::events::{ClusterEvent, EventId, Events};
use crate::lease::{Lease, LeaseLost};
use crate::messages::{self, Lane, MessageError};
use crate::node::{Phase, Shared, StopReason, Wish};
use crate::status::{ControlPlaneStatus, Stats, Status};

/// How long [`ClusterKit::leave`] waits for the node to be drained.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(60);

/// A running node of a cluster. Clones are handles on the same node.
///
/// Dropping the last handle stops the node abruptly, as a crash would: nothing that was promised is
/// lost, and the others find out by themselves. [`stop`](Self::stop) and [`leave`](Self::leave) are
/// kinder to them.
#[derive(Clone)]
pub struct ClusterKit {
    shared: Arc<Shared>,
    _abrupt_stop: Arc<DropGuard>,
}

impl fmt::Debug for ClusterKit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterKit").field("node", &self.shared.node).finish_non_exhaustive()
    }
}

// Starting and stopping.
impl ClusterKit {
    /// Begins to describe a node: its id, unique in the cluster, and the address at which clients
    /// reach the program that embeds it.
    pub fn builder(node_id: &str, public_addr: &str) -> Builder {
        Builder::new(node_id, public_addr)
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let guard = shared.stop.clone().drop_guard();
        Self { shared, _abrupt_stop: Arc::new(guard) }
    }

    /// Waits until the node takes part in its cluster.
    ///
    /// # Errors
    ///
    /// What kept it from that. The node has stopped then.
    pub async fn ready(&self) -> Result<(), StartError> {
        let mut phase = self.shared.phase.subscribe();
        let settled = phase.wait_for(|phase| matches!(phase, Phase::Ready | Phase::Stopped(_))).await;
        match settled.as_deref() {
            Ok(Phase::Ready) => Ok(()),
            Ok(Phase::Stopped(reason)) => Err(reason.to_start_error()),
            _ => Err(StartError::Stopped),
        }
    }

    /// Whether the node takes part in its cluster.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(*self.shared.phase.borrow(), Phase::Ready)
    }

    /// Waits until the node has stopped: it was asked to, or it was drained, whoever ordered that, and
    /// has left the cluster; `Err` says what broke otherwise. Whatever runs on this node should end.
    ///
    /// # Errors
    ///
    /// The failure, such as a broken disk.
    pub async fn stopped(&self) -> Result<(), StartError> {
        self.end().await.to_result()
    }

    async fn end(&self) -> StopReason {
        let mut phase = self.shared.phase.subscribe();
        let ended = phase.wait_for(|phase| matches!(phase, Phase::Stopped(_))).await;
        match ended.as_deref() {
            Ok(Phase::Stopped(reason)) => reason.clone(),
            // The handle holds the other end.
            _ => StopReason::Asked,
        }
    }

    /// Stops the node, which stays a member: the others go on without it until it is back. Hands the
    /// control plane over first when this node leads it.
    ///
    /// When it returns the data directory is free and no hook is under way, so that the node can be
    /// started again in the same process. It also returns, up to half a minute later with the bounds
    /// that hooks have by default, when a disk hangs, or a hook that blocks its thread: the directory
    /// stays locked then until what hangs has ended.
    pub async fn stop(&self) {
        self.shared.asked_to_stop.cancel();
        // Whatever ended it, it has ended.
        drop(self.stopped().await);
    }

    /// Stops the node as dropping its last handle does, and waits until it has.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) async fn abort(&self) {
        self.shared.stop.cancel();
        // Whatever ended it, it has ended.
        drop(self.stopped().await);
    }

    /// Gives everything this node holds to others, leaves the cluster, and stops. Does no harm when
    /// others ordered the same.
    ///
    /// # Errors
    ///
    /// [`ChangeError::UnderWay`] when it has not left after [`LEAVE_TIMEOUT`]: the node goes on
    /// running and draining. On every error but [`ChangeError::Stopped`] the node runs on.
    pub async fn leave(&self) -> Result<(), ChangeError> {
        let ordered = self.shared.change(Wish::Drain { node: self.node_id().clone() }).await;
        if let Some(error) = ordered.err().filter(|error| !self.has_left(error)) {
            return Err(error);
        }
        match tokio::time::timeout(LEAVE_TIMEOUT, self.end()).await {
            Ok(StopReason::Left) => Ok(()),
            Ok(_) => Err(ChangeError::Stopped),
            Err(_) => Err(ChangeError::UnderWay { seconds: LEAVE_TIMEOUT.as_secs() }),
        }
    }

    /// Whether the drain was refused only because it has happened: others may have ordered it too.
    fn has_left(&self, refused: &ChangeError) -> bool {
        let unknown = Rejected::UnknownNode { node: self.node_id().clone() };
        *refused == ChangeError::Rejected(unknown)
            || matches!(*self.shared.unwanted.borrow(), Some(StopReason::Left))
    }
}

// What the cluster looks like.
impl ClusterKit {
    /// This node's id.
    #[must_use]
    pub fn node_id(&self) -> &NodeId {
        &self.shared.node
    }

    /// This node's data directory, by its id.
    #[must_use]
    pub fn store_id(&self) -> StoreId {
        self.shared.store
    }

    /// The incarnation of this run, 0 before it registered.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.shared.incarnation()
    }

    /// Where other nodes reach this one.
    #[must_use]
    pub fn node_addr(&self) -> String {
        self.shared.node_addr()
    }

    /// Where clients reach this one.
    #[must_use]
    pub fn public_addr(&self) -> String {
        self.shared.public_addr()
    }

    /// The newest topology this node applied. Cheap; the snapshot never changes.
    #[must_use]
    pub fn topology(&self) -> Arc<Topology> {
        self.shared.topology()
    }

    /// Follows the topology.
    #[must_use]
    pub fn watch(&self) -> TopologyWatch {
        TopologyWatch(self.shared.topology.subscribe())
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        self.shared.events.subscribe(None)
    }

    /// What happened after `last`, as far back as this node remembers, and from now on.
    #[must_use]
    pub fn events_after(&self, last: EventId) -> Events {
        self.shared.events.subscribe(Some(last))
    }

    /// The newest events that this node remembers, oldest first.
    #[must_use]
    pub fn events_recent(&self, count: usize) -> Vec<ClusterEvent> {
        self.shared.events.recent(count)
    }

    /// The partition of `key`, `None` before the cluster formed.
    #[must_use]
    pub fn partition(&self, key: &[u8]) -> Option<PartitionId> {
        self.shared.topology.borrow().partition_of(key)
    }

    /// Where requests for `key` go.
    #[must_use]
    pub fn route(&self, key: &[u8]) -> Route {
        self.partition(key).map_or(Route::NotFormed, |partition| self.route_partition(partition))
    }

    /// Where requests for `partition` go.
    #[must_use]
    pub fn route_partition(&self, partition: PartitionId) -> Route {
        let topology = self.topology();
        let Some(record) = topology.partition(partition) else { return Route::NotFormed };
        let epoch = record.epoch;
        match record.leader.as_ref().and_then(|leader| topology.nodes.get(leader)) {
            None => Route::NoLeader { partition },
            Some(leader) if leader.id == self.shared.node => match self.shared.leases.lead(partition) {
                Ok(lease) => Route::Local(lease),
                Err(_) => Route::Settling { partition, epoch },
            },
            Some(leader) => Route::Remote { partition, epoch, leader: Arc::clone(leader) },
        }
    }

    /// [`route_partition`](Self::route_partition), once it says where to go: waits while leadership
    /// passes from one node to another, up to `patience`, and then gives what there is. So a client's
    /// request waits through a planned change instead of failing.
    pub async fn route_settled(&self, partition: PartitionId, patience: Duration) -> Route {
        let mut leases = self.shared.leases_changed.subscribe();
        let mut topology = self.shared.topology.subscribe();
        let settled = async {
            loop {
                let route = self.route_partition(partition);
                if route.is_settled() {
                    return route;
                }
                let gone = tokio::select! {
                    changed = leases.changed() => changed.is_err(),
                    changed = topology.changed() => changed.is_err(),
                };
                if gone {
                    return route;
                }
            }
        };
        match tokio::time::timeout(patience, settled).await {
            Ok(route) => route,
            Err(_) => self.route_partition(partition),
        }
    }

    /// The lease under which this node writes `partition`.
    ///
    /// # Errors
    ///
    /// Why this node may not write it now.
    pub fn lead(&self, partition: PartitionId) -> Result<Lease, LeaseLost> {
        self.shared.leases.lead(partition)
    }

    /// Waits until this node has adopted `version` of the record of `partition`: every permit that it
    /// issues from then on names the holders of that version, and none that does not is out. Whoever
    /// serves a copy to another node waits for the version that the copy is for.
    ///
    /// # Errors
    ///
    /// [`NotAdopted`] when that takes longer than `patience`: this node lags behind, or a permit is
    /// held for long.
    pub async fn adopted(
        &self,
        partition: PartitionId,
        version: PartitionVersion,
        patience: Duration,
    ) -> Result<(), NotAdopted> {
        let adopted = self.shared.adopted(partition, version);
        tokio::time::timeout(patience, adopted).await.map_err(|_| NotAdopted { partition, version })
    }

    /// The stages of this node's replicas that are under way, by partition.
    #[must_use]
    pub fn stages(&self) -> Vec<StageStatus> {
        self.shared.stages.borrow().statuses.clone()
    }

    /// The record of `partition`.
    #[must_use]
    pub fn partition_info(&self, partition: PartitionId) -> Option<Arc<Partition>> {
        self.shared.topology.borrow().partitions.get(partition.index()).cloned()
    }

    /// The node that leads `partition`.
    #[must_use]
    pub fn leader(&self, partition: PartitionId) -> Option<Arc<Node>> {
        let topology = self.topology();
        let leader = topology.partition(partition)?.leader.as_ref()?;
        topology.nodes.get(leader).cloned()
    }

    /// All nodes that hold `partition`, the leader first.
    #[must_use]
    pub fn replicas(&self, partition: PartitionId) -> Vec<Arc<Node>> {
        let topology = self.topology();
        let holders = topology.partition(partition).into_iter().flat_map(Partition::holders);
        holders.filter_map(|id| topology.nodes.get(id).cloned()).collect()
    }

    /// The nodes that hold `partition` and do not lead it.
    #[must_use]
    pub fn followers(&self, partition: PartitionId) -> Vec<Arc<Node>> {
        let topology = self.topology();
        let followers = topology.partition(partition).into_iter().flat_map(Partition::followers);
        followers.filter_map(|id| topology.nodes.get(id).cloned()).collect()
    }

    /// The first `count` nodes that hold the partition of `key`, the leader first.
    #[must_use]
    pub fn nodes_for_key(&self, key: &[u8], count: usize) -> Vec<Arc<Node>> {
        let mut nodes = self.partition(key).map(|partition| self.replicas(partition)).unwrap_or_default();
        nodes.truncate(count);
        nodes
    }

    /// Whether this node leads `partition` by the topology it knows. To route, use
    /// [`route`](Self::route): an answer here may be old before it is used.
    #[must_use]
    pub fn is_leader(&self, partition: PartitionId) -> bool {
        self.partition_info(partition).is_some_and(|record| record.leader.as_ref() == Some(&self.shared.node))
    }

    /// Whether this node holds `partition` and does not lead it.
    #[must_use]
    pub fn is_follower(&self, partition: PartitionId) -> bool {
        self.holds(partition) && !self.is_leader(partition)
    }

    /// Whether this node holds `partition`.
    #[must_use]
    pub fn holds(&self, partition: PartitionId) -> bool {
        self.partition_info(partition).is_some_and(|record| record.holds(&self.shared.node))
    }

    /// Whether `node` holds the partition of `key`.
    #[must_use]
    pub fn is_responsible(&self, node: &NodeId, key: &[u8]) -> bool {
        let topology = self.topology();
        let partition = topology.partition_of(key).and_then(|partition| topology.partition(partition));
        partition.is_some_and(|record| record.holds(node))
    }

    /// The nodes that are alive.
    #[must_use]
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.topology().nodes.values().filter(|node| node.is_live()).cloned().collect()
    }

    /// Every registered node, whatever its status.
    #[must_use]
    pub fn nodes_all(&self) -> Vec<Arc<Node>> {
        self.topology().nodes.values().cloned().collect()
    }

    /// All partitions with the nodes that hold them, the leader first.
    #[must_use]
    pub fn partition_map(&self) -> BTreeMap<PartitionId, Vec<NodeId>> {
        let topology = self.topology();
        let row = |record: &Arc<Partition>| (record.id, record.holders().cloned().collect());
        topology.partitions.iter().map(row).collect()
    }

    /// How many partitions each node holds and leads, and how even that is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(&self.topology())
    }

    /// What the cluster was formed with.
    #[must_use]
    pub fn config(&self) -> Option<ClusterConfig> {
        self.topology().cluster.as_ref().map(|cluster| cluster.config.clone())
    }

    /// How the cluster stands, as this node sees it.
    #[must_use]
    pub fn health(&self) -> Health {
        self.topology().health(self.shared.has_controller())
    }

    /// Everything a status page shows.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::of(self)
    }

    /// The control plane, as this node sees it.
    #[must_use]
    pub fn control_plane(&self) -> ControlPlaneStatus {
        let starting = || RaftNodeStats { state: "starting", ..RaftNodeStats::default() };
        let stats = self.shared.raft.get().map_or_else(starting, RaftGroup::stats);
        ControlPlaneStatus::of(&stats, &self.topology(), self.shared.controller_node())
    }
}

// What can be changed.
impl ClusterKit {
    /// Has `node` give everything it holds to others and leave. Returns when the wish is written;
    /// the topology shows how far it is. Asking twice does no harm.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub async fn drain(&self, node: &NodeId) -> Result<Applied, ChangeError> {
        self.shared.change(Wish::Drain { node: node.clone() }).await
    }

    /// Has a draining `node` stay.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub async fn cancel_drain(&self, node: &NodeId) -> Result<Applied, ChangeError> {
        self.shared.change(Wish::CancelDrain { node: node.clone() }).await
    }

    /// Deletes the record of `node`. With `force` even while it holds replicas, unless a partition
    /// would lose its last good copy.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub async fn remove(&self, node: &NodeId, force: bool) -> Result<Applied, ChangeError> {
        self.shared.change(Wish::RemoveNode { node: node.clone(), force }).await
    }

    /// Changes the number of copies of every partition.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub async fn set_replication_factor(&self, copies: u32) -> Result<Applied, ChangeError> {
        self.shared.change(Wish::SetReplicationFactor { replication_factor: copies }).await
    }

    /// Changes the in-sync set of a partition that this node leads: members that fell behind go,
    /// members that have everything come, each under the incarnation that caught up. A compare-and-set
    /// on the record's `version`.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`]. A refusal moves the record's version, so that a late copy of the proposal
    /// cannot win.
    pub async fn propose_in_sync(
        &self,
        partition: PartitionId,
        version: PartitionVersion,
        in_sync: BTreeSet<NodeId>,
        added: BTreeMap<NodeId, Incarnation>,
    ) -> Result<Applied, ChangeError> {
        let epoch = self.partition_info(partition).map(|record| record.epoch).unwrap_or_default();
        let (leader, leader_incarnation) = (self.node_id().clone(), self.incarnation());
        let proposal =
            InSyncProposal { partition, version, epoch, leader, leader_incarnation, in_sync, added };
        self.shared.change(Wish::SetInSync(proposal)).await
    }

    /// Passes the leadership of a partition to the target of its transfer, which has everything up to
    /// `log_end`. The node does so by itself once `seal` said `Ok`; this is for those who keep their
    /// own order. A compare-and-set on the record's `version`.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub async fn handoff(
        &self,
        partition: PartitionId,
        epoch: Epoch,
        version: PartitionVersion,
        log_end: u64,
    ) -> Result<Applied, ChangeError> {
        let from = self.node_id().clone();
        self.shared.change(Wish::Handoff { partition, version, epoch, from, log_end }).await
    }

    /// Says that this node leads `partition` and cannot get on: another replica is elected, and
    /// this one not again for a pause that grows each time, 2 s at first.
    ///
    /// Its lease ends before anything is sent, and permits that are out no longer confirm: another
    /// node may lead before this one learns of it. The lease holds again only when the record moved on
    /// and this node still leads under the same epoch: then the wish was refused, or comes too late to be
    /// followed.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`]; also when this node does not lead it any more, or no other could: then the
    /// lease holds again as soon as this node knows the record's next version. Refused because the record
    /// was another one by then, the lease holds again as soon as this node knows that record, if it
    /// leads by it. On every other error it stays ended until the record changes: call again.
    pub async fn report_stalled(&self, partition: PartitionId) -> Result<Applied, ChangeError> {
        let unknown = || ChangeError::Rejected(Rejected::UnknownPartition { partition });
        let record = self.partition_info(partition).ok_or_else(unknown)?;
        self.resign(partition, record.epoch, record.version).await
    }

    /// [`report_stalled`](Self::report_stalled) for those who keep their own order: gives up the leadership of
    /// `partition` in this `epoch`, and only if its record is at this `version` still. A compare-and-set.
    ///
    /// If the record that this node knows says that it leads in that epoch, its lease ends first, and holds
    /// again only under a newer version than `version`: name one that the topology has shown.
    ///
    /// # Errors
    ///
    /// As those of [`report_stalled`](Self::report_stalled). A record that has moved on refuses the wish, and
    /// nothing changes.
    pub async fn resign(
        &self,
        partition: PartitionId,
        epoch: Epoch,
        version: PartitionVersion,
    ) -> Result<Applied, ChangeError> {
        let unknown = || ChangeError::Rejected(Rejected::UnknownPartition { partition });
        let record = self.partition_info(partition).ok_or_else(unknown)?;
        let node = self.node_id().clone();
        if record.leader.as_ref() == Some(&node) && record.epoch == epoch {
            self.shared.leases.gate(partition).give_up(epoch, version);
            self.shared.leases_changed.send_modify(|count| *count += 1);
        }
        self.shared.change(Wish::Resign { partition, version, epoch, node }).await
    }

    /// Says that this node leads `partition` in `epoch` and nothing gets on: what it was given is not
    /// committed, or a majority of the in-sync set cannot reach it. The controller has another in-sync
    /// replica lead, if one can, and takes the leadership of a partition away in this manner only so often.
    ///
    /// This node goes on leading meanwhile, its lease holds, and it may yet get on: that is what
    /// [`report_progress`](Self::report_progress) is for. Said at once, and again from heartbeat to heartbeat
    /// until the record has another epoch or leader. Does nothing when that is so already.
    pub fn report_no_progress(&self, partition: PartitionId, epoch: Epoch) {
        self.shared.claims.say_stalled(partition, epoch);
    }

    /// Takes [`report_no_progress`](Self::report_no_progress) back. What the controller has heard counts for a
    /// second more.
    pub fn report_progress(&self, partition: PartitionId) {
        self.shared.claims.take_back_stalled(partition);
    }

    /// Says that what this node holds of `partition` under `uid` is damaged and set aside: the replica is to
    /// begin anew, under another uid, and to lead no longer. Said at once, and again from heartbeat to
    /// heartbeat until the topology has another replica of this node there, or none. Does nothing when that is
    /// so already.
    ///
    /// It is not kept on disk: after a restart name it by
    /// [`Builder::opening`]. Its lease ends as that of
    /// any deposed leader, so a leader that must not acknowledge anything more stops by itself.
    pub fn report_damaged(&self, partition: PartitionId, uid: ReplicaUid) {
        self.shared.claims.say_damaged(partition, uid);
    }

    /// Tells the program of node `to` something, without waiting and without an answer. See
    /// [`messages`](crate::messages).
    ///
    /// `Ok` says that it is queued: it is lost when the connection does not come about or ends, or when the
    /// other side does not take it. At most 1,024 messages and 64 MiB wait in a lane.
    ///
    /// # Errors
    ///
    /// Why it was not sent: [`UnknownNode`](MessageError::UnknownNode), [`TooLarge`](MessageError::TooLarge) or
    /// [`NotSent`](MessageError::NotSent).
    pub fn notify(&self, to: &NodeId, lane: Lane, body: Bytes) -> Result<(), MessageError> {
        messages::notify(&self.shared, to, lane, body)
    }

    /// Asks the program of node `to` and waits for its answer, at most for `timeout`, connecting and queueing
    /// included; an hour is the longest. See [`messages`](crate::messages).
    ///
    /// Dropping the future leaves open whether the request is carried out.
    ///
    /// # Errors
    ///
    /// [`MessageError`] says whether the request was sent, and whether it may have been carried out.
    pub async fn request(
        &self,
        to: &NodeId,
        lane: Lane,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, MessageError> {
        messages::request(&self.shared, to, lane, body, timeout).await
    }

    /// HTTP requests to other nodes by their ids, for the program's own routes. All callers share its
    /// connections.
    #[cfg(feature = "http-client")]
    #[must_use]
    pub fn http(&self) -> crate::http::HttpClient {
        let client = || crate::http::HttpClient::new(self.shared.topology.subscribe());
        self.shared.http.get_or_init(client).clone()
    }

    /// A gRPC channel to the public port of `node`, for the program's own services. It connects when it
    /// is used, and again when the connection broke; all callers share it. A node that moved to another
    /// address gets another channel.
    ///
    /// # Errors
    ///
    /// The node is not known, or its address is none.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime: a task drives the channel.
    #[cfg(feature = "grpc")]
    pub fn channel(&self, node: &NodeId) -> Result<tonic::transport::Channel, crate::grpc::ChannelError> {
        self.shared.channels.channel(&self.topology(), node)
    }

    /// What the rest of this crate reads for pages and metrics.
    #[cfg(feature = "http")]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

/// Where requests for a key go.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Route {
    /// This node leads it, and may write under this lease.
    Local(Lease),
    /// Another node leads it.
    Remote {
        /// The partition.
        partition: PartitionId,
        /// The fencing token, to be sent along.
        epoch: Epoch,
        /// Who leads.
        leader: Arc<Node>,
    },
    /// Nobody leads it just now: an election is under way, or no replica is left that could lead.
    NoLeader {
        /// The partition.
        partition: PartitionId,
    },
    /// This node leads it by the topology, and takes no writes just now: it begins to lead, hands over,
    /// or is out of touch with its cluster. [`ClusterKit::route_settled`] waits for what comes of it.
    Settling {
        /// The partition.
        partition: PartitionId,
        /// The fencing token.
        epoch: Epoch,
    },
    /// The cluster has not formed, or has no such partition.
    NotFormed,
}

impl Route {
    /// Whether it says where to go.
    fn is_settled(&self) -> bool {
        matches!(self, Self::Local(_) | Self::Remote { .. })
    }
}

/// This node does not know of a record's version, and did not learn of it in time. Nothing changed; try
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{partition} is not at version {version} here yet")]
pub struct NotAdopted {
    /// Which partition.
    pub partition: PartitionId,
    /// The version that was waited for.
    pub version: PartitionVersion,
}

/// Follows the topology. A slow follower sees the newest version and misses those between; the
/// difference is one [`diff`](Topology::diff) away.
#[derive(Debug, Clone)]
pub struct TopologyWatch(pub(crate) watch::Receiver<Arc<Topology>>);

impl TopologyWatch {
    /// The newest version.
    #[must_use]
    pub fn current(&self) -> Arc<Topology> {
        Arc::clone(&self.0.borrow())
    }

    /// Waits for a version that was not seen yet; `None` once the node is gone.
    pub async fn changed(&mut self) -> Option<Arc<Topology>> {
        self.0.changed().await.ok()?;
        Some(Arc::clone(&self.0.borrow_and_update()))
    }

    /// Waits until `wanted` holds; `None` once the node is gone.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&Topology) -> bool) -> Option<Arc<Topology>> {
        let found = self.0.wait_for(|topology| wanted(topology)).await.ok()?;
        Some(Arc::clone(&found))
    }
}
