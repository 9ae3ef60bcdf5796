//! The replicated state of the control plane.

use alloc::sync::Arc;

use serde::{Deserialize, Serialize};

use super::command::{Applied, Command, Rejected};
use crate::id::{Incarnation, NodeId, PartitionId, PartitionVersion, ReplicaUid};
use crate::topology::{Node, Partition, Topology};

/// Everything the control-plane log decides.
///
/// Invariants:
/// - the same commands in the same order give the same state, on every machine and release;
/// - a refused command changes nothing but, where its refusal says so, one record's version and the
///   handover that it calls off;
/// - `topology.version` moves with every change that a watcher can see;
/// - every partition keeps the invariants of [`Partition`], and `topology` those of [`Topology`];
/// - no replica has a uid above `uid_last`.
///
/// [`check`](Self::check) looks whether a state that was read keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlState {
    /// What watchers see.
    pub topology: Topology,
    /// The last replica uid given out.
    pub(super) uid_last: ReplicaUid,
    /// The newest run of any node that was removed: one that comes back begins after it, so that nothing
    /// said of an earlier run is taken for a later one's.
    pub(super) incarnation_removed: Incarnation,
}

impl ControlState {
    /// Applies one command.
    ///
    /// Deterministic: no clock, no chance. A refusal is a result for whoever proposed it.
    pub fn apply(&mut self, command: &Command) -> Result<Applied, Rejected> {
        let before = self.topology.clone();
        let outcome = self.dispatch(command);
        self.advance_versions(&before);
        outcome
    }

    fn dispatch(&mut self, command: &Command) -> Result<Applied, Rejected> {
        match command {
            Command::FormCluster { cluster, members, table } => self.form_cluster(cluster, members, table),
            Command::RegisterNode { registration, replace } => self.register_node(registration, *replace),
            Command::SetLiveness { changes } => self.set_liveness(changes),
            Command::Elect { partition, version, leader, by_position } => {
                self.elect(*partition, *version, leader, *by_position)
            }
            Command::ElectUnclean { partition, version, leader, statuses } => {
                self.elect_unclean(*partition, *version, leader, statuses)
            }
            Command::SetInSync(proposal) => self.set_in_sync(proposal),
            Command::StartMove { partition, version, movement } => {
                self.start_move(*partition, *version, movement)
            }
            Command::FinishMove { partition, version } => self.finish_move(*partition, *version),
            Command::AbortMove { partition, version } => self.abort_move(*partition, *version),
            Command::BeginTransfer { partition, version, target } => {
                self.begin_transfer(*partition, *version, target)
            }
            Command::CancelTransfer { partition, version } => self.cancel_transfer(*partition, *version),
            Command::Handoff { partition, version, epoch, from, .. } => {
                self.handoff(*partition, *version, *epoch, from)
            }
            Command::Resign { partition, version, epoch, node } => {
                self.resign(*partition, *version, *epoch, node)
            }
            Command::Taint { partition, version, node, incarnation } => {
                self.taint(*partition, *version, node, *incarnation)
            }
            Command::RenewReplica { partition, version, node, incarnation } => {
                self.renew_replica(*partition, *version, node, *incarnation)
            }
            Command::Revoke { partition, version, epoch } => self.revoke(*partition, *version, *epoch),
            Command::NameOverrun { partition, version, overrun } => {
                self.name_overrun(*partition, *version, overrun.as_ref())
            }
            Command::DropReplica { partition, version, node } => {
                self.drop_replica(*partition, *version, node)
            }
            Command::Drain { node } => self.drain(node),
            Command::CancelDrain { node } => self.cancel_drain(node),
            Command::Leave { node } => self.leave(node),
            Command::RemoveNode { node, force } => self.remove_node(node, *force),
            Command::SetReplicationFactor { replication_factor } => {
                self.set_replication_factor(*replication_factor)
            }
        }
    }

    /// Moves the versions on when anything, or anything that routes need, differs from `before`.
    fn advance_versions(&mut self, before: &Topology) {
        let delta = self.topology.diff(before);
        let nodes_changed = !delta.nodes_changed.is_empty() || !delta.nodes_removed.is_empty();
        if delta.cluster.is_none() && !nodes_changed && delta.partitions_changed.is_empty() {
            return;
        }
        self.topology.version = before.version.next();
        delta.partitions_changed.iter().for_each(|record| record.assert_invariants());
        let routes_changed = delta.cluster.is_some()
            || !delta.nodes_removed.is_empty()
            || delta.nodes_changed.iter().any(|node| node_routes_differ(before.node(&node.id), node))
            || delta
                .partitions_changed
                .iter()
                .any(|new| partition_routes_differ(before.partition(new.id), new));
        if routes_changed {
            self.topology.route_version = before.route_version.next();
        }
    }

    /// The record of `partition`, to be changed. Its version moves by the caller's hand.
    pub(super) fn partition_mut(&mut self, partition: PartitionId) -> &mut Partition {
        Arc::make_mut(&mut self.topology.partitions[partition.index()])
    }

    /// The record of `node`, to be changed.
    pub(super) fn node_mut(&mut self, node: &NodeId) -> Result<&mut Node, Rejected> {
        match self.topology.nodes.get_mut(node) {
            Some(record) => Ok(Arc::make_mut(record)),
            None => Err(Rejected::UnknownNode { node: node.clone() }),
        }
    }

    /// The record of `partition`, when it is still at `version`.
    pub(super) fn partition_at(
        &self,
        partition: PartitionId,
        version: PartitionVersion,
    ) -> Result<&Partition, Rejected> {
        let Some(record) = self.topology.partition(partition) else {
            return Err(Rejected::UnknownPartition { partition });
        };
        if record.version != version {
            return Err(Rejected::StaleVersion { partition, current: record.version });
        }
        Ok(record)
    }

    pub(super) fn next_uid(&mut self) -> ReplicaUid {
        self.uid_last = self.uid_last.next();
        self.uid_last
    }

    /// How many in-sync replicas a partition needs that has all its copies.
    pub(super) fn min_in_sync_wanted(&self) -> u32 {
        majority(self.topology.replication_factor_effective().max(1))
    }

    /// How many in-sync replicas a partition with `copies` copies needs: a majority of what it
    /// shall have.
    pub(super) fn min_in_sync_for(&self, copies: usize) -> u32 {
        let copies = u32::try_from(copies).unwrap_or(u32::MAX);
        majority(self.topology.replication_factor_effective().min(copies).max(1))
    }
}

/// More than half of `count`.
pub(super) fn majority(count: u32) -> u32 {
    count / 2 + 1
}

fn node_routes_differ(before: Option<&Node>, after: &Node) -> bool {
    before.is_none_or(|before| before.node_addr != after.node_addr || before.public_addr != after.public_addr)
}

fn partition_routes_differ(before: Option<&Partition>, after: &Partition) -> bool {
    before.is_none_or(|before| {
        before.leader != after.leader || before.epoch != after.epoch || before.replicas != after.replicas
    })
}
