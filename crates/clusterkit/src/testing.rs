//! A cluster in one process, for tests: networks, disks and time obey the test.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let mut cluster = clusterkit::testing::Cluster::start(3).await;
//! cluster.kill(3).await;
//! let led_by_the_living = |topology: &clusterkit::Topology| {
//!     topology.partitions.iter().all(|p| p.leader.as_ref().is_some_and(|node| node.as_str() != "node-3"))
//! };
//! cluster.until(1, "the living lead", led_by_the_living).await;
//! # }
//! ```
//!
//! Run it in a paused runtime of one thread, as above: time then stands still while anybody works,
//! and jumps while everybody waits, so a minute of the cluster's life costs no minute of yours.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::topology::Topology;
pub use clusterkit_storage::disk::SimDisk;

use crate::builder::Builder;
use crate::error::StartError;
use crate::handle::ClusterKit;
use crate::net::WallTime;
pub use crate::net::{MemHost, MemNet, TokioClock};

/// The time of day at which every test begins: the start of 2026.
const WALL_AT_START: WallTime = WallTime(1_767_225_600_000);
/// How long, in the cluster's time, [`Cluster::until`] waits.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Nodes `node-1`, `node-2`, ... on one network, each on a disk of its own.
#[derive(Debug)]
pub struct Cluster {
    net: MemNet,
    clock: Arc<TokioClock>,
    disks: BTreeMap<u32, SimDisk>,
    nodes: BTreeMap<u32, ClusterKit>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}

impl Cluster {
    /// A network without nodes. Call it inside the runtime.
    #[must_use]
    pub fn new() -> Self {
        let clock = Arc::new(TokioClock::new(WALL_AT_START));
        Self { net: MemNet::new(), clock, disks: BTreeMap::new(), nodes: BTreeMap::new() }
    }

    /// `count` nodes that formed a cluster, each with all defaults.
    ///
    /// # Panics
    ///
    /// When they do not.
    pub async fn start(count: u32) -> Self {
        let mut cluster = Self::new();
        cluster.launch(1..=count, |builder| builder.expect(count)).await;
        for number in 1..=count {
            cluster
                .ready(number)
                .await
                .unwrap_or_else(|error| panic!("node-{number} did not start: {error}"));
        }
        cluster
    }

    /// Launches the nodes in the order given, without waiting for them to become members.
    ///
    /// # Panics
    ///
    /// When one cannot even listen or open its disk.
    pub async fn launch(
        &mut self,
        numbers: impl IntoIterator<Item = u32>,
        configure: impl Fn(Builder) -> Builder,
    ) {
        for number in numbers {
            let builder = configure(self.builder(number));
            let node = builder
                .launch()
                .await
                .unwrap_or_else(|error| panic!("node-{number} did not launch: {error}"));
            self.nodes.insert(number, node);
        }
    }

    /// A builder for a node on this network and its disk, with `node-1` and `node-2` as seeds.
    pub fn builder(&mut self, number: u32) -> Builder {
        let disk = self.disks.entry(number).or_default().clone();
        let host = format!("node-{number}");
        let net = self.net.host(&host);
        ClusterKit::builder(&host, &format!("{host}:8080"))
            .listen(&format!("{host}:7000"))
            .data_dir("/data")
            .seeds(["node-1:7000", "node-2:7000"])
            .environment(self.clock.clone(), Arc::new(net), Arc::new(disk))
    }

    /// Waits until the node takes part.
    ///
    /// # Errors
    ///
    /// What kept it from that.
    ///
    /// # Panics
    ///
    /// When there is no such node.
    pub async fn ready(&self, number: u32) -> Result<(), StartError> {
        self.node(number).ready().await
    }

    /// A handle on the node.
    ///
    /// # Panics
    ///
    /// When there is no such node.
    #[must_use]
    pub fn node(&self, number: u32) -> &ClusterKit {
        self.nodes.get(&number).unwrap_or_else(|| panic!("node-{number} does not run"))
    }

    /// The numbers of the nodes that run.
    #[must_use]
    pub fn running(&self) -> Vec<u32> {
        self.nodes.keys().copied().collect()
    }

    /// The clock of all nodes.
    #[must_use]
    pub fn clock(&self) -> Arc<TokioClock> {
        Arc::clone(&self.clock)
    }

    /// The network, to be partitioned, delayed and healed.
    #[must_use]
    pub fn net(&self) -> &MemNet {
        &self.net
    }

    /// The disk of a node, to be damaged.
    ///
    /// # Panics
    ///
    /// When the node never ran.
    #[must_use]
    pub fn disk(&self, number: u32) -> &SimDisk {
        self.disks.get(&number).unwrap_or_else(|| panic!("node-{number} never ran"))
    }

    /// Kills the process of a node: its connections break, nothing is said, its disk keeps what it
    /// was given.
    pub async fn kill(&mut self, number: u32) {
        self.end(number).await;
        self.disk(number).kill();
    }

    /// Cuts the power of a node: what was not synced survives or not, as the seed chooses.
    pub async fn crash(&mut self, number: u32, seed: u64) {
        self.end(number).await;
        self.disk(number).crash(seed);
    }

    /// Stops a node in order, as a restart for maintenance does.
    pub async fn stop(&mut self, number: u32) {
        if let Some(node) = self.nodes.remove(&number) {
            node.stop().await;
        }
        self.net.kill(&format!("node-{number}"));
        self.disk(number).kill();
    }

    /// Gives a node that does not run an empty disk.
    pub fn wipe(&mut self, number: u32) {
        self.disks.insert(number, SimDisk::new());
    }

    async fn end(&mut self, number: u32) {
        self.net.kill(&format!("node-{number}"));
        if let Some(node) = self.nodes.remove(&number) {
            node.abort().await;
        }
    }

    /// Waits until the node's topology is as `wanted`.
    ///
    /// # Panics
    ///
    /// When it is not within [`PATIENCE`] of the cluster's time; the message shows what it is.
    pub async fn until(
        &self,
        number: u32,
        what: &str,
        wanted: impl FnMut(&Topology) -> bool,
    ) -> Arc<Topology> {
        let node = self.node(number);
        let mut watch = node.watch();
        match tokio::time::timeout(PATIENCE, watch.wait_for(wanted)).await {
            Ok(Some(topology)) => topology,
            Ok(None) => panic!("node-{number} stopped while waiting until {what}"),
            Err(_) => panic!("node-{number}: not within {PATIENCE:?}: {what}; {:#?}", node.status()),
        }
    }
}
