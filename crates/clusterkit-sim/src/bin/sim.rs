//! Runs the simulator of the replication from the command line.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clusterkit_core::replica::Mistake;
use clusterkit_sim::replicas::{Coverage, Options, Report, hunt, run, story};

const USAGE: &str = "\
Runs the production replicas of a whole cluster in virtual time, one run a seed.

Usage: sim --seeds <N | A..B> [--minutes <M>] [--threads <T>] [--mutant <NAME>] [--coverage] [--trace] [--twice]
       sim --mutants [--seeds <N | A..B>] [--minutes <M>] [--threads <T>] [--mutant <NAME>]

  --seeds     The seeds to run: the first N, or those from A up to B
  --minutes   Simulated minutes of each, 10 if it is not given, 1 for mutants
  --threads   Runs at a time, 2 if it is not given
  --mutant    Make this mistake; with --mutants, only this one
  --mutants   Make every mistake in turn, and look for the first seed that finds it
  --coverage  Show which fault met which step, and how often
  --trace     Tell the whole story of each run
  --twice     Run every seed twice and compare
";

/// Seeds for each mistake, if the command line does not say.
const MUTANT_SEEDS: u64 = 10_000;
/// The most of a breach that is shown in one line.
const LINE_MAX: usize = 150;
/// Breaches that are shown in full.
const SHOWN_MAX: usize = 3;

#[derive(Clone)]
struct Arguments {
    seeds: Option<Range<u64>>,
    minutes: Option<f64>,
    threads: usize,
    mutant: Option<Mistake>,
    mutants: bool,
    coverage: bool,
    trace: bool,
    twice: bool,
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--help") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let Some(arguments) = arguments(std::env::args().skip(1)) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    // A broken assertion is a finding, told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let is_well = if arguments.mutants { mutants(&arguments) } else { seeds(&arguments) };
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn arguments(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut arguments = Arguments {
        seeds: None,
        minutes: None,
        threads: 2,
        mutant: None,
        mutants: false,
        coverage: false,
        trace: false,
        twice: false,
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seeds" => arguments.seeds = Some(range(&words.next()?)?),
            "--minutes" => arguments.minutes = Some(words.next()?.parse().ok()?),
            "--threads" => arguments.threads = words.next()?.parse().ok().filter(|threads| *threads > 0)?,
            "--mutant" => arguments.mutant = Some(mistake(&words.next()?)?),
            "--mutants" => arguments.mutants = true,
            "--coverage" => arguments.coverage = true,
            "--trace" => arguments.trace = true,
            "--twice" => arguments.twice = true,
            _ => return None,
        }
    }
    (arguments.mutants || arguments.seeds.is_some()).then_some(arguments)
}

fn range(text: &str) -> Option<Range<u64>> {
    let number = |text: &str| text.replace('_', "").parse::<u64>().ok();
    match text.split_once("..") {
        Some((first, end)) => Some(number(first)?..number(end)?),
        None => Some(0..number(text)?),
    }
}

fn mistake(name: &str) -> Option<Mistake> {
    Mistake::ALL.iter().copied().find(|mistake| mistake.name() == name)
}

impl Arguments {
    fn options(&self, minutes: f64) -> Options {
        let time = Duration::from_secs_f64(self.minutes.unwrap_or(minutes) * 60.0);
        Options { time, mistake: self.mutant, ..Options::default() }
    }
}

/// What many runs came to.
#[derive(Default)]
struct Sum {
    runs: u64,
    steps: u64,
    time: Duration,
    heals: u64,
    heal_max: Duration,
    committed: u64,
    hash: u64,
    coverage: Coverage,
    breaches: BTreeMap<u64, Report>,
    differing: Vec<u64>,
}

impl Sum {
    fn add(&mut self, report: Report, is_same: bool) {
        self.runs += 1;
        self.steps += report.steps;
        self.time += report.time;
        self.heals += report.heals.0;
        self.heal_max = self.heal_max.max(report.heals.1);
        self.committed += report.committed;
        self.hash ^= report.hash;
        self.coverage.add(&report.coverage);
        if !is_same {
            self.differing.push(report.seed);
        }
        if report.breach.is_some() {
            self.breaches.insert(report.seed, report);
        }
    }

    fn say(&self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        println!(
            "{} runs, {} steps, {:.0} steps/s, {:.1} simulated hours ({:.0} x real time), {} records committed",
            self.runs,
            self.steps,
            self.steps as f64 / seconds,
            self.time.as_secs_f64() / 3_600.0,
            self.time.as_secs_f64() / seconds,
            self.committed,
        );
        println!(
            "healed {} times, the longest took {:.1} s; traces {:016x}; {} violations",
            self.heals,
            self.heal_max.as_secs_f64(),
            self.hash,
            self.breaches.len(),
        );
    }
}

fn seeds(arguments: &Arguments) -> bool {
    let options = arguments.options(10.0);
    let seeds = arguments.seeds.clone().unwrap_or(0..1);
    if arguments.trace {
        seeds.clone().for_each(|seed| story(seed, &options, |line| println!("{line}")));
    }
    let (start, next, sum) = (Instant::now(), AtomicU64::new(seeds.start), Mutex::new(Sum::default()));
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| work(&next, seeds.end, &options, (arguments.twice, &sum)));
        }
    });
    let sum = sum.into_inner().expect("no run panics outside of its own catch");
    if arguments.coverage {
        println!("{}", sum.coverage);
        println!("never met: {}", sum.coverage.gaps().join(", "));
    }
    show_breaches(&sum, &options);
    sum.differing.iter().for_each(|seed| println!("seed {seed} does not repeat itself"));
    sum.say(start.elapsed());
    sum.breaches.is_empty() && sum.differing.is_empty()
}

fn work(next: &AtomicU64, end: u64, options: &Options, (twice, sum): (bool, &Mutex<Sum>)) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        let report = run(seed, options);
        let is_same = !twice || run(seed, options).hash == report.hash;
        sum.lock().expect("no run panics outside of its own catch").add(report, is_same);
    }
}

fn show_breaches(sum: &Sum, options: &Options) {
    for (seed, report) in sum.breaches.iter().take(SHOWN_MAX) {
        let told = run(*seed, &Options { traces: true, ..options.clone() });
        if let Some(breach) = told.breach {
            breach.story.iter().for_each(|line| println!("{line}"));
            println!("seed {seed} breaks {} at {:?}: {}\n", breach.invariant, report.time, breach.text);
        }
    }
    for (seed, breach) in
        sum.breaches.iter().filter_map(|(seed, report)| Some((seed, report.breach.as_ref()?)))
    {
        let line: String = breach.text.lines().next().unwrap_or_default().chars().take(LINE_MAX).collect();
        println!("seed {seed}: {} {line}", breach.invariant);
    }
}

fn mutants(arguments: &Arguments) -> bool {
    let all: Vec<Mistake> = arguments.mutant.map_or_else(|| Mistake::ALL.to_vec(), |mistake| vec![mistake]);
    let (next, is_well) = (AtomicU64::new(0), AtomicBool::new(true));
    println!(
        "{:26} {:>8} {:>7} {:>12} {:>10}  what was left out",
        "mistake", "seed", "seeds", "steps", "broken"
    );
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| {
                while let Some(mistake) = all.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    if !mutant(*mistake, arguments) {
                        is_well.store(false, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    is_well.into_inner()
}

fn mutant(mistake: Mistake, arguments: &Arguments) -> bool {
    let seeds = arguments.seeds.clone().unwrap_or(0..MUTANT_SEEDS);
    let time = Duration::from_secs_f64(arguments.minutes.unwrap_or(1.0) * 60.0);
    match hunt(mistake, seeds.start, seeds.end - seeds.start, time) {
        Some(found) => {
            let (name, broken, says) = (mistake.name(), &found.breach.invariant, mistake.says());
            println!(
                "{name:26} {:>8} {:>7} {:>12} {broken:>10}  {says}",
                found.seed, found.seeds, found.steps
            );
            true
        }
        None => {
            println!("{:26} {:>8} NOT FOUND  {}", mistake.name(), "-", mistake.says());
            false
        }
    }
}
