//! Which nodes vote in the control plane.
//!
//! Up to five voters, spread over zones; every other node follows as a learner. One step at a time:
//! promoting several learners in one change has shown itself fragile in practice, and a step that is
//! too small costs one round more, no safety.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::id::{NodeId, StoreId};
use crate::limits::VOTERS_MAX;
use crate::topology::{Liveness, Node, RaftRole, Stage, Topology};

/// Who belongs to the Raft group now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VoterSet {
    /// Members that vote.
    pub voters: BTreeSet<StoreId>,
    /// Members that follow.
    pub learners: BTreeSet<StoreId>,
    /// Learners that have the whole log but for the last entries.
    pub caught_up: BTreeSet<StoreId>,
}

/// One change of the Raft group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoterStep {
    /// A registered node becomes a learner.
    AddLearner(StoreId),
    /// A learner that caught up becomes a voter.
    Promote(StoreId),
    /// A voter becomes a learner.
    Demote(StoreId),
    /// A member whose store is registered no more goes.
    Remove(StoreId),
}

/// The next change that brings the group to where it should be, `None` when it is there or can only
/// wait. `gone` are nodes dead for so long that another node shall vote in their place.
#[must_use]
pub fn next_voter_step(topology: &Topology, set: &VoterSet, gone: &BTreeSet<NodeId>) -> Option<VoterStep> {
    let view = Voters::new(topology, set, gone);
    view.add_learner().or_else(|| view.promote()).or_else(|| view.demote()).or_else(|| view.remove())
}

/// How many voters a group of `eligible` nodes shall have: an odd number, since the even one above
/// it tolerates no more losses; but two of two, so that the control state exists twice.
#[must_use]
pub fn voters_wanted(eligible: usize) -> usize {
    match eligible {
        0..=2 => eligible,
        _ => VOTERS_MAX.min(eligible - (eligible + 1) % 2),
    }
}

struct Voters<'a> {
    by_store: BTreeMap<StoreId, &'a Node>,
    /// Nodes that have left and run still: they are told that, and what went before.
    leaving: BTreeSet<StoreId>,
    set: &'a VoterSet,
    gone: &'a BTreeSet<NodeId>,
    wanted: usize,
}

impl<'a> Voters<'a> {
    fn new(topology: &'a Topology, set: &'a VoterSet, gone: &'a BTreeSet<NodeId>) -> Self {
        let leaving = topology.nodes.values().filter(|node| node.stage == Stage::Left && runs(node));
        let leaving = leaving.map(|node| node.store).collect();
        let staying = topology.nodes.values().filter(|node| node.stage != Stage::Left);
        let by_store: BTreeMap<_, _> = staying.map(|node| (node.store, node.as_ref())).collect();
        let eligible = by_store.values().filter(|node| may_vote(node)).count();
        Self { by_store, leaving, set, gone, wanted: voters_wanted(eligible).max(1) }
    }

    fn add_learner(&self) -> Option<VoterStep> {
        let member = |store: &&StoreId| self.set.voters.contains(store) || self.set.learners.contains(store);
        self.by_store.keys().find(|store| !member(store)).copied().map(VoterStep::AddLearner)
    }

    /// Fills the group up, and brings in a replacement before a bad voter goes.
    fn promote(&self) -> Option<VoterStep> {
        let good = self.set.voters.iter().filter(|store| self.is_good(store)).count();
        if good >= self.wanted || self.set.voters.len() > self.wanted {
            return None;
        }
        let zones = self.zone_counts();
        let fit = |store: &&StoreId| self.set.caught_up.contains(store) && self.is_fit(store);
        let crowded = |store: &&StoreId| {
            (self.zone(store).map_or(0, |zone| zones.get(zone).copied().unwrap_or(0)), **store)
        };
        self.set.learners.iter().filter(fit).min_by_key(crowded).copied().map(VoterStep::Promote)
    }

    /// Too many voters: the worst one goes.
    fn demote(&self) -> Option<VoterStep> {
        if self.set.voters.len() <= self.wanted {
            return None;
        }
        let zones = self.zone_counts();
        let worst = |store: &&StoreId| {
            let crowd = self.zone(store).map_or(0, |zone| zones.get(zone).copied().unwrap_or(0));
            (!self.is_registered(store), !self.is_good(store), !self.is_live(store), crowd, **store)
        };
        self.set.voters.iter().max_by_key(worst).copied().map(VoterStep::Demote)
    }

    /// Learners that nobody registered, and as a last resort such voters.
    fn remove(&self) -> Option<VoterStep> {
        let stray = |store: &&StoreId| !self.is_registered(store) && !self.leaving.contains(*store);
        if let Some(store) = self.set.learners.iter().find(stray) {
            return Some(VoterStep::Remove(*store));
        }
        let others = self.set.voters.iter().any(|store| self.is_registered(store));
        let voter = self.set.voters.iter().find(stray).filter(|_| others);
        voter.copied().map(VoterStep::Remove)
    }

    fn zone_counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for zone in self.set.voters.iter().filter_map(|store| self.zone(store)) {
            *counts.entry(zone).or_default() += 1;
        }
        counts
    }

    fn zone(&self, store: &StoreId) -> Option<&str> {
        self.by_store.get(store)?.zone.as_deref()
    }

    fn is_registered(&self, store: &StoreId) -> bool {
        self.by_store.contains_key(store)
    }

    fn is_live(&self, store: &StoreId) -> bool {
        self.by_store.get(store).is_some_and(|node| node.is_live())
    }

    /// Whether a voter may stay one.
    fn is_good(&self, store: &StoreId) -> bool {
        self.by_store.get(store).is_some_and(|node| may_vote(node) && !self.gone.contains(&node.id))
    }

    /// Whether a learner may become a voter.
    fn is_fit(&self, store: &StoreId) -> bool {
        self.is_good(store) && self.is_live(store)
    }
}

/// Whether the process is there, whatever it is there for.
fn runs(node: &Node) -> bool {
    matches!(node.liveness, Liveness::Alive | Liveness::Suspect)
}

fn may_vote(node: &Node) -> bool {
    node.role == RaftRole::Voter && node.stage == Stage::Member
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;
    use alloc::sync::Arc;
    use alloc::vec::Vec;

    use super::*;
    use crate::id::{BootId, Incarnation};
    use crate::topology::Liveness;

    fn node(number: u64) -> Node {
        Node {
            id: NodeId::new(&format!("n{number}")).unwrap(),
            store: StoreId(number),
            boot: BootId(number),
            incarnation: Incarnation(1),
            node_addr: format!("h{number}:7000"),
            public_addr: format!("h{number}:8080"),
            zone: Some(format!("z{}", number % 2)),
            weight: 1,
            role: RaftRole::Voter,
            holds_data: true,
            reports_position: false,
            liveness: Liveness::Alive,
            stage: Stage::Member,
            software: "0.1.0".to_string(),
            metadata: BTreeMap::new(),
        }
    }

    fn topology(nodes: impl IntoIterator<Item = Node>) -> Topology {
        let nodes = nodes.into_iter().map(|node| (node.id.clone(), Arc::new(node))).collect();
        Topology { nodes, ..Topology::default() }
    }

    fn set(voters: &[u64], learners: &[u64]) -> VoterSet {
        let stores = |numbers: &[u64]| numbers.iter().copied().map(StoreId).collect::<BTreeSet<_>>();
        VoterSet { voters: stores(voters), learners: stores(learners), caught_up: stores(learners) }
    }

    /// Runs steps to the end and says who votes and who follows then.
    fn settle(topology: &Topology, mut set: VoterSet, gone: &BTreeSet<NodeId>) -> (Vec<u64>, Vec<u64>) {
        for _ in 0..50 {
            let Some(step) = next_voter_step(topology, &set, gone) else {
                let numbers = |stores: &BTreeSet<StoreId>| stores.iter().map(|store| store.0).collect();
                return (numbers(&set.voters), numbers(&set.learners));
            };
            match step {
                VoterStep::AddLearner(store) => {
                    set.learners.insert(store);
                    set.caught_up.insert(store);
                }
                VoterStep::Promote(store) => {
                    set.learners.remove(&store);
                    set.voters.insert(store);
                }
                VoterStep::Demote(store) => {
                    set.voters.remove(&store);
                    set.learners.insert(store);
                }
                VoterStep::Remove(store) => {
                    set.voters.remove(&store);
                    set.learners.remove(&store);
                }
            }
            assert!(!set.voters.is_empty());
        }
        panic!("the voters do not come to rest");
    }

    #[test]
    fn an_odd_number_votes_but_for_two() {
        let wanted: Vec<_> = (0..=8).map(voters_wanted).collect();
        assert_eq!(wanted, [0, 1, 2, 3, 3, 5, 5, 5, 5]);
    }

    #[test]
    fn voters_grow_with_the_cluster_up_to_five() {
        let none = BTreeSet::new();
        assert_eq!(
            settle(&topology((1..=3).map(node)), set(&[1], &[]), &none),
            ([1, 2, 3].into(), [].into())
        );
        let (voters, learners) = settle(&topology((1..=7).map(node)), set(&[1, 2, 3], &[]), &none);
        assert_eq!((voters.len(), learners.len()), (5, 2));
    }

    #[test]
    fn a_gone_voter_is_replaced_before_it_is_demoted() {
        let mut dead = node(3);
        dead.liveness = Liveness::Dead;
        let topology = topology([node(1), node(2), dead.clone(), node(4)]);
        let current = set(&[1, 2, 3], &[4]);
        assert_eq!(next_voter_step(&topology, &current, &BTreeSet::new()), None, "it may come back");
        let gone = BTreeSet::from([dead.id]);
        assert_eq!(next_voter_step(&topology, &current, &gone), Some(VoterStep::Promote(StoreId(4))));
        assert_eq!(settle(&topology, current, &gone), ([1, 2, 4].into(), [3].into()));
    }

    #[test]
    fn a_gone_voter_stays_where_nobody_can_replace_it() {
        let mut dead = node(3);
        dead.liveness = Liveness::Dead;
        let topology = topology([node(1), node(2), dead.clone()]);
        assert_eq!(next_voter_step(&topology, &set(&[1, 2, 3], &[]), &BTreeSet::from([dead.id])), None);
    }

    #[test]
    fn a_wiped_store_is_added_anew_and_the_old_one_goes() {
        let mut wiped = node(3);
        wiped.store = StoreId(33);
        let topology = topology([node(1), node(2), wiped]);
        let none = BTreeSet::new();
        assert_eq!(settle(&topology, set(&[1, 2, 3], &[]), &none), ([1, 2, 33].into(), [].into()));
    }

    #[test]
    fn leaving_nodes_and_learners_by_role_do_not_vote() {
        let mut leaving = node(1);
        leaving.stage = Stage::Leaving;
        let mut learner = node(2);
        learner.role = RaftRole::Learner;
        let topology = topology([leaving, learner, node(3), node(4), node(5)]);
        let (voters, _) = settle(&topology, set(&[1, 3, 4], &[2, 5]), &BTreeSet::new());
        assert_eq!(voters, [3, 4, 5]);
    }

    #[test]
    fn a_learner_that_lags_is_not_promoted() {
        let topology = topology((1..=3).map(node));
        let mut current = set(&[1], &[2, 3]);
        current.caught_up.clear();
        assert_eq!(next_voter_step(&topology, &current, &BTreeSet::new()), None);
    }

    #[test]
    fn a_promotion_prefers_the_emptier_zone() {
        let topology = topology((1..=4).map(node));
        let step = next_voter_step(&topology, &set(&[1, 3], &[2, 4]), &BTreeSet::new());
        assert_eq!(step, Some(VoterStep::Promote(StoreId(2))), "zone z1 has two voters already");
    }
}
