//! I8: what any replica knows to be committed, or has applied, is C as far as it goes.
//!
//! Source: rule W8.

use clusterkit_core::id::PartitionId;
use clusterkit_core::replica::{ReplicaKey, ReplicaStatus};

use super::super::world::World;

impl World {
    pub(super) fn check_commit_within(&mut self, node: usize, status: &ReplicaStatus) {
        let (partition, commit) = (status.key.partition, status.commit);
        let ghost = &self.ghosts[partition.index()];
        let own = self.nodes[node].disk.store(status.key).and_then(|store| store.hash(commit));
        if commit > ghost.end() || own != ghost.hash(commit) {
            let end = ghost.end();
            self.violate("I8", Some(partition), || {
                format!("n{node} takes {commit} for committed, of {end} that are, or has other records")
            });
        }
    }

    pub(super) fn check_applied_committed(&mut self, node: usize, partition: PartitionId, offset: u64) {
        let end = self.ghosts[partition.index()].end();
        if offset >= end {
            self.violate("I8", Some(partition), || {
                format!("n{node} applies {offset}, and {end} are committed")
            });
        }
    }

    pub(super) fn check_snapshot_committed(&mut self, node: usize, key: ReplicaKey) {
        let ghost = &self.ghosts[key.partition.index()];
        let Some(store) = self.nodes[node].disk.store(key) else { return };
        let end = store.end();
        if end > ghost.end() || store.hash(end) != ghost.hash(end) {
            self.violate("I8", Some(key.partition), || {
                format!("n{node} installs a snapshot of {end} records that are not the committed ones")
            });
        }
    }
}
