//! What came of it: one object for programs, a table for people.

use std::io::{self, Write};
use std::time::Duration;

use clusterkit::Epoch;
use serde::Serialize;

use crate::pipe::Tally;
use crate::stores::Kind;

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    /// No stale write was accepted, good ones were, and each store that ran holds the newest.
    pub(crate) ok: bool,
    pub(crate) nodes: usize,
    pub(crate) writes: u32,
    pub(crate) stopped_s: f64,
    pub(crate) takeover_s: f64,
    /// Of the owner that was stopped.
    pub(crate) epoch_old: Epoch,
    /// Of the newest leader.
    pub(crate) epoch_new: Epoch,
    pub(crate) good_writes: GoodWrites,
    pub(crate) local: Local,
    pub(crate) stores: Vec<StoreOutcome>,
}

/// Writes that were accepted by every store and confirmed.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct GoodWrites {
    /// By the old owner, under its epoch.
    pub(crate) before: u64,
    /// By others, under newer ones.
    pub(crate) after: u64,
}

/// What the old lease let through.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Local {
    /// Writes that were begun before the stop and confirmed after it.
    pub(crate) confirm: Tally,
    /// Writes that were begun after it.
    pub(crate) begin: Tally,
    /// The write that the stop hit in the owner's loop, when it hit one.
    pub(crate) in_flight: Tally,
}

/// What became of one store.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StoreOutcome {
    pub(crate) store: Kind,
    #[serde(flatten)]
    pub(crate) trial: Trial,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Trial {
    /// It was not tried, for this reason.
    Skipped(String),
    #[serde(untagged)]
    Ran { stale: Tally, holds_newest: bool },
}

impl Outcome {
    /// With what the parts say of the whole.
    pub(crate) fn judged(mut self) -> Self {
        let good = self.good_writes.before > 0 && self.good_writes.after > 0;
        self.ok = good
            && self.tallies().all(|tally| tally.accepted == 0)
            && self.stores.iter().all(StoreOutcome::is_well);
        self
    }

    fn tallies(&self) -> impl Iterator<Item = Tally> {
        [self.local.confirm, self.local.begin, self.local.in_flight].into_iter()
    }

    /// To standard output.
    pub(crate) fn print(&self, as_json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if as_json {
            serde_json::to_writer_pretty(&mut out, self)?;
            return writeln!(out);
        }
        writeln!(out, "\n{:<34}{:>10}{:>10}", "stale writes", "tried", "accepted")?;
        row(&mut out, "lease: confirmed after the stop", self.local.confirm)?;
        row(&mut out, "lease: begun after the stop", self.local.begin)?;
        row(&mut out, "under way at the stop", self.local.in_flight)?;
        for StoreOutcome { store, trial } in &self.stores {
            match trial {
                Trial::Skipped(reason) => writeln!(out, "{store:<34}  skipped: {reason}")?,
                Trial::Ran { stale, .. } => row(&mut out, &store.to_string(), *stale)?,
            }
        }
        let (ran, all) = (self.stores.iter().filter(|store| store.ran()).count(), self.stores.len());
        match self.ok {
            true => writeln!(out, "\nNothing stale was accepted, by the lease and {ran} of {all} stores."),
            false => writeln!(out, "\nA promise was broken: {}", serde_json::to_string(self)?),
        }
    }
}

impl StoreOutcome {
    fn ran(&self) -> bool {
        matches!(self.trial, Trial::Ran { .. })
    }

    fn is_well(&self) -> bool {
        match &self.trial {
            Trial::Skipped(_) => true,
            Trial::Ran { stale, holds_newest } => stale.tried > 0 && stale.accepted == 0 && *holds_newest,
        }
    }
}

fn row(out: &mut impl Write, name: &str, tally: Tally) -> io::Result<()> {
    writeln!(out, "{name:<34}{:>10}{:>10}", tally.tried, tally.accepted)
}

/// Seconds to the millisecond.
pub(crate) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(good: [u64; 2], local: [u32; 3], store: Trial) -> Outcome {
        let tally = |accepted| Tally { tried: 10, accepted };
        let [confirm, begin, in_flight] = local.map(tally);
        Outcome {
            ok: false,
            nodes: 3,
            writes: 10,
            stopped_s: 1.0,
            takeover_s: 1.0,
            epoch_old: Epoch(1),
            epoch_new: Epoch(2),
            good_writes: GoodWrites { before: good[0], after: good[1] },
            local: Local { confirm, begin, in_flight },
            stores: vec![StoreOutcome { store: Kind::Redis, trial: store }],
        }
    }

    #[test]
    fn one_stale_write_that_was_accepted_anywhere_spoils_it() {
        let ran =
            |tried, accepted, holds_newest| Trial::Ran { stale: Tally { tried, accepted }, holds_newest };
        let check = |good, local, store, expect| {
            let judged = outcome(good, local, store).judged();
            assert_eq!(judged.ok, expect, "{judged:?}");
        };
        check([1, 1], [0, 0, 0], ran(10, 0, true), true);
        check([1, 1], [0, 0, 0], Trial::Skipped("not installed".to_owned()), true);
        check([1, 1], [1, 0, 0], ran(10, 0, true), false);
        check([1, 1], [0, 1, 0], ran(10, 0, true), false);
        check([1, 1], [0, 0, 1], ran(10, 0, true), false);
        check([1, 1], [0, 0, 0], ran(10, 1, true), false);
        check([1, 1], [0, 0, 0], ran(0, 0, true), false);
        check([1, 1], [0, 0, 0], ran(10, 0, false), false);
        check([0, 1], [0, 0, 0], ran(10, 0, true), false);
        check([1, 0], [0, 0, 0], ran(10, 0, true), false);
    }
}
