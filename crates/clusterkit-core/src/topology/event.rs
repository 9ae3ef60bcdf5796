//! What a change of topology means to those who watch.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::{Liveness, Node, Origin, Partition, Stage, Topology};
use crate::handoff;
use crate::id::{Epoch, NodeId, PartitionId};

/// One thing that happened. Every node sees the same events in the same order, since they follow
/// from the versions alone; a node that was given a snapshot skips what lies before it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The cluster exists, with its configuration.
    ClusterFormed,
    /// The configuration changed.
    ConfigChanged,
    /// A partition has a leader at a new epoch.
    LeaderElected {
        /// Which partition.
        partition: PartitionId,
        /// Who leads.
        leader: NodeId,
        /// The fencing token.
        epoch: Epoch,
        /// How the epoch began.
        origin: Origin,
        /// Who led before, if anyone did.
        previous: Option<NodeId>,
    },
    /// A partition has no leader any more.
    LeaderLost {
        /// Which partition.
        partition: PartitionId,
        /// Who led.
        leader: NodeId,
        /// The epoch that ended.
        epoch: Epoch,
    },
    /// A leader was elected although acknowledged writes may be missing.
    DataLossPossible {
        /// Which partition.
        partition: PartitionId,
        /// The epoch that begins with the loss.
        epoch: Epoch,
    },
    /// The in-sync set changed.
    InSyncChanged {
        /// Which partition.
        partition: PartitionId,
        /// The set now.
        in_sync: BTreeSet<NodeId>,
    },
    /// A hook is past its deadline, and goes on.
    HookOverran {
        /// Which partition.
        partition: PartitionId,
        /// On which node.
        node: NodeId,
        /// Which hook.
        stage: handoff::Stage,
    },
    /// A hook that was late is over, or another node's is named in its place.
    HookOnTime {
        /// Which partition.
        partition: PartitionId,
        /// On which node.
        node: NodeId,
    },
    /// The move of a replica has everything copied, and waits for the next hook: the leader's `seal`,
    /// or the target's `activate` once it leads.
    MoveAdvanced {
        /// Which partition.
        partition: PartitionId,
        /// From where, `None` for an added copy.
        source: Option<NodeId>,
        /// To where.
        target: NodeId,
        /// Which hook it waits for now.
        stage: handoff::Stage,
    },
    /// A replica begins to move.
    MoveStarted {
        /// Which partition.
        partition: PartitionId,
        /// From where, `None` for an added copy.
        source: Option<NodeId>,
        /// To where.
        target: NodeId,
    },
    /// A replica arrived, or its move was given up.
    MoveFinished {
        /// Which partition.
        partition: PartitionId,
        /// From where, `None` for an added copy.
        source: Option<NodeId>,
        /// To where.
        target: NodeId,
        /// Whether the target holds the partition now.
        arrived: bool,
    },
    /// A node was silent for too long, or is confirmed down.
    NodeFailed {
        /// Which node.
        node: NodeId,
    },
    /// A node is part of the cluster and heard for the first time since it registered.
    NodeJoined {
        /// Which node.
        node: NodeId,
    },
    /// A node drains.
    NodeLeaving {
        /// Which node.
        node: NodeId,
    },
    /// A node is gone for good.
    NodeLeft {
        /// Which node.
        node: NodeId,
    },
    /// A node that was suspect or dead is heard again.
    NodeRecovered {
        /// Which node.
        node: NodeId,
    },
    /// A node is known to the control plane under a new incarnation.
    NodeRegistered {
        /// Which node.
        node: NodeId,
    },
    /// A node's record was removed.
    NodeRemoved {
        /// Which node.
        node: NodeId,
    },
    /// A node missed some heartbeats.
    NodeSuspected {
        /// Which node.
        node: NodeId,
    },
    /// A node shall hold a copy of a partition.
    ReplicaAdded {
        /// Which partition.
        partition: PartitionId,
        /// Which node.
        node: NodeId,
    },
    /// A node shall no longer hold a copy of a partition.
    ReplicaRemoved {
        /// Which partition.
        partition: PartitionId,
        /// Which node.
        node: NodeId,
    },
}

impl Event {
    /// The name shown in event streams and logs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ClusterFormed => "cluster_formed",
            Self::ConfigChanged => "config_changed",
            Self::DataLossPossible { .. } => "data_loss_possible",
            Self::HookOnTime { .. } => "hook_on_time",
            Self::HookOverran { .. } => "hook_overran",
            Self::InSyncChanged { .. } => "in_sync_changed",
            Self::LeaderElected { .. } => "leader_elected",
            Self::LeaderLost { .. } => "leader_lost",
            Self::MoveAdvanced { .. } => "move_advanced",
            Self::MoveFinished { .. } => "move_finished",
            Self::MoveStarted { .. } => "move_started",
            Self::NodeFailed { .. } => "node_failed",
            Self::NodeJoined { .. } => "node_joined",
            Self::NodeLeaving { .. } => "node_leaving",
            Self::NodeLeft { .. } => "node_left",
            Self::NodeRecovered { .. } => "node_recovered",
            Self::NodeRegistered { .. } => "node_registered",
            Self::NodeRemoved { .. } => "node_removed",
            Self::NodeSuspected { .. } => "node_suspected",
            Self::ReplicaAdded { .. } => "replica_added",
            Self::ReplicaRemoved { .. } => "replica_removed",
        }
    }
}

impl Topology {
    /// What happened between `older` and this version: nodes first, then partitions by number.
    #[must_use]
    pub fn events_since(&self, older: &Self) -> Vec<Event> {
        let delta = self.diff(older);
        let mut events = Vec::new();
        if delta.cluster.is_some() {
            let formed = older.cluster.is_none();
            events.push(if formed { Event::ClusterFormed } else { Event::ConfigChanged });
        }
        for node in &delta.nodes_changed {
            node_events(older.node(&node.id), node, &mut events);
        }
        events.extend(delta.nodes_removed.into_iter().map(|node| Event::NodeRemoved { node }));
        for partition in &delta.partitions_changed {
            partition_events(older.partition(partition.id), partition, &mut events);
        }
        events
    }
}

fn node_events(older: Option<&Node>, newer: &Node, events: &mut Vec<Event>) {
    let node = || newer.id.clone();
    if older.is_none_or(|older| older.incarnation != newer.incarnation) {
        events.push(Event::NodeRegistered { node: node() });
    }
    let before = older.map(|older| older.liveness);
    if before != Some(newer.liveness) {
        events.extend(liveness_event(before, newer));
    }
    if older.map(|older| older.stage) != Some(newer.stage) {
        match newer.stage {
            Stage::Leaving => events.push(Event::NodeLeaving { node: node() }),
            Stage::Left => events.push(Event::NodeLeft { node: node() }),
            Stage::Member => {}
        }
    }
}

fn liveness_event(before: Option<Liveness>, newer: &Node) -> Option<Event> {
    let node = newer.id.clone();
    match (before, newer.liveness) {
        (_, Liveness::Joining) => None,
        (_, Liveness::Suspect) => Some(Event::NodeSuspected { node }),
        (_, Liveness::Dead) => Some(Event::NodeFailed { node }),
        (None | Some(Liveness::Joining), Liveness::Alive) => Some(Event::NodeJoined { node }),
        (Some(_), Liveness::Alive) => Some(Event::NodeRecovered { node }),
    }
}

fn partition_events(older: Option<&Partition>, newer: &Partition, events: &mut Vec<Event>) {
    let partition = newer.id;
    for replica in newer.replicas.iter().filter(|new| !older.is_some_and(|old| old.replicas.contains(new))) {
        events.push(Event::ReplicaAdded { partition, node: replica.node.clone() });
    }
    for replica in older.iter().flat_map(|old| &old.replicas).filter(|old| !newer.replicas.contains(old)) {
        events.push(Event::ReplicaRemoved { partition, node: replica.node.clone() });
    }
    if older.map(|old| &old.in_sync) != Some(&newer.in_sync) {
        events.push(Event::InSyncChanged { partition, in_sync: newer.in_sync.clone() });
    }
    move_events(older, newer, events);
    leader_events(older, newer, events);
    events.extend(advance_event(older, newer));
    overrun_events(older, newer, events);
}

fn move_events(older: Option<&Partition>, newer: &Partition, events: &mut Vec<Event>) {
    let partition = newer.id;
    let before = older.and_then(|old| old.movement.as_ref());
    if before == newer.movement.as_ref() {
        return;
    }
    if let Some(movement) = before {
        let arrived = newer.holds(&movement.target);
        let (source, target) = (movement.source.clone(), movement.target.clone());
        events.push(Event::MoveFinished { partition, source, target, arrived });
    }
    if let Some(movement) = &newer.movement {
        let (source, target) = (movement.source.clone(), movement.target.clone());
        events.push(Event::MoveStarted { partition, source, target });
    }
}

fn leader_events(older: Option<&Partition>, newer: &Partition, events: &mut Vec<Event>) {
    let partition = newer.id;
    let before = older.and_then(|old| old.leader.clone());
    if newer.unclean.is_some() && older.and_then(|old| old.unclean) != newer.unclean {
        events.push(Event::DataLossPossible { partition, epoch: newer.epoch });
    }
    match &newer.leader {
        Some(leader) if older.map(|old| old.epoch) != Some(newer.epoch) => {
            let (leader, epoch, origin) = (leader.clone(), newer.epoch, newer.origin);
            events.push(Event::LeaderElected { partition, leader, epoch, origin, previous: before });
        }
        Some(_) => {}
        None => events.extend(before.map(|leader| {
            let epoch = older.map_or(newer.epoch, |old| old.epoch);
            Event::LeaderLost { partition, leader, epoch }
        })),
    }
}

/// A move that has come to its next hook.
fn advance_event(older: Option<&Partition>, newer: &Partition) -> Option<Event> {
    let movement = newer.movement.as_ref()?;
    let seals = newer.transfer.is_some() && older.is_none_or(|old| old.transfer != newer.transfer);
    let arrives =
        newer.leader.as_ref() == Some(&movement.target) && older.is_none_or(|old| old.leader != newer.leader);
    let stage = match (seals, arrives) {
        (true, _) => handoff::Stage::Seal,
        (false, true) => handoff::Stage::Activate,
        (false, false) => return None,
    };
    let (source, target) = (movement.source.clone(), movement.target.clone());
    Some(Event::MoveAdvanced { partition: newer.id, source, target, stage })
}

fn overrun_events(older: Option<&Partition>, newer: &Partition, events: &mut Vec<Event>) {
    let partition = newer.id;
    let (before, now) = (older.and_then(|old| old.overrun.as_ref()), newer.overrun.as_ref());
    if before == now {
        return;
    }
    if let Some(over) = before.filter(|before| now.is_none_or(|now| now.node != before.node)) {
        events.push(Event::HookOnTime { partition, node: over.node.clone() });
    }
    if let Some(late) = now {
        events.push(Event::HookOverran { partition, node: late.node.clone(), stage: late.stage });
    }
}
