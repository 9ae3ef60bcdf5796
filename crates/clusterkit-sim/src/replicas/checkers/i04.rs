//! I4: the log of the leader of an epoch begins with C.
//!
//! Source: Raft's leader completeness; here rule F2, any untainted member of the in-sync set may lead.

use clusterkit_core::replica::ReplicaStatus;

use super::super::world::World;

impl World {
    /// A leader is about to commit more than anybody before it.
    pub(super) fn check_leader_has_committed(&mut self, node: usize, status: &ReplicaStatus) {
        let partition = status.key.partition;
        let ghost = &self.ghosts[partition.index()];
        let end = ghost.end();
        let own = self.nodes[node].disk.store(status.key).and_then(|store| store.hash(end));
        if own != ghost.hash(end) {
            let epoch = status.epoch;
            self.violate("I4", Some(partition), || {
                format!("n{node} leads epoch {epoch} without the {end} records that were committed before")
            });
        }
    }
}
