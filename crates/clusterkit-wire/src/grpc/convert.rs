//! From core's types to the messages of `clusterkit.cluster.v1`.

use clusterkit_core::handoff;
use clusterkit_core::hash::KeyHash;
use clusterkit_core::id::{NodeId, PartitionId};
use clusterkit_core::topology::{
    Cluster, EpochRecord, Health, HealthReason, HealthState, Move, Node, NodeStatus, Origin, Overrun,
    Partition, PartitionHealth, RaftRole, Replica, Topology,
};

use super::cluster::v1;

impl From<&Topology> for v1::Topology {
    fn from(topology: &Topology) -> Self {
        let partition = |record| v1::Partition::of(record, topology);
        Self {
            version: topology.version.0,
            route_version: topology.route_version.0,
            cluster: topology.cluster.as_deref().map(Into::into),
            nodes: topology.nodes.values().map(|node| node.as_ref().into()).collect(),
            partitions: topology.partitions.iter().map(AsRef::as_ref).map(partition).collect(),
        }
    }
}

impl v1::TopologyDelta {
    /// What makes `newer` out of `older`, both as messages.
    ///
    /// A partition stands in it also when only its health changed. Health is not a part of core's
    /// record but follows from the whole topology, so core's own delta is not enough.
    #[must_use]
    pub fn between(older: &Topology, newer: &Topology) -> Self {
        let delta = newer.diff(older);
        let is_changed = |record: &&Partition| {
            let before = older.partition(record.id);
            let is_same = before.is_some_and(|before| is_same_record(before, record));
            !is_same
                || before.map(|before| older.partition_health(before)) != Some(newer.partition_health(record))
        };
        let partitions = newer.partitions.iter().map(AsRef::as_ref).filter(is_changed);
        Self {
            from_version: delta.from.0,
            to_version: delta.to.0,
            route_version: delta.route_version.0,
            cluster: delta.cluster.as_deref().map(Into::into),
            nodes_changed: delta.nodes_changed.iter().map(|node| node.as_ref().into()).collect(),
            nodes_removed: names(&delta.nodes_removed),
            partitions_changed: partitions.map(|record| v1::Partition::of(record, newer)).collect(),
        }
    }
}

/// Records of two versions are mostly shared, and then equal at the cost of one comparison.
fn is_same_record(older: &Partition, newer: &Partition) -> bool {
    core::ptr::eq(older, newer) || older == newer
}

impl From<&Cluster> for v1::Cluster {
    fn from(cluster: &Cluster) -> Self {
        let config = &cluster.config;
        let (algorithm, partition_count) = (config.key_hash.to_string(), config.partition_count);
        Self {
            id: cluster.id.to_string(),
            name: cluster.name.clone(),
            hash_config: Some(v1::HashConfig { algorithm, partition_count }),
            replication_factor: config.replication_factor,
            strategy: config.strategy.to_string(),
        }
    }
}

impl v1::HashConfig {
    /// The partition of `key`. `None` when this release does not know the algorithm, or when there
    /// are no partitions: ask a node for the route then.
    #[must_use]
    pub fn partition_of(&self, key: &[u8]) -> Option<PartitionId> {
        let key_hash: KeyHash = self.algorithm.parse().ok()?;
        (self.partition_count > 0).then(|| key_hash.partition_of(key, self.partition_count))
    }
}

impl From<&Node> for v1::Node {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id.to_string(),
            node_addr: node.node_addr.clone(),
            public_addr: node.public_addr.clone(),
            zone: node.zone.clone(),
            weight: node.weight,
            role: v1::NodeRole::from(node.role).into(),
            holds_data: node.holds_data,
            status: v1::NodeStatus::from(node.status()).into(),
            incarnation: node.incarnation.0,
            software: node.software.clone(),
            metadata: node.metadata.clone(),
        }
    }
}

impl From<RaftRole> for v1::NodeRole {
    fn from(role: RaftRole) -> Self {
        match role {
            RaftRole::Learner => Self::Learner,
            RaftRole::Voter => Self::Voter,
        }
    }
}

impl From<NodeStatus> for v1::NodeStatus {
    fn from(status: NodeStatus) -> Self {
        match status {
            NodeStatus::Joining => Self::Joining,
            NodeStatus::Alive => Self::Alive,
            NodeStatus::Suspect => Self::Suspect,
            NodeStatus::Dead => Self::Dead,
            NodeStatus::Leaving => Self::Leaving,
            NodeStatus::Left => Self::Left,
        }
    }
}

impl v1::Partition {
    /// The message for `record`, a partition of `topology`, which its health follows from.
    #[must_use]
    pub fn of(record: &Partition, topology: &Topology) -> Self {
        Self {
            id: record.id.0,
            version: record.version.0,
            epoch: record.epoch.0,
            leader: record.leader.as_ref().map(ToString::to_string),
            replicas: record.replicas.iter().map(Into::into).collect(),
            in_sync: names(&record.in_sync),
            tainted: names(&record.tainted),
            min_in_sync: record.min_in_sync,
            transfer: record.transfer.as_ref().map(ToString::to_string),
            movement: record.movement.as_ref().map(Into::into),
            health: v1::PartitionHealth::from(topology.partition_health(record)).into(),
            unclean_epoch: record.unclean.map(|epoch| epoch.0),
            origin: v1::EpochOrigin::from(record.origin).into(),
            overrun: record.overrun.as_ref().map(Into::into),
        }
    }
}

impl From<&Replica> for v1::Replica {
    fn from(replica: &Replica) -> Self {
        Self { node: replica.node.to_string(), uid: replica.uid.0, lapses: replica.lapses }
    }
}

impl From<&EpochRecord> for v1::EpochRecord {
    fn from(record: &EpochRecord) -> Self {
        let origin = v1::EpochOrigin::from(record.origin).into();
        Self { epoch: record.epoch.0, leader: record.leader.to_string(), origin }
    }
}

impl From<Origin> for v1::EpochOrigin {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::First => Self::First,
            Origin::Handover => Self::Handover,
            Origin::Membership => Self::Membership,
            Origin::Position => Self::Position,
            Origin::Unclean => Self::Unclean,
        }
    }
}

impl From<&Overrun> for v1::Overrun {
    fn from(overrun: &Overrun) -> Self {
        Self { node: overrun.node.to_string(), stage: v1::HookStage::from(overrun.stage).into() }
    }
}

impl From<handoff::Stage> for v1::HookStage {
    fn from(stage: handoff::Stage) -> Self {
        match stage {
            handoff::Stage::Prepare => Self::Prepare,
            handoff::Stage::CatchUp => Self::CatchUp,
            handoff::Stage::Seal => Self::Seal,
            handoff::Stage::Activate => Self::Activate,
            handoff::Stage::Release => Self::Release,
        }
    }
}

impl From<&Move> for v1::Move {
    fn from(movement: &Move) -> Self {
        Self {
            source: movement.source.as_ref().map(ToString::to_string),
            target: movement.target.to_string(),
        }
    }
}

impl From<PartitionHealth> for v1::PartitionHealth {
    fn from(health: PartitionHealth) -> Self {
        match health {
            PartitionHealth::Ok => Self::Ok,
            PartitionHealth::UnderReplicated => Self::UnderReplicated,
            PartitionHealth::BelowMinInSync => Self::BelowMinInSync,
            PartitionHealth::Leaderless => Self::Leaderless,
        }
    }
}

impl From<&Health> for v1::Health {
    fn from(health: &Health) -> Self {
        let state = v1::HealthState::from(health.state).into();
        Self { state, reasons: health.reasons.iter().map(Into::into).collect() }
    }
}

impl From<HealthState> for v1::HealthState {
    fn from(state: HealthState) -> Self {
        match state {
            HealthState::Healthy => Self::Healthy,
            HealthState::Degraded => Self::Degraded,
            HealthState::Unavailable => Self::Unavailable,
        }
    }
}

impl From<&HealthReason> for v1::HealthReason {
    fn from(reason: &HealthReason) -> Self {
        Self {
            code: reason.code().to_owned(),
            severity: v1::HealthState::from(reason.severity()).into(),
            message: reason.to_string(),
            node: node_of(reason).map(ToString::to_string),
            partitions: partitions_of(reason),
        }
    }
}

fn node_of(reason: &HealthReason) -> Option<&NodeId> {
    match reason {
        HealthReason::HookOverran { node, .. }
        | HealthReason::NodeDown { node, .. }
        | HealthReason::NodeLeaving { node } => Some(node),
        _ => None,
    }
}

fn partitions_of(reason: &HealthReason) -> Option<u32> {
    match reason {
        HealthReason::Leaderless { partitions }
        | HealthReason::BelowMinInSync { partitions }
        | HealthReason::HookOverran { partitions, .. }
        | HealthReason::UnderReplicated { partitions, .. } => Some(*partitions),
        _ => None,
    }
}

/// The ids as texts, in their order.
fn names<'a>(ids: impl IntoIterator<Item = &'a NodeId>) -> Vec<String> {
    ids.into_iter().map(ToString::to_string).collect()
}
