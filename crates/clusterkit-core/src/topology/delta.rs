//! The difference between two versions, small enough to send for every change.

use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Cluster, Node, Partition, Topology};
use crate::id::{NodeId, RouteVersion, TopologyVersion};

/// What makes one topology out of another.
///
/// Records travel whole: a record that changed at all is small, and a delta of fields would have
/// to be kept in step with every new field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The version it starts from.
    pub from: TopologyVersion,
    /// The version it leads to.
    pub to: TopologyVersion,
    /// The route version at `to`.
    pub route_version: RouteVersion,
    /// The cluster record, when it changed.
    pub cluster: Option<Arc<Cluster>>,
    /// Nodes that are new or changed.
    pub nodes_changed: Vec<Arc<Node>>,
    /// Nodes that are gone.
    pub nodes_removed: Vec<NodeId>,
    /// Partitions that are new or changed, by number.
    pub partitions_changed: Vec<Arc<Partition>>,
}

impl Topology {
    /// What changed since `older`. Records that are shared between the two cost one comparison of
    /// pointers.
    #[must_use]
    pub fn diff(&self, older: &Self) -> Delta {
        Delta {
            from: older.version,
            to: self.version,
            route_version: self.route_version,
            cluster: self.cluster.as_ref().filter(|_| self.cluster != older.cluster).cloned(),
            nodes_changed: self.nodes_changed_since(older),
            nodes_removed: older.nodes.keys().filter(|id| !self.nodes.contains_key(*id)).cloned().collect(),
            partitions_changed: self.partitions_changed_since(older),
        }
    }

    /// This topology moved on by `delta`. Nothing changes on an error; fetch the whole topology.
    pub fn apply(&self, delta: &Delta) -> Result<Self, DeltaError> {
        if delta.from != self.version {
            return Err(DeltaError::OtherVersion { expected: delta.from, found: self.version });
        }
        let mut next = self.clone();
        next.version = delta.to;
        next.route_version = delta.route_version;
        if let Some(cluster) = &delta.cluster {
            next.cluster = Some(Arc::clone(cluster));
        }
        for id in &delta.nodes_removed {
            next.nodes.remove(id);
        }
        for node in &delta.nodes_changed {
            next.nodes.insert(node.id.clone(), Arc::clone(node));
        }
        for partition in &delta.partitions_changed {
            next.put_partition(partition)?;
        }
        Ok(next)
    }

    fn put_partition(&mut self, partition: &Arc<Partition>) -> Result<(), DeltaError> {
        let (index, count) = (partition.id.index(), self.partitions.len());
        match self.partitions.get_mut(index) {
            Some(slot) => *slot = Arc::clone(partition),
            None if index == count => self.partitions.push(Arc::clone(partition)),
            None => return Err(DeltaError::Gap { partition: partition.id.0 }),
        }
        Ok(())
    }

    fn nodes_changed_since(&self, older: &Self) -> Vec<Arc<Node>> {
        let changed = |node: &&Arc<Node>| !same(older.nodes.get(&node.id), node);
        self.nodes.values().filter(changed).cloned().collect()
    }

    fn partitions_changed_since(&self, older: &Self) -> Vec<Arc<Partition>> {
        let changed =
            |partition: &&Arc<Partition>| !same(older.partitions.get(partition.id.index()), partition);
        self.partitions.iter().filter(changed).cloned().collect()
    }
}

fn same<T: PartialEq>(older: Option<&Arc<T>>, newer: &Arc<T>) -> bool {
    older.is_some_and(|older| Arc::ptr_eq(older, newer) || older == newer)
}

/// The delta does not fit. Nothing changed; fetch the whole topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeltaError {
    /// It skips a partition.
    #[error("the delta begins at partition {partition}, which is not the next one")]
    Gap {
        /// The partition it named.
        partition: u32,
    },
    /// It starts from another version than this one.
    #[error("the delta starts from version {expected}, this topology is at {found}")]
    OtherVersion {
        /// Where the delta starts.
        expected: TopologyVersion,
        /// Where this topology is.
        found: TopologyVersion,
    },
}
