//! What an object does when one operation comes after the other.

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::str::FromStr;

/// A word of a line that means nothing to the specification. Nothing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither an operation nor an output of this specification")]
pub struct NotationError;

/// The sequential behaviour of one object, which a history of that object is checked against.
///
/// The state after an operation follows from the state before it, the input and the output. What an object does by
/// itself, as a lease that expires, is an operation with an unknown outcome, invoked when it first may happen.
///
/// [`Display`] and [`FromStr`] of inputs and outputs are their notation in [text](super::History::read): one line,
/// without ` -> `, and no output reads `failed` or `unknown`.
pub trait Specification: Clone {
    /// The name that the first line of a history in text has.
    const NAME: &'static str;

    /// All that outputs to come depend on. Cloned often, so it should be cheap to clone.
    type State: Clone + Eq + Hash + Debug;

    /// What a client asks for.
    type Input: Clone + Eq + Hash + Debug + Display + FromStr<Err = NotationError>;

    /// What it is told.
    type Output: Clone + Eq + Debug + Display + FromStr<Err = NotationError>;

    /// The state before the first operation.
    fn initial(&self) -> Self::State;

    /// The state after `input`, or `None` if it cannot have had this `output` in this state. An output that is not
    /// known is `None`, and fits every state.
    fn step(
        &self,
        state: &Self::State,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Option<Self::State>;

    /// Whether an operation with this output leaves every state as it is that allows the output: a read does, and a
    /// delete does not, though some states stay as they are. `false` is always right, and slower.
    fn is_observer(&self, input: &Self::Input, output: &Self::Output) -> bool;

    /// Whether the same state comes after this input whatever the state before, with the same output: a write is blind.
    /// `false` is always right, and slower.
    fn is_blind(&self, input: &Self::Input) -> bool {
        let _ = input;
        false
    }

    /// This specification once it has seen all operations of a history: those with an output in the order of their
    /// returns, then those with unknown outcome.
    ///
    /// It makes the search faster, and never changes a verdict: [`step`](Self::step) may then refuse what makes one
    /// of the outputs impossible later, [`last_use`](Self::last_use) may name what explains few of them, and
    /// [`simplified`](Self::simplified) may forget what none of them tells.
    #[must_use]
    fn foreseeing<'a>(
        &self,
        operations: impl Iterator<Item = (&'a Self::Input, Option<&'a Self::Output>)>,
    ) -> Self
    where
        Self::Input: 'a,
        Self::Output: 'a,
    {
        let _ = operations;
        self.clone()
    }

    /// The place of the last operation foreseen whose output may be owed to an operation with unknown outcome, `None`
    /// if there is none. Wherever such an operation comes later in an order, that is one without it as well.
    /// `Some(usize::MAX)` is always right, and slower.
    fn last_use(&self, input: &Self::Input) -> Option<usize> {
        let _ = input;
        Some(usize::MAX)
    }

    /// Whether neither `state` nor any state after it in the history foreseen allows this output. `false` is always
    /// right, and slower.
    fn is_missed(&self, state: &Self::State, input: &Self::Input, output: &Self::Output) -> bool {
        let _ = (state, input, output);
        false
    }

    /// An input that can stand for this one in the history foreseen: the same states allow its output, and no output
    /// tells the states after them apart. The more inputs are equal then, the faster is the search.
    fn simplified(&self, input: &Self::Input) -> Self::Input {
        input.clone()
    }
}
