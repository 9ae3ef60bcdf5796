//! The rules of the replication protocol that the control plane keeps, one test or more for each.

use super::*;
use crate::id::Epoch;

const P: PartitionId = PartitionId(0);

/// One partition with a copy on each of `nodes`, and its leader first in order.
fn partition(nodes: u32) -> (World, NodeId, Vec<NodeId>) {
    let world = World::formed(u64::from(nodes), 1, nodes);
    let record = world.record(0);
    let (leader, followers) = (record.leader.clone().unwrap(), record.followers().cloned().collect());
    (world, leader, followers)
}

fn resign(world: &World, leader: &NodeId) -> Command {
    let (version, epoch) = (world.record(0).version, world.record(0).epoch);
    Command::Resign { partition: P, version, epoch, node: leader.clone() }
}

fn elect(world: &World, leader: &NodeId) -> Command {
    let version = world.record(0).version;
    Command::Elect { partition: P, version, leader: leader.clone(), by_position: false }
}

fn number(node: &NodeId) -> u64 {
    node.as_str().trim_start_matches('n').parse().unwrap()
}

#[test]
fn l3_the_record_names_who_yielded_to_the_leader_that_follows() {
    let (mut world, leader, others) = partition(3);
    assert_eq!(world.record(0).yielded_by, None);
    world.apply(&resign(&world, &leader)).unwrap();
    assert_eq!((&world.record(0).leader, &world.record(0).yielded_by), (&None, &Some(leader.clone())));
    // Whatever becomes of it before another is elected, it holds no lease of the partition any more.
    world.restart(number(&leader), 77);
    world.report(number(&leader), Liveness::Dead);
    assert_eq!(world.record(0).yielded_by, Some(leader.clone()));
    world.apply(&elect(&world, &others[0])).unwrap();
    assert_eq!(world.record(0).yielded_by, Some(leader));
}

#[test]
fn l3_an_epoch_that_ends_in_any_other_way_was_yielded_by_nobody() {
    let check = |what: &str, end: fn(&mut World, &NodeId, &NodeId)| {
        let (mut world, first, others) = partition(3);
        world.apply(&resign(&world, &first)).unwrap();
        world.apply(&elect(&world, &others[0])).unwrap();
        end(&mut world, &others[0], &others[1]);
        assert_eq!(world.record(0).yielded_by, None, "{what}");
        assert_ne!(world.record(0).leader.as_ref(), Some(&others[0]), "{what}");
    };
    check("a fence", |world, leader, _| world.report(number(leader), Liveness::Dead));
    check("a restart", |world, leader, _| world.restart(number(leader), 77));
    check("a removal", |world, leader, _| {
        world.apply(&Command::RemoveNode { node: leader.clone(), force: true }).unwrap();
    });
    check("a handoff", |world, leader, target| {
        begin_transfer(world, target);
        world.apply(&handoff(world, leader)).unwrap();
    });
    check("a revocation", |world, _, _| {
        let (version, epoch) = (world.record(0).version, world.record(0).epoch);
        world.apply(&Command::Revoke { partition: P, version, epoch }).unwrap();
    });
}

fn begin_transfer(world: &mut World, target: &NodeId) {
    let (version, target) = (world.record(0).version, target.clone());
    world.apply(&Command::BeginTransfer { partition: P, version, target }).unwrap();
}

fn handoff(world: &World, leader: &NodeId) -> Command {
    let (version, epoch, from) = (world.record(0).version, world.record(0).epoch, leader.clone());
    Command::Handoff { partition: P, version, epoch, from, log_end: 7 }
}

#[test]
fn m4_a_handoff_passes_leadership_on_in_one_step() {
    let (mut world, leader, others) = partition(3);
    begin_transfer(&mut world, &others[1]);
    let (before, command) = (world.record(0).clone(), handoff(&world, &leader));
    world.apply(&command).unwrap();
    let after = world.record(0);
    assert_eq!((after.epoch, after.version), (before.epoch.next(), before.version.next()));
    assert_eq!((&after.leader, &after.transfer), (&Some(others[1].clone()), &None));
    let stale = Rejected::StaleVersion { partition: P, current: after.version };
    assert_eq!(world.apply(&command), Err(stale), "a copy of it wins nothing");
}

#[test]
fn m4_a_handoff_of_another_leader_or_epoch_is_refused() {
    let (mut world, leader, others) = partition(3);
    begin_transfer(&mut world, &others[1]);
    let refused = Err(Rejected::OtherState { partition: P });
    assert_eq!(world.apply(&handoff(&world, &others[0])), refused);
    let Command::Handoff { version, epoch, from, log_end, .. } = handoff(&world, &leader) else { panic!() };
    let earlier = Command::Handoff { partition: P, version, epoch: Epoch(epoch.0 - 1), from, log_end };
    assert_eq!(world.apply(&earlier), refused);
}

/// A target that fell out, or whose taint was found, after the leader stopped for it.
#[test]
fn m4_a_handoff_that_nobody_can_follow_lets_its_sender_go_on() {
    let check = |what: &str, spoil: fn(&mut World, &NodeId)| {
        let (mut world, leader, others) = partition(2);
        begin_transfer(&mut world, &others[0]);
        spoil(&mut world, &others[0]);
        let (before, command) = (world.record(0).clone(), handoff(&world, &leader));
        let refused = Rejected::NotElectable { partition: P, node: others[0].clone() };
        assert_eq!(world.apply(&command), Err(refused), "{what}");
        let after = world.record(0).clone();
        assert_eq!((&after.leader, after.epoch), (&Some(leader), before.epoch), "{what}");
        assert_eq!((after.version, &after.transfer), (before.version.next(), &None), "{what}");
        let stale = Rejected::StaleVersion { partition: P, current: after.version };
        assert_eq!(world.apply(&command), Err(stale), "{what}");
    };
    check("left", |world, target| {
        world.state.node_mut(target).unwrap().stage = Stage::Left;
    });
    check("tainted", |world, target| {
        world.state.partition_mut(P).tainted.insert(target.clone());
    });
}

#[test]
fn f6b_a_stop_is_of_the_leader_of_this_version_and_epoch() {
    let (mut world, leader, others) = partition(3);
    let refused = Err(Rejected::OtherState { partition: P });
    assert_eq!(world.apply(&resign(&world, &others[0])), refused);
    let command = resign(&world, &leader);
    let Command::Resign { version, epoch, node, .. } = command.clone() else { panic!() };
    let earlier = Command::Resign { partition: P, version, epoch: Epoch(epoch.0 - 1), node };
    assert_eq!(world.apply(&earlier), refused);
    assert_eq!(world.apply(&command), Ok(Applied::Changed));
    let stale = Rejected::StaleVersion { partition: P, current: world.record(0).version };
    assert_eq!(world.apply(&command), Err(stale), "a copy of it ends no later epoch");
}

#[test]
fn f6b_a_stop_that_nobody_can_follow_lets_its_sender_go_on() {
    let (mut world, leader, others) = partition(2);
    world.report(number(&others[0]), Liveness::Dead);
    let (before, command) = (world.record(0).clone(), resign(&world, &leader));
    assert_eq!(world.apply(&command), Err(Rejected::NoSuccessor { partition: P }));
    let expected = Partition { version: before.version.next(), ..before };
    assert_eq!(*world.record(0), expected);
    let stale = Rejected::StaleVersion { partition: P, current: expected.version };
    assert_eq!(world.apply(&command), Err(stale));
}

#[test]
fn f6_a_revocation_ends_the_epoch_that_it_names_and_no_other() {
    let (mut world, _, _) = partition(3);
    let (version, epoch) = (world.record(0).version, world.record(0).epoch);
    let revoke = |epoch| Command::Revoke { partition: P, version, epoch };
    assert_eq!(world.apply(&revoke(epoch.next())), Err(Rejected::OtherState { partition: P }));
    assert_eq!(world.apply(&revoke(epoch)), Ok(Applied::Changed));
    assert_eq!((&world.record(0).leader, &world.record(0).yielded_by), (&None, &None));
}

/// A proposal of the leader, as it would be accepted.
fn proposal(world: &World, in_sync: &[&NodeId], added: &[&NodeId]) -> InSyncProposal {
    let record = world.record(0);
    let run = |node: &NodeId| world.state.topology.node(node).unwrap().incarnation;
    let leader = record.leader.clone().unwrap();
    InSyncProposal {
        partition: P,
        version: record.version,
        epoch: record.epoch,
        leader_incarnation: run(&leader),
        leader,
        in_sync: in_sync.iter().copied().cloned().collect(),
        added: added.iter().map(|node| ((*node).clone(), run(node))).collect(),
    }
}

/// Four nodes, three copies of one partition: its leader, its followers, and the node without a copy.
fn three_of_four() -> (World, NodeId, [NodeId; 2], NodeId) {
    let world = World::formed(4, 1, 3);
    let record = world.record(0);
    let followers: Vec<_> = record.followers().cloned().collect();
    let other = (1..=4).map(node).find(|node| !record.holds(node)).unwrap();
    let leader = record.leader.clone().unwrap();
    (world, leader, followers.try_into().unwrap(), other)
}

#[test]
fn s4_a_refused_proposal_makes_a_new_version_and_changes_nothing_else() {
    type Change = fn(&mut InSyncProposal, &NodeId, &NodeId);
    let check = |what: &str, change: Change| {
        let (mut world, leader, [a, b], other) = three_of_four();
        world.report(number(&b), Liveness::Dead);
        world.restart(number(&b), 77);
        world.report(number(&b), Liveness::Alive);
        let mut proposal = proposal(&world, &[&leader, &a, &b], &[&b]);
        change(&mut proposal, &b, &other);
        let before = world.record(0).clone();
        let command = Command::SetInSync(proposal);
        let refusal = world.apply(&command).expect_err(what);
        assert!(!matches!(refusal, Rejected::StaleVersion { .. }), "{what}: {refusal}");
        let expected = Partition { version: before.version.next(), ..before };
        assert_eq!(*world.record(0), expected, "{what}");
        let stale = Rejected::StaleVersion { partition: P, current: expected.version };
        assert_eq!(world.apply(&command), Err(stale), "{what}: a copy of it");
    };
    check("of another epoch", |proposal, _, _| proposal.epoch = proposal.epoch.next());
    check("of another leader", |proposal, follower, _| proposal.leader = follower.clone());
    check("of an earlier run of the leader", |proposal, _, _| proposal.leader_incarnation = Incarnation(0));
    check("without its leader", |proposal, _, _| _ = proposal.in_sync.remove(&proposal.leader));
    check("with a node that holds nothing", |proposal, _, other| {
        proposal.in_sync.insert(other.clone());
        proposal.added.insert(other.clone(), Incarnation(1));
    });
    check("with a newcomer that it does not name", |proposal, _, _| proposal.added.clear());
    check("below the minimum", |proposal, _, _| {
        proposal.in_sync = BTreeSet::from([proposal.leader.clone()]);
        proposal.added.clear();
    });
    check("with an earlier run of a newcomer", |proposal, follower, _| {
        proposal.added.insert(follower.clone(), Incarnation(1));
    });
}

#[test]
fn s5_a_member_is_added_only_while_it_lives() {
    let (mut world, leader, [a, b], _) = three_of_four();
    world.report(number(&b), Liveness::Dead);
    let command = Command::SetInSync(proposal(&world, &[&leader, &a, &b], &[&b]));
    assert_eq!(world.apply(&command), Err(Rejected::ProposalRefused { partition: P }));
    world.report(number(&b), Liveness::Alive);
    let command = Command::SetInSync(proposal(&world, &[&leader, &a, &b], &[&b]));
    assert_eq!(world.apply(&command), Ok(Applied::Changed));
}

#[test]
fn s3_a_dead_member_at_the_minimum_is_swapped_in_one_step() {
    let (mut world, leader, [a, b], _) = three_of_four();
    world.report(number(&b), Liveness::Dead);
    world.report(number(&a), Liveness::Dead);
    world.report(number(&b), Liveness::Alive);
    assert_eq!(world.record(0).in_sync, BTreeSet::from([leader.clone(), a]));
    let command = Command::SetInSync(proposal(&world, &[&leader, &b], &[&b]));
    assert_eq!(world.apply(&command), Ok(Applied::Changed));
    assert_eq!(world.record(0).in_sync, BTreeSet::from([leader, b]));
}

#[test]
fn f1_a_fence_takes_leadership_and_membership_in_one_step_and_never_below_the_minimum() {
    let (mut world, leader, [a, b], _) = three_of_four();
    let before = world.record(0).clone();
    world.report(number(&leader), Liveness::Dead);
    let record = world.record(0);
    assert_eq!((&record.leader, record.version), (&None, before.version.next()));
    assert_eq!(record.in_sync, BTreeSet::from([a.clone(), b.clone()]));
    world.report(number(&a), Liveness::Dead);
    assert_eq!(world.record(0).in_sync, BTreeSet::from([a.clone(), b]));
    let refused = Rejected::NotElectable { partition: P, node: a.clone() };
    assert_eq!(world.apply(&elect(&world, &a)), Err(refused), "the set counts on it, and it is dead");
}

#[test]
fn f1_the_last_member_that_surely_has_everything_stays_though_it_is_dead() {
    let (mut world, leader, [a, b], _) = three_of_four();
    world.state.partition_mut(P).tainted.extend([a.clone(), b.clone()]);
    world.report(number(&leader), Liveness::Dead);
    let record = world.record(0);
    assert_eq!((&record.leader, &record.in_sync), (&None, &BTreeSet::from([leader, a, b])));
}

#[test]
fn r1_and_r2_a_restart_makes_a_new_run_that_leads_nothing() {
    let (mut world, leader, _, _) = three_of_four();
    let before = world.record(0).clone();
    world.restart(number(&leader), 77);
    assert_eq!(world.incarnation(number(&leader)), Incarnation(2));
    let expected = Partition { leader: None, version: before.version.next(), ..before.clone() };
    assert_eq!(*world.record(0), expected);
    world.report(number(&leader), Liveness::Alive);
    world.apply(&elect(&world, &leader)).unwrap();
    assert_eq!(world.record(0).epoch, before.epoch.next());
}

#[test]
fn r3_a_node_that_may_have_lost_something_leaves_the_set_or_is_tainted_where_it_is_needed() {
    let (mut world, _, [a, b], _) = three_of_four();
    let returns = |world: &mut World, node: &NodeId| {
        let number = number(node);
        let registration = Registration { damaged: true, boot: BootId(77), ..registration(number, number) };
        world.apply(&Command::RegisterNode { registration, replace: false }).unwrap();
    };
    let uids = world.record(0).replicas.clone();
    returns(&mut world, &a);
    assert!(!world.record(0).in_sync.contains(&a));
    returns(&mut world, &b);
    assert_eq!(world.record(0).tainted, BTreeSet::from([b.clone()]));
    let now = world.record(0).replicas.iter().map(|replica| replica.uid);
    assert!(now.eq(uids.iter().map(|replica| replica.uid)), "what it holds is still the same replica");
    world.report(number(&b), Liveness::Alive);
    let refused = Rejected::NotElectable { partition: P, node: b.clone() };
    let (version, target) = (world.record(0).version, b);
    assert_eq!(world.apply(&Command::BeginTransfer { partition: P, version, target }), Err(refused));
}

#[test]
fn r4_a_taint_is_cleared_by_a_proposal_that_names_the_run_that_caught_up() {
    let (mut world, leader, others) = partition(2);
    let number = number(&others[0]);
    let registration = Registration { damaged: true, boot: BootId(77), ..registration(number, number) };
    world.apply(&Command::RegisterNode { registration, replace: false }).unwrap();
    world.report(number, Liveness::Alive);
    let tainted = BTreeSet::from([others[0].clone()]);
    // A set that merely keeps it clears nothing.
    let keeps = Command::SetInSync(proposal(&world, &[&leader, &others[0]], &[]));
    assert_eq!(world.apply(&keeps), Ok(Applied::Changed));
    assert_eq!(world.record(0).tainted, tainted);
    let mut earlier = proposal(&world, &[&leader, &others[0]], &[&others[0]]);
    earlier.added.insert(others[0].clone(), Incarnation(1));
    let stale = Rejected::StaleIncarnation { node: others[0].clone(), current: Incarnation(2) };
    assert_eq!(world.apply(&Command::SetInSync(earlier)), Err(stale));
    assert_eq!(world.record(0).tainted, tainted);
    let clears = Command::SetInSync(proposal(&world, &[&leader, &others[0]], &[&others[0]]));
    assert_eq!(world.apply(&clears), Ok(Applied::Changed));
    assert_eq!(world.record(0).tainted, BTreeSet::new());
}

#[test]
fn f2_a_taint_is_a_compare_and_set_of_one_run() {
    let (mut world, leader, [a, b], other) = three_of_four();
    let taint = |world: &World, node: &NodeId, run| {
        let (version, node, incarnation) = (world.record(0).version, node.clone(), Incarnation(run));
        Command::Taint { partition: P, version, node, incarnation }
    };
    let stale = Rejected::StaleIncarnation { node: a.clone(), current: Incarnation(1) };
    assert_eq!(world.apply(&taint(&world, &a, 2)), Err(stale));
    let other_state = Err(Rejected::OtherState { partition: P });
    assert_eq!(world.apply(&taint(&world, &leader, 1)), other_state, "who leads gives up by itself");
    assert_eq!(world.apply(&taint(&world, &other, 1)), other_state);
    let first = taint(&world, &a, 1);
    assert_eq!(world.apply(&first), Ok(Applied::Changed));
    assert_eq!(world.record(0).in_sync, BTreeSet::from([leader.clone(), b.clone()]));
    let stale = Rejected::StaleVersion { partition: P, current: world.record(0).version };
    assert_eq!(world.apply(&first), Err(stale));
    let lapses = world.record(0).replica(&b).unwrap().lapses;
    assert_eq!(world.apply(&taint(&world, &b, 1)), Ok(Applied::Changed));
    assert_eq!(world.record(0).in_sync, BTreeSet::from([leader, b.clone()]), "the minimum needs it");
    assert_eq!(world.record(0).tainted, BTreeSet::from([b.clone()]));
    assert_eq!(world.record(0).replica(&b).unwrap().lapses, lapses + 1, "it has to catch up once more");
    assert_eq!(world.apply(&taint(&world, &b, 1)), Ok(Applied::Unchanged));
}

#[test]
fn d2_a_damaged_replica_begins_anew_whoever_finds_it() {
    let renew = |world: &World, node: &NodeId| {
        let (version, node) = (world.record(0).version, node.clone());
        let incarnation = world.state.topology.node(&node).unwrap().incarnation;
        Command::RenewReplica { partition: P, version, node, incarnation }
    };
    let (mut world, leader, [a, b], other) = three_of_four();
    let uid = |world: &World, node: &NodeId| world.record(0).replica(node).unwrap().uid;
    let newest = |world: &World| world.record(0).replicas.iter().map(|replica| replica.uid).max().unwrap();
    assert_eq!(world.apply(&renew(&world, &other)), Err(Rejected::OtherState { partition: P }));
    // A follower that the set can do without.
    let (before, command) = (newest(&world), renew(&world, &a));
    assert_eq!(world.apply(&command), Ok(Applied::Changed));
    assert!(uid(&world, &a) > before && !world.record(0).in_sync.contains(&a));
    let stale = Rejected::StaleVersion { partition: P, current: world.record(0).version };
    assert_eq!(world.apply(&command), Err(stale), "one damage, one new replica");
    // The leader, that the set needs.
    let (before, epoch) = (newest(&world), world.record(0).epoch);
    assert_eq!(world.apply(&renew(&world, &leader)), Ok(Applied::Changed));
    let record = world.record(0);
    assert!(uid(&world, &leader) > before);
    assert_eq!((&record.leader, record.epoch, &record.yielded_by), (&None, epoch, &None));
    assert_eq!(record.in_sync, BTreeSet::from([leader.clone(), b]));
    assert_eq!(record.tainted, BTreeSet::from([leader.clone()]));
    let refused = Rejected::NotElectable { partition: P, node: leader.clone() };
    assert_eq!(world.apply(&elect(&world, &leader)), Err(refused));
}

#[test]
fn d2_a_registration_names_the_replicas_that_are_damaged() {
    let mut world = World::formed(3, 2, 3);
    let other = world.record(1).clone();
    let uid = world.record(0).replica(&node(2)).unwrap().uid;
    let registers = |world: &mut World, boot, replicas_damaged| {
        let registration = Registration { replicas_damaged, boot: BootId(boot), ..registration(2, 2) };
        world.apply(&Command::RegisterNode { registration, replace: false })
    };
    registers(&mut world, 77, BTreeMap::from([(P, uid)])).unwrap();
    assert!(!world.record(0).in_sync.contains(&node(2)));
    let now = world.record(0).replica(&node(2)).unwrap().uid;
    assert!(now > uid);
    assert_eq!(world.record(1).in_sync, other.in_sync, "what else it holds is whole");
    // It says so of the one that it does not hold any more: nothing is wrong with the new one.
    registers(&mut world, 78, BTreeMap::from([(P, uid), (PartitionId(9), uid)])).unwrap();
    assert_eq!(world.record(0).replica(&node(2)).unwrap().uid, now);
    let many = (0..2_000).map(|number| (PartitionId(number), uid)).collect();
    let invalid = Rejected::Invalid { reason: InvalidReason::TooManyDamaged };
    assert_eq!(registers(&mut world, 79, many), Err(invalid));
}

/// Brings a copy that the leader asked for into the set.
fn extend(world: &mut World, node: &NodeId) {
    let in_sync: Vec<_> = world.record(0).in_sync.iter().cloned().chain([node.clone()]).collect();
    let command = Command::SetInSync(proposal(world, &in_sync.iter().collect::<Vec<_>>(), &[node]));
    assert_eq!(world.apply(&command), Ok(Applied::Changed));
}

fn start_move(world: &mut World, source: Option<&NodeId>, target: &NodeId) {
    let version = world.record(0).version;
    let movement = crate::topology::Move { source: source.cloned(), target: target.clone() };
    world.apply(&Command::StartMove { partition: P, version, movement }).unwrap();
}

#[test]
fn m1_a_copy_that_comes_is_a_learner_under_a_new_uid() {
    let (mut world, _, [a, _], other) = three_of_four();
    let newest = world.record(0).replicas.iter().map(|replica| replica.uid).max().unwrap();
    start_move(&mut world, Some(&a), &other);
    let record = world.record(0);
    assert!(record.replica(&other).unwrap().uid > newest);
    assert!(!record.in_sync.contains(&other));
}

#[test]
fn m5_a_source_goes_only_where_enough_stay_in_sync() {
    let (mut world, leader, [a, b], other) = three_of_four();
    let finish = |world: &World| Command::FinishMove { partition: P, version: world.record(0).version };
    start_move(&mut world, Some(&a), &other);
    assert_eq!(world.apply(&finish(&world)), Err(Rejected::OtherState { partition: P }));
    world.report(number(&b), Liveness::Dead);
    extend(&mut world, &other);
    world.report(number(&other), Liveness::Dead);
    assert_eq!(world.record(0).in_sync, BTreeSet::from([leader.clone(), a.clone()]));
    assert_eq!(world.apply(&finish(&world)), Err(Rejected::OtherState { partition: P }));
    world.report(number(&other), Liveness::Alive);
    extend(&mut world, &other);
    assert_eq!(world.apply(&finish(&world)), Ok(Applied::Changed));
    assert_eq!(world.record(0).in_sync, BTreeSet::from([leader, other]));
    assert!(!world.record(0).holds(&a));
}

/// The minimum follows the number of copies that there shall be, not the number that there are.
#[test]
fn m5_dropping_copies_that_are_wanted_does_not_lower_the_minimum() {
    let mut world = World::formed(4, 1, 4);
    assert_eq!(world.record(0).min_in_sync, 3);
    let drop = |world: &World| {
        let (version, node) = (world.record(0).version, world.record(0).followers().last().unwrap().clone());
        Command::DropReplica { partition: P, version, node }
    };
    assert_eq!(world.apply(&drop(&world)), Ok(Applied::Changed));
    let below = Rejected::BelowMinInSync { partition: P, min_in_sync: 3 };
    assert_eq!(world.apply(&drop(&world)), Err(below));
    world.apply(&Command::SetReplicationFactor { replication_factor: 2 }).unwrap();
    assert_eq!(world.apply(&drop(&world)), Ok(Applied::Changed));
    assert_eq!((world.record(0).min_in_sync, world.record(0).in_sync.len()), (2, 2));
}

/// Otherwise the source of a single copy's move could never go.
#[test]
fn m5_the_source_of_a_move_does_not_raise_the_minimum() {
    let mut world = World::formed(1, 1, 3);
    world.join(2);
    start_move(&mut world, Some(&node(1)), &node(2));
    extend(&mut world, &node(2));
    assert_eq!(world.record(0).min_in_sync, 1);
    begin_transfer(&mut world, &node(2));
    world.apply(&handoff(&world, &node(1))).unwrap();
    let finish = Command::FinishMove { partition: P, version: world.record(0).version };
    assert_eq!(world.apply(&finish), Ok(Applied::Changed));
    assert_eq!(world.record(0).in_sync, BTreeSet::from([node(2)]));
}

#[test]
fn m4_a_handover_to_a_replica_that_is_not_whole_any_more_is_called_off() {
    type Doubt = fn(PartitionVersion, NodeId) -> Command;
    let check = |doubt: Doubt| {
        let (mut world, leader, others) = partition(3);
        begin_transfer(&mut world, &others[0]);
        let command = doubt(world.record(0).version, others[0].clone());
        assert_eq!(world.apply(&command), Ok(Applied::Changed));
        let record = world.record(0);
        assert_eq!((&record.transfer, &record.leader), (&None, &Some(leader)), "{command:?}");
    };
    check(|version, node| Command::Taint { partition: P, version, node, incarnation: Incarnation(1) });
    check(|version, node| Command::RenewReplica { partition: P, version, node, incarnation: Incarnation(1) });
}
