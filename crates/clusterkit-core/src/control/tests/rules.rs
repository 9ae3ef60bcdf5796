//! The rules of the replication protocol that the control plane keeps, one test or more for each.

use super::*;

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
        let (version, target) = (world.record(0).version, target.clone());
        world.apply(&Command::BeginTransfer { partition: P, version, target }).unwrap();
        let (version, epoch, from) = (world.record(0).version, world.record(0).epoch, leader.clone());
        let log_end = 0;
        world.apply(&Command::Handoff { partition: P, version, epoch, from, log_end }).unwrap();
    });
}
