//! How records and notes lie in the log.
//!
//! A record: version (1 byte), kind (1), epoch (8), time (8), for a request of a session its epoch (8), its offset (8)
//! and the sequence (8), and then the payload to the end, so that it is handed on without being copied. Numbers are
//! little-endian. A note: version (1), and its fields as postcard writes them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use clusterkit_core::id::{Epoch, PartitionId};
use clusterkit_core::replica::{Entry, LogTime, Record, SessionId, SessionRequest};
use serde::{Deserialize, Serialize};

use super::limits::RECORD_HEADER_BYTES_MAX;
use crate::error::Excess;

const VERSION: u8 = 1;
const KIND_NO_OP: u8 = 0;
const KIND_OPEN_SESSION: u8 = 1;
const KIND_WRITE: u8 = 2;
const KIND_REQUEST: u8 = 3;
const OUTCOME_ANSWER: u8 = 0;
const OUTCOME_EXCESS: u8 = 1;
const HEADER_BYTES: usize = 18;
const REQUEST_BYTES: usize = 24;

const _: () = assert!(HEADER_BYTES + REQUEST_BYTES == RECORD_HEADER_BYTES_MAX);

/// What a stream of the log carries beside its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Of which partition the stream is.
    pub(crate) partition: PartitionId,
    /// How far it was known to be committed.
    pub(crate) commit: u64,
    /// Where a snapshot ends that is about to take the place of state and log.
    pub(crate) installing: Option<u64>,
}

/// Bytes in the log that no program of this version wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are nothing that this program knows")]
pub(crate) struct Unknown;

/// The bytes of a record. Copies the payload.
pub(crate) fn encode_record(record: &Record) -> Bytes {
    let (kind, request, payload) = match &record.entry {
        Entry::NoOp => (KIND_NO_OP, None, None),
        Entry::OpenSession => (KIND_OPEN_SESSION, None, None),
        Entry::Write { request: None, payload } => (KIND_WRITE, None, Some(payload)),
        Entry::Write { request: Some(request), payload } => (KIND_REQUEST, Some(request), Some(payload)),
    };
    let payload = payload.map_or(&[][..], Bytes::as_ref);
    let mut bytes = BytesMut::with_capacity(RECORD_HEADER_BYTES_MAX + payload.len());
    bytes.put_u8(VERSION);
    bytes.put_u8(kind);
    bytes.put_u64_le(record.epoch.0);
    bytes.put_u64_le(record.time.0);
    if let Some(SessionRequest { session, sequence }) = request {
        bytes.put_u64_le(session.epoch.0);
        bytes.put_u64_le(session.offset);
        bytes.put_u64_le(*sequence);
    }
    bytes.put_slice(payload);
    bytes.freeze()
}

/// The record of these bytes. Its payload is a part of them.
pub(crate) fn decode_record(mut bytes: Bytes) -> Result<Record, Unknown> {
    if bytes.len() < HEADER_BYTES || bytes.get_u8() != VERSION {
        return Err(Unknown);
    }
    let kind = bytes.get_u8();
    let (epoch, time) = (Epoch(bytes.get_u64_le()), LogTime(bytes.get_u64_le()));
    let entry = match kind {
        KIND_NO_OP if bytes.is_empty() => Entry::NoOp,
        KIND_OPEN_SESSION if bytes.is_empty() => Entry::OpenSession,
        KIND_WRITE => Entry::Write { request: None, payload: bytes },
        KIND_REQUEST if bytes.len() >= REQUEST_BYTES => {
            let session = SessionId { epoch: Epoch(bytes.get_u64_le()), offset: bytes.get_u64_le() };
            let request = SessionRequest { session, sequence: bytes.get_u64_le() };
            Entry::Write { request: Some(request), payload: bytes }
        }
        _ => return Err(Unknown),
    };
    Ok(Record { epoch, time, entry })
}

/// What a session keeps of a command: a byte that says which, and the answer, or what was too large.
pub(crate) fn encode_outcome(outcome: &Result<Bytes, Excess>) -> Bytes {
    match outcome {
        Ok(answer) => [&[OUTCOME_ANSWER], &answer[..]].concat().into(),
        Err(excess) => postcard::to_extend(excess, vec![OUTCOME_EXCESS]).expect("memory takes it").into(),
    }
}

/// What a session kept of a command. The answer is a part of the bytes.
pub(crate) fn decode_outcome(mut bytes: Bytes) -> Result<Result<Bytes, Excess>, Unknown> {
    if bytes.is_empty() {
        return Err(Unknown);
    }
    match bytes.get_u8() {
        OUTCOME_ANSWER => Ok(Ok(bytes)),
        OUTCOME_EXCESS => postcard::from_bytes(&bytes).map(Err).map_err(|_| Unknown),
        _ => Err(Unknown),
    }
}

impl Note {
    /// The note of a replica that is new.
    pub(crate) fn new(partition: PartitionId) -> Self {
        Self { partition, commit: 0, installing: None }
    }

    pub(crate) fn encode(&self) -> Bytes {
        versioned(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unknown> {
        unversioned(bytes)
    }
}

/// A small value behind a version byte.
pub(crate) fn versioned(value: &impl Serialize) -> Bytes {
    let bytes =
        postcard::to_extend(value, vec![VERSION]).expect("what lies in memory can be written to memory");
    bytes.into()
}

/// The value behind a version byte.
pub(crate) fn unversioned<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Unknown> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            _ => Err(Unknown),
        },
        _ => Err(Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> SessionRequest {
        SessionRequest { session: SessionId { epoch: Epoch(3), offset: 4 }, sequence: 5 }
    }

    fn entries() -> Vec<Entry> {
        let write = |request, payload| Entry::Write { request, payload };
        vec![
            Entry::NoOp,
            Entry::OpenSession,
            write(None, Bytes::new()),
            write(None, Bytes::from_static(b"payload")),
            write(Some(request()), Bytes::new()),
            write(Some(request()), Bytes::from_static(b"payload")),
        ]
    }

    #[test]
    fn what_is_decoded_is_what_was_encoded() {
        for entry in entries() {
            let record = Record { epoch: Epoch(u64::MAX), time: LogTime(u64::MAX - 1), entry };
            assert_eq!(decode_record(encode_record(&record)), Ok(record));
        }
        for installing in [None, Some(u64::MAX)] {
            let note = Note { partition: PartitionId(u32::MAX), commit: u64::MAX, installing };
            assert!(note.encode().len() <= super::super::limits::NOTE_LENGTH_MAX);
            assert_eq!(Note::decode(&note.encode()), Ok(note));
        }
    }

    #[test]
    fn an_outcome_is_kept_with_what_it_was() {
        for outcome in [Ok(Bytes::new()), Ok(Bytes::from_static(b"answer")), Err(Excess::Value(u64::MAX))] {
            assert_eq!(decode_outcome(encode_outcome(&outcome)), Ok(outcome));
        }
        assert_eq!(decode_outcome(Bytes::new()), Err(Unknown));
        assert_eq!(decode_outcome(Bytes::from_static(b"\x02")), Err(Unknown));
        assert_eq!(decode_outcome(Bytes::from_static(b"\x01\x09")), Err(Unknown));
    }

    #[test]
    fn a_payload_is_not_copied() {
        let record =
            Record { epoch: Epoch(1), time: LogTime(2), entry: entries().pop().expect("one is there") };
        let bytes = encode_record(&record);
        let Ok(Record { entry: Entry::Write { payload, .. }, .. }) = decode_record(bytes.clone()) else {
            panic!("it is a write")
        };
        assert_eq!(payload.as_ptr(), bytes[bytes.len() - payload.len()..].as_ptr());
    }

    #[test]
    fn the_format_does_not_change() {
        let record = |entry| Record { epoch: Epoch(1), time: LogTime(2), entry };
        let check = |entry, expect: &[u8]| assert_eq!(&encode_record(&record(entry))[..], expect);
        check(Entry::NoOp, b"\x01\x00\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
        check(Entry::OpenSession, b"\x01\x01\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
        let write = Entry::Write { request: None, payload: Bytes::from_static(b"x") };
        check(write, b"\x01\x02\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0x");
        let write = Entry::Write { request: Some(request()), payload: Bytes::from_static(b"x") };
        let head = b"\x01\x03\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0";
        let tail = b"\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0x";
        check(write, &[&head[..], tail].concat());
        let note = Note { partition: PartitionId(7), commit: 300, installing: Some(2) };
        assert_eq!(&note.encode()[..], b"\x01\x07\xac\x02\x01\x02");
    }

    #[test]
    fn bytes_of_nobody_are_refused() {
        let whole = encode_record(&Record {
            epoch: Epoch(1),
            time: LogTime(2),
            entry: Entry::Write { request: Some(request()), payload: Bytes::new() },
        });
        for length in 0..whole.len() {
            assert_eq!(decode_record(whole.slice(..length)), Err(Unknown), "{length} bytes");
        }
        let changed = |at: usize, byte| {
            let mut bytes = whole.to_vec();
            bytes[at] = byte;
            decode_record(bytes.into())
        };
        assert_eq!(changed(0, 2), Err(Unknown), "another version");
        assert_eq!(changed(1, 4), Err(Unknown), "another kind");
        assert_eq!(changed(1, KIND_NO_OP), Err(Unknown), "more than there is to say");
        assert_eq!(Note::decode(b""), Err(Unknown));
        assert_eq!(Note::decode(b"\x02\x07\0\0"), Err(Unknown));
        assert_eq!(Note::decode(b"\x01\x07\0\0\0"), Err(Unknown));
    }
}
