//! Which nodes are alive, suspect or dead, as the controller sees them.
//!
//! Every node sends heartbeats to the controller, and one silence decides: there is no gossip and
//! no vote, since a single authority must write the verdict anyway. A [`Detector`] is made when a
//! node becomes the controller and dropped when it stops being it.
//!
//! Safety never rests on this module. A wrong verdict costs availability: a leader that is declared
//! dead while it lives can neither commit nor read past its lease.
//!
//! Three things speed detection up or keep it honest:
//! - a connection that was reset is a *hint*, confirmed by one direct probe: a process that was
//!   killed refuses it, and is dead at once instead of after [`Config::dead_after`];
//! - a new controller counts the silence of the old one from its own last contact with it
//!   ([`Detector::assume_heard`]), so that a frozen controller costs no second timeout;
//! - the detector's own pauses are not counted as the silence of others.

mod config;
mod watch;

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

pub use self::config::{Config, InvalidConfig};
use self::watch::Watch;
use crate::id::{Incarnation, NodeId};
use crate::time::Instant;
use crate::topology::Liveness;

/// The controller's failure detector.
///
/// The shell gives it the nodes to watch and the facts of the network, carries out what
/// [`Self::poll_action`] says, and calls [`Self::handle_timeout`] at [`Self::poll_timeout`]. Every
/// call is cheap: a heartbeat costs one look into an ordered map.
///
/// Invariants:
/// - a node goes down (alive, suspect, dead) by silence, a refused probe or a newer incarnation,
///   and up only by a heartbeat of the incarnation watched or of a newer one;
/// - at most one probe a node is outstanding;
/// - `wake_at` is not later than the next verdict that silence alone would bring.
#[derive(Debug)]
pub struct Detector {
    config: Config,
    /// The latest time this detector was told.
    now: Instant,
    watched: BTreeMap<NodeId, Watch>,
    /// Whose verdict may have to be reported.
    unreported: BTreeSet<NodeId>,
    /// Who is to be probed.
    unprobed: BTreeSet<NodeId>,
    token_last: ProbeToken,
    wake_at: Instant,
}

impl Detector {
    /// Begins with nobody to watch.
    ///
    /// # Panics
    ///
    /// When [`Config::check`] would refuse `config`.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        assert_eq!(config.check(), Ok(()), "the configuration was checked before");
        Self {
            wake_at: now + config.tick(),
            config,
            now,
            watched: BTreeMap::new(),
            unreported: BTreeSet::new(),
            unprobed: BTreeSet::new(),
            token_last: ProbeToken(0),
        }
    }

    /// The nodes to watch are exactly `members`: the shell calls this after every change of the
    /// topology, and leaves out the controller itself and the nodes that left.
    ///
    /// A new one counts as heard now and has the liveness that is recorded of it; one that is
    /// recorded dead stays dead until it is heard. One that is missing is forgotten. A member that
    /// registered again is watched as if it were new; an incarnation older than the one watched
    /// says nothing, since a heartbeat was faster than the topology.
    pub fn handle_members(&mut self, now: Instant, members: impl IntoIterator<Item = Member>) {
        self.advance(now);
        let mut forgotten = core::mem::take(&mut self.watched);
        for member in members {
            let watch = match forgotten.remove(&member.node) {
                Some(mut watch) => {
                    watch.record(now, &member);
                    watch
                }
                None => Watch::new(now, &member),
            };
            self.insert(member.node, watch);
        }
        self.unprobed.retain(|node| self.watched.contains_key(node));
    }

    /// `node` was last in contact at `at`: a new controller says so of the old one, right after it
    /// became the controller. It changes nothing once a heartbeat of `node` has been heard.
    pub fn assume_heard(&mut self, node: &NodeId, at: Instant) {
        let Some(watch) = self.watched.get_mut(node) else { return };
        watch.assume_heard(at);
        let verdict_at = watch.verdict_at(&self.config);
        self.wake_by(verdict_at);
    }

    /// A heartbeat of `node` arrived. One of an older incarnation is ignored; any other makes the
    /// node alive, whatever it was.
    pub fn handle_heartbeat(&mut self, now: Instant, node: &NodeId, incarnation: Incarnation) {
        self.advance(now);
        let Some(watch) = self.watched.get_mut(node) else { return };
        if watch.hear(now, incarnation) && watch.differs_from_told() {
            self.unreported.insert(node.clone());
        }
    }

    /// A connection to `node` was reset or refused, or another node says so: a hint that one probe
    /// shall confirm. Further hints while that probe is outstanding change nothing.
    pub fn handle_connection_lost(&mut self, now: Instant, node: &NodeId) {
        self.advance(now);
        let Some(watch) = self.watched.get_mut(node) else { return };
        if watch.wants_probe(now, &self.config) {
            self.token_last.0 += 1;
            watch.begin_probe(now, self.token_last);
            self.unprobed.insert(node.clone());
        }
    }

    /// `node` says itself that this run of it ends: there is nothing to confirm. A heartbeat that was
    /// under way still makes it alive again, until it is silent.
    pub fn handle_stopped(&mut self, now: Instant, node: &NodeId, incarnation: Incarnation) {
        self.advance(now);
        let Some(watch) = self.watched.get_mut(node) else { return };
        if watch.stop(now, incarnation) && watch.differs_from_told() {
            self.unreported.insert(node.clone());
        }
    }

    /// The probe of `node` that carried `token` ended. A late or foreign token changes nothing.
    pub fn handle_probe(&mut self, now: Instant, node: &NodeId, token: ProbeToken, outcome: ProbeOutcome) {
        self.advance(now);
        let Some(watch) = self.watched.get_mut(node) else { return };
        if !watch.end_probe(token) {
            return;
        }
        if watch.is_refuted_by(outcome) {
            watch.die(now);
            self.unreported.insert(node.clone());
        }
    }

    /// Time passed: judges every silence. Harmless when it is called early; when it is called late,
    /// the lateness does not count as anybody's silence.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        self.wake_at = now + self.config.tick();
        for (node, watch) in &mut self.watched {
            watch.judge(now, &self.config);
            if watch.wants_report(now, &self.config) {
                self.unreported.insert(node.clone());
            }
            if let Some(at) = watch.verdict_at(&self.config) {
                self.wake_at = self.wake_at.min(at);
            }
        }
    }

    /// The next thing for the shell to do, `None` when there is nothing more for now.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.poll_report().or_else(|| self.poll_probe())
    }

    /// When [`Self::handle_timeout`] wants to be called, `None` while nobody is watched. It is never
    /// farther away than half a heartbeat, which is how the detector notices its own pauses.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.watched.is_empty()).then_some(self.wake_at)
    }

    /// The nodes that have been dead for [`Config::gone_after`], counted from when this detector
    /// saw the death or took it over: their replicas are due to be rebuilt elsewhere.
    #[must_use]
    pub fn gone(&self, now: Instant) -> BTreeSet<NodeId> {
        let gone = self.watched.iter().filter(|(_, watch)| watch.is_gone(now, &self.config));
        gone.map(|(node, _)| node.clone()).collect()
    }

    /// How `node` stands by this detector's own judgement, which the record follows.
    #[must_use]
    pub fn liveness(&self, node: &NodeId) -> Option<Liveness> {
        self.watched.get(node).map(Watch::verdict)
    }

    /// Takes note of the time, and of a pause of this process: whatever came after the moment at
    /// which it asked to be woken is nobody's silence, since nobody was listening.
    fn advance(&mut self, now: Instant) {
        let late = now.since(self.wake_at);
        if late > self.config.pause_min() {
            self.forgive(now, late);
            self.wake_at = now;
        }
        self.now = self.now.max(now);
    }

    fn forgive(&mut self, now: Instant, pause: Duration) {
        for watch in self.watched.values_mut() {
            watch.forgive(now, pause);
        }
    }

    fn insert(&mut self, node: NodeId, watch: Watch) {
        if watch.wants_report(self.now, &self.config) {
            self.unreported.insert(node.clone());
        }
        self.wake_by(watch.verdict_at(&self.config));
        self.watched.insert(node, watch);
    }

    /// Never asks for a time in the past, which would later look like a pause.
    fn wake_by(&mut self, at: Option<Instant>) {
        if let Some(at) = at {
            self.wake_at = self.wake_at.min(at.max(self.now));
        }
    }

    fn poll_report(&mut self) -> Option<Action> {
        while let Some(node) = self.unreported.pop_first() {
            let Some(watch) = self.watched.get_mut(&node) else { continue };
            if watch.wants_report(self.now, &self.config) {
                let (incarnation, liveness) = watch.report(self.now);
                return Some(Action::Report { node, incarnation, liveness });
            }
        }
        None
    }

    fn poll_probe(&mut self) -> Option<Action> {
        while let Some(node) = self.unprobed.pop_first() {
            if let Some(token) = self.watched.get(&node).and_then(Watch::probe_token) {
                return Some(Action::Probe { node, token });
            }
        }
        None
    }
}

/// What the shell does for the detector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open one new connection to `node`, ask for its incarnation, and say how that ended, within
    /// [`Config::probe_timeout`], by [`Detector::handle_probe`] with this token.
    Probe {
        /// Whom to ask.
        node: NodeId,
        /// Which probe this is.
        token: ProbeToken,
    },
    /// Propose this liveness to the control plane. When it is lost, it comes again after
    /// [`Config::report_again_after`], for as long as the recorded liveness differs.
    Report {
        /// Whom it is about.
        node: NodeId,
        /// Which start of it; the control plane refuses an older one.
        incarnation: Incarnation,
        /// What the detector judged.
        liveness: Liveness,
    },
}

/// A node to watch, as the control plane records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub node: NodeId,
    /// How often it registered.
    pub incarnation: Incarnation,
    /// What is recorded of its liveness.
    pub recorded: Liveness,
}

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The node answered with this incarnation. The one watched is dead when this one is newer;
    /// otherwise nothing changes, and silence goes on counting.
    Answered(Incarnation),
    /// Nobody listens at its address: the process is gone, and the node dead at once.
    Refused,
    /// No answer in time, which silence will judge.
    TimedOut,
}

/// Which probe an outcome belongs to. An outcome whose probe was given up changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeToken(pub u64);

#[cfg(test)]
mod tests;
