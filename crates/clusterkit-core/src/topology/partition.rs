//! The record of a partition: who holds it, who leads it, since which epoch.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, NodeId, PartitionId, PartitionVersion, ReplicaUid};

/// The configuration of one partition, owned by the control plane and changed only by a
/// compare-and-set on `version` (PacificA section 2.2; KIP-966 for the in-sync set).
///
/// Invariants, asserted after every change:
/// - `in_sync` is a subset of the nodes in `replicas`, `tainted` a subset of `in_sync`;
/// - `leader`, when set, is in `in_sync` and not in `tainted`;
/// - once placed, `in_sync` never has fewer than `min_in_sync` members, and `min_in_sync >= 1`;
/// - `epoch` and `version` only grow, and `epoch` grows with every change to another leader;
/// - no two replicas have the same node or the same uid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its number.
    pub id: PartitionId,
    /// Grows with every change of this record.
    pub version: PartitionVersion,
    /// Grows with every change of the leader: the fencing token.
    pub epoch: Epoch,
    /// The one replica that takes writes, `None` while none can.
    pub leader: Option<NodeId>,
    /// The nodes that shall hold it (R), oldest placement first.
    pub replicas: Vec<Replica>,
    /// The replicas that must hold an entry before it counts as committed (S).
    pub in_sync: BTreeSet<NodeId>,
    /// In-sync replicas that may have lost acknowledged bytes and cannot lead (T).
    pub tainted: BTreeSet<NodeId>,
    /// Below this many in-sync replicas nothing is committed.
    pub min_in_sync: u32,
    /// The replica that the leader shall hand over to, while it does.
    pub transfer: Option<NodeId>,
    /// The move of a replica that is under way.
    pub movement: Option<Move>,
    /// The last epoch whose leader was elected although every in-sync replica may have lost
    /// acknowledged writes.
    pub unclean: Option<Epoch>,
}

impl Partition {
    /// The replica on `node`.
    #[must_use]
    pub fn replica(&self, node: &NodeId) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.node == *node)
    }

    /// Whether `node` holds, or shall hold, a copy.
    #[must_use]
    pub fn holds(&self, node: &NodeId) -> bool {
        self.replica(node).is_some()
    }

    /// Whether `node` may be elected: in sync and untainted.
    #[must_use]
    pub fn is_electable(&self, node: &NodeId) -> bool {
        self.in_sync.contains(node) && !self.tainted.contains(node)
    }

    /// All copies but the leader's.
    pub fn followers(&self) -> impl Iterator<Item = &NodeId> {
        self.replicas.iter().map(|replica| &replica.node).filter(|id| Some(*id) != self.leader.as_ref())
    }

    /// All copies, the leader's first.
    pub fn holders(&self) -> impl Iterator<Item = &NodeId> {
        self.leader.iter().chain(self.followers())
    }

    /// Panics when an invariant above does not hold: the record would be a bug, never an input.
    pub fn assert_invariants(&self) {
        let holds = |node: &NodeId| self.holds(node);
        assert!(self.in_sync.iter().all(holds), "{}: in-sync is not a subset of replicas", self.id);
        assert!(self.tainted.is_subset(&self.in_sync), "{}: tainted is not a subset of in-sync", self.id);
        if let Some(leader) = &self.leader {
            assert!(self.is_electable(leader), "{}: leader {leader} is not electable", self.id);
        }
        if !self.replicas.is_empty() {
            assert!(self.min_in_sync >= 1, "{}: min_in_sync is zero", self.id);
            assert!(
                self.in_sync.len() >= self.min_in_sync as usize,
                "{}: in-sync below its minimum",
                self.id
            );
        }
        let nodes: BTreeSet<_> = self.replicas.iter().map(|replica| &replica.node).collect();
        let uids: BTreeSet<_> = self.replicas.iter().map(|replica| replica.uid).collect();
        assert!(nodes.len() == self.replicas.len(), "{}: a node holds two replicas", self.id);
        assert!(uids.len() == self.replicas.len(), "{}: two replicas share a uid", self.id);
    }
}

/// One copy of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Where it lies.
    pub node: NodeId,
    /// Which placement it is.
    pub uid: ReplicaUid,
}

/// A replica on its way: the target is added and brought in sync before the source is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The replica that goes, `None` when a copy is only added.
    pub source: Option<NodeId>,
    /// The replica that comes.
    pub target: NodeId,
}

/// How a partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionHealth {
    /// Led, with all copies in sync on living nodes.
    Ok,
    /// Led, with fewer copies than configured.
    UnderReplicated,
    /// Led, and nothing can be committed until another in-sync replica is back.
    BelowMinInSync,
    /// No replica can lead.
    Leaderless,
}

impl PartitionHealth {
    /// The word shown to people and put in metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::UnderReplicated => "under_replicated",
            Self::BelowMinInSync => "below_min_in_sync",
            Self::Leaderless => "leaderless",
        }
    }
}

impl fmt::Display for PartitionHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
