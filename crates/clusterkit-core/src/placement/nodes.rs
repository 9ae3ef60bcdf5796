//! The nodes of one question, numbered in the order of their ids.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::ops::{Index, IndexMut};

use xxhash_rust::xxh3::xxh3_64;

use super::{PlacementNode, PlacementRow, Standing};
use crate::id::NodeId;
use crate::limits::WEIGHT_MAX;

/// A node's place in the order of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeIndex(usize);

/// One value for each node.
pub(super) struct PerNode<T>(Vec<T>);

impl<T: Clone> PerNode<T> {
    pub(super) fn filled(count: usize, value: T) -> Self {
        Self(vec![value; count])
    }
}

impl<T> Index<NodeIndex> for PerNode<T> {
    type Output = T;

    fn index(&self, node: NodeIndex) -> &T {
        &self.0[node.0]
    }
}

impl<T> IndexMut<NodeIndex> for PerNode<T> {
    fn index_mut(&mut self, node: NodeIndex) -> &mut T {
        &mut self.0[node.0]
    }
}

/// A node, with what the inner loops need computed once.
pub(super) struct IndexedNode {
    pub(super) id: NodeId,
    pub(super) weight: i64,
    /// Equal for two nodes that fail together, otherwise without meaning.
    pub(super) zone: usize,
    pub(super) capacity: usize,
    pub(super) standing: Standing,
    seed: u64,
}

/// Every node, by index.
pub(super) struct Nodes {
    nodes: PerNode<IndexedNode>,
    /// Of those that stay.
    weight_total: i64,
}

impl Nodes {
    /// `nodes`, and those that only `rows` name as nodes on their way out.
    pub(super) fn new(nodes: &[PlacementNode], rows: &[PlacementRow]) -> Self {
        let mut by_id: BTreeMap<_, _> = nodes.iter().map(|node| (&node.id, Some(node))).collect();
        let listed: Vec<_> = by_id.keys().copied().collect();
        let is_stranger = |id: &&NodeId| listed.binary_search(id).is_err();
        by_id.extend(rows.iter().flat_map(named).filter(is_stranger).map(|id| (id, None)));
        let mut zones = Zones::default();
        let nodes: Vec<_> = by_id.into_iter().map(|(id, node)| indexed(id, node, &mut zones)).collect();
        let staying = nodes.iter().filter(|node| node.standing != Standing::Leave);
        let weight_total = staying.map(|node| node.weight).sum();
        Self { nodes: PerNode(nodes), weight_total }
    }

    pub(super) fn count(&self) -> usize {
        self.nodes.0.len()
    }

    pub(super) fn per_node<T: Clone>(&self, value: T) -> PerNode<T> {
        PerNode::filled(self.count(), value)
    }

    pub(super) fn index_of(&self, id: &NodeId) -> Option<NodeIndex> {
        self.nodes.0.binary_search_by(|node| node.id.cmp(id)).ok().map(NodeIndex)
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = NodeIndex> + use<> {
        (0..self.count()).map(NodeIndex)
    }

    /// The nodes that take replicas.
    pub(super) fn targets(&self) -> impl Iterator<Item = NodeIndex> {
        self.indices().filter(|&node| self[node].standing == Standing::Target)
    }

    /// How well `row` and `node` suit each other where nothing else decides: the same on every
    /// machine and for every set of other nodes, so that equal questions have equal answers.
    pub(super) fn score(&self, row: usize, node: NodeIndex) -> u64 {
        mix(self[node].seed ^ mix(row as u64))
    }

    /// Which of two nodes is nearer to its share after taking one more: `Less` when it is the first.
    pub(super) fn order_of_taking(&self, a: Counted, b: Counted) -> Ordering {
        self.order(a.taking(), b.taking())
    }

    /// Which of two nodes is further above its share: `Greater` when it is the first.
    pub(super) fn order_of_giving(&self, a: Counted, b: Counted) -> Ordering {
        self.order(a.giving(), b.giving())
    }

    /// Whether one less for `source` and one more for `target` brings both nearer to their shares.
    pub(super) fn evens(&self, source: Counted, target: Counted) -> bool {
        self.order(source.giving(), target.taking()).is_gt()
    }

    /// Compares marginal costs: first `marginal / weight`, by which the sum of `count² / weight`
    /// changes, then the change of the sum of `(count - share)²`, which keeps what Sainte-Laguë
    /// leaves open within one of the exact share.
    fn order(&self, a: Counted, b: Counted) -> Ordering {
        let (weight_a, weight_b) = (self[a.node].weight, self[b.node].weight);
        if weight_a == weight_b {
            return a.count.cmp(&b.count);
        }
        let from_share = |node: Counted, weight| node.count * self.weight_total - 2 * node.total * weight;
        let marginal = (a.count * weight_b).cmp(&(b.count * weight_a));
        marginal.then_with(|| from_share(a, weight_a).cmp(&from_share(b, weight_b)))
    }
}

impl Index<NodeIndex> for Nodes {
    type Output = IndexedNode;

    fn index(&self, node: NodeIndex) -> &IndexedNode {
        &self.nodes[node]
    }
}

/// A node and how much it has of what is being shared out.
#[derive(Clone, Copy)]
pub(super) struct Counted {
    pub(super) node: NodeIndex,
    pub(super) count: i64,
    /// What all nodes shall have together.
    pub(super) total: i64,
}

impl Counted {
    pub(super) fn new(node: NodeIndex, count: usize, total: usize) -> Self {
        let signed = |count| i64::try_from(count).expect("a table has far fewer copies");
        Self { node, count: signed(count), total: signed(total) }
    }

    /// `(count + 1)² - count²`
    fn taking(self) -> Self {
        Self { count: 2 * self.count + 1, ..self }
    }

    /// `count² - (count - 1)²`
    fn giving(self) -> Self {
        Self { count: 2 * self.count - 1, ..self }
    }
}

#[derive(Default)]
struct Zones<'a> {
    named: BTreeMap<&'a str, usize>,
    count: usize,
}

impl<'a> Zones<'a> {
    fn of(&mut self, name: Option<&'a str>) -> usize {
        let next = self.count;
        let zone = name.map_or(next, |name| *self.named.entry(name).or_insert(next));
        self.count = self.count.max(zone + 1);
        zone
    }
}

/// The nodes that `row` names and that count.
fn named(row: &PlacementRow) -> impl Iterator<Item = &NodeId> {
    let target = row.busy.iter().map(|(_, target)| target);
    row.replicas.iter().chain(target)
}

fn indexed<'a>(id: &NodeId, node: Option<&'a PlacementNode>, zones: &mut Zones<'a>) -> IndexedNode {
    let capacity = node.map_or(Some(0), |node| node.capacity);
    IndexedNode {
        id: id.clone(),
        weight: i64::from(node.map_or(1, |node| node.weight.clamp(1, WEIGHT_MAX))),
        zone: zones.of(node.and_then(|node| node.zone.as_deref())),
        capacity: capacity.map_or(usize::MAX, |copies| copies as usize),
        standing: node.map_or(Standing::Leave, |node| node.standing),
        seed: xxh3_64(id.as_str().as_bytes()),
    }
}

/// The finaliser of SplitMix64: every bit of the input moves every bit of the output.
pub(super) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
