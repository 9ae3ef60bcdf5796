//! Ownership moves only when user code says so: which hook of which partition is called next.
//!
//! Every node that holds data owns one [`Stages`]. It compares what the topology asks of the node
//! with how far each of its replicas is, and calls the user's hooks one after the other:
//!
//! ```text
//! a replica comes:   prepare -> catch_up            -> "caught up"  => it joins the in-sync set
//! leadership comes:  activate(epoch)                -> the lease opens
//! leadership goes:   the lease closes, permits end -> seal(epoch) -> "sealed" => the target's epoch begins
//! a replica goes:    release
//! ```
//!
//! The arrows to the right are facts for the controller, and what follows `=>` is committed only after
//! the hook said that it is done. What is committed while a hook runs wins: a newer epoch cancels
//! what was begun under an older one, and seals it before anything else.
//!
//! After a crash everything that was not confirmed is called again, with the same arguments. Which
//! replicas there may be something of is written down before `prepare` and struck out after
//! `release`, so that a node which was down while a replica was taken from it still releases it.

mod call;
mod config;
mod notes;
mod places;
mod standing;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

pub use self::call::{
    Action, ActivateCause, Call, Fact, Outcome, Position, Progress, Report, SealCause, Stage, StageStatus,
    Token,
};
pub use self::config::{Config, InvalidConfig};
use self::notes::Notes;
use self::places::{Need, Places};
use self::standing::{Attempt, Cancelled, Duty, Led, Phase, Standing, Step};
use crate::id::{Epoch, Incarnation, NodeId, PartitionId, ReplicaUid};
use crate::time::Instant;
use crate::topology::{Partition, Topology};

/// The stages of all replicas of one node.
///
/// Invariants:
/// - at most one hook of a partition runs at a time;
/// - at most [`Config::copies_max`] copies are caught up at once, or prepared or released outside of the
///   in-sync set, and as many prepared or released in it, those that are late not counted;
/// - a lease opens only after `activate` is done, under an epoch that the topology gave this node;
/// - `prepare` is called only for a replica that is durably noted.
#[derive(Debug)]
pub struct Stages {
    config: Config,
    me: NodeId,
    incarnation: Incarnation,
    topology: Topology,
    replicas: BTreeMap<PartitionId, Standing>,
    notes: Notes,
    /// Whose hook runs, by token.
    running: BTreeMap<Token, PartitionId>,
    /// Who runs, of what is bounded, and who waits until fewer do.
    places: Places,
    /// Partitions with an attempt: the only ones with timers.
    attempting: BTreeSet<PartitionId>,
    /// Partitions that this node is to lead and does not serve yet.
    opening: BTreeSet<PartitionId>,
    stopping: bool,
    token_last: Token,
    actions: VecDeque<Action>,
}

impl Stages {
    /// Begins for node `me` in its run `incarnation`, with what it noted before it stopped.
    ///
    /// # Panics
    ///
    /// When [`Config::check`] would refuse `config`.
    #[must_use]
    pub fn new(
        config: Config,
        me: NodeId,
        incarnation: Incarnation,
        recovered: Vec<(PartitionId, ReplicaUid)>,
    ) -> Self {
        assert_eq!(config.check(), Ok(()), "the configuration was checked before");
        let replicas = recovered.iter().map(|(partition, uid)| (*partition, Standing::new(*uid)));
        Self {
            places: Places::new(config.copies_max),
            config,
            me,
            incarnation,
            topology: Topology::default(),
            replicas: replicas.collect(),
            notes: Notes::new(recovered),
            running: BTreeMap::new(),
            attempting: BTreeSet::new(),
            opening: BTreeSet::new(),
            stopping: false,
            token_last: Token(0),
            actions: VecDeque::new(),
        }
    }

    /// The topology moved on. When this returns, every lease that it ends is ended by the actions
    /// that are out.
    pub fn handle_topology(&mut self, now: Instant, topology: &Topology) {
        let first = self.topology.cluster.is_none();
        let changed: BTreeSet<_> = topology
            .diff(&self.topology)
            .partitions_changed
            .iter()
            .map(|record| record.id)
            .chain(self.replicas.keys().copied().filter(|_| first))
            .collect();
        self.topology = topology.clone();
        // First what ends, so that no lease outlives the version that took it away.
        for partition in &changed {
            self.depose(*partition);
        }
        for partition in changed {
            let open = self.is_open(partition);
            self.advance(now, partition);
            if open && self.is_open(partition) {
                self.actions.push_back(Action::Adopt { partition });
            }
        }
        self.save();
    }

    /// The call with `token` ended.
    pub fn handle_outcome(&mut self, now: Instant, token: Token, outcome: Outcome) {
        let Some(partition) = self.running.remove(&token) else { return };
        self.places.leave(partition);
        let duty = self.duty(partition);
        let standing = self.replicas.get_mut(&partition).expect("what runs has a standing");
        let attempt = standing.attempt.as_mut().expect("what runs has an attempt");
        let cancelled = attempt.run.take().is_some_and(|run| run.cancelled.is_some());
        match outcome {
            Outcome::Done => self.complete(partition, &duty, cancelled),
            Outcome::Deferred(pause) => attempt.defer(now, pause, &self.config),
            Outcome::Refused(reason) if !cancelled => attempt.refuse(now, reason, &self.config),
            Outcome::Refused(_) | Outcome::Aborted => attempt.defer(now, self.config.retry_min, &self.config),
        }
        self.advance(now, partition);
        self.start_waiting(now);
        self.save();
    }

    /// The call with `token` is so far.
    pub fn handle_progress(&mut self, now: Instant, token: Token, progress: Progress) {
        let Some(partition) = self.running.get(&token) else { return };
        if let Some(attempt) = self.replicas.get_mut(partition).and_then(|standing| standing.attempt.as_mut())
        {
            attempt.advance(now, progress, &self.config);
        }
    }

    /// The last permit of a lease that was closed with `token` is gone.
    pub fn handle_drained(&mut self, now: Instant, partition: PartitionId, token: Token) {
        let Some(standing) = self.replicas.get_mut(&partition) else { return };
        if let Some(led) = standing.led.as_mut().filter(|led| led.phase == Phase::Draining(token)) {
            led.phase = Phase::Drained { begun: false };
            self.advance(now, partition);
        }
    }

    /// The list written with `token` is durable.
    pub fn handle_saved(&mut self, now: Instant, token: Token) {
        for (partition, _) in self.notes.end(token) {
            self.advance(now, partition);
        }
        self.save();
    }

    /// This node stops: whatever it leads is sealed, and nothing new is begun.
    pub fn stop(&mut self, now: Instant) {
        self.stopping = true;
        let all: Vec<_> = self.replicas.keys().copied().collect();
        for partition in all {
            self.advance(now, partition);
        }
    }

    /// Whether [`stop`](Self::stop) was called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether every epoch that this node led is sealed.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.replicas.values().all(Standing::is_sealed)
    }

    /// Whether nothing of this node's is waiting to be released.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.replicas.iter().all(|(partition, standing)| self.duty(*partition).uid() == Some(standing.uid))
    }

    /// The time that [`poll_timeout`](Self::poll_timeout) named has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        for partition in self.timed() {
            self.judge(now, partition);
            self.advance(now, partition);
        }
        self.places.handle_timeout(now);
        self.start_waiting(now);
        self.save();
    }

    /// The next thing for the shell to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, `None` for never.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let attempts =
            self.attempting.iter().filter_map(|partition| self.replicas[partition].attempt.as_ref());
        let opening = self.opening.iter().filter_map(|partition| self.replicas[partition].opening);
        let late = opening.map(|opening| opening.late_at());
        attempts
            .filter_map(|attempt| self.wake_at(attempt))
            .chain(late)
            .chain(self.places.poll_timeout())
            .min()
    }

    fn timed(&self) -> BTreeSet<PartitionId> {
        self.attempting.union(&self.opening).copied().collect()
    }

    fn wake_at(&self, attempt: &Attempt) -> Option<Instant> {
        if self.is_held_back(attempt) {
            return None;
        }
        // The last permit wakes what waits for it, and may come late.
        let led = self.replicas[&attempt.call.partition()].led.as_ref();
        let drains = led.is_some_and(|led| matches!(led.phase, Phase::Draining(_)));
        if drains { attempt.late_at() } else { attempt.wake_at() }
    }

    /// What waits for a free place is woken by another's end, what a stop holds back by nothing more;
    /// neither is late meanwhile.
    fn is_held_back(&self, attempt: &Attempt) -> bool {
        let stopped = self.stopping && !attempt.call.stage().is_urgent() && attempt.run.is_none();
        stopped || self.places.waits(attempt.call.partition())
    }

    /// The facts that are true now and that the record [waits for](Topology::awaits), in the order of
    /// the partitions. The shell sends them whenever something changed, and again at every beat.
    pub fn reports(&self) -> impl Iterator<Item = Report> {
        let copies_wanted = self.topology.replication_factor_effective();
        let facts = self.replicas.iter().flat_map(move |(partition, standing)| {
            self.facts(*partition, standing, copies_wanted).into_iter().map(|fact| (*partition, fact))
        });
        // What was late and is released leaves nothing behind that could say so.
        let named = |record: &&Partition| {
            let mine = record.overrun.as_ref().is_some_and(|overrun| overrun.node == self.me);
            mine && !self.replicas.contains_key(&record.id)
        };
        let records = self.topology.partitions.iter().map(AsRef::as_ref).filter(named);
        let facts = facts.chain(records.map(|record| (record.id, Fact::OnTime)));
        let reports = facts.map(|(partition, fact)| self.report(partition, fact));
        reports.filter(move |report| self.topology.awaits_where(report, copies_wanted))
    }

    fn report(&self, partition: PartitionId, fact: Fact) -> Report {
        Report { node: self.me.clone(), incarnation: self.incarnation, partition, fact }
    }

    /// The stages under way, by partition.
    pub fn statuses(&self) -> impl Iterator<Item = StageStatus> {
        let attempts =
            self.attempting.iter().filter_map(|partition| self.replicas[partition].attempt.as_ref());
        attempts.map(|attempt| StageStatus {
            partition: attempt.call.partition(),
            stage: attempt.call.stage(),
            since: attempt.since,
            overdue_since: attempt.overdue_since,
            running: attempt.run.is_some(),
            calls: attempt.calls,
            reason: attempt.reason.clone(),
            progress: attempt.progress,
        })
    }
}

// How one partition goes on.
impl Stages {
    fn duty(&self, partition: PartitionId) -> Duty {
        self.topology
            .partition(partition)
            .map_or(Duty::None, |record| Duty::of(record, &self.me, self.stopping))
    }

    /// Ends the lease of an epoch that is over.
    fn depose(&mut self, partition: PartitionId) {
        let duty = self.duty(partition);
        let Some(standing) = self.replicas.get_mut(&partition) else { return };
        if let Some(epoch) = standing.deposed(&duty) {
            self.actions.push_back(Action::EndLease { partition, epoch });
        }
        standing.settle(&duty);
    }

    /// Whether the lease is open: writes are let in.
    fn is_open(&self, partition: PartitionId) -> bool {
        let led = self.replicas.get(&partition).and_then(|standing| standing.led.as_ref());
        led.is_some_and(|led| led.phase == Phase::Open)
    }

    /// Brings the partition as far as it can go now.
    fn advance(&mut self, now: Instant, partition: PartitionId) {
        let duty = self.duty(partition);
        if let Some(uid) = duty.uid() {
            let notes = &mut self.notes;
            self.replicas.entry(partition).or_insert_with(|| {
                notes.add((partition, uid));
                Standing::new(uid)
            });
        }
        let Some(standing) = self.replicas.get_mut(&partition) else { return };
        // What is in sync, or has no leader, has nothing to show for the next time it is not.
        standing.caught_up = standing.caught_up.filter(|_| matches!(duty, Duty::Learn { .. }));
        standing.watch_opening(now, &duty, &self.config);
        if standing.opening.is_some() {
            self.opening.insert(partition)
        } else {
            self.opening.remove(&partition)
        };
        let step = standing.next(partition, &duty);
        if self.keeps_running(now, partition, &step) {
            return;
        }
        match step {
            Step::Rest => self.forget_attempt(partition),
            Step::Drain => {}
            Step::GiveUp => self.give_up(partition),
            Step::Reopen(epoch) => self.reopen(partition, epoch),
            Step::Close(epoch, call) => self.close(now, partition, epoch, call),
            Step::Call(call) => self.attempt(now, partition, call),
        }
    }

    /// Whether a hook of the partition runs; one that is not wanted any more is told to end.
    fn keeps_running(&mut self, now: Instant, partition: PartitionId, step: &Step) -> bool {
        let abort_at = now + self.config.cancel_grace;
        let attempt = self.replicas.get_mut(&partition).and_then(|standing| standing.attempt.as_mut());
        let Some(attempt) = attempt else { return false };
        let Some(run) = attempt.run.as_mut() else { return false };
        let wanted = matches!(step, Step::Call(call) if call.is_like(&attempt.call))
            && attempt.retry != standing::Retry::Never;
        if !wanted && run.cancelled.is_none() {
            run.cancelled = Some(Cancelled { abort_at, aborted: false });
            self.actions.push_back(Action::Cancel { token: run.token });
        }
        true
    }

    fn forget_attempt(&mut self, partition: PartitionId) {
        self.attempting.remove(&partition);
        self.places.wait_no_more(partition);
        if let Some(standing) = self.replicas.get_mut(&partition) {
            standing.attempt = None;
        }
    }

    /// What it said of its leadership stays to be seen.
    fn give_up(&mut self, partition: PartitionId) {
        let attempt = self.replicas.get(&partition).and_then(|standing| standing.attempt.as_ref());
        if attempt.is_some_and(|attempt| attempt.call.stage() != Stage::Activate) {
            self.forget_attempt(partition);
        }
    }

    fn reopen(&mut self, partition: PartitionId, epoch: Epoch) {
        self.forget_attempt(partition);
        self.lead(partition, epoch, Phase::Open);
        self.actions.push_back(Action::OpenLease { partition, epoch });
    }

    fn close(&mut self, now: Instant, partition: PartitionId, epoch: Epoch, call: Call) {
        let token = self.next_token();
        self.lead(partition, epoch, Phase::Draining(token));
        self.begin_attempt(now, partition, call);
        self.actions.push_back(Action::CloseLease { token, partition, epoch });
    }

    fn lead(&mut self, partition: PartitionId, epoch: Epoch, phase: Phase) {
        let standing = self.replicas.get_mut(&partition).expect("only a standing leads");
        standing.led = Some(Led { epoch, phase });
    }

    fn begin_attempt(&mut self, now: Instant, partition: PartitionId, call: Call) {
        let standing = self.replicas.get_mut(&partition).expect("only a standing attempts");
        let same = standing.attempt.as_ref().is_some_and(|attempt| attempt.call.is_like(&call));
        if !same {
            standing.attempt = Some(Attempt::new(now, call, &self.config));
            self.attempting.insert(partition);
            self.places.wait_no_more(partition);
        }
    }

    fn attempt(&mut self, now: Instant, partition: PartitionId, call: Call) {
        if let Call::Prepare { uid, .. } = call
            && !self.notes.is_durable((partition, uid))
        {
            return;
        }
        let stage = call.stage();
        self.begin_attempt(now, partition, call);
        let standing = &self.replicas[&partition];
        let due = standing.attempt.as_ref().is_some_and(|attempt| attempt.is_due(now));
        if !due || (self.stopping && !stage.is_urgent()) {
            return;
        }
        match self.need(partition, stage).filter(|need| !self.places.has_room(*need)) {
            Some(need) => self.places.wait(partition, need),
            None => self.run(now, partition),
        }
    }

    fn run(&mut self, now: Instant, partition: PartitionId) {
        let token = self.next_token();
        let standing = self.replicas.get_mut(&partition).expect("only a standing attempts");
        let attempt = standing.attempt.as_mut().expect("it was just made");
        attempt.start(now, token, &self.config);
        let call = attempt.call.clone();
        standing.begin(&call);
        self.running.insert(token, partition);
        self.places.wait_no_more(partition);
        if let Some(need) = self.need(partition, call.stage()) {
            self.places.take(partition, need, now + self.config.deadline_of(call.stage()));
        }
        self.actions.push_back(Action::Run { token, call });
    }

    /// Who waits for the stage, if it waits for a free place.
    fn need(&self, partition: PartitionId, stage: Stage) -> Option<Need> {
        let record = self.topology.partition(partition);
        let leads = || record.is_some_and(|record| record.leader.as_ref() == Some(&self.me));
        let in_sync = || record.is_some_and(|record| record.in_sync.contains(&self.me));
        match stage {
            Stage::Seal | Stage::Activate => None,
            Stage::CatchUp => Some(Need::Copy),
            Stage::Prepare | Stage::Release if leads() => Some(Need::Leader),
            Stage::Prepare | Stage::Release if in_sync() => Some(Need::Writes),
            Stage::Prepare | Stage::Release => Some(Need::Copy),
        }
    }

    fn start_waiting(&mut self, now: Instant) {
        while let Some(partition) = self.places.next() {
            self.advance(now, partition);
        }
    }

    fn complete(&mut self, partition: PartitionId, duty: &Duty, cancelled: bool) {
        let standing = self.replicas.get_mut(&partition).expect("what runs has a standing");
        let attempt = standing.attempt.take().expect("what runs has an attempt");
        self.attempting.remove(&partition);
        match &attempt.call {
            // It may have begun to serve, but nobody was let in: it is sealed like any other.
            Call::Activate { .. } if cancelled => {}
            // It was for a target that does not take over any more: it is sealed anew.
            Call::Seal { cause: SealCause::Handover(_) | SealCause::Stopping, .. } if cancelled => {}
            Call::Activate { epoch, .. } => {
                assert!(!standing.has_given_up(*epoch), "what is given up was told to end");
                standing.complete(&attempt.call);
                self.actions.push_back(Action::OpenLease { partition, epoch: *epoch });
            }
            Call::Release { uid, .. } => {
                self.notes.remove((partition, *uid));
                self.replicas.remove(&partition);
                self.opening.remove(&partition);
            }
            call => {
                standing.complete(call);
                standing.settle(duty);
            }
        }
    }

    fn judge(&mut self, now: Instant, partition: PartitionId) {
        let attempt = self.replicas.get(&partition).and_then(|standing| standing.attempt.as_ref());
        if attempt.is_none_or(|attempt| self.is_held_back(attempt)) {
            return;
        }
        let standing = self.replicas.get_mut(&partition);
        let Some(attempt) = standing.and_then(|standing| standing.attempt.as_mut()) else { return };
        let late = attempt.judge(now);
        let (stage, token) = (attempt.call.stage(), attempt.run.map(|run| run.token));
        let cancelled = attempt.run.as_mut().and_then(|run| run.cancelled.as_mut());
        if let Some(cancelled) = cancelled.filter(|cancelled| !cancelled.aborted && cancelled.abort_at <= now)
        {
            cancelled.aborted = true;
            self.actions.extend(token.map(|token| Action::Abort { token }));
        }
        if late {
            self.actions.push_back(Action::Overran { partition, stage });
        }
    }

    fn save(&mut self) {
        let token = Token(self.token_last.0 + 1);
        if let Some(replicas) = self.notes.begin(token) {
            self.token_last = token;
            self.actions.push_back(Action::Save { token, replicas });
        }
    }

    fn next_token(&mut self) -> Token {
        self.token_last.0 += 1;
        self.token_last
    }

    fn facts(&self, partition: PartitionId, standing: &Standing, copies_wanted: u32) -> Vec<Fact> {
        let mut facts = Vec::new();
        let Some(record) = self.topology.partition(partition) else { return facts };
        let duty = Duty::of(record, &self.me, self.stopping);
        if duty.uid() == Some(standing.uid) {
            facts.extend(fact_of_duty(record, &duty, standing, copies_wanted));
            facts.extend(standing.declined(record.epoch).map(|(stage, reason)| Fact::Declined {
                stage,
                uid: standing.uid,
                epoch: record.epoch,
                version: record.version,
                reason,
            }));
        }
        let late = standing.attempt.as_ref().filter(|attempt| attempt.overdue_since.is_some());
        let named = record.overrun.as_ref().filter(|overrun| overrun.node == self.me);
        match (late, named) {
            (Some(attempt), _) if named.is_none_or(|named| named.stage != attempt.call.stage()) => {
                facts.push(Fact::Overran { stage: attempt.call.stage() });
            }
            (None, Some(_)) => facts.push(Fact::OnTime),
            _ => {}
        }
        facts
    }
}

fn fact_of_duty(record: &Partition, duty: &Duty, standing: &Standing, copies_wanted: u32) -> Option<Fact> {
    match duty {
        Duty::Lead { epoch, end: Some(SealCause::Handover(target)), .. } => {
            standing.is_sealed_for(target).then_some(Fact::Sealed { epoch: *epoch, version: record.version })
        }
        Duty::Lead { epoch, .. } if record.awaits_activation(copies_wanted) => {
            let open = Some(Led { epoch: *epoch, phase: Phase::Open });
            (standing.led == open).then_some(Fact::Activated { epoch: *epoch })
        }
        Duty::Learn { uid, epoch, lapses, .. } if standing.caught_up == Some((*epoch, *lapses)) => {
            Some(Fact::CaughtUp { uid: *uid, epoch: *epoch, lapses: *lapses })
        }
        _ => None,
    }
}
