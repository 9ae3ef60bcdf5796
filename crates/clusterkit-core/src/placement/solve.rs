//! From the table as it is to the table as it should be, with the fewest copies moved.

use alloc::vec::Vec;
use core::cmp::Reverse;

use super::Standing;
use super::even::{Graph, Reach, Step, even_out, path_to_room, shift_along};
use super::nodes::{Counted, NodeIndex, Nodes};
use super::table::Table;

/// Changes `copies` of every row that may change, towards the goals of this module in their order.
///
/// Evening out first shifts only what costs nothing, since it is to be moved anyway; so nodes that
/// go leave their copies where they are needed, and no copy moves that need not.
pub(super) fn solve(table: &mut Table<'_>) {
    drop_surplus(table);
    fill_holes(table);
    replace_leaving(table);
    spread_over_zones(table);
    even_out(&mut Copies { table, moves: Moves::Free }, Reach::Chains);
    even_out(&mut Copies { table, moves: Moves::All }, Reach::Chains);
}

fn open_rows(table: &Table<'_>) -> Vec<usize> {
    (0..table.rows.len()).filter(|&row| !table.rows[row].frozen).collect()
}

/// Drops copies above the factor while enough others lie on nodes that stay and are well: a copy on
/// a node that may be dead is neither dropped nor relied upon.
fn drop_surplus(table: &mut Table<'_>) {
    for row in open_rows(table) {
        while let Some(node) = surplus_copy(table, row) {
            table.remove(row, node);
        }
    }
}

fn surplus_copy(table: &Table<'_>, row: usize) -> Option<NodeIndex> {
    let copies = &table.rows[row].copies;
    let sound = copies.iter().filter(|&&node| table.standing(node) == Standing::Target).count();
    let spare = copies.iter().copied().filter(|&node| match table.standing(node) {
        Standing::Target => sound > table.factor,
        Standing::Keep => false,
        Standing::Leave => sound >= table.factor,
    });
    let leads = |node| table.rows[row].leader == Some(node);
    let rank = |node| {
        let leaving = table.standing(node) == Standing::Leave;
        (Reverse(leads(node)), leaving, table.crowd(row, node, None))
    };
    spare.max_by(|&a, &b| {
        let heavier = || table.nodes.order_of_giving(table.counted(a), table.counted(b));
        let unlike = || table.nodes.score(row, b).cmp(&table.nodes.score(row, a));
        rank(a).cmp(&rank(b)).then_with(heavier).then_with(unlike)
    })
}

/// Adds a copy at a time, to the rows with the fewest first.
fn fill_holes(table: &mut Table<'_>) {
    let rows = open_rows(table);
    for copies in 0..table.factor {
        for &row in &rows {
            if table.rows[row].copies.len() <= copies {
                place(table, Place { row, instead_of: None, crowd_max: usize::MAX });
            }
        }
    }
}

/// Finds a new home for copies on nodes that leave, until enough lie on nodes that stay.
fn replace_leaving(table: &mut Table<'_>) {
    for row in open_rows(table) {
        let (leaving, staying): (Vec<_>, Vec<_>) =
            table.rows[row].copies.iter().partition(|&&node| table.standing(node) == Standing::Leave);
        for &node in leaving.iter().take(table.factor.saturating_sub(staying.len())) {
            place(table, Place { row, instead_of: Some(node), crowd_max: usize::MAX });
        }
    }
}

/// Moves copies that share a zone with another to a zone that has fewer, wherever there is room.
fn spread_over_zones(table: &mut Table<'_>) {
    for row in open_rows(table) {
        while crowded_copies(table, row).into_iter().any(|node| {
            let crowd_max = table.crowd(row, node, None) - 1;
            place(table, Place { row, instead_of: Some(node), crowd_max })
        }) {}
    }
}

/// The copies of `row` that share a zone, the one to move first at the front.
fn crowded_copies(table: &Table<'_>, row: usize) -> Vec<NodeIndex> {
    let crowded =
        |node: &NodeIndex| table.standing(*node) == Standing::Target && table.crowd(row, *node, None) > 0;
    let mut copies: Vec<_> = table.rows[row].copies.iter().copied().filter(crowded).collect();
    let rank = |node| (Reverse(table.crowd(row, node, None)), table.rows[row].leader == Some(node));
    copies.sort_by(|&a, &b| {
        let heavier = || table.nodes.order_of_giving(table.counted(b), table.counted(a));
        rank(a).cmp(&rank(b)).then_with(heavier).then_with(|| a.cmp(&b))
    });
    copies
}

/// A wish for a copy of `row`: additional, or in place of one, with at most `crowd_max` others in
/// its zone.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    instead_of: Option<NodeIndex>,
    crowd_max: usize,
}

/// Puts a copy where its zone is least crowded, then where it is needed most. Where only full nodes
/// are least crowded, others may move over.
fn place(table: &mut Table<'_>, wish: Place) -> bool {
    let candidates = candidates(table, wish);
    let Some(crowd_min) = candidates.iter().map(|candidate| candidate.crowd).min() else { return false };
    let with_room = candidates.iter().filter(|candidate| table.has_room(candidate.counted.node));
    let best = with_room.min_by(|a, b| {
        let needier = || table.nodes.order_of_taking(a.counted, b.counted);
        let score = |candidate: &Candidate| table.nodes.score(wish.row, candidate.counted.node);
        a.crowd.cmp(&b.crowd).then_with(needier).then_with(|| score(b).cmp(&score(a)))
    });
    let best = best.copied();
    let roomless = candidates.iter().filter(|candidate| candidate.crowd == crowd_min);
    let node = match best {
        Some(best) if best.crowd == crowd_min => Some(best.counted.node),
        _ => {
            let starts: Vec<_> = roomless.map(|candidate| candidate.counted.node).collect();
            make_room(table, wish.row, &starts).or(best.map(|best| best.counted.node))
        }
    };
    if let Some(node) = node {
        put(table, wish, node);
    }
    node.is_some()
}

#[derive(Clone, Copy)]
struct Candidate {
    counted: Counted,
    crowd: usize,
}

fn candidates(table: &Table<'_>, wish: Place) -> Vec<Candidate> {
    let free = |node: &NodeIndex| table.rows[wish.row].may_take(*node);
    let candidate = |node| Candidate {
        counted: table.counted(node),
        crowd: table.crowd(wish.row, node, wish.instead_of),
    };
    let candidates = table.nodes.targets().filter(free).map(candidate);
    candidates.filter(|candidate| candidate.crowd <= wish.crowd_max).collect()
}

fn put(table: &mut Table<'_>, wish: Place, node: NodeIndex) {
    match wish.instead_of {
        Some(source) => table.shift(wish.row, source, node),
        None => table.add(wish.row, node),
    }
}

/// Makes room for a copy of `row` on one of the full `starts` by moving a copy of another row on,
/// and says where.
fn make_room(table: &mut Table<'_>, row: usize, starts: &[NodeIndex]) -> Option<NodeIndex> {
    table.nodes.targets().find(|&node| table.has_room(node))?;
    table.rows[row].frozen = true;
    let mut copies = Copies { table, moves: Moves::All };
    let path = path_to_room(&copies, starts).filter(|path| shift_along(&mut copies, path));
    table.rows[row].frozen = false;
    path.map(|path| path[0])
}

/// The table as something to even out.
struct Copies<'t, 'n> {
    table: &'t mut Table<'n>,
    moves: Moves,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Moves {
    /// Whatever the zones allow.
    All,
    /// Only what moves no copy that would stay otherwise.
    Free,
}

impl Copies<'_, '_> {
    /// How many moves of data `step` saves: it may redirect a copy that moves anyway, and may put it
    /// back where it was.
    fn saved(&self, step: Step) -> u8 {
        let before = &self.table.rows[step.row].before;
        u8::from(!before.contains(&step.source)) + u8::from(before.contains(&step.target))
    }
}

impl Graph for Copies<'_, '_> {
    fn nodes(&self) -> &Nodes {
        self.table.nodes
    }

    fn counted(&self, node: NodeIndex) -> Counted {
        self.table.counted(node)
    }

    fn has_room(&self, node: NodeIndex) -> bool {
        self.table.has_room(node)
    }

    fn rows_of(&self, node: NodeIndex) -> impl Iterator<Item = usize> {
        self.table.rows_held(node).filter(|&row| !self.table.rows[row].frozen)
    }

    fn allows(&self, step: Step) -> bool {
        self.table.rows[step.row].may_take(step.target)
            && (self.moves == Moves::All || self.saved(step) > 0)
            && self.allows_zone(step)
    }

    fn allows_zone(&self, step: Step) -> bool {
        let crowd = |node| self.table.crowd(step.row, node, Some(step.source));
        crowd(step.target) <= crowd(step.source)
    }

    fn preference(&self, step: Step) -> impl Ord {
        let follows = self.table.rows[step.row].leader != Some(step.source);
        (self.saved(step), follows, self.table.nodes.score(step.row, step.target))
    }

    fn shift(&mut self, step: Step) {
        self.table.shift(step.row, step.source, step.target);
    }
}
