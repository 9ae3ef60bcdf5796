//! Chance that follows from a seed, to keep nodes from doing everything at the same moment.

use core::time::Duration;

/// A small seeded generator, splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
/// number generators", 2014). Good enough to spread timers; no key or id is drawn from it.
#[derive(Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Between seven and nine eighths of `duration`.
    pub(super) fn around(&mut self, duration: Duration) -> Duration {
        duration / 8 * 7 + self.part(duration / 4)
    }

    /// Between one half and the whole of `duration`.
    pub(super) fn upper_half(&mut self, duration: Duration) -> Duration {
        duration / 2 + self.part(duration / 2)
    }

    fn part(&mut self, duration: Duration) -> Duration {
        const STEPS: u32 = 1 << 10;
        let step = u32::try_from(self.next() % u64::from(STEPS)).expect("below the number of steps");
        duration / STEPS * step
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_in_their_range_and_follow_from_the_seed() {
        let (mut one, mut two) = (Jitter::new(7), Jitter::new(7));
        for _ in 0..1_000 {
            let drawn = one.around(Duration::from_millis(800));
            assert!((700..=900).contains(&drawn.as_millis()), "{drawn:?}");
            assert_eq!(drawn, two.around(Duration::from_millis(800)));
            let drawn = one.upper_half(Duration::from_millis(800));
            assert!((400..=800).contains(&drawn.as_millis()), "{drawn:?}");
            assert_eq!(drawn, two.upper_half(Duration::from_millis(800)));
        }
    }

    #[test]
    fn generator_gives_the_published_sequence() {
        let mut jitter = Jitter::new(1_234_567);
        let expect = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([jitter.next(), jitter.next(), jitter.next()], expect);
    }
}
