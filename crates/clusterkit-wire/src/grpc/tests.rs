use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clusterkit_core::handoff;
use clusterkit_core::hash::KeyHash;
use clusterkit_core::id::{
    BootId, ClusterId, Epoch, Incarnation, NodeId, PartitionId, PartitionVersion, ReplicaUid, RouteVersion,
    StoreId, TopologyVersion,
};
use clusterkit_core::placement::Strategy as FirstTable;
use clusterkit_core::topology::{
    Cluster, ClusterConfig, EpochRecord, Liveness, Move, Node, NodeStatus, Origin, Overrun, Partition,
    RaftRole, Replica, Stage, Topology,
};
use proptest::prelude::*;
use prost::Message;

use super::cluster::v1;
use super::{ApplyError, FILE_DESCRIPTOR_SET, NODE_BYTES_MAX, PARTITION_BYTES_MAX};

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn node(name: &str, liveness: Liveness) -> Node {
    Node {
        id: id(name),
        store: StoreId(1),
        boot: BootId(2),
        incarnation: Incarnation(3),
        node_addr: format!("{name}:7000"),
        public_addr: format!("{name}:8080"),
        zone: Some("east".to_owned()),
        weight: 4,
        role: RaftRole::Learner,
        holds_data: true,
        reports_position: false,
        liveness,
        stage: Stage::Member,
        software: "0.1.0".to_owned(),
        metadata: BTreeMap::from([("rack".to_owned(), "7".to_owned())]),
    }
}

fn partition(number: u32, nodes: &[&str]) -> Partition {
    let replica =
        |(uid, name): (usize, &&str)| Replica { node: id(name), uid: ReplicaUid(uid as u64 + 10), lapses: 2 };
    Partition {
        id: PartitionId(number),
        version: PartitionVersion(5),
        epoch: Epoch(6),
        leader: nodes.first().map(|name| id(name)),
        replicas: nodes.iter().enumerate().map(replica).collect(),
        in_sync: nodes.iter().map(|name| id(name)).collect(),
        tainted: BTreeSet::new(),
        min_in_sync: 1,
        yielded_by: None,
        transfer: None,
        movement: None,
        unclean: None,
        overrun: None,
        history: Vec::new(),
        origin: Origin::Handover,
    }
}

fn topology(version: u64, nodes: Vec<Node>, partitions: Vec<Partition>) -> Topology {
    let config = ClusterConfig {
        partition_count: u32::try_from(partitions.len()).unwrap(),
        replication_factor: 2,
        key_hash: KeyHash::Fnv1a32,
        strategy: FirstTable::RoundRobin,
    };
    Topology {
        version: TopologyVersion(version),
        route_version: RouteVersion(version / 2),
        cluster: Some(Arc::new(Cluster { id: ClusterId(0xabc), name: "blue".to_owned(), config })),
        nodes: nodes.into_iter().map(|node| (node.id.clone(), Arc::new(node))).collect(),
        partitions: partitions.into_iter().map(Arc::new).collect(),
    }
}

#[test]
fn every_field_of_a_node_is_told() {
    let expect = v1::Node {
        id: "a".to_owned(),
        node_addr: "a:7000".to_owned(),
        public_addr: "a:8080".to_owned(),
        zone: Some("east".to_owned()),
        weight: 4,
        role: v1::NodeRole::Learner.into(),
        holds_data: true,
        status: v1::NodeStatus::Suspect.into(),
        incarnation: 3,
        software: "0.1.0".to_owned(),
        metadata: BTreeMap::from([("rack".to_owned(), "7".to_owned())]),
    };
    assert_eq!(v1::Node::from(&node("a", Liveness::Suspect)), expect);
}

#[test]
fn every_field_of_a_partition_is_told() {
    let mut record = partition(0, &["a", "b"]);
    record.tainted = BTreeSet::from([id("b")]);
    record.transfer = Some(id("b"));
    record.movement = Some(Move { source: Some(id("a")), target: id("c") });
    record.unclean = Some(Epoch(4));
    record.overrun = Some(Overrun { node: id("c"), stage: handoff::Stage::CatchUp });
    let nodes = vec![node("a", Liveness::Alive), node("b", Liveness::Dead)];
    let expect = v1::Partition {
        id: 0,
        version: 5,
        epoch: 6,
        leader: Some("a".to_owned()),
        replicas: vec![
            v1::Replica { node: "a".to_owned(), uid: 10, lapses: 2 },
            v1::Replica { node: "b".to_owned(), uid: 11, lapses: 2 },
        ],
        in_sync: vec!["a".to_owned(), "b".to_owned()],
        tainted: vec!["b".to_owned()],
        min_in_sync: 1,
        transfer: Some("b".to_owned()),
        movement: Some(v1::Move { source: Some("a".to_owned()), target: "c".to_owned() }),
        health: v1::PartitionHealth::UnderReplicated.into(),
        unclean_epoch: Some(4),
        origin: v1::EpochOrigin::Handover.into(),
        overrun: Some(v1::Overrun { node: "c".to_owned(), stage: v1::HookStage::CatchUp.into() }),
    };
    let topology = topology(1, nodes, vec![record.clone()]);
    assert_eq!(v1::Partition::of(&record, &topology), expect);
}

#[test]
fn every_origin_and_every_hook_has_its_word_on_the_wire() {
    let origins = [Origin::First, Origin::Handover, Origin::Membership, Origin::Position, Origin::Unclean];
    for origin in origins {
        let record = EpochRecord { epoch: Epoch(7), leader: id("a"), origin };
        let message = v1::EpochRecord::from(&record);
        let word = message.origin().as_str_name();
        assert_eq!(word, format!("EPOCH_ORIGIN_{}", origin.as_str().to_uppercase()));
        assert_eq!((message.epoch, message.leader.as_str()), (7, "a"));
    }
    use handoff::Stage::{Activate, CatchUp, Prepare, Release, Seal};
    for stage in [Prepare, CatchUp, Seal, Activate, Release] {
        let word = v1::HookStage::from(stage).as_str_name().to_owned();
        assert_eq!(word, format!("HOOK_STAGE_{}", stage.as_str().to_uppercase()));
    }
}

#[test]
fn a_cluster_is_told_with_the_hash_that_its_clients_need() {
    let message = v1::Topology::from(&topology(9, vec![], vec![partition(0, &[]), partition(1, &[])]));
    let hash_config = v1::HashConfig { algorithm: "fnv1a32".to_owned(), partition_count: 2 };
    let cluster = v1::Cluster {
        id: "0000000000000abc".to_owned(),
        name: "blue".to_owned(),
        hash_config: Some(hash_config),
        replication_factor: 2,
        strategy: "round-robin".to_owned(),
    };
    assert_eq!(message.cluster, Some(cluster));
    assert_eq!((message.version, message.route_version), (9, 4));
    assert_eq!(v1::Topology::from(&Topology::default()), v1::Topology::default());
}

#[test]
fn every_status_has_a_word_on_the_wire() {
    for status in NodeStatus::ALL {
        let message = v1::NodeStatus::from(status).as_str_name().to_owned();
        assert_eq!(message, format!("NODE_STATUS_{}", status.as_str().to_uppercase()));
    }
}

#[test]
fn a_client_finds_the_partition_of_a_key_as_the_cluster_does() {
    for key_hash in KeyHash::ALL {
        let config = v1::HashConfig { algorithm: key_hash.to_string(), partition_count: 64 };
        assert_eq!(config.partition_of(b"user:1"), Some(key_hash.partition_of(b"user:1", 64)));
    }
    let check = |algorithm: &str, partition_count, expect| {
        let config = v1::HashConfig { algorithm: algorithm.to_owned(), partition_count };
        assert_eq!(config.partition_of(b"user:1"), expect);
    };
    check("rot13", 64, None);
    check("crc16-slots", 0, None);
    check("crc16-slots", 1, Some(PartitionId(0)));
}

#[test]
fn health_is_told_with_its_reasons() {
    let topology = topology(1, vec![node("a", Liveness::Dead)], vec![partition(0, &[])]);
    let message = v1::Health::from(&topology.health(true));
    let reason = |code: &str, severity: v1::HealthState, message: &str| v1::HealthReason {
        code: code.to_owned(),
        severity: severity.into(),
        message: message.to_owned(),
        ..v1::HealthReason::default()
    };
    let leaderless = reason("leaderless", v1::HealthState::Unavailable, "1 partitions have no leader");
    let down = reason("node_down", v1::HealthState::Degraded, "a is dead");
    let expect = [
        v1::HealthReason { partitions: Some(1), ..leaderless },
        v1::HealthReason { node: Some("a".to_owned()), ..down },
    ];
    assert_eq!(message.state(), v1::HealthState::Unavailable);
    assert_eq!(message.reasons, expect);
}

#[test]
fn a_late_hook_is_told_with_its_node_and_how_many_wait() {
    let mut record = partition(0, &[]);
    record.overrun = Some(Overrun { node: id("a"), stage: handoff::Stage::Seal });
    let message = v1::Health::from(&topology(1, vec![], vec![record]).health(true));
    let late = message.reasons.iter().find(|reason| reason.code == "hook_overran").unwrap();
    assert_eq!((late.node.as_deref(), late.partitions), (Some("a"), Some(1)));
    assert_eq!(late.message, "seal of partition-0 on a is past its deadline");
}

#[test]
fn a_delta_tells_health_that_changed_without_its_record() {
    let older = topology(
        1,
        vec![node("a", Liveness::Alive), node("b", Liveness::Alive)],
        vec![partition(0, &["a", "b"])],
    );
    let mut newer = older.clone();
    newer.version = TopologyVersion(2);
    newer.nodes.insert(id("b"), Arc::new(node("b", Liveness::Dead)));
    assert_eq!(newer.diff(&older).partitions_changed, []);

    let delta = v1::TopologyDelta::between(&older, &newer);
    let health: Vec<_> = delta.partitions_changed.iter().map(v1::Partition::health).collect();
    assert_eq!(health, [v1::PartitionHealth::UnderReplicated]);
    check_delta(&older, &newer);
}

#[test]
fn a_delta_that_does_not_fit_changes_nothing() {
    let before =
        v1::Topology::from(&topology(3, vec![node("a", Liveness::Alive)], vec![partition(0, &["a"])]));
    let refused = |delta: v1::TopologyDelta| {
        let mut topology = before.clone();
        let outcome = topology.apply(delta);
        assert_eq!(topology, before);
        outcome.unwrap_err()
    };
    let late = v1::TopologyDelta { from_version: 2, to_version: 4, ..v1::TopologyDelta::default() };
    assert_eq!(refused(late), ApplyError::OtherVersion { expected: 2, found: 3 });
    let with_gap = v1::TopologyDelta {
        from_version: 3,
        to_version: 4,
        nodes_removed: vec!["a".to_owned()],
        partitions_changed: vec![v1::Partition { id: 2, ..v1::Partition::default() }],
        ..v1::TopologyDelta::default()
    };
    assert_eq!(refused(with_gap), ApplyError::Gap { partition: 2 });
}

#[test]
fn the_largest_records_stay_below_their_bounds() {
    let text = "t".repeat(256);
    let entry = |number: u32| (format!("{number:0>256}"), text.clone());
    let largest = v1::Node {
        id: "n".repeat(64),
        node_addr: text.clone(),
        public_addr: text.clone(),
        zone: Some(text.clone()),
        weight: u32::MAX,
        role: 2,
        holds_data: true,
        status: 6,
        incarnation: u64::MAX,
        software: text.clone(),
        metadata: (0..64).map(entry).collect(),
    };
    assert!(largest.encoded_len() + 8 <= NODE_BYTES_MAX, "{}", largest.encoded_len());

    let name = || "n".repeat(64);
    let names = || vec![name(); 15];
    let largest = v1::Partition {
        id: u32::MAX,
        version: u64::MAX,
        epoch: u64::MAX,
        leader: Some(name()),
        replicas: vec![v1::Replica { node: name(), uid: u64::MAX, lapses: u64::MAX }; 15],
        in_sync: names(),
        tainted: names(),
        min_in_sync: u32::MAX,
        transfer: Some(name()),
        movement: Some(v1::Move { source: Some(name()), target: name() }),
        health: 4,
        unclean_epoch: Some(u64::MAX),
        origin: v1::EpochOrigin::Unclean.into(),
        overrun: Some(v1::Overrun { node: name(), stage: v1::HookStage::Release.into() }),
    };
    assert!(largest.encoded_len() + 8 <= PARTITION_BYTES_MAX, "{}", largest.encoded_len());
}

#[test]
fn the_compiled_schema_names_the_service_and_no_machine() {
    let has = |text: &str| FILE_DESCRIPTOR_SET.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("clusterkit/cluster/v1/cluster.proto"));
    assert!(has("WatchTopology"));
    assert!(!has(env!("CARGO_MANIFEST_DIR")));
}

/// The bytes on the wire are a promise to other releases: numbers and types of fields never change.
#[test]
fn a_delta_has_the_promised_bytes() {
    let delta = v1::TopologyDelta {
        from_version: 1,
        to_version: 2,
        route_version: 3,
        nodes_removed: vec!["b".to_owned()],
        partitions_changed: vec![v1::Partition {
            id: 4,
            epoch: 5,
            leader: Some("a".to_owned()),
            ..Default::default()
        }],
        ..v1::TopologyDelta::default()
    };
    let update = v1::TopologyUpdate { update: Some(v1::topology_update::Update::Delta(delta)) };
    let expect = b"\x12\x12\x08\x01\x10\x02\x18\x03\x32\x01b\x3a\x07\x08\x04\x18\x05\x22\x01a";
    assert_eq!(update.encode_to_vec(), expect);
}

/// The naive twin of a delta is the whole topology.
fn check_delta(older: &Topology, newer: &Topology) {
    let mut moved = v1::Topology::from(older);
    moved.apply(v1::TopologyDelta::between(older, newer)).unwrap();
    assert_eq!(moved, v1::Topology::from(newer));
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn any_topology(version: u64) -> impl Strategy<Value = Topology> {
    let liveness = prop_oneof![Just(Liveness::Alive), Just(Liveness::Suspect), Just(Liveness::Dead)];
    let nodes = prop::collection::btree_map(prop::sample::select(NAMES.to_vec()), liveness, 0..4);
    let holders = prop::sample::subsequence(NAMES.to_vec(), 0..3);
    let partitions = prop::collection::vec(holders, 3);
    (nodes, partitions).prop_map(move |(nodes, partitions)| {
        let nodes = nodes.into_iter().map(|(name, liveness)| node(name, liveness)).collect();
        let partitions = (0..).zip(partitions).map(|(number, holders)| partition(number, &holders)).collect();
        topology(version, nodes, partitions)
    })
}

proptest! {
    #[test]
    fn a_delta_leads_to_the_whole_newer_topology(older in any_topology(1), newer in any_topology(2)) {
        check_delta(&older, &newer);
        check_delta(&Topology::default(), &newer);
    }
}
