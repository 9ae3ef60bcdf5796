//! The promises of placement, on tables small enough to check by counting.

mod world;

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use alloc::{borrow::ToOwned, format};

use proptest::prelude::*;

use self::world::{Moved, World, counts, ids, leader_counts, node, nodes_of};
use super::{Strategy, *};
use crate::id::PartitionId;

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn row(replicas: &[&str]) -> PlacementRow {
    replicas.iter().map(|name| id(name)).collect::<Vec<_>>().into()
}

fn gap(counts: &[u32]) -> u32 {
    counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0)
}

#[track_caller]
fn assert_even(world: &World) {
    let (copies, leaders) = (counts(world), leader_counts(world));
    assert!(gap(&copies) <= 1, "copies {copies:?}");
    assert!(gap(&leaders) <= 1, "leaders {leaders:?}");
}

/// The largest number of copies that any row has in one zone.
fn crowd_max(world: &World) -> usize {
    let zone = |id: &NodeId| {
        let node = world.nodes.iter().find(|node| node.id == *id).unwrap();
        node.zone.clone().unwrap_or_else(|| node.id.to_string())
    };
    let crowd = |row: &PlacementRow| {
        let zones: Vec<String> = row.replicas.iter().map(zone).collect();
        zones.iter().map(|one| zones.iter().filter(|other| *other == one).count()).max().unwrap_or(0)
    };
    world.rows.iter().map(crowd).max().unwrap_or(0)
}

#[test]
fn names_are_read_back_and_are_those_of_serde() {
    for strategy in Strategy::ALL {
        assert_eq!(strategy.to_string().parse(), Ok(strategy));
        assert_eq!(serde_json::to_value(strategy).unwrap(), strategy.as_str());
        assert!(InvalidStrategy.to_string().contains(strategy.as_str()));
    }
    assert_eq!("random".parse::<Strategy>(), Err(InvalidStrategy));
    assert_eq!(Strategy::default(), Strategy::Balanced);
}

#[test]
fn round_robin_counts_on_from_the_partition() {
    let nodes = nodes_of(&["c", "a", "b"]);
    let table = first_table(Strategy::RoundRobin, &nodes, 4, 2);
    assert_eq!(table, [ids("ab"), ids("bc"), ids("ca"), ids("ab")]);
}

#[test]
fn first_tables_never_change_between_releases_and_machines() {
    let check = |strategy, expect: [&str; 8]| {
        let mut nodes = nodes_of(&["a", "b", "c", "d", "e"]);
        nodes[4].weight = 3;
        let table = first_table(strategy, &nodes, 8, 3);
        assert_eq!(table, expect.map(ids), "{strategy}");
    };
    check(Strategy::Balanced, ["edb", "ebd", "dec", "bce", "aed", "cae", "eab", "eca"]);
    check(Strategy::Ring, ["adc", "eab", "eba", "cea", "bde", "bea", "cbe", "eac"]);
    check(Strategy::Rendezvous, ["dae", "bdc", "dec", "dbc", "aec", "ebc", "aec", "ace"]);
    check(Strategy::RoundRobin, ["abc", "bcd", "cde", "dea", "eab", "abc", "bcd", "cde"]);
}

#[test]
fn a_table_without_nodes_has_empty_rows() {
    for strategy in Strategy::ALL {
        assert_eq!(first_table(strategy, &[], 2, 3), [vec![], vec![]]);
    }
    assert!(repair(&[PlacementRow::default()], &[], 3, Budget::UNLIMITED).is_empty());
    assert!(repair(&[], &nodes_of(&["a"]), 3, Budget::UNLIMITED).is_empty());
}

#[test]
fn ring_and_rendezvous_give_shares_by_weight() {
    for strategy in [Strategy::Ring, Strategy::Rendezvous] {
        let mut world = World::empty(12, 4_096, 1);
        world.nodes.iter_mut().enumerate().for_each(|(at, node)| node.weight = 1 + at as u32 % 3);
        world.lay_out(strategy);
        for (count, node) in counts(&world).into_iter().zip(&world.nodes) {
            let fair = 4_096 * node.weight / 24;
            assert!(count.abs_diff(fair) < fair / 3, "{strategy}: {count} of {fair}");
        }
    }
}

#[test]
fn a_node_on_its_way_out_gives_its_lead_before_its_copies() {
    let mut world = World::balanced(4, 64, 3);
    world.nodes[0].standing = Standing::Leave;
    let leaving = world.nodes[0].id.clone();
    let plan = world.plan();
    let led = |row: &&PlacementRow| row.leader.as_ref() == Some(&leaving);
    let led_count = world.rows.iter().filter(led).count();
    assert_eq!(plan.leader_moves.iter().filter(|change| change.from == leaving).count(), led_count);
    let leads = |planned: &&PlannedMove| world.rows[planned.partition.index()].leader == planned.source;
    assert_eq!(plan.moves.iter().filter(leads).count(), 0);
    world.settle();
    assert!(world.rows.iter().all(|row| !row.replicas.contains(&leaving)));
}

#[test]
fn the_only_copy_moves_with_its_lead() {
    let mut world = World::balanced(2, 4, 1);
    world.nodes[0].standing = Standing::Leave;
    let moved = world.settle();
    assert_eq!(moved, Moved { added: 2, dropped: 0, leaders: 0 });
    assert_eq!(leader_counts(&world), [0, 4]);
}

#[test]
fn copies_on_the_last_spare_node_go_only_when_the_factor_falls() {
    let mut world = World::balanced(3, 8, 3);
    world.nodes[0].standing = Standing::Leave;
    let moved = world.settle();
    assert_eq!((moved.added, moved.dropped), (0, 0));
    world.factor = 2;
    let moved = world.settle();
    assert_eq!((moved.added, moved.dropped), (0, 8));
    assert_eq!(counts(&world), [0, 8, 8]);
}

#[test]
fn a_copy_is_not_dropped_while_another_may_be_dead() {
    let mut world = World::of(&["a", "b", "c"], 2, vec![row(&["a", "b", "c"])]);
    world.nodes[0].standing = Standing::Keep;
    assert!(world.plan().moves.is_empty());
    world.nodes[1].standing = Standing::Leave;
    assert!(world.plan().moves.is_empty());
    world.nodes[0].standing = Standing::Target;
    let moves = world.plan().moves;
    assert_eq!(moves.len(), 1);
    assert_eq!((moves[0].source.clone(), moves[0].reason), (Some(id("b")), MoveReason::Shrink));
}

#[test]
fn a_suspected_node_keeps_its_copies_and_gets_no_more() {
    let mut world = World::balanced(5, 64, 3);
    world.nodes[1].standing = Standing::Keep;
    assert!(world.plan().is_empty());
    let suspected = world.nodes[1].id.clone();
    let held = counts(&world)[1];
    world.nodes.push(node("zz-new"));
    for row in &mut world.rows[..16] {
        row.replicas.retain(|node| *node == suspected || Some(node) == row.leader.as_ref());
    }
    world.settle();
    assert_eq!(counts(&world)[1], held);
}

#[test]
fn a_node_that_nobody_lists_is_on_its_way_out() {
    let mut world = World::of(&["a", "b", "c"], 3, vec![row(&["a", "b", "gone"])]);
    let moves = world.plan().moves;
    let expect = PlannedMove {
        partition: PartitionId(0),
        source: Some(id("gone")),
        target: Some(id("c")),
        reason: MoveReason::Replace,
    };
    assert_eq!(moves, [expect]);
    world.settle();
    assert_eq!(world.rows[0].replicas, ids("abc"));
}

#[test]
fn a_lower_factor_drops_copies_evenly_and_never_the_leader() {
    let mut world = World::balanced(7, 100, 4);
    let leaders: Vec<_> = world.rows.iter().map(|row| row.leader.clone()).collect();
    world.factor = 2;
    let moved = world.settle();
    assert_eq!((moved.added, moved.dropped), (0, 200));
    assert_eq!(leaders, world.rows.iter().map(|row| row.leader.clone()).collect::<Vec<_>>());
    assert_even(&world);
}

#[test]
fn a_higher_factor_only_adds() {
    let mut world = World::balanced(7, 100, 2);
    world.factor = 3;
    assert!(world.plan().moves.iter().all(|planned| planned.reason == MoveReason::Fill));
    let moved = world.settle();
    assert_eq!((moved.added, moved.dropped), (100, 0));
    assert_even(&world);
}

#[test]
fn rows_with_the_fewest_copies_are_filled_first() {
    let rows = vec![row(&["a", "b"]), row(&["a"]), row(&["b", "c"]), row(&["c"])];
    let mut world = World::of(&["a", "b", "c"], 3, rows);
    world.budget.moves_max = 3;
    let partitions: Vec<_> = world.plan().moves.iter().map(|planned| planned.partition.0).collect();
    assert_eq!(partitions, [1, 3, 0]);
}

#[test]
fn a_busy_row_is_left_alone_and_counts_as_if_done() {
    let mut world = World::of(&["a", "b"], 1, vec![row(&["a"]), row(&["a"])]);
    world.rows[1].busy = Some((Some(id("a")), id("b")));
    assert!(world.plan().is_empty());
    world.rows[1].busy = None;
    assert_eq!(world.plan().moves.len(), 1);
}

#[test]
fn the_copies_of_a_pinned_row_stay_and_its_leader_goes_only_from_a_node_on_its_way_out() {
    let mut world = World::of(&["a", "b", "c"], 2, vec![row(&["a", "b", "c"]), row(&["a", "b", "c"])]);
    world.rows[0].pinned = true;
    world.budget.moves_max = 1;
    let dropped: Vec<_> = world.plan().moves.iter().map(|planned| planned.partition.0).collect();
    assert_eq!(dropped, [1]);
    // Evened out by a copy that is to be dropped, the lead would go back as soon as that is planned.
    world.rows[1].pinned = true;
    assert!(world.plan().is_empty());
    world.nodes[0].standing = Standing::Leave;
    assert_eq!(world.plan().leader_moves.len(), 2);
}

#[test]
fn a_copy_goes_where_it_is_not_avoided_and_leaves_the_budget_to_others() {
    let rows = vec![row(&["a"]), row(&["a"]), row(&["b"])];
    let mut world = World::of(&["a", "b", "c", "d"], 2, rows);
    let avoided = BTreeSet::from([id("b"), id("c")]);
    world.rows[0].avoided.clone_from(&avoided);
    let target = |world: &World, row: u32| {
        let moves = world.plan().moves;
        moves.iter().find(|planned| planned.partition.0 == row).and_then(|planned| planned.target.clone())
    };
    assert_eq!(target(&world, 0), Some(id("d")));
    // Nowhere to go is no step of the plan.
    world.rows[0].avoided.insert(id("d"));
    world.budget.moves_max = 1;
    assert_eq!(world.plan().moves.len(), 1);
    assert_eq!(target(&world, 0), None);
    // A copy that is there already is not avoided.
    world.rows[2].avoided.insert(id("b"));
    world.settle();
    assert!(world.rows[2].replicas.contains(&id("b")));
    assert_eq!(world.rows[0].replicas, [id("a")]);
}

#[test]
fn only_electable_replicas_become_leaders() {
    let rows = vec![row(&["a", "b"]), row(&["a", "b"]), row(&["a", "b"]), row(&["a", "b"])];
    let mut world = World::of(&["a", "b"], 2, rows);
    world.rows.iter_mut().for_each(|row| row.electable = BTreeSet::from([id("a")]));
    assert!(world.plan().is_empty());
    world.rows[2].electable.insert(id("b"));
    let expect = LeaderMove { partition: PartitionId(2), from: id("a"), to: id("b") };
    assert_eq!(world.plan().leader_moves, [expect]);
}

#[test]
fn leaders_even_out_along_chains_once_the_copies_are_in_place() {
    let rows = vec![row(&["a", "b"]), row(&["a", "b"]), row(&["b", "c"]), row(&["c", "a"])];
    let mut world = World::of(&["a", "b", "c", "d"], 2, rows);
    world.nodes[3].capacity = Some(0);
    world.rows[3].leader = Some(id("a"));
    assert_eq!(leader_counts(&world), [3, 1, 0, 0]);
    world.settle();
    assert!(gap(&leader_counts(&world)[..3]) <= 1);
}

#[test]
fn a_full_node_makes_room_where_only_it_can_take_a_copy() {
    // Once the first row has a copy on `c`, only `d` has room, and it holds the second row already.
    let rows = vec![row(&["a", "b"]), row(&["c", "d"])];
    let mut world = World::of(&["a", "b", "c", "d"], 3, rows);
    for (node, capacity) in world.nodes.iter_mut().zip([1, 1, 2, 2]) {
        node.capacity = Some(capacity);
    }
    world.settle();
    assert_eq!(counts(&world), [1, 1, 2, 2]);
    assert!(world.rows.iter().all(|row| row.replicas.len() == 3));
}

#[test]
fn a_third_zone_gets_a_copy_of_everything() {
    let mut world = World::balanced(4, 32, 3);
    for (node, zone) in world.nodes.iter_mut().zip(["x", "x", "y", "y"]) {
        node.zone = Some(zone.to_owned());
    }
    world.settle();
    assert_eq!(crowd_max(&world), 2);
    world.nodes.push(PlacementNode { zone: Some("z".to_owned()), ..node("zz") });
    let moved = world.settle();
    assert_eq!(crowd_max(&world), 1);
    assert_eq!(counts(&world)[4], 32);
    assert_eq!(moved.added, 32);
}

#[test]
fn weights_share_out_in_proportion() {
    let mut world = World::empty(12, 1_024, 3);
    for (at, node) in world.nodes.iter_mut().enumerate() {
        node.weight = 1 + at as u32 % 3;
        node.zone = Some(format!("zone-{}", at / 3));
    }
    world.lay_out(Strategy::Balanced);
    let spread = world.spread();
    for share in spread.nodes.values() {
        assert!((u64::from(share.replicas) * 1_000).abs_diff(share.replicas_fair_milli) < 1_000, "{share:?}");
        assert!((u64::from(share.leaders) * 1_000).abs_diff(share.leaders_fair_milli) < 1_000, "{share:?}");
    }
    assert_eq!(crowd_max(&world), 1);
    assert!(world.plan().is_empty());
}

#[test]
fn fair_shares_fill_up_like_water() {
    let check = |world: &World, expect: &[u64]| {
        let shares: Vec<_> = world.spread().nodes.values().map(|share| share.replicas_fair_milli).collect();
        assert_eq!(shares, expect);
    };
    let mut world = World::balanced(4, 100, 2);
    check(&world, &[50_000, 50_000, 50_000, 50_000]);
    world.nodes[0].weight = 1_000;
    check(&world, &[100_000, 33_334, 33_334, 33_334]);
    world.nodes[0].capacity = Some(20);
    check(&world, &[20_000, 60_000, 60_000, 60_000]);
    world.nodes[1].standing = Standing::Leave;
    check(&world, &[20_000, 0, 90_000, 90_000]);
    world.nodes[2].standing = Standing::Keep;
    check(&world, &[20_000, 0, 90_000, 90_000]);
    let mut world = World::balanced(4, 100, 2);
    for (node, zone) in world.nodes.iter_mut().zip(["x", "y", "y", "y"]) {
        node.zone = Some(zone.to_owned());
    }
    check(&world, &[100_000, 33_334, 33_334, 33_334]);
}

#[test]
fn the_most_and_least_loaded_are_measured_by_their_shares() {
    let mut world = World::of(&["a", "b", "c"], 1, vec![row(&["a"]), row(&["a"]), row(&["b"]), row(&["c"])]);
    world.nodes[0].weight = 4;
    let spread = world.spread();
    assert_eq!(spread.least_loaded().map(|(id, _)| id.as_str()), Some("a"));
    assert_ne!(spread.most_loaded().map(|(id, _)| id.as_str()), Some("a"));
}

/// Whether each row of the first node can get another node so that all others hold as many copies
/// as any, up to one: in tight tables that fails, and then a copy more must move.
///
/// There is such an inheritance when no node need get too many, and another when no node need get
/// too few (Mendelsohn and Dulmage); both are questions of matching.
fn can_inherit_evenly(world: &World) -> bool {
    let counts = counts(world);
    let copies: u32 = counts.iter().sum();
    let others = counts.len() as u32 - 1;
    let (floor, ceil) = (copies / others, copies.div_ceil(others));
    let seats = |most: u32| -> Vec<usize> {
        let free = |at: usize| vec![at; most.saturating_sub(counts[at]) as usize];
        (1..counts.len()).flat_map(free).collect()
    };
    let heirless = world.rows.iter().filter(|row| row.replicas.contains(&world.nodes[0].id));
    let heirs = |row: &PlacementRow, node: usize| !row.replicas.contains(&world.nodes[node].id);
    let rows: Vec<_> = heirless.collect();
    let edges = |most: u32| -> Vec<Vec<bool>> {
        rows.iter().map(|row| seats(most).into_iter().map(|node| heirs(row, node)).collect()).collect()
    };
    matched(&edges(ceil)) == rows.len() && matched(&edges(floor)) == seats(floor).len()
}

/// The size of the largest matching, by augmenting one row at a time (Kuhn).
fn matched(edges: &[Vec<bool>]) -> usize {
    fn augment(edges: &[Vec<bool>], row: usize, seen: &mut [bool], taken: &mut [Option<usize>]) -> bool {
        (0..taken.len()).any(|seat| {
            if !edges[row][seat] || core::mem::replace(&mut seen[seat], true) {
                return false;
            }
            let free = taken[seat].is_none_or(|other| augment(edges, other, seen, taken));
            if free {
                taken[seat] = Some(row);
            }
            free
        })
    }
    let seats = edges.first().map_or(0, Vec::len);
    let mut taken = vec![None; seats];
    (0..edges.len()).filter(|&row| augment(edges, row, &mut vec![false; seats], &mut taken)).count()
}

/// Nodes, partitions, copies.
fn sizes() -> impl proptest::strategy::Strategy<Value = (usize, u32, u32)> {
    (1..13_usize, 1..80_u32, 1..6_u32)
}

/// A quarter of the usual cases, for what takes many rounds each.
fn fewer_cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases / 4, ..usual }
}

proptest! {
    #[test]
    fn a_balanced_table_is_even_and_stays(size in sizes()) {
        let world = World::balanced(size.0, size.1, size.2);
        assert_even(&world);
        prop_assert!(world.plan().is_empty());
    }

    #[test]
    fn zones_hold_at_most_their_part_of_each_row(size in sizes(), zones in 1..6_usize) {
        let mut world = World::empty(size.0, size.1, size.2);
        world.zones(zones);
        world.lay_out(Strategy::Balanced);
        let zones = zones.min(size.0);
        let copies = size.0.min(size.2 as usize);
        if size.0.is_multiple_of(zones) || zones >= copies {
            prop_assert_eq!(crowd_max(&world), copies.div_ceil(zones));
        }
        prop_assert!(world.plan().is_empty());
    }

    #[test]
    fn weighted_nodes_get_their_shares_within_one(
        (nodes, partitions, factor) in sizes(),
        weights in proptest::collection::vec(1..4_u32, 13),
    ) {
        let mut world = World::empty(nodes, partitions, factor);
        world.nodes.iter_mut().zip(weights).for_each(|(node, weight)| node.weight = weight);
        world.lay_out(Strategy::Balanced);
        for share in world.spread().nodes.values() {
            let copies = u64::from(share.replicas) * 1_000;
            prop_assert!(copies.abs_diff(share.replicas_fair_milli) <= 1_000, "{:?}", share);
        }
        prop_assert!(world.plan().is_empty());
    }
}

proptest! {
    #![proptest_config(fewer_cases())]

    #[test]
    fn every_first_table_has_distinct_nodes_within_capacity(
        (nodes, partitions, factor) in sizes(),
        capacity in 1..60_u32,
    ) {
        for strategy in Strategy::ALL {
            let mut world = World::empty(nodes, partitions, factor);
            world.lay_out(strategy);
            for row in &world.rows {
                let distinct: BTreeSet<_> = row.replicas.iter().collect();
                prop_assert_eq!(distinct.len(), nodes.min(factor as usize));
                prop_assert_eq!(distinct.len(), row.replicas.len());
            }
            world.nodes[0].capacity = Some(capacity);
            world.lay_out(strategy);
            prop_assert!(counts(&world)[0] <= capacity);
        }
    }

    #[test]
    fn any_first_table_evens_out(size in sizes(), strategy in proptest::sample::select(&Strategy::ALL)) {
        let mut world = World::empty(size.0, size.1, size.2);
        world.lay_out(strategy);
        world.settle();
        assert_even(&world);
    }

    #[test]
    fn a_new_node_gets_its_share_and_nothing_else_moves((nodes, partitions, factor) in sizes(), budget in 1..9_u32) {
        let factor = factor.min(nodes as u32);
        let mut world = World::balanced(nodes, partitions, factor);
        world.nodes.push(node("zz-new"));
        world.budget.moves_max = budget;
        let moved = world.settle();
        let share = factor * partitions / (nodes as u32 + 1);
        prop_assert_eq!(moved.added, share);
        prop_assert_eq!(counts(&world)[nodes], share);
        assert_even(&world);
    }

    #[test]
    fn what_a_node_held_moves_when_it_leaves_and_nothing_else(
        (nodes, partitions, factor) in sizes(),
        budget in 1..9_u32,
    ) {
        let mut world = World::balanced(nodes + 1, partitions, factor.min(nodes as u32));
        let held = counts(&world)[0];
        world.nodes[0].standing = Standing::Leave;
        let enough = can_inherit_evenly(&world);
        world.budget.moves_max = budget;
        let moved = world.settle();
        prop_assert!(moved.added == held || moved.added > held && !enough);
        world.rows.iter().for_each(|row| assert!(!row.replicas.contains(&world.nodes[0].id)));
        world.nodes.remove(0);
        assert_even(&world);
    }

    #[test]
    fn a_factor_above_the_nodes_heals_as_they_come((nodes, partitions, factor) in sizes()) {
        let mut world = World::balanced(1, partitions, factor);
        for number in 1..nodes {
            world.nodes.push(node(&format!("extra-{number}")));
            world.settle();
            let copies = factor.min(number as u32 + 1) as usize;
            prop_assert!(world.rows.iter().all(|row| row.replicas.len() == copies));
            assert_even(&world);
        }
    }

    #[test]
    fn the_order_of_nodes_does_not_matter(
        size in sizes(),
        zones in 1..6_usize,
        seed: u64,
        strategy in proptest::sample::select(&Strategy::ALL),
    ) {
        let mut world = World::empty(size.0, size.1, size.2);
        world.zones(zones);
        world.lay_out(strategy);
        world.shake(seed);
        let mut shuffled = world.nodes.clone();
        shuffled.sort_by_key(|node| super::nodes::mix(seed ^ node.id.as_str().bytes().map(u64::from).sum::<u64>()));
        let table = |nodes: &[PlacementNode]| first_table(strategy, nodes, size.1, size.2);
        prop_assert_eq!(table(&world.nodes), table(&shuffled));
        let plan = |nodes: &[PlacementNode]| repair(&world.rows, nodes, size.2, Budget::UNLIMITED);
        prop_assert_eq!(plan(&world.nodes), plan(&shuffled));
    }

    /// Whatever happens to a cluster, repair comes to rest, keeps every promise on the way and moves
    /// hardly a copy twice. Moves take several rounds, and the budget is small.
    #[test]
    fn any_change_comes_to_rest(
        size in sizes(),
        zones in 1..6_usize,
        seeds in proptest::collection::vec(any::<u64>(), 1..4),
        moves_max in 1..9_u32,
        leader_moves_max in 1..9_u32,
    ) {
        let mut world = World::empty(size.0, size.1, size.2);
        world.zones(zones);
        world.lay_out(Strategy::Balanced);
        world.budget = Budget { moves_max, leader_moves_max };
        for seed in seeds {
            world.shake(seed);
            world.settle_slowly(seed);
            world.check_rest();
        }
    }
}
