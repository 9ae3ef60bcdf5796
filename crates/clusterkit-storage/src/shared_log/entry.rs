//! How one entry lies in a segment: a header of 48 bytes, then the payload. All little-endian.
//!
//! | at | bytes | |
//! | --- | --- | --- |
//! | 0 | 4 | CRC-32C of the log's salt, the segment's id and the rest of the header |
//! | 4 | 4 | CRC-32C of the payload |
//! | 8 | 4 | length of the payload |
//! | 12 | 1 | kind, and 3 bytes of zero |
//! | 16 | 4 | how many entries back the synced mark lies |
//! | 20 | 4 | how many entries back the previous entry of the same stream lies; 0 if there is none |
//! | 24 | 8 | number: entries count from 1 through all segments |
//! | 32 | 8 | stream |
//! | 40 | 8 | offset, or what the kind says |
//!
//! The header has a checksum of its own, so that damage to a payload is known to hit this one entry of this one
//! stream. It begins with the log's salt and the segment's id, so that bytes of another segment, or of a record
//! that a user made up, never pass for an entry of this one. The two distances stop at `u32::MAX`, which then stands for "that far or farther".

use bytes::{Buf, BufMut};

use super::segment::Key;
use super::stream::StreamId;
use crate::limits::RECORD_BYTES_MAX;

pub(super) const HEADER_BYTES: usize = 48;
pub(super) const NUMBER_AT: usize = 24;
const CHECKED_FROM: usize = 4;
const DISTANCE_MAX: u64 = u32::MAX as u64;

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The payload is the record at this offset, which was the stream's end.
    Append,
    /// The stream begins to exist, empty, at this offset.
    Create,
    /// The segment whose id is in the place of the offset holds nothing that is needed.
    Free,
    /// Something of the stream is lost: what, is told by the bits of [`Loss`](super::stream::Loss) in the place
    /// of the offset.
    Lose,
    /// The payload is the record at this offset once more: it lies here from now on.
    Move,
    /// The payload is the stream's note.
    Note,
    /// Records below this offset are not needed any more.
    Release,
    /// The stream is gone.
    Remove,
    /// The stream holds nothing and begins at this offset.
    Reset,
    /// The last entry of a segment; the next one has the id that is in the place of the offset.
    Seal,
    /// The first entry of a segment: what all streams and segments were when it began.
    Table,
    /// The stream ends at this offset.
    Truncate,
}

impl Kind {
    const ALL: [Kind; 12] = [
        Kind::Append,
        Kind::Create,
        Kind::Free,
        Kind::Lose,
        Kind::Move,
        Kind::Note,
        Kind::Release,
        Kind::Remove,
        Kind::Reset,
        Kind::Seal,
        Kind::Table,
        Kind::Truncate,
    ];

    /// Whether an entry of this kind is about one stream.
    pub(super) fn has_stream(self) -> bool {
        !matches!(self, Kind::Free | Kind::Seal | Kind::Table)
    }

    fn code(self) -> u8 {
        let position = Kind::ALL.iter().position(|kind| *kind == self).expect("all kinds are listed");
        1 + position as u8
    }

    fn of_code(code: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }
}

/// The header of an entry whose checksum held, or that is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) number: u64,
    pub(super) stream: StreamId,
    pub(super) offset: u64,
    pub(super) length: u32,
    payload_checksum: u32,
    mark_distance: u32,
    previous_distance: u32,
}

/// What an entry says, without its place in the sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub(super) kind: Kind,
    pub(super) stream: StreamId,
    pub(super) offset: u64,
}

/// Where an entry stands in the sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) number: u64,
    /// The previous entry of the same stream, 0 if there is none.
    pub(super) previous: u64,
    /// Every entry of a lower number was durable when this one was written.
    pub(super) synced_end: u64,
}

impl Header {
    pub(super) fn new(subject: Subject, standing: Standing, payload: &[u8]) -> Self {
        let Standing { number, previous, synced_end } = standing;
        Header {
            kind: subject.kind,
            number,
            stream: subject.stream,
            offset: subject.offset,
            length: u32::try_from(payload.len()).expect("payloads are checked against their bound before"),
            payload_checksum: crc32c::crc32c(payload),
            mark_distance: distance(number, synced_end),
            previous_distance: if previous == 0 { 0 } else { distance(number, previous) },
        }
    }

    /// The header at the beginning of `bytes`, if there is a whole one.
    pub(super) fn decode(key: Key, bytes: &[u8]) -> Option<Self> {
        let mut fields = bytes.get(..HEADER_BYTES)?;
        let checked = &fields[CHECKED_FROM..];
        let checksum = fields.get_u32_le();
        let payload_checksum = fields.get_u32_le();
        let length = fields.get_u32_le();
        let kind = Kind::of_code(fields.get_u8())?;
        fields.advance(3);
        let mark_distance = fields.get_u32_le();
        let previous_distance = fields.get_u32_le();
        let number = fields.get_u64_le();
        let stream = StreamId(fields.get_u64_le());
        let offset = fields.get_u64_le();
        let plausible = length as usize <= RECORD_BYTES_MAX && number > 0;
        let whole = plausible && checksum == checksum_of(key, checked);
        let header = Header {
            kind,
            number,
            stream,
            offset,
            length,
            payload_checksum,
            mark_distance,
            previous_distance,
        };
        whole.then_some(header)
    }

    pub(super) fn encode(&self, key: Key, buffer: &mut Vec<u8>) {
        let start = buffer.len();
        buffer.put_u32_le(0);
        buffer.put_u32_le(self.payload_checksum);
        buffer.put_u32_le(self.length);
        buffer.put_slice(&[self.kind.code(), 0, 0, 0]);
        buffer.put_u32_le(self.mark_distance);
        buffer.put_u32_le(self.previous_distance);
        buffer.put_u64_le(self.number);
        buffer.put_u64_le(self.stream.0);
        buffer.put_u64_le(self.offset);
        let checksum = checksum_of(key, &buffer[start + CHECKED_FROM..]);
        buffer[start..start + CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Whether this is the payload that the header was made for.
    pub(super) fn fits(&self, payload: &[u8]) -> bool {
        payload.len() == self.length as usize && crc32c::crc32c(payload) == self.payload_checksum
    }

    /// Bytes of the whole entry.
    pub(super) fn bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.length)
    }

    /// Every entry of a lower number was durable when this one was written. A mark that is too far back to be
    /// told proves nothing.
    pub(super) fn mark(&self) -> u64 {
        match self.mark_distance {
            u32::MAX => 0,
            far => self.number.saturating_sub(u64::from(far)),
        }
    }

    /// Whether the entry `last`, or none if it is 0, is the one that this entry calls the previous of its
    /// stream.
    pub(super) fn follows(&self, last: u64) -> bool {
        let expected = if last == 0 { 0 } else { distance(self.number, last) };
        last < self.number && self.previous_distance == expected
    }

    /// The previous entry of the stream, or the highest that it can be; 0 if there is none.
    pub(super) fn previous(&self) -> u64 {
        match self.previous_distance {
            0 => 0,
            far => self.number.saturating_sub(u64::from(far)),
        }
    }
}

fn distance(number: u64, earlier: u64) -> u32 {
    number.saturating_sub(earlier).min(DISTANCE_MAX) as u32
}

fn checksum_of(key: Key, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(key.0, bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::segment::SegmentId;
    use super::*;

    const KEY: Key = Key(7);

    fn sample(kind: Kind, payload: &[u8]) -> Header {
        let subject = Subject { kind, stream: StreamId(3), offset: 11 };
        Header::new(subject, Standing { number: 90, previous: 80, synced_end: 85 }, payload)
    }

    fn encoded(header: Header) -> Vec<u8> {
        let mut buffer = Vec::new();
        header.encode(KEY, &mut buffer);
        buffer
    }

    #[test]
    fn every_kind_is_decoded_as_it_was_encoded() {
        for kind in Kind::ALL {
            let header = sample(kind, b"payload");
            let bytes = encoded(header);
            assert_eq!(bytes.len(), HEADER_BYTES);
            assert_eq!(Header::decode(KEY, &bytes), Some(header));
            assert_eq!(Header::decode(Key::new(0, SegmentId(8)), &bytes), None, "of another segment");
            assert!(header.fits(b"payload") && !header.fits(b"paYload") && !header.fits(b"payloa"));
            assert_eq!((header.mark(), header.previous()), (85, 80));
        }
    }

    #[test]
    fn zeros_are_no_header() {
        (0..10_000).for_each(|key| assert_eq!(Header::decode(Key(key), &[0; 64]), None));
    }

    #[test]
    fn an_entry_follows_its_previous_one_alone() {
        let header = sample(Kind::Append, b"");
        assert!(header.follows(80));
        for other in [0, 79, 81, 90, 91] {
            assert!(!header.follows(other), "{other}");
        }
        let first = Header { previous_distance: 0, ..header };
        assert!(first.follows(0) && !first.follows(89));
    }

    #[test]
    fn a_distance_that_is_too_far_is_an_upper_bound() {
        let far = Standing { number: 1 << 40, previous: 5, synced_end: 6 };
        let subject = Subject { kind: Kind::Note, stream: StreamId(1), offset: 0 };
        let header = Header::new(subject, far, b"");
        assert!(header.follows(5));
        assert!((5..1 << 40).contains(&header.previous()));
        assert_eq!(header.mark(), 0);
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_seen(position in 0..HEADER_BYTES, change in 1..=u8::MAX) {
            let mut bytes = encoded(sample(Kind::Append, b"x"));
            bytes[position] ^= change;
            prop_assert_eq!(Header::decode(KEY, &bytes), None);
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(Header::decode(KEY, &bytes), None);
        }
    }
}
