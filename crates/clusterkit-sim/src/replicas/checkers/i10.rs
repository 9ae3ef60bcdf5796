//! I10: a leader that is active and has a valid lease knows everything that is committed.
//!
//! Source: rules L1 to L3; else it would serve stale reads.

use clusterkit_core::id::PartitionId;
use clusterkit_core::replica::{ReplicaStatus, RoleStatus};

use super::super::world::World;

impl World {
    pub(super) fn check_lease(&mut self, node: usize, status: &ReplicaStatus) {
        let end = self.ghosts[status.key.partition.index()].end();
        let is_leased = matches!(status.role, RoleStatus::Leader { active: true, leased: true, .. });
        if is_leased && status.commit != end {
            let (epoch, commit) = (status.epoch, status.commit);
            self.violate("I10", Some(status.key.partition), || {
                format!("n{node} has a lease in epoch {epoch} and knows {commit} of {end} committed records")
            });
        }
    }

    /// A leader has committed something: does another one still think that it may read?
    pub(super) fn check_other_leases(&mut self, node: usize, partition: PartitionId) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            let seen = self.nodes[other].process.as_ref().and_then(|process| process.seen.get(&partition));
            if seen.is_some_and(|seen| seen.leads)
                && let Some(status) = self.status(other, partition)
            {
                self.check_lease(other, &status);
            }
        }
    }
}
