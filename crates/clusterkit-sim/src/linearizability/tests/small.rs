//! The checker and the definition come to the same verdicts.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::super::{
    Counter, CounterInput, CounterOutput, History, Key, List, ListInput, ListOutput, Moment, Operation,
    Outcome, Process, Register, RegisterInput, RegisterOutput, Specification, Value, Verdict,
};
use super::{naive, report};

const CASES: u32 = 6_000;
const OPERATIONS_MAX: usize = 6;

/// Verdicts of both kinds have to come up at least so often, or the comparison says little.
const CASES_OF_A_KIND_MIN: u32 = CASES / 8;

fn value() -> impl Strategy<Value = Value> {
    (1_u64..4).prop_map(Value)
}

fn register() -> impl Strategy<Value = (RegisterInput, RegisterOutput)> {
    let held = || proptest::option::weighted(0.8, value());
    prop_oneof![
        (held(), value(), any::<bool>()).prop_map(|(expected, value, is_swapped)| {
            let output = if is_swapped { RegisterOutput::Swapped } else { RegisterOutput::Kept };
            (RegisterInput::CompareAndSet { expected, value }, output)
        }),
        Just((RegisterInput::Delete, RegisterOutput::Done)),
        held().prop_map(|held| (RegisterInput::Read, RegisterOutput::Value(held))),
        held().prop_map(|held| (RegisterInput::Read, RegisterOutput::Value(held))),
        value().prop_map(|value| (RegisterInput::Write(value), RegisterOutput::Done)),
        value().prop_map(|value| (RegisterInput::Write(value), RegisterOutput::Done)),
    ]
}

fn counter() -> impl Strategy<Value = (CounterInput, CounterOutput)> {
    prop_oneof![
        (-1_i64..3).prop_map(|amount| (CounterInput::Add(amount), CounterOutput::Done)),
        (-1_i64..3, 0_i64..4)
            .prop_map(|(amount, sum)| (CounterInput::Add(amount), CounterOutput::Value(sum))),
        (0_i64..4).prop_map(|sum| (CounterInput::Read, CounterOutput::Value(sum))),
    ]
}

fn list() -> impl Strategy<Value = (ListInput, ListOutput)> {
    let elements = proptest::collection::vec(value(), 0..3);
    prop_oneof![
        value().prop_map(|value| (ListInput::Append(value), ListOutput::Done)),
        value().prop_map(|value| (ListInput::Append(value), ListOutput::Done)),
        (value(), 1_u64..4)
            .prop_map(|(value, length)| (ListInput::Append(value), ListOutput::Length(length))),
        elements.prop_map(|elements| (ListInput::Read, ListOutput::Elements(elements))),
    ]
}

/// Up to six operations of as many processes, as likely as not at the same time.
fn histories<I: std::fmt::Debug, O: std::fmt::Debug>(
    calls: impl Strategy<Value = (I, O)>,
) -> impl Strategy<Value = Vec<Operation<I, O>>> {
    let operation =
        (calls, 0_u64..10, 0_u64..8, 0_u8..8).prop_map(|((input, output), invoked, length, fate)| {
            let returned = Moment(invoked + length);
            let outcome = match fate {
                0 => Outcome::Failed { returned },
                1..=2 => Outcome::Unknown,
                _ => Outcome::Known { returned, output },
            };
            Operation { process: Process(0), key: Key(0), invoked: Moment(invoked), input, outcome }
        });
    proptest::collection::vec(operation, 1..=OPERATIONS_MAX).prop_map(|mut operations| {
        operations.iter_mut().zip(0..).for_each(|(operation, process)| operation.process = Process(process));
        operations
    })
}

fn compare<S: Specification + Default>(calls: impl Strategy<Value = (S::Input, S::Output)>) {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRunner::deterministic().new_rng());
    let (fine, broken) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let result = runner.run(&histories(calls), |operations| {
        let is_linearizable = naive::is_linearizable(&S::default(), &operations);
        let kind = if is_linearizable { &fine } else { &broken };
        kind.set(kind.get() + 1);
        compare_one::<S>(operations, is_linearizable);
        Ok(())
    });
    assert_eq!(result, Ok(()));
    let counts = [fine.get(), broken.get()];
    assert!(counts.iter().all(|count| *count >= CASES_OF_A_KIND_MIN), "{counts:?}");
}

fn compare_one<S: Specification + Default>(
    operations: Vec<Operation<S::Input, S::Output>>,
    is_linearizable: bool,
) {
    let specification = S::default();
    let history = History::new(operations).expect("a history");
    let report = report::<S>(&history);
    assert_eq!(report.is_linearizable(), is_linearizable, "{report}{}", history.text::<S>());
    assert_eq!(History::read::<S>(&history.text::<S>()).as_ref(), Ok(&history));
    if let Verdict::Broken(counterexample) = report.verdict {
        let short = counterexample.history().expect("a history");
        assert!(counterexample.is_minimal());
        assert!(!naive::is_linearizable(&specification, short.operations()), "{counterexample}");
        for at in 0..short.operations().len() {
            let mut operations = short.operations().to_vec();
            if operations[at].returned().is_some() {
                operations[at].outcome = Outcome::Unknown;
                assert!(naive::is_linearizable(&specification, &operations), "{counterexample}");
            }
        }
    }
}

#[test]
fn registers_have_the_verdicts_of_the_definition() {
    compare::<Register>(register());
}

#[test]
fn counters_have_the_verdicts_of_the_definition() {
    compare::<Counter>(counter());
}

#[test]
fn lists_have_the_verdicts_of_the_definition() {
    compare::<List>(list());
}
