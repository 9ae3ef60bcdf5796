//! The search for an order of operations that explains their outputs.

use std::collections::{HashMap, VecDeque};

use super::bits::Bits;
use super::limits::STEPS_MAX;
use super::schedule::{Entry, Level, Optional, Required, Schedule, prune};
use super::specification::Specification;

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// There is an order.
    Ordered,
    /// There is none: no order even of what was invoked and had returned when this entry did.
    Stuck { entry: usize },
    /// It took more steps than allowed. The search has not got past the return of this entry.
    Undecided { entry: usize },
}

/// A finding and what it cost.
#[derive(Debug)]
pub(super) struct Examination<'a, I, O> {
    pub(super) finding: Finding,
    /// The entries that matter, which [`Finding::Stuck`] counts in.
    pub(super) entries: Vec<Entry<'a, I, O>>,
    pub(super) steps: u64,
}

/// Searches an order of `entries`, which are in the order of their invocations, in at most about `steps_max` steps.
///
/// A step is one call of the specification, or one comparison with a configuration that was seen before.
pub(super) fn examine<'a, S: Specification>(
    specification: &S,
    mut entries: Vec<Entry<'a, S::Input, S::Output>>,
    steps_max: u64,
) -> Examination<'a, S::Input, S::Output> {
    let foreseeing = prune(specification, &mut entries);
    let schedule = Schedule::new(&foreseeing, &entries);
    let mut search = Search::new(&foreseeing, &schedule);
    let finding = search.run(steps_max.min(STEPS_MAX));
    let steps = search.steps;
    Examination { finding, entries, steps }
}

/// What has taken effect, as far as anything to come depends on it.
#[derive(Debug, Clone, Default)]
struct Configuration {
    /// The number of the state.
    state: u32,
    /// The slots of the required operations that have taken effect, and have not returned.
    effective: Bits,
    /// The optional operations that have taken effect.
    spent: Bits,
}

/// The configurations of one level, those with the fewest effects first.
#[derive(Debug)]
struct Frame {
    level: usize,
    /// Still to be looked at.
    waiting: VecDeque<Configuration>,
    /// Looked at, and not extended so far: most never are, where there is an order.
    visited: VecDeque<Configuration>,
}

/// Where a configuration was seen: two of one place differ in what they have spent only.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Place {
    level: usize,
    state: u32,
    effective: Bits,
}

struct Search<'a, S: Specification> {
    specification: &'a S,
    schedule: &'a Schedule<'a, S::Input, S::Output>,
    states: States<S::State>,
    stack: Vec<Frame>,
    /// What was spent by configurations seen, without those that have spent more than another of the same place.
    seen: HashMap<Place, Vec<Bits>>,
    /// The last level that a configuration has come to.
    deepest: usize,
    steps: u64,
}

impl<'a, S: Specification> Search<'a, S> {
    fn new(specification: &'a S, schedule: &'a Schedule<'a, S::Input, S::Output>) -> Self {
        Self {
            specification,
            schedule,
            states: States::new(specification.initial()),
            stack: Vec::new(),
            seen: HashMap::new(),
            deepest: 0,
            steps: 0,
        }
    }

    /// Levels depth first, so that an order is found soon where there is one; the configurations of a level breadth
    /// first, so that those that have spent less come before those they make needless.
    fn run(&mut self, steps_max: u64) -> Finding {
        self.push(0, Configuration::default());
        while let Some(frame) = self.stack.last_mut() {
            let level = frame.level;
            if level == self.schedule.levels.len() {
                return Finding::Ordered;
            }
            if self.steps >= steps_max {
                return Finding::Undecided { entry: self.deepest_entry() };
            }
            if let Some(configuration) = frame.waiting.pop_front() {
                self.visit(level, configuration);
            } else if let Some(configuration) = frame.visited.pop_front() {
                self.extend(level, &configuration);
            } else {
                self.stack.pop();
            }
        }
        Finding::Stuck { entry: self.deepest_entry() }
    }

    fn deepest_entry(&self) -> usize {
        self.schedule.required[self.deepest].entry
    }

    fn push(&mut self, level: usize, configuration: Configuration) {
        self.deepest = self.deepest.max(level.min(self.schedule.levels.len().saturating_sub(1)));
        self.stack.push(Frame { level, waiting: VecDeque::from([configuration]), visited: VecDeque::new() });
    }

    fn visit(&mut self, level: usize, mut configuration: Configuration) {
        let schedule = self.schedule;
        self.settle(&schedule.levels[level], &mut configuration);
        let slot = schedule.required[level].slot;
        if configuration.effective.contains(slot) {
            configuration.effective.remove(slot);
            self.push(level + 1, configuration);
        } else if !self.is_dead(level, &configuration) && self.is_new(level, &configuration) {
            self.frame().visited.push_back(configuration.clone());
            if let Some(state) = self.required_step(&configuration, level) {
                self.push(level + 1, Configuration { state, ..configuration });
            }
        }
    }

    /// Lets every observer take effect that fits: whoever lets it do so later can do so now.
    fn settle(&mut self, level: &Level, configuration: &mut Configuration) {
        for at in &level.open {
            let Required { slot, is_observer, .. } = self.schedule.required[*at];
            let is_waiting = is_observer && !configuration.effective.contains(slot);
            if is_waiting && self.required_step(configuration, *at).is_some() {
                configuration.effective.insert(slot);
            }
        }
    }

    /// Whether an operation that is under way can no longer have its output.
    fn is_dead(&self, level: usize, configuration: &Configuration) -> bool {
        let state = &self.states.all[configuration.state as usize];
        self.schedule.levels[level].open.iter().map(|at| &self.schedule.required[*at]).any(|operation| {
            let is_waiting = !configuration.effective.contains(operation.slot);
            is_waiting && self.specification.is_missed(state, &operation.input, operation.output)
        })
    }

    /// Whether no configuration seen could do all that this one can.
    fn is_new(&mut self, level: usize, configuration: &Configuration) -> bool {
        let Configuration { state, effective, spent } = configuration;
        let place = Place { level, state: *state, effective: effective.clone() };
        let others = self.seen.entry(place).or_default();
        self.steps += others.len() as u64;
        if others.iter().any(|other| other.is_subset(spent)) {
            return false;
        }
        others.retain(|other| !spent.is_subset(other));
        others.push(spent.clone());
        true
    }

    /// Lets one more operation take effect before the one that returns, each in turn.
    fn extend(&mut self, level: usize, configuration: &Configuration) {
        let mut extended = VecDeque::new();
        for at in self.schedule.levels[level].open.iter().skip(1) {
            let Required { slot, is_observer, .. } = self.schedule.required[*at];
            if is_observer || configuration.effective.contains(slot) {
                continue;
            }
            if let Some(state) = self.required_step(configuration, *at) {
                let mut next = Configuration { state, ..configuration.clone() };
                next.effective.insert(slot);
                extended.push_back(next);
            }
        }
        for optional in self.optional(level) {
            if let Some(next) = self.spend(level, configuration, optional) {
                extended.push_back(next);
            }
        }
        self.frame().waiting.append(&mut extended);
    }

    /// What may be spent at `level`.
    fn optional(&self, level: usize) -> impl Iterator<Item = &'a Optional<S::Input>> + use<'a, S> {
        let invoked_count = self.schedule.levels[level].optional_count;
        let invoked = self.schedule.optional.iter().take_while(move |one| one.numbers[0] < invoked_count);
        invoked.filter(move |one| one.level_last >= level)
    }

    /// The configuration in which one more of `optional` has taken effect, if there is one left and a use in it.
    fn spend(
        &mut self,
        level: usize,
        configuration: &Configuration,
        optional: &Optional<S::Input>,
    ) -> Option<Configuration> {
        let is_spent = |number: &u32| configuration.spent.contains(*number);
        let number = *optional.numbers.get(optional.numbers.partition_point(is_spent))?;
        if number >= self.schedule.levels[level].optional_count {
            return None;
        }
        let state = self.step(configuration.state, &optional.input, None)?;
        if state == configuration.state || !self.is_of_use(level, configuration, state) {
            return None;
        }
        let mut next = Configuration { state, ..configuration.clone() };
        next.spent.insert(number);
        Some(next)
    }

    /// Whether anything that depends on the state may come next after it was changed to `state`. If only what is blind
    /// may, the change is in vain.
    fn is_of_use(&mut self, level: usize, configuration: &Configuration, state: u32) -> bool {
        let required = self.schedule.levels[level].open.iter().map(|at| &self.schedule.required[*at]);
        let mut waiting = required.filter(|one| !one.is_blind && !configuration.effective.contains(one.slot));
        waiting.any(|one| self.step(state, &one.input, Some(one.output)).is_some())
            || self
                .optional(level)
                .filter(|one| !one.is_blind)
                .any(|one| self.step(state, &one.input, None).is_some_and(|after| after != state))
    }

    fn frame(&mut self) -> &mut Frame {
        self.stack.last_mut().expect("a frame stays until it is done")
    }

    fn required_step(&mut self, configuration: &Configuration, at: usize) -> Option<u32> {
        let operation = &self.schedule.required[at];
        self.step(configuration.state, &operation.input, Some(operation.output))
    }

    fn step(&mut self, state: u32, input: &S::Input, output: Option<&S::Output>) -> Option<u32> {
        self.steps += 1;
        let before = &self.states.all[state as usize];
        let after = self.specification.step(before, input, output)?;
        if after == *before { Some(state) } else { Some(self.states.number(after)) }
    }
}

/// States by number, so that configurations are small whatever states are.
struct States<T> {
    all: Vec<T>,
    numbers: HashMap<T, u32>,
}

impl<T: Clone + Eq + std::hash::Hash> States<T> {
    fn new(initial: T) -> Self {
        Self { all: vec![initial.clone()], numbers: HashMap::from([(initial, 0)]) }
    }

    fn number(&mut self, state: T) -> u32 {
        if let Some(number) = self.numbers.get(&state) {
            return *number;
        }
        let number = u32::try_from(self.all.len()).expect("fewer steps than 32 bits count");
        self.all.push(state.clone());
        self.numbers.insert(state, number);
        number
    }
}
