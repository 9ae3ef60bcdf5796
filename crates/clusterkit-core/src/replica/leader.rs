//! What a leader does: take writes, stream them, commit, answer, propose, leave.

mod farewell;
mod in_sync;
mod progress;
mod read;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

pub(super) use self::farewell::Farewell;
use self::in_sync::Proposal;
use self::progress::Progress;
pub(super) use self::read::{Barrier, Reads};
use super::action::{Ack, Action, Alarm, FetchToken, ProposeError, RequestId, WriteOutcome};
use super::config::{PAYLOAD_BYTES_MAX, WRITES_MAX};
use super::message::Body;
use super::mistake::Mistake;
use super::record::{Entry, LogTime, Record};
use super::stamp::Stamps;
use super::{Context, Replica, Role};
use crate::id::{Incarnation, NodeId, ReplicaUid};
use crate::time::Instant;
use crate::topology::Partition;

/// What a replica knows as long as it leads.
///
/// Invariants:
/// - progress of a follower is of this epoch, of its uid in the record and of the run that attached;
/// - a proposal that was sent stays until a record with a higher version is known, and so does a farewell;
/// - while `wait_until` is ahead, nothing is committed, proposed, read, handed over or answered.
#[derive(Debug)]
pub(super) struct Leader {
    /// Where the log ended when it was elected (LESO).
    epoch_start: u64,
    pub(super) followers: BTreeMap<NodeId, Progress>,
    proposal: Option<Proposal>,
    pub(super) farewell: Farewell,
    /// Until when it keeps still (rule L3).
    pub(super) wait_until: Instant,
    pub(super) barrier: Barrier,
    stamps: Stamps,
    writes: Writes,
    /// Bytes that are written and not committed, record by record.
    uncommitted: VecDeque<usize>,
    uncommitted_bytes: usize,
    stall: Stall,
}

/// The writes that are to be answered, by when they are, each in the order of the log.
#[derive(Debug, Default)]
struct Writes {
    all: VecDeque<Pending>,
    leader: VecDeque<Pending>,
    quorum: VecDeque<Pending>,
}

/// A write that is to be answered.
#[derive(Debug)]
struct Pending {
    request: RequestId,
    offset: u64,
}

impl Writes {
    fn of(&mut self, ack: Ack) -> &mut VecDeque<Pending> {
        match ack {
            Ack::All => &mut self.all,
            Ack::Leader => &mut self.leader,
            Ack::Quorum => &mut self.quorum,
        }
    }

    fn count(&self) -> usize {
        self.all.len() + self.leader.len() + self.quorum.len()
    }

    fn forget(&mut self, request: RequestId) {
        for writes in [&mut self.all, &mut self.leader, &mut self.quorum] {
            writes.retain(|write| write.request != request);
        }
    }

    fn into_requests(self) -> impl Iterator<Item = RequestId> {
        self.all.into_iter().chain(self.leader).chain(self.quorum).map(|write| write.request)
    }
}

/// Since when nothing is committed, and when that is said next.
#[derive(Debug)]
struct Stall {
    commit: u64,
    since: Instant,
    reports: u32,
}

/// A write, as a client wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// What is written.
    pub entry: Entry,
    /// When it is answered.
    pub ack: Ack,
    /// What the wall clock says, in milliseconds since 1970.
    pub wall_ms: u64,
}

impl Leader {
    fn is_quiet(&self, now: Instant) -> bool {
        now < self.wait_until || !self.farewell.is_none()
    }
}

// Beginning and ending.
impl Replica {
    /// Rule F4: this node was elected.
    pub(super) fn lead(&mut self, cx: &Context<'_>) {
        let now = cx.now;
        let (stamps, ahead_ms) = Stamps::new(now, cx.wall_ms, self.log.time_last(), cx.config);
        if let Some(ahead_ms) = ahead_ms {
            self.actions.push_back(Action::Alarm {
                partition: self.key.partition,
                alarm: Alarm::ClockJump { ahead_ms },
            });
        }
        let wait_until = cx.support.owed(cx.config, cx.me, &self.record, cx.topology);
        let others = self.record.replicas.iter().filter(|replica| replica.node != *cx.me);
        let followers = others.map(|replica| (replica.node.clone(), Progress::new(now, replica.uid)));
        self.role = Role::Leader(Box::new(Leader {
            epoch_start: self.log.end(),
            followers: followers.collect(),
            proposal: None,
            farewell: Farewell::None,
            wait_until,
            barrier: Barrier::default(),
            stamps,
            writes: Writes::default(),
            uncommitted: VecDeque::new(),
            uncommitted_bytes: 0,
            stall: Stall { commit: self.commit, since: now, reports: 0 },
        }));
        self.append_own(cx, Entry::NoOp, cx.wall_ms);
    }

    /// A record of a higher version is adopted, and this node still leads in the same epoch.
    pub(super) fn learn_as_leader(&mut self, cx: &Context<'_>) {
        let keeps = cx.config.mistakes.has(Mistake::ProgressKeptAcrossUid);
        let record = self.record.clone();
        let Role::Leader(leader) = &mut self.role else { return };
        leader.proposal = None;
        leader.farewell = leader.farewell.after_version(cx.now + cx.config.drain_pause);
        let uid_of = |node: &NodeId| record.replica(node).map(|replica| replica.uid);
        leader.followers.retain(|node, progress| {
            let uid = uid_of(node);
            uid == Some(progress.uid) || keeps && uid.is_some()
        });
        for replica in record.replicas.iter().filter(|replica| replica.node != *cx.me) {
            let entry = leader.followers.entry(replica.node.clone());
            let progress = entry.or_insert_with(|| Progress::new(cx.now, replica.uid));
            progress.uid = replica.uid;
        }
        self.ask_anew();
    }

    /// Rule F7: this node leads no more.
    pub(super) fn depose(&mut self) {
        let Role::Leader(leader) = core::mem::replace(&mut self.role, Role::Idle) else { return };
        for request in leader.writes.into_requests() {
            self.actions.push_back(Action::Reply { request, outcome: WriteOutcome::Unknown });
        }
        self.fail_linearizable_reads();
    }
}

// Writes.
impl Replica {
    /// Takes a write (rules W2, W3). It is answered by `Action::Reply`.
    pub(super) fn propose(
        &mut self,
        cx: &Context<'_>,
        request: RequestId,
        write: Write,
    ) -> Result<(), ProposeError> {
        self.check_write(cx, &write)?;
        let offset = self.log.end();
        self.append_own(cx, write.entry, write.wall_ms);
        if let Role::Leader(leader) = &mut self.role {
            leader.writes.of(write.ack).push_back(Pending { request, offset });
        }
        self.advance(cx);
        Ok(())
    }

    fn check_write(&self, cx: &Context<'_>, write: &Write) -> Result<(), ProposeError> {
        let Role::Leader(leader) = &self.role else {
            return Err(ProposeError::NotLeader { leader: self.known_leader(cx), epoch: self.record.epoch });
        };
        if let Entry::Write { payload, .. } = &write.entry
            && payload.len() > PAYLOAD_BYTES_MAX
        {
            return Err(ProposeError::TooLarge { bytes: payload.len(), limit: PAYLOAD_BYTES_MAX });
        }
        if write.entry == Entry::OpenSession && write.ack == Ack::Leader {
            return Err(ProposeError::SessionNeedsQuorum);
        }
        if !leader.farewell.is_none() {
            return Err(ProposeError::HandingOver);
        }
        let is_full = leader.writes.count() >= WRITES_MAX
            || leader.uncommitted_bytes >= cx.config.uncommitted_bytes_max;
        if is_full {
            return Err(ProposeError::Overloaded);
        }
        match write.ack {
            Ack::Leader => Ok(()),
            Ack::All if leader.followers.iter().any(|follower| is_away(cx, follower)) => {
                Err(ProposeError::NotAllReplicas)
            }
            Ack::All | Ack::Quorum if self.is_stuck(cx, leader) => Err(ProposeError::NotEnoughReplicas),
            Ack::All | Ack::Quorum => Ok(()),
        }
    }

    /// Whether a member makes no progress and cannot be left out: what is written now would not be committed.
    fn is_stuck(&self, cx: &Context<'_>, leader: &Leader) -> bool {
        let minimum = self.record.min_in_sync as usize;
        let lags = |member: &NodeId| leader.followers.get(member).is_some_and(|follower| follower.lags(cx));
        let healthy = self.record.in_sync.iter().filter(|member| !lags(member)).count();
        healthy < minimum
    }

    pub(super) fn append_own(&mut self, cx: &Context<'_>, entry: Entry, wall_ms: u64) {
        let epoch = self.record.epoch;
        let last = self.log.time_last();
        let was_idle = self.commit == self.log.end();
        let Role::Leader(leader) = &mut self.role else { return };
        if was_idle {
            leader.stall.since = cx.now;
        }
        let backwards = cx.config.mistakes.has(Mistake::StampBackwards);
        let time = if backwards { LogTime(wall_ms) } else { leader.stamps.stamp(cx.now, wall_ms, last) };
        let record = Record { epoch, time, entry };
        leader.uncommitted_bytes += record.bytes();
        leader.uncommitted.push_back(record.bytes());
        self.log.push(record);
    }
}

// Streaming.
impl Replica {
    /// Rule T2: a follower asks to be compared.
    pub(super) fn handle_attach(
        &mut self,
        cx: &Context<'_>,
        from: &Peer<'_>,
        (log_end, last_epoch): (u64, crate::id::Epoch),
    ) {
        let (log_start, own_end) = (self.log.start(), self.log.end());
        let (epoch, epoch_end) = self.log.epochs().end_of(last_epoch, own_end);
        let end = epoch_end.min(log_end);
        let matches = epoch == last_epoch && end == log_end
            || cx.config.mistakes.has(Mistake::AttachUnchecked) && log_end <= own_end;
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.followers.get_mut(from.node) else { return };
        if progress.is_of_later_run(from.incarnation) {
            return;
        }
        if !matches {
            let body = Body::Diverge { epoch, end, log_end, last_epoch };
            return self.send(from, body);
        }
        if progress.is_late(from.incarnation, log_end) {
            return;
        }
        progress.attach(cx, from.incarnation, (log_end, log_start));
        progress.must_hear();
    }

    /// Rule W6, first half.
    pub(super) fn handle_ack(&mut self, cx: &Context<'_>, from: &Peer<'_>, (durable, commit): (u64, u64)) {
        let end = self.log.end();
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.followers.get_mut(from.node) else { return };
        progress.handle_ack(cx, from.incarnation, (durable.min(end), commit));
    }

    /// The snapshot for `to` has arrived, or failed: it may ask again.
    pub(super) fn handle_snapshot_ended(&mut self, to: &NodeId) {
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(progress) = leader.followers.get_mut(to) {
            progress.end_snapshot();
        }
    }

    /// Records for a follower that lags came back from the disk.
    pub(super) fn handle_fetched_for(
        &mut self,
        cx: &Context<'_>,
        (follower, incarnation): (&NodeId, Incarnation),
        first: u64,
        records: Vec<Record>,
    ) {
        let previous_epoch = self.log.epochs().before(first);
        let commit = self.commit;
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.followers.get_mut(follower) else { return };
        let uid = progress.uid;
        if !progress.end_fetch(first, incarnation) {
            return;
        }
        if records.is_empty() {
            return self.replace_log(cx, follower);
        }
        progress.note_sent(cx.now, first, &records, commit);
        let peer = Peer { node: follower, uid, incarnation };
        self.send(&peer, Body::Append { start: first, previous_epoch, records, commit });
    }

    /// Rule T4: what a follower needs next is in the log no more. It gets a snapshot, and a message without
    /// records, by which it says how far it is: what it acknowledged may have been lost.
    fn replace_log(&mut self, cx: &Context<'_>, follower: &NodeId) {
        let commit = self.commit;
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.followers.get_mut(follower) else { return };
        progress.await_snapshot(cx.now);
        let start = progress.matched();
        let peer = Peer { node: follower, uid: progress.uid, incarnation: progress.incarnation };
        let previous_epoch = self.log.epochs().before(start);
        self.send(&peer, Body::Append { start, previous_epoch, records: Vec::new(), commit });
        let (replica, to) = (self.key, follower.clone());
        self.actions.push_back(Action::SendSnapshot { replica, to });
    }

    /// Sends every attached follower what it lacks, as far as its window allows (rule W4).
    fn stream(&mut self, cx: &Context<'_>) {
        let (end, commit) = (self.log.end(), self.commit);
        let Role::Leader(leader) = &mut self.role else { return };
        let lacks = |(node, progress): (&NodeId, &mut Progress)| {
            progress.resend_if_due(cx);
            progress.next_start(cx, end, commit).map(|_| node.clone())
        };
        // Most often nobody lacks anything, and nothing is collected.
        let followers: Vec<NodeId> = leader.followers.iter_mut().filter_map(lacks).collect();
        for follower in followers {
            while self.stream_to(cx, &follower) {}
        }
    }

    /// Whether something was sent, so that there may be more.
    fn stream_to(&mut self, cx: &Context<'_>, follower: &NodeId) -> bool {
        let (end, commit) = (self.log.end(), self.commit);
        let Role::Leader(leader) = &mut self.role else { return false };
        let Some(progress) = leader.followers.get_mut(follower) else { return false };
        let Some(start) = progress.next_start(cx, end, commit) else { return false };
        let (uid, incarnation) = (progress.uid, progress.incarnation);
        let Some(records) = self.log.records(start..end, cx.config.batch_bytes) else {
            if start < self.log.start() {
                self.replace_log(cx, follower);
                return false;
            }
            progress.begin_fetch();
            let epoch = self.record.epoch;
            let token = FetchToken::Stream { follower: follower.clone(), incarnation, epoch };
            let (replica, bytes_max) = (self.key, cx.config.batch_bytes);
            let range = start..end.min(self.log.remembered());
            self.actions.push_back(Action::Fetch { replica, token, range, bytes_max });
            return false;
        };
        progress.note_sent(cx.now, start, &records, commit);
        let previous_epoch = self.log.epochs().before(start);
        let peer = Peer { node: follower, uid, incarnation };
        self.send(&peer, Body::Append { start, previous_epoch, records, commit });
        true
    }

    /// Says `body` to a follower.
    pub(super) fn send(&mut self, to: &Peer<'_>, body: Body) {
        let message = self.message(to.uid, to.incarnation, body);
        self.actions.push_back(Action::Send { to: to.node.clone(), message });
    }
}

// Committing and answering.
impl Replica {
    /// Everything that a leader may have to do after anything happened.
    pub(super) fn advance_leader(&mut self, cx: &Context<'_>) {
        self.move_commit(cx);
        self.change_in_sync(cx);
        self.take_leave(cx);
        self.stream(cx);
        self.answer(cx);
        self.report_stall(cx);
    }

    /// The in-sync set and the proposed one: whoever may be in the next one.
    pub(super) fn maximal(&self) -> impl Iterator<Item = &NodeId> {
        let proposal = match &self.role {
            Role::Leader(leader) => leader.proposal.as_ref(),
            Role::Follower(_) | Role::Idle => None,
        };
        let in_sync = &self.record.in_sync;
        let proposed = proposal.into_iter().flat_map(Proposal::in_sync);
        in_sync.iter().chain(proposed.filter(|member| !in_sync.contains(*member)))
    }

    /// The others of the maximal set. Who makes the mistake `forgetting` takes the in-sync set for it.
    pub(super) fn others(&self, cx: &Context<'_>, forgetting: Mistake) -> impl Iterator<Item = &NodeId> {
        let in_sync_only = cx.config.mistakes.has(forgetting);
        let counts = move |member: &&NodeId| !in_sync_only || self.record.in_sync.contains(*member);
        self.maximal().filter(|member| *member != cx.me).filter(counts)
    }

    /// Rule W6, second half.
    fn move_commit(&mut self, cx: &Context<'_>) {
        let mistakes = cx.config.mistakes;
        let Role::Leader(leader) = &self.role else { return };
        let waits = cx.now < leader.wait_until && !mistakes.has(Mistake::CommitWhileWaiting);
        if waits || leader.farewell.is_silent() {
            return;
        }
        let is_enough = self.record.in_sync.len() >= self.record.min_in_sync as usize;
        if !is_enough && !mistakes.has(Mistake::CommitBelowMinimum) {
            return;
        }
        let reached = self.reached(cx, leader);
        if reached > self.commit {
            self.commit = reached;
            self.note_commit(cx);
        }
    }

    /// How far everybody has it who must.
    fn reached(&self, cx: &Context<'_>, leader: &Leader) -> u64 {
        let mistakes = cx.config.mistakes;
        let unsynced = mistakes.has(Mistake::CommitOwnUnsynced);
        let own = if unsynced { self.log.end() } else { self.log.durable() };
        let matched = |member: &NodeId| leader.followers.get(member).map_or(0, Progress::matched);
        let others = self.others(cx, Mistake::CommitByInSync).map(matched);
        if mistakes.has(Mistake::CommitByMajority) || mistakes.has(Mistake::CommitBelowMinimum) {
            let mut ends: Vec<u64> = others.chain([own]).collect();
            ends.sort_unstable();
            let below = if mistakes.has(Mistake::CommitByMajority) {
                ends.len().div_ceil(2) - 1
            } else {
                ends.len() - 1
            };
            return ends[below];
        }
        others.fold(own, u64::min)
    }

    fn note_commit(&mut self, cx: &Context<'_>) {
        let commit = self.commit;
        let Role::Leader(leader) = &mut self.role else { return };
        let first_uncommitted = self.log.end() - leader.uncommitted.len() as u64;
        for _ in first_uncommitted..commit {
            leader.uncommitted_bytes -= leader.uncommitted.pop_front().unwrap_or(0);
        }
        leader.stall = Stall { commit, since: cx.now, reports: 0 };
    }

    /// Whether the leader has committed something of its own epoch.
    pub(super) fn is_active(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if self.commit > leader.epoch_start)
    }

    /// Rule W7.
    fn answer(&mut self, cx: &Context<'_>) {
        let (durable, applied, epoch) = (self.log.durable(), self.applied, self.record.epoch);
        let early = cx.config.mistakes.has(Mistake::ReplyBeforeCommit);
        let Role::Leader(leader) = &mut self.role else { return };
        if cx.now < leader.wait_until || leader.farewell.is_silent() {
            return;
        }
        let all = leader.followers.values().map(Progress::matched).fold(applied, u64::min);
        let quorum = if early { applied.max(durable) } else { applied };
        for (ack, end) in [(Ack::All, all), (Ack::Leader, durable), (Ack::Quorum, quorum)] {
            while let Some(write) = leader.writes.of(ack).pop_front_if(|write| write.offset < end) {
                let outcome = WriteOutcome::Done { epoch, offset: write.offset };
                self.actions.push_back(Action::Reply { request: write.request, outcome });
            }
        }
    }

    /// Nobody waits for the answer any more.
    pub(super) fn forget_write(&mut self, request: RequestId) {
        if let Role::Leader(leader) = &mut self.role {
            leader.writes.forget(request);
        }
    }

    /// Up to where followers need records that memory should have.
    pub(super) fn needed_by_followers(&self, cx: &Context<'_>) -> u64 {
        let end = self.log.end();
        let Role::Leader(leader) = &self.role else { return end };
        let is_here =
            |(node, progress): &(&NodeId, &Progress)| progress.is_attached() && cx.topology.is_live(node);
        let here = leader.followers.iter().filter(is_here);
        here.map(|(_, progress)| progress.matched()).fold(end, u64::min)
    }

    /// The next time at which a leader has something to do.
    pub(super) fn poll_leader(&self, cx: &Context<'_>) -> Option<Instant> {
        let Role::Leader(leader) = &self.role else { return None };
        let progress = leader.followers.values().flat_map(|progress| progress.timeouts(cx));
        let own = [
            Some(leader.wait_until),
            leader.proposal.as_ref().map(Proposal::resend_at),
            leader.farewell.timeout(cx),
            leader.barrier.timeout(cx),
            self.stall_timeout(cx, leader),
        ];
        progress.chain(own.into_iter().flatten()).filter(|time| *time > cx.now).min()
    }
}

/// Whether a follower is not to be counted on: it has not attached, makes no progress, or is declared dead.
fn is_away(cx: &Context<'_>, (node, progress): (&NodeId, &Progress)) -> bool {
    !progress.is_attached() || progress.lags(cx) || !cx.topology.is_live(node)
}

/// A follower, as messages name it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer<'a> {
    pub(super) node: &'a NodeId,
    pub(super) uid: ReplicaUid,
    pub(super) incarnation: Incarnation,
}

impl Replica {
    /// Who leads, as far as this node knows; never itself, since it is asked where it does not.
    pub(super) fn known_leader(&self, cx: &Context<'_>) -> Option<NodeId> {
        let record: &Partition = &self.record;
        record.leader.clone().filter(|leader| leader != cx.me)
    }
}
