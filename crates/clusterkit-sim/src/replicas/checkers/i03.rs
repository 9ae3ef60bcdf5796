//! I3: every untainted member of the in-sync set has C on its disk, whatever happens to its power.
//!
//! Source: rules W5, W6 and S2; any such member may be elected. Data go only once the record names them no more
//! (rule M5).

use clusterkit_core::id::{NodeId, PartitionId};
use clusterkit_core::replica::ReplicaKey;

use super::super::world::World;
use super::key_of;

impl World {
    pub(super) fn check_members(&mut self, partition: PartitionId) {
        let topology = self.control.topology.clone();
        let Some(record) = topology.partition(partition) else { return };
        for member in &record.in_sync {
            self.check_member(partition, member);
        }
    }

    pub(super) fn check_member(&mut self, partition: PartitionId, member: &NodeId) {
        let Some(record) = self.control.topology.partition(partition) else { return };
        let Some((node, key)) = key_of(record, member).filter(|_| record.is_electable(member)) else {
            return;
        };
        if !self.has_committed(node, key) && !self.nodes[node].lost_something {
            let end = self.ghosts[partition.index()].end();
            let durable = self.nodes[node].disk.store(key).map(|store| (store.durable, store.end()));
            self.violate("I3", Some(partition), || {
                format!("n{node} is in sync, has {durable:?} durable of all, and {end} are committed")
            });
        }
    }

    /// Whether a disk has all of C durably.
    pub(super) fn has_committed(&self, node: usize, key: ReplicaKey) -> bool {
        let ghost = &self.ghosts[key.partition.index()];
        let end = ghost.end();
        let store = self.nodes[node].disk.store(key);
        let has = store.is_some_and(|store| store.durable >= end && store.hash(end) == ghost.hash(end));
        has || end == 0
    }

    /// The shell removed a replica.
    pub(in super::super) fn check_removed(&mut self, node: usize, key: ReplicaKey) {
        let name = self.nodes[node].name.clone();
        let record = self.control.topology.partition(key.partition);
        if record.and_then(|record| record.replica(&name)).is_some_and(|replica| replica.uid == key.uid) {
            self.violate("I3", Some(key.partition), || {
                format!("n{node} deletes {key:?}, which is placed there")
            });
        }
    }
}
