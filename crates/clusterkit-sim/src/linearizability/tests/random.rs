//! What a linearizable object did is accepted, and what it cannot have done is found.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::super::{
    Counter, CounterInput, History, Key, List, ListOutput, Operation, Outcome, Process, Register,
};
use super::object::{Object, Plan, Recording, plans, record, run};
use super::{counterexample, history, report};

/// Processes of planted operations have numbers from here.
const PLANTED: u32 = 1_000;

/// What a register cannot have done, whatever others do. Values begin with 9,000, which others do not write.
const ANOMALIES: &[&str] = &[
    // A stale read.
    "0..1 write 9001 -> done\n2..3 write 9002 -> done\n4..5 read -> 9001",
    // Reads that go back while a write is under way.
    "0..1 write 9001 -> done\n2..50 write 9002 -> done\n3..4 read -> 9002\n5..6 read -> 9001",
    // A value from nowhere.
    "0..9 read -> 9001",
    // A value that is written later.
    "0..9 read -> 9001\n10..11 write 9001 -> done",
    // A lost update.
    "0..1 write 9001 -> done\n2..9 cas 9001 9002 -> swapped\n2..9 cas 9001 9003 -> swapped",
    // A deleted value is back.
    "0..1 write 9001 -> done\n2..3 delete -> done\n4..5 read -> 9001",
    // A failed write is observed.
    "0..1 write 9001 -> failed\n2..3 read -> 9001",
    // An unknown write takes effect twice.
    "0.. write 9001 -> unknown\n1..2 read -> 9001\n3..4 write 9002 -> done\n5..6 read -> 9002\n7..8 read -> 9001",
    // An unknown write is observed before it was invoked.
    "0..1 read -> 9001\n2.. write 9001 -> unknown",
    // A swap that was refused is observed.
    "0..9 cas 9001 9002 -> kept\n10..11 read -> 9002",
];

fn accepted<S: Object>(plans: &[Plan]) {
    let history = record::<S>(plans);
    let report = report::<S>(&history);
    assert!(report.is_linearizable(), "{report}{}", history.text::<S>());
    assert_eq!(History::read::<S>(&history.text::<S>()).as_ref(), Ok(&history));
}

/// What was recorded, and these operations in addition, each of its own process, `at` later than they say.
fn plant<S: Object>(recording: Recording<S>, lines: &str, at: u64) -> History<S::Input, S::Output> {
    let lines: String =
        lines.lines().zip(PLANTED..).map(|(line, process)| format!("p{process} k0 {line}\n")).collect();
    let planted = history::<S>(&lines);
    let mut operations = recording.recorder.finish().expect("a history").operations().to_vec();
    operations.extend(planted.operations().iter().map(|operation| later(operation, at)));
    History::new(operations).expect("a history")
}

fn later<I: Clone, O: Clone>(operation: &Operation<I, O>, by: u64) -> Operation<I, O> {
    let mut operation = operation.clone();
    operation.invoked.0 += by;
    match &mut operation.outcome {
        Outcome::Known { returned, .. } | Outcome::Failed { returned } => returned.0 += by,
        Outcome::Unknown => {}
    }
    operation
}

fn found<S: Object>(history: &History<S::Input, S::Output>) {
    let counterexample = counterexample::<S>(history);
    assert_eq!(counterexample.key(), Key(0));
    assert!(counterexample.is_minimal(), "{counterexample}");
    let is_planted = |operation: &Operation<_, _>| operation.process >= Process(PLANTED);
    assert!(counterexample.contradiction().any(is_planted), "{counterexample}{}", history.text::<S>());
}

/// The sums that the counter may stand at in the end, the least and the greatest.
fn sums(recording: &Recording<Counter>) -> (i64, i64) {
    let history = recording.recorder.clone().finish().expect("a history");
    history.operations().iter().fold((0, 0), |(least, greatest), operation| match &operation.input {
        CounterInput::Add(amount) => match operation.outcome {
            Outcome::Known { .. } => (least + amount, greatest + amount),
            Outcome::Failed { .. } => (least, greatest),
            Outcome::Unknown => (least, greatest + amount),
        },
        CounterInput::Read => (least, greatest),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_registers_did_is_accepted(plans in plans(6, 2, 0..120)) {
        accepted::<Register>(&plans);
    }

    #[test]
    fn what_counters_did_is_accepted(plans in plans(6, 2, 0..120)) {
        accepted::<Counter>(&plans);
    }

    #[test]
    fn what_lists_did_is_accepted(plans in plans(6, 2, 0..120)) {
        accepted::<List>(&plans);
    }

    #[test]
    fn what_a_register_cannot_have_done_is_found(
        plans in plans(6, 1, 0..80),
        anomaly in proptest::sample::select(ANOMALIES),
        at in 0_u64..600,
    ) {
        found::<Register>(&plant(run::<Register>(&plans), anomaly, at));
    }

    #[test]
    fn what_a_counter_cannot_have_done_is_found(plans in plans(6, 1, 1..80), is_lost in any::<bool>()) {
        let recording = run::<Counter>(&plans);
        let ((least, greatest), end) = (sums(&recording), recording.end);
        let wrong = if is_lost { least - 1 } else { greatest + 1 };
        found::<Counter>(&plant(recording, &format!("0..1 read -> {wrong}"), end));
    }

    #[test]
    fn what_a_list_cannot_have_done_is_found(plans in plans(6, 1, 1..80), anomaly in 0..3, place in any::<usize>()) {
        let recording = run::<List>(&plans);
        let elements = recording.real.get(&Key(0)).cloned().unwrap_or_default();
        prop_assume!(elements.len() >= 2);
        let mut wrong = elements.clone();
        match anomaly {
            0 => drop(wrong.remove(place % elements.len())),
            1 => wrong.push(elements[place % elements.len()]),
            _ => wrong.swap(place % (elements.len() - 1), elements.len() - 1),
        }
        let (right, wrong) = (ListOutput::Elements(elements), ListOutput::Elements(wrong));
        let end = recording.end;
        found::<List>(&plant(recording, &format!("0..1 read -> {right}\n2..3 read -> {wrong}"), end));
    }
}

/// Ten thousand operations of ten processes on a hundred registers, a fifth of them unknown.
#[test]
fn a_long_history_takes_few_steps() {
    let plans =
        plans(10, 100, 10_000..10_001).new_tree(&mut TestRunner::deterministic()).expect("plans").current();
    let history = record::<Register>(&plans);
    let report = report::<Register>(&history);
    assert!(report.is_linearizable(), "{report}");
    assert!(report.steps < 100_000, "{report}");
}
