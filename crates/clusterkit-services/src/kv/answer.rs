//! What the key-value service answers to commands.

use bytes::Bytes;
use clusterkit_core::replica::LogTime;
use serde::{Deserialize, Serialize};

use super::Version;
use crate::header::{self, AnswerError, SERVICE_KV};

/// What came of a [`Command`](super::Command).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Answer {
    /// The batch was done.
    BatchWritten {
        /// What came of each write, in their order.
        outcomes: Vec<Outcome>,
    },
    /// Entries with the prefix were removed.
    PrefixDeleted {
        /// How many; those not counted that had expired.
        deleted: u32,
        /// Whether others may be left: repeat the command.
        more: bool,
    },
    /// The command was refused.
    Refused(Refused),
    /// Expired entries were removed.
    Swept {
        /// How many.
        expired: u32,
        /// Whether others are due: repeat the command.
        more: bool,
    },
    /// The write was done.
    Written(Outcome),
}

impl Answer {
    /// The answer as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        header::write_answer(SERVICE_KV, self)
    }

    /// Reads the answer to a command of this service.
    ///
    /// # Errors
    ///
    /// If no service could take the command, or the bytes are something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, AnswerError> {
        header::read_answer(SERVICE_KV, bytes)
    }
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// What came of one write. The version is the new one of the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Outcome {
    /// Something was added to the value.
    Appended {
        /// Bytes of the value now.
        value_bytes: u32,
        /// The new version.
        version: Version,
    },
    /// The condition held.
    Checked,
    /// The entry is missing now.
    Deleted {
        /// Whether it was there.
        existed: bool,
    },
    /// The entry will expire.
    Expires {
        /// When.
        expires_at: LogTime,
        /// The new version.
        version: Version,
    },
    /// The entry does not expire.
    Persisted {
        /// Whether it would have. If not, it was not changed.
        changed: bool,
        /// The version that it has.
        version: Version,
    },
    /// The number was changed.
    Number {
        /// What it is now.
        value: i64,
        /// The new version.
        version: Version,
    },
    /// The value was set.
    Put {
        /// Whether another one was there.
        replaced: bool,
        /// The new version.
        version: Version,
    },
}

/// A command was refused. Nothing of it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("write {position} was refused")]
pub struct Refused {
    /// The first write that could not be done, counted from 0; also 0 if it is the command as a whole.
    pub position: u32,
    /// Why.
    #[source]
    pub refusal: Refusal,
}

impl Refused {
    pub(super) fn at(position: usize, refusal: Refusal) -> Self {
        Self { position: u32::try_from(position).unwrap_or(u32::MAX), refusal }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::at(0, refusal)
    }
}

/// Why a command or question was refused. Nothing changed. A retry helps only where the state decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The cursor is none of a scan with this prefix. Scan from the beginning.
    #[error("the cursor is none of this scan")]
    CursorInvalid,
    /// The time to live is nothing or above [`TTL_MAX`](super::limits::TTL_MAX), or the point in time is the last that
    /// there is. A retry cannot help.
    #[error("the entry cannot expire then")]
    DeadlineInvalid,
    /// The entry was to be missing. Read it, and decide anew.
    #[error("the entry is there, at version {}", version.0)]
    Exists {
        /// The version that it has.
        version: Version,
    },
    /// The key is empty. A retry cannot help.
    #[error("the key is empty")]
    KeyEmpty,
    /// The value is not the decimal text of an `i64`. A retry helps once somebody puts another.
    #[error("the value is not a number")]
    NotANumber,
    /// The entry was to be there. A retry helps once somebody puts it.
    #[error("the entry is missing")]
    NotFound,
    /// The number would leave the range of an `i64`.
    #[error("the number would be too large or too small")]
    NumberOverflow,
    /// Something is above its limit. A retry cannot help, unless it is a value that grows by appending.
    #[error("{size} is above the limit of {limit} for {what:?}")]
    TooLarge {
        /// What.
        what: Limit,
        /// How large it is.
        size: u64,
        /// How large it may be.
        limit: u64,
    },
    /// The entry was changed since it had the version that was named. Read it, and decide anew.
    #[error("the entry has another version")]
    VersionMismatch {
        /// The version that it has. Nothing if it is missing.
        current: Option<Version>,
    },
}

/// What has a limit; each is a constant of [`limits`](super::limits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Limit {
    /// Bytes of keys and values that a batch carries.
    BatchBytes,
    /// Writes of a batch.
    BatchWrites,
    /// Bytes that a batch writes.
    BatchWrittenBytes,
    /// Bytes of a key or of a prefix.
    KeyBytes,
    /// Keys of a question.
    Keys,
    /// Bytes of a value.
    ValueBytes,
}
