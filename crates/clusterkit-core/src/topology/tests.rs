//! Snapshots, their differences, and what both say to people.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec;

use super::*;
use crate::handoff;
use crate::id::{BootId, ClusterId, Incarnation, PartitionVersion, ReplicaUid, StoreId};

fn node(number: u64, liveness: Liveness) -> Arc<Node> {
    Arc::new(Node {
        id: NodeId::new(&format!("n{number}")).unwrap(),
        store: StoreId(number),
        boot: BootId(number),
        incarnation: Incarnation(1),
        node_addr: format!("h{number}:7000"),
        public_addr: format!("h{number}:8080"),
        zone: None,
        weight: 1,
        role: RaftRole::Voter,
        holds_data: true,
        reports_position: false,
        liveness,
        stage: Stage::Member,
        software: "0.1.0".to_string(),
        metadata: BTreeMap::new(),
    })
}

fn partition(number: u32, nodes: &[u64]) -> Arc<Partition> {
    let ids: Vec<_> = nodes.iter().map(|number| NodeId::new(&format!("n{number}")).unwrap()).collect();
    Arc::new(Partition {
        id: PartitionId(number),
        version: PartitionVersion(1),
        epoch: Epoch(1),
        leader: ids.first().cloned(),
        in_sync: ids.iter().cloned().collect(),
        replicas: (1..)
            .zip(ids)
            .map(|(uid, node)| Replica { node, uid: ReplicaUid(uid), lapses: 0 })
            .collect(),
        tainted: BTreeSet::new(),
        min_in_sync: 1,
        yielded_by: None,
        transfer: None,
        movement: None,
        unclean: None,
        overrun: None,
        history: Vec::new(),
        origin: Origin::First,
    })
}

fn topology() -> Topology {
    let nodes = (1..=3).map(|number| node(number, Liveness::Alive));
    let config = ClusterConfig { partition_count: 4, ..ClusterConfig::default() };
    Topology {
        version: TopologyVersion(1),
        route_version: RouteVersion(1),
        cluster: Some(Arc::new(Cluster { id: ClusterId(1), name: "test".to_string(), config })),
        nodes: nodes.map(|node| (node.id.clone(), node)).collect(),
        partitions: (0..4).map(|number| partition(number, &[1, 2, 3])).collect(),
    }
}

#[test]
fn a_key_is_routed_to_the_leader_of_its_partition() {
    let topology = topology();
    // The CRC16 slot of "foo" is 12182 of 16384, in the third of four quarters.
    let route = topology.route(b"foo").unwrap();
    assert_eq!((route.partition, route.epoch), (PartitionId(2), Epoch(1)));
    assert_eq!(route.leader, Some(&NodeId::new("n1").unwrap()));
    assert_eq!(topology.route(b"{foo}.a"), topology.route(b"foo"));
    assert_eq!(topology.route_partition(PartitionId(4)), None);
    assert_eq!(Topology::default().route(b"foo"), None);
}

#[test]
fn a_delta_leads_from_one_version_to_the_other() {
    let old = topology();
    let mut new = old.clone();
    new.version = TopologyVersion(2);
    new.nodes.remove(&NodeId::new("n3").unwrap());
    new.nodes.insert(NodeId::new("n4").unwrap(), node(4, Liveness::Joining));
    new.partitions[1] = partition(1, &[2, 1]);
    let delta = new.diff(&old);
    assert_eq!(
        (delta.nodes_changed.len(), delta.nodes_removed.len(), delta.partitions_changed.len()),
        (1, 1, 1)
    );
    assert_eq!(old.apply(&delta), Ok(new.clone()));
    let (expected, found) = (TopologyVersion(1), TopologyVersion(2));
    assert_eq!(new.apply(&delta), Err(DeltaError::OtherVersion { expected, found }));
}

#[test]
fn a_delta_from_nothing_is_the_whole_topology() {
    let new = topology();
    let delta = new.diff(&Topology::default());
    assert_eq!(Topology::default().apply(&delta), Ok(new));
}

#[test]
fn equal_records_are_no_difference_though_they_are_other_copies() {
    let old = topology();
    let mut new = topology();
    new.version = TopologyVersion(2);
    let delta = new.diff(&old);
    assert!(delta.nodes_changed.is_empty() && delta.partitions_changed.is_empty() && delta.cluster.is_none());
    assert!(new.events_since(&old).is_empty());
}

#[test]
fn events_tell_deaths_elections_and_moves() {
    let old = topology();
    let mut new = old.clone();
    new.nodes.insert(NodeId::new("n1").unwrap(), node(1, Liveness::Dead));
    let record = Arc::make_mut(&mut new.partitions[0]);
    let (n1, n2) = (NodeId::new("n1").unwrap(), NodeId::new("n2").unwrap());
    record.leader = Some(n2.clone());
    record.epoch = Epoch(2);
    record.origin = Origin::Membership;
    record.in_sync.remove(&n1);
    let record = Arc::make_mut(&mut new.partitions[1]);
    record.leader = None;
    let in_sync = BTreeSet::from([n2.clone(), NodeId::new("n3").unwrap()]);
    let expect = vec![
        Event::NodeFailed { node: n1.clone() },
        Event::InSyncChanged { partition: PartitionId(0), in_sync },
        Event::LeaderElected {
            partition: PartitionId(0),
            leader: n2,
            epoch: Epoch(2),
            origin: Origin::Membership,
            previous: Some(n1.clone()),
        },
        Event::LeaderLost { partition: PartitionId(1), leader: n1, epoch: Epoch(1) },
    ];
    assert_eq!(new.events_since(&old), expect);
}

/// Partition 0 on n1, n2 and n3, and what is told as its record changes step by step.
struct Record {
    topology: Topology,
}

impl Record {
    fn new() -> Self {
        Self { topology: topology() }
    }

    fn change(&mut self, change: impl FnOnce(&mut Partition)) -> Vec<String> {
        let older = self.topology.clone();
        self.topology.version = self.topology.version.next();
        change(Arc::make_mut(&mut self.topology.partitions[0]));
        self.topology.events_since(&older).iter().map(shown).collect()
    }

    fn awaited(&self) -> Vec<String> {
        let record = &self.topology.partitions[0];
        let shown = |awaited: &StageAwaited| format!("{} {}", awaited.node, awaited.stage);
        let all = record.stages_awaited();
        if let Some(of_move) = record.move_awaits() {
            assert!(all.contains(&of_move), "{of_move:?} is one of {all:?}");
        }
        all.iter().map(shown).collect()
    }
}

fn shown(event: &Event) -> String {
    match event {
        Event::HookOnTime { node, .. } => format!("{} {node}", event.kind()),
        Event::HookOverran { node, stage, .. } => format!("{} {node} {stage}", event.kind()),
        Event::MoveAdvanced { target, stage, .. } => format!("{} {target} {stage}", event.kind()),
        Event::LeaderElected { leader, origin, .. } => format!("{} {leader} {origin}", event.kind()),
        other => other.kind().to_string(),
    }
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

#[test]
fn a_move_is_told_from_hook_to_hook() {
    let mut record = Record::new();
    let started = record.change(|record| {
        record.replicas.push(Replica { node: id("n4"), uid: ReplicaUid(9), lapses: 0 });
        record.movement = Some(Move { source: Some(id("n1")), target: id("n4") });
    });
    assert_eq!(started, ["replica_added", "move_started"]);
    assert_eq!(record.awaited(), ["n4 catch_up"]);
    let added = |record: &mut Partition| assert!(record.in_sync.insert(id("n4")));
    assert_eq!(record.change(added), ["in_sync_changed"]);
    assert_eq!(record.awaited(), ["n1 seal"], "the controller is about to ask for it");
    assert_eq!(record.change(|record| record.transfer = Some(id("n4"))), ["move_advanced n4 seal"]);
    assert_eq!(record.awaited(), ["n1 seal"]);
    let led = record.change(|record| {
        (record.leader, record.transfer) = (Some(id("n4")), None);
        (record.epoch, record.origin) = (Epoch(2), Origin::Handover);
    });
    assert_eq!(led, ["leader_elected n4 handover", "move_advanced n4 activate"]);
    assert_eq!(record.awaited(), ["n4 activate"]);
    assert_eq!(record.change(|record| record.movement = None), ["move_finished"]);
    assert!(record.awaited().is_empty());
}

#[test]
fn a_handover_without_a_move_advances_none() {
    let mut record = Record::new();
    assert!(record.change(|record| record.transfer = Some(id("n2"))).is_empty());
    assert_eq!(record.awaited(), ["n1 seal"]);
    let led = record.change(|record| {
        (record.leader, record.transfer, record.epoch) = (Some(id("n2")), None, Epoch(2));
    });
    assert_eq!(led, ["leader_elected n2 first"]);
}

#[test]
fn a_late_hook_is_told_once_and_again_when_it_is_over() {
    let late = |node: &str, stage| Some(Overrun { node: id(node), stage });
    let mut record = Record::new();
    let told = record.change(|record| record.overrun = late("n2", handoff::Stage::Prepare));
    assert_eq!(told, ["hook_overran n2 prepare"]);
    assert_eq!(record.awaited(), ["n2 prepare"], "what shows in nothing else is awaited too");
    assert!(record.change(|record| record.version = record.version.next()).is_empty());
    let told = record.change(|record| record.overrun = late("n2", handoff::Stage::CatchUp));
    assert_eq!(told, ["hook_overran n2 catch_up"]);
    let told = record.change(|record| record.overrun = late("n3", handoff::Stage::Release));
    assert_eq!(told, ["hook_on_time n2", "hook_overran n3 release"]);
    assert_eq!(record.change(|record| record.overrun = None), ["hook_on_time n3"]);
}

#[test]
fn without_a_leader_no_hook_is_awaited() {
    let mut record = Record::new();
    record.change(|record| {
        record.leader = None;
        record.in_sync.remove(&id("n2"));
        record.movement = Some(Move { source: Some(id("n1")), target: id("n2") });
    });
    assert!(record.awaited().is_empty());
}

#[test]
fn a_late_hook_degrades_and_many_of_one_node_are_one_reason() {
    let mut sick = topology();
    let late = Overrun { node: id("n2"), stage: handoff::Stage::CatchUp };
    Arc::make_mut(&mut sick.partitions[1]).overrun = Some(late.clone());
    let words = |topology: &Topology| -> Vec<_> {
        topology.health(true).reasons.iter().map(ToString::to_string).collect()
    };
    assert_eq!(sick.health(true).state, HealthState::Degraded);
    assert_eq!(words(&sick), ["catch_up of partition-1 on n2 is past its deadline"]);
    Arc::make_mut(&mut sick.partitions[3]).overrun = Some(late);
    Arc::make_mut(&mut sick.partitions[2]).overrun =
        Some(Overrun { node: id("n2"), stage: handoff::Stage::Release });
    let expect = [
        "catch_up of partition-1 and 1 more on n2 is past its deadline",
        "release of partition-2 on n2 is past its deadline",
    ];
    assert_eq!(words(&sick), expect);
}

#[test]
fn health_names_the_worst_first() {
    let mut sick = topology();
    assert!(sick.health(true).is_healthy());
    assert_eq!(sick.health(false).reasons, vec![HealthReason::NoController]);
    sick.nodes.insert(NodeId::new("n3").unwrap(), node(3, Liveness::Dead));
    Arc::make_mut(&mut sick.partitions[0]).leader = None;
    let health = sick.health(true);
    assert_eq!(health.state, HealthState::Unavailable);
    let words: Vec<_> = health.reasons.iter().map(ToString::to_string).collect();
    let expect =
        ["1 partitions have no leader", "3 partitions have fewer than 3 copies in sync", "n3 is dead"];
    assert_eq!(words, expect);
    assert_eq!(Topology::default().health(true).reasons, vec![HealthReason::NotFormed]);
}

#[test]
fn holders_begin_with_the_leader() {
    let mut record = partition(0, &[1, 2, 3]).as_ref().clone();
    record.leader = Some(NodeId::new("n3").unwrap());
    let holders: Vec<_> = record.holders().map(NodeId::as_str).collect();
    assert_eq!(holders, ["n3", "n1", "n2"]);
    record.leader = None;
    assert_eq!(record.followers().count(), 3);
}
