mod charts;
mod known;
mod naive;
mod object;
mod random;
mod small;
mod text;

use super::{Counterexample, History, Limits, Report, Specification, Verdict, check};

/// The history of these lines.
fn history<S: Specification>(lines: &str) -> History<S::Input, S::Output> {
    History::read::<S>(&format!("history {}\n{lines}", S::NAME)).expect("a history")
}

fn report<S: Specification + Default>(history: &History<S::Input, S::Output>) -> Report<S::Input, S::Output> {
    check(&S::default(), history, Limits::default())
}

fn counterexample<S: Specification + Default>(
    history: &History<S::Input, S::Output>,
) -> Counterexample<S::Input, S::Output> {
    match report::<S>(history).verdict {
        Verdict::Broken(counterexample) => *counterexample,
        verdict => panic!("{verdict:?}\n{}", history.text::<S>()),
    }
}
