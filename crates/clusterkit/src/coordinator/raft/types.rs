//! The types openraft is instantiated with.

use std::fmt;

use clusterkit_core::control::{Applied, Command, Rejected};
use clusterkit_core::limits::ENTRY_BYTES_MAX;
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// One Raft group, keyed by store id: a node that lost its disk is another voter.
    pub(crate) TypeConfig:
        D = CommandBatch,
        R = BatchOutcome,
        NodeId = u64,
        Node = RaftNode,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, super::state_machine::StateMachine>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;

/// A member of the group, as its membership entries name it. The address is where it was when it
/// was added; the address book knows better.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RaftNode {
    /// The node's name.
    pub(crate) node: String,
    /// Where it listened then.
    pub(crate) addr: String,
}

/// The version that [`CommandBatch`] is encoded under.
const BATCH_VERSION: u8 = 1;

/// Commands that are applied together, as bytes: a log entry is readable, and can be refused by its
/// version, whatever commands later releases add.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommandBatch(Vec<u8>);

impl CommandBatch {
    /// The batch of `commands`, unless one entry cannot hold them.
    pub(crate) fn new(commands: &[Command]) -> Result<Self, BatchTooLarge> {
        let bytes = clusterkit_wire::versioned::encode(BATCH_VERSION, commands);
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(BatchTooLarge { bytes: bytes.len() });
        }
        Ok(Self(bytes))
    }

    pub(crate) fn commands(&self) -> Result<Vec<Command>, clusterkit_wire::versioned::DecodeError> {
        clusterkit_wire::versioned::decode(&self.0, BATCH_VERSION..=BATCH_VERSION)
    }
}

impl fmt::Debug for CommandBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.commands() {
            Ok(commands) => commands.fmt(f),
            Err(error) => write!(f, "unreadable commands: {error}"),
        }
    }
}

impl fmt::Display for CommandBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of commands", self.0.len())
    }
}

/// The commands are more than one entry holds: it could not be sent to the other voters. Nothing
/// changed; propose fewer at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an entry holds at most {ENTRY_BYTES_MAX} bytes of commands, not {bytes}")]
pub(crate) struct BatchTooLarge {
    pub(crate) bytes: usize,
}

/// What came of each command of a batch, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BatchOutcome(pub(crate) Vec<Result<Applied, Rejected>>);

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write as _;

    use clusterkit_core::control::{
        FirstTable, InSyncProposal, LivenessChange, MemberIndex, MemberStatus, Registration,
    };
    use clusterkit_core::handoff::{Position, Stage};
    use clusterkit_core::id::{
        BootId, ClusterId, Epoch, Incarnation, NodeId, PartitionId, PartitionVersion, ReplicaUid, StoreId,
    };
    use clusterkit_core::topology::{Cluster, ClusterConfig, Liveness, Move, Overrun, RaftRole};

    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn registration() -> Registration {
        Registration {
            node: node("node-1"),
            store: StoreId(0x1122_3344_5566_7788),
            boot: BootId(7),
            damaged: false,
            replicas_damaged: BTreeMap::from([(PartitionId(5), ReplicaUid(8))]),
            node_addr: "10.0.0.1:7000".to_owned(),
            public_addr: "10.0.0.1:8080".to_owned(),
            zone: Some("a".to_owned()),
            weight: 2,
            role: RaftRole::Voter,
            holds_data: true,
            reports_position: false,
            software: "0.1.0".to_owned(),
            metadata: BTreeMap::from([("rack".to_owned(), "r1".to_owned())]),
        }
    }

    /// One of every command, so that none can change its bytes unseen.
    fn every_command() -> Vec<Command> {
        let (partition, version, epoch) = (PartitionId(5), PartitionVersion(9), Epoch(3));
        let config = ClusterConfig::default();
        let cluster = Cluster { id: ClusterId(0xabcd), name: "prod".to_owned(), config };
        let table = FirstTable(vec![vec![MemberIndex(0), MemberIndex(300)], Vec::new()]);
        let movement = Move { source: Some(node("a")), target: node("b") };
        let dead = LivenessChange { node: node("a"), incarnation: Incarnation(4), liveness: Liveness::Dead };
        let proposal = InSyncProposal {
            partition,
            version,
            epoch,
            leader: node("a"),
            leader_incarnation: Incarnation(4),
            in_sync: BTreeSet::from([node("a"), node("b")]),
            added: BTreeMap::from([(node("b"), Incarnation(1))]),
        };
        let overrun = Overrun { node: node("a"), stage: Stage::CatchUp };
        let incarnation = Incarnation(4);
        let position = Position { last_epoch: epoch, log_end: 77, damaged: true };
        let status = |position| MemberStatus { incarnation, position };
        let statuses = BTreeMap::from([(node("a"), status(Some(position))), (node("b"), status(None))]);
        vec![
            Command::FormCluster { cluster, members: vec![registration()], table },
            Command::RegisterNode { registration: registration(), replace: true },
            Command::SetLiveness { changes: vec![dead] },
            Command::Elect { partition, version, leader: node("a"), by_position: false },
            Command::ElectUnclean { partition, version, leader: node("a"), statuses },
            Command::SetInSync(proposal),
            Command::StartMove { partition, version, movement },
            Command::FinishMove { partition, version },
            Command::AbortMove { partition, version },
            Command::BeginTransfer { partition, version, target: node("b") },
            Command::CancelTransfer { partition, version },
            Command::Handoff { partition, version, epoch, from: node("a"), log_end: 77 },
            Command::DropReplica { partition, version, node: node("a") },
            Command::Drain { node: node("a") },
            Command::CancelDrain { node: node("a") },
            Command::Leave { node: node("a") },
            Command::RemoveNode { node: node("a"), force: true },
            Command::SetReplicationFactor { replication_factor: 5 },
            Command::Resign { partition, version, epoch, node: node("a") },
            Command::Revoke { partition, version, epoch },
            Command::Taint { partition, version, node: node("a"), incarnation },
            Command::RenewReplica { partition, version, node: node("a"), incarnation },
            Command::NameOverrun { partition, version, overrun: Some(overrun) },
        ]
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    /// Logs outlive releases: these bytes are read for ever. A new command goes last; a changed one
    /// is a new version of the batch.
    #[test]
    fn the_bytes_of_every_command_stay_as_they_are() {
        let lines = every_command().iter().fold(String::new(), |mut text, command| {
            let batch = CommandBatch::new(std::slice::from_ref(command)).unwrap();
            assert_eq!(batch.commands().as_deref(), Ok(std::slice::from_ref(command)));
            writeln!(text, "{}", hex(&batch.0)).unwrap();
            text
        });
        assert_eq!(lines, include_str!("commands.hex"));
    }

    #[test]
    fn a_batch_of_a_later_release_is_refused_by_its_version() {
        let mut batch = CommandBatch::new(&every_command()).unwrap();
        batch.0[0] = 2;
        let error = batch.commands().unwrap_err();
        assert_eq!(error.to_string(), "the record has version 2, and versions 1 to 1 are read");
    }

    #[test]
    fn a_batch_larger_than_an_entry_is_refused() {
        let with_metadata = |bytes: usize| {
            let metadata = BTreeMap::from([("key".to_owned(), "x".repeat(bytes))]);
            let registration = Registration { metadata, ..registration() };
            CommandBatch::new(&[Command::RegisterNode { registration, replace: false }])
        };
        let overhead = with_metadata(ENTRY_BYTES_MAX / 2).unwrap().0.len() - ENTRY_BYTES_MAX / 2;
        assert!(with_metadata(ENTRY_BYTES_MAX - overhead).is_ok());
        let bytes = ENTRY_BYTES_MAX + 1;
        assert_eq!(with_metadata(bytes - overhead), Err(BatchTooLarge { bytes }));
    }

    #[test]
    fn random_bytes_are_no_commands_and_no_panic() {
        let mut chance = 1_u64;
        for length in 0..200 {
            let bytes = (0..length).map(|_| {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (chance >> 56) as u8
            });
            drop(CommandBatch(std::iter::once(1).chain(bytes).collect()).commands());
        }
    }
}
