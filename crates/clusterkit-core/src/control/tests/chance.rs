//! Whatever is proposed, in whatever order, right or wrong: the rules hold after every command, and what a
//! command did is what the text of the protocol says, written down once more as plainly as possible.

use alloc::string::String;

use super::*;
use crate::handoff::Position;
use crate::id::{Epoch, ReplicaUid};
use crate::topology::Move;

const SEEDS: u64 = 60;
const STEPS: usize = 400;
const NODES: u64 = 5;
const PARTITIONS: u32 = 2;

/// Draws commands, most of them for the record as it is.
struct Draw {
    chance: Chance,
    boots: u64,
}

impl Draw {
    fn percent(&mut self, percent: u64) -> bool {
        self.chance.below(100) < percent
    }

    fn node(&mut self) -> NodeId {
        node(1 + self.chance.below(NODES))
    }

    /// Mostly one that may lead.
    fn member(&mut self, record: &Partition) -> NodeId {
        let fit: Vec<_> = record.in_sync.iter().filter(|node| record.is_electable(node)).collect();
        match fit.len() {
            0 => self.node(),
            count if self.percent(80) => fit[self.chance.below(count as u64) as usize].clone(),
            _ => self.node(),
        }
    }

    fn nodes(&mut self) -> BTreeSet<NodeId> {
        (1..=NODES).filter(|_| self.chance.below(2) == 0).map(node).collect()
    }

    fn leader(&mut self, record: &Partition) -> NodeId {
        record.leader.clone().filter(|_| self.chance.below(10) > 0).unwrap_or_else(|| self.node())
    }

    fn version(&mut self, record: &Partition) -> PartitionVersion {
        let back = if self.percent(85) { 0 } else { self.chance.below(4) };
        PartitionVersion(record.version.0.saturating_sub(back))
    }

    fn epoch(&mut self, record: &Partition) -> Epoch {
        Epoch(record.epoch.0.saturating_sub(u64::from(self.percent(10))))
    }

    fn run(&mut self, world: &World, node: &NodeId) -> Incarnation {
        let current = world.state.topology.node(node).map_or(1, |node| node.incarnation.0);
        Incarnation(current.saturating_sub(u64::from(self.percent(10))))
    }

    fn command(&mut self, world: &World) -> Command {
        let partition = PartitionId(self.chance.below(u64::from(PARTITIONS)) as u32);
        let record = world.record(partition.0);
        let (version, epoch) = (self.version(record), self.epoch(record));
        let (leader, node, member) = (self.leader(record), self.node(), self.member(record));
        let incarnation = self.run(world, &node);
        match self.chance.below(24) {
            0 | 18 | 19 => {
                Command::Elect { partition, version, leader: member, by_position: self.percent(50) }
            }
            1 => self.elect_unclean(world, record, version),
            2 | 3 | 20 | 21 => Command::SetInSync(self.proposal(world, record, version)),
            4 => {
                let source = self.percent(70).then(|| self.node());
                Command::StartMove { partition, version, movement: Move { source, target: node } }
            }
            5 | 23 => Command::FinishMove { partition, version },
            6 if self.percent(20) => Command::AbortMove { partition, version },
            7 => Command::BeginTransfer { partition, version, target: member },
            8 if self.percent(50) => Command::CancelTransfer { partition, version },
            9 | 22 => Command::Handoff { partition, version, epoch, from: leader, log_end: 7 },
            10 => Command::DropReplica { partition, version, node },
            11 => Command::Resign { partition, version, epoch, node: leader },
            12 if self.percent(30) => Command::Revoke { partition, version, epoch },
            13 if self.percent(50) => Command::Taint { partition, version, node, incarnation },
            14 if self.percent(20) => Command::RenewReplica { partition, version, node, incarnation },
            15 if self.percent(30) => self.registration(record),
            16 if self.percent(10) => Command::RemoveNode { node, force: self.percent(50) },
            _ => {
                let liveness = if self.percent(85) { Liveness::Alive } else { Liveness::Dead };
                let change = LivenessChange { incarnation, node, liveness };
                Command::SetLiveness { changes: vec![change] }
            }
        }
    }

    fn registration(&mut self, record: &Partition) -> Command {
        self.boots += 1;
        let number = 1 + self.chance.below(NODES);
        let store = if self.percent(90) { number } else { 100 + self.boots };
        let uid = record.replica(&node(number)).map_or(ReplicaUid(1), |replica| replica.uid);
        let is_damaged = self.percent(20);
        let registration = Registration {
            boot: BootId(1_000 + self.boots),
            damaged: self.percent(30),
            replicas_damaged: is_damaged.then_some((record.id, uid)).into_iter().collect(),
            ..registration(number, store)
        };
        Command::RegisterNode { registration, replace: self.percent(50) }
    }

    fn proposal(&mut self, world: &World, record: &Partition, version: PartitionVersion) -> InSyncProposal {
        let leader = self.leader(record);
        let mut in_sync = if self.percent(70) { record.in_sync.clone() } else { self.nodes() };
        in_sync.insert(self.node());
        let newcomers: Vec<_> = if self.percent(80) {
            in_sync.iter().filter(|node| !record.is_electable(node)).cloned().collect()
        } else {
            self.nodes().into_iter().collect()
        };
        InSyncProposal {
            partition: record.id,
            version,
            epoch: self.epoch(record),
            leader_incarnation: self.run(world, &leader),
            leader,
            in_sync,
            added: newcomers.into_iter().map(|node| (node.clone(), self.run(world, &node))).collect(),
        }
    }

    fn elect_unclean(&mut self, world: &World, record: &Partition, version: PartitionVersion) -> Command {
        let members: Vec<_> = record.in_sync.iter().filter(|_| self.chance.below(12) > 0).cloned().collect();
        let mut status = |node: &NodeId| MemberStatus {
            incarnation: self.run(world, node),
            position: (self.chance.below(4) > 0).then(|| Position {
                last_epoch: Epoch(self.chance.below(3)),
                log_end: self.chance.below(3),
                damaged: self.chance.below(2) == 0,
            }),
        };
        let statuses: BTreeMap<_, _> =
            members.into_iter().map(|node| (node.clone(), status(&node))).collect();
        let rank = |status: &MemberStatus| status.position.map(|at| (at.last_epoch, at.log_end));
        let most = statuses.iter().max_by_key(|(_, status)| rank(status)).map(|(node, _)| node.clone());
        let leader = most.filter(|_| self.percent(80)).unwrap_or_else(|| self.node());
        Command::ElectUnclean { partition: record.id, version, leader, statuses }
    }
}

/// Which record a command names by its version, if it names one.
fn named(command: &Command) -> Option<(PartitionId, PartitionVersion)> {
    match command {
        Command::SetInSync(proposal) => Some((proposal.partition, proposal.version)),
        Command::Elect { partition, version, .. }
        | Command::ElectUnclean { partition, version, .. }
        | Command::StartMove { partition, version, .. }
        | Command::FinishMove { partition, version }
        | Command::AbortMove { partition, version }
        | Command::BeginTransfer { partition, version, .. }
        | Command::CancelTransfer { partition, version }
        | Command::Handoff { partition, version, .. }
        | Command::DropReplica { partition, version, .. }
        | Command::Resign { partition, version, .. }
        | Command::Revoke { partition, version, .. }
        | Command::Taint { partition, version, .. }
        | Command::RenewReplica { partition, version, .. }
        | Command::NameOverrun { partition, version, .. } => Some((*partition, *version)),
        _ => None,
    }
}

/// Rule S5, as the protocol says it.
fn is_acceptable(state: &ControlState, record: &Partition, proposal: &InSyncProposal) -> bool {
    let run = |node: &NodeId| state.topology.node(node).map(|node| node.incarnation);
    let is_leader = record.leader.as_ref() == Some(&proposal.leader) && record.epoch == proposal.epoch;
    let is_of_run = run(&proposal.leader) == Some(proposal.leader_incarnation);
    let within = proposal.in_sync.iter().all(|node| record.holds(node));
    let enough = proposal.in_sync.len() >= record.min_in_sync as usize;
    let joined = proposal.in_sync.difference(&record.in_sync);
    let named = joined.into_iter().all(|node| proposal.added.contains_key(node));
    let added_fit = proposal.added.iter().all(|(node, incarnation)| {
        proposal.in_sync.contains(node) && run(node) == Some(*incarnation) && state.topology.is_live(node)
    });
    let has_leader = proposal.in_sync.contains(&proposal.leader);
    is_leader && is_of_run && within && enough && named && added_fit && has_leader
}

fn check_proposal(before: &ControlState, after: &Partition, proposal: &InSyncProposal, accepted: bool) {
    let record = before.topology.partition(proposal.partition).unwrap();
    assert_eq!(accepted, is_acceptable(before, record, proposal), "{proposal:?}");
    assert_eq!(after.version, record.version.next(), "accepted or not");
    if accepted {
        let kept = |node: &&NodeId| proposal.in_sync.contains(*node) && !proposal.added.contains_key(*node);
        assert_eq!(after.in_sync, proposal.in_sync);
        assert_eq!(after.tainted, record.tainted.iter().filter(kept).cloned().collect());
    } else {
        assert_eq!(*after, Partition { version: after.version, ..record.clone() });
    }
}

/// Rules F3, F5, M4: who leads is in sync and whole, or the epoch is marked; and lives, when it begins.
fn check_leader(state: &ControlState, before: &Partition, after: &Partition, command: &Command) {
    let Some(leader) = after.leader.as_ref().filter(|_| before.epoch != after.epoch) else { return };
    assert_eq!(after.epoch, before.epoch.next(), "{command:?}");
    assert!(state.topology.is_live(leader), "{command:?}");
    let was_whole = before.is_electable(leader);
    let is_unclean = matches!(command, Command::ElectUnclean { .. });
    assert_eq!(was_whole, !is_unclean, "{command:?}");
    assert_eq!(after.unclean == Some(after.epoch), is_unclean, "{command:?}");
    assert!(was_whole || before.in_sync.iter().all(|member| state.topology.is_live(member)));
}

/// Who yielded is known from a Resign that came true until the epoch after it ends.
fn yielded_by(before: &Partition, after: &Partition, command: &Command) -> Option<NodeId> {
    let ended = before.leader.is_some() && (after.leader != before.leader || after.epoch != before.epoch);
    match command {
        Command::Resign { node, .. } if ended => Some(node.clone()),
        _ if ended => None,
        _ => before.yielded_by.clone(),
    }
}

/// I9, as far as a record tells; that it holds for forced removals as well is part of it.
fn check_record(before: &Partition, after: &Partition, command: &Command) {
    let nodes: BTreeSet<_> = after.replicas.iter().map(|replica| replica.node.clone()).collect();
    assert!(after.in_sync.len() >= after.min_in_sync as usize && after.in_sync.is_subset(&nodes));
    assert!(after.leader.as_ref().is_none_or(|leader| after.in_sync.contains(leader)));
    let is_lowered = after.min_in_sync < before.min_in_sync;
    let may_lower = matches!(
        command,
        Command::FinishMove { .. }
            | Command::AbortMove { .. }
            | Command::DropReplica { .. }
            | Command::RemoveNode { force: true, .. }
    );
    assert!(!is_lowered || may_lower, "{command:?}");
    assert_eq!(after.yielded_by, yielded_by(before, after, command), "{command:?}");
}

fn check_step(before: &ControlState, world: &World, command: &Command, accepted: bool) {
    let is_stale = named(command).filter(|(partition, version)| {
        before.topology.partition(*partition).is_some_and(|record| record.version != *version)
    });
    if is_stale.is_some() {
        assert!(!accepted && world.state == *before, "{command:?} of another version did something");
        return;
    }
    if let Command::SetInSync(proposal) = command {
        check_proposal(before, world.record(proposal.partition.0), proposal, accepted);
    }
    for (old, new) in before.topology.partitions.iter().zip(&world.state.topology.partitions) {
        check_leader(&world.state, old, new, command);
        check_record(old, new, command);
        let is_named = named(command).is_none_or(|(partition, _)| partition == new.id);
        assert!(is_named || old == new, "{command:?} changed another partition");
    }
    for (name, old) in &before.topology.nodes {
        let new = world.state.topology.node(name);
        assert!(new.is_none_or(|new| new.incarnation >= old.incarnation), "{command:?}");
    }
}

#[test]
fn whatever_is_proposed_the_rules_hold() {
    let (mut led, mut came_true) = (BTreeMap::new(), BTreeMap::<_, u32>::new());
    for seed in 0..SEEDS {
        let mut draw = Draw { chance: Chance(seed * 2 + 1), boots: 0 };
        let mut world = World::formed(NODES, PARTITIONS, 3);
        for _ in 0..STEPS {
            let command = draw.command(&world);
            let before = world.state.clone();
            let accepted = !matches!(world.apply(&command), Err(_) | Ok(Applied::Unchanged));
            check_step(&before, &world, &command, accepted);
            for record in &world.state.topology.partitions {
                let Some(leader) = record.leader.clone() else { continue };
                let first = led.entry((seed, record.id, record.epoch)).or_insert_with(|| leader.clone());
                assert_eq!(*first, leader, "I1: one leader for an epoch");
            }
            *came_true.entry(name(&command)).or_default() += u32::from(accepted);
        }
    }
    assert!(came_true.values().all(|count| *count > 0), "chance left something out: {came_true:?}");
}

fn name(command: &Command) -> String {
    format!("{command:?}").split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_string()
}
