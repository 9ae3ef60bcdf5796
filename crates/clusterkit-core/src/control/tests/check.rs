//! A decoded state is no state before it was checked: one line for each rule.

use alloc::sync::Arc;

use super::*;
use crate::id::{Epoch, ReplicaUid, RouteVersion, TopologyVersion};
use crate::limits::NODES_MAX;
use crate::topology::{InvalidPartition, Move, Node};

fn formed() -> ControlState {
    World::formed(3, 4, 2).state
}

fn check(change: impl FnOnce(&mut ControlState), expect: InvalidState) {
    let mut state = formed();
    change(&mut state);
    assert_eq!(state.check(), Err(expect));
}

#[test]
fn what_apply_made_passes() {
    assert_eq!(ControlState::default().check(), Ok(()));
    assert_eq!(formed().check(), Ok(()));
}

#[test]
fn without_a_cluster_there_is_nothing_else() {
    let unformed = |change: fn(&mut ControlState)| {
        let mut state = ControlState::default();
        change(&mut state);
        assert_eq!(state.check(), Err(InvalidState::NotFormed));
    };
    unformed(|state| state.topology.nodes = formed().topology.nodes);
    unformed(|state| state.topology.partitions = formed().topology.partitions);
    unformed(|state| state.topology.version = TopologyVersion(1));
    unformed(|state| state.uid_last = ReplicaUid(1));
}

#[test]
fn the_configuration_is_within_the_limits() {
    let cluster = |change: fn(&mut Cluster), source| {
        let change = |state: &mut ControlState| {
            change(Arc::make_mut(state.topology.cluster.as_mut().unwrap()));
        };
        check(change, InvalidState::Cluster { source });
    };
    cluster(|cluster| cluster.name.clear(), InvalidReason::ClusterName);
    cluster(|cluster| cluster.config.partition_count = u32::MAX, InvalidReason::PartitionCount);
    cluster(|cluster| cluster.config.replication_factor = 0, InvalidReason::ReplicationFactor);
}

#[test]
fn versions_have_a_history() {
    check(|state| state.topology.version = TopologyVersion(0), InvalidState::Versions);
    check(|state| state.topology.route_version = RouteVersion(0), InvalidState::Versions);
    check(|state| state.topology.route_version = RouteVersion(2), InvalidState::Versions);
}

#[test]
fn nodes_lie_under_their_names_and_within_the_limits() {
    let n1 = |change: fn(&mut Node), expect| {
        let change = |state: &mut ControlState| {
            change(Arc::make_mut(state.topology.nodes.get_mut(&node(1)).unwrap()));
        };
        check(change, expect);
    };
    n1(|record| record.id = node(2), InvalidState::NodeName { node: node(1), found: node(2) });
    n1(|record| record.incarnation = Incarnation(0), InvalidState::Incarnation { node: node(1) });
    let beyond = |source| InvalidState::Node { node: node(1), source };
    n1(|record| record.weight = 0, beyond(InvalidReason::Weight));
    n1(|record| record.node_addr.clear(), beyond(InvalidReason::Address));
    n1(|record| record.zone = Some("z".repeat(257)), beyond(InvalidReason::Metadata));
    let crowd = |state: &mut ControlState| {
        let first = state.topology.nodes[&node(1)].as_ref().clone();
        let named = |number| (node(number), Arc::new(Node { id: node(number), ..first.clone() }));
        state.topology.nodes.extend((1..=NODES_MAX as u64 + 1).map(named));
    };
    check(crowd, InvalidState::TooManyNodes { count: NODES_MAX + 1 });
}

#[test]
fn there_is_a_record_for_each_partition_in_its_place() {
    let p = PartitionId;
    check(
        |state| drop(state.topology.partitions.pop()),
        InvalidState::PartitionCount { expected: 4, found: 3 },
    );
    check(
        |state| state.topology.partitions.swap(1, 2),
        InvalidState::PartitionOrder { partition: p(1), found: p(2) },
    );
}

#[test]
fn replicas_lie_on_known_nodes_under_uids_that_were_given_out() {
    let (partition, uid, last) = (PartitionId(3), ReplicaUid(8), ReplicaUid(7));
    check(|state| state.uid_last = last, InvalidState::Uid { partition, uid, last });
    let holder = formed().topology.partitions[0].replicas[0].node.clone();
    let forget = |state: &mut ControlState| drop(state.topology.nodes.remove(&holder));
    check(forget, InvalidState::UnknownNode { partition: PartitionId(0), node: holder.clone() });
}

#[test]
fn a_record_does_not_contradict_itself() {
    let record = |change: &dyn Fn(&mut Partition), source| {
        let change = |state: &mut ControlState| change(Arc::make_mut(&mut state.topology.partitions[0]));
        check(change, InvalidState::Partition { partition: PartitionId(0), source });
    };
    let formed = formed();
    let first = &formed.topology.partitions[0];
    let leader = || first.leader.clone().unwrap();
    let follower = || first.followers().next().unwrap().clone();
    let stranger = || (1..=3).map(node).find(|node| !first.holds(node)).unwrap();
    let movement = |source, target| Some(Move { source, target });
    record(&|p| p.replicas[0].node = p.replicas[1].node.clone(), InvalidPartition::NodeTwice);
    record(&|p| p.replicas[0].uid = p.replicas[1].uid, InvalidPartition::UidTwice);
    record(&|p| p.in_sync.extend([stranger()]), InvalidPartition::InSync);
    record(&|p| p.tainted.extend([stranger()]), InvalidPartition::Tainted);
    record(&|p| p.tainted.extend([leader()]), InvalidPartition::Leader);
    record(&|p| p.leader = Some(stranger()), InvalidPartition::Leader);
    record(&|p| p.epoch = Epoch(0), InvalidPartition::Epoch);
    record(&|p| p.unclean = Some(Epoch(2)), InvalidPartition::Unclean);
    record(&|p| p.version = PartitionVersion(0), InvalidPartition::Version);
    record(&|p| p.min_in_sync = 0, InvalidPartition::MinInSync);
    record(&|p| p.min_in_sync = 3, InvalidPartition::MinInSync);
    record(&|p| p.transfer = Some(leader()), InvalidPartition::Transfer);
    record(&|p| p.transfer = Some(stranger()), InvalidPartition::Transfer);
    record(&|p| (p.transfer, p.leader) = (Some(follower()), None), InvalidPartition::Transfer);
    record(&|p| p.movement = movement(None, stranger()), InvalidPartition::Movement);
    record(&|p| p.movement = movement(Some(stranger()), leader()), InvalidPartition::Movement);
}
