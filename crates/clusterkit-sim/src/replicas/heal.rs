//! Faults stop, and within thirty seconds everything is as it should be (invariant I15).

use std::time::Duration;

use clusterkit_core::control::Command;
use clusterkit_core::id::PartitionId;
use clusterkit_core::replica::RoleStatus;
use clusterkit_core::time::Instant;

use super::coverage::Step;
use super::node::index;
use super::world::{Event, World};

/// How long healing may take.
const HEAL_MAX: Duration = Duration::from_secs(30);
/// Between two looks whether everything is well.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

impl World {
    /// Runs until everything is well, and asks for a fresh write and a fresh read then. How long it took.
    pub(super) fn heal(&mut self) -> Duration {
        let began = self.now;
        self.stop_faults();
        let limit = began + HEAL_MAX;
        while self.now < limit && self.violation.is_none() && self.unwell().is_some() {
            self.run_until(self.now + LOOK_PAUSE);
        }
        if let Some((partition, why)) = self.unwell() {
            self.violate("I15", Some(partition), || format!("after {HEAL_MAX:?} without faults: {why}"));
        }
        self.ask_for_service(limit);
        self.cover(Step::Heal);
        self.now.since(began)
    }

    fn stop_faults(&mut self) {
        self.quiet = true;
        self.network.heal();
        self.tell(None, || "faults stop".to_owned());
        let stay = self.nodes.iter().map(|node| Command::CancelDrain { node: node.name.clone() }).collect();
        self.propose_commands(stay);
        for node in 0..self.nodes.len() {
            let state = &mut self.nodes[node];
            state.sync_fails = false;
            state.paused_until = state.paused_until.min(self.now);
            state.slow_disk_until = Instant::ORIGIN;
            if state.process.is_none() {
                let delay = self.chance.millis(0, 300);
                self.after(delay, Event::Start(node));
            }
        }
    }

    /// Every partition takes a write and a read.
    fn ask_for_service(&mut self, limit: Instant) {
        for partition in (0..self.settings.partitions).map(PartitionId) {
            for reads in [false, true] {
                if self.violation.is_none() {
                    self.ask_one(partition, reads, limit + Duration::from_secs(5));
                }
            }
        }
    }

    fn ask_one(&mut self, partition: PartitionId, reads: bool, limit: Instant) {
        let probe = self.begin_probe(partition, reads);
        while self.now < limit && self.violation.is_none() && !self.is_answered(probe) {
            self.run_until(self.now + Duration::from_millis(20));
        }
        if !self.is_answered(probe) {
            let what = if reads { "read" } else { "write" };
            self.violate("I15", Some(partition), || format!("a fresh {what} is not served"));
        }
    }

    /// The first partition that is not as it should be, and why.
    fn unwell(&self) -> Option<(PartitionId, String)> {
        let topology = &self.control.topology;
        topology.partitions.iter().find_map(|record| {
            let why = self.unwell_because(record.id);
            why.map(|why| (record.id, why))
        })
    }

    fn unwell_because(&self, partition: PartitionId) -> Option<String> {
        let record = self.control.topology.partition(partition)?;
        let Some(leader) = record.leader.as_ref().map(index) else { return Some("nobody leads".to_owned()) };
        let Some(status) = self.status(leader, partition) else {
            return Some("the leader is not there".to_owned());
        };
        if !matches!(status.role, RoleStatus::Leader { active: true, writable: true, .. }) {
            return Some(format!("n{leader} should lead and is {:?}", status.role));
        }
        if record.in_sync.len() != record.replicas.len() || !record.tainted.is_empty() {
            return Some(format!(
                "of {:?} in sync are {:?}, tainted {:?}",
                record.replicas, record.in_sync, record.tainted
            ));
        }
        if record.replicas.len() < self.settings.copies as usize || record.movement.is_some() {
            return Some(format!("copies are missing or move: {:?}", record.movement));
        }
        record.replicas.iter().find_map(|replica| {
            let node = index(&replica.node);
            let other = self.status(node, partition)?;
            let store = self.nodes[node].disk.store(other.key)?;
            let own = self.nodes[leader].disk.store(status.key)?;
            // While clients write, a follower is a moment behind.
            let end = store.end().min(own.end());
            let equal = store.hash(end) == own.hash(end) && own.end() - end < 200 && store.end() - end < 200;
            let well = equal && !other.damaged && other.epoch == status.epoch;
            (!well).then(|| format!("n{node} has {} of {} records", store.end(), own.end()))
        })
    }

    /// Faults begin again.
    pub(super) fn resume_faults(&mut self) {
        self.quiet = false;
        self.make_mischief();
    }
}
