//! What nodes say to each other about partitions' data.

use bytes::{BufMut, Bytes, BytesMut};
use clusterkit_core::id::PartitionId;
use clusterkit_core::replica::{Ack, Entry, Message, SnapshotHeader};
use clusterkit_storage::state_store::Digest;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{QueryError, WriteError};
use crate::options::{Answered, Read, Written};

/// The version of everything in here.
const VERSION: u8 = 1;

/// A request of another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// A client's write, for a partition that the receiver leads.
    Write { partition: PartitionId, entry: Entry, ack: Ack, deadline_ms: u32 },
    /// A client's question.
    Query { partition: PartitionId, question: Bytes, read: Read, deadline_ms: u32 },
    /// A snapshot begins: its entries have this digest.
    SnapshotBegin { transfer: u64, header: SnapshotHeader, digest: WireDigest },
    /// Some of its entries.
    SnapshotPiece { transfer: u64, number: u64, entries: Vec<(Bytes, Bytes)> },
    /// All of them were sent.
    SnapshotEnd { transfer: u64 },
}

/// Index, number and sum of hashes of the entries of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireDigest {
    pub(crate) index: u64,
    pub(crate) entries: u64,
    pub(crate) sum: u128,
}

impl From<Digest> for WireDigest {
    fn from(digest: Digest) -> Self {
        Self { index: digest.applied_index, entries: digest.entries, sum: digest.sum }
    }
}

impl From<WireDigest> for Digest {
    fn from(digest: WireDigest) -> Self {
        Self { applied_index: digest.index, entries: digest.entries, sum: digest.sum }
    }
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Response {
    Written(Result<Written, WriteError>),
    Answered(Result<Answered, QueryError>),
    /// Whether the snapshot, or its piece, is of use.
    Snapshot(bool),
    /// The request was not understood.
    Refused,
}

pub(crate) fn encode<T: Serialize>(body: &T) -> Bytes {
    let buffer = vec![VERSION];
    let encoded = postcard::to_extend(body, buffer).expect("memory takes everything");
    Bytes::from(encoded)
}

/// `None` if it is of another version, or malformed.
pub(crate) fn decode<T: DeserializeOwned>(body: &Bytes) -> Option<T> {
    let (version, rest) = body.split_first()?;
    (*version == VERSION).then(|| postcard::from_bytes(rest).ok()).flatten()
}

/// Messages to one node, gathered into notices.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    bytes: BytesMut,
}

impl Notice {
    pub(crate) fn push(&mut self, message: &Message) {
        if self.bytes.is_empty() {
            self.bytes.put_u8(VERSION);
        }
        let at = self.bytes.len();
        self.bytes.put_u32_le(0);
        let encoded = postcard::to_extend(message, Vec::new()).expect("memory takes everything");
        self.bytes.extend_from_slice(&encoded);
        let length = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
        self.bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        self.bytes.freeze()
    }
}

/// The messages of a notice, as far as they are understood.
pub(crate) fn messages(notice: &Bytes) -> Vec<Message> {
    let mut messages = Vec::new();
    let Some((&VERSION, mut rest)) = notice.split_first() else { return messages };
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let Some(body) = behind.get(..length) else { break };
        let Ok(message) = postcard::from_bytes(body) else { break };
        messages.push(message);
        rest = &behind[length..];
    }
    messages
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clusterkit_core::id::Incarnation;

    use super::*;

    fn message(millis: u64) -> Message {
        Message::SupportRequest { incarnation: Incarnation(3), sent_at: Duration::from_millis(millis) }
    }

    #[test]
    fn a_notice_has_its_messages_in_order() {
        let mut notice = Notice::default();
        (0..5).for_each(|millis| notice.push(&message(millis)));
        let expected: Vec<_> = (0..5).map(message).collect();
        assert_eq!(messages(&notice.into_bytes()), expected);
    }

    #[test]
    fn a_notice_that_was_cut_gives_what_came_before() {
        let mut notice = Notice::default();
        (0..3).for_each(|millis| notice.push(&message(millis)));
        let bytes = notice.into_bytes();
        for end in 0..bytes.len() {
            assert!(messages(&bytes.slice(..end)).len() < 3, "{end}");
        }
        assert_eq!(messages(&Bytes::from_static(b"\x09rubbish")), []);
    }
}
