//! What nodes say of their replicas, kept as long as the record waits for it.

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use super::reconcile::{Declined, Facts};
use crate::handoff::{Fact, Report, Stage};
use crate::id::{NodeId, PartitionId};
use crate::time::Instant;
use crate::topology::{Overrun, Partition, Topology};

/// How long a node that declined a stage is not asked again, at first; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_secs(2);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The newest report of each kind of each replica.
///
/// Invariants:
/// - a report is kept only while the record still waits for it, in the run, epoch and placement that
///   it is of;
/// - at most one report of a kind is kept for each replica, so that all are bounded by the topology.
#[derive(Debug, Default)]
pub(super) struct Reports {
    heard: BTreeMap<(PartitionId, NodeId, Kind), Report>,
    pauses: BTreeMap<(PartitionId, NodeId, Stage), Pause>,
}

/// Reports of one kind supersede each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Activated,
    CaughtUp,
    Declined,
    Punctuality,
    Sealed,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Instant,
    length: Duration,
}

impl Reports {
    /// Takes a report; whether it says something new.
    pub(super) fn hear(&mut self, now: Instant, topology: &Topology, report: Report) -> bool {
        if !topology.awaits(&report) {
            return false;
        }
        let key = (report.partition, report.node.clone(), kind(&report.fact));
        if self.heard.get(&key) == Some(&report) {
            return false;
        }
        if let Fact::Declined { stage, .. } = report.fact {
            self.pause(now, (report.partition, report.node.clone(), stage));
        }
        self.heard.insert(key, report);
        true
    }

    /// The leader cannot get on, whatever its hooks said: it is passed over as if it had refused to
    /// activate.
    pub(super) fn stalled(&mut self, now: Instant, partition: PartitionId, leader: NodeId) {
        self.pause(now, (partition, leader, Stage::Activate));
    }

    /// Drops what the topology does not wait for any more.
    pub(super) fn retain(&mut self, topology: &Topology) {
        let copies_wanted = topology.replication_factor_effective();
        self.heard.retain(|_, report| topology.awaits_where(report, copies_wanted));
    }

    /// Each refusal doubles the pause; one that stayed away for as long as its pause begins anew.
    fn pause(&mut self, now: Instant, key: (PartitionId, NodeId, Stage)) {
        let earlier = self.pauses.get(&key).filter(|pause| pause.until + pause.length > now);
        let length = earlier.map_or(PAUSE_MIN, |pause| (pause.length * 2).min(PAUSE_MAX));
        self.pauses.insert(key, Pause { until: now + length, length });
    }

    /// When the next pause is over.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.pauses.values().map(|pause| pause.until).filter(|until| *until > now).min()
    }

    /// Forgets pauses that are long over; whether one has ended since `earlier`.
    pub(super) fn handle_timeout(&mut self, earlier: Instant, now: Instant) -> bool {
        let ended = self.pauses.values().any(|pause| pause.until > earlier && pause.until <= now);
        self.pauses.retain(|_, pause| pause.until + pause.length > now);
        ended
    }

    /// What follows from all of them.
    pub(super) fn fill(&self, now: Instant, facts: &mut Facts) {
        for report in self.heard.values() {
            take(report, facts);
        }
        let paused = self.pauses.iter().filter(|(_, pause)| pause.until > now);
        for ((partition, node, stage), _) in paused {
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
    }
}

fn kind(fact: &Fact) -> Kind {
    match fact {
        Fact::Activated { .. } => Kind::Activated,
        Fact::CaughtUp { .. } => Kind::CaughtUp,
        Fact::Declined { .. } => Kind::Declined,
        Fact::OnTime | Fact::Overran { .. } => Kind::Punctuality,
        Fact::Sealed { .. } => Kind::Sealed,
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
