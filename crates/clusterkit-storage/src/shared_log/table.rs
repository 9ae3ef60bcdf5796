//! The table that every segment begins with: which segments there were, oldest first and itself last, and what
//! all streams were. So no segment needs an older one to be understood, and the log needs no manifest.
//!
//! The payload: number of segments (4 bytes), their ids (4 each), then a row for each stream.

use bytes::{Buf, BufMut, Bytes};

use super::index::{Index, Row};
use super::segment::SegmentId;

/// Bytes of a table's payload before its rows.
pub(super) fn front_bytes(segments: usize) -> usize {
    4 + 4 * segments
}

/// A table as it was read.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) segments: Vec<SegmentId>,
    pub(super) rows: Vec<Row>,
}

impl Table {
    pub(super) fn encode(segments: &[SegmentId], index: &Index) -> Vec<u8> {
        let mut buffer = Vec::with_capacity(front_bytes(segments.len()) + index.table_bytes());
        buffer.put_u32_le(u32::try_from(segments.len()).expect("segments are bounded"));
        segments.iter().for_each(|segment| buffer.put_u32_le(segment.0));
        index.encode_rows(&mut buffer);
        buffer
    }

    /// What a table's payload says, if it can be said.
    pub(super) fn decode(mut payload: Bytes) -> Option<Self> {
        let count = payload.try_get_u32_le().ok()? as usize;
        let mut ids = (payload.len() >= count.checked_mul(4)?).then(|| payload.split_to(4 * count))?;
        let segments = (0..count).map(|_| SegmentId(ids.get_u32_le())).collect();
        let mut rows = Vec::new();
        while payload.has_remaining() {
            rows.push(Row::decode(&mut payload)?);
        }
        Some(Table { segments, rows })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::index::{Change, ROW_BYTES};
    use super::super::stream::{Place, StreamId};
    use super::*;

    #[test]
    fn a_table_is_decoded_as_it_was_encoded() {
        let mut index = Index::default();
        let place = Place { segment: SegmentId(4), position: 9, length: 1 };
        index.apply(StreamId(1), 1, Change::Create(5));
        index.apply(StreamId(1), 2, Change::Append(place));
        index.apply(StreamId(1), 3, Change::Note(Bytes::from("note")));
        index.apply(StreamId(2), 4, Change::Create(0));
        index.apply(StreamId(3), 5, Change::Create(0));
        index.break_stream(StreamId(3), 6);
        let bytes = Table::encode(&[SegmentId(4), SegmentId(6)], &index);
        assert_eq!(bytes.len(), front_bytes(2) + 3 * ROW_BYTES + 4);
        assert_eq!(index.table_bytes(), 3 * ROW_BYTES + 4);

        let table = Table::decode(Bytes::from(bytes)).unwrap();
        assert_eq!(table.segments, [SegmentId(4), SegmentId(6)]);
        let told: Vec<_> =
            table.rows.iter().map(|row| (row.start, row.end, row.last, row.loss.broken)).collect();
        assert_eq!(told, [(5, 6, 3, false), (0, 0, 4, false), (0, 0, 6, true)]);
        assert_eq!(table.rows[0].note.as_deref(), Some(&b"note"[..]));
        assert_eq!(table.rows[1].note, None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Table::decode(Bytes::from(bytes));
        }
    }
}
