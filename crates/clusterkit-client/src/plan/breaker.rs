//! Whether a node is asked at all.

use std::time::Duration;

use crate::limits::{BREAKER_FAILURES_MAX, BREAKER_OPEN_FIRST, BREAKER_OPEN_MAX};

/// Leaves a node alone that cannot be reached, and lets one request at a time find out whether it can be again.
///
/// Times are counted from any moment that stays the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Breaker {
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Closed {
        failures: u32,
    },
    /// Nothing is sent before `until`. Then one request is, and until it ends, or as long again, no other.
    Open {
        until: Duration,
        wait: Duration,
    },
}

impl Breaker {
    pub(crate) fn new() -> Self {
        Self { state: State::Closed { failures: 0 } }
    }

    /// Whether a request may be sent at `now`, without sending it.
    pub(crate) fn admits(&self, now: Duration) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until, .. } => now >= until,
        }
    }

    /// A request is sent at `now`: if the node was to be left alone, it is the probe.
    pub(crate) fn sent(&mut self, now: Duration) {
        if let State::Open { until, wait } = &mut self.state
            && now >= *until
        {
            // A probe that never ends is followed by another.
            *until = now + *wait;
        }
    }

    /// The node answered something.
    pub(crate) fn answered(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// It could not be reached.
    pub(crate) fn failed(&mut self, now: Duration) {
        self.state = match self.state {
            State::Closed { failures } if failures + 1 < BREAKER_FAILURES_MAX => {
                State::Closed { failures: failures + 1 }
            }
            State::Closed { .. } => State::Open { until: now + BREAKER_OPEN_FIRST, wait: BREAKER_OPEN_FIRST },
            State::Open { wait, .. } => {
                let wait = (wait * 2).min(BREAKER_OPEN_MAX);
                State::Open { until: now + wait, wait }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a story of `f` failed, `a` answered, `s` sent and `+` 100 ms later, and says after each whether a request
    /// may be sent.
    fn check(story: &str, expect: &str) {
        let (mut breaker, mut now, mut said) = (Breaker::new(), Duration::ZERO, String::new());
        for fact in story.chars() {
            match fact {
                'a' => breaker.answered(),
                'f' => breaker.failed(now),
                's' => breaker.sent(now),
                _ => now += Duration::from_millis(100),
            }
            said.push(if breaker.admits(now) { 'y' } else { '-' });
        }
        assert_eq!(said, expect, "{story}");
    }

    #[test]
    fn three_failures_in_a_row_open_it() {
        check("fff", "yy-");
        check("ffaff", "yyyyy");
    }

    #[test]
    fn one_probe_goes_out_when_the_time_is_up() {
        check("fff+++s", "yy---y-");
        check("fff+++sa", "yy---y-y");
    }

    #[test]
    fn a_probe_that_fails_doubles_the_time() {
        check("fff+++sf+++++", "yy---y------y");
    }

    #[test]
    fn a_probe_that_never_ends_is_followed_by_another() {
        check("fff+++s+++", "yy---y---y");
    }
}
