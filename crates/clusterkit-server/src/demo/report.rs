//! What a demonstration came to.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::json;

use super::ledger::{Ledger, Verdict};
use super::scenario::Fault;
use crate::cli;

/// One trial.
#[derive(Debug)]
pub(super) struct Trial {
    verdict: Verdict,
    waits: Vec<Duration>,
    first_error: Option<String>,
}

impl Trial {
    pub(super) fn new(verdict: Verdict, ledger: &Ledger, fault: &Fault) -> Self {
        let waits = ledger.waits(fault.partitions.iter().copied(), fault.at);
        Self { verdict, waits, first_error: ledger.first_error().map(str::to_owned) }
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { acked, lost, duplicated, unknown, errors } = self.verdict;
        let waits = Waits::new(self.waits.clone());
        write!(
            f,
            "{acked} acknowledged, {lost} lost, {duplicated} duplicated, {unknown} unknown, {errors} errors; \
             the longest wait {} ms",
            waits.at(100)
        )?;
        match &self.first_error {
            Some(error) => write!(f, "; the first error: {error}"),
            None => Ok(()),
        }
    }
}

/// Times in order.
struct Waits(Vec<Duration>);

impl Waits {
    fn new(mut waits: Vec<Duration>) -> Self {
        waits.sort_unstable();
        Self(waits)
    }

    /// The milliseconds that `percent` of them do not exceed.
    fn at(&self, percent: usize) -> u128 {
        let rank = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(rank).map_or(0, Duration::as_millis)
    }
}

/// All trials.
#[derive(Debug)]
pub(super) struct Report {
    scenario: String,
    nodes: u32,
    trials: Vec<Trial>,
    duration: Duration,
}

impl Report {
    pub(super) fn new(options: &cli::Demo, trials: Vec<Trial>, duration: Duration) -> Self {
        let name = options.scenario.to_possible_value().map(|value| value.get_name().to_owned());
        Self { scenario: name.unwrap_or_default(), nodes: options.nodes, trials, duration }
    }

    fn total(&self) -> Verdict {
        self.trials.iter().fold(Verdict::default(), |sum, trial| Verdict {
            acked: sum.acked + trial.verdict.acked,
            lost: sum.lost + trial.verdict.lost,
            duplicated: sum.duplicated + trial.verdict.duplicated,
            unknown: sum.unknown + trial.verdict.unknown,
            errors: sum.errors + trial.verdict.errors,
        })
    }

    fn waits(&self) -> Waits {
        Waits::new(self.trials.iter().flat_map(|trial| trial.waits.iter().copied()).collect())
    }

    /// Whether no acknowledged write was lost, and none took effect twice.
    pub(super) fn is_clean(&self) -> bool {
        let total = self.total();
        total.lost == 0 && total.duplicated == 0
    }

    pub(super) fn json(&self) -> String {
        let (total, waits) = (self.total(), self.waits());
        json!({
            "scenario": self.scenario,
            "nodes": self.nodes,
            "acked": total.acked,
            "lost": total.lost,
            "duplicated": total.duplicated,
            "unknown": total.unknown,
            "errors": total.errors,
            "blackout_ms": { "p50": waits.at(50), "p99": waits.at(99), "max": waits.at(100) },
            "trials": self.trials.len(),
            "duration_s": self.duration.as_secs(),
        })
        .to_string()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (total, waits) = (self.total(), self.waits());
        write!(
            f,
            "{}: {} acknowledged writes, {} lost, {} duplicated, {} of unknown outcome, {} errors seen by clients; \
             a partition was without a write for {} ms at the median, {} ms at most",
            self.scenario,
            total.acked,
            total.lost,
            total.duplicated,
            total.unknown,
            total.errors,
            waits.at(50),
            waits.at(100)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let waits = Waits::new((1..=200).rev().map(Duration::from_millis).collect());
        let check = |percent, expect| assert_eq!(waits.at(percent), expect);
        check(50, 100);
        check(99, 198);
        check(100, 200);
        assert_eq!(Waits::new(Vec::new()).at(50), 0);
    }
}
