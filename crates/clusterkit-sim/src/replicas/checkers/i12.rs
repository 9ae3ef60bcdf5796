//! I12: some disk has C, as long as fewer disks lost something than there are members at least.
//!
//! Source: rule S5 (the last replica standing, KIP-966).

use clusterkit_core::id::PartitionId;

use super::super::world::World;
use super::key_of;

impl World {
    pub(super) fn check_some_disk(&mut self, partition: PartitionId) {
        let Some(record) = self.control.topology.partition(partition) else { return };
        let mut holders = record.replicas.iter().filter_map(|replica| key_of(record, &replica.node));
        if !holders.any(|(node, key)| self.has_committed(node, key)) {
            self.violate("I12", Some(partition), || "no disk has what was committed".to_owned());
        }
    }
}
