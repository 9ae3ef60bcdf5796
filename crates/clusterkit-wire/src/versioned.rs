//! Small records: one version byte, then the fields as [postcard](https://postcard.jamesmunns.com)
//! writes them.
//!
//! For messages and metadata that are rare or small; what is hot has a layout of its own. The rules
//! that keep a record readable by the next version:
//!
//! * Fields and variants keep their order; a new variant goes last.
//! * A new field makes a new version: the old type stays, and is converted.
//! * A type holds no sequence of elements that take no bytes, such as `Vec<()>`: its length would be
//!   a loop that no input bounds. It does not contain itself, since depth would be unbounded too.

use std::ops::RangeInclusive;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes `value` behind its `version`.
///
/// # Panics
///
/// When a sequence or map in `value` does not know its length, or its `Serialize` fails: both are
/// faults of the type, found by its first test.
pub fn encode<T: Serialize + ?Sized>(version: u8, value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![version]).expect("a record on the wire knows its lengths")
}

/// The version of the record in `bytes`, for a reader that knows several.
pub fn version(bytes: &[u8]) -> Result<u8, DecodeError> {
    bytes.first().copied().ok_or(DecodeError::Empty)
}

/// Reads a record whose version is one of `supported` and which fills `bytes` to the end.
///
/// What it allocates is bounded by the length of `bytes`: a length that promises more than follows
/// is an error before anything is reserved for it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], supported: RangeInclusive<u8>) -> Result<T, DecodeError> {
    let version = version(bytes)?;
    if !supported.contains(&version) {
        return Err(DecodeError::Version { version, supported });
    }
    let (value, rest) = postcard::take_from_bytes(&bytes[1..])?;
    match rest.len() {
        0 => Ok(value),
        count => Err(DecodeError::Trailing { count }),
    }
}

/// The bytes are no record that this version of ClusterKit reads. Nothing changed; the same bytes
/// will fail again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// There is not even a version byte.
    #[error("the record is empty")]
    Empty,
    /// The fields end early or hold what they cannot hold: the bytes are damaged, or never were a
    /// record of this type.
    #[error("the record is malformed")]
    Malformed(#[from] postcard::Error),
    /// All fields were read and bytes are left over.
    #[error("{count} bytes follow the record")]
    Trailing {
        /// How many bytes are left.
        count: usize,
    },
    /// Another version of ClusterKit wrote it. That version, or a newer one, can read it.
    #[error("the record has version {version}, and versions {} to {} are read", supported.start(), supported.end())]
    Version {
        /// The version it has.
        version: u8,
        /// The versions that the reader knows.
        supported: RangeInclusive<u8>,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Sample {
        number: u64,
        name: String,
        list: Vec<Option<u32>>,
        table: BTreeMap<u8, String>,
    }

    fn sample() -> Sample {
        Sample { number: 300, name: "ab".into(), list: vec![None, Some(7)], table: BTreeMap::new() }
    }

    #[test]
    fn record_is_the_version_and_then_the_fields() {
        let expect = [9, 0xac, 0x02, 2, b'a', b'b', 2, 0, 1, 7, 0];
        assert_eq!(encode(9, &sample()), expect);
        assert_eq!(version(&expect), Ok(9));
        assert_eq!(decode(&expect, 1..=9), Ok(sample()));
    }

    #[test]
    fn record_of_another_version_is_refused_by_name() {
        let bytes = encode(3, &sample());
        let expect = DecodeError::Version { version: 3, supported: 1..=2 };
        assert_eq!(expect.to_string(), "the record has version 3, and versions 1 to 2 are read");
        assert_eq!(decode::<Sample>(&bytes, 1..=2), Err(expect));
    }

    #[test]
    fn record_that_does_not_fill_its_bytes_is_refused() {
        let mut bytes = encode(1, &7_u8);
        bytes.extend([1, 2]);
        assert_eq!(decode::<u8>(&bytes, 1..=1), Err(DecodeError::Trailing { count: 2 }));
        assert_eq!(decode::<u8>(&[], 1..=1), Err(DecodeError::Empty));
        assert!(matches!(decode::<u8>(&[1], 1..=1), Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn length_beyond_the_bytes_is_refused_before_it_is_reserved() {
        let mut bytes = vec![1];
        bytes.extend([0xff; 9]);
        bytes.push(1);
        assert!(matches!(decode::<Vec<u64>>(&bytes, 1..=1), Err(DecodeError::Malformed(_))));
        assert!(matches!(decode::<String>(&bytes, 1..=1), Err(DecodeError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn record_is_read_back_as_written(
            number: u64,
            name: String,
            list: Vec<Option<u32>>,
            table: BTreeMap<u8, String>,
        ) {
            let value = Sample { number, name, list, table };
            prop_assert_eq!(decode(&encode(1, &value), 1..=1), Ok(value));
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode::<Sample>(&bytes, 0..=255);
        }
    }
}
