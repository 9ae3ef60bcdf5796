//! All that can happen within small bounds: the model, searched to its end.
//!
//! A random walk finds what is deep; a search finds what is rare. Here every order of a few events is tried, with
//! messages that arrive in any order, or never. States are told apart by all that can make a difference, whatever
//! order the messages under way were sent in.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use stateright::{Checker as _, HasDiscoveries, Model, Property};

use super::limits::{NODES_MAX, SUPPORT, TOPOLOGIES_KEPT};
use super::message::Message;
use super::rules::{Rule, Without};
use super::state::{Setting, Verdict, World};
use super::step::{Action, Outcome, Step};

/// The partition that the search is about; the other one stays as it is.
const PARTITION: u8 = 0;

/// Epochs of which it matters who led them: more than any search reaches.
const EPOCHS: usize = 16;

/// How often each of the rarer things may happen. What is not named here happens as often as it can, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Nodes, each with a copy: 2 or 3.
    pub nodes: usize,
    /// Writes of clients, and as many retries.
    pub writes: u8,
    /// Crashes, of a process or of a machine; after each the node may start again.
    pub crashes: u8,
    /// Nodes that are declared dead, rightly or wrongly.
    pub fences: u8,
    /// Decisions on a leader.
    pub elections: u8,
    /// Changes of the in-sync set that a leader proposes.
    pub proposals: u8,
    /// Linearizable reads by barrier, and requests for support.
    pub reads: u8,
    /// Messages that arrive twice.
    pub duplicates: u8,
    /// Messages with records, or with news of the commit.
    pub streams: u8,
    /// Steps of a path at most; 0 for no bound.
    pub depth: usize,
}

impl Bounds {
    /// Searches that end within minutes, and what each is about.
    pub const SETS: &'static [(&'static str, Self)] = &[
        ("a leader restarts", Self { crashes: 1, elections: 1, ..Self::TWO }),
        ("a leader is deposed", Self { fences: 1, elections: 1, ..Self::TWO }),
        ("a leader reads", Self { writes: 1, reads: 1, ..Self::TWO }),
        ("a member is left out or taken in", Self { nodes: 3, writes: 1, proposals: 1, ..Self::TWO }),
    ];

    /// Two nodes, and nothing that happens but what has to.
    const TWO: Self = Self {
        nodes: 2,
        writes: 0,
        crashes: 0,
        fences: 0,
        elections: 0,
        proposals: 0,
        reads: 0,
        duplicates: 0,
        streams: 2,
        depth: 0,
    };
}

/// What a search came to.
#[derive(Debug, Clone)]
pub struct Exhaustion {
    /// Different states.
    pub states: usize,
    /// The longest path.
    pub depth: usize,
    /// Whether everything within the bounds was seen.
    pub is_complete: bool,
    /// The way to a broken invariant, one step a line.
    pub broken: Option<String>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { nodes: 3, writes: 1, crashes: 1, fences: 1, elections: 1, proposals: 1, ..Self::TWO }
    }
}

/// Searches within `bounds`, without the rules of `without`, on `threads` threads and for at most `time`.
#[must_use]
pub fn exhaust(bounds: Bounds, without: &[Rule], threads: usize, time: Duration) -> Exhaustion {
    let search = Search { bounds, without: Without::of(without) };
    let builder = search.checker().threads(threads).timeout(time).finish_when(HasDiscoveries::Any);
    let builder = if bounds.depth > 0 { builder.target_max_depth(bounds.depth) } else { builder };
    let start = Instant::now();
    let checker = builder.spawn_dfs().join();
    let broken = checker.discovery(PROPERTY).map(|path| {
        let steps = path.into_actions().into_iter();
        steps.zip(1..).map(|(step, number): (Step, u32)| format!("{number:4}. {step}\n")).collect()
    });
    Exhaustion {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        is_complete: start.elapsed() < time && bounds.depth == 0 && broken.is_none(),
        broken,
    }
}

impl fmt::Display for Exhaustion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extent = if self.is_complete { "all" } else { "not all" };
        write!(f, "{} states, {extent} that there are, paths of up to {} steps", self.states, self.depth)
    }
}

const PROPERTY: &str = "every invariant holds";

#[derive(Debug)]
struct Search {
    bounds: Bounds,
    without: Without,
}

/// A world, and how often each action was taken on the way to it.
#[derive(Debug, Clone)]
struct Visit {
    world: Box<World>,
    spent: [u8; Action::ALL.len()],
}

impl Model for Search {
    type State = Visit;
    type Action = Step;

    fn init_states(&self) -> Vec<Visit> {
        let setting = Setting {
            nodes: self.bounds.nodes,
            copies: self.bounds.nodes,
            minimum: 2,
            is_warm: true,
            is_synced: true,
            without: self.without,
            rates: [0; NODES_MAX],
        };
        let mut world = Box::new(World::new(setting));
        world.check();
        vec![Visit { world, spent: [0; Action::ALL.len()] }]
    }

    fn actions(&self, visit: &Visit, steps: &mut Vec<Step>) {
        for action in Action::ALL {
            if self.bounds.allow(*action, visit) {
                push_steps(*action, &visit.world, steps);
            }
        }
    }

    fn next_state(&self, visit: &Visit, step: Step) -> Option<Visit> {
        let mut next = visit.clone();
        let outcome = next.world.take_step(&step);
        if outcome == Outcome::Refused {
            return None;
        }
        if self.bounds.limit(step.action).is_some() {
            next.spent[step.action as usize] += 1;
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let is_fine = |_: &Self, visit: &Visit| !matches!(visit.world.verdict, Verdict::Broken(_));
        vec![Property::always(PROPERTY, is_fine)]
    }

    fn within_boundary(&self, visit: &Visit) -> bool {
        visit.world.verdict != Verdict::Over && !visit.world.bag.is_full()
    }
}

impl Bounds {
    /// How often `action` may be taken; `None` for as often as it can.
    fn limit(&self, action: Action) -> Option<u8> {
        match action {
            Action::Write | Action::Retry => Some(self.writes),
            Action::CrashProcess | Action::CrashPower => Some(self.crashes),
            Action::Fence => Some(self.fences),
            // Who registers is let in again, or is a new run.
            Action::Register => Some(self.fences + self.crashes),
            Action::Decide => Some(self.elections),
            Action::Shrink | Action::Expand => Some(self.proposals),
            Action::StartBarrier | Action::Ask => Some(self.reads),
            Action::Duplicate => Some(self.duplicates),
            Action::Stream => Some(self.streams),
            // Whoever adopts an epoch attaches by itself; what is lost is asked for once more.
            Action::Attach | Action::ReplyQuorum => Some(1),
            // Time matters to promises only.
            Action::Pass => Some(1 + self.reads),
            Action::Deliver
            | Action::Commit
            | Action::Sync
            | Action::AdoptLatest
            | Action::AdoptNext
            | Action::TidyUp
            | Action::Start => None,
            _ => Some(0),
        }
    }

    fn allow(&self, action: Action, visit: &Visit) -> bool {
        let spent = match action {
            // Both kinds of crash count together, as do both kinds of change.
            Action::CrashProcess | Action::CrashPower => {
                visit.sum(&[Action::CrashProcess, Action::CrashPower])
            }
            Action::Shrink | Action::Expand => visit.sum(&[Action::Shrink, Action::Expand]),
            other => visit.sum(&[other]),
        };
        self.limit(action).is_none_or(|limit| spent < limit)
    }
}

impl Visit {
    fn sum(&self, actions: &[Action]) -> u8 {
        actions.iter().map(|action| self.spent[*action as usize]).sum()
    }
}

/// The steps that `action` could be, as far as they differ.
fn push_steps(action: Action, world: &World, steps: &mut Vec<Step>) {
    let step = |node: usize, other: usize, choice: u8, message| Step {
        action,
        partition: PARTITION,
        node: node as u8,
        other: other as u8,
        choice,
        message,
    };
    if action.carries_message() {
        return steps.extend(world.bag.all().iter().map(|message| step(0, 0, 0, *message)));
    }
    let nodes = world.setting.nodes;
    let leading = world.leading[usize::from(PARTITION)];
    let choices: &[u8] = match action {
        Action::Stream => &[0, 1],
        Action::Decide | Action::CrashPower => &[0, 1, 2],
        Action::Pass => &[PASS_SUPPORT],
        _ => &[0],
    };
    let names_node = !matches!(action, Action::Decide | Action::Pass);
    let names_other = matches!(action, Action::Stream | Action::Shrink | Action::Expand);
    for node in
        (0..if names_node { nodes } else { 1 }).filter(|node| !action.is_of_leader() || leading.has(*node))
    {
        for other in 0..if names_other { nodes } else { 1 } {
            steps.extend(choices.iter().map(|choice| step(node, other, *choice, Message::default())));
        }
    }
}

/// The choice of [`Action::Pass`] that lets as much time pass as a promise lasts.
const PASS_SUPPORT: u8 = 6;

const _: () = assert!(SUPPORT > 0);

impl PartialEq for Visit {
    fn eq(&self, other: &Self) -> bool {
        stateright_key(self) == stateright_key(other)
    }
}

fn stateright_key(visit: &Visit) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    visit.hash(&mut hasher);
    hasher.finish()
}

impl Hash for Visit {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (world, at) = (&self.world, usize::from(PARTITION));
        self.spent.hash(state);
        (world.now, world.version, world.next_uid, std::mem::discriminant(&world.verdict)).hash(state);
        world.control.hash(state);
        let nodes = &world.nodes[..world.setting.nodes];
        nodes.hash(state);
        // What nodes that lag may still adopt.
        let oldest = nodes.iter().map(|node| node.adopted).min().unwrap_or(world.version);
        for version in oldest..world.version {
            world.history[usize::from(version) % TOPOLOGIES_KEPT].hash(state);
        }
        world.replicas[at][..world.setting.nodes].hash(state);
        world.leaders[at][..world.setting.nodes].hash(state);
        world.leading[at].hash(state);
        world.records[at].all().hash(state);
        let mut messages = world.bag.all().to_vec();
        messages.sort_unstable();
        messages.hash(state);
        let ghost = &world.ghosts[at];
        (ghost.committed, ghost.lost, ghost.answered, ghost.seq).hash(state);
        (&ghost.led_by[..EPOCHS], &ghost.made[..EPOCHS]).hash(state);
    }
}
