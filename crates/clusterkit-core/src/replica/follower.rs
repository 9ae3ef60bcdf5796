//! What a follower does: attach, take records, acknowledge, cut, install snapshots.

use super::action::{Action, Alarm, LogChange};
use super::leader::Peer;
use super::message::{Body, SnapshotHeader};
use super::mistake::Mistake;
use super::record::Record;
use super::{Context, Replica, Role};
use crate::id::{Epoch, NodeId};
use crate::time::Instant;
use core::time::Duration;

/// What a replica knows as long as it follows.
///
/// Invariants:
/// - nothing is acknowledged in an epoch before the leader has compared the logs;
/// - what an `Attach` names is durable.
#[derive(Debug)]
pub(super) struct Follower {
    leader: NodeId,
    phase: Phase,
    /// What was acknowledged last.
    acked: u64,
}

/// How far a follower is with its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It asks to be compared, again at this time.
    Attaching { again_at: Instant, pause: Duration },
    /// It waits until everything that it has is on its disk.
    Flushing,
    /// A snapshot is being installed.
    Installing,
    /// It takes records.
    Streaming,
}

/// Records from the leader.
pub(super) struct Batch {
    pub(super) start: u64,
    pub(super) previous_epoch: Epoch,
    pub(super) records: alloc::vec::Vec<Record>,
    pub(super) commit: u64,
}

/// Where a leader's log parts from that of a follower.
pub(super) struct Divergence {
    pub(super) epoch: Epoch,
    pub(super) end: u64,
    /// The log's end and last epoch that the follower named.
    pub(super) echo: (u64, Epoch),
}

impl Replica {
    /// Rule T1: another epoch began under another leader.
    pub(super) fn follow(&mut self, cx: &Context<'_>, leader: NodeId) {
        if cx.config.mistakes.has(Mistake::TruncateToCommit) {
            self.cut(self.commit);
        }
        self.role = Role::Follower(Follower { leader, phase: Phase::Flushing, acked: 0 });
    }

    pub(super) fn advance_follower(&mut self, cx: &Context<'_>) {
        let early = cx.config.mistakes.has(Mistake::AttachBeforeDurable);
        let is_flushed = self.log.is_flushed() || early;
        let Role::Follower(follower) = &self.role else { return };
        match follower.phase {
            Phase::Attaching { again_at, pause } if again_at <= cx.now => {
                self.attach(cx, (pause * 2).min(cx.config.attach_pause_max));
            }
            Phase::Flushing if is_flushed => self.attach(cx, cx.config.resend),
            Phase::Streaming if follower.acked < self.log.durable() => self.acknowledge(cx),
            Phase::Attaching { .. } | Phase::Flushing | Phase::Installing | Phase::Streaming => {}
        }
    }

    fn attach(&mut self, cx: &Context<'_>, pause: Duration) {
        self.set_phase(Phase::Attaching { again_at: cx.now + pause, pause });
        let (log_end, last_epoch) = (self.log.end(), self.log.last_epoch());
        self.send_to_leader(cx, Body::Attach { log_end, last_epoch });
    }

    fn acknowledge(&mut self, cx: &Context<'_>) {
        let early = cx.config.mistakes.has(Mistake::AckBeforeDurable);
        let durable = if early { self.log.end() } else { self.log.durable() };
        if let Role::Follower(follower) = &mut self.role {
            follower.acked = durable;
        }
        self.send_to_leader(cx, Body::Ack { durable, commit: self.commit });
    }

    fn set_phase(&mut self, phase: Phase) {
        if let Role::Follower(follower) = &mut self.role {
            follower.phase = phase;
        }
    }

    fn phase(&self) -> Option<Phase> {
        match &self.role {
            Role::Follower(follower) => Some(follower.phase),
            Role::Idle | Role::Leader(_) => None,
        }
    }

    fn send_to_leader(&mut self, cx: &Context<'_>, body: Body) {
        let Role::Follower(follower) = &self.role else { return };
        let message = self.message(self.key.uid, cx.incarnation, body);
        self.actions.push_back(Action::Send { to: follower.leader.clone(), message });
    }

    /// Rule W5: takes records that continue the log.
    pub(super) fn handle_append(&mut self, cx: &Context<'_>, batch: Batch) {
        let Some(phase) = self.phase() else { return };
        let streams = phase == Phase::Streaming;
        if !streams && !matches!(phase, Phase::Attaching { .. }) {
            return;
        }
        let anywhere = cx.config.mistakes.has(Mistake::AppendAnywhere);
        let continues = batch.start == self.log.end() && batch.previous_epoch == self.log.last_epoch();
        if !(continues || anywhere && batch.start > self.log.end()) {
            // One that was taken already is acknowledged again: the answer may have been lost.
            if streams && batch.start < self.log.end() {
                self.acknowledge(cx);
            }
            return;
        }
        self.set_phase(Phase::Streaming);
        let is_empty = batch.records.is_empty();
        for record in batch.records {
            self.log.push(record);
        }
        self.commit = self.commit.max(batch.commit.min(self.log.end()));
        if is_empty || cx.config.mistakes.has(Mistake::AckBeforeDurable) {
            self.acknowledge(cx);
        }
    }

    /// Rule T3: cuts off what the leader does not have, and asks again.
    pub(super) fn handle_diverge(&mut self, cx: &Context<'_>, divergence: &Divergence) {
        let unchecked = cx.config.mistakes.has(Mistake::DivergeUnchecked);
        let is_asked = matches!(self.phase(), Some(Phase::Attaching { .. }));
        let is_echo = divergence.echo == (self.log.end(), self.log.last_epoch());
        let is_late = !is_asked || !is_echo;
        if self.phase().is_none() || is_late && !unchecked {
            return;
        }
        let (_, own) = self.log.epochs().end_of(divergence.epoch, self.log.end());
        let end = own.min(divergence.end);
        if end < self.commit && !unchecked {
            return self.become_damaged();
        }
        if end < self.log.end() {
            self.cut(end);
            self.set_phase(Phase::Flushing);
        }
    }

    fn cut(&mut self, end: u64) {
        self.flush_log();
        if let Some(op) = self.log.truncate(end) {
            let change = LogChange::Truncate { end };
            self.actions.push_back(Action::Log { replica: self.key, op, change });
        }
    }

    /// Rule T4: a whole state has arrived. Whether it is installed; if not, it is of no use.
    pub(super) fn handle_snapshot(&mut self, cx: &Context<'_>, header: &SnapshotHeader) -> bool {
        let backwards = cx.config.mistakes.has(Mistake::SnapshotBackwards);
        let is_for_this = header.uid == self.key.uid && header.incarnation == cx.incarnation;
        let is_ahead = header.end > self.log.end() || backwards;
        let is_free = self.phase().is_some() && self.installing.is_none();
        if header.epoch != self.record.epoch || !is_for_this || !is_ahead || !is_free {
            return false;
        }
        let op = self.log.reset(header.end, header.epochs.clone(), header.time_last);
        // The state is the old one until the new one is there: nothing is served or applied meanwhile.
        self.commit = header.end;
        (self.applying, self.is_fetching, self.installing) = (None, false, Some(op));
        self.set_phase(Phase::Installing);
        let change = LogChange::Install(header.clone());
        self.actions.push_back(Action::Log { replica: self.key, op, change });
        self.advance(cx);
        true
    }

    /// The snapshot is in its place.
    pub(super) fn note_installed(&mut self) {
        if self.phase() == Some(Phase::Installing) {
            self.set_phase(Phase::Flushing);
        }
    }

    /// The leader asks whether this replica still follows it (rule L5).
    pub(super) fn handle_barrier(&mut self, from: &Peer<'_>, round: u64) {
        let message = self.message(from.uid, from.incarnation, Body::BarrierAck { round });
        self.actions.push_back(Action::Send { to: from.node.clone(), message });
    }

    /// Rule D2: something that must be here is not.
    pub(super) fn become_damaged(&mut self) {
        self.depose();
        self.role = Role::Idle;
        self.damaged = true;
        self.fail_all_reads();
        self.announce_damage();
    }

    pub(super) fn announce_damage(&mut self) {
        let partition = self.key.partition;
        self.actions.push_back(Action::Alarm { partition, alarm: Alarm::Damaged });
    }

    pub(super) fn poll_follower(&self) -> Option<Instant> {
        match self.phase() {
            Some(Phase::Attaching { again_at, .. }) => Some(again_at),
            _ => None,
        }
    }
}
