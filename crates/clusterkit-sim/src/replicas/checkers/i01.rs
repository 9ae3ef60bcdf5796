//! I1: there is one leader per partition and epoch.
//!
//! Source: the fencing token of a partition is its epoch; and rule R2, a leader never goes on after a restart.

use clusterkit_core::id::Incarnation;
use clusterkit_core::replica::ReplicaStatus;

use super::super::world::World;

impl World {
    pub(super) fn check_one_leader(&mut self, node: usize, status: &ReplicaStatus, incarnation: Incarnation) {
        let partition = status.key.partition;
        let ghost = &mut self.ghosts[partition.index()];
        let known = *ghost.leaders.entry(status.epoch).or_insert((node, incarnation));
        if known != (node, incarnation) {
            let epoch = status.epoch;
            self.violate("I1", Some(partition), || {
                format!("n{node} in run {incarnation} leads epoch {epoch}, which was led by {known:?}")
            });
        }
    }
}
