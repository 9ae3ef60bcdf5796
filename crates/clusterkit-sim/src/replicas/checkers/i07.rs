//! I7: every write that was acknowledged by a quorum or by all is in C, and every request of a session took effect
//! once, the same on every replica.
//!
//! Source: rules W3 and W7.

use clusterkit_core::id::{Epoch, PartitionId};
use clusterkit_core::replica::Ack;

use super::super::clients::{Asked, Request};
use super::super::machine::Effect;
use super::super::world::World;
use super::key_of;

impl World {
    /// A node is about to acknowledge a write.
    pub(in super::super) fn check_acknowledged(
        &mut self,
        node: usize,
        request: &Request,
        (epoch, offset): (Epoch, u64),
    ) {
        let partition = request.partition;
        if offset >= self.ghosts[partition.index()].end() {
            self.catch_up_with_commit(node, partition);
        }
        let committed = self.ghosts[partition.index()].op(offset);
        let expected = if matches!(request.asked, Asked::Open { .. }) { 0 } else { request.op };
        if committed != Some(expected) {
            self.violate("I7", Some(partition), || {
                format!(
                    "n{node} acknowledges {expected} at {offset} in epoch {epoch}, committed is {committed:?}"
                )
            });
        }
        if request.ack() == Some(Ack::All) {
            self.check_all_have(node, partition, offset);
        }
    }

    /// All copies that the leader knows of have the record.
    fn check_all_have(&mut self, node: usize, partition: PartitionId, offset: u64) {
        let Some(topology) = self.nodes[node].replicas().map(|replicas| replicas.topology().clone()) else {
            return;
        };
        let Some(record) = topology.partition(partition) else { return };
        for (other, key) in record.replicas.iter().filter_map(|replica| key_of(record, &replica.node)) {
            // It may have been dropped, or damaged, since.
            let durable = self.nodes[other].durable_once.get(&key).copied().unwrap_or(0);
            if durable <= offset {
                self.violate("I7", Some(partition), || {
                    format!("n{node} says that all have {offset}, and n{other} had {durable} durable")
                });
            }
        }
    }

    /// A replica has applied a record.
    pub(in super::super) fn check_effect(
        &mut self,
        node: usize,
        partition: PartitionId,
        offset: u64,
        (effect, digest): (Effect, u64),
    ) {
        if offset >= self.ghosts[partition.index()].end() {
            self.catch_up_with_commit(node, partition);
        }
        self.check_applied_committed(node, partition, offset);
        let ghost = &mut self.ghosts[partition.index()];
        if let Some(known) = ghost.effects.get(offset as usize) {
            if *known != (effect, digest) {
                let known = *known;
                self.violate("I7", Some(partition), || {
                    format!("n{node} got {effect:?} of record {offset}, another replica {known:?}")
                });
            }
            return;
        }
        ghost.effects.push((effect, digest));
        self.note_effect(partition, offset, effect);
    }

    fn note_effect(&mut self, partition: PartitionId, offset: u64, effect: Effect) {
        let ghost = &mut self.ghosts[partition.index()];
        let Effect::Applied { op, key, request } = effect else { return };
        ghost.written[key].push((offset, op));
        let Some(request) = request else { return };
        if let Some(earlier) = ghost.requests.insert(request, offset) {
            self.violate("I7", Some(partition), || {
                format!("{request:?} took effect at {earlier} and once more at {offset}")
            });
        }
    }

    /// A node said that a request took effect before, at `first`.
    pub(in super::super) fn check_known(&mut self, partition: PartitionId, op: u64, first: u64) {
        if self.ghosts[partition.index()].op(first) != Some(op) {
            self.violate("I7", Some(partition), || format!("{op} is said to have taken effect at {first}"));
        }
    }
}
