//! Fencing for programs that keep their own storage: who may write a partition, and until when.
//!
//! A [`Lease`] stands on two things, and ends with the first of them: the support of the control
//! plane for this run of the node, which ends by time ([`Support`]), and the epoch, which a newer one
//! ends ([`Gate`]). Each write takes a [`Permit`] and confirms it before it is acknowledged. A handoff
//! and a change of the record wait until the permits that it concerns were dropped.
//!
//! Invariants:
//! - of one partition, no two leases of different epochs are valid at once on a node;
//! - nothing confirms that was not supported, and at the gate's epoch, at one moment during
//!   [`Permit::confirm`].

mod gate;
mod support;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use clusterkit_core::id::{Epoch, NodeId, PartitionId, PartitionVersion};
#[cfg(feature = "http")]
use clusterkit_core::time::Instant;

pub(crate) use self::gate::Gate;
use self::gate::Issued;
pub(crate) use self::support::Support;

/// The right of this node to write one partition, under one epoch.
///
/// It ends when a newer epoch begins, when the control plane's support for this node runs out, or
/// when the node stops, whichever comes first. Support is renewed in the background: while the node
/// is in touch with its cluster, a lease lasts for as long as the node leads. A node that is cut off,
/// or whose process is stopped, loses it by time, before another node may write.
///
/// A lease that expired holds again when support comes back and nobody else was elected meanwhile.
/// One that was superseded never holds again. Clones are handles on the same lease.
///
/// ```
/// fn write(lease: &clusterkit::Lease) -> Result<(), clusterkit::LeaseLost> {
///     let permit = lease.begin()?;
///     // Write to your storage, under `permit.epoch()`: let it refuse an epoch older than the newest
///     // that it has seen.
///     permit.confirm()
///     // Now, and not before, tell your client that the write is done.
/// }
/// ```
#[derive(Clone)]
pub struct Lease {
    gate: Arc<Gate>,
    epoch: Epoch,
}

impl Lease {
    /// The partition that may be written.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.gate.partition()
    }

    /// The fencing token: greater than that of every lease of this partition before it. Hand it to an
    /// outside store with each write, and let the store refuse what is older than what it has seen.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether a write may begin now. The answer is old as soon as it is there: take a
    /// [`Permit`] around what must not happen without the lease.
    ///
    /// Costs one look at the clock, one atomic load, and a lock of the partition that is held for a
    /// few instructions.
    ///
    /// # Errors
    ///
    /// Why not. Nothing changed.
    pub fn check(&self) -> Result<(), LeaseLost> {
        self.gate.check_begin(self.epoch, self.gate.support().now())
    }

    /// Whether [`check`](Self::check) lets a write begin.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.check().is_ok()
    }

    /// How long it holds even if the control plane is never heard again, unless this node itself
    /// hands the partition over or stops. Zero when [`check`](Self::check) refuses.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let now = self.gate.support().now();
        let until = self.gate.support().until();
        match self.gate.check_begin(self.epoch, now) {
            Ok(()) => until.since(now),
            Err(_) => Duration::ZERO,
        }
    }

    /// Waits until it has ended, and says why; at once when it has. A handoff under way is no end:
    /// it may be called off.
    ///
    /// A process that was stopped learns of the end only when it goes on, so this is for ending work
    /// in time, and no substitute for [`Permit::confirm`]. Dropping the future loses nothing: ask
    /// again.
    pub async fn lost(&self) -> LeaseLost {
        loop {
            // Made before the look: what happens after it wakes them.
            let superseded = self.gate.ended();
            let stopped = self.gate.support().ended();
            if let Err(lost) = self.gate.check_end(self.epoch) {
                return lost;
            }
            tokio::select! {
                () = superseded => {}
                () = stopped => {}
                () = self.gate.support().run_out() => {}
            }
        }
    }

    /// Begins a write. Hold the permit until the write has ended, and no longer.
    ///
    /// Costs what [`check`](Self::check) costs, and an entry in the partition's list of permits.
    ///
    /// # Errors
    ///
    /// Why no write may begin. Nothing changed.
    pub fn begin(&self) -> Result<Permit, LeaseLost> {
        let issued = self.gate.issue(self.epoch)?;
        Ok(Permit { gate: Arc::clone(&self.gate), epoch: self.epoch, issued })
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("partition", &self.partition())
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// One write that was begun under a [`Lease`].
///
/// While it is out the partition is not handed over to another node, and no change of the nodes that
/// hold it is taken as done: both wait until it is dropped. So a permit that is held for long delays
/// them for as long, and one that is leaked delays them for ever, or until the epoch ends by other
/// means. Take one a write, not one a connection.
///
/// Dropping it ends the write, confirmed or not.
#[must_use = "a write ends when its permit is dropped: hold it until then, and confirm it"]
pub struct Permit {
    gate: Arc<Gate>,
    epoch: Epoch,
    issued: Issued,
}

impl Permit {
    /// The fencing token of the lease.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The version of the partition's record under which it was issued.
    #[must_use]
    pub fn version(&self) -> PartitionVersion {
        self.issued.version
    }

    /// The nodes that hold the partition by that version, the leader first: where the write belongs.
    /// A change of them is done only after this permit is dropped.
    #[must_use]
    pub fn holders(&self) -> &[NodeId] {
        &self.issued.holders
    }

    /// Whether the write could be acknowledged now. For long writes that want to give up early; the
    /// last word is [`confirm`](Self::confirm)'s.
    ///
    /// # Errors
    ///
    /// Why not. Nothing changed.
    pub fn check(&self) -> Result<(), LeaseLost> {
        self.gate.check_end(self.epoch)
    }

    /// The last look before a write is acknowledged. `Ok` when the lease held at a moment after this
    /// was called: nobody else has led since the write began, even where this process was stopped in
    /// between. While a handoff waits for this permit it is `Ok` too.
    ///
    /// Costs what [`Lease::check`] costs.
    ///
    /// # Errors
    ///
    /// Why it does not hold. The outcome of the write is then unknown: what was written may stay, or
    /// may be lost to what the next leader writes. Tell the client so, never that it failed.
    pub fn confirm(self) -> Result<(), LeaseLost> {
        // Looked at before it is dropped: a handoff that waits for it goes on only then.
        self.check()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.settle(self.issued.serial);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("partition", &self.gate.partition())
            .field("epoch", &self.epoch)
            .field("version", &self.issued.version)
            .finish_non_exhaustive()
    }
}

/// This node may not write the partition, or not any more.
///
/// Where [`Permit::confirm`] says it, the outcome of the write is unknown, whichever it is. Everywhere
/// else nothing was begun. Where two hold at once, either is named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseLost {
    /// The control plane's support ran out: this node was cut off, or its process was stopped.
    /// Nothing was begun. Another node may lead already: retry by the route, here or there, once this
    /// node is in touch with its cluster again.
    #[error("the lease expired: this node is, or was, out of touch with its cluster")]
    Expired,
    /// The partition is on its way to another node. Nothing was begun. Retry in a moment: by the
    /// route, since it ends with another leader, or here, when it is called off.
    #[error("the partition is being handed over to another node")]
    HandingOver,
    /// This node does not lead the partition. Nothing was begun. Retry at the leader that the route
    /// names.
    #[error("this node does not lead the partition")]
    NotLeader,
    /// This node stops, or has stopped. Nothing was begun. Retry at another node.
    #[error("this node stops")]
    Stopped,
    /// A newer epoch began. Nothing was begun. The lease never holds again: retry at the leader that
    /// the route names, which may be this node under the newer epoch.
    #[error("a newer epoch began: {epoch}")]
    Superseded {
        /// The newest that this node knows.
        epoch: Epoch,
    },
}

/// All leases of a node.
#[derive(Debug)]
pub(crate) struct Leases {
    support: Arc<Support>,
    /// At most one for a partition, and kept once made: leases hold on to them.
    gates: RwLock<BTreeMap<PartitionId, Arc<Gate>>>,
}

impl Leases {
    pub(crate) fn new(support: Arc<Support>) -> Self {
        Self { support, gates: RwLock::new(BTreeMap::new()) }
    }

    pub(crate) fn support(&self) -> &Arc<Support> {
        &self.support
    }

    /// The gate of `partition`, made when there is none.
    pub(crate) fn gate(&self, partition: PartitionId) -> Arc<Gate> {
        let mut gates = self.gates.write().unwrap_or_else(PoisonError::into_inner);
        let gate = gates.entry(partition).or_insert_with(|| {
            let support = Arc::clone(&self.support);
            Arc::new(Gate::new(partition, support))
        });
        Arc::clone(gate)
    }

    /// The lease of `partition` as this node holds it now.
    pub(crate) fn lead(&self, partition: PartitionId) -> Result<Lease, LeaseLost> {
        let gate = self.known(partition).ok_or(LeaseLost::NotLeader)?;
        let epoch = gate.lead()?;
        Ok(Lease { gate, epoch })
    }

    /// How many partitions may be written here now.
    #[cfg(feature = "http")]
    pub(crate) fn open_count(&self) -> usize {
        let gates = self.gates.read().unwrap_or_else(PoisonError::into_inner);
        gates.values().filter(|gate| gate.lead().is_ok()).count()
    }

    /// How many permits of `partition` are out, and since when the oldest; `None` when none is.
    #[cfg(feature = "http")]
    pub(crate) fn outstanding(&self, partition: PartitionId) -> Option<(usize, Instant)> {
        self.known(partition)?.outstanding()
    }

    fn known(&self, partition: PartitionId) -> Option<Arc<Gate>> {
        let gates = self.gates.read().unwrap_or_else(PoisonError::into_inner);
        gates.get(&partition).cloned()
    }
}
