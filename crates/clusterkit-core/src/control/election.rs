//! Who has the most: candidates that can say how far they are, are asked before one of them is elected.
//!
//! Any untainted in-sync replica may lead. Asking finds the one that also has what was written and not
//! yet acknowledged, and passes over one that found itself damaged (protocol rule F2).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use super::reconcile::Ballot;
use crate::handoff::Position;
use crate::id::{Epoch, NodeId, PartitionId};
use crate::time::Instant;
use crate::topology::{Partition, Topology};

/// For how long answers stand that decided nothing: a replica that was damaged may be whole by then, and
/// nobody else may be able to lead.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The candidates of `record` that can say how far they are; none when there is nothing to choose.
pub(super) fn electors(topology: &Topology, record: &Partition) -> BTreeSet<NodeId> {
    if record.leader.is_some() {
        return BTreeSet::new();
    }
    let candidate = |node: &&NodeId| record.is_electable(node) && topology.is_live(node);
    let candidates: Vec<_> = record.in_sync.iter().filter(candidate).collect();
    if candidates.len() < 2 {
        return BTreeSet::new();
    }
    let reports = |node: &&NodeId| topology.node(node).is_some_and(|node| node.reports_position);
    candidates.into_iter().filter(reports).cloned().collect()
}

/// The questions that are out, and the answers to them.
///
/// Invariants:
/// - a question is about one epoch: with another one it is asked anew, as after some time;
/// - there is at most one for a partition, so all are bounded by the topology.
#[derive(Debug, Default)]
pub(super) struct Elections {
    asked: BTreeMap<PartitionId, Question>,
}

#[derive(Debug)]
struct Question {
    epoch: Epoch,
    electors: BTreeSet<NodeId>,
    silent: BTreeSet<NodeId>,
    positions: BTreeMap<NodeId, Position>,
    deadline: Instant,
    again_at: Instant,
}

impl Elections {
    /// Gives the questions to be asked by now, by node.
    pub(super) fn questions(
        &mut self,
        now: Instant,
        topology: &Topology,
        patience: Duration,
    ) -> BTreeMap<NodeId, Vec<PartitionId>> {
        let mut questions: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut earlier = core::mem::take(&mut self.asked);
        for record in &topology.partitions {
            let electors = electors(topology, record);
            if electors.is_empty() {
                continue;
            }
            let stands = |known: &Question| {
                known.epoch == record.epoch && known.electors == electors && known.again_at > now
            };
            if let Some(known) = earlier.remove(&record.id).filter(stands) {
                self.asked.insert(record.id, known);
                continue;
            }
            for node in &electors {
                questions.entry(node.clone()).or_default().push(record.id);
            }
            self.asked.insert(record.id, Question::new(now, record.epoch, electors, patience));
        }
        questions
    }

    /// `node` answered for these partitions; whether that decides one.
    pub(super) fn handle_positions(
        &mut self,
        node: &NodeId,
        asked: &[PartitionId],
        positions: &BTreeMap<PartitionId, Position>,
    ) -> bool {
        let mut decided = false;
        for partition in asked {
            let Some(question) = self.asked.get_mut(partition) else { continue };
            if question.silent.remove(node) {
                question.positions.extend(positions.get(partition).map(|position| (node.clone(), *position)));
                decided |= question.silent.is_empty();
            }
        }
        decided
    }

    /// The votes that are complete, or have waited for long enough.
    pub(super) fn ballots(&self, now: Instant) -> BTreeMap<PartitionId, Ballot> {
        let ready = self.asked.iter().filter(|(_, question)| question.is_ready(now));
        let ballot =
            |question: &Question| Ballot { epoch: question.epoch, positions: question.positions.clone() };
        ready.map(|(partition, question)| (*partition, ballot(question))).collect()
    }

    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let times = self.asked.values().flat_map(|question| [question.deadline, question.again_at]);
        times.filter(|time| *time > now).min()
    }

    /// Whether there is something to be asked again.
    pub(super) fn has_old_answers(&self, now: Instant) -> bool {
        self.asked.values().any(|question| question.again_at <= now)
    }

    /// Whether a question has waited for long enough since `earlier`.
    pub(super) fn handle_timeout(&self, earlier: Instant, now: Instant) -> bool {
        self.asked.values().any(|question| question.deadline > earlier && question.deadline <= now)
    }
}

impl Question {
    fn new(now: Instant, epoch: Epoch, electors: BTreeSet<NodeId>, patience: Duration) -> Self {
        let deadline = now + patience;
        Self {
            epoch,
            silent: electors.clone(),
            electors,
            positions: BTreeMap::new(),
            deadline,
            again_at: deadline + ASK_AGAIN_AFTER,
        }
    }

    fn is_ready(&self, now: Instant) -> bool {
        self.silent.is_empty() || self.deadline <= now
    }
}
