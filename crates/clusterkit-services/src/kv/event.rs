//! What whoever watches keys is told.

use bytes::Bytes;
use clusterkit_core::replica::LogTime;
use serde::{Deserialize, Serialize};

use super::Version;
use super::limits::EVENT_VALUE_BYTES_MAX;
use crate::header::{self, RequestError, SERVICE_KV};
use crate::namespace::Namespace;

/// A change of an entry.
///
/// Every change gives one, in the order of the log. Those of one command have one version and are in the order of
/// keys, those of a sweep in the order in which they expired; of a batch each key has what the batch came to.
/// An entry that expired ends by one event, when it is swept, deleted with its prefix, or right before the next entry
/// of its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Of which entry.
    pub key: Bytes,
    /// The command that did it. It never falls from one event of a partition to the next.
    pub version: Version,
    /// What happened.
    pub kind: EventKind,
}

/// What happened to an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum EventKind {
    /// It was removed.
    Deleted,
    /// It expired, at this time or before it, and was removed.
    Expired,
    /// It was created, its value was replaced, or when it expires.
    Put {
        /// The value that it has.
        value: EventValue,
        /// When it expires. Nothing if it never does.
        expires_at: Option<LogTime>,
    },
}

/// The value of an entry that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum EventValue {
    /// It is larger than [`EVENT_VALUE_BYTES_MAX`]: read it by its key.
    Omitted {
        /// Bytes of the value.
        value_bytes: u32,
    },
    /// All of it.
    Whole(Bytes),
}

impl EventValue {
    pub(super) fn of(value: &Bytes) -> Self {
        if value.len() <= EVENT_VALUE_BYTES_MAX {
            Self::Whole(value.clone())
        } else {
            Self::Omitted { value_bytes: super::row::count(value) }
        }
    }
}

impl Event {
    /// The event as bytes.
    #[must_use]
    pub fn encode(&self, namespace: &Namespace) -> Bytes {
        header::write_request(SERVICE_KV, namespace, self)
    }

    /// Reads an event of this service.
    ///
    /// # Errors
    ///
    /// If the bytes are something else.
    pub fn decode(bytes: &[u8]) -> Result<(Namespace, Self), RequestError> {
        header::read_request(SERVICE_KV, bytes)
    }
}
