//! What surrounds [`Replicas`] on a node: it brings facts in and carries actions out.
//!
//! [`Replicas`]: clusterkit_core::replica::Replicas

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::id::PartitionId;
use clusterkit_core::replica::{
    Action, Alarm, Body, FetchToken, LogChange, LogOp, Message, Record, ReplicaKey, Replicas,
};
use clusterkit_core::time::Instant;
use clusterkit_core::topology::Topology;

use super::coverage::Step;
use super::disk::Durable;
use super::network::CONTROL;
use super::node::index;
use super::store::{Package, Store};
use super::world::{Event, World};

/// Actions after one fact: more of them and something goes round in circles.
const ACTIONS_AT_ONCE_MAX: usize = 10_000;
/// How often a node asks for a newer topology at most.
const REFRESH_PAUSE: Duration = Duration::from_millis(20);

// Facts.
impl World {
    /// Tells a node's replicas something, carries out what they want, and looks whether every rule holds.
    /// `touched` is the partition that it is about, if it is about one.
    pub(super) fn act<T>(
        &mut self,
        node: usize,
        touched: Option<PartitionId>,
        act: impl FnOnce(&mut Replicas, Instant, u64) -> T,
    ) -> Option<T> {
        let now = self.now;
        let clock = &self.nodes[node].clock;
        let (local, wall_ms) = (clock.local(now), clock.wall_ms(now));
        let answer = act(self.nodes[node].replicas_mut()?, local, wall_ms);
        self.settle(node, touched);
        Some(answer)
    }

    /// Carries out what the replicas of a node want.
    pub(super) fn settle(&mut self, node: usize, touched: Option<PartitionId>) {
        let mut count = 0;
        while let Some(action) = self.nodes[node].replicas_mut().and_then(Replicas::poll_action) {
            self.carry_out(node, action);
            count += 1;
            if count > ACTIONS_AT_ONCE_MAX {
                return self.violate("work ends", touched, || format!("n{node} never runs out of actions"));
            }
        }
        self.begin_sync(node);
        self.arm(node);
        self.observe(node, touched);
    }

    fn arm(&mut self, node: usize) {
        let now = self.now;
        let Some(due) = self.nodes[node].replicas().and_then(Replicas::poll_timeout) else { return };
        let is_late = !self.quiet && self.chance.permille(self.settings.slow_work / 4);
        let jitter = if is_late { self.chance.millis(2, 200) } else { self.chance.micros(0, 2_000) };
        let node_state = &mut self.nodes[node];
        let at = node_state.clock.true_time(due).max(now) + jitter;
        let Some(process) = node_state.process.as_mut() else { return };
        if process.armed.is_none_or(|armed| armed > at) {
            process.armed = Some(at);
            let run = process.run;
            self.at(at, Event::Timer { node, run, at });
        }
    }

    pub(super) fn timer(&mut self, node: usize, run: u64, at: Instant) {
        let Some(process) = self.nodes[node].process.as_mut().filter(|process| process.run == run) else {
            return;
        };
        if process.armed == Some(at) {
            process.armed = None;
            self.act(node, None, Replicas::handle_timeout);
        }
    }

    pub(super) fn see_topology(&mut self, node: usize, topology: &Arc<Topology>) {
        let version = topology.version;
        let before = self.nodes[node].replicas().map(|replicas| replicas.topology().version);
        self.act(node, None, |replicas, now, wall_ms| replicas.handle_topology(now, wall_ms, topology));
        let after = self.nodes[node].replicas().map(|replicas| replicas.topology().version);
        if before != after {
            self.tell(None, || format!("n{node} adopts topology {version}"));
            self.check_adopted(node, before, after);
        }
    }

    pub(super) fn deliver(&mut self, to: usize, from: usize, message: Message) {
        let sender = self.nodes[from].name.clone();
        let partition = partition_of(&message);
        if self.trace.is_kept() {
            self.tell(partition, || format!("n{to} <- n{from} {message:?}"));
        }
        self.act(to, partition, |replicas, now, wall_ms| {
            replicas.handle_message(now, wall_ms, &sender, message);
        });
    }

    pub(super) fn applied(
        &mut self,
        node: usize,
        run: u64,
        key: ReplicaKey,
        (first, records): (u64, Vec<Record>),
    ) {
        if self.nodes[node].runs(run)
            && let Some(end) = self.apply(node, key, first, &records)
        {
            self.act(node, Some(key.partition), |replicas, now, wall_ms| {
                replicas.handle_applied(now, wall_ms, key, end);
            });
        }
    }

    pub(super) fn fetched(
        &mut self,
        node: usize,
        run: u64,
        key: ReplicaKey,
        (token, first, records): (FetchToken, u64, Vec<Record>),
    ) {
        if self.nodes[node].runs(run) {
            self.act(node, Some(key.partition), |replicas, now, wall_ms| {
                replicas.handle_fetched(now, wall_ms, key, token, (first, records));
            });
        }
    }

    pub(super) fn take_snapshot(&mut self, to: usize, (from, run): (usize, u64), package: &Rc<Package>) {
        let header = &package.header;
        let partition = header.partition;
        let key = ReplicaKey { partition, uid: header.uid };
        if let Some(process) = self.nodes[to].process.as_mut() {
            process.packages.insert(key, Rc::clone(package));
        }
        let installs = self.act(to, Some(partition), |replicas, now, wall_ms| {
            replicas.handle_snapshot(now, wall_ms, header)
        });
        self.tell(Some(partition), || {
            format!("n{to} <- n{from} snapshot of {} records: installed {installs:?}", header.end)
        });
        if let Some(process) = self.nodes[to].process.as_mut() {
            process.packages.remove(&key);
        }
        self.cover(if installs == Some(true) { Step::Install } else { Step::SnapshotRefused });
        let of = package.of;
        self.end_snapshot(from, run, of, to);
    }

    /// The sender of a snapshot hears that it arrived, or waits in vain.
    pub(super) fn end_snapshot(&mut self, node: usize, run: u64, key: ReplicaKey, to: usize) {
        let delay = self.chance.millis(1, 50);
        self.after(delay, Event::SnapshotEnded { node, run, key, to });
    }

    pub(super) fn snapshot_ended(&mut self, node: usize, run: u64, key: ReplicaKey, to: usize) {
        if self.nodes[node].runs(run) {
            let name = self.nodes[to].name.clone();
            self.act(node, Some(key.partition), |replicas, _, _| replicas.handle_snapshot_ended(key, &name));
        }
    }
}

// Actions.
impl World {
    fn carry_out(&mut self, node: usize, action: Action) {
        match action {
            Action::Alarm { partition, alarm } => self.hear_alarm(node, partition, &alarm),
            Action::Apply { replica, first, records } => self.begin_apply(node, replica, first, records),
            Action::FailRead { read, error } => self.fail_read(node, read, &error),
            Action::Fetch { replica, token, range, bytes_max } => {
                self.fetch(node, replica, token, (range.start, range.end, bytes_max));
            }
            Action::Log { replica, op, change } => self.change_log(node, replica, op, change),
            Action::RefreshTopology => self.refresh(node),
            Action::Remove { replica } => self.remove(node, replica),
            Action::Reply { request, outcome } => self.reply(node, request, outcome),
            Action::Send { to, message } => self.send(node, index(&to), &message),
            Action::SendSnapshot { replica, to } => self.send_snapshot(node, replica, index(&to)),
            Action::Serve { replica, read } => self.begin_evaluation(node, replica, read),
            Action::Wish(wish) => self.send_wish(node, &wish),
        }
    }

    fn hear_alarm(&mut self, node: usize, partition: PartitionId, alarm: &Alarm) {
        self.tell(Some(partition), || format!("n{node} alarm {alarm:?}"));
        self.cover(Step::Alarm);
        if matches!(alarm, Alarm::Damaged) {
            self.cover(Step::Damaged);
        }
    }

    fn begin_apply(&mut self, node: usize, key: ReplicaKey, first: u64, records: Vec<Record>) {
        if self.chance.permille(self.settings.slow_work) {
            let delay = self.chance.millis(1, 300);
            let run = self.nodes[node].disk.run;
            return self.after(delay, Event::Applied { node, run, key, first, records });
        }
        let Some(end) = self.apply(node, key, first, &records) else { return };
        if self.chance.permille(self.settings.slow_work) {
            // The state has it, and its replica hears of that later.
            let delay = self.chance.millis(1, 300);
            let run = self.nodes[node].disk.run;
            return self.after(delay, Event::ToldApplied { node, run, key, end });
        }
        self.tell_applied(node, key, end);
    }

    fn tell_applied(&mut self, node: usize, key: ReplicaKey, end: u64) {
        let (local, wall_ms) = self.clocks(node);
        if let Some(replicas) = self.nodes[node].replicas_mut() {
            replicas.handle_applied(local, wall_ms, key, end);
        }
    }

    pub(super) fn told_applied(&mut self, node: usize, run: u64, (key, end): (ReplicaKey, u64)) {
        if self.nodes[node].runs(run) {
            self.tell_applied(node, key, end);
            self.settle(node, Some(key.partition));
        }
    }

    /// The state machine works through records; to where, if it is the machine that they are for.
    fn apply(&mut self, node: usize, key: ReplicaKey, first: u64, records: &[Record]) -> Option<u64> {
        let config = &self.settings.sessions;
        let process = self.nodes[node].process.as_mut()?;
        let machine = process.machines.get_mut(&key).filter(|machine| machine.applied == first)?;
        let mut effects = Vec::with_capacity(records.len());
        for record in records {
            let effect = machine.apply(config, record);
            effects.push((effect, machine.digest));
        }
        let end = machine.applied;
        for (offset, effect) in (first..).zip(effects) {
            self.check_effect(node, key.partition, offset, effect);
        }
        Some(end)
    }

    fn fetch(&mut self, node: usize, key: ReplicaKey, token: FetchToken, range: (u64, u64, usize)) {
        let (first, end, bytes_max) = range;
        let disk = &self.nodes[node].disk;
        let records = disk.store(key).map(|store| store.read(first, end, bytes_max)).unwrap_or_default();
        let run = disk.run;
        self.cover(if records.is_empty() { Step::FetchNothing } else { Step::Fetch });
        let delay = self.disk_delay(node);
        self.after(delay, Event::Fetched { node, run, key, token, first, records });
    }

    fn change_log(&mut self, node: usize, key: ReplicaKey, op: LogOp, change: LogChange) {
        if self.trace.is_kept() {
            self.tell(Some(key.partition), || format!("n{node} log {} {change:?}", key.uid));
        }
        match change {
            LogChange::Append { first, records } => self.append(node, key, op, (first, records)),
            LogChange::Create => self.nodes[node].disk.create(key, op),
            LogChange::Install(_) => self.install(node, key, op),
            LogChange::Truncate { end } => self.truncate(node, key, op, end),
        }
        if op == LogOp(1) {
            self.machine_of(node, key);
        }
    }

    fn machine_of(&mut self, node: usize, key: ReplicaKey) {
        if let Some(process) = self.nodes[node].process.as_mut() {
            process.machines.entry(key).or_default();
        }
    }

    fn append(&mut self, node: usize, key: ReplicaKey, op: LogOp, (first, records): (u64, Vec<Record>)) {
        let end = first + records.len() as u64;
        let last_time = self.nodes[node].disk.store(key).and_then(Store::time_of_last);
        let heads: Vec<_> = records.iter().map(|record| (record.epoch, record.time)).collect();
        if !self.nodes[node].disk.append(key, op, first, records) {
            let text = || format!("n{node} appends at {first}, where its log does not end");
            return self.violate("I5", Some(key.partition), text);
        }
        self.check_appended(node, key, (first, end), (last_time, &heads));
    }

    fn truncate(&mut self, node: usize, key: ReplicaKey, op: LogOp, end: u64) {
        self.cover(Step::Truncate);
        if !self.nodes[node].disk.truncate(key, op, end) {
            let text = || format!("n{node} cuts its log at {end}, where it has none");
            return self.violate("I6", Some(key.partition), text);
        }
        self.check_truncated(node, key, end);
    }

    fn install(&mut self, node: usize, key: ReplicaKey, op: LogOp) {
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        let Some(package) = process.packages.get(&key).map(Rc::clone) else { return };
        // The old state stays in its place until the new one is durable.
        process.installing.insert(key, (op, Rc::clone(&package)));
        self.nodes[node].disk.install(key, op, &package);
        self.check_installed(node, key);
    }

    /// A change of a log is durable: a state that came with it takes its place.
    fn put_in_place(&mut self, node: usize, key: ReplicaKey, op: LogOp) {
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        if process.installing.get(&key).is_some_and(|(awaited, _)| *awaited <= op)
            && let Some((_, package)) = process.installing.remove(&key)
        {
            process.machines.insert(key, package.machine.clone());
        }
    }

    fn remove(&mut self, node: usize, key: ReplicaKey) {
        self.nodes[node].disk.remove(key);
        if let Some(process) = self.nodes[node].process.as_mut() {
            process.machines.remove(&key);
            process.packages.remove(&key);
            process.installing.remove(&key);
        }
        self.cover(Step::Remove);
        self.check_removed(node, key);
    }

    fn send(&mut self, from: usize, to: usize, message: &Message) {
        self.cover_message(message);
        let arrivals = self.network.arrivals(&mut self.chance, self.now, (from, to));
        let late = self.lateness(message);
        for delay in arrivals.into_iter().flatten() {
            let message = Box::new(message.clone());
            self.after(delay + late, Event::Deliver { to, from, message });
        }
    }

    /// Answers to barriers are few, and what is wrong with late ones shows only where many are late.
    fn lateness(&mut self, message: &Message) -> Duration {
        let is_answer =
            matches!(message, Message::Replica(message) if matches!(message.body, Body::BarrierAck { .. }));
        if is_answer && self.network.late_permille > 0 && self.chance.permille(300) {
            return self.chance.millis(30, 1_500);
        }
        Duration::ZERO
    }

    fn cover_message(&mut self, message: &Message) {
        let Message::Replica(message) = message else { return self.cover(Step::Support) };
        match &message.body {
            Body::Attach { .. } => self.cover(Step::Attach),
            Body::Append { .. } => self.cover(Step::Append),
            Body::Ack { .. } => self.cover(Step::Ack),
            Body::Diverge { .. } => self.cover(Step::Diverge),
            Body::Barrier { .. } | Body::BarrierAck { .. } => self.cover(Step::Barrier),
            Body::Fenced => self.cover(Step::Fenced),
        }
    }

    fn send_snapshot(&mut self, node: usize, key: ReplicaKey, to: usize) {
        let name = self.nodes[to].name.clone();
        let run = self.nodes[node].disk.run;
        let package = self.package(node, key, &name);
        self.cover(Step::Snapshot);
        let Some(package) = package else { return self.end_snapshot(node, run, key, to) };
        let travel = if self.quiet { self.chance.millis(5, 50) } else { self.chance.millis(5, 1_500) };
        let arrivals = self.network.arrivals(&mut self.chance, self.now, (node, to));
        if arrivals == [None, None] {
            let patience = Duration::from_secs(1);
            return self.after(patience, Event::SnapshotEnded { node, run, key, to });
        }
        let package = Rc::new(package);
        for delay in arrivals.into_iter().flatten() {
            let package = Rc::clone(&package);
            self.after(travel + delay * 2, Event::Snapshot { to, from: node, run, package });
        }
    }

    fn package(&self, node: usize, key: ReplicaKey, to: &clusterkit_core::id::NodeId) -> Option<Package> {
        let process = self.nodes[node].process.as_ref()?;
        let machine = process.machines.get(&key)?.clone();
        let header = process.replicas.as_ref()?.snapshot_header(key, to, machine.applied)?;
        Some(self.nodes[node].disk.store(key)?.package(key, header, machine))
    }

    /// A node looks for a newer topology.
    pub(super) fn refresh(&mut self, node: usize) {
        let (now, open) = (self.now, self.network.is_open(self.now, node, CONTROL));
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        if process.refreshes_until <= now && open {
            process.refreshes_until = now + REFRESH_PAUSE;
            self.show_topology(node);
        }
    }

    pub(super) fn clocks(&self, node: usize) -> (Instant, u64) {
        let clock = &self.nodes[node].clock;
        (clock.local(self.now), clock.wall_ms(self.now))
    }
}

// The disk.
impl World {
    pub(super) fn disk_delay(&mut self, node: usize) -> Duration {
        let is_slow = self.nodes[node].slow_disk_until > self.now;
        if is_slow { self.chance.millis(20, 900) } else { self.chance.micros(200, 6_000) }
    }

    fn begin_sync(&mut self, node: usize) {
        if self.nodes[node].process.is_some() && self.nodes[node].disk.begin_sync() {
            let delay = self.disk_delay(node);
            let run = self.nodes[node].disk.run;
            self.after(delay, Event::Synced { node, run });
        }
    }

    pub(super) fn synced(&mut self, node: usize, run: u64) {
        if !self.nodes[node].runs(run) {
            return;
        }
        let fails = std::mem::take(&mut self.nodes[node].sync_fails);
        if fails && (!self.settings.lazy || self.may_lose(node)) {
            return self.fail_sync(node);
        }
        let durable = self.end_sync(node);
        let (local, wall_ms) = self.clocks(node);
        for change in durable {
            self.nodes[node].note_durable(change.key);
            if let Some(op) = change.op {
                self.put_in_place(node, change.key, op);
            }
            let Some(replicas) = self.nodes[node].replicas_mut() else { return };
            if let Some(op) = change.op {
                replicas.handle_durable(local, wall_ms, change.key, op);
            }
            if let Some(covered) = change.covered {
                self.release(node, change.key, covered);
            }
        }
        self.settle(node, None);
    }

    fn end_sync(&mut self, node: usize) -> Vec<Durable> {
        let disk = &mut self.nodes[node].disk;
        if !self.settings.lazy {
            return disk.end_sync();
        }
        let mut durable = disk.pretend_sync();
        if self.chance.permille(60) {
            durable.extend(disk.sync_all());
        }
        durable
    }

    /// Rule D3: the node stops; what the sync was for may be there or not.
    fn fail_sync(&mut self, node: usize) {
        self.tell(None, || format!("a sync of n{node} fails"));
        let unsynced = self.nodes[node].disk.unsynced();
        let (kept, records) = (self.chance.index(unsynced + 1), self.chance.below(4));
        self.lose_end_of_lazy(node);
        self.crash(node, kept, records);
        let delay = self.chance.millis(100, 2_000);
        self.after(delay, Event::Start(node));
    }

    /// A durable checkpoint covers the log below it.
    fn release(&mut self, node: usize, key: ReplicaKey, covered: u64) {
        let kept = self.settings.log_kept;
        let node = &mut self.nodes[node];
        let Some(store) = node.disk.store_mut(key) else { return };
        store.release(covered.saturating_sub(kept));
        let start = store.start();
        if let Some(replicas) = node.replicas_mut() {
            replicas.handle_released(key, start);
        }
    }

    /// Writes down states that have got far from their checkpoints, and how far logs are committed.
    pub(super) fn write_notes(&mut self, node: usize, key: ReplicaKey, commit: u64) {
        let every = self.settings.checkpoint_every;
        let node = &mut self.nodes[node];
        let Some(process) = node.process.as_ref() else { return };
        let Some((store, machine)) = node.disk.store(key).zip(process.machines.get(&key)) else { return };
        let is_far = machine.applied >= store.checkpoint.applied + every;
        if store.commit_noted + every / 4 < commit && commit <= store.end() {
            node.disk.note_commit(key, commit);
        }
        if is_far && machine.applied <= node.disk.store(key).map_or(0, Store::end) {
            let machine = machine.clone();
            node.disk.checkpoint(key, machine);
        }
    }
}

fn partition_of(message: &Message) -> Option<PartitionId> {
    match message {
        Message::Replica(message) => Some(message.partition),
        Message::Support { .. } | Message::SupportRequest { .. } => None,
    }
}
