//! I15: once the faults stop, everything is led, complete and served.

use super::limits::{HEAL_ROUNDS_MAX, LOG_MAX, MESSAGES_MAX, PARTITIONS};
use super::message::{Kind, Message};
use super::set::Set;
use super::state::{NONE, Silence, Verdict, World};
use super::step::{Action, Outcome, Step};

/// A time without new faults: everybody takes its turn until all is well, or the rounds are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Healing {
    /// A node that stays down.
    pub(crate) dead: Option<usize>,
}

impl Healing {
    /// Heals `world`; whether that worked, or could not be expected.
    pub(crate) fn run(self, world: &mut World) -> bool {
        let mut turn = Turn { world, dead: self.dead };
        if let Some(dead) = self.dead {
            turn.step(Action::CrashProcess, 0, dead, 0, 0);
        }
        let is_healed = turn.rounds(Turn::is_whole);
        if !is_healed {
            return turn.is_excused();
        }
        for partition in 0..PARTITIONS {
            turn.write(partition);
        }
        if !turn.rounds(Turn::is_whole) {
            return turn.is_excused();
        }
        (0..PARTITIONS).all(|partition| turn.reads(partition)) || turn.is_excused()
    }
}

struct Turn<'a> {
    world: &'a mut World,
    dead: Option<usize>,
}

impl Turn<'_> {
    fn step(&mut self, action: Action, partition: usize, node: usize, other: usize, choice: u8) -> bool {
        let step = Step {
            action,
            partition: partition as u8,
            node: node as u8,
            other: other as u8,
            choice,
            message: Message::default(),
        };
        self.take(&step)
    }

    fn take(&mut self, step: &Step) -> bool {
        self.world.verdict == Verdict::Fine && self.world.take_step(step) == Outcome::Taken
    }

    /// Lets everybody act until `is_done` or the rounds are over.
    fn rounds(&mut self, is_done: fn(&Self) -> bool) -> bool {
        for round in 0..HEAL_ROUNDS_MAX {
            if is_done(self) {
                return true;
            }
            self.round(round);
        }
        is_done(self)
    }

    fn round(&mut self, round: u32) {
        self.step(Action::Pass, 0, 0, 0, 6);
        self.nodes();
        for partition in 0..PARTITIONS {
            self.control(partition, round);
            for node in self.world.leading[partition] {
                self.leader(node, partition);
            }
        }
        self.deliver_all();
    }

    fn nodes(&mut self) {
        for node in self.alive() {
            self.step(Action::Wake, 0, node, 0, 0);
            self.step(Action::Start, 0, node, 0, 0);
            self.step(Action::Register, 0, node, 0, 0);
            for partition in 0..PARTITIONS {
                self.step(Action::AdoptLatest, partition, node, 0, 0);
                self.step(Action::TidyUp, partition, node, 0, 0);
                self.step(Action::Sync, partition, node, 0, 0);
                self.step(Action::Acknowledge, partition, node, 0, 0);
                if !self.world.replicas[partition][node].is_streaming {
                    self.step(Action::Attach, partition, node, 0, 0);
                }
            }
        }
    }

    fn alive(&self) -> Set {
        let all = self.world.all();
        self.dead.map_or(all, |dead| all.without(dead))
    }

    fn control(&mut self, partition: usize, round: u32) {
        if let Some(dead) = self.dead {
            self.step(Action::Fence, 0, dead, 0, 0);
        }
        self.step(Action::Decide, partition, 0, 0, round as u8);
        for node in self.alive() {
            self.step(Action::ReportStatus, partition, node, 0, 0);
        }
        self.step(Action::ElectUnclean, partition, 0, 0, round as u8);
    }

    fn leader(&mut self, node: usize, partition: usize) {
        self.step(Action::Resend, partition, node, 0, 0);
        for other in self.alive() {
            self.step(Action::Stream, partition, node, other, 0);
            self.step(Action::Expand, partition, node, other, 0);
            if let Some(dead) = self.dead {
                self.step(Action::Swap, partition, node, dead, other as u8);
            }
        }
        if let Some(dead) = self.dead {
            self.step(Action::Shrink, partition, node, dead, 0);
        }
        self.step(Action::Commit, partition, node, 0, 0);
    }

    fn deliver_all(&mut self) {
        for _ in 0..4 * MESSAGES_MAX {
            let is_due =
                |message: &&Message| message.kind != Kind::Support || self.world.is_support_due(message);
            let Some(message) = self.world.bag.all().iter().find(is_due).copied() else { return };
            self.take(&Step { action: Action::Deliver, partition: 0, node: 0, other: 0, choice: 0, message });
            if self.world.bag.all().contains(&message) {
                return;
            }
        }
    }

    fn write(&mut self, partition: usize) {
        let leader = usize::from(self.world.control.partitions[partition].leader);
        self.step(Action::Write, partition, leader, 0, 0);
    }

    fn reads(&mut self, partition: usize) -> bool {
        let leader = usize::from(self.world.control.partitions[partition].leader);
        let leading = &mut self.world.leaders[partition][leader];
        leading.barrier.is_open = false;
        if !self.step(Action::StartBarrier, partition, leader, 0, 0) {
            return false;
        }
        self.deliver_all();
        !self.world.leaders[partition][leader].barrier.is_open
    }

    fn is_whole(&self) -> bool {
        (0..PARTITIONS).all(|partition| self.is_partition_whole(partition))
    }

    fn is_partition_whole(&self, partition: usize) -> bool {
        let world = &*self.world;
        let configuration = &world.control.partitions[partition];
        let leader = usize::from(configuration.leader);
        if configuration.leader == NONE || !world.is_leading(leader, partition) {
            return false;
        }
        let tip = world.replicas[partition][leader].tip;
        let is_equal = |node: usize| world.replicas[partition][node].tip == tip;
        let wanted = configuration.replicas.and(self.alive());
        configuration.in_sync == wanted
            && configuration.tainted.is_empty()
            && wanted.into_iter().all(is_equal)
            && !world.is_waiting(leader, partition)
            && world.leaders[partition][leader].silence == Silence::None
            && world.leaders[partition][leader].proposal.version == 0
            && world.replicas[partition][leader].commit == world.log_end(leader, partition)
            && world.is_active(leader, partition)
    }

    /// Whether nothing better could be expected: a bound of the model, or a dead node without which the
    /// others must not go on.
    fn is_excused(&self) -> bool {
        if self.world.verdict != Verdict::Fine {
            return true;
        }
        (0..PARTITIONS).any(|partition| {
            let world = &*self.world;
            let configuration = &world.control.partitions[partition];
            let alive = configuration.replicas.and(self.alive());
            let is_leaderless = configuration.leader == NONE
                && configuration.electable().and(self.alive()).is_empty()
                && self.dead.is_some_and(|dead| configuration.in_sync.has(dead));
            let is_full = world.records[partition].is_full()
                || alive.into_iter().any(|node| world.log_end(node, partition) >= LOG_MAX);
            alive.len() < world.setting.minimum || is_leaderless || is_full
        })
    }
}
