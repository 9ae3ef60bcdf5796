//! Which hooks a partition's record waits for, as far as the record tells, and which reports of them.

use alloc::vec::Vec;

use super::{Partition, Topology};
use crate::handoff::{Fact, Report, Stage};
use crate::id::NodeId;

/// A hook that a record waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageAwaited {
    /// On which node.
    pub node: NodeId,
    /// Which one.
    pub stage: Stage,
}

impl Partition {
    /// What the move of a replica waits for. `None` where nothing moves, and while nobody leads: an
    /// election comes first.
    ///
    /// From outside `prepare` looks like the `catch_up` that follows it, so it is told from it only
    /// when it is late. A source that leads seals before it goes, so its `seal` is awaited as soon as
    /// the target is in sync, whether or not the controller has asked for it yet.
    #[must_use]
    pub fn move_awaits(&self) -> Option<StageAwaited> {
        let (movement, leader) = (self.movement.as_ref()?, self.leader.as_ref()?);
        if !self.in_sync.contains(&movement.target) {
            return Some(self.copy_awaited(&movement.target));
        }
        let source_leads = movement.source.as_ref() == Some(leader);
        let stage = if source_leads || self.transfer.is_some() { Stage::Seal } else { Stage::Activate };
        Some(StageAwaited { node: leader.clone(), stage })
    }

    /// Whether a copy is to go as soon as the leader has said that it serves, where each partition
    /// shall have `copies_wanted` copies.
    pub(crate) fn awaits_activation(&self, copies_wanted: u32) -> bool {
        self.movement.is_some() || self.replicas.len() > copies_wanted as usize
    }

    /// Every hook that the record waits for: copies in the order of their placement, then what the
    /// leader is asked for, then what is late and shows in nothing else.
    #[must_use]
    pub fn stages_awaited(&self) -> Vec<StageAwaited> {
        let mut awaited = Vec::new();
        if let Some(leader) = &self.leader {
            let behind = self.replicas.iter().filter(|replica| !self.is_electable(&replica.node));
            awaited.extend(behind.map(|replica| self.copy_awaited(&replica.node)));
            if self.transfer.is_some() {
                awaited.push(StageAwaited { node: leader.clone(), stage: Stage::Seal });
            }
        }
        let late =
            self.overrun.iter().map(|late| StageAwaited { node: late.node.clone(), stage: late.stage });
        for other in self.move_awaits().into_iter().chain(late) {
            if !awaited.contains(&other) {
                awaited.push(other);
            }
        }
        awaited
    }

    fn copy_awaited(&self, node: &NodeId) -> StageAwaited {
        let prepares =
            self.overrun.as_ref().is_some_and(|late| late.node == *node && late.stage == Stage::Prepare);
        let stage = if prepares { Stage::Prepare } else { Stage::CatchUp };
        StageAwaited { node: node.clone(), stage }
    }
}

impl Topology {
    /// Whether the control plane waits for what `report` says, from the run that says it. What is not
    /// awaited changes nothing and need not be sent: it is either late, or true and of no consequence.
    #[must_use]
    pub fn awaits(&self, report: &Report) -> bool {
        self.awaits_where(report, self.replication_factor_effective())
    }

    /// The same, where each partition shall have `copies_wanted` copies: for many reports at once.
    pub(crate) fn awaits_where(&self, report: &Report, copies_wanted: u32) -> bool {
        let Some(record) = self.partition(report.partition) else { return false };
        let Some(node) = self.node(&report.node) else { return false };
        node.incarnation == report.incarnation
            && node.is_live()
            && record.awaits(&report.node, &report.fact, copies_wanted)
    }
}

// Reports.
impl Partition {
    fn awaits(&self, node: &NodeId, fact: &Fact, copies_wanted: u32) -> bool {
        let leads_in = |epoch| self.leader.as_ref() == Some(node) && self.epoch == epoch;
        let late = self.overrun.as_ref();
        match fact {
            Fact::Activated { epoch } => leads_in(*epoch) && self.awaits_activation(copies_wanted),
            Fact::CaughtUp { .. } => self.awaits_copy(node, fact),
            Fact::Damaged { uid } => self.replica(node).is_some_and(|replica| replica.uid == *uid),
            Fact::Declined { .. } => self.awaits_refusal(node, fact),
            Fact::OnTime => late.is_some_and(|late| late.node == *node),
            Fact::Overran { stage } => late.is_none_or(|late| late.node == *node && late.stage != *stage),
            Fact::Sealed { epoch, version } => {
                leads_in(*epoch) && self.version == *version && self.transfer.is_some()
            }
            Fact::Stalled { epoch } => leads_in(*epoch),
        }
    }

    /// Progress made under another leader, before a restart, or before a lapse counts for nothing (rule
    /// S2).
    fn awaits_copy(&self, node: &NodeId, fact: &Fact) -> bool {
        let Fact::CaughtUp { uid, epoch, lapses } = fact else { return false };
        let placed =
            self.replica(node).is_some_and(|replica| replica.uid == *uid && replica.lapses == *lapses);
        placed && self.epoch == *epoch && !self.is_electable(node)
    }

    /// What is refused matters where it can be rolled back.
    fn awaits_refusal(&self, node: &NodeId, fact: &Fact) -> bool {
        let Fact::Declined { stage, uid, epoch, version, .. } = fact else { return false };
        let leads = self.leader.as_ref() == Some(node) && self.epoch == *epoch;
        match stage {
            Stage::Prepare | Stage::CatchUp => {
                let target = self.movement.as_ref().map(|movement| &movement.target);
                let placed = self.replica(node).is_some_and(|replica| replica.uid == *uid);
                placed && target == Some(node) && !self.in_sync.contains(node)
            }
            Stage::Seal => leads && self.version == *version && self.transfer.is_some(),
            Stage::Activate => leads,
            Stage::Release => false,
        }
    }
}
