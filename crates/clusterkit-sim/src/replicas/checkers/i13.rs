//! I13: the times in a log never go back.
//!
//! Source: rule W3.

use clusterkit_core::id::Epoch;
use clusterkit_core::replica::{LogTime, ReplicaKey};

use super::super::world::World;

impl World {
    pub(super) fn check_times_grow(
        &mut self,
        node: usize,
        key: ReplicaKey,
        (last, heads): (Option<LogTime>, &[(Epoch, LogTime)]),
    ) {
        let times = last.into_iter().chain(heads.iter().map(|(_, time)| *time));
        if !times.is_sorted() {
            self.violate("I13", Some(key.partition), || {
                format!("n{node} appends records with times {heads:?} after {last:?}")
            });
        }
    }
}
