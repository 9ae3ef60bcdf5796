//! The operations of one object in the order in which the search takes them up.

use std::collections::HashMap;
use std::hash::Hash;
use std::iter;

use super::history::{Moment, Operation, Outcome};
use super::limits::PRUNE_ROUNDS_MAX;
use super::specification::Specification;

/// An operation as the search sees it.
#[derive(Debug)]
pub(super) struct Entry<'a, I, O> {
    pub(super) operation: &'a Operation<I, O>,
    /// When it returned and what with. Without, it may take effect at any time after its invocation, or never.
    pub(super) result: Option<(Moment, &'a O)>,
}

impl<I, O> Clone for Entry<'_, I, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I, O> Copy for Entry<'_, I, O> {}

impl<'a, I, O> Entry<'a, I, O> {
    /// Nothing for an operation that failed: it is as if it had not been invoked.
    pub(super) fn new(operation: &'a Operation<I, O>) -> Option<Self> {
        match &operation.outcome {
            Outcome::Failed { .. } => None,
            Outcome::Known { returned, output } => {
                Some(Self { operation, result: Some((*returned, output)) })
            }
            Outcome::Unknown => Some(Self::loose(operation)),
        }
    }

    /// `operation` as if its outcome were unknown: whatever orders a history orders it with this one loose, too.
    pub(super) fn loose(operation: &'a Operation<I, O>) -> Self {
        Self { operation, result: None }
    }

    fn output(&self) -> Option<&'a O> {
        self.result.map(|(_, output)| output)
    }
}

/// Leaves out of `entries` what cannot matter. The specification that has seen all others.
pub(super) fn prune<S: Specification>(
    specification: &S,
    entries: &mut Vec<Entry<'_, S::Input, S::Output>>,
) -> S {
    let mut foreseeing = foresee(specification, entries);
    for _ in 0..PRUNE_ROUNDS_MAX {
        let count = entries.len();
        entries
            .retain(|entry| entry.result.is_some() || foreseeing.last_use(&entry.operation.input).is_some());
        if entries.len() == count {
            break;
        }
        foreseeing = foresee(specification, entries);
    }
    foreseeing
}

fn foresee<S: Specification>(specification: &S, entries: &[Entry<'_, S::Input, S::Output>]) -> S {
    let (mut known, loose): (Vec<&Entry<_, _>>, Vec<_>) =
        entries.iter().partition(|entry| entry.result.is_some());
    // A stable sort, as that of the required operations: places foreseen are levels.
    known.sort_by_key(|entry| entry.result.map(|(returned, _)| returned));
    specification
        .foreseeing(known.into_iter().chain(loose).map(|entry| (&entry.operation.input, entry.output())))
}

/// An operation that has to take effect between its invocation and its return.
#[derive(Debug)]
pub(super) struct Required<'a, I, O> {
    /// Its place among the entries.
    pub(super) entry: usize,
    /// As simple as what is foreseen allows.
    pub(super) input: I,
    pub(super) output: &'a O,
    /// Whether it leaves the state as it is.
    pub(super) is_observer: bool,
    /// Whether it does not depend on the state.
    pub(super) is_blind: bool,
    /// Its number among those under way at once: small, and taken again once it has returned.
    pub(super) slot: u32,
    invoked: Moment,
    returned: Moment,
}

/// Operations with one input that may take effect, each after its invocation. Of these the first is taken first, since
/// it can stand for any later one.
#[derive(Debug)]
pub(super) struct Optional<I> {
    /// As simple as what is foreseen allows.
    pub(super) input: I,
    /// Their numbers among all optional operations, in the order of invocations as these are.
    pub(super) numbers: Vec<u32>,
    /// The last level at which one of them is of use.
    pub(super) level_last: usize,
    /// Whether they do not depend on the state.
    pub(super) is_blind: bool,
}

/// What is there when a required operation returns.
#[derive(Debug)]
pub(super) struct Level {
    /// The required operations that are under way, the one that returns first.
    pub(super) open: Vec<usize>,
    /// How many optional operations were invoked.
    pub(super) optional_count: u32,
}

/// The operations of one object: the required in the order of their returns, each with what is there then.
///
/// Operations that return and are invoked at the same moment count as concurrent, as nothing says which was first.
#[derive(Debug)]
pub(super) struct Schedule<'a, I, O> {
    pub(super) required: Vec<Required<'a, I, O>>,
    /// In the order of their first invocations.
    pub(super) optional: Vec<Optional<I>>,
    pub(super) levels: Vec<Level>,
}

impl<'a, I: Clone + Eq + Hash, O> Schedule<'a, I, O> {
    /// The schedule of `entries`, which are in the order of their invocations and were foreseen by `specification`.
    pub(super) fn new<S: Specification<Input = I, Output = O>>(
        specification: &S,
        entries: &[Entry<'a, I, O>],
    ) -> Self {
        let with_place = entries.iter().enumerate();
        let mut required: Vec<_> =
            with_place.filter_map(|(at, entry)| required(specification, at, entry)).collect();
        required.sort_by_key(|operation| (operation.returned, operation.entry));
        let by_invocation = by_invocation(&required);
        give_slots(&mut required, &by_invocation);
        let loose: Vec<&Operation<I, O>> =
            entries.iter().filter(|entry| entry.result.is_none()).map(|entry| entry.operation).collect();
        let optional = optional(specification, &loose);
        let levels = levels(&required, &by_invocation, &loose);
        Self { required, optional, levels }
    }
}

fn required<'a, S: Specification>(
    specification: &S,
    at: usize,
    entry: &Entry<'a, S::Input, S::Output>,
) -> Option<Required<'a, S::Input, S::Output>> {
    let (returned, output) = entry.result?;
    let Operation { input, invoked, .. } = entry.operation;
    Some(Required {
        entry: at,
        input: specification.simplified(input),
        output,
        is_observer: specification.is_observer(input, output),
        is_blind: specification.is_blind(input),
        slot: 0,
        invoked: *invoked,
        returned,
    })
}

fn by_invocation<I, O>(required: &[Required<'_, I, O>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..required.len()).collect();
    order.sort_by_key(|at| required[*at].invoked);
    order
}

fn give_slots<I, O>(required: &mut [Required<'_, I, O>], by_invocation: &[usize]) {
    let (mut free, mut slots, mut returned) = (Vec::new(), 0.., 0);
    for at in by_invocation {
        while required[returned].returned < required[*at].invoked {
            free.push(required[returned].slot);
            returned += 1;
        }
        required[*at].slot =
            free.pop().or_else(|| slots.next()).expect("fewer operations than 32 bits count");
    }
}

fn optional<S: Specification>(
    specification: &S,
    loose: &[&Operation<S::Input, S::Output>],
) -> Vec<Optional<S::Input>> {
    let (mut places, mut optional) = (HashMap::new(), Vec::new());
    for (operation, number) in loose.iter().zip(0..) {
        let input = specification.simplified(&operation.input);
        let place = *places.entry(input.clone()).or_insert(optional.len());
        if place == optional.len() {
            let is_blind = specification.is_blind(&input);
            optional.push(Optional { input, numbers: Vec::new(), level_last: 0, is_blind });
        }
        let level_last = specification.last_use(&operation.input).unwrap_or(0);
        optional[place].level_last = optional[place].level_last.max(level_last);
        optional[place].numbers.push(number);
    }
    optional
}

fn levels<I, O>(
    required: &[Required<'_, I, O>],
    by_invocation: &[usize],
    loose: &[&Operation<I, O>],
) -> Vec<Level> {
    let mut waiting = by_invocation.iter().copied().peekable();
    let mut open: Vec<usize> = Vec::new();
    let mut levels = Vec::with_capacity(required.len());
    for (at, operation) in required.iter().enumerate() {
        let is_there = |other: &usize| required[*other].invoked <= operation.returned;
        open.extend(iter::from_fn(|| waiting.next_if(is_there)));
        open.sort_unstable();
        let optional_count = loose.partition_point(|optional| optional.invoked <= operation.returned);
        let optional_count = u32::try_from(optional_count).expect("fewer operations than 32 bits count");
        levels.push(Level { open: open.clone(), optional_count });
        open.retain(|other| *other != at);
    }
    levels
}
