//! How a cluster begins: the command that makes it, and what apply makes of that command.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::apply::node_of;
use super::command::{Applied, Command, InvalidReason, Registration, Rejected};
use super::state::{ControlState, majority};
use crate::id::{Epoch, Incarnation, NodeId, PartitionId, PartitionVersion};
use crate::limits::{CLUSTER_NAME_BYTES_MAX, EXPECT_MAX, PARTITIONS_MAX, REPLICATION_FACTOR_MAX};
use crate::placement::{PlacementNode, Standing, first_table};
use crate::topology::{Cluster, ClusterConfig, Liveness, Origin, Partition, Replica};

/// The first table of a new cluster: a row for each partition, in it the members that hold it, the
/// leader first.
///
/// It stands in the command and is not worked out when the command is applied: two releases may
/// have different solvers, and read one log as one table all the same. The members go by number, so
/// that the table of the largest cluster stays small beside the names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstTable(pub Vec<Vec<MemberIndex>>);

/// A member of a new cluster, by its place among the members of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberIndex(pub u16);

const _: () = assert!(EXPECT_MAX <= u16::MAX as u32);

impl MemberIndex {
    /// The place as a position in a list.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl Command {
    /// The command that makes `cluster` out of `members`, its first table laid out by the strategy
    /// that the cluster is configured with. Applied to a state without a cluster it is accepted.
    ///
    /// Costs what [`first_table`] costs: well below a millisecond for the default configuration, up to
    /// a second for the most partitions, copies and zones there can be.
    ///
    /// # Errors
    ///
    /// What is beyond the limits, found before anything is laid out. Another try gives the same.
    pub fn form_cluster(cluster: Cluster, members: Vec<Registration>) -> Result<Self, InvalidReason> {
        check_founding(&cluster, &members)?;
        let table = FirstTable::place(&cluster.config, &members);
        Ok(Self::FormCluster { cluster, members, table })
    }
}

impl FirstTable {
    fn place(config: &ClusterConfig, members: &[Registration]) -> Self {
        let names = members.iter().map(|member| &member.node);
        let by_name: BTreeMap<_, _> = names.zip((0..).map(MemberIndex)).collect();
        let nodes: Vec<_> = members.iter().filter(|member| member.holds_data).map(placement_node).collect();
        let table = first_table(config.strategy, &nodes, config.partition_count, config.replication_factor);
        Self(table.iter().map(|row| row.iter().map(|node| by_name[node]).collect()).collect())
    }

    fn check(&self, config: &ClusterConfig, members: &[Registration]) -> Result<(), InvalidReason> {
        let holds_data =
            |member: &MemberIndex| members.get(member.index()).is_some_and(|member| member.holds_data);
        let fits = |row: &Vec<MemberIndex>| {
            let distinct: BTreeSet<_> = row.iter().collect();
            row.len() <= config.replication_factor as usize
                && distinct.len() == row.len()
                && row.iter().all(holds_data)
        };
        let complete = self.0.len() == config.partition_count as usize;
        if complete && self.0.iter().all(fits) { Ok(()) } else { Err(InvalidReason::FirstTable) }
    }
}

impl ControlState {
    pub(super) fn form_cluster(
        &mut self,
        cluster: &Cluster,
        members: &[Registration],
        table: &FirstTable,
    ) -> Result<Applied, Rejected> {
        if let Some(formed) = &self.topology.cluster {
            let same = formed.id == cluster.id;
            return if same {
                Ok(Applied::Unchanged)
            } else {
                Err(Rejected::AlreadyFormed { cluster: formed.id })
            };
        }
        check_founding(cluster, members).map_err(Rejected::invalid)?;
        table.check(&cluster.config, members).map_err(Rejected::invalid)?;
        self.topology.cluster = Some(Arc::new(cluster.clone()));
        for member in members {
            let node = node_of(member, Incarnation(1), Liveness::Alive);
            self.topology.nodes.insert(member.node.clone(), Arc::new(node));
        }
        for (number, row) in (0..).zip(&table.0) {
            let nodes = row.iter().map(|member| members[member.index()].node.clone()).collect();
            let record = self.first_record(PartitionId(number), nodes);
            self.topology.partitions.push(Arc::new(record));
        }
        Ok(Applied::Changed)
    }

    /// A partition nobody has written to: all its copies are equal, so all are in sync.
    fn first_record(&mut self, id: PartitionId, nodes: Vec<NodeId>) -> Partition {
        let copies = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let mut record = Partition {
            id,
            version: PartitionVersion(1),
            epoch: Epoch(u64::from(copies > 0)),
            origin: Origin::First,
            leader: nodes.first().cloned(),
            in_sync: nodes.iter().cloned().collect(),
            replicas: nodes
                .into_iter()
                .map(|node| Replica { node, uid: self.next_uid(), lapses: 0 })
                .collect(),
            tainted: BTreeSet::new(),
            min_in_sync: majority(copies.max(1)),
            yielded_by: None,
            transfer: None,
            movement: None,
            unclean: None,
            overrun: None,
            history: Vec::new(),
        };
        record.note_epoch();
        record
    }
}

/// A member as placement sees it: all are there when the cluster forms.
fn placement_node(member: &Registration) -> PlacementNode {
    PlacementNode {
        id: member.node.clone(),
        weight: member.weight,
        zone: member.zone.clone(),
        capacity: None,
        standing: Standing::Target,
    }
}

fn check_founding(cluster: &Cluster, members: &[Registration]) -> Result<(), InvalidReason> {
    check_cluster(cluster)?;
    let names: BTreeSet<_> = members.iter().map(|member| &member.node).collect();
    let stores: BTreeSet<_> = members.iter().map(|member| member.store).collect();
    let distinct = names.len() == members.len() && stores.len() == members.len();
    if members.is_empty() || !distinct || members.len() > EXPECT_MAX as usize {
        return Err(InvalidReason::Members);
    }
    members.iter().try_for_each(Registration::check)
}

pub(super) fn check_cluster(cluster: &Cluster) -> Result<(), InvalidReason> {
    if !(1..=CLUSTER_NAME_BYTES_MAX).contains(&cluster.name.len()) {
        return Err(InvalidReason::ClusterName);
    }
    if !(1..=PARTITIONS_MAX).contains(&cluster.config.partition_count) {
        return Err(InvalidReason::PartitionCount);
    }
    check_replication_factor(cluster.config.replication_factor)
}

pub(super) fn check_replication_factor(replication_factor: u32) -> Result<(), InvalidReason> {
    let fits = (1..=REPLICATION_FACTOR_MAX).contains(&replication_factor);
    if fits { Ok(()) } else { Err(InvalidReason::ReplicationFactor) }
}
