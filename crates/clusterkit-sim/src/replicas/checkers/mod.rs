//! The invariants of the protocol, one a file, each checked where a step can break it and nowhere else.
//!
//! C is the longest prefix of a partition's log that any leader ever committed. Records are compared by the hash of
//! everything up to them, so that each check costs the same however long the logs are.

mod i01;
mod i02;
mod i03;
mod i04;
mod i05;
mod i06;
mod i07;
mod i08;
mod i09;
mod i10;
mod i11;
mod i12;
mod i13;
mod i14;
mod i15;

use std::collections::HashMap;

use clusterkit_core::control::Command;
use clusterkit_core::id::{Epoch, Incarnation, NodeId, PartitionId, ReplicaUid};
use clusterkit_core::replica::{Entry, ReplicaKey, ReplicaStatus, RoleStatus, SessionRequest};
use clusterkit_core::topology::{Partition, Topology};

use super::machine::{Effect, KEYS, decode};
use super::node::{index, is_damaged};
use super::world::World;

/// What no implementation can know: the truth of one partition.
#[derive(Debug, Clone, Default)]
pub(super) struct Ghost {
    /// C: the hash of everything up to each record, and the operation in it.
    committed: Vec<(u64, u64)>,
    /// What each record did where it was applied first, and the digest of the state after it.
    effects: Vec<(Effect, u64)>,
    /// What was written to each key, and from which offset on.
    written: [Vec<(u64, u64)>; KEYS],
    /// Where each request took effect.
    requests: HashMap<SessionRequest, u64>,
    /// Every record that ever was in a log, by place and epoch.
    records: HashMap<(u64, Epoch), u64>,
    /// Who led each epoch.
    leaders: HashMap<Epoch, (usize, Incarnation)>,
    /// Everything below was acknowledged to a client, or shown to one.
    pub(super) acknowledged: u64,
}

/// What was seen of a replica when it was looked at last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    uid: ReplicaUid,
    epoch: Epoch,
    commit: u64,
    leads: bool,
}

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) invariant: &'static str,
    pub(super) partition: Option<PartitionId>,
    pub(super) text: String,
}

impl Ghost {
    /// How long C is.
    pub(super) fn end(&self) -> u64 {
        self.committed.len() as u64
    }

    /// The hash of the first `end` records of C.
    fn hash(&self, end: u64) -> Option<u64> {
        match end.checked_sub(1) {
            None => Some(0),
            Some(last) => self.committed.get(last as usize).map(|(hash, _)| *hash),
        }
    }

    fn op(&self, offset: u64) -> Option<u64> {
        self.committed.get(offset as usize).map(|(_, op)| *op)
    }

    /// What a record did.
    pub(super) fn effect(&self, offset: u64) -> Option<Effect> {
        self.effects.get(offset as usize).map(|(effect, _)| *effect)
    }
}

// What a step of a node can break.
impl World {
    /// Looks at the replicas of a node after something happened to them.
    pub(in super::super) fn observe(&mut self, node: usize, touched: Option<PartitionId>) {
        match touched {
            Some(partition) => self.observe_replica(node, partition),
            None => {
                for partition in (0..self.settings.partitions).map(PartitionId) {
                    self.observe_replica(node, partition);
                }
            }
        }
    }

    fn observe_replica(&mut self, node: usize, partition: PartitionId) {
        let Some(status) = self.status(node, partition) else { return };
        let (seen, incarnation) = {
            let Some(process) = self.nodes[node].process.as_mut() else { return };
            let leads = matches!(status.role, RoleStatus::Leader { .. });
            let now = Seen { uid: status.key.uid, epoch: status.epoch, commit: status.commit, leads };
            (process.seen.insert(partition, now), process.incarnation)
        };
        let seen = seen.filter(|seen| seen.uid == status.key.uid);
        self.check_epoch_grows(node, &status, seen);
        if matches!(status.role, RoleStatus::Leader { .. }) {
            self.check_one_leader(node, &status, incarnation);
            self.check_in_sync_within_maximal(node, &status);
        }
        if seen.is_none_or(|seen| seen.commit != status.commit) {
            self.observe_commit(node, &status, seen);
        }
        self.check_lease(node, &status);
        self.write_notes(node, status.key, status.commit);
    }

    /// A replica's commit is another one.
    fn observe_commit(&mut self, node: usize, status: &ReplicaStatus, seen: Option<Seen>) {
        self.check_commit_grows(node, status, seen);
        let partition = status.key.partition;
        let leads = matches!(status.role, RoleStatus::Leader { .. });
        if leads && status.commit > self.ghosts[partition.index()].end() {
            self.extend_committed(node, status);
            self.check_other_leases(node, partition);
            self.check_members(partition);
            self.check_some_disk(partition);
        } else {
            self.check_commit_within(node, status);
        }
    }

    /// What is about to be applied or answered may have been committed in this very step.
    pub(super) fn catch_up_with_commit(&mut self, node: usize, partition: PartitionId) {
        if let Some(status) = self.status(node, partition) {
            let seen =
                self.nodes[node].process.as_ref().and_then(|process| process.seen.get(&partition)).copied();
            let seen = seen.filter(|seen| seen.uid == status.key.uid);
            self.observe_commit(node, &status, seen);
        }
    }

    /// A leader has committed more than anybody before.
    fn extend_committed(&mut self, node: usize, status: &ReplicaStatus) {
        self.check_leader_has_committed(node, status);
        let Some(store) = self.nodes[node].disk.store(status.key) else { return };
        let ghost = &mut self.ghosts[status.key.partition.index()];
        for offset in ghost.end()..status.commit {
            let Some(hash) = store.hash(offset + 1) else { break };
            let op = match store.record(offset).map(|record| &record.entry) {
                Some(Entry::Write { payload, .. }) => decode(payload).0,
                _ => 0,
            };
            ghost.committed.push((hash, op));
        }
    }

    /// The node's disk has been through something.
    pub(in super::super) fn check_disk(&mut self, node: usize) {
        let name = self.nodes[node].name.clone();
        for partition in (0..self.settings.partitions).map(PartitionId) {
            self.check_member(partition, &name);
            self.check_some_disk(partition);
        }
    }

    pub(in super::super) fn check_installed(&mut self, node: usize, key: ReplicaKey) {
        self.check_snapshot_committed(node, key);
        let name = self.nodes[node].name.clone();
        self.check_member(key.partition, &name);
    }
}

// What a command can break.
impl World {
    pub(in super::super) fn check_command(&mut self, before: &Topology, command: &Command) {
        if let Command::RenewReplica { node, .. } = command {
            self.nodes[index(node)].lost_something = false;
        }
        let after = self.control.topology.clone();
        self.check_versions_grow(before, &after);
        for (known, record) in before.partitions.iter().zip(&after.partitions) {
            if known.version != record.version {
                self.check_record(record);
                self.check_members(record.id);
                self.check_leader_knows_members(record);
            }
        }
    }

    /// A node has registered: what it lost is known from now on.
    pub(in super::super) fn note_registered(&mut self, node: usize) {
        let keys: Vec<_> = self.nodes[node].disk.stores().map(|(key, _)| *key).collect();
        let registration = self.nodes[node].registration(node);
        let is_unknown = |key: &ReplicaKey| {
            let store = self.nodes[node].disk.store(*key);
            store.is_some_and(is_damaged)
                && registration.replicas_damaged.get(&key.partition) != Some(&key.uid)
        };
        let knows_all = !keys.iter().any(is_unknown);
        self.nodes[node].lost_end = false;
        self.nodes[node].lost_something &= !knows_all;
    }
}

/// The key of a node's replica, as the record has it.
fn key_of(record: &Partition, node: &NodeId) -> Option<(usize, ReplicaKey)> {
    let uid = record.replica(node)?.uid;
    Some((index(node), ReplicaKey { partition: record.id, uid }))
}
