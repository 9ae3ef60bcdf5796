//! What tells whether two replicas hold the same.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

/// What a replica holds, in short. Equal where the same entries of a log were applied, whatever the store and
/// the order in which they came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The index of the last entry of the log that was applied.
    pub applied_index: u64,
    /// How many entries the replica has.
    pub entries: u64,
    /// The sum of the hashes of all entries, modulo 2^128.
    pub sum: u128,
}

impl Digest {
    /// The digest of a replica without entries.
    pub fn empty(applied_index: u64) -> Self {
        Tally::default().at(applied_index)
    }
}

/// A digest that grows and shrinks with each entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) entries: u64,
    pub(super) sum: u128,
}

impl Tally {
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.entries = self.entries.wrapping_add(1);
        self.sum = self.sum.wrapping_add(hash(key, value));
    }

    pub(super) fn subtract(&mut self, key: &[u8], value: &[u8]) {
        self.entries = self.entries.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(hash(key, value));
    }

    pub(super) fn at(self, applied_index: u64) -> Digest {
        Digest { applied_index, entries: self.entries, sum: self.sum }
    }
}

fn hash(key: &[u8], value: &[u8]) -> u128 {
    xxh3_128_with_seed(value, xxh3_64(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(entries: &[(&str, &str)]) -> Tally {
        let mut tally = Tally::default();
        entries.iter().for_each(|(key, value)| tally.add(key.as_bytes(), value.as_bytes()));
        tally
    }

    #[test]
    fn the_order_of_entries_does_not_matter() {
        assert_eq!(tally(&[("a", "1"), ("b", "2")]), tally(&[("b", "2"), ("a", "1")]));
    }

    #[test]
    fn values_that_changed_keys_are_seen() {
        assert_ne!(tally(&[("a", "1"), ("b", "2")]), tally(&[("a", "2"), ("b", "1")]));
    }

    #[test]
    fn what_is_subtracted_leaves_no_trace() {
        let mut changed = tally(&[("a", "1"), ("b", "2")]);
        changed.subtract(b"b", b"2");
        assert_eq!(changed, tally(&[("a", "1")]));
        changed.subtract(b"a", b"1");
        assert_eq!(changed.at(7), Digest::empty(7));
    }

    #[test]
    fn the_hash_never_changes() {
        // Replicas of different versions of the program compare these.
        let digest = tally(&[("key", "value"), ("", "")]).at(1);
        assert_eq!(digest.sum, 130_951_681_431_892_944_554_030_250_688_066_975_065);
    }
}
