//! A whole cluster in virtual time: the queue of what is to happen, and what each of it does.
//!
//! Everything that decides is the production code: one [`Replicas`] on each node and one [`ControlState`]. Around
//! them are simulated the network, the clocks, the disks, the controller, the clients and the state machine.
//!
//! [`Replicas`]: clusterkit_core::replica::Replicas
//! [`ControlState`]: clusterkit_core::control::ControlState

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::control::Command;
use clusterkit_core::id::{Epoch, Incarnation, PartitionId};
use clusterkit_core::replica::{FetchToken, Message, ReadId, Record, ReplicaKey, Wish};
use clusterkit_core::time::Instant;
use clusterkit_core::topology::Topology;

use super::chance::Chance;
use super::checkers::{Ghost, Violation};
use super::clients::{Answer, Client, Request};
use super::control::Control;
use super::controller::{Controller, Vote};
use super::coverage::Coverage;
use super::faults::Mischief;
use super::network::Network;
use super::node::Node;
use super::requests::Evaluated;
use super::settings::{Options, Settings};
use super::store::Package;
use super::trace::Trace;

/// Steps at one instant: more of them and something goes round in circles.
const STEPS_AT_ONCE_MAX: u64 = 5_000;

/// What happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    /// A client hears what became of its request.
    Answer {
        client: usize,
        answer: Box<Answer>,
    },
    /// The state machine has worked through records.
    Applied {
        node: usize,
        run: u64,
        key: ReplicaKey,
        first: u64,
        records: Vec<Record>,
    },
    /// The replica hears that the state machine has worked through records.
    ToldApplied {
        node: usize,
        run: u64,
        key: ReplicaKey,
        end: u64,
    },
    /// A client's request reaches a node.
    Ask {
        node: usize,
        request: Box<Request>,
    },
    /// A node is asked how much it has, at the end of this epoch.
    AskPosition {
        node: usize,
        term: u64,
        partition: PartitionId,
        epoch: Epoch,
    },
    Client(usize),
    /// Commands reach the log of the control plane.
    Command(Vec<Command>),
    Controller {
        term: u64,
    },
    Deliver {
        to: usize,
        from: usize,
        message: Box<Message>,
    },
    Evaluate {
        node: usize,
        run: u64,
        key: ReplicaKey,
        read: ReadId,
    },
    Fault,
    Fetched {
        node: usize,
        run: u64,
        key: ReplicaKey,
        token: FetchToken,
        first: u64,
        records: Vec<Record>,
    },
    Finish {
        node: usize,
        run: u64,
        read: ReadId,
        evaluated: Evaluated,
    },
    Position {
        term: u64,
        vote: Box<Vote>,
    },
    Publish,
    Register {
        node: usize,
        run: u64,
    },
    Registered {
        node: usize,
        run: u64,
        incarnation: Incarnation,
    },
    Snapshot {
        to: usize,
        from: usize,
        run: u64,
        package: Rc<Package>,
    },
    SnapshotEnded {
        node: usize,
        run: u64,
        key: ReplicaKey,
        to: usize,
    },
    Start(usize),
    Synced {
        node: usize,
        run: u64,
    },
    Timer {
        node: usize,
        run: u64,
        at: Instant,
    },
    Topology {
        node: usize,
        topology: Arc<Topology>,
    },
    Wish {
        from: usize,
        wish: Wish,
    },
}

/// The cluster and all around it.
#[derive(Debug)]
pub(super) struct World {
    pub(super) settings: Settings,
    pub(super) chance: Chance,
    pub(super) now: Instant,
    queue: BinaryHeap<Scheduled>,
    sequence: u64,
    pub(super) steps: u64,
    steps_at_once: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) network: Network,
    pub(super) control: Control,
    pub(super) controller: Controller,
    pub(super) clients: Vec<Client>,
    pub(super) ghosts: Vec<Ghost>,
    pub(super) mischief: Mischief,
    /// Faults have stopped.
    pub(super) quiet: bool,
    /// Until then a copy may be dropped by order, so that no disk may lose anything.
    pub(super) drops_until: Instant,
    pub(super) coverage: Coverage,
    pub(super) trace: Trace,
    pub(super) violation: Option<Violation>,
}

#[derive(Debug)]
struct Scheduled {
    at: Instant,
    sequence: u64,
    event: Event,
}

impl World {
    /// A cluster that has just formed, and whose nodes run.
    pub(super) fn new(seed: u64, options: &Options) -> Self {
        let mut chance = Chance::new(seed);
        let settings = Settings::draw(&mut chance, options);
        let mut world = Self {
            now: Instant::at(Duration::from_secs(1)),
            queue: BinaryHeap::new(),
            sequence: 0,
            steps: 0,
            steps_at_once: 0,
            nodes: (0..settings.nodes).map(|index| Node::new(index, &settings, &mut chance)).collect(),
            network: Network::new(settings.latency, settings.jitter),
            control: Control::default(),
            controller: Controller::default(),
            clients: (0..settings.clients).map(|index| Client::new(index, settings.partitions)).collect(),
            ghosts: (0..settings.partitions).map(|_| Ghost::default()).collect(),
            mischief: Mischief::default(),
            quiet: options.calm,
            drops_until: Instant::ORIGIN,
            coverage: Coverage::default(),
            trace: Trace::new(options.traces),
            violation: None,
            chance,
            settings,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.form();
        for node in 0..self.nodes.len() {
            self.start_first(node);
        }
        for client in 0..self.clients.len() {
            let delay = self.chance.millis(50, 500);
            self.after(delay, Event::Client(client));
        }
        self.seat_controller();
        self.after(Duration::from_millis(500), Event::Publish);
        self.publish();
        self.make_mischief();
    }

    pub(super) fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(super) fn at(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.queue.push(Scheduled { at: at.max(self.now), sequence: self.sequence, event });
    }

    /// Runs until `limit`, or until a rule is broken.
    pub(super) fn run_until(&mut self, limit: Instant) {
        while self.violation.is_none() {
            if self.queue.peek().is_none_or(|next| next.at > limit) {
                self.now = limit;
                return;
            }
            let Some(Scheduled { at, event, .. }) = self.queue.pop() else { return };
            self.steps_at_once = if at == self.now { self.steps_at_once + 1 } else { 0 };
            self.now = at;
            if self.steps_at_once > STEPS_AT_ONCE_MAX {
                self.violate("time goes on", None, || "too many steps at one instant".to_owned());
            }
            self.step(event);
        }
    }

    fn step(&mut self, event: Event) {
        let node = event.process();
        if let Some(until) = node.map(|node| self.nodes[node].paused_until).filter(|until| *until > self.now)
        {
            return self.at(until, event);
        }
        self.steps += 1;
        self.trace.note(self.now.elapsed().as_nanos() as u64);
        self.trace.note(event.number() << 8 | node.map_or(0, |node| node as u64 + 1));
        self.dispatch(event);
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Answer { client, answer } => self.hear_answer(client, &answer),
            Event::ToldApplied { node, run, key, end } => self.told_applied(node, run, (key, end)),
            Event::Applied { node, run, key, first, records } => {
                self.applied(node, run, key, (first, records));
            }
            Event::Ask { node, request } => self.serve(node, *request),
            Event::AskPosition { node, term, partition, epoch } => {
                self.tell_position(node, term, partition, epoch);
            }
            Event::Client(client) => self.client_tick(client),
            Event::Command(commands) => self.write_commands(&commands),
            Event::Controller { term } => self.controller_tick(term),
            Event::Deliver { to, from, message } => self.deliver(to, from, *message),
            Event::Evaluate { node, run, key, read } => self.evaluate(node, run, key, read),
            Event::Fault => self.break_something(),
            Event::Fetched { node, run, key, token, first, records } => {
                self.fetched(node, run, key, (token, first, records));
            }
            Event::Finish { node, run, read, evaluated } => self.finish(node, run, read, &evaluated),
            Event::Position { term, vote } => self.hear_position(term, &vote),
            Event::Publish => self.publish_again(),
            Event::Register { node, run } => self.register(node, run),
            Event::Registered { node, run, incarnation } => self.registered(node, run, incarnation),
            Event::Snapshot { to, from, run, package } => self.take_snapshot(to, (from, run), &package),
            Event::SnapshotEnded { node, run, key, to } => self.snapshot_ended(node, run, key, to),
            Event::Start(node) => self.start(node),
            Event::Synced { node, run } => self.synced(node, run),
            Event::Timer { node, run, at } => self.timer(node, run, at),
            Event::Topology { node, topology } => self.see_topology(node, &topology),
            Event::Wish { from, wish } => self.hear_wish(from, &wish),
        }
    }

    /// A rule is broken. The first one counts.
    pub(super) fn violate(
        &mut self,
        invariant: &'static str,
        partition: Option<PartitionId>,
        text: impl FnOnce() -> String,
    ) {
        if self.violation.is_none() {
            let text = text();
            self.trace.tell(self.now, partition, || format!("VIOLATION of {invariant}: {text}"));
            self.violation = Some(Violation { invariant, partition, text });
        }
    }

    pub(super) fn tell(&mut self, partition: Option<PartitionId>, line: impl FnOnce() -> String) {
        self.trace.tell(self.now, partition, line);
    }
}

impl Event {
    /// The node whose process it is for: a process that is paused gets it later.
    fn process(&self) -> Option<usize> {
        match self {
            Self::Applied { node, .. }
            | Self::ToldApplied { node, .. }
            | Self::Ask { node, .. }
            | Self::AskPosition { node, .. }
            | Self::Evaluate { node, .. }
            | Self::Fetched { node, .. }
            | Self::Finish { node, .. }
            | Self::Registered { node, .. }
            | Self::SnapshotEnded { node, .. }
            | Self::Synced { node, .. }
            | Self::Timer { node, .. }
            | Self::Topology { node, .. } => Some(*node),
            Self::Deliver { to, .. } | Self::Snapshot { to, .. } => Some(*to),
            _ => None,
        }
    }

    fn number(&self) -> u64 {
        match self {
            Self::Answer { .. } => 1,
            Self::Applied { .. } => 2,
            Self::ToldApplied { .. } => 30,
            Self::Ask { .. } => 3,
            Self::AskPosition { .. } => 4,
            Self::Client(_) => 5,
            Self::Command(_) => 6,
            Self::Controller { .. } => 7,
            Self::Deliver { .. } => 8,
            Self::Evaluate { .. } => 9,
            Self::Fault => 10,
            Self::Fetched { .. } => 11,
            Self::Finish { .. } => 12,
            Self::Position { .. } => 13,
            Self::Publish => 14,
            Self::Register { .. } => 15,
            Self::Registered { .. } => 16,
            Self::Snapshot { .. } => 17,
            Self::SnapshotEnded { .. } => 18,
            Self::Start(_) => 19,
            Self::Synced { .. } => 21,
            Self::Timer { .. } => 22,
            Self::Topology { .. } => 23,
            Self::Wish { .. } => 24,
        }
    }
}

impl Ord for Scheduled {
    /// The heap gives the greatest first: what is earlier is greater.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}
