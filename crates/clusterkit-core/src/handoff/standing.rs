//! One replica of this node: what is asked of it, how far it is, and what comes next.

use alloc::string::String;

use super::Stage;
use super::call::{ActivateCause, Call, Progress, SealCause, Token};
use super::config::{Config, DEFERRAL_MIN};
use crate::id::{Epoch, NodeId, PartitionId, PartitionVersion, ReplicaUid};
use crate::time::Instant;
use crate::topology::{Origin, Partition};
use core::time::Duration;

/// What a partition's record asks of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Duty {
    /// Hold no copy.
    None,
    /// Take over what the leader has.
    Learn { uid: ReplicaUid, epoch: Epoch, leader: NodeId, lapses: u64, version: PartitionVersion },
    /// Follow, or wait for a leader.
    Follow { uid: ReplicaUid },
    /// Lead, until the cause given, if any, is served.
    Lead { uid: ReplicaUid, epoch: Epoch, origin: Origin, end: Option<SealCause> },
}

impl Duty {
    pub(super) fn of(record: &Partition, me: &NodeId, stopping: bool) -> Self {
        let Some(replica) = record.replica(me) else { return Self::None };
        let uid = replica.uid;
        match &record.leader {
            Some(leader) if leader == me => {
                let handover = record.transfer.clone().map(SealCause::Handover);
                let end = handover.or_else(|| stopping.then_some(SealCause::Stopping));
                Self::Lead { uid, epoch: record.epoch, origin: record.origin, end }
            }
            Some(leader) if !record.is_electable(me) && !stopping => {
                let (epoch, lapses, version) = (record.epoch, replica.lapses, record.version);
                Self::Learn { uid, epoch, leader: leader.clone(), lapses, version }
            }
            _ => Self::Follow { uid },
        }
    }

    pub(super) fn uid(&self) -> Option<ReplicaUid> {
        match self {
            Self::None => None,
            Self::Learn { uid, .. } | Self::Follow { uid } | Self::Lead { uid, .. } => Some(*uid),
        }
    }

    fn leads(&self, epoch: Epoch) -> bool {
        matches!(self, Self::Lead { epoch: current, .. } if *current == epoch)
    }

    /// Why the leadership of `epoch` by the replica `uid` is to end, `None` while it goes on.
    fn end_of(&self, uid: ReplicaUid, epoch: Epoch) -> Option<SealCause> {
        match self {
            Self::Lead { uid: leads, epoch: current, end, .. } if *leads == uid && *current == epoch => {
                end.clone()
            }
            _ => Some(SealCause::Deposed),
        }
    }
}

/// What to do next for a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Call a hook.
    Call(Call),
    /// Close the lease of this epoch, and seal by this call once it is drained.
    Close(Epoch, Call),
    /// Wait for the lease to be drained.
    Drain,
    /// Begin nothing: the leadership of this epoch is given up.
    GiveUp,
    /// Open the lease of this epoch again: nothing was sealed yet.
    Reopen(Epoch),
    /// Nothing, until something changes.
    Rest,
}

/// A replica that this node holds, or may still hold something of.
///
/// Invariants:
/// - at most one hook of a partition runs at a time;
/// - a lease is open only in [`Phase::Open`], after `activate` said that it is done;
/// - nothing else begins before the epoch that was led is sealed;
/// - no lease opens under an epoch that was given up, since another may be elected from then on.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) uid: ReplicaUid,
    pub(super) prepared: bool,
    /// Under which leader's epoch it caught up, and after how many lapses.
    pub(super) caught_up: Option<(Epoch, u64)>,
    pub(super) led: Option<Led>,
    pub(super) opening: Option<Opening>,
    given_up: Option<GivenUp>,
    pub(super) attempt: Option<Attempt>,
}

/// An epoch that this replica is to lead and never will.
#[derive(Debug, Clone, PartialEq, Eq)]
struct GivenUp {
    epoch: Epoch,
    reason: String,
}

/// An epoch that this replica leads, or led and has not sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Led {
    pub(super) epoch: Epoch,
    pub(super) phase: Phase,
}

/// An epoch that this replica is to lead, while its lease is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opening {
    epoch: Epoch,
    late_at: Instant,
}

impl Led {
    fn is_sealed(&self) -> bool {
        matches!(self.phase, Phase::Sealed(_))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// `activate` was called.
    Opening,
    /// It is done: the lease is open.
    Open,
    /// The lease is closed, and some permits are still out.
    Draining(Token),
    /// No permit is out; `begun` when `seal` was called.
    Drained { begun: bool },
    /// `seal` is done, for this reason: what was done for one target is nothing that another has.
    Sealed(SealCause),
}

impl Standing {
    pub(super) fn new(uid: ReplicaUid) -> Self {
        Self {
            uid,
            prepared: false,
            caught_up: None,
            led: None,
            opening: None,
            given_up: None,
            attempt: None,
        }
    }

    /// Forgets an epoch that is sealed and over.
    pub(super) fn settle(&mut self, duty: &Duty) {
        let over = |led: &Led| duty.end_of(self.uid, led.epoch) == Some(SealCause::Deposed);
        self.led = self.led.take_if(|led| !(led.is_sealed() && over(led)));
    }

    /// Takes the time from when a lease is to be opened until it is, or is given up.
    pub(super) fn watch_opening(&mut self, now: Instant, duty: &Duty, config: &Config) {
        self.given_up = self.given_up.take().filter(|given_up| duty.leads(given_up.epoch));
        let Some(epoch) = self.unopened(duty) else {
            self.opening = None;
            return;
        };
        if self.opening.is_none_or(|opening| opening.epoch != epoch) {
            self.opening = Some(Opening { epoch, late_at: now + self.time_to_open(config) });
        }
        if let Some(reason) = self.hindrance(now, epoch) {
            self.give_up(epoch, reason);
        }
    }

    /// The epoch that nobody serves for want of this replica. A handover changes nothing about that
    /// while something else than its own seal holds it up; that seal has its own time.
    fn unopened(&self, duty: &Duty) -> Option<Epoch> {
        let Duty::Lead { epoch, end, .. } = duty else { return None };
        let waits = match end {
            None => self.led != Some(Led { epoch: *epoch, phase: Phase::Open }),
            Some(SealCause::Handover(target)) => !self.is_sealed_for(target) && self.is_held_up(*epoch),
            Some(_) => false,
        };
        (waits && !self.has_given_up(*epoch)).then_some(*epoch)
    }

    /// Whether `epoch` waits for its lease already, or for an earlier epoch to be sealed.
    fn is_held_up(&self, epoch: Epoch) -> bool {
        let opening = self.opening.is_some_and(|opening| opening.epoch == epoch);
        opening || self.led.as_ref().is_some_and(|led| led.epoch != epoch)
    }

    /// As long as every stage that goes before may take.
    fn time_to_open(&self, config: &Config) -> Duration {
        let prepare = if self.prepared { Duration::ZERO } else { config.prepare_deadline };
        let seal = if self.is_sealed() { Duration::ZERO } else { config.seal_deadline };
        prepare + seal + config.activate_deadline
    }

    /// Why the lease of `epoch` is not to be opened any more: whatever goes before it is late, or was
    /// declined.
    fn hindrance(&self, now: Instant, epoch: Epoch) -> Option<String> {
        let attempt = self.attempt.as_ref().filter(|attempt| {
            attempt.declined
                && attempt.is_of(epoch)
                && matches!(attempt.call.stage(), Stage::Prepare | Stage::Activate)
        });
        let late = self.opening.is_some_and(|opening| opening.late_at <= now);
        let in_time = || String::from("it was not called in time, or took too long");
        attempt.map(Attempt::reason).or_else(|| late.then(in_time))
    }

    fn give_up(&mut self, epoch: Epoch, reason: String) {
        let activation = self
            .attempt
            .as_mut()
            .filter(|attempt| attempt.call.stage() == Stage::Activate && attempt.is_of(epoch));
        if let Some(attempt) = activation {
            attempt.decline(&reason);
        }
        self.opening = None;
        self.given_up = Some(GivenUp { epoch, reason });
    }

    pub(super) fn has_given_up(&self, epoch: Epoch) -> bool {
        self.given_up.as_ref().is_some_and(|given_up| given_up.epoch == epoch)
    }

    /// The stage to be rolled back, of what is asked of it in `epoch`, and why. Whatever keeps a leader
    /// from serving stands for its `activate`.
    pub(super) fn declined(&self, epoch: Epoch) -> Option<(Stage, String)> {
        if let Some(given_up) = self.given_up.as_ref().filter(|given_up| given_up.epoch == epoch) {
            return Some((Stage::Activate, given_up.reason.clone()));
        }
        let attempt = self.attempt.as_ref().filter(|attempt| attempt.declined && attempt.is_of(epoch))?;
        Some((attempt.call.stage(), attempt.reason()))
    }

    /// The epoch that this replica led and that is over by `duty`.
    pub(super) fn deposed(&self, duty: &Duty) -> Option<Epoch> {
        let led = self.led.as_ref()?;
        (duty.end_of(self.uid, led.epoch) == Some(SealCause::Deposed)).then_some(led.epoch)
    }

    pub(super) fn next(&self, partition: PartitionId, duty: &Duty) -> Step {
        if let Some(led) = &self.led {
            return self.next_as_leader(partition, duty, led);
        }
        let uid = self.uid;
        if duty.uid() != Some(uid) {
            return Step::Call(Call::Release { partition, uid });
        }
        if !self.prepared {
            return Step::Call(Call::Prepare { partition, uid });
        }
        match duty {
            Duty::Lead { epoch, end: None, .. } if self.has_given_up(*epoch) => Step::GiveUp,
            Duty::Lead { epoch, origin, end: None, .. } => Step::Call(activate(partition, *epoch, *origin)),
            Duty::Learn { epoch, leader, lapses, version, .. }
                if self.caught_up != Some((*epoch, *lapses)) =>
            {
                let (epoch, leader, lapses, version) = (*epoch, leader.clone(), *lapses, *version);
                Step::Call(Call::CatchUp { partition, uid, epoch, leader, lapses, version })
            }
            _ => Step::Rest,
        }
    }

    fn next_as_leader(&self, partition: PartitionId, duty: &Duty, led: &Led) -> Step {
        let epoch = led.epoch;
        let seal = |cause| Call::Seal { partition, epoch, cause };
        match (&led.phase, duty.end_of(self.uid, epoch)) {
            (Phase::Open, None) => Step::Rest,
            (Phase::Open, Some(cause)) => Step::Close(epoch, seal(cause)),
            (_, None) if self.has_given_up(epoch) => Step::GiveUp,
            (Phase::Opening, None) => match duty {
                Duty::Lead { origin, .. } => Step::Call(activate(partition, epoch, *origin)),
                _ => Step::Rest,
            },
            (Phase::Draining(_), None) | (Phase::Drained { begun: false }, None) => Step::Reopen(epoch),
            (Phase::Draining(_), Some(_)) => Step::Drain,
            (Phase::Drained { begun: true } | Phase::Sealed(_), None) => {
                Step::Call(Call::Activate { partition, epoch, cause: ActivateCause::Resumed })
            }
            (Phase::Opening | Phase::Drained { .. }, Some(cause)) => Step::Call(seal(cause)),
            (Phase::Sealed(done), Some(cause @ SealCause::Handover(_))) if *done != cause => {
                Step::Call(seal(cause))
            }
            (Phase::Sealed(_), Some(_)) => Step::Rest,
        }
    }

    /// Notes that `call` is made.
    pub(super) fn begin(&mut self, call: &Call) {
        match call {
            Call::Activate { epoch, cause: ActivateCause::Elected(_), .. } => {
                self.led = Some(Led { epoch: *epoch, phase: Phase::Opening });
            }
            // What was sealed and is resumed may serve again before it says so: it is sealed anew.
            Call::Seal { epoch, .. } | Call::Activate { epoch, cause: ActivateCause::Resumed, .. } => {
                self.led = Some(Led { epoch: *epoch, phase: Phase::Drained { begun: true } });
            }
            _ => {}
        }
    }

    /// Notes that `call` is done.
    pub(super) fn complete(&mut self, call: &Call) {
        match call {
            Call::Prepare { .. } => self.prepared = true,
            Call::CatchUp { epoch, lapses, .. } => self.caught_up = Some((*epoch, *lapses)),
            Call::Activate { epoch, .. } => self.led = Some(Led { epoch: *epoch, phase: Phase::Open }),
            Call::Seal { cause: SealCause::Deposed, .. } => self.led = None,
            Call::Seal { epoch, cause, .. } => {
                self.led = Some(Led { epoch: *epoch, phase: Phase::Sealed(cause.clone()) });
            }
            Call::Release { .. } => {}
        }
    }

    /// Whether nothing that this replica led is unsealed.
    pub(super) fn is_sealed(&self) -> bool {
        self.led.as_ref().is_none_or(Led::is_sealed)
    }

    /// Whether `target` has everything that this replica wrote as the leader.
    pub(super) fn is_sealed_for(&self, target: &NodeId) -> bool {
        let done = |led: &Led| matches!(&led.phase, Phase::Sealed(SealCause::Handover(to)) if to == target);
        self.led.as_ref().is_none_or(done)
    }
}

fn activate(partition: PartitionId, epoch: Epoch, origin: Origin) -> Call {
    Call::Activate { partition, epoch, cause: ActivateCause::Elected(origin) }
}

/// A stage that is tried until it is done or not wanted any more.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) call: Call,
    pub(super) since: Instant,
    pub(super) deadline: Instant,
    pub(super) overdue_since: Option<Instant>,
    pub(super) calls: u32,
    pub(super) refusals: u32,
    pub(super) retry: Retry,
    pub(super) run: Option<Run>,
    /// It cannot be done here: the controller is to roll it back.
    pub(super) declined: bool,
    pub(super) reason: Option<String>,
    pub(super) progress: Option<Progress>,
}

/// When a stage that does not run is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// At this time.
    At(Instant),
    /// Not again: the record must move first.
    Never,
}

/// A call that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) token: Token,
    pub(super) cancelled: Option<Cancelled>,
}

/// A call that was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cancelled {
    pub(super) abort_at: Instant,
    pub(super) aborted: bool,
}

impl Opening {
    /// When it becomes late.
    pub(super) fn late_at(&self) -> Instant {
        self.late_at
    }
}

impl Attempt {
    pub(super) fn new(now: Instant, call: Call, config: &Config) -> Self {
        Self {
            deadline: now + config.deadline_of(call.stage()),
            call,
            since: now,
            overdue_since: None,
            calls: 0,
            refusals: 0,
            retry: Retry::At(now),
            run: None,
            declined: false,
            reason: None,
            progress: None,
        }
    }

    /// Notes that the hook is called. Time spent waiting for a free place does not count.
    pub(super) fn start(&mut self, now: Instant, token: Token, config: &Config) {
        if self.calls == 0 && !self.call.stage().is_urgent() {
            self.since = now;
            self.deadline = now + config.deadline_of(self.call.stage());
        }
        self.calls += 1;
        self.run = Some(Run { token, cancelled: None });
    }

    /// Whether a failure of it is rolled back by the controller at once, since clients wait.
    fn is_rolled_back(&self) -> bool {
        matches!(self.call, Call::Activate { .. } | Call::Seal { cause: SealCause::Handover(_), .. })
    }

    /// Whether it is no stage of another epoch.
    fn is_of(&self, current: Epoch) -> bool {
        match &self.call {
            Call::Activate { epoch, .. } | Call::CatchUp { epoch, .. } | Call::Seal { epoch, .. } => {
                *epoch == current
            }
            Call::Prepare { .. } | Call::Release { .. } => true,
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.run.is_none() && matches!(self.retry, Retry::At(at) if at <= now)
    }

    pub(super) fn defer(&mut self, now: Instant, pause: Duration, config: &Config) {
        if !self.declined {
            self.reason = Some(String::from("deferred"));
        }
        self.retry = self.retry_after(now, pause.max(DEFERRAL_MIN).min(config.retry_max));
    }

    pub(super) fn refuse(&mut self, now: Instant, reason: String, config: &Config) {
        let doublings = self.refusals.min(DOUBLINGS_MAX);
        self.refusals += 1;
        self.declined = self.declined || declines(&self.call);
        self.reason = Some(reason);
        let pause = (config.retry_min * 2_u32.pow(doublings)).min(config.retry_max);
        self.retry = self.retry_after(now, pause);
    }

    /// What was declined and is rolled back is not tried again before it was.
    fn retry_after(&self, now: Instant, pause: Duration) -> Retry {
        if self.declined && self.is_rolled_back() { Retry::Never } else { Retry::At(now + pause) }
    }

    /// Progress was made: a copy is late only when it stands still.
    pub(super) fn advance(&mut self, now: Instant, progress: Progress, config: &Config) {
        self.progress = Some(progress);
        if self.call.stage() == Stage::CatchUp {
            self.deadline = now + config.catch_up_deadline;
            self.overdue_since = None;
        }
    }

    /// Looks at the time; `true` when the stage has just become late.
    pub(super) fn judge(&mut self, now: Instant) -> bool {
        if self.overdue_since.is_some() || now < self.deadline {
            return false;
        }
        self.overdue_since = Some(now);
        if self.is_rolled_back() {
            self.decline("it took too long");
        }
        true
    }

    /// It is not done here any more, unless that was said before.
    fn decline(&mut self, reason: &str) {
        if !self.declined {
            self.declined = true;
            self.reason = Some(String::from(reason));
            self.retry = Retry::Never;
        }
    }

    /// Why it was declined.
    fn reason(&self) -> String {
        self.reason.clone().unwrap_or_else(|| String::from("no reason was given"))
    }

    /// When something of it is due.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let retry = match (self.run, self.retry) {
            (None, Retry::At(at)) => Some(at),
            _ => None,
        };
        self.late_at().into_iter().chain(retry).min()
    }

    /// When it will be late, or its call is to be ended by force.
    pub(super) fn late_at(&self) -> Option<Instant> {
        let deadline = self.overdue_since.is_none().then_some(self.deadline);
        let abort = self.run.and_then(|run| run.cancelled).filter(|cancelled| !cancelled.aborted);
        abort.map(|cancelled| cancelled.abort_at).into_iter().chain(deadline).min()
    }
}

/// How often the pause after a refusal doubles at most; the longest pause is bounded anyway.
const DOUBLINGS_MAX: u32 = 16;

/// Whether the controller can do anything about a refusal of `call`.
fn declines(call: &Call) -> bool {
    !matches!(call, Call::Release { .. } | Call::Seal { cause: SealCause::Deposed | SealCause::Stopping, .. })
}
