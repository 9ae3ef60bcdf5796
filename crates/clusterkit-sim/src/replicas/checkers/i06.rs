//! I6: C never changes, and no log is cut below what its replica knows to be committed.
//!
//! Source: rule T3.

use clusterkit_core::replica::{ReplicaKey, ReplicaStatus};

use super::super::world::World;
use super::Seen;

impl World {
    pub(in super::super) fn check_truncated(&mut self, node: usize, key: ReplicaKey, end: u64) {
        let partition = key.partition;
        let commit = self.status(node, partition).map_or(0, |status| status.commit);
        if end < commit {
            self.violate("I6", Some(partition), || {
                format!("n{node} cuts its log at {end}, and knows {commit} to be committed")
            });
        }
        let name = self.nodes[node].name.clone();
        self.check_member(partition, &name);
    }

    pub(super) fn check_commit_grows(&mut self, node: usize, status: &ReplicaStatus, seen: Option<Seen>) {
        if let Some(seen) = seen.filter(|seen| seen.commit > status.commit) {
            let commit = status.commit;
            self.violate("I6", Some(status.key.partition), || {
                format!("n{node} knew {} to be committed, and now {commit}", seen.commit)
            });
        }
    }
}
