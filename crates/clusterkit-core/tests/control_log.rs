//! One log is one history, on every machine and release: a fixed transcript of commands leads to the
//! states that it led to when it was pinned.

use std::collections::{BTreeMap, BTreeSet};

use clusterkit_core::control::{
    Applied, Command, ControlState, FirstTable, InSyncProposal, InvalidReason, LivenessChange, MemberIndex,
    MemberStatus, Registration, Rejected,
};
use clusterkit_core::handoff::{Position, Stage};
use clusterkit_core::id::{
    BootId, ClusterId, Epoch, Incarnation, NodeId, PartitionId, PartitionVersion, StoreId,
};
use clusterkit_core::topology::{Cluster, ClusterConfig, Liveness, Move, Overrun, Partition};
use sha2::{Digest, Sha256};

/// The digest of the states after each command, in the order of the transcript. Until the first release
/// it may be pinned anew.
const PINNED: &str = "fbbe7dcfed343b83cd9ad703d0c0892fda49624d4b9040be0a0fcb890e2a8aec";

/// How many kinds of command there are.
const KINDS: usize = 23;

/// A log that is applied while it is written.
#[derive(Default)]
struct Log {
    state: ControlState,
    digest: Sha256,
    /// The kinds of command that came true.
    accepted: BTreeSet<usize>,
}

impl Log {
    fn apply(&mut self, command: &Command) -> Result<Applied, Rejected> {
        let outcome = self.state.apply(command);
        assert_eq!(self.state.check(), Ok(()), "{command:?}");
        self.digest.update(postcard::to_allocvec(&self.state).expect("a state knows its lengths"));
        if outcome.is_ok() {
            self.accepted.insert(kind(command));
        }
        outcome
    }

    fn changes(&mut self, command: &Command) {
        assert_eq!(self.apply(command), Ok(Applied::Changed), "{command:?}");
    }

    fn leaves(&mut self, command: &Command) {
        assert_eq!(self.apply(command), Ok(Applied::Unchanged), "{command:?}");
    }

    fn registers(&mut self, registration: Registration, replace: bool, incarnation: u64) {
        let registered = Applied::Registered { incarnation: Incarnation(incarnation) };
        assert_eq!(self.apply(&Command::RegisterNode { registration, replace }), Ok(registered));
    }

    fn refuses(&mut self, command: &Command, refusal: Rejected) {
        assert_eq!(self.apply(command), Err(refusal), "{command:?}");
    }

    fn hears(&mut self, number: u64, incarnation: u64, liveness: Liveness) {
        self.changes(&report(number, incarnation, liveness));
    }

    fn record(&self, partition: PartitionId) -> &Partition {
        self.state.topology.partition(partition).expect("a partition of the transcript")
    }

    fn version(&self, partition: PartitionId) -> PartitionVersion {
        self.record(partition).version
    }

    fn epoch(&self, partition: PartitionId) -> Epoch {
        self.record(partition).epoch
    }

    fn incarnation(&self, node: &NodeId) -> Incarnation {
        self.state.topology.node(node).expect("a node of the transcript").incarnation
    }

    /// The command that `make` makes for the newest version of `partition`.
    fn at(&self, partition: PartitionId, make: impl Fn(PartitionId, PartitionVersion) -> Command) -> Command {
        make(partition, self.version(partition))
    }

    fn elect(&self, partition: PartitionId, number: u64) -> Command {
        self.at(partition, |partition, version| Command::Elect {
            partition,
            version,
            leader: node(number),
            by_position: false,
        })
    }

    fn transfer(&self, partition: PartitionId, number: u64) -> Command {
        let target = node(number);
        self.at(partition, |partition, version| Command::BeginTransfer {
            partition,
            version,
            target: target.clone(),
        })
    }

    fn movement(&self, partition: PartitionId, source: Option<u64>, target: u64) -> Command {
        let movement = Move { source: source.map(node), target: node(target) };
        let version = self.version(partition);
        Command::StartMove { partition, version, movement }
    }

    fn in_sync(&self, partition: PartitionId, leader: u64, in_sync: &[u64], added: &[(u64, u64)]) -> Command {
        let leader = node(leader);
        Command::SetInSync(InSyncProposal {
            partition,
            version: self.version(partition),
            epoch: self.epoch(partition),
            leader_incarnation: self.incarnation(&leader),
            leader,
            in_sync: in_sync.iter().copied().map(node).collect(),
            added: added.iter().map(|&(number, run)| (node(number), Incarnation(run))).collect(),
        })
    }

    fn handoff(&self, partition: PartitionId, from: u64) -> Command {
        let (version, epoch) = (self.version(partition), self.epoch(partition));
        Command::Handoff { partition, version, epoch, from: node(from), log_end: 7 }
    }
}

fn kind(command: &Command) -> usize {
    match command {
        Command::FormCluster { .. } => 0,
        Command::RegisterNode { .. } => 1,
        Command::SetLiveness { .. } => 2,
        Command::Elect { .. } => 3,
        Command::ElectUnclean { .. } => 4,
        Command::SetInSync(_) => 5,
        Command::StartMove { .. } => 6,
        Command::FinishMove { .. } => 7,
        Command::AbortMove { .. } => 8,
        Command::BeginTransfer { .. } => 9,
        Command::CancelTransfer { .. } => 10,
        Command::Handoff { .. } => 11,
        Command::DropReplica { .. } => 12,
        Command::Drain { .. } => 13,
        Command::CancelDrain { .. } => 14,
        Command::Leave { .. } => 15,
        Command::RemoveNode { .. } => 16,
        Command::SetReplicationFactor { .. } => 17,
        Command::Resign { .. } => 18,
        Command::NameOverrun { .. } => 19,
        Command::Revoke { .. } => 20,
        Command::Taint { .. } => 21,
        Command::RenewReplica { .. } => 22,
    }
}

fn node(number: u64) -> NodeId {
    NodeId::new(&format!("n{number}")).expect("a node id")
}

fn registration(number: u64, store: u64, boot: u64) -> Registration {
    let addrs = [7_000, 8_080].map(|port| format!("h{number}:{port}"));
    Registration {
        zone: number.is_multiple_of(2).then(|| "even".to_owned()),
        software: "0.1.0".to_owned(),
        metadata: BTreeMap::from([("rack".to_owned(), format!("r{number}"))]),
        ..Registration::new(node(number), StoreId(store), BootId(boot), addrs)
    }
}

fn report(number: u64, incarnation: u64, liveness: Liveness) -> Command {
    let incarnation = Incarnation(incarnation);
    Command::SetLiveness { changes: vec![LivenessChange { node: node(number), incarnation, liveness }] }
}

fn founding(cluster: u64, rows: &[&[u16]]) -> Command {
    let config = ClusterConfig { partition_count: 3, replication_factor: 2, ..ClusterConfig::default() };
    let row = |row: &&[u16]| row.iter().copied().map(MemberIndex).collect();
    Command::FormCluster {
        cluster: Cluster { id: ClusterId(cluster), name: "golden".to_owned(), config },
        members: (1..=3).map(|number| registration(number, number, number)).collect(),
        table: FirstTable(rows.iter().map(row).collect()),
    }
}

const P0: PartitionId = PartitionId(0);
const P1: PartitionId = PartitionId(1);
const P2: PartitionId = PartitionId(2);

fn begin(log: &mut Log) {
    let copies = |replication_factor| Command::SetReplicationFactor { replication_factor };
    let registration = registration(1, 1, 1);
    log.refuses(&Command::RegisterNode { registration, replace: false }, Rejected::NotFormed);
    log.refuses(&copies(3), Rejected::NotFormed);
    let invalid = |reason| Rejected::Invalid { reason };
    log.refuses(&founding(1, &[&[0], &[1]]), invalid(InvalidReason::FirstTable));
    log.changes(&founding(1, &[&[0, 1], &[1, 2], &[2]]));
    log.leaves(&founding(1, &[&[0], &[1], &[2]]));
    log.refuses(&founding(2, &[&[0], &[1], &[2]]), Rejected::AlreadyFormed { cluster: ClusterId(1) });
    log.refuses(&copies(0), invalid(InvalidReason::ReplicationFactor));
    log.leaves(&copies(2));
}

fn nodes_come_and_go(log: &mut Log) {
    log.registers(registration(4, 4, 4), false, 1);
    log.registers(registration(4, 4, 4), false, 1);
    log.hears(4, 1, Liveness::Alive);
    log.leaves(&report(4, 9, Liveness::Dead));
    let in_use = Rejected::NodeIdInUse { node: node(4), node_addr: "h4:7000".to_owned() };
    log.refuses(&Command::RegisterNode { registration: registration(4, 44, 5), replace: false }, in_use);
    log.registers(registration(4, 44, 5), true, 2);
    log.hears(4, 2, Liveness::Alive);
    log.hears(1, 1, Liveness::Suspect);
    log.hears(1, 1, Liveness::Dead);
    log.refuses(&log.elect(P0, 1), Rejected::NotElectable { partition: P0, node: node(1) });
    log.changes(&log.elect(P0, 2));
    log.refuses(&log.elect(P0, 2), Rejected::OtherState { partition: P0 });
    let damaged = Registration { damaged: true, ..registration(1, 1, 6) };
    log.registers(damaged, false, 2);
    log.hears(1, 2, Liveness::Alive);
}

fn leads_and_copies_move(log: &mut Log) {
    let below = Rejected::BelowMinInSync { partition: P0, min_in_sync: 2 };
    log.refuses(&log.in_sync(P0, 2, &[2], &[]), below);
    log.refuses(&log.in_sync(P0, 2, &[2, 4], &[]), Rejected::ProposalRefused { partition: P0 });
    log.changes(&log.in_sync(P0, 2, &[1, 2], &[(1, 2)]));
    log.changes(&log.transfer(P0, 1));
    log.changes(&log.at(P0, |partition, version| Command::CancelTransfer { partition, version }));
    log.changes(&log.transfer(P0, 1));
    log.refuses(&log.handoff(P0, 1), Rejected::OtherState { partition: P0 });
    log.changes(&log.handoff(P0, 2));
    log.changes(&log.movement(P0, Some(2), 4));
    log.changes(&log.at(P0, |partition, version| Command::AbortMove { partition, version }));
    log.changes(&log.movement(P0, Some(2), 4));
    let finish = |partition, version| Command::FinishMove { partition, version };
    log.refuses(&log.at(P0, finish), Rejected::OtherState { partition: P0 });
    let stale = Rejected::StaleIncarnation { node: node(4), current: Incarnation(2) };
    log.refuses(&log.in_sync(P0, 1, &[1, 2, 4], &[(4, 1)]), stale);
    log.changes(&log.in_sync(P0, 1, &[1, 2, 4], &[(4, 2)]));
    log.changes(&log.at(P0, finish));
    let stale = Rejected::StaleVersion { partition: P0, current: log.version(P0) };
    log.refuses(&Command::FinishMove { partition: P0, version: PartitionVersion(1) }, stale);
    let late = Overrun { node: node(4), stage: Stage::Release };
    let name = |overrun: Option<Overrun>| {
        move |partition, version| Command::NameOverrun { partition, version, overrun: overrun.clone() }
    };
    log.changes(&log.at(P0, name(Some(late.clone()))));
    log.leaves(&log.at(P0, name(Some(late))));
    log.changes(&log.at(P0, name(None)));
    let epoch = log.epoch(P0);
    let resign = |number: u64| {
        move |partition, version| Command::Resign { partition, version, epoch, node: node(number) }
    };
    log.refuses(&log.at(P0, resign(4)), Rejected::OtherState { partition: P0 });
    log.changes(&log.at(P0, resign(1)));
    log.changes(&log.elect(P0, 1));
    let epoch = log.epoch(P0);
    let revoke = |partition, version| Command::Revoke { partition, version, epoch };
    log.changes(&log.at(P0, revoke));
    log.refuses(&log.at(P0, revoke), Rejected::OtherState { partition: P0 });
    let taint = |run| {
        let (node, incarnation) = (node(4), Incarnation(run));
        move |partition, version| Command::Taint { partition, version, node: node.clone(), incarnation }
    };
    let stale = Rejected::StaleIncarnation { node: node(4), current: Incarnation(2) };
    log.refuses(&log.at(P0, taint(1)), stale);
    log.changes(&log.at(P0, taint(2)));
    log.leaves(&log.at(P0, taint(2)));
    log.changes(&log.elect(P0, 1));
    log.changes(&log.in_sync(P0, 1, &[1, 4], &[(4, 2)]));
    log.changes(&log.at(P0, |partition, version| Command::RenewReplica {
        partition,
        version,
        node: node(4),
        incarnation: Incarnation(2),
    }));
    log.changes(&log.in_sync(P0, 1, &[1, 4], &[(4, 2)]));
    let missing = PartitionId(3);
    let none = Rejected::UnknownPartition { partition: missing };
    log.refuses(&Command::AbortMove { partition: missing, version: PartitionVersion(1) }, none);
}

fn the_number_of_copies_changes(log: &mut Log) {
    log.changes(&Command::SetReplicationFactor { replication_factor: 3 });
    log.changes(&log.movement(P1, None, 4));
    log.changes(&log.in_sync(P1, 2, &[2, 3, 4], &[(4, 2)]));
    log.changes(&log.at(P1, |partition, version| Command::FinishMove { partition, version }));
    log.changes(&Command::SetReplicationFactor { replication_factor: 2 });
    let drop = |number: u64| {
        move |partition, version| Command::DropReplica { partition, version, node: node(number) }
    };
    log.refuses(&log.at(P1, drop(2)), Rejected::OtherState { partition: P1 });
    log.changes(&log.at(P1, drop(3)));
}

fn the_only_copy_is_lost(log: &mut Log) {
    let unclean = |number: u64| {
        let position = Some(Position { last_epoch: Epoch(1), log_end: 7, damaged: true });
        let status = MemberStatus { incarnation: Incarnation(2), position };
        let statuses = BTreeMap::from([(node(number), status)]);
        let leader = node(number);
        move |partition, version| {
            let (leader, statuses) = (leader.clone(), statuses.clone());
            Command::ElectUnclean { partition, version, leader, statuses }
        }
    };
    log.refuses(&log.at(P2, unclean(3)), Rejected::OtherState { partition: P2 });
    log.registers(registration(3, 33, 7), true, 2);
    log.refuses(&log.at(P2, unclean(3)), Rejected::OtherState { partition: P2 });
    log.hears(3, 2, Liveness::Alive);
    log.changes(&log.at(P2, unclean(3)));
}

fn nodes_leave(log: &mut Log) {
    let held = |number, replicas| Rejected::HoldsReplicas { node: node(number), replicas };
    let remove = |number, force| Command::RemoveNode { node: node(number), force };
    let drain = Command::Drain { node: node(3) };
    let leave = Command::Leave { node: node(3) };
    log.refuses(&Command::Drain { node: node(9) }, Rejected::UnknownNode { node: node(9) });
    log.refuses(&leave, Rejected::Invalid { reason: InvalidReason::Stage });
    log.changes(&drain);
    log.leaves(&drain);
    log.changes(&Command::CancelDrain { node: node(3) });
    log.leaves(&Command::CancelDrain { node: node(3) });
    log.changes(&drain);
    log.refuses(&leave, held(3, 1));
    log.refuses(&remove(3, false), held(3, 1));
    log.refuses(&remove(3, true), Rejected::WouldLoseData { partitions: vec![P2] });
    log.changes(&log.movement(P2, Some(3), 1));
    log.changes(&log.in_sync(P2, 3, &[1, 3], &[(1, 2)]));
    log.changes(&log.transfer(P2, 1));
    log.changes(&log.handoff(P2, 3));
    log.changes(&log.at(P2, |partition, version| Command::FinishMove { partition, version }));
    log.changes(&leave);
    log.leaves(&leave);
    log.leaves(&drain);
    log.changes(&remove(3, false));
    log.changes(&remove(4, true));
}

#[test]
fn the_transcript_leads_to_the_states_that_it_always_led_to() {
    let mut log = Log::default();
    begin(&mut log);
    nodes_come_and_go(&mut log);
    leads_and_copies_move(&mut log);
    the_number_of_copies_changes(&mut log);
    the_only_copy_is_lost(&mut log);
    nodes_leave(&mut log);
    assert_eq!(log.accepted, (0..KINDS).collect(), "a kind of command is not in the transcript");
    let digest = log.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(
        digest, PINNED,
        "the same commands lead to other states, or the same states have other bytes. Logs and \
         snapshots outlive releases: a node that runs this code reads an older log otherwise than \
         the nodes that wrote it, and the two have different topologies. What a command did, it does \
         for ever; what it shall do from now on is another command, and other bytes of a snapshot are \
         another version of it."
    );
}
