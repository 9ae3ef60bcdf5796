//! What every member does for the cluster: it says that it lives, carries out what the topology asks of
//! it, and says how far it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::handoff::{Fact, Report};
use clusterkit_core::id::{PartitionId, TopologyVersion};
use clusterkit_core::time::Instant;
use clusterkit_core::topology::{Node, Topology};
use clusterkit_wire::hello::Class;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::controller::ControllerInput;
use super::message::{self, Heartbeat, HeartbeatAnswer, Standing, kind};
use super::service;
use super::shared::{Shared, StopReason};
use super::stages::{StageInput, StageRunner};
use crate::transport::Target;

/// Reports of one message.
pub(super) const REPORTS_MAX: usize = 512;
/// Messages of reports at a time; what is left is told with the next one.
const REPORT_MESSAGES_MAX: usize = 8;

/// How long a node that stops waits for others to lead what it led: never, when it is the last one.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// How soon it says so again.
const GOODBYE_REPEAT: Duration = Duration::from_millis(50);
/// Answers about support that wait to be looked at; their senders drop what finds no room.
pub(super) const SUPPORT_INBOX_MAX: usize = 16;
/// Answers about support that wait for the topology to catch up.
const SUPPORT_PENDING_MAX: usize = 16;
/// Inputs taken before reports are sent.
const INPUTS_PER_STEP: usize = 128;

/// The control plane supports this run until then, as of this version of the topology.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SupportHeard {
    until: Instant,
    version: TopologyVersion,
}

/// What reaches the agent.
#[derive(Debug)]
pub(super) struct Inboxes {
    pub(super) stages: mpsc::Receiver<StageInput>,
    pub(super) support: mpsc::Receiver<SupportHeard>,
}

/// Runs until the node stops.
pub(super) async fn run(shared: Arc<Shared>, runner: StageRunner, inboxes: Inboxes) {
    let stop = shared.stop.clone();
    let (reports, claims, pending) = (Reporter::new(), Reporter::new(), BTreeMap::new());
    let mut agent = Agent { shared, runner, reports, claims, pending, beats: 0 };
    tokio::select! {
        () = agent.run(inboxes) => {}
        () = stop.cancelled() => {}
    }
    agent.shared.leases.support().end();
}

struct Agent {
    shared: Arc<Shared>,
    runner: StageRunner,
    reports: Reporter,
    /// The program's own: however much the stages have to say, these come with every beat.
    claims: Reporter,
    /// Support that counts once the topology is as new as the answer that gave it.
    pending: BTreeMap<TopologyVersion, Instant>,
    beats: usize,
}

impl Agent {
    /// What keeps this node alive in the eyes of the others comes first: hooks may say more than there
    /// is time to hear.
    async fn run(&mut self, mut inboxes: Inboxes) {
        let shared = Arc::clone(&self.shared);
        let clock = Arc::clone(&shared.settings.clock);
        let mut topology = self.shared.topology.subscribe();
        topology.mark_changed();
        let mut beat = tokio::time::interval(self.shared.settings.controller.detector.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut inputs = Vec::with_capacity(INPUTS_PER_STEP);
        loop {
            let due = self.runner.stages().poll_timeout();
            let timeout = async {
                match due {
                    Some(due) => clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = topology.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let newer = Arc::clone(&topology.borrow_and_update());
                    self.adopt(newer);
                }
                Some(support) = inboxes.support.recv() => self.note_support(support),
                _ = beat.tick() => self.beat(),
                () = timeout => self.runner.handle_timeout(),
                () = shared.claims.changed() => {}
                count = inboxes.stages.recv_many(&mut inputs, INPUTS_PER_STEP) => {
                    if count == 0 || inputs.drain(..).any(|input| !self.take(input)) {
                        return;
                    }
                }
            }
            self.runner.publish();
            self.report();
            look_at_myself(&self.shared);
        }
    }

    fn adopt(&mut self, topology: Arc<Topology>) {
        let version = topology.version;
        self.runner.handle_topology(topology);
        self.shared.claims.retain();
        // Only now: every lease that this version ends is ended.
        let later = self.pending.split_off(&TopologyVersion(version.0 + 1));
        let counts = std::mem::replace(&mut self.pending, later);
        if let Some(until) = counts.into_values().max() {
            self.extend(until);
        }
    }

    /// Takes an input; `false` when the node cannot go on.
    fn take(&mut self, input: StageInput) -> bool {
        match self.runner.handle(input) {
            Ok(()) => true,
            Err(error) => {
                self.shared.unwanted.send_replace(Some(StopReason::Failed(error.into())));
                false
            }
        }
    }

    fn note_support(&mut self, heard: SupportHeard) {
        let SupportHeard { until, version } = heard;
        if version <= self.shared.adopted.borrow().version {
            self.extend(until);
            return;
        }
        let known = self.pending.entry(version).or_insert(until);
        *known = until.max(*known);
        if self.pending.len() > SUPPORT_PENDING_MAX {
            self.pending.pop_last();
        }
    }

    fn extend(&self, until: Instant) {
        let support = self.shared.leases.support();
        let lapsed = support.check(self.shared.now()).is_err();
        support.extend(until);
        if lapsed {
            self.shared.leases_changed.send_modify(|count| *count += 1);
        }
    }

    /// Says that the node lives, and everything that the controller has not shown to have heard.
    fn beat(&mut self) {
        self.reports.say_again();
        self.claims.say_again();
        self.runner.handle_beat();
        if self.runner.is_sealed_for_good() {
            return;
        }
        self.support_myself();
        say_alive(&self.shared, self.beats);
        self.beats = self.beats.wrapping_add(1);
    }

    /// The controller is supported by the majority that answered it.
    fn support_myself(&mut self) {
        let Some(raft) = self.shared.raft.get() else { return };
        let now = self.shared.now();
        if let Some(support) = self.shared.support_given() {
            let version = raft.view().state.topology.version;
            self.note_support(SupportHeard { until: now + support, version });
        }
    }

    fn report(&mut self) {
        let (node, incarnation) = (self.shared.node.clone(), self.shared.incarnation());
        let claim = |(partition, fact)| Report { node: node.clone(), incarnation, partition, fact };
        let mut news = self.claims.news(self.shared.claims.facts().into_iter().map(claim));
        news.extend(self.reports.news(self.runner.stages().reports()));
        for reports in news.chunks(REPORTS_MAX) {
            let input = ControllerInput::Reports(reports.to_vec());
            tell_controller(&self.shared, kind::REPORTS, &reports, input);
        }
    }
}

/// What was said, so that each fact is said once, and again from beat to beat: everything in turn,
/// however much there is that the controller does not wait for.
#[derive(Debug)]
struct Reporter {
    said: BTreeMap<PartitionId, Vec<Fact>>,
    /// Where saying it again goes on.
    next: PartitionId,
}

impl Reporter {
    fn new() -> Self {
        Self { said: BTreeMap::new(), next: PartitionId(0) }
    }

    /// What of `reports` is to be said now, as much as goes at a time.
    fn news(&mut self, reports: impl Iterator<Item = Report>) -> Vec<Report> {
        let is_said = |report: &Report| {
            self.said.get(&report.partition).is_some_and(|facts| facts.contains(&report.fact))
        };
        let news: Vec<_> =
            reports.filter(|report| !is_said(report)).take(REPORTS_MAX * REPORT_MESSAGES_MAX).collect();
        for report in &news {
            self.said.entry(report.partition).or_default().push(report.fact.clone());
        }
        news
    }

    /// Forgets what was said, as much as goes at a time, beginning where it ended the last time.
    fn say_again(&mut self) {
        let mut forgotten = 0;
        for _ in 0..2 {
            while let Some((partition, facts)) = self.said.range(self.next..).next() {
                if forgotten >= REPORTS_MAX * REPORT_MESSAGES_MAX {
                    return;
                }
                forgotten += facts.len();
                let partition = *partition;
                self.next = partition;
                self.said.remove(&partition);
            }
            self.next = PartitionId(0);
        }
    }
}

fn heartbeat(shared: &Shared) -> Heartbeat {
    Heartbeat { node: shared.node.clone(), incarnation: shared.incarnation() }
}

/// The controller itself is watched by nobody but the others' elections.
fn say_alive(shared: &Arc<Shared>, beats: usize) {
    let Some(target) = hearer(shared, beats) else { return };
    let body = message::encode(&heartbeat(shared));
    let timeout = shared.settings.controller.detector.dead_after;
    let shared = Arc::clone(shared);
    let sent = shared.now();
    shared.clone().tracker.spawn(async move {
        let answer = shared.transport().call(&target, Class::Control, kind::HEARTBEAT, body, timeout).await;
        let answer: Option<HeartbeatAnswer> = answer.ok().and_then(|body| message::decode(&body).ok());
        if let Some(answer) = answer.filter(|answer| answer.in_charge) {
            shared.note_controller_backed();
            shared.note_standing(answer.standing);
            if let Some(support) = answer.support.filter(|_| answer.standing == Standing::Known) {
                let heard = SupportHeard { until: sent + support, version: answer.version };
                // The next beat brings another one.
                shared.support_inbox.try_send(heard).ok();
            }
        }
    });
}

/// Waits until user code has released what it held, as far as that goes in time: what is not is called
/// again when the node starts next.
pub(super) async fn release(shared: &Shared) {
    let (mut adopted, mut stages) = (shared.adopted.subscribe(), shared.stages.subscribe());
    let holds_nothing =
        |topology: &Arc<Topology>| !topology.partitions.iter().any(|record| record.holds(&shared.node));
    let released = async {
        // Whoever ordered it may know sooner than this node that nothing is left here: only the topology
        // that it has adopted asks for the last releases.
        drop(adopted.wait_for(holds_nothing).await);
        drop(stages.wait_for(|view| view.is_released).await);
    };
    let patience = shared.settings.hooks.release_deadline;
    if tokio::time::timeout(patience, released).await.is_err() {
        tracing::warn!(target: "clusterkit::hooks", "leaving although not everything is released");
    }
}

/// Ends every lease of this node and seals what it leads, as far as that goes in time.
pub(super) async fn seal(shared: &Shared) {
    let (sealed, done) = oneshot::channel();
    let asked = async {
        if shared.stage_inbox.send(StageInput::Stop { sealed }).await.is_ok() {
            done.await.ok();
        }
    };
    let patience = shared.settings.hooks.seal_deadline + shared.settings.hooks.cancel_grace;
    if tokio::time::timeout(patience, asked).await.is_err() {
        tracing::warn!(target: "clusterkit::hooks", "stopping although not everything that this node leads is sealed");
    }
}
/// Whom to tell that this node lives: the controller, `None` when that is this node. A node that is
/// cut out of the group is not told who leads it next, so without an answer each other member is
/// asked in turn.
fn hearer(shared: &Shared, beats: usize) -> Option<Target> {
    let known = shared.controller();
    if let Some(target) = known.clone().filter(|_| beats.is_multiple_of(2) || shared.has_controller()) {
        return target;
    }
    let topology = shared.topology();
    let others: Vec<_> = topology.nodes.values().filter(|node| node.id != shared.node).collect();
    let other = others.get(beats / 2 % others.len().max(1));
    let target = |node: &&Arc<Node>| Target { addr: node.node_addr.clone(), node: Some(node.id.clone()) };
    other.map(target).or(known.flatten())
}

/// A node that its own topology says has left need not wait to be told.
fn look_at_myself(shared: &Shared) {
    let standing = shared.raft.get().map(|raft| service::standing(&raft.view(), &heartbeat(shared)));
    if standing == Some(Standing::Left) {
        shared.note_standing(Standing::Left);
    }
}

/// Tells the controller that this node stops, and waits a moment for others to lead what it led.
pub(super) async fn say_goodbye(shared: &Arc<Shared>) {
    let mut topology = shared.topology.subscribe();
    let alone = !shared.topology().nodes.values().any(|node| node.id != shared.node && node.is_live());
    if alone {
        return;
    }
    let leads = |topology: &Arc<Topology>| {
        topology.partitions.iter().any(|record| record.leader.as_ref() == Some(&shared.node))
    };
    let passed_on = async {
        while leads(&topology.borrow_and_update()) {
            let beat = heartbeat(shared);
            let input = ControllerInput::Stopping { node: beat.node.clone(), incarnation: beat.incarnation };
            tell_controller(shared, kind::STOPPING, &beat, input);
            // A new controller may not know yet that it is one: say it again.
            drop(tokio::time::timeout(GOODBYE_REPEAT, topology.changed()).await);
        }
    };
    if tokio::time::timeout(GOODBYE_TIMEOUT, passed_on).await.is_err() {
        tracing::warn!(target: "clusterkit::node", "stopping while this node still leads partitions; the others will find out");
    }
}

/// Sends a fact to wherever the controller is. Lost ones are sent again at the next beat.
fn tell_controller<T: Serialize>(shared: &Arc<Shared>, message_kind: u8, body: &T, input: ControllerInput) {
    match shared.controller() {
        None => {}
        Some(None) => drop(shared.controller_inbox.try_send(input)),
        Some(Some(target)) => {
            let sent =
                shared.transport().notify(&target, Class::Control, message_kind, message::encode(body));
            if let Err(error) = sent {
                tracing::debug!(target: "clusterkit::membership", %error, "the controller was not told");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clusterkit_core::id::{Epoch, Incarnation, NodeId};

    use super::*;

    /// More than is said at a time.
    const MANY: u32 = (REPORTS_MAX * REPORT_MESSAGES_MAX) as u32 + 500;

    fn report(partition: u32, epoch: u64) -> Report {
        let node = NodeId::new("node-1").expect("an id");
        let fact = Fact::Activated { epoch: Epoch(epoch) };
        Report { node, incarnation: Incarnation(1), partition: PartitionId(partition), fact }
    }

    fn said(reporter: &mut Reporter, reports: impl Iterator<Item = Report>) -> Vec<u32> {
        reporter.news(reports).iter().map(|report| report.partition.0).collect()
    }

    #[test]
    fn each_fact_is_said_once_between_two_beats() {
        let mut reporter = Reporter::new();
        let facts = || (0..3).map(|partition| report(partition, 1));
        assert_eq!(said(&mut reporter, facts()), [0, 1, 2]);
        assert!(said(&mut reporter, facts()).is_empty());
        assert_eq!(said(&mut reporter, facts().chain([report(1, 2)])), [1]);
        reporter.say_again();
        assert_eq!(said(&mut reporter, facts()), [0, 1, 2]);
    }

    /// A controller that does not wait for some facts must hear the others.
    #[test]
    fn facts_that_nobody_waits_for_do_not_silence_the_rest() {
        let mut reporter = Reporter::new();
        let facts = || (0..MANY).map(|partition| report(partition, 1));
        let first = said(&mut reporter, facts());
        let rest = said(&mut reporter, facts());
        assert_eq!(first.into_iter().chain(rest).collect::<Vec<_>>(), (0..MANY).collect::<Vec<_>>());
        let newcomer = || facts().chain([report(MANY, 1)]);
        assert_eq!(said(&mut reporter, newcomer()), [MANY]);
        let mut again = std::collections::BTreeSet::new();
        for _ in 0..2 {
            reporter.say_again();
            again.extend(said(&mut reporter, newcomer()));
        }
        assert_eq!(again.len(), MANY as usize + 1, "two beats are enough for all of them");
    }
}
