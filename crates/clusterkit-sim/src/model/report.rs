//! What the model offers to those who run it: walks, and hunts for what a missing rule breaks.

use super::message::Kind;
use super::rules::{Invariant, Purpose, Rule, Without};
use super::step::Action;
use super::trace::Trace;
use super::walk::{Focus, Walker};

/// A hunt goes on after its first find, for a shorter trace, up to this many finds.
const FINDS_MAX: u32 = 8;

/// The most steps that a hunt goes on for; it never takes more than twice as many as until its first find.
const STEPS_MORE_MAX: u64 = 3_000_000;

/// A walk over many runs.
#[derive(Debug)]
pub struct Walk {
    walker: Walker,
    seed: u64,
    run: u64,
}

impl Walk {
    /// A walk by `seed` with the rules of `without` taken out.
    #[must_use]
    pub fn new(seed: u64, without: &[Rule]) -> Self {
        // Where a rule of safety is missing, that a world does not heal either is no news.
        let is_safety = |rule: &Rule| matches!(rule.purpose(), Purpose::Safety(_));
        let heals = !without.iter().any(is_safety);
        let focus = match without.first().map(|rule| (rule, rule.purpose())) {
            None => Focus::Mixed,
            Some((Rule::NoProposalWhileWaiting | Rule::HandoffChecksVersion, _)) => Focus::Proposals,
            Some((_, Purpose::Safety(Invariant::I10 | Invariant::I11))) => Focus::Reads,
            Some((_, Purpose::Safety(Invariant::I12))) => Focus::Losses,
            Some(_) => Focus::Any,
        };
        Self { walker: Walker::new(Without::of(without), heals, focus), seed, run: 0 }
    }

    /// Walks until `steps` steps have been taken in all, or gives the shortened trace of a violation.
    pub fn until(&mut self, steps: u64) -> Option<Trace> {
        while self.steps() < steps {
            let run = self.run;
            self.run += 1;
            if self.walker.run(self.seed, run, None).broken.is_some() {
                return Trace::of_run(&mut self.walker, self.seed, run);
            }
        }
        None
    }

    /// How many steps were taken.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.walker.counts.steps
    }

    /// How many runs were begun.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.walker.counts.runs
    }

    /// How many runs ended without faults and had to heal.
    #[must_use]
    pub fn healings(&self) -> u64 {
        self.walker.counts.healed
    }

    /// How often each action was taken, and each kind of message delivered, that a sound model can have.
    #[must_use]
    pub fn coverage(&self) -> Vec<(String, u64)> {
        let counts = &self.walker.counts;
        let actions = Action::ALL.iter().zip(counts.actions);
        let actions = actions.filter(|(action, _)| !action.is_wrong());
        let kinds = Kind::ALL.iter().zip(counts.kinds).filter(|(kind, _)| **kind != Kind::Refuse);
        let kinds = kinds.map(|(kind, count)| (format!("Deliver {kind:?}"), count));
        actions.map(|(action, count)| (format!("{action:?}"), count)).chain(kinds).collect()
    }
}

/// What a hunt found.
#[derive(Debug)]
pub struct Finding {
    /// The shortest of the traces found.
    pub trace: Trace,
    /// Steps until the first.
    pub steps: u64,
}

/// Walks without `rule`, and without those that cover for it, for at most `steps` steps, or until something breaks.
#[must_use]
pub fn hunt(rule: Rule, seed: u64, steps: u64) -> Option<Finding> {
    let rules: Vec<Rule> = [&[rule], rule.covered_by()].concat();
    let mut walk = Walk::new(seed, &rules);
    let mut finding = Finding { trace: walk.until(steps)?, steps: walk.steps() };
    let bound = finding.steps + (finding.steps + 10_000).min(STEPS_MORE_MAX);
    for _ in 1..FINDS_MAX {
        let Some(trace) = walk.until(bound) else { break };
        if trace.len() < finding.trace.len() {
            finding.trace = trace;
        }
    }
    Some(finding)
}
