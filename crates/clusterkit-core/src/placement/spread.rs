//! How evenly a table lies on its nodes.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::nodes::{NodeIndex, Nodes, PerNode};
use super::table::Table;
use super::{PlacementNode, PlacementRow, Standing};
use crate::id::NodeId;

/// Thousandths of a copy, the unit of fair shares.
const MILLI: u128 = 1_000;
/// Binary digits behind the point of a level, so that a weight of 1,000 loses nothing by rounding.
const LEVEL_FRACTION_BITS: u32 = 32;

/// What each node has of `rows`, and what would be fair. Moves under way count as done.
///
/// For statistics, and for dry runs: of the rows before and after.
#[must_use]
pub fn spread(rows: &[PlacementRow], nodes: &[PlacementNode], replication_factor: u32) -> Spread {
    let nodes = Nodes::new(nodes, rows);
    let table = Table::new(&nodes, rows, replication_factor);
    let mut leaders = nodes.per_node(0_u32);
    table.rows.iter().filter_map(|row| row.leader).for_each(|node| leaders[node] += 1);
    let fair = Fair::new(&nodes, rows.len(), table.factor);
    let share = |node: NodeIndex| Share {
        replicas: u32::try_from(table.counted(node).count).unwrap_or(u32::MAX),
        leaders: leaders[node],
        replicas_fair_milli: fair.replicas[node],
        leaders_fair_milli: fair.leaders[node],
    };
    Spread { nodes: nodes.indices().map(|node| (nodes[node].id.clone(), share(node))).collect() }
}

/// How evenly a table lies on its nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spread {
    /// What each node has, by its name.
    pub nodes: BTreeMap<NodeId, Share>,
}

impl Spread {
    /// The node with the most replicas, measured against its fair share.
    #[must_use]
    pub fn most_loaded(&self) -> Option<(&NodeId, &Share)> {
        self.fair_nodes().max_by(|(_, a), (_, b)| a.order_of_load(b))
    }

    /// The node with the fewest replicas, measured against its fair share.
    #[must_use]
    pub fn least_loaded(&self) -> Option<(&NodeId, &Share)> {
        self.fair_nodes().min_by(|(_, a), (_, b)| a.order_of_load(b))
    }

    fn fair_nodes(&self) -> impl Iterator<Item = (&NodeId, &Share)> {
        self.nodes.iter().filter(|(_, share)| share.replicas_fair_milli > 0)
    }
}

/// What one node has, and what would be fair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// The copies it holds, those it leads included.
    pub replicas: u32,
    /// The partitions it leads.
    pub leaders: u32,
    /// The thousandths of copies that are its share by weight, where capacities and zones limit
    /// what each node can take; zero for a node on its way out.
    pub replicas_fair_milli: u64,
    /// The thousandths of leaderships that are its share.
    pub leaders_fair_milli: u64,
}

impl Share {
    fn order_of_load(&self, other: &Self) -> Ordering {
        let load = |share: &Self, other: &Self| u64::from(share.replicas) * other.replicas_fair_milli;
        load(self, other).cmp(&load(other, self))
    }
}

struct Fair {
    replicas: PerNode<u64>,
    leaders: PerNode<u64>,
}

impl Fair {
    fn new(nodes: &Nodes, partition_count: usize, factor: usize) -> Self {
        let staying = nodes.indices().filter(|&node| nodes[node].standing != Standing::Leave);
        let takers: Vec<_> = staying.map(|node| Taker::new(nodes, node, partition_count)).collect();
        let total = MILLI * (partition_count * factor.min(takers.len())) as u128;
        let mut zones: BTreeMap<usize, Vec<Taker>> = BTreeMap::new();
        takers.iter().for_each(|taker| zones.entry(nodes[taker.node].zone).or_default().push(*taker));
        let zone_max = if zones.len() >= factor { MILLI * partition_count as u128 } else { u128::MAX };
        let zones: Vec<_> = zones.into_values().collect();
        let replicas = fill_zones(nodes, &zones, total, zone_max);
        let leading = takers.iter().map(|taker| Taker { max: u128::from(replicas[taker.node]), ..*taker });
        let mut leaders = nodes.per_node(0);
        fill(&leading.collect::<Vec<_>>(), MILLI * partition_count as u128, &mut leaders);
        Self { replicas, leaders }
    }
}

/// A node that takes in proportion to its weight until it is full.
#[derive(Clone, Copy)]
struct Taker {
    node: NodeIndex,
    weight: u128,
    max: u128,
}

impl Taker {
    fn new(nodes: &Nodes, node: NodeIndex, partition_count: usize) -> Self {
        let max = MILLI * partition_count.min(nodes[node].capacity) as u128;
        Self { node, weight: u128::from(nodes[node].weight.unsigned_abs()), max }
    }

    fn at(&self, level: u128) -> u128 {
        ((self.weight * level) >> LEVEL_FRACTION_BITS).min(self.max)
    }
}

fn sum_at(takers: &[Taker], level: u128) -> u128 {
    takers.iter().map(|taker| taker.at(level)).sum()
}

/// Water-filling: raises the level until `total` is shared out, each zone holding at most
/// `zone_max`.
fn fill_zones(nodes: &Nodes, zones: &[Vec<Taker>], total: u128, zone_max: u128) -> PerNode<u64> {
    let level = level_of(total, |level| zones.iter().map(|zone| sum_at(zone, level).min(zone_max)).sum());
    let mut shares = nodes.per_node(0);
    for zone in zones {
        fill(zone, sum_at(zone, level).min(zone_max), &mut shares);
    }
    shares
}

fn fill(takers: &[Taker], total: u128, shares: &mut PerNode<u64>) {
    let level = level_of(total, |level| sum_at(takers, level));
    takers.iter().for_each(|taker| shares[taker.node] = u64::try_from(taker.at(level)).unwrap_or(u64::MAX));
}

/// The lowest level at which `taken` reaches `total`, or the highest there is.
fn level_of(total: u128, taken: impl Fn(u128) -> u128) -> u128 {
    let (mut low, mut high) = (0, total << LEVEL_FRACTION_BITS);
    while low < high {
        let middle = low + (high - low) / 2;
        if taken(middle) < total { low = middle + 1 } else { high = middle }
    }
    low
}
