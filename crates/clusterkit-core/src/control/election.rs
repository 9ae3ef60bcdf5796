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
/// - a question is about one epoch: with another one it is asked anew;
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
}

impl Elections {
    /// The state moved on: gives the questions to be asked, by node.
    pub(super) fn handle_state(
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
            let same = |known: &Question| known.epoch == record.epoch && known.electors == electors;
            if let Some(known) = earlier.remove(&record.id).filter(same) {
                self.asked.insert(record.id, known);
                continue;
            }
            for node in &electors {
                questions.entry(node.clone()).or_default().push(record.id);
            }
            let (epoch, deadline) = (record.epoch, now + patience);
            let question =
                Question { epoch, silent: electors.clone(), electors, positions: BTreeMap::new(), deadline };
            self.asked.insert(record.id, question);
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
        self.asked.values().map(|question| question.deadline).filter(|deadline| *deadline > now).min()
    }

    /// Whether a question has waited for long enough since `earlier`.
    pub(super) fn handle_timeout(&self, earlier: Instant, now: Instant) -> bool {
        self.asked.values().any(|question| question.deadline > earlier && question.deadline <= now)
    }
}

impl Question {
    fn is_ready(&self, now: Instant) -> bool {
        self.silent.is_empty() || self.deadline <= now
    }
}
