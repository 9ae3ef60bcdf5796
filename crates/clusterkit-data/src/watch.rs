//! Following what happens in a partition.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use clusterkit_core::id::PartitionId;
use tokio::sync::watch;

use crate::shared::Shared;

/// What the state machine tells of the commands of a partition, as this node's replica applies them: in order, each
/// once, from an offset on. Another node's replica tells the same, so that a watch can be gone on with there.
pub struct Watch {
    shared: Arc<Shared>,
    partition: PartitionId,
    next: u64,
    changed: watch::Receiver<()>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("partition", &self.partition)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// What was told since the watch began, or went on, is not all there any more. Read the state, and watch from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("events of {partition} from offset {from} on are forgotten here")]
pub struct EventsForgotten {
    /// Of which partition.
    pub partition: PartitionId,
    /// What was to come next.
    pub from: u64,
}

impl Watch {
    pub(crate) fn new(shared: Arc<Shared>, partition: PartitionId, from: u64) -> Self {
        let changed = shared.events.watch(partition);
        Self { shared, partition, next: from, changed }
    }

    /// The next events with the offsets of their commands, at least one; `None` when the node stops. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    ///
    /// See [`EventsForgotten`]: the watch was away for too long, or this node's replica is a newer copy.
    pub async fn next(&mut self) -> Option<Result<Vec<(u64, Bytes)>, EventsForgotten>> {
        // Before, it is not known where the replica stands.
        if !self.shared.is_running().await {
            return None;
        }
        loop {
            self.changed.mark_unchanged();
            match self.shared.events.since(self.partition, self.next) {
                Some((events, next)) if !events.is_empty() => {
                    self.next = next;
                    return Some(Ok(events));
                }
                Some((_, next)) => self.next = next,
                None => return Some(Err(EventsForgotten { partition: self.partition, from: self.next })),
            }
            tokio::select! {
                changed = self.changed.changed() => changed.ok()?,
                () = self.shared.stop.cancelled() => return None,
            }
        }
    }
}
