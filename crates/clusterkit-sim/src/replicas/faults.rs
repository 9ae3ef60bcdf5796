//! What breaks: each seed draws which kinds, how often, and whom they meet.

use std::time::Duration;

use clusterkit_core::control::{Command, LivenessChange};
use clusterkit_core::id::{PartitionId, StoreId};
use clusterkit_core::time::Instant;
use clusterkit_core::topology::Liveness;

use super::chance::Chance;
use super::clock::RATES;
use super::network::CONTROL;
use super::node::name;
use super::world::{Event, World};

/// For how long a fault counts as there, for coverage.
const RECENT: Duration = Duration::from_millis(1_500);

macro_rules! kinds {
    ($($name:ident),* $(,)?) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Kind { $($name),* }

        impl Kind {
            pub(super) const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

kinds! {
    BlockControl, BlockNode, BlockOneWay, BlockPair, Bounce, ClockRate, ControllerFalls, Damage, DeclareDead, Drain,
    Halves, Kill, KillLeader, LoseEnd, Move, Pause, PowerAll, PowerNode, Renew, Resign, SlowDisk, SlowLink, SyncError,
    Transfer, Usurp, WallJump, Wipe,
}

/// The faults of a run.
#[derive(Debug, Default)]
pub(super) struct Mischief {
    until: [Option<Instant>; Kind::ALL.len()],
    mask: u64,
    mask_until: Instant,
}

impl Kind {
    /// Some are on and some are off, so that each run is about something.
    pub(super) fn draw(chance: &mut Chance) -> Vec<Self> {
        let permille = chance.pick(&[200, 350, 600]).unwrap_or(350);
        Self::ALL.iter().copied().filter(|_| chance.permille(permille)).collect()
    }
}

impl Mischief {
    fn note(&mut self, kind: Kind, until: Instant) {
        self.until[kind as usize] = Some(until + RECENT);
        self.mask_until = Instant::ORIGIN;
    }

    /// The kinds that are there, a bit each.
    pub(super) fn recent(&mut self, now: Instant) -> u64 {
        if self.mask_until <= now {
            let present = |until: &&Option<Instant>| until.is_some_and(|until| until > now);
            self.mask_until =
                self.until.iter().filter(present).flatten().min().copied().unwrap_or(now + RECENT);
            let bits = self.until.iter().enumerate().filter(|(_, until)| present(until));
            self.mask = bits.fold(0, |mask, (bit, _)| mask | 1 << bit);
        }
        self.mask
    }
}

// When.
impl World {
    pub(super) fn make_mischief(&mut self) {
        if self.quiet {
            return;
        }
        let settings = &self.settings;
        self.network.loss_permille = settings.loss;
        self.network.repeat_permille = settings.repeats;
        self.network.late_permille = settings.late;
        let delay = self.chance.millis(500, 2_000);
        self.after(delay, Event::Fault);
    }

    pub(super) fn break_something(&mut self) {
        if self.quiet {
            return;
        }
        let pause = self.settings.fault_pause;
        let delay = pause.mul_f64(0.1) + self.chance.micros(0, pause.as_micros() as u64 * 2);
        self.after(delay, Event::Fault);
        let Some(kind) = self.chance.pick(&self.settings.faults.clone()) else { return };
        let node = self.chance.index(self.nodes.len());
        let lasts = if self.chance.permille(800) {
            self.chance.millis(50, 1_500)
        } else {
            self.chance.millis(1_000, 9_000)
        };
        self.coverage.note_fault(kind);
        self.mischief.note(kind, self.now + lasts);
        self.tell(None, || format!("fault {kind:?} at n{node} for {lasts:?}"));
        self.do_fault(kind, node, lasts);
    }

    fn do_fault(&mut self, kind: Kind, node: usize, lasts: Duration) {
        match kind {
            Kind::BlockControl => self.block_control(node, lasts),
            Kind::BlockNode => self.isolate(node, lasts),
            Kind::BlockOneWay => self.block_one_way(node, lasts),
            Kind::BlockPair => self.block_pair(node, lasts),
            Kind::Bounce => self.bounce(node),
            Kind::ClockRate => self.change_rate(node),
            Kind::ControllerFalls => self.unseat_controller(),
            Kind::Damage => self.damage(node, lasts),
            Kind::DeclareDead => self.declare_dead(node),
            Kind::Drain => self.drain(node),
            Kind::Halves => self.halve(lasts),
            Kind::Kill => self.kill_for(node, lasts),
            Kind::KillLeader => self.kill_leader(lasts),
            Kind::LoseEnd => self.lose_end(node, lasts),
            Kind::Move => self.start_move(),
            Kind::Pause => self.nodes[node].paused_until = self.now + lasts,
            Kind::PowerAll => self.cut_all_power(lasts),
            Kind::PowerNode if self.settings.lazy && !self.may_lose(node) => {}
            Kind::PowerNode => self.cut_power_for(node, lasts),
            Kind::Renew => self.renew_copy(),
            Kind::Resign => self.ask_to_resign(),
            Kind::SlowDisk => self.nodes[node].slow_disk_until = self.now + lasts,
            Kind::SlowLink => self.slow_link(node, lasts),
            Kind::SyncError => self.nodes[node].sync_fails = true,
            Kind::Transfer => self.start_transfer(),
            Kind::Usurp => self.usurp(lasts),
            Kind::WallJump => self.jump(node),
            Kind::Wipe => self.wipe(node, lasts),
        }
    }
}

// The network and the clocks.
impl World {
    fn sites(&self) -> Vec<usize> {
        (0..self.nodes.len()).chain([CONTROL]).collect()
    }

    fn block_control(&mut self, node: usize, lasts: Duration) {
        let until = self.now + lasts;
        let ways = self.chance.below(3);
        if ways != 1 {
            self.network.block(node, CONTROL, until);
        }
        if ways != 2 {
            self.network.block(CONTROL, node, until);
        }
    }

    /// Nobody hears it, or it hears nobody, or both; now and then the control plane is not part of that.
    fn isolate(&mut self, node: usize, lasts: Duration) {
        let (until, ways) = (self.now + lasts, self.chance.below(4));
        let with_control = self.chance.permille(700);
        for other in
            self.sites().into_iter().filter(|site| *site != node && (with_control || *site != CONTROL))
        {
            if ways != 1 {
                self.network.block(node, other, until);
            }
            if ways != 2 {
                self.network.block(other, node, until);
            }
        }
    }

    fn block_one_way(&mut self, node: usize, lasts: Duration) {
        let other = self.chance.index(self.nodes.len());
        self.network.block(node, other, self.now + lasts);
    }

    fn block_pair(&mut self, node: usize, lasts: Duration) {
        let other = self.chance.index(self.nodes.len());
        self.network.block(node, other, self.now + lasts);
        self.network.block(other, node, self.now + lasts);
    }

    /// Two sides do not hear each other; the control plane is on one of them.
    fn halve(&mut self, lasts: Duration) {
        let until = self.now + lasts * 3;
        let side = self.chance.next();
        for from in self.sites() {
            for to in self.sites() {
                if (side >> from ^ side >> to) & 1 == 1 {
                    self.network.block(from, to, until);
                }
            }
        }
    }

    /// A leader does not hear the control plane, and is replaced; now and then the others restart meanwhile.
    fn usurp(&mut self, lasts: Duration) {
        let Some(leader) = self.some_leader() else { return };
        let until = self.now + lasts;
        self.network.block(CONTROL, leader, until);
        if self.chance.permille(500) {
            self.network.block(leader, CONTROL, until);
        }
        self.declare_dead(leader);
        for other in (0..self.nodes.len()).filter(|other| *other != leader) {
            match self.chance.below(10) {
                0..3 => self.bounce(other),
                3..6 => self.declare_dead_soon(other),
                _ => {}
            }
        }
    }

    /// Whoever is elected meanwhile is replaced again.
    fn declare_dead_soon(&mut self, node: usize) {
        let Some(record) = self.control.topology.node(&name(node)) else { return };
        let (node, incarnation) = (record.id.clone(), record.incarnation);
        let change = LivenessChange { node, incarnation, liveness: Liveness::Dead };
        let delay = self.chance.millis(30, 300);
        self.after(delay, Event::Command(vec![Command::SetLiveness { changes: vec![change] }]));
    }

    fn slow_link(&mut self, node: usize, lasts: Duration) {
        let by = self.chance.millis(5, 400);
        self.network.slow(node, self.now + lasts, by);
    }

    fn change_rate(&mut self, node: usize) {
        let rate = self.chance.between(RATES.0, RATES.1);
        self.nodes[node].clock.change_rate(self.now, rate);
        if let Some(process) = self.nodes[node].process.as_mut() {
            process.armed = None;
        }
        self.settle(node, None);
    }

    fn jump(&mut self, node: usize) {
        let hours = self.chance.between(0, 6) as i64 - 3;
        let by_ms = hours * 3_600_000 + self.chance.between(0, 20_000) as i64 - 10_000;
        self.nodes[node].clock.jump(by_ms);
    }
}

// Processes and machines.
impl World {
    pub(super) fn kill_for(&mut self, node: usize, lasts: Duration) {
        self.kill(node);
        self.after(lasts, Event::Start(node));
    }

    fn kill_leader(&mut self, lasts: Duration) {
        if let Some(leader) = self.some_leader() {
            self.kill_for(leader, lasts);
        }
    }

    fn some_leader(&mut self) -> Option<usize> {
        let partition = PartitionId(self.chance.below(u64::from(self.settings.partitions)) as u32);
        let record = self.control.topology.partition(partition)?;
        record.leader.as_ref().map(super::node::index)
    }

    /// Its process is killed, or its power cut, and runs again at once.
    fn bounce(&mut self, node: usize) {
        let lasts = self.chance.millis(1, 20);
        let bears = !self.settings.lazy || self.may_lose(node);
        if bears && self.chance.permille(400) {
            self.cut_power_for(node, lasts);
        } else {
            self.kill_for(node, lasts);
        }
    }

    fn cut_power_for(&mut self, node: usize, lasts: Duration) {
        self.cut_power(node);
        self.after(lasts, Event::Start(node));
    }

    fn cut_all_power(&mut self, lasts: Duration) {
        if self.settings.lazy {
            return;
        }
        for node in 0..self.nodes.len() {
            let more = self.chance.millis(0, 500);
            self.cut_power_for(node, lasts / 2 + more);
        }
    }
}

// Disks. No more is lost than the protocol bears: a partition always keeps a sound member.
impl World {
    /// Whether a disk may lose something: for every partition that counts on it, another copy has everything.
    pub(super) fn may_lose(&self, node: usize) -> bool {
        let lost = self.nodes.iter().any(|node| node.lost_something);
        let damaged =
            |node: &super::node::Node| node.disk.stores().any(|(_, store)| super::node::is_damaged(store));
        let topology = &self.control.topology;
        let bears = |record: &clusterkit_core::topology::Partition| {
            let member = record.in_sync.contains(&name(node));
            let sound =
                record.in_sync.iter().filter(|other| **other != name(node) && record.is_electable(other));
            // Fewer disks than the minimum may be lost, those of tainted members included.
            !member || record.tainted.len() + 1 < record.min_in_sync as usize && sound.count() >= 1
        };
        let drops = self.now < self.drops_until;
        !lost
            && !drops
            && !self.nodes.iter().any(damaged)
            && topology.partitions.iter().all(|record| bears(record))
    }

    /// A record of a log cannot be read: found at the next start.
    fn damage(&mut self, node: usize, lasts: Duration) {
        if !self.may_lose(node) {
            return;
        }
        self.kill(node);
        let keys: Vec<_> = self.nodes[node].disk.stores().map(|(key, _)| *key).collect();
        if let Some(key) = self.chance.pick(&keys)
            && let Some(store) = self.nodes[node].disk.store_mut(key)
        {
            store.damaged = true;
            self.nodes[node].lost_something = true;
        }
        self.after(lasts, Event::Start(node));
    }

    /// The end of a log that was durable is gone; the note of its commit says so.
    fn lose_end(&mut self, node: usize, lasts: Duration) {
        if !self.may_lose(node) {
            return;
        }
        self.kill(node);
        let noted = |store: &super::store::Store| store.commit_noted > store.start();
        let keys: Vec<_> =
            self.nodes[node].disk.stores().filter(|(_, store)| noted(store)).map(|(key, _)| *key).collect();
        if let Some(key) = self.chance.pick(&keys)
            && let Some(store) = self.nodes[node].disk.store_mut(key)
        {
            let end = store.commit_noted - 1;
            store.truncate(end);
            self.nodes[node].lost_something = true;
        }
        self.after(lasts, Event::Start(node));
    }

    /// The disk is gone; the node comes back with another one.
    fn wipe(&mut self, node: usize, lasts: Duration) {
        if !self.may_lose(node) {
            return;
        }
        self.kill(node);
        let state = &mut self.nodes[node];
        state.disk.put_aside(|_| true);
        state.store = StoreId(state.store.0 + 100);
        state.lost_something = true;
        self.after(lasts, Event::Start(node));
    }
}

// Operators.
impl World {
    fn drain(&mut self, node: usize) {
        let drains = self.chance.permille(500);
        let node = name(node);
        let command = if drains { Command::Drain { node } } else { Command::CancelDrain { node } };
        self.propose_commands(vec![command]);
    }

    fn ask_to_resign(&mut self) {
        let partition = PartitionId(self.chance.below(u64::from(self.settings.partitions)) as u32);
        let record = self.control.topology.partition(partition);
        if let Some(leader) = record.and_then(|record| record.leader.as_ref()).map(super::node::index) {
            self.act(leader, Some(partition), |replicas, now, wall_ms| {
                replicas.resign(now, wall_ms, partition);
            });
        }
    }
}
