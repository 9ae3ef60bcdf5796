//! Who may write one partition on this node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clusterkit_core::id::{Epoch, NodeId, PartitionId, PartitionVersion};
use clusterkit_core::time::Instant;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::LeaseLost;
use super::support::Support;

/// One for a partition that this node leads or led. It knows the epoch, and every permit that is out.
///
/// Invariants:
/// - the epoch of each opening is greater than every epoch that the gate led, so what
///   [`close`](Self::close) ended stays ended, and no older than any that it heard of: the one that
///   ended this node's own may be this node's next;
/// - under an epoch that was given up nothing is issued or confirmed until a record is adopted that is
///   newer than the one it was given up by;
/// - the record's version only grows, so the oldest permit has the oldest version;
/// - permits are issued while the gate is open, and at no other time;
/// - a permit is out from when it was issued until it is dropped, whatever becomes of the gate.
#[derive(Debug)]
pub(crate) struct Gate {
    partition: PartitionId,
    support: Arc<Support>,
    state: Mutex<State>,
    /// Leases of the last epoch have ended.
    ended: Notify,
    /// No permit is out, or the oldest that is has another version than the one before.
    settled: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// The epoch that this node leads, or last led.
    epoch_led: Epoch,
    /// The greatest epoch that this gate led or heard of.
    epoch_seen: Epoch,
    version: PartitionVersion,
    /// What [`give_up`](Gate::give_up) was last told of.
    given_up: Option<(Epoch, PartitionVersion)>,
    /// Where the partition lies by that version, the leader first.
    holders: Arc<[NodeId]>,
    /// The permits that are out, by serial. Its bound is the caller's: each stands for a [`Permit`]
    /// that the program holds in its own memory.
    ///
    /// [`Permit`]: super::Permit
    out: BTreeMap<u64, Out>,
    issued_count: u64,
}

#[derive(Debug)]
enum Phase {
    Closed(LeaseLost),
    /// On its way to another node, under the same epoch: writes that were begun may end.
    Draining,
    Open,
}

/// A permit that is out.
#[derive(Debug, Clone, Copy)]
struct Out {
    version: PartitionVersion,
    since: Instant,
}

/// What a new permit holds.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) serial: u64,
    pub(super) version: PartitionVersion,
    pub(super) holders: Arc<[NodeId]>,
}

// What the node does as the record of the partition changes.
impl Gate {
    /// Closed: this node never led the partition.
    pub(crate) fn new(partition: PartitionId, support: Arc<Support>) -> Self {
        let state = State {
            phase: Phase::Closed(LeaseLost::NotLeader),
            epoch_led: Epoch::default(),
            epoch_seen: Epoch::default(),
            version: PartitionVersion::default(),
            given_up: None,
            holders: Arc::from([]),
            out: BTreeMap::new(),
            issued_count: 0,
        };
        Self { partition, support, state: Mutex::new(state), ended: Notify::new(), settled: Notify::new() }
    }

    pub(crate) fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The epoch under which this node leads the partition, handing over or not.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        let state = self.state();
        (!matches!(state.phase, Phase::Closed(_))).then_some(state.epoch_led)
    }

    /// This node leads from now on. Leases of earlier epochs have ended, if they had not before;
    /// permits of theirs may still be out, and no longer confirm.
    pub(crate) fn open(&self, epoch: Epoch, version: PartitionVersion, holders: Arc<[NodeId]>) {
        let mut state = self.state();
        assert!(
            epoch > state.epoch_led && epoch >= state.epoch_seen,
            "{}: led at epoch {epoch} after epoch {}",
            self.partition,
            state.epoch_seen
        );
        self.set_record(&mut state, version, holders);
        state.epoch_led = epoch;
        state.epoch_seen = epoch;
        state.phase = Phase::Open;
        drop(state);
        self.ended.notify_waiters();
    }

    /// The record changed, and its leader did not: permits carry `version` and `holders` from now on.
    /// Does nothing once the gate is closed. `true` when the epoch had been given up and goes on.
    pub(crate) fn adopt(&self, version: PartitionVersion, holders: Arc<[NodeId]>) -> bool {
        let mut state = self.state();
        if matches!(state.phase, Phase::Closed(_)) {
            return false;
        }
        let was_given_up = state.is_given_up();
        self.set_record(&mut state, version, holders);
        was_given_up && !state.is_given_up()
    }

    /// This node is about to give `epoch` up, by a wish that the record can follow at `version` alone:
    /// others may lead from then on, and this node learns of it later. So nothing is issued or confirmed
    /// under that epoch until a newer record is adopted: by then the wish has done what it does, or
    /// never will.
    pub(crate) fn give_up(&self, epoch: Epoch, version: PartitionVersion) {
        let mut state = self.state();
        state.given_up = state.given_up.max(Some((epoch, version)));
        drop(state);
        self.ended.notify_waiters();
    }

    fn set_record(&self, state: &mut State, version: PartitionVersion, holders: Arc<[NodeId]>) {
        assert!(version >= state.version, "{}: version {version} after {}", self.partition, state.version);
        state.version = version;
        state.holders = holders;
    }

    /// A handoff begins: no new permits, and those that are out may confirm. `false`, and nothing
    /// changed, unless the gate is open at `epoch`.
    pub(crate) fn suspend(&self, epoch: Epoch) -> bool {
        let mut state = self.state();
        let is_open = matches!(state.phase, Phase::Open) && state.epoch_led == epoch;
        if is_open {
            state.phase = Phase::Draining;
        }
        is_open
    }

    /// The handoff was called off: the leases of `epoch` hold as before. `false`, and nothing changed,
    /// unless the gate hands over at `epoch`.
    pub(crate) fn reopen(&self, epoch: Epoch) -> bool {
        let mut state = self.state();
        let is_draining = matches!(state.phase, Phase::Draining) && state.epoch_led == epoch;
        if is_draining {
            state.phase = Phase::Open;
        }
        is_draining
    }

    /// This node does not lead any more: its leases have ended, for the reason `why`, and permits that
    /// are out no longer confirm. Closing again gives the newer reason.
    pub(crate) fn close(&self, why: LeaseLost) {
        assert!(why != LeaseLost::HandingOver, "{}: a handoff suspends, it does not close", self.partition);
        let mut state = self.state();
        if let LeaseLost::Superseded { epoch } = why {
            assert!(
                epoch > state.epoch_led,
                "{}: epoch {epoch} ended epoch {}",
                self.partition,
                state.epoch_led
            );
            state.epoch_seen = state.epoch_seen.max(epoch);
        }
        state.phase = Phase::Closed(why);
        drop(state);
        self.ended.notify_waiters();
    }

    /// Waits until no permit of a version before `version` is out. Call it after
    /// [`adopt`](Self::adopt) or [`open`](Self::open) with that version: only then does it stay so.
    pub(crate) async fn adopted(&self, version: PartitionVersion) {
        self.settled(|state| state.version_oldest().is_none_or(|oldest| oldest >= version)).await;
    }

    /// Waits until no permit is out. Call it after [`suspend`](Self::suspend) or
    /// [`close`](Self::close): only then does it stay so.
    pub(crate) async fn drained(&self) {
        self.settled(|state| state.out.is_empty()).await;
    }

    async fn settled(&self, is_settled: impl Fn(&State) -> bool) {
        loop {
            // Made before the look: what happens after it wakes this.
            let change = self.settled.notified();
            if is_settled(&self.state()) {
                return;
            }
            change.await;
        }
    }

    /// How many permits are out, and since when the oldest; `None` when none is.
    pub(crate) fn outstanding(&self) -> Option<(usize, Instant)> {
        let state = self.state();
        let oldest = state.out.first_key_value()?;
        Some((state.out.len(), oldest.1.since))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No holder of the lock leaves anything half done: a panic in it is an assert, before any
        // change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// What leases and permits ask.
//
// Support is always looked at first and the gate last. The other way round, a thread that is stopped
// between the two could see the gate before another node was elected, and the support that came back
// after it. Seen last, an open gate was open at the moment when there was support.
impl Gate {
    /// The epoch under which writes may begin.
    pub(super) fn lead(&self) -> Result<Epoch, LeaseLost> {
        self.support.check(self.support.now())?;
        let state = self.state();
        match state.phase {
            _ if state.is_given_up() => Err(LeaseLost::NotLeader),
            Phase::Closed(_) => Err(LeaseLost::NotLeader),
            Phase::Draining => Err(LeaseLost::HandingOver),
            Phase::Open => Ok(state.epoch_led),
        }
    }

    /// Whether a write may begin under `epoch` at `now`.
    pub(super) fn check_begin(&self, epoch: Epoch, now: Instant) -> Result<(), LeaseLost> {
        self.support.check(now)?;
        self.state().check_begin(epoch)
    }

    /// Whether a write that was begun under `epoch` may end.
    pub(super) fn check_end(&self, epoch: Epoch) -> Result<(), LeaseLost> {
        self.support.check(self.support.now())?;
        self.state().check_end(epoch)
    }

    pub(super) fn issue(&self, epoch: Epoch) -> Result<Issued, LeaseLost> {
        let now = self.support.now();
        self.support.check(now)?;
        let mut state = self.state();
        state.check_begin(epoch)?;
        let serial = state.issued_count;
        let out = Out { version: state.version, since: now };
        state.issued_count += 1;
        state.out.insert(serial, out);
        Ok(Issued { serial, version: state.version, holders: Arc::clone(&state.holders) })
    }

    /// The permit was dropped.
    pub(super) fn settle(&self, serial: u64) {
        let mut state = self.state();
        let before = state.version_oldest();
        state.out.remove(&serial);
        let after = state.version_oldest();
        drop(state);
        if before != after {
            self.settled.notify_waiters();
        }
    }

    pub(super) fn support(&self) -> &Support {
        &self.support
    }

    /// Wakes when leases end by the gate after this, polled or not.
    pub(super) fn ended(&self) -> Notified<'_> {
        self.ended.notified()
    }
}

impl State {
    fn check_begin(&self, epoch: Epoch) -> Result<(), LeaseLost> {
        self.check_end(epoch)?;
        match self.phase {
            Phase::Draining => Err(LeaseLost::HandingOver),
            Phase::Closed(_) | Phase::Open => Ok(()),
        }
    }

    fn check_end(&self, epoch: Epoch) -> Result<(), LeaseLost> {
        match &self.phase {
            _ if epoch != self.epoch_led => Err(LeaseLost::Superseded { epoch: self.epoch_seen }),
            Phase::Closed(why) => Err(why.clone()),
            Phase::Draining | Phase::Open if self.is_given_up() => Err(LeaseLost::NotLeader),
            Phase::Draining | Phase::Open => Ok(()),
        }
    }

    fn is_given_up(&self) -> bool {
        // Whoever gives up a later epoch knows that this one is over.
        self.given_up >= Some((self.epoch_led, self.version))
    }

    /// The version of the oldest permit that is out, which no other is below.
    fn version_oldest(&self) -> Option<PartitionVersion> {
        self.out.first_key_value().map(|(_, out)| out.version)
    }
}
