//! A run: nodes, load, a kill, a newcomer, and the count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::process::{ProcessError, Processes, Program};

use crate::client::Client;
use crate::load::{Load, count_lost, read_all};
use crate::node::Mode;
use crate::report::Report;

/// How long a whole run may take.
const RUN_TIMEOUT: Duration = Duration::from_secs(600);
/// How long the cluster may take to have all copies again.
const HEAL_TIMEOUT: Duration = Duration::from_secs(240);

/// What a run does.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Plan {
    /// Nodes at the start, 6 to 10.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(6..=10))]
    pub(crate) nodes: u8,
    /// Writes, and as many reads.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) ops: u32,
    /// Nodes to kill, 0 or 1: with three copies one may be missing at a time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub(crate) kill: u8,
    /// Nodes to add, 0 to 4.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=4))]
    pub(crate) add: u8,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs it, and ends every process that it started.
pub(crate) async fn run(mode: Mode, plan: &Plan) -> Result<Report, RunError> {
    tokio::select! {
        outcome = tokio::time::timeout(RUN_TIMEOUT, attempt(mode, plan)) => {
            outcome.map_err(|_| RunError::TooLong { seconds: RUN_TIMEOUT.as_secs() })?
        }
        _ = tokio::signal::ctrl_c() => Err(RunError::Interrupted),
    }
}

async fn attempt(mode: Mode, plan: &Plan) -> Result<Report, RunError> {
    eprintln!("{mode}: starting {} nodes", plan.nodes);
    let program = Program::this(["node", "--mode", mode.as_str()]).map_err(ProcessError::Io)?;
    let mut cluster = Processes::start(program, plan.nodes.into()).await?;
    let outcome = measure(mode, plan, &mut cluster).await;
    cluster.stop().await?;
    outcome
}

async fn measure(mode: Mode, plan: &Plan, cluster: &mut Processes) -> Result<Report, RunError> {
    let ops = plan.ops as usize;
    let client = Arc::new(Client::new(mode, cluster.addrs()).await);
    let changes = plan.kill + plan.add > 0;
    let fast = if changes { ops * 2 / 3 } else { ops };
    let load = Load::new(Arc::clone(&client), ops, fast);
    eprintln!("{mode}: writing");
    let start = Instant::now();
    let writing = load.start();
    let killed = kill(plan, &load, cluster, ops / 3).await?;
    load.reached(fast).await;
    let fast_part = start.elapsed();
    if changes {
        change(plan, killed, cluster).await?;
    }
    load.hurry();
    let acknowledged = writing.await.map_err(RunError::Panicked)?;
    eprintln!("{mode}: {} of {ops} writes acknowledged; reading", acknowledged.len());
    let reads_start = Instant::now();
    let unanswered = read_all(&client, ops).await;
    let (reads, duration) = (reads_start.elapsed(), start.elapsed());
    if unanswered > 0 {
        eprintln!("{mode}: {unanswered} reads were not answered");
    }
    eprintln!("{mode}: counting");
    cluster.wait_until_whole(HEAL_TIMEOUT).await?;
    client.refresh().await;
    let lost = count_lost(&client, &acknowledged).await;
    Ok(Report {
        mode,
        nodes: plan.nodes,
        ops,
        success: acknowledged.len(),
        failed: ops - acknowledged.len(),
        lost,
        duration_s: duration.as_secs_f64(),
        writes_per_s: rate(fast, fast_part),
        reads_per_s: rate(ops, reads),
    })
}

/// Kills a node once `after` writes have ended.
async fn kill(
    plan: &Plan,
    load: &Load,
    cluster: &mut Processes,
    after: usize,
) -> Result<Option<String>, RunError> {
    if plan.kill == 0 {
        return Ok(None);
    }
    load.reached(after).await;
    let killed = cluster.kill(1).await?;
    eprintln!("killed {killed}");
    Ok(Some(killed))
}

/// Replaces what was killed, adds what shall be added, and waits until all copies are there again.
async fn change(plan: &Plan, killed: Option<String>, cluster: &mut Processes) -> Result<(), RunError> {
    if let Some(killed) = killed {
        let is_dead = |node: &common::view::NodeView| node.id == killed && node.status == "dead";
        cluster.wait_for(HEAL_TIMEOUT, |view| view.nodes.iter().any(is_dead)).await?;
        cluster.remove(&killed).await?;
        eprintln!("{killed} does not come back; its copies are made anew");
    }
    for _ in 0..plan.add {
        eprintln!("added {}", cluster.add()?.id);
    }
    cluster.wait_until_whole(HEAL_TIMEOUT).await?;
    eprintln!("all copies are there again");
    Ok(())
}

fn rate(count: usize, time: Duration) -> f64 {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    f64::from(count) / time.as_secs_f64().max(f64::EPSILON)
}

/// A run was not brought to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RunError {
    /// Somebody wants it to end.
    #[error("interrupted")]
    Interrupted,
    /// A task panicked: a bug.
    #[error("the load has a bug")]
    Panicked(#[source] tokio::task::JoinError),
    /// The nodes are not as they should be.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It took too long.
    #[error("not done after {seconds} s")]
    TooLong {
        /// How long it might have taken.
        seconds: u64,
    },
}
