//! Leaders that cannot get on: another one is to lead (protocol rule F6).
//!
//! Whatever keeps a leader from committing may keep the next one from it as well, and each change of leader
//! costs the clients something: so leadership of a partition is taken away only so often.

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use super::pauses::Pauses;
use super::reconcile::Facts;
use crate::id::{Epoch, NodeId, PartitionId};
use crate::time::Instant;
use crate::topology::{Partition, Topology};

/// How long a report counts: its leader says it again from beat to beat while it is so.
const REPORT_STANDS: Duration = Duration::from_secs(1);

/// Who said that it stalls, and who was relieved lately.
///
/// Invariants:
/// - at most one report is kept for each partition, of its leader in its epoch;
/// - after a relief no leader of that partition is relieved before the pause is over, and where another
///   can lead, the one that was relieved does not lead before then.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    said: BTreeMap<PartitionId, Said>,
    pauses: Pauses<PartitionId>,
    relieved: BTreeMap<PartitionId, NodeId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    epoch: Epoch,
    until: Instant,
}

impl Stalls {
    /// The leader of `epoch` says that it stalls; whether that is news.
    pub(super) fn hear(&mut self, now: Instant, partition: PartitionId, epoch: Epoch) -> bool {
        let said = Said { epoch, until: now + REPORT_STANDS };
        let earlier = self.said.insert(partition, said);
        earlier.is_none_or(|earlier| earlier.epoch != epoch || earlier.until <= now)
    }

    /// Leadership was taken, or is being taken, from `leader`.
    pub(super) fn relieve(&mut self, now: Instant, partition: PartitionId, leader: NodeId) {
        self.said.remove(&partition);
        self.pauses.begin(now, partition);
        self.relieved.insert(partition, leader);
    }

    /// Drops what was said in epochs that are over.
    pub(super) fn retain(&mut self, topology: &Topology) {
        let leads = |partition: &PartitionId, said: &Said| {
            let led = |record: &Partition| record.leader.is_some() && record.epoch == said.epoch;
            topology.partition(*partition).is_some_and(led)
        };
        self.said.retain(|partition, said| leads(partition, said));
    }

    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.pauses.poll_timeout(now)
    }

    /// Whether a pause has ended since `earlier`.
    pub(super) fn handle_timeout(&mut self, earlier: Instant, now: Instant) -> bool {
        let ended = self.pauses.handle_timeout(earlier, now);
        let paused: BTreeSet<_> = self.pauses.held(now).copied().collect();
        self.relieved.retain(|partition, _| paused.contains(partition));
        ended
    }

    /// What follows from it.
    pub(super) fn fill(&self, now: Instant, facts: &mut Facts) {
        let counts = |(partition, said): &(&PartitionId, &Said)| {
            said.until > now && !self.pauses.holds(now, partition)
        };
        let counted = self.said.iter().filter(counts);
        facts.stalled.extend(counted.map(|(partition, said)| (*partition, said.epoch)));
        let relieved = self.relieved.iter().filter(|(partition, _)| self.pauses.holds(now, partition));
        facts.relieved.extend(relieved.map(|(partition, leader)| (*partition, leader.clone())));
    }
}
