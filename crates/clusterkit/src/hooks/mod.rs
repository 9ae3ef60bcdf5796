//! User code decides: the hooks that are awaited before ownership of a partition moves.
//!
//! Implement [`PartitionHandler`] for whatever keeps your data and give it to
//! [`Builder::handler`](crate::Builder::handler). Every method has a default that agrees at once, so
//! implement the ones that matter.
//!
//! ```text
//! a replica comes:   prepare -> catch_up           then it is in sync, and may be elected
//! leadership comes:  activate(epoch)               then node.lead(partition) gives a lease
//! leadership goes:   the lease closes, permits end, seal(epoch)      then another node leads
//! a replica goes:    release
//! ```
//!
//! What is promised:
//! - the hooks of one partition run one after the other on a node, never two at once;
//! - nothing is committed before the hook that it waits for has said `Ok`: a target leads only after
//!   the source is sealed, a source is released only after the new leader is active;
//! - a hook is called at least once. After a refusal, a crash or a restart it is called again with
//!   the same arguments, so make each one something that can be done twice;
//! - a failover has nobody to seal: the new epoch is committed first and only `activate` is called.
//!   The old leader's `seal` and `release` are called when it returns;
//! - a newer epoch cancels what runs under an older one: [`Context::cancelled`] fires, and a hook that
//!   does not end within a grace is dropped at its next await;
//! - a hook that is late is named in status, events and metrics. A late `seal` or `activate` is rolled
//!   back, since clients wait; everything else is waited for.
//!
//! Hooks run in tasks of their own, never inside a lock of this library, and may call every method of
//! the node's handle.

mod adapters;
mod context;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::adapters::Observer;
pub use self::adapters::{OnPartitionChange, SixHooks};
pub(crate) use self::context::ProgressCell;
pub use self::context::{Activate, CatchUp, Context, Prepare, Release, Seal};
pub use clusterkit_core::handoff::{
    ActivateCause, Config as HookConfig, Position, SealCause, Stage, StageStatus,
};

use clusterkit_core::id::PartitionId;

use crate::net::BoxFuture;

/// What a hook answers: done, or why not.
pub type StageResult = Result<(), Decline>;

/// What keeps the data of the partitions of one node.
///
/// See the [module](self) for when each hook is called and what is promised around it. An error that
/// a hook returns with `?` is a refusal with the error's text as its reason.
///
/// ```
/// use clusterkit::hooks::{Activate, CatchUp, PartitionHandler, StageResult};
///
/// struct Store;
///
/// impl PartitionHandler for Store {
///     async fn catch_up(&self, stage: CatchUp) -> StageResult {
///         println!("copying {} from {}", stage.partition, stage.leader.id);
///         Ok(())
///     }
///
///     async fn activate(&self, stage: Activate) -> StageResult {
///         println!("writes of {} carry {} from now on", stage.partition, stage.epoch);
///         Ok(())
///     }
/// }
/// ```
pub trait PartitionHandler: Send + Sync + 'static {
    /// Makes room for a replica, or opens what is there after a restart. Called before every other
    /// hook of the replica.
    ///
    /// Refused: the replica's move is rolled back and not tried again for a while.
    fn prepare(&self, stage: Prepare) -> impl Future<Output = StageResult> + Send {
        async move {
            let _ = stage;
            Ok(())
        }
    }

    /// Copies what the other replicas have. Once it says `Ok` the replica is in sync and may be
    /// elected. Writes that the leader accepts from now on, under permits, come here too, so copy what
    /// is there and let the newer version of a value win.
    ///
    /// Refused: the replica's move is rolled back and not tried again for a while.
    fn catch_up(&self, stage: CatchUp) -> impl Future<Output = StageResult> + Send {
        async move {
            let _ = stage;
            Ok(())
        }
    }

    /// Ends the writes of an epoch. The lease is closed and no permit is out: what is left is to make
    /// sure that the target has everything, or that nothing late is accepted under the old epoch.
    ///
    /// Refused, or late, in a handover: the old leader goes on, and `activate` is called with
    /// [`ActivateCause::Resumed`].
    fn seal(&self, stage: Seal) -> impl Future<Output = StageResult> + Send {
        async move {
            let _ = stage;
            Ok(())
        }
    }

    /// Begins to take writes under an epoch. The lease opens once it says `Ok`.
    ///
    /// Refused, or late: this node gives the leadership up, and another replica is elected.
    fn activate(&self, stage: Activate) -> impl Future<Output = StageResult> + Send {
        async move {
            let _ = stage;
            Ok(())
        }
    }

    /// Gives up what is held of the replica: it is wanted here no more.
    ///
    /// Refused: it is called again, with growing pauses.
    fn release(&self, stage: Release) -> impl Future<Output = StageResult> + Send {
        async move {
            let _ = stage;
            Ok(())
        }
    }

    /// Whether [`position`](Self::position) says anything: an election then waits for it. Asked once,
    /// when the node starts.
    fn reports_position(&self) -> bool {
        false
    }

    /// How much the replica has, asked at an election of all that could lead: the one with the most is
    /// elected, and one that is damaged is passed over and has to catch up again. Answer at once, from what is in memory; it is
    /// not waited for for long. May be asked before `prepare`.
    ///
    /// Without it a leader is elected by what the record says is in sync, and the event of the election
    /// says so: writes that were acknowledged before all in-sync replicas had them may be missing.
    fn position(&self, partition: PartitionId) -> impl Future<Output = Option<Position>> + Send {
        async move {
            let _ = partition;
            None
        }
    }
}

/// Why a stage is not done.
///
/// Every error type becomes a refusal, so that `?` works in hooks.
#[derive(Debug)]
#[non_exhaustive]
pub enum Decline {
    /// Not yet: the hook is called again after this time. It stays late if it is late.
    Defer(Duration),
    /// It cannot be done, for this reason.
    Refuse(Box<dyn std::error::Error + Send + Sync>),
}

impl Decline {
    /// It cannot be done, for this reason.
    pub fn refuse(reason: impl Into<String>) -> Self {
        Self::Refuse(reason.into().into())
    }

    /// Not yet: call again after `pause`.
    #[must_use]
    pub fn defer(pause: Duration) -> Self {
        Self::Defer(pause)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Decline {
    fn from(error: E) -> Self {
        Self::Refuse(Box::new(error))
    }
}

/// The twin of [`PartitionHandler`] that can be shared behind a pointer.
pub(crate) trait AnyHandler: Send + Sync {
    fn prepare(&self, stage: Prepare) -> BoxFuture<'_, StageResult>;
    fn catch_up(&self, stage: CatchUp) -> BoxFuture<'_, StageResult>;
    fn seal(&self, stage: Seal) -> BoxFuture<'_, StageResult>;
    fn activate(&self, stage: Activate) -> BoxFuture<'_, StageResult>;
    fn release(&self, stage: Release) -> BoxFuture<'_, StageResult>;
    fn reports_position(&self) -> bool;
    fn position(&self, partition: PartitionId) -> BoxFuture<'_, Option<Position>>;
}

impl<H: PartitionHandler> AnyHandler for H {
    fn prepare(&self, stage: Prepare) -> BoxFuture<'_, StageResult> {
        Box::pin(PartitionHandler::prepare(self, stage))
    }

    fn catch_up(&self, stage: CatchUp) -> BoxFuture<'_, StageResult> {
        Box::pin(PartitionHandler::catch_up(self, stage))
    }

    fn seal(&self, stage: Seal) -> BoxFuture<'_, StageResult> {
        Box::pin(PartitionHandler::seal(self, stage))
    }

    fn activate(&self, stage: Activate) -> BoxFuture<'_, StageResult> {
        Box::pin(PartitionHandler::activate(self, stage))
    }

    fn release(&self, stage: Release) -> BoxFuture<'_, StageResult> {
        Box::pin(PartitionHandler::release(self, stage))
    }

    fn reports_position(&self) -> bool {
        PartitionHandler::reports_position(self)
    }

    fn position(&self, partition: PartitionId) -> BoxFuture<'_, Option<Position>> {
        Box::pin(PartitionHandler::position(self, partition))
    }
}

/// What a node was given: whom to ask, and whom to tell.
#[derive(Clone)]
pub(crate) struct Installed {
    pub(crate) handler: Arc<dyn AnyHandler>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

impl Installed {
    /// A handler that is asked, and told nothing more.
    pub(crate) fn asked(handler: impl PartitionHandler) -> Self {
        Self { handler: Arc::new(handler), observer: None }
    }

    /// A handler that is asked, and told of the copies of others.
    pub(crate) fn told(handler: impl PartitionHandler + Observer + Clone) -> Self {
        Self { handler: Arc::new(handler.clone()), observer: Some(Arc::new(handler)) }
    }
}

impl fmt::Debug for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Installed").finish_non_exhaustive()
    }
}

/// The handler of a node that keeps nothing: it agrees to everything at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoData;

impl PartitionHandler for NoData {}
