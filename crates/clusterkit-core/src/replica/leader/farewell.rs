//! How a leadership ends in order: handed over to a target (rules M3, M4), or given up (rule F6b).

use super::super::action::{Action, Wish};
use super::super::mistake::Mistake;
use super::super::{Context, Replica, Role};
use super::Leader;
use crate::id::PartitionVersion;
use crate::time::Instant;

/// Whether, and how, a leader is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// It is not.
    None,
    /// It shall resign as soon as it may.
    Leaving,
    /// It resigned, and leads still; it tries again, and takes writes until then.
    LeavingLater { at: Instant },
    /// It takes no writes, until the target has everything.
    Draining { since: Instant },
    /// The target did not get everything in time: writes go on, and it is tried again.
    Paused { until: Instant },
    /// The handoff is sent. It says nothing more until it knows a higher version.
    HandedOff { version: PartitionVersion, sent_at: Instant },
    /// It resigned. It says nothing more until it knows a higher version.
    Resigned { version: PartitionVersion, sent_at: Instant },
}

impl Farewell {
    /// Whether writes are taken.
    pub(super) fn is_none(self) -> bool {
        matches!(self, Self::None | Self::LeavingLater { .. } | Self::Paused { .. })
    }

    /// Whether the leadership is given up already, as far as this node is concerned.
    pub(crate) fn is_silent(self) -> bool {
        matches!(self, Self::HandedOff { .. } | Self::Resigned { .. })
    }

    /// A higher version is known, and the node still leads: nobody could follow it, or the record changed
    /// otherwise. Who resigned tries again `later`.
    pub(super) fn after_version(self, later: Instant) -> Self {
        match self {
            Self::Resigned { .. } => Self::LeavingLater { at: later },
            Self::HandedOff { .. } => Self::None,
            Self::None
            | Self::Leaving
            | Self::LeavingLater { .. }
            | Self::Draining { .. }
            | Self::Paused { .. } => self,
        }
    }

    pub(super) fn timeout(self, cx: &Context<'_>) -> Option<Instant> {
        match self {
            Self::None | Self::Leaving => None,
            Self::Draining { since } => Some(since + cx.config.drain_max),
            Self::HandedOff { sent_at, .. } | Self::Resigned { sent_at, .. } => {
                Some(sent_at + cx.config.resend)
            }
            Self::LeavingLater { at } => Some(at),
            Self::Paused { until } => Some(until),
        }
    }
}

impl Replica {
    /// Asks for another leader, as soon as this one may speak, and until there is one.
    pub(in super::super) fn resign(&mut self, cx: &Context<'_>) {
        if let Role::Leader(leader) = &mut self.role
            && !leader.farewell.is_silent()
        {
            leader.farewell = Farewell::Leaving;
            self.advance(cx);
        }
    }

    pub(super) fn take_leave(&mut self, cx: &Context<'_>) {
        let Role::Leader(leader) = &self.role else { return };
        if cx.now < leader.wait_until {
            return;
        }
        match leader.farewell {
            // A proposal that comes true would make the resignation one of an older version.
            Farewell::Leaving if leader.proposal.is_some() => {}
            Farewell::Leaving => self.send_resignation(cx),
            Farewell::LeavingLater { at } if at <= cx.now => {
                self.set_farewell(Farewell::Leaving);
                self.take_leave(cx);
            }
            Farewell::LeavingLater { .. } => {}
            Farewell::HandedOff { version, sent_at } => self.resend_handoff(cx, version, sent_at),
            Farewell::Resigned { version, sent_at } if cx.now.since(sent_at) >= cx.config.resend => {
                self.set_farewell(Farewell::Resigned { version, sent_at: cx.now });
                self.wish_resign(version);
            }
            Farewell::Resigned { .. } => {}
            Farewell::None | Farewell::Draining { .. } | Farewell::Paused { .. } => self.hand_over(cx),
        }
    }

    fn set_farewell(&mut self, farewell: Farewell) {
        if let Role::Leader(leader) = &mut self.role {
            leader.farewell = farewell;
            if farewell.is_silent() {
                leader.barrier.close();
            }
        }
    }

    fn send_resignation(&mut self, cx: &Context<'_>) {
        let version = self.record.version;
        self.set_farewell(Farewell::Resigned { version, sent_at: cx.now });
        self.wish_resign(version);
    }

    pub(in super::super) fn wish_resign(&mut self, version: PartitionVersion) {
        let (partition, epoch) = (self.key.partition, self.record.epoch);
        self.actions.push_back(Action::Wish(Wish::Resign { partition, version, epoch }));
    }

    fn resend_handoff(&mut self, cx: &Context<'_>, version: PartitionVersion, sent_at: Instant) {
        if cx.now.since(sent_at) < cx.config.resend {
            return;
        }
        if cx.config.mistakes.has(Mistake::ResumeAfterHandoff) {
            return self.set_farewell(Farewell::Paused { until: cx.now + cx.config.drain_pause });
        }
        self.set_farewell(Farewell::HandedOff { version, sent_at: cx.now });
        self.wish_handoff(version);
    }

    fn wish_handoff(&mut self, version: PartitionVersion) {
        let (partition, epoch, log_end) = (self.key.partition, self.record.epoch, self.log.end());
        self.actions.push_back(Action::Wish(Wish::Handoff { partition, version, epoch, log_end }));
    }

    /// Brings the target of a transfer to where it has everything, and then hands over.
    fn hand_over(&mut self, cx: &Context<'_>) {
        let end = self.log.end();
        let is_committed = self.commit == end;
        let Role::Leader(leader) = &self.role else { return };
        let target = self.record.transfer.as_ref().filter(|target| self.record.is_electable(target));
        let Some(progress) = target.and_then(|target| leader.followers.get(target)) else {
            return self.set_farewell(Farewell::None);
        };
        let has_all = is_committed && progress.is_attached() && progress.matched() == end;
        let version = self.record.version;
        match leader.farewell {
            Farewell::Paused { until } if cx.now < until => {}
            Farewell::Draining { .. } if has_all => {
                self.set_farewell(Farewell::HandedOff { version, sent_at: cx.now });
                self.wish_handoff(version);
            }
            Farewell::Draining { since } if cx.now.since(since) >= cx.config.drain_max => {
                self.set_farewell(Farewell::Paused { until: cx.now + cx.config.drain_pause });
            }
            Farewell::Draining { .. } => {}
            _ if progress.is_attached() => {
                self.set_farewell(Farewell::Draining { since: cx.now });
                self.hand_over(cx);
            }
            _ => {}
        }
    }
}

// Stalls.
impl Replica {
    /// Rule F6: says so when nothing is committed any more.
    pub(super) fn report_stall(&mut self, cx: &Context<'_>) {
        let Role::Leader(leader) = &self.role else { return };
        let due = self.stall_timeout(cx, leader).is_some_and(|due| due <= cx.now);
        let (partition, epoch, version) = (self.key.partition, self.record.epoch, self.record.version);
        let is_idle = self.commit == self.log.end();
        let Role::Leader(leader) = &mut self.role else { return };
        if is_idle || cx.now < leader.wait_until {
            leader.stall.since = cx.now;
        }
        if due {
            leader.stall.reports = (leader.stall.reports + 1).min(16);
            leader.stall.since = cx.now;
            self.actions.push_back(Action::Wish(Wish::Stalled { partition, version, epoch }));
        }
    }

    pub(super) fn stall_timeout(&self, cx: &Context<'_>, leader: &Leader) -> Option<Instant> {
        let waits = self.commit < self.log.end() && leader.stall.commit == self.commit;
        let pause = (cx.config.lag_max * 2_u32.saturating_pow(leader.stall.reports + 1))
            .min(cx.config.stall_pause_max);
        (waits && !leader.is_quiet(cx.now)).then(|| leader.stall.since + pause)
    }
}
