//! From a key to its partition.
//!
//! The rule is public and frozen: a client that knows the key hash and the partition count of a
//! cluster finds the partition of a key by itself, in any language. `proto/vectors/key_hash.json`
//! holds cases that every implementation is checked with.

mod crc16;

use core::fmt;
use core::ops::Range;
use core::str::FromStr;

use md5::Md5;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64;

use self::crc16::crc16;
use crate::id::PartitionId;

/// Slots of the keyspace, as many as a Redis Cluster has.
pub const SLOT_COUNT: u32 = 16_384;

/// How a cluster maps a key to a partition, chosen when it is formed and never changed.
///
/// Every choice hashes the [`tag`] of the key, so that keys with one tag share one partition. Only
/// the default lets clients of the Redis protocol go straight to the leader: the others know
/// nothing of slots, so such a client is served by forwarding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyHash {
    /// The slot of the key (CRC16 modulo 16,384) scaled to the partitions: each owns one range of
    /// slots.
    #[default]
    #[serde(rename = "crc16-slots")]
    Crc16Slots,
    /// FNV-1a with 32 bits, modulo the partitions.
    #[serde(rename = "fnv1a32")]
    Fnv1a32,
    /// The first four bytes of MD5, big-endian, modulo the partitions.
    #[serde(rename = "md5-be32")]
    Md5Be32,
    /// The first four bytes of SHA-256, big-endian, modulo the partitions.
    #[serde(rename = "sha256-be32")]
    Sha256Be32,
    /// XXH3 with 64 bits and seed 0, modulo the partitions.
    #[serde(rename = "xxh3-64")]
    Xxh3_64,
}

impl KeyHash {
    /// Every choice, the default first.
    pub const ALL: [Self; 5] =
        [Self::Crc16Slots, Self::Fnv1a32, Self::Md5Be32, Self::Sha256Be32, Self::Xxh3_64];

    /// The name in configuration and in what clients are told.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crc16Slots => "crc16-slots",
            Self::Fnv1a32 => "fnv1a32",
            Self::Md5Be32 => "md5-be32",
            Self::Sha256Be32 => "sha256-be32",
            Self::Xxh3_64 => "xxh3-64",
        }
    }

    /// The partition that `key` belongs to, out of `partition_count`.
    ///
    /// # Panics
    ///
    /// When `partition_count` is zero; a formed cluster has at least one partition.
    #[must_use]
    pub fn partition_of(self, key: &[u8], partition_count: u32) -> PartitionId {
        assert!(partition_count > 0, "a keyspace has at least one partition");
        let tag = tag(key);
        match self {
            Self::Crc16Slots => partition_of_slot(slot_of_tag(tag), partition_count),
            Self::Fnv1a32 => modulo(u64::from(fnv1a32(tag)), partition_count),
            Self::Md5Be32 => modulo(be32(&Md5::digest(tag)), partition_count),
            Self::Sha256Be32 => modulo(be32(&Sha256::digest(tag)), partition_count),
            Self::Xxh3_64 => modulo(xxh3_64(tag), partition_count),
        }
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for KeyHash {
    type Err = InvalidKeyHash;

    fn from_str(name: &str) -> Result<Self, InvalidKeyHash> {
        Self::ALL.into_iter().find(|hash| hash.as_str() == name).ok_or(InvalidKeyHash)
    }
}

/// The text names no key hash. Nothing changed; write one of the names in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key hash is one of crc16-slots, fnv1a32, md5-be32, sha256-be32 and xxh3-64")]
pub struct InvalidKeyHash;

/// The part of `key` that is hashed: what stands between its first `{` and the first `}` after it,
/// or all of it when nothing stands there.
///
/// This is the rule of Redis Cluster: `{user1}.name` and `{user1}.mail` share a partition.
#[must_use]
pub fn tag(key: &[u8]) -> &[u8] {
    between_braces(key).filter(|tag| !tag.is_empty()).unwrap_or(key)
}

fn between_braces(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|&byte| byte == b'{')?;
    let inner = &key[open + 1..];
    let close = inner.iter().position(|&byte| byte == b'}')?;
    Some(&inner[..close])
}

/// The slot of `key` in `0..SLOT_COUNT`, the one a Redis Cluster gives it.
#[must_use]
pub fn slot_of(key: &[u8]) -> u32 {
    slot_of_tag(tag(key))
}

/// The slots whose keys belong to `partition` under [`KeyHash::Crc16Slots`].
///
/// The ranges of all partitions of a cluster follow each other and fill `0..SLOT_COUNT`. A
/// partition outside `0..partition_count` owns none.
///
/// # Panics
///
/// When `partition_count` is zero; a formed cluster has at least one partition.
#[must_use]
pub fn slots_of(partition: PartitionId, partition_count: u32) -> Range<u32> {
    assert!(partition_count > 0, "a keyspace has at least one partition");
    let first_slot = |partition: u64| {
        let slot = (partition * u64::from(SLOT_COUNT)).div_ceil(u64::from(partition_count));
        u32::try_from(slot).unwrap_or(SLOT_COUNT).min(SLOT_COUNT)
    };
    let partition = u64::from(partition.0);
    first_slot(partition)..first_slot(partition + 1)
}

fn slot_of_tag(tag: &[u8]) -> u32 {
    u32::from(crc16(tag)) % SLOT_COUNT
}

fn partition_of_slot(slot: u32, partition_count: u32) -> PartitionId {
    let scaled = u64::from(slot) * u64::from(partition_count) / u64::from(SLOT_COUNT);
    PartitionId(u32::try_from(scaled).expect("a slot is below SLOT_COUNT, so this is below the count"))
}

fn modulo(hash: u64, partition_count: u32) -> PartitionId {
    let rest = hash % u64::from(partition_count);
    PartitionId(u32::try_from(rest).expect("a remainder is below its divisor"))
}

fn fnv1a32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811C_9DC5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn be32(digest: &[u8]) -> u64 {
    digest[..4].iter().fold(0, |value, &byte| (value << 8) | u64::from(byte))
}

#[cfg(test)]
mod tests;
