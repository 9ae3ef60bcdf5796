//! Objects that are linearizable because they do one thing after the other, and the histories that clients of them
//! record.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::{
    Counter, CounterInput, CounterOutput, History, Invocation, Key, List, ListInput, ListOutput, Moment,
    Process, Recorder, Register, RegisterInput, RegisterOutput, Specification, Value,
};

/// An object that is real: it answers, where a specification judges answers.
pub(super) trait Object: Specification + Default {
    type Real: Default;

    /// What client and chance ask for; `unique` comes once.
    fn input(choice: u8, unique: u64) -> Self::Input;
    fn apply(real: &mut Self::Real, input: &Self::Input) -> Self::Output;
}

impl Object for Register {
    type Real = Option<Value>;

    fn input(choice: u8, unique: u64) -> RegisterInput {
        match choice % 8 {
            0 => RegisterInput::Delete,
            1 => RegisterInput::CompareAndSet { expected: None, value: Value(unique) },
            2 => RegisterInput::CompareAndSet {
                expected: Some(Value(unique.saturating_sub(u64::from(choice / 8)))),
                value: Value(unique),
            },
            3..=5 => RegisterInput::Write(Value(unique)),
            _ => RegisterInput::Read,
        }
    }

    fn apply(real: &mut Option<Value>, input: &RegisterInput) -> RegisterOutput {
        match input {
            RegisterInput::CompareAndSet { expected, .. } if expected != real => return RegisterOutput::Kept,
            RegisterInput::CompareAndSet { value, .. } => {
                *real = Some(*value);
                return RegisterOutput::Swapped;
            }
            RegisterInput::Delete => *real = None,
            RegisterInput::Read => return RegisterOutput::Value(*real),
            RegisterInput::Write(value) => *real = Some(*value),
        }
        RegisterOutput::Done
    }
}

impl Object for Counter {
    type Real = i64;

    fn input(choice: u8, _unique: u64) -> CounterInput {
        match choice % 4 {
            0 => CounterInput::Read,
            amount => CounterInput::Add(i64::from(amount.min(2))),
        }
    }

    fn apply(real: &mut i64, input: &CounterInput) -> CounterOutput {
        match input {
            CounterInput::Add(2) => *real += 2,
            CounterInput::Add(amount) => {
                *real += amount;
                return CounterOutput::Done;
            }
            CounterInput::Read => {}
        }
        CounterOutput::Value(*real)
    }
}

impl Object for List {
    type Real = Vec<Value>;

    fn input(choice: u8, unique: u64) -> ListInput {
        if choice.is_multiple_of(3) { ListInput::Read } else { ListInput::Append(Value(unique)) }
    }

    fn apply(real: &mut Vec<Value>, input: &ListInput) -> ListOutput {
        match input {
            ListInput::Append(value) => {
                real.push(*value);
                if value.0 % 5 == 0 { ListOutput::Length(real.len() as u64) } else { ListOutput::Done }
            }
            ListInput::Read => ListOutput::Elements(real.clone()),
        }
    }
}

/// What becomes of an operation on its way.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    Known,
    Failed,
    /// The answer is lost, and the operation arrives so much later.
    Late(u64),
    Lost,
}

/// One operation before it runs. Times are gaps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    process: u32,
    key: u64,
    choice: u8,
    idle: u64,
    there: u64,
    back: u64,
    fate: Fate,
}

/// Operations of so many processes on so many objects, up to a fifth of them with unknown outcomes.
pub(super) fn plans(
    processes: u32,
    keys: u64,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<Plan>> {
    let fate = prop_oneof![
        15 => Just(Fate::Known),
        1 => Just(Fate::Failed),
        3 => (0_u64..300).prop_map(Fate::Late),
        1 => Just(Fate::Lost),
    ];
    let plan = (0..processes, 0..keys, any::<u8>(), 0_u64..10, 0_u64..20, 0_u64..20, fate).prop_map(
        |(process, key, choice, idle, there, back, fate)| Plan {
            process,
            key,
            choice,
            idle,
            there,
            back,
            fate,
        },
    );
    proptest::collection::vec(plan, count)
}

/// A history, to which more may be added, and the states that its objects ended in.
pub(super) struct Recording<S: Object> {
    pub(super) recorder: Recorder<S::Input, S::Output>,
    pub(super) real: BTreeMap<Key, S::Real>,
    pub(super) end: u64,
}

/// Runs `plans`: every operation takes effect at one moment, in the order of these.
pub(super) fn run<S: Object>(plans: &[Plan]) -> Recording<S> {
    let (mut recorder, mut clocks, mut effects) = (Recorder::new(), BTreeMap::new(), Vec::new());
    for (plan, unique) in plans.iter().zip(1..) {
        let clock = clocks.entry(plan.process).or_insert(0);
        let (invoked, effect) = (*clock + plan.idle, *clock + plan.idle + plan.there);
        *clock = effect + plan.back;
        let (key, input) = (Key(plan.key), S::input(plan.choice, unique));
        let process = Process(plan.process);
        let id = recorder.invoke(Invocation { process, key, invoked: Moment(invoked), input: input.clone() });
        match plan.fate {
            Fate::Known => effects.push((effect, id, key, input, Some(Moment(*clock)))),
            Fate::Failed => recorder.fail(id, Moment(*clock)),
            Fate::Late(later) => effects.push((effect + later, id, key, input, None)),
            Fate::Lost => {}
        }
    }
    effects.sort_by_key(|(effect, id, ..)| (*effect, *id));
    let end = effects.iter().map(|(effect, ..)| *effect).chain(clocks.into_values()).max().unwrap_or(0) + 1;
    let mut real: BTreeMap<Key, S::Real> = BTreeMap::new();
    for (_, id, key, input, returned) in effects {
        let output = S::apply(real.entry(key).or_default(), &input);
        if let Some(returned) = returned {
            recorder.complete(id, returned, output);
        }
    }
    Recording { recorder, real, end }
}

pub(super) fn record<S: Object>(plans: &[Plan]) -> History<S::Input, S::Output> {
    run::<S>(plans).recorder.finish().expect("a history")
}
