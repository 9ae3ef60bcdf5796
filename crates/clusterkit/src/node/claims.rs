//! What the program says of its replicas, kept until the record shows that it was heard.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clusterkit_core::handoff::Fact;
use clusterkit_core::id::{Epoch, NodeId, PartitionId, ReplicaUid};
use clusterkit_core::topology::Topology;
use tokio::sync::{Notify, watch};

/// The claims of one node.
///
/// Invariants:
/// - a claim is kept only while the newest topology has the placement, or the leader in the epoch, that it is
///   of;
/// - so there is at most one of each kind for each partition.
#[derive(Debug)]
pub(crate) struct Claims {
    me: NodeId,
    topology: watch::Receiver<Arc<Topology>>,
    standing: Mutex<Standing>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Standing {
    damaged: BTreeMap<PartitionId, ReplicaUid>,
    stalled: BTreeMap<PartitionId, Epoch>,
}

impl Claims {
    pub(crate) fn new(me: NodeId, topology: watch::Receiver<Arc<Topology>>) -> Self {
        Self { me, topology, standing: Mutex::default(), changed: Notify::new() }
    }

    /// What the replica holds is damaged.
    pub(crate) fn say_damaged(&self, partition: PartitionId, uid: ReplicaUid) {
        let mut standing = self.standing();
        if self.is_placed(&self.topology.borrow(), partition, uid) {
            standing.damaged.insert(partition, uid);
            self.changed.notify_one();
        }
    }

    /// This node leads and cannot get on.
    pub(crate) fn say_stalled(&self, partition: PartitionId, epoch: Epoch) {
        let mut standing = self.standing();
        if self.leads(&self.topology.borrow(), partition, epoch) {
            standing.stalled.insert(partition, epoch);
            self.changed.notify_one();
        }
    }

    /// It gets on again.
    pub(crate) fn take_back_stalled(&self, partition: PartitionId) {
        self.standing().stalled.remove(&partition);
    }

    /// Drops what the newest topology does not wait for any more. A claim may be of a newer one than the
    /// agent has adopted, so that one is not asked.
    pub(super) fn retain(&self) {
        let mut standing = self.standing();
        let topology = self.topology.borrow();
        standing.damaged.retain(|partition, uid| self.is_placed(&topology, *partition, *uid));
        standing.stalled.retain(|partition, epoch| self.leads(&topology, *partition, *epoch));
    }

    pub(super) fn facts(&self) -> Vec<(PartitionId, Fact)> {
        let standing = self.standing();
        let damaged =
            standing.damaged.iter().map(|(partition, uid)| (*partition, Fact::Damaged { uid: *uid }));
        let stalled =
            standing.stalled.iter().map(|(partition, epoch)| (*partition, Fact::Stalled { epoch: *epoch }));
        stalled.chain(damaged).collect()
    }

    /// Waits until something is claimed.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_placed(&self, topology: &Topology, partition: PartitionId, uid: ReplicaUid) -> bool {
        let replica = topology.partition(partition).and_then(|record| record.replica(&self.me));
        replica.is_some_and(|replica| replica.uid == uid)
    }

    fn leads(&self, topology: &Topology, partition: PartitionId, epoch: Epoch) -> bool {
        let record = topology.partition(partition);
        record.is_some_and(|record| record.epoch == epoch && record.leader.as_ref() == Some(&self.me))
    }
}
