//! Who leads what. Changing a leader moves no data, so this comes last and may use long chains.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::even::{Graph, Reach, Step, even_out};
use super::nodes::{Counted, NodeIndex, Nodes, PerNode};
use super::table::Row;
use super::{PlacementRow, Standing};

/// Every row's leader, before and after.
///
/// Invariants:
/// - `led[n]` is the set of rows whose `leader` is `n`;
/// - a leader that is not the one before is electable, and on a node that takes replicas.
pub(super) struct Leaders<'a> {
    nodes: &'a Nodes,
    rows: Vec<LeaderRow>,
    led: PerNode<BTreeSet<usize>>,
    evacuated: Vec<usize>,
}

struct LeaderRow {
    before: Option<NodeIndex>,
    leader: Option<NodeIndex>,
    /// Those that may lead from now on.
    electable: Vec<NodeIndex>,
    frozen: bool,
    /// Not to be evened out: which of its copies stay is not known yet.
    pinned: bool,
}

/// A leadership that changes.
pub(super) struct Change {
    pub(super) row: usize,
    pub(super) from: NodeIndex,
    pub(super) to: NodeIndex,
}

impl<'a> Leaders<'a> {
    /// `indexed` are the same rows as `rows`.
    pub(super) fn new(nodes: &'a Nodes, rows: &[PlacementRow], indexed: &[Row]) -> Self {
        let rows = rows.iter().zip(indexed).map(|(row, indexed)| leader_row(nodes, row, indexed));
        Self::of(nodes, rows.collect())
    }

    /// The leaders of a new table: in each row the one of its copies that leads least.
    pub(super) fn choose(nodes: &'a Nodes, table: &[Vec<NodeIndex>]) -> Self {
        let row = |copies: &Vec<NodeIndex>| LeaderRow {
            before: None,
            leader: None,
            electable: copies.clone(),
            frozen: false,
            pinned: false,
        };
        let mut leaders = Self::of(nodes, table.iter().map(row).collect());
        for row in 0..table.len() {
            leaders.set(row, leaders.neediest(row));
        }
        leaders
    }

    fn of(nodes: &'a Nodes, rows: Vec<LeaderRow>) -> Self {
        let mut led = nodes.per_node(BTreeSet::new());
        for (index, row) in rows.iter().enumerate() {
            row.leader.iter().for_each(|&node| _ = led[node].insert(index));
        }
        Self { nodes, rows, led, evacuated: Vec::new() }
    }

    pub(super) fn leader(&self, row: usize) -> Option<NodeIndex> {
        self.rows[row].leader
    }

    pub(super) fn even_out(&mut self, reach: Reach) {
        even_out(self, reach);
    }

    /// Takes the lead from nodes on their way out, of up to `rows_max` rows.
    pub(super) fn evacuate(&mut self, rows_max: usize) {
        let leaves =
            |row: &LeaderRow| row.leader.is_some_and(|node| self.nodes[node].standing == Standing::Leave);
        let stranded = |&row: &usize| leaves(&self.rows[row]) && !self.rows[row].electable.is_empty();
        let rows: Vec<_> =
            (0..self.rows.len()).filter(|row| !self.rows[*row].frozen && stranded(row)).collect();
        for row in rows.into_iter().take(rows_max) {
            self.set(row, self.neediest(row));
            self.rows[row].frozen = true;
            self.evacuated.push(row);
        }
    }

    /// Whether the lead of `row` is on its way to another copy, so that no copy should move.
    pub(super) fn is_evacuated(&self, row: usize) -> bool {
        self.evacuated.binary_search(&row).is_ok()
    }

    /// A copy of `row` is on its way, and the lead goes with it when the source has it.
    pub(super) fn follow(&mut self, row: usize, source: Option<NodeIndex>, target: Option<NodeIndex>) {
        if source.is_some() && self.rows[row].leader == source {
            self.set(row, target);
            self.rows[row].before = target;
        }
        self.rows[row].frozen = true;
    }

    /// What changed: first what leaves nodes on their way out, then by row.
    pub(super) fn changes(&self) -> impl Iterator<Item = Change> {
        let others = (0..self.rows.len()).filter(|&row| !self.is_evacuated(row));
        let rows = self.evacuated.iter().copied().chain(others);
        rows.filter_map(|row| match (self.rows[row].before, self.rows[row].leader) {
            (Some(from), Some(to)) if from != to => Some(Change { row, from, to }),
            _ => None,
        })
    }

    fn neediest(&self, row: usize) -> Option<NodeIndex> {
        let score = |counted: Counted| self.nodes.score(row, counted.node);
        let counted = self.rows[row].electable.iter().map(|&node| self.counted(node));
        let best =
            counted.min_by(|&a, &b| self.nodes.order_of_taking(a, b).then_with(|| score(b).cmp(&score(a))));
        best.map(|counted| counted.node)
    }

    fn set(&mut self, row: usize, leader: Option<NodeIndex>) {
        let before = core::mem::replace(&mut self.rows[row].leader, leader);
        before.iter().for_each(|&node| _ = self.led[node].remove(&row));
        leader.iter().for_each(|&node| _ = self.led[node].insert(row));
    }
}

impl Graph for Leaders<'_> {
    fn nodes(&self) -> &Nodes {
        self.nodes
    }

    fn counted(&self, node: NodeIndex) -> Counted {
        Counted::new(node, self.led[node].len(), self.rows.len())
    }

    fn has_room(&self, _: NodeIndex) -> bool {
        true
    }

    fn rows_of(&self, node: NodeIndex) -> impl Iterator<Item = usize> {
        let stays = |row: &LeaderRow| row.frozen || row.pinned;
        self.led[node].iter().copied().filter(move |&row| !stays(&self.rows[row]))
    }

    fn allows(&self, step: Step) -> bool {
        let row = &self.rows[step.row];
        row.electable.contains(&step.target) || row.before == Some(step.target)
    }

    fn allows_zone(&self, _: Step) -> bool {
        true
    }

    fn preference(&self, step: Step) -> impl Ord {
        let row = &self.rows[step.row];
        let saved = u8::from(row.before != Some(step.source)) + u8::from(row.before == Some(step.target));
        (saved, self.nodes.score(step.row, step.target))
    }

    fn shift(&mut self, step: Step) {
        self.set(step.row, Some(step.target));
    }
}

fn leader_row(nodes: &Nodes, row: &PlacementRow, indexed: &Row) -> LeaderRow {
    let fit = |node: &NodeIndex| {
        nodes[*node].standing == Standing::Target && row.electable.contains(&nodes[*node].id)
    };
    LeaderRow {
        before: indexed.leader,
        leader: indexed.leader,
        electable: indexed.before.iter().copied().filter(fit).collect(),
        frozen: row.busy.is_some(),
        pinned: row.pinned,
    }
}
