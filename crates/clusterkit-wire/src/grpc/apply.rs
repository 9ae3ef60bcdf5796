//! How a client moves the topology it has on to the next version.

use super::cluster::v1;

impl v1::Topology {
    /// Moves this topology on by `delta`, so that it equals the node's topology at `to_version`.
    ///
    /// # Errors
    ///
    /// Nothing changed. See [`ApplyError`].
    pub fn apply(&mut self, delta: v1::TopologyDelta) -> Result<(), ApplyError> {
        self.check(&delta)?;
        self.version = delta.to_version;
        self.route_version = delta.route_version;
        if delta.cluster.is_some() {
            self.cluster = delta.cluster;
        }
        for id in &delta.nodes_removed {
            self.nodes.retain(|node| node.id != *id);
        }
        for node in delta.nodes_changed {
            self.put_node(node);
        }
        for partition in delta.partitions_changed {
            self.put_partition(partition);
        }
        Ok(())
    }

    fn check(&self, delta: &v1::TopologyDelta) -> Result<(), ApplyError> {
        if delta.from_version != self.version {
            return Err(ApplyError::OtherVersion { expected: delta.from_version, found: self.version });
        }
        let mut count = self.partitions.len();
        for partition in &delta.partitions_changed {
            let index = partition.id as usize;
            if index > count {
                return Err(ApplyError::Gap { partition: partition.id });
            }
            count = count.max(index + 1);
        }
        Ok(())
    }

    fn put_node(&mut self, node: v1::Node) {
        match self.nodes.binary_search_by(|other| other.id.cmp(&node.id)) {
            Ok(index) => self.nodes[index] = node,
            Err(index) => self.nodes.insert(index, node),
        }
    }

    fn put_partition(&mut self, partition: v1::Partition) {
        match self.partitions.get_mut(partition.id as usize) {
            Some(slot) => *slot = partition,
            None => self.partitions.push(partition),
        }
    }
}

/// The delta does not fit. Nothing changed; watch anew, without naming a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// It skips a partition.
    #[error("the delta names partition {partition}, which is not the next one")]
    Gap {
        /// The partition it named.
        partition: u32,
    },
    /// It starts from another version than this one.
    #[error("the delta starts from version {expected}, this topology is at {found}")]
    OtherVersion {
        /// Where the delta starts.
        expected: u64,
        /// Where this topology is.
        found: u64,
    },
}
