//! Evening out what nodes have, copies or leaderships, by the fewest shifts.
//!
//! One shift takes one thing of one row from one node to another. Where no single shift helps, a
//! chain does: `a` gives to `b`, and `b` gives something else to `c`. Shortest augmenting paths
//! reach the optimum of such a flow with convex costs, so that what is left uneven cannot be evened.

use alloc::vec::Vec;

use super::nodes::{Counted, NodeIndex, Nodes, PerNode};

/// What is shared out: the nodes are its points, and a row that may give from one node to another
/// is an edge.
pub(super) trait Graph {
    fn nodes(&self) -> &Nodes;
    fn counted(&self, node: NodeIndex) -> Counted;
    fn has_room(&self, node: NodeIndex) -> bool;
    /// The rows of which `node` has something to give.
    fn rows_of(&self, node: NodeIndex) -> impl Iterator<Item = usize>;
    /// Whether `step` is allowed, the room at its target aside. Its row is one of `rows_of(source)`.
    fn allows(&self, step: Step) -> bool;
    /// False where no step like `step` to any node in its target's zone is allowed.
    fn allows_zone(&self, step: Step) -> bool;
    /// Which of several steps between the same two nodes to take: the greatest.
    fn preference(&self, step: Step) -> impl Ord;
    fn shift(&mut self, step: Step);
}

/// One thing of `row` goes from `source` to `target`.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) row: usize,
    pub(super) source: NodeIndex,
    pub(super) target: NodeIndex,
}

/// How far evening out goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Only shifts from a node above its share to one below it.
    Direct,
    /// Chains as well, when single shifts are exhausted: they touch nodes that have their share.
    Chains,
}

/// Shifts until no shift, or no chain, brings both its ends nearer to their shares.
///
/// It ends because each of them lowers the sum of `count² / weight` over the nodes.
pub(super) fn even_out<G: Graph>(graph: &mut G, reach: Reach) {
    while pass(graph, Reach::Direct) {}
    if reach == Reach::Chains {
        while pass(graph, Reach::Chains) {}
    }
}

/// Tries every node once, the furthest above its share first; says whether anything shifted.
fn pass<G: Graph>(graph: &mut G, reach: Reach) -> bool {
    let mut settled = graph.nodes().per_node(false);
    let mut shifted = false;
    while let Some(source) = next_source(graph, &settled) {
        match relief(graph, source, reach, &settled) {
            Ok(path) if shift_along(graph, &path) => shifted = true,
            Ok(_) => settled[source] = true,
            Err(reached) => reached.into_iter().for_each(|node| settled[node] = true),
        }
    }
    shifted
}

/// The unsettled node furthest above its share, unless even the neediest node is no better off.
fn next_source<G: Graph>(graph: &G, settled: &PerNode<bool>) -> Option<NodeIndex> {
    let nodes = graph.nodes();
    let counted = |node| graph.counted(node);
    let source = nodes.targets().filter(|&node| !settled[node]).map(counted);
    let source = source.max_by(|&a, &b| nodes.order_of_giving(a, b).then(b.node.cmp(&a.node)))?;
    let target = nodes.targets().filter(|&node| graph.has_room(node)).map(counted);
    let target = target.min_by(|&a, &b| nodes.order_of_taking(a, b))?;
    nodes.evens(source, target).then_some(source.node)
}

/// The shortest path from `source` to a node that it can relieve itself to, or the nodes that have
/// nothing to gain because `source` has not.
///
/// A node reached in vain is no better placed than `source`: what it reaches, `source` reaches, and
/// it is not further above its share. So the pass need neither try it nor pass through it again.
fn relief<G: Graph>(
    graph: &G,
    source: NodeIndex,
    reach: Reach,
    settled: &PerNode<bool>,
) -> Result<Vec<NodeIndex>, Vec<NodeIndex>> {
    let nodes = graph.nodes();
    let from = graph.counted(source);
    let is_goal = |node| graph.has_room(node) && nodes.evens(from, graph.counted(node));
    match reach {
        Reach::Direct => {
            let goals = nodes.targets().filter(|&node| is_goal(node)).collect();
            Search::new(nodes, &[source], goals).path_to(graph, is_goal).map_err(|_| [source].into())
        }
        Reach::Chains => {
            let open = nodes.targets().filter(|&node| node != source && !settled[node]).collect();
            Search::new(nodes, &[source], open).path_to(graph, is_goal)
        }
    }
}

/// The shortest path from one of `starts`, whose room is taken, to a node with room.
pub(super) fn path_to_room<G: Graph>(graph: &G, starts: &[NodeIndex]) -> Option<Vec<NodeIndex>> {
    let nodes = graph.nodes();
    let open = nodes.targets().filter(|node| !starts.contains(node)).collect();
    Search::new(nodes, starts, open).path_to(graph, |node| graph.has_room(node)).ok()
}

/// Shifts one thing along each edge of `path`, each of another row. Where that turns out to be
/// impossible, since one shift closed the way of the next, nothing changes.
pub(super) fn shift_along<G: Graph>(graph: &mut G, path: &[NodeIndex]) -> bool {
    let mut done: Vec<Step> = Vec::with_capacity(path.len());
    for edge in path.windows(2) {
        let Some(step) = best_step(graph, edge[0], edge[1], &done) else {
            undo(graph, &done);
            return false;
        };
        graph.shift(step);
        done.push(step);
    }
    true
}

fn best_step<G: Graph>(graph: &G, source: NodeIndex, target: NodeIndex, done: &[Step]) -> Option<Step> {
    let unused = |row: &usize| done.iter().all(|step| step.row != *row);
    let steps = graph.rows_of(source).filter(unused).map(|row| Step { row, source, target });
    steps.filter(|&step| graph.allows(step)).max_by_key(|&step| graph.preference(step))
}

fn undo<G: Graph>(graph: &mut G, done: &[Step]) {
    for &Step { row, source, target } in done.iter().rev() {
        graph.shift(Step { row, source: target, target: source });
    }
}

/// A breadth-first search, level by level.
struct Search {
    /// The nodes not yet reached, those of one zone together.
    open: Vec<Vec<NodeIndex>>,
    parents: PerNode<Option<NodeIndex>>,
    reached: Vec<NodeIndex>,
}

impl Search {
    fn new(nodes: &Nodes, starts: &[NodeIndex], mut open: Vec<NodeIndex>) -> Self {
        open.sort_by_key(|&node| nodes[node].zone);
        let open = open.chunk_by(|&a, &b| nodes[a].zone == nodes[b].zone).map(<[_]>::to_vec).collect();
        Self { open, parents: nodes.per_node(None), reached: starts.to_vec() }
    }

    /// The path to the neediest goal among the nearest, or every node that was reached.
    fn path_to<G: Graph>(
        mut self,
        graph: &G,
        is_goal: impl Fn(NodeIndex) -> bool,
    ) -> Result<Vec<NodeIndex>, Vec<NodeIndex>> {
        let nodes = graph.nodes();
        let mut level_start = 0;
        while level_start < self.reached.len() {
            let level_end = self.reached.len();
            self.expand(graph, level_start, level_end);
            let goals = self.reached[level_end..].iter().copied().filter(|&node| is_goal(node));
            let goals = goals.map(|node| graph.counted(node));
            let best = goals.min_by(|&a, &b| nodes.order_of_taking(a, b).then(a.node.cmp(&b.node)));
            if let Some(goal) = best {
                return Ok(self.trace(goal.node));
            }
            level_start = level_end;
        }
        Err(self.reached)
    }

    fn expand<G: Graph>(&mut self, graph: &G, level_start: usize, level_end: usize) {
        for at in level_start..level_end {
            let source = self.reached[at];
            for row in graph.rows_of(source) {
                if self.open.is_empty() {
                    return;
                }
                self.visit(graph, row, source);
            }
        }
    }

    fn visit<G: Graph>(&mut self, graph: &G, row: usize, source: NodeIndex) {
        let Self { open, parents, reached } = self;
        open.retain_mut(|zone| {
            if graph.allows_zone(Step { row, source, target: zone[0] }) {
                let visited =
                    zone.extract_if(.., |target| graph.allows(Step { row, source, target: *target }));
                for target in visited {
                    parents[target] = Some(source);
                    reached.push(target);
                }
            }
            !zone.is_empty()
        });
    }

    fn trace(&self, goal: NodeIndex) -> Vec<NodeIndex> {
        let mut path: Vec<_> = core::iter::successors(Some(goal), |&node| self.parents[node]).collect();
        path.reverse();
        path
    }
}
