//! How many retries there may be.

use std::time::Duration;

use crate::limits::{BUDGET_EARNED_MILLIS, BUDGET_FLOOR_PER_SECOND, BUDGET_RETRIES_MAX};

/// One retry, in thousandths.
const RETRY: i64 = 1_000;
const SAVED_MAX: i64 = BUDGET_RETRIES_MAX as i64 * RETRY;

/// A bucket of retries, filled by calls and, slowly, by time.
///
/// A retry that finds none is not refused but delayed, until time alone has brought it: so retries are never more
/// than the budget, and a call that can wait is not given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Retries in thousandths; below nothing while some are waited for.
    saved: i64,
    filled_at: Duration,
}

impl Budget {
    pub(crate) fn new(now: Duration) -> Self {
        Self { saved: SAVED_MAX, filled_at: now }
    }

    /// A call begins.
    pub(crate) fn earn(&mut self) {
        self.saved = SAVED_MAX.min(self.saved + BUDGET_EARNED_MILLIS as i64);
    }

    /// Takes a retry, and gives the time after which it may be made; nothing, taking nothing, if that is more than
    /// `patience`.
    pub(crate) fn take(&mut self, now: Duration, patience: Duration) -> Option<Duration> {
        self.fill(now);
        let missing = u64::try_from(RETRY - self.saved).unwrap_or_default();
        // A thousandth of a retry comes every 1/floor milliseconds.
        let wait = Duration::from_micros(missing * 1_000 / BUDGET_FLOOR_PER_SECOND);
        (wait <= patience).then(|| {
            self.saved -= RETRY;
            wait
        })
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.filled_at).as_millis() as u64;
        let filled = i64::try_from(passed * BUDGET_FLOOR_PER_SECOND).unwrap_or(SAVED_MAX);
        self.saved = SAVED_MAX.min(self.saved.saturating_add(filled));
        // What is less than a millisecond counts the next time.
        self.filled_at += Duration::from_millis(passed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn empty() -> Budget {
        let mut budget = Budget::new(Duration::ZERO);
        for _ in 0..BUDGET_RETRIES_MAX {
            assert_eq!(budget.take(Duration::ZERO, PATIENCE), Some(Duration::ZERO));
        }
        budget
    }

    #[test]
    fn what_is_saved_is_there_at_once_and_then_a_tenth_of_a_second_each() {
        let mut budget = empty();
        for retry in 1..=3 {
            let expect = Duration::from_millis(100 * retry);
            assert_eq!(budget.take(Duration::ZERO, PATIENCE), Some(expect));
        }
    }

    #[test]
    fn ten_calls_earn_a_retry() {
        let mut budget = empty();
        (0..10).for_each(|_| budget.earn());
        assert_eq!(budget.take(Duration::ZERO, Duration::ZERO), Some(Duration::ZERO));
        assert_eq!(budget.take(Duration::ZERO, Duration::ZERO), None);
    }

    #[test]
    fn time_earns_ten_retries_a_second_and_no_more_than_can_be_saved() {
        let mut budget = empty();
        let second = Duration::from_secs(1);
        (0..10).for_each(|_| assert_eq!(budget.take(second, Duration::ZERO), Some(Duration::ZERO)));
        assert_eq!(budget.take(second, Duration::ZERO), None);
        let mut idle = Budget::new(Duration::ZERO);
        idle.fill(Duration::from_secs(1_000_000));
        assert_eq!(idle.saved, SAVED_MAX);
    }

    #[test]
    fn a_retry_that_would_come_too_late_is_not_taken() {
        let mut budget = empty();
        assert_eq!(budget.take(Duration::ZERO, Duration::from_millis(99)), None);
        assert_eq!(budget.take(Duration::ZERO, PATIENCE), Some(Duration::from_millis(100)));
    }
}
