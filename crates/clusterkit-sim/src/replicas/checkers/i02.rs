//! I2: the recorded in-sync set is within the maximal one of the leader of the current epoch.
//!
//! Source: rules S1 to S5 (KIP-966: the leader waits for whoever may be a member).

use clusterkit_core::replica::{ReplicaStatus, RoleStatus};
use clusterkit_core::topology::Partition;

use super::super::node::index;
use super::super::world::World;

impl World {
    pub(super) fn check_in_sync_within_maximal(&mut self, node: usize, status: &ReplicaStatus) {
        let partition = status.key.partition;
        let Some(record) = self.control.topology.partition(partition) else { return };
        let leads = record.epoch == status.epoch && record.leader.as_ref() == Some(&self.nodes[node].name);
        if leads && !record.in_sync.is_subset(&status.maximal) {
            let (in_sync, maximal) = (record.in_sync.clone(), status.maximal.clone());
            self.violate("I2", Some(partition), || {
                format!("in sync are {in_sync:?}, and the leader n{node} waits for {maximal:?} only")
            });
        }
    }

    /// The record has changed: does its leader wait for all that are in it?
    pub(super) fn check_leader_knows_members(&mut self, record: &Partition) {
        let Some(leader) = record.leader.as_ref().map(index) else { return };
        let Some(status) = self.status(leader, record.id) else { return };
        let leads = matches!(status.role, RoleStatus::Leader { .. });
        if leads && status.epoch == record.epoch {
            self.check_in_sync_within_maximal(leader, &status);
        }
    }
}
