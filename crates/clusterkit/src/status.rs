//! Numbers and words for whoever looks at a node.

use std::collections::{BTreeMap, BTreeSet};

use clusterkit_core::id::{ClusterId, NodeId, RouteVersion, StoreId, TopologyVersion};
use clusterkit_core::topology::{Health, PartitionHealth, Topology};

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
    /// Copies and leaderships of each node that holds data.
    pub nodes: BTreeMap<NodeId, NodeShare>,
    /// The variance of the copies over the nodes.
    pub variance: f64,
    /// The node with the most copies.
    pub most_loaded: Option<NodeId>,
    /// The node with the fewest copies.
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
        let data_nodes = topology.nodes.values().filter(|node| node.holds_data);
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
        stats.measure();
        stats
    }

    fn measure(&mut self) {
        let by_load = |(_, share): &(&NodeId, &NodeShare)| share.replicas;
        self.most_loaded = self.nodes.iter().max_by_key(by_load).map(|(node, _)| node.clone());
        self.least_loaded = self.nodes.iter().min_by_key(by_load).map(|(node, _)| node.clone());
        let nodes = f64::from(count(self.nodes.len()).max(1));
        let mean = self.nodes.values().map(|share| f64::from(share.replicas)).sum::<f64>() / nodes;
        let square = |share: &NodeShare| (f64::from(share.replicas) - mean).powi(2);
        // The sum of nothing is minus zero.
        self.variance = self.nodes.values().map(square).sum::<f64>().abs() / nodes;
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
