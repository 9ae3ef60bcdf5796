//! Sets of small numbers.

const WORD_BITS: u32 = u64::BITS;

/// A set of small numbers.
///
/// Its last word is never empty, so that equal sets are equal values with equal hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn insert(&mut self, number: u32) {
        let (word, bit) = place(number);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= bit;
    }

    pub(super) fn remove(&mut self, number: u32) {
        let (word, bit) = place(number);
        if let Some(word) = self.0.get_mut(word) {
            *word &= !bit;
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        let (word, bit) = place(number);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    pub(super) fn is_subset(&self, other: &Self) -> bool {
        self.0.len() <= other.0.len() && self.0.iter().zip(&other.0).all(|(own, other)| own & !other == 0)
    }
}

fn place(number: u32) -> (usize, u64) {
    ((number / WORD_BITS) as usize, 1 << (number % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(numbers: &[u32]) -> Bits {
        let mut bits = Bits::default();
        numbers.iter().for_each(|number| bits.insert(*number));
        bits
    }

    #[test]
    fn equal_sets_are_equal_whatever_was_in_them() {
        let mut bits = set(&[3, 64, 200]);
        bits.remove(200);
        bits.remove(500);
        assert_eq!(bits, set(&[64, 3]));
        assert!(bits.contains(64) && !bits.contains(200) && !bits.contains(4));
    }

    #[test]
    fn a_subset_has_nothing_of_its_own() {
        let check = |one: &[u32], other: &[u32], expect: bool| {
            assert_eq!(set(one).is_subset(&set(other)), expect, "{one:?} {other:?}");
        };
        check(&[], &[], true);
        check(&[], &[70], true);
        check(&[1, 70], &[1, 2, 70], true);
        check(&[1, 70], &[1], false);
        check(&[1, 2], &[1, 70], false);
    }
}
