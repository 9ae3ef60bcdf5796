//! Clusters that chance breaks for a while, each by its seed.

use std::ops::Range;
use std::time::Duration;

use clusterkit_core::control::{ControllerConfig, Limits};
use clusterkit_core::handoff::Config;
use clusterkit_core::member;

use crate::chance::Chance;
use crate::faults::Mischief;
use crate::world::{Settings, World};

/// The seeds of every test run.
const SEEDS: Range<u64> = 0..60;
/// How long chance breaks things in each of them.
const LENGTH: Duration = Duration::from_secs(30);
/// How long after the last fault everything is as it should be, at most.
const HEALED_WITHIN: Duration = Duration::from_secs(75);
/// How long it must stay so.
const STEADY_FOR: Duration = Duration::from_secs(2);

pub(crate) fn short_times() -> Config {
    Config {
        prepare_deadline: Duration::from_secs(3),
        catch_up_deadline: Duration::from_secs(3),
        seal_deadline: Duration::from_secs(1),
        activate_deadline: Duration::from_secs(2),
        release_deadline: Duration::from_secs(3),
        cancel_grace: Duration::from_millis(500),
        retry_min: Duration::from_millis(200),
        retry_max: Duration::from_secs(4),
        copies_max: 8,
    }
}

pub(crate) fn chaos(seed: u64, chaos: Duration) -> Settings {
    let mut chance = Chance::new(seed ^ 0x5eed);
    let nodes = chance.between(3, 5) as usize;
    let detector = member::Config { gone_after: Duration::from_secs(10), ..member::Config::default() };
    let controller = ControllerConfig {
        detector,
        rebalance_delay: chance.millis(500, 5_000),
        limits: Limits { moves_max: chance.between(1, 8) as u32, transfers_max: chance.between(1, 8) as u32 },
        ..ControllerConfig::default()
    };
    Settings {
        nodes,
        spares: 6 - nodes,
        partitions: chance.between(2, 6) as u32,
        replication_factor: chance.between(1, 3) as u32,
        stages: Config { copies_max: chance.between(1, 6) as usize, ..short_times() },
        controller,
        chaos,
        mischief: Mischief::by(&mut chance),
        observer: chance.percent(20),
        reports_position: chance.percent(50),
        mistake: None,
        manner: None,
    }
}

/// Runs a seed to its end; the violation it ended with is left in the world.
pub(crate) fn run(settings: Settings, seed: u64) -> World {
    let mut world = World::new(seed, settings);
    let calm_by = world.now + world.settings.chaos + Duration::from_secs(30);
    world.run_until(calm_by, |world| world.quiet);
    let limit = world.now + HEALED_WITHIN;
    let mut look_at = world.now;
    let mut steady_since = None;
    let healed = world.run_until(limit, |world| {
        if world.now < look_at {
            return false;
        }
        look_at = world.now + Duration::from_millis(250);
        match world.unsettled() {
            None => {
                world.now.since(*steady_since.get_or_insert(world.now)) >= STEADY_FOR
                    && world.served_since(STEADY_FOR)
            }
            Some(_) => {
                steady_since = None;
                false
            }
        }
    });
    if !healed {
        let unsettled = world.unsettled();
        world.violate("faults stop, and everything heals", || format!("{unsettled:?}"));
    }
    world
}

/// What happened in all runs together.
#[derive(Debug, Default)]
struct Totals {
    steps: u64,
    simulated: Duration,
    healed_after_max: Duration,
    acknowledged: u64,
    lost_to_unclean_elections: u64,
    moves: u64,
    handovers: u64,
    elections: u64,
    elections_by_position: u64,
    elections_unclean: u64,
    overruns: u64,
}

impl Totals {
    fn add(&mut self, world: &World) {
        let ghost = &world.ghost;
        let healed_after = world.now.elapsed().saturating_sub(LENGTH);
        self.steps += world.steps;
        self.simulated += world.now.elapsed();
        self.healed_after_max = self.healed_after_max.max(healed_after);
        self.acknowledged += ghost.acknowledged_count;
        self.lost_to_unclean_elections += ghost.lost_count;
        self.moves += ghost.moves;
        self.handovers += ghost.handovers;
        self.elections += ghost.elections;
        self.elections_by_position += ghost.elections_by_position;
        self.elections_unclean += ghost.uncleans;
        self.overruns += ghost.overruns;
    }

    fn rarest(&self) -> u64 {
        let of_chance = [self.elections_by_position, self.elections_unclean, self.overruns];
        let of_course = [self.acknowledged, self.moves, self.handovers, self.elections];
        of_chance.into_iter().chain(of_course).min().unwrap_or_default()
    }
}

fn run_all(seeds: Range<u64>) -> Totals {
    let mut totals = Totals::default();
    for seed in seeds {
        let mut world = run(chaos(seed, LENGTH), seed);
        world.expect_no_violation();
        totals.add(&world);
    }
    println!("{totals:?}");
    totals
}

/// What `HANDOFF_SEEDS` names: one seed, or `first..end`.
fn seeds_asked_for() -> Option<Range<u64>> {
    let number = |text: &str| text.trim().parse::<u64>().expect("a seed is a number");
    let seeds = std::env::var("HANDOFF_SEEDS").ok()?;
    Some(match seeds.split_once("..") {
        Some((first, end)) => number(first)..number(end),
        None => number(&seeds)..number(&seeds) + 1,
    })
}

#[test]
fn ownership_survives_whatever_chance_breaks() {
    if let Some(seeds) = seeds_asked_for() {
        run_all(seeds);
        return;
    }
    let totals = run_all(SEEDS);
    assert!(totals.rarest() > 0, "chance left something out: {totals:?}");
}
