//! The bytes of keys, values and rows in the engine's tables.

use bytes::Bytes;

use crate::state_store::digest::Tally;
use crate::state_store::{Damage, DamageKind, Digest, ReplicaKey};

const CRC_BYTES: usize = 4;
const PREFIX_BYTES: usize = 8;
const ROW_BYTES: usize = 44;

/// One life of a replica's entries: an installation begins a new one, so that it takes the place of the old one
/// by changing one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation(pub(super) u64);

impl Generation {
    /// Where an entry lies in the table of all entries.
    pub(super) fn place(self, key: &[u8]) -> Vec<u8> {
        let mut place = Vec::with_capacity(PREFIX_BYTES + key.len());
        place.extend_from_slice(&self.0.to_be_bytes());
        place.extend_from_slice(key);
        place
    }
}

/// The key of an entry that lies there.
pub(super) fn key_of(place: &[u8]) -> &[u8] {
    &place[PREFIX_BYTES.min(place.len())..]
}

/// A value with its checksum in front, which is over the replica, the key and the value.
pub(super) fn seal(replica: ReplicaKey, key: &[u8], value: &[u8], record: &mut Vec<u8>) {
    record.clear();
    record.extend_from_slice(&checksum(replica, key, value).to_le_bytes());
    record.extend_from_slice(value);
}

/// The value of a record, if it is the one that was sealed.
pub(super) fn unseal<'a>(replica: ReplicaKey, key: &[u8], record: &'a [u8]) -> Result<&'a [u8], Damage> {
    let found = record.split_at_checked(CRC_BYTES);
    match found {
        Some((crc, value)) if crc == checksum(replica, key, value).to_le_bytes() => Ok(value),
        _ => Err(Damage::new(DamageKind::Entry).at(replica, Some(key))),
    }
}

fn checksum(replica: ReplicaKey, key: &[u8], value: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&replica.0.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &(key.len() as u64).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value)
}

/// What is known of a replica: where its entries are, and what they amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) generation: Generation,
    pub(super) applied: u64,
    pub(super) tally: Tally,
}

impl Row {
    pub(super) fn digest(&self) -> Digest {
        self.tally.at(self.applied)
    }

    pub(super) fn encode(&self, replica: ReplicaKey) -> [u8; ROW_BYTES] {
        let mut row = [0; ROW_BYTES];
        row[..8].copy_from_slice(&self.generation.0.to_le_bytes());
        row[8..16].copy_from_slice(&self.applied.to_le_bytes());
        row[16..24].copy_from_slice(&self.tally.entries.to_le_bytes());
        row[24..40].copy_from_slice(&self.tally.sum.to_le_bytes());
        let crc = checksum(replica, &[], &row[..40]);
        row[40..].copy_from_slice(&crc.to_le_bytes());
        row
    }

    pub(super) fn decode(replica: ReplicaKey, bytes: &[u8]) -> Result<Self, Damage> {
        let bytes = <[u8; ROW_BYTES]>::try_from(bytes).ok();
        let whole = bytes.filter(|row| checksum(replica, &[], &row[..40]).to_le_bytes() == row[40..]);
        let row = whole.ok_or_else(|| Damage::new(DamageKind::Row).at(replica, None))?;
        let number = |at: usize| {
            u64::from_le_bytes(row[at..at + 8].try_into().expect("the row was checked for its length"))
        };
        let sum = u128::from(number(24)) | u128::from(number(32)) << 64;
        let tally = Tally { entries: number(16), sum };
        Ok(Row { generation: Generation(number(0)), applied: number(8), tally })
    }
}

/// A copy that outlives the transaction.
pub(super) fn copied(key: &[u8], value: &[u8]) -> (Bytes, Bytes) {
    (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_bound_to_its_replica_and_key() {
        let mut record = Vec::new();
        seal(ReplicaKey(1), b"key", b"value", &mut record);
        assert_eq!(unseal(ReplicaKey(1), b"key", &record), Ok(&b"value"[..]));
        for (replica, key) in [(2, &b"key"[..]), (1, b"kez"), (1, b"ke"), (1, b"keyv")] {
            assert!(unseal(ReplicaKey(replica), key, &record).is_err(), "{replica} {key:?}");
        }
        for bit in 0..8 * record.len() {
            record[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(ReplicaKey(1), b"key", &record).is_err(), "bit {bit}");
            record[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(unseal(ReplicaKey(1), b"key", b"abc").is_err());
    }

    #[test]
    fn a_row_is_read_as_written_or_not_at_all() {
        let row = Row { generation: Generation(3), applied: 9, tally: Tally { entries: 2, sum: 1 << 100 } };
        let mut bytes = row.encode(ReplicaKey(7));
        assert_eq!(Row::decode(ReplicaKey(7), &bytes), Ok(row));
        assert!(Row::decode(ReplicaKey(8), &bytes).is_err());
        assert!(Row::decode(ReplicaKey(7), &bytes[1..]).is_err());
        for bit in 0..8 * bytes.len() {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Row::decode(ReplicaKey(7), &bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
