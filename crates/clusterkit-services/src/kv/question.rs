//! What the key-value service can be asked, and what it finds.

use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::replica::LogTime;
use serde::{Deserialize, Serialize};

use super::answer::{Limit, Refusal};
use super::command::{check_key, check_prefix};
use super::limits::{KEY_BYTES_MAX, KEYS_MAX};
use super::{Version, bounded_size};
use crate::codec;
use crate::header::{self, AnswerError, RequestError, SERVICE_KV};
use crate::namespace::Namespace;

/// A question on keys and values. It is answered by what is [`Found`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Question {
    /// Whether entries are there, with version, size and expiry, but without their values.
    Describe {
        /// Which: at most [`KEYS_MAX`].
        #[serde(deserialize_with = "codec::bounded::<KEYS_MAX, _, _>")]
        keys: Vec<Bytes>,
    },
    /// When the next entry of the partition expires or expired, whatever its namespace: a leader proposes a
    /// [`Sweep`](super::Command::Sweep) then.
    ExpiryDue,
    /// One entry.
    Read {
        /// Which.
        key: Bytes,
    },
    /// Several entries, as of one moment.
    ReadMany {
        /// Which: at most [`KEYS_MAX`].
        #[serde(deserialize_with = "codec::bounded::<KEYS_MAX, _, _>")]
        keys: Vec<Bytes>,
    },
    /// Entries whose keys begin with a prefix, in the order of keys, page by page.
    Scan(Scan),
    /// How much the namespace holds in this partition.
    Stats,
}

impl Question {
    /// Finds everything for which the question would be refused.
    ///
    /// # Errors
    ///
    /// Why it would be.
    pub fn check(&self) -> Result<(), Refusal> {
        match self {
            Self::Describe { keys } | Self::ReadMany { keys } => check_keys(keys),
            Self::ExpiryDue | Self::Stats => Ok(()),
            Self::Read { key } => check_key(key),
            Self::Scan(scan) => scan.check(),
        }
    }

    /// The question as bytes. [`ExpiryDue`](Self::ExpiryDue) is on all namespaces, whichever is named.
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

/// Which entries to read, and how many at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// What the keys begin with. Every key begins with an empty one.
    pub prefix: Bytes,
    /// Where to go on: what the last page gave. Nothing at the beginning.
    pub cursor: Option<Bytes>,
    /// The most entries: taken as 1 if it is 0, and as [`PAGE_ENTRIES_MAX`](super::limits::PAGE_ENTRIES_MAX) if it
    /// is more.
    pub entries_max: u32,
    /// The most bytes of keys and values, at most [`READ_BYTES_MAX`](super::limits::READ_BYTES_MAX). The first entry
    /// is given whatever its size.
    pub bytes_max: u32,
    /// Whether values are wanted.
    pub with_values: bool,
}

impl Scan {
    /// The first page of all entries with a prefix, as large as pages are, with values.
    #[must_use]
    pub fn new(prefix: impl Into<Bytes>) -> Self {
        Self {
            prefix: prefix.into(),
            cursor: None,
            entries_max: u32::MAX,
            bytes_max: u32::MAX,
            with_values: true,
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        check_prefix(&self.prefix)?;
        let is_own = |cursor: &Bytes| cursor.starts_with(&self.prefix) && cursor.len() <= KEY_BYTES_MAX;
        if self.cursor.as_ref().is_none_or(is_own) { Ok(()) } else { Err(Refusal::CursorInvalid) }
    }
}

fn check_keys(keys: &[Bytes]) -> Result<(), Refusal> {
    bounded_size(Limit::Keys, keys.len(), KEYS_MAX)?;
    keys.iter().try_for_each(|key| check_key(key))
}

/// What was found in answer to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Found {
    /// What is known of each key, in the order asked for; nothing for one that is missing. The list is shorter than
    /// the keys if what was to be read for it is too much at once, and has one element at least: ask again for the
    /// rest.
    Described {
        /// What is known.
        entries: Vec<Option<Description>>,
        /// What time it is, to tell how long entries live.
        now: LogTime,
    },
    /// The earliest time at which an entry expires or expired that was not swept. Nothing if none ever will.
    ExpiryDue {
        /// When.
        at: Option<LogTime>,
    },
    /// Entries of a scan.
    Page {
        /// In the order of keys. May be none although there are more.
        entries: Vec<PageEntry>,
        /// Where to go on. Nothing if the scan is complete.
        cursor: Option<Bytes>,
    },
    /// The entry; nothing if it is missing.
    Read {
        /// It.
        entry: Option<Value>,
    },
    /// The entries, as [`Described`](Self::Described) has them.
    ReadMany {
        /// Them.
        entries: Vec<Option<Value>>,
    },
    /// The question was refused.
    Refused(Refusal),
    /// How much there is.
    Stats(Stats),
}

impl Found {
    /// What was found as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        header::write_answer(SERVICE_KV, self)
    }

    /// Reads the answer to a question of this service.
    ///
    /// # Errors
    ///
    /// If no service could take the question, or the bytes are something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, AnswerError> {
        header::read_answer(SERVICE_KV, bytes)
    }
}

/// An entry without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The command that wrote it.
    pub version: Version,
    /// When it expires. Nothing if it never does.
    pub expires_at: Option<LogTime>,
    /// Bytes of its value.
    pub value_bytes: u32,
}

impl Description {
    /// How long the entry has to live. Nothing if it never expires.
    #[must_use]
    pub fn ttl(&self, now: LogTime) -> Option<Duration> {
        self.expires_at.map(|at| Duration::from_millis(at.0.saturating_sub(now.0)))
    }
}

/// The value of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// The value.
    pub bytes: Bytes,
    /// The command that wrote it.
    pub version: Version,
    /// When it expires. Nothing if it never does.
    pub expires_at: Option<LogTime>,
}

/// An entry of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageEntry {
    /// Its key.
    pub key: Bytes,
    /// What is known of it.
    pub description: Description,
    /// Its value, if values were asked for.
    pub value: Option<Bytes>,
}

/// How much a namespace holds in a partition. Entries that expired count until they are swept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Keys.
    pub keys: u64,
    /// Bytes of values.
    pub value_bytes: u64,
}
