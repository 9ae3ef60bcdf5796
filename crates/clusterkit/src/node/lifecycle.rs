//! From settings to a member of a cluster, and to the end.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use clusterkit_core::forming::{Candidate, Greeting};
use clusterkit_core::id::{BootId, ClusterId, Incarnation, NodeId, StoreId};
use clusterkit_core::limits::VOTERS_MAX;
use clusterkit_core::topology::Topology;
use clusterkit_wire::hello;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::claims::Claims;
use super::cluster::{self, ClusterInput};
use super::controller::{self, ControllerInput, INBOX_MAX};
use super::identity::{DataDir, Membership};
use super::notes::ReplicaNotes;
use super::shared::{Counters, Phase, Shared, StageView, StopReason};
use super::stages::{self, StageRunner};
use super::{agent, campaign, register, service::NodeService};
use crate::builder::Settings;
use crate::coordinator::raft::{AddressBook, ELECTION_TIMEOUT_MAX, RaftGroup, RaftIdentity, RaftOptions};
use crate::error::StartError;
use crate::events::EventLog;
use crate::handle::ClusterKit;
use crate::lease::{Leases, Support};
use crate::transport::{Limits, ListenError, Options, Transport};

/// Greetings of others that may wait while this node looks for its cluster.
const CLUSTER_INBOX_MAX: usize = 256;
/// How long a founder waits for the first of them to make the group before it does so itself.
const INITIALIZE_PATIENCE: Duration = Duration::from_millis(2 * ELECTION_TIMEOUT_MAX.as_millis() as u64);
/// How long a seed may take to show which of our addresses reaches it.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the control plane may take to pass to another node when this one stops.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long tasks and hooks may take to end once they were told to.
const TASKS_TIMEOUT: Duration = Duration::from_secs(5);

struct Inboxes {
    /// Taken by the agent when it starts.
    agent: Option<agent::Inboxes>,
    cluster: mpsc::Receiver<ClusterInput>,
    controller: mpsc::Receiver<ControllerInput>,
}

/// Opens what the node needs and starts its tasks; returns as soon as it listens.
pub(crate) async fn launch(mut settings: Settings) -> Result<ClusterKit, StartError> {
    let node = settings.check()?;
    let store = StoreId(random_u64()?);
    let data_dir = DataDir::open(Arc::clone(&settings.disk), &settings.data_dir, &node, store)?;
    if let Some(opening) = settings.opening.take() {
        settings.replicas_damaged = opening.run(settings.data_dir.clone(), data_dir.lock()).await?;
    }
    let public_addr = reachable(&settings, &settings.public_addr).await;
    let (shared, inboxes) = share(settings, node, &data_dir, public_addr)?;
    let service = Arc::new(NodeService { shared: Arc::clone(&shared) });
    let options = Options {
        net: Arc::clone(&shared.settings.net),
        listen_addr: shared.settings.listen.clone(),
        identity: shared.identity.subscribe(),
        service,
        tracker: shared.tracker.clone(),
        stop: shared.stop.clone(),
        limits: Limits::default(),
    };
    let transport = Transport::start(options).await.map_err(listen_error)?;
    let local_addr = transport.local_addr().to_owned();
    shared.transport.get_or_init(|| transport);
    let advertised = shared.settings.advertise.clone().unwrap_or_else(|| local_addr.clone());
    let node_addr = reachable(&shared.settings, &with_port_of(&advertised, &local_addr)).await;
    shared.identity.send_modify(|identity| identity.node_addr = node_addr);
    // Not tracked: it waits for those that are.
    tokio::spawn(run(Arc::clone(&shared), data_dir, inboxes));
    Ok(ClusterKit::new(shared))
}

fn share(
    settings: Settings,
    node: NodeId,
    data_dir: &DataDir,
    public_addr: String,
) -> Result<(Arc<Shared>, Inboxes), StartError> {
    let store = data_dir.identity().store;
    let (cluster_inbox, cluster) = mpsc::channel(CLUSTER_INBOX_MAX);
    let (controller_inbox, controller) = mpsc::channel(INBOX_MAX);
    let (stage_inbox, stages) = mpsc::channel(stages::INBOX_MAX);
    let (support_inbox, support_heard) = mpsc::channel(agent::SUPPORT_INBOX_MAX);
    let support = Arc::new(Support::new(Arc::clone(&settings.clock)));
    let identity = hello::Identity {
        cluster: data_dir.identity().membership.as_ref().map(|membership| membership.cluster),
        cluster_name: settings.cluster_name.clone(),
        node: node.clone(),
        store,
        incarnation: Incarnation(0),
        // Known once the node listens; nobody is told before.
        node_addr: settings.listen.clone(),
        public_addr,
        software: settings.software.clone(),
    };
    let events = Arc::new(EventLog::new(Arc::clone(&settings.clock)));
    let topology = watch::Sender::new(Arc::new(Topology::default()));
    let shared = Shared {
        claims: Claims::new(node.clone(), topology.subscribe()),
        node,
        store,
        boot: BootId(random_u64()?),
        transport: OnceLock::new(),
        raft: OnceLock::new(),
        book: AddressBook::default(),
        identity: watch::Sender::new(identity),
        greeting: watch::Sender::new(None),
        topology,
        phase: watch::Sender::new(Phase::Looking),
        events,
        cluster_inbox,
        controller_inbox,
        leader_contact: Mutex::new(None),
        controller_backed: Mutex::new(None),
        governing: AtomicU64::new(0),
        unwanted: watch::Sender::new(None),
        leases: Leases::new(support),
        leases_changed: watch::Sender::new(0),
        adopted: watch::Sender::new(Arc::new(Topology::default())),
        stages: watch::Sender::new(StageView::default()),
        stage_inbox,
        support_inbox,
        counters: Counters::default(),
        #[cfg(feature = "http-client")]
        http: OnceLock::new(),
        #[cfg(feature = "grpc")]
        channels: crate::grpc::Channels::default(),
        tracker: TaskTracker::new(),
        stop: CancellationToken::new(),
        asked_to_stop: CancellationToken::new(),
        settings,
    };
    let agent = Some(agent::Inboxes { stages, support: support_heard });
    Ok((Arc::new(shared), Inboxes { agent, cluster, controller }))
}

fn listen_error(error: ListenError) -> StartError {
    match error {
        ListenError::Bind { addr, source } => StartError::Listen { addr, source: Arc::new(source) },
    }
}

fn random_u64() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| StartError::Randomness { source: Arc::new(error.into()) })?;
    // Zero is never an id, so that a field that was not set cannot pass for one.
    Ok(u64::from_le_bytes(bytes).max(1))
}

/// Lives until told to stop, or until something breaks.
async fn run(shared: Arc<Shared>, mut data_dir: DataDir, mut inboxes: Inboxes) {
    let reason = tokio::select! {
        error = live(&shared, &mut data_dir, &mut inboxes) => error,
        () = shared.asked_to_stop.cancelled() => StopReason::Asked,
        () = shared.stop.cancelled() => StopReason::Asked,
    };
    // Nobody waits for tasks that were not started.
    drop(inboxes);
    wind_down(&shared, &reason).await;
    free(&shared, data_dir);
    match &reason {
        StopReason::Failed(error) => {
            tracing::error!(target: "clusterkit::node", reason = %error, "the node has failed and stops");
        }
        StopReason::Left => {
            tracing::info!(target: "clusterkit::node", node = %shared.node, "this node has left the cluster");
        }
        StopReason::Asked | StopReason::NotStarted(_) => {}
    }
    shared.phase.send_replace(Phase::Stopped(reason));
}

/// Ends only by an error.
async fn live(shared: &Arc<Shared>, data_dir: &mut DataDir, inboxes: &mut Inboxes) -> StopReason {
    match become_member(shared, data_dir, inboxes).await {
        Ok(raft) => {
            let mut unwanted = shared.unwanted.subscribe();
            tokio::select! {
                failure = raft.failed() => StopReason::Failed(failure.into()),
                Ok(reason) = unwanted.wait_for(Option::is_some) => reason.clone().unwrap_or(StopReason::Asked),
            }
        }
        Err(error) => StopReason::NotStarted(error),
    }
}

async fn become_member(
    shared: &Arc<Shared>,
    data_dir: &mut DataDir,
    inboxes: &mut Inboxes,
) -> Result<RaftGroup, StartError> {
    let membership = match data_dir.identity().membership.clone() {
        Some(membership) => membership,
        None => cluster::find(shared, data_dir, &mut inboxes.cluster).await?,
    };
    belong(shared, &membership);
    shared.phase.send_replace(Phase::Registering);
    let raft = start_raft(shared, data_dir, &membership).await?;
    spawn_tasks(shared, &raft, &membership, inboxes);
    let incarnation = tokio::select! {
        incarnation = enter(shared, membership.cluster) => incarnation?,
        failure = raft.failed() => return Err(failure.into()),
    };
    start_agent(shared, data_dir, inboxes)?;
    shared.phase.send_replace(Phase::Ready);
    tracing::info!(target: "clusterkit::node", node = %shared.node, %incarnation, cluster = %membership.cluster, "ready");
    Ok(raft)
}

/// From now on hooks are called, and leases given.
fn start_agent(shared: &Arc<Shared>, data_dir: &DataDir, inboxes: &mut Inboxes) -> Result<(), StartError> {
    let inboxes = inboxes.agent.take().expect("a node starts once");
    let settings = &shared.settings;
    let (disk, io) = (Arc::clone(&settings.disk), settings.io.clone());
    let notes = ReplicaNotes::new(disk, &settings.data_dir, io, data_dir.lock());
    let runner = StageRunner::new(Arc::clone(shared), notes, shared.stage_inbox.clone())?;
    let agent = shared.tracker.spawn(agent::run(Arc::clone(shared), runner, inboxes));
    shared.tracker.spawn(end_with(Arc::clone(shared), agent));
    shared.tracker.spawn(observe(Arc::clone(shared)));
    // Those that the registration had no room for; the others have other uids by now.
    for (partition, uid) in &settings.replicas_damaged {
        shared.claims.say_damaged(*partition, *uid);
    }
    Ok(())
}

/// Tells those who watch the copies of other nodes, one event after the other.
async fn observe(shared: Arc<Shared>) {
    let stop = shared.stop.clone();
    stop.run_until_cancelled(tell_observer(shared)).await;
}

async fn tell_observer(shared: Arc<Shared>) {
    let Some(observer) = shared.settings.handler.observer.clone() else { return };
    let mut events = shared.events.subscribe(None);
    loop {
        match events.next().await {
            Some(Ok(event)) => observer.observe(&shared.node, &shared.topology(), &event.event).await,
            Some(Err(lost)) => {
                tracing::warn!(target: "clusterkit::hooks", %lost, "a watcher of replicas is too slow");
            }
            None => return,
        }
    }
}

/// Registers this run, and waits until it shows in this node's own topology.
async fn enter(shared: &Arc<Shared>, cluster: ClusterId) -> Result<Incarnation, StartError> {
    let incarnation = register::register(shared, cluster).await?;
    shared.identity.send_modify(|identity| identity.incarnation = incarnation);
    wait_until_visible(shared, incarnation).await?;
    Ok(incarnation)
}

/// From now on every hello and every greeting names the cluster.
fn belong(shared: &Shared, membership: &Membership) {
    for founder in membership.founders.iter().filter(|founder| founder.store != shared.store) {
        shared.book.note_first(founder.store, &founder.node_addr);
    }
    shared.book.set_founders(membership.founders.iter().map(|founder| founder.store));
    shared.identity.send_modify(|identity| identity.cluster = Some(membership.cluster));
    let me = Candidate { node: shared.node.clone(), store: shared.store, node_addr: shared.node_addr() };
    shared.greeting.send_modify(|greeting| {
        let earlier = greeting.take();
        *greeting = Some(formed_greeting(me, membership.cluster, membership.cluster_name.clone(), earlier));
    });
}

fn formed_greeting(
    me: Candidate,
    cluster: ClusterId,
    cluster_name: String,
    earlier: Option<Greeting>,
) -> Greeting {
    match earlier {
        Some(greeting) => Greeting { formed: Some(cluster), ..greeting },
        None => Greeting {
            candidate: me,
            cluster_name,
            expect: None,
            known: Vec::new(),
            vote: None,
            formed: Some(cluster),
        },
    }
}

async fn start_raft(
    shared: &Arc<Shared>,
    data_dir: &mut DataDir,
    membership: &Membership,
) -> Result<RaftGroup, StartError> {
    let identity = RaftIdentity {
        store: shared.store,
        cluster_name: membership.cluster_name.clone(),
        transport: shared.transport().clone(),
        book: shared.book.clone(),
        events: Arc::clone(&shared.events),
        clock: Arc::clone(&shared.settings.clock),
    };
    let (files, io) = (data_dir.open_raft()?, shared.settings.io.clone());
    let options = RaftOptions { files, io, lock: data_dir.lock(), identity };
    let raft = RaftGroup::start(options).await?;
    let raft = shared.raft.get_or_init(|| raft).clone();
    // A founder sees the first entry come about; who joins later is given a history.
    if raft.is_pristine().await && !membership.founders.is_empty() {
        shared.events.open();
    }
    initialize(shared, &raft, membership);
    Ok(raft)
}

/// The founders make the group: the first of them at once, the others if it does not.
fn initialize(shared: &Arc<Shared>, raft: &RaftGroup, membership: &Membership) {
    let founders: Vec<_> = membership.founders.iter().take(VOTERS_MAX).cloned().collect();
    let Some(place) = founders.iter().position(|founder| founder.store == shared.store) else { return };
    let voters: Vec<_> =
        founders.into_iter().map(|founder| (founder.store, founder.node, founder.node_addr)).collect();
    let (raft, stop) = (raft.clone(), shared.stop.clone());
    shared.tracker.spawn(async move {
        let patience = if place == 0 { Duration::ZERO } else { INITIALIZE_PATIENCE };
        let wait = async {
            tokio::time::sleep(patience).await;
            raft.initialize(&voters).await
        };
        tokio::select! {
            outcome = wait => if let Err(error) = outcome {
                tracing::warn!(target: "clusterkit::raft", %error, "the group was not made");
            },
            () = stop.cancelled() => {}
        }
    });
}

fn spawn_tasks(shared: &Arc<Shared>, raft: &RaftGroup, membership: &Membership, inboxes: &mut Inboxes) {
    let (_, closed) = mpsc::channel(1);
    let inbox = std::mem::replace(&mut inboxes.controller, closed);
    let reign =
        shared.tracker.spawn(controller::run(Arc::clone(shared), raft.clone(), membership.clone(), inbox));
    let publisher = shared.tracker.spawn(publish(Arc::clone(shared), raft.clone()));
    for task in [reign, publisher] {
        shared.tracker.spawn(end_with(Arc::clone(shared), task));
    }
    shared.tracker.spawn(campaign::run(Arc::clone(shared), raft.clone()));
}

/// A node whose controller or topology stands still must not go on as if it lived.
async fn end_with(shared: Arc<Shared>, task: tokio::task::JoinHandle<()>) {
    if task.await.is_err_and(|error| error.is_panic()) {
        shared.unwanted.send_replace(Some(StopReason::Failed(StartError::Panicked)));
    }
}

/// Publishes each applied state and notes where everybody listens.
async fn publish(shared: Arc<Shared>, raft: RaftGroup) {
    let mut views = raft.views();
    loop {
        let view = Arc::clone(&views.borrow_and_update());
        let known = shared.topology.borrow().version;
        if view.state.topology.version > known {
            note_addrs(&shared, &view.state.topology);
            shared.topology.send_replace(Arc::new(view.state.topology.clone()));
        }
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            () = shared.stop.cancelled() => return,
        }
    }
}

/// A record that changed says where its node listens now; one that did not may be older than what the
/// node said itself.
fn note_addrs(shared: &Shared, topology: &Topology) {
    shared.book.set_recorded(topology.nodes.values().map(|node| node.store));
    let earlier = shared.topology();
    for node in topology.nodes.values().filter(|node| node.store != shared.store) {
        let unchanged = earlier.node(&node.id).is_some_and(|known| known.boot == node.boot);
        if unchanged {
            shared.book.note_first(node.store, &node.node_addr);
        } else {
            shared.book.note(node.store, &node.node_addr);
        }
    }
}

/// Waits until this node's own topology shows this run of it.
async fn wait_until_visible(shared: &Shared, incarnation: Incarnation) -> Result<(), StartError> {
    let mut topology = shared.topology.subscribe();
    let visible = |topology: &Arc<Topology>| {
        topology.node(&shared.node).is_some_and(|node| node.incarnation >= incarnation)
    };
    // The sender lives as long as `shared` does.
    drop(topology.wait_for(visible).await);
    shared.events.open();
    let replaced = shared.topology().node(&shared.node).is_none_or(|node| node.incarnation > incarnation);
    if replaced {
        return Err(StartError::Replaced);
    }
    Ok(())
}

/// Ends everything that this run began, so that the next one finds neither its hooks nor its writes
/// under way. Each wait in here has a bound: what goes on after that, goes on without the node.
async fn wind_down(shared: &Arc<Shared>, reason: &StopReason) {
    if let Some(raft) = shared.raft.get() {
        if matches!(reason, StopReason::Asked | StopReason::Left) && !shared.stop.is_cancelled() {
            hand_over(shared, raft).await;
        }
        if matches!(reason, StopReason::Left) && !shared.stop.is_cancelled() {
            agent::release(shared).await;
        }
        if matches!(reason, StopReason::Asked) && !shared.stop.is_cancelled() {
            agent::seal(shared).await;
            // What is not sealed by now is given to others all the same.
            shared.leases.support().end();
            agent::say_goodbye(shared).await;
        }
        raft.shutdown().await;
    }
    shared.stop.cancel();
    shared.events.close();
    shared.tracker.close();
    if let Some(raft) = shared.raft.get() {
        raft.close_files().await;
    }
    if tokio::time::timeout(TASKS_TIMEOUT, shared.tracker.wait()).await.is_err() {
        tracing::warn!(target: "clusterkit::node", tasks = shared.tracker.len(), "stopping although hooks or tasks go on");
    }
}

/// Lets the next run into the data directory, once no hook of this one is under way.
fn free(shared: &Shared, data_dir: DataDir) {
    let tracker = shared.tracker.clone();
    if tracker.is_empty() {
        return;
    }
    tokio::spawn(async move {
        tracker.wait().await;
        drop(data_dir);
    });
}

/// A controller that stops lets another one take over first, so that nobody waits for a timeout.
async fn hand_over(shared: &Shared, raft: &RaftGroup) {
    let leadership = raft.leadership();
    if !leadership.is_me {
        return;
    }
    let topology = shared.topology();
    let live = |store: &StoreId| topology.nodes.values().any(|node| node.store == *store && node.is_live());
    let successor = raft.view().voters.iter().copied().find(|store| *store != shared.store && live(store));
    let Some(successor) = successor else { return };
    let passed = async {
        raft.transfer_leadership(successor).await.ok()?;
        raft.leadership_changed(leadership).await.then_some(())
    };
    if !matches!(tokio::time::timeout(HAND_OVER_TIMEOUT, passed).await, Ok(Some(()))) {
        tracing::warn!(target: "clusterkit::node", "the control plane was not handed over in time; the others will elect");
    }
}

/// `addr`, with the port that was chosen when it asks for any.
fn with_port_of(addr: &str, local: &str) -> String {
    match (addr.rsplit_once(':'), local.rsplit_once(':')) {
        (Some((host, "0")), Some((_, port))) => format!("{host}:{port}"),
        _ => addr.to_owned(),
    }
}

/// `addr` with a host that others can dial: an unspecified one becomes the address from which the
/// first seed is reached, or loopback where there is no seed.
async fn reachable(settings: &Settings, addr: &str) -> String {
    let Some((host, port)) = addr.rsplit_once(':') else { return addr.to_owned() };
    if !matches!(host, "" | "0.0.0.0" | "[::]" | "::" | "*") {
        return addr.to_owned();
    }
    for seed in &settings.seeds {
        let route = tokio::time::timeout(ROUTE_TIMEOUT, settings.net.local_host_towards(seed)).await;
        if let Ok(Ok(host)) = route {
            tracing::warn!(target: "clusterkit::node", %addr, %host, "the advertised address has no host; using the one that reaches {seed}");
            return format!("{host}:{port}");
        }
    }
    tracing::warn!(target: "clusterkit::node", %addr, "the advertised address has no host; using loopback, which other machines cannot reach");
    format!("127.0.0.1:{port}")
}

#[cfg(all(test, feature = "http", feature = "testing"))]
mod tests {
    use super::*;
    use crate::error::DataDirError;
    use crate::testing::{Cluster, PATIENCE};

    #[tokio::test(start_paused = true)]
    async fn what_a_stopped_node_could_not_end_keeps_its_directory_locked() {
        let mut cluster = Cluster::start(1).await;
        let (go_on, held) = tokio::sync::oneshot::channel::<()>();
        // As a hook that blocks its thread.
        let hook = cluster.node(1).shared().tracker.spawn(held);
        tokio::time::timeout(PATIENCE, cluster.node(1).stop()).await.expect("it stops");
        let error = cluster.builder(1).expect(1).start().await.unwrap_err();
        let StartError::DataDir(cause) = &error else { panic!("{error}") };
        assert!(matches!(**cause, DataDirError::InUse { .. }), "{error}");
        go_on.send(()).unwrap();
        hook.await.unwrap().unwrap();
        tokio::task::yield_now().await;
        cluster.launch([1], |builder| builder.expect(1)).await;
        cluster.ready(1).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_stops_without_waiting_for_anything_that_does_not_hang() {
        let mut cluster = Cluster::start(3).await;
        cluster.until(1, "healthy", |topology| topology.health(true).is_healthy()).await;
        for number in 1..=3 {
            let start = tokio::time::Instant::now();
            cluster.node(number).abort().await;
            assert!(start.elapsed() < HAND_OVER_TIMEOUT, "it took {:?}", start.elapsed());
            cluster.launch([number], |builder| builder.expect(3)).await;
            cluster.ready(number).await.unwrap();
        }
        for number in 1..=3 {
            let start = tokio::time::Instant::now();
            cluster.stop(number).await;
            assert!(start.elapsed() < HAND_OVER_TIMEOUT, "it took {:?}", start.elapsed());
        }
    }
}
