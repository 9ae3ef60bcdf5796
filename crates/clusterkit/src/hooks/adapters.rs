//! Simpler ways to say what happens when a partition comes or goes.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use clusterkit_core::id::{NodeId, PartitionId};
use clusterkit_core::topology::{Event, Node, Topology};

use super::{Activate, CatchUp, PartitionHandler, Prepare, Release, Seal, StageResult};
use crate::net::BoxFuture;

/// Watches what happens to the copies of other nodes. Called in order, one event at a time.
pub(crate) trait Observer: Send + Sync {
    fn observe<'a>(&'a self, me: &'a NodeId, topology: &'a Topology, event: &'a Event) -> BoxFuture<'a, ()>;
}

type Answer = BoxFuture<'static, StageResult>;
type CopyHook = Arc<dyn Fn(PartitionId, Option<Arc<Node>>, Arc<Node>) -> Answer + Send + Sync>;
type PartitionHook = Arc<dyn Fn(PartitionId) -> Answer + Send + Sync>;
type OwnerHook = Arc<dyn Fn(PartitionId, Option<Arc<Node>>) -> Answer + Send + Sync>;
type ReplicaHook = Arc<dyn Fn(PartitionId, NodeId) -> BoxFuture<'static, ()> + Send + Sync>;

/// One hook for every copy that is to be made: which partition, from whom, to whom.
///
/// It is called on every node, and only the one that the copy goes to acts. There it is awaited: the
/// copy counts as made only once it said `Ok`. On the others it is for information, and what it
/// answers is not looked at. Without a source there is nothing to copy.
#[derive(Clone)]
pub struct OnPartitionChange {
    hook: CopyHook,
}

impl OnPartitionChange {
    /// See [`Builder::on_partition_change`](crate::Builder::on_partition_change).
    pub fn new<F, R>(hook: F) -> Self
    where
        F: Fn(PartitionId, Option<Arc<Node>>, Arc<Node>) -> R + Send + Sync + 'static,
        R: Future<Output = StageResult> + Send + 'static,
    {
        Self { hook: Arc::new(move |partition, from, to| Box::pin(hook(partition, from, to))) }
    }
}

impl PartitionHandler for OnPartitionChange {
    async fn prepare(&self, stage: Prepare) -> StageResult {
        if !stage.in_sync {
            return Ok(());
        }
        (self.hook)(stage.partition, None, stage.context.node()).await
    }

    async fn catch_up(&self, stage: CatchUp) -> StageResult {
        (self.hook)(stage.partition, Some(Arc::clone(&stage.leader)), stage.context.node()).await
    }
}

impl Observer for OnPartitionChange {
    fn observe<'a>(&'a self, me: &'a NodeId, topology: &'a Topology, event: &'a Event) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Event::ReplicaAdded { partition, node } = event else { return };
            let Some(target) = topology.nodes.get(node).filter(|_| node != me) else { return };
            let leader = topology.partition(*partition).and_then(|record| record.leader.as_ref());
            let source = leader.filter(|leader| *leader != node);
            let source = source.and_then(|leader| topology.nodes.get(leader)).cloned();
            // For information: the node that the copy goes to is asked by itself.
            drop((self.hook)(*partition, source, Arc::clone(target)).await);
        })
    }
}

impl fmt::Debug for OnPartitionChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnPartitionChange")
    }
}

/// Six hooks, each of which may be left out.
///
/// | hook | awaited before |
/// | --- | --- |
/// | `on_partition_assigned(partition, previous_owner)` | the copy counts as made |
/// | `on_partition_unassigned(partition, new_owner)` | the copy counts as given up |
/// | `on_leader_elected(partition)` | the lease opens |
/// | `on_leader_lost(partition)` | another node leads, unless this one was cut off |
/// | `on_replica_added(partition, node)` | nothing: it is for information |
/// | `on_replica_removed(partition, node)` | nothing: it is for information |
///
/// The last two are called for partitions that this node holds, and for other nodes.
#[derive(Clone, Default)]
pub struct SixHooks {
    assigned: Option<OwnerHook>,
    unassigned: Option<OwnerHook>,
    elected: Option<PartitionHook>,
    lost: Option<PartitionHook>,
    added: Option<ReplicaHook>,
    removed: Option<ReplicaHook>,
}

impl SixHooks {
    /// No hook yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// This node is to hold a copy. With a previous owner everything is to be copied from it before
    /// `Ok` is said; without one there is nothing to copy.
    #[must_use]
    pub fn on_partition_assigned<F, R>(mut self, hook: F) -> Self
    where
        F: Fn(PartitionId, Option<Arc<Node>>) -> R + Send + Sync + 'static,
        R: Future<Output = StageResult> + Send + 'static,
    {
        self.assigned = Some(Arc::new(move |partition, owner| Box::pin(hook(partition, owner))));
        self
    }

    /// This node shall hold its copy no longer. The new owner is the leader, where there is one.
    #[must_use]
    pub fn on_partition_unassigned<F, R>(mut self, hook: F) -> Self
    where
        F: Fn(PartitionId, Option<Arc<Node>>) -> R + Send + Sync + 'static,
        R: Future<Output = StageResult> + Send + 'static,
    {
        self.unassigned = Some(Arc::new(move |partition, owner| Box::pin(hook(partition, owner))));
        self
    }

    /// This node leads from now on.
    #[must_use]
    pub fn on_leader_elected<F, R>(mut self, hook: F) -> Self
    where
        F: Fn(PartitionId) -> R + Send + Sync + 'static,
        R: Future<Output = StageResult> + Send + 'static,
    {
        self.elected = Some(Arc::new(move |partition| Box::pin(hook(partition))));
        self
    }

    /// This node leads no longer.
    #[must_use]
    pub fn on_leader_lost<F, R>(mut self, hook: F) -> Self
    where
        F: Fn(PartitionId) -> R + Send + Sync + 'static,
        R: Future<Output = StageResult> + Send + 'static,
    {
        self.lost = Some(Arc::new(move |partition| Box::pin(hook(partition))));
        self
    }

    /// Another node shall hold a copy of a partition that this node holds.
    #[must_use]
    pub fn on_replica_added<F, R>(mut self, hook: F) -> Self
    where
        F: Fn(PartitionId, NodeId) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.added = Some(Arc::new(move |partition, node| Box::pin(hook(partition, node))));
        self
    }

    /// Another node shall no longer hold a copy of a partition that this node holds.
    #[must_use]
    pub fn on_replica_removed<F, R>(mut self, hook: F) -> Self
    where
        F: Fn(PartitionId, NodeId) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.removed = Some(Arc::new(move |partition, node| Box::pin(hook(partition, node))));
        self
    }
}

impl PartitionHandler for SixHooks {
    async fn prepare(&self, stage: Prepare) -> StageResult {
        match &self.assigned {
            Some(hook) if stage.in_sync => hook(stage.partition, None).await,
            _ => Ok(()),
        }
    }

    async fn catch_up(&self, stage: CatchUp) -> StageResult {
        match &self.assigned {
            Some(hook) => hook(stage.partition, Some(Arc::clone(&stage.leader))).await,
            None => Ok(()),
        }
    }

    async fn seal(&self, stage: Seal) -> StageResult {
        match &self.lost {
            Some(hook) => hook(stage.partition).await,
            None => Ok(()),
        }
    }

    async fn activate(&self, stage: Activate) -> StageResult {
        match &self.elected {
            Some(hook) => hook(stage.partition).await,
            None => Ok(()),
        }
    }

    async fn release(&self, stage: Release) -> StageResult {
        match &self.unassigned {
            Some(hook) => hook(stage.partition, stage.leader.clone()).await,
            None => Ok(()),
        }
    }
}

impl Observer for SixHooks {
    fn observe<'a>(&'a self, me: &'a NodeId, topology: &'a Topology, event: &'a Event) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let (hook, partition, node) = match event {
                Event::ReplicaAdded { partition, node } => (&self.added, partition, node),
                Event::ReplicaRemoved { partition, node } => (&self.removed, partition, node),
                _ => return,
            };
            let held = topology.partition(*partition).is_some_and(|record| record.holds(me));
            if let Some(hook) = hook.as_ref().filter(|_| held && node != me) {
                hook(*partition, node.clone()).await;
            }
        })
    }
}

impl fmt::Debug for SixHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SixHooks")
            .field("on_partition_assigned", &self.assigned.is_some())
            .field("on_partition_unassigned", &self.unassigned.is_some())
            .field("on_leader_elected", &self.elected.is_some())
            .field("on_leader_lost", &self.lost.is_some())
            .field("on_replica_added", &self.added.is_some())
            .field("on_replica_removed", &self.removed.is_some())
            .finish()
    }
}
