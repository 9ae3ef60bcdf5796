//! A whole cluster in virtual time: the queue of what is to happen, and what each of it does.
//!
//! Everything that decides is the production code: one log of commands applied by `ControlState`, one
//! `Controller` on a node that may change, one `Stages` on each node. Around them are simulated the
//! network, the clock, the disks, the user's hooks and the user's store.

use std::collections::BTreeMap;
use std::time::Duration;

use clusterkit_core::control::{Command, ControlState, ControllerConfig};
use clusterkit_core::handoff::{Config, Stage};
use clusterkit_core::id::{BootId, NodeId};
use clusterkit_core::time::Instant;
use clusterkit_core::topology::Topology;

use crate::chance::Chance;
use crate::checks::{Ghost, Violation};
use crate::control::{Letter, Seat, SeatEvent, formed};
use crate::faults::{Fault, Mischief};
use crate::hooks::Manner;
use crate::node::{Node, ProcessEvent};
use crate::planted::Mistake;

/// Steps at one instant: more of them and something goes round in circles.
const STEPS_AT_ONCE_MAX: u64 = 20_000;

/// What a run is made of.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Nodes that form the cluster.
    pub(crate) nodes: usize,
    /// Nodes that may join later.
    pub(crate) spares: usize,
    pub(crate) partitions: u32,
    pub(crate) replication_factor: u32,
    pub(crate) stages: Config,
    pub(crate) controller: ControllerConfig,
    /// How long chance breaks things; never when zero.
    pub(crate) chaos: Duration,
    /// What it breaks.
    pub(crate) mischief: Mischief,
    /// Whether one of the founders holds no data.
    pub(crate) observer: bool,
    /// Whether nodes can say, at an election, how much they have.
    pub(crate) reports_position: bool,
    /// A mistake that is made on purpose.
    pub(crate) mistake: Option<Mistake>,
    /// How a stage's hook behaves on a node, whatever chance would say.
    pub(crate) manner: Option<(usize, Stage, Manner)>,
}

pub(crate) enum Event {
    /// A client's next write.
    Client,
    /// The next node is made controller.
    Elect,
    Fault(Fault),
    /// Something for whoever is controller then.
    Letter(Letter),
    Process {
        node: usize,
        boot: u64,
        event: ProcessEvent,
    },
    /// The next thing that chance breaks.
    Mischief,
    /// A node's registration reaches the log.
    Register {
        node: usize,
        boot: u64,
        asked: u64,
    },
    Seat {
        term: u64,
        event: SeatEvent,
    },
    /// Commands reach the log; the term is that of the controller that wants them, `None` for an
    /// operator's.
    Write {
        by: Option<(u64, u64)>,
        commands: Vec<Command>,
    },
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) settings: Settings,
    pub(crate) chance: Chance,
    pub(crate) now: Instant,
    queue: BTreeMap<(Instant, u64), Event>,
    event_count: u64,
    steps_at_once: u64,
    pub(crate) steps: u64,
    /// The log, applied.
    pub(crate) state: ControlState,
    pub(crate) seat: Option<Seat>,
    pub(crate) term_last: u64,
    /// Proposals of controllers that are on their way to the log.
    pub(crate) proposed: BTreeMap<(u64, u64), Vec<Command>>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) write_last: u64,
    pub(crate) ghost: Ghost,
    /// Faults have stopped: hooks behave, messages arrive.
    pub(crate) quiet: bool,
    pub(crate) violation: Option<Violation>,
    trace: Option<Vec<String>>,
}

pub(crate) fn name(index: usize) -> NodeId {
    NodeId::new(&format!("n{index}")).expect("a valid name")
}

pub(crate) fn index(node: &NodeId) -> usize {
    node.as_str()["n".len()..].parse().expect("named above")
}

impl World {
    /// A cluster that has just formed; its nodes start.
    pub(crate) fn new(seed: u64, settings: Settings) -> Self {
        let total = settings.nodes + settings.spares;
        let mut world = Self {
            seed,
            chance: Chance::new(seed),
            now: Instant::at(Duration::from_secs(1)),
            queue: BTreeMap::new(),
            event_count: 0,
            steps_at_once: 0,
            steps: 0,
            state: ControlState::default(),
            seat: None,
            term_last: 0,
            proposed: BTreeMap::new(),
            nodes: (0..total).map(|index| Node::new(index, settings.observer && index == 0)).collect(),
            write_last: 0,
            ghost: Ghost::default(),
            quiet: settings.chaos.is_zero(),
            violation: None,
            trace: std::env::var_os("HANDOFF_TRACE").map(|_| Vec::new()),
            settings,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let members: Vec<_> = (0..self.settings.nodes).map(|node| self.registration(node)).collect();
        let command = formed(&self.settings, members);
        self.apply(&command);
        for node in 0..self.settings.nodes {
            self.start(node);
        }
        self.after(Duration::from_millis(20), Event::Elect);
        self.after(Duration::from_millis(500), Event::Client);
        if !self.quiet {
            self.after(Duration::from_secs(3), Event::Mischief);
        }
    }

    pub(crate) fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(crate) fn at(&mut self, at: Instant, event: Event) {
        self.event_count += 1;
        self.queue.insert((at.max(self.now), self.event_count), event);
    }

    /// Runs until `done`, or until `limit`. Whether it was done; a violation ends it as well.
    pub(crate) fn run_until(&mut self, limit: Instant, mut done: impl FnMut(&Self) -> bool) -> bool {
        while self.violation.is_none() {
            if done(self) {
                return true;
            }
            let Some((&(at, _), _)) = self.queue.first_key_value() else { return false };
            if at > limit {
                self.now = limit;
                return false;
            }
            let ((at, _), event) = self.queue.pop_first().expect("it was just seen");
            self.steps_at_once = if at == self.now { self.steps_at_once + 1 } else { 0 };
            self.now = at;
            self.steps += 1;
            if self.steps_at_once > STEPS_AT_ONCE_MAX {
                self.violate("time goes on", || "too many steps at one instant".to_string());
            }
            self.step(event);
        }
        false
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Client => self.write_something(),
            Event::Elect => self.elect(),
            Event::Fault(fault) => self.break_something(fault),
            Event::Letter(letter) => self.deliver(letter),
            Event::Process { node, boot, event } => self.process_step(node, boot, event),
            Event::Mischief => self.make_mischief(),
            Event::Register { node, boot, asked } => self.register(node, boot, asked),
            Event::Seat { term, event } => self.seat_step(term, event),
            Event::Write { by, commands } => self.write(by, &commands),
        }
    }

    pub(crate) fn violate(&mut self, rule: &'static str, text: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let (seed, at) = (self.seed, self.now.elapsed());
            let text = format!("seed {seed}, at {at:?}: {}", text());
            self.trace(|| format!("VIOLATION of '{rule}': {text}"));
            self.violation = Some(Violation { rule, text });
        }
    }

    /// Keeps a line of the story when somebody wants to read it.
    pub(crate) fn trace(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.trace {
            let at = self.now.elapsed();
            lines.push(format!("{:>10.4} {}", at.as_secs_f64(), line()));
        }
    }

    /// Panics with the rule that was broken.
    pub(crate) fn expect_no_violation(&mut self) {
        let Some(violation) = self.violation.take() else { return };
        self.tell();
        panic!("'{}' is broken: {}", violation.rule, violation.text);
    }

    pub(crate) fn tell(&self) {
        self.trace.iter().flatten().for_each(|line| eprintln!("{line}"));
    }

    pub(crate) fn topology(&self) -> &Topology {
        &self.state.topology
    }

    pub(crate) fn boot_id(node: usize, boot: u64) -> BootId {
        BootId(node as u64 * 1_000_000 + boot)
    }
}
