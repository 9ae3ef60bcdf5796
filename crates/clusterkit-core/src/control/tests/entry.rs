//! The largest entries that this crate's limits allow fit into one entry of the log.

use alloc::string::String;

use super::*;
use crate::handoff::Position;
use crate::id::{Epoch, ReplicaUid};
use crate::limits::{
    CLUSTER_NAME_BYTES_MAX, COMMANDS_PER_ENTRY_MAX, COMMANDS_PER_ROUND_MAX, DAMAGED_REPLICAS_MAX,
    ENTRY_BYTES_MAX, EXPECT_MAX, METADATA_ENTRIES_MAX, NODE_ID_BYTES_MAX, NODES_MAX, PARTITIONS_MAX,
    REPLICATION_FACTOR_MAX, TEXT_BYTES_MAX,
};
use crate::topology::RaftRole;

const PARTITION: PartitionId = PartitionId(PARTITIONS_MAX);
const VERSION: PartitionVersion = PartitionVersion(u64::MAX);
const EPOCH: Epoch = Epoch(u64::MAX);
const INCARNATION: Incarnation = Incarnation(u64::MAX);

fn longest_id(number: usize) -> NodeId {
    id(&format!("{number:0NODE_ID_BYTES_MAX$}"))
}

fn longest_text(number: usize) -> String {
    format!("{number:0TEXT_BYTES_MAX$}")
}

fn largest_registration(number: usize) -> Registration {
    let text = longest_text(number);
    Registration {
        node: longest_id(number),
        store: StoreId(u64::MAX - number as u64),
        boot: BootId(u64::MAX),
        damaged: true,
        replicas_damaged: damaged(),
        node_addr: text.clone(),
        public_addr: text.clone(),
        zone: Some(text.clone()),
        weight: crate::limits::WEIGHT_MAX,
        role: RaftRole::Voter,
        holds_data: true,
        reports_position: false,
        software: text.clone(),
        metadata: (0..METADATA_ENTRIES_MAX).map(|key| (longest_text(key), text.clone())).collect(),
    }
}

fn damaged() -> BTreeMap<PartitionId, ReplicaUid> {
    let last = PARTITIONS_MAX - DAMAGED_REPLICAS_MAX as u32;
    (last..PARTITIONS_MAX).map(|number| (PartitionId(number), ReplicaUid(u64::MAX))).collect()
}

fn largest_founding() -> Command {
    let mut cluster = cluster(PARTITIONS_MAX, REPLICATION_FACTOR_MAX);
    cluster.name = "x".repeat(CLUSTER_NAME_BYTES_MAX);
    cluster.config.strategy = crate::placement::Strategy::RoundRobin;
    let members = (0..EXPECT_MAX as usize).map(largest_registration).collect();
    Command::form_cluster(cluster, members).unwrap()
}

/// A partition has a copy more than it shall have while one moves.
fn largest_proposal() -> Command {
    let nodes = || (0..=REPLICATION_FACTOR_MAX as usize).map(longest_id);
    Command::SetInSync(InSyncProposal {
        partition: PARTITION,
        version: VERSION,
        epoch: EPOCH,
        leader: longest_id(0),
        leader_incarnation: INCARNATION,
        in_sync: nodes().collect(),
        added: nodes().map(|node| (node, INCARNATION)).collect(),
    })
}

fn largest_unclean_election() -> Command {
    let position = Position { last_epoch: EPOCH, log_end: u64::MAX, damaged: true };
    let status = MemberStatus { incarnation: INCARNATION, position: Some(position) };
    let nodes = (0..=REPLICATION_FACTOR_MAX as usize).map(longest_id);
    let statuses = nodes.map(|node| (node, status)).collect();
    Command::ElectUnclean { partition: PARTITION, version: VERSION, leader: longest_id(0), statuses }
}

fn every_verdict() -> Command {
    let verdict = |number| LivenessChange {
        node: longest_id(number),
        incarnation: INCARNATION,
        liveness: Liveness::Dead,
    };
    Command::SetLiveness { changes: (0..NODES_MAX).map(verdict).collect() }
}

fn handoff() -> Command {
    let from = longest_id(0);
    Command::Handoff { partition: PARTITION, version: VERSION, epoch: EPOCH, from, log_end: u64::MAX }
}

#[test]
fn the_largest_batches_of_commands_fit_into_one_entry() {
    let check = |what: &str, commands: &[Command]| {
        let bytes = postcard::to_allocvec(commands).unwrap().len();
        // The byte of a version stands before them.
        assert!(bytes < ENTRY_BYTES_MAX, "{what}: {bytes} bytes");
    };
    check("the founding of a cluster", &[largest_founding()]);
    let registration = largest_registration(0);
    check("a registration", &[Command::RegisterNode { registration, replace: true }]);
    let mut round = vec![largest_proposal(); COMMANDS_PER_ROUND_MAX];
    round[0] = every_verdict();
    check("a round of the controller", &round);
    let unclean = vec![largest_unclean_election(); COMMANDS_PER_ROUND_MAX];
    check("a round of unclean elections", &unclean);
    check("the handoffs of a message", &vec![handoff(); COMMANDS_PER_ENTRY_MAX]);
}
