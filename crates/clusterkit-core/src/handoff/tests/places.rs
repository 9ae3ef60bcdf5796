//! How many hooks run at once, and who waits.

use super::*;

#[test]
fn no_more_copies_are_made_at_once_than_allowed_and_seals_do_not_wait() {
    let config = Config { copies_max: 2, ..Config::default() };
    let mut world = World::new(&["b", "a"]);
    let noted = |p| (PartitionId(p), ReplicaUid(2));
    world.stages = Stages::new(config, node("a"), Incarnation(1), (0..4).map(noted).collect());
    world.record.in_sync.remove(&node("a"));
    world.record.leader = None;
    world.see_many(4);
    assert_eq!(world.actions(), ["run#1 prepare u2", "run#2 prepare u2"]);
    // Who waits is not late.
    assert_eq!(world.pass(Duration::from_secs(31)), ["overran prepare", "overran prepare"]);
    assert_eq!(world.done(1), ["run#3 prepare u2"]);
    assert_eq!(world.done(2), ["run#4 prepare u2"]);
    assert_eq!(world.pass(Duration::from_secs(29)), NOTHING);
}

#[test]
fn a_place_for_a_copy_is_not_waited_for_by_what_writes_wait_for() {
    let config = Config { copies_max: 1, ..Config::default() };
    let mut world = World::new(&["b", "a"]);
    let noted = |p| (PartitionId(p), ReplicaUid(2));
    world.stages = Stages::new(config, node("a"), Incarnation(1), (0..3).map(noted).collect());
    world.record.in_sync.remove(&node("a"));
    world.see_many(3);
    assert_eq!(world.actions(), ["run#1 prepare u2"]);
    // The copy that holds the place may itself wait for a leader that waits for its place elsewhere.
    let mut led = Partition { id: PartitionId(1), ..world.record.clone() };
    led.in_sync.insert(node("a"));
    led.leader = Some(node("a"));
    led.epoch = Epoch(2);
    assert_eq!(world.see_beside(led), ["run#2 prepare u2"]);
    assert_eq!(world.done(2), ["run#3 activate e2 first"]);
    let mut followed = Partition { id: PartitionId(2), ..world.record.clone() };
    followed.in_sync.insert(node("a"));
    assert_eq!(world.see_beside(followed), ["run#4 prepare u2"]);
}

/// In-sync replicas of as many partitions, all noted, with one place for them.
fn crowded(partitions: u32) -> World {
    let config = Config { copies_max: 1, ..Config::default() };
    let mut world = World::new(&["b", "a"]);
    let noted = |p| (PartitionId(p), ReplicaUid(2));
    world.stages = Stages::new(config, node("a"), Incarnation(1), (0..partitions).map(noted).collect());
    world.see_many(partitions);
    world
}

#[test]
fn no_more_in_sync_replicas_are_prepared_at_once_than_allowed() {
    let mut world = crowded(3);
    assert_eq!(world.actions(), ["run#1 prepare u2"]);
    // Who waits is not late.
    assert_eq!(world.pass(Duration::from_secs(29)), NOTHING);
    assert_eq!(world.done(1), ["run#2 prepare u2"]);
    assert_eq!(world.refuse(2), ["run#3 prepare u2"]);
    assert_eq!(world.done(3), NOTHING);
    assert_eq!(world.pass(Duration::from_millis(500)), ["run#4 prepare u2"]);
}

#[test]
fn a_replica_that_is_to_lead_is_prepared_before_those_that_follow() {
    let mut world = crowded(4);
    assert_eq!(world.actions(), ["run#1 prepare u2"]);
    let led = Partition { id: PartitionId(3), leader: Some(node("a")), ..world.record.clone() };
    assert_eq!(world.see_beside(led), NOTHING);
    assert_eq!(world.done(1), ["run#2 prepare u2"]);
    // The activation waits for no place, and those that follow have the next one.
    assert_eq!(world.done(2), ["run#3 activate e1 first", "run#4 prepare u2"]);
}

#[test]
fn a_prepare_that_hangs_does_not_keep_others_from_being_prepared() {
    let mut world = crowded(3);
    assert_eq!(world.actions(), ["run#1 prepare u2"]);
    assert_eq!(world.stages.poll_timeout(), Some(Instant::at(Duration::from_secs(30))));
    assert_eq!(world.pass(Duration::from_secs(30)), ["overran prepare", "run#2 prepare u2"]);
    assert_eq!(world.done(2), ["run#3 prepare u2"]);
    assert_eq!(world.done(1), NOTHING);
}

#[test]
fn a_copy_that_is_deferred_for_no_time_leaves_its_place_to_others() {
    let config = Config { copies_max: 1, ..Config::default() };
    let mut world = World::new(&["b", "a"]);
    let noted = |p| (PartitionId(p), ReplicaUid(2));
    world.stages = Stages::new(config, node("a"), Incarnation(1), (0..2).map(noted).collect());
    world.record.in_sync.remove(&node("a"));
    world.record.leader = None;
    world.see_many(2);
    assert_eq!(world.actions(), ["run#1 prepare u2"]);
    assert_eq!(world.answer(1, Outcome::Deferred(Duration::ZERO)), ["run#2 prepare u2"]);
    assert_eq!(world.done(2), NOTHING);
    assert_eq!(world.pass(Duration::from_millis(9)), NOTHING);
    assert_eq!(world.pass(Duration::from_millis(1)), ["run#3 prepare u2"]);
}
