//! A register: the value of one key.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::specification::{NotationError, Specification};

/// What a register or an element of a list holds. A history tells most if no value is written twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Value(pub u64);

impl Value {
    /// The greatest value that is not `taken`, of which there are fewer than values.
    pub(super) fn unlike(taken: impl Fn(Self) -> bool) -> Self {
        let mut values = (0..=u64::MAX).rev().map(Self);
        values.find(|value| !taken(*value)).expect("no history has all values")
    }
}

/// What a register is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RegisterInput {
    /// Set it if it is as expected.
    CompareAndSet {
        /// What it has to hold, `None` for nothing.
        expected: Option<Value>,
        /// What it holds then.
        value: Value,
    },
    /// Empty it.
    Delete,
    /// Tell what it holds.
    Read,
    /// Set it.
    Write(Value),
}

/// What a register answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisterOutput {
    /// It was written or deleted.
    Done,
    /// It was not as expected, and is as it was.
    Kept,
    /// It was as expected, and was set.
    Swapped,
    /// It was read: what it holds, `None` for nothing.
    Value(Option<Value>),
}

/// A register, empty at first, with read, write, delete and compare-and-set.
#[derive(Debug, Clone, Default)]
pub struct Register {
    foresight: Option<Arc<Foresight>>,
}

/// What the outputs of a history tell of states.
#[derive(Debug, Default)]
struct Foresight {
    /// States that a read or a compare-and-set has found, or that one with unknown outcome may find, and where last.
    found: HashMap<Option<Value>, usize>,
    /// States that a compare-and-set has not found.
    missed: HashSet<Option<Value>>,
    /// The state that was missed last, and where; before it, another one.
    missed_last: [Option<(Option<Value>, usize)>; 2],
    /// A value that is in neither, and stands for all others of these.
    other: Value,
}

impl Specification for Register {
    const NAME: &'static str = "register";
    type State = Option<Value>;
    type Input = RegisterInput;
    type Output = RegisterOutput;

    fn initial(&self) -> Option<Value> {
        None
    }

    fn step(
        &self,
        state: &Option<Value>,
        input: &RegisterInput,
        output: Option<&RegisterOutput>,
    ) -> Option<Option<Value>> {
        let (after, answer) = match input {
            RegisterInput::CompareAndSet { expected, value } if expected == state => {
                (Some(*value), RegisterOutput::Swapped)
            }
            RegisterInput::CompareAndSet { .. } => (*state, RegisterOutput::Kept),
            RegisterInput::Delete => (None, RegisterOutput::Done),
            RegisterInput::Read => (*state, RegisterOutput::Value(*state)),
            RegisterInput::Write(value) => (Some(*value), RegisterOutput::Done),
        };
        output.is_none_or(|output| *output == answer).then_some(after)
    }

    fn is_observer(&self, input: &RegisterInput, output: &RegisterOutput) -> bool {
        matches!(input, RegisterInput::Read) || matches!(output, RegisterOutput::Kept)
    }

    fn is_blind(&self, input: &RegisterInput) -> bool {
        matches!(input, RegisterInput::Delete | RegisterInput::Write(_))
    }

    fn foreseeing<'a>(
        &self,
        operations: impl Iterator<Item = (&'a RegisterInput, Option<&'a RegisterOutput>)>,
    ) -> Self {
        let mut foresight = Foresight::default();
        operations.enumerate().for_each(|(at, (input, output))| foresight.learn(at, input, output));
        foresight.other = Value::unlike(|value| foresight.names(value));
        Self { foresight: Some(Arc::new(foresight)) }
    }

    fn last_use(&self, input: &RegisterInput) -> Option<usize> {
        let after = match input {
            RegisterInput::Read => return None,
            RegisterInput::Delete => None,
            RegisterInput::CompareAndSet { value, .. } | RegisterInput::Write(value) => Some(*value),
        };
        self.foresight.as_ref().map_or(Some(usize::MAX), |foresight| foresight.last_owed(after))
    }

    fn simplified(&self, input: &RegisterInput) -> RegisterInput {
        let simple = |value| self.foresight.as_ref().map_or(value, |foresight| foresight.simple(value));
        match input {
            RegisterInput::CompareAndSet { expected, value } => {
                RegisterInput::CompareAndSet { expected: *expected, value: simple(*value) }
            }
            RegisterInput::Delete => RegisterInput::Delete,
            RegisterInput::Read => RegisterInput::Read,
            RegisterInput::Write(value) => RegisterInput::Write(simple(*value)),
        }
    }
}

impl Foresight {
    fn learn(&mut self, at: usize, input: &RegisterInput, output: Option<&RegisterOutput>) {
        match (input, output) {
            (RegisterInput::Read, Some(RegisterOutput::Value(value))) => {
                self.found.insert(*value, at);
            }
            (RegisterInput::CompareAndSet { expected, .. }, Some(RegisterOutput::Kept)) => {
                self.miss(*expected, at);
            }
            (RegisterInput::CompareAndSet { expected, .. }, _) => {
                self.found.insert(*expected, at);
            }
            (RegisterInput::Delete | RegisterInput::Read | RegisterInput::Write(_), _) => {}
        }
    }

    fn miss(&mut self, expected: Option<Value>, at: usize) {
        self.missed.insert(expected);
        let [last, other] = &mut self.missed_last;
        if last.is_some_and(|(state, _)| state != expected) {
            *other = *last;
        }
        *last = Some((expected, at));
    }

    fn names(&self, value: Value) -> bool {
        self.found.contains_key(&Some(value)) || self.missed.contains(&Some(value))
    }

    fn simple(&self, value: Value) -> Value {
        if self.names(value) { value } else { self.other }
    }

    /// Where an output may be owed to this state last. Behind that, whatever left the register in it is followed by
    /// operations that would do the same in any other state.
    fn last_owed(&self, state: Option<Value>) -> Option<usize> {
        let missed = self.missed_last.iter().flatten().find(|(missed, _)| *missed != state);
        self.found.get(&state).copied().max(missed.map(|(_, at)| *at))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Value {
    type Err = NotationError;

    fn from_str(word: &str) -> Result<Self, NotationError> {
        word.parse().map(Self).map_err(|_| NotationError)
    }
}

impl fmt::Display for RegisterInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CompareAndSet { expected, value } => write!(f, "cas {} {value}", Held(*expected)),
            Self::Delete => f.write_str("delete"),
            Self::Read => f.write_str("read"),
            Self::Write(value) => write!(f, "write {value}"),
        }
    }
}

impl FromStr for RegisterInput {
    type Err = NotationError;

    fn from_str(line: &str) -> Result<Self, NotationError> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["cas", expected, value] => {
                Ok(Self::CompareAndSet { expected: expected.parse::<Held>()?.0, value: value.parse()? })
            }
            ["delete"] => Ok(Self::Delete),
            ["read"] => Ok(Self::Read),
            ["write", value] => value.parse().map(Self::Write),
            _ => Err(NotationError),
        }
    }
}

impl fmt::Display for RegisterOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Kept => f.write_str("kept"),
            Self::Swapped => f.write_str("swapped"),
            Self::Value(value) => Held(*value).fmt(f),
        }
    }
}

impl FromStr for RegisterOutput {
    type Err = NotationError;

    fn from_str(word: &str) -> Result<Self, NotationError> {
        match word {
            "done" => Ok(Self::Done),
            "kept" => Ok(Self::Kept),
            "swapped" => Ok(Self::Swapped),
            _ => Ok(Self::Value(word.parse::<Held>()?.0)),
        }
    }
}

/// The notation of what a register holds.
struct Held(Option<Value>);

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("none"),
        }
    }
}

impl FromStr for Held {
    type Err = NotationError;

    fn from_str(word: &str) -> Result<Self, NotationError> {
        if word == "none" { Ok(Self(None)) } else { word.parse().map(|value| Self(Some(value))) }
    }
}
