//! What nodes say of their replicas, kept as long as the record waits for it.

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use super::pauses::Pauses;
use super::reconcile::{Declined, Facts};
use super::stalls::Stalls;
use crate::handoff::{Fact, Report, Stage};
use crate::id::{NodeId, PartitionId};
use crate::time::Instant;
use crate::topology::{Overrun, Partition, Topology};

/// The newest report of each kind of each replica.
///
/// Invariants:
/// - a report is kept only while the record still waits for it, in the run, epoch and placement that
///   it is of;
/// - at most one report of a kind is kept for each replica, so that all are bounded by the topology.
#[derive(Debug, Default)]
pub(super) struct Reports {
    heard: BTreeMap<(PartitionId, NodeId, Kind), Report>,
    /// Who declined a stage is not asked for it again at once.
    pauses: Pauses<(PartitionId, NodeId, Stage)>,
    stalls: Stalls,
}

/// Reports of one kind supersede each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Activated,
    CaughtUp,
    Damaged,
    Declined,
    Punctuality,
    Sealed,
    Stalled,
}

impl Reports {
    /// Takes a report; whether it says something new.
    pub(super) fn hear(&mut self, now: Instant, topology: &Topology, report: Report) -> bool {
        if !topology.awaits(&report) {
            return false;
        }
        if let Fact::Stalled { epoch } = report.fact {
            return self.stalls.hear(now, report.partition, epoch);
        }
        let key = (report.partition, report.node.clone(), kind(&report.fact));
        if self.heard.get(&key) == Some(&report) {
            return false;
        }
        if let Fact::Declined { stage, .. } = report.fact {
            self.pauses.begin(now, (report.partition, report.node.clone(), stage));
        }
        self.heard.insert(key, report);
        true
    }

    /// Leadership was taken, or is being taken, from a `leader` that could not get on.
    pub(super) fn relieve(&mut self, now: Instant, partition: PartitionId, leader: NodeId) {
        self.stalls.relieve(now, partition, leader);
    }

    /// Drops what the topology does not wait for any more.
    pub(super) fn retain(&mut self, topology: &Topology) {
        let copies_wanted = topology.replication_factor_effective();
        self.heard.retain(|_, report| topology.awaits_where(report, copies_wanted));
        self.stalls.retain(topology);
    }

    /// When the next pause is over.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.pauses.poll_timeout(now).into_iter().chain(self.stalls.poll_timeout(now)).min()
    }

    /// Forgets pauses that are long over; whether one has ended since `earlier`.
    pub(super) fn handle_timeout(&mut self, earlier: Instant, now: Instant) -> bool {
        self.pauses.handle_timeout(earlier, now) | self.stalls.handle_timeout(earlier, now)
    }

    /// What follows from all of them.
    pub(super) fn fill(&self, now: Instant, facts: &mut Facts) {
        for report in self.heard.values() {
            take(report, facts);
        }
        self.stalls.fill(now, facts);
        for (partition, node, stage) in self.pauses.held(now) {
            let pair = (*partition, node.clone());
            match stage {
                Stage::Prepare | Stage::CatchUp => drop(facts.targets_avoided.insert(pair)),
                Stage::Activate => drop(facts.leaders_avoided.insert(pair)),
                Stage::Seal => drop(facts.handovers_avoided.insert(*partition)),
                Stage::Release => {}
            }
        }
    }
}

fn take(report: &Report, facts: &mut Facts) {
    let (partition, node) = (report.partition, report.node.clone());
    match &report.fact {
        Fact::Activated { epoch } => drop(facts.activated.insert(partition, *epoch)),
        Fact::CaughtUp { uid, .. } => drop(facts.caught_up.entry(partition).or_default().insert(*uid)),
        Fact::Damaged { .. } => drop(facts.damaged.insert((partition, node), report.incarnation)),
        Fact::Declined { stage, epoch, version, .. } => {
            facts.declined.push(Declined {
                partition,
                node,
                stage: *stage,
                epoch: *epoch,
                version: *version,
            });
        }
        Fact::Overran { stage } => {
            drop(facts.overruns.insert(partition, Some(Overrun { node, stage: *stage })));
        }
        Fact::OnTime => drop(facts.overruns.entry(partition).or_insert(None)),
        Fact::Sealed { epoch, version } => drop(facts.sealed.insert(partition, (*epoch, *version))),
        // It is not kept here: it counts for a while only.
        Fact::Stalled { .. } => {}
    }
}

fn kind(fact: &Fact) -> Kind {
    match fact {
        Fact::Activated { .. } => Kind::Activated,
        Fact::CaughtUp { .. } => Kind::CaughtUp,
        Fact::Damaged { .. } => Kind::Damaged,
        Fact::Declined { .. } => Kind::Declined,
        Fact::OnTime | Fact::Overran { .. } => Kind::Punctuality,
        Fact::Sealed { .. } => Kind::Sealed,
        Fact::Stalled { .. } => Kind::Stalled,
    }
}

/// Since when each move has had nothing to wait for: its target is dead, or nobody leads.
#[derive(Debug, Default)]
pub(super) struct Stranded {
    since: BTreeMap<PartitionId, Instant>,
}

impl Stranded {
    pub(super) fn handle_state(&mut self, now: Instant, topology: &Topology) {
        let stranded = |record: &&Partition| {
            let dead = |movement: &crate::topology::Move| !topology.is_live(&movement.target);
            record.movement.as_ref().is_some_and(|movement| dead(movement) || record.leader.is_none())
        };
        let records = topology.partitions.iter().map(AsRef::as_ref).filter(stranded);
        let earlier = core::mem::take(&mut self.since);
        self.since =
            records.map(|record| (record.id, earlier.get(&record.id).copied().unwrap_or(now))).collect();
    }

    /// The moves that have waited for `patience`.
    pub(super) fn given_up(&self, now: Instant, patience: Duration) -> BTreeSet<PartitionId> {
        self.since.iter().filter(|(_, since)| now.since(**since) >= patience).map(|(id, _)| *id).collect()
    }

    pub(super) fn poll_timeout(&self, now: Instant, patience: Duration) -> Option<Instant> {
        self.since.values().map(|since| *since + patience).filter(|at| *at > now).min()
    }
}
