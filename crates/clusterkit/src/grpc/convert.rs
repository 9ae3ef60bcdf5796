//! From what this crate counts to the messages of `clusterkit.cluster.v1`.

use std::collections::BTreeMap;

use clusterkit_core::id::NodeId;
use clusterkit_core::topology::{NodeStatus, PartitionHealth, Topology};
use clusterkit_wire::grpc::cluster::v1;

use crate::handle::ClusterKit;
use crate::status::{ControlPlaneStatus, NodeShare, Stats};

/// How the cluster stands, as `node` sees it in `topology`.
pub(super) fn status(node: &ClusterKit, topology: &Topology) -> v1::GetStatusResponse {
    let (cluster, stats) = (topology.cluster.as_ref(), Stats::of(topology));
    v1::GetStatusResponse {
        node: node.node_id().to_string(),
        ready: node.is_ready(),
        cluster_id: cluster.map(|cluster| cluster.id.to_string()),
        cluster_name: cluster.map(|cluster| cluster.name.clone()).unwrap_or_default(),
        version: topology.version.0,
        route_version: topology.route_version.0,
        health: Some((&topology.health(node.shared().has_controller())).into()),
        control_plane: Some((&node.control_plane()).into()),
        nodes: node_counts(topology),
        partitions: partition_counts(&stats.partitions_by_health),
        moves: stats.moves,
    }
}

fn node_counts(topology: &Topology) -> Vec<v1::NodeCount> {
    let mut counts = BTreeMap::<NodeStatus, u32>::new();
    for node in topology.nodes.values() {
        *counts.entry(node.status()).or_default() += 1;
    }
    let message = |(status, count)| v1::NodeCount { status: v1::NodeStatus::from(status).into(), count };
    counts.into_iter().map(message).collect()
}

fn partition_counts(counts: &BTreeMap<PartitionHealth, u32>) -> Vec<v1::PartitionCount> {
    let health = |health: PartitionHealth| v1::PartitionHealth::from(health).into();
    counts.iter().map(|(&key, &count)| v1::PartitionCount { health: health(key), count }).collect()
}

/// Who holds what in `topology`.
pub(super) fn stats(topology: &Topology) -> v1::GetStatsResponse {
    let stats = Stats::of(topology);
    let replication_factor = topology.cluster.as_ref().map_or(0, |cluster| cluster.config.replication_factor);
    v1::GetStatsResponse {
        version: topology.version.0,
        partitions: stats.partitions,
        partitions_by_health: partition_counts(&stats.partitions_by_health),
        replication_factor,
        replication_factor_effective: topology.replication_factor_effective(),
        nodes: stats.nodes.iter().map(share).collect(),
        variance: stats.variance,
        most_loaded: stats.most_loaded.map(|node| node.to_string()),
        least_loaded: stats.least_loaded.map(|node| node.to_string()),
        moves: stats.moves,
    }
}

fn share((node, share): (&NodeId, &NodeShare)) -> v1::NodeShare {
    v1::NodeShare { node: node.to_string(), replicas: share.replicas, leaders: share.leaders }
}

impl From<&ControlPlaneStatus> for v1::ControlPlane {
    fn from(status: &ControlPlaneStatus) -> Self {
        Self {
            state: status.state.to_owned(),
            term: status.term,
            controller: status.controller.as_ref().map(ToString::to_string),
            voters: status.voters.iter().map(ToString::to_string).collect(),
            learners: status.learners.iter().map(ToString::to_string).collect(),
            log_index_last: status.log_index_last,
            log_term_last: status.log_term_last,
            index_committed: status.index_committed,
            index_applied: status.index_applied,
        }
    }
}
