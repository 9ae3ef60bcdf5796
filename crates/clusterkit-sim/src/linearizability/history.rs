//! What clients asked for, and what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::limits::OPERATIONS_MAX;

/// One thread of control: it invokes an operation after it was told the outcome of the one before, or after it gave
/// that one up as unknown. A client that keeps several under way is several processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process(pub u32);

/// One object. Objects are independent, so each is checked by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u64);

/// A time in any unit, on one clock for all processes that never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

/// What a process asks for, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation<I> {
    /// Who asks.
    pub process: Process,
    /// The object that is asked.
    pub key: Key,
    /// When: no later than the request left.
    pub invoked: Moment,
    /// What for.
    pub input: I,
}

/// What became of an operation, as far as its process knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<O> {
    /// It took effect once, between its invocation and `returned`, and gave this output.
    Known {
        /// No earlier than the answer came.
        returned: Moment,
        /// What the answer says.
        output: O,
    },
    /// It did not take effect and never will.
    Failed {
        /// No earlier than the refusal came.
        returned: Moment,
    },
    /// It takes effect once, at any time after its invocation, or never.
    Unknown,
}

/// One operation of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation<I, O> {
    /// Who asked.
    pub process: Process,
    /// The object that was asked.
    pub key: Key,
    /// When: no later than the request left.
    pub invoked: Moment,
    /// What for.
    pub input: I,
    /// What became of it.
    pub outcome: Outcome<O>,
}

impl<I, O> Operation<I, O> {
    /// When the process was told the outcome, if it ever was.
    #[must_use]
    pub fn returned(&self) -> Option<Moment> {
        match &self.outcome {
            Outcome::Known { returned, .. } | Outcome::Failed { returned } => Some(*returned),
            Outcome::Unknown => None,
        }
    }
}

/// Why operations are no history: the recording is wrong, and says nothing of what was recorded. Nothing was kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// An operation returned before it was invoked: the recording clock went back.
    #[error("the operation that {process} invoked at {} returned before that", invoked.0)]
    Backward {
        /// Its process.
        process: Process,
        /// When it was invoked.
        invoked: Moment,
    },
    /// A process invoked an operation before the one before had returned: record it as two processes.
    #[error("{process} invoked an operation at {} while one was under way", invoked.0)]
    Overlap {
        /// The process.
        process: Process,
        /// When the later operation was invoked.
        invoked: Moment,
    },
    /// More than [`OPERATIONS_MAX`] operations: check the history in parts, key by key.
    #[error("{count} operations are more than one history may have")]
    TooLong {
        /// How many they are.
        count: usize,
    },
}

/// Operations of any number of processes on any number of objects, in the order of their invocations.
///
/// Invariants:
///
/// - No operation returns before it was invoked.
/// - No process invokes an operation before the one before has returned, unless that one is unknown.
/// - There are at most [`OPERATIONS_MAX`] operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History<I, O> {
    operations: Vec<Operation<I, O>>,
}

impl<I, O> History<I, O> {
    /// A history of `operations`, which may come in any order.
    ///
    /// # Errors
    ///
    /// [`HistoryError`] if one of the invariants does not hold.
    pub fn new(mut operations: Vec<Operation<I, O>>) -> Result<Self, HistoryError> {
        if operations.len() > OPERATIONS_MAX {
            return Err(HistoryError::TooLong { count: operations.len() });
        }
        operations.sort_by_key(|operation| (operation.invoked, operation.returned(), operation.process));
        let mut busy = BTreeMap::new();
        operations.iter().try_for_each(|operation| follow(&mut busy, operation))?;
        Ok(Self { operations })
    }

    /// All operations, in the order of their invocations.
    #[must_use]
    pub fn operations(&self) -> &[Operation<I, O>] {
        &self.operations
    }

    /// The objects that were asked.
    #[must_use]
    pub fn keys(&self) -> BTreeSet<Key> {
        self.operations.iter().map(|operation| operation.key).collect()
    }

    /// Every object with its operations, in the order of their invocations.
    pub(super) fn by_key(&self) -> BTreeMap<Key, Vec<&Operation<I, O>>> {
        let mut keys: BTreeMap<Key, Vec<&Operation<I, O>>> = BTreeMap::new();
        self.operations.iter().for_each(|operation| keys.entry(operation.key).or_default().push(operation));
        keys
    }
}

/// Takes `operation` into account in `busy`: until when each process has been waiting for its last outcome.
fn follow<I, O>(
    busy: &mut BTreeMap<Process, Moment>,
    operation: &Operation<I, O>,
) -> Result<(), HistoryError> {
    let Operation { process, invoked, .. } = *operation;
    if operation.returned().is_some_and(|returned| returned < invoked) {
        return Err(HistoryError::Backward { process, invoked });
    }
    if busy.get(&process).is_some_and(|until| invoked < *until) {
        return Err(HistoryError::Overlap { process, invoked });
    }
    busy.insert(process, operation.returned().unwrap_or(invoked));
    Ok(())
}

/// Which operation of a [`Recorder`] is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(usize);

/// Writes a history down while it happens.
#[derive(Debug, Clone)]
pub struct Recorder<I, O> {
    operations: Vec<Operation<I, O>>,
}

impl<I, O> Recorder<I, O> {
    /// A recorder of nothing so far.
    #[must_use]
    pub fn new() -> Self {
        Self { operations: Vec::new() }
    }

    /// A process asks for something. The outcome is unknown until it is told.
    pub fn invoke(&mut self, invocation: Invocation<I>) -> OperationId {
        let Invocation { process, key, invoked, input } = invocation;
        self.operations.push(Operation { process, key, invoked, input, outcome: Outcome::Unknown });
        OperationId(self.operations.len() - 1)
    }

    /// The process was told `output`.
    ///
    /// # Panics
    ///
    /// If it was told an outcome before: the recording would be wrong.
    pub fn complete(&mut self, id: OperationId, returned: Moment, output: O) {
        self.settle(id, Outcome::Known { returned, output });
    }

    /// The process was told that nothing happened, and that nothing will. A time-out is no such thing.
    ///
    /// # Panics
    ///
    /// If it was told an outcome before: the recording would be wrong.
    pub fn fail(&mut self, id: OperationId, returned: Moment) {
        self.settle(id, Outcome::Failed { returned });
    }

    /// The history so far.
    ///
    /// # Errors
    ///
    /// [`HistoryError`] if what was recorded cannot have happened that way.
    pub fn finish(self) -> Result<History<I, O>, HistoryError> {
        History::new(self.operations)
    }

    fn settle(&mut self, id: OperationId, outcome: Outcome<O>) {
        let operation = &mut self.operations[id.0];
        assert!(matches!(operation.outcome, Outcome::Unknown), "an operation has one outcome");
        operation.outcome = outcome;
    }
}

impl<I, O> Default for Recorder<I, O> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(process: u32, invoked: u64, returned: Option<u64>) -> Operation<(), ()> {
        let outcome =
            returned.map_or(Outcome::Unknown, |at| Outcome::Known { returned: Moment(at), output: () });
        Operation { process: Process(process), key: Key(0), invoked: Moment(invoked), input: (), outcome }
    }

    #[test]
    fn what_cannot_have_been_recorded_is_refused() {
        let check = |operations: Vec<Operation<(), ()>>, expect: Result<(), HistoryError>| {
            assert_eq!(History::new(operations).map(|_| ()), expect);
        };
        let (process, invoked) = (Process(1), Moment(5));
        check(vec![operation(1, 5, Some(4))], Err(HistoryError::Backward { process, invoked }));
        let overlap = Err(HistoryError::Overlap { process, invoked });
        check(vec![operation(1, 5, Some(6)), operation(1, 0, Some(7))], overlap);
        check(vec![operation(1, 5, Some(6)), operation(1, 0, Some(5))], Ok(()));
        check(vec![operation(1, 5, Some(5)), operation(1, 5, Some(8))], Ok(()));
        check(vec![operation(2, 0, Some(7)), operation(1, 5, Some(6))], Ok(()));
    }

    #[test]
    fn a_process_goes_on_after_an_unknown_outcome() {
        let operations = vec![operation(1, 0, None), operation(1, 5, Some(6))];
        assert!(History::new(operations).is_ok());
    }

    #[test]
    fn what_was_never_told_is_unknown() {
        let mut recorder = Recorder::<(), u8>::new();
        let invocation =
            |invoked| Invocation { process: Process(0), key: Key(0), invoked: Moment(invoked), input: () };
        let (known, failed) = (recorder.invoke(invocation(0)), recorder.invoke(invocation(10)));
        recorder.invoke(invocation(20));
        recorder.complete(known, Moment(1), 7);
        recorder.fail(failed, Moment(11));
        let history = recorder.finish().expect("a history");
        let outcomes: Vec<_> = history.operations().iter().map(|operation| &operation.outcome).collect();
        let known = Outcome::Known { returned: Moment(1), output: 7 };
        assert_eq!(outcomes, [&known, &Outcome::Failed { returned: Moment(11) }, &Outcome::Unknown]);
    }
}
