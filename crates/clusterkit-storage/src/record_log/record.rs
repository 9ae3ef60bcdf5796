//! How one record lies in a segment: CRC-32C (4 bytes), length of the payload (4), index (8), synced mark (8),
//! payload; all little-endian. The checksum begins with the segment's id, so that bytes of another segment,
//! left in a block that the file system gave away, never pass for a record of this one.

use bytes::Buf;

use super::segment::SegmentId;
use crate::limits::RECORD_BYTES_MAX;

pub(super) const HEADER_BYTES: usize = 24;
const CHECKED_FROM: usize = 4;
const INDEX_AT: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) index: u64,
    /// Every record below this index was durable when this one was written.
    pub(super) synced_end: u64,
    pub(super) payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record at the beginning of `bytes`, if there is a whole one.
    pub(super) fn decode(segment: SegmentId, bytes: &'a [u8]) -> Option<Self> {
        let (mut header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
        let checksum = header.get_u32_le();
        let length = header.get_u32_le() as usize;
        let (index, synced_end) = (header.get_u64_le(), header.get_u64_le());
        let plausible = length <= RECORD_BYTES_MAX && synced_end <= index;
        let payload = if plausible { rest.get(..length)? } else { return None };
        let whole = checksum == checksum_of(segment, &bytes[CHECKED_FROM..HEADER_BYTES + length]);
        whole.then_some(Record { index, synced_end, payload })
    }

    pub(super) fn encode(&self, segment: SegmentId, buffer: &mut Vec<u8>) {
        let start = buffer.len();
        let length = u32::try_from(self.payload.len()).expect("a record is checked against its bound before");
        buffer.extend_from_slice(&[0; CHECKED_FROM]);
        buffer.extend_from_slice(&length.to_le_bytes());
        buffer.extend_from_slice(&self.index.to_le_bytes());
        buffer.extend_from_slice(&self.synced_end.to_le_bytes());
        buffer.extend_from_slice(self.payload);
        let checksum = checksum_of(segment, &buffer[start + CHECKED_FROM..]);
        buffer[start..start + CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Bytes of the whole record.
    pub(super) fn bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }
}

/// The highest synced mark among whole records of higher index than `index` anywhere in `bytes`, which begin
/// where the record `index` is not whole. Lengths cannot be believed here, so every byte is tried. A payload
/// that holds the bytes of a record can only make this too careful.
pub(super) fn synced_end_behind(segment: SegmentId, bytes: &[u8], index: u64) -> Option<u64> {
    let mut highest = None;
    let mut offset = 0;
    while bytes.len() - offset >= HEADER_BYTES {
        let rest = &bytes[offset..];
        // The cheap test first: at most so many records fit between here and the first byte.
        let beyond = (&rest[INDEX_AT..INDEX_AT + 8]).get_u64_le().saturating_sub(index);
        let possible = (1..=(offset / HEADER_BYTES) as u64).contains(&beyond);
        let record = if possible { Record::decode(segment, rest) } else { None };
        highest = highest.max(record.map(|record| record.synced_end));
        offset += record.map_or(1, |record| record.bytes());
    }
    highest
}

fn checksum_of(segment: SegmentId, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&segment.0.to_le_bytes()), bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEGMENT: SegmentId = SegmentId(7);

    fn encoded(segment: SegmentId, index: u64, synced_end: u64, payload: &[u8]) -> Vec<u8> {
        let mut buffer = Vec::new();
        Record { index, synced_end, payload }.encode(segment, &mut buffer);
        buffer
    }

    #[test]
    fn a_record_of_another_segment_is_none() {
        let bytes = encoded(SEGMENT, 3, 2, b"payload");
        assert!(Record::decode(SEGMENT, &bytes).is_some());
        assert_eq!(Record::decode(SegmentId(8), &bytes), None);
    }

    #[test]
    fn zeros_are_no_record() {
        (0..10_000).for_each(|id| assert_eq!(Record::decode(SegmentId(id), &[0; 64]), None));
    }

    #[test]
    fn marks_behind_a_hole_are_found_at_any_offset() {
        for gap in HEADER_BYTES..HEADER_BYTES + 40 {
            let mut bytes = vec![0xa5; gap];
            bytes.extend(encoded(SEGMENT, 6, 4, b"x"));
            bytes.extend(encoded(SEGMENT, 7, 6, b""));
            assert_eq!(synced_end_behind(SEGMENT, &bytes, 5), Some(6), "gap {gap}");
            assert_eq!(synced_end_behind(SEGMENT, &bytes, 7), None, "no record behind 7");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            index in any::<u64>(),
            below in any::<u64>(),
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            behind in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let record = Record { index, synced_end: below.min(index), payload: &payload };
            let mut bytes = Vec::new();
            record.encode(SEGMENT, &mut bytes);
            prop_assert_eq!(bytes.len(), record.bytes());
            bytes.extend(&behind);
            prop_assert_eq!(Record::decode(SEGMENT, &bytes), Some(record));
        }

        #[test]
        fn a_changed_byte_is_seen(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            position in any::<proptest::sample::Index>(),
            change in 1..=u8::MAX,
        ) {
            let mut bytes = encoded(SEGMENT, 9, 8, &payload);
            let position = position.index(bytes.len());
            bytes[position] ^= change;
            prop_assert_eq!(Record::decode(SEGMENT, &bytes), None);
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Record::decode(SEGMENT, &bytes), None);
            prop_assert_eq!(synced_end_behind(SEGMENT, &bytes, 0), None);
        }
    }
}
