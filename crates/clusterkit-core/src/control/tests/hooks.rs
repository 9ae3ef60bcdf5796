//! What user code says of its replicas, and what the controller makes of it.

use super::*;
use crate::handoff::{Fact, Position, Report, Stage};
use crate::id::Epoch;
use crate::time::Instant;
use crate::topology::{Move, Origin, Overrun};
use core::time::Duration;

const P: PartitionId = PartitionId(0);

fn leader(world: &World) -> u64 {
    number(world.record(0).leader.as_ref().unwrap())
}

fn number(node: &NodeId) -> u64 {
    node.as_str().trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

/// Partition 0 on nodes of which one has no copy, and a move of a follower's copy to that one.
fn moving() -> (World, u64, u64) {
    let mut world = World::formed(3, 1, 2);
    let source = number(world.record(0).followers().next().unwrap());
    let target = (1..=3).find(|number| !world.record(0).holds(&node(*number))).unwrap();
    let movement = Move { source: Some(node(source)), target: node(target) };
    let version = world.record(0).version;
    world.apply(&Command::StartMove { partition: P, version, movement }).unwrap();
    (world, source, target)
}

fn declined(world: &World, number: u64, stage: Stage) -> Declined {
    let record = world.record(0);
    Declined { partition: P, node: node(number), stage, epoch: record.epoch, version: record.version }
}

/// What the controller wants, of what concerns partition 0.
fn wanted(world: &World, facts: &Facts) -> Vec<Command> {
    reconcile(&world.state, facts, Limits::default())
}

fn quiet() -> Facts {
    Facts::default()
}

#[test]
fn a_source_stays_until_the_leader_says_that_it_serves() {
    let (mut world, _, target) = moving();
    let (version, epoch) = (world.record(0).version, world.record(0).epoch);
    let leader = world.record(0).leader.clone().unwrap();
    let in_sync = world.record(0).replicas.iter().map(|replica| replica.node.clone()).collect();
    let added = BTreeMap::from([(node(target), Incarnation(1))]);
    let leader_incarnation = Incarnation(1);
    let proposal =
        InSyncProposal { partition: P, version, epoch, leader, leader_incarnation, in_sync, added };
    world.apply(&Command::SetInSync(proposal)).unwrap();
    assert_eq!(wanted(&world, &quiet()), []);
    let earlier = Facts { activated: BTreeMap::from([(P, Epoch(epoch.0 - 1))]), ..quiet() };
    assert_eq!(wanted(&world, &earlier), []);
    let serves = Facts { activated: BTreeMap::from([(P, epoch)]), ..quiet() };
    assert!(matches!(wanted(&world, &serves)[..], [Command::FinishMove { partition: P, .. }]));
}

#[test]
fn a_surplus_copy_stays_until_the_leader_says_that_it_serves() {
    let mut world = World::formed(3, 1, 3);
    let (lead, epoch) = (leader(&world), world.record(0).epoch);
    let leaving = number(world.record(0).followers().next().unwrap());
    world.apply(&Command::Drain { node: node(leaving) }).unwrap();
    let serves = |epoch: Epoch| Facts { activated: BTreeMap::from([(P, epoch)]), ..quiet() };
    assert_eq!(wanted(&world, &quiet()), []);
    assert_eq!(wanted(&world, &serves(Epoch(epoch.0 - 1))), []);
    let drops = |commands: &[Command]| {
        commands.iter().any(|command| matches!(command, Command::DropReplica { partition: P, .. }))
    };
    assert!(drops(&wanted(&world, &serves(epoch))));
    // Nor does it go while nobody leads, or in the round in which another begins to.
    let version = world.record(0).version;
    world.apply(&Command::Resign { partition: P, version, epoch, node: node(lead) }).unwrap();
    assert!(!drops(&wanted(&world, &serves(epoch))));
}

#[test]
fn copies_that_must_stay_do_not_keep_others_from_going() {
    let mut world = World::formed(3, 2, 3);
    let leaving = (1..=3).find(|n| (0..2).all(|p| world.record(p).leader != Some(node(*n)))).unwrap();
    world.apply(&Command::Drain { node: node(leaving) }).unwrap();
    let facts = Facts { activated: BTreeMap::from([(PartitionId(1), world.record(1).epoch)]), ..quiet() };
    let limits = Limits { moves_max: 1, ..Limits::default() };
    let commands = reconcile(&world.state, &facts, limits);
    let goes = |command: &Command| matches!(command, Command::DropReplica { partition: PartitionId(1), .. });
    assert!(matches!(&commands[..], [command] if goes(command)), "{commands:?}");
}

#[test]
fn a_leader_that_serves_is_heard_while_there_are_copies_to_be_dropped() {
    let mut world = World::formed(3, 1, 3);
    let (lead, epoch) = (leader(&world), world.record(0).epoch);
    let leaving = number(world.record(0).followers().next().unwrap());
    let mut controller = controller(&world);
    drop(actions(&mut controller));
    let serves = report(&world, lead, Fact::Activated { epoch });
    controller.handle_report(Instant::ORIGIN, serves.clone());
    world.apply(&Command::Drain { node: node(leaving) }).unwrap();
    controller.handle_state(Instant::ORIGIN, world.state.clone());
    apply_all(&mut world, &mut controller, Instant::ORIGIN);
    assert!(world.record(0).holds(&node(leaving)), "what was said before it was asked for was not kept");
    controller.handle_report(Instant::ORIGIN, serves);
    apply_all(&mut world, &mut controller, Instant::ORIGIN);
    assert!(!world.record(0).holds(&node(leaving)));
}

#[test]
fn a_copy_that_is_declined_is_taken_back_and_not_asked_for_again_at_once() {
    for stage in [Stage::Prepare, Stage::CatchUp] {
        let (mut world, _, target) = moving();
        let facts = Facts { declined: vec![declined(&world, target, stage)], ..quiet() };
        let commands = wanted(&world, &facts);
        assert!(matches!(commands[..], [Command::AbortMove { .. }]), "{commands:?}");
        world.apply(&commands[0]).unwrap();
        assert!(!world.record(0).holds(&node(target)));
    }
}

#[test]
fn a_target_that_declined_lately_gets_no_copy() {
    let mut world = World::formed(3, 1, 3);
    let gone = (1..=3).find(|number| *number != leader(&world)).unwrap();
    world.apply(&Command::SetReplicationFactor { replication_factor: 2 }).unwrap();
    let version = world.record(0).version;
    world.apply(&Command::DropReplica { partition: P, version, node: node(gone) }).unwrap();
    world.apply(&Command::SetReplicationFactor { replication_factor: 3 }).unwrap();
    let comes = |facts: &Facts| {
        wanted(&world, facts).iter().any(|command| matches!(command, Command::StartMove { .. }))
    };
    assert!(comes(&quiet()));
    assert!(!comes(&Facts { targets_avoided: BTreeSet::from([(P, node(gone))]), ..quiet() }));
}

#[test]
fn a_node_that_refuses_copies_does_not_keep_others_from_getting_them() {
    let mut world = World::formed(5, 16, 3);
    world.report(5, Liveness::Dead);
    let limits = Limits { moves_max: 1, ..Limits::default() };
    let refused: BTreeSet<_> = (0..16).map(|p| (PartitionId(p), node(4))).collect();
    let held = |world: &World| (0..16).filter(|p| world.record(*p).holds(&node(4))).count();
    let held_before = held(&world);
    for _ in 0..400 {
        let (gone, targets_avoided) = (BTreeSet::from([node(5)]), refused.clone());
        let facts = Facts { gone, targets_avoided, ..Facts::all_done(&world.state) };
        for command in reconcile(&world.state, &facts, limits) {
            world.apply(&command).unwrap();
        }
    }
    for p in 0..16 {
        assert_eq!((world.record(p).in_sync.len(), world.record(p).holds(&node(5))), (3, false), "p{p}");
    }
    assert_eq!(held(&world), held_before);
}

#[test]
fn a_handover_that_is_declined_is_called_off_and_not_begun_again_at_once() {
    let mut world = World::formed(3, 1, 3);
    let from = leader(&world);
    world.apply(&Command::Drain { node: node(from) }).unwrap();
    let begun = wanted(&world, &quiet());
    assert!(matches!(begun[..], [Command::BeginTransfer { .. }]), "{begun:?}");
    assert_eq!(wanted(&world, &Facts { handovers_avoided: BTreeSet::from([P]), ..quiet() }), []);
    world.apply(&begun[0]).unwrap();
    let held = BTreeSet::from([P]);
    let facts =
        Facts { declined: vec![declined(&world, from, Stage::Seal)], handovers_avoided: held, ..quiet() };
    assert!(matches!(wanted(&world, &facts)[..], [Command::CancelTransfer { .. }]));
    // A refusal of an earlier handover says nothing of this one.
    let mut stale = declined(&world, from, Stage::Seal);
    stale.version = PartitionVersion(stale.version.0 - 1);
    assert_eq!(wanted(&world, &Facts { declined: vec![stale], ..quiet() }), []);
}

#[test]
fn a_leader_that_does_not_activate_gives_up_and_another_leads() {
    let mut world = World::formed(3, 1, 3);
    let from = leader(&world);
    let epoch = world.record(0).epoch;
    let avoided = BTreeSet::from([(P, node(from))]);
    let facts = Facts {
        declined: vec![declined(&world, from, Stage::Activate)],
        leaders_avoided: avoided,
        ..quiet()
    };
    for command in wanted(&world, &facts) {
        world.apply(&command).unwrap();
    }
    assert_ne!(leader(&world), from);
    assert_eq!(world.record(0).epoch, epoch.next());
    assert_eq!(world.record(0).origin, Origin::Membership);
}

#[test]
fn the_only_candidate_leads_again_once_its_pause_is_over() {
    let mut world = World::formed(1, 1, 1);
    let (version, epoch) = (world.record(0).version, world.record(0).epoch);
    world.apply(&Command::Revoke { partition: P, version, epoch }).unwrap();
    let avoided = BTreeSet::from([(P, node(1))]);
    assert_eq!(wanted(&world, &Facts { leaders_avoided: avoided, ..quiet() }), []);
    assert!(matches!(wanted(&world, &quiet())[..], [Command::Elect { .. }]));
}

#[test]
fn a_move_with_nothing_to_wait_for_is_given_up() {
    let (mut world, _, target) = moving();
    world.report(target, Liveness::Dead);
    assert_eq!(wanted(&world, &quiet()), []);
    let stranded = Facts { stranded: BTreeSet::from([P]), ..quiet() };
    assert!(matches!(wanted(&world, &stranded)[..], [Command::AbortMove { .. }]));
}

#[test]
fn what_is_late_is_named_until_it_is_not_or_its_node_is_gone() {
    let mut world = World::formed(3, 1, 3);
    let late = Overrun { node: node(2), stage: Stage::Release };
    let facts = Facts { overruns: BTreeMap::from([(P, Some(late.clone()))]), ..quiet() };
    let commands = wanted(&world, &facts);
    assert!(matches!(commands[..], [Command::NameOverrun { .. }]), "{commands:?}");
    world.apply(&commands[0]).unwrap();
    assert_eq!(world.record(0).overrun, Some(late));
    assert_eq!(wanted(&world, &facts), []);
    let over = Facts { overruns: BTreeMap::from([(P, None)]), ..quiet() };
    assert!(matches!(wanted(&world, &over)[..], [Command::NameOverrun { overrun: None, .. }]));
    world.report(2, Liveness::Dead);
    let commands = wanted(&world, &quiet());
    assert!(commands.iter().any(|command| matches!(command, Command::NameOverrun { overrun: None, .. })));
}

/// Three in-sync copies that can say how much they have, and no leader.
pub(super) fn leaderless() -> World {
    let mut world = World::formed(3, 1, 3);
    for number in 1..=3 {
        let registration = Registration {
            boot: BootId(100 + number),
            reports_position: true,
            ..registration(number, number)
        };
        world.apply(&Command::RegisterNode { registration, replace: false }).unwrap();
        world.report(number, Liveness::Alive);
    }
    assert_eq!(world.record(0).leader, None);
    world
}

pub(super) fn position(last_epoch: u64, log_end: u64) -> Position {
    Position { last_epoch: Epoch(last_epoch), log_end, damaged: false }
}

fn elected(world: &World, positions: &[(u64, Position)]) -> Vec<Command> {
    let status = |number: u64, position| MemberStatus {
        incarnation: world.incarnation(number),
        position: Some(position),
    };
    let statuses =
        positions.iter().map(|(number, position)| (node(*number), status(*number, *position))).collect();
    let ballot = Ballot { epoch: world.record(0).epoch, statuses };
    wanted(world, &Facts { ballots: BTreeMap::from([(P, ballot)]), ..quiet() })
}

#[test]
fn candidates_that_can_say_how_much_they_have_are_asked_first() {
    let world = leaderless();
    assert_eq!(wanted(&world, &quiet()), []);
    let check = |positions: &[(u64, Position)], expected: u64, expected_by_position: bool| {
        let commands = elected(&world, positions);
        let Some((Command::Elect { leader, by_position, .. }, before)) = commands.split_last() else {
            panic!("{commands:?}");
        };
        assert_eq!((leader, *by_position), (&node(expected), expected_by_position));
        assert!(before.iter().all(|command| matches!(command, Command::Taint { .. })), "{commands:?}");
    };
    check(&[(1, position(1, 9)), (2, position(2, 1)), (3, position(1, 10))], 2, true);
    check(&[(1, position(1, 9)), (3, position(1, 10))], 3, true);
    check(&[(2, position(1, 9)), (1, position(1, 9))], 1, true);
    let damaged = Position { damaged: true, ..position(9, 9) };
    check(&[(1, damaged), (2, position(1, 1))], 2, true);
    check(&[(1, damaged)], 3, false);
    check(&[], 3, false);
}

#[test]
fn the_answers_of_an_earlier_election_decide_nothing() {
    let world = leaderless();
    let status = MemberStatus { incarnation: Incarnation(2), position: Some(position(1, 1)) };
    let earlier = Ballot { epoch: Epoch(0), statuses: BTreeMap::from([(node(1), status)]) };
    assert_eq!(wanted(&world, &Facts { ballots: BTreeMap::from([(P, earlier)]), ..quiet() }), []);
}

pub(super) fn controller(world: &World) -> Controller {
    Controller::new(ControllerConfig::default(), node(1), world.state.clone(), Instant::ORIGIN)
}

pub(super) fn actions(controller: &mut Controller) -> Vec<Action> {
    core::iter::from_fn(|| controller.poll_action()).collect()
}

pub(super) fn elections(actions: Vec<Action>) -> Vec<NodeId> {
    let commands = actions.into_iter().flat_map(|action| match action {
        Action::Propose { commands, .. } => commands,
        _ => Vec::new(),
    });
    commands
        .filter_map(|command| if let Command::Elect { leader, .. } = command { Some(leader) } else { None })
        .collect()
}

#[test]
fn an_election_waits_for_every_answer_and_not_for_longer_than_its_time() {
    let world = leaderless();
    let now = Instant::ORIGIN;
    let asked = BTreeMap::from([(P, world.record(0).version)]);
    let ask = |number| Action::AskPositions { node: node(number), partitions: asked.clone() };
    let mut waits = controller(&world);
    assert_eq!(actions(&mut waits), [ask(1), ask(2), ask(3)]);
    let answer = |controller: &mut Controller, number, log_end| {
        let positions = BTreeMap::from([(P, Some(position(1, log_end)))]);
        let of_run = (&node(number), world.incarnation(number));
        controller.handle_positions(now, of_run, &asked, &positions);
        elections(actions(controller))
    };
    assert_eq!(answer(&mut waits, 1, 5), []);
    assert_eq!(answer(&mut waits, 3, 7), []);
    assert_eq!(answer(&mut waits, 2, 6), [node(3)]);

    let mut late = controller(&world);
    drop(actions(&mut late));
    assert_eq!(answer(&mut late, 2, 6), []);
    let due = now + ControllerConfig::default().position_timeout;
    assert!(late.poll_timeout(now).is_some_and(|at| at <= due));
    late.handle_timeout(due);
    assert_eq!(elections(actions(&mut late)), [node(2)]);
}

pub(super) fn report(world: &World, number: u64, fact: Fact) -> Report {
    Report { node: node(number), incarnation: world.incarnation(number), partition: P, fact }
}

fn refusal(world: &World, number: u64, stage: Stage) -> Report {
    let record = world.record(0);
    let uid = record.replica(&node(number)).unwrap().uid;
    let (epoch, version, reason) = (record.epoch, record.version, "no".to_string());
    report(world, number, Fact::Declined { stage, uid, epoch, version, reason })
}

#[test]
fn a_refusal_is_followed_by_a_pause_that_grows_with_the_next_one() {
    let mut world = World::formed(1, 1, 1);
    let mut now = Instant::ORIGIN;
    let mut controller = controller(&world);
    for pause in [2, 4, 8] {
        controller.handle_report(now, refusal(&world, 1, Stage::Activate));
        apply_all(&mut world, &mut controller, now);
        assert_eq!(world.record(0).leader, None);
        now = now + (Duration::from_secs(pause) - Duration::from_millis(1));
        controller.handle_timeout(now);
        apply_all(&mut world, &mut controller, now);
        assert_eq!(world.record(0).leader, None, "elected before {pause} s were over");
        now = now + Duration::from_millis(1);
        controller.handle_timeout(now);
        apply_all(&mut world, &mut controller, now);
        assert_eq!(world.record(0).leader, Some(node(1)));
    }
}

pub(super) fn apply_all(world: &mut World, controller: &mut Controller, now: Instant) {
    while let Some(action) = controller.poll_action() {
        if let Action::Propose { token, commands } = action {
            for command in &commands {
                drop(world.apply(command));
            }
            controller.handle_proposed(now, token, world.state.clone());
        }
    }
}

#[test]
fn what_was_caught_up_before_a_lapse_counts_for_nothing() {
    let mut world = World::formed(3, 1, 3);
    let follower = number(world.record(0).followers().next().unwrap());
    let other = number(world.record(0).followers().nth(1).unwrap());
    let caught_up = |world: &World, lapses: u64| {
        let record = world.record(0);
        let uid = record.replica(&node(follower)).unwrap().uid;
        report(world, follower, Fact::CaughtUp { uid, epoch: record.epoch, lapses })
    };
    let (version, epoch, lead) = (world.record(0).version, world.record(0).epoch, leader(&world));
    let in_sync = BTreeSet::from([node(lead), node(other)]);
    let (leader, leader_incarnation, added) = (node(lead), Incarnation(1), BTreeMap::new());
    let proposal =
        InSyncProposal { partition: P, version, epoch, leader, leader_incarnation, in_sync, added };
    world.apply(&Command::SetInSync(proposal)).unwrap();
    assert_eq!(world.record(0).replica(&node(follower)).unwrap().lapses, 1);
    let mut controller = controller(&world);
    drop(actions(&mut controller));
    controller.handle_report(Instant::ORIGIN, caught_up(&world, 0));
    assert_eq!(actions(&mut controller), []);
    controller.handle_report(Instant::ORIGIN, caught_up(&world, 1));
    let proposed = actions(&mut controller);
    assert!(
        matches!(&proposed[..], [Action::Propose { commands, .. }] if matches!(commands[..], [Command::SetInSync(_)])),
        "{proposed:?}"
    );
}

#[test]
fn a_node_that_is_being_declared_dead_is_not_told_that_it_may_go_on() {
    let world = World::formed(3, 1, 3);
    let mut controller = controller(&world);
    drop(actions(&mut controller));
    let other = node(2);
    assert!(controller.supports(&other, Incarnation(1)));
    assert!(!controller.supports(&other, Incarnation(2)), "it is another run");
    // It is silent, so its death is proposed, and heard again before that is known to be in the log.
    let mut now = Instant::ORIGIN;
    let mut token_of_death = None;
    for _ in 0..40 {
        now = now + Duration::from_millis(50);
        controller.handle_heartbeat(now, &node(3), Incarnation(1));
        controller.handle_timeout(now);
        for action in actions(&mut controller) {
            if let Action::Propose { token, commands } = action {
                if commands.iter().any(|command| declares_dead(command, &other)) {
                    token_of_death = Some(token);
                    break;
                }
                controller.handle_proposal_lost(now, token);
            }
        }
        if token_of_death.is_some() {
            break;
        }
    }
    let token = token_of_death.expect("a silent node is declared dead");
    controller.handle_heartbeat(now, &other, Incarnation(1));
    assert!(!controller.supports(&other, Incarnation(1)));
    controller.handle_proposal_lost(now, token);
    assert!(!controller.supports(&other, Incarnation(1)), "it may be in the log all the same");
    // What was proposed later is applied, so what was proposed before is too, if it ever will be.
    controller.handle_proposed(now, token + 1, world.state.clone());
    assert!(controller.supports(&other, Incarnation(1)));
    assert!(controller.supports(&node(3), Incarnation(1)));
}

fn declares_dead(command: &Command, node: &NodeId) -> bool {
    let Command::SetLiveness { changes } = command else { return false };
    changes.iter().any(|change| change.node == *node && change.liveness == Liveness::Dead)
}
