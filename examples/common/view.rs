//! The topology as clients get it from `GET /v1/topology`.

use std::sync::Arc;

use clusterkit::{Epoch, KeyHash, PartitionId, PartitionVersion};
use serde::Deserialize;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::http::{Http, HttpError};
use crate::store::Routed;

/// One version of the cluster, as far as a client needs it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct View {
    /// Grows with every change.
    pub version: u64,
    /// Every registered node.
    pub nodes: Vec<NodeView>,
    /// Every partition; the one with id `n` is the `n`th.
    pub partitions: Vec<PartitionView>,
    hash_config: Option<HashView>,
}

/// A node.
#[derive(Debug, Clone, Deserialize)]
pub struct NodeView {
    /// Its name.
    pub id: String,
    /// `alive`, or what else.
    pub status: String,
    /// Where clients reach it.
    pub public_addr: String,
}

/// A partition.
#[derive(Debug, Clone, Deserialize)]
pub struct PartitionView {
    /// Its number.
    pub id: PartitionId,
    /// Grows with every change of this record.
    pub version: PartitionVersion,
    /// Grows with every change of the leader.
    pub epoch: Epoch,
    /// The node that takes writes where a leader does.
    pub leader: Option<String>,
    /// The nodes that hold it, or shall.
    pub replicas: Vec<ReplicaView>,
    /// Those of them that have everything.
    pub in_sync: Vec<String>,
    /// `ok`, or what is wrong.
    pub health: String,
    movement: Option<serde_json::Value>,
    transfer: Option<String>,
}

/// One copy of a partition.
#[derive(Debug, Clone, Deserialize)]
pub struct ReplicaView {
    /// Where it lies.
    pub node: String,
}

#[derive(Debug, Clone, Deserialize)]
struct HashView {
    algorithm: String,
    partition_count: u32,
}

impl View {
    /// The newest one that the node at `addr` knows.
    ///
    /// # Errors
    ///
    /// See [`HttpError`].
    pub async fn fetch(http: &Http, addr: &str) -> Result<Self, HttpError> {
        http.get(addr, "/v1/topology").await?.success()
    }

    /// The partition of `key`, `None` before the cluster formed.
    #[must_use]
    pub fn partition_of(&self, key: &str) -> Option<&PartitionView> {
        let hash = self.hash_config.as_ref()?;
        let algorithm: KeyHash = hash.algorithm.parse().ok()?;
        self.partitions.get(algorithm.partition_of(key.as_bytes(), hash.partition_count).index())
    }

    /// Where clients reach `node`.
    #[must_use]
    pub fn addr(&self, node: &str) -> Option<&str> {
        self.nodes.iter().find(|known| known.id == node).map(|known| known.public_addr.as_str())
    }

    /// How many partitions `node` holds.
    #[must_use]
    pub fn copies_of(&self, node: &str) -> usize {
        self.partitions.iter().filter(|record| record.is_held_by(node)).count()
    }

    /// Whether every partition is led and has all its copies, nothing moves, and all nodes that are
    /// registered live and hold something.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let led = self.partitions.iter().all(|record| record.health == "ok" && !record.is_moving());
        let manned = self.nodes.iter().all(|node| node.status == "alive" && self.copies_of(&node.id) > 0);
        !self.partitions.is_empty() && led && manned
    }
}

impl PartitionView {
    /// What goes along with a request that this record routes.
    #[must_use]
    pub fn routed(&self) -> Routed {
        Routed { epoch: self.epoch, version: self.version }
    }

    fn is_held_by(&self, node: &str) -> bool {
        self.replicas.iter().any(|replica| replica.node == node)
    }

    fn is_moving(&self) -> bool {
        self.movement.is_some() || self.transfer.is_some()
    }
}

/// The newest topology that a client knows.
#[derive(Debug)]
pub struct Views {
    http: Http,
    /// Nodes that the client was told of, for when none that it learned of answers.
    seeds: Vec<String>,
    newest: watch::Sender<Arc<View>>,
    refreshed: Mutex<Instant>,
}

impl Views {
    /// Knows nothing but some nodes' addresses.
    #[must_use]
    pub fn new(http: Http, seeds: Vec<String>) -> Self {
        let (newest, refreshed) = (watch::Sender::new(Arc::default()), Mutex::new(Instant::now()));
        Self { http, seeds, newest, refreshed }
    }

    /// What is known.
    #[must_use]
    pub fn current(&self) -> Arc<View> {
        Arc::clone(&self.newest.borrow())
    }

    /// Asks anew, unless somebody did since this was called. An older answer changes nothing.
    pub async fn refresh(&self) {
        let wanted = Instant::now();
        let mut refreshed = self.refreshed.lock().await;
        if *refreshed > wanted {
            return;
        }
        *refreshed = Instant::now();
        let known = self.current();
        let living = known.nodes.iter().filter(|node| node.status == "alive").map(|node| &node.public_addr);
        for addr in living.chain(&self.seeds) {
            if let Ok(view) = View::fetch(&self.http, addr).await {
                self.newest.send_if_modified(|known| {
                    let is_newer = view.version > known.version;
                    if is_newer {
                        *known = Arc::new(view);
                    }
                    is_newer
                });
                return;
            }
        }
    }
}
