//! I11: a linearizable read has everything that was committed when it began, and every read shows exactly the
//! committed records up to where it says.
//!
//! Source: rules L4 to L6.

use clusterkit_core::id::PartitionId;
use clusterkit_core::replica::Consistency;

use super::super::clients::Asked;
use super::super::requests::{Evaluated, Reading};
use super::super::world::World;

impl World {
    /// A node is about to answer a read.
    pub(in super::super) fn check_served(&mut self, node: usize, reading: &Reading, evaluated: &Evaluated) {
        let Asked::Read { key, consistency } = reading.request.asked else { return };
        let partition = reading.request.partition;
        let (applied, committed) = (evaluated.applied, reading.committed);
        let least = match consistency {
            Consistency::Linearizable => committed,
            Consistency::Session { min_end } => min_end,
        };
        if applied < least {
            self.violate("I11", Some(partition), || {
                format!("n{node} reads at {applied}, and {least} were there when the read began")
            });
        }
        let written = &self.ghosts[partition.index()].written[key];
        let count = written.partition_point(|(offset, _)| *offset < applied);
        let expected = count.checked_sub(1).map_or(0, |last| written[last].1);
        let value = evaluated.values[key];
        if value != expected {
            self.violate("I11", Some(partition), || {
                format!("n{node} reads {value} of key {key} at {applied}, and {expected} is right")
            });
        }
    }

    /// A client has its answer: everything that was acknowledged before it asked must be in it.
    pub(in super::super) fn check_read_floor(&mut self, partition: PartitionId, applied: u64, floor: u64) {
        if applied < floor {
            self.violate("I11", Some(partition), || {
                format!("a read saw {applied} records, and {floor} were known to clients before it began")
            });
        }
    }
}
