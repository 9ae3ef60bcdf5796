//! Elections, and who is asked before them, as the controller carries them out.

use super::hooks::{actions, apply_all, controller, elections, leaderless, position, report};
use super::*;
use crate::handoff::{Fact, Position};
use crate::id::Epoch;
use crate::time::Instant;
use crate::topology::Origin;
use core::time::Duration;

const P: PartitionId = PartitionId(0);

/// What is asked of each node just now.
fn asked(controller: &mut Controller) -> BTreeMap<NodeId, BTreeMap<PartitionId, PartitionVersion>> {
    let questions = actions(controller).into_iter().filter_map(|action| match action {
        Action::AskPositions { node, partitions } => Some((node, partitions)),
        _ => None,
    });
    questions.collect()
}

fn damaged(last_epoch: u64, log_end: u64) -> Position {
    Position { damaged: true, ..position(last_epoch, log_end) }
}

/// A controller whose questions are out, and the version that they name.
fn asking(world: &World) -> (Controller, PartitionVersion) {
    let mut controller = controller(world);
    let asked = asked(&mut controller);
    let version = world.record(0).version;
    assert!(asked.values().all(|partitions| partitions.get(&P) == Some(&version)), "{asked:?}");
    (controller, version)
}

/// The run `incarnation` of a node says what it has.
fn say(
    controller: &mut Controller,
    (number, incarnation): (u64, Incarnation),
    version: PartitionVersion,
    position: Option<Position>,
) {
    let asked = BTreeMap::from([(P, version)]);
    let positions = BTreeMap::from([(P, position)]);
    let of_run = (&node(number), incarnation);
    controller.handle_positions(Instant::ORIGIN, of_run, &asked, &positions);
}

fn proposed(controller: &mut Controller) -> Vec<Command> {
    let proposals = actions(controller).into_iter().filter_map(|action| match action {
        Action::Propose { commands, .. } => Some(commands),
        _ => None,
    });
    proposals.flatten().collect()
}

#[test]
fn f2_an_only_candidate_is_asked_as_well() {
    let mut world = leaderless();
    world.report(3, Liveness::Dead);
    world.report(2, Liveness::Dead);
    let (mut controller, version) = asking(&world);
    say(&mut controller, (1, world.incarnation(1)), version, Some(damaged(1, 9)));
    assert!(matches!(proposed(&mut controller)[..], [Command::Taint { .. }]), "who is damaged does not lead");
}

#[test]
fn f2_a_status_counts_for_the_run_that_gave_it() {
    let mut world = leaderless();
    let (mut controller, version) = asking(&world);
    let earlier = Incarnation(world.incarnation(2).0 - 1);
    say(&mut controller, (2, earlier), version, Some(position(9, 9)));
    say(&mut controller, (1, world.incarnation(1)), version, Some(position(1, 5)));
    say(&mut controller, (3, world.incarnation(3)), version, Some(position(1, 6)));
    assert_eq!(proposed(&mut controller), [], "the run that was asked has not answered");
    // It answers, and restarts before anybody is elected: the one that runs now is asked anew.
    let registration = Registration { boot: BootId(555), reports_position: true, ..registration(2, 2) };
    world.apply(&Command::RegisterNode { registration, replace: false }).unwrap();
    world.report(2, Liveness::Alive);
    controller.handle_state(Instant::ORIGIN, world.state.clone());
    assert_eq!(asked(&mut controller).len(), 3);
    say(&mut controller, (2, Incarnation(earlier.0 + 1)), version, Some(position(9, 9)));
    assert_eq!(proposed(&mut controller), []);
    for (number, log_end) in [(1, 5), (2, 4), (3, 6)] {
        say(&mut controller, (number, world.incarnation(number)), version, Some(position(1, log_end)));
    }
    assert_eq!(elections_of(&mut controller), [node(3)]);
}

fn elections_of(controller: &mut Controller) -> Vec<NodeId> {
    elections(actions(controller))
}

#[test]
fn f2_a_status_counts_for_the_epoch_that_it_was_asked_in() {
    let mut world = leaderless();
    let (mut controller, version) = asking(&world);
    // Another controller elects somebody, who yields again.
    let elect = Command::Elect { partition: P, version, leader: node(1), by_position: false };
    world.apply(&elect).unwrap();
    let (version_then, epoch) = (world.record(0).version, world.record(0).epoch);
    let resign = Command::Resign { partition: P, version: version_then, epoch, node: node(1) };
    world.apply(&resign).unwrap();
    controller.handle_state(Instant::ORIGIN, world.state.clone());
    assert_eq!(asked(&mut controller).len(), 3);
    for number in 1..=3 {
        say(&mut controller, (number, world.incarnation(number)), version, Some(position(1, number)));
    }
    assert_eq!(proposed(&mut controller), []);
    for number in 1..=3 {
        let version = world.record(0).version;
        say(&mut controller, (number, world.incarnation(number)), version, Some(position(2, 9 - number)));
    }
    assert_eq!(elections_of(&mut controller), [node(1)]);
}

#[test]
fn f2_a_controller_that_takes_over_asks_anew() {
    let world = leaderless();
    let (mut controller, version) = asking(&world);
    say(&mut controller, (1, world.incarnation(1)), version, Some(position(1, 5)));
    let (mut next, _) = asking(&world);
    for number in [2, 3] {
        say(&mut next, (number, world.incarnation(number)), version, Some(position(1, 4)));
    }
    assert_eq!(proposed(&mut next), []);
}

#[test]
fn f2_a_member_that_says_that_it_is_damaged_is_tainted_and_not_elected() {
    let mut world = leaderless();
    let (mut controller, version) = asking(&world);
    for (number, status) in [(1, damaged(9, 9)), (2, damaged(8, 8)), (3, position(1, 1))] {
        say(&mut controller, (number, world.incarnation(number)), version, Some(status));
    }
    apply_all(&mut world, &mut controller, Instant::ORIGIN);
    let record = world.record(0);
    assert_eq!(record.leader, Some(node(3)));
    assert_eq!(record.in_sync, BTreeSet::from([node(1), node(3)]), "the one that had less left");
    assert_eq!(record.tainted, BTreeSet::from([node(1)]), "the set needs two");
    assert_eq!((record.origin, record.unclean), (Origin::Position, None));
}

/// Nobody is whole: what is there is better than nothing, and everybody is told.
#[test]
fn f5_members_that_all_say_that_they_are_damaged_are_one_elected_uncleanly() {
    let mut world = leaderless();
    let before = world.state.topology.clone();
    let (mut controller, version) = asking(&world);
    for (number, status) in [(1, damaged(1, 5)), (2, damaged(1, 7)), (3, damaged(1, 6))] {
        say(&mut controller, (number, world.incarnation(number)), version, Some(status));
    }
    apply_all(&mut world, &mut controller, Instant::ORIGIN);
    let record = world.record(0);
    assert_eq!((&record.leader, record.unclean), (&Some(node(2)), Some(record.epoch)));
    let events = world.state.topology.events_since(&before);
    assert!(events.iter().any(|event| event.kind() == "data_loss_possible"), "{events:?}");
}

/// Both members of the set are tainted, and nobody leads.
fn all_tainted() -> World {
    let mut world = leaderless();
    for number in 1..=3 {
        let (version, incarnation) = (world.record(0).version, world.incarnation(number));
        let node = node(number);
        world.apply(&Command::Taint { partition: P, version, node, incarnation }).unwrap();
    }
    assert_eq!(world.record(0).tainted, BTreeSet::from([node(2), node(3)]));
    world
}

#[test]
fn f5_an_unclean_election_waits_until_every_member_is_back_and_has_said_what_it_has() {
    let mut world = all_tainted();
    world.report(3, Liveness::Dead);
    let mut controller = controller(&world);
    assert_eq!(asked(&mut controller).len(), 0, "it may have more than the other");
    world.report(3, Liveness::Alive);
    controller.handle_state(Instant::ORIGIN, world.state.clone());
    assert_eq!(asked(&mut controller).keys().cloned().collect::<Vec<_>>(), [node(2), node(3)]);
    let version = world.record(0).version;
    say(&mut controller, (2, world.incarnation(2)), version, Some(position(1, 9)));
    assert_eq!(proposed(&mut controller), []);
    let mut now = Instant::ORIGIN;
    let mut asked_again = BTreeMap::new();
    while asked_again.is_empty() && now < Instant::at(Duration::from_secs(10)) {
        now = controller.poll_timeout(now).expect("the question is not forgotten");
        [2, 3].iter().for_each(|other| {
            controller.handle_heartbeat(now, &node(*other), world.incarnation(*other));
        });
        controller.handle_timeout(now);
        while let Some(action) = controller.poll_action() {
            match action {
                Action::AskPositions { node, partitions } => _ = asked_again.insert(node, partitions),
                Action::Propose { token, commands } => {
                    commands.iter().for_each(|command| _ = world.apply(command).unwrap());
                    controller.handle_proposed(now, token, world.state.clone());
                }
                Action::Probe { .. } => {}
            }
        }
        assert_eq!(world.record(0).leader, None);
    }
    assert_eq!(asked_again.len(), 2);
    say(&mut controller, (3, world.incarnation(3)), version, Some(position(2, 1)));
    say(&mut controller, (2, world.incarnation(2)), version, Some(position(1, 9)));
    apply_all(&mut world, &mut controller, now);
    assert_eq!(world.record(0).leader, Some(node(3)));
}

#[test]
fn f5_a_member_that_has_nothing_has_the_least() {
    let mut world = all_tainted();
    let (mut controller, version) = asking(&world);
    say(&mut controller, (2, world.incarnation(2)), version, None);
    say(&mut controller, (3, world.incarnation(3)), version, Some(position(0, 0)));
    apply_all(&mut world, &mut controller, Instant::ORIGIN);
    assert_eq!(world.record(0).leader, Some(node(3)));
}

fn unclean(world: &World, leader: u64, statuses: &[(u64, u64, Position)]) -> Command {
    let status = |incarnation, position| MemberStatus {
        incarnation: Incarnation(incarnation),
        position: Some(position),
    };
    let statuses = statuses.iter().map(|(number, run, position)| (node(*number), status(*run, *position)));
    let (version, leader) = (world.record(0).version, node(leader));
    Command::ElectUnclean { partition: P, version, leader, statuses: statuses.collect() }
}

#[test]
fn f5_what_an_unclean_election_needs_is_checked_as_it_is_applied() {
    let mut world = all_tainted();
    let (short, long) = (position(1, 5), position(1, 7));
    let other_state = Err(Rejected::OtherState { partition: P });
    let refuses = |world: &mut World, command: Command, refusal| {
        let before = world.state.clone();
        assert_eq!(world.apply(&command), refusal, "{command:?}");
        assert_eq!(world.state, before);
    };
    let complete = unclean(&world, 3, &[(2, 2, short), (3, 2, long)]);
    refuses(&mut world, unclean(&all_tainted(), 3, &[(3, 2, long)]), other_state.clone());
    let not_the_most = Err(Rejected::NotElectable { partition: P, node: node(2) });
    refuses(&mut world, unclean(&all_tainted(), 2, &[(2, 2, short), (3, 2, long)]), not_the_most);
    let stale = Err(Rejected::StaleIncarnation { node: node(2), current: Incarnation(2) });
    refuses(&mut world, unclean(&all_tainted(), 3, &[(2, 1, short), (3, 2, long)]), stale);
    world.report(2, Liveness::Dead);
    refuses(&mut world, complete.clone(), other_state.clone());
    world.report(2, Liveness::Alive);
    assert_eq!(world.apply(&complete), Ok(Applied::Changed));
    assert_eq!((&world.record(0).leader, world.record(0).origin), (&Some(node(3)), Origin::Unclean));
    let untainted = unclean(&leaderless(), 3, &[(1, 2, short), (2, 2, short), (3, 2, long)]);
    refuses(&mut leaderless(), untainted, other_state);
}

#[test]
fn f6_a_leader_that_stalls_is_relieved_where_another_can_lead() {
    let mut world = World::formed(3, 1, 3);
    let (leader, epoch) = (world.record(0).leader.clone().unwrap(), world.record(0).epoch);
    let number = leader.as_str()[1..].parse().unwrap();
    let mut controller = controller(&world);
    drop(actions(&mut controller));
    let stalled = report(&world, number, Fact::Stalled { epoch });
    controller.handle_report(Instant::ORIGIN, report(&world, number, Fact::Stalled { epoch: Epoch(0) }));
    assert_eq!(proposed(&mut controller), [], "it is of an earlier epoch");
    controller.handle_report(Instant::ORIGIN, stalled);
    apply_all(&mut world, &mut controller, Instant::ORIGIN);
    let record = world.record(0);
    assert!(record.leader.as_ref().is_some_and(|now| *now != leader), "{record:?}");
    assert_eq!((record.epoch, &record.yielded_by), (epoch.next(), &None));
}

#[test]
fn f6_a_leader_that_stalls_leads_on_where_nobody_else_can() {
    let mut world = World::formed(2, 1, 2);
    let before = world.record(0).clone();
    let leader: u64 = before.leader.as_ref().unwrap().as_str()[1..].parse().unwrap();
    world.report(3 - leader, Liveness::Dead);
    let before = Partition { version: world.record(0).version, ..before };
    let mut controller = controller(&world);
    drop(actions(&mut controller));
    let stalled = report(&world, leader, Fact::Stalled { epoch: before.epoch });
    controller.handle_report(Instant::ORIGIN, stalled);
    apply_all(&mut world, &mut controller, Instant::ORIGIN);
    assert_eq!(*world.record(0), before);
}

/// Says, for as long as it leads and stalls, so every 200 ms; gives when it was relieved.
fn relieved_after(world: &mut World, controller: &mut Controller, now: &mut Instant) -> Duration {
    let (begin, epoch) = (*now, world.record(0).epoch);
    let number = world.record(0).leader.as_ref().unwrap().as_str()[1..].parse().unwrap();
    while world.record(0).epoch == epoch {
        assert!(now.since(begin) < Duration::from_secs(90), "it is never relieved");
        for other in 1..=3 {
            controller.handle_heartbeat(*now, &node(other), Incarnation(1));
        }
        controller.handle_report(*now, report(world, number, Fact::Stalled { epoch }));
        controller.handle_timeout(*now);
        apply_all(world, controller, *now);
        *now = *now + Duration::from_millis(200);
    }
    now.since(begin)
}

#[test]
fn f6_leaders_of_a_partition_are_relieved_ever_more_rarely_while_all_of_them_stall() {
    let mut world = World::formed(3, 1, 3);
    let (mut controller, mut now) = (controller(&world), Instant::ORIGIN);
    let mut waits = Vec::new();
    for _ in 0..7 {
        waits.push(relieved_after(&mut world, &mut controller, &mut now).as_secs());
    }
    assert_eq!(waits, [0, 2, 4, 8, 16, 32, 60]);
}

#[test]
fn f6b_who_stopped_leads_again_only_where_nobody_else_can() {
    let mut world = World::formed(2, 1, 2);
    let leader = world.record(0).leader.clone().unwrap();
    let other: u64 = 3 - leader.as_str()[1..].parse::<u64>().unwrap();
    let mut controller = controller(&world);
    drop(actions(&mut controller));
    let (partition, version, epoch) = (P, world.record(0).version, world.record(0).epoch);
    controller.handle_resigned(Instant::ORIGIN, partition, epoch, &leader);
    world.apply(&Command::Resign { partition, version, epoch, node: leader.clone() }).unwrap();
    let mut without_other = world.state.clone();
    let change = LivenessChange { node: node(other), incarnation: Incarnation(1), liveness: Liveness::Dead };
    without_other.apply(&Command::SetLiveness { changes: vec![change] }).unwrap();
    controller.handle_state(Instant::ORIGIN, world.state.clone());
    assert_eq!(elections_of(&mut controller), [node(other)]);
    let facts = Facts { relieved: BTreeMap::from([(P, leader.clone())]), ..Facts::default() };
    let commands = reconcile(&without_other, &facts, Limits::default());
    assert!(matches!(&commands[..], [Command::Elect { leader: elected, .. }] if *elected == leader));
}

#[test]
fn f2_a_status_counts_for_the_placement_that_was_asked() {
    let mut world = leaderless();
    let (mut controller, version) = asking(&world);
    let incarnation = world.incarnation(2);
    world.apply(&Command::RenewReplica { partition: P, version, node: node(2), incarnation }).unwrap();
    assert!(!world.record(0).in_sync.contains(&node(2)));
    let (version, leaving) = (world.record(0).version, world.incarnation(3));
    controller.handle_state(Instant::ORIGIN, world.state.clone());
    drop(asked(&mut controller));
    let renewed = Command::RenewReplica { partition: P, version, node: node(3), incarnation: leaving };
    world.apply(&renewed).unwrap();
    assert_eq!(world.record(0).tainted, BTreeSet::from([node(3)]));
    let version = world.record(0).version;
    world.apply(&Command::Taint { partition: P, version, node: node(1), incarnation }).unwrap();
    // All are tainted, and asked. Then one of them begins anew once more: what it had is gone.
    controller.handle_state(Instant::ORIGIN, world.state.clone());
    assert_eq!(asked(&mut controller).len(), 2);
    let before = world.record(0).version;
    let again = Command::RenewReplica { partition: P, version: before, node: node(3), incarnation: leaving };
    world.apply(&again).unwrap();
    controller.handle_state(Instant::ORIGIN, world.state.clone());
    assert_eq!(asked(&mut controller).len(), 2, "both are asked anew");
    say(&mut controller, (3, leaving), before, Some(position(9, 9)));
    say(&mut controller, (1, world.incarnation(1)), before, Some(position(1, 1)));
    assert_eq!(proposed(&mut controller), []);
}

#[test]
fn d2_a_running_node_says_which_of_its_replicas_is_damaged() {
    let mut world = World::formed(3, 1, 3);
    let leader: u64 = world.record(0).leader.as_ref().unwrap().as_str()[1..].parse().unwrap();
    let uid = world.record(0).replica(&node(leader)).unwrap().uid;
    let mut controller = controller(&world);
    drop(actions(&mut controller));
    let damaged = report(&world, leader, Fact::Damaged { uid });
    controller.handle_report(Instant::ORIGIN, damaged.clone());
    apply_all(&mut world, &mut controller, Instant::ORIGIN);
    let record = world.record(0).clone();
    assert!(record.replica(&node(leader)).unwrap().uid > uid);
    assert!(!record.in_sync.contains(&node(leader)));
    assert!(record.leader.as_ref().is_some_and(|now| *now != node(leader)), "another leads at once");
    // It says so until it knows that it was heard: that is not said of the new one.
    controller.handle_report(Instant::ORIGIN, damaged);
    apply_all(&mut world, &mut controller, Instant::ORIGIN);
    assert_eq!(*world.record(0), record);
}
