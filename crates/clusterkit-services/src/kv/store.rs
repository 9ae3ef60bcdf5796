//! The key-value service of a running cluster, as a node of it offers it to whoever is at its doors.

use std::collections::BTreeMap;

use bytes::Bytes;
use clusterkit_core::id::{Epoch, PartitionId};
use clusterkit_core::replica::LogTime;
use clusterkit_data::{Answered, Data, QueryError, ReadOptions, SessionId, WriteError, WriteOptions};

use super::limits::REMOVED_ENTRIES_MAX;
use super::{
    Answer, Command, Description, Found, Outcome, PageEntry, Question, Refusal, Refused, Scan, Stats, Value,
    Write,
};
use crate::header::AnswerError;
use crate::namespace::Namespace;

/// Keys and values of a cluster. Any node serves any key: it passes requests on where another one leads. Clones are
/// handles on the same.
#[derive(Debug, Clone)]
pub struct KvStore {
    data: Data,
}

/// Where an answer stands in the history of its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which partition.
    pub partition: PartitionId,
    /// The epoch.
    pub epoch: Epoch,
    /// All commands below this offset are seen by it: a later read with at least this one has seen them as well.
    pub end: u64,
}

/// A command was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done<T> {
    /// What came of it; nothing where it was not waited for.
    pub outcome: Option<T>,
    /// Where it stands.
    pub place: Place,
    /// Whether it had been carried out before, and this is the answer of then.
    pub replayed: bool,
}

/// Something was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<T> {
    /// What.
    pub found: T,
    /// As of when.
    pub place: Place,
}

/// A page of a scan over all partitions, partition by partition, in the order of keys within each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries. May be none although there are more.
    pub entries: Vec<PageEntry>,
    /// Where to go on; nothing when the scan is complete.
    pub cursor: Option<Cursor>,
}

/// Where a scan goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// In which partition.
    pub partition: PartitionId,
    /// Behind which key of it; nothing at its beginning.
    pub key: Option<Bytes>,
}

/// A request of the key-value service failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// The answer of the state machine is none that this version knows. The request may have taken effect.
    #[error("the answer cannot be read")]
    Answer(#[from] AnswerError),
    /// An atomic batch names keys of two partitions. Use one hash tag for all, as in `{user1}.a`. Nothing changed.
    #[error("keys of one atomic batch must lie in one partition; give them one hash tag, as in {{user1}}.a")]
    CrossPartition {
        /// The partition of the first key.
        first: PartitionId,
        /// That of another.
        other: PartitionId,
    },
    /// It was not read.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// It was refused, and nothing changed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It was not confirmed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl From<Refusal> for KvError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.into())
    }
}

impl KvStore {
    /// The service on a node's replicated partitions, whose state machine is [`Services`](crate::Services).
    #[must_use]
    pub fn new(data: Data) -> Self {
        Self { data }
    }

    /// The partitions that it stands on.
    #[must_use]
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The partition of a key.
    ///
    /// # Errors
    ///
    /// The cluster has not formed.
    pub fn partition(&self, key: &[u8]) -> Result<PartitionId, KvError> {
        Ok(self.data.partition(key).ok_or(QueryError::NoPartition)?)
    }

    async fn run(
        &self,
        namespace: &Namespace,
        partition: PartitionId,
        command: &Command,
        options: &WriteOptions,
    ) -> Result<Done<Answer>, KvError> {
        command.check()?;
        let written = self.data.write(partition, command.encode(namespace), options).await?;
        let outcome = written.answer.as_deref().map(Answer::decode).transpose()?;
        if let Some(Answer::Refused(refused)) = outcome {
            return Err(refused.into());
        }
        let place = Place { partition, epoch: written.epoch, end: written.offset + 1 };
        Ok(Done { outcome, place, replayed: written.replayed })
    }

    async fn ask(
        &self,
        namespace: &Namespace,
        partition: PartitionId,
        question: &Question,
        options: &ReadOptions,
    ) -> Result<Seen<Found>, KvError> {
        question.check()?;
        let answered = self.data.query(partition, question.encode(namespace), options).await?;
        let Answered { epoch, applied, answer, .. } = answered;
        match Found::decode(&answer)? {
            Found::Refused(refusal) => Err(refusal.into()),
            found => Ok(Seen { found, place: Place { partition, epoch, end: applied } }),
        }
    }
}

// Writing.
impl KvStore {
    /// Opens a session with the partition of a key: its requests take effect once, however often they are sent.
    ///
    /// # Errors
    ///
    /// See [`KvError`]. A retry opens another one; the first expires by itself.
    pub async fn open_session(
        &self,
        key: &[u8],
        options: &WriteOptions,
    ) -> Result<(SessionId, Place), KvError> {
        let partition = self.partition(key)?;
        let session = self.data.open_session(partition, options).await?;
        Ok((session, Place { partition, epoch: session.epoch, end: session.offset + 1 }))
    }

    /// Changes one entry.
    ///
    /// # Errors
    ///
    /// See [`KvError`].
    pub async fn write(
        &self,
        namespace: &Namespace,
        write: Write,
        options: &WriteOptions,
    ) -> Result<Done<Outcome>, KvError> {
        let partition = self.partition(&write.key)?;
        let done = self.run(namespace, partition, &Command::Write(write), options).await?;
        let outcome = done.outcome.map(|answer| match answer {
            Answer::Written(outcome) => Ok(outcome),
            _ => Err(AnswerError::Malformed),
        });
        Ok(Done { outcome: outcome.transpose()?, place: done.place, replayed: done.replayed })
    }

    /// Changes several entries of one partition, all or none.
    ///
    /// # Errors
    ///
    /// See [`KvError`].
    pub async fn write_atomic(
        &self,
        namespace: &Namespace,
        writes: Vec<Write>,
        options: &WriteOptions,
    ) -> Result<Done<Vec<Outcome>>, KvError> {
        let first = self.partition(writes.first().map(|write| write.key.as_ref()).unwrap_or_default())?;
        for write in &writes {
            let other = self.partition(&write.key)?;
            if other != first {
                return Err(KvError::CrossPartition { first, other });
            }
        }
        self.write_batch(namespace, first, writes, options).await
    }

    async fn write_batch(
        &self,
        namespace: &Namespace,
        partition: PartitionId,
        writes: Vec<Write>,
        options: &WriteOptions,
    ) -> Result<Done<Vec<Outcome>>, KvError> {
        let done = self.run(namespace, partition, &Command::Batch { writes }, options).await?;
        let outcome = done.outcome.map(|answer| match answer {
            Answer::BatchWritten { outcomes } => Ok(outcomes),
            _ => Err(AnswerError::Malformed),
        });
        Ok(Done { outcome: outcome.transpose()?, place: done.place, replayed: done.replayed })
    }

    /// Changes entries of any partitions: those of one partition all or none, and each partition for itself. What
    /// came of each write, in their order.
    pub async fn write_many(
        &self,
        namespace: &Namespace,
        writes: Vec<Write>,
        options: &WriteOptions,
    ) -> Vec<Result<Outcome, KvError>> {
        let mut results: Vec<Result<Outcome, KvError>> = Vec::new();
        results.resize_with(writes.len(), || Err(KvError::Query(QueryError::NoPartition)));
        let mut groups: BTreeMap<PartitionId, Vec<(usize, Write)>> = BTreeMap::new();
        for (position, write) in writes.into_iter().enumerate() {
            if let Ok(partition) = self.partition(&write.key) {
                groups.entry(partition).or_default().push((position, write));
            }
        }
        let groups = groups.into_iter().map(|(partition, group)| async move {
            let (positions, writes): (Vec<_>, Vec<_>) = group.into_iter().unzip();
            (positions, self.write_batch(namespace, partition, writes, options).await)
        });
        for (positions, outcome) in futures_util::future::join_all(groups).await {
            match outcome.map(|done| done.outcome) {
                Ok(Some(outcomes)) => {
                    for (position, outcome) in positions.into_iter().zip(outcomes) {
                        results[position] = Ok(outcome);
                    }
                }
                Ok(None) => {
                    positions.into_iter().for_each(|position| results[position] = Ok(Outcome::Checked));
                }
                Err(error) => {
                    positions.into_iter().for_each(|position| results[position] = Err(error.clone()));
                }
            }
        }
        results
    }

    /// Removes all entries whose keys begin with a prefix, and says how many; those not counted that come meanwhile.
    ///
    /// # Errors
    ///
    /// See [`KvError`]. A part may be removed; a retry goes on.
    pub async fn delete_prefix(
        &self,
        namespace: &Namespace,
        prefix: &Bytes,
        options: &WriteOptions,
    ) -> Result<u64, KvError> {
        let mut count = 0;
        for partition in self.partitions()? {
            loop {
                let entries_max = REMOVED_ENTRIES_MAX as u32;
                let command = Command::DeletePrefix { prefix: prefix.clone(), entries_max };
                let done = self.run(namespace, partition, &command, options).await?;
                let Some(Answer::PrefixDeleted { deleted, more }) = done.outcome else { break };
                count += u64::from(deleted);
                if !more {
                    break;
                }
            }
        }
        Ok(count)
    }
}

// Reading.
impl KvStore {
    /// One entry; nothing if it is missing.
    ///
    /// # Errors
    ///
    /// See [`KvError`].
    pub async fn read(
        &self,
        namespace: &Namespace,
        key: &Bytes,
        options: &ReadOptions,
    ) -> Result<Seen<Option<Value>>, KvError> {
        let partition = self.partition(key)?;
        let question = Question::Read { key: key.clone() };
        let Seen { found, place } = self.ask(namespace, partition, &question, options).await?;
        match found {
            Found::Read { entry } => Ok(Seen { found: entry, place }),
            _ => Err(AnswerError::Malformed.into()),
        }
    }

    /// What is known of one entry besides its value, and what time it is.
    ///
    /// # Errors
    ///
    /// See [`KvError`].
    pub async fn describe(
        &self,
        namespace: &Namespace,
        key: &Bytes,
        options: &ReadOptions,
    ) -> Result<Seen<(Option<Description>, LogTime)>, KvError> {
        let partition = self.partition(key)?;
        let question = Question::Describe { keys: vec![key.clone()] };
        let Seen { found, place } = self.ask(namespace, partition, &question, options).await?;
        match found {
            Found::Described { entries, now } => {
                let entry = entries.into_iter().next().ok_or(AnswerError::Malformed)?;
                Ok(Seen { found: (entry, now), place })
            }
            _ => Err(AnswerError::Malformed.into()),
        }
    }

    /// Several entries of any partitions, in the order asked for; those of one partition as of one moment.
    pub async fn read_many(
        &self,
        namespace: &Namespace,
        keys: &[Bytes],
        options: &ReadOptions,
    ) -> Vec<Result<Option<Value>, KvError>> {
        let mut results: Vec<Result<Option<Value>, KvError>> = Vec::new();
        results.resize_with(keys.len(), || Err(KvError::Query(QueryError::NoPartition)));
        let mut groups: BTreeMap<PartitionId, Vec<usize>> = BTreeMap::new();
        for (position, key) in keys.iter().enumerate() {
            if let Ok(partition) = self.partition(key) {
                groups.entry(partition).or_default().push(position);
            }
        }
        let groups = groups.into_iter().map(|(partition, positions)| async move {
            let found = self.read_group(namespace, partition, keys, &positions, options).await;
            (positions, found)
        });
        for (positions, found) in futures_util::future::join_all(groups).await {
            match found {
                Ok(entries) => {
                    for (position, entry) in positions.into_iter().zip(entries) {
                        results[position] = Ok(entry);
                    }
                }
                Err(error) => {
                    positions.into_iter().for_each(|position| results[position] = Err(error.clone()));
                }
            }
        }
        results
    }

    /// The entries at some positions of `keys`, all of one partition: in as many questions as it takes.
    async fn read_group(
        &self,
        namespace: &Namespace,
        partition: PartitionId,
        keys: &[Bytes],
        positions: &[usize],
        options: &ReadOptions,
    ) -> Result<Vec<Option<Value>>, KvError> {
        let mut entries = Vec::with_capacity(positions.len());
        while entries.len() < positions.len() {
            let rest = positions[entries.len()..].iter().take(super::limits::KEYS_MAX);
            let question =
                Question::ReadMany { keys: rest.map(|position| keys[*position].clone()).collect() };
            match self.ask(namespace, partition, &question, options).await?.found {
                Found::ReadMany { entries: found } if !found.is_empty() => entries.extend(found),
                _ => return Err(AnswerError::Malformed.into()),
            }
        }
        Ok(entries)
    }

    /// A page of the entries whose keys begin with a prefix, beginning at `cursor`. `scan.cursor` is not looked at.
    ///
    /// # Errors
    ///
    /// See [`KvError`].
    pub async fn scan(
        &self,
        namespace: &Namespace,
        cursor: Option<Cursor>,
        scan: &Scan,
        options: &ReadOptions,
    ) -> Result<Page, KvError> {
        let cursor = cursor.unwrap_or(Cursor { partition: PartitionId(0), key: None });
        let count = self.partitions()?.count() as u32;
        if cursor.partition.0 >= count {
            return Err(Refusal::CursorInvalid.into());
        }
        let mut entries = Vec::new();
        let mut bytes_left = scan.bytes_max;
        let mut key = cursor.key;
        for partition in (cursor.partition.0..count).map(PartitionId) {
            let wanted = scan.entries_max.max(1).saturating_sub(entries.len() as u32);
            if wanted == 0 || bytes_left == 0 {
                return Ok(Page { entries, cursor: Some(Cursor { partition, key }) });
            }
            let part =
                Scan { cursor: key.take(), entries_max: wanted, bytes_max: bytes_left, ..scan.clone() };
            let found = self.ask(namespace, partition, &Question::Scan(part), options).await?.found;
            let Found::Page { entries: more, cursor: rest } = found else {
                return Err(AnswerError::Malformed.into());
            };
            let bytes = |entry: &PageEntry| entry.key.len() + entry.value.as_ref().map_or(0, Bytes::len);
            let bytes: usize = more.iter().map(bytes).sum();
            bytes_left = bytes_left.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
            entries.extend(more);
            if rest.is_some() {
                return Ok(Page { entries, cursor: Some(Cursor { partition, key: rest }) });
            }
        }
        Ok(Page { entries, cursor: None })
    }

    /// How much a namespace holds.
    ///
    /// # Errors
    ///
    /// See [`KvError`].
    pub async fn stats(&self, namespace: &Namespace, options: &ReadOptions) -> Result<Stats, KvError> {
        let mut stats = Stats::default();
        for partition in self.partitions()? {
            match self.ask(namespace, partition, &Question::Stats, options).await?.found {
                Found::Stats(part) => {
                    stats.keys += part.keys;
                    stats.value_bytes += part.value_bytes;
                }
                _ => return Err(AnswerError::Malformed.into()),
            }
        }
        Ok(stats)
    }

    fn partitions(&self) -> Result<impl Iterator<Item = PartitionId> + use<>, KvError> {
        let count = self.data.partition_count().ok_or(QueryError::NoPartition)?;
        Ok((0..count).map(PartitionId))
    }
}
