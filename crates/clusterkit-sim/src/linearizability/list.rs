//! A list that only grows.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use super::register::Value;
use super::specification::{NotationError, Specification};

/// What a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListInput {
    /// Add this at its end.
    Append(Value),
    /// Tell all elements.
    Read,
}

/// What a list answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListOutput {
    /// It was appended to, and how long it is then was not told.
    Done,
    /// It was read: all its elements.
    Elements(Vec<Value>),
    /// It was appended to: how many elements it has then.
    Length(u64),
}

/// A list that is empty at first, with append and read of all elements.
#[derive(Debug, Clone, Default)]
pub struct List {
    foresight: Option<Arc<Foresight>>,
}

/// What the outputs of a history tell of states.
#[derive(Debug, Default)]
struct Foresight {
    /// The longest list that was read. A list only grows, so every state begins with it or is its beginning.
    longest: Vec<Value>,
    /// All that was read, and where last.
    elements: HashMap<Value, usize>,
    /// A value that was not read, and stands for all behind the longest list: nobody tells these apart.
    other: Value,
    /// The last append that was told how long the list is.
    length_last: Option<usize>,
}

impl Specification for List {
    const NAME: &'static str = "list";
    type State = Chain;
    type Input = ListInput;
    type Output = ListOutput;

    fn initial(&self) -> Chain {
        Chain::default()
    }

    fn step(&self, state: &Chain, input: &ListInput, output: Option<&ListOutput>) -> Option<Chain> {
        match (input, output) {
            (ListInput::Append(value), None | Some(ListOutput::Done)) => self.append(state, *value),
            (ListInput::Append(value), Some(ListOutput::Length(length))) => {
                self.append(state, *value).filter(|after| after.len() as u64 == *length)
            }
            (ListInput::Read, None) => Some(state.clone()),
            (ListInput::Read, Some(ListOutput::Elements(elements))) => {
                state.holds(elements).then(|| state.clone())
            }
            (ListInput::Append(_), Some(ListOutput::Elements(_)))
            | (ListInput::Read, Some(ListOutput::Done | ListOutput::Length(_))) => None,
        }
    }

    fn is_observer(&self, input: &ListInput, _output: &ListOutput) -> bool {
        matches!(input, ListInput::Read)
    }

    fn foreseeing<'a>(
        &self,
        operations: impl Iterator<Item = (&'a ListInput, Option<&'a ListOutput>)>,
    ) -> Self {
        let mut foresight = Foresight::default();
        let outputs = operations.enumerate().filter_map(|(at, (_, output))| Some((at, output?)));
        outputs.for_each(|(at, output)| foresight.learn(at, output));
        foresight.other = Value::unlike(|value| foresight.elements.contains_key(&value));
        Self { foresight: Some(Arc::new(foresight)) }
    }

    fn last_use(&self, input: &ListInput) -> Option<usize> {
        match input {
            ListInput::Append(value) => {
                self.foresight.as_ref().map_or(Some(usize::MAX), |foresight| foresight.last_shown(*value))
            }
            ListInput::Read => None,
        }
    }

    fn is_missed(&self, state: &Chain, _input: &ListInput, output: &ListOutput) -> bool {
        match output {
            ListOutput::Done => false,
            ListOutput::Elements(elements) => elements.len() < state.len(),
            ListOutput::Length(length) => *length <= state.len() as u64,
        }
    }

    fn simplified(&self, input: &ListInput) -> ListInput {
        match (input, &self.foresight) {
            (ListInput::Append(value), Some(foresight)) if !foresight.elements.contains_key(value) => {
                ListInput::Append(foresight.other)
            }
            _ => input.clone(),
        }
    }
}

impl List {
    fn append(&self, state: &Chain, value: Value) -> Option<Chain> {
        let Some(foresight) = &self.foresight else { return Some(state.append(value)) };
        match foresight.longest.get(state.len()) {
            Some(foreseen) => (*foreseen == value).then(|| state.append(value)),
            None => Some(state.append(foresight.other)),
        }
    }
}

impl Foresight {
    fn learn(&mut self, at: usize, output: &ListOutput) {
        match output {
            ListOutput::Done => {}
            ListOutput::Elements(elements) => {
                self.elements.extend(elements.iter().map(|element| (*element, at)));
                if elements.len() > self.longest.len() {
                    self.longest.clone_from(elements);
                }
            }
            ListOutput::Length(_) => self.length_last = Some(at),
        }
    }

    fn last_shown(&self, value: Value) -> Option<usize> {
        self.elements.get(&value).copied().max(self.length_last)
    }
}

/// The elements of a list. Lists share their beginnings, so that appending costs the same at any length.
#[derive(Clone, Default)]
pub struct Chain(Option<Arc<Link>>);

struct Link {
    value: Value,
    before: Chain,
    length: usize,
    /// Of all elements, so that different lists are told apart at their ends.
    hash: u64,
}

impl Chain {
    /// How many elements it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |link| link.length)
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn append(&self, value: Value) -> Self {
        let mut hasher = DefaultHasher::new();
        (self.digest(), value).hash(&mut hasher);
        let (length, hash) = (self.len() + 1, hasher.finish());
        Self(Some(Arc::new(Link { value, before: self.clone(), length, hash })))
    }

    fn digest(&self) -> u64 {
        self.0.as_ref().map_or(0, |link| link.hash)
    }

    fn holds(&self, elements: &[Value]) -> bool {
        self.len() == elements.len() && self.backward().eq(elements.iter().copied().rev())
    }

    /// The elements from the last to the first.
    fn backward(&self) -> impl Iterator<Item = Value> {
        std::iter::successors(self.0.as_deref(), |link| link.before.0.as_deref()).map(|link| link.value)
    }
}

impl PartialEq for Chain {
    /// From the end to where both are one: mostly one step.
    fn eq(&self, other: &Self) -> bool {
        let (mut own, mut other) = (self, other);
        loop {
            match (&own.0, &other.0) {
                (None, None) => return true,
                (Some(left), Some(right)) if Arc::ptr_eq(left, right) => return true,
                (Some(left), Some(right)) if left.is_alike(right) => {
                    (own, other) = (&left.before, &right.before);
                }
                _ => return false,
            }
        }
    }
}

impl Link {
    fn is_alike(&self, other: &Self) -> bool {
        self.value == other.value && self.length == other.length && self.hash == other.hash
    }
}

impl Eq for Chain {}

impl Hash for Chain {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest().hash(state);
    }
}

impl Drop for Chain {
    /// Link by link: a long list dropped by recursion would overflow the stack.
    fn drop(&mut self) {
        let mut rest = self.0.take();
        while let Some(mut link) = rest.and_then(Arc::into_inner) {
            rest = link.before.0.take();
        }
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut elements: Vec<Value> = self.backward().collect();
        elements.reverse();
        f.debug_list().entries(elements.iter().map(|value| value.0)).finish()
    }
}

impl fmt::Display for ListInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append(value) => write!(f, "append {value}"),
            Self::Read => f.write_str("read"),
        }
    }
}

impl FromStr for ListInput {
    type Err = NotationError;

    fn from_str(line: &str) -> Result<Self, NotationError> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["append", value] => value.parse().map(Self::Append),
            ["read"] => Ok(Self::Read),
            _ => Err(NotationError),
        }
    }
}

impl fmt::Display for ListOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Elements(elements) => {
                f.write_str("[")?;
                elements
                    .iter()
                    .enumerate()
                    .try_for_each(|(at, element)| write!(f, "{}{element}", if at == 0 { "" } else { " " }))?;
                f.write_str("]")
            }
            Self::Length(length) => write!(f, "length {length}"),
        }
    }
}

impl FromStr for ListOutput {
    type Err = NotationError;

    fn from_str(line: &str) -> Result<Self, NotationError> {
        if line == "done" {
            return Ok(Self::Done);
        }
        if let Some(length) = line.strip_prefix("length ") {
            return length.parse().map(Self::Length).map_err(|_| NotationError);
        }
        let elements = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')).ok_or(NotationError)?;
        elements.split_whitespace().map(str::parse).collect::<Result<_, _>>().map(Self::Elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(elements: impl Iterator<Item = u64>) -> Chain {
        elements.fold(Chain::default(), |chain, element| chain.append(Value(element)))
    }

    #[test]
    fn lists_are_equal_if_their_elements_are() {
        assert_eq!(chain(0..5), chain(0..5));
        assert_ne!(chain(0..5), chain(0..4));
        assert_ne!(chain([1, 2].into_iter()), chain([2, 1].into_iter()));
        assert!(chain([1, 2].into_iter()).holds(&[Value(1), Value(2)]));
    }

    #[test]
    fn a_long_list_is_dropped_without_recursion() {
        let long = chain(0..1_000_000);
        let longer = long.append(Value(0));
        drop(long);
        assert_eq!(longer.len(), 1_000_001);
    }
}
