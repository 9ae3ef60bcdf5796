//! I9: the in-sync set has at least its minimum, is among the replicas, and has the leader.
//!
//! Source: rules S5 and F1 (KIP-966).

use clusterkit_core::topology::Partition;

use super::super::world::World;

impl World {
    pub(super) fn check_record(&mut self, record: &Partition) {
        if let Err(broken) = record.check() {
            self.violate("I9", Some(record.id), || broken.to_string());
        }
    }
}
