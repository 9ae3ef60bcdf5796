//! One seed, one run; and many of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use clusterkit_core::id::PartitionId;
use clusterkit_core::replica::Mistake;

use super::coverage::Coverage;
use super::settings::Options;
use super::world::World;

/// Chaos between two times of healing.
const CHAOS_SECONDS: (u64, u64) = (8, 40);

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// Of the run.
    pub seed: u64,
    /// Events that were worked through.
    pub steps: u64,
    /// Simulated time.
    pub time: Duration,
    /// Of everything that happened: the same seed gives the same.
    pub hash: u64,
    /// How often the cluster healed, and the longest that took.
    pub heals: (u64, Duration),
    /// Records that were committed.
    pub committed: u64,
    /// Which fault met which step.
    pub coverage: Coverage,
    /// What was broken, if anything was.
    pub breach: Option<Breach>,
}

/// A rule was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Which one.
    pub invariant: String,
    /// Where.
    pub partition: Option<PartitionId>,
    /// How.
    pub text: String,
    /// The end of the story, as far as it was kept.
    pub story: Vec<String>,
}

/// Runs one seed. The same seed and options give the same run.
#[must_use]
pub fn run(seed: u64, options: &Options) -> Report {
    let mut world = World::new(seed, options);
    let mut heals = (0, Duration::ZERO);
    let outcome = catch_unwind(AssertUnwindSafe(|| live(&mut world, options.time, &mut heals)));
    if let Err(panic) = outcome {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.violate("assertion", None, || text.unwrap_or_default());
    }
    let breach = world.violation.as_ref().map(|violation| Breach {
        invariant: violation.invariant.to_owned(),
        partition: violation.partition,
        text: violation.text.clone(),
        story: world.trace.tail(violation.partition),
    });
    Report {
        seed,
        steps: world.steps,
        time: world.now.elapsed(),
        hash: world.trace.hash(),
        heals,
        committed: world.ghosts.iter().map(super::checkers::Ghost::end).sum(),
        coverage: world.coverage.clone(),
        breach,
    }
}

fn live(world: &mut World, time: Duration, heals: &mut (u64, Duration)) {
    let end = world.now + time;
    while world.now < end && world.violation.is_none() {
        let chaos = Duration::from_secs(world.chance.between(CHAOS_SECONDS.0, CHAOS_SECONDS.1));
        world.run_until((world.now + chaos).min(end));
        if world.violation.is_some() {
            return;
        }
        let took = world.heal();
        heals.0 += 1;
        heals.1 = heals.1.max(took);
        world.resume_faults();
    }
}

/// All lines of the story of a seed.
pub fn story(seed: u64, options: &Options, mut say: impl FnMut(&str)) {
    let options = Options { traces: true, ..options.clone() };
    let mut world = World::new(seed, &options);
    let mut heals = (0, Duration::ZERO);
    let _ = catch_unwind(AssertUnwindSafe(|| live(&mut world, options.time, &mut heals)));
    world.trace.lines().for_each(&mut say);
}

/// A mistake that was found.
#[derive(Debug)]
pub struct Finding {
    /// The seed that found it.
    pub seed: u64,
    /// Seeds that were run.
    pub seeds: u64,
    /// Steps of all of them.
    pub steps: u64,
    /// What was broken.
    pub breach: Breach,
}

/// Looks for a seed that finds `mistake`, from `first` on, at most so many.
#[must_use]
pub fn hunt(mistake: Mistake, first: u64, seeds_max: u64, time: Duration) -> Option<Finding> {
    let options = Options { time, mistake: Some(mistake), ..Options::default() };
    let mut steps = 0;
    for seed in first..first + seeds_max {
        let report = run(seed, &options);
        steps += report.steps;
        if let Some(breach) = report.breach {
            return Some(Finding { seed, seeds: seed - first + 1, steps, breach });
        }
    }
    None
}
