//! A drain, rehearsed: the controller's own decisions on a copy of the state, with every replica
//! catching up and every leader handing over at once.

use clusterkit_core::control::{Command, ControlState, Facts, Limits, Rejected, reconcile};
use clusterkit_core::id::{NodeId, PartitionId};
use clusterkit_core::topology::Stage;

use super::limits::DRAIN_ROUNDS_MAX;

/// What a drain would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DrainPlan {
    /// In the order in which the controller would begin them.
    pub(super) steps: Vec<Step>,
    /// Whether the node would have left at the end. Otherwise something stands in the way, or the
    /// rehearsal was cut off.
    pub(super) leaves: bool,
}

/// One step of a drain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The copy goes without a new one: there are fewer nodes than copies.
    Drop { partition: PartitionId },
    /// The lead goes to another copy.
    Lead { partition: PartitionId, target: NodeId },
    /// The copy goes to another node.
    Move { partition: PartitionId, target: NodeId },
}

/// Rehearses the drain of `node`. It changes nothing, and costs about as much processor time as the
/// drain itself would cost the controller.
pub(super) fn drain_plan(state: &ControlState, node: &NodeId) -> Result<DrainPlan, Rejected> {
    let mut state = state.clone();
    state.apply(&Command::Drain { node: node.clone() })?;
    let mut steps = Vec::new();
    for _ in 0..DRAIN_ROUNDS_MAX {
        let limits = Limits { moves_max: u32::MAX, transfers_max: u32::MAX };
        let commands = reconcile(&state, &Facts::all_done(&state), limits);
        if commands.is_empty() {
            break;
        }
        for command in &commands {
            let step = step(&state, command, node);
            if state.apply(command).is_ok() {
                steps.extend(step);
            }
        }
    }
    let leaves = state.topology.node(node).is_none_or(|node| node.stage == Stage::Left);
    Ok(DrainPlan { steps, leaves })
}

/// What `command` means for `node`, if it means anything.
fn step(state: &ControlState, command: &Command, node: &NodeId) -> Option<Step> {
    match command {
        Command::BeginTransfer { partition, target, .. } => {
            let leads = state.topology.partition(*partition)?.leader.as_ref() == Some(node);
            leads.then(|| Step::Lead { partition: *partition, target: target.clone() })
        }
        Command::DropReplica { partition, node: holder, .. } => {
            (holder == node).then_some(Step::Drop { partition: *partition })
        }
        Command::StartMove { partition, movement, .. } => {
            let is_source = movement.source.as_ref() == Some(node);
            is_source.then(|| Step::Move { partition: *partition, target: movement.target.clone() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use clusterkit_core::control::Registration;
    use clusterkit_core::id::{BootId, ClusterId, StoreId};
    use clusterkit_core::topology::{Cluster, ClusterConfig};

    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId::new(&format!("n{number}")).expect("a node id")
    }

    fn registration(number: u64) -> Registration {
        let addrs = [7_000, 8_000].map(|port| format!("127.0.0.1:{}", port + number));
        Registration::new(id(number), StoreId(number), BootId(number), addrs)
    }

    fn cluster(nodes: u64) -> ControlState {
        let config = ClusterConfig { partition_count: 8, replication_factor: 3, ..ClusterConfig::default() };
        let cluster = Cluster { id: ClusterId(1), name: "test".to_owned(), config };
        let mut state = ControlState::default();
        let members = (1..=nodes).map(registration).collect();
        state.apply(&Command::form_cluster(cluster, members).expect("valid")).expect("formed");
        for command in reconcile(&state, &Facts::default(), Limits::default()) {
            state.apply(&command).expect("accepted");
        }
        state
    }

    #[test]
    fn every_copy_and_every_lead_of_the_node_goes_somewhere_else() {
        let state = cluster(4);
        let plan = drain_plan(&state, &id(1)).expect("a plan");
        let held: BTreeSet<_> = state
            .topology
            .partitions
            .iter()
            .filter(|record| record.holds(&id(1)))
            .map(|record| record.id)
            .collect();
        let moved = plan.steps.iter().filter_map(|step| match step {
            Step::Move { partition, target } => Some((*partition, target.clone())),
            _ => None,
        });
        let moved: BTreeMap<_, _> = moved.collect();
        assert!(plan.leaves, "{plan:?}");
        assert_eq!(moved.keys().copied().collect::<BTreeSet<_>>(), held);
        assert!(moved.values().all(|target| *target != id(1)));
    }

    #[test]
    fn copies_are_dropped_where_no_node_can_take_them() {
        let plan = drain_plan(&cluster(3), &id(2)).expect("a plan");
        let drops = plan.steps.iter().filter(|step| matches!(step, Step::Drop { .. })).count();
        assert_eq!((drops, plan.leaves), (8, true), "{plan:?}");
    }

    #[test]
    fn the_only_node_cannot_leave() {
        let plan = drain_plan(&cluster(1), &id(1)).expect("a plan");
        assert_eq!(plan, DrainPlan { steps: Vec::new(), leaves: false });
    }

    #[test]
    fn an_unknown_node_is_refused() {
        assert_eq!(drain_plan(&cluster(1), &id(9)), Err(Rejected::UnknownNode { node: id(9) }));
    }
}
