//! What a call does after an attempt.

use std::time::Duration;

use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX, REDIRECTS_MAX, RENEWALS_MAX, REPLACED_MAX, RETRY_AFTER_MAX};

/// How an attempt ended that brought no final answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Another node leads; nothing was done. Whether the answer named it.
    Misdirected { is_leader_named: bool },
    /// Nothing was done, by the node's own word or because nothing was sent.
    NotDone { retry_after: Option<Duration> },
    /// Another node leads since it was sent. It may have been done, or be done later.
    Replaced,
    /// The session of the request is over. This copy did nothing; of earlier ones nothing is known.
    SessionOver,
    /// It may have been done, or be done later.
    Unknown,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Whether it took effect cannot be found out.
    GiveUp,
    /// Ask again after this time. Retries of this kind count against the budget.
    Later(Duration),
    /// Ask again at once.
    Now,
    /// Ask again in another session: at once the first time, later after this time.
    Renew(Option<Duration>),
}

/// The course of one call.
///
/// Invariants:
/// - once an attempt is unknown, the call never becomes known again but by a final answer;
/// - a request that must not be repeated is not, once an attempt is unknown.
#[derive(Debug, Clone)]
pub(crate) struct Pursuit {
    is_repeatable: bool,
    is_unknown: bool,
    redirects: u32,
    renewals: u32,
    waits: u32,
}

impl Pursuit {
    /// A call whose request may be sent again after an attempt of unknown outcome, or not.
    pub(crate) fn new(is_repeatable: bool) -> Self {
        Self { is_repeatable, is_unknown: false, redirects: 0, renewals: 0, waits: 0 }
    }

    /// Whether the request may be sent again whatever became of it.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.is_repeatable
    }

    /// Whether some attempt may have done something.
    pub(crate) fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    /// An attempt ended. `chance` is drawn evenly from all numbers.
    pub(crate) fn next(&mut self, ending: Ending, chance: u64) -> Step {
        match ending {
            Ending::Misdirected { is_leader_named } => self.redirect(is_leader_named, chance),
            Ending::NotDone { retry_after } => self.wait(retry_after, chance),
            Ending::SessionOver => self.renew(chance),
            Ending::Replaced => self.follow(chance),
            Ending::Unknown => self.doubt(chance),
        }
    }

    /// Whether a node that does not lead shall say so. Once that has happened too often it shall pass the request on,
    /// or hold it until somebody leads.
    pub(crate) fn wants_redirects(&self) -> bool {
        self.redirects <= REDIRECTS_MAX
    }

    fn redirect(&mut self, is_leader_named: bool, chance: u64) -> Step {
        self.redirects += 1;
        let is_early = is_leader_named && self.redirects <= REDIRECTS_MAX;
        if is_early { Step::Now } else { self.wait(None, chance) }
    }

    fn renew(&mut self, chance: u64) -> Step {
        if self.is_unknown {
            return Step::GiveUp;
        }
        self.renewals += 1;
        let is_early = self.renewals <= RENEWALS_MAX;
        Step::Renew(if is_early { None } else { Some(self.backoff(chance)) })
    }

    fn doubt(&mut self, chance: u64) -> Step {
        self.is_unknown = true;
        if self.is_repeatable { self.wait(None, chance) } else { Step::GiveUp }
    }

    /// Whoever leads now has not been asked yet, so that asking it is no load that a failure makes.
    fn follow(&mut self, chance: u64) -> Step {
        self.redirects += 1;
        if self.is_repeatable && self.redirects <= REPLACED_MAX {
            self.is_unknown = true;
            return Step::Now;
        }
        self.doubt(chance)
    }

    /// At least what the node asks for.
    fn wait(&mut self, retry_after: Option<Duration>, chance: u64) -> Step {
        let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        Step::Later(asked + self.backoff(chance))
    }

    /// Full jitter: anything up to a bound that doubles.
    fn backoff(&mut self, chance: u64) -> Duration {
        let bound = BACKOFF_FIRST.saturating_mul(1 << self.waits.min(16)).min(BACKOFF_MAX);
        self.waits += 1;
        share(bound, chance)
    }
}

/// An even part of `bound`.
pub(crate) fn share(bound: Duration, chance: u64) -> Duration {
    let part = (bound.as_nanos() * u128::from(chance)) >> 64;
    Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNKNOWN: Ending = Ending::Unknown;
    const NOT_DONE: Ending = Ending::NotDone { retry_after: None };
    const NAMED: Ending = Ending::Misdirected { is_leader_named: true };
    const UNNAMED: Ending = Ending::Misdirected { is_leader_named: false };

    fn millis(wait: Duration) -> String {
        wait.as_nanos().div_ceil(1_000_000).to_string()
    }

    /// What follows each ending, with the longest of each wait in milliseconds.
    fn check(is_repeatable: bool, endings: &[Ending], expect: &str) {
        let mut pursuit = Pursuit::new(is_repeatable);
        let shown = endings.iter().map(|ending| match pursuit.next(*ending, u64::MAX) {
            Step::GiveUp => "end".to_owned(),
            Step::Later(wait) => millis(wait),
            Step::Now => "now".to_owned(),
            Step::Renew(wait) => format!("renew{}", wait.map(millis).unwrap_or_default()),
        });
        assert_eq!(shown.collect::<Vec<_>>().join(" "), expect);
    }

    #[test]
    fn waits_double_up_to_a_second() {
        check(true, &[NOT_DONE; 8], "25 50 100 200 400 800 1000 1000");
    }

    #[test]
    fn waits_are_spread_over_all_of_their_bound() {
        let wait = |chance| Pursuit::new(true).next(NOT_DONE, chance);
        assert_eq!(wait(0), Step::Later(Duration::ZERO));
        assert_eq!(wait(1 << 63), Step::Later(BACKOFF_FIRST / 2));
    }

    #[test]
    fn what_a_node_asks_for_is_waited_for_at_least() {
        let asks = |seconds| Ending::NotDone { retry_after: Some(Duration::from_secs(seconds)) };
        check(true, &[asks(2), asks(3_600)], "2025 30050");
    }

    #[test]
    fn a_leader_that_is_named_is_asked_at_once_but_only_the_first() {
        check(true, &[NAMED, NAMED, NAMED], "now 25 50");
        check(true, &[UNNAMED, NAMED], "25 50");
        let mut pursuit = Pursuit::new(true);
        let wants = [NAMED, NAMED].map(|ending| {
            pursuit.next(ending, 0);
            pursuit.wants_redirects()
        });
        assert_eq!(wants, [true, false]);
    }

    #[test]
    fn only_what_may_be_repeated_is_after_an_unknown_attempt() {
        check(true, &[UNKNOWN, UNKNOWN], "25 50");
        check(false, &[NOT_DONE, UNKNOWN], "25 end");
    }

    #[test]
    fn who_leads_instead_is_asked_at_once() {
        check(true, &[Ending::Replaced, Ending::Replaced, UNKNOWN, Ending::Replaced], "now now 25 now");
        check(true, &[Ending::Replaced; 6], "now now now now 25 50");
        check(false, &[Ending::Replaced], "end");
        let mut pursuit = Pursuit::new(true);
        pursuit.next(Ending::Replaced, 0);
        assert!(pursuit.is_unknown());
    }

    #[test]
    fn a_session_is_renewed_unless_an_attempt_in_it_is_unknown() {
        check(true, &[Ending::SessionOver, NOT_DONE, Ending::SessionOver], "renew 25 renew50");
        check(true, &[UNKNOWN, NOT_DONE, Ending::SessionOver], "25 50 end");
    }
}
