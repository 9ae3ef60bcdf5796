//! A few nodes on one table: messages arrive at once and in order, disks sync at once, unless they are held.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::super::*;
use super::node;
use crate::control::InSyncProposal;
use crate::id::{
    BootId, ClusterId, Epoch, Incarnation, NodeId, PartitionId, PartitionVersion, ReplicaUid, RouteVersion,
    StoreId, TopologyVersion,
};
use crate::time::Instant;
use crate::topology::{
    Cluster, ClusterConfig, Liveness, Node, Origin, Partition, RaftRole, Replica as Placement, Stage,
    Topology,
};

pub(super) const P0: PartitionId = PartitionId(0);

/// The table.
pub(super) struct Lab {
    now: Instant,
    topology: Topology,
    nodes: BTreeMap<NodeId, Machine>,
    mail: VecDeque<(NodeId, NodeId, Message)>,
    sent: usize,
    away: BTreeSet<NodeId>,
    wishes: Vec<Wish>,
    outcomes: BTreeMap<(NodeId, RequestId), WriteOutcome>,
    answers: BTreeMap<(NodeId, ReadId), Vec<String>>,
    holds_reads: bool,
}

/// A node with its disk and state.
struct Machine {
    replicas: Replicas,
    incarnation: u64,
    log: Vec<Record>,
    log_start: u64,
    state: Vec<String>,
    applied: u64,
    held_disk: Option<Vec<(ReplicaKey, LogOp)>>,
    held_reads: Vec<ReadId>,
    removed: usize,
}

impl Lab {
    /// Three members, of which c is cut off once it has everything.
    pub(super) fn without_c() -> Self {
        let mut lab = Self::led_by("a", &["a", "b", "c"]);
        lab.settle();
        lab.cut("c");
        lab
    }

    pub(super) fn led_by(leader: &str, nodes: &[&str]) -> Self {
        let mut lab = Self {
            now: Instant::at(Duration::from_secs(100)),
            topology: topology(leader, nodes),
            nodes: BTreeMap::new(),
            mail: VecDeque::new(),
            sent: 0,
            away: BTreeSet::new(),
            wishes: Vec::new(),
            outcomes: BTreeMap::new(),
            answers: BTreeMap::new(),
            holds_reads: false,
        };
        for name in nodes {
            lab.nodes.insert(node(name), Machine::new(name, 1, BTreeMap::new()));
        }
        lab.publish();
        lab
    }

    fn publish(&mut self) {
        self.topology.version = TopologyVersion(self.topology.version.0 + 1);
        let topology = Arc::new(self.topology.clone());
        let now = self.now;
        for machine in self.nodes.values_mut() {
            machine.replicas.handle_topology(now, 0, &topology);
        }
        self.settle();
    }

    /// Changes the partition's record as the control plane would.
    pub(super) fn record(&mut self, change: impl FnOnce(&mut Partition)) {
        let mut record = self.topology.partitions[0].as_ref().clone();
        change(&mut record);
        record.version = record.version.next();
        self.topology.partitions[0] = Arc::new(record);
        self.publish();
    }

    pub(super) fn declare_dead(&mut self, name: &str) {
        let mut known = self.topology.nodes[&node(name)].as_ref().clone();
        known.liveness = Liveness::Dead;
        self.topology.nodes.insert(node(name), Arc::new(known));
    }

    pub(super) fn elect(&mut self, leader: &str, from: &str) {
        self.begin_epoch(leader, from, None);
    }

    pub(super) fn elect_yielded(&mut self, leader: &str, from: &str) {
        self.begin_epoch(leader, from, Some(node(from)));
    }

    fn begin_epoch(&mut self, leader: &str, from: &str, yielded_by: Option<NodeId>) {
        assert_eq!(self.topology.partitions[0].leader, Some(node(from)));
        self.record(|record| {
            record.leader = Some(node(leader));
            record.epoch = record.epoch.next();
            record.origin = Origin::Membership;
            record.yielded_by = yielded_by;
        });
    }

    pub(super) fn accept(&mut self, proposal: &InSyncProposal) {
        self.record(|record| record.in_sync.clone_from(&proposal.in_sync));
    }

    pub(super) fn cut(&mut self, name: &str) {
        self.away.insert(node(name));
    }

    pub(super) fn join(&mut self, name: &str) {
        self.away.remove(&node(name));
    }

    pub(super) fn hold_disk(&mut self, name: &str) {
        self.settle();
        self.machine(name).held_disk = Some(Vec::new());
    }

    pub(super) fn release_disk(&mut self, name: &str) {
        let now = self.now;
        let machine = self.machine(name);
        for (key, op) in machine.held_disk.take().expect("it was held") {
            machine.replicas.handle_durable(now, 0, key, op);
        }
    }

    pub(super) fn hold_reads(&mut self) {
        self.holds_reads = true;
    }

    pub(super) fn release_reads(&mut self) {
        self.holds_reads = false;
        let held: Vec<_> = self
            .nodes
            .iter_mut()
            .map(|(id, machine)| (id.clone(), core::mem::take(&mut machine.held_reads)))
            .collect();
        for (id, reads) in held {
            reads.into_iter().for_each(|read| self.evaluate(&id, read));
        }
    }

    /// The process of a node ends and begins anew, and registers.
    pub(super) fn restart(&mut self, name: &str) {
        let id = node(name);
        let old = self.nodes.remove(&id).expect("a node");
        let incarnation = old.incarnation + 1;
        let key = self.key(name);
        let epochs = old
            .log
            .iter()
            .enumerate()
            .map(|(at, record)| (record.epoch, old.log_start + at as u64))
            .collect();
        let log_end = old.log_start + old.log.len() as u64;
        let recovered = Recovered { log_start: old.log_start, log_end, epochs, ..Recovered::default() };
        let mut machine = Machine::new(name, incarnation, [(key, recovered)].into());
        (machine.log, machine.log_start) = (old.log, old.log_start);
        self.nodes.insert(id.clone(), machine);
        let mut record = self.topology.nodes[&id].as_ref().clone();
        record.incarnation = Incarnation(incarnation);
        self.topology.nodes.insert(id, Arc::new(record));
        self.publish();
    }

    /// A durable state takes the place of all applied records.
    pub(super) fn compact(&mut self, name: &str) {
        let key = self.key(name);
        let machine = self.machine(name);
        let applied = machine.applied;
        machine.log.drain(..usize::try_from(applied - machine.log_start).expect("few"));
        machine.log_start = applied;
        machine.replicas.handle_released(key, applied);
    }

    pub(super) fn damage(&mut self, name: &str) {
        let (now, key) = (self.now, self.key(name));
        self.machine(name).replicas.handle_damage(now, 0, key);
        self.settle();
    }

    pub(super) fn resign(&mut self, name: &str) {
        let now = self.now;
        self.machine(name).replicas.resign(now, 0, P0);
        self.settle();
    }

    pub(super) fn write(&mut self, at: &str, value: &str, ack: Ack) -> (NodeId, RequestId) {
        (node(at), self.try_write(at, value, ack).expect("taken"))
    }

    pub(super) fn try_write(&mut self, at: &str, value: &str, ack: Ack) -> Result<RequestId, ProposeError> {
        let now = self.now;
        let entry = Entry::Write { request: None, payload: Bytes::from(value.to_string()) };
        self.machine(at).replicas.propose(now, P0, Write { entry, ack, wall_ms: 0 })
    }

    pub(super) fn open_session(&mut self, at: &str, ack: Ack) -> Result<RequestId, ProposeError> {
        let now = self.now;
        self.machine(at).replicas.propose(now, P0, Write { entry: Entry::OpenSession, ack, wall_ms: 0 })
    }

    /// Reads what has at least the records below `min_end`.
    pub(super) fn read_session(&mut self, at: &str, min_end: u64) -> (NodeId, ReadId) {
        let (now, deadline) = (self.now, self.now + Duration::from_mins(1));
        let read = self.machine(at).replicas.read(now, 0, P0, Consistency::Session { min_end }, deadline);
        (node(at), read.expect("taken"))
    }

    pub(super) fn read(&mut self, at: &str) -> (NodeId, ReadId) {
        let (now, deadline) = (self.now, self.now + Duration::from_mins(1));
        let read = self.machine(at).replicas.read(now, 0, P0, Consistency::Linearizable, deadline);
        (node(at), read.expect("taken"))
    }

    /// Lets everything happen that can happen at once.
    pub(super) fn settle(&mut self) {
        loop {
            let ids: Vec<_> = self.nodes.keys().cloned().collect();
            let mut idle = true;
            for id in ids {
                while let Some(action) =
                    self.nodes.get_mut(&id).and_then(|machine| machine.replicas.poll_action())
                {
                    idle = false;
                    self.carry_out(&id, action);
                }
            }
            let Some((from, to, message)) = self.mail.pop_front() else {
                if idle {
                    return;
                }
                continue;
            };
            let now = self.now;
            let is_lost = self.away.contains(&from) || self.away.contains(&to);
            if let Some(machine) = self.nodes.get_mut(&to).filter(|_| !is_lost) {
                machine.replicas.handle_message(now, 0, &from, message);
            }
        }
    }

    /// So many milliseconds pass, and no node is told.
    pub(super) fn freeze(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
    }

    /// Lets so many milliseconds pass, and everything happen on the way.
    pub(super) fn pass(&mut self, ms: u64) {
        self.settle();
        let end = self.now + Duration::from_millis(ms);
        while let Some(due) = self.next_timeout().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            let now = self.now;
            self.nodes.values_mut().for_each(|machine| machine.replicas.handle_timeout(now, 0));
            self.settle();
        }
        self.now = end;
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.nodes.values().filter_map(|machine| machine.replicas.poll_timeout()).min()
    }

    pub(super) fn next_timeout_of(&self, name: &str) -> Option<Instant> {
        self.nodes[&node(name)].replicas.poll_timeout()
    }

    /// The clock goes on, and nobody is told.
    pub(super) fn skip_to(&mut self, now: Instant) {
        self.now = now;
    }

    fn carry_out(&mut self, id: &NodeId, action: Action) {
        let now = self.now;
        let machine = self.nodes.get_mut(id).expect("a node");
        match action {
            Action::Alarm { .. } | Action::RefreshTopology | Action::FailRead { .. } => {}
            Action::Apply { replica, first, records } => {
                machine.apply(first, &records);
                machine.replicas.handle_applied(now, 0, replica, first + records.len() as u64);
            }
            Action::Fetch { replica, token, range, .. } => {
                let records = machine.records(range.clone());
                machine.replicas.handle_fetched(now, 0, replica, token, (range.start, records));
            }
            Action::Log { replica, op, change } => machine.change_log(now, replica, op, change),
            Action::Remove { .. } => machine.removed += 1,
            Action::Reply { request, outcome } => {
                self.outcomes.insert((id.clone(), request), outcome);
            }
            Action::Send { to, message } => {
                self.sent += 1;
                self.mail.push_back((id.clone(), to, message));
            }
            Action::SendSnapshot { replica, to } => self.send_snapshot(id, replica, &to),
            Action::Serve { read, .. } if self.holds_reads => machine.held_reads.push(read),
            Action::Serve { read, .. } => self.evaluate(id, read),
            Action::Wish(wish) => self.wishes.push(wish),
        }
    }

    fn evaluate(&mut self, id: &NodeId, read: ReadId) {
        let now = self.now;
        let machine = self.nodes.get_mut(id).expect("a node");
        if let ReadOutcome::Done(_) = machine.replicas.finish_read(now, 0, read) {
            self.answers.insert((id.clone(), read), machine.state.clone());
        }
    }

    fn send_snapshot(&mut self, from: &NodeId, replica: ReplicaKey, to: &NodeId) {
        let now = self.now;
        let source = self.nodes.get_mut(from).expect("a node");
        let header = source.replicas.snapshot_header(replica, to, source.applied);
        let state = source.state.clone();
        let target = self.nodes.get_mut(to).expect("a node");
        let arrives = !self.away.contains(to);
        if header.is_some_and(|header| arrives && target.replicas.handle_snapshot(now, 0, &header)) {
            target.state = state;
        }
        self.nodes.get_mut(from).expect("a node").replicas.handle_snapshot_ended(replica, to);
    }

    fn machine(&mut self, name: &str) -> &mut Machine {
        self.nodes.get_mut(&node(name)).expect("a node")
    }

    fn key(&self, name: &str) -> ReplicaKey {
        let replica = self.topology.partitions[0].replica(&node(name)).expect("a replica");
        ReplicaKey { partition: P0, uid: replica.uid }
    }

    pub(super) fn is_done(&self, write: &(NodeId, RequestId)) -> bool {
        matches!(self.outcome(write), Some(WriteOutcome::Done { .. }))
    }

    pub(super) fn outcome(&self, write: &(NodeId, RequestId)) -> Option<WriteOutcome> {
        self.outcomes.get(write).copied()
    }

    pub(super) fn answer(&self, read: &(NodeId, ReadId)) -> Option<Vec<&str>> {
        Some(self.answers.get(read)?.iter().map(String::as_str).collect())
    }

    pub(super) fn wishes(&self) -> Vec<Wish> {
        self.wishes.clone()
    }

    pub(super) fn proposals(&self) -> Vec<InSyncProposal> {
        let proposal = |wish: &Wish| match wish {
            Wish::SetInSync(proposal) => Some(proposal.clone()),
            _ => None,
        };
        self.wishes.iter().filter_map(proposal).collect()
    }

    pub(super) fn sent(&self) -> usize {
        self.sent
    }

    pub(super) fn removed(&self, name: &str) -> usize {
        self.nodes[&node(name)].removed
    }

    pub(super) fn status(&self, name: &str) -> ReplicaStatus {
        self.nodes[&node(name)].replicas.status(self.now, P0).expect("a replica")
    }

    pub(super) fn log(&self, name: &str) -> &[Record] {
        &self.nodes[&node(name)].log
    }

    pub(super) fn assert_state(&self, names: &[&str], expect: &[&str]) {
        for name in names {
            assert_eq!(self.nodes[&node(name)].state, expect, "on {name}");
        }
    }
}

impl Machine {
    fn new(name: &str, incarnation: u64, recovered: BTreeMap<ReplicaKey, Recovered>) -> Self {
        let config = Config::default();
        let replicas =
            Replicas::new(config, node(name), Incarnation(incarnation), Instant::ORIGIN, recovered);
        Self {
            replicas,
            incarnation,
            log: Vec::new(),
            log_start: 0,
            state: Vec::new(),
            applied: 0,
            held_disk: None,
            held_reads: Vec::new(),
            removed: 0,
        }
    }

    fn apply(&mut self, first: u64, records: &[Record]) {
        assert_eq!(first, self.applied, "records are applied in order");
        self.applied += records.len() as u64;
        for record in records {
            if let Entry::Write { payload, .. } = &record.entry {
                self.state.push(String::from_utf8_lossy(payload).to_string());
            }
        }
    }

    fn records(&self, range: core::ops::Range<u64>) -> Vec<Record> {
        let at = |offset: u64| usize::try_from(offset - self.log_start).expect("few");
        // What a snapshot has replaced since it was asked for is not there.
        if range.start < self.log_start {
            Vec::new()
        } else {
            self.log[at(range.start)..at(range.end)].to_vec()
        }
    }

    fn change_log(&mut self, now: Instant, key: ReplicaKey, op: LogOp, change: LogChange) {
        match change {
            LogChange::Append { first, records } => {
                assert_eq!(first, self.log_start + self.log.len() as u64, "appends continue the log");
                self.log.extend(records);
            }
            LogChange::Create => {}
            LogChange::Install(header) => {
                self.log.clear();
                (self.log_start, self.applied) = (header.end, header.end);
            }
            LogChange::Truncate { end } => {
                self.log.truncate(usize::try_from(end - self.log_start).expect("few"));
            }
        }
        match &mut self.held_disk {
            Some(held) => held.push((key, op)),
            None => self.replicas.handle_durable(now, 0, key, op),
        }
    }
}

fn topology(leader: &str, names: &[&str]) -> Topology {
    let placements = names.iter().zip(1..);
    let record = Partition {
        id: P0,
        version: PartitionVersion(1),
        epoch: Epoch(1),
        origin: Origin::First,
        leader: Some(node(leader)),
        replicas: placements
            .map(|(name, uid)| Placement { node: node(name), uid: ReplicaUid(uid), lapses: 0 })
            .collect(),
        in_sync: names.iter().map(|name| node(name)).collect(),
        tainted: BTreeSet::new(),
        min_in_sync: 2,
        yielded_by: None,
        transfer: None,
        movement: None,
        unclean: None,
        overrun: None,
        history: Vec::new(),
    };
    let cluster = Cluster {
        id: ClusterId(1),
        name: "lab".to_string(),
        config: ClusterConfig { partition_count: 1, ..ClusterConfig::default() },
    };
    Topology {
        version: TopologyVersion(0),
        route_version: RouteVersion(0),
        cluster: Some(Arc::new(cluster)),
        nodes: names.iter().map(|name| (node(name), Arc::new(member(name)))).collect(),
        partitions: [Arc::new(record)].into(),
    }
}

fn member(name: &str) -> Node {
    Node {
        id: node(name),
        store: StoreId(1),
        boot: BootId(1),
        incarnation: Incarnation(1),
        node_addr: "node:1".to_string(),
        public_addr: "node:2".to_string(),
        zone: None,
        weight: 1,
        role: RaftRole::Voter,
        holds_data: true,
        reports_position: true,
        liveness: Liveness::Alive,
        stage: Stage::Member,
        software: String::new(),
        metadata: BTreeMap::new(),
    }
}
