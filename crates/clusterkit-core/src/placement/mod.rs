//! Which node shall hold which partition, and which replica shall lead it.
//!
//! Placement is a table, not a function of the node names: [`first_table`] lays it out once, and
//! [`repair`] brings it back to its goals with the fewest copies moved whenever nodes come, go or
//! change. The goals, each above the next:
//!
//! 1. every partition has as many copies as the replication factor says;
//! 2. no copy stays on a node that is on its way out;
//! 3. the copies of a partition lie in as many zones as have room for them;
//! 4. nodes hold copies in proportion to their weights;
//! 5. nodes lead partitions in proportion to their weights.
//!
//! Proportion means that no copy could go from one node to another so that both come nearer to
//! their share: the divisor method of Sainte-Laguë, which is also what water-filling gives once
//! capacities and zones bound what a node can take. With equal weights it says that no two nodes
//! differ by more than one copy.
//!
//! Everything here is pure, works in integers and walks ordered collections, so that every machine
//! finds the same table for the same question, whatever the order of its nodes.

mod even;
mod first;
mod leaders;
mod nodes;
mod plan;
mod solve;
mod spread;
mod table;

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

pub use self::first::first_table;
pub use self::plan::{Budget, LeaderMove, MoveReason, Plan, PlannedMove, repair};
pub use self::spread::{Share, Spread, spread};
use crate::id::NodeId;

/// How the first table is laid out. Later changes repair the table towards the same goals either
/// way, so the other three are for comparison and for clusters that must begin as another did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// By weight, zone and capacity, no two equal nodes differing by more than one copy.
    #[default]
    Balanced,
    /// A consistent hash ring of 150 points for each unit of weight.
    Ring,
    /// The nodes with the highest weighted hash of partition and node.
    Rendezvous,
    /// Replica `i` of partition `p` on node `(p + i) mod n`, in the order of the node ids.
    RoundRobin,
}

impl Strategy {
    /// Every choice, the default first.
    pub const ALL: [Self; 4] = [Self::Balanced, Self::Ring, Self::Rendezvous, Self::RoundRobin];

    /// The name in configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Ring => "ring",
            Self::Rendezvous => "rendezvous",
            Self::RoundRobin => "round-robin",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Strategy {
    type Err = InvalidStrategy;

    fn from_str(name: &str) -> Result<Self, InvalidStrategy> {
        Self::ALL.into_iter().find(|strategy| strategy.as_str() == name).ok_or(InvalidStrategy)
    }
}

/// The text names no placement strategy. Nothing changed; write one of the names in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the placement strategy is one of balanced, ring, rendezvous and round-robin")]
pub struct InvalidStrategy;

/// A node as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementNode {
    /// Its name.
    pub id: NodeId,
    /// Its share relative to the others, 1 to 1,000; zero counts as 1.
    pub weight: u32,
    /// Its failure domain; a node without one is a zone of its own.
    pub zone: Option<String>,
    /// How many replicas it takes at most, without end when `None`.
    pub capacity: Option<u32>,
    /// What it gives and takes now.
    pub standing: Standing,
}

/// What a node gives and takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Takes replicas, keeps its share, gives away what is above it.
    Target,
    /// Suspected or briefly dead: keeps what it holds and takes nothing new. Nobody takes its share
    /// meanwhile.
    Keep,
    /// On its way out: gives everything away as soon as there is a place. A node that a row names
    /// and the caller does not is taken for one of these.
    Leave,
}

/// A partition as placement sees it. Row `p` of a table is partition `p`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlacementRow {
    /// The nodes that hold it.
    pub replicas: Vec<NodeId>,
    /// The one of them that leads.
    pub leader: Option<NodeId>,
    /// Those of `replicas` that may be made leader now.
    pub electable: BTreeSet<NodeId>,
    /// The source and target of a move under way. Such a row is left alone, and counts as if the
    /// move were done.
    pub busy: Option<(Option<NodeId>, NodeId)>,
    /// The nodes that get no copy of it for now.
    pub avoided: BTreeSet<NodeId>,
    /// Its copies stay where they are for now, and so does its leader, unless that is on its way out.
    pub pinned: bool,
}

impl From<Vec<NodeId>> for PlacementRow {
    /// The row of a table as [`first_table`] gives it: the first leads, and any may.
    fn from(replicas: Vec<NodeId>) -> Self {
        let leader = replicas.first().cloned();
        Self {
            leader,
            electable: replicas.iter().cloned().collect(),
            replicas,
            busy: None,
            avoided: BTreeSet::new(),
            pinned: false,
        }
    }
}

#[cfg(test)]
mod tests;
