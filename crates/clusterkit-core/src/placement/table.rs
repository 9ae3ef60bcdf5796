//! Who holds what, while a better table is being searched.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::nodes::{Counted, NodeIndex, Nodes, PerNode};
use super::{PlacementRow, Standing};

/// Every row, before and after.
///
/// Invariants:
/// - `held[n]` is the set of rows whose `copies` name `n`;
/// - no row names a node twice;
/// - a frozen row is as it was.
pub(super) struct Table<'a> {
    pub(super) nodes: &'a Nodes,
    pub(super) rows: Vec<Row>,
    /// How many copies a row shall have.
    pub(super) factor: usize,
    held: PerNode<BTreeSet<usize>>,
}

/// One partition.
pub(super) struct Row {
    /// Where its copies lie.
    pub(super) before: Vec<NodeIndex>,
    /// Where they shall lie.
    pub(super) copies: Vec<NodeIndex>,
    /// Who leads it.
    pub(super) leader_before: Option<NodeIndex>,
    /// Who shall lead it: the lead goes along with the leader's copy.
    pub(super) leader: Option<NodeIndex>,
    /// Nodes that get no copy of it.
    pub(super) avoided: BTreeSet<NodeIndex>,
    /// A move is under way, or its copies must stay for another reason.
    pub(super) frozen: bool,
}

impl Row {
    /// Whether a copy may come to `node`, or come back.
    pub(super) fn may_take(&self, node: NodeIndex) -> bool {
        !self.copies.contains(&node) && (!self.avoided.contains(&node) || self.before.contains(&node))
    }

    /// Copies that come, in the order in which they were chosen.
    pub(super) fn coming(&self) -> impl Iterator<Item = NodeIndex> {
        self.copies.iter().copied().filter(|node| !self.before.contains(node))
    }

    /// Copies that go.
    pub(super) fn going(&self) -> impl Iterator<Item = NodeIndex> {
        self.before.iter().copied().filter(|node| !self.copies.contains(node))
    }
}

impl<'a> Table<'a> {
    pub(super) fn new(nodes: &'a Nodes, rows: &[PlacementRow], factor: u32) -> Self {
        let factor = factor.max(1) as usize;
        let rows: Vec<_> = rows.iter().map(|row| indexed(nodes, row)).collect();
        let mut held = nodes.per_node(BTreeSet::new());
        for (index, row) in rows.iter().enumerate() {
            row.copies.iter().for_each(|&node| _ = held[node].insert(index));
        }
        Self { nodes, rows, factor, held }
    }

    pub(super) fn counted(&self, node: NodeIndex) -> Counted {
        Counted::new(node, self.held[node].len(), self.rows.len() * self.factor)
    }

    pub(super) fn has_room(&self, node: NodeIndex) -> bool {
        self.held[node].len() < self.nodes[node].capacity
    }

    pub(super) fn rows_held(&self, node: NodeIndex) -> impl Iterator<Item = usize> {
        self.held[node].iter().copied()
    }

    pub(super) fn standing(&self, node: NodeIndex) -> Standing {
        self.nodes[node].standing
    }

    /// How many copies of `row` lie in the zone of `node`, the one on `except` not counted.
    pub(super) fn crowd(&self, row: usize, node: NodeIndex, except: Option<NodeIndex>) -> usize {
        crowd(self.nodes, &self.rows[row].copies, node, except)
    }

    pub(super) fn add(&mut self, row: usize, node: NodeIndex) {
        self.held[node].insert(row);
        self.rows[row].copies.push(node);
    }

    pub(super) fn remove(&mut self, row: usize, node: NodeIndex) {
        self.held[node].remove(&row);
        self.rows[row].copies.retain(|&copy| copy != node);
    }

    /// Moves one copy; it keeps its place in the row, and the lead if it had it.
    pub(super) fn shift(&mut self, row: usize, source: NodeIndex, target: NodeIndex) {
        self.held[source].remove(&row);
        self.held[target].insert(row);
        let record = &mut self.rows[row];
        let here = |node: &&mut NodeIndex| **node == source;
        record.copies.iter_mut().chain(&mut record.leader).filter(here).for_each(|node| *node = target);
    }
}

/// How many of `copies` lie in the zone of `node`, the one on `except` not counted.
pub(super) fn crowd(
    nodes: &Nodes,
    copies: &[NodeIndex],
    node: NodeIndex,
    except: Option<NodeIndex>,
) -> usize {
    let zone = nodes[node].zone;
    let beside = |copy: &&NodeIndex| Some(**copy) != except && **copy != node && nodes[**copy].zone == zone;
    copies.iter().filter(beside).count()
}

fn indexed(nodes: &Nodes, row: &PlacementRow) -> Row {
    let mut ids: Vec<_> = row.replicas.iter().collect();
    let mut leader = row.leader.as_ref();
    if let Some((source, target)) = &row.busy {
        let source = source.as_ref();
        ids.retain(|&id| Some(id) != source);
        ids.push(target);
        leader = if leader.is_some() && leader == source { Some(target) } else { leader };
    }
    let mut copies: Vec<_> = Vec::with_capacity(ids.len());
    for node in ids.into_iter().filter_map(|id| nodes.index_of(id)) {
        if !copies.contains(&node) {
            copies.push(node);
        }
    }
    let leader = leader.and_then(|id| nodes.index_of(id));
    let avoided = row.avoided.iter().filter_map(|id| nodes.index_of(id)).collect();
    Row {
        before: copies.clone(),
        copies,
        avoided,
        leader_before: leader,
        leader,
        frozen: row.busy.is_some() || row.pinned,
    }
}
