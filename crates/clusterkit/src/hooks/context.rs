//! What a hook is called with.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clusterkit_core::handoff::{ActivateCause, Progress, SealCause};
use clusterkit_core::id::{Epoch, PartitionId, PartitionVersion, ReplicaUid};
use clusterkit_core::topology::{Node, Topology};
use tokio_util::sync::CancellationToken;

/// What every hook is given besides its arguments.
#[derive(Debug, Clone)]
pub struct Context {
    pub(crate) cancelled: CancellationToken,
    pub(crate) said: Arc<ProgressCell>,
    pub(crate) deadline: Duration,
    pub(crate) node: Arc<Node>,
    pub(crate) topology: Arc<Topology>,
}

impl Context {
    /// Fires when the stage is not wanted any more: end soon, whatever is answered then. A hook that
    /// goes on is dropped at its next await after a grace.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// How long the stage may take before it is named as late; for `catch_up`, how long it may go
    /// without progress.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The record of the node that the hook runs on.
    #[must_use]
    pub fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node)
    }

    /// The topology by which it is called: who else holds the partition, who of them is in sync. It is
    /// at least as new as the record that the stage is for, and does not change while the hook runs.
    #[must_use]
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// Says how far a copy is, for status and metrics, and that it does not stand still. Only the newest
    /// word counts, and it is looked at with every heartbeat: say it as often as you like.
    pub fn progress(&self, bytes: u64, bytes_total: Option<u64>) {
        self.said.say(Progress { bytes, bytes_total });
    }
}

/// The newest word of a hook about how far it is, until somebody looks.
#[derive(Debug, Default)]
pub(crate) struct ProgressCell(Mutex<Option<Progress>>);

impl ProgressCell {
    fn say(&self, progress: Progress) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }

    /// What was said since the last look.
    pub(crate) fn take(&self) -> Option<Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The arguments of [`prepare`](super::PartitionHandler::prepare).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Prepare {
    /// Which partition.
    pub partition: PartitionId,
    /// Which placement of it: another one than before means that what is there is of no use.
    pub uid: ReplicaUid,
    /// Whether the replica counts as in sync as it is: it is not caught up then, unless it falls out.
    pub in_sync: bool,
    /// What every hook is given.
    pub context: Context,
}

/// The arguments of [`catch_up`](super::PartitionHandler::catch_up).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CatchUp {
    /// Which partition.
    pub partition: PartitionId,
    /// Which placement of it.
    pub uid: ReplicaUid,
    /// The leader's epoch.
    pub epoch: Epoch,
    /// The leader. It knows of this replica: every permit that it issues names it, and none that does
    /// not is out any more.
    pub leader: Arc<Node>,
    /// All living nodes that hold the partition and know of this replica, the leader first.
    pub sources: Vec<Arc<Node>>,
    /// The version of the partition's record that they have adopted at least.
    pub version: PartitionVersion,
    /// What every hook is given.
    pub context: Context,
}

/// The arguments of [`seal`](super::PartitionHandler::seal).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Seal {
    /// Which partition.
    pub partition: PartitionId,
    /// The epoch that ends.
    pub epoch: Epoch,
    /// Why it ends.
    pub cause: SealCause,
    /// What every hook is given.
    pub context: Context,
}

/// The arguments of [`activate`](super::PartitionHandler::activate).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Activate {
    /// Which partition.
    pub partition: PartitionId,
    /// The epoch that begins: the fencing token of every write from now on.
    pub epoch: Epoch,
    /// How it came.
    pub cause: ActivateCause,
    /// What every hook is given.
    pub context: Context,
}

/// The arguments of [`release`](super::PartitionHandler::release).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Release {
    /// Which partition.
    pub partition: PartitionId,
    /// Which placement of it.
    pub uid: ReplicaUid,
    /// The partition's leader, where there is one.
    pub leader: Option<Arc<Node>>,
    /// What every hook is given.
    pub context: Context,
}
