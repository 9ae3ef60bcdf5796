//! Applies records to states, and answers questions on them.

use std::sync::Arc;

use bytes::Bytes;
use clusterkit_core::replica::{Entry, LogTime, ReadId, Record, ReplicaKey, SessionConfig, Verdict};
use clusterkit_storage::state_store::{ApplyError, StateError};

use super::codec::{Unknown, decode_outcome, encode_outcome};
use super::limits::{PART_BYTES, PART_CHANGES};
use super::rows::{Applied, session_changes};
use super::shared::{Loaded, Shared, lock, state_of};
use super::{Answer, EvaluateError, StorageError, StorageEvent};
use crate::machine::{Entry as Command, Question, StateMachine, Transaction, View};

/// What a state worker is to do.
#[derive(Debug)]
pub(crate) enum StateInput {
    /// Apply records. They are committed, and durable in the log.
    Apply {
        /// To whose state.
        key: ReplicaKey,
        /// The offset of the first. If it is not the next one, a snapshot came in between, and nothing is done.
        first: u64,
        /// The records.
        records: Vec<Record>,
    },
    /// Answer a question.
    Evaluate {
        /// On whose state.
        key: ReplicaKey,
        /// Which one.
        read: ReadId,
        /// What is asked.
        question: Bytes,
        /// What time it is, in milliseconds since 1970.
        now_ms: u64,
    },
    /// Delete a state.
    Remove {
        /// Which one.
        key: ReplicaKey,
    },
}

impl StateInput {
    /// Of which replica it is.
    pub(super) fn key(&self) -> ReplicaKey {
        match self {
            Self::Apply { key, .. } | Self::Evaluate { key, .. } | Self::Remove { key } => *key,
        }
    }

    /// How many bytes it counts while it waits.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Apply { records, .. } => records.iter().map(Record::bytes).sum(),
            Self::Evaluate { question, .. } => question.len(),
            Self::Remove { .. } => 0,
        }
    }
}

/// Applies and evaluates, for the replicas that are its own.
pub(crate) struct StateWorker {
    shared: Arc<Shared>,
    machine: Arc<dyn StateMachine>,
    sessions: SessionConfig,
}

impl std::fmt::Debug for StateWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateWorker").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}

/// A batch was not applied as a whole.
enum Halt {
    Apply(ApplyError),
    /// The state machine passed it on.
    Machine(StateError),
    /// What a session kept is nothing that this program wrote.
    Row(Unknown),
}

/// What came of a batch.
#[derive(Default)]
struct Outcome {
    answers: Vec<(u64, Answer)>,
    events: Vec<(u64, Bytes)>,
}

/// The records that go into the state together. It may be a part of a batch: what comes of records does not depend on
/// where one begins.
struct Part<'a> {
    transaction: Transaction<'a>,
    /// What was applied before.
    before: Applied,
    /// Bytes of answers.
    answer_bytes: usize,
}

impl StateWorker {
    pub(super) fn new(shared: Arc<Shared>, machine: Arc<dyn StateMachine>, sessions: SessionConfig) -> Self {
        Self { shared, machine, sessions }
    }

    /// Carries out all inputs, in order. Once anything has failed, questions are refused and nothing else is done.
    pub(crate) fn step(&mut self, inputs: Vec<StateInput>) {
        for input in inputs {
            match input {
                StateInput::Apply { key, first, records } => self.apply(key, first, &records),
                StateInput::Evaluate { key, read, question, now_ms } => {
                    let answer = self.evaluate(key, &question, now_ms);
                    self.shared.tell(StorageEvent::Evaluated { read, answer });
                }
                StateInput::Remove { key } => self.remove(key),
            }
        }
    }

    fn apply(&self, key: ReplicaKey, first: u64, records: &[Record]) {
        let slot = self.shared.slot(key);
        let mut slot = lock(&slot);
        if self.shared.has_failed() || self.shared.is_damaged(key) {
            return;
        }
        let Some(loaded) = self.shared.load(key, &mut slot).filter(|loaded| loaded.applied.end == first)
        else {
            return;
        };
        let outcome = self.apply_records(key, loaded, records);
        let end = loaded.applied.end;
        match outcome {
            Ok(Outcome { answers, events }) => {
                drop(slot);
                self.shared.tell(StorageEvent::Applied { key, first, end, answers, events });
            }
            Err(halt) => {
                *slot = None;
                drop(slot);
                self.halt(key, halt);
            }
        }
    }

    fn halt(&self, key: ReplicaKey, halt: Halt) {
        match halt {
            Halt::Apply(error @ ApplyError::Full { .. }) => self.shared.fail(StorageError::StateFull(error)),
            Halt::Apply(ApplyError::State(error)) | Halt::Machine(error) => {
                self.shared.note_state_error(key, error);
            }
            Halt::Apply(error) => self.shared.damage(key, &error),
            Halt::Row(error) => self.shared.damage(key, &error),
        }
    }

    fn apply_records(
        &self,
        key: ReplicaKey,
        loaded: &mut Loaded,
        records: &[Record],
    ) -> Result<Outcome, Halt> {
        let mut outcome = Outcome::default();
        let mut part = self.part(key, loaded);
        for record in records {
            let offset = loaded.applied.end;
            let answer = self.apply_record(key, loaded, record, &mut part)?;
            outcome.answers.push((offset, answer));
            outcome.events.extend(part.transaction.take_events().into_iter().map(|event| (offset, event)));
            loaded.applied.epochs.note(record.epoch, offset);
            loaded.applied.time = loaded.applied.time.max(record.time);
            loaded.applied.end += 1;
            if part.is_full(loaded) {
                self.write(key, loaded, part)?;
                part = self.part(key, loaded);
            }
        }
        if part.before.end < loaded.applied.end {
            self.write(key, loaded, part)?;
        }
        Ok(outcome)
    }

    fn part(&self, key: ReplicaKey, loaded: &Loaded) -> Part<'_> {
        let view = View::new(&*self.shared.store, state_of(key));
        Part { transaction: Transaction::new(view), before: loaded.applied.clone(), answer_bytes: 0 }
    }

    fn apply_record(
        &self,
        key: ReplicaKey,
        loaded: &mut Loaded,
        record: &Record,
        part: &mut Part<'_>,
    ) -> Result<Answer, Halt> {
        let offset = loaded.applied.end;
        let verdict = loaded.sessions.judge(&self.sessions, offset, record);
        let (Verdict::Apply, Entry::Write { request, payload }) = (&verdict, &record.entry) else {
            return answer_of(verdict).map_err(Halt::Row);
        };
        let command = Command::new(key.partition, (record.epoch, offset), record.time, payload);
        let answer = self.machine.apply(&command, &mut part.transaction).map_err(Halt::Machine)?;
        let outcome = part.transaction.settle(&answer).map(|()| answer);
        if let Some(request) = request {
            // A refusal is kept like an answer: a late copy of a command that was refused must not take effect.
            let kept = encode_outcome(&outcome);
            part.answer_bytes += kept.len();
            loaded.sessions.note_answer(&self.sessions, *request, kept);
        }
        Ok(outcome.map_or_else(Answer::TooLarge, Answer::Applied))
    }

    /// Hands a part to the store, with all that the library keeps beside it.
    fn write(&self, key: ReplicaKey, loaded: &mut Loaded, part: Part<'_>) -> Result<(), Halt> {
        let mut changes = part.transaction.into_changes();
        changes.extend(loaded.applied.changes_since(&part.before));
        changes.extend(session_changes(loaded.sessions.take_changes()));
        self.shared.store.apply(state_of(key), &changes, loaded.applied.end).map_err(Halt::Apply)
    }

    fn evaluate(&self, key: ReplicaKey, question: &Bytes, now_ms: u64) -> Result<Bytes, EvaluateError> {
        let slot = self.shared.slot(key);
        let mut slot = lock(&slot);
        if self.shared.has_failed() {
            return Err(EvaluateError::Failed);
        }
        if self.shared.is_damaged(key) {
            return Err(EvaluateError::Damaged);
        }
        let applied = &self.shared.load(key, &mut slot).ok_or(EvaluateError::Damaged)?.applied;
        let now = applied.time.max(LogTime(now_ms));
        let question = Question::new(key.partition, applied.end, now, question);
        let view = View::new(&*self.shared.store, state_of(key));
        self.machine.query(&question, &view).map_err(|error| {
            self.shared.note_state_error(key, error);
            if self.shared.has_failed() { EvaluateError::Failed } else { EvaluateError::Damaged }
        })
    }

    fn remove(&self, key: ReplicaKey) {
        if self.shared.has_failed() {
            return;
        }
        let slot = self.shared.slot(key);
        let mut slot = lock(&slot);
        *slot = None;
        self.shared.forget(key);
        match self.shared.store.drop_replica(state_of(key)) {
            Ok(()) => {}
            Err(StateError::Damaged(damage)) => self.shared.note_damage(damage),
            Err(error) => self.shared.fail(StorageError::State(error)),
        }
    }
}

impl Part<'_> {
    fn is_full(&self, loaded: &Loaded) -> bool {
        let count = self.transaction.count() + loaded.sessions.changed_count();
        self.transaction.bytes() + self.answer_bytes >= PART_BYTES || count >= PART_CHANGES
    }
}

fn answer_of(verdict: Verdict) -> Result<Answer, Unknown> {
    Ok(match verdict {
        Verdict::Apply | Verdict::Nothing => Answer::Nothing,
        Verdict::Repeated(kept) => decode_outcome(kept)?.map_or_else(Answer::TooLarge, Answer::Repeated),
        Verdict::SessionExpired => Answer::SessionExpired,
        Verdict::SessionOpened(_) => Answer::SessionOpened,
        Verdict::TooOld => Answer::SessionTooOld,
    })
}
