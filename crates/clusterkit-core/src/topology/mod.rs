//! One version of the cluster: its configuration, its nodes, its partitions.

mod awaited;
mod delta;
mod event;
mod health;
mod node;
mod partition;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

pub use self::awaited::StageAwaited;
pub use self::delta::{Delta, DeltaError};
pub use self::event::Event;
pub use self::health::{Health, HealthReason, HealthState};
pub use self::node::{Liveness, Node, NodeStatus, RaftRole, Stage};
pub use self::partition::{
    EPOCHS_KEPT, EpochRecord, InvalidPartition, Move, Origin, Overrun, Partition, PartitionHealth, Replica,
};
use crate::hash::KeyHash;
use crate::id::{ClusterId, Epoch, NodeId, PartitionId, RouteVersion, TopologyVersion};
use crate::placement::Strategy;

/// An immutable snapshot of the cluster.
///
/// Only the control state makes one, by applying a command. A snapshot before the cluster has
/// formed has no configuration, no partitions and version 0.
///
/// Invariants:
/// - `partitions[p].id == p`, and there are `config.partition_count` of them once `config` is set;
/// - every replica names a node in `nodes`;
/// - `route_version <= version`, and it moved at every change of a leader, a replica or an address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Grows with every change.
    pub version: TopologyVersion,
    /// Grows only with leaders, replicas and addresses: what a router needs.
    pub route_version: RouteVersion,
    /// The cluster's identity and configuration, `None` before it formed.
    pub cluster: Option<Arc<Cluster>>,
    /// Every registered node, by name.
    pub nodes: BTreeMap<NodeId, Arc<Node>>,
    /// Every partition, by number.
    pub partitions: Vec<Arc<Partition>>,
}

impl Topology {
    /// The partition that `key` belongs to, `None` before the cluster formed.
    #[must_use]
    pub fn partition_of(&self, key: &[u8]) -> Option<PartitionId> {
        let config = &self.cluster.as_ref()?.config;
        Some(config.key_hash.partition_of(key, config.partition_count))
    }

    /// Where requests for `key` go: one hash, one table access, no allocation.
    #[must_use]
    pub fn route(&self, key: &[u8]) -> Option<Route<'_>> {
        self.route_partition(self.partition_of(key)?)
    }

    /// Where requests for `partition` go, `None` when there is no such partition.
    #[must_use]
    pub fn route_partition(&self, partition: PartitionId) -> Option<Route<'_>> {
        let record = self.partition(partition)?;
        Some(Route {
            partition,
            epoch: record.epoch,
            leader: record.leader.as_ref(),
            replicas: &record.replicas,
        })
    }

    /// The record of `partition`.
    #[must_use]
    pub fn partition(&self, partition: PartitionId) -> Option<&Partition> {
        self.partitions.get(partition.index()).map(AsRef::as_ref)
    }

    /// The record of `node`.
    #[must_use]
    pub fn node(&self, node: &NodeId) -> Option<&Node> {
        self.nodes.get(node).map(AsRef::as_ref)
    }

    /// How many copies each partition shall have now: the configured factor, or fewer while there
    /// are fewer nodes that hold data and are not on their way out.
    #[must_use]
    pub fn replication_factor_effective(&self) -> u32 {
        let Some(cluster) = &self.cluster else { return 0 };
        let nodes = self.nodes.values().filter(|node| node.is_placement_target()).count();
        cluster.config.replication_factor.min(u32::try_from(nodes).unwrap_or(u32::MAX))
    }

    /// How `partition` stands, measured against the configured number of copies.
    #[must_use]
    pub fn partition_health(&self, partition: &Partition) -> PartitionHealth {
        let wanted = self.cluster.as_ref().map_or(0, |cluster| cluster.config.replication_factor);
        let in_sync_live = partition.in_sync.iter().filter(|id| self.is_live(id)).count();
        if partition.leader.is_none() {
            PartitionHealth::Leaderless
        } else if in_sync_live < partition.min_in_sync as usize {
            PartitionHealth::BelowMinInSync
        } else if in_sync_live < wanted as usize {
            PartitionHealth::UnderReplicated
        } else {
            PartitionHealth::Ok
        }
    }

    /// Whether the control plane counts `node` among the living.
    #[must_use]
    pub fn is_live(&self, node: &NodeId) -> bool {
        self.node(node).is_some_and(Node::is_live)
    }
}

/// Where requests for one key or partition go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<'a> {
    /// The partition.
    pub partition: PartitionId,
    /// The epoch of `leader`, to be sent along so that an older leader refuses.
    pub epoch: Epoch,
    /// The node that takes writes, `None` while an election runs.
    pub leader: Option<&'a NodeId>,
    /// All copies, in the order in which they were placed.
    pub replicas: &'a [Replica],
}

/// What a cluster was formed as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The identity every hello carries.
    pub id: ClusterId,
    /// The name its operators gave it.
    pub name: String,
    /// What all nodes agree on.
    pub config: ClusterConfig,
}

/// The configuration that belongs to the cluster, not to a node.
///
/// The nodes that form the cluster fix it; later nodes learn it. `partition_count` and `key_hash`
/// never change, since every key would move; the rest may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// Partitions, default 64. Rule of thumb: 8 to 32 for each node the cluster may grow to.
    pub partition_count: u32,
    /// Copies of a partition, leader included, default 3.
    pub replication_factor: u32,
    /// From key to partition, default CRC16 slots.
    pub key_hash: KeyHash,
    /// How the first table is laid out, default balanced. Later changes repair it either way.
    pub strategy: Strategy,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            partition_count: 64,
            replication_factor: 3,
            key_hash: KeyHash::default(),
            strategy: Strategy::default(),
        }
    }
}

#[cfg(test)]
mod tests;
