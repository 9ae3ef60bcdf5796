//! The invariants, each in its function, checked after every step.
//!
//! I1, I5, I6, I7, I11 and I13 are promises about a moment, and are checked where that moment is: when somebody
//! begins to lead, takes a record, commits or truncates, answers or applies, completes a barrier, stamps. I15 is
//! a promise about runs without faults: [`heal`](super::heal). All others are checked here, for the partitions
//! and replicas that the step touched.

use super::limits::{PARTITIONS, TOPOLOGIES_KEPT};
use super::rules::{Invariant, Rule};
use super::set::Set;
use super::state::World;

impl World {
    /// Checks what the last step touched.
    pub(crate) fn check(&mut self) {
        if !std::mem::take(&mut self.is_touched) {
            return;
        }
        for partition in 0..PARTITIONS {
            let touched = std::mem::take(&mut self.touched[partition]);
            if !touched.is_empty() {
                self.check_partition(partition, touched);
            }
        }
        self.expect(self.versions_grow(), Invariant::I14);
    }

    fn check_partition(&mut self, partition: usize, touched: Set) {
        self.expect(self.proposals_are_known(partition), Invariant::I2);
        self.expect(self.members_hold_committed(partition), Invariant::I3);
        self.expect(self.leader_holds_committed(partition), Invariant::I4);
        self.expect(self.commits_are_true(partition, touched), Invariant::I8);
        self.expect(self.in_sync_is_sound(partition), Invariant::I9);
        self.expect(self.leases_are_fresh(partition), Invariant::I10);
        self.expect(self.some_disk_holds_committed(partition), Invariant::I12);
    }

    fn expect(&mut self, is_well: bool, invariant: Invariant) {
        if !is_well {
            self.fail(invariant);
        }
    }

    /// The leader of the control plane's epoch, if it knows that it is.
    fn true_leader(&self, partition: usize) -> Option<usize> {
        let configuration = &self.control.partitions[partition];
        let leader = usize::from(configuration.leader);
        let knows = |leader: &usize| {
            self.leading[partition].has(*leader) && self.view(*leader, partition).epoch == configuration.epoch
        };
        Some(leader).filter(|leader| *leader < self.setting.nodes).filter(knows)
    }

    fn holds_committed(&self, node: usize, partition: usize) -> bool {
        let committed = self.ghosts[partition].committed;
        self.records[partition].starts_with(self.replicas[partition][node].tip, committed)
    }

    /// I2.
    fn proposals_are_known(&self, partition: usize) -> bool {
        let in_sync = self.control.partitions[partition].in_sync;
        self.true_leader(partition).is_none_or(|leader| in_sync.is_within(self.maximal(leader, partition)))
    }

    /// I3. A run that is not registered is not live: it is judged when it registers.
    fn members_hold_committed(&self, partition: usize) -> bool {
        let configuration = &self.control.partitions[partition];
        let is_live = |node: &usize| self.nodes[*node].is_up && self.nodes[*node].inc != 0;
        let mut members = configuration.electable().and(self.control.live).into_iter().filter(is_live);
        members.all(|node| self.holds_committed(node, partition))
    }

    /// I4.
    fn leader_holds_committed(&self, partition: usize) -> bool {
        self.true_leader(partition).is_none_or(|leader| self.holds_committed(leader, partition))
    }

    /// I8. What a power cut left of a log is judged when its process starts.
    fn commits_are_true(&self, partition: usize, touched: Set) -> bool {
        let (records, committed) = (&self.records[partition], self.ghosts[partition].committed);
        touched.into_iter().all(|node| {
            let replica = &self.replicas[partition][node];
            if replica.uid == 0 || replica.is_damaged || !self.nodes[node].is_up {
                return true;
            }
            let known = records.cut(replica.tip, replica.commit);
            records.len(replica.tip) >= replica.commit.max(replica.log_start)
                && replica.log_start <= records.len(committed)
                && records.starts_with(committed, known)
        })
    }

    /// I9.
    fn in_sync_is_sound(&self, partition: usize) -> bool {
        let configuration = &self.control.partitions[partition];
        let is_bound = self.holds(Rule::InSyncAtLeastMinimum);
        let leader = usize::from(configuration.leader);
        (configuration.in_sync.len() >= self.setting.minimum || !is_bound)
            && configuration.in_sync.is_within(configuration.replicas)
            && configuration.tainted.is_within(configuration.in_sync)
            && (leader >= self.setting.nodes || configuration.in_sync.has(leader))
    }

    /// I10.
    fn leases_are_fresh(&self, partition: usize) -> bool {
        let committed = self.records[partition].len(self.ghosts[partition].committed);
        self.leading[partition].into_iter().all(|node| {
            self.replicas[partition][node].commit == committed
                || !self.is_active(node, partition)
                || !self.has_lease(node, partition)
        })
    }

    /// I12.
    fn some_disk_holds_committed(&self, partition: usize) -> bool {
        let is_excused = self.ghosts[partition].lost.len() >= self.setting.minimum;
        let is_held = |node: usize| {
            let replica = &self.replicas[partition][node];
            replica.uid != 0 && self.holds_committed(node, partition)
        };
        is_excused || self.all().into_iter().any(is_held)
    }

    /// I14.
    fn versions_grow(&self) -> bool {
        let before = &self.history[usize::from(self.version.max(2) - 1) % TOPOLOGIES_KEPT];
        let grows = |partition: usize| {
            let (old, new) = (&before.partitions[partition], &self.control.partitions[partition]);
            let is_same = (old.leader, old.in_sync, old.tainted, old.replicas, old.epoch, old.uid)
                == (new.leader, new.in_sync, new.tainted, new.replicas, new.epoch, new.uid);
            old.epoch <= new.epoch && (old.version < new.version || is_same)
        };
        (0..PARTITIONS).all(grows)
            && self.all().into_iter().all(|node| before.inc[node] <= self.control.inc[node])
    }
}
