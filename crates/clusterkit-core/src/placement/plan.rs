//! What to move next, within a budget.

use alloc::vec::Vec;

use super::even::Reach;
use super::leaders::Leaders;
use super::nodes::{NodeIndex, Nodes, PerNode};
use super::solve::solve;
use super::table::{Row, Table, crowd};
use super::{PlacementNode, PlacementRow, Standing};
use crate::id::{NodeId, PartitionId};

/// What to move next so that `rows` come nearer to the goals of placement.
///
/// Call it again when the moves are done, or are under way and marked as `busy`: it works out the
/// whole way to a table that meets the goals, and gives the most urgent steps of it that `budget`
/// allows, at most one for each partition. The answer is empty exactly when nothing can be
/// improved. When one node comes or goes, its copies move and no others, unless the table is so
/// tight that none can take them; a copy moves twice only where moves under way bar a shorter way.
/// It changes nothing, so it is its own dry run.
///
/// `replication_factor` is how many copies each partition shall have now. While there are fewer
/// nodes than the configured factor, holes stay open until nodes come; pass the number of nodes
/// that stay when the last spare ones leave, so that their copies may be dropped.
///
/// It costs about as much as placing the copies that are out of place: a pass over the rows when
/// there are none.
#[must_use]
pub fn repair(
    rows: &[PlacementRow],
    nodes: &[PlacementNode],
    replication_factor: u32,
    budget: Budget,
) -> Plan {
    let nodes = Nodes::new(nodes, rows);
    let mut table = Table::new(&nodes, rows, replication_factor);
    let mut leaders = Leaders::new(&nodes, rows, &table.rows);
    leaders.evacuate(budget.leader_moves_max as usize);
    solve(&mut table);
    let mut changes = changes(&table, &leaders);
    retain_affordable(&table, &mut changes, budget.moves_max);
    changes.iter().for_each(|change| leaders.follow(change.row, change.source, change.target));
    leaders.even_out(reach_of(&table, &changes));
    Plan {
        moves: changes.iter().map(|change| planned_move(&nodes, change)).collect(),
        leader_moves: leader_moves(&nodes, &leaders, budget.leader_moves_max),
    }
}

/// How much a plan may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Replicas to add, move or drop at most.
    pub moves_max: u32,
    /// Leaderships to hand over at most.
    pub leader_moves_max: u32,
}

impl Budget {
    /// Everything that can be done at once.
    pub const UNLIMITED: Self = Self { moves_max: u32::MAX, leader_moves_max: u32::MAX };
}

/// What to do next, the most urgent first. No partition occurs twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Replicas to add, move or drop.
    pub moves: Vec<PlannedMove>,
    /// Leaderships to hand over.
    pub leader_moves: Vec<LeaderMove>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty() && self.leader_moves.is_empty()
    }
}

/// A replica to add, move or drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedMove {
    /// The partition.
    pub partition: PartitionId,
    /// The node that gives its copy up, `None` when one is only added. When it leads, the lead
    /// should go to the target, or to another replica first where there is no target.
    pub source: Option<NodeId>,
    /// The node that gets a copy, `None` when one is only dropped.
    pub target: Option<NodeId>,
    /// Why.
    pub reason: MoveReason,
}

/// Why a replica moves, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MoveReason {
    /// The partition has fewer copies than it should.
    Fill,
    /// The source is on its way out.
    Replace,
    /// The partition has more copies than it should.
    Shrink,
    /// The source is above its share and the target below it, or the source shares a zone with
    /// another copy. It can wait.
    Balance,
}

/// A leadership to hand over from one replica to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderMove {
    /// The partition.
    pub partition: PartitionId,
    /// The node that leads it now.
    pub from: NodeId,
    /// The replica that shall lead it.
    pub to: NodeId,
}

/// The first step of one row towards its place in the solved table.
struct Change {
    row: usize,
    source: Option<NodeIndex>,
    target: Option<NodeIndex>,
    reason: MoveReason,
}

/// The next step of every row that differs, the most urgent first: rows with the fewest copies, and
/// copies that follow before those that lead.
fn changes(table: &Table<'_>, leaders: &Leaders<'_>) -> Vec<Change> {
    let rows = (0..table.rows.len()).filter(|&row| !leaders.is_evacuated(row));
    let mut changes: Vec<_> = rows.filter_map(|row| change(table, row)).collect();
    changes.sort_by_key(|change| {
        let row = &table.rows[change.row];
        let copies = if change.reason == MoveReason::Fill { row.before.len() } else { 0 };
        let leads = change.source.is_some() && change.source == leaders.leader(change.row);
        (change.reason, copies, leads, change.row)
    });
    changes
}

/// A copy is added before another is given up, and one is dropped only when none is to come.
fn change(table: &Table<'_>, row: usize) -> Option<Change> {
    let record = &table.rows[row];
    let (coming, going) = (record.coming().count(), record.going().count());
    if coming == 0 && going == 0 {
        return None;
    }
    let (source, target) = if coming > going {
        (None, best_target(table.nodes, record, None))
    } else {
        let source = record.going().min_by_key(|&node| source_rank(table, record, node));
        (source, best_target(table.nodes, record, source))
    };
    let reason = match (source, target) {
        (None, _) => MoveReason::Fill,
        (Some(_), None) => MoveReason::Shrink,
        (Some(source), _) if table.standing(source) == Standing::Leave => MoveReason::Replace,
        _ => MoveReason::Balance,
    };
    Some(Change { row, source, target, reason })
}

fn source_rank(table: &Table<'_>, row: &Row, node: NodeIndex) -> impl Ord + use<> {
    (table.standing(node) != Standing::Leave, row.leader_before == Some(node))
}

fn best_target(nodes: &Nodes, row: &Row, source: Option<NodeIndex>) -> Option<NodeIndex> {
    row.coming().min_by_key(|&node| crowd(nodes, &row.before, node, source))
}

/// Keeps the first `moves_max` changes whose target has room for another copy. One that must wait
/// for room comes again, since what makes the room is in the plan as well.
fn retain_affordable(table: &Table<'_>, changes: &mut Vec<Change>, moves_max: u32) {
    let mut counts = table.nodes.per_node(0_usize);
    table.rows.iter().flat_map(|row| &row.before).for_each(|&node| counts[node] += 1);
    let mut moves_left = moves_max;
    changes.retain(|change| {
        let affordable = moves_left > 0 && has_room(table.nodes, &counts, change.target);
        if affordable {
            moves_left -= 1;
            change.target.iter().for_each(|&node| counts[node] += 1);
            change.source.iter().for_each(|&node| counts[node] -= 1);
        }
        affordable
    });
}

fn has_room(nodes: &Nodes, counts: &PerNode<usize>, target: Option<NodeIndex>) -> bool {
    target.is_none_or(|node| counts[node] < nodes[node].capacity)
}

/// While copies move, the leaders that can be evened out now are not those that can be in the end;
/// so chains wait until everything is in its place.
fn reach_of(table: &Table<'_>, changes: &[Change]) -> Reach {
    let busy = table.rows.iter().any(|row| row.frozen);
    if busy || !changes.is_empty() { Reach::Direct } else { Reach::Chains }
}

fn planned_move(nodes: &Nodes, change: &Change) -> PlannedMove {
    let id = |node: NodeIndex| nodes[node].id.clone();
    PlannedMove {
        partition: partition_id(change.row),
        source: change.source.map(id),
        target: change.target.map(id),
        reason: change.reason,
    }
}

fn leader_moves(nodes: &Nodes, leaders: &Leaders<'_>, leader_moves_max: u32) -> Vec<LeaderMove> {
    let id = |node: NodeIndex| nodes[node].id.clone();
    let moves = leaders.changes().take(leader_moves_max as usize);
    moves
        .map(|change| LeaderMove {
            partition: partition_id(change.row),
            from: id(change.from),
            to: id(change.to),
        })
        .collect()
}

fn partition_id(row: usize) -> PartitionId {
    PartitionId(u32::try_from(row).expect("a table has at most PARTITIONS_MAX rows"))
}
