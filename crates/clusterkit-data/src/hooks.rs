//! The hooks of the layer below: when a stage of a replica is done.
//!
//! Replicas do the work by themselves, as the topology tells them; a hook only waits until its part is done, so that
//! the layer below goes on with what follows from it, and no sooner.

use std::sync::Arc;

use clusterkit::hooks::{
    Activate, CatchUp, Context, Decline, PartitionHandler, Prepare, Release, Seal, StageResult,
};
use clusterkit_core::handoff::{Position, SealCause};
use clusterkit_core::id::{Epoch, PartitionId};
use clusterkit_core::topology::Partition;
use tokio::sync::oneshot;

use crate::engine::Input;
use crate::limits::HOOK_PAUSE;
use crate::shared::Shared;

/// See the [module](self).
#[derive(Clone)]
pub(crate) struct Hooks {
    shared: Arc<Shared>,
}

impl Hooks {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Asks the engine; `None` if it ends, or the stage is not wanted any more.
    async fn ask<T>(&self, context: &Context, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Option<T> {
        let asked = async {
            if !self.shared.is_running().await {
                return None;
            }
            let (reply, answer) = oneshot::channel();
            self.shared.tell(input(reply)).await;
            answer.await.ok()
        };
        tokio::select! {
            answer = asked => answer,
            () = context.cancelled().cancelled() => None,
        }
    }

    /// Says how far a replica is, from time to time, until `done`.
    async fn watch(
        &self,
        partition: PartitionId,
        context: &Context,
        done: impl Future<Output = bool>,
    ) -> bool {
        tokio::pin!(done);
        loop {
            let pause = self.shared.clock.sleep_until(self.shared.clock.now() + HOOK_PAUSE);
            tokio::select! {
                done = &mut done => return done,
                () = context.cancelled().cancelled() => return false,
                () = pause => {}
            }
            let status = self.ask(context, |reply| Input::Status { partition, reply }).await.flatten();
            if let Some(status) = status {
                let received = self.shared.incoming.bytes(status.key);
                context.progress(status.applied.saturating_add(received), None);
            }
        }
    }
}

impl PartitionHandler for Hooks {
    /// The replica is made, or opened, when the topology that names it is adopted.
    async fn prepare(&self, stage: Prepare) -> StageResult {
        let version = stage.context.topology().partition(stage.partition).map(|record| record.version);
        let version = version.unwrap_or_default();
        let partition = stage.partition;
        let adopted =
            self.ask(&stage.context, |reply| Input::AwaitAdopted { partition, version, reply }).await;
        adopted.ok_or_else(not_running)
    }

    /// The leader takes it into the in-sync set by itself, and says that it lacks nothing any more: a member that may have
    /// lost something is one already, and has to catch up all the same.
    async fn catch_up(&self, stage: CatchUp) -> StageResult {
        let node = self.shared.node.get().ok_or_else(not_running)?;
        let (me, partition, uid) = (node.node_id().clone(), stage.partition, stage.uid);
        let mut topology = node.watch();
        let in_sync = topology.wait_for(|topology| {
            topology.partition(partition).is_some_and(|record| {
                let is_this = record.replica(&me).is_some_and(|replica| replica.uid == uid);
                !is_this || record.is_electable(&me)
            })
        });
        let done = self.watch(partition, &stage.context, async { in_sync.await.is_some() }).await;
        if done { Ok(()) } else { Err(Decline::refuse("it was not wanted any more")) }
    }

    /// A leader that is to hand over does so by itself, and says so to the control plane, which makes the next epoch.
    /// One that stops asks for a successor.
    async fn seal(&self, stage: Seal) -> StageResult {
        let node = self.shared.node.get().ok_or_else(not_running)?;
        let (partition, epoch) = (stage.partition, stage.epoch);
        let me = node.node_id().clone();
        if stage.cause == SealCause::Stopping {
            let topology = stage.context.topology();
            let can_lead = |record: &Partition| {
                let others =
                    record.in_sync.iter().filter(|node| **node != me && !record.tainted.contains(*node));
                others.into_iter().any(|node| topology.is_live(node))
            };
            if !topology.partition(partition).is_some_and(can_lead) {
                return Ok(());
            }
            self.shared.tell(Input::Resign { partition }).await;
        }
        let mut topology = node.watch();
        let passed_on = topology.wait_for(|topology| {
            topology
                .partition(partition)
                .is_none_or(|record| record.epoch > epoch || record.leader.as_ref() != Some(&me))
        });
        tokio::select! {
            _ = passed_on => Ok(()),
            // Nothing of this node's is acknowledged any more: there is nothing to wait for.
            () = self.shared.stop.cancelled() => Ok(()),
            () = stage.context.cancelled().cancelled() => Err(Decline::refuse("it was not wanted any more")),
        }
    }

    async fn activate(&self, stage: Activate) -> StageResult {
        let (partition, epoch): (_, Epoch) = (stage.partition, stage.epoch);
        let active = self.ask(&stage.context, |reply| Input::AwaitActive { partition, epoch, reply }).await;
        match active {
            Some(true) => Ok(()),
            Some(false) => Err(Decline::refuse("another epoch began")),
            None => Err(not_running()),
        }
    }

    /// What the disk has of it goes after a grace, once its record names it no more.
    async fn release(&self, _: Release) -> StageResult {
        Ok(())
    }

    fn reports_position(&self) -> bool {
        true
    }

    async fn position(&self, partition: PartitionId) -> Option<Position> {
        if !*self.shared.running.borrow() {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        self.shared.tell(Input::Position { partition, reply }).await;
        answer.await.ok().flatten()
    }
}

fn not_running() -> Decline {
    Decline::refuse("the replicas of this node do not run yet, or no more")
}
