//! What nodes say to each other: kinds, bodies, and what the receiver does.
//!
//! A body is a `versioned` record under [`MESSAGE_VERSION`]; the Raft messages are openraft's own
//! types, encoded the same way. What programs say to each other is passed on as it is.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::control::{Applied, Command, InSyncProposal, Registration, Rejected};
use clusterkit_core::handoff::Position;
use clusterkit_core::id::{Epoch, Incarnation, NodeId, PartitionId, PartitionVersion, TopologyVersion};
use clusterkit_core::topology::Cluster;
use clusterkit_wire::versioned::{self, DecodeError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version every body here is encoded under.
const MESSAGE_VERSION: u8 = 1;

/// The kind of a message: one byte in the frame header.
pub(crate) mod kind {
    /// Forming: who I am, whom I know, how I voted. Answered with the same of the receiver.
    pub(crate) const GREETING: u8 = 1;
    /// A node wants in, or is back: to any member, passed on to the controller once.
    pub(crate) const JOIN: u8 = 2;
    /// I am alive: to the controller, every beat. Answered with whether a majority backs it.
    pub(crate) const HEARTBEAT: u8 = 3;
    /// How the stages of replicas stand: to the controller, one way, repeated until the record shows
    /// it.
    pub(crate) const REPORTS: u8 = 4;
    /// A wish of an operator or a leader: to any member, passed on to the controller once.
    pub(crate) const PROPOSE: u8 = 5;
    /// Has the receiver adopted this version of a partition's record? From a node that is about to
    /// copy. Answered once it has, or not at all.
    pub(crate) const ADOPTED: u8 = 6;
    /// I stop now: to the controller, so that what I led passes on at once.
    pub(crate) const STOPPING: u8 = 7;
    /// How much have your replicas of these partitions, as of these records? From the controller, at an
    /// election.
    pub(crate) const POSITIONS: u8 = 8;
    /// What a program tells the program of another node, one way. The body is the programs' own.
    pub(crate) const NOTICE: u8 = 9;
    /// What a program asks the program of another node. Body and answer are the programs' own.
    pub(crate) const REQUEST: u8 = 10;
    /// Raft: AppendEntries.
    pub(crate) const RAFT_APPEND: u8 = 16;
    /// Raft: RequestVote.
    pub(crate) const RAFT_VOTE: u8 = 17;
    /// Raft: the same question without consequences.
    pub(crate) const RAFT_PRE_VOTE: u8 = 18;
    /// Raft: a whole snapshot.
    pub(crate) const RAFT_SNAPSHOT: u8 = 19;
    /// Raft: stand for election at once, the leader steps aside.
    pub(crate) const RAFT_TRANSFER: u8 = 20;
}

/// The codes of error answers.
pub(crate) mod code {
    /// The receiver is not ready for this kind of message. The sender tries again.
    pub(crate) const NOT_READY: u8 = 1;
    /// The body is not what its kind says.
    pub(crate) const MALFORMED: u8 = 2;
    /// The receiver's program takes no messages.
    pub(crate) const NO_HANDLER: u8 = 3;
}

/// A node wants in, or is back after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Join {
    /// What it says of itself.
    pub(crate) registration: Registration,
    /// The name of the cluster it means.
    pub(crate) cluster_name: String,
    /// The partition count it was told, if it was told one: it cannot change the cluster's.
    pub(crate) partition_count: Option<u32>,
    /// It was passed on already and is not passed on again.
    pub(crate) forwarded: bool,
}

/// The answer to [`Join`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum JoinAnswer {
    /// It is in. The controller adds it to the control plane as a learner.
    Joined {
        /// What it joined.
        cluster: Cluster,
        /// The incarnation it runs under.
        incarnation: Incarnation,
    },
    /// Nothing changed; asking again brings nothing.
    Refused(JoinRefusal),
    /// No controller is known, or it did not answer: ask again.
    TryAgain,
}

/// Why a node is not let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum JoinRefusal {
    /// The control plane refused the registration.
    #[error("{0}")]
    Rejected(Rejected),
    /// It means a cluster of another name.
    #[error("this cluster is called {found:?}, not {wanted:?}; give the node that name or another seed")]
    OtherName {
        /// The name of the cluster that answered.
        found: String,
        /// The name it was asked for.
        wanted: String,
    },
    /// It was told another number of partitions.
    #[error("this cluster has {found} partitions and that never changes; leave out the setting of {wanted}")]
    OtherPartitionCount {
        /// How many the cluster has.
        found: u32,
        /// How many the node was told.
        wanted: u32,
    },
}

/// The answer to [`Heartbeat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeartbeatAnswer {
    /// The node that was asked leads the control plane, and a majority answered it lately.
    pub(crate) in_charge: bool,
    /// What the topology of the node that was asked says of the one that asks.
    pub(crate) standing: Standing,
    /// For how long from when the heartbeat was sent nobody else is given what the sender leads;
    /// `None` when that cannot be said. It counts only once the sender has adopted `version`.
    pub(crate) support: Option<Duration>,
    /// The topology version of the node that was asked.
    pub(crate) version: TopologyVersion,
}

/// What a topology says of one run of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// It is the run that registered last.
    Known,
    /// It gave everything away and has left; the control plane does not need its vote any more. It
    /// stays so until the node registers anew.
    Left,
    /// The node's record was removed.
    Removed,
    /// Another run, or another data directory, registered under its name since.
    Replaced,
}

/// I am alive, or I stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heartbeat {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
}

/// A wish, checked by the controller before it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Propose {
    pub(crate) wish: Wish,
    /// It was passed on already and is not passed on again.
    pub(crate) forwarded: bool,
}

/// What a node that is not the controller may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Wish {
    Drain { node: NodeId },
    CancelDrain { node: NodeId },
    RemoveNode { node: NodeId, force: bool },
    SetReplicationFactor { replication_factor: u32 },
    SetInSync(InSyncProposal),
    Handoff { partition: PartitionId, version: PartitionVersion, epoch: Epoch, from: NodeId, log_end: u64 },
    Resign { partition: PartitionId, version: PartitionVersion, epoch: Epoch, node: NodeId },
}

impl From<Wish> for Command {
    fn from(wish: Wish) -> Self {
        match wish {
            Wish::Drain { node } => Self::Drain { node },
            Wish::CancelDrain { node } => Self::CancelDrain { node },
            Wish::RemoveNode { node, force } => Self::RemoveNode { node, force },
            Wish::SetReplicationFactor { replication_factor } => {
                Self::SetReplicationFactor { replication_factor }
            }
            Wish::SetInSync(proposal) => Self::SetInSync(proposal),
            Wish::Handoff { partition, version, epoch, from, log_end } => {
                Self::Handoff { partition, version, epoch, from, log_end }
            }
            Wish::Resign { partition, version, epoch, node } => {
                Self::Resign { partition, version, epoch, node }
            }
        }
    }
}

/// What a node's replicas have, as it says at an election.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Positions {
    /// The run that says so.
    pub(crate) incarnation: Incarnation,
    /// `None` for one that has nothing, or does not know; what is not there was not said in time.
    pub(crate) positions: BTreeMap<PartitionId, Option<Position>>,
}

/// The answer to [`Propose`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ProposeAnswer {
    /// Written and applied, with what came of it.
    Done(Result<Applied, Rejected>),
    /// No controller is known: nothing was written, ask again.
    NoController,
    /// The controller could not say whether it was written: look at the topology, then ask again.
    Unknown,
}

/// Asks whether a version of a partition's record is adopted: every write begun since goes by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Adopted {
    pub(crate) partition: PartitionId,
    pub(crate) version: PartitionVersion,
}

pub(crate) fn encode<T: Serialize>(body: &T) -> Bytes {
    Bytes::from(versioned::encode(MESSAGE_VERSION, body))
}

pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    versioned::decode(body, MESSAGE_VERSION..=MESSAGE_VERSION)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Debug;

    use clusterkit_core::control::InvalidReason;
    use clusterkit_core::forming::{Candidate, Greeting, Vote};
    use clusterkit_core::handoff::{Fact, Report, Stage};
    use clusterkit_core::id::{BootId, ClusterId, ReplicaUid, StoreId};
    use clusterkit_core::topology::{ClusterConfig, RaftRole};

    use super::*;
    use crate::golden;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn record<T: Serialize + DeserializeOwned + PartialEq + Debug>(body: &T) -> Vec<u8> {
        let bytes = encode(body);
        assert_eq!(decode::<T>(&bytes).as_ref(), Ok(body));
        bytes.to_vec()
    }

    fn join() -> Join {
        let registration = Registration {
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
            reports_position: true,
            software: "0.1.0".to_owned(),
            metadata: BTreeMap::from([("rack".to_owned(), "r1".to_owned())]),
        };
        Join { registration, cluster_name: "prod".to_owned(), partition_count: Some(64), forwarded: false }
    }

    fn join_answers() -> [JoinAnswer; 5] {
        let config = ClusterConfig::default();
        let cluster = Cluster { id: ClusterId(0xabcd), name: "prod".to_owned(), config };
        let (found, wanted) = ("prod".to_owned(), "test".to_owned());
        let refused = JoinAnswer::Refused;
        let node_addr = "10.0.0.1:7000".to_owned();
        [
            JoinAnswer::Joined { cluster, incarnation: Incarnation(3) },
            refused(JoinRefusal::Rejected(Rejected::NodeIdInUse { node: node("node-1"), node_addr })),
            refused(JoinRefusal::OtherName { found, wanted }),
            refused(JoinRefusal::OtherPartitionCount { found: 64, wanted: 32 }),
            JoinAnswer::TryAgain,
        ]
    }

    fn greetings() -> [Greeting; 2] {
        let candidate = |name: &str, store| Candidate {
            node: node(name),
            store: StoreId(store),
            node_addr: format!("{name}:7000"),
        };
        let members = vec![candidate("node-1", 1), candidate("node-2", 2)];
        let formed = Greeting {
            candidate: candidate("node-1", 1),
            cluster_name: "prod".to_owned(),
            expect: Some(2),
            known: vec![candidate("node-2", 2)],
            vote: Some(Vote { round: 4, members }),
            formed: Some(ClusterId(0xabcd)),
        };
        let joining =
            Greeting { expect: None, known: Vec::new(), vote: None, formed: None, ..formed.clone() };
        [formed, joining]
    }

    fn wishes() -> [Propose; 7] {
        let (partition, version, epoch) = (PartitionId(5), PartitionVersion(9), Epoch(3));
        let proposal = InSyncProposal {
            partition,
            version,
            epoch,
            leader: node("node-1"),
            leader_incarnation: Incarnation(4),
            in_sync: BTreeSet::from([node("node-1"), node("node-2")]),
            added: BTreeMap::from([(node("node-2"), Incarnation(1))]),
        };
        let wishes = [
            Wish::Drain { node: node("node-1") },
            Wish::CancelDrain { node: node("node-1") },
            Wish::RemoveNode { node: node("node-1"), force: true },
            Wish::SetReplicationFactor { replication_factor: 5 },
            Wish::SetInSync(proposal),
            Wish::Handoff { partition, version, epoch, from: node("node-1"), log_end: 77 },
            Wish::Resign { partition, version, epoch, node: node("node-1") },
        ];
        wishes.map(|wish| Propose { wish, forwarded: true })
    }

    fn propose_answers() -> [ProposeAnswer; 4] {
        let reason = InvalidReason::ReplicationFactor;
        [
            ProposeAnswer::Done(Ok(Applied::Changed)),
            ProposeAnswer::Done(Err(Rejected::Invalid { reason })),
            ProposeAnswer::NoController,
            ProposeAnswer::Unknown,
        ]
    }

    fn standings() -> [HeartbeatAnswer; 4] {
        let standings = [Standing::Known, Standing::Left, Standing::Removed, Standing::Replaced];
        let (support, version) = (Some(Duration::from_millis(1_350)), TopologyVersion(12));
        standings.map(|standing| HeartbeatAnswer { in_charge: true, standing, support, version })
    }

    fn reports() -> Vec<Report> {
        let (epoch, version, uid) = (Epoch(3), PartitionVersion(9), ReplicaUid(8));
        let reason = "the disk is full".to_owned();
        let facts = [
            Fact::Activated { epoch },
            Fact::CaughtUp { uid, epoch, lapses: 2 },
            Fact::Declined { stage: Stage::Prepare, uid, epoch, version, reason },
            Fact::Overran { stage: Stage::CatchUp },
            Fact::OnTime,
            Fact::Sealed { epoch, version },
            Fact::Damaged { uid },
            Fact::Stalled { epoch },
        ];
        let report = |fact| Report {
            node: node("node-1"),
            incarnation: Incarnation(4),
            partition: PartitionId(5),
            fact,
        };
        facts.map(report).into()
    }

    fn named<T: Serialize + DeserializeOwned + PartialEq + Debug>(
        name: &'static str,
        bodies: &[T],
    ) -> Vec<(&'static str, Vec<u8>)> {
        bodies.iter().map(|body| (name, record(body))).collect()
    }

    /// Nodes of two releases speak to each other while a cluster is upgraded.
    #[test]
    fn the_bytes_of_every_message_stay_as_they_are() {
        let (partition, version) = (PartitionId(5), PartitionVersion(9));
        let beat = Heartbeat { node: node("node-1"), incarnation: Incarnation(4) };
        let position = Position { last_epoch: Epoch(3), log_end: 77, damaged: true };
        let positions = BTreeMap::from([(partition, Some(position)), (PartitionId(6), None)]);
        let records = [
            named("greeting", &greetings()),
            named("join", &[join()]),
            named("join-answer", &join_answers()),
            named("heartbeat", std::slice::from_ref(&beat)),
            named("heartbeat-answer", &standings()),
            named("stopping", &[beat]),
            named("reports", &[reports()]),
            named("adopted", &[Adopted { partition, version }]),
            named("positions", &[BTreeMap::from([(partition, version)])]),
            named("positions-answer", &[Positions { incarnation: Incarnation(4), positions }]),
            named("propose", &wishes()),
            named("propose-answer", &propose_answers()),
        ];
        golden::check("node/messages.hex", &records.concat());
    }

    #[test]
    fn a_message_of_a_later_release_is_refused_by_its_version() {
        let mut bytes = record(&join());
        bytes[0] = 2;
        let error = decode::<Join>(&bytes).unwrap_err();
        assert_eq!(error.to_string(), "the record has version 2, and versions 1 to 1 are read");
    }
}
