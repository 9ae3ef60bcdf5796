//! Traces of violations, made as short as they can be by leaving steps out.

use std::fmt;

use super::heal::Healing;
use super::rules::Invariant;
use super::state::{Setting, Verdict, World};
use super::step::{Outcome, Step};
use super::transcript;
use super::walk::Walker;

/// A way from the start of a world to a broken invariant.
#[derive(Debug, Clone)]
pub struct Trace {
    invariant: Invariant,
    setting: Setting,
    steps: Vec<Step>,
    healing: Option<Healing>,
}

impl Trace {
    /// Makes run `run` of `seed` once more, and shortens what broke.
    pub(crate) fn of_run(walker: &mut Walker, seed: u64, run: u64) -> Option<Self> {
        let mut steps = Vec::new();
        let ending = walker.run(seed, run, Some(&mut steps));
        let setting = walker.world.setting;
        let healing = ending.healing;
        let trace = Self { invariant: ending.broken?, setting, steps, healing };
        Some(trace.shortened())
    }

    /// What broke.
    #[must_use]
    pub fn invariant(&self) -> Invariant {
        self.invariant
    }

    /// How many steps lead there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether the start is broken already.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Leaves out ever smaller pieces, as long as the same invariant breaks without them.
    fn shortened(mut self) -> Self {
        let mut piece = (self.steps.len() / 2).max(1);
        loop {
            let before = self.steps.len();
            self.without_pieces(piece);
            if self.steps.len() == before && piece == 1 {
                return self;
            }
            piece = (piece / 2).max(1);
        }
    }

    fn without_pieces(&mut self, piece: usize) {
        let mut end = self.steps.len();
        while end > 0 {
            let start = end.saturating_sub(piece);
            let mut rest = self.steps.clone();
            rest.drain(start..end);
            if let Some(steps) = self.replay(&rest) {
                self.steps = steps;
            }
            end = start.min(self.steps.len());
        }
    }

    /// Takes those of `steps` that can be taken; gives them back if the invariant breaks.
    fn replay(&self, steps: &[Step]) -> Option<Vec<Step>> {
        let mut world = World::new(self.setting);
        let mut taken = Vec::new();
        world.check();
        for step in steps {
            if world.verdict != Verdict::Fine {
                break;
            }
            let held = world.bag.find(&step.message).map(|at| world.bag.all()[at]);
            let message = held.filter(|_| step.action.carries_message()).unwrap_or(step.message);
            if world.take_step(step) != Outcome::Refused {
                taken.push(Step { message, ..*step });
            }
        }
        if let Some(healing) = self.healing.filter(|_| world.verdict == Verdict::Fine)
            && !healing.run(&mut world)
        {
            world.fail(Invariant::I15);
        }
        (world.verdict == Verdict::Broken(self.invariant)).then_some(taken)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?} breaks after {} steps", self.invariant, self.steps.len())?;
        transcript::write_setting(&self.setting, f)?;
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "{:4}. {step}", number + 1)?;
        }
        self.healing
            .filter(|_| self.invariant == Invariant::I15)
            .map_or(Ok(()), |healing| transcript::write_healing(healing, f))
    }
}
