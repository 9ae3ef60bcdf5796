//! Runs the model of the replication protocol from the command line.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clusterkit_sim::model::{Bounds, Purpose, Rule, Walk, exhaust, hunt};

const USAGE: &str = "\
Walks through the model of the replication protocol.

Usage: model --steps <N> [--seed <S>] [--without <RULE>]...
       model --mutations [--steps <N>] [--seed <S>] [--without <RULE>]... [--traces]
       model --exhaustive [--minutes <N>] [--without <RULE>]... [--<BOUND> <N>]...

  --steps      Steps to take in all; with --mutations, at most so many without each rule
  --seed       The seed of the walk, 1 if it is not given
  --without    A rule to take out; with --mutations, only these are taken out, one after the other
  --mutations  Take every rule out in turn, and find what breaks
  --traces     Show the trace of every find
  --exhaustive Try every order of a few events; without bounds some searches that end within minutes, each of
               which may take so many minutes (10)
  --<BOUND>    How often each may happen: --nodes (2 or 3), --writes, --crashes, --fences, --elections,
               --proposals, --reads, --duplicates, --streams; --depth bounds the steps of a path
";

/// How often a walk says how far it is.
const PROGRESS_STEPS: u64 = 20_000_000;

/// The most steps without one rule, if the command line does not say.
const MUTATION_STEPS: u64 = 400_000_000;

/// The most steps without a rule from which nothing is expected.
const CONVENIENCE_STEPS: u64 = 20_000_000;

/// How long a search may take, if the command line does not say.
const MINUTES: u64 = 10;

/// Threads of a search.
const THREADS: usize = 2;

struct Options {
    is_exhaustive: bool,
    is_mutations: bool,
    bounds: Option<Bounds>,
    minutes: u64,
    shows_traces: bool,
    steps: Option<u64>,
    seed: u64,
    without: Vec<Rule>,
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--help") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let Some(options) = options(std::env::args().skip(1)) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    if options.is_exhaustive {
        return if exhaustive(&options) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let is_well = match (options.is_mutations, options.steps) {
        (true, _) => mutations(&options),
        (false, Some(steps)) => walk(&options, steps),
        (false, None) => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options {
        is_exhaustive: false,
        is_mutations: false,
        bounds: None,
        minutes: MINUTES,
        shows_traces: false,
        steps: None,
        seed: 1,
        without: Vec::new(),
    };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--exhaustive" => options.is_exhaustive = true,
            "--minutes" => options.minutes = number(&arguments.next()?)?,
            "--mutations" => options.is_mutations = true,
            "--traces" => options.shows_traces = true,
            "--steps" => options.steps = Some(number(&arguments.next()?)?),
            "--seed" => options.seed = number(&arguments.next()?)?,
            "--without" => options.without.push(rule(&arguments.next()?)?),
            bound => {
                let bounds = options.bounds.get_or_insert_default();
                set_bound(bounds, bound, number(&arguments.next()?)?)?;
            }
        }
    }
    Some(options)
}

fn set_bound(bounds: &mut Bounds, name: &str, value: u64) -> Option<()> {
    let small = u8::try_from(value).ok()?;
    match name {
        "--nodes" if (2..=3).contains(&small) => bounds.nodes = usize::from(small),
        "--writes" => bounds.writes = small,
        "--crashes" => bounds.crashes = small,
        "--fences" => bounds.fences = small,
        "--elections" => bounds.elections = small,
        "--proposals" => bounds.proposals = small,
        "--reads" => bounds.reads = small,
        "--duplicates" => bounds.duplicates = small,
        "--streams" => bounds.streams = small,
        "--depth" => bounds.depth = usize::from(small),
        _ => return None,
    }
    Some(())
}

fn exhaustive(options: &Options) -> bool {
    match options.bounds {
        Some(bounds) => search("as asked", bounds, options),
        None => Bounds::SETS
            .iter()
            .fold(true, |is_well, (about, bounds)| search(about, *bounds, options) && is_well),
    }
}

/// Whether nothing breaks, and everything was seen that a bound does not leave out.
fn search(about: &str, bounds: Bounds, options: &Options) -> bool {
    let start = Instant::now();
    let time = Duration::from_secs(60 * options.minutes);
    let exhaustion = exhaust(bounds, &options.without, THREADS, time);
    println!("{about}: {exhaustion}, {:.0} s", start.elapsed().as_secs_f64());
    if let Some(broken) = &exhaustion.broken {
        println!("an invariant breaks:\n{broken}");
    }
    exhaustion.is_complete || exhaustion.broken.is_none() && (bounds.depth > 0 || options.bounds.is_some())
}

fn number(text: &str) -> Option<u64> {
    text.replace('_', "").parse().ok()
}

fn rule(name: &str) -> Option<Rule> {
    Rule::ALL.iter().copied().find(|rule| rule.name() == name)
}

fn walk(options: &Options, steps: u64) -> bool {
    let start = Instant::now();
    let mut walk = Walk::new(options.seed, &options.without);
    while walk.steps() < steps {
        let until = (walk.steps() + PROGRESS_STEPS).min(steps);
        if let Some(trace) = walk.until(until) {
            println!("{trace}");
            return false;
        }
        progress(&walk, start);
    }
    let mut is_covered = true;
    for (name, count) in walk.coverage() {
        println!("{count:>14}  {name}{}", if count == 0 { "  NEVER TAKEN" } else { "" });
        is_covered &= count > 0;
    }
    is_covered
}

fn progress(walk: &Walk, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{} steps in {} runs, {} of them healed, no violation; {:.0} steps/s",
        walk.steps(),
        walk.runs(),
        walk.healings(),
        walk.steps() as f64 / seconds
    );
}

fn mutations(options: &Options) -> bool {
    let rules = if options.without.is_empty() { Rule::ALL } else { &options.without };
    let mut is_well = true;
    println!("{:28} {:>12} {:>8} {:>12} {:>6}", "taken out", "expected", "broken", "steps", "trace");
    for rule in rules {
        is_well &= mutation(*rule, options);
    }
    is_well
}

fn mutation(rule: Rule, options: &Options) -> bool {
    let is_safety = rule.purpose() != Purpose::Convenience;
    let bound = if is_safety { MUTATION_STEPS } else { CONVENIENCE_STEPS };
    let expected = match rule.purpose() {
        Purpose::Safety(invariant) => format!("{invariant:?}"),
        Purpose::Liveness => "I15".to_owned(),
        Purpose::Convenience => "nothing".to_owned(),
    };
    let bound = options.steps.unwrap_or(bound);
    let found = hunt(rule, options.seed, bound);
    let is_well = found.is_some() == is_safety;
    let mark = if is_well { "" } else { "  UNEXPECTED" };
    match &found {
        Some(finding) => println!(
            "{:28} {expected:>12} {:>8} {:>12} {:>6}{mark}",
            rule.name(),
            format!("{:?}", finding.trace.invariant()),
            finding.steps,
            finding.trace.len()
        ),
        None => println!("{:28} {expected:>12} {:>8} {bound:>12} {:>6}{mark}", rule.name(), "-", "-"),
    }
    if let Some(finding) = found.filter(|_| options.shows_traces) {
        println!("{}", finding.trace);
    }
    is_well
}
