//! May this node be stopped now?

use std::collections::BTreeSet;
use std::fmt;

use clusterkit_core::handoff;
use clusterkit_core::id::{NodeId, PartitionId};
use clusterkit_core::topology::{Liveness, Node, Partition, Stage, Topology};

use crate::handle::ClusterKit;

/// What stopping one node now would cost. It says nothing about a node that stops later.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StopCheck {
    /// The node that would stop.
    pub node: NodeId,
    /// Partitions that can be written now and could not be without the node.
    pub partitions_losing_quorum: Vec<PartitionId>,
    /// Partitions that no replica could lead without the node, although one can with it.
    pub partitions_leaderless: Vec<PartitionId>,
    /// Partitions whose copy on the node catches up: it would begin anew.
    pub partitions_catching_up: Vec<PartitionId>,
    /// Partitions that the node hands over to another just now.
    pub partitions_handing_over: Vec<PartitionId>,
    /// Whether the voters that remain would be too few to decide anything.
    pub control_plane_quorum_lost: bool,
    /// What speaks against it. Empty when nothing does.
    pub reasons: Vec<StopReason>,
}

impl StopCheck {
    /// Whether the node may be stopped.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// One thing that speaks against stopping a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// Copies on the node catch up, and would begin anew.
    CatchingUp {
        /// How many.
        partitions: usize,
    },
    /// The control plane would lose, or has lost, its majority.
    ControlPlane {
        /// Nodes that vote.
        voters: usize,
        /// Voters that would be left alive.
        alive: usize,
    },
    /// The node hands partitions over to others, which would be elected instead.
    HandingOver {
        /// How many.
        partitions: usize,
    },
    /// Partitions would have no leader.
    Leaderless {
        /// How many.
        partitions: usize,
    },
    /// Partitions could not be written.
    LosesQuorum {
        /// How many.
        partitions: usize,
    },
    /// The node that answers sees no controller: what it knows may be old.
    NoController,
}

impl StopReason {
    /// A word for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::CatchingUp { .. } => "partitions_catching_up",
            Self::ControlPlane { .. } => "control_plane_quorum_lost",
            Self::HandingOver { .. } => "partitions_handing_over",
            Self::Leaderless { .. } => "partitions_leaderless",
            Self::LosesQuorum { .. } => "partitions_losing_quorum",
            Self::NoController => "no_controller",
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CatchingUp { partitions } => {
                write!(f, "{partitions} copies on it are catching up, and would begin anew")
            }
            Self::HandingOver { partitions } => {
                write!(f, "it hands {partitions} partitions over just now: wait until it has")
            }
            Self::ControlPlane { voters, alive } => {
                write!(
                    f,
                    "{alive} of {voters} voters would be left, which is no majority: nothing could be changed"
                )
            }
            Self::Leaderless { partitions } => write!(f, "{partitions} partitions would have no leader"),
            Self::LosesQuorum { partitions } => {
                write!(f, "{partitions} partitions could not be written until another copy is back")
            }
            Self::NoController => f.write_str("no controller is in reach: what this node knows may be old"),
        }
    }
}

impl ClusterKit {
    /// Whether `node` may be stopped now, as far as this node knows; `None` when there is no such
    /// node. Ask again right before each stop of a rolling restart.
    #[must_use]
    pub fn stop_check(&self, node: &NodeId) -> Option<StopCheck> {
        let mut check = stop_check(&self.topology(), &self.control_plane().voters, node)?;
        if self.health().reasons.contains(&clusterkit_core::topology::HealthReason::NoController) {
            check.reasons.push(StopReason::NoController);
        }
        Some(check)
    }
}

/// What follows from the topology and the voters alone. Only nodes that are heard count as left: a
/// suspect one may be gone already.
fn stop_check(topology: &Topology, voters: &BTreeSet<NodeId>, node: &NodeId) -> Option<StopCheck> {
    let stopping = topology.node(node)?;
    let mut check = StopCheck {
        node: node.clone(),
        partitions_losing_quorum: Vec::new(),
        partitions_leaderless: Vec::new(),
        partitions_catching_up: Vec::new(),
        partitions_handing_over: Vec::new(),
        control_plane_quorum_lost: false,
        reasons: Vec::new(),
    };
    if is_running(stopping) {
        let partitions = || topology.partitions.iter().filter(|record| record.holds(node));
        let ids = |record: &std::sync::Arc<Partition>| record.id;
        check.partitions_leaderless =
            partitions().filter(|record| loses_leader(topology, record, node)).map(ids).collect();
        check.partitions_losing_quorum =
            partitions().filter(|record| loses_quorum(topology, record, node)).map(ids).collect();
        let in_stage = |record: &Partition, stages: &[handoff::Stage]| {
            let mut awaited = record.stages_awaited().into_iter();
            awaited.any(|awaited| awaited.node == *node && stages.contains(&awaited.stage))
        };
        let copying = [handoff::Stage::Prepare, handoff::Stage::CatchUp];
        check.partitions_catching_up =
            partitions().filter(|record| in_stage(record, &copying)).map(ids).collect();
        check.partitions_handing_over =
            partitions().filter(|record| in_stage(record, &[handoff::Stage::Seal])).map(ids).collect();
    }
    let left = voters.iter().filter(|voter| *voter != node && is_heard(topology, voter)).count();
    check.control_plane_quorum_lost = left < majority(voters.len());
    check.reasons = reasons(&check, voters.len(), left);
    Some(check)
}

fn reasons(check: &StopCheck, voters: usize, alive: usize) -> Vec<StopReason> {
    let mut reasons = Vec::new();
    if check.control_plane_quorum_lost {
        reasons.push(StopReason::ControlPlane { voters, alive });
    }
    if !check.partitions_leaderless.is_empty() {
        reasons.push(StopReason::Leaderless { partitions: check.partitions_leaderless.len() });
    }
    if !check.partitions_losing_quorum.is_empty() {
        reasons.push(StopReason::LosesQuorum { partitions: check.partitions_losing_quorum.len() });
    }
    if !check.partitions_catching_up.is_empty() {
        reasons.push(StopReason::CatchingUp { partitions: check.partitions_catching_up.len() });
    }
    if !check.partitions_handing_over.is_empty() {
        reasons.push(StopReason::HandingOver { partitions: check.partitions_handing_over.len() });
    }
    reasons
}

/// Whether nobody but `node` could lead the partition.
fn loses_leader(topology: &Topology, record: &Partition, node: &NodeId) -> bool {
    let can_lead = |member: &NodeId| record.is_electable(member) && is_heard(topology, member);
    let others = record.in_sync.iter().any(|member| member != node && can_lead(member));
    record.is_electable(node) && !others
}

/// Whether the copies in sync suffice with `node`, and do not without it.
fn loses_quorum(topology: &Topology, record: &Partition, node: &NodeId) -> bool {
    let others = record.in_sync.iter().filter(|member| *member != node && is_heard(topology, member)).count();
    let with_node = others + usize::from(record.in_sync.contains(node));
    let needed = record.min_in_sync as usize;
    others < needed && needed <= with_node
}

fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

fn is_heard(topology: &Topology, node: &NodeId) -> bool {
    topology.node(node).is_some_and(|node| node.liveness == Liveness::Alive && node.stage != Stage::Left)
}

/// A node that does not run cannot be missed more than it is.
fn is_running(node: &Node) -> bool {
    matches!(node.liveness, Liveness::Alive | Liveness::Suspect) && node.stage != Stage::Left
}

#[cfg(test)]
mod tests {
    use clusterkit_core::control::{Command, ControlState, LivenessChange, Registration};
    use clusterkit_core::id::{BootId, ClusterId, Incarnation, StoreId};
    use clusterkit_core::topology::{Cluster, ClusterConfig, Move};

    use super::*;

    fn id(name: &str) -> NodeId {
        NodeId::new(name).expect("a node id")
    }

    fn registration(number: u64) -> Registration {
        let addrs = [7_000, 8_000].map(|port| format!("127.0.0.1:{}", port + number));
        Registration::new(id(&format!("n{number}")), StoreId(number), BootId(number), addrs)
    }

    fn apply(state: &mut ControlState, command: &Command) {
        state.apply(command).expect("accepted");
    }

    /// A cluster of `nodes` with `partitions` of so many copies.
    fn cluster(nodes: u64, partitions: u32, copies: u32) -> ControlState {
        let config = ClusterConfig {
            partition_count: partitions,
            replication_factor: copies,
            ..ClusterConfig::default()
        };
        let cluster = Cluster { id: ClusterId(1), name: "test".to_owned(), config };
        let mut state = ControlState::default();
        let members = (1..=nodes).map(registration).collect();
        apply(&mut state, &Command::form_cluster(cluster, members).expect("valid"));
        state
    }

    fn voters(count: u64) -> BTreeSet<NodeId> {
        (1..=count).map(|number| id(&format!("n{number}"))).collect()
    }

    fn kill(state: &mut ControlState, node: &str) {
        let change = LivenessChange { node: id(node), incarnation: Incarnation(1), liveness: Liveness::Dead };
        apply(state, &Command::SetLiveness { changes: vec![change] });
    }

    #[test]
    fn one_of_three_may_stop() {
        let state = cluster(3, 4, 3);
        let check = stop_check(&state.topology, &voters(3), &id("n1")).expect("a node");
        assert!(check.is_safe(), "{check:?}");
        assert!(check.partitions_losing_quorum.is_empty() && check.partitions_leaderless.is_empty());
    }

    #[test]
    fn the_second_of_three_may_not_stop() {
        let mut state = cluster(3, 4, 3);
        kill(&mut state, "n3");
        let check = stop_check(&state.topology, &voters(3), &id("n1")).expect("a node");
        assert_eq!(check.partitions_losing_quorum.len(), 4, "min_in_sync is 2 of 3");
        assert_eq!(check.partitions_leaderless, Vec::new(), "n2 can lead them all");
        let expect =
            [StopReason::ControlPlane { voters: 3, alive: 1 }, StopReason::LosesQuorum { partitions: 4 }];
        assert_eq!(check.reasons, expect);
        assert!(!check.is_safe() && check.control_plane_quorum_lost);
    }

    #[test]
    fn the_only_node_may_not_stop() {
        let state = cluster(1, 2, 3);
        let check = stop_check(&state.topology, &voters(1), &id("n1")).expect("a node");
        assert_eq!(check.partitions_leaderless, [PartitionId(0), PartitionId(1)]);
        assert_eq!(check.partitions_losing_quorum, [PartitionId(0), PartitionId(1)]);
    }

    #[test]
    fn a_node_that_does_not_vote_costs_the_control_plane_nothing() {
        let state = cluster(4, 4, 3);
        let check = stop_check(&state.topology, &voters(3), &id("n4")).expect("a node");
        assert!(check.is_safe(), "{check:?}");
    }

    #[test]
    fn stopping_a_dead_node_costs_no_partition() {
        let mut state = cluster(3, 4, 3);
        kill(&mut state, "n3");
        let check = stop_check(&state.topology, &voters(3), &id("n3")).expect("a node");
        assert!(check.is_safe(), "{check:?}");
    }

    /// The codes of what speaks against stopping each of the nodes 1 to 3.
    fn codes(state: &ControlState) -> [Vec<&'static str>; 3] {
        ["n1", "n2", "n3"].map(|name| {
            let check = stop_check(&state.topology, &voters(3), &id(name)).expect("a node");
            check.reasons.iter().map(StopReason::code).collect()
        })
    }

    #[test]
    fn a_node_whose_hooks_are_awaited_is_better_left_alone() {
        let mut state = cluster(3, 1, 2);
        let holders: Vec<_> = state.topology.partitions[0].replicas.iter().map(|r| r.node.clone()).collect();
        let names = ["n1", "n2", "n3"].map(id);
        let outsider = names.iter().find(|node| !holders.contains(node)).expect("two of three hold it");
        let place = |node: &NodeId| names.iter().position(|name| name == node).expect("one of three");
        let (partition, movement) =
            (PartitionId(0), Move { source: Some(holders[0].clone()), target: outsider.clone() });
        let version = state.topology.partitions[0].version;
        apply(&mut state, &Command::StartMove { partition, version, movement });
        let found = codes(&state);
        assert!(found[place(outsider)].contains(&"partitions_catching_up"), "{found:?}");
        let version = state.topology.partitions[0].version;
        apply(&mut state, &Command::BeginTransfer { partition, version, target: holders[1].clone() });
        let found = codes(&state);
        assert!(found[place(&holders[0])].contains(&"partitions_handing_over"), "{found:?}");
        assert!(!found[place(&holders[1])].contains(&"partitions_handing_over"), "{found:?}");
    }

    #[test]
    fn an_unknown_node_cannot_be_judged() {
        assert_eq!(stop_check(&cluster(1, 1, 1).topology, &voters(1), &id("n9")), None);
    }
}
