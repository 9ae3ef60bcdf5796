//! Replicas that are not to be trusted: they do not count, or do not lead, and the worst off begin anew.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::apply::{distrust, install_leader, lapse};
use super::command::{Applied, MemberStatus, Rejected};
use super::election::furthest;
use super::state::ControlState;
use crate::id::{Incarnation, NodeId, PartitionId, PartitionVersion, ReplicaUid};
use crate::topology::{Origin, Partition};

impl ControlState {
    /// Rule F2: a member says that something of it is missing or wrong.
    pub(super) fn taint(
        &mut self,
        partition: PartitionId,
        version: PartitionVersion,
        node: &NodeId,
        incarnation: Incarnation,
    ) -> Result<Applied, Rejected> {
        let record = self.partition_at(partition, version)?;
        self.check_incarnation(node, incarnation)?;
        if record.leader.as_ref() == Some(node) || !record.holds(node) {
            return Err(Rejected::OtherState { partition });
        }
        if !record.is_electable(node) {
            return Ok(Applied::Unchanged);
        }
        let record = self.partition_mut(partition);
        record.transfer = record.transfer.take().filter(|target| target != node);
        distrust(record, node);
        if record.in_sync.contains(node) {
            // It left the set, and lapsed, or it stays and has to catch up once more.
            lapse(record, node);
        }
        record.version = record.version.next();
        Ok(Applied::Changed)
    }

    /// Rule D2: what a replica holds is damaged, so that it begins anew.
    pub(super) fn renew_replica(
        &mut self,
        partition: PartitionId,
        version: PartitionVersion,
        node: &NodeId,
        incarnation: Incarnation,
    ) -> Result<Applied, Rejected> {
        let record = self.partition_at(partition, version)?;
        self.check_incarnation(node, incarnation)?;
        if !record.holds(node) {
            return Err(Rejected::OtherState { partition });
        }
        self.begin_replica_anew(partition, node);
        Ok(Applied::Changed)
    }

    /// The disk is another one: what it held is gone, so its replicas are new ones.
    pub(super) fn renew_replicas(&mut self, node: &NodeId) {
        for partition in self.partitions_of(node) {
            self.begin_replica_anew(partition, node);
        }
    }

    /// Rule D2, of the replicas that a node found damaged before it registered.
    pub(super) fn renew_damaged(&mut self, node: &NodeId, damaged: &BTreeMap<PartitionId, ReplicaUid>) {
        let is_current = |(partition, uid): &(&PartitionId, &ReplicaUid)| {
            let record = self.topology.partition(**partition);
            record.and_then(|record| record.replica(node)).is_some_and(|replica| replica.uid == **uid)
        };
        let current: Vec<_> = damaged.iter().filter(is_current).map(|(partition, _)| *partition).collect();
        for partition in current {
            self.begin_replica_anew(partition, node);
        }
    }

    /// Gives the replica of `node` a new uid; it leads nothing until it has caught up.
    fn begin_replica_anew(&mut self, partition: PartitionId, node: &NodeId) {
        let uid = self.next_uid();
        let record = self.partition_mut(partition);
        if let Some(replica) = record.replicas.iter_mut().find(|replica| replica.node == *node) {
            replica.uid = uid;
        }
        if record.leader.as_ref() == Some(node) {
            record.end_epoch(None);
        }
        record.transfer = record.transfer.take().filter(|target| target != node);
        distrust(record, node);
        record.version = record.version.next();
    }

    /// Rule R3: acknowledged bytes may be missing.
    pub(super) fn distrust_replicas(&mut self, node: &NodeId) {
        self.change_partitions_of(node, |record, node| {
            let held = record.in_sync.contains(node);
            distrust(record, node);
            held
        });
    }

    /// Rule F5.
    pub(super) fn elect_unclean(
        &mut self,
        partition: PartitionId,
        version: PartitionVersion,
        leader: &NodeId,
        statuses: &BTreeMap<NodeId, MemberStatus>,
    ) -> Result<Applied, Rejected> {
        let record = self.partition_at(partition, version)?;
        if record.leader.is_some() || record.in_sync != record.tainted {
            return Err(Rejected::OtherState { partition });
        }
        self.check_statuses(record, statuses)?;
        if furthest(statuses) != Some(leader) {
            return Err(Rejected::NotElectable { partition, node: leader.clone() });
        }
        let record = self.partition_mut(partition);
        record.tainted.remove(leader);
        install_leader(record, leader, Origin::Unclean);
        record.unclean = Some(record.epoch);
        Ok(Applied::Changed)
    }

    /// Whether every member is back, and the run that said what it has is its current one.
    fn check_statuses(
        &self,
        record: &Partition,
        statuses: &BTreeMap<NodeId, MemberStatus>,
    ) -> Result<(), Rejected> {
        let partition = record.id;
        if !record.in_sync.iter().eq(statuses.keys()) {
            return Err(Rejected::OtherState { partition });
        }
        for (node, status) in statuses {
            self.check_incarnation(node, status.incarnation)?;
            if !self.topology.is_live(node) {
                return Err(Rejected::OtherState { partition });
            }
        }
        Ok(())
    }
}
