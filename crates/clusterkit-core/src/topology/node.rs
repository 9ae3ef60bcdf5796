//! A node as the control plane records it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{BootId, Incarnation, NodeId, StoreId};

/// What the control plane knows of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// Its data directory; another one means that it lost everything.
    pub store: StoreId,
    /// The run of its process that registered last.
    pub boot: BootId,
    /// How often it registered; grows with every start.
    pub incarnation: Incarnation,
    /// Where other nodes reach it, `host:port`.
    pub node_addr: String,
    /// Where clients reach it, `host:port`.
    pub public_addr: String,
    /// Its failure domain: replicas of a partition are spread over zones when that is feasible.
    pub zone: Option<String>,
    /// Its share of partitions relative to the others, 1 to 1,000, default 1.
    pub weight: u32,
    /// Whether it may vote in the control plane.
    pub role: RaftRole,
    /// Whether partitions are placed on it.
    pub holds_data: bool,
    /// Whether it can say, at an election, how much its replicas have.
    pub reports_position: bool,
    /// Whether it is heard.
    pub liveness: Liveness,
    /// Whether it stays.
    pub stage: Stage,
    /// The release it runs, as `0.1.0`.
    pub software: String,
    /// Whatever its operator wrote: shown, never read by ClusterKit.
    pub metadata: BTreeMap<String, String>,
}

impl Node {
    /// Whether new replicas may be placed on it, now or once it is back.
    #[must_use]
    pub fn is_placement_target(&self) -> bool {
        self.holds_data && self.stage == Stage::Member
    }

    /// Whether it may lead, and counts when living replicas are counted.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.liveness, Liveness::Alive | Liveness::Suspect) && self.stage != Stage::Left
    }

    /// The one word that says how it stands.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        match (self.stage, self.liveness) {
            (Stage::Left, _) => NodeStatus::Left,
            (_, Liveness::Joining) => NodeStatus::Joining,
            (_, Liveness::Dead) => NodeStatus::Dead,
            (Stage::Leaving, _) => NodeStatus::Leaving,
            (Stage::Member, Liveness::Alive) => NodeStatus::Alive,
            (Stage::Member, Liveness::Suspect) => NodeStatus::Suspect,
        }
    }
}

/// What the failure detector last said of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Liveness {
    /// Registered, and not heard since.
    Joining,
    /// Heard within the suspicion timeout.
    Alive,
    /// Silent for some beats: still in charge of what it leads.
    Suspect,
    /// Silent for the dead timeout, or confirmed down: it leads nothing.
    Dead,
}

/// Whether a node is there to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// It takes its share.
    Member,
    /// It drains: takes nothing new, gives everything away.
    Leaving,
    /// Drained and gone until it registers again.
    Left,
}

/// Whether a node may vote in the control plane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RaftRole {
    /// It follows the control plane and never votes.
    Learner,
    /// It votes when it is chosen; up to five do at once.
    #[default]
    Voter,
}

/// How a node stands, in one word for people: [`Liveness`] and [`Stage`] together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeStatus {
    /// Registered, and not heard since.
    Joining,
    /// Heard, and here to stay.
    Alive,
    /// Silent for some beats.
    Suspect,
    /// Silent for too long, or confirmed down.
    Dead,
    /// Draining.
    Leaving,
    /// Drained and gone.
    Left,
}

impl NodeStatus {
    /// Every status, in the order in which a node passes through them.
    pub const ALL: [Self; 6] =
        [Self::Joining, Self::Alive, Self::Suspect, Self::Dead, Self::Leaving, Self::Left];

    /// The word shown to people and put in metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Leaving => "leaving",
            Self::Left => "left",
        }
    }
}

impl fmt::Display for NodeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
