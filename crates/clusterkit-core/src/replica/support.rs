//! Support between nodes: what makes a read by lease safe (rules L1 to L3).
//!
//! A node that serves linearizable reads asks those that follow it for support. Who supports another one promises
//! that, if it is elected leader of whatever partition later, it keeps still until the promise has run out. So as
//! long as every member of the maximal in-sync set supports a leader, nobody else can have committed anything.

use alloc::collections::BTreeMap;
use core::time::Duration;

use super::config::{Config, SUPPORT_MAX};
use super::mistake::Mistake;
use crate::id::{Incarnation, NodeId, TopologyVersion};
use crate::time::Instant;
use crate::topology::{Origin, Partition, Topology};

/// The promises that one node gave and was given.
///
/// Invariants:
/// - a process that starts counts as having promised everybody, since it forgot what it promised;
/// - a promise of another's counts from when it was asked for, shorter by the margin of clock rates, and once the
///   topology that it was given under is applied.
#[derive(Debug)]
pub(super) struct Support {
    given: BTreeMap<NodeId, Promise>,
    /// What an earlier run of this process may have promised to anybody.
    given_before: Instant,
    held: BTreeMap<NodeId, Instant>,
    /// Promises under a topology that is still to come, the newest of each node.
    ahead: BTreeMap<NodeId, (TopologyVersion, Instant)>,
}

#[derive(Debug, Clone, Copy)]
struct Promise {
    until: Instant,
    incarnation: Incarnation,
}

impl Support {
    pub(super) fn new(config: &Config, started_at: Instant) -> Self {
        let forgets = config.mistakes.has(Mistake::PromisesForgottenAtStart);
        let given_before = if forgets { started_at } else { started_at + SUPPORT_MAX };
        Self { given: BTreeMap::new(), given_before, held: BTreeMap::new(), ahead: BTreeMap::new() }
    }

    /// Promises support to a run of `node`, unless a later one has asked.
    pub(super) fn promise(
        &mut self,
        config: &Config,
        now: Instant,
        node: &NodeId,
        incarnation: Incarnation,
    ) -> bool {
        let until = now + config.support;
        let fresh = Promise { until, incarnation };
        let promise = self.given.entry(node.clone()).or_insert(fresh);
        if incarnation < promise.incarnation {
            return false;
        }
        *promise = Promise { until: until.max(promise.until), incarnation };
        true
    }

    /// `giver` promised support until `until`, by this node's count, under `version`; `applied` is what it has.
    pub(super) fn handle_promise(
        &mut self,
        config: &Config,
        giver: &NodeId,
        until: Instant,
        (version, applied): (TopologyVersion, TopologyVersion),
    ) {
        if version <= applied || config.mistakes.has(Mistake::PromiseAheadOfTopology) {
            let held = self.held.entry(giver.clone()).or_insert(until);
            *held = until.max(*held);
        } else {
            let known = self.ahead.entry(giver.clone()).or_insert((version, until));
            *known = (version, until).max(*known);
        }
    }

    /// This node has applied `version` to all of its partitions.
    pub(super) fn handle_applied(&mut self, version: TopologyVersion) {
        let held = &mut self.held;
        self.ahead.retain(|giver, (needed, until)| {
            let is_due = *needed <= version;
            if is_due {
                let known = held.entry(giver.clone()).or_insert(*until);
                *known = (*until).max(*known);
            }
            !is_due
        });
    }

    /// Nodes that the topology names no more, and promises that have run out, are forgotten.
    pub(super) fn forget(&mut self, now: Instant, topology: &Topology) {
        self.given.retain(|node, promise| promise.until > now || topology.node(node).is_some());
        self.held.retain(|_, until| *until > now);
        self.ahead.retain(|_, (_, until)| *until > now);
    }

    /// Whether all of `members` support this node now.
    pub(super) fn is_held<'a>(&self, now: Instant, mut members: impl Iterator<Item = &'a NodeId>) -> bool {
        members.all(|member| self.held.get(member).is_some_and(|until| *until > now))
    }

    /// Until when this node, elected leader of `record`, has to keep still.
    ///
    /// It owes nothing if the leader before handed over, since that one gave its lease up; nothing to a leader
    /// that said itself that it stopped; and nothing to a run that is over. A node that was removed may still run.
    pub(super) fn owed(
        &self,
        config: &Config,
        me: &NodeId,
        record: &Partition,
        topology: &Topology,
    ) -> Instant {
        if matches!(record.origin, Origin::Handover | Origin::First) || config.mistakes.has(Mistake::NoWait) {
            return Instant::ORIGIN;
        }
        let yielded = record.yielded_by.as_ref();
        let owed = |(node, promise): (&NodeId, &Promise)| {
            let is_over = topology.node(node).is_some_and(|known| known.incarnation > promise.incarnation);
            let is_exempt = *node == *me || yielded == Some(node) || is_over;
            (!is_exempt).then_some(promise.until)
        };
        let predecessor_only = config.mistakes.has(Mistake::WaitForPredecessorOnly);
        let last = record.history.iter().rev().nth(1).map(|epoch| &epoch.leader);
        let given = self.given.iter().filter(|(node, _)| !predecessor_only || last == Some(node));
        given.filter_map(owed).fold(self.given_before, Instant::max)
    }
}

/// The asker's clock, as it travels in a message.
pub(super) fn sent_at(elapsed: Duration) -> Instant {
    Instant::at(elapsed)
}
