//! How the cluster looks when everything that was begun has come to its end.

use std::collections::BTreeSet;

use clusterkit_core::id::PartitionId;
use clusterkit_core::placement::{Budget, PlacementNode, PlacementRow, Standing, repair};
use clusterkit_core::topology::{Liveness, Partition, Stage};

use crate::store::GatePhase;
use crate::world::{World, index, name};

impl World {
    /// What is not as it should be, `None` when everything is.
    pub(crate) fn unsettled(&self) -> Option<String> {
        let records = self.topology().partitions.iter();
        records
            .map(AsRef::as_ref)
            .find_map(|record| self.unsettled_partition(record))
            .or_else(|| (0..self.nodes.len()).find_map(|node| self.unsettled_node(node)))
            .or_else(|| self.unbalanced())
    }

    /// Whether the leader's lease is open.
    pub(crate) fn is_served(&self, partition: PartitionId) -> bool {
        let Some(record) = self.topology().partition(partition) else { return false };
        let Some(leader) = &record.leader else { return false };
        let process = self.nodes[index(leader)].process.as_ref();
        let gate = process.and_then(|process| process.gates.get(&partition));
        gate.is_some_and(|gate| gate.epoch == record.epoch && gate.phase == GatePhase::Open)
    }

    /// Led with an open lease, all replicas in sync, nothing under way, nothing named as late.
    fn unsettled_partition(&self, record: &Partition) -> Option<String> {
        let id = record.id;
        if !self.is_served(id) {
            return Some(format!("{id} is not served by {:?} at e{}", record.leader, record.epoch));
        }
        let holders: BTreeSet<_> = record.replicas.iter().map(|replica| replica.node.clone()).collect();
        if holders != record.in_sync || !record.tainted.is_empty() {
            return Some(format!("{id}: {:?} of {holders:?} are in sync", record.in_sync));
        }
        if holders.len() != self.topology().replication_factor_effective() as usize {
            return Some(format!("{id} has {} copies", holders.len()));
        }
        if record.movement.is_some() || record.transfer.is_some() || record.overrun.is_some() {
            return Some(format!("{id} is in motion: {record:?}"));
        }
        None
    }

    /// Nothing to release, no stage under way, and nothing on disk that it should not hold.
    fn unsettled_node(&self, node: usize) -> Option<String> {
        let member = self.nodes[node].member()?;
        if member.topology.version != self.topology().version {
            return Some(format!("n{node} has not seen the newest version"));
        }
        if !member.stages.is_released() {
            return Some(format!("n{node} has something to release"));
        }
        if let Some(status) = member.stages.statuses().next() {
            return Some(format!("n{node}: {status:?}"));
        }
        let held = &self.nodes[node].disk.places;
        let left = held.iter().find(|(partition, place)| {
            let record = self.topology().partition(**partition);
            let replica = record.and_then(|record| record.replica(&name(node)));
            replica.map(|replica| replica.uid) != Some(place.uid)
        });
        left.map(|(partition, place)| format!("n{node} still holds {partition} as u{}", place.uid))
    }

    fn unbalanced(&self) -> Option<String> {
        let topology = self.topology();
        let rows = topology.partitions.iter().map(|record| PlacementRow {
            replicas: record.replicas.iter().map(|replica| replica.node.clone()).collect(),
            leader: record.leader.clone(),
            electable: record.in_sync.clone(),
            busy: None,
            avoided: BTreeSet::new(),
            pinned: false,
        });
        let nodes = topology.nodes.values().filter(|node| node.holds_data && node.stage != Stage::Left);
        let nodes = nodes.map(|node| PlacementNode {
            id: node.id.clone(),
            weight: node.weight,
            zone: None,
            capacity: None,
            standing: match (node.stage, node.liveness) {
                (Stage::Member, Liveness::Alive) => Standing::Target,
                (Stage::Member, _) => Standing::Keep,
                _ => Standing::Leave,
            },
        });
        let (rows, nodes): (Vec<_>, Vec<_>) = (rows.collect(), nodes.collect());
        let plan = repair(&rows, &nodes, topology.replication_factor_effective(), Budget::UNLIMITED);
        (!plan.is_empty()).then(|| format!("out of balance: {plan:?}"))
    }
}
