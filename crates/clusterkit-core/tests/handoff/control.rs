//! The control plane: the log, and the node that is its controller for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use clusterkit_core::control::{Action, Applied, Command, Controller, Registration};
use clusterkit_core::handoff::{Position, Report};
use clusterkit_core::id::{ClusterId, Incarnation, NodeId, PartitionId, PartitionVersion};
use clusterkit_core::member::{ProbeOutcome, ProbeToken};
use clusterkit_core::time::Instant;
use clusterkit_core::topology::{Cluster, ClusterConfig};

use crate::node::{Process, ProcessEvent};
use crate::world::{Event, Settings, World, index, name};

/// The controller of one term.
pub(crate) struct Seat {
    pub(crate) term: u64,
    pub(crate) node: usize,
    pub(crate) controller: Controller,
    armed: Option<Instant>,
    timer: u64,
}

/// What a node says to whoever is controller.
pub(crate) enum Letter {
    ConnectionLost(NodeId),
    Heartbeat(NodeId, Incarnation),
    Reports(Vec<Report>),
    Stopped(NodeId, Incarnation),
}

/// Partitions, each as of the record by which it is asked.
type Asked = BTreeMap<PartitionId, PartitionVersion>;

pub(crate) enum SeatEvent {
    /// A question reaches a node: how much it has of these partitions.
    Ask(NodeId, Asked),
    /// The log moved on.
    Learn,
    Positions((NodeId, Incarnation), Asked, BTreeMap<PartitionId, Option<Position>>),
    Probe(NodeId, ProbeToken),
    Probed(NodeId, ProbeToken, ProbeOutcome),
    Proposed(u64),
    ProposalLost(u64),
    Timeout(u64),
}

pub(crate) fn formed(settings: &Settings, members: Vec<Registration>) -> Command {
    let config = ClusterConfig {
        partition_count: settings.partitions,
        replication_factor: settings.replication_factor,
        ..ClusterConfig::default()
    };
    let cluster = Cluster { id: ClusterId(1), name: "simulated".to_string(), config };
    Command::form_cluster(cluster, members).expect("the settings are within the limits")
}

// The log.
impl World {
    pub(crate) fn registration(&self, index: usize) -> Registration {
        let node = &self.nodes[index];
        let boot = Self::boot_id(index, node.boots);
        let addrs = [7_000, 8_080].map(|port| format!("h{index}:{port}"));
        Registration {
            damaged: node.damaged,
            holds_data: !node.observes,
            reports_position: self.settings.reports_position,
            ..Registration::new(name(index), node.store, boot, addrs)
        }
    }

    /// One command takes effect: the only place where the state changes.
    pub(crate) fn apply(&mut self, command: &Command) -> Option<Applied> {
        let before = self.state.clone();
        let outcome = self.state.apply(command);
        self.trace(|| match &outcome {
            Ok(_) => format!("log   {command:?}"),
            Err(refusal) => format!("log   {command:?}: {refusal}"),
        });
        if outcome.is_ok() {
            self.check_command(&before, command);
        }
        self.note_epochs();
        outcome.ok()
    }

    pub(crate) fn write(&mut self, by: Option<(u64, u64)>, commands: &[Command]) {
        if let Some(proposal) = by {
            self.proposed.remove(&proposal);
            let term = self.seat.as_ref().map(|seat| seat.term);
            // What a deposed controller had under way is lost, or comes late.
            if term != Some(proposal.0) && self.chance.percent(50) {
                return;
            }
        }
        let before = self.topology().version;
        for command in commands {
            self.apply(command);
        }
        if let Some((term, token)) = by {
            let delay = self.chance.millis(0, 10);
            self.after(delay, Event::Seat { term, event: SeatEvent::Proposed(token) });
        }
        if self.topology().version != before {
            self.publish();
        }
    }

    /// A node that starts enters the log, as soon as somebody governs.
    pub(crate) fn register(&mut self, node: usize, boot: u64, asked: u64) {
        if !self.runs(node, boot) || self.seat.is_none() {
            return;
        }
        let command = Command::RegisterNode { registration: self.registration(node), replace: true };
        if let Some(Applied::Registered { incarnation }) = self.apply(&command) {
            self.nodes[node].damaged = false;
            let version = self.topology().version;
            self.publish();
            let delay = self.latency(1, 10);
            self.tell_process(delay, node, ProcessEvent::Joined(asked, incarnation, version));
        }
    }

    /// Every node learns of the newest version after a while of its own; the newest wins.
    pub(crate) fn publish(&mut self) {
        for node in 0..self.nodes.len() {
            self.show(node);
        }
        if let Some(term) = self.seat.as_ref().map(|seat| seat.term) {
            let delay = self.chance.millis(0, 15);
            self.after(delay, Event::Seat { term, event: SeatEvent::Learn });
        }
    }

    pub(crate) fn show(&mut self, node: usize) {
        let (lag, cut) = (self.nodes[node].lag, self.nodes[node].cut_until.since(self.now));
        let delay = cut + self.chance.millis(1, 20) + lag.mul_f64(self.chance.below(100) as f64 / 100.0);
        let topology = self.topology().clone();
        self.tell_process(delay, node, ProcessEvent::See(topology));
    }
}

// The controller.
impl World {
    /// Its node fell, or another one took over: what it knew is gone.
    pub(crate) fn unseat(&mut self) {
        if let Some(seat) = self.seat.take() {
            self.trace(|| format!("ctl   term {} on n{} ends", seat.term, seat.node));
            let delay = self.chance.millis(200, 1_200);
            self.after(delay, Event::Elect);
        }
    }

    pub(crate) fn elect(&mut self) {
        if self.seat.is_some() {
            return;
        }
        let fit = |node: &usize| {
            let state = &self.nodes[*node];
            let runs = state.process.is_some() && self.topology().node(&name(*node)).is_some();
            runs && state.paused_until.max(state.cut_until) <= self.now
        };
        let fit: Vec<_> = (0..self.nodes.len()).filter(fit).collect();
        let fit = if self.settings.observer && fit.contains(&0) { vec![0] } else { fit };
        let Some(node) = self.chance.pick(&fit) else {
            return self.after(Duration::from_millis(300), Event::Elect);
        };
        self.term_last += 1;
        let term = self.term_last;
        self.trace(|| format!("ctl   term {term} on n{node} begins"));
        let config = self.settings.controller.clone();
        let controller = Controller::new(config, name(node), self.state.clone(), self.now);
        self.seat = Some(Seat { term, node, controller, armed: None, timer: 0 });
        self.drive_seat();
    }

    pub(crate) fn deliver(&mut self, letter: Letter) {
        if self.wait_for_seat() {
            let until = self.nodes[self.seat.as_ref().map_or(0, |seat| seat.node)].paused_until;
            return self.at(until, Event::Letter(letter));
        }
        let now = self.now;
        let Some(seat) = &mut self.seat else { return };
        match letter {
            Letter::ConnectionLost(node) => seat.controller.handle_connection_lost(now, &node),
            Letter::Heartbeat(node, run) => seat.controller.handle_heartbeat(now, &node, run),
            Letter::Reports(reports) => {
                reports.into_iter().for_each(|report| seat.controller.handle_report(now, report));
            }
            Letter::Stopped(node, run) => seat.controller.handle_stopped(now, &node, run),
        }
        self.drive_seat();
    }

    /// Whether the controller's process is stopped for a while.
    pub(crate) fn wait_for_seat(&self) -> bool {
        self.seat.as_ref().is_some_and(|seat| self.nodes[seat.node].paused_until > self.now)
    }

    pub(crate) fn seat_step(&mut self, term: u64, event: SeatEvent) {
        let Some(seat) = self.seat.as_ref().filter(|seat| seat.term == term) else { return };
        let paused_until = self.nodes[seat.node].paused_until;
        if paused_until > self.now {
            return self.at(paused_until, Event::Seat { term, event });
        }
        match event {
            SeatEvent::Ask(node, partitions) => self.ask(term, node, partitions),
            SeatEvent::Probe(node, token) => self.probe(term, node, token),
            event => self.tell_seat(event),
        }
    }

    fn tell_seat(&mut self, event: SeatEvent) {
        let (now, state) = (self.now, self.state.clone());
        let Some(seat) = &mut self.seat else { return };
        match event {
            SeatEvent::Learn => seat.controller.handle_state(now, state),
            SeatEvent::Ask(..) | SeatEvent::Probe(..) => {}
            SeatEvent::Positions((node, run), asked, positions) => {
                seat.controller.handle_positions(now, (&node, run), &asked, &positions);
            }
            SeatEvent::Probed(node, token, outcome) => {
                seat.controller.handle_probe(now, &node, token, outcome);
            }
            SeatEvent::Proposed(token) => seat.controller.handle_proposed(now, token, state),
            SeatEvent::ProposalLost(token) => seat.controller.handle_proposal_lost(now, token),
            SeatEvent::Timeout(timer) if seat.timer == timer => {
                seat.armed = None;
                seat.controller.handle_timeout(now);
            }
            SeatEvent::Timeout(_) => {}
        }
        self.drive_seat();
    }

    /// A process that is stopped does not answer; one that is not there refuses.
    fn probe(&mut self, term: u64, node: NodeId, token: ProbeToken) {
        let probed = &self.nodes[index(&node)];
        let incarnation = probed.process.as_ref().and_then(Process::incarnation);
        let outcome = match (&probed.process, incarnation) {
            (None, _) => ProbeOutcome::Refused,
            (Some(_), Some(incarnation)) if self.is_awake(index(&node)) => {
                ProbeOutcome::Answered(incarnation)
            }
            _ => ProbeOutcome::TimedOut,
        };
        let delay = self.latency(1, 20);
        self.after(delay, Event::Seat { term, event: SeatEvent::Probed(node, token, outcome) });
    }

    /// A node says how much it has, unless it does not know the record yet by which it is asked; the
    /// answer may be lost, or say that what it has is not to be trusted.
    fn ask(&mut self, term: u64, node: NodeId, asked: Asked) {
        let keeper = &self.nodes[index(&node)];
        if !self.is_awake(index(&node)) || keeper.cut_until > self.now || self.fate() == 0 {
            return;
        }
        let damaged = !self.quiet && self.chance.percent(10);
        let Some(member) = self.nodes[index(&node)].member() else { return };
        let places = &self.nodes[index(&node)].disk.places;
        let run = member.incarnation;
        let position = |(partition, version): (&PartitionId, &PartitionVersion)| {
            let record = member.topology.partition(*partition).filter(|record| record.version >= *version)?;
            let uid = record.replica(&node).map(|replica| replica.uid);
            let place = places.get(partition).filter(|place| Some(place.uid) == uid);
            let position = place.map(|place| Position {
                last_epoch: place.writes.values().max().copied().unwrap_or_default(),
                log_end: place.writes.keys().next_back().copied().unwrap_or_default(),
                damaged,
            });
            Some((*partition, position))
        };
        let positions: BTreeMap<_, _> = asked.iter().filter_map(position).collect();
        self.trace(|| format!("{node}    has {positions:?}"));
        let delay = self.latency(1, 20);
        let event = SeatEvent::Positions((node, run), asked, positions);
        self.after(delay, Event::Seat { term, event });
    }

    /// Carries out what the controller wants, and winds its clock.
    pub(crate) fn drive_seat(&mut self) {
        while let Some(seat) = &mut self.seat {
            let term = seat.term;
            match seat.controller.poll_action() {
                Some(Action::AskPositions { node, partitions }) => {
                    let delay = self.latency(1, 20);
                    self.after(delay, Event::Seat { term, event: SeatEvent::Ask(node, partitions) });
                }
                Some(Action::Probe { node, token }) => {
                    let delay = self.latency(1, 20);
                    self.after(delay, Event::Seat { term, event: SeatEvent::Probe(node, token) });
                }
                Some(Action::Propose { token, commands }) => self.propose(term, token, commands),
                None => break,
            }
        }
        self.arm_seat();
    }

    fn arm_seat(&mut self) {
        let now = self.now;
        let Some(seat) = &mut self.seat else { return };
        let due = seat.controller.poll_timeout(now).map(|due| due.max(now));
        if due == seat.armed {
            return;
        }
        seat.armed = due;
        seat.timer += 1;
        let (term, timer) = (seat.term, seat.timer);
        if let Some(due) = due {
            self.at(due, Event::Seat { term, event: SeatEvent::Timeout(timer) });
        }
    }

    /// A proposal is written; or it is lost, said to be lost or not; or it is written late.
    fn propose(&mut self, term: u64, token: u64, commands: Vec<Command>) {
        let fate = self.fate();
        if fate < 2 {
            let delay = self.chance.millis(10, 1_000);
            self.after(delay, Event::Seat { term, event: SeatEvent::ProposalLost(token) });
        }
        if fate == 0 {
            return;
        }
        let delay = if fate < 3 { self.chance.millis(100, 3_500) } else { self.chance.millis(2, 25) };
        self.proposed.insert((term, token), commands.clone());
        self.after(delay, Event::Write { by: Some((term, token)), commands });
    }
}
