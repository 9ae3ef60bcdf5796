//! What the key-value service can be told to do.

use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::replica::LogTime;
use serde::{Deserialize, Serialize};

use super::answer::{Limit, Refusal, Refused};
use super::limits::{BATCH_BYTES_MAX, BATCH_WRITES_MAX, KEY_BYTES_MAX, TTL_MAX, VALUE_BYTES_MAX};
use super::{Version, bounded_size};
use crate::codec::{self, millis};
use crate::header::{self, RequestError, SERVICE_KV};
use crate::namespace::Namespace;

/// A change of keys and values. It is answered by an [`Answer`](super::Answer).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Command {
    /// Several writes, all or none of which are done. All conditions are checked first, against the state before the
    /// batch. Then the writes are done in order, and each sees those before it. If one cannot be done, none is.
    ///
    /// At most [`BATCH_WRITES_MAX`] writes which carry [`BATCH_BYTES_MAX`] bytes and come to
    /// [`BATCH_WRITTEN_BYTES_MAX`](super::limits::BATCH_WRITTEN_BYTES_MAX) bytes.
    Batch {
        /// What to do. Nothing is fine.
        #[serde(deserialize_with = "codec::bounded::<BATCH_WRITES_MAX, _, _>")]
        writes: Vec<Write>,
    },
    /// Removes entries whose keys begin with a prefix, in the order of keys. The answer says whether more are left;
    /// repeat it then. Entries that come meanwhile may be removed as well.
    DeletePrefix {
        /// What the keys begin with. Every key begins with an empty one.
        prefix: Bytes,
        /// The most entries to remove: taken as 1 if it is 0, and as
        /// [`REMOVED_ENTRIES_MAX`](super::limits::REMOVED_ENTRIES_MAX) if it is more. Fewer are removed if they are
        /// large.
        entries_max: u32,
    },
    /// Removes entries that have expired, of all namespaces of the partition, in the order in which they expired.
    /// Nobody sees them before it either, but they take up space. The answer says whether more are due.
    Sweep {
        /// As in [`DeletePrefix`](Self::DeletePrefix).
        entries_max: u32,
    },
    /// One write.
    Write(Write),
}

impl Command {
    /// Finds everything for which the command would be refused whatever the state is. Call it before sending: a
    /// command that is refused takes a place in the log, too.
    ///
    /// # Errors
    ///
    /// The first write that would be refused, and why.
    pub fn check(&self) -> Result<(), Refused> {
        match self {
            Self::Batch { writes } => check_batch(writes),
            Self::DeletePrefix { prefix, .. } => Ok(check_prefix(prefix)?),
            Self::Sweep { .. } => Ok(()),
            Self::Write(write) => Ok(write.check()?),
        }
    }

    /// The command as a payload of the log. A [`Sweep`](Self::Sweep) is for all namespaces, whichever is named.
    #[must_use]
    pub fn encode(&self, namespace: &Namespace) -> Bytes {
        header::write_request(SERVICE_KV, namespace, self)
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// If the bytes are something else.
    pub fn decode(bytes: &[u8]) -> Result<(Namespace, Self), RequestError> {
        header::read_request(SERVICE_KV, bytes)
    }
}

/// A change of one entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Of which: 1 to [`KEY_BYTES_MAX`] bytes.
    pub key: Bytes,
    /// What must hold before, or nothing is done.
    pub condition: Condition,
    /// What to do.
    pub change: Change,
}

impl Write {
    /// A write without a condition.
    #[must_use]
    pub fn new(key: impl Into<Bytes>, change: Change) -> Self {
        Self { key: key.into(), condition: Condition::Any, change }
    }

    /// Sets a value that never expires, without a condition.
    #[must_use]
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::new(key, Change::Put { value: value.into(), expiry: Expiry::Never })
    }

    /// Removes an entry if it is there.
    #[must_use]
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self::new(key, Change::Delete)
    }

    /// The same write, done only if the condition holds.
    #[must_use]
    pub fn only_if(self, condition: Condition) -> Self {
        Self { condition, ..self }
    }

    fn check(&self) -> Result<(), Refusal> {
        check_key(&self.key)?;
        bounded_size(Limit::ValueBytes, self.change.bytes(), VALUE_BYTES_MAX)?;
        match &self.change {
            Change::Expire { deadline } | Change::Put { expiry: Expiry::Set(deadline), .. } => {
                deadline.check()
            }
            _ => Ok(()),
        }
    }

    fn bytes(&self) -> usize {
        self.key.len() + self.change.bytes()
    }
}

/// What to do with an entry. An entry that expired is missing. Every change of an entry gives it a new version, that
/// of its expiry as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Change {
    /// Adds to the end of the value; a missing one is empty. When it expires stays as it is.
    Append {
        /// What is added.
        suffix: Bytes,
    },
    /// Nothing: the write is there for its condition.
    Check,
    /// Subtracts from the number that the value is, as [`Increment`](Self::Increment) adds.
    Decrement {
        /// How much; may be negative.
        by: i64,
    },
    /// Removes the entry. Fine if it is missing.
    Delete,
    /// Sets when the entry expires. Refused if it is missing.
    Expire {
        /// When.
        deadline: Deadline,
    },
    /// Adds to the number that the value is: the decimal text of an `i64`, without spaces, plus sign and leading
    /// zeros. A missing value is 0. When it expires stays as it is.
    Increment {
        /// How much; may be negative.
        by: i64,
    },
    /// Makes the entry one that never expires. Refused if it is missing, and nothing changes if it never does.
    Persist,
    /// Creates the entry or replaces its value.
    Put {
        /// The value, of at most [`VALUE_BYTES_MAX`] bytes.
        value: Bytes,
        /// When it expires.
        expiry: Expiry,
    },
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Self::Append { suffix: value } | Self::Put { value, .. } => value.len(),
            _ => 0,
        }
    }
}

/// What must hold before a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Condition {
    /// Nothing.
    #[default]
    Any,
    /// The entry is there.
    MustExist,
    /// The entry is missing.
    MustNotExist,
    /// The entry is there and nobody changed it since it had this version.
    VersionIs(Version),
}

/// When an entry that is put expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Expiry {
    /// When the entry expires that is replaced; never if there is none.
    Keep,
    /// Never.
    #[default]
    Never,
    /// Then.
    Set(Deadline),
}

/// When an entry expires, by the time that logs have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Deadline {
    /// So long after the command was written to the log: more than nothing, at most [`TTL_MAX`], in milliseconds,
    /// rounded up.
    After(#[serde(with = "millis")] Duration),
    /// At this time. If it has passed, the entry is gone at once.
    At(LogTime),
}

impl Deadline {
    fn check(self) -> Result<(), Refusal> {
        let is_valid = match self {
            Self::After(ttl) => !ttl.is_zero() && ttl <= TTL_MAX,
            Self::At(time) => time < LogTime(u64::MAX),
        };
        if is_valid { Ok(()) } else { Err(Refusal::DeadlineInvalid) }
    }

    /// The time that is meant. It is never the last one, which stands for never.
    pub(super) fn time(self, now: LogTime) -> LogTime {
        match self {
            Self::After(ttl) => LogTime(now.0.saturating_add(millis::of(ttl)).min(u64::MAX - 1)),
            Self::At(time) => time,
        }
    }
}

fn check_batch(writes: &[Write]) -> Result<(), Refused> {
    bounded_size(Limit::BatchWrites, writes.len(), BATCH_WRITES_MAX)?;
    for (position, write) in writes.iter().enumerate() {
        write.check().map_err(|refusal| Refused::at(position, refusal))?;
    }
    Ok(bounded_size(Limit::BatchBytes, writes.iter().map(Write::bytes).sum(), BATCH_BYTES_MAX)?)
}

pub(super) fn check_key(key: &[u8]) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(Refusal::KeyEmpty);
    }
    bounded_size(Limit::KeyBytes, key.len(), KEY_BYTES_MAX)
}

pub(super) fn check_prefix(prefix: &[u8]) -> Result<(), Refusal> {
    bounded_size(Limit::KeyBytes, prefix.len(), KEY_BYTES_MAX)
}
