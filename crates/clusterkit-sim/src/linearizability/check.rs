//! The check of a whole history, object by object.

use std::fmt;

use super::counterexample::Counterexample;
use super::history::{History, Key, Operation, Outcome};
use super::limits::{STEPS_PER_KEY, STEPS_SHORTENING};
use super::schedule::Entry;
use super::search::{Examination, Finding, examine};
use super::shorten::{find, shorten};
use super::specification::Specification;

/// How much work a check may take. Steps are counted, not timed, so that a check ends the same everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most steps for one key, some 20 to 100 million a second; [`STEPS_PER_KEY`] by default. With fewer, hard
    /// histories are [`Verdict::Undecided`] earlier. Memory grows with them, mostly by a few bytes for each.
    pub steps_per_key: u64,
    /// The most steps for shortening a counterexample, and for looking for one where those for a key did not suffice;
    /// [`STEPS_SHORTENING`] by default. With fewer it may stay longer than needed, which it says.
    pub steps_shortening: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { steps_per_key: STEPS_PER_KEY, steps_shortening: STEPS_SHORTENING }
    }
}

/// Whether every object behaved as if operations took effect one by one, each between invocation and return.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict<I, O> {
    /// No object has an order for its operations that explains all outputs: of the first such object by key, why.
    Broken(Box<Counterexample<I, O>>),
    /// Every object has such an order.
    Linearizable,
    /// Nothing is proven: no object was found broken, and for these the steps did not suffice. This is no pass.
    /// Check again with more steps, or record shorter histories on more keys.
    Undecided {
        /// Objects that were not decided; all others have an order.
        keys: Vec<Key>,
    },
}

/// How many operations of each outcome a history has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OperationCounts {
    /// Operations that did not take effect. They prove only that nobody saw them.
    pub failed: u64,
    /// Operations with an output: these are what the check is of.
    pub known: u64,
    /// Operations that may have taken effect. They prove nothing.
    pub unknown: u64,
}

/// A verdict, and what it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Report<I, O> {
    /// The verdict.
    pub verdict: Verdict<I, O>,
    /// How many operations there were. A caller that expects a load checks that `known` reaches its floor.
    pub counts: OperationCounts,
    /// How many objects there were.
    pub key_count: u64,
    /// How many steps it took, without those of shortening.
    pub steps: u64,
}

/// Checks every object of `history` against `specification`, from its initial state.
///
/// It costs about one step for each operation and each other one that is under way at its time, where operations are
/// explained by an order close to that of their returns; with many unknown operations that are observed late, or with
/// many equal values, it may cost as many as `limits` allow. The same arguments give the same report.
pub fn check<S: Specification>(
    specification: &S,
    history: &History<S::Input, S::Output>,
    limits: Limits,
) -> Report<S::Input, S::Output> {
    let (mut steps, mut undecided) = (0, Vec::new());
    let keys = history.by_key();
    let (counts, key_count) = (count(history.operations()), keys.len() as u64);
    let report = |verdict, steps| Report { verdict, counts, key_count, steps };
    for (key, operations) in keys {
        let entries = operations.iter().copied().filter_map(Entry::new).collect();
        let Examination { finding, entries, steps: own } =
            examine(specification, entries, limits.steps_per_key);
        steps += own;
        let short = match finding {
            Finding::Ordered => continue,
            Finding::Stuck { entry } => {
                Some(shorten(specification, &entries, entry, limits.steps_shortening))
            }
            Finding::Undecided { entry } => find(specification, &entries, entry, limits.steps_shortening),
        };
        let Some(short) = short else {
            undecided.push(key);
            continue;
        };
        let counterexample = Counterexample::new(S::NAME, operations.len(), &short);
        return report(Verdict::Broken(Box::new(counterexample)), steps);
    }
    let is_decided = undecided.is_empty();
    report(if is_decided { Verdict::Linearizable } else { Verdict::Undecided { keys: undecided } }, steps)
}

fn count<I, O>(operations: &[Operation<I, O>]) -> OperationCounts {
    let mut counts = OperationCounts::default();
    for operation in operations {
        match operation.outcome {
            Outcome::Failed { .. } => counts.failed += 1,
            Outcome::Known { .. } => counts.known += 1,
            Outcome::Unknown => counts.unknown += 1,
        }
    }
    counts
}

impl<I, O> Report<I, O> {
    /// Whether it was proven that every object has an order. An undecided history is not.
    #[must_use]
    pub fn is_linearizable(&self) -> bool {
        matches!(self.verdict, Verdict::Linearizable)
    }
}

impl<I: fmt::Display, O: fmt::Display> fmt::Display for Report<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verdict {
            Verdict::Broken(counterexample) => counterexample.fmt(f)?,
            Verdict::Linearizable => writeln!(f, "linearizable")?,
            Verdict::Undecided { keys } => {
                write!(f, "undecided: the steps did not suffice for")?;
                keys.iter().try_for_each(|key| write!(f, " {key}"))?;
                writeln!(f)?;
            }
        }
        let Self { counts: OperationCounts { failed, known, unknown }, key_count, steps, .. } = self;
        writeln!(
            f,
            "{known} operations known, {failed} failed, {unknown} unknown, {key_count} keys, {steps} steps"
        )
    }
}
