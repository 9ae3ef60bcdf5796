//! Walks at random: runs of bounded length from the start, each with its own mixture of what happens.

use super::heal::Healing;
use super::limits::{IDLE_DRAWS_MAX, NODES_MAX, RUN_STEPS_MAX};
use super::message::{Kind, Message};
use super::random::{Random, run_seed};
use super::rules::{Invariant, Without};
use super::set::Set;
use super::state::{Setting, Verdict, World};
use super::step::{Action, Outcome, Step};

/// The entries of the table that actions are drawn from.
const DRAWS: usize = 2048;

/// One run in so many ends with the faults, and must heal.
const HEALING_EVERY: u32 = 8;

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) broken: Option<Invariant>,
    pub(crate) healing: Option<Healing>,
}

/// How often each kind of step was taken.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    pub(crate) actions: [u64; Action::ALL.len()],
    pub(crate) kinds: [u64; Kind::ALL.len()],
    pub(crate) steps: u64,
    pub(crate) runs: u64,
    pub(crate) healed: u64,
}

/// A walker with the world that it walks in.
#[derive(Debug)]
pub(crate) struct Walker {
    pub(crate) world: World,
    pub(crate) counts: Counts,
    table: [u8; DRAWS],
    without: Without,
    heals: bool,
    focus: Focus,
    /// Nodes that learn of changes late.
    lazy: Set,
    /// 0 if a run keeps to one partition.
    partitions: u8,
}

impl Walker {
    pub(crate) fn new(without: Without, heals: bool, focus: Focus) -> Self {
        let counts = Counts {
            actions: [0; Action::ALL.len()],
            kinds: [0; Kind::ALL.len()],
            steps: 0,
            runs: 0,
            healed: 0,
        };
        let setting = setting(&mut Random::new(0), without);
        Self {
            world: World::new(setting),
            counts,
            table: [0; DRAWS],
            without,
            heals,
            focus,
            lazy: Set::EMPTY,
            partitions: 1,
        }
    }

    /// Makes run number `run` of `seed`. With `trace`, its steps are written there.
    pub(crate) fn run(&mut self, seed: u64, run: u64, mut trace: Option<&mut Vec<Step>>) -> Ending {
        let mut random = Random::new(run_seed(seed, run));
        let setting = setting(&mut random, self.without);
        self.world.restart(setting);
        self.world.check();
        let focus = self.focus.drawn(random.below(8));
        fill(&mut self.table, &mut random, focus);
        self.partitions = u8::from(random.below(2) == 0);
        self.lazy = Set(random.below(256) as u8).and(Set(random.below(256) as u8));
        let steps_max = 40 + random.below(RUN_STEPS_MAX - 40);
        self.counts.runs += 1;
        self.walk(&mut random, steps_max, &mut trace);
        let is_due = self.heals && random.below(HEALING_EVERY) == 0 && self.world.verdict == Verdict::Fine;
        let healing = is_due.then(|| self.healing(&mut random));
        if let Some(healing) = healing {
            self.counts.healed += 1;
            if !healing.run(&mut self.world) {
                self.world.fail(Invariant::I15);
            }
        }
        let broken = match self.world.verdict {
            Verdict::Broken(invariant) => Some(invariant),
            Verdict::Fine | Verdict::Over => None,
        };
        Ending { broken, healing }
    }

    fn healing(&self, random: &mut Random) -> Healing {
        let node = random.below(self.world.setting.nodes as u32) as usize;
        Healing { dead: (random.below(3) == 0).then_some(node) }
    }

    fn walk(&mut self, random: &mut Random, steps_max: u32, trace: &mut Option<&mut Vec<Step>>) {
        let (mut taken, mut idle) = (0, 0);
        while taken < steps_max && idle < IDLE_DRAWS_MAX && self.world.verdict == Verdict::Fine {
            idle += 1;
            let Some(step) = self.draw(random.next()) else { continue };
            let outcome = self.world.take_step(&step);
            if let Some(trace) = trace.as_mut().filter(|_| outcome != Outcome::Refused) {
                trace.push(step);
            }
            if outcome == Outcome::Taken {
                (taken, idle) = (taken + 1, 0);
                self.count(&step);
            }
        }
    }

    fn count(&mut self, step: &Step) {
        self.counts.steps += 1;
        self.counts.actions[step.action as usize] += 1;
        if step.action == Action::Deliver {
            self.counts.kinds[step.message.kind as usize] += 1;
        }
    }

    /// Draws a step; many cannot be taken, and are drawn again.
    fn draw(&self, chance: u64) -> Option<Step> {
        let action = Action::ALL[usize::from(self.table[chance as usize % DRAWS])];
        let world = &self.world;
        let (partition, choice) = ((chance >> 11) as u8 & self.partitions, (chance >> 16) as u8);
        let (first, second) = ((chance >> 24) as u16, (chance >> 40) as u16);
        let (mut node, mut message) = (scaled(first, world.setting.nodes), Message::default());
        if action.carries_message() {
            let held = world.bag.all();
            message = *held.get(scaled(first, held.len()))?;
        } else if action.is_of_leader() {
            let leading = world.leading[usize::from(partition)];
            node = match leading.len() {
                0 => return None,
                1 => leading.0.trailing_zeros() as usize,
                len => leading.pick(scaled(first, len))?,
            };
        } else if action.is_lazy() && self.lazy.has(node) && choice & 15 != 0 {
            return None;
        }
        let other = scaled(second, world.setting.nodes) as u8;
        Some(Step { action, partition, node: node as u8, other, choice, message })
    }
}

/// Below `bound`, by chance, without a division.
fn scaled(chance: u16, bound: usize) -> usize {
    (usize::from(chance) * bound) >> 16
}

impl Action {
    pub(crate) fn is_of_leader(self) -> bool {
        (Self::Write as u8..=Self::StartBarrier as u8).contains(&(self as u8))
            && !matches!(self, Self::Sync | Self::Compact | Self::DeleteEarly)
    }

    fn is_lazy(self) -> bool {
        matches!(self, Self::AdoptLatest | Self::AdoptNext)
    }

    /// Without these a run comes to nothing, so that every mixture has them.
    fn is_vital(self) -> bool {
        matches!(
            self,
            Self::Deliver
                | Self::Write
                | Self::Stream
                | Self::Commit
                | Self::Sync
                | Self::AdoptLatest
                | Self::Decide
                | Self::Register
                | Self::Attach
                | Self::TidyUp
                | Self::Start
                | Self::Wake
        )
    }
}

/// What a run may look at, apart from what every run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Focus {
    /// About half of the themes, drawn for each run.
    Any,
    /// Leases and barriers, where a few moments decide: all else happens seldom.
    Reads,
    /// Changes of the configuration while leases are about.
    Proposals,
    /// Disks that lose data, and unclean elections.
    Losses,
    /// Either, drawn for each run.
    Mixed,
}

impl Focus {
    /// What one run looks at, by chance below eight.
    fn drawn(self, chance: u32) -> Self {
        match (self, chance) {
            (Self::Reads, 1..) | (Self::Mixed, 0..=1) => Self::Reads,
            (Self::Proposals, 1..) | (Self::Mixed, 3) => Self::Proposals,
            (Self::Losses, 1..) | (Self::Mixed, 2) => Self::Losses,
            _ => Self::Any,
        }
    }
}

/// Actions that serve one theme, and the focus that needs it.
const THEMES: &[(&[Focus], &[Action])] = &[
    (&[Focus::Losses], &[Action::Damage, Action::FailSync, Action::CrashPower, Action::ChangeController]),
    (&[Focus::Losses], &[Action::ReportStatus, Action::ElectUnclean]),
    (&[], &[Action::Compact, Action::Checkpoint]),
    (&[Focus::Reads, Focus::Proposals], &[Action::Ask, Action::Pass]),
    (&[Focus::Reads], &[Action::StartBarrier]),
    (&[Focus::Proposals], &[Action::Place, Action::Exclude, Action::Remove]),
    (&[Focus::Reads, Focus::Proposals], &[Action::Aim, Action::HandOff, Action::GiveUpAim]),
    (&[Focus::Reads], &[Action::StopLeading]),
    (&[], &[Action::Retry, Action::ReplyQuorum, Action::ReplyAll, Action::JumpWall]),
    (&[Focus::Reads, Focus::Proposals], &[Action::Shrink, Action::Expand, Action::Swap]),
    (&[Focus::Reads], &[Action::CrashProcess]),
    (&[], &[Action::Pause, Action::Lose]),
];

/// How often, of 16, a run of `focus` has a theme that `owners` need.
fn theme_chance(owners: &[Focus], focus: Focus) -> u32 {
    let is_own = owners.contains(&focus);
    match focus {
        Focus::Any | Focus::Mixed => 8,
        Focus::Losses | Focus::Proposals if is_own => 15,
        Focus::Reads if is_own => 11,
        Focus::Losses | Focus::Reads => 3,
        Focus::Proposals => 1,
    }
}

/// Every run has its own mixture: what never happens in one leaves room for what is rare otherwise.
fn fill(table: &mut [u8; DRAWS], random: &mut Random, focus: Focus) {
    let mut weights = [0_u32; Action::ALL.len()];
    for (at, action) in Action::ALL.iter().enumerate() {
        let times = match random.below(8) {
            0 if !action.is_vital() => 0,
            0..=2 => 1,
            3..=5 => 3,
            6 => 6,
            _ => 12,
        };
        weights[at] = u32::from(Action::WEIGHTS[at]) * times;
    }
    for (owners, theme) in THEMES {
        if random.below(16) >= theme_chance(owners, focus) {
            theme.iter().for_each(|action| weights[*action as usize] = 0);
        }
    }
    let total: u32 = weights.iter().sum();
    let (mut at, mut sum) = (0, 0);
    for (action, weight) in weights.iter().enumerate() {
        sum += weight;
        let end = (u64::from(sum) * DRAWS as u64 / u64::from(total.max(1))) as usize;
        table[at..end].fill(action as u8);
        at = end;
    }
}

fn setting(random: &mut Random, without: Without) -> Setting {
    let nodes = [3, 4, 4, 5][random.below(4) as usize];
    let copies = [2, 2, 3, 3, 3][random.below(5) as usize];
    let minimum = if random.below(6) == 0 { 1 } else { 2 };
    let mut rates = [0_i8; NODES_MAX];
    for rate in &mut rates {
        *rate = [-1, -1, 0, 1, 1][random.below(5) as usize];
    }
    let (is_synced, is_warm) = (random.below(5) < 3, random.below(4) > 0);
    Setting { nodes, copies, minimum, is_warm, is_synced, without, rates }
}
