//! A node: its clocks, its disk, and the process that runs on it for a while.

use std::collections::BTreeMap;
use std::rc::Rc;

use clusterkit_core::control::Registration;
use clusterkit_core::id::{BootId, Incarnation, NodeId, PartitionId, ReplicaUid, StoreId};
use clusterkit_core::replica::{LogOp, ReadId, Recovered, ReplicaKey, Replicas, RequestId};
use clusterkit_core::time::Instant;

use super::chance::Chance;
use super::checkers::Seen;
use super::clients::Request;
use super::clock::{Clock, RATE_TRUE, RATES};
use super::coverage::Step;
use super::disk::Disk;
use super::machine::Machine;
use super::requests::Reading;
use super::settings::Settings;
use super::store::{Package, Store};
use super::world::{Event, World};

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: NodeId,
    pub(super) clock: Clock,
    pub(super) disk: Disk,
    pub(super) store: StoreId,
    pub(super) boots: u64,
    pub(super) process: Option<Process>,
    pub(super) paused_until: Instant,
    pub(super) slow_disk_until: Instant,
    /// The next sync fails.
    pub(super) sync_fails: bool,
    /// How much of each replica was durable once.
    pub(super) durable_once: BTreeMap<ReplicaKey, u64>,
    /// What it called durable is gone, since it was not; until it has registered with that.
    pub(super) lost_end: bool,
    /// It lost something that the control plane does not know of yet.
    pub(super) lost_something: bool,
}

/// A run of a node's process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) run: u64,
    pub(super) started_at: Instant,
    /// What it says when it registers.
    damaged: BTreeMap<PartitionId, ReplicaUid>,
    /// Acknowledged writes may be missing (rule R3).
    is_doubtful: bool,
    pub(super) incarnation: Incarnation,
    /// From its registration on.
    pub(super) replicas: Option<Replicas>,
    pub(super) machines: BTreeMap<ReplicaKey, Machine>,
    /// Snapshots that have arrived and are to be installed.
    pub(super) packages: BTreeMap<ReplicaKey, Rc<Package>>,
    /// States that are on their way to the disk.
    pub(super) installing: BTreeMap<ReplicaKey, (LogOp, Rc<Package>)>,
    pub(super) requests: BTreeMap<RequestId, Request>,
    pub(super) reads: BTreeMap<ReadId, Reading>,
    pub(super) armed: Option<Instant>,
    pub(super) refreshes_until: Instant,
    pub(super) seen: BTreeMap<PartitionId, Seen>,
}

pub(super) fn name(index: usize) -> NodeId {
    NodeId::new(&format!("n{index}")).expect("a letter and a digit")
}

pub(super) fn index(node: &NodeId) -> usize {
    usize::from(node.as_str().as_bytes()[1] - b'0')
}

impl Node {
    pub(super) fn new(index: usize, settings: &Settings, chance: &mut Chance) -> Self {
        let rate = if settings.rates { chance.between(RATES.0, RATES.1) } else { RATE_TRUE };
        Self {
            name: name(index),
            clock: Clock::new(chance.millis(0, 1_000_000), rate),
            disk: Disk::default(),
            store: StoreId(index as u64 + 1),
            boots: 1,
            process: None,
            paused_until: Instant::ORIGIN,
            slow_disk_until: Instant::ORIGIN,
            sync_fails: false,
            durable_once: BTreeMap::new(),
            lost_end: false,
            lost_something: false,
        }
    }

    /// Notes how much of a replica is durable.
    pub(super) fn note_durable(&mut self, key: ReplicaKey) {
        let durable = self.disk.store(key).map_or(0, |store| store.durable);
        let once = self.durable_once.entry(key).or_default();
        *once = durable.max(*once);
    }

    pub(super) fn runs(&self, run: u64) -> bool {
        self.process.as_ref().is_some_and(|process| process.run == run)
    }

    pub(super) fn replicas(&self) -> Option<&Replicas> {
        self.process.as_ref()?.replicas.as_ref()
    }

    pub(super) fn replicas_mut(&mut self) -> Option<&mut Replicas> {
        self.process.as_mut()?.replicas.as_mut()
    }

    pub(super) fn registration(&self, index: usize) -> Registration {
        let boot = BootId(self.boots << 8 | index as u64);
        let addrs = [7_000, 8_080].map(|port| format!("h{index}:{port}"));
        let process = self.process.as_ref();
        Registration {
            damaged: process.is_some_and(|process| process.is_doubtful),
            replicas_damaged: process.map(|process| process.damaged.clone()).unwrap_or_default(),
            reports_position: true,
            ..Registration::new(self.name.clone(), self.store, boot, addrs)
        }
    }
}

/// What a shell that starts holds against a store (rule D2).
pub(super) fn is_damaged(store: &Store) -> bool {
    let end = store.end();
    let applied = store.checkpoint.applied;
    store.damaged || end < store.commit_noted || end < applied || applied < store.start()
}

impl Process {
    fn new(run: u64, started_at: Instant) -> Self {
        Self {
            run,
            started_at,
            damaged: BTreeMap::new(),
            is_doubtful: false,
            incarnation: Incarnation(1),
            replicas: None,
            machines: BTreeMap::new(),
            packages: BTreeMap::new(),
            installing: BTreeMap::new(),
            requests: BTreeMap::new(),
            reads: BTreeMap::new(),
            armed: None,
            refreshes_until: Instant::ORIGIN,
            seen: BTreeMap::new(),
        }
    }
}

// Starting and stopping.
impl World {
    /// The process that formed the cluster.
    pub(super) fn start_first(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.process = Some(Process::new(node.disk.run, node.clock.local(self.now)));
        self.begin_run(index, Incarnation(1));
    }

    pub(super) fn start(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.process.is_some() {
            return;
        }
        node.boots += 1;
        node.paused_until = Instant::ORIGIN;
        let mut process = Process::new(node.disk.run, node.clock.local(self.now));
        process.is_doubtful = node.lost_end;
        // Now and then damage is found later, by whoever reads it.
        if self.chance.permille(800) {
            let damaged = node.disk.stores().filter(|(_, store)| is_damaged(store));
            process.damaged = damaged.map(|(key, _)| (key.partition, key.uid)).collect();
        }
        let run = process.run;
        node.process = Some(process);
        self.tell(None, || format!("n{index} starts"));
        self.send_registration(index, run);
    }

    pub(super) fn send_registration(&mut self, index: usize, run: u64) {
        let delay = self.chance.millis(1, 30);
        self.after(delay, Event::Register { node: index, run });
    }

    /// The control plane has said which run this is.
    pub(super) fn registered(&mut self, index: usize, run: u64, incarnation: Incarnation) {
        let node = &mut self.nodes[index];
        if !node.runs(run) || node.replicas().is_some() {
            return;
        }
        self.begin_run(index, incarnation);
        self.tell(None, || format!("n{index} is registered as run {incarnation}"));
        self.cover(Step::Register);
        self.show_topology(index);
    }

    fn begin_run(&mut self, index: usize, incarnation: Incarnation) {
        let config = self.settings.config.clone();
        let node = &mut self.nodes[index];
        let keys: Vec<_> = node.disk.stores().map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| node.note_durable(key));
        let Some(process) = node.process.as_mut() else { return };
        process.incarnation = incarnation;
        let mut recovered: BTreeMap<ReplicaKey, Recovered> = BTreeMap::new();
        for (key, store) in node.disk.stores() {
            let is_known = process.damaged.contains_key(&key.partition);
            recovered.insert(*key, Recovered { damaged: store.damaged && is_known, ..store.recovered() });
            process.machines.insert(*key, Machine::clone(&store.checkpoint));
        }
        let name = node.name.clone();
        process.replicas = Some(Replicas::new(config, name, incarnation, process.started_at, recovered));
    }

    /// The process ends, and with it whatever it knew. The first `kept` unsynced changes of its disk survive.
    pub(super) fn crash(&mut self, index: usize, kept: usize, records: u64) {
        let node = &mut self.nodes[index];
        node.process = None;
        node.sync_fails = false;
        node.disk.crash(kept, records);
        self.tell(None, || format!("n{index} crashes; {kept} unsynced changes survive"));
        self.check_disk(index);
    }

    /// Its process is killed: what the operating system has, survives.
    pub(super) fn kill(&mut self, index: usize) {
        if self.nodes[index].process.is_some() {
            let unsynced = self.nodes[index].disk.unsynced();
            // What the process had not handed over yet is lost with it.
            let keeps_all = self.settings.lazy || self.chance.permille(700);
            let kept = if keeps_all { unsynced } else { self.chance.index(unsynced + 1) };
            let records = self.chance.below(4);
            self.crash(index, kept, records);
        }
    }

    /// What was called durable and is not will be missing.
    pub(super) fn lose_end_of_lazy(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.lost_end |= self.settings.lazy;
        node.lost_something |= self.settings.lazy;
    }

    /// Its power is cut: what is not synced is lost, but for a part of it. The machine's clock begins anew.
    pub(super) fn cut_power(&mut self, index: usize) {
        let unsynced = self.nodes[index].disk.unsynced();
        let kept = if self.chance.permille(600) { 0 } else { self.chance.index(unsynced + 1) };
        self.lose_end_of_lazy(index);
        let (records, local) = (self.chance.below(4), self.chance.millis(0, 100_000));
        self.crash(index, kept, records);
        self.nodes[index].clock.restart(self.now, local);
    }
}
