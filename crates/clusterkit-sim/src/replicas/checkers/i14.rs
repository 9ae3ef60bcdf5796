//! I14: versions, epochs and incarnations only grow, in the record and on every node.
//!
//! Source: every change of a configuration is a compare-and-set; rule F7.

use clusterkit_core::id::TopologyVersion;
use clusterkit_core::replica::ReplicaStatus;
use clusterkit_core::topology::Topology;

use super::super::world::World;
use super::Seen;

impl World {
    pub(super) fn check_versions_grow(&mut self, before: &Topology, after: &Topology) {
        let records = before.partitions.iter().zip(&after.partitions);
        for (known, record) in records {
            let changed = known != record;
            let grew = record.version > known.version || !changed;
            if !grew || record.epoch < known.epoch {
                self.violate("I14", Some(record.id), || format!("{known:?} became {record:?}"));
            }
        }
        for (name, node) in &after.nodes {
            if before.node(name).is_some_and(|known| known.incarnation > node.incarnation) {
                self.violate("I14", None, || format!("{name} went back to run {}", node.incarnation));
            }
        }
    }

    pub(super) fn check_epoch_grows(&mut self, node: usize, status: &ReplicaStatus, seen: Option<Seen>) {
        if let Some(seen) = seen.filter(|seen| seen.epoch > status.epoch) {
            let epoch = status.epoch;
            self.violate("I14", Some(status.key.partition), || {
                format!("n{node} went back from epoch {} to {epoch}", seen.epoch)
            });
        }
    }

    /// A node has adopted another topology.
    pub(in super::super) fn check_adopted(
        &mut self,
        node: usize,
        before: Option<TopologyVersion>,
        after: Option<TopologyVersion>,
    ) {
        if after < before {
            self.violate("I14", None, || format!("n{node} went back from topology {before:?} to {after:?}"));
        }
    }
}
