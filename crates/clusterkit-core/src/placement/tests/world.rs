//! A cluster that does what a plan says.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use super::super::nodes::mix;
use super::super::*;

/// Rounds that any repair of these small tables must end within.
const ROUNDS_MAX: u32 = 5_000;

/// A table, its nodes and what repair is asked.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) rows: Vec<PlacementRow>,
    pub(super) nodes: Vec<PlacementNode>,
    pub(super) factor: u32,
    pub(super) budget: Budget,
}

/// What moved until nothing was left to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) added: u32,
    pub(super) dropped: u32,
    pub(super) leaders: u32,
}

pub(super) fn node(name: &str) -> PlacementNode {
    let id = NodeId::new(name).unwrap();
    PlacementNode { id, weight: 1, zone: None, capacity: None, standing: Standing::Target }
}

pub(super) fn nodes_of(names: &[&str]) -> Vec<PlacementNode> {
    names.iter().map(|name| node(name)).collect()
}

/// The nodes `a`, `b` and `c` of `abc`.
pub(super) fn ids(names: &str) -> Vec<NodeId> {
    names.chars().map(|name| NodeId::new(&format!("{name}")).unwrap()).collect()
}

/// How many copies each node holds, in the order of `world.nodes`.
pub(super) fn counts(world: &World) -> Vec<u32> {
    let spread = world.spread();
    world.nodes.iter().map(|node| spread.nodes[&node.id].replicas).collect()
}

/// How many partitions each node leads, in the order of `world.nodes`.
pub(super) fn leader_counts(world: &World) -> Vec<u32> {
    let spread = world.spread();
    world.nodes.iter().map(|node| spread.nodes[&node.id].leaders).collect()
}

impl World {
    pub(super) fn of(names: &[&str], factor: u32, rows: Vec<PlacementRow>) -> Self {
        Self { rows, nodes: nodes_of(names), factor, budget: Budget::UNLIMITED }
    }

    pub(super) fn empty(node_count: usize, partition_count: u32, factor: u32) -> Self {
        let nodes = (0..node_count).map(|number| node(&format!("node-{number:02}"))).collect();
        let rows = (0..partition_count).map(|_| PlacementRow::default()).collect();
        Self { rows, nodes, factor, budget: Budget::UNLIMITED }
    }

    pub(super) fn balanced(node_count: usize, partition_count: u32, factor: u32) -> Self {
        let mut world = Self::empty(node_count, partition_count, factor);
        world.lay_out(Strategy::Balanced);
        world
    }

    /// Begins anew with the first table of `strategy`.
    pub(super) fn lay_out(&mut self, strategy: Strategy) {
        let partition_count = u32::try_from(self.rows.len()).unwrap();
        let table = first_table(strategy, &self.nodes, partition_count, self.factor);
        self.rows = table.into_iter().map(PlacementRow::from).collect();
    }

    /// Puts the nodes into `count` zones, one after the other.
    pub(super) fn zones(&mut self, count: usize) {
        for (number, node) in self.nodes.iter_mut().enumerate() {
            node.zone = Some(format!("zone-{}", number % count));
        }
    }

    pub(super) fn plan(&self) -> Plan {
        repair(&self.rows, &self.nodes, self.factor, self.budget)
    }

    pub(super) fn spread(&self) -> Spread {
        spread(&self.rows, &self.nodes, self.factor)
    }

    /// Repairs until nothing is left to do.
    pub(super) fn settle(&mut self) -> Moved {
        let mut moved = Moved::default();
        for _ in 0..ROUNDS_MAX {
            let plan = self.plan();
            if plan.is_empty() {
                return moved;
            }
            self.check_plan(&plan);
            plan.moves.iter().for_each(|planned| self.finish(planned, &mut moved));
            plan.leader_moves.iter().for_each(|change| self.hand_over(change, &mut moved));
        }
        panic!("repair does not come to rest: {:?}", self.plan());
    }

    /// Repairs until nothing is left to do, where a move takes up to four rounds.
    pub(super) fn settle_slowly(&mut self, seed: u64) -> Moved {
        let mut moved = Moved::default();
        let before = self.rows.clone();
        let mut under_way: Vec<(u64, PlannedMove)> = Vec::new();
        for round in 0..u64::from(ROUNDS_MAX) {
            let (done, rest): (Vec<_>, Vec<_>) = under_way.into_iter().partition(|(end, _)| *end <= round);
            under_way = rest;
            done.iter().for_each(|(_, planned)| self.finish(planned, &mut moved));
            let plan = self.plan();
            if plan.is_empty() && under_way.is_empty() {
                let new = self.copies_new_since(&before);
                assert!(moved.added <= new + new / 8 + 4, "{} moves for {new} copies", moved.added);
                return moved;
            }
            self.check_plan(&plan);
            plan.leader_moves.iter().for_each(|change| self.hand_over(change, &mut moved));
            for planned in plan.moves {
                match &planned.target {
                    Some(target) => {
                        let row = &mut self.rows[planned.partition.index()];
                        row.busy = Some((planned.source.clone(), target.clone()));
                        let end = round + 1 + mix(seed ^ round ^ u64::from(planned.partition.0)) % 4;
                        under_way.push((end, planned));
                    }
                    None => self.finish(&planned, &mut moved),
                }
            }
        }
        panic!("repair does not come to rest: {:?}", self.plan());
    }

    fn copies_new_since(&self, before: &[PlacementRow]) -> u32 {
        let rows = self.rows.iter().zip(before);
        let new =
            rows.flat_map(|(now, before)| now.replicas.iter().filter(|node| !before.replicas.contains(node)));
        u32::try_from(new.count()).unwrap()
    }

    fn finish(&mut self, planned: &PlannedMove, moved: &mut Moved) {
        let row = &mut self.rows[planned.partition.index()];
        row.busy = None;
        if let Some(target) = &planned.target {
            row.replicas.push(target.clone());
            row.electable.insert(target.clone());
            moved.added += 1;
        }
        if let Some(source) = &planned.source {
            row.replicas.retain(|node| node != source);
            row.electable.remove(source);
            moved.dropped += u32::from(planned.target.is_none());
        }
        if row.leader.is_some() && row.leader == planned.source {
            row.leader.clone_from(&planned.target);
        }
    }

    fn hand_over(&mut self, change: &LeaderMove, moved: &mut Moved) {
        self.rows[change.partition.index()].leader = Some(change.to.clone());
        moved.leaders += 1;
    }

    fn node(&self, id: &NodeId) -> &PlacementNode {
        self.nodes.iter().find(|node| node.id == *id).unwrap()
    }

    /// What every plan promises, whatever the table.
    fn check_plan(&self, plan: &Plan) {
        assert!(plan.moves.len() <= self.budget.moves_max as usize);
        assert!(plan.leader_moves.len() <= self.budget.leader_moves_max as usize);
        assert!(plan.moves.is_sorted_by_key(|planned| planned.reason));
        let mut partitions: Vec<_> = plan.moves.iter().map(|planned| planned.partition).collect();
        partitions.extend(plan.leader_moves.iter().map(|change| change.partition));
        partitions.sort();
        assert!(partitions.is_sorted_by(|a, b| a < b), "a partition occurs twice");
        plan.moves.iter().for_each(|planned| self.check_move(planned));
        plan.leader_moves.iter().for_each(|change| self.check_hand_over(change));
        self.check_capacities(plan);
    }

    fn check_move(&self, planned: &PlannedMove) {
        let row = &self.rows[planned.partition.index()];
        assert!(row.busy.is_none());
        if let Some(target) = &planned.target {
            assert!(!row.replicas.contains(target));
            assert_eq!(self.node(target).standing, Standing::Target);
        }
        if let Some(source) = &planned.source {
            assert!(row.replicas.contains(source));
        }
        if planned.target.is_none() {
            assert!(row.replicas.len() > self.factor as usize);
            assert_ne!(planned.source, None);
        }
    }

    fn check_hand_over(&self, change: &LeaderMove) {
        let row = &self.rows[change.partition.index()];
        assert!(row.busy.is_none());
        assert_eq!(row.leader.as_ref(), Some(&change.from));
        assert!(row.electable.contains(&change.to) && row.replicas.contains(&change.to));
        assert_eq!(self.node(&change.to).standing, Standing::Target);
    }

    fn check_capacities(&self, plan: &Plan) {
        let mut held: BTreeMap<_, _> =
            self.spread().nodes.into_iter().map(|(id, share)| (id, share.replicas)).collect();
        for target in plan.moves.iter().filter_map(|planned| planned.target.as_ref()) {
            *held.get_mut(target).unwrap() += 1;
        }
        for source in plan.moves.iter().filter_map(|planned| planned.source.as_ref()) {
            *held.get_mut(source).unwrap() -= 1;
        }
        for planned in plan.moves.iter().filter_map(|planned| planned.target.as_ref()) {
            let capacity = self.node(planned).capacity.unwrap_or(u32::MAX);
            assert!(held[planned] <= capacity, "{planned} is over its capacity");
        }
    }

    /// Changes the cluster at random: weights, zones, capacities, standings, new nodes, lost copies.
    pub(super) fn shake(&mut self, seed: u64) {
        let mut state = seed;
        let mut draw = |below: u64| {
            state = mix(state);
            state % below
        };
        for _ in 0..=draw(3) {
            let at = draw(self.nodes.len() as u64) as usize;
            match draw(8) {
                0 => self.nodes[at].weight = 1 + draw(4) as u32,
                1 => self.nodes[at].zone = Some(format!("zone-{}", draw(4))),
                2 => self.nodes[at].zone = None,
                3 => self.nodes[at].capacity = Some(draw(1 + 2 * self.rows.len() as u64) as u32),
                4 => self.nodes[at].standing = [Standing::Keep, Standing::Leave][draw(2) as usize],
                5 => self.nodes.iter_mut().for_each(|node| node.standing = Standing::Target),
                6 => self
                    .nodes
                    .push(node(&format!("late-{:04}", draw(10_000) + 10_000 * self.nodes.len() as u64))),
                _ => self.lose_copies(at),
            }
        }
    }

    fn lose_copies(&mut self, at: usize) {
        let lost = &self.nodes[at].id;
        for row in self.rows.iter_mut().filter(|row| row.replicas.len() > 1) {
            row.replicas.retain(|node| node != lost);
            row.electable.remove(lost);
            if row.leader.as_ref() == Some(lost) {
                row.leader = row.replicas.first().cloned();
            }
        }
    }

    /// What holds once nothing is left to do.
    pub(super) fn check_rest(&self) {
        let targets: Vec<_> = self.nodes.iter().filter(|node| node.standing == Standing::Target).collect();
        let spread = self.spread();
        let has_room = |node: &&&PlacementNode| {
            node.capacity.is_none_or(|capacity| spread.nodes[&node.id].replicas < capacity)
        };
        for row in &self.rows {
            let open = targets.iter().filter(has_room).any(|node| !row.replicas.contains(&node.id));
            assert!(!open || row.replicas.len() >= self.factor as usize, "a hole is left");
            let leaving =
                |id: &NodeId| self.nodes.iter().any(|n| n.id == *id && n.standing == Standing::Leave);
            let stuck = row.replicas.iter().any(leaving) && row.replicas.len() <= self.factor as usize;
            assert!(!open || !stuck, "a copy is left on a node that leaves");
        }
    }
}
