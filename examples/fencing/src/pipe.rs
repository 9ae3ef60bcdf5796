//! What the story and a node tell each other, a line of JSON each.

use std::collections::BTreeMap;
use std::time::Duration;

use clusterkit::Epoch;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::stores::{Held, Kind};

/// What a node reads from its standard input.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Begin so many writes, and hold them back. Answered by [`Report::Prepared`].
    Prepare { writes: u32 },
    /// Do those writes now, and as many that nobody may begin any more. Answered by
    /// [`Report::Attempted`].
    Attempt,
    /// Write no more. Answered by [`Report::Halted`] after the last write.
    Halt,
}

/// What a node writes to its standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// Other nodes reach it at this address.
    Listening { addr: String },
    /// It sees all nodes vote and hold the partition.
    Whole,
    /// The stores accept nothing under an epoch older than this any more.
    TookOver(Held),
    /// A write was confirmed. The last look at the lease was no earlier than `looked`, by
    /// [`machine_time`].
    Wrote { held: Held, looked: Duration },
    /// A write failed: its lease has ended, or a store could not be asked. With `in_flight` it had been
    /// begun, and its outcome is unknown.
    Failed { epoch: Epoch, in_flight: bool, why: String },
    /// Writes under this epoch are held back; `None` when this node does not lead.
    Prepared { epoch: Option<Epoch> },
    /// What became of the stale writes, or why they could not be tried.
    Attempted(Result<Attempts, String>),
    /// There are no more writes.
    Halted,
}

/// What became of the stale writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Attempts {
    /// Writes that were begun before the stop: confirmed after it.
    pub(crate) confirm: Tally,
    /// Writes under the old lease: begun after the stop.
    pub(crate) begin: Tally,
    /// Writes with the old epoch that ask no lease.
    pub(crate) stores: BTreeMap<Kind, Tally>,
}

/// Tries, and how many of them were accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) tried: u32,
    pub(crate) accepted: u32,
}

impl Tally {
    pub(crate) fn count(&mut self, is_accepted: bool) {
        self.tried += 1;
        self.accepted += u32::from(is_accepted);
    }
}

impl FromIterator<bool> for Tally {
    fn from_iter<I: IntoIterator<Item = bool>>(outcomes: I) -> Self {
        let mut tally = Self::default();
        outcomes.into_iter().for_each(|is_accepted| tally.count(is_accepted));
        tally
    }
}

/// The machine's monotonic clock, which is the same for all its processes.
pub(crate) fn machine_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).expect("it counts up from zero")
}
