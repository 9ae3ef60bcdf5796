//! Changes of logs: carries all that waits out in order, and makes it durable with one sync.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use clusterkit_core::replica::{FetchToken, LogChange, LogOp, Record, ReplicaKey, SnapshotHeader};
use clusterkit_storage::shared_log::{
    AppendError, ChangeError, CompactError, FinishedUpkeep, Log, LogError, PendingRead, PendingUpkeep,
    ReadError, SharedLog, StreamId, UpkeepError,
};
use clusterkit_storage::state_store::{InstallError, ReplicaKey as StateKey};
use tracing::warn;

use super::codec::{Note, decode_record, encode_record};
use super::limits::{CHECKPOINT_BYTES, COMPACT_BYTES, COMPACT_SEGMENTS, RECORDS_KEPT};
use super::shared::{Shared, lock, state_of};
use super::{LogFull, StorageError, StorageEvent};

/// What the log worker is to do.
#[derive(Debug)]
pub(crate) enum LogInput {
    /// Change a log, and say when that is durable. A snapshot that is to be installed was kept by
    /// [`Receiver::ready`](super::Receiver::ready).
    Change {
        /// Whose log.
        key: ReplicaKey,
        /// The number of the change.
        op: LogOp,
        /// What to do.
        change: LogChange,
    },
    /// From the maintenance: so much of the states is durable.
    Checkpointed(BTreeMap<StateKey, u64>),
    /// Read records back.
    Fetch {
        /// Of whose log.
        key: ReplicaKey,
        /// To be handed back.
        token: FetchToken,
        /// Which ones.
        range: Range<u64>,
        /// About how many bytes of them; one at least.
        bytes_max: usize,
    },
    /// Note how far a log is committed, with the next checkpoint: what is durable, never more.
    NoteCommit {
        /// Whose log.
        key: ReplicaKey,
        /// How far.
        commit: u64,
    },
    /// Delete a log. The state has a queue of its own.
    Remove {
        /// Whose log.
        key: ReplicaKey,
    },
    /// From the upkeep: it is done.
    Upkept(FinishedUpkeep),
}

impl LogInput {
    /// How many bytes it counts while it waits.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Change { change: LogChange::Append { records, .. }, .. } => {
                records.iter().map(Record::bytes).sum()
            }
            _ => 0,
        }
    }
}

/// Work that the log worker leaves to others, because it would have to wait for it.
#[derive(Debug)]
pub(crate) enum Errand {
    /// Much was written since the last checkpoint: make one.
    Checkpoint,
    /// Read, and tell what was read.
    Read(ReadErrand),
    /// Prepare and free segments, and say so by [`LogInput::Upkept`].
    Upkeep(PendingUpkeep),
}

/// Records that are to be read back.
#[derive(Debug)]
pub(crate) struct ReadErrand {
    key: ReplicaKey,
    token: FetchToken,
    first: u64,
    pending: PendingRead,
}

/// The owner of the log.
///
/// Invariants:
/// - what `written` says is what the streams' notes say;
/// - `unsynced` are the changes that are carried out and not durable;
/// - at most one upkeep is under way.
#[derive(Debug)]
pub(crate) struct LogWorker {
    log: SharedLog,
    shared: Arc<Shared>,
    written: BTreeMap<ReplicaKey, Note>,
    /// How far logs are committed, where that is not noted yet.
    commits: BTreeMap<ReplicaKey, u64>,
    unsynced: Vec<(ReplicaKey, LogOp)>,
    /// Bytes that were appended since the last checkpoint.
    appended_bytes: u64,
    is_upkeep_under_way: bool,
    /// The disk was full: the next upkeep waits for the next checkpoint.
    is_upkeep_put_off: bool,
    /// Records below a checkpoint that are not given up.
    pub(super) records_kept: u64,
    errands: Vec<Errand>,
}

/// Why a change was not made.
enum Refusal {
    /// The replica is damaged.
    Damaged(Box<dyn std::error::Error>),
    /// Everything stops.
    Failed(StorageError),
}

impl LogWorker {
    pub(super) fn new(log: SharedLog, shared: Arc<Shared>, written: BTreeMap<ReplicaKey, Note>) -> Self {
        Self {
            log,
            shared,
            written,
            commits: BTreeMap::new(),
            unsynced: Vec::new(),
            appended_bytes: 0,
            is_upkeep_under_way: false,
            is_upkeep_put_off: false,
            records_kept: RECORDS_KEPT,
            errands: Vec::new(),
        }
    }

    /// Carries out all inputs, in order, and makes them durable. Does nothing once anything has failed.
    pub(crate) fn step(&mut self, inputs: Vec<LogInput>) -> Vec<Errand> {
        if self.shared.has_failed() {
            return Vec::new();
        }
        let carried_out = inputs.into_iter().try_for_each(|input| self.carry_out(input));
        let outcome = carried_out.and_then(|()| self.sync()).and_then(|()| self.keep_up());
        if let Err(error) = outcome {
            self.shared.fail(error);
        }
        std::mem::take(&mut self.errands)
    }

    /// Makes everything durable for the last time.
    ///
    /// # Errors
    ///
    /// What was not told to be durable may not be.
    pub(crate) fn close(self) -> Result<(), LogError> {
        if self.shared.has_failed() { Ok(()) } else { self.log.close() }
    }

    fn carry_out(&mut self, input: LogInput) -> Result<(), StorageError> {
        match input {
            LogInput::Change { key, op, change } => self.change(key, op, change),
            LogInput::Checkpointed(indexes) => self.handle_checkpoint(&indexes),
            LogInput::Fetch { key, token, range, bytes_max } => self.fetch(key, token, range, bytes_max),
            LogInput::NoteCommit { key, commit } => {
                self.commits.insert(key, commit);
                Ok(())
            }
            LogInput::Remove { key } => self.remove(key),
            LogInput::Upkept(finished) => self.finish_upkeep(finished),
        }
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.log.sync().map_err(StorageError::Sync)?;
        let durable = std::mem::take(&mut self.unsynced);
        if !durable.is_empty() {
            self.shared.tell(StorageEvent::Durable(durable));
        }
        Ok(())
    }
}

// Changes.
impl LogWorker {
    fn change(&mut self, key: ReplicaKey, op: LogOp, change: LogChange) -> Result<(), StorageError> {
        let outcome = match change {
            LogChange::Append { first, records } => self.append(key, first, &records),
            LogChange::Create => self.create(key),
            LogChange::Install(header) => self.install(key, &header),
            LogChange::Truncate { end } => self.log.truncate(stream_of(key), end).map_err(Refusal::from),
        };
        if self.weigh(key, outcome)? {
            self.unsynced.push((key, op));
        }
        Ok(())
    }

    /// Whether a change was made; if not, its replica is damaged.
    fn weigh(&self, key: ReplicaKey, outcome: Result<(), Refusal>) -> Result<bool, StorageError> {
        match outcome {
            Ok(()) => Ok(true),
            Err(Refusal::Damaged(why)) => {
                self.shared.damage(key, &*why);
                Ok(false)
            }
            Err(Refusal::Failed(error)) => Err(error),
        }
    }

    fn append(&mut self, key: ReplicaKey, first: u64, records: &[Record]) -> Result<(), Refusal> {
        let payloads: Vec<Bytes> = records.iter().map(encode_record).collect();
        self.log.append(stream_of(key), first, &payloads)?;
        let before = self.appended_bytes;
        self.appended_bytes += payloads.iter().map(|payload| payload.len() as u64).sum::<u64>();
        if before < CHECKPOINT_BYTES && self.appended_bytes >= CHECKPOINT_BYTES {
            self.errands.push(Errand::Checkpoint);
        }
        Ok(())
    }

    /// One that exists is an earlier placement of which too much was lost to name it.
    fn create(&mut self, key: ReplicaKey) -> Result<(), Refusal> {
        self.log.create(stream_of(key), 0)?;
        self.write_note(key, Note::new(key.partition))?;
        self.shared.insert(key);
        Ok(())
    }

    fn write_note(&mut self, key: ReplicaKey, note: Note) -> Result<(), ChangeError> {
        self.log.note(stream_of(key), note.encode())?;
        self.written.insert(key, note);
        Ok(())
    }

    /// See the [module](super) for the steps.
    fn install(&mut self, key: ReplicaKey, header: &SnapshotHeader) -> Result<(), Refusal> {
        let end = header.end;
        let arrived = self.shared.take_arrived(key, end).ok_or_else(|| damaged(NotArrived))?;
        let note = self.written.get(&key).copied().unwrap_or(Note::new(key.partition));
        self.write_note(key, Note { installing: Some(end), ..note })?;
        self.sync().map_err(Refusal::Failed)?;
        self.replace_state(key, end, arrived)?;
        self.log.reset(stream_of(key), end)?;
        self.commits.remove(&key);
        self.write_note(key, Note { commit: end, installing: None, ..note })?;
        Ok(())
    }

    /// Puts a snapshot in the place of a state, durably, when nothing is being applied to it.
    fn replace_state(
        &self,
        key: ReplicaKey,
        end: u64,
        arrived: super::snapshot::Arrived,
    ) -> Result<(), Refusal> {
        let slot = self.shared.slot(key);
        let mut slot = lock(&slot);
        if self.shared.is_damaged(key) {
            return Err(damaged(NotArrived));
        }
        *slot = None;
        arrived.finish().map_err(|error| self.refusal_of(key, error))?;
        drop(slot);
        let durable =
            self.shared.store.checkpoint().map_err(|error| Refusal::Failed(StorageError::State(error)))?;
        durable.damages.into_iter().for_each(|damage| self.shared.note_damage(damage));
        if durable.indexes.get(&state_of(key)) == Some(&end) { Ok(()) } else { Err(damaged(NotArrived)) }
    }

    fn refusal_of(&self, key: ReplicaKey, error: InstallError) -> Refusal {
        match error {
            InstallError::State(error) => {
                self.shared.note_state_error(key, error);
                damaged(NotArrived)
            }
            error => damaged(error),
        }
    }

    fn remove(&mut self, key: ReplicaKey) -> Result<(), StorageError> {
        self.written.remove(&key);
        self.commits.remove(&key);
        match self.log.remove(stream_of(key)) {
            Ok(()) | Err(ChangeError::Unknown { .. }) => Ok(()),
            Err(error) => match Refusal::from(error) {
                Refusal::Damaged(_) => Ok(()),
                Refusal::Failed(error) => Err(error),
            },
        }
    }
}

// After a checkpoint.
impl LogWorker {
    fn handle_checkpoint(&mut self, indexes: &BTreeMap<StateKey, u64>) -> Result<(), StorageError> {
        self.appended_bytes = 0;
        self.is_upkeep_put_off = false;
        for (state, index) in indexes {
            if let Some(key) = self.shared.key_of(*state) {
                let outcome = self.release(key, *index);
                self.weigh(key, outcome)?;
            }
        }
        for (key, commit) in std::mem::take(&mut self.commits) {
            let outcome = self.note_commit(key, commit);
            self.weigh(key, outcome)?;
        }
        Ok(())
    }

    /// Gives up what a durable state covers, but for what others may still ask for.
    fn release(&mut self, key: ReplicaKey, index: u64) -> Result<(), Refusal> {
        let below = index.saturating_sub(self.records_kept);
        let Some(status) = self.log.stream(stream_of(key)).filter(|status| !status.damaged) else {
            return Ok(());
        };
        // One whose state is ahead waits for the end of an installation.
        if below <= status.records.start || index > status.records.end {
            return Ok(());
        }
        self.log.release(stream_of(key), below)?;
        self.shared.tell(StorageEvent::Released { key, start: below });
        Ok(())
    }

    fn note_commit(&mut self, key: ReplicaKey, commit: u64) -> Result<(), Refusal> {
        let Some(status) = self.log.stream(stream_of(key)).filter(|status| !status.damaged) else {
            return Ok(());
        };
        let Some(note) = self.written.get(&key).copied() else { return Ok(()) };
        let commit = commit.min(status.records.end);
        if commit <= note.commit {
            return Ok(());
        }
        match self.write_note(key, Note { commit, ..note }) {
            // It is only a help: what needs the room more is refused by itself.
            Err(ChangeError::DiskFull(_) | ChangeError::SegmentsFull | ChangeError::TableFull { .. }) => {
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }
}

// Reads and upkeep.
impl LogWorker {
    fn fetch(
        &mut self,
        key: ReplicaKey,
        token: FetchToken,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<(), StorageError> {
        let first = range.start;
        match self.log.begin_read(stream_of(key), range, bytes_max as u64) {
            Ok(pending) => self.errands.push(Errand::Read(ReadErrand { key, token, first, pending })),
            Err(ReadError::Poisoned) => return Err(StorageError::Read(ReadError::Poisoned)),
            Err(error) => {
                if matches!(error, ReadError::Damaged { .. }) {
                    self.shared.damage(key, &error);
                }
                self.shared.tell(StorageEvent::Fetched { key, token, first, records: Vec::new() });
            }
        }
        Ok(())
    }

    fn keep_up(&mut self) -> Result<(), StorageError> {
        if self.log.segment_count() > COMPACT_SEGMENTS {
            self.compact()?;
        }
        if !self.is_upkeep_under_way
            && !self.is_upkeep_put_off
            && let Some(pending) = self.log.begin_upkeep()
        {
            self.is_upkeep_under_way = true;
            self.errands.push(Errand::Upkeep(pending));
        }
        Ok(())
    }

    fn finish_upkeep(&mut self, finished: FinishedUpkeep) -> Result<(), StorageError> {
        self.is_upkeep_under_way = false;
        match self.log.finish_upkeep(finished) {
            Err(error @ UpkeepError::DiskFull(_)) => {
                warn!(error = &error as &dyn std::error::Error, "no segment of the log can be prepared");
                self.is_upkeep_put_off = true;
                Ok(())
            }
            outcome => outcome.map_err(StorageError::Upkeep),
        }
    }

    fn compact(&mut self) -> Result<(), StorageError> {
        match self.log.compact(COMPACT_BYTES) {
            Ok(progress) if progress.lost_count > 0 => {
                self.find_damaged();
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error @ CompactError::Read(_)) => {
                warn!(error = &error as &dyn std::error::Error, "a segment of the log cannot be compacted");
                Ok(())
            }
            Err(error) => Err(StorageError::Compact(error)),
        }
    }

    fn find_damaged(&self) {
        for key in self.written.keys() {
            let stream = stream_of(*key);
            if self.log.stream(stream).is_some_and(|status| status.damaged) {
                self.shared.damage(*key, &ReadError::Damaged { stream });
            }
        }
    }
}

impl ReadErrand {
    /// Reads, and tells what was read: nothing if it cannot be, and then the replica is damaged.
    pub(crate) fn run(self, shared: &Shared) {
        let Self { key, token, first, pending } = self;
        let records = pending.run().map_err(|error| Box::new(error) as Box<dyn std::error::Error>);
        let records = records.and_then(|records| {
            let decoded = records.into_iter().map(|(_, bytes)| decode_record(bytes));
            decoded.collect::<Result<Vec<_>, _>>().map_err(Into::into)
        });
        let records = records.unwrap_or_else(|error| {
            shared.damage(key, &*error);
            Vec::new()
        });
        shared.tell(StorageEvent::Fetched { key, token, first, records });
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Log(_) => Self::Failed(StorageError::Append(error)),
            AppendError::DiskFull(_) | AppendError::SegmentsFull => {
                Self::Failed(StorageError::LogFull(LogFull::Append(error)))
            }
            error => damaged(error),
        }
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Log(_) => Self::Failed(StorageError::Change(error)),
            ChangeError::DiskFull(_) | ChangeError::SegmentsFull | ChangeError::TableFull { .. } => {
                Self::Failed(StorageError::LogFull(LogFull::Change(error)))
            }
            error => damaged(error),
        }
    }
}

/// A snapshot that was to be installed is not in its place.
#[derive(Debug, thiserror::Error)]
#[error("the snapshot that was to be installed is not in its place")]
struct NotArrived;

fn damaged(error: impl std::error::Error + 'static) -> Refusal {
    Refusal::Damaged(Box::new(error))
}

/// What the log calls a replica.
pub(super) fn stream_of(key: ReplicaKey) -> StreamId {
    StreamId(key.uid.0)
}
