//! The key hash against its published vectors, its naive twins and the rules of slots.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

const VECTORS: &str = include_str!("../../../../proto/vectors/key_hash.json");

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    key_utf8: Option<String>,
    key_hex: Option<String>,
    tag_hex: String,
    slot: u32,
    partitions: BTreeMap<String, BTreeMap<KeyHash, u32>>,
}

impl Case {
    fn key(&self) -> Vec<u8> {
        match (&self.key_utf8, &self.key_hex) {
            (Some(text), None) => text.as_bytes().to_vec(),
            (None, Some(hex)) => bytes_of(hex),
            _ => panic!("a case has exactly one of key_utf8 and key_hex"),
        }
    }
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

#[test]
fn published_vectors_hold() {
    let vectors: Vectors = serde_json::from_str(VECTORS).unwrap();
    assert!(vectors.cases.len() >= 40);
    for case in &vectors.cases {
        check_case(case);
    }
}

fn check_case(case: &Case) {
    let key = case.key();
    assert_eq!(tag(&key), bytes_of(&case.tag_hex), "{key:?}");
    assert_eq!(slot_of(&key), case.slot, "{key:?}");
    assert!(case.partitions.len() >= 3);
    for (count, by_hash) in &case.partitions {
        let count = count.parse().unwrap();
        let ours = KeyHash::ALL.map(|hash| (hash, hash.partition_of(&key, count).0));
        assert_eq!(*by_hash, BTreeMap::from(ours), "{key:?} of {count}");
    }
}

#[test]
fn tag_is_what_the_first_braces_hold() {
    let check = |key: &str, expect: &str| assert_eq!(tag(key.as_bytes()), expect.as_bytes(), "{key}");
    check("", "");
    check("plain", "plain");
    check("{a}b", "a");
    check("a{b}c{d}", "b");
    check("{}x", "{}x");
    check("{}{a}", "{}{a}");
    check("x{", "x{");
    check("x}{", "x}{");
    check("}a{b}", "b");
    check("{{a}}", "{a");
    check("foo{}{bar}", "foo{}{bar}");
}

#[test]
fn slot_is_the_one_of_redis_cluster() {
    let check = |key: &str, expect| assert_eq!(slot_of(key.as_bytes()), expect, "{key}");
    check("foo", 12_182);
    check("a", 15_495);
    check("b", 3_300);
    check("{foo}.a", 12_182);
}

#[test]
fn slots_of_all_partitions_follow_each_other() {
    for count in [1, 2, 3, 7, 64, 100, 1_000, 4_096, 16_383, 16_384, 20_000, u32::MAX] {
        assert_eq!(slots_of(PartitionId(0), count).start, 0);
        assert_eq!(slots_of(PartitionId(count - 1), count).end, SLOT_COUNT);
        assert!(slots_of(PartitionId(count), count).is_empty());
        for partition in 0..count.min(20_000) - 1 {
            let (this, next) =
                (slots_of(PartitionId(partition), count), slots_of(PartitionId(partition + 1), count));
            assert_eq!(this.end, next.start);
        }
    }
}

#[test]
fn every_partition_owns_slots_up_to_one_a_slot() {
    for count in 1..=SLOT_COUNT {
        let smallest = (0..count).step_by(97).map(|p| slots_of(PartitionId(p), count).len()).min();
        assert!(smallest >= Some((SLOT_COUNT / count) as usize), "{count}");
    }
}

#[test]
fn names_are_read_back_and_are_those_of_serde() {
    for hash in KeyHash::ALL {
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(serde_json::to_value(hash).unwrap(), hash.as_str());
        assert!(InvalidKeyHash.to_string().contains(hash.as_str()));
    }
    assert_eq!("crc16".parse::<KeyHash>(), Err(InvalidKeyHash));
    assert_eq!(KeyHash::default(), KeyHash::Crc16Slots);
}

/// The rule of tags, written a second way.
fn naive_tag(key: &[u8]) -> Vec<u8> {
    let mut parts = key.splitn(2, |&byte| byte == b'{');
    parts.next();
    let Some(rest) = parts.next() else { return key.to_vec() };
    match rest.splitn(2, |&byte| byte == b'}').collect::<Vec<_>>()[..] {
        [inner, _] if !inner.is_empty() => inner.to_vec(),
        _ => key.to_vec(),
    }
}

proptest! {
    #[test]
    fn tag_equals_its_naive_twin(key in proptest::collection::vec(prop_oneof![Just(b'{'), Just(b'}'), Just(b'a')], 0..9)) {
        prop_assert_eq!(tag(&key), naive_tag(&key));
    }

    #[test]
    fn a_key_lies_in_the_slots_of_its_partition(key: Vec<u8>, count in 1..=SLOT_COUNT) {
        let partition = KeyHash::Crc16Slots.partition_of(&key, count);
        prop_assert!(slots_of(partition, count).contains(&slot_of(&key)));
    }

    #[test]
    fn a_slot_belongs_to_the_partition_that_scaling_gives(slot in 0..SLOT_COUNT, count in 1..=SLOT_COUNT) {
        let owners = (0..count).filter(|&p| slots_of(PartitionId(p), count).contains(&slot));
        prop_assert_eq!(owners.collect::<Vec<_>>(), [slot * count / SLOT_COUNT]);
    }

    #[test]
    fn every_hash_gives_a_partition_of_the_cluster(key: Vec<u8>, count in 1..=u32::MAX) {
        for hash in KeyHash::ALL {
            prop_assert!(hash.partition_of(&key, count).0 < count);
        }
    }

    #[test]
    fn a_tag_brings_keys_together(tag in "[a-z]{1,8}", rest in "[a-z{}]{0,8}", count in 1..=SLOT_COUNT) {
        let tagged = alloc::format!("{{{tag}}}{rest}");
        for hash in KeyHash::ALL {
            prop_assert_eq!(hash.partition_of(tagged.as_bytes(), count), hash.partition_of(tag.as_bytes(), count));
        }
    }
}
