//! The types openraft is instantiated with.

use std::fmt;

use clusterkit_core::control::{Applied, Command, Rejected};
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
    pub(crate) fn new(commands: &[Command]) -> Self {
        Self(clusterkit_wire::versioned::encode(BATCH_VERSION, commands))
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

/// What came of each command of a batch, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BatchOutcome(pub(crate) Vec<Result<Applied, Rejected>>);
