//! The record of a partition: who holds it, who leads it, since which epoch.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::handoff;
use crate::id::{Epoch, NodeId, PartitionId, PartitionVersion, ReplicaUid};

/// The configuration of one partition, owned by the control plane and changed only by a
/// compare-and-set on `version` (PacificA section 2.2; KIP-966 for the in-sync set).
///
/// Invariants, asserted after every change:
/// - `in_sync` is a subset of the nodes in `replicas`, `tainted` a subset of `in_sync`;
/// - `leader`, when set, is in `in_sync` and not in `tainted`;
/// - once placed, `in_sync` never has fewer than `min_in_sync` members, and `min_in_sync >= 1`;
/// - `epoch` and `version` only grow, and `epoch` grows with every change to another leader;
/// - `version` is at least 1, `epoch` is once somebody leads or led, and `unclean` is no later epoch;
/// - `transfer`, when set, is another replica than the leader, and there is a leader;
/// - `movement`, when set, is between nodes in `replicas`;
/// - no two replicas have the same node or the same uid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its number.
    pub id: PartitionId,
    /// Grows with every change of this record.
    pub version: PartitionVersion,
    /// Grows with every change of the leader: the fencing token.
    pub epoch: Epoch,
    /// How that epoch began.
    pub origin: Origin,
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
    /// The leader that said itself that it stopped, when the current leader, or the coming one, follows
    /// right after it; `None` after any other end of an epoch. Whoever stopped gave its lease up before it
    /// said so, so that what was promised to it binds nobody who leads next (protocol rule L3).
    pub yielded_by: Option<NodeId>,
    /// The replica that the leader shall hand over to, while it does.
    pub transfer: Option<NodeId>,
    /// The move of a replica that is under way.
    pub movement: Option<Move>,
    /// The last epoch whose leader was elected although every in-sync replica may have lost
    /// acknowledged writes.
    pub unclean: Option<Epoch>,
    /// The stage of a replica that is past its deadline, when one is.
    pub overrun: Option<Overrun>,
    /// The newest epochs, oldest first, the current one last: at most [`EPOCHS_KEPT`].
    pub history: Vec<EpochRecord>,
}

/// Epochs that a record remembers.
pub const EPOCHS_KEPT: usize = 8;

/// An epoch of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Its number.
    pub epoch: Epoch,
    /// Who leads it, or led it.
    pub leader: NodeId,
    /// How it began.
    pub origin: Origin,
}

impl Partition {
    /// The leader's epoch ends, and with it whatever it was asked for. It was `yielded_by` the leader, or
    /// taken from it.
    pub(crate) fn end_epoch(&mut self, yielded_by: Option<NodeId>) {
        self.leader = None;
        self.transfer = None;
        self.yielded_by = yielded_by;
    }

    /// Notes the epoch that has just begun.
    pub(crate) fn note_epoch(&mut self) {
        let Some(leader) = self.leader.clone() else { return };
        if self.history.len() == EPOCHS_KEPT {
            self.history.remove(0);
        }
        self.history.push(EpochRecord { epoch: self.epoch, leader, origin: self.origin });
    }

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

    /// Whether every invariant above holds.
    ///
    /// # Errors
    ///
    /// The first one found broken.
    pub fn check(&self) -> Result<(), InvalidPartition> {
        let ensure = |holds: bool, broken| if holds { Ok(()) } else { Err(broken) };
        let nodes: BTreeSet<_> = self.replicas.iter().map(|replica| &replica.node).collect();
        let uids: BTreeSet<_> = self.replicas.iter().map(|replica| replica.uid).collect();
        ensure(nodes.len() == self.replicas.len(), InvalidPartition::NodeTwice)?;
        ensure(uids.len() == self.replicas.len(), InvalidPartition::UidTwice)?;
        ensure(self.in_sync.iter().all(|node| nodes.contains(node)), InvalidPartition::InSync)?;
        ensure(self.tainted.is_subset(&self.in_sync), InvalidPartition::Tainted)?;
        ensure(
            self.leader.as_ref().is_none_or(|leader| self.is_electable(leader)),
            InvalidPartition::Leader,
        )?;
        let was_led = self.leader.is_some() || self.yielded_by.is_some();
        ensure(!was_led || self.epoch > Epoch(0), InvalidPartition::Epoch)?;
        ensure(self.unclean.is_none_or(|unclean| unclean <= self.epoch), InvalidPartition::Unclean)?;
        ensure(self.version > PartitionVersion(0), InvalidPartition::Version)?;
        let in_sync_enough = self.min_in_sync >= 1 && self.in_sync.len() >= self.min_in_sync as usize;
        ensure(nodes.is_empty() || in_sync_enough, InvalidPartition::MinInSync)?;
        ensure(self.transfer.as_ref().is_none_or(|to| self.may_transfer(to)), InvalidPartition::Transfer)?;
        let placed = |movement: &Move| {
            nodes.contains(&movement.target) && movement.source.iter().all(|source| nodes.contains(source))
        };
        ensure(self.movement.as_ref().is_none_or(placed), InvalidPartition::Movement)
    }

    fn may_transfer(&self, target: &NodeId) -> bool {
        self.holds(target) && self.leader.as_ref().is_some_and(|leader| leader != target)
    }

    /// Panics when an invariant above does not hold: the record would be a bug, never an input.
    pub fn assert_invariants(&self) {
        if let Err(broken) = self.check() {
            panic!("{}: {broken}", self.id);
        }
    }
}

/// A partition's record breaks one of its invariants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPartition {
    /// There is a leader, or was one, in no epoch.
    #[error("it is or was led in no epoch")]
    Epoch,
    /// A node is in sync that holds no replica.
    #[error("in-sync is not a subset of its replicas")]
    InSync,
    /// The leader is not in sync, or tainted.
    #[error("its leader is not electable")]
    Leader,
    /// Fewer replicas are in sync than there must be, or there need be none.
    #[error("in-sync is below its minimum, or the minimum is zero")]
    MinInSync,
    /// A move is from or to a node that holds no replica.
    #[error("its move is not between replicas")]
    Movement,
    /// Two replicas are on one node.
    #[error("a node holds two replicas")]
    NodeTwice,
    /// A node is tainted that is not in sync.
    #[error("tainted is not a subset of in-sync")]
    Tainted,
    /// The leader shall hand over to itself or to a node that holds no replica, or there is none.
    #[error("its transfer is not from the leader to another replica")]
    Transfer,
    /// Two replicas have one uid.
    #[error("two replicas share a uid")]
    UidTwice,
    /// An unclean election in an epoch that is still to come.
    #[error("its unclean epoch is later than its epoch")]
    Unclean,
    /// It has no version.
    #[error("it has no version")]
    Version,
}

/// One copy of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Where it lies.
    pub node: NodeId,
    /// Which placement it is.
    pub uid: ReplicaUid,
    /// How often it fell out of the in-sync set, or died or restarted outside of it: what it caught up
    /// with before counts for nothing.
    pub lapses: u64,
}

/// How an epoch began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// With the partition: nothing was written before.
    #[default]
    First,
    /// The leader before it sealed and handed over: its writes are all there.
    Handover,
    /// By election among the in-sync replicas, as the record names them. Where user code acknowledges
    /// writes that not all of them have, such writes may be missing.
    Membership,
    /// By election of the in-sync replica that said it has the most.
    Position,
    /// By election although every in-sync replica may have lost acknowledged writes.
    Unclean,
}

impl Origin {
    /// The word shown to people and put in event streams.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Handover => "handover",
            Self::Membership => "membership",
            Self::Position => "position",
            Self::Unclean => "unclean",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A hook that is past its deadline and goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrun {
    /// On which node.
    pub node: NodeId,
    /// In which stage.
    pub stage: handoff::Stage,
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
