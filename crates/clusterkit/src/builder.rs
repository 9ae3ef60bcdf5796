//! From settings to a running node.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::control::ControllerConfig;
use clusterkit_core::hash::KeyHash;
use clusterkit_core::id::{NodeId, PartitionId, ReplicaUid};
use clusterkit_core::limits::{
    CLUSTER_NAME_BYTES_MAX, EXPECT_MAX, METADATA_ENTRIES_MAX, PARTITIONS_MAX, REPLICATION_FACTOR_MAX,
    TEXT_BYTES_MAX, WEIGHT_MAX,
};
use clusterkit_core::placement::Strategy;
use clusterkit_core::topology::{Node, RaftRole};
use clusterkit_storage::disk::{Disk, RealDisk};
#[cfg(any(test, feature = "testing"))]
use tokio::sync::watch;

use crate::coordinator::raft::IoMode;
use crate::error::{InvalidSettings, OpeningError, StartError};
use crate::handle::ClusterKit;
use crate::hooks::{
    HookConfig, Installed, NoData, OnPartitionChange, PartitionHandler, SixHooks, StageResult,
};
use crate::messages::{self, MessageHandler};
use crate::net::{Clock, Net, SystemClock, TcpNet};
use crate::opening::Opening;

/// The node address where none is given: this machine only, until the connections between nodes are
/// encrypted.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:7000";
/// The data directory where none is given.
pub const DATA_DIR_DEFAULT: &str = "./clusterkit-data";
/// The cluster name where none is given.
pub const CLUSTER_NAME_DEFAULT: &str = "clusterkit-cluster";
/// How long a node looks for its cluster before it gives up.
pub const JOIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(120);

/// Builds a node: two required fields, everything else has a default.
///
/// ```no_run
/// # async fn example() -> Result<(), clusterkit::StartError> {
/// let ck = clusterkit::ClusterKit::builder("node-1", "127.0.0.1:8080").start().await?;
/// println!("{:?}", ck.partition(b"user:1"));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    pub(crate) settings: Settings,
}

/// Everything a node is told. The builder's methods say what each means.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) node: String,
    pub(crate) public_addr: String,
    pub(crate) listen: String,
    pub(crate) advertise: Option<String>,
    pub(crate) data_dir: PathBuf,
    pub(crate) cluster_name: String,
    pub(crate) seeds: Vec<String>,
    pub(crate) expect: Option<u32>,
    pub(crate) partitions: Option<u32>,
    pub(crate) replication_factor: Option<u32>,
    pub(crate) key_hash: Option<KeyHash>,
    pub(crate) strategy: Option<Strategy>,
    pub(crate) zone: Option<String>,
    pub(crate) weight: u32,
    pub(crate) role: RaftRole,
    pub(crate) holds_data: bool,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) controller: ControllerConfig,
    pub(crate) join_timeout: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) net: Arc<dyn Net>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) io: IoMode,
    pub(crate) software: String,
    pub(crate) handler: Installed,
    pub(crate) hooks: HookConfig,
    pub(crate) messages: Option<messages::Installed>,
    pub(crate) opening: Option<Opening>,
    /// What the opening step found.
    pub(crate) replicas_damaged: BTreeMap<PartitionId, ReplicaUid>,
}

impl Builder {
    pub(crate) fn new(node: &str, public_addr: &str) -> Self {
        Self {
            settings: Settings {
                node: node.to_owned(),
                public_addr: public_addr.to_owned(),
                listen: LISTEN_DEFAULT.to_owned(),
                advertise: None,
                data_dir: PathBuf::from(DATA_DIR_DEFAULT),
                cluster_name: CLUSTER_NAME_DEFAULT.to_owned(),
                seeds: Vec::new(),
                expect: None,
                partitions: None,
                replication_factor: None,
                key_hash: None,
                strategy: None,
                zone: None,
                weight: 1,
                role: RaftRole::Voter,
                holds_data: true,
                metadata: BTreeMap::new(),
                controller: ControllerConfig::default(),
                join_timeout: JOIN_TIMEOUT_DEFAULT,
                clock: Arc::new(SystemClock),
                net: Arc::new(TcpNet),
                disk: Arc::new(RealDisk),
                io: IoMode::Thread,
                software: env!("CARGO_PKG_VERSION").to_owned(),
                handler: Installed::asked(NoData),
                hooks: HookConfig::default(),
                messages: None,
                opening: None,
                replicas_damaged: BTreeMap::new(),
            },
        }
    }

    /// Where this node listens for other nodes, default [`LISTEN_DEFAULT`]. Port 0 chooses a free
    /// one.
    pub fn listen(mut self, addr: &str) -> Self {
        addr.clone_into(&mut self.settings.listen);
        self
    }

    /// Where other nodes reach this one, default what it listens on. An unspecified host (`:7000`,
    /// `0.0.0.0:7000`) becomes the local address of the connection to a seed.
    pub fn advertise(mut self, addr: &str) -> Self {
        self.settings.advertise = Some(addr.to_owned());
        self
    }

    /// Where the node keeps what must survive it, default [`DATA_DIR_DEFAULT`]. A directory belongs
    /// to one node of one cluster.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.settings.data_dir = dir.into();
        self
    }

    /// The cluster's name, default [`CLUSTER_NAME_DEFAULT`]. Nodes of another name never join.
    pub fn cluster_name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.settings.cluster_name);
        self
    }

    /// Other nodes' addresses, node or public: any that lives is enough. Without seeds the node
    /// forms a cluster of its own.
    pub fn seeds<S: Into<String>>(mut self, seeds: impl IntoIterator<Item = S>) -> Self {
        self.settings.seeds = seeds.into_iter().map(Into::into).collect();
        self
    }

    /// How many nodes shall form the cluster together. Without it a node that has seeds only joins,
    /// and one without seeds forms alone. All of them must be told the same number.
    pub fn expect(mut self, nodes: u32) -> Self {
        self.settings.expect = Some(nodes);
        self
    }

    /// The number of partitions, default 64, fixed when the cluster forms. A later node that is told
    /// another number is refused.
    pub fn partitions(mut self, count: u32) -> Self {
        self.settings.partitions = Some(count);
        self
    }

    /// Copies of each partition, leader included, default 3. Only the nodes that form the cluster
    /// are asked.
    pub fn replication_factor(mut self, copies: u32) -> Self {
        self.settings.replication_factor = Some(copies);
        self
    }

    /// From key to partition, default CRC16 slots. Only the nodes that form the cluster are asked.
    pub fn key_hash(mut self, key_hash: KeyHash) -> Self {
        self.settings.key_hash = Some(key_hash);
        self
    }

    /// How the first table is laid out, default balanced. Only the nodes that form the cluster are
    /// asked.
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.settings.strategy = Some(strategy);
        self
    }

    /// This node's failure domain: copies of a partition lie in different zones where that is
    /// feasible.
    pub fn zone(mut self, zone: &str) -> Self {
        self.settings.zone = Some(zone.to_owned());
        self
    }

    /// This node's share of the partitions relative to the others, 1 to 1,000, default 1.
    pub fn weight(mut self, weight: u32) -> Self {
        self.settings.weight = weight;
        self
    }

    /// Whether it may vote in the control plane, default that it may.
    pub fn role(mut self, role: RaftRole) -> Self {
        self.settings.role = role;
        self
    }

    /// Whether partitions are placed on it, default that they are. A voter without data is a
    /// witness.
    pub fn holds_data(mut self, holds: bool) -> Self {
        self.settings.holds_data = holds;
        self
    }

    /// Text that is shown with the node and never read by ClusterKit.
    pub fn metadata(mut self, key: &str, value: &str) -> Self {
        self.settings.metadata.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The controller's timeouts and limits. Every node should be told the same, since any of them
    /// may become the controller.
    pub fn controller(mut self, config: ControllerConfig) -> Self {
        self.settings.controller = config;
        self
    }

    /// How long the node looks for its cluster, default two minutes, before
    /// [`start`](Self::start) fails and says what each seed answered.
    pub fn join_timeout(mut self, timeout: Duration) -> Self {
        self.settings.join_timeout = timeout;
        self
    }

    /// The release shown for this node, default this library's. Programs that embed it may show
    /// their own.
    pub fn software(mut self, version: &str) -> Self {
        version.clone_into(&mut self.settings.software);
        self
    }

    /// What keeps the data of this node's partitions: its hooks are awaited before ownership moves. See
    /// [`hooks`](crate::hooks). Without one, everything is agreed to at once.
    pub fn handler(mut self, handler: impl PartitionHandler) -> Self {
        self.settings.handler = Installed::asked(handler);
        self
    }

    /// One hook instead of a handler: called with the partition, whom to copy it from, and whom it goes
    /// to. On the node that it goes to it is awaited, and the copy counts as made once it said `Ok`; on
    /// the others it is for information.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), clusterkit::StartError> {
    /// let ck = clusterkit::ClusterKit::builder("node-1", "127.0.0.1:8080")
    ///     .on_partition_change(|partition, copy_from, copy_to| async move {
    ///         if let (Some(source), "node-1") = (copy_from, copy_to.id.as_str()) {
    ///             println!("copying {partition} from {}", source.public_addr);
    ///         }
    ///         Ok(())
    ///     })
    ///     .start()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn on_partition_change<F, R>(mut self, hook: F) -> Self
    where
        F: Fn(PartitionId, Option<Arc<Node>>, Arc<Node>) -> R + Send + Sync + 'static,
        R: Future<Output = StageResult> + Send + 'static,
    {
        self.settings.handler = Installed::told(OnPartitionChange::new(hook));
        self
    }

    /// Six hooks instead of a handler, each of which may be left out.
    pub fn six_hooks(mut self, hooks: SixHooks) -> Self {
        self.settings.handler = Installed::told(hooks);
        self
    }

    /// How long hooks may take, and how many copies are made at once.
    pub fn hook_config(mut self, config: HookConfig) -> Self {
        self.settings.hooks = config;
        self
    }

    /// Who takes what the programs of other nodes send to this one. See [`messages`](crate::messages).
    /// Without one, they are told that this node takes no messages.
    pub fn messages(mut self, handler: impl MessageHandler) -> Self {
        self.settings.messages = Some(messages::Installed::new(handler));
        self
    }

    /// Opens what the program keeps of its partitions: called once, on a thread that may block, with the data
    /// directory, which is locked and belongs to this node by then. Nobody hears of the node before it returns.
    ///
    /// It gives the replicas that it found damaged, each under the uid that it had: they begin anew under other
    /// uids, before anything is asked of them, and lead nothing until they have caught up. What has another uid
    /// by then is left alone. Above 1,024 the node says that all of it may be damaged, so that none of its
    /// replicas is elected as it is, and reports the rest once it runs. What is found later is for
    /// [`ClusterKit::report_damaged`].
    ///
    /// Clones of a builder share the step: the first node that comes to it takes it, and another one is refused.
    ///
    /// ```no_run
    /// # use std::collections::BTreeMap;
    /// # async fn example() -> Result<(), clusterkit::StartError> {
    /// let ck = clusterkit::ClusterKit::builder("node-1", "127.0.0.1:8080")
    ///     .opening(|data_dir| {
    ///         std::fs::create_dir_all(data_dir.join("partitions"))?;
    ///         Ok(BTreeMap::new())
    ///     })
    ///     .start()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn opening<F>(mut self, step: F) -> Self
    where
        F: FnOnce(&Path) -> Result<BTreeMap<PartitionId, ReplicaUid>, OpeningError> + Send + 'static,
    {
        self.settings.opening = Some(Opening::new(step));
        self
    }

    /// Another clock, network or disk than the machine's: for tests.
    #[cfg(any(test, feature = "testing"))]
    pub fn environment(mut self, clock: Arc<dyn Clock>, net: Arc<dyn Net>, disk: Arc<dyn Disk>) -> Self {
        self.settings.clock = clock;
        self.settings.net = net;
        self.settings.disk = disk;
        self.settings.io = IoMode::task();
        self
    }

    /// How much of the runtime's time each sync of the control plane's files takes: for tests of slow
    /// disks. It goes after [`environment`](Self::environment).
    #[cfg(any(test, feature = "testing"))]
    pub fn sync_time(mut self, sync_time: watch::Receiver<Duration>) -> Self {
        self.settings.io = IoMode::Task { sync_time };
        self
    }

    /// Starts the node and waits until it is part of its cluster and knows the topology.
    ///
    /// # Errors
    ///
    /// The node has stopped. After [`StartError::Settings`] nothing was touched, and what a
    /// [`DataDir`](StartError::DataDir) leaves is said at [`DataDirError`](crate::DataDirError). After any
    /// other error the data directory may have been made for this node, and what was written down on the
    /// way stays, to be gone on from by a later start: a vote for a cluster to be formed, the cluster
    /// that was found, its control-plane log.
    pub async fn start(self) -> Result<ClusterKit, StartError> {
        let node = self.launch().await?;
        node.ready().await?;
        Ok(node)
    }

    /// Starts the node and returns as soon as it listens: its health can be served while it looks
    /// for its cluster. Await [`ClusterKit::ready`] before using it.
    ///
    /// # Errors
    ///
    /// As those of [`start`](Self::start), for what happens before the node listens:
    /// [`Settings`](StartError::Settings), [`DataDir`](StartError::DataDir), [`Opening`](StartError::Opening),
    /// [`Randomness`](StartError::Randomness) and [`Listen`](StartError::Listen).
    pub async fn launch(self) -> Result<ClusterKit, StartError> {
        self.settings.check()?;
        crate::node::launch(self.settings).await
    }
}

/// Characters of a bad text that an error shows.
const SHOWN_CHARS_MAX: usize = 40;

impl Settings {
    /// Whether the values can be meant. Nothing was touched when they cannot.
    pub(crate) fn check(&self) -> Result<NodeId, InvalidSettings> {
        let node = NodeId::new(&self.node)
            .map_err(|source| InvalidSettings::NodeId { name: self.node.clone(), source })?;
        check_addr("the public address", &self.public_addr)?;
        check_addr("the listen address", &self.listen)?;
        if let Some(advertise) = &self.advertise {
            check_addr("the advertised address", advertise)?;
        }
        for seed in &self.seeds {
            check_addr("a seed", seed)?;
        }
        if self.cluster_name.is_empty()
            || self.cluster_name.len() > CLUSTER_NAME_BYTES_MAX
            || self.cluster_name.contains(char::is_control)
        {
            return Err(InvalidSettings::ClusterName);
        }
        check_range("expect", self.expect, EXPECT_MAX)?;
        check_range("partitions", self.partitions, PARTITIONS_MAX)?;
        check_range("replication_factor", self.replication_factor, REPLICATION_FACTOR_MAX)?;
        check_range("weight", Some(self.weight), WEIGHT_MAX)?;
        let texts = [&self.public_addr, &self.listen, &self.cluster_name, &self.software];
        let texts = texts.into_iter().chain(&self.advertise).chain(&self.zone).chain(&self.seeds);
        let texts = texts.chain(self.metadata.keys()).chain(self.metadata.values());
        for text in texts {
            if text.len() > TEXT_BYTES_MAX || text.contains(char::is_control) {
                return Err(InvalidSettings::Text { text: text.chars().take(SHOWN_CHARS_MAX).collect() });
            }
        }
        if self.metadata.len() > METADATA_ENTRIES_MAX {
            return Err(InvalidSettings::TooMuchMetadata { entries: self.metadata.len() });
        }
        self.controller.detector.check().map_err(InvalidSettings::Detector)?;
        self.hooks.check().map_err(InvalidSettings::Hooks)?;
        if self.expect.is_some_and(|expect| expect > 1) && self.seeds.is_empty() {
            return Err(InvalidSettings::ExpectWithoutSeeds);
        }
        if self.opening.as_ref().is_some_and(Opening::is_taken) {
            return Err(InvalidSettings::OpenedBefore);
        }
        Ok(node)
    }
}

fn check_range(field: &'static str, value: Option<u32>, max: u32) -> Result<(), InvalidSettings> {
    match value {
        Some(value) if value == 0 || value > max => Err(InvalidSettings::OutOfRange { field, value, max }),
        _ => Ok(()),
    }
}

/// `host:port`, or `:port` for any host.
fn check_addr(what: &'static str, addr: &str) -> Result<(), InvalidSettings> {
    let port = addr.rsplit_once(':').map(|(_, port)| port);
    if port.is_some_and(|port| port.parse::<u16>().is_ok()) {
        return Ok(());
    }
    Err(InvalidSettings::Address { what, addr: addr.to_owned() })
}
