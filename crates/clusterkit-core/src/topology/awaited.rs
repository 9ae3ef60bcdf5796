//! Which hooks a partition's record waits for, as far as the record tells.

use alloc::vec::Vec;

use super::Partition;
use crate::handoff::Stage;
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
