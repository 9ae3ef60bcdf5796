//! The table that a new cluster begins with.

use alloc::vec::Vec;
use core::cmp::Ordering;

use sha2::{Digest, Sha256};

use super::even::Reach;
use super::leaders::Leaders;
use super::nodes::{NodeIndex, Nodes, PerNode};
use super::solve::solve;
use super::table::Table;
use super::{PlacementNode, PlacementRow, Standing, Strategy};
use crate::id::NodeId;

/// Points of a node on the ring for each unit of its weight.
const RING_POINTS_PER_WEIGHT: u64 = 150;
/// Points of all nodes together; heavier clusters get fewer for each unit of weight.
const RING_POINTS_MAX: u64 = 1 << 18;
/// Binary digits behind the point of a logarithm.
const LOG_FRACTION_BITS: u32 = 24;

/// The first table: for each partition the nodes that shall hold it, the leader first.
///
/// Every row names `replication_factor` nodes of standing [`Standing::Target`], or all of them while
/// there are fewer, and no node holds more than its capacity. Only [`Strategy::Balanced`] heeds
/// zones.
#[must_use]
pub fn first_table(
    strategy: Strategy,
    nodes: &[PlacementNode],
    partition_count: u32,
    replication_factor: u32,
) -> Vec<Vec<NodeId>> {
    let takes = |node: &&PlacementNode| node.standing == Standing::Target;
    let targets: Vec<_> = nodes.iter().filter(takes).cloned().collect();
    let nodes = Nodes::new(&targets, &[]);
    let size = Size { partition_count: partition_count as usize, factor: replication_factor as usize };
    let table = match strategy {
        Strategy::Balanced => balanced(&nodes, size),
        Strategy::Ring => ring(&nodes, size),
        Strategy::Rendezvous => rendezvous(&nodes, size),
        Strategy::RoundRobin => round_robin(&nodes, size),
    };
    let id = |node: NodeIndex| nodes[node].id.clone();
    table.into_iter().map(|row| row.into_iter().map(id).collect()).collect()
}

#[derive(Clone, Copy)]
struct Size {
    partition_count: usize,
    factor: usize,
}

fn balanced(nodes: &Nodes, size: Size) -> Vec<Vec<NodeIndex>> {
    let rows = alloc::vec![PlacementRow::default(); size.partition_count];
    let factor = u32::try_from(size.factor).unwrap_or(u32::MAX);
    let mut table = Table::new(nodes, &rows, factor);
    solve(&mut table);
    let mut table: Vec<_> = table.rows.into_iter().map(|row| row.copies).collect();
    let mut leaders = Leaders::choose(nodes, &table);
    leaders.even_out(Reach::Chains);
    for (index, row) in table.iter_mut().enumerate() {
        row.sort_by_key(|&node| leaders.leader(index) != Some(node));
    }
    table
}

/// Karger's consistent hashing: a partition goes to the nodes of the first points behind it.
fn ring(nodes: &Nodes, size: Size) -> Vec<Vec<NodeIndex>> {
    let points = ring_points(nodes);
    let mut rows = Rows::new(nodes, size);
    for partition in 0..size.partition_count {
        let place = point(b"partition", partition as u64);
        let first = points.partition_point(|&(point, _)| point < place);
        let (before, behind) = points.split_at(first);
        rows.push(behind.iter().chain(before).map(|&(_, node)| node));
    }
    rows.rows
}

fn ring_points(nodes: &Nodes) -> Vec<(u64, NodeIndex)> {
    let weight = |node: NodeIndex| nodes[node].weight.unsigned_abs();
    let wanted: u64 = nodes.indices().map(|node| weight(node) * RING_POINTS_PER_WEIGHT).sum();
    let mut points = Vec::new();
    for node in nodes.indices() {
        let own = weight(node) * RING_POINTS_PER_WEIGHT;
        let own = (own * RING_POINTS_MAX / wanted.max(RING_POINTS_MAX)).max(1);
        points.extend((0..own).map(|number| (point(nodes[node].id.as_str().as_bytes(), number), node)));
    }
    points.sort_unstable();
    points
}

fn point(name: &[u8], number: u64) -> u64 {
    let digest = Sha256::new().chain_update(name).chain_update(b"#").chain_update(number.to_be_bytes());
    digest.finalize()[..8].iter().fold(0, |value, &byte| (value << 8) | u64::from(byte))
}

/// Highest random weight: the smallest of exponential times with the weights as rates, which gives
/// each node its share exactly (Thaler and Ravishankar; weights by Schindelhauer and Schomaker).
fn rendezvous(nodes: &Nodes, size: Size) -> Vec<Vec<NodeIndex>> {
    let mut rows = Rows::new(nodes, size);
    for partition in 0..size.partition_count {
        let mut times: Vec<_> = nodes.indices().map(|node| Time::new(nodes, partition, node)).collect();
        times.sort_by(Time::order);
        rows.push(times.iter().map(|time| time.node));
    }
    rows.rows
}

struct Time {
    node: NodeIndex,
    hash: u64,
    log: u64,
    weight: u64,
}

impl Time {
    fn new(nodes: &Nodes, partition: usize, node: NodeIndex) -> Self {
        let hash = nodes.score(partition, node);
        Self { node, hash, log: negative_log2(hash), weight: nodes[node].weight.unsigned_abs() }
    }

    fn order(&self, other: &Self) -> Ordering {
        let time = (self.log * other.weight).cmp(&(other.log * self.weight));
        time.then(other.hash.cmp(&self.hash)).then(self.node.cmp(&other.node))
    }
}

/// The binary logarithm of `2^64 / hash` in units of `2^-LOG_FRACTION_BITS`, one digit a squaring.
fn negative_log2(hash: u64) -> u64 {
    let hash = hash.max(1);
    let mut log = u64::from(hash.ilog2());
    let mut mantissa = hash << hash.leading_zeros();
    for _ in 0..LOG_FRACTION_BITS {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        let digit = square >> 64;
        mantissa = (square >> digit) as u64;
        log = (log << 1) | digit as u64;
    }
    (64 << LOG_FRACTION_BITS) - log
}

fn round_robin(nodes: &Nodes, size: Size) -> Vec<Vec<NodeIndex>> {
    let order: Vec<_> = nodes.indices().collect();
    let mut rows = Rows::new(nodes, size);
    for partition in 0..size.partition_count {
        let start = partition % order.len().max(1);
        rows.push(order[start..].iter().chain(&order[..start]).copied());
    }
    rows.rows
}

/// Rows filled from an order of preference each.
struct Rows<'a> {
    nodes: &'a Nodes,
    factor: usize,
    counts: PerNode<usize>,
    rows: Vec<Vec<NodeIndex>>,
}

impl<'a> Rows<'a> {
    fn new(nodes: &'a Nodes, size: Size) -> Self {
        let factor = size.factor.clamp(1, nodes.count().max(1));
        Self { nodes, factor, counts: nodes.per_node(0), rows: Vec::with_capacity(size.partition_count) }
    }

    /// Takes the first nodes of `preference` that have room, each once.
    fn push(&mut self, preference: impl Iterator<Item = NodeIndex>) {
        let mut row = Vec::with_capacity(self.factor);
        for node in preference {
            if row.len() == self.factor {
                break;
            }
            if !row.contains(&node) && self.counts[node] < self.nodes[node].capacity {
                self.counts[node] += 1;
                row.push(node);
            }
        }
        self.rows.push(row);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn logarithm_equals_its_floating_twin() {
        let unit = f64::from(1 << LOG_FRACTION_BITS);
        for shift in 0..64 {
            for hash in [1_u64 << shift, (1 << shift) | 1, u64::MAX >> shift, 0x9E37_79B9_7F4A_7C15 >> shift]
            {
                let expect = (64.0 - (hash.max(1) as f64).log2()) * unit;
                let ours = negative_log2(hash) as f64;
                assert!((ours - expect).abs() <= 2.0, "{hash}: {ours} {expect}");
            }
        }
    }

    #[test]
    fn logarithm_falls_as_the_hash_grows() {
        let hashes: Vec<_> = (0..1_000).map(|number| number * (u64::MAX / 1_000)).collect();
        assert!(hashes.windows(2).all(|pair| negative_log2(pair[0]) > negative_log2(pair[1])));
    }
}
