//! One watched node.

use core::time::Duration;

use super::{Config, Member, ProbeOutcome, ProbeToken};
use crate::id::Incarnation;
use crate::time::Instant;
use crate::topology::Liveness;

/// What the detector knows of one node.
///
/// Three opinions of its liveness live here: the `verdict` is the detector's own, `told` is the
/// last one it reported (or found recorded), `recorded` is what the control plane says. Reports
/// make the record follow the verdict.
#[derive(Debug)]
pub(super) struct Watch {
    incarnation: Incarnation,
    verdict: Liveness,
    recorded: Liveness,
    told: Liveness,
    /// When it was last reported, `None` before the first report.
    told_at: Option<Instant>,
    /// The beginning of its silence.
    heard_at: Instant,
    /// Whether `heard_at` stands for a heartbeat, and not for an assumption.
    heard: bool,
    dead_at: Instant,
    probe: Option<Probe>,
}

#[derive(Debug)]
struct Probe {
    token: ProbeToken,
    began_at: Instant,
}

impl Watch {
    pub(super) fn new(now: Instant, member: &Member) -> Self {
        Self::begin(now, member.incarnation, member.recorded)
    }

    fn begin(now: Instant, incarnation: Incarnation, recorded: Liveness) -> Self {
        Self {
            incarnation,
            verdict: recorded,
            recorded,
            told: recorded,
            told_at: None,
            heard_at: now,
            heard: false,
            dead_at: now,
            probe: None,
        }
    }

    /// Takes over what the control plane says of it.
    pub(super) fn record(&mut self, now: Instant, member: &Member) {
        if member.incarnation > self.incarnation {
            *self = Self::new(now, member);
        } else if member.incarnation == self.incarnation {
            self.recorded = member.recorded;
        }
    }

    pub(super) fn assume_heard(&mut self, at: Instant) {
        if !self.heard {
            self.heard_at = at;
        }
    }

    /// Whether the heartbeat counts.
    pub(super) fn hear(&mut self, now: Instant, incarnation: Incarnation) -> bool {
        if incarnation < self.incarnation {
            return false;
        }
        if incarnation > self.incarnation {
            self.begin_incarnation(now, incarnation);
        }
        self.heard_at = now;
        self.heard = true;
        self.verdict = Liveness::Alive;
        true
    }

    /// A heartbeat was faster than the topology: the record cannot say more of this incarnation
    /// than that it registered, and a probe of the one before says nothing of it.
    fn begin_incarnation(&mut self, now: Instant, incarnation: Incarnation) {
        *self = Self::begin(now, incarnation, Liveness::Joining);
    }

    pub(super) fn verdict(&self) -> Liveness {
        self.verdict
    }

    pub(super) fn wants_probe(&self, now: Instant, config: &Config) -> bool {
        let outstanding =
            self.probe.as_ref().is_some_and(|probe| now.since(probe.began_at) <= config.probe_timeout);
        self.verdict != Liveness::Dead && !outstanding
    }

    pub(super) fn begin_probe(&mut self, now: Instant, token: ProbeToken) {
        self.probe = Some(Probe { token, began_at: now });
    }

    /// The node says that this run of it ends. Whether that is the watched run.
    pub(super) fn stop(&mut self, now: Instant, incarnation: Incarnation) -> bool {
        let current = incarnation == self.incarnation;
        if current {
            self.die(now);
        }
        current
    }

    /// Whether `token` is the outstanding probe's, which is over now.
    pub(super) fn end_probe(&mut self, token: ProbeToken) -> bool {
        self.probe.take_if(|probe| probe.token == token).is_some()
    }

    pub(super) fn probe_token(&self) -> Option<ProbeToken> {
        self.probe.as_ref().map(|probe| probe.token)
    }

    /// Whether `outcome` shows that the watched incarnation runs no more.
    pub(super) fn is_refuted_by(&self, outcome: ProbeOutcome) -> bool {
        match outcome {
            ProbeOutcome::Answered(incarnation) => incarnation > self.incarnation,
            ProbeOutcome::Refused => true,
            ProbeOutcome::TimedOut => false,
        }
    }

    pub(super) fn die(&mut self, now: Instant) {
        if self.verdict != Liveness::Dead {
            self.verdict = Liveness::Dead;
            self.dead_at = now;
        }
    }

    /// Lets silence lower the verdict.
    pub(super) fn judge(&mut self, now: Instant, config: &Config) {
        let silence = now.since(self.heard_at);
        if silence >= config.dead_after {
            self.die(now);
        } else if silence >= config.suspect_after && self.verdict == Liveness::Alive {
            self.verdict = Liveness::Suspect;
        }
    }

    /// When silence would lower the verdict next. A node that was never heard does not become
    /// suspect, which would make it one of the living.
    pub(super) fn verdict_at(&self, config: &Config) -> Option<Instant> {
        match self.verdict {
            Liveness::Alive => Some(self.heard_at + config.suspect_after),
            Liveness::Joining | Liveness::Suspect => Some(self.heard_at + config.dead_after),
            Liveness::Dead => None,
        }
    }

    pub(super) fn is_gone(&self, now: Instant, config: &Config) -> bool {
        self.verdict == Liveness::Dead && now.since(self.dead_at) >= config.gone_after
    }

    /// Moves what lies in the past towards now by `pause`, in which nobody was listening.
    pub(super) fn forgive(&mut self, now: Instant, pause: Duration) {
        self.heard_at = now.min(self.heard_at + pause);
        self.dead_at = now.min(self.dead_at + pause);
        if let Some(probe) = &mut self.probe {
            probe.began_at = now.min(probe.began_at + pause);
        }
    }

    pub(super) fn differs_from_told(&self) -> bool {
        self.verdict != self.told
    }

    /// A change is reported at once; a report that the record does not show, once more after a
    /// while.
    pub(super) fn wants_report(&self, now: Instant, config: &Config) -> bool {
        let overdue = |at: Instant| now.since(at) >= config.report_again_after;
        self.differs_from_told() || (self.verdict != self.recorded && self.told_at.is_none_or(overdue))
    }

    pub(super) fn report(&mut self, now: Instant) -> (Incarnation, Liveness) {
        self.told = self.verdict;
        self.told_at = Some(now);
        (self.incarnation, self.verdict)
    }
}
