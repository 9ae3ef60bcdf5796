//! Counterexamples made as short as they can be.
//!
//! Leaving an operation out may break a history that was fine: without the write, a read of its value has no
//! explanation. So operations are loosened first: taken as if their outcome were unknown. Whatever order explains a
//! history explains it with an operation loosened, so what is broken then was broken before. A loose operation that
//! may matter to no output is left out, which changes no verdict; all others stay, as what may explain outputs and
//! does not suffice.

use std::iter;

use super::history::Moment;
use super::limits::TRIALS_MIN;
use super::schedule::Entry;
use super::search::{Finding, examine};
use super::specification::Specification;

/// What is left of a history that has no order.
#[derive(Debug)]
pub(super) struct Short<'a, I, O> {
    /// What is left, in the order of invocations: it has no order either.
    pub(super) entries: Vec<Entry<'a, I, O>>,
    /// Whether it has one as soon as any known operation is loosened.
    pub(super) is_minimal: bool,
}

/// Shortens `entries`, which have no order: the search found none up to the return of the one at `stuck`.
pub(super) fn shorten<'a, S: Specification>(
    specification: &S,
    entries: &[Entry<'a, S::Input, S::Output>],
    stuck: usize,
    steps_max: u64,
) -> Short<'a, S::Input, S::Output> {
    let mut shortening = Shortening::new(specification, entries, steps_max);
    if !shortening.focus(stuck) {
        shortening.cut_end(stuck);
    }
    shortening.finish()
}

/// Looks for a contradiction in `entries` close before the return of the one at `stuck`, where a search ran out of
/// steps. `None` proves nothing.
pub(super) fn find<'a, S: Specification>(
    specification: &S,
    entries: &[Entry<'a, S::Input, S::Output>],
    stuck: usize,
    steps_max: u64,
) -> Option<Short<'a, S::Input, S::Output>> {
    let mut shortening = Shortening::new(specification, entries, steps_max);
    shortening.focus(stuck).then(|| shortening.finish())
}

/// The history up to the return of the entry at `end`: what was invoked later is not in it, and what returned later
/// is loose. An order of the whole is one of every such beginning.
fn beginning<'a, I, O>(entries: &[Entry<'a, I, O>], end: usize) -> Vec<Entry<'a, I, O>> {
    let end = returned(entries, end);
    let is_in = |entry: &Entry<'a, I, O>| end.is_some_and(|(end, _)| entry.operation.invoked <= end);
    let inside = entries.iter().enumerate().filter(|(_, entry)| is_in(entry));
    let is_after = |at| returned(entries, at) > end;
    inside.map(|(at, entry)| if is_after(at) { Entry::loose(entry.operation) } else { *entry }).collect()
}

/// What entries are ordered by that return.
fn returned<I, O>(entries: &[Entry<'_, I, O>], at: usize) -> Option<(Moment, usize)> {
    entries[at].result.map(|(returned, _)| (returned, at))
}

/// The places of what is not loose.
fn required<I, O>(entries: &[Entry<'_, I, O>]) -> Vec<usize> {
    (0..entries.len()).filter(|at| entries[*at].result.is_some()).collect()
}

/// The places of what is not loose, in the order of returns.
fn by_return<I, O>(entries: &[Entry<'_, I, O>]) -> Vec<usize> {
    let mut places = required(entries);
    places.sort_unstable_by_key(|at| returned(entries, *at));
    places
}

fn loosen<'a, I, O>(entries: &[Entry<'a, I, O>], places: &[usize]) -> Vec<Entry<'a, I, O>> {
    let mut entries = entries.to_vec();
    places.iter().for_each(|at| entries[*at] = Entry::loose(entries[*at].operation));
    entries
}

struct Shortening<'a, 's, S: Specification> {
    specification: &'s S,
    entries: Vec<Entry<'a, S::Input, S::Output>>,
    steps_left: u64,
    /// A part of all, so that one hard trial does not use up what would do for many.
    steps_per_trial: u64,
    /// Whether something might have been left out if there had been more steps.
    is_undecided: bool,
}

impl<'a, 's, S: Specification> Shortening<'a, 's, S> {
    fn new(specification: &'s S, entries: &[Entry<'a, S::Input, S::Output>], steps_left: u64) -> Self {
        let steps_per_trial = steps_left / TRIALS_MIN;
        Self { specification, entries: entries.to_vec(), steps_left, steps_per_trial, is_undecided: false }
    }

    /// Loosens all that can be.
    fn finish(mut self) -> Short<'a, S::Input, S::Output> {
        let mut size = required(&self.entries).len().div_ceil(2).max(1);
        loop {
            self.is_undecided = false;
            let is_shorter = self.pass(size);
            if size == 1 && !is_shorter {
                break;
            }
            size = if is_shorter { size } else { size.div_ceil(2) };
            size = size.min(required(&self.entries).len()).max(1);
        }
        Short { entries: self.entries, is_minimal: !self.is_undecided }
    }

    /// Goes on with the beginning up to `stuck`, and of that with the shortest end that is broken by itself: mostly
    /// what contradicts itself is close together, and short ends are cheap to search.
    fn focus(&mut self, stuck: usize) -> bool {
        let all = beginning(&self.entries, stuck);
        let ends = by_return(&all);
        let sizes = iter::successors(Some(1), |size| Some(size * 2)).take_while(|size| *size < ends.len());
        for size in sizes {
            let (loosened, _) = ends.split_at(ends.len() - size);
            if self.is_still_broken(loosen(&all, loosened)) {
                return true;
            }
        }
        self.is_still_broken(all)
    }

    /// Goes on with the shortest beginning that has no order. It may reach further than the search did, which knew
    /// outputs that were told later.
    fn cut_end(&mut self, stuck: usize) {
        let all = self.entries.clone();
        let mut ends = by_return(&all);
        ends.drain(..ends.iter().position(|end| *end == stuck).unwrap_or(0));
        // The last beginning that it goes on with is the shortest: where the search ends does not matter.
        let _ = ends.partition_point(|end| !self.is_still_broken(beginning(&all, *end)));
    }

    /// Tries to loosen every run of `size` operations, the last first. Whether one could be.
    fn pass(&mut self, size: usize) -> bool {
        let mut is_shorter = false;
        let mut end = required(&self.entries).len();
        while end > 0 {
            let start = end.saturating_sub(size);
            is_shorter |= self.try_loosen(start, end);
            end = start.min(required(&self.entries).len());
        }
        is_shorter
    }

    /// Loosens the required operations `start..end` if there is no order then either.
    fn try_loosen(&mut self, start: usize, end: usize) -> bool {
        let loosened = &required(&self.entries)[start..end];
        self.is_still_broken(loosen(&self.entries, loosened))
    }

    /// Goes on with `entries` if they have no order.
    fn is_still_broken(&mut self, entries: Vec<Entry<'a, S::Input, S::Output>>) -> bool {
        let examination = examine(self.specification, entries, self.steps_left.min(self.steps_per_trial));
        self.steps_left = self.steps_left.saturating_sub(examination.steps);
        match examination.finding {
            Finding::Ordered => {}
            Finding::Stuck { .. } => self.entries = examination.entries,
            Finding::Undecided { .. } => self.is_undecided = true,
        }
        matches!(examination.finding, Finding::Stuck { .. })
    }
}
