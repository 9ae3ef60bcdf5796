//! Who has the most: candidates that can say how far they are, are asked before one of them is elected.
//!
//! Any untainted in-sync replica may lead. Asking finds the one that also has what was written and not
//! yet acknowledged, and passes over one that found itself damaged (protocol rule F2). Where all are
//! tainted, one is elected only once all have said what they have (rule F5).

use alloc::collections::{BTreeMap, BTreeSet};
use core::cmp::Reverse;
use core::time::Duration;

use super::command::MemberStatus;
use super::reconcile::Ballot;
use crate::handoff::Position;
use crate::id::{Epoch, Incarnation, NodeId, PartitionId, PartitionVersion, ReplicaUid};
use crate::time::Instant;
use crate::topology::{Partition, Topology};

/// For how long answers stand that decided nothing: a replica that was damaged may be whole by then, and
/// nobody else may be able to lead.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The members of `record` that are to say how far they are, before one of them is elected, each with the
/// run and the placement that is asked. None where nobody can say it, or nobody can lead.
pub(super) fn electors(topology: &Topology, record: &Partition) -> BTreeMap<NodeId, Elector> {
    if record.leader.is_some() || record.epoch == Epoch(0) {
        return BTreeMap::new();
    }
    let is_lost = is_lost(topology, record);
    let is_asked = |node: &&NodeId| is_lost || record.is_electable(node) && topology.is_live(node);
    let asked = record.in_sync.iter().filter(is_asked);
    asked.filter_map(|node| Some((node.clone(), Elector::of(topology, record, node)?))).collect()
}

/// Rule F5: whether all members are tainted, and all are back, so that waiting brings nothing more.
pub(super) fn is_lost(topology: &Topology, record: &Partition) -> bool {
    let all_back = record.in_sync.iter().all(|node| topology.is_live(node));
    !record.in_sync.is_empty() && record.tainted == record.in_sync && all_back
}

/// Who has the most of all that said what they have; whoever cannot say it has the least.
pub(super) fn furthest(statuses: &BTreeMap<NodeId, MemberStatus>) -> Option<&NodeId> {
    let key =
        |(node, status): &(&NodeId, &MemberStatus)| (status.position.map(rank), Reverse((*node).clone()));
    statuses.iter().max_by_key(key).map(|(node, _)| node)
}

/// How much a position is: of two that have as much, one that is not damaged is more.
pub(super) fn rank(position: Position) -> (Epoch, u64, bool) {
    (position.last_epoch, position.log_end, !position.damaged)
}

/// What is asked: a status counts only of this run and this placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Elector {
    incarnation: Incarnation,
    uid: ReplicaUid,
}

impl Elector {
    /// `None` for a node that cannot say how far it is.
    fn of(topology: &Topology, record: &Partition, node: &NodeId) -> Option<Self> {
        let known = topology.node(node).filter(|known| known.reports_position)?;
        Some(Self { incarnation: known.incarnation, uid: record.replica(node)?.uid })
    }
}

/// The questions that are out, and the answers to them.
///
/// Invariants:
/// - a question is about one epoch, and certain runs and placements of its electors: with others it is
///   asked anew, as after some time;
/// - an answer counts for the question that it answers, and for the run that was asked;
/// - there is at most one question for a partition, so all are bounded by the topology.
#[derive(Debug, Default)]
pub(super) struct Elections {
    asked: BTreeMap<PartitionId, Question>,
}

#[derive(Debug)]
struct Question {
    epoch: Epoch,
    /// The record by which it was asked: answers to an earlier question carry an earlier one.
    version: PartitionVersion,
    electors: BTreeMap<NodeId, Elector>,
    silent: BTreeSet<NodeId>,
    statuses: BTreeMap<NodeId, MemberStatus>,
    deadline: Instant,
    again_at: Instant,
}

/// What a node is asked at once: of each partition, as of which record.
pub(super) type Asked = BTreeMap<PartitionId, PartitionVersion>;

impl Elections {
    /// Gives the questions to be asked by now, by node.
    pub(super) fn questions(
        &mut self,
        now: Instant,
        topology: &Topology,
        patience: Duration,
    ) -> BTreeMap<NodeId, Asked> {
        let mut questions: BTreeMap<_, Asked> = BTreeMap::new();
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
            for node in electors.keys() {
                questions.entry(node.clone()).or_default().insert(record.id, record.version);
            }
            self.asked.insert(record.id, Question::new(now, record, electors, patience));
        }
        questions
    }

    /// This run of `node` answered what it was `asked`; whether that decides anything.
    pub(super) fn handle_positions(
        &mut self,
        node: &NodeId,
        incarnation: Incarnation,
        asked: &Asked,
        positions: &BTreeMap<PartitionId, Option<Position>>,
    ) -> bool {
        let mut decided = false;
        for (partition, version) in asked {
            let Some(question) = self.asked.get_mut(partition) else { continue };
            let is_of_run = question.electors.get(node).is_some_and(|asked| asked.incarnation == incarnation);
            let Some(position) = positions.get(partition).copied() else { continue };
            if question.version == *version && is_of_run && question.silent.remove(node) {
                question.statuses.insert(node.clone(), MemberStatus { incarnation, position });
                decided |= question.silent.is_empty();
            }
        }
        decided
    }

    /// The votes that are complete, or have waited for long enough.
    pub(super) fn ballots(&self, now: Instant) -> BTreeMap<PartitionId, Ballot> {
        let ready = self.asked.iter().filter(|(_, question)| question.is_ready(now));
        let ballot =
            |question: &Question| Ballot { epoch: question.epoch, statuses: question.statuses.clone() };
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
    fn new(
        now: Instant,
        record: &Partition,
        electors: BTreeMap<NodeId, Elector>,
        patience: Duration,
    ) -> Self {
        let deadline = now + patience;
        Self {
            epoch: record.epoch,
            version: record.version,
            silent: electors.keys().cloned().collect(),
            electors,
            statuses: BTreeMap::new(),
            deadline,
            again_at: deadline + ASK_AGAIN_AFTER,
        }
    }

    fn is_ready(&self, now: Instant) -> bool {
        self.silent.is_empty() || self.deadline <= now
    }
}
