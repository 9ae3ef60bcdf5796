//! A naive store of a user's own on top of the hooks and leases, and clients that write to it.
//!
//! The leader takes a permit for each write and sends it to all nodes that hold the partition. A write
//! is acknowledged when every node that must hold it has stored it, and the lease is not over.
//! Must hold it: the in-sync set by the record under which the permit was issued, and those of the other
//! holders that took a copy from this leader, until a record says that this copy counts for nothing.
//! A place refuses an epoch below the newest that it knows, and one that it sealed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clusterkit_core::handoff::{Call, Token};
use clusterkit_core::id::{Epoch, PartitionId, PartitionVersion, ReplicaUid};
use clusterkit_core::topology::Partition;

use crate::node::ProcessEvent;
use crate::planted::Mistake;
use crate::world::{Event, World, index, name};

/// What a node holds of a partition, on its disk.
pub(crate) struct Place {
    pub(crate) uid: ReplicaUid,
    epoch: Epoch,
    sealed: Option<Epoch>,
    /// Each with the epoch under which it came.
    pub(crate) writes: BTreeMap<u64, Epoch>,
}

/// Who may write a partition on a node: what its leases say.
pub(crate) struct Gate {
    pub(crate) epoch: Epoch,
    pub(crate) phase: GatePhase,
    /// The record that new writes go by.
    version: PartitionVersion,
    holders: Vec<(usize, ReplicaUid)>,
    in_sync: BTreeSet<usize>,
    /// Copies that were taken from here under this epoch: of which placement, after how many lapses.
    pub(crate) attached: BTreeMap<usize, (ReplicaUid, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GatePhase {
    /// No new permits; to be answered when none is out.
    Closing(Token),
    /// Over for good; to be answered all the same, when there is a token.
    Ended(Option<Token>),
    Open,
}

/// A write under way.
pub(crate) struct Permit {
    pub(crate) partition: PartitionId,
    pub(crate) epoch: Epoch,
    version: PartitionVersion,
    holders: BTreeSet<usize>,
    in_sync: BTreeSet<usize>,
    stored: BTreeSet<usize>,
    pace: Pace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// The leader stores it last of all, and late.
    LeaderLast,
    /// The client takes its time to confirm.
    Lingers,
    Swift,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum StoreEvent {
    /// A write ends, confirmed or not.
    Ended(u64),
    /// A write comes in.
    Store(StoreRequest),
    /// A node stored a write.
    Stored(u64, usize),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct StoreRequest {
    write: u64,
    from: usize,
    partition: PartitionId,
    uid: ReplicaUid,
    epoch: Epoch,
}

// Writes.
impl World {
    /// A client writes to some partition, wherever somebody takes it.
    pub(crate) fn write_something(&mut self) {
        let pause = self.chance.millis(20, 160);
        self.after(pause, Event::Client);
        let partition = PartitionId(self.chance.below(u64::from(self.settings.partitions)) as u32);
        self.note_writable(partition);
        for node in 0..self.nodes.len() {
            if self.is_awake(node) {
                self.begin_write(node, partition);
            }
        }
    }

    fn begin_write(&mut self, node: usize, partition: PartitionId) {
        let pace = match self.chance.below(100) {
            0..=3 if !self.quiet => Pace::Lingers,
            4..=9 if !self.quiet => Pace::LeaderLast,
            _ => Pace::Swift,
        };
        self.write_last += 1;
        let write = self.write_last;
        let process = self.process_mut(node);
        let Some(gate) = process.gates.get(&partition) else { return };
        if gate.phase != GatePhase::Open {
            return;
        }
        let (epoch, version, in_sync) = (gate.epoch, gate.version, gate.in_sync.clone());
        let holders = gate.holders.clone();
        let (stored, nodes) = (BTreeSet::new(), holders.iter().map(|(holder, _)| *holder).collect());
        let permit = Permit { partition, epoch, version, holders: nodes, in_sync, stored, pace };
        process.permits.insert(write, permit);
        for (holder, uid) in holders {
            let request = StoreRequest { write, from: node, partition, uid, epoch };
            if holder == node && pace == Pace::LeaderLast {
                let delay = self.chance.millis(50, 1_500);
                self.tell_process(delay, node, ProcessEvent::Store(StoreEvent::Store(request)));
            } else {
                self.tell_store((node, holder), StoreEvent::Store(request));
            }
        }
        let ends = match pace {
            Pace::Swift => self.chance.millis(300, 900),
            Pace::Lingers | Pace::LeaderLast => self.chance.millis(200, 4_000),
        };
        self.tell_process(ends, node, ProcessEvent::Store(StoreEvent::Ended(write)));
    }

    pub(crate) fn store_step(&mut self, node: usize, event: StoreEvent) {
        match event {
            StoreEvent::Ended(write) => {
                if !self.confirm(node, write) {
                    self.check_written(node, write);
                }
                self.drop_permit(node, write);
            }
            StoreEvent::Store(request) => self.store(node, request),
            StoreEvent::Stored(write, holder) => self.stored(node, write, holder),
        }
    }

    fn store(&mut self, node: usize, request: StoreRequest) {
        let StoreRequest { write, from, partition, uid, epoch } = request;
        let fenced = !self.makes(Mistake::Unfenced);
        let node_state = &mut self.nodes[node];
        let Some(process) = &node_state.process else { return };
        let Some(place) = node_state.disk.places.get_mut(&partition) else { return };
        let opened = process.prepared.contains(&(partition, uid)) && place.uid == uid;
        if !opened || (fenced && (place.epoch > epoch || place.sealed >= Some(epoch))) {
            return;
        }
        place.epoch = place.epoch.max(epoch);
        place.writes.insert(write, epoch);
        self.tell_store((node, from), StoreEvent::Stored(write, node));
    }

    /// A message between the stores of two nodes; it is lost when they cannot reach each other.
    fn tell_store(&mut self, (from, to): (usize, usize), event: StoreEvent) {
        if self.reach(from, to) {
            let delay = self.latency(0, 12);
            self.tell_process(delay, to, ProcessEvent::Store(event));
        }
    }

    pub(crate) fn reach(&self, one: usize, other: usize) -> bool {
        let alone = |node: usize| self.nodes[node].alone && self.nodes[node].cut_until > self.now;
        one == other || !(alone(one) || alone(other))
    }

    fn stored(&mut self, node: usize, write: u64, holder: usize) {
        let Some(permit) = self.process_mut(node).permits.get_mut(&write) else { return };
        permit.stored.insert(holder);
        if permit.pace != Pace::Lingers && self.confirm(node, write) {
            self.drop_permit(node, write);
        }
    }

    /// Acknowledges a write if it may be.
    fn confirm(&mut self, node: usize, write: u64) -> bool {
        let careless = self.makes(Mistake::CopiesUncounted);
        let process = self.process_mut(node);
        let Some(permit) = process.permits.get(&write) else { return false };
        let Some(gate) = process.gates.get(&permit.partition) else { return false };
        let holds = gate.epoch == permit.epoch && !matches!(gate.phase, GatePhase::Ended(_));
        let copies = gate.attached.keys().filter(|copy| !careless && permit.holders.contains(copy));
        let enough = permit.in_sync.iter().chain(copies).all(|holder| permit.stored.contains(holder));
        let (partition, epoch) = (permit.partition, permit.epoch);
        if holds && enough {
            self.note_acknowledged(partition, epoch, write);
        }
        holds && enough
    }

    fn drop_permit(&mut self, node: usize, write: u64) {
        let Some(permit) = self.process_mut(node).permits.remove(&write) else { return };
        self.answer_drained(node, permit.partition, permit.epoch);
    }

    /// Says that the last permit is gone, once it is and somebody waits for it.
    fn answer_drained(&mut self, node: usize, partition: PartitionId, epoch: Epoch) {
        let hasty = self.makes(Mistake::DrainedAtOnce);
        let process = self.process_mut(node);
        let Some(gate) = process.gates.get_mut(&partition).filter(|gate| gate.epoch == epoch) else { return };
        let out =
            process.permits.values().any(|permit| (permit.partition, permit.epoch) == (partition, epoch));
        let (GatePhase::Closing(token) | GatePhase::Ended(Some(token))) = gate.phase else { return };
        if !out || hasty {
            let delay = self.chance.millis(0, 5);
            self.tell_process(delay, node, ProcessEvent::Drained(partition, token));
        }
    }
}

// Leases.
impl World {
    fn record(&self, node: usize, partition: PartitionId) -> Option<Partition> {
        self.nodes[node].member().and_then(|member| member.topology.partition(partition)).cloned()
    }

    pub(crate) fn open(&mut self, node: usize, partition: PartitionId, epoch: Epoch) {
        self.check_open(node, partition, epoch);
        let gates = &mut self.process_mut(node).gates;
        let attached = gates.get_mut(&partition).filter(|gate| gate.epoch == epoch);
        let attached = attached.map(|gate| std::mem::take(&mut gate.attached)).unwrap_or_default();
        let gate = Gate {
            epoch,
            phase: GatePhase::Open,
            version: PartitionVersion(0),
            holders: Vec::new(),
            in_sync: BTreeSet::new(),
            attached,
        };
        gates.insert(partition, gate);
        self.adopt(node, partition);
    }

    pub(crate) fn adopt(&mut self, node: usize, partition: PartitionId) {
        let Some(record) = self.record(node, partition) else { return };
        let Some(gate) = self.process_mut(node).gates.get_mut(&partition) else { return };
        gate.version = record.version;
        gate.holders = record.replicas.iter().map(|replica| (index(&replica.node), replica.uid)).collect();
        gate.in_sync = record.in_sync.iter().map(index).collect();
    }

    pub(crate) fn close(&mut self, node: usize, token: Token, partition: PartitionId, epoch: Epoch) {
        let Some(gate) = self.process_mut(node).gates.get_mut(&partition) else { return };
        gate.phase = match gate.phase {
            GatePhase::Ended(_) => GatePhase::Ended(Some(token)),
            GatePhase::Closing(_) | GatePhase::Open => GatePhase::Closing(token),
        };
        self.answer_drained(node, partition, epoch);
    }

    pub(crate) fn end(&mut self, node: usize, partition: PartitionId, epoch: Epoch) {
        if self.makes(Mistake::LeaseOutlivesEpoch) {
            return;
        }
        let Some(gate) = self.process_mut(node).gates.get_mut(&partition) else { return };
        if gate.epoch == epoch {
            gate.phase = match gate.phase {
                GatePhase::Closing(token) => GatePhase::Ended(Some(token)),
                GatePhase::Ended(token) => GatePhase::Ended(token),
                GatePhase::Open => GatePhase::Ended(None),
            };
        }
    }
}

// Copies, as their source sees them.
impl World {
    /// Whether `source` has adopted `version` and all writes begun before that have ended.
    pub(crate) fn serves_copies(
        &self,
        source: usize,
        partition: PartitionId,
        epoch: Epoch,
        version: PartitionVersion,
    ) -> bool {
        let Some(process) = self.nodes[source].process.as_ref().filter(|_| self.is_awake(source)) else {
            return false;
        };
        let Some(gate) = process.gates.get(&partition) else { return false };
        if gate.epoch != epoch || matches!(gate.phase, GatePhase::Ended(_)) {
            return false;
        }
        let mut permits = process.permits.values().filter(|permit| permit.partition == partition);
        let settled = gate.version >= version && permits.all(|permit| permit.version >= version);
        settled || self.makes(Mistake::CopiedTooEarly)
    }

    /// From now on writes need the copy on `node`. `false` when this source does not lead any more, or
    /// knows that the copy would count for nothing: the node is dead, or has lapsed since.
    pub(crate) fn attach(
        &mut self,
        source: usize,
        node: usize,
        partition: PartitionId,
        epoch: Epoch,
        copy: (ReplicaUid, u64),
    ) -> bool {
        let Some(record) = self.record(source, partition) else { return false };
        let Some(process) = &mut self.nodes[source].process else { return false };
        let Some(gate) = process.gates.get_mut(&partition) else { return false };
        let leads = gate.epoch == epoch && !matches!(gate.phase, GatePhase::Ended(_));
        let live = process.member.as_ref().is_some_and(|member| member.topology.is_live(&name(node)));
        if !leads || !live || !counts(&record, node, copy) {
            return false;
        }
        gate.attached.insert(node, copy);
        true
    }

    /// Forgets copies that count for nothing by what `node` has just seen.
    pub(crate) fn detach(&mut self, node: usize) {
        if self.makes(Mistake::CopiesKept) {
            return;
        }
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(member) = &process.member else { return };
        for (partition, gate) in &mut process.gates {
            let Some(record) = member.topology.partition(*partition) else { continue };
            gate.attached.retain(|holder, copy| counts(record, *holder, *copy));
        }
    }
}

/// Whether a copy by `node` may be in sync by `record`, or become so without being made again.
fn counts(record: &Partition, node: usize, (uid, lapses): (ReplicaUid, u64)) -> bool {
    let node = name(node);
    let placed = record.replica(&node);
    record.in_sync.contains(&node)
        || placed.is_some_and(|replica| (replica.uid, replica.lapses) == (uid, lapses))
}

// What hooks do.
impl World {
    pub(crate) fn take_effect(&mut self, node: usize, call: &Call) {
        let unfenced = self.makes(Mistake::Unfenced);
        let node_state = &mut self.nodes[node];
        let Some(process) = &mut node_state.process else { return };
        let places = &mut node_state.disk.places;
        match call {
            Call::Prepare { partition, uid } => {
                process.prepared.insert((*partition, *uid));
                let empty = || Place { uid: *uid, epoch: Epoch(0), sealed: None, writes: BTreeMap::new() };
                places.entry(*partition).or_insert_with(empty);
            }
            Call::CatchUp { .. } => {}
            Call::Seal { partition, epoch, .. } => {
                if let Some(place) = places.get_mut(partition) {
                    place.sealed = place.sealed.max(Some(*epoch));
                }
            }
            Call::Activate { partition, epoch, .. } => {
                if let Some(place) = places.get_mut(partition).filter(|_| !unfenced) {
                    place.epoch = place.epoch.max(*epoch);
                    place.sealed = place.sealed.filter(|sealed| sealed > epoch);
                }
            }
            Call::Release { partition, uid } => {
                process.prepared.remove(&(*partition, *uid));
                if places.get(partition).is_some_and(|place| place.uid == *uid) {
                    places.remove(partition);
                }
            }
        }
    }

    /// Loses some of what a node held.
    pub(crate) fn damage(&mut self, node: usize) {
        let writes = self.nodes[node].disk.places.values_mut().map(|place| &mut place.writes);
        for writes in writes {
            let kept = self.chance.below(100);
            writes.retain(|write, _| (write * 7_919) % 100 < kept);
        }
        self.nodes[node].damaged = true;
    }

    pub(crate) fn served_since(&self, duration: Duration) -> bool {
        let since = |partition| self.ghost.acknowledged_at(partition);
        (0..self.settings.partitions)
            .map(PartitionId)
            .all(|partition| since(partition).is_some_and(|at| self.now.since(at) <= duration))
    }
}
