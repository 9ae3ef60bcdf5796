//! One move, or one hook, and what happens at a chosen moment of it.

use std::time::Duration;

use clusterkit_core::control::{Command, ControllerConfig, Limits};
use clusterkit_core::handoff::Stage;
use clusterkit_core::id::PartitionId;
use clusterkit_core::member;
use clusterkit_core::time::Instant;
use clusterkit_core::topology::{Move, Overrun, Partition, Stage as NodeStage};

use crate::faults::{Fault, Mischief};
use crate::hooks::Manner;
use crate::seeds::short_times;
use crate::world::{Event, Settings, World, index, name};

const P: PartitionId = PartitionId(0);
/// The node that governs first, and holds no data.
const CONTROLLER: usize = 0;
/// How soon after a fault a move has ended, one way or the other.
const MOVE_ENDS_WITHIN: Duration = Duration::from_secs(10);
/// How soon after its deadline a stage is named.
const NAMED_WITHIN: Duration = Duration::from_secs(5);
/// How soon everything is as it should be once everybody is back.
const HEALED_WITHIN: Duration = Duration::from_secs(60);

fn settings() -> Settings {
    Settings {
        nodes: 5,
        spares: 0,
        partitions: 1,
        replication_factor: 3,
        stages: short_times(),
        controller: ControllerConfig::default(),
        chaos: Duration::ZERO,
        mischief: Mischief::none(),
        observer: true,
        reports_position: false,
        mistake: None,
        manner: None,
    }
}

/// A move of the leader's replica to the node that holds none.
struct Moving {
    world: World,
    source: usize,
    target: usize,
}

impl Moving {
    /// A cluster at rest, with one partition on three of four nodes.
    fn at_rest(seed: u64) -> Self {
        let mut world = World::new(seed, settings());
        let rested = world.run_until(seconds(20), |world| {
            world.unsettled().is_none() && world.served_since(Duration::from_secs(1))
        });
        assert!(rested, "{:?}, {:?}", world.violation, world.unsettled());
        let record = world.topology().partition(P).expect("there is one");
        let source = index(record.leader.as_ref().expect("it is led"));
        let target = (1..5).find(|node| !record.holds(&name(*node))).expect("one of four has no copy");
        Self { world, source, target }
    }

    fn begin(&mut self) {
        let version = self.record().version;
        let movement = Move { source: Some(name(self.source)), target: name(self.target) };
        self.world.write(None, &[Command::StartMove { partition: P, version, movement }]);
        assert!(self.record().movement.is_some(), "the move was refused");
    }

    fn record(&self) -> &Partition {
        self.world.topology().partition(P).expect("there is one")
    }

    fn run_until(&mut self, within: Duration, what: &str, done: impl FnMut(&World) -> bool) {
        let limit = self.world.now + within;
        let reached = self.world.run_until(limit, done);
        self.world.expect_no_violation();
        if !reached {
            self.world.tell();
            panic!("not within {within:?}: {what}; {:?}, {:?}", self.world.unsettled(), self.record());
        }
    }

    fn heal(&mut self) {
        self.run_until(HEALED_WITHIN, "healed", |world| {
            world.unsettled().is_none() && world.served_since(Duration::from_secs(1))
        });
    }
}

fn seconds(seconds: u64) -> Instant {
    Instant::at(Duration::from_secs(seconds))
}

/// A moment of a move.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Begins(Who, Stage),
    Done(Who, Stage),
    /// The command is on its way to the log.
    Proposed(fn(&Command) -> bool),
    Recorded(fn(&Partition, usize) -> bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Controller,
    Source,
    Target,
}

impl Moment {
    fn has_come(self, world: &World, source: usize, target: usize) -> bool {
        let node = |who| match who {
            Who::Controller => CONTROLLER,
            Who::Source => source,
            Who::Target => target,
        };
        match self {
            Self::Begins(who, stage) => {
                let process = world.nodes[node(who)].process.as_ref();
                process.is_some_and(|process| process.hooks.values().any(|hook| hook.call.stage() == stage))
            }
            Self::Done(who, stage) => world.ghost.done.contains_key(&(node(who), stage)),
            Self::Proposed(is_it) => world.proposed.values().flatten().any(is_it),
            Self::Recorded(is_so) => is_so(world.topology().partition(P).expect("there is one"), target),
        }
    }
}

/// At `moment` of a move each of the three falls, for a second and for a minute.
fn crash_everyone_at(moment: Moment) {
    for victim in [Who::Source, Who::Target, Who::Controller] {
        for down in [Duration::from_secs(1), Duration::from_secs(60)] {
            crash_at(moment, victim, down);
        }
    }
}

fn crash_at(moment: Moment, victim: Who, down: Duration) {
    let mut moving = Moving::at_rest(7);
    moving.begin();
    let (source, target) = (moving.source, moving.target);
    moving.run_until(Duration::from_secs(5), "the moment", |world| moment.has_come(world, source, target));
    let node = match victim {
        Who::Controller => CONTROLLER,
        Who::Source => source,
        Who::Target => target,
    };
    moving.world.break_something(Fault::Crash(node));
    moving.world.after(down, Event::Fault(Fault::Start(node)));
    let back_at = moving.world.now + down;
    let what = format!("{victim:?} down for {down:?} at {moment:?}: the move ends");
    moving.run_until(MOVE_ENDS_WITHIN, &what, |world| {
        let record = world.topology().partition(P).expect("there is one");
        record.movement.is_none() && record.transfer.is_none() && world.is_served(P)
    });
    moving.run_until(down + Duration::from_secs(1), "the node is back", |world| world.now > back_at);
    moving.heal();
}

macro_rules! crashes {
    ($($name:ident: $moment:expr;)*) => { $(
        #[test]
        fn $name() {
            crash_everyone_at($moment);
        }
    )* };
}

crashes! {
    a_crash_while_the_target_prepares: Moment::Begins(Who::Target, Stage::Prepare);
    a_crash_once_the_target_is_prepared: Moment::Done(Who::Target, Stage::Prepare);
    a_crash_while_the_target_catches_up: Moment::Begins(Who::Target, Stage::CatchUp);
    a_crash_once_the_target_caught_up: Moment::Done(Who::Target, Stage::CatchUp);
    a_crash_before_the_target_is_in_sync: Moment::Proposed(|c| matches!(c, Command::SetInSync(_)));
    a_crash_once_the_target_is_in_sync: Moment::Recorded(|p, target| p.in_sync.contains(&name(target)));
    a_crash_before_the_transfer: Moment::Proposed(|c| matches!(c, Command::BeginTransfer { .. }));
    a_crash_once_the_transfer_began: Moment::Recorded(|p, _| p.transfer.is_some());
    a_crash_while_the_source_seals: Moment::Begins(Who::Source, Stage::Seal);
    a_crash_once_the_source_sealed: Moment::Done(Who::Source, Stage::Seal);
    a_crash_before_the_handoff: Moment::Proposed(|c| matches!(c, Command::Handoff { .. }));
    a_crash_once_the_target_leads: Moment::Recorded(|p, target| p.leader == Some(name(target)));
    a_crash_while_the_target_activates: Moment::Begins(Who::Target, Stage::Activate);
    a_crash_once_the_target_is_active: Moment::Done(Who::Target, Stage::Activate);
    a_crash_before_the_move_finishes: Moment::Proposed(|c| matches!(c, Command::FinishMove { .. }));
    a_crash_once_the_move_finished: Moment::Recorded(|p, target| {
        p.movement.is_none() && p.leader == Some(name(target))
    });
    a_crash_while_the_source_releases: Moment::Begins(Who::Source, Stage::Release);
    a_crash_once_the_source_released: Moment::Done(Who::Source, Stage::Release);
}

/// The hook of `stage` hangs on the source or target of a move: it is named soon after its deadline.
/// Gives the move as it is then.
fn hang(who: Who, stage: Stage, manner: Manner) -> Moving {
    let mut moving = Moving::at_rest(11);
    let node = if who == Who::Source { moving.source } else { moving.target };
    moving.world.settings.manner = Some((node, stage, manner));
    moving.begin();
    let (source, target) = (moving.source, moving.target);
    let begins = Moment::Begins(who, stage);
    moving.run_until(Duration::from_secs(10), "the hook begins", |w| begins.has_come(w, source, target));
    moving.run_until(deadline(stage) + NAMED_WITHIN, "named", |world| is_named(world, node, stage));
    moving
}

fn deadline(stage: Stage) -> Duration {
    let times = short_times();
    match stage {
        Stage::Prepare => times.prepare_deadline,
        Stage::CatchUp => times.catch_up_deadline,
        Stage::Seal => times.seal_deadline,
        Stage::Activate => times.activate_deadline,
        Stage::Release => times.release_deadline,
    }
}

fn is_named(world: &World, node: usize, stage: Stage) -> bool {
    let record = world.topology().partition(P).expect("there is one");
    record.overrun == Some(Overrun { node: name(node), stage })
}

/// Long enough for a hook that was called off, and for whatever is tried instead.
const SERVED_AGAIN_WITHIN: Duration = Duration::from_secs(10);

fn served_again(moving: &mut Moving) {
    moving.run_until(SERVED_AGAIN_WITHIN, "served again", |world| {
        world.is_served(P) && world.served_since(Duration::from_millis(500))
    });
}

/// The hook that hangs comes to its end.
fn let_go(moving: &mut Moving) {
    moving.world.settings.manner = None;
    for node in 0..5 {
        moving.world.release_hooks(node);
    }
    moving.heal();
}

#[test]
fn a_prepare_that_hangs_is_named_and_nobody_is_without_the_partition() {
    let mut moving = hang(Who::Target, Stage::Prepare, Manner::Endless);
    served_again(&mut moving);
    let_go(&mut moving);
}

#[test]
fn a_catch_up_that_hangs_is_named_and_nobody_is_without_the_partition() {
    let mut moving = hang(Who::Target, Stage::CatchUp, Manner::Endless);
    served_again(&mut moving);
    let_go(&mut moving);
}

#[test]
fn a_release_that_hangs_is_named_and_nobody_is_without_the_partition() {
    let mut moving = hang(Who::Source, Stage::Release, Manner::Endless);
    served_again(&mut moving);
    let_go(&mut moving);
}

#[test]
fn a_seal_that_hangs_until_it_is_told_to_end_is_rolled_back() {
    let mut moving = hang(Who::Source, Stage::Seal, Manner::HangsUntilCancelled);
    served_again(&mut moving);
    assert_eq!(moving.record().leader, Some(name(moving.source)), "the source goes on");
    let_go(&mut moving);
}

#[test]
fn a_seal_that_hangs_until_it_is_ended_by_force_is_rolled_back() {
    let mut moving = hang(Who::Source, Stage::Seal, Manner::HangsUntilAborted);
    served_again(&mut moving);
    assert_eq!(moving.record().leader, Some(name(moving.source)), "the source goes on");
    let_go(&mut moving);
}

#[test]
fn a_seal_that_nothing_ends_costs_its_node_the_leadership() {
    let mut moving = hang(Who::Source, Stage::Seal, Manner::Endless);
    served_again(&mut moving);
    assert_ne!(moving.record().leader, Some(name(moving.source)), "it can do nothing while the hook runs");
    let_go(&mut moving);
}

#[test]
fn an_activation_that_hangs_gives_the_leadership_to_another() {
    for manner in [Manner::HangsUntilCancelled, Manner::HangsUntilAborted, Manner::Endless] {
        let mut moving = hang(Who::Target, Stage::Activate, manner);
        served_again(&mut moving);
        assert_ne!(moving.record().leader, Some(name(moving.target)));
        let_go(&mut moving);
    }
}

#[test]
fn a_node_that_cannot_open_its_replica_after_a_restart_does_not_keep_the_leadership() {
    let mut moving = Moving::at_rest(13);
    // The others are no candidates until the leader is back.
    let leader = moving.source;
    let others = (1..5).filter(|node| *node != leader).collect::<Vec<_>>();
    moving.world.settings.manner = Some((leader, Stage::Prepare, Manner::Endless));
    others.iter().for_each(|node| moving.world.break_something(Fault::Crash(*node)));
    moving.world.break_something(Fault::Crash(leader));
    moving.world.break_something(Fault::Start(leader));
    moving.run_until(Duration::from_secs(20), "it leads again", |world| {
        world.topology().partition(P).is_some_and(|record| record.leader == Some(name(leader)))
    });
    others.iter().for_each(|node| moving.world.break_something(Fault::Start(*node)));
    moving
        .run_until(deadline(Stage::Prepare) + NAMED_WITHIN, "named", |w| is_named(w, leader, Stage::Prepare));
    moving.run_until(SERVED_AGAIN_WITHIN, "another leads", |world| world.is_served(P));
    assert_ne!(moving.record().leader, Some(name(leader)));
    let_go(&mut moving);
}

#[test]
fn a_drain_without_spare_nodes_waits_for_a_leader_that_serves_and_not_for_one_that_cannot() {
    for manner in [Manner::Refuses, Manner::HangsUntilAborted, Manner::Endless] {
        let mut world = World::new(17, Settings { nodes: 4, ..settings() });
        assert!(world.run_until(seconds(20), |world| world.unsettled().is_none()), "{:?}", world.unsettled());
        let leader = |world: &World| world.topology().partition(P).and_then(|record| record.leader.clone());
        let leaving = leader(&world).expect("it is led");
        world.write(None, &[Command::Drain { node: leaving.clone() }]);
        let transfer = |world: &World| world.topology().partition(P).and_then(|p| p.transfer.clone());
        assert!(world.run_until(seconds(25), |world| transfer(world).is_some()));
        let heir = index(&transfer(&world).expect("it was just seen"));
        world.settings.manner = Some((heir, Stage::Activate, manner));
        let left =
            |world: &World| world.topology().node(&leaving).is_some_and(|n| n.stage == NodeStage::Left);
        let drained = world.run_until(seconds(60), left);
        world.expect_no_violation();
        assert!(drained, "{manner:?}: the drain ends, since a third copy can lead");
        assert!(world.ghost.begun_on(heir), "{manner:?}: the heir was asked");
        assert_ne!(leader(&world), Some(name(heir)));
    }
}

#[test]
fn a_node_that_refuses_every_copy_does_not_keep_the_others_from_having_enough() {
    let detector = member::Config { gone_after: Duration::from_secs(3), ..member::Config::default() };
    let limits = Limits { moves_max: 2, ..Limits::default() };
    let controller = ControllerConfig { detector, limits, ..ControllerConfig::default() };
    let mut world = World::new(19, Settings { nodes: 6, partitions: 12, controller, ..settings() });
    assert!(world.run_until(seconds(20), |world| world.unsettled().is_none()), "{:?}", world.unsettled());
    let (dead, refusing) = (4, 3);
    world.settings.manner = Some((refusing, Stage::Prepare, Manner::Refuses));
    world.break_something(Fault::Crash(dead));
    let whole = |record: &Partition| record.in_sync.len() == 3 && !record.holds(&name(dead));
    let healed =
        world.run_until(seconds(60), |world| world.topology().partitions.iter().all(|record| whole(record)));
    world.expect_no_violation();
    assert!(healed, "{:?}", world.topology().partitions.iter().find(|record| !whole(record)));
}
