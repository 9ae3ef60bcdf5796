//! How long it takes to decide which node holds which partition.

#![allow(missing_docs, reason = "the macros of criterion write functions without documentation")]

use std::hint::black_box;

use clusterkit_core::id::NodeId;
use clusterkit_core::placement::{
    Budget, PlacementNode, PlacementRow, Standing, Strategy, first_table, repair,
};
use criterion::{Criterion, criterion_group, criterion_main};

const PARTITIONS: u32 = 4_096;
const NODES: usize = 100;
const COPIES: u32 = 3;

fn nodes(count: usize, zones: Option<usize>) -> Vec<PlacementNode> {
    let node = |number: usize| PlacementNode {
        id: NodeId::new(&format!("node-{number:04}")).expect("the name has letters and digits"),
        weight: 1,
        zone: zones.map(|zones| format!("zone-{}", number % zones)),
        capacity: None,
        standing: Standing::Target,
    };
    (0..count).map(node).collect()
}

fn table(nodes: &[PlacementNode], partitions: u32) -> Vec<PlacementRow> {
    let table = first_table(Strategy::Balanced, nodes, partitions, COPIES);
    table.into_iter().map(PlacementRow::from).collect()
}

fn first_tables(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("first_table_4096x100");
    group.sample_size(10);
    for strategy in Strategy::ALL {
        let nodes = nodes(NODES, None);
        let solve = || first_table(strategy, black_box(&nodes), PARTITIONS, COPIES);
        group.bench_function(strategy.as_str(), |bencher| bencher.iter(solve));
    }
    let zoned = nodes(NODES, Some(5));
    let solve = || first_table(Strategy::Balanced, black_box(&zoned), PARTITIONS, COPIES);
    group.bench_function("balanced_five_zones", |bencher| bencher.iter(solve));
    group.finish();
}

fn repairs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("repair_4096x100");
    group.sample_size(10);
    let calm = nodes(NODES, Some(5));
    let rows = table(&calm, PARTITIONS);
    let mut bench = |name: &str, rows: &[PlacementRow], nodes: &[PlacementNode]| {
        let plan = || repair(black_box(rows), black_box(nodes), COPIES, Budget::UNLIMITED);
        group.bench_function(name, |bencher| bencher.iter(plan));
    };
    bench("nothing_to_do", &rows, &calm);
    bench("one_node_joins", &table(&nodes(NODES - 1, Some(5)), PARTITIONS), &calm);
    let mut one_leaves = calm.clone();
    one_leaves[0].standing = Standing::Leave;
    bench("one_node_leaves", &rows, &one_leaves);
    bench("from_round_robin", &round_robin(&calm), &calm);
    group.finish();
}

fn round_robin(nodes: &[PlacementNode]) -> Vec<PlacementRow> {
    let table = first_table(Strategy::RoundRobin, nodes, PARTITIONS, COPIES);
    table.into_iter().map(PlacementRow::from).collect()
}

criterion_group!(benches, first_tables, repairs);
criterion_main!(benches);
