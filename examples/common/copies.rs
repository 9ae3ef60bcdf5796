//! The hooks: what happens before a copy counts, before this node leads, and after a copy is taken away.

use std::sync::Arc;

use clusterkit::hooks::{Activate, CatchUp, Decline, PartitionHandler, Prepare, Release, StageResult};
use clusterkit::{Node, Partition};
use futures_util::future::join_all;

use crate::http::Http;
use crate::limits::COPY_PAUSE;
use crate::quorum;
use crate::replica::{Copy, ReplicaError};
use crate::store::{Routed, Store};

/// Where everything is that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFrom {
    /// At the leader, since it takes all writes.
    Leader,
    /// At no single replica, since clients write them and count a majority: at so many in-sync ones as
    /// a read asks.
    Majority,
}

/// Keeps this node's copies as its cluster wants them.
#[derive(Debug)]
pub struct Copies {
    store: Arc<Store>,
    http: Http,
    from: CopyFrom,
}

impl Copies {
    /// Hooks for `store`.
    #[must_use]
    pub fn new(store: Arc<Store>, http: Http, from: CopyFrom) -> Self {
        Self { store, http, from }
    }

    /// Copies from one node, page by page.
    async fn copy(&self, stage: &CatchUp, source: &Node) -> Result<(), CopyError> {
        let me = stage.context.node();
        let mut copy = Copy {
            partition: stage.partition,
            routed: Routed { epoch: stage.epoch, version: stage.version },
            node: me.id.clone(),
            uid: stage.uid,
            incarnation: me.incarnation,
            after: None,
        };
        let mut bytes = 0;
        loop {
            let page = self.http.copy_page(&source.public_addr, &copy).await?;
            bytes += page.bytes();
            copy.after = page.entries.last_key_value().map(|(key, _)| key.clone());
            self.store.merge(stage.partition, page.entries)?;
            stage.context.progress(bytes, None);
            if !page.more {
                return Ok(());
            }
        }
    }

    /// Copies from the leader, or from so many that they have everything together. What they disagree
    /// on the newer version decides.
    async fn copy_enough(&self, stage: &CatchUp) -> Result<(), CopyError> {
        if self.from == CopyFrom::Leader {
            self.store.clear(stage.partition)?;
            return self.copy(stage, &stage.leader).await;
        }
        let topology = stage.context.topology();
        let record = topology.partition(stage.partition).ok_or(CopyError::NotEnough)?;
        let is_complete = |source: &&Arc<Node>| record.in_sync.contains(&source.id);
        let copies = stage.sources.iter().filter(is_complete).map(|source| self.copy(stage, source));
        let (copied, failed): (Vec<_>, Vec<_>) = join_all(copies).await.into_iter().partition(Result::is_ok);
        if copied.len() >= needed(record) {
            return Ok(());
        }
        Err(failed.into_iter().find_map(Result::err).unwrap_or(CopyError::NotEnough))
    }
}

fn needed(record: &Partition) -> usize {
    quorum::for_read(record.replicas.len(), record.in_sync.len())
}

impl PartitionHandler for Copies {
    /// From now on the store takes what comes for this replica.
    async fn prepare(&self, stage: Prepare) -> StageResult {
        self.store.open(stage.partition, stage.uid);
        Ok(())
    }

    /// What cannot be copied just now is asked for again: the replica does not count meanwhile.
    async fn catch_up(&self, stage: CatchUp) -> StageResult {
        tokio::select! {
            copied = self.copy_enough(&stage) => copied.map_err(|_| Decline::defer(COPY_PAUSE)),
            () = stage.context.cancelled().cancelled() => Err(Decline::defer(COPY_PAUSE)),
        }
    }

    /// From now on what an older leader still sends is refused.
    async fn activate(&self, stage: Activate) -> StageResult {
        Ok(self.store.activate(stage.partition, stage.epoch)?)
    }

    /// Deletes what is held of this replica, and of no other.
    async fn release(&self, stage: Release) -> StageResult {
        self.store.close(stage.partition, stage.uid);
        Ok(())
    }
}

/// A copy was not made. What was taken up stays, and does no harm.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    /// Too few replicas that have everything could be copied from.
    #[error("too few replicas that have everything answer")]
    NotEnough,
    /// A replica did not answer, or not with what was asked for.
    #[error("a replica cannot be copied from")]
    Source(#[from] ReplicaError),
    /// This node is not to hold the partition any more.
    #[error("there is no place for the copy")]
    Store(#[from] crate::store::Refused),
}
