//! What must hold, one function a rule. Each looks where its rule could be broken: at a hook that
//! begins, a lease that opens, a command that takes effect, or after each step of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clusterkit_core::control::{Command, ControlState};
use clusterkit_core::handoff::{ActivateCause, Call, Fact, Report, SealCause, Stage, Token};
use clusterkit_core::id::{Epoch, Incarnation, PartitionId, ReplicaUid};
use clusterkit_core::time::Instant;
use clusterkit_core::topology::{Origin, Partition};

use crate::hooks::{Hook, Place};
use crate::store::GatePhase;
use crate::world::{World, index, name};

/// For how long, and how many of them in a row, writes may fail while a partition can be written.
const HELD_UP_MAX: Duration = Duration::from_secs(5);
const FAILURES_MAX: u32 = 8;

/// A rule that is broken.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) rule: &'static str,
    pub(crate) text: String,
}

/// What the checks remember.
#[derive(Default)]
pub(crate) struct Ghost {
    /// Who was given each epoch, in which run.
    given: BTreeMap<(PartitionId, Epoch), (usize, Incarnation)>,
    /// Epochs whose lease was open at some time.
    opened: BTreeSet<(PartitionId, Epoch)>,
    /// Epochs of which a node said that it cannot lead them.
    given_up: BTreeSet<(usize, PartitionId, Epoch)>,
    /// Epochs whose `activate` was called.
    begun: BTreeSet<(PartitionId, Epoch)>,
    /// Epochs whose `seal` was done since, each with its last reason.
    sealed: BTreeMap<(PartitionId, Epoch), SealCause>,
    /// What was called in each run of each node.
    orders: BTreeMap<(usize, u64, PartitionId), Order>,
    /// Acknowledged writes, each with the epoch under which it was.
    acknowledged: BTreeMap<PartitionId, BTreeMap<u64, Epoch>>,
    acknowledged_at: BTreeMap<PartitionId, Instant>,
    /// The last unclean epoch of which the losses were counted.
    excused: BTreeMap<PartitionId, Epoch>,
    /// Since when a partition can be written, and how many writes failed since the last that did not.
    writable: BTreeMap<PartitionId, (Instant, u32)>,
    /// Writes whose loss an unclean election explains.
    pub(crate) lost_count: u64,
    pub(crate) acknowledged_count: u64,
    /// Stages done, by node.
    pub(crate) done: BTreeMap<(usize, Stage), u64>,
    pub(crate) moves: u64,
    pub(crate) handovers: u64,
    pub(crate) elections: u64,
    pub(crate) elections_by_position: u64,
    pub(crate) uncleans: u64,
    pub(crate) overruns: u64,
}

/// What one run called of one partition.
#[derive(Default)]
struct Order {
    prepared: Option<ReplicaUid>,
    released: Option<ReplicaUid>,
    /// Begun by this run and not sealed since.
    unsealed: BTreeSet<Epoch>,
    begun: BTreeSet<Epoch>,
}

impl Ghost {
    pub(crate) fn acknowledged_at(&self, partition: PartitionId) -> Option<Instant> {
        self.acknowledged_at.get(&partition).copied()
    }

    /// Whether `activate` was ever called on this node.
    pub(crate) fn begun_on(&self, node: usize) -> bool {
        self.orders.iter().any(|((on, _, _), order)| *on == node && !order.begun.is_empty())
    }
}

// A hook begins.
impl World {
    pub(crate) fn check_run(&mut self, node: usize, call: &Call) {
        self.one_hook_a_partition(node, call);
        self.stages_in_order(node, call);
        self.few_copies_at_once(node, call);
        self.noted_before_prepared(node, call);
        self.nothing_left_of_another_placement(node, call);
        self.drained_before_sealed(node, call);
        self.sealed_before_handed_over(node, call);
        self.note_begun(node, call);
    }

    /// At most one hook of a partition runs on a node.
    fn one_hook_a_partition(&mut self, node: usize, call: &Call) {
        let mut others = self.process_mut(node).hooks.values();
        if let Some(other) = others.find(|other| other.call.partition() == call.partition()) {
            let other = other.call.clone();
            self.violate("one hook a partition", || format!("n{node}: {call:?} while {other:?} runs"));
        }
    }

    /// Of one placement in one run: prepare comes before catch_up and activate; no epoch is activated,
    /// and nothing else is begun, before every other one that was begun is sealed; only what was
    /// activated is sealed; release comes last.
    fn stages_in_order(&mut self, node: usize, call: &Call) {
        let boot = self.process_mut(node).boot;
        let order = self.ghost.orders.entry((node, boot, call.partition())).or_default();
        let epochs_over = |but: Option<Epoch>| order.unsealed.iter().all(|epoch| Some(*epoch) == but);
        let legal = match call {
            Call::Prepare { uid, .. } => {
                order.prepared.is_none() && order.released != Some(*uid) && epochs_over(None)
            }
            Call::CatchUp { uid, .. } => order.prepared == Some(*uid) && epochs_over(None),
            Call::Activate { epoch, .. } => order.prepared.is_some() && epochs_over(Some(*epoch)),
            Call::Seal { epoch, .. } => order.begun.contains(epoch),
            Call::Release { uid, .. } => {
                order.prepared.is_none_or(|prepared| prepared == *uid) && epochs_over(None)
            }
        };
        match call {
            Call::Activate { epoch, .. } => {
                order.unsealed.insert(*epoch);
                order.begun.insert(*epoch);
            }
            Call::Release { uid, .. } => {
                order.released = Some(*uid);
                order.prepared = None;
            }
            _ => {}
        }
        if !legal {
            self.violate("stages in order", || format!("n{node}: {call:?}"));
        }
    }

    /// No more copies are made, or given up, at once than configured, and no more replicas that writes
    /// wait for are prepared, those that are late not counted.
    fn few_copies_at_once(&mut self, node: usize, call: &Call) {
        let (max, now, place) = (self.settings.stages.copies_max, self.now, self.place(node, call));
        let taken = |kind: fn(&Place) -> bool, hooks: &BTreeMap<Token, Hook>| {
            hooks.values().filter(|hook| kind(&hook.place) && hook.place.is_taken(now)).count()
        };
        let hooks = &self.process_mut(node).hooks;
        let running = match place {
            Place::None => return,
            Place::Copy => taken(|place| matches!(place, Place::Copy), hooks),
            Place::NeededUntil(_) => taken(|place| matches!(place, Place::NeededUntil(_)), hooks),
        };
        if running >= max {
            self.violate("few copies at once", || format!("n{node}: {call:?} beside {running} others"));
        }
    }

    /// The place that a call takes which begins now.
    pub(crate) fn place(&self, node: usize, call: &Call) -> Place {
        let record = self.nodes[node].member().and_then(|member| member.topology.partition(call.partition()));
        let awaited = record.is_some_and(|record| record.in_sync.contains(&name(node)));
        let times = &self.settings.stages;
        match call.stage() {
            Stage::Seal | Stage::Activate => Place::None,
            Stage::Prepare if awaited => Place::NeededUntil(self.now + times.prepare_deadline),
            Stage::Release if awaited => Place::NeededUntil(self.now + times.release_deadline),
            Stage::CatchUp | Stage::Prepare | Stage::Release => Place::Copy,
        }
    }

    /// A replica is prepared only once a crash would not make this node forget it.
    fn noted_before_prepared(&mut self, node: usize, call: &Call) {
        let Call::Prepare { partition, uid } = call else { return };
        if !self.nodes[node].disk.notes.contains(&(*partition, *uid)) {
            self.violate("noted before prepared", || format!("n{node}: {call:?}"));
        }
    }

    /// When a replica is prepared, nothing is left of an earlier placement of the partition.
    fn nothing_left_of_another_placement(&mut self, node: usize, call: &Call) {
        let Call::Prepare { partition, uid } = call else { return };
        let place = self.nodes[node].disk.places.get(partition);
        if let Some(other) = place.map(|place| place.uid).filter(|other| other != uid) {
            self.violate("released before placed anew", || format!("n{node}: {call:?}, of {other} is left"));
        }
    }

    /// Seal is called when no permit of its epoch is out.
    fn drained_before_sealed(&mut self, node: usize, call: &Call) {
        let Call::Seal { partition, epoch, .. } = call else { return };
        let mut permits = self.process_mut(node).permits.values();
        if permits.any(|permit| (permit.partition, permit.epoch) == (*partition, *epoch)) {
            self.violate("drained before sealed", || format!("n{node}: {call:?} with permits out"));
        }
    }

    /// An epoch that was handed over is activated only after the one before was sealed at its source,
    /// and for this target, if it was ever activated there.
    fn sealed_before_handed_over(&mut self, node: usize, call: &Call) {
        let Call::Activate { partition, epoch, cause: ActivateCause::Elected(Origin::Handover) } = call
        else {
            return;
        };
        let before = (*partition, Epoch(epoch.0 - 1));
        let sealed = self.ghost.sealed.get(&before) == Some(&SealCause::Handover(name(node)));
        if self.ghost.begun.contains(&before) && !sealed {
            self.violate("sealed before handed over", || format!("n{node}: {call:?}"));
        }
    }

    fn note_begun(&mut self, node: usize, call: &Call) {
        let Call::Activate { partition, epoch, .. } = call else { return };
        self.ghost.begun.insert((*partition, *epoch));
        self.ghost.sealed.remove(&(*partition, *epoch));
        self.trace(|| format!("n{node}    begins {partition} e{epoch}"));
    }

    /// A hook said that its stage is done.
    pub(crate) fn note_done(&mut self, node: usize, call: &Call) {
        *self.ghost.done.entry((node, call.stage())).or_default() += 1;
        let boot = self.process_mut(node).boot;
        let order = self.ghost.orders.entry((node, boot, call.partition())).or_default();
        match call {
            Call::Prepare { uid, .. } => order.prepared = Some(*uid),
            Call::Seal { partition, epoch, cause } => {
                order.unsealed.remove(epoch);
                self.ghost.sealed.insert((*partition, *epoch), cause.clone());
            }
            Call::Activate { .. } | Call::CatchUp { .. } | Call::Release { .. } => {}
        }
    }

    pub(crate) fn note_overrun(&mut self, node: usize, partition: PartitionId, stage: Stage) {
        self.ghost.overruns += 1;
        self.trace(|| format!("n{node}    {partition}: {stage} is late"));
    }
}

// A lease opens.
impl World {
    pub(crate) fn check_open(&mut self, node: usize, partition: PartitionId, epoch: Epoch) {
        self.opened_by_its_leader(node, partition, epoch);
        self.given_up_for_good(node, partition, epoch);
        self.nothing_acknowledged_is_lost(node, partition, epoch);
        self.ghost.opened.insert((partition, epoch));
    }

    /// A lease opens only for an epoch that the log gave to this run of this node.
    fn opened_by_its_leader(&mut self, node: usize, partition: PartitionId, epoch: Epoch) {
        let given = self.ghost.given.get(&(partition, epoch)).copied();
        let run = self.process_mut(node).incarnation();
        if given.map(|(leader, run)| (leader, Some(run))) != Some((node, run)) {
            self.violate("opened by its leader", || format!("n{node} opens {partition} e{epoch}: {given:?}"));
        }
    }

    /// A lease never opens under an epoch of which its leader said that it cannot lead it: another may be
    /// elected from then on.
    fn given_up_for_good(&mut self, node: usize, partition: PartitionId, epoch: Epoch) {
        if self.ghost.given_up.contains(&(node, partition, epoch)) {
            self.violate("given up for good", || format!("n{node} opens {partition} e{epoch}"));
        }
    }

    /// What a node is about to say.
    pub(crate) fn note_given_up(&mut self, node: usize, reports: &[Report]) {
        for report in reports {
            if let Fact::Declined { stage: Stage::Activate, epoch, .. } = report.fact {
                self.ghost.given_up.insert((node, report.partition, epoch));
            }
        }
    }

    /// A leader whose lease opens holds every write of its partition that was acknowledged up to its
    /// epoch; after an unclean election those that its leader lacked are counted, and are excused.
    fn nothing_acknowledged_is_lost(&mut self, node: usize, partition: PartitionId, epoch: Epoch) {
        let Some(acknowledged) = self.ghost.acknowledged.get_mut(&partition) else { return };
        let held = self.nodes[node].disk.places.get(&partition).map(|place| &place.writes);
        let lacks = |write: &u64| held.is_none_or(|held| !held.contains_key(write));
        let missing = acknowledged.iter().filter(|(write, under)| **under <= epoch && lacks(write));
        let missing: BTreeSet<_> = missing.map(|(write, _)| *write).collect();
        let unclean = self.state.topology.partition(partition).and_then(|record| record.unclean);
        let excused = self.ghost.excused.get(&partition).copied().unwrap_or_default();
        if let Some(unclean) = unclean.filter(|unclean| *unclean <= epoch && *unclean > excused) {
            self.ghost.excused.insert(partition, unclean);
            self.ghost.lost_count += missing.len() as u64;
            acknowledged.retain(|write, _| !missing.contains(write));
        } else if !missing.is_empty() {
            self.violate("nothing acknowledged is lost", || {
                format!("n{node} opens {partition} e{epoch} without {missing:?}")
            });
        }
    }

    pub(crate) fn note_acknowledged(&mut self, partition: PartitionId, epoch: Epoch, write: u64) {
        self.known_to_later_leaders(partition, epoch, write);
        if self.ghost.acknowledged.entry(partition).or_default().insert(write, epoch).is_none() {
            self.trace(|| format!("write {write} of {partition} is acknowledged"));
            self.ghost.acknowledged_count += 1;
            self.ghost.acknowledged_at.insert(partition, self.now);
            self.ghost.writable.remove(&partition);
        }
    }

    /// What is acknowledged after a later epoch has begun is known to whoever leads it.
    fn known_to_later_leaders(&mut self, partition: PartitionId, epoch: Epoch, write: u64) {
        let ignorant = self.nodes.iter().position(|node| {
            let gate = node.process.as_ref().and_then(|process| process.gates.get(&partition));
            let leads =
                gate.is_some_and(|gate| gate.epoch > epoch && !matches!(gate.phase, GatePhase::Ended(_)));
            leads && !node.disk.places.get(&partition).is_some_and(|place| place.writes.contains_key(&write))
        });
        if let Some(node) = ignorant {
            self.violate("nothing acknowledged is lost", || {
                format!("n{node} leads {partition} without {write}, acknowledged under e{epoch}")
            });
        }
    }

    /// A node's lease is open only while the newest record that it has seen gives it that epoch.
    pub(crate) fn check_gates(&mut self, node: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        let Some(member) = &process.member else { return };
        let wrong = process.gates.iter().find(|(partition, gate)| {
            let record = member.topology.partition(**partition);
            let leads = record.is_some_and(|record| {
                record.epoch == gate.epoch && record.leader.as_ref() == Some(&name(node))
            });
            !leads && !matches!(gate.phase, GatePhase::Ended(_))
        });
        if let Some((partition, gate)) = wrong {
            let (partition, epoch) = (*partition, gate.epoch);
            self.violate("closed when deposed", || format!("n{node} still leads {partition} at e{epoch}"));
        }
    }
}

// Writes go on.
impl World {
    /// Whether somebody governs, the leader's lease is open, and everyone in sync can store.
    fn is_writable(&self, record: &Partition) -> bool {
        let stores = |node: usize, uid: ReplicaUid| {
            let process = self.nodes[node].process.as_ref();
            let prepared = process.is_some_and(|process| process.prepared.contains(&(record.id, uid)));
            prepared && self.is_awake(node) && self.nodes[node].cut_until <= self.now
        };
        let mut in_sync = record.replicas.iter().filter(|replica| record.in_sync.contains(&replica.node));
        let governed = self.seat.is_some() && !self.wait_for_seat();
        governed
            && self.is_served(record.id)
            && in_sync.all(|replica| stores(index(&replica.node), replica.uid))
    }

    pub(crate) fn note_writable(&mut self, partition: PartitionId) {
        let writable = self.topology().partition(partition).is_some_and(|record| self.is_writable(record));
        if writable {
            self.ghost.writable.entry(partition).or_insert((self.now, 0));
        } else {
            self.ghost.writable.remove(&partition);
        }
    }

    /// While the leader's lease is open and everyone in sync stores, writes are acknowledged: no copy
    /// that is under way, broke off or is gone holds them up for long.
    pub(crate) fn check_written(&mut self, node: usize, write: u64) {
        let Some(permit) = self.process_mut(node).permits.get(&write) else { return };
        let partition = permit.partition;
        self.note_writable(partition);
        let Some((since, failures)) = self.ghost.writable.get_mut(&partition) else { return };
        *failures += 1;
        if *failures > FAILURES_MAX && self.now.since(*since) > HELD_UP_MAX {
            let copies = self.nodes[node].process.as_ref().and_then(|process| process.gates.get(&partition));
            let copies = copies.map(|gate| gate.attached.clone());
            self.violate("written while it may be", || format!("{partition} on n{node}, copies {copies:?}"));
        }
    }
}

// A command takes effect.
impl World {
    pub(crate) fn check_command(&mut self, before: &ControlState, command: &Command) {
        if let Err(broken) = self.state.check() {
            self.violate("the state keeps its invariants", || format!("{command:?}: {broken}"));
        }
        match command {
            Command::FinishMove { partition, .. } => {
                self.ghost.moves += 1;
                self.replaced_before_dropped(before, *partition);
            }
            Command::DropReplica { partition, .. } => self.served_before_dropped(before, *partition),
            Command::Handoff { .. } => self.ghost.handovers += 1,
            Command::Elect { by_position, .. } => {
                self.ghost.elections += 1;
                self.ghost.elections_by_position += u64::from(*by_position);
            }
            Command::ElectUnclean { .. } => self.ghost.uncleans += 1,
            _ => {}
        }
    }

    /// A move drops its source only after whoever leads has said that it serves in its epoch.
    fn replaced_before_dropped(&mut self, before: &ControlState, partition: PartitionId) {
        if let Some(epoch) = self.unserved(before, partition) {
            self.violate("replaced before dropped", || format!("{partition} at e{epoch}"));
        }
    }

    /// A copy too many is dropped only after whoever leads has said that it serves in its epoch: until
    /// then nobody knows that the others can do without it.
    fn served_before_dropped(&mut self, before: &ControlState, partition: PartitionId) {
        if let Some(epoch) = self.unserved(before, partition) {
            self.violate("served before dropped", || format!("{partition} at e{epoch}"));
        }
    }

    /// The epoch of a partition that nobody led, or whose leader's lease was never open.
    fn unserved(&self, before: &ControlState, partition: PartitionId) -> Option<Epoch> {
        let record = before.topology.partition(partition)?;
        let served = record.leader.is_some() && self.ghost.opened.contains(&(partition, record.epoch));
        (!served).then_some(record.epoch)
    }

    /// Notes to whom epochs were given since the last look.
    pub(crate) fn note_epochs(&mut self) {
        let topology = &self.state.topology;
        for record in &topology.partitions {
            let Some(leader) = &record.leader else { continue };
            let run = topology.node(leader).map_or(Incarnation(0), |node| node.incarnation);
            self.ghost.given.entry((record.id, record.epoch)).or_insert((index(leader), run));
        }
    }
}
