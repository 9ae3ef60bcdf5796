//! Reads: by lease, by barrier, or of what a replica has (rules L4 to L6).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::super::action::{Action, Consistency, ReadError, ReadId, ReadOutcome, ReadStamp};
use super::super::config::READS_MAX;
use super::super::message::Body;
use super::super::mistake::Mistake;
use super::super::record::Entry;
use super::super::{Context, Replica, Role};
use super::Peer;
use crate::id::NodeId;
use crate::time::Instant;

/// A question to all members whether they still follow.
#[derive(Debug, Default)]
pub(crate) struct Barrier {
    round: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    index: u64,
    missing: BTreeSet<NodeId>,
    members: usize,
    opened_at: Instant,
    sent_at: Instant,
}

impl Barrier {
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    pub(super) fn timeout(&self, cx: &Context<'_>) -> Option<Instant> {
        self.open.as_ref().map(|open| open.sent_at + cx.config.resend)
    }
}

/// The reads that wait on one replica.
#[derive(Debug, Default)]
pub(crate) struct Reads(BTreeMap<ReadId, Read>);

#[derive(Debug)]
struct Read {
    consistency: Consistency,
    deadline: Instant,
    stage: Stage,
}

/// How far a read is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing is known yet.
    Waiting,
    /// The barrier of this round answers for it.
    Asked(u64),
    /// It needs this much applied. By a lease, that has to hold afterwards as well.
    Ready { index: u64, leased: bool },
    /// The state machine evaluates it, with at least the records below `applied`.
    Serving { leased: bool, applied: u64 },
}

impl Reads {
    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.0.values().map(|read| read.deadline).min()
    }

    fn set_all(&mut self, from: impl Fn(Stage) -> bool, to: Stage) {
        let linearizable = |read: &&mut Read| read.consistency == Consistency::Linearizable;
        self.0
            .values_mut()
            .filter(linearizable)
            .filter(|read| from(read.stage))
            .for_each(|read| read.stage = to);
    }

    fn waits(&self) -> bool {
        let waits =
            |read: &Read| read.consistency == Consistency::Linearizable && read.stage == Stage::Waiting;
        self.0.values().any(waits)
    }
}

// Beginning and ending.
impl Replica {
    /// Begins a read. `Action::Serve` says when it can be evaluated, `Action::FailRead` that it cannot.
    pub(in super::super) fn read(
        &mut self,
        cx: &Context<'_>,
        id: ReadId,
        consistency: Consistency,
        deadline: Instant,
    ) -> Result<(), ReadError> {
        if self.is_damaged() {
            return Err(ReadError::NoReplica);
        }
        if consistency == Consistency::Linearizable && !matches!(self.role, Role::Leader(_)) {
            return Err(ReadError::NotLeader { leader: self.known_leader(cx), epoch: self.record.epoch });
        }
        if self.reads.0.len() >= READS_MAX {
            return Err(ReadError::Overloaded);
        }
        let stage = match consistency {
            Consistency::Linearizable => Stage::Waiting,
            Consistency::Session { min_end } => Stage::Ready { index: min_end, leased: false },
        };
        self.reads.0.insert(id, Read { consistency, deadline, stage });
        self.advance(cx);
        Ok(())
    }

    /// The read was evaluated: may it be answered?
    pub(in super::super) fn finish_read(&mut self, cx: &Context<'_>, id: ReadId) -> ReadOutcome {
        let Some(read) = self.reads.0.get(&id) else { return ReadOutcome::Gone };
        let (leased, applied) = match read.stage {
            Stage::Serving { leased, applied } => (leased, applied),
            Stage::Asked(_) | Stage::Ready { .. } | Stage::Waiting => return ReadOutcome::Again,
        };
        if leased && !self.has_lease(cx) {
            if let Some(read) = self.reads.0.get_mut(&id) {
                read.stage = Stage::Waiting;
            }
            self.advance(cx);
            return ReadOutcome::Again;
        }
        self.reads.0.remove(&id);
        ReadOutcome::Done(ReadStamp { epoch: self.record.epoch, applied })
    }

    pub(in super::super) fn fail_linearizable_reads(&mut self) {
        let error = ReadError::NotLeader { leader: self.record.leader.clone(), epoch: self.record.epoch };
        self.fail_reads(|read| read.consistency == Consistency::Linearizable, &error);
    }

    pub(in super::super) fn fail_all_reads(&mut self) {
        self.fail_reads(|_| true, &ReadError::NoReplica);
    }

    pub(in super::super) fn expire_reads(&mut self, now: Instant) {
        self.fail_reads(|read| read.deadline <= now, &ReadError::Late);
    }

    fn fail_reads(&mut self, which: impl Fn(&Read) -> bool, error: &ReadError) {
        let actions = &mut self.actions;
        self.reads.0.retain(|id, read| {
            let fails = which(read);
            if fails {
                actions.push_back(Action::FailRead { read: *id, error: error.clone() });
            }
            !fails
        });
    }
}

// What becomes of them.
impl Replica {
    /// Whether nobody else can have committed anything by now (rule L2).
    pub(in super::super) fn has_lease(&self, cx: &Context<'_>) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let keeps = cx.config.mistakes.has(Mistake::LeaseKeptInHandoff);
        if cx.now < leader.wait_until || leader.farewell.is_silent() && !keeps {
            return false;
        }
        cx.support.is_held(cx.now, self.others(cx, Mistake::LeaseByInSync))
    }

    /// Whether a promise of support may let a read through.
    pub(in super::super) fn awaits_support(&self) -> bool {
        let waits = |read: &Read| matches!(read.stage, Stage::Waiting | Stage::Asked(_));
        self.reads.0.values().any(waits)
    }

    /// The in-sync set may be another one: whoever was asked may be no member any more, and never answer.
    pub(in super::super) fn ask_anew(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        leader.barrier.close();
        self.reads.set_all(|stage| matches!(stage, Stage::Asked(_)), Stage::Waiting);
    }

    pub(in super::super) fn advance_reads(&mut self, cx: &Context<'_>) {
        if self.reads.0.is_empty() || self.installing.is_some() {
            return;
        }
        self.admit_reads(cx);
        self.resend_barrier(cx);
        self.serve_reads();
    }

    fn admit_reads(&mut self, cx: &Context<'_>) {
        let Role::Leader(leader) = &self.role else { return };
        let is_silent = leader.farewell.is_silent() && !cx.config.mistakes.has(Mistake::LeaseKeptInHandoff);
        if is_silent {
            return self.reads.set_all(|stage| matches!(stage, Stage::Asked(_)), Stage::Waiting);
        }
        if cx.now < leader.wait_until || !self.is_active() {
            return;
        }
        let index = self.commit;
        let waiting = |stage| stage == Stage::Waiting;
        if cx.config.mistakes.has(Mistake::ReadAtOnce) {
            self.reads.set_all(waiting, Stage::Ready { index, leased: false });
        } else if self.has_lease(cx) {
            self.reads.set_all(waiting, Stage::Ready { index, leased: true });
        } else if self.reads.waits() {
            self.open_barrier(cx);
        }
    }

    /// Rule L5. Reads that come while one is open wait for the next.
    fn open_barrier(&mut self, cx: &Context<'_>) {
        if matches!(&self.role, Role::Leader(leader) if leader.barrier.open.is_some()) {
            return;
        }
        let missing: BTreeSet<_> = self.maximal().filter(|member| *member != cx.me).cloned().collect();
        let (index, members) = (self.commit, missing.len() + 1);
        let Role::Leader(leader) = &mut self.role else { return };
        leader.barrier.round += 1;
        let round = leader.barrier.round;
        leader.barrier.open = Some(Open { index, missing, members, opened_at: cx.now, sent_at: cx.now });
        self.reads.set_all(|stage| stage == Stage::Waiting, Stage::Asked(round));
        self.send_barrier(cx);
        self.complete_barrier(cx);
    }

    fn send_barrier(&mut self, cx: &Context<'_>) {
        let Role::Leader(leader) = &mut self.role else { return };
        let round = leader.barrier.round;
        let Some(open) = &mut leader.barrier.open else { return };
        open.sent_at = cx.now;
        let missing: Vec<NodeId> = open.missing.iter().cloned().collect();
        for node in missing {
            let uid = self.record.replica(&node).map(|replica| replica.uid).unwrap_or_default();
            let incarnation = cx.topology.node(&node).map(|known| known.incarnation).unwrap_or_default();
            self.send(&Peer { node: &node, uid, incarnation }, Body::Barrier { round });
        }
    }

    fn resend_barrier(&mut self, cx: &Context<'_>) {
        let Role::Leader(leader) = &self.role else { return };
        if leader.barrier.timeout(cx).is_none_or(|due| due > cx.now) {
            return;
        }
        // Only those that owe an acknowledgement can be seen to lag, and be left out.
        let lags = |open: &Open| cx.now.since(open.opened_at) >= cx.config.lag_max;
        let is_overdue = leader.barrier.open.as_ref().is_some_and(lags);
        if is_overdue && self.commit == self.log.end() {
            self.append_own(cx, Entry::NoOp, cx.wall_ms);
        }
        self.send_barrier(cx);
    }

    pub(in super::super) fn handle_barrier_ack(&mut self, cx: &Context<'_>, from: &NodeId, round: u64) {
        let any_round = cx.config.mistakes.has(Mistake::BarrierWithoutRound);
        let Role::Leader(leader) = &mut self.role else { return };
        let is_own = leader.barrier.round == round || any_round;
        let Some(open) = leader.barrier.open.as_mut().filter(|_| is_own) else { return };
        open.missing.remove(from);
        self.complete_barrier(cx);
    }

    fn complete_barrier(&mut self, cx: &Context<'_>) {
        let to_majority = cx.config.mistakes.has(Mistake::BarrierToMajority);
        let Role::Leader(leader) = &mut self.role else { return };
        let round = leader.barrier.round;
        let is_complete = |open: &mut Open| {
            open.missing.is_empty() || to_majority && open.missing.len() < open.members.div_ceil(2)
        };
        let Some(open) = leader.barrier.open.take_if(is_complete) else { return };
        let ready = Stage::Ready { index: open.index, leased: false };
        self.reads.set_all(|stage| stage == Stage::Asked(round), ready);
    }

    fn serve_reads(&mut self) {
        let applied = self.applied;
        for (id, read) in &mut self.reads.0 {
            if let Stage::Ready { index, leased } = read.stage
                && index <= applied
            {
                read.stage = Stage::Serving { leased, applied };
                self.actions.push_back(Action::Serve { replica: self.key, read: *id });
            }
        }
    }
}
