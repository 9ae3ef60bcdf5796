//! `clusterkit demo`: a cluster of child processes under load, a fault, and a check of every write that was
//! acknowledged.

mod ledger;
mod load;
mod report;
mod scenario;

use std::time::{Duration, Instant};

use clusterkit_client::{Client, Options};

use self::load::Load;
use self::report::Trial;
pub(crate) use self::scenario::Scenario;
use crate::cli;
use crate::failure::Failure;
use crate::fleet::Fleet;
use crate::terminal;

/// Partitions of the cluster: so few that each gets many writes.
const PARTITIONS: u32 = 16;
/// How long the load runs before the fault.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long a request may take: longer than any fault here lasts.
const REQUEST_DEADLINE: Duration = Duration::from_secs(20);

/// Runs the trials, and says what came of them.
pub(crate) fn run(options: &cli::Demo) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::Runtime)?;
    let outcome = runtime.block_on(trials(options));
    runtime.shutdown_background();
    outcome
}

async fn trials(options: &cli::Demo) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut trials = Vec::new();
    for number in 1..=options.trials {
        let trial = trial(options).await?;
        if !options.json {
            terminal::say(&format!("trial {number} of {}: {trial}", options.trials))?;
        }
        trials.push(trial);
    }
    let report = report::Report::new(options, trials, begun.elapsed());
    terminal::say(&if options.json { report.json() } else { report.to_string() })?;
    if report.is_clean() { Ok(()) } else { Err(Failure::WritesLost) }
}

async fn trial(options: &cli::Demo) -> Result<Trial, Failure> {
    let mut fleet = Fleet::start(options.nodes, PARTITIONS).await?;
    let settings = Options::default().deadline(REQUEST_DEADLINE);
    let client = Client::connect(fleet.urls(), settings).await.map_err(Failure::Load)?;
    let hot = options.scenario.is_hot();
    let load = Load::start(&client, options.rate, PARTITIONS, hot);
    tokio::time::sleep(WARM_UP).await;
    let fault = scenario::run(options.scenario, &mut fleet, Duration::from_secs(options.seconds)).await?;
    fleet.until_whole().await?;
    let ledger = load.stop().await;
    let verdict = ledger.check(&client).await?;
    Ok(Trial::new(verdict, &ledger, &fault))
}
