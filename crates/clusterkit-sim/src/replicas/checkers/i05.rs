//! I5: records at the same place and of the same epoch are the same, and so is everything before them.
//!
//! Source: Raft's log matching; rule W5.

use clusterkit_core::id::Epoch;
use clusterkit_core::replica::{LogTime, ReplicaKey};

use super::super::world::World;

impl World {
    /// A log has been appended to, with records of these epochs and times.
    pub(in super::super) fn check_appended(
        &mut self,
        node: usize,
        key: ReplicaKey,
        (first, end): (u64, u64),
        (last_time, heads): (Option<LogTime>, &[(Epoch, LogTime)]),
    ) {
        self.check_times_grow(node, key, (last_time, heads));
        let Some(store) = self.nodes[node].disk.store(key) else { return };
        let ghost = &mut self.ghosts[key.partition.index()];
        let hashes = (first..end)
            .zip(heads)
            .filter_map(|(offset, head)| Some((offset, head.0, store.hash(offset + 1)?)));
        let other = hashes
            .into_iter()
            .find(|(offset, epoch, hash)| *ghost.records.entry((*offset, *epoch)).or_insert(*hash) != *hash);
        if let Some((offset, epoch, _)) = other {
            self.violate("I5", Some(key.partition), || {
                format!("n{node} has another record at {offset} of epoch {epoch}, or another before it")
            });
        }
    }
}
