//! The handle of a node's replicated partitions.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use clusterkit::net::{Clock, SystemClock};
use clusterkit::{Builder, ClusterKit};
use clusterkit_core::id::{Epoch, PartitionId, ReplicaUid};
use clusterkit_core::replica::{
    Config, Entry, Recovered, ReplicaKey, ReplicaStatus, Replicas, SessionConfig, SessionId,
};
use clusterkit_core::time::Instant;
use clusterkit_storage::disk::{Disk, RealDisk};
use clusterkit_storage::{shared_log, state_store};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::{Engine, Input};
use crate::error::{QueryError, WriteError};
use crate::events::EventHub;
use crate::gateway::Gateway;
use crate::hooks::Hooks;
use crate::limits::{INBOX_MAX, REQUESTS_MAX};
use crate::machine::StateMachine;
use crate::messages::Messages;
use crate::options::{Answered, ReadOptions, WriteOptions, Written};
use crate::router::Router;
use crate::shared::{Shared, Storage, StorageInbox};
use crate::snapshots::Incoming;
use crate::storage::{self, NodeStorage, OpenError, StateOptions, StorageError};
use crate::watch::Watch;

/// How a node keeps its replicated partitions.
#[derive(Debug, Clone)]
pub struct Options {
    dir: PathBuf,
    replicas: Config,
    sessions: SessionConfig,
    memory: bool,
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
}

impl Options {
    /// Everything below `dir`, which is created when the node starts. It is taken from the node's data directory on
    /// unless it is absolute. A directory serves one node.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            replicas: Config::default(),
            sessions: SessionConfig::default(),
            memory: false,
            clock: Arc::new(SystemClock),
            disk: Arc::new(RealDisk),
        }
    }

    /// The settings of replicas.
    #[must_use]
    pub fn replicas(mut self, config: Config) -> Self {
        self.replicas = config;
        self
    }

    /// The bounds of sessions. All nodes must have the same.
    #[must_use]
    pub fn sessions(mut self, config: SessionConfig) -> Self {
        self.sessions = config;
        self
    }

    /// Keeps state in memory alone: a node that starts has its replicas copied from the others. For caches.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.memory = true;
        self
    }

    /// Another clock and disk than the machine's: for tests. The node must have the same.
    #[must_use]
    pub fn environment(mut self, clock: Arc<dyn Clock>, disk: Arc<dyn Disk>) -> Self {
        self.clock = clock;
        self.disk = disk;
        self
    }
}

/// The replicated partitions of a node. Clones are handles on the same.
///
/// Give it to the node's builder, which opens what an earlier run left, and run it with the node:
///
/// ```no_run
/// # use clusterkit_data::{Data, Options, StateMachine};
/// # async fn example(machine: impl StateMachine) -> Result<(), Box<dyn std::error::Error>> {
/// let data = Data::new(Options::new("partitions"), machine);
/// let builder = clusterkit::ClusterKit::builder("node-1", "127.0.0.1:8080").data_dir("node-1");
/// let node = data.attach(builder).start().await?;
/// data.run(&node);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Data {
    shared: Arc<Shared>,
    begin: Arc<Mutex<Begin>>,
}

/// What is opened, and what the engine is begun with: each once.
struct Begin {
    options: Options,
    machine: Arc<dyn StateMachine>,
    inbox: Option<mpsc::Receiver<Input>>,
    /// Since when the process has the storage, and what it had.
    recovered: Option<(Instant, BTreeMap<ReplicaKey, Recovered>)>,
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Data").finish_non_exhaustive()
    }
}

// Beginning and ending.
impl Data {
    /// Touches nothing: what an earlier run left is opened when the node starts.
    #[must_use]
    pub fn new(options: Options, machine: impl StateMachine) -> Self {
        let (inbox, inputs) = mpsc::channel(INBOX_MAX);
        let shared = Arc::new(Shared {
            clock: options.clock.clone(),
            storage: OnceLock::new(),
            storage_events: Arc::new(StorageInbox::default()),
            inbox,
            events: EventHub::default(),
            incoming: Incoming::default(),
            gateway: Gateway::default(),
            requests: Semaphore::new(REQUESTS_MAX),
            node: OnceLock::new(),
            running: watch::Sender::new(false),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            failure: watch::Sender::new(None),
        });
        let begin = Begin { options, machine: Arc::new(machine), inbox: Some(inputs), recovered: None };
        Self { shared, begin: Arc::new(Mutex::new(begin)) }
    }

    /// Gives the node its hooks, what it hears from others, and what it opens before it begins: what an earlier run
    /// left. If that cannot be opened, the node does not start, and the source of its error is an [`OpenError`].
    pub fn attach(&self, builder: Builder) -> Builder {
        let data = self.clone();
        builder
            .handler(Hooks::new(self.shared.clone()))
            .messages(Messages::new(self.shared.clone()))
            .opening(move |data_dir| Ok(data.open(data_dir)?))
    }

    /// Opens what an earlier run left, or begins with nothing, and says what of it is damaged. Blocks for as long as
    /// reading the log takes.
    fn open(&self, data_dir: &Path) -> Result<BTreeMap<PartitionId, ReplicaUid>, OpenError> {
        let mut begin = self.begin.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shared.storage.get().is_some() {
            return Err(OpenError::OpenedBefore);
        }
        let Options { dir, sessions, memory, clock, disk, .. } = &begin.options;
        let started_at = clock.now();
        let state =
            if *memory { StateOptions::Memory } else { StateOptions::Disk(state_store::Options::default()) };
        let (identity, salt) = (random()?, random()?);
        let log = shared_log::Options::new(salt as u64);
        let opened =
            NodeStorage::open(disk, &data_dir.join(dir), &storage::Options { identity, log, state })?;
        if !opened.unnamed.is_empty() {
            let uids = &opened.unnamed;
            tracing::warn!(target: "clusterkit::data", ?uids, "damaged replicas of unknown partitions; they are copied anew if they are placed here");
        }
        let sink = self.shared.storage_events.clone();
        let tell = Arc::new(move |event| sink.push(event));
        let running = opened.storage.start(&begin.machine, sessions, tell).map_err(OpenError::Threads)?;
        self.shared.storage.get_or_init(|| Storage::new(running));
        let damaged = opened.recovered.iter().filter(|(_, recovered)| recovered.is_damaged());
        let damaged = damaged.map(|(key, _)| (key.partition, key.uid)).collect();
        begin.recovered = Some((started_at, opened.recovered));
        Ok(damaged)
    }

    /// Runs the replicas from the moment on in which `node` takes part in its cluster, until it stops. Does nothing if
    /// they run already, or the node's builder was not given to [`attach`](Self::attach).
    pub fn run(&self, node: &ClusterKit) {
        let mut begin = self.begin.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(storage) = self.shared.storage.get().map(|storage| storage.queues.clone()) else { return };
        let Some((started_at, recovered)) = begin.recovered.take() else { return };
        let inbox = begin.inbox.take().expect("it goes with what was recovered");
        let config = begin.options.replicas.clone();
        let (shared, node) = (self.shared.clone(), node.clone());
        // Requests may come as soon as it listens; they wait until the engine runs. It is set here only.
        drop(shared.node.set(node.clone()));
        self.shared.tracker.spawn(async move {
            if node.ready().await.is_err() {
                return shared.stop.cancel();
            }
            let (me, incarnation) = (node.node_id().clone(), node.incarnation());
            let replicas = Replicas::new(config, me, incarnation, started_at, recovered);
            let engine = Engine::new(shared.clone(), storage, node.clone(), replicas);
            shared.running.send_replace(true);
            tokio::select! {
                () = engine.run(inbox) => {}
                _ = node.stopped() => {}
            }
            shared.stop.cancel();
            if shared.failure.borrow().is_some() {
                node.stop().await;
            }
        });
    }

    /// Waits until the replicas run no more: the node stopped, or its disk failed, which `Err` says. Then nothing
    /// more is written to the disk.
    ///
    /// # Errors
    ///
    /// The failure of the disk. The node has to be started anew, and others serve meanwhile.
    pub async fn stopped(&self) -> Result<(), Arc<StorageError>> {
        self.shared.stop.cancelled().await;
        self.shared.tracker.close();
        self.shared.tracker.wait().await;
        let running = self.shared.storage.get().and_then(Storage::end);
        // Dropping it waits for its threads.
        drop(tokio::task::spawn_blocking(move || drop(running)).await);
        self.shared.failure.borrow().clone().map_or(Ok(()), Err)
    }

    fn router(&self) -> Router<'_> {
        Router::new(&self.shared)
    }
}

// Writing and reading.
impl Data {
    /// Writes to a partition, through whichever node leads it. While nobody does, it waits.
    ///
    /// With [`Ack::Quorum`](crate::Ack::Quorum) and [`Ack::All`](crate::Ack::All) an acknowledged write survives everything that leaves one in-sync
    /// replica. One without a session request is not repeated by the library where it may have taken effect.
    ///
    /// # Errors
    ///
    /// See [`WriteError`].
    pub async fn write(
        &self,
        partition: PartitionId,
        command: impl Into<Bytes>,
        options: &WriteOptions,
    ) -> Result<Written, WriteError> {
        let entry = Entry::Write { request: options.request, payload: command.into() };
        self.router().write(partition, entry, options).await
    }

    /// Opens a session with a partition, for writes that take effect once however often they are repeated. Not with
    /// [`Ack::Leader`](crate::Ack::Leader).
    ///
    /// # Errors
    ///
    /// See [`WriteError`]. A retry opens another one; the first expires by itself.
    pub async fn open_session(
        &self,
        partition: PartitionId,
        options: &WriteOptions,
    ) -> Result<SessionId, WriteError> {
        let options = WriteOptions { request: None, ..options.clone() };
        let written = self.router().write(partition, Entry::OpenSession, &options).await?;
        Ok(SessionId { epoch: written.epoch, offset: written.offset })
    }

    /// Asks the state of a partition.
    ///
    /// # Errors
    ///
    /// See [`QueryError`].
    pub async fn query(
        &self,
        partition: PartitionId,
        question: impl Into<Bytes>,
        options: &ReadOptions,
    ) -> Result<Answered, QueryError> {
        self.router().query(partition, question.into(), options).await
    }

    /// What state machines tell of commands from offset `from` on, in order, by this node's replica.
    #[must_use]
    pub fn watch(&self, partition: PartitionId, from: u64) -> Watch {
        Watch::new(self.shared.clone(), partition, from)
    }

    /// How this node's replica of a partition stands; `None` if it has none, or does not run.
    pub async fn status(&self, partition: PartitionId) -> Option<ReplicaStatus> {
        let (reply, status) = oneshot::channel();
        self.shared.tell(Input::Status { partition, reply }).await;
        status.await.ok().flatten()
    }

    /// The partition of a key; `None` before the cluster formed.
    #[must_use]
    pub fn partition(&self, key: &[u8]) -> Option<PartitionId> {
        self.shared.node.get()?.partition(key)
    }

    /// How far this node's replica of a partition is applied; `None` if it has none, or does not run.
    #[must_use]
    pub fn applied(&self, partition: PartitionId) -> Option<u64> {
        self.shared.events.applied(partition)
    }

    /// How many partitions there are; `None` before the cluster formed.
    #[must_use]
    pub fn partition_count(&self) -> Option<u32> {
        Some(self.shared.node.get()?.config()?.partition_count)
    }

    /// The node that they are part of; `None` before it took part in its cluster.
    #[must_use]
    pub fn node(&self) -> Option<&ClusterKit> {
        self.shared.node.get()
    }

    /// The epoch under which a partition is led, as this node knows.
    #[must_use]
    pub fn epoch(&self, partition: PartitionId) -> Option<Epoch> {
        Some(self.shared.node.get()?.partition_info(partition)?.epoch)
    }
}

fn random() -> Result<u128, OpenError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(OpenError::Randomness)?;
    Ok(u128::from_le_bytes(bytes))
}
