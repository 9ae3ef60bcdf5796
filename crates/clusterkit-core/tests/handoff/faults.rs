//! What chance breaks: nodes, disks, the network, the controller; and what operators do meanwhile.

use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::control::Command;
use clusterkit_core::handoff::Stages;
use clusterkit_core::id::StoreId;
use clusterkit_core::topology::{Liveness, Node, Stage};

use crate::chance::Chance;
use crate::node::Disk;
use crate::world::{Event, World, name};

/// Something that is to end, or to happen, at a time of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Chance is over; everything that is down comes back.
    Calm,
    Crash(usize),
    Start(usize),
    Unseat,
}

/// How chance breaks things in a run: each has a taste of its own, so that what is rare among
/// everything at once is common in some.
#[derive(Debug, Clone)]
pub(crate) struct Mischief {
    /// How often each kind comes, in the order of [`KINDS`].
    weights: [u64; KINDS.len()],
    /// From one to the next, at most, in milliseconds.
    pause_max: u64,
    /// Hooks in a hundred that do not simply end.
    pub(crate) hooks: u64,
    /// Messages and proposals in a hundred that are late, lost or doubled.
    pub(crate) network: u64,
}

type Kind = fn(&mut World, usize);

/// Each with its usual weight.
const KINDS: [(Kind, u64); 11] = [
    (World::crash_for_a_while, 25),
    (World::pause, 15),
    (World::cut, 15),
    (World::fail_over, 7),
    (World::slow_down, 6),
    (World::stop, 6),
    (World::drain, 7),
    (World::cancel_drain, 7),
    (World::remove, 4),
    (World::join_a_spare, 3),
    (World::change_replication_factor, 5),
];

impl Mischief {
    pub(crate) fn by(chance: &mut Chance) -> Self {
        if chance.percent(15) {
            return Self::of_cuts();
        }
        let sparse = chance.percent(60);
        let mut weights = KINDS.map(|(_, weight)| if sparse && chance.percent(50) { 0 } else { weight });
        // The replication factor always moves, so that there is always something.
        weights[KINDS.len() - 1] = weights[KINDS.len() - 1].max(1);
        Self {
            weights,
            pause_max: [700, 2_000, 3_500, 8_000][chance.below(4) as usize],
            hooks: [0, 5, 19, 19, 40][chance.below(5) as usize],
            network: [0, 2, 9, 9][chance.below(4) as usize],
        }
    }

    /// Nodes that lose the control plane and go on, crashes and drains.
    pub(crate) fn of_cuts() -> Self {
        let weights = [20, 5, 40, 0, 0, 0, 15, 15, 0, 0, 5];
        Self { weights, pause_max: 1_500, hooks: 0, network: 9 }
    }

    pub(crate) fn none() -> Self {
        Self { weights: [0; KINDS.len()], pause_max: 1_000, hooks: 0, network: 0 }
    }
}

impl World {
    pub(crate) fn break_something(&mut self, fault: Fault) {
        match fault {
            Fault::Calm => self.calm(),
            Fault::Crash(node) => self.crash(node),
            Fault::Start(node) => self.return_to_life(node),
            Fault::Unseat => self.unseat(),
        }
    }

    fn return_to_life(&mut self, node: usize) {
        if self.nodes[node].process.is_none() {
            self.start(node);
        }
    }

    /// One more thing goes wrong, until it is enough.
    pub(crate) fn make_mischief(&mut self) {
        if self.now.elapsed() >= self.settings.chaos {
            return self.after(Duration::ZERO, Event::Fault(Fault::Calm));
        }
        let node = self.chance.below(self.nodes.len() as u64) as usize;
        let weights = self.settings.mischief.weights;
        let mut drawn = self.chance.below(weights.iter().sum());
        for ((kind, _), weight) in KINDS.iter().zip(weights) {
            if drawn < weight {
                kind(self, node);
                break;
            }
            drawn -= weight;
        }
        let pause = self.chance.millis(100, self.settings.mischief.pause_max);
        self.after(pause, Event::Mischief);
    }

    fn slow_down(&mut self, node: usize) {
        self.nodes[node].lag = self.chance.millis(0, 2_500);
    }

    /// Two nodes stay at least.
    fn drain(&mut self, node: usize) {
        let nodes = self.topology().nodes.values();
        let stays = |node: &&Arc<Node>| node.stage == Stage::Member && node.liveness == Liveness::Alive;
        if nodes.filter(stays).count() > 2 {
            self.write(None, &[Command::Drain { node: name(node) }]);
        }
    }

    fn cancel_drain(&mut self, node: usize) {
        self.write(None, &[Command::CancelDrain { node: name(node) }]);
    }

    fn crash_for_a_while(&mut self, node: usize) {
        if self.nodes[node].process.is_none() {
            return;
        }
        self.crash(node);
        match self.chance.below(100) {
            0..=5 => self.wipe(node),
            6..=10 => self.damage(node),
            _ => {}
        }
        let back = match self.chance.below(100) {
            0..=49 => self.chance.millis(100, 2_000),
            50..=84 => self.chance.millis(2_000, 15_000),
            _ => return,
        };
        self.after(back, Event::Fault(Fault::Start(node)));
    }

    /// The disk is lost: another one takes its place.
    pub(crate) fn wipe(&mut self, node: usize) {
        self.trace(|| format!("n{node}    is wiped"));
        let store = self.nodes[node].store;
        self.nodes[node].store = StoreId(store.0 + 1_000);
        self.nodes[node].disk = Disk::default();
        self.nodes[node].damaged = false;
    }

    fn pause(&mut self, node: usize) {
        let long = self.chance.percent(40);
        let pause = if long { self.chance.millis(800, 6_000) } else { self.chance.millis(50, 800) };
        self.trace(|| format!("n{node}    stands still for {pause:?}"));
        self.nodes[node].paused_until = self.nodes[node].paused_until.max(self.now + pause);
        let seated = self.seat.as_ref().is_some_and(|seat| seat.node == node);
        if seated && long {
            self.after(Duration::from_millis(600), Event::Fault(Fault::Unseat));
        }
    }

    /// The control plane is out of reach, and nothing else may be.
    fn cut(&mut self, node: usize) {
        let cut = self.chance.millis(200, 8_000);
        let alone = self.chance.percent(40);
        self.trace(|| format!("n{node}    is cut off for {cut:?}, alone: {alone}"));
        self.nodes[node].cut_until = self.now + cut;
        self.nodes[node].alone = alone;
        if self.seat.as_ref().is_some_and(|seat| seat.node == node) {
            self.unseat();
        }
    }

    fn fail_over(&mut self, _: usize) {
        let cut = self.seat.as_ref().map(|seat| seat.node).filter(|_| self.chance.percent(30));
        if let Some(node) = cut {
            self.nodes[node].paused_until = self.now + Duration::from_millis(900);
        }
        self.unseat();
    }

    fn stop(&mut self, node: usize) {
        if !self.is_awake(node) {
            return;
        }
        self.trace(|| format!("n{node}    is stopped"));
        let patience = self.chance.millis(100, 4_000);
        self.process_mut(node).stops_at = Some(self.now + patience);
        self.with_stages(node, Stages::stop);
        self.drive(node);
    }

    fn remove(&mut self, node: usize) {
        let force = self.chance.percent(70);
        let down = self.topology().node(&name(node)).is_some_and(|node| !node.is_live());
        if down || !force {
            self.write(None, &[Command::RemoveNode { node: name(node), force }]);
        }
    }

    fn join_a_spare(&mut self, _: usize) {
        let asleep = (0..self.nodes.len()).filter(|node| self.nodes[*node].boots == 0).collect::<Vec<_>>();
        if let Some(node) = self.chance.pick(&asleep) {
            self.start(node);
        }
    }

    fn change_replication_factor(&mut self, _: usize) {
        let replication_factor = self.chance.between(1, 4) as u32;
        self.write(None, &[Command::SetReplicationFactor { replication_factor }]);
    }

    /// Faults stop: whoever is down, stopped or cut off comes back, and hooks behave.
    fn calm(&mut self) {
        self.trace(|| "calm".to_string());
        self.quiet = true;
        for node in 0..self.nodes.len() {
            let state = &mut self.nodes[node];
            state.paused_until = state.paused_until.min(self.now + Duration::from_secs(1));
            state.cut_until = self.now;
            state.alone = false;
            state.lag = Duration::ZERO;
            self.release_hooks(node);
            self.show(node);
            if self.nodes[node].boots > 0 {
                let delay = self.chance.millis(0, 2_000);
                self.after(delay, Event::Fault(Fault::Start(node)));
            }
        }
    }
}
