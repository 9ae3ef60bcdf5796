//! The controller: who lives, who leads, who moves. It decides by what it sees, which may be old or wrong; safety
//! must not rest on it. What it knows is gone when another takes over, while what it proposed may still arrive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::control::{Command, LivenessChange, MemberStatus};
use clusterkit_core::handoff::Position;
use clusterkit_core::id::{Epoch, Incarnation, NodeId, PartitionId, PartitionVersion};
use clusterkit_core::time::Instant;
use clusterkit_core::topology::{Liveness, Move, Node, Partition, Topology};

use super::coverage::Step;
use super::network::CONTROL;
use super::node::{index, name};
use super::world::{Event, World};

/// How long an order to drop a copy may take on its way.
const DROP_MAX: Duration = Duration::from_secs(3);
/// How long an election waits for candidates to say how much they have.
const POSITION_PATIENCE: Duration = Duration::from_millis(200);
/// After an election that brought nothing.
const QUESTION_PAUSE: Duration = Duration::from_millis(500);
/// How long a leader that stalled is passed over.
const AVOID_TIME: Duration = Duration::from_secs(2);
/// A transfer that takes longer is called off.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(4);

/// What the present controller knows.
#[derive(Debug, Default)]
pub(super) struct Controller {
    term: u64,
    seated: bool,
    /// By node, and since when for a new controller.
    heard: Vec<Instant>,
    questions: BTreeMap<PartitionId, Question>,
    avoided: BTreeMap<(PartitionId, usize), Instant>,
    transfers: BTreeMap<(PartitionId, PartitionVersion), Instant>,
}

/// An election under way.
#[derive(Debug)]
struct Question {
    epoch: Epoch,
    asked_at: Instant,
    votes: BTreeMap<NodeId, (Incarnation, Position)>,
}

/// How much a node has, as it says itself.
#[derive(Debug)]
pub(super) struct Vote {
    node: usize,
    incarnation: Incarnation,
    partition: PartitionId,
    /// The epoch that it knows to have ended.
    epoch: Epoch,
    position: Option<Position>,
}

impl Controller {
    pub(super) fn is_seated(&self) -> bool {
        self.seated
    }
}

// Terms.
impl World {
    pub(super) fn seat_controller(&mut self) {
        let term = self.controller.term + 1;
        let heard = vec![self.now; self.nodes.len()];
        self.controller = Controller { term, seated: true, heard, ..Controller::default() };
        self.tell(None, || format!("controller of term {term} begins"));
        self.after(self.settings.look_pause, Event::Controller { term });
    }

    /// The controller falls; another one takes over after a while.
    pub(super) fn unseat_controller(&mut self) {
        let delay = self.chance.millis(200, 2_000);
        self.controller.seated = false;
        self.controller.term += 1;
        let term = self.controller.term;
        self.after(delay, Event::Controller { term });
    }

    pub(super) fn controller_tick(&mut self, term: u64) {
        if term != self.controller.term {
            return;
        }
        if !self.controller.seated {
            return self.seat_controller();
        }
        self.after(self.settings.look_pause, Event::Controller { term });
        self.hear_heartbeats();
        let topology = Arc::clone(&self.control.topology);
        let mut commands = Vec::from_iter(self.verdicts(&topology));
        for record in &topology.partitions {
            commands.extend(self.decide(&topology, record));
        }
        for command in commands {
            self.propose_commands(vec![command]);
        }
    }

    fn decide(&mut self, topology: &Topology, record: &Arc<Partition>) -> Option<Command> {
        if record.leader.is_none() {
            return self.elect(topology, record);
        }
        self.controller.questions.remove(&record.id);
        if record.transfer.is_some() {
            return self.watch_transfer(topology, record);
        }
        self.advance_move(topology, record)
    }
}

// Life and death.
impl World {
    fn hear_heartbeats(&mut self) {
        let (now, loss) = (self.now, self.network.loss_permille);
        for node in 0..self.nodes.len() {
            let state = &self.nodes[node];
            let beats = state.replicas().is_some() && state.paused_until <= now;
            if beats && self.network.is_open(now, node, CONTROL) && !self.chance.permille(loss) {
                self.controller.heard[node] = now;
            }
        }
    }

    fn verdicts(&mut self, topology: &Topology) -> Option<Command> {
        let now = self.now;
        let mut changes = Vec::new();
        for node in topology.nodes.values() {
            let heard_at = self.controller.heard[index(&node.id)];
            let is_heard = heard_at == now;
            let liveness = match node.liveness {
                Liveness::Alive if now.since(heard_at) >= self.settings.dead_after => Liveness::Dead,
                Liveness::Joining | Liveness::Dead | Liveness::Suspect if is_heard => Liveness::Alive,
                _ => continue,
            };
            changes.push(LivenessChange { node: node.id.clone(), incarnation: node.incarnation, liveness });
        }
        (!changes.is_empty()).then_some(Command::SetLiveness { changes })
    }

    /// A verdict by mistake.
    pub(super) fn declare_dead(&mut self, node: usize) {
        let Some(record) = self.control.topology.node(&name(node)) else { return };
        let (node, incarnation) = (record.id.clone(), record.incarnation);
        let change = LivenessChange { node, incarnation, liveness: Liveness::Dead };
        self.propose_commands(vec![Command::SetLiveness { changes: vec![change] }]);
    }
}

// Elections.
impl World {
    fn elect(&mut self, topology: &Topology, record: &Arc<Partition>) -> Option<Command> {
        let candidates: Vec<NodeId> =
            record.in_sync.iter().filter(|node| topology.is_live(node)).cloned().collect();
        let (partition, version) = (record.id, record.version);
        let is_unclean = record.in_sync == record.tainted;
        let electable: Vec<_> = candidates.iter().filter(|node| record.is_electable(node)).cloned().collect();
        if is_unclean && candidates.len() < record.in_sync.len() || !is_unclean && electable.is_empty() {
            return None;
        }
        // Any candidate is safe, whatever the others have.
        if !is_unclean && !self.quiet && self.chance.permille(50) {
            let leader = self.chance.pick(&electable)?;
            return Some(Command::Elect { partition, version, leader, by_position: false });
        }
        if let Some(taint) = self.taint(record) {
            return Some(taint);
        }
        if !self.has_asked(record) {
            self.ask_positions(record, &candidates);
            return None;
        }
        let leader = self.furthest(topology, record, if is_unclean { &candidates } else { &electable })?;
        if is_unclean {
            let statuses = self.statuses(record);
            return Some(Command::ElectUnclean { partition, version, leader, statuses });
        }
        Some(Command::Elect { partition, version, leader, by_position: true })
    }

    /// A member that said that it is damaged cannot lead.
    fn taint(&self, record: &Partition) -> Option<Command> {
        let question = self.controller.questions.get(&record.id)?;
        let mut votes = question.votes.iter();
        let (node, (incarnation, _)) =
            votes.find(|(node, (_, position))| position.damaged && record.is_electable(node))?;
        let (partition, version, node, incarnation) = (record.id, record.version, node.clone(), *incarnation);
        Some(Command::Taint { partition, version, node, incarnation })
    }

    fn has_asked(&self, record: &Partition) -> bool {
        let stands = |question: &Question| {
            question.epoch == record.epoch
                && self.now.since(question.asked_at) < POSITION_PATIENCE + QUESTION_PAUSE
        };
        self.controller.questions.get(&record.id).is_some_and(stands)
    }

    fn ask_positions(&mut self, record: &Partition, candidates: &[NodeId]) {
        let (partition, epoch, term) = (record.id, record.epoch, self.controller.term);
        let question = Question { epoch, asked_at: self.now, votes: BTreeMap::new() };
        self.controller.questions.insert(partition, question);
        for node in candidates.iter().map(index) {
            let arrivals = self.network.arrivals(&mut self.chance, self.now, (CONTROL, node));
            for delay in arrivals.into_iter().flatten() {
                self.after(delay, Event::AskPosition { node, term, partition, epoch });
            }
        }
    }

    /// A node says how much it has, once it knows that the epoch has ended.
    pub(super) fn tell_position(&mut self, node: usize, term: u64, partition: PartitionId, epoch: Epoch) {
        let Some(replicas) = self.nodes[node].replicas() else { return };
        let known = replicas.topology().partition(partition).map(|record| record.epoch);
        let position = replicas.position(partition);
        let incarnation =
            self.nodes[node].process.as_ref().map_or(Incarnation(0), |process| process.incarnation);
        if known.is_none_or(|known| known != epoch) {
            return self.refresh(node);
        }
        let vote = Vote { node, incarnation, partition, epoch, position };
        if let [Some(delay), _] = self.network.arrivals(&mut self.chance, self.now, (node, CONTROL)) {
            self.after(delay, Event::Position { term, vote: Box::new(vote) });
        }
    }

    pub(super) fn hear_position(&mut self, term: u64, vote: &Vote) {
        if term != self.controller.term {
            return;
        }
        let question = self.controller.questions.get_mut(&vote.partition);
        if let Some(question) = question.filter(|question| question.epoch == vote.epoch)
            && let Some(position) = vote.position
        {
            question.votes.insert(name(vote.node), (vote.incarnation, position));
        }
    }

    /// What the members said of themselves.
    fn statuses(&self, record: &Partition) -> BTreeMap<NodeId, MemberStatus> {
        let votes = self.controller.questions.get(&record.id).map(|question| &question.votes);
        let status = |(node, (incarnation, position)): (&NodeId, &(Incarnation, Position))| {
            (node.clone(), MemberStatus { incarnation: *incarnation, position: Some(*position) })
        };
        votes.into_iter().flatten().map(status).collect()
    }

    /// The candidate with the most, once all have answered or the time is up; where all of them are tainted, only
    /// when all have.
    fn furthest(&self, topology: &Topology, record: &Partition, candidates: &[NodeId]) -> Option<NodeId> {
        let question = self.controller.questions.get(&record.id)?;
        let is_unclean = record.in_sync == record.tainted;
        let of_run = |node: &&NodeId| {
            let known = topology.node(node).map(|node| node.incarnation);
            question.votes.get(*node).filter(|(incarnation, _)| Some(*incarnation) == known)
        };
        let votes: Vec<_> = candidates.iter().filter_map(|node| Some((node, of_run(&node)?.1))).collect();
        let is_complete = votes.len() == candidates.len();
        let is_late = self.now.since(question.asked_at) >= POSITION_PATIENCE;
        if !is_complete && (is_unclean || !is_late) {
            return None;
        }
        let avoided = |node: &NodeId| {
            self.controller.avoided.get(&(record.id, index(node))).is_some_and(|until| *until > self.now)
        };
        let sound = votes.iter().filter(|(_, position)| !position.damaged || is_unclean);
        let best = sound.max_by_key(|(node, position)| {
            (!position.damaged, !avoided(node), position.last_epoch, position.log_end)
        });
        best.map(|(node, _)| NodeId::clone(node))
    }
}

// Stalls, transfers and moves.
impl World {
    /// Rule F6: nothing is committed under this leader any more.
    pub(super) fn hear_stalled(
        &mut self,
        from: usize,
        partition: PartitionId,
        (version, epoch): (PartitionVersion, Epoch),
    ) {
        self.cover(Step::Stalled);
        self.controller.avoided.insert((partition, from), self.now + AVOID_TIME);
        self.propose_commands(vec![Command::Revoke { partition, version, epoch }]);
    }

    fn watch_transfer(&mut self, topology: &Topology, record: &Partition) -> Option<Command> {
        let (partition, version) = (record.id, record.version);
        let since = *self.controller.transfers.entry((partition, version)).or_insert(self.now);
        let target = record.transfer.as_ref()?;
        let is_lost = !record.is_electable(target) || !topology.is_live(target);
        let is_late = self.now.since(since) >= TRANSFER_PATIENCE;
        let by_chance = !self.quiet && self.chance.permille(10);
        if is_lost || is_late || by_chance {
            self.controller.transfers.clear();
            return Some(Command::CancelTransfer { partition, version });
        }
        None
    }

    fn advance_move(&mut self, topology: &Topology, record: &Partition) -> Option<Command> {
        let (partition, version) = (record.id, record.version);
        let Some(movement) = &record.movement else { return self.tidy_copies(topology, record) };
        let hopeless = !record.in_sync.contains(&movement.target) && !topology.is_live(&movement.target);
        let by_chance = !self.quiet && self.chance.permille(5);
        if hopeless && self.chance.permille(100) || by_chance {
            return Some(Command::AbortMove { partition, version });
        }
        if !record.in_sync.contains(&movement.target) {
            return None;
        }
        if record.leader == movement.source && record.leader.is_some() {
            let target = movement.target.clone();
            let fits = record.is_electable(&target) && topology.is_live(&target);
            return fits.then_some(Command::BeginTransfer { partition, version, target });
        }
        Some(Command::FinishMove { partition, version })
    }

    /// Copies above the wanted number go, missing ones come.
    fn tidy_copies(&mut self, topology: &Topology, record: &Partition) -> Option<Command> {
        let (partition, version) = (record.id, record.version);
        let wanted = self.settings.copies as usize;
        if record.replicas.len() > wanted {
            let spare = record.followers().next()?.clone();
            return Some(Command::DropReplica { partition, version, node: spare });
        }
        if record.replicas.len() < wanted {
            let fits =
                |node: &&Arc<Node>| !record.holds(&node.id) && node.is_live() && node.is_placement_target();
            let target = topology.nodes.values().find(fits)?.id.clone();
            return Some(Command::StartMove { partition, version, movement: Move { source: None, target } });
        }
        self.replace_gone(topology, record)
    }

    /// The copy of a node that has been dead for long comes to another one.
    fn replace_gone(&mut self, topology: &Topology, record: &Partition) -> Option<Command> {
        let is_gone = |node: &NodeId| {
            !topology.is_live(node)
                && self.now.since(self.controller.heard[index(node)]) >= self.settings.gone_after
        };
        let source = record.followers().find(|node| is_gone(node))?.clone();
        let fits =
            |node: &&Arc<Node>| !record.holds(&node.id) && node.is_live() && node.is_placement_target();
        let target = topology.nodes.values().find(fits)?.id.clone();
        let (partition, version) = (record.id, record.version);
        Some(Command::StartMove { partition, version, movement: Move { source: Some(source), target } })
    }

    /// A copy is dropped and comes back at once, as another one.
    pub(super) fn renew_copy(&mut self) {
        let topology = Arc::clone(&self.control.topology);
        let Some(record) = self.chance.pick(&topology.partitions) else { return };
        let followers: Vec<_> = record.followers().cloned().collect();
        let Some(node) = self.chance.pick(&followers) else { return };
        // Nobody drops a copy that is sound while another one is known to be lost.
        if self.nodes.iter().any(|node| node.lost_something) || !record.tainted.is_empty() {
            return;
        }
        self.drops_until = self.now + DROP_MAX;
        let (partition, version) = (record.id, record.version);
        let movement = Move { source: None, target: node.clone() };
        let drop = Command::DropReplica { partition, version, node };
        let start = Command::StartMove { partition, version: version.next(), movement };
        self.propose_commands(vec![drop, start]);
    }

    /// A copy begins to move.
    pub(super) fn start_move(&mut self) {
        let topology = Arc::clone(&self.control.topology);
        let Some(record) = self.chance.pick(&topology.partitions) else { return };
        let holders: Vec<_> = record.replicas.iter().map(|replica| replica.node.clone()).collect();
        let free: Vec<_> = topology.nodes.keys().filter(|node| !record.holds(node)).cloned().collect();
        let Some(target) = self.chance.pick(&free) else { return };
        let source = if self.chance.permille(100) { None } else { self.chance.pick(&holders) };
        let (partition, version) = (record.id, record.version);
        let movement = Move { source, target };
        self.propose_commands(vec![Command::StartMove { partition, version, movement }]);
    }

    /// A leader is to hand over.
    pub(super) fn start_transfer(&mut self) {
        let topology = Arc::clone(&self.control.topology);
        let Some(record) = self.chance.pick(&topology.partitions) else { return };
        let followers: Vec<_> = record.followers().cloned().collect();
        let Some(target) = self.chance.pick(&followers) else { return };
        let (partition, version) = (record.id, record.version);
        self.propose_commands(vec![Command::BeginTransfer { partition, version, target }]);
    }
}
