//! Writes under a lease: who must have a write before it is acknowledged.

use std::collections::BTreeSet;
use std::sync::Arc;

use clusterkit::{ClusterKit, Lease, LeaseLost, NodeId, PartitionId, Permit, Topology};
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::http::Http;
use crate::limits::{REPLICATION_PAUSE, REPLICATION_TIMEOUT, SEND_TIMEOUT, WRITES_BEHIND_MAX};
use crate::replica::Write;
use crate::store::{Change, Copier, Entry, Refused, Routed, Store};

/// Writes what this node leads, and brings it to the other copies. Clones share everything.
#[derive(Debug, Clone)]
pub struct Leader {
    ck: ClusterKit,
    store: Arc<Store>,
    http: Http,
    behind: Arc<Semaphore>,
}

impl Leader {
    /// A writer for what `ck` leads.
    #[must_use]
    pub fn new(ck: ClusterKit, store: Arc<Store>, http: Http) -> Self {
        Self { ck, store, http, behind: Arc::new(Semaphore::new(WRITES_BEHIND_MAX)) }
    }

    /// Writes, and returns once every copy that may be elected has it. Whoever reads this node's copy
    /// may see a write sooner, whose outcome nobody knows yet.
    ///
    /// # Errors
    ///
    /// See [`WriteError`].
    pub async fn write(&self, lease: &Lease, key: &str, change: Change) -> Result<Entry, WriteError> {
        let permit = lease.begin().map_err(WriteError::NotBegun)?;
        let write = self.begin(&permit, lease.partition(), key, change)?;
        self.replicate(&write).await?;
        permit.confirm().map_err(WriteError::Unconfirmed)?;
        Ok(write.entry)
    }

    /// Writes, and returns once this node has it. The other copies follow, so a write that this node
    /// did not pass on before it dies is lost. A handover waits for them: what is planned loses nothing.
    ///
    /// # Errors
    ///
    /// See [`WriteError`].
    pub async fn write_behind(&self, lease: &Lease, key: &str, change: Change) -> Result<Entry, WriteError> {
        // Who writes faster than the copies follow waits here.
        let place = Arc::clone(&self.behind).acquire_owned().await.expect("nobody closes it");
        let permit = lease.begin().map_err(WriteError::NotBegun)?;
        let write = self.begin(&permit, lease.partition(), key, change)?;
        permit.check().map_err(WriteError::Unconfirmed)?;
        let (leader, entry) = (self.clone(), write.entry.clone());
        tokio::spawn(async move {
            // Promised was this node's copy alone: what the others lack is the loss window.
            drop(leader.replicate(&write).await);
            drop((permit, place));
        });
        Ok(entry)
    }

    fn begin(
        &self,
        permit: &Permit,
        partition: PartitionId,
        key: &str,
        change: Change,
    ) -> Result<Write, WriteError> {
        let routed = Routed { epoch: permit.epoch(), version: permit.version() };
        let entry = self.store.lead(partition, routed, key, change).map_err(WriteError::Refused)?;
        Ok(Write { partition, routed, key: key.to_owned(), entry })
    }

    /// Brings a write to everybody who must have it. The own store has it already, so whoever copies
    /// from here from now on gets it with the copy.
    async fn replicate(&self, write: &Write) -> Result<(), WriteError> {
        let deadline = Instant::now() + REPLICATION_TIMEOUT;
        let mut missing = self.must_have(write.partition);
        loop {
            missing = self.send(write, missing).await;
            // A replica that fell out meanwhile is copied anew before it counts again.
            missing.retain(|node| self.must_have(write.partition).contains(node));
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(WriteError::NotReplicated);
            }
            sleep(REPLICATION_PAUSE).await;
        }
    }

    /// Sends a write, and says who has not taken it.
    async fn send(&self, write: &Write, nodes: BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let topology = self.ck.topology();
        let sent = nodes.into_iter().map(|node| {
            let addr = topology.node(&node).map(|node| node.public_addr.clone());
            async move {
                let taken = match addr {
                    Some(addr) => self.http.write_copy(&addr, write, SEND_TIMEOUT).await.is_ok(),
                    None => false,
                };
                (!taken).then_some(node)
            }
        });
        join_all(sent).await.into_iter().flatten().collect()
    }

    fn must_have(&self, partition: PartitionId) -> BTreeSet<NodeId> {
        let copiers = self.store.copiers(partition);
        must_have(&self.ck.topology(), partition, self.ck.node_id(), &copiers)
    }
}

/// Who must have a write that the leader `me` has already, before it is acknowledged: everybody who may
/// be elected now, and everybody who may be soon without asking again.
///
/// That is the in-sync set, and each replica that took a copy before the write: it may be in sync by
/// now, and its leader may not know yet. What was copied counts only for this placement, in this run,
/// and until it falls out of the in-sync set; after that it is copied anew.
#[must_use]
pub fn must_have(
    topology: &Topology,
    partition: PartitionId,
    me: &NodeId,
    copiers: &[Copier],
) -> BTreeSet<NodeId> {
    let Some(record) = topology.partition(partition) else { return BTreeSet::new() };
    let counts = |copier: &&Copier| {
        let placed = record.replica(&copier.node);
        let as_placed =
            placed.is_some_and(|replica| (replica.uid, replica.lapses) == (copier.uid, copier.lapses));
        let newest = topology.node(&copier.node).map(|node| node.incarnation);
        as_placed && newest.is_some_and(|incarnation| incarnation <= copier.incarnation)
    };
    let copying = copiers.iter().filter(counts).map(|copier| &copier.node);
    record.in_sync.iter().chain(copying).filter(|node| *node != me).cloned().collect()
}

/// A write is not acknowledged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Nothing changed. Retry by the route.
    #[error("the write was not begun")]
    NotBegun(#[source] LeaseLost),
    /// It may take effect or not: not everybody who must have it took it in time. Retry by the route.
    #[error("not every copy has the write")]
    NotReplicated,
    /// Nothing changed: this store is not ready to lead, or the key is not what it was thought to be.
    /// Retry by the route.
    #[error("this node cannot write the partition")]
    Refused(#[source] Refused),
    /// It may take effect or not: this node may have lost the lease before it was done. Retry by the
    /// route.
    #[error("the lease ended before the write did")]
    Unconfirmed(#[source] LeaseLost),
}

#[cfg(test)]
mod tests {
    use clusterkit::core::id::{Incarnation, ReplicaUid};

    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).expect("a node id")
    }

    /// One partition on `a`, `b` and `c`, whose `c` fell out of the in-sync set once.
    fn topology() -> Topology {
        let replica =
            |name: &str, uid, lapses| serde_json::json!({"node": name, "uid": uid, "lapses": lapses});
        let member = |name: &str| {
            serde_json::json!({
                "id": name, "store": 1, "boot": 1, "incarnation": 4, "node_addr": "", "public_addr": "",
                "zone": null, "weight": 1, "role": "voter", "holds_data": true, "liveness": "Alive",
                "stage": "Member", "software": "", "metadata": {}, "reports_position": false,
            })
        };
        let members: serde_json::Map<_, _> =
            ["a", "b", "c"].iter().map(|name| ((*name).to_owned(), member(name))).collect();
        let partition = serde_json::json!({
            "id": 0, "version": 9, "epoch": 3, "origin": "membership", "leader": "a",
            "replicas": [replica("a", 1, 0), replica("b", 2, 0), replica("c", 3, 1)],
            "in_sync": ["a", "b"], "tainted": [], "min_in_sync": 2, "transfer": null, "movement": null,
            "unclean": null, "overrun": null, "history": [],
        });
        let topology = serde_json::json!({
            "version": 20, "route_version": 5, "cluster": null, "nodes": members, "partitions": [partition],
        });
        serde_json::from_value(topology).expect("a topology")
    }

    #[test]
    fn a_write_goes_to_the_in_sync_and_to_whoever_took_a_copy_that_still_counts() {
        let check = |uid, incarnation, lapses, expect: &[&str]| {
            let (uid, incarnation) = (ReplicaUid(uid), Incarnation(incarnation));
            let copier = Copier { node: node("c"), uid, incarnation, lapses };
            let must_have = must_have(&topology(), PartitionId(0), &node("a"), &[copier]);
            assert_eq!(must_have.iter().map(NodeId::as_str).collect::<Vec<_>>(), expect);
        };
        check(3, 4, 1, &["b", "c"]);
        check(3, 5, 1, &["b", "c"]); // It registered anew, and this node does not know yet.
        check(3, 3, 1, &["b"]); // An earlier run of its node copied.
        check(3, 4, 0, &["b"]); // It fell out of the in-sync set since.
        check(2, 4, 1, &["b"]); // It was another placement.
    }
}
