//! Whether a state that was read from elsewhere can be one.

use super::command::{InvalidReason, Profile};
use super::form::check_cluster;
use super::state::ControlState;
use crate::id::{Incarnation, NodeId, PartitionId, ReplicaUid, TopologyVersion};
use crate::limits::NODES_MAX;
use crate::topology::{InvalidPartition, Node, Partition};

impl ControlState {
    /// Whether every invariant holds. For states that were decoded: apply keeps them by itself.
    ///
    /// Costs one walk over all nodes and partitions.
    ///
    /// # Errors
    ///
    /// The first rule found broken. Whoever wrote the state has a fault, or its bytes are not what
    /// was written: it must not be adopted, and reading it again gives the same.
    pub fn check(&self) -> Result<(), InvalidState> {
        let Some(cluster) = &self.topology.cluster else {
            return if *self == Self::default() { Ok(()) } else { Err(InvalidState::NotFormed) };
        };
        check_cluster(cluster).map_err(|source| InvalidState::Cluster { source })?;
        self.check_versions()?;
        self.check_nodes()?;
        let (expected, found) = (cluster.config.partition_count, self.topology.partitions.len());
        if found != expected as usize {
            return Err(InvalidState::PartitionCount { expected, found });
        }
        let mut records = (0..).map(PartitionId).zip(&self.topology.partitions);
        records.try_for_each(|(partition, record)| self.check_partition(partition, record))
    }

    fn check_versions(&self) -> Result<(), InvalidState> {
        let (version, route_version) = (self.topology.version, self.topology.route_version);
        let forming_moved_both = version > TopologyVersion(0) && route_version.0 > 0;
        if forming_moved_both && route_version.0 <= version.0 {
            return Ok(());
        }
        Err(InvalidState::Versions)
    }

    fn check_nodes(&self) -> Result<(), InvalidState> {
        let count = self.topology.nodes.len();
        if count > NODES_MAX {
            return Err(InvalidState::TooManyNodes { count });
        }
        self.topology.nodes.iter().try_for_each(|(name, record)| check_node(name, record))
    }

    fn check_partition(&self, partition: PartitionId, record: &Partition) -> Result<(), InvalidState> {
        if record.id != partition {
            return Err(InvalidState::PartitionOrder { partition, found: record.id });
        }
        record.check().map_err(|source| InvalidState::Partition { partition, source })?;
        for replica in &record.replicas {
            if self.topology.node(&replica.node).is_none() {
                return Err(InvalidState::UnknownNode { partition, node: replica.node.clone() });
            }
            if replica.uid > self.uid_last {
                return Err(InvalidState::Uid { partition, uid: replica.uid, last: self.uid_last });
            }
        }
        Ok(())
    }
}

fn check_node(name: &NodeId, record: &Node) -> Result<(), InvalidState> {
    let node = || name.clone();
    if record.id != *name {
        return Err(InvalidState::NodeName { node: node(), found: record.id.clone() });
    }
    if record.incarnation == Incarnation(0) {
        return Err(InvalidState::Incarnation { node: node() });
    }
    Profile::of_node(record).check().map_err(|source| InvalidState::Node { node: node(), source })
}

/// A decoded state breaks a rule that every state keeps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidState {
    /// The cluster's record is beyond the limits.
    #[error("the cluster's record is beyond the limits")]
    Cluster {
        /// Which one.
        source: InvalidReason,
    },
    /// A node has a record and never registered.
    #[error("{node} has a record and no incarnation")]
    Incarnation {
        /// Which node.
        node: NodeId,
    },
    /// A node's record is beyond the limits.
    #[error("the record of {node} is beyond the limits")]
    Node {
        /// Which node.
        node: NodeId,
        /// Which limit.
        source: InvalidReason,
    },
    /// A node's record lies under another name.
    #[error("under {node} lies the record of {found}")]
    NodeName {
        /// The name it lies under.
        node: NodeId,
        /// The name it has.
        found: NodeId,
    },
    /// There is no cluster, and all the same something that only a cluster has.
    #[error("no cluster has formed, but there are nodes, partitions or versions of one")]
    NotFormed,
    /// A partition's record contradicts itself.
    #[error("the record of {partition} contradicts itself")]
    Partition {
        /// Which partition.
        partition: PartitionId,
        /// In what.
        source: InvalidPartition,
    },
    /// Partitions are missing, or too many.
    #[error("the cluster has {expected} partitions, and there are {found} records")]
    PartitionCount {
        /// How many the configuration says.
        expected: u32,
        /// How many records there are.
        found: usize,
    },
    /// A partition's record lies in the place of another.
    #[error("in the place of {partition} lies the record of {found}")]
    PartitionOrder {
        /// Whose place it is.
        partition: PartitionId,
        /// Whose record it is.
        found: PartitionId,
    },
    /// More nodes than a cluster can have.
    #[error("a cluster has at most {NODES_MAX} nodes, not {count}")]
    TooManyNodes {
        /// How many there are.
        count: usize,
    },
    /// A replica has a uid that was not given out yet: the next one might be the same.
    #[error("a replica of {partition} has uid {uid}, and the last one given out is {last}")]
    Uid {
        /// Which partition.
        partition: PartitionId,
        /// The replica's uid.
        uid: ReplicaUid,
        /// The last one given out.
        last: ReplicaUid,
    },
    /// A replica lies on a node without a record.
    #[error("{partition} has a replica on {node}, which has no record")]
    UnknownNode {
        /// Which partition.
        partition: PartitionId,
        /// Which node.
        node: NodeId,
    },
    /// Versions that no history of a cluster leads to.
    #[error("a formed cluster has a version and a route version, and the latter is not ahead")]
    Versions,
}
