//! The controller's task: runs on every node, reigns on the one that leads the control plane.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use clusterkit_core::control::{
    Action, Applied, Command, Controller, Registration, Rejected, VoterStep, next_voter_step,
};
use clusterkit_core::handoff::Report;
use clusterkit_core::id::{Incarnation, NodeId, PartitionId, PartitionVersion, StoreId, TopologyVersion};
use clusterkit_core::member::{ProbeOutcome, ProbeToken};
use clusterkit_core::time::Instant;
use clusterkit_core::topology::{Cluster, ClusterConfig, Stage, Topology};
use clusterkit_wire::hello::Class;
use tokio::sync::{mpsc, oneshot};

use super::admission;
use super::identity::Membership;
use super::message::{self, Join, JoinAnswer, Positions, ProposeAnswer, Wish, kind};
use super::shared::{CONTROLLER_TIMEOUT, Counters, Shared};
use crate::coordinator::raft::{ELECTION_TIMEOUT_MAX, Leadership, ProposeError, RaftGroup};
use crate::transport::{self, Target};

/// Messages that may wait for the controller. More are dropped and sent again by their senders.
pub(super) const INBOX_MAX: usize = 8_192;
/// Inputs handled before the controller looks at the time again.
const INPUTS_PER_STEP: usize = 256;
/// How often the controller looks whether the voters are as they should be.
const VOTER_CHECK: Duration = Duration::from_millis(500);
/// How long the founders are waited for before the cluster forms with those that are there.
const FOUNDERS_PATIENCE: Duration = Duration::from_secs(5);
/// Work of the controller that may be under way at once: probes, proposals, joins.
const RESULTS_MAX: usize = 1_024;

/// What reaches the controller.
#[derive(Debug)]
pub(crate) enum ControllerInput {
    Heartbeat { node: NodeId, incarnation: Incarnation, reply: oneshot::Sender<Support> },
    Stopping { node: NodeId, incarnation: Incarnation },
    Reports(Vec<Report>),
    ConnectionLost { node: NodeId },
    Join { join: Box<Join>, reply: oneshot::Sender<JoinAnswer> },
    Propose { wish: Wish, reply: oneshot::Sender<ProposeAnswer> },
}

/// What a heartbeat is answered with by the controller itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Support {
    /// For how long nobody else is given what the node leads.
    pub(crate) given: Option<Duration>,
    /// As of this version of the topology.
    pub(crate) version: TopologyVersion,
}

/// What a node is asked of, each as of a record.
type Asked = BTreeMap<PartitionId, PartitionVersion>;

/// What comes back from the work that the controller started.
enum Done {
    Positions { node: NodeId, asked: Asked, said: Positions },
    Probe { node: NodeId, token: ProbeToken, outcome: ProbeOutcome },
    Proposal { token: u64, written: bool },
    VoterStep,
}

/// Waits for this node's turn to lead, as often as it comes.
pub(super) async fn run(
    shared: Arc<Shared>,
    raft: RaftGroup,
    membership: Membership,
    mut inbox: mpsc::Receiver<ControllerInput>,
) {
    loop {
        let leadership = raft.leadership();
        if leadership.is_me {
            tracing::info!(target: "clusterkit::controller", term = leadership.term, "this node is the controller");
            Reign::new(&shared, &raft, &membership, leadership).run(&mut inbox).await;
            tracing::info!(target: "clusterkit::controller", term = leadership.term, "this node is not the controller any more");
        }
        tokio::select! {
            alive = raft.leadership_changed(leadership) => if !alive { return },
            Some(input) = inbox.recv() => refuse(input),
            () = shared.stop.cancelled() => return,
        }
    }
}

/// Whoever asks while this node does not lead is told to ask again; facts are sent again anyway.
fn refuse(input: ControllerInput) {
    match input {
        ControllerInput::Join { reply, .. } => drop(reply.send(JoinAnswer::TryAgain)),
        ControllerInput::Propose { reply, .. } => drop(reply.send(ProposeAnswer::NoController)),
        _ => {}
    }
}

/// One term of office.
struct Reign<'a> {
    shared: &'a Arc<Shared>,
    raft: &'a RaftGroup,
    membership: &'a Membership,
    leadership: Leadership,
    /// Founders that registered while the cluster is not formed.
    founders: BTreeMap<StoreId, Registration>,
    founders_since: tokio::time::Instant,
    results: mpsc::Sender<Done>,
    outcomes: mpsc::Receiver<Done>,
    changing_voters: bool,
}

impl<'a> Reign<'a> {
    fn new(
        shared: &'a Arc<Shared>,
        raft: &'a RaftGroup,
        membership: &'a Membership,
        leadership: Leadership,
    ) -> Self {
        let (results, outcomes) = mpsc::channel(RESULTS_MAX);
        Self {
            shared,
            raft,
            membership,
            leadership,
            founders: BTreeMap::new(),
            founders_since: tokio::time::Instant::now(),
            results,
            outcomes,
            changing_voters: false,
        }
    }

    /// Governs until leadership passes. Decides nothing before everything that earlier leaders
    /// committed is applied here.
    async fn run(mut self, inbox: &mut mpsc::Receiver<ControllerInput>) {
        if !self.catch_up(inbox).await || !self.form(inbox).await {
            return;
        }
        let view = self.raft.view();
        let config = self.shared.settings.controller.clone();
        let mut controller =
            Controller::new(config, self.shared.node.clone(), view.state.clone(), self.shared.now());
        self.take_over_silence(&mut controller);
        self.shared.governing.store(self.leadership.term, Ordering::Relaxed);
        self.govern(controller, inbox).await;
        self.shared.governing.store(0, Ordering::Relaxed);
    }

    async fn catch_up(&mut self, inbox: &mut mpsc::Receiver<ControllerInput>) -> bool {
        let barrier = self.raft.barrier();
        tokio::pin!(barrier);
        loop {
            tokio::select! {
                done = &mut barrier => return done.is_ok(),
                Some(input) = inbox.recv() => refuse(input),
                () = self.shared.stop.cancelled() => return false,
            }
        }
    }

    /// Writes the cluster's first entry when there is none, once its founders have registered.
    async fn form(&mut self, inbox: &mut mpsc::Receiver<ControllerInput>) -> bool {
        let deadline = self.founders_since + FOUNDERS_PATIENCE;
        while self.raft.view().state.topology.cluster.is_none() {
            let complete = self.founders.len() >= self.membership.founders.len().max(1);
            if complete || (tokio::time::Instant::now() >= deadline && !self.founders.is_empty()) {
                return self.write_first_entry().await;
            }
            tokio::select! {
                Some(input) = inbox.recv() => self.take_founder(input),
                () = tokio::time::sleep_until(deadline), if !self.founders.is_empty() => {}
                alive = self.raft.leadership_changed(self.leadership) => {
                    self.leadership = self.raft.leadership();
                    if !alive || !self.leadership.is_me {
                        return false;
                    }
                }
                () = self.shared.stop.cancelled() => return false,
            }
        }
        true
    }

    fn take_founder(&mut self, input: ControllerInput) {
        let ControllerInput::Join { join, reply } = input else {
            refuse(input);
            return;
        };
        let answer = match admission::refusal(&self.cluster_to_be(), &join) {
            Some(refusal) => JoinAnswer::Refused(refusal),
            None => JoinAnswer::TryAgain,
        };
        let founder = self.membership.founders.iter().any(|one| one.store == join.registration.store);
        if founder && answer == JoinAnswer::TryAgain {
            self.founders.insert(join.registration.store, join.registration);
        }
        drop(reply.send(answer));
    }

    fn cluster_to_be(&self) -> Cluster {
        let settings = &self.shared.settings;
        let defaults = ClusterConfig::default();
        let config = ClusterConfig {
            partition_count: settings.partitions.unwrap_or(defaults.partition_count),
            replication_factor: settings.replication_factor.unwrap_or(defaults.replication_factor),
            key_hash: settings.key_hash.unwrap_or(defaults.key_hash),
            strategy: settings.strategy.unwrap_or(defaults.strategy),
        };
        let (id, name) = (self.membership.cluster, self.membership.cluster_name.clone());
        Cluster { id, name, config }
    }

    async fn write_first_entry(&self) -> bool {
        let cluster = self.cluster_to_be();
        let members: Vec<_> = self.founders.values().cloned().collect();
        tracing::info!(target: "clusterkit::controller", cluster = %cluster.id, nodes = members.len(), "the cluster forms");
        let command = match Command::form_cluster(cluster, members) {
            Ok(command) => command,
            Err(reason) => {
                tracing::error!(target: "clusterkit::controller", %reason, "the cluster cannot form like this");
                return false;
            }
        };
        let outcome = self.raft.propose(&[command]).await;
        match outcome.map(|outcomes| outcomes.into_iter().next()) {
            Ok(Some(Ok(_))) => return true,
            Ok(refused) => {
                tracing::error!(target: "clusterkit::controller", ?refused, "the cluster's first entry was refused");
            }
            Err(error) => {
                tracing::warn!(target: "clusterkit::controller", %error, "the cluster's first entry was not written");
            }
        }
        false
    }

    /// The old controller's silence counts from when this node last heard it, so that a frozen
    /// controller costs no second timeout; and it is probed, so that a dead one costs none.
    fn take_over_silence(&self, controller: &mut Controller) {
        let contact = *self.shared.leader_contact.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((store, at)) = contact else { return };
        let view = self.raft.view();
        let node =
            view.state.topology.nodes.values().find(|node| node.store == store && store != self.shared.store);
        if let Some(node) = node {
            // Other voters may have heard it later than this node did, and what they acknowledged then
            // is what its own leases stand on. But none of them votes so soon after it heard a leader.
            let now = self.shared.now();
            let heard_last = Instant::at(now.elapsed().saturating_sub(ELECTION_TIMEOUT_MAX));
            controller.assume_heard(now, &node.id, at.max(heard_last));
            // Its connections broke, if they did, before this node was in charge: ask once.
            controller.handle_connection_lost(self.shared.now(), &node.id);
        }
    }

    async fn govern(&mut self, mut controller: Controller, inbox: &mut mpsc::Receiver<ControllerInput>) {
        let mut views = self.raft.views();
        let mut losses = self.shared.transport().connection_losses();
        let mut voter_check = tokio::time::interval(VOTER_CHECK);
        let mut inputs = Vec::with_capacity(INPUTS_PER_STEP);
        let clock = Arc::clone(&self.shared.settings.clock);
        loop {
            while let Some(action) = controller.poll_action() {
                self.act(action);
            }
            let due = controller.poll_timeout(clock.now()).unwrap_or_else(|| clock.now() + VOTER_CHECK);
            // What was heard counts before the time does: a controller that was held up must not
            // take its own pause for the silence of others.
            tokio::select! {
                biased;
                alive = self.raft.leadership_changed(self.leadership) => {
                    let leadership = self.raft.leadership();
                    if !alive || !leadership.is_me || leadership.term != self.leadership.term {
                        return;
                    }
                    self.leadership = leadership;
                }
                () = self.shared.stop.cancelled() => return,
                count = inbox.recv_many(&mut inputs, INPUTS_PER_STEP) => {
                    if count == 0 {
                        return;
                    }
                    for input in inputs.drain(..) {
                        self.take(&mut controller, input);
                    }
                }
                Some(done) = self.outcomes.recv() => self.take_done(&mut controller, done),
                Ok(loss) = losses.recv() => self.take(&mut controller, ControllerInput::ConnectionLost { node: loss.node }),
                changed = views.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let view = Arc::clone(&views.borrow_and_update());
                    controller.handle_state(clock.now(), view.state.clone());
                    self.check_voters(&controller);
                }
                _ = voter_check.tick() => self.check_voters(&controller),
                () = clock.sleep_until(due) => controller.handle_timeout(clock.now()),
            }
        }
    }

    fn take(&self, controller: &mut Controller, input: ControllerInput) {
        let now = self.shared.now();
        match input {
            ControllerInput::Heartbeat { node, incarnation, reply } => {
                controller.handle_heartbeat(now, &node, incarnation);
                // Whoever asked may have given up.
                reply.send(self.support(controller, &node, incarnation)).ok();
            }
            ControllerInput::Stopping { node, incarnation } => {
                controller.handle_stopped(now, &node, incarnation);
            }
            ControllerInput::Reports(reports) => controller.handle_reports(now, reports),
            ControllerInput::ConnectionLost { node } => controller.handle_connection_lost(now, &node),
            ControllerInput::Join { join, reply } => self.admit(*join, reply),
            ControllerInput::Propose { wish, reply } => {
                if let Wish::Resign { partition, epoch, node, .. } = &wish {
                    controller.handle_resigned(now, *partition, *epoch, node);
                }
                self.write_wish(wish, reply);
            }
        }
    }

    /// Said only here, between what was decided before the heartbeat and what is decided after it: a
    /// node that is just being declared dead is not told that it may go on.
    fn support(&self, controller: &Controller, node: &NodeId, incarnation: Incarnation) -> Support {
        let given = self.shared.support_given().filter(|_| controller.supports(node, incarnation));
        Support { given, version: controller.version() }
    }

    fn take_done(&mut self, controller: &mut Controller, done: Done) {
        let now = self.shared.now();
        match done {
            Done::Positions { node, asked, said } => {
                controller.handle_positions(now, (&node, said.incarnation), &asked, &said.positions);
            }
            Done::Probe { node, token, outcome } => controller.handle_probe(now, &node, token, outcome),
            // The state published by now has the entry in it: an entry is answered after it is applied.
            Done::Proposal { token, written: true } => {
                controller.handle_proposed(now, token, self.raft.view().state.clone());
            }
            Done::Proposal { token, written: false } => controller.handle_proposal_lost(now, token),
            Done::VoterStep => self.changing_voters = false,
        }
    }

    fn act(&self, action: Action) {
        match action {
            Action::AskPositions { node, partitions } => self.ask_positions(node, partitions),
            Action::Probe { node, token } => self.probe(node, token),
            Action::Propose { token, commands } => self.propose(token, commands),
        }
    }

    fn probe(&self, node: NodeId, token: ProbeToken) {
        let (shared, results) = (Arc::clone(self.shared), self.results.clone());
        let view = self.raft.view();
        let record = view.state.topology.node(&node).map(|record| (record.store, record.node_addr.clone()));
        self.shared.tracker.spawn(async move {
            let outcome = match record {
                Some((store, addr)) => probe(&shared, store, &addr).await,
                None => ProbeOutcome::TimedOut,
            };
            drop(results.send(Done::Probe { node, token, outcome }).await);
        });
    }

    /// Asks a node how much its replicas have. One that does not answer in time is not waited for.
    fn ask_positions(&self, node: NodeId, partitions: Asked) {
        let (shared, results) = (Arc::clone(self.shared), self.results.clone());
        let view = self.raft.view();
        let addr = view.state.topology.node(&node).map(|record| record.node_addr.clone());
        self.shared.tracker.spawn(async move {
            let partitions: Vec<_> = partitions.into_iter().collect();
            for asked in partitions.chunks(super::agent::REPORTS_MAX) {
                let asked = asked.iter().copied().collect();
                let said = match &addr {
                    _ if node == shared.node => Some(shared.positions(&asked).await),
                    Some(addr) => positions(&shared, &node, addr, &asked).await,
                    None => None,
                };
                let Some(said) = said else { return };
                let done = Done::Positions { node: node.clone(), asked, said };
                drop(results.send(done).await);
            }
        });
    }

    fn propose(&self, token: u64, commands: Vec<Command>) {
        let (shared, raft, results) = (Arc::clone(self.shared), self.raft.clone(), self.results.clone());
        self.shared.tracker.spawn(async move {
            let outcome = timed_propose(&shared, &raft, &commands).await;
            log_proposal(&commands, &outcome);
            drop(results.send(Done::Proposal { token, written: outcome.is_ok() }).await);
        });
    }

    fn write_wish(&self, wish: Wish, reply: oneshot::Sender<ProposeAnswer>) {
        let (shared, raft) = (Arc::clone(self.shared), self.raft.clone());
        self.shared.tracker.spawn(async move {
            let outcome = timed_propose(&shared, &raft, &[wish.into()]).await;
            let answer = match outcome {
                Ok(outcomes) => {
                    outcomes.into_iter().next().map_or(ProposeAnswer::Unknown, ProposeAnswer::Done)
                }
                Err(ProposeError::NotController) => ProposeAnswer::NoController,
                Err(_) => ProposeAnswer::Unknown,
            };
            drop(reply.send(answer));
        });
    }

    fn admit(&self, join: Join, reply: oneshot::Sender<JoinAnswer>) {
        let (shared, raft) = (Arc::clone(self.shared), self.raft.clone());
        self.shared.tracker.spawn(async move {
            let answer = admission::admit(&shared, &raft, join).await;
            drop(reply.send(answer));
        });
    }

    /// Brings the voters one step closer to what they should be.
    fn check_voters(&mut self, controller: &Controller) {
        if self.changing_voters {
            return;
        }
        if self.raft.is_changing() {
            self.end_change();
            return;
        }
        let topology = self.raft.view().state.topology.clone();
        if topology.cluster.is_none() {
            return;
        }
        let gone = controller.gone(self.shared.now());
        if let Some(successor) = self.abdication(&topology, &gone) {
            self.abdicate(successor);
            return;
        }
        let Some(step) = next_voter_step(&topology, &self.raft.voter_set(), &gone) else { return };
        if step == VoterStep::Demote(self.shared.store) || step == VoterStep::Remove(self.shared.store) {
            if let Some(successor) = self.successor(&topology) {
                self.abdicate(successor);
            }
            return;
        }
        self.changing_voters = true;
        tracing::info!(target: "clusterkit::controller", ?step, "changing the voters");
        let (raft, results) = (self.raft.clone(), self.results.clone());
        let node = step_node(&topology, step);
        self.shared.tracker.spawn(async move {
            if let Err(error) = raft.change(step, node).await {
                tracing::warn!(target: "clusterkit::controller", ?step, %error, "the voters were not changed; trying again");
            }
            drop(results.send(Done::VoterStep).await);
        });
    }

    /// A change of the voters that was begun is ended before anything else is.
    fn end_change(&mut self) {
        self.changing_voters = true;
        let (raft, results) = (self.raft.clone(), self.results.clone());
        self.shared.tracker.spawn(async move {
            if let Err(error) = raft.end_change().await {
                tracing::warn!(target: "clusterkit::controller", %error, "a change of the voters is not ended; trying again");
            }
            drop(results.send(Done::VoterStep).await);
        });
    }

    /// A controller that drains hands the control plane over first.
    fn abdication(&self, topology: &Topology, _gone: &BTreeSet<NodeId>) -> Option<StoreId> {
        let me = topology.node(&self.shared.node)?;
        if me.stage == Stage::Member { None } else { self.successor(topology) }
    }

    fn successor(&self, topology: &Topology) -> Option<StoreId> {
        let voters = self.raft.voter_set().voters;
        let fit = |store: &StoreId| {
            let node = topology.nodes.values().find(|node| node.store == *store);
            *store != self.shared.store
                && node.is_some_and(|node| node.is_live() && node.stage == Stage::Member)
        };
        voters.into_iter().find(fit)
    }

    fn abdicate(&mut self, successor: StoreId) {
        self.changing_voters = true;
        tracing::info!(target: "clusterkit::controller", %successor, "handing the control plane over");
        let (raft, results) = (self.raft.clone(), self.results.clone());
        self.shared.tracker.spawn(async move {
            if let Err(error) = raft.transfer_leadership(successor).await {
                tracing::warn!(target: "clusterkit::controller", %error, "the control plane was not handed over; trying again");
            }
            drop(results.send(Done::VoterStep).await);
        });
    }
}

fn step_node(topology: &Topology, step: VoterStep) -> Option<(NodeId, String)> {
    let VoterStep::AddLearner(store) = step else { return None };
    let node = topology.nodes.values().find(|node| node.store == store)?;
    Some((node.id.clone(), node.node_addr.clone()))
}

/// Asks the process at `addr` who it is.
async fn probe(shared: &Shared, store: StoreId, addr: &str) -> ProbeOutcome {
    let timeout = shared.settings.controller.detector.probe_timeout;
    match shared.transport().probe(addr, timeout).await {
        transport::ProbeOutcome::Answered(identity) if identity.store == store => {
            ProbeOutcome::Answered(identity.incarnation)
        }
        // It lives, though it takes no more connections just now.
        transport::ProbeOutcome::Declined { identity, .. } if identity.store == store => {
            ProbeOutcome::Answered(identity.incarnation)
        }
        // These say nothing of the node: the name is not known, or this side has no descriptor left.
        transport::ProbeOutcome::TimedOut | transport::ProbeOutcome::Unreachable(_) => ProbeOutcome::TimedOut,
        // Nobody listens there, or somebody else does: the process that was known is gone.
        transport::ProbeOutcome::Refused
        | transport::ProbeOutcome::Answered(_)
        | transport::ProbeOutcome::Declined { .. }
        | transport::ProbeOutcome::NotClusterKit { .. }
        | transport::ProbeOutcome::OtherCluster(_) => ProbeOutcome::Refused,
    }
}

async fn positions(shared: &Shared, node: &NodeId, addr: &str, asked: &Asked) -> Option<Positions> {
    let target = Target { addr: addr.to_owned(), node: Some(node.clone()) };
    let (body, timeout) = (message::encode(asked), shared.settings.controller.position_timeout);
    let answer = shared.transport().call(&target, Class::Control, kind::POSITIONS, body, timeout).await;
    message::decode(&answer.ok()?).ok()
}

pub(super) async fn timed_propose(
    shared: &Shared,
    raft: &RaftGroup,
    commands: &[Command],
) -> Result<Vec<Result<Applied, Rejected>>, ProposeError> {
    let start = shared.now();
    let written = tokio::time::timeout(CONTROLLER_TIMEOUT, raft.propose(commands)).await;
    let outcome = written.unwrap_or(Err(ProposeError::OutcomeUnknown));
    let took = shared.now().since(start);
    Counters::add(&shared.counters.proposals, 1);
    Counters::add(&shared.counters.proposal_micros, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    if outcome.is_err() {
        Counters::add(&shared.counters.proposals_failed, 1);
    }
    outcome
}

fn log_proposal(commands: &[Command], outcome: &Result<Vec<Result<Applied, Rejected>>, ProposeError>) {
    match outcome {
        Ok(outcomes) => {
            let refused = outcomes
                .iter()
                .zip(commands)
                .filter_map(|(outcome, command)| outcome.as_ref().err().map(|error| (command, error)));
            for (command, error) in refused {
                tracing::debug!(target: "clusterkit::controller", ?command, %error, "a command was refused");
            }
        }
        Err(error) => tracing::warn!(target: "clusterkit::controller", %error, "a proposal was lost"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::cluster::join_request;
    use super::super::message::JoinRefusal;
    use super::*;
    use crate::handle::ClusterKit;
    use crate::testing::{Cluster, PATIENCE};

    /// Asks the controller as another node would.
    async fn ask(controller: &ClusterKit, join: Join) -> JoinAnswer {
        let (reply, answer) = oneshot::channel();
        let input = ControllerInput::Join { join: Box::new(join), reply };
        controller.shared().controller_inbox.try_send(input).unwrap();
        tokio::time::timeout(CONTROLLER_TIMEOUT, answer).await.unwrap().unwrap()
    }

    fn is_formed(node: &ClusterKit) -> bool {
        node.shared().raft.get().is_some_and(|raft| raft.view().state.topology.cluster.is_some())
    }

    /// Looks every millisecond until `found` finds something.
    async fn soon<T>(mut found: impl FnMut() -> Option<T>) -> T {
        let looking = async {
            loop {
                match found() {
                    Some(found) => break found,
                    None => tokio::time::sleep(Duration::from_millis(1)).await, // tidy: the clock is paused
                }
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.expect("it takes far less")
    }

    /// The controller of three founders, of which the third died after the vote: it waits for that one
    /// to register.
    async fn waiting_for_the_third() -> (Cluster, ClusterKit) {
        let mut cluster = Cluster::new();
        for (from, to) in [(1, 2), (1, 3), (2, 3)].into_iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
            let latency = Duration::from_millis(5);
            cluster.net().delay(&format!("node-{from}"), &format!("node-{to}"), latency);
        }
        cluster.launch(1..=3, |builder| builder.expect(3)).await;
        let voted = |number: u32| cluster.node(number).shared().identity.borrow().cluster.is_some();
        soon(|| (1..=3).all(voted).then_some(())).await;
        cluster.net().kill("node-3");
        let leads = |number: &u32| {
            cluster.node(*number).shared().raft.get().is_some_and(|raft| raft.leadership().is_me)
        };
        let controller = soon(|| [1, 2].into_iter().find(leads)).await;
        let controller = cluster.node(controller).clone();
        // The two that hear each other have registered.
        tokio::time::sleep(Duration::from_secs(1)).await; // tidy: the clock is paused
        assert!(!is_formed(&controller));
        (cluster, controller)
    }

    #[tokio::test(start_paused = true)]
    async fn a_founder_that_will_never_do_is_told_so_before_the_cluster_forms() {
        let (cluster, controller) = waiting_for_the_third().await;
        let third = join_request(cluster.node(3).shared());
        let metadata = (0..65).map(|number| (number.to_string(), String::new())).collect();
        let invalid = Registration { metadata, ..third.registration.clone() };
        let reason = clusterkit_core::control::InvalidReason::Metadata;
        let refused = JoinAnswer::Refused(JoinRefusal::Rejected(Rejected::Invalid { reason }));
        assert_eq!(ask(&controller, Join { registration: invalid, ..third.clone() }).await, refused);
        let (found, wanted) = (third.cluster_name.clone(), "other".to_owned());
        let refused = JoinAnswer::Refused(JoinRefusal::OtherName { found, wanted: wanted.clone() });
        assert_eq!(ask(&controller, Join { cluster_name: wanted, ..third.clone() }).await, refused);
        let refused = JoinAnswer::Refused(JoinRefusal::OtherPartitionCount { found: 64, wanted: 32 });
        assert_eq!(ask(&controller, Join { partition_count: Some(32), ..third.clone() }).await, refused);
        let stranger = Registration { store: StoreId(7), ..third.registration.clone() };
        let answer = ask(&controller, Join { registration: stranger, ..third.clone() }).await;
        assert_eq!(answer, JoinAnswer::TryAgain);
        assert!(!is_formed(&controller));
        assert_eq!(ask(&controller, third).await, JoinAnswer::TryAgain);
        cluster.until(1, "formed of three", |topology| topology.nodes.len() == 3).await;
    }

    /// The third comes back, and all of them become members of one cluster.
    async fn forms_of_three(cluster: &mut Cluster) {
        cluster.kill(3).await;
        cluster.launch([3], |builder| builder).await;
        for number in 1..=3 {
            let ready = tokio::time::timeout(PATIENCE, cluster.ready(number)).await;
            ready.expect("it takes far less").unwrap();
            cluster.until(number, "formed of three", |topology| topology.nodes.len() == 3).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn founders_that_make_no_cluster_are_not_written() {
        let (mut cluster, controller) = waiting_for_the_third().await;
        let raft = controller.shared().raft.get().unwrap().clone();
        // The third founder's store under the name of the first: no cluster has two nodes of one name.
        let forged = join_request(cluster.node(3).shared());
        let node = cluster.node(1).node_id().clone();
        let forged = Join { registration: Registration { node, ..forged.registration }, ..forged };
        let before = raft.stats().log_index_last;
        assert_eq!(ask(&controller, forged).await, JoinAnswer::TryAgain);
        tokio::time::sleep(Duration::from_millis(100)).await; // tidy: the clock is paused
        assert_eq!(raft.stats().log_index_last, before);
        assert!(!is_formed(&controller));
        forms_of_three(&mut cluster).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_entry_that_is_lost_is_written_again() {
        let (mut cluster, controller) = waiting_for_the_third().await;
        let third = join_request(cluster.node(3).shared());
        // It is written, and reaches nobody.
        cluster.net().partition(&[&["node-1"], &["node-2"]]);
        assert_eq!(ask(&controller, third).await, JoinAnswer::TryAgain);
        tokio::time::sleep(Duration::from_secs(2)).await; // tidy: the clock is paused
        assert!(!is_formed(&controller));
        cluster.net().heal();
        forms_of_three(&mut cluster).await;
    }
}
