//! The controller: facts in, proposals out. It runs on the node that leads the control plane, and
//! only there; a deposed one is dropped with everything it wanted.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use super::command::{Command, LivenessChange};
use super::election::Elections;
use super::reconcile::{Facts, Limits, reconcile};
use super::reports::{Reports, Stranded};
use super::state::ControlState;
use crate::handoff::{Position, Report};
use crate::id::{Epoch, Incarnation, NodeId, PartitionId, PartitionVersion, TopologyVersion};
use crate::member::{self, Detector, Member, ProbeOutcome, ProbeToken};
use crate::time::Instant;
use crate::topology::{Liveness, Partition, Stage};

/// How the controller behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerConfig {
    /// The failure detector's timeouts.
    pub detector: member::Config,
    /// How long membership must be quiet before replicas move for balance alone, default 5 s. Too
    /// short, and a rolling restart moves data; holes are filled at once either way.
    pub rebalance_delay: Duration,
    /// How long an unanswered proposal blocks the next one, default 2 s. Longer than one commit
    /// takes, shorter than anybody wants to wait for a leader.
    pub proposal_timeout: Duration,
    /// How long the controller waits after a proposal that was not written, default 100 ms.
    pub proposal_pause: Duration,
    /// How long an election waits for candidates to say how much they have, default 200 ms. It goes on
    /// without those that are silent: any candidate is safe.
    pub position_timeout: Duration,
    /// How long a replica's move waits for a target that is dead, or for a leader, before it is rolled
    /// back, default 5 s. Longer than a restart that should not undo a copy, shorter than anybody wants
    /// to look at a move that goes nowhere.
    pub move_patience: Duration,
    /// How much may go on at once.
    pub limits: Limits,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        Self {
            detector: member::Config::default(),
            rebalance_delay: Duration::from_secs(5),
            proposal_timeout: Duration::from_secs(2),
            proposal_pause: Duration::from_millis(100),
            move_patience: Duration::from_secs(5),
            position_timeout: Duration::from_millis(200),
            limits: Limits::default(),
        }
    }
}

/// Decides what the cluster needs next.
///
/// Invariants:
/// - at most one proposal is out at a time, and the next one is made from a state that is at least
///   as new as the one that proposal left;
/// - a fact about a replica is kept only while the record names that replica.
#[derive(Debug)]
pub struct Controller {
    config: ControllerConfig,
    me: NodeId,
    state: ControlState,
    detector: Detector,
    unrecorded: BTreeMap<NodeId, LivenessChange>,
    reports: Reports,
    stranded: Stranded,
    elections: Elections,
    membership: BTreeMap<NodeId, (Incarnation, Liveness, Stage)>,
    membership_since: Instant,
    proposal: Option<Proposal>,
    /// Nodes whose death was proposed, by the newest proposal that said so and of which it is not known
    /// that it is not in the log.
    condemned: BTreeMap<NodeId, u64>,
    token_last: u64,
    /// What time alone had brought about at the last look: who is gone, whether membership is settled,
    /// which moves have waited for too long.
    passed: (BTreeSet<NodeId>, bool, BTreeSet<PartitionId>),
    /// When that look was.
    looked_at: Instant,
    dirty: bool,
    actions: VecDeque<Action>,
}

/// What the shell shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask a node how much its replicas of these partitions have, which have no leader; answer by
    /// [`handle_positions`](Controller::handle_positions). An answer that does not come is not waited
    /// for; answers by which nobody was elected are asked for again.
    AskPositions {
        /// Which node.
        node: NodeId,
        /// Which partitions, each as of which record: a node that has not adopted that much yet may take
        /// another replica for the one that is meant.
        partitions: BTreeMap<PartitionId, PartitionVersion>,
    },
    /// Ask the node's process directly whether it lives; answer by
    /// [`handle_probe`](Controller::handle_probe).
    Probe {
        /// Which node.
        node: NodeId,
        /// To be given back.
        token: ProbeToken,
    },
    /// Write the commands as one entry; answer by
    /// [`handle_proposed`](Controller::handle_proposed) once it is applied, or
    /// [`handle_proposal_lost`](Controller::handle_proposal_lost).
    Propose {
        /// To be given back.
        token: u64,
        /// In this order.
        commands: Vec<Command>,
    },
}

#[derive(Debug)]
struct Proposal {
    token: u64,
    expires: Instant,
}

impl Controller {
    /// A controller that just took over at `now`, on node `me`, with the state it applied so far.
    #[must_use]
    pub fn new(config: ControllerConfig, me: NodeId, state: ControlState, now: Instant) -> Self {
        let detector = Detector::new(config.detector.clone(), now);
        let mut controller = Self {
            config,
            me,
            state: ControlState::default(),
            detector,
            unrecorded: BTreeMap::new(),
            reports: Reports::default(),
            stranded: Stranded::default(),
            elections: Elections::default(),
            membership: BTreeMap::new(),
            membership_since: now,
            proposal: None,
            condemned: BTreeMap::new(),
            token_last: 0,
            passed: (BTreeSet::new(), false, BTreeSet::new()),
            looked_at: now,
            dirty: true,
            actions: VecDeque::new(),
        };
        controller.handle_state(now, state);
        controller
    }

    /// The state moved on.
    pub fn handle_state(&mut self, now: Instant, state: ControlState) {
        self.state = state;
        let nodes = self.state.topology.nodes.values();
        let membership: BTreeMap<_, _> =
            nodes.map(|node| (node.id.clone(), (node.incarnation, node.liveness, node.stage))).collect();
        if membership != self.membership {
            self.membership = membership;
            self.membership_since = now;
        }
        self.watch_members(now);
        self.forget_old_facts();
        self.stranded.handle_state(now, &self.state.topology);
        self.ask_positions(now);
        self.dirty = true;
        self.step(now);
    }

    /// A node's heartbeat came in.
    pub fn handle_heartbeat(&mut self, now: Instant, node: &NodeId, incarnation: Incarnation) {
        self.detector.handle_heartbeat(now, node, incarnation);
        self.step(now);
    }

    /// Whether this run of `node` may count on keeping what it leads: it is alive by the newest state, and
    /// nothing is under way that says otherwise. Ask right after its heartbeat was handled, and tell it
    /// [`version`](Self::version): it counts only for one that has adopted that much.
    #[must_use]
    pub fn supports(&self, node: &NodeId, incarnation: Incarnation) -> bool {
        let known = self.state.topology.node(node);
        let lives = known.is_some_and(|known| known.incarnation == incarnation && known.is_live());
        lives && !self.condemned.contains_key(node)
    }

    /// The version of the newest state that this controller knows.
    #[must_use]
    pub fn version(&self) -> TopologyVersion {
        self.state.topology.version
    }

    /// The old controller was last heard at `at`: its silence counts from there.
    pub fn assume_heard(&mut self, now: Instant, node: &NodeId, at: Instant) {
        self.detector.assume_heard(node, at);
        self.step(now);
    }

    /// A connection with a node broke: a hint, to be confirmed by one probe.
    pub fn handle_connection_lost(&mut self, now: Instant, node: &NodeId) {
        self.detector.handle_connection_lost(now, node);
        self.step(now);
    }

    /// A node says that it stops: what it led passes on at once.
    pub fn handle_stopped(&mut self, now: Instant, node: &NodeId, incarnation: Incarnation) {
        self.detector.handle_stopped(now, node, incarnation);
        self.step(now);
    }

    /// The answer to [`Action::Probe`].
    pub fn handle_probe(&mut self, now: Instant, node: &NodeId, token: ProbeToken, outcome: ProbeOutcome) {
        self.detector.handle_probe(now, node, token, outcome);
        self.step(now);
    }

    /// A node says something of a replica of its. It says so again until the record shows it, so a
    /// report that does not fit this controller's state is dropped.
    pub fn handle_report(&mut self, now: Instant, report: Report) {
        self.handle_reports(now, [report]);
    }

    /// The same for many at once: what follows from them is thought through once.
    pub fn handle_reports(&mut self, now: Instant, reports: impl IntoIterator<Item = Report>) {
        for report in reports {
            self.dirty |= self.reports.hear(now, &self.state.topology, report);
        }
        self.step(now);
    }

    /// The leader of `epoch` gives up: another is elected, and this one only after a pause that grows each
    /// time, or where nobody else can lead. Ignored when it does not lead. The leadership itself ends with
    /// [`Command::Resign`], which the caller proposes.
    pub fn handle_resigned(&mut self, now: Instant, partition: PartitionId, epoch: Epoch, leader: &NodeId) {
        let leads = |record: &Partition| record.epoch == epoch && record.leader.as_ref() == Some(leader);
        if self.state.topology.partition(partition).is_some_and(leads) {
            self.reports.relieve(now, partition, leader.clone());
        }
    }

    /// The answer to [`Action::AskPositions`]: what the run `answered_by` of `node` said of what it was
    /// `asked`. `None` of a partition means that it has nothing; one that is not there, it could not say
    /// anything of in time. What another run says than the one that was asked counts for nothing.
    pub fn handle_positions(
        &mut self,
        now: Instant,
        (node, answered_by): (&NodeId, Incarnation),
        asked: &BTreeMap<PartitionId, PartitionVersion>,
        positions: &BTreeMap<PartitionId, Option<Position>>,
    ) {
        self.dirty |= self.elections.handle_positions(node, answered_by, asked, positions);
        self.step(now);
    }

    /// The proposal with `token` was written, with `state` as it is since; some of its commands may
    /// have been refused.
    pub fn handle_proposed(&mut self, now: Instant, token: u64, state: ControlState) {
        self.proposal = self.proposal.take().filter(|proposal| proposal.token != token);
        // Whatever was proposed before is in the log before, or never will be.
        self.condemned.retain(|_, condemned_by| *condemned_by > token);
        self.handle_state(now, state);
    }

    /// The proposal with `token` was not written, or nobody knows. The next one waits a little, so
    /// that a controller that cannot write does not spend itself on trying.
    pub fn handle_proposal_lost(&mut self, now: Instant, token: u64) {
        if let Some(proposal) = self.proposal.as_mut().filter(|proposal| proposal.token == token) {
            proposal.expires = proposal.expires.min(now + self.config.proposal_pause);
        }
        self.step(now);
    }

    /// The time that [`poll_timeout`](Self::poll_timeout) named has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.detector.handle_timeout(now);
        if self.proposal.take_if(|proposal| proposal.expires <= now).is_some() {
            self.dirty = true;
        }
        // Time alone can settle membership, or make a dead node gone; nothing else is worth a round.
        let given_up = self.stranded.given_up(now, self.config.move_patience);
        let passed = (self.detector.gone(now), self.is_settled(now), given_up);
        self.dirty |= self.reports.handle_timeout(self.looked_at, now);
        self.dirty |= self.elections.handle_timeout(self.looked_at, now);
        if self.elections.has_old_answers(now) {
            self.ask_positions(now);
        }
        self.dirty |= passed != self.passed;
        self.passed = passed;
        self.looked_at = now;
        self.step(now);
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, `None` for never.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let settled = self.membership_since + self.config.rebalance_delay;
        let settling = (settled > now).then_some(settled);
        let proposal = self.proposal.as_ref().map(|proposal| proposal.expires);
        let pause = self.reports.poll_timeout(now);
        let stranded = self.stranded.poll_timeout(now, self.config.move_patience);
        let election = self.elections.poll_timeout(now);
        let times = [self.detector.poll_timeout(), settling, proposal, pause, stranded, election];
        times.into_iter().flatten().min()
    }

    /// What the detector holds against a node: used by status pages.
    #[must_use]
    pub fn gone(&self, now: Instant) -> BTreeSet<NodeId> {
        self.detector.gone(now)
    }

    fn watch_members(&mut self, now: Instant) {
        let me = &self.me;
        let nodes = self.state.topology.nodes.values();
        let others = nodes.filter(|node| node.id != *me && node.stage != Stage::Left);
        let watched: Vec<_> = others
            .map(|node| Member {
                node: node.id.clone(),
                incarnation: node.incarnation,
                recorded: node.liveness,
            })
            .collect();
        self.detector.handle_members(now, watched);
    }

    fn ask_positions(&mut self, now: Instant) {
        let patience = self.config.position_timeout;
        for (node, partitions) in self.elections.questions(now, &self.state.topology, patience) {
            self.actions.push_back(Action::AskPositions { node, partitions });
        }
    }

    fn forget_old_facts(&mut self) {
        let topology = &self.state.topology;
        self.reports.retain(topology);
        self.unrecorded.retain(|id, change| {
            topology.node(id).is_some_and(|node| {
                node.incarnation == change.incarnation && node.liveness != change.liveness
            })
        });
    }

    fn is_settled(&self, now: Instant) -> bool {
        now.since(self.membership_since) >= self.config.rebalance_delay
    }

    /// Collects what the detector reports, and proposes when there is something to propose.
    fn step(&mut self, now: Instant) {
        while let Some(action) = self.detector.poll_action() {
            self.take(action);
        }
        self.vouch_for_myself();
        if self.proposal.is_none() && self.dirty {
            self.dirty = false;
            self.propose(now);
        }
    }

    fn take(&mut self, action: member::Action) {
        match action {
            member::Action::Probe { node, token } => self.actions.push_back(Action::Probe { node, token }),
            member::Action::Report { node, incarnation, liveness } => {
                self.unrecorded.insert(node.clone(), LivenessChange { node, incarnation, liveness });
                self.dirty = true;
            }
        }
    }

    /// Nobody watches the controller but itself, and it is alive.
    fn vouch_for_myself(&mut self) {
        let Some(node) = self.state.topology.node(&self.me) else { return };
        if node.liveness != Liveness::Alive
            && node.stage != Stage::Left
            && !self.unrecorded.contains_key(&self.me)
        {
            let (node, incarnation) = (node.id.clone(), node.incarnation);
            let change = LivenessChange { node, incarnation, liveness: Liveness::Alive };
            self.unrecorded.insert(self.me.clone(), change);
            self.dirty = true;
        }
    }

    fn propose(&mut self, now: Instant) {
        let mut facts = Facts {
            liveness: self.unrecorded.values().cloned().collect(),
            gone: self.detector.gone(now),
            settled: self.is_settled(now),
            stranded: self.stranded.given_up(now, self.config.move_patience),
            ballots: self.elections.ballots(now),
            ..Facts::default()
        };
        self.reports.fill(now, &mut facts);
        let commands = reconcile(&self.state, &facts, self.config.limits);
        if commands.is_empty() {
            return;
        }
        self.token_last += 1;
        let token = self.token_last;
        self.proposal = Some(Proposal { token, expires: now + self.config.proposal_timeout });
        for partition in stalled_relieved(&commands, &facts) {
            let leader = self.state.topology.partition(partition).and_then(|record| record.leader.clone());
            leader.into_iter().for_each(|leader| self.reports.relieve(now, partition, leader));
        }
        self.condemned.extend(deaths(&commands).map(|node| (node.clone(), token)));
        self.actions.push_back(Action::Propose { token, commands });
    }
}

/// The partitions whose leaders these commands relieve since they stall.
fn stalled_relieved(commands: &[Command], facts: &Facts) -> Vec<PartitionId> {
    let relieved = commands.iter().filter_map(|command| match command {
        Command::Revoke { partition, .. } => Some(*partition),
        _ => None,
    });
    relieved.filter(|partition| facts.stalled.contains_key(partition)).collect()
}

/// Whom these commands declare dead.
fn deaths(commands: &[Command]) -> impl Iterator<Item = &NodeId> {
    let changes = commands.iter().filter_map(|command| match command {
        Command::SetLiveness { changes } => Some(changes),
        _ => None,
    });
    changes.flatten().filter(|change| change.liveness == Liveness::Dead).map(|change| &change.node)
}
