//! What the tasks of one node share. Each machine belongs to one task; what lies here are mailboxes,
//! published snapshots and cells that are set once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::control::{Applied, Registration};
use clusterkit_core::forming::Greeting;
use clusterkit_core::handoff::{self, Position, StageStatus};
use clusterkit_core::id::{BootId, ClusterId, Incarnation, NodeId, PartitionId, PartitionVersion, StoreId};
use clusterkit_core::limits::DAMAGED_REPLICAS_MAX;
use clusterkit_core::time::Instant;
use clusterkit_core::topology::{Node, Stage, Topology};
use clusterkit_wire::hello::{Class, Identity};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::agent::SupportHeard;
use super::claims::Claims;
use super::cluster::ClusterInput;
use super::controller::ControllerInput;
use super::message::{self, Join, JoinAnswer, Positions, Propose, ProposeAnswer, Standing, Wish, kind};
use super::stages::StageInput;
use crate::builder::Settings;
use crate::coordinator::raft::{AddressBook, RaftGroup};
use crate::error::{ChangeError, StartError};
use crate::events::EventLog;
use crate::lease::Leases;
use crate::transport::{Target, Transport};

/// How long a request to the controller may take, passing on included.
pub(crate) const CONTROLLER_TIMEOUT: Duration = Duration::from_secs(3);
/// The share of the time until a silent node is declared dead for which it counts as supported: clocks
/// may differ by the rest.
const SUPPORT_PERCENT: u32 = 90;
/// Between two looks for a controller.
const CONTROLLER_PAUSE: Duration = Duration::from_millis(50);

/// What the tasks share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) node: NodeId,
    pub(crate) store: StoreId,
    pub(crate) boot: BootId,
    pub(crate) transport: OnceLock<Transport>,
    pub(crate) raft: OnceLock<RaftGroup>,
    pub(crate) book: AddressBook,
    pub(crate) identity: watch::Sender<Identity>,
    pub(crate) greeting: watch::Sender<Option<Greeting>>,
    pub(crate) topology: watch::Sender<Arc<Topology>>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) events: Arc<EventLog>,
    pub(crate) cluster_inbox: mpsc::Sender<ClusterInput>,
    pub(crate) controller_inbox: mpsc::Sender<ControllerInput>,
    /// Who led the control plane when it was last heard, and when that was.
    pub(crate) leader_contact: Mutex<Option<(StoreId, Instant)>>,
    /// When a controller that a majority backs last answered this node.
    pub(crate) controller_backed: Mutex<Option<Instant>>,
    /// The term in which this node governs: it leads, and has applied all that came before. 0 for
    /// none.
    pub(crate) governing: AtomicU64,
    /// Why this node must end, though nobody asked it to.
    pub(crate) unwanted: watch::Sender<Option<StopReason>>,
    /// Who may write what, and until when.
    pub(crate) leases: Leases,
    /// Moves whenever a lease begins, pauses or ends.
    pub(crate) leases_changed: watch::Sender<u64>,
    /// The newest topology whose leases and replicas this node has brought about.
    pub(crate) adopted: watch::Sender<Arc<Topology>>,
    /// The hooks under way.
    pub(crate) stages: watch::Sender<StageView>,
    pub(crate) stage_inbox: mpsc::Sender<StageInput>,
    pub(crate) support_inbox: mpsc::Sender<SupportHeard>,
    /// What the program says of its replicas.
    pub(crate) claims: Claims,
    pub(crate) counters: Counters,
    /// Connections of the program to other nodes, once it asked for some.
    #[cfg(feature = "http-client")]
    pub(crate) http: OnceLock<crate::http::HttpClient>,
    #[cfg(feature = "grpc")]
    pub(crate) channels: crate::grpc::Channels,
    pub(crate) tracker: TaskTracker,
    /// The node shall stop in order: there is time to hand over.
    pub(crate) asked_to_stop: CancellationToken,
    /// Every task ends now.
    pub(crate) stop: CancellationToken,
}

/// What a node is doing.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// Looks for its cluster, or waits for the others to form it.
    Looking,
    /// Belongs to a cluster, and is not registered under its current run yet.
    Registering,
    /// Takes part.
    Ready,
    /// Ended, for this reason.
    Stopped(StopReason),
}

/// The hooks of a node, for whoever looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StageView {
    pub(crate) statuses: Vec<StageStatus>,
    /// Whether nothing waits to be released.
    pub(crate) is_released: bool,
}

/// Why a node ended.
#[derive(Debug, Clone)]
pub(crate) enum StopReason {
    /// It was told to.
    Asked,
    /// It gave everything away and has left its cluster.
    Left,
    /// It never became part of its cluster.
    NotStarted(StartError),
    /// It broke, or is not wanted any more.
    Failed(StartError),
}

impl StopReason {
    pub(crate) fn to_start_error(&self) -> StartError {
        match self {
            Self::Asked => StartError::Stopped,
            Self::Left => StartError::Left,
            Self::NotStarted(error) | Self::Failed(error) => error.clone(),
        }
    }

    pub(crate) fn to_result(&self) -> Result<(), StartError> {
        match self {
            Self::Asked | Self::Left => Ok(()),
            Self::NotStarted(_) | Self::Failed(_) => Err(self.to_start_error()),
        }
    }
}

/// Counters of one node, for metrics.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) proposals: AtomicU64,
    pub(crate) proposals_failed: AtomicU64,
    pub(crate) proposal_micros: AtomicU64,
    pub(crate) forwarded: Mutex<BTreeMap<NodeId, u64>>,
    pub(crate) forward_errors: AtomicU64,
    /// Hooks that were late, by stage.
    pub(crate) overruns: Mutex<BTreeMap<handoff::Stage, u64>>,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn overran(&self, stage: handoff::Stage) {
        *self.overruns.lock().unwrap_or_else(PoisonError::into_inner).entry(stage).or_default() += 1;
    }

    fn forwarded_to(&self, node: &NodeId) {
        *self.forwarded.lock().unwrap_or_else(PoisonError::into_inner).entry(node.clone()).or_default() += 1;
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn now(&self) -> Instant {
        self.settings.clock.now()
    }

    pub(crate) fn transport(&self) -> &Transport {
        self.transport.get().expect("the transport is set before any task starts")
    }

    pub(crate) fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology.borrow())
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.identity.borrow().incarnation
    }

    /// Whether this run has an incarnation.
    pub(crate) fn is_registered(&self) -> bool {
        self.identity.borrow().incarnation > Incarnation(0)
    }

    /// Where other nodes reach this one.
    pub(crate) fn node_addr(&self) -> String {
        self.identity.borrow().node_addr.clone()
    }

    /// Where clients reach this one.
    pub(crate) fn public_addr(&self) -> String {
        self.identity.borrow().public_addr.clone()
    }

    /// What this node says of itself when it registers.
    pub(crate) fn registration(&self) -> Registration {
        let replicas_damaged = &self.settings.replicas_damaged;
        Registration {
            node: self.node.clone(),
            store: self.store,
            boot: self.boot,
            damaged: replicas_damaged.len() > DAMAGED_REPLICAS_MAX,
            replicas_damaged: replicas_damaged
                .iter()
                .map(|(partition, uid)| (*partition, *uid))
                .take(DAMAGED_REPLICAS_MAX)
                .collect(),
            node_addr: self.node_addr(),
            public_addr: self.public_addr(),
            zone: self.settings.zone.clone(),
            weight: self.settings.weight,
            role: self.settings.role,
            holds_data: self.settings.holds_data,
            reports_position: self.settings.handler.handler.reports_position(),
            software: self.settings.software.clone(),
            metadata: self.settings.metadata.clone(),
        }
    }

    /// The controller as this node knows it: `None` when none is known, `Some(None)` when it is this
    /// node, else its address and name.
    pub(crate) fn controller(&self) -> Option<Option<Target>> {
        let raft = self.raft.get()?;
        let leadership = raft.leadership();
        if leadership.is_me {
            return Some(None);
        }
        let store = leadership.leader?;
        let topology = self.topology();
        let known = topology.nodes.values().find(|node| node.store == store);
        let addr = self.book.addr(store).or_else(|| known.map(|node| node.node_addr.clone()));
        let member = || raft.view().members.get(&store).map(|(_, addr)| addr.clone());
        Some(Some(Target { addr: addr.or_else(member)?, node: known.map(|node| node.id.clone()) }))
    }

    /// The name of the controller, as far as it is known.
    pub(crate) fn controller_node(&self) -> Option<NodeId> {
        let leader = self.raft.get()?.leadership().leader?;
        let topology = self.topology();
        topology.nodes.values().find(|node| node.store == leader).map(|node| node.id.clone())
    }

    /// Lets a node in, or passes its wish on to the controller.
    pub(crate) async fn join(&self, join: Join) -> JoinAnswer {
        match self.controller() {
            Some(None) => {
                let (reply, answer) = oneshot::channel();
                self.ask_myself(ControllerInput::Join { join: Box::new(join), reply }, answer)
                    .await
                    .unwrap_or(JoinAnswer::TryAgain)
            }
            Some(Some(target)) if !join.forwarded => {
                let join = Join { forwarded: true, ..join };
                self.forward(&target, kind::JOIN, message::encode(&join))
                    .await
                    .unwrap_or(JoinAnswer::TryAgain)
            }
            _ => JoinAnswer::TryAgain,
        }
    }

    /// Has a wish written by the controller, here or where it is.
    pub(crate) async fn propose(&self, propose: Propose) -> ProposeAnswer {
        match self.controller() {
            Some(None) => {
                let (reply, answer) = oneshot::channel();
                let input = ControllerInput::Propose { wish: propose.wish, reply };
                self.ask_myself(input, answer).await.unwrap_or(ProposeAnswer::Unknown)
            }
            Some(Some(target)) if !propose.forwarded => {
                let propose = Propose { forwarded: true, ..propose };
                self.forward(&target, kind::PROPOSE, message::encode(&propose))
                    .await
                    .unwrap_or(ProposeAnswer::Unknown)
            }
            _ => ProposeAnswer::NoController,
        }
    }

    /// [`propose`](Self::propose), with the answer as a result. Waits a little for a controller while
    /// the control plane passes from one node to another: nothing is written meanwhile.
    pub(crate) async fn change(&self, wish: Wish) -> Result<Applied, ChangeError> {
        let deadline = tokio::time::Instant::now() + CONTROLLER_TIMEOUT;
        loop {
            if self.stop.is_cancelled() {
                return Err(ChangeError::Stopped);
            }
            match self.propose(Propose { wish: wish.clone(), forwarded: false }).await {
                ProposeAnswer::Done(outcome) => return Ok(outcome?),
                ProposeAnswer::Unknown => return Err(ChangeError::OutcomeUnknown),
                ProposeAnswer::NoController if tokio::time::Instant::now() >= deadline => {
                    return Err(ChangeError::NoController);
                }
                ProposeAnswer::NoController => tokio::time::sleep(CONTROLLER_PAUSE).await,
            }
        }
    }

    async fn ask_myself<T>(&self, input: ControllerInput, answer: oneshot::Receiver<T>) -> Option<T> {
        self.controller_inbox.try_send(input).ok()?;
        tokio::time::timeout(CONTROLLER_TIMEOUT, answer).await.ok()?.ok()
    }

    async fn forward<T: serde::de::DeserializeOwned>(
        &self,
        target: &Target,
        message_kind: u8,
        body: Bytes,
    ) -> Option<T> {
        if let Some(node) = &target.node {
            self.counters.forwarded_to(node);
        }
        let answer =
            self.transport().call(target, Class::Control, message_kind, body, CONTROLLER_TIMEOUT).await;
        let decoded = answer.ok().and_then(|body| message::decode(&body).ok());
        if decoded.is_none() {
            Counters::add(&self.counters.forward_errors, 1);
        }
        decoded
    }

    /// Notes where a node that spoke listens, when it is of this node's cluster. A node that has none
    /// yet notes everybody: it cannot know with whom it will have one.
    pub(crate) fn note_peer(&self, peer: &Identity, cluster: Option<ClusterId>) {
        let own = self.identity.borrow().cluster;
        if (own.is_none() || cluster == own) && !self.is_pretender(peer) {
            self.book.note(peer.store, &peer.node_addr);
        }
    }

    /// Whether a run that is not registered claims the store of a node that lives elsewhere: perhaps
    /// a copy of its data directory, to which not one Raft message may go. The controller decides
    /// which of the two is let in; without one, nodes that all moved must find each other first.
    fn is_pretender(&self, peer: &Identity) -> bool {
        let topology = self.topology();
        let known = topology.node(&peer.node).filter(|known| known.store == peer.store);
        let lives_elsewhere = |known: &Node| {
            known.is_live() && known.node_addr != peer.node_addr && known.incarnation > peer.incarnation
        };
        known.is_some_and(lives_elsewhere) && self.has_controller()
    }

    /// Notes that the control plane's leader spoke.
    pub(crate) fn note_leader_contact(&self, store: StoreId) {
        let contact = (store, self.now());
        *self.leader_contact.lock().unwrap_or_else(PoisonError::into_inner) = Some(contact);
    }

    /// Whether this node is in touch with a controller that a majority backs.
    pub(crate) fn has_controller(&self) -> bool {
        if self.is_in_charge() {
            return true;
        }
        let backed = *self.controller_backed.lock().unwrap_or_else(PoisonError::into_inner);
        backed.is_some_and(|at| self.now().since(at) < self.patience())
    }

    /// Whether this node leads the control plane and a majority answered it lately.
    pub(crate) fn is_in_charge(&self) -> bool {
        let Some(raft) = self.raft.get() else { return false };
        if !raft.leadership().is_me {
            return false;
        }
        let governs = self.governing.load(Ordering::Relaxed) == raft.leadership().term;
        governs && raft.quorum_age().is_some_and(|age| age < self.patience())
    }

    /// For how long from now nobody else is given what a node leads that spoke just now; `None` unless
    /// this node is in charge.
    ///
    /// Another controller may have been elected since a majority last answered this one. It counts
    /// everybody's silence from then at the earliest, so support counts from then too.
    pub(crate) fn support_given(&self) -> Option<Duration> {
        let raft = self.raft.get().filter(|_| self.is_in_charge())?;
        let span = self.patience() / 100 * SUPPORT_PERCENT;
        span.checked_sub(raft.quorum_age()?)
    }

    /// What user code says of how much these replicas have, once this node knows the records by which it
    /// is asked: by an older one it may hold another placement. What is not said in the time that an
    /// election waits for it is not waited for here either.
    pub(crate) async fn positions(&self, asked: &BTreeMap<PartitionId, PartitionVersion>) -> Positions {
        let incarnation = self.incarnation();
        let patience = self.settings.controller.position_timeout;
        let asked = asked.iter().map(|(partition, version)| async move {
            let position = tokio::time::timeout(patience, self.position(*partition, *version)).await;
            position.ok().map(|position| (*partition, position))
        });
        let positions = futures_util::future::join_all(asked).await.into_iter().flatten().collect();
        Positions { incarnation, positions }
    }

    async fn position(&self, partition: PartitionId, version: PartitionVersion) -> Option<Position> {
        self.until_known(partition, version).await;
        self.settings.handler.handler.position(partition).await
    }

    async fn until_known(&self, partition: PartitionId, version: PartitionVersion) {
        let known = |topology: &Arc<Topology>| {
            topology.partition(partition).is_some_and(|record| record.version >= version)
        };
        // The sender lives as long as `self` does.
        drop(self.adopted.subscribe().wait_for(known).await);
    }

    /// Waits until this node has adopted `version` of the partition's record: every write that it lets
    /// in from then on goes by it, and none that does not is under way any more.
    pub(crate) async fn adopted(&self, partition: PartitionId, version: PartitionVersion) {
        self.until_known(partition, version).await;
        self.leases.gate(partition).adopted(version).await;
    }

    /// The controller answered a heartbeat, and a majority backs it.
    pub(crate) fn note_controller_backed(&self) {
        let now = self.now();
        *self.controller_backed.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// A node that is not wanted any more ends: whatever it still did would be against the topology.
    pub(crate) fn note_standing(&self, standing: Standing) {
        let reason = match standing {
            Standing::Known => return,
            Standing::Left => StopReason::Left,
            // Its record may be deleted before it learns that it has left.
            Standing::Removed if self.was_leaving() => StopReason::Left,
            Standing::Removed => StopReason::Failed(StartError::Removed),
            Standing::Replaced => StopReason::Failed(StartError::Replaced),
        };
        self.unwanted.send_replace(Some(reason));
    }

    fn was_leaving(&self) -> bool {
        self.topology().node(&self.node).is_some_and(|node| node.stage != Stage::Member)
    }

    fn patience(&self) -> Duration {
        self.settings.controller.detector.dead_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{SuspendClock, WallTime};
    use crate::testing::{Cluster, PATIENCE, SimDisk};

    #[tokio::test(start_paused = true)]
    async fn a_controller_whose_machine_slept_supports_nobody_before_a_majority_answers() {
        let clock = Arc::new(SuspendClock::new(WallTime(0)));
        let mut cluster = Cluster::new();
        let (net, slept) = (cluster.net().clone(), Arc::clone(&clock));
        cluster
            .launch([1], |builder| {
                let net = Arc::new(net.host("node-1"));
                builder.expect(3).environment(slept.clone(), net, Arc::new(SimDisk::new()))
            })
            .await;
        cluster.launch([2, 3], |builder| builder.expect(3)).await;
        cluster.until(1, "healthy", |topology| topology.health(true).is_healthy()).await;
        let shared = Arc::clone(cluster.node(1).shared());
        let raft = shared.raft.get().unwrap();
        tokio::time::timeout(PATIENCE, async {
            while shared.support_given().is_none() {
                raft.campaign(raft.leadership().term).await;
                tokio::time::sleep(Duration::from_secs(2)).await; // tidy: the clock is paused
            }
        })
        .await
        .expect("it is elected");
        clock.suspend(Duration::from_secs(60));
        assert_eq!(shared.support_given(), None);
        assert!(!shared.is_in_charge());
        tokio::time::sleep(Duration::from_secs(1)).await; // tidy: the clock is paused
        assert!(shared.support_given().is_some(), "the others follow it still");
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_is_sent_nothing_that_is_for_its_living_original() {
        let cluster = Cluster::start(3).await;
        cluster.until(1, "healthy", |topology| topology.health(true).is_healthy()).await;
        let (shared, original) = (cluster.node(1).shared(), cluster.node(2).shared());
        // A heartbeat that was answered tells node-1 that there is a controller.
        tokio::time::sleep(shared.patience()).await; // tidy: the clock is paused
        let own = original.identity.borrow().clone();
        let copy = Identity { incarnation: Incarnation(0), node_addr: "elsewhere:7000".to_owned(), ..own };
        shared.note_peer(&copy, copy.cluster);
        assert_eq!(shared.book.addr(original.store).as_deref(), Some("node-2:7000"));
        let registered = Identity { incarnation: original.incarnation().next(), ..copy };
        shared.note_peer(&registered, registered.cluster);
        assert_eq!(shared.book.addr(original.store).as_deref(), Some("elsewhere:7000"));
    }

    #[tokio::test(start_paused = true)]
    async fn only_nodes_of_the_own_cluster_are_noted_once_there_is_one() {
        let mut cluster = Cluster::start(1).await;
        cluster.launch([2], |builder| builder.seeds(["nowhere:7000"])).await;
        let (member, looking) = (cluster.node(1).shared(), cluster.node(2).shared());
        let own = member.identity.borrow().clone();
        let stranger = |store: u64| Identity { store: StoreId(store), cluster: None, ..own.clone() };
        let check = |shared: &Shared, cluster: Option<ClusterId>, expect: bool| {
            let peer = stranger(7);
            shared.note_peer(&peer, cluster);
            assert_eq!(shared.book.addr(peer.store).is_some(), expect, "{cluster:?}");
        };
        check(member, None, false);
        check(member, Some(ClusterId(1)), false);
        check(member, own.cluster, true);
        check(looking, Some(ClusterId(1)), true);
        let other = stranger(8);
        looking.note_peer(&other, None);
        assert!(looking.book.addr(other.store).is_some());
    }
}
