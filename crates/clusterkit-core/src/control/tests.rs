//! The control plane as a story: a small world that applies what the controller wants and answers
//! as nodes do.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::id::{BootId, ClusterId, Incarnation, NodeId, PartitionId, PartitionVersion, StoreId};
use crate::topology::{
    Cluster, ClusterConfig, Event, HealthState, Liveness, NodeStatus, Partition, PartitionHealth, Stage,
};

mod chance;
mod check;
mod elections;
mod entry;
mod form;
mod hooks;
mod rules;

/// The state, and the facts that nodes would report.
struct World {
    state: ControlState,
    gone: BTreeSet<NodeId>,
    settled: bool,
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn node(number: u64) -> NodeId {
    id(&format!("n{number}"))
}

fn registration(number: u64, store: u64) -> Registration {
    let addrs = [7_000, 8_080].map(|port| format!("h{number}:{port}"));
    Registration::new(node(number), StoreId(store), BootId(store), addrs)
}

fn cluster(partition_count: u32, replication_factor: u32) -> Cluster {
    let config = ClusterConfig { partition_count, replication_factor, ..ClusterConfig::default() };
    Cluster { id: ClusterId(1), name: "test".to_string(), config }
}

impl World {
    fn formed(nodes: u64, partition_count: u32, replication_factor: u32) -> Self {
        let members = (1..=nodes).map(|number| registration(number, number)).collect();
        let mut world = Self { state: ControlState::default(), gone: BTreeSet::new(), settled: true };
        let formed = Command::form_cluster(cluster(partition_count, replication_factor), members).unwrap();
        assert_eq!(world.apply(&formed), Ok(Applied::Changed));
        world
    }

    /// Applies, and checks what must hold whatever was applied.
    fn apply(&mut self, command: &Command) -> Result<Applied, Rejected> {
        let before = self.state.topology.clone();
        let outcome = self.state.apply(command);
        assert_eq!(self.state.check(), Ok(()), "{command:?}");
        let after = &self.state.topology;
        assert!(after.version >= before.version && after.route_version >= before.route_version);
        for (old, new) in before.partitions.iter().zip(&after.partitions) {
            assert!(new.epoch >= old.epoch && new.version >= old.version, "{command:?}");
            assert!(old == new || new.version > old.version, "{command:?} changed a record silently");
            let led_by_another = new.leader.is_some() && new.leader != old.leader;
            assert!(!led_by_another || new.epoch > old.epoch, "{command:?} changed a leader within an epoch");
        }
        outcome
    }

    fn report(&mut self, number: u64, liveness: Liveness) {
        let incarnation = self.incarnation(number);
        let change = LivenessChange { node: node(number), incarnation, liveness };
        self.apply(&Command::SetLiveness { changes: vec![change] }).unwrap();
    }

    fn incarnation(&self, number: u64) -> Incarnation {
        self.state.topology.node(&node(number)).unwrap().incarnation
    }

    fn register(&mut self, number: u64, store: u64) -> Result<Applied, Rejected> {
        self.apply(&Command::RegisterNode { registration: registration(number, store), replace: false })
    }

    /// Another process begins on the same disk.
    fn restart(&mut self, number: u64, boot: u64) {
        let registration = Registration { boot: BootId(boot), ..registration(number, number) };
        self.apply(&Command::RegisterNode { registration, replace: false }).unwrap();
    }

    fn join(&mut self, number: u64) {
        self.register(number, number).unwrap();
        self.report(number, Liveness::Alive);
    }

    /// One round of the controller, then what living nodes do about it.
    fn round(&mut self) -> Vec<Command> {
        let facts = self.facts();
        let commands = reconcile(&self.state, &facts, Limits::default());
        for command in &commands {
            self.apply(command).unwrap_or_else(|refusal| panic!("{command:?}: {refusal}"));
        }
        commands
    }

    /// Every hook of every living node is done at once.
    fn facts(&self) -> Facts {
        Facts { gone: self.gone.clone(), settled: self.settled, ..Facts::all_done(&self.state) }
    }

    /// Rounds until nothing is wanted any more. Returns all commands.
    fn settle(&mut self) -> Vec<Command> {
        let mut all = Vec::new();
        for _ in 0..400 {
            let commands = self.round();
            if commands.is_empty() {
                return all;
            }
            all.extend(commands);
        }
        panic!("the controller does not come to rest");
    }

    fn record(&self, partition: u32) -> &Partition {
        self.state.topology.partition(PartitionId(partition)).unwrap()
    }

    fn count(&self, held: impl Fn(&Partition) -> bool) -> usize {
        self.state.topology.partitions.iter().filter(|record| held(record)).count()
    }

    fn replicas_of(&self, number: u64) -> usize {
        self.count(|record| record.holds(&node(number)))
    }

    fn led_by(&self, number: u64) -> usize {
        self.count(|record| record.leader == Some(node(number)))
    }

    fn unhealthy(&self) -> usize {
        self.count(|record| self.state.topology.partition_health(record) != PartitionHealth::Ok)
    }
}

#[test]
fn a_new_cluster_has_every_partition_led_and_in_sync() {
    let mut world = World::formed(3, 64, 3);
    assert_eq!(world.unhealthy(), 0);
    assert!(world.round().is_empty());
    for number in 1..=3 {
        assert_eq!(world.replicas_of(number), 64);
        assert!((21..=22).contains(&world.led_by(number)));
    }
    assert_eq!(world.state.topology.health(true).state, HealthState::Healthy);
}

#[test]
fn forming_twice_changes_nothing_and_forming_another_is_refused() {
    let mut world = World::formed(1, 8, 1);
    let before = world.state.clone();
    let members = vec![registration(1, 1)];
    let again = Command::form_cluster(cluster(8, 1), members.clone()).unwrap();
    assert_eq!(world.apply(&again), Ok(Applied::Unchanged));
    let other = Command::form_cluster(Cluster { id: ClusterId(2), ..cluster(8, 1) }, members).unwrap();
    assert_eq!(world.apply(&other), Err(Rejected::AlreadyFormed { cluster: ClusterId(1) }));
    assert_eq!(world.state, before);
}

#[test]
fn a_dead_node_is_fenced_and_replaced_as_leader_in_one_round() {
    let mut world = World::formed(3, 64, 3);
    let led = world.led_by(3);
    let before = world.state.topology.clone();
    let liveness =
        vec![LivenessChange { node: node(3), incarnation: Incarnation(1), liveness: Liveness::Dead }];
    let facts = Facts { liveness, ..Facts::default() };
    let commands = reconcile(&world.state, &facts, Limits::default());
    assert_eq!(commands.len(), 1 + led, "one verdict, one election for each partition that it led");
    for command in &commands {
        world.apply(command).unwrap();
    }
    assert_eq!(world.led_by(3), 0);
    assert!(world.led_by(1).abs_diff(world.led_by(2)) <= 1);
    for (old, new) in before.partitions.iter().zip(&world.state.topology.partitions) {
        assert_eq!(new.in_sync, BTreeSet::from([node(1), node(2)]));
        let lost_leader = old.leader == Some(node(3));
        assert_eq!(new.epoch.0 - old.epoch.0, u64::from(lost_leader));
    }
    let events = world.state.topology.events_since(&before);
    assert!(events.contains(&Event::NodeFailed { node: node(3) }));
    assert_eq!(events.iter().filter(|event| event.kind() == "leader_elected").count(), led);
}

#[test]
fn a_node_that_returns_is_in_sync_again_after_it_caught_up() {
    let mut world = World::formed(3, 16, 3);
    world.report(3, Liveness::Dead);
    world.settle();
    assert_eq!(world.unhealthy(), 16);
    assert_eq!(world.register(3, 3), Ok(Applied::Registered { incarnation: Incarnation(1) }), "the same run");
    let mut restarted = registration(3, 3);
    restarted.boot = BootId(77);
    let again = Command::RegisterNode { registration: restarted, replace: false };
    assert_eq!(world.apply(&again), Ok(Applied::Registered { incarnation: Incarnation(2) }));
    world.report(3, Liveness::Alive);
    world.settle();
    assert_eq!(world.unhealthy(), 0);
    assert!((5..=6).contains(&world.led_by(3)), "leaders are evened out");
}

#[test]
fn a_copy_whose_node_dies_or_restarts_outside_of_the_in_sync_set_lapses_again() {
    let mut world = World::formed(3, 1, 3);
    let lapses = |world: &World, number| world.record(0).replica(&node(number)).unwrap().lapses;
    world.restart(2, 77);
    assert_eq!(lapses(&world, 2), 0, "the set counts on it, so no write was acknowledged without it");
    world.report(2, Liveness::Alive);
    world.report(3, Liveness::Dead);
    assert_eq!(lapses(&world, 3), 1, "it fell out of the set");
    world.restart(3, 78);
    assert_eq!(lapses(&world, 3), 2, "what it caught up with before the restart counts for nothing");
    world.report(3, Liveness::Alive);
    world.report(3, Liveness::Dead);
    assert_eq!(lapses(&world, 3), 3, "what it caught up with before it died counts for nothing");
    assert_eq!((lapses(&world, 1), lapses(&world, 2)), (0, 0));
}

#[test]
fn a_verdict_on_an_earlier_incarnation_is_void() {
    let mut world = World::formed(3, 8, 3);
    world.restart(3, 77);
    world.report(3, Liveness::Alive);
    let stale = LivenessChange { node: node(3), incarnation: Incarnation(1), liveness: Liveness::Dead };
    assert_eq!(world.apply(&Command::SetLiveness { changes: vec![stale] }), Ok(Applied::Unchanged));
    assert!(world.state.topology.is_live(&node(3)));
}

#[test]
fn the_in_sync_set_never_falls_below_its_minimum() {
    let mut world = World::formed(3, 8, 3);
    world.report(3, Liveness::Dead);
    world.settle();
    world.report(2, Liveness::Dead);
    world.settle();
    for record in &world.state.topology.partitions {
        assert_eq!(record.in_sync, BTreeSet::from([node(1), node(2)]));
        assert_eq!(record.leader, Some(node(1)));
        assert_eq!(world.state.topology.partition_health(record), PartitionHealth::BelowMinInSync);
    }
    assert_eq!(world.state.topology.health(true).state, HealthState::Unavailable);
}

#[test]
fn a_dead_member_at_the_minimum_is_swapped_for_one_that_caught_up() {
    let mut world = World::formed(3, 8, 3);
    world.report(3, Liveness::Dead);
    world.settle();
    world.report(2, Liveness::Dead);
    world.settle();
    world.report(3, Liveness::Alive);
    world.settle();
    for record in &world.state.topology.partitions {
        assert_eq!(record.in_sync, BTreeSet::from([node(1), node(3)]));
    }
}

#[test]
fn fewer_nodes_than_copies_works_and_heals_when_nodes_come() {
    let mut world = World::formed(1, 32, 3);
    assert_eq!(world.record(0).min_in_sync, 1);
    assert_eq!(world.unhealthy(), 32);
    assert_eq!(world.state.topology.health(true).state, HealthState::Degraded);
    world.join(2);
    world.settle();
    assert_eq!((world.replicas_of(1), world.replicas_of(2)), (32, 32));
    assert_eq!(world.record(0).min_in_sync, 2);
    world.join(3);
    world.settle();
    assert_eq!(world.unhealthy(), 0);
    assert_eq!(world.record(0).min_in_sync, 2);
    assert!((10..=11).contains(&world.led_by(3)));
}

#[test]
fn a_new_node_takes_its_share_with_the_fewest_moves() {
    let mut world = World::formed(3, 64, 3);
    world.join(4);
    let commands = world.settle();
    let moves = commands.iter().filter(|command| matches!(command, Command::StartMove { .. })).count();
    assert_eq!(moves, 48, "64 partitions x 3 copies / 4 nodes");
    for number in 1..=4 {
        assert_eq!(world.replicas_of(number), 48);
        assert_eq!(world.led_by(number), 16);
    }
    assert_eq!(world.unhealthy(), 0);
}

#[test]
fn nothing_moves_for_balance_before_membership_is_quiet() {
    let mut world = World::formed(3, 64, 3);
    world.settled = false;
    world.join(4);
    assert!(world.settle().is_empty());
    world.settled = true;
    assert!(!world.settle().is_empty());
}

#[test]
fn a_drained_node_gives_everything_away_and_leaves() {
    let mut world = World::formed(4, 64, 3);
    world.apply(&Command::Drain { node: node(4) }).unwrap();
    world.settled = false;
    world.settle();
    assert_eq!(world.replicas_of(4), 0);
    assert_eq!(world.state.topology.node(&node(4)).unwrap().status(), NodeStatus::Left);
    assert_eq!(world.unhealthy(), 0);
    assert_eq!(world.replicas_of(1), 64);
}

#[test]
fn draining_a_node_twice_changes_nothing_even_when_it_has_left() {
    let mut world = World::formed(4, 8, 3);
    let drain = Command::Drain { node: node(4) };
    assert_eq!(world.apply(&drain), Ok(Applied::Changed));
    assert_eq!(world.apply(&drain), Ok(Applied::Unchanged));
    world.settle();
    assert_eq!(world.state.topology.node(&node(4)).unwrap().stage, Stage::Left);
    assert_eq!(world.apply(&drain), Ok(Applied::Unchanged));
}

#[test]
fn draining_below_the_replication_factor_lowers_the_number_of_copies() {
    let mut world = World::formed(3, 16, 3);
    world.apply(&Command::Drain { node: node(3) }).unwrap();
    world.settle();
    assert_eq!(world.state.topology.node(&node(3)).unwrap().stage, Stage::Left);
    for record in &world.state.topology.partitions {
        assert_eq!(record.replicas.len(), 2);
        assert_eq!(record.min_in_sync, 2);
    }
}

#[test]
fn the_last_node_cannot_be_drained_away() {
    let mut world = World::formed(1, 8, 1);
    world.apply(&Command::Drain { node: node(1) }).unwrap();
    world.settle();
    assert_eq!(world.replicas_of(1), 8);
    assert_eq!(world.state.topology.node(&node(1)).unwrap().stage, Stage::Leaving);
    assert_eq!(world.apply(&Command::CancelDrain { node: node(1) }), Ok(Applied::Changed));
}

#[test]
fn a_gone_node_is_replaced_where_there_is_another() {
    let mut world = World::formed(4, 64, 3);
    world.report(4, Liveness::Dead);
    world.settle();
    assert_eq!(world.unhealthy(), 48, "nothing is rebuilt while it may come back");
    world.gone.insert(node(4));
    world.settle();
    assert_eq!(world.unhealthy(), 0);
    assert_eq!(world.replicas_of(4), 0);
}

#[test]
fn a_gone_node_keeps_its_copies_where_there_is_no_other() {
    let mut world = World::formed(3, 16, 3);
    world.report(3, Liveness::Dead);
    world.gone.insert(node(3));
    world.settle();
    assert_eq!(world.replicas_of(3), 16);
}

#[test]
fn a_second_node_with_the_same_id_is_refused_while_the_first_lives() {
    let mut world = World::formed(3, 8, 3);
    let before = world.state.clone();
    let refused = Rejected::NodeIdInUse { node: node(3), node_addr: "h3:7000".to_string() };
    assert_eq!(world.register(3, 99), Err(refused));
    assert_eq!(world.state, before);
}

#[test]
fn a_wiped_node_comes_back_as_new_replicas() {
    let mut world = World::formed(3, 8, 3);
    let old: Vec<_> =
        world.state.topology.partitions.iter().map(|p| p.replica(&node(3)).unwrap().uid).collect();
    world.report(3, Liveness::Dead);
    world.settle();
    assert_eq!(world.register(3, 99), Ok(Applied::Registered { incarnation: Incarnation(2) }));
    for (record, old) in world.state.topology.partitions.iter().zip(&old) {
        assert!(record.replica(&node(3)).unwrap().uid > *old);
        assert!(!record.in_sync.contains(&node(3)));
    }
    world.report(3, Liveness::Alive);
    world.settle();
    assert_eq!(world.unhealthy(), 0);
}

#[test]
fn a_wiped_node_that_the_set_needs_cannot_lead() {
    let mut world = World::formed(2, 8, 2);
    world.report(2, Liveness::Dead);
    world.settle();
    world.register(2, 99).unwrap();
    for record in &world.state.topology.partitions {
        assert_eq!(record.tainted, BTreeSet::from([node(2)]));
    }
    world.report(2, Liveness::Alive);
    world.report(1, Liveness::Dead);
    world.round();
    assert_eq!(world.led_by(2), 0, "it has nothing, the other has everything");
    world.report(1, Liveness::Alive);
    world.settle();
    assert_eq!(world.count(|record| record.tainted.is_empty()), 8);
    assert!(world.led_by(2) > 0);
}

#[test]
fn the_only_copy_wiped_is_an_unclean_election_and_says_so() {
    let mut world = World::formed(1, 4, 1);
    world.report(1, Liveness::Dead);
    let before = world.state.topology.clone();
    world.register(1, 99).unwrap();
    world.report(1, Liveness::Alive);
    let commands = world.round();
    assert_eq!(commands.iter().filter(|command| matches!(command, Command::ElectUnclean { .. })).count(), 4);
    let events = world.state.topology.events_since(&before);
    assert_eq!(events.iter().filter(|event| event.kind() == "data_loss_possible").count(), 4);
}

#[test]
fn a_leader_never_continues_its_epoch_after_a_restart() {
    let mut world = World::formed(3, 8, 3);
    let led: Vec<_> = world
        .state
        .topology
        .partitions
        .iter()
        .filter(|p| p.leader == Some(node(1)))
        .map(|p| (p.id, p.epoch))
        .collect();
    assert!(!led.is_empty());
    let mut restarted = registration(1, 1);
    restarted.boot = BootId(77);
    world.apply(&Command::RegisterNode { registration: restarted, replace: false }).unwrap();
    assert_eq!(world.led_by(1), 0);
    world.round();
    for (partition, epoch) in led {
        assert!(world.record(partition.0).epoch > epoch);
    }
}

#[test]
fn a_command_on_an_old_version_is_refused() {
    let mut world = World::formed(3, 8, 3);
    let (partition, version) = (PartitionId(0), PartitionVersion(0));
    let stale = Err(Rejected::StaleVersion { partition, current: PartitionVersion(1) });
    assert_eq!(
        world.apply(&Command::Elect { partition, version, leader: node(1), by_position: false }),
        stale
    );
    assert_eq!(world.apply(&Command::FinishMove { partition, version }), stale);
    let missing = PartitionId(8);
    let unknown = Err(Rejected::UnknownPartition { partition: missing });
    assert_eq!(world.apply(&Command::AbortMove { partition: missing, version }), unknown);
}

#[test]
fn a_refused_in_sync_proposal_cannot_win_later() {
    let mut world = World::formed(3, 1, 3);
    let record = world.record(0).clone();
    let leader = record.leader.clone().unwrap();
    let proposal = InSyncProposal {
        partition: record.id,
        version: record.version,
        epoch: record.epoch,
        leader: leader.clone(),
        leader_incarnation: Incarnation(1),
        in_sync: BTreeSet::from([leader]),
        added: BTreeMap::new(),
    };
    let command = Command::SetInSync(proposal);
    let below = Rejected::BelowMinInSync { partition: record.id, min_in_sync: 2 };
    assert_eq!(world.apply(&command), Err(below));
    let current = record.version.next();
    assert_eq!(world.apply(&command), Err(Rejected::StaleVersion { partition: record.id, current }));
}

#[test]
fn progress_under_an_earlier_incarnation_counts_for_nothing() {
    let mut world = World::formed(3, 1, 3);
    world.report(3, Liveness::Dead);
    world.settle();
    world.report(3, Liveness::Alive);
    let record = world.record(0).clone();
    let leader = record.leader.clone().unwrap();
    let proposal = InSyncProposal {
        partition: record.id,
        version: record.version,
        epoch: record.epoch,
        leader,
        leader_incarnation: Incarnation(1),
        in_sync: BTreeSet::from([node(1), node(2), node(3)]),
        added: BTreeMap::from([(node(3), Incarnation(7))]),
    };
    let stale = Rejected::StaleIncarnation { node: node(3), current: Incarnation(1) };
    assert_eq!(world.apply(&Command::SetInSync(proposal)), Err(stale));
}

#[test]
fn a_node_that_holds_replicas_is_removed_only_by_force_and_never_with_the_last_good_copy() {
    let mut world = World::formed(3, 8, 3);
    let held = Rejected::HoldsReplicas { node: node(3), replicas: 8 };
    assert_eq!(world.apply(&Command::RemoveNode { node: node(3), force: false }), Err(held));
    world.report(2, Liveness::Dead);
    world.report(3, Liveness::Dead);
    world.settle();
    let outcome = world.apply(&Command::RemoveNode { node: node(1), force: true });
    assert!(matches!(outcome, Err(Rejected::WouldLoseData { .. })), "{outcome:?}");
    assert_eq!(world.apply(&Command::RemoveNode { node: node(3), force: true }), Ok(Applied::Changed));
    assert_eq!(
        world.apply(&Command::RemoveNode { node: node(3), force: true }),
        Err(Rejected::UnknownNode { node: node(3) })
    );
}

/// What was said of a run before the removal must not count for one after it, whichever is newer.
#[test]
fn a_node_that_was_removed_comes_back_in_a_newer_run() {
    let mut world = World::formed(3, 8, 2);
    world.restart(3, 30);
    world.restart(3, 31);
    assert_eq!(world.state.topology.node(&node(3)).unwrap().incarnation, Incarnation(3));
    world.report(3, Liveness::Dead);
    world.settle();
    world.apply(&Command::RemoveNode { node: node(3), force: true }).unwrap();
    let again = Ok(Applied::Registered { incarnation: Incarnation(4) });
    assert_eq!(world.register(3, 3), again);
}

#[test]
fn the_replication_factor_changes_while_running() {
    let mut world = World::formed(5, 40, 3);
    world.apply(&Command::SetReplicationFactor { replication_factor: 5 }).unwrap();
    world.settle();
    assert_eq!(world.unhealthy(), 0);
    assert_eq!(world.record(0).min_in_sync, 3);
    world.apply(&Command::SetReplicationFactor { replication_factor: 2 }).unwrap();
    world.settle();
    assert_eq!(world.count(|record| record.replicas.len() == 2 && record.min_in_sync == 2), 40);
    let invalid = Rejected::Invalid { reason: InvalidReason::ReplicationFactor };
    assert_eq!(world.apply(&Command::SetReplicationFactor { replication_factor: 0 }), Err(invalid));
}

#[test]
fn a_move_whose_target_is_gone_is_given_up() {
    let mut world = World::formed(3, 8, 2);
    let (partition, version) = (PartitionId(0), world.record(0).version);
    let source = world.record(0).leader.clone().unwrap();
    world.join(4);
    let movement = crate::topology::Move { source: Some(source), target: node(4) };
    world.apply(&Command::StartMove { partition, version, movement }).unwrap();
    world.report(4, Liveness::Dead);
    world.gone.insert(node(4));
    world.settle();
    assert_eq!(world.record(0).movement, None);
    assert!(!world.record(0).holds(&node(4)));
    assert_eq!(world.unhealthy(), 0);
}

#[test]
fn only_routes_move_the_route_version() {
    let mut world = World::formed(3, 8, 3);
    let before = world.state.topology.clone();
    world.report(3, Liveness::Suspect);
    assert!(world.state.topology.version > before.version);
    assert_eq!(world.state.topology.route_version, before.route_version);
    world.report(3, Liveness::Dead);
    assert!(world.state.topology.route_version > before.route_version);
}

#[test]
fn witnesses_hold_nothing() {
    let mut world = World::formed(2, 16, 3);
    let witness = Registration { holds_data: false, ..registration(3, 3) };
    world.apply(&Command::RegisterNode { registration: witness, replace: false }).unwrap();
    world.report(3, Liveness::Alive);
    world.settle();
    assert_eq!(world.replicas_of(3), 0);
}

/// Everything that can happen to nodes, in any order; then everything heals.
#[test]
fn whatever_happens_the_cluster_heals() {
    for seed in 0..60 {
        let mut chance = Chance(seed * 2 + 1);
        let mut world = World::formed(3 + seed % 3, 16, 1 + u32::try_from(seed % 4).unwrap());
        let mut stores: BTreeMap<u64, u64> = (1..=6).map(|number| (number, number)).collect();
        for step in 0..120 {
            disturb(&mut world, &mut chance, &mut stores, step);
            world.settled = chance.below(2) == 0;
            world.round();
        }
        world.settled = true;
        world.gone.clear();
        for number in 1..=6 {
            drop(world.apply(&Command::CancelDrain { node: node(number) }));
            restart(&mut world, number, stores[&number], 9_000 + seed);
        }
        world.settle();
        assert_eq!(world.unhealthy(), 0, "seed {seed}: {:?}", world.state.topology.health(true));
    }
}

fn disturb(world: &mut World, chance: &mut Chance, stores: &mut BTreeMap<u64, u64>, step: u64) {
    let number = 1 + chance.below(6);
    match chance.below(10) {
        0..=2 if world.state.topology.node(&node(number)).is_some() => world.report(number, Liveness::Dead),
        3 | 4 => restart(world, number, stores[&number], 100 + step),
        5 if !world.state.topology.is_live(&node(number)) => {
            stores.insert(number, 1_000 * number + step);
            restart(world, number, stores[&number], 100 + step);
        }
        6 => drop(world.apply(&Command::Drain { node: node(number) })),
        7 => drop(world.apply(&Command::CancelDrain { node: node(number) })),
        8 => drop(world.apply(&Command::RemoveNode { node: node(number), force: chance.below(2) == 0 })),
        _ if chance.below(2) == 0 => drop(world.gone.insert(node(number))),
        _ => world.gone.clear(),
    }
}

fn restart(world: &mut World, number: u64, store: u64, boot: u64) {
    let registration = Registration { boot: BootId(boot), ..registration(number, store) };
    world.apply(&Command::RegisterNode { registration, replace: true }).unwrap();
    world.report(number, Liveness::Alive);
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
