//! Numbers and words for whoever looks at a node.

use std::collections::{BTreeMap, BTreeSet};

use clusterkit_core::id::{ClusterId, NodeId, PartitionId, RouteVersion, StoreId, TopologyVersion};
use clusterkit_core::topology::{
    Health, Move, Node, Overrun, PartitionHealth, Stage, StageAwaited, Topology,
};

use crate::coordinator::raft::RaftNodeStats;
use crate::handle::ClusterKit;

/// Everything a status page shows of one node's view.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// The node that says so.
    pub node: NodeId,
    /// Whether it takes part.
    pub ready: bool,
    /// Its cluster.
    pub cluster: Option<ClusterId>,
    /// The cluster's name.
    pub cluster_name: String,
    /// The version it applied.
    pub version: TopologyVersion,
    /// The version of its routes.
    pub route_version: RouteVersion,
    /// How the cluster stands.
    pub health: Health,
    /// Who decides.
    pub control_plane: ControlPlaneStatus,
    /// Who holds what.
    pub stats: Stats,
    /// The moves of replicas under way, by partition.
    pub moves: Vec<MoveStatus>,
    /// The hooks that are past their deadline.
    pub overruns: BTreeMap<PartitionId, Overrun>,
}

/// The move of a replica, and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MoveStatus {
    /// Of which partition.
    pub partition: PartitionId,
    /// From where to where.
    pub movement: Move,
    /// The hook that it waits for; `None` while nobody leads the partition.
    pub awaits: Option<StageAwaited>,
}

fn moves(topology: &Topology) -> Vec<MoveStatus> {
    let moving = topology.partitions.iter().filter_map(|record| {
        let movement = record.movement.clone()?;
        Some(MoveStatus { partition: record.id, movement, awaits: record.move_awaits() })
    });
    moving.collect()
}

fn overruns(topology: &Topology) -> BTreeMap<PartitionId, Overrun> {
    let late = topology.partitions.iter().filter_map(|record| Some((record.id, record.overrun.clone()?)));
    late.collect()
}

impl Status {
    pub(crate) fn of(node: &ClusterKit) -> Self {
        let topology = node.topology();
        Self {
            node: node.node_id().clone(),
            ready: node.is_ready(),
            cluster: topology.cluster.as_ref().map(|cluster| cluster.id),
            cluster_name: topology.cluster.as_ref().map(|cluster| cluster.name.clone()).unwrap_or_default(),
            version: topology.version,
            route_version: topology.route_version,
            health: node.health(),
            control_plane: node.control_plane(),
            stats: Stats::of(&topology),
            moves: moves(&topology),
            overruns: overruns(&topology),
        }
    }
}

/// The control plane, as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControlPlaneStatus {
    /// What this node is in it: leader, follower, candidate, learner, starting or shutdown.
    pub state: &'static str,
    /// Raft's term.
    pub term: u64,
    /// The node that decides.
    pub controller: Option<NodeId>,
    /// The store of that node.
    pub controller_store: Option<StoreId>,
    /// The nodes that vote.
    pub voters: BTreeSet<NodeId>,
    /// The nodes that follow.
    pub learners: BTreeSet<NodeId>,
    /// The index of the last entry in this node's log.
    pub log_index_last: u64,
    /// The term of that entry.
    pub log_term_last: u64,
    /// The index up to which entries are known to be committed.
    pub index_committed: u64,
    /// The index up to which entries are applied.
    pub index_applied: u64,
}

impl ControlPlaneStatus {
    pub(crate) fn of(stats: &RaftNodeStats, topology: &Topology, controller: Option<NodeId>) -> Self {
        let name = |store: &StoreId| {
            topology.nodes.values().find(|node| node.store == *store).map(|node| node.id.clone())
        };
        Self {
            state: stats.state,
            term: stats.term,
            controller,
            controller_store: stats.leader,
            voters: stats.voters.iter().filter_map(name).collect(),
            learners: stats.learners.iter().filter_map(name).collect(),
            log_index_last: stats.log_index_last,
            log_term_last: stats.log_term_last,
            index_committed: stats.index_committed,
            index_applied: stats.index_applied,
        }
    }
}

/// Who holds what, and how even that is.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// All partitions.
    pub partitions: u32,
    /// Partitions by how they stand.
    pub partitions_by_health: BTreeMap<PartitionHealth, u32>,
    /// Copies and leaderships of each node that holds data and has not left.
    pub nodes: BTreeMap<NodeId, NodeShare>,
    /// The variance of the copies over the nodes that stay. Those that drain do not count, here and
    /// in the two below: they give away what they have and take nothing, so what they hold says
    /// nothing of how even the others are.
    pub variance: f64,
    /// The node with the most copies among those that stay.
    pub most_loaded: Option<NodeId>,
    /// The node with the fewest copies among those that stay.
    pub least_loaded: Option<NodeId>,
    /// Replica moves under way.
    pub moves: u32,
}

/// What one node holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeShare {
    /// Partitions it has a copy of.
    pub replicas: u32,
    /// Partitions it leads.
    pub leaders: u32,
}

impl Stats {
    /// Counts over one topology.
    #[must_use]
    pub fn of(topology: &Topology) -> Self {
        let mut stats = Self { partitions: count(topology.partitions.len()), ..Self::default() };
        let data_nodes = topology.nodes.values().filter(|node| node.holds_data && node.stage != Stage::Left);
        stats.nodes = data_nodes.map(|node| (node.id.clone(), NodeShare::default())).collect();
        for record in &topology.partitions {
            *stats.partitions_by_health.entry(topology.partition_health(record)).or_default() += 1;
            stats.moves += u32::from(record.movement.is_some());
            for replica in &record.replicas {
                stats.nodes.entry(replica.node.clone()).or_default().replicas += 1;
            }
            if let Some(leader) = &record.leader {
                stats.nodes.entry(leader.clone()).or_default().leaders += 1;
            }
        }
        stats.measure(topology);
        stats
    }

    fn measure(&mut self, topology: &Topology) {
        let stays = |node: &NodeId| topology.node(node).is_some_and(Node::is_placement_target);
        let staying: Vec<_> = self.nodes.iter().filter(|(node, _)| stays(node)).collect();
        let by_load = |(_, share): &&(&NodeId, &NodeShare)| share.replicas;
        let most_loaded = staying.iter().max_by_key(by_load).map(|&(node, _)| node.clone());
        let least_loaded = staying.iter().min_by_key(by_load).map(|&(node, _)| node.clone());
        let loads: Vec<_> = staying.iter().map(|(_, share)| f64::from(share.replicas)).collect();
        self.variance = variance(&loads);
        (self.most_loaded, self.least_loaded) = (most_loaded, least_loaded);
    }
}

fn variance(loads: &[f64]) -> f64 {
    let nodes = f64::from(count(loads.len()).max(1));
    let mean = loads.iter().sum::<f64>() / nodes;
    // The sum of nothing is minus zero.
    loads.iter().map(|load| (load - mean).powi(2)).sum::<f64>().abs() / nodes
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use clusterkit_core::control::{Command, ControlState, FirstTable, MemberIndex, Registration};
    use clusterkit_core::handoff;
    use clusterkit_core::id::BootId;
    use clusterkit_core::topology::{Cluster, ClusterConfig};

    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId::new(&format!("n{number}")).expect("a node id")
    }

    fn registration(number: u64) -> Registration {
        let addrs = [7_000, 8_000].map(|port| format!("127.0.0.1:{}", port + number));
        Registration::new(id(number), StoreId(number), BootId(number), addrs)
    }

    /// Three partitions on three nodes, and a fourth node that holds nothing.
    fn cluster() -> ControlState {
        let config = ClusterConfig { partition_count: 3, replication_factor: 1, ..ClusterConfig::default() };
        let cluster = Cluster { id: ClusterId(1), name: "test".to_owned(), config };
        let members = (1..=4).map(registration).collect();
        let table = FirstTable((0..3).map(|member| vec![MemberIndex(member)]).collect());
        let mut state = ControlState::default();
        state.apply(&Command::FormCluster { cluster, members, table }).expect("formed");
        state
    }

    #[test]
    fn a_move_is_listed_with_the_hook_that_it_waits_for() {
        let mut state = cluster();
        let (partition, movement) = (PartitionId(1), Move { source: Some(id(2)), target: id(4) });
        let version = state.topology.partitions[1].version;
        let start = Command::StartMove { partition, version, movement: movement.clone() };
        state.apply(&start).expect("accepted");
        let awaited = StageAwaited { node: id(4), stage: handoff::Stage::CatchUp };
        let expect = MoveStatus { partition, movement, awaits: Some(awaited.clone()) };
        assert_eq!(moves(&state.topology), [expect]);
        let version = state.topology.partitions[1].version;
        let overrun = Overrun { node: awaited.node, stage: awaited.stage };
        let name = Command::NameOverrun { partition, version, overrun: Some(overrun.clone()) };
        state.apply(&name).expect("accepted");
        assert_eq!(overruns(&state.topology), [(partition, overrun)].into());
    }

    #[test]
    fn only_nodes_that_stay_are_measured() {
        let mut state = cluster();
        let stats = |state: &ControlState| Stats::of(&state.topology);
        let all = stats(&state);
        assert_eq!((all.nodes.len(), all.least_loaded, all.variance), (4, Some(id(4)), 0.1875));
        state.apply(&Command::Drain { node: id(4) }).expect("accepted");
        let draining = stats(&state);
        assert!(draining.nodes.contains_key(&id(4)), "it is shown while it is there");
        assert_eq!((draining.least_loaded, draining.variance), (Some(id(1)), 0.0));
        state.apply(&Command::Leave { node: id(4) }).expect("accepted");
        let left = stats(&state);
        assert!(!left.nodes.contains_key(&id(4)));
        assert_eq!((left.most_loaded, left.least_loaded, left.variance), (Some(id(3)), Some(id(1)), 0.0));
    }

    #[test]
    fn where_no_node_stays_there_is_nothing_to_measure() {
        let mut state = cluster();
        (1..=4).for_each(|number| drop(state.apply(&Command::Drain { node: id(number) })));
        let stats = Stats::of(&state.topology);
        assert_eq!((stats.most_loaded, stats.least_loaded, stats.variance), (None, None, 0.0));
        assert!(stats.variance.is_sign_positive());
    }
}
