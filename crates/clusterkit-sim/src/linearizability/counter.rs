//! A counter.

use std::fmt;
use std::str::FromStr;

use super::specification::{NotationError, Specification};

/// What a counter is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CounterInput {
    /// Add this to it.
    Add(i64),
    /// Tell what it stands at.
    Read,
}

/// What a counter answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CounterOutput {
    /// It was added to, and where it stands then was not told.
    Done,
    /// Where it stands, after adding if that was asked for.
    Value(i64),
}

/// A counter of 64 bits that stands at zero at first and wraps around.
#[derive(Debug, Clone, Default)]
pub struct Counter {
    foresight: Option<Foresight>,
}

#[derive(Debug, Clone, Copy)]
struct Foresight {
    /// The last operation that tells where the counter stands.
    last_told: Option<usize>,
    /// Whether the counter never goes down.
    is_growing: bool,
}

impl Specification for Counter {
    const NAME: &'static str = "counter";
    type State = i64;
    type Input = CounterInput;
    type Output = CounterOutput;

    fn initial(&self) -> i64 {
        0
    }

    fn step(&self, state: &i64, input: &CounterInput, output: Option<&CounterOutput>) -> Option<i64> {
        let (after, is_read) = match input {
            CounterInput::Add(amount) => (state.wrapping_add(*amount), false),
            CounterInput::Read => (*state, true),
        };
        let fits = match output {
            Some(CounterOutput::Value(value)) => *value == after,
            Some(CounterOutput::Done) => !is_read,
            None => true,
        };
        fits.then_some(after)
    }

    fn is_observer(&self, input: &CounterInput, _output: &CounterOutput) -> bool {
        matches!(input, CounterInput::Read)
    }

    fn foreseeing<'a>(
        &self,
        operations: impl Iterator<Item = (&'a CounterInput, Option<&'a CounterOutput>)>,
    ) -> Self {
        let (mut last_told, mut sum) = (None, Some(0_i64));
        for (at, (input, output)) in operations.enumerate() {
            if matches!(output, Some(CounterOutput::Value(_))) {
                last_told = Some(at);
            }
            if let CounterInput::Add(amount) = input {
                sum = sum.filter(|_| *amount >= 0).and_then(|sum| sum.checked_add(*amount));
            }
        }
        Self { foresight: Some(Foresight { last_told, is_growing: sum.is_some() }) }
    }

    fn last_use(&self, input: &CounterInput) -> Option<usize> {
        match input {
            CounterInput::Add(0) | CounterInput::Read => None,
            CounterInput::Add(_) => self.foresight.map_or(Some(usize::MAX), |foresight| foresight.last_told),
        }
    }

    fn is_missed(&self, state: &i64, _input: &CounterInput, output: &CounterOutput) -> bool {
        let is_growing = self.foresight.is_some_and(|foresight| foresight.is_growing);
        is_growing && matches!(output, CounterOutput::Value(value) if value < state)
    }
}

impl fmt::Display for CounterInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(amount) => write!(f, "add {amount}"),
            Self::Read => f.write_str("read"),
        }
    }
}

impl FromStr for CounterInput {
    type Err = NotationError;

    fn from_str(line: &str) -> Result<Self, NotationError> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["add", amount] => amount.parse().map(Self::Add).map_err(|_| NotationError),
            ["read"] => Ok(Self::Read),
            _ => Err(NotationError),
        }
    }
}

impl fmt::Display for CounterOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Value(value) => value.fmt(f),
        }
    }
}

impl FromStr for CounterOutput {
    type Err = NotationError;

    fn from_str(word: &str) -> Result<Self, NotationError> {
        match word {
            "done" => Ok(Self::Done),
            _ => word.parse().map(Self::Value).map_err(|_| NotationError),
        }
    }
}
