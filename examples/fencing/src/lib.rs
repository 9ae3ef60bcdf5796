//! An owner is stopped in the middle of its writes, another takes over, and the first comes back: what it
//! still has in its hands is accepted nowhere.
//!
//! | module | holds |
//! | --- | --- |
//! | `stores` | the three fences: a PostgreSQL row, a Redis key, a file |
//! | `node` | one node: it writes while it leads, and takes over what others wrote |
//! | `story` | what happens to three of them, and what is checked at the end |
//! | the rest | processes, servers, and the lines that they exchange |

mod cluster;
mod limits;
mod node;
mod outcome;
mod pipe;
mod processes;
mod servers;
mod stores;
mod story;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use self::outcome::Outcome;
use self::processes::Processes;
use self::story::StoryError;

/// Stops the owner of a partition for a while, lets it go on, and counts which of its stale writes are
/// accepted: by its own lease, a PostgreSQL row, a Redis key and a file. None must be.
#[derive(Debug, Parser)]
#[command(name = "fencing", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct Options {
    /// How long the owner is stopped, as in 30s or 500ms; longer where the takeover takes longer.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    stop_for: Duration,
    /// Stale writes that are tried at each place.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=limits::WRITES_MAX))]
    writes: u32,
    /// Print one JSON object, and no story.
    #[arg(long)]
    json: bool,
}

impl Options {
    /// Tells people how the story goes.
    fn say(&self, what: &str) {
        if !self.json {
            println!("{what}");
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One node; the example starts three.
    #[command(hide = true)]
    Node(node::Options),
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match cli.command {
        Some(Command::Node(options)) => node::run(options).map(|()| true).map_err(|error| error.to_string()),
        None => run(&cli.options).map_err(|error| error.to_string()),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything held.
fn run(options: &Options) -> Result<bool, StoryError> {
    // Children are started from this thread, which lives as long as the process does: servers are told to
    // end when the thread that started them does.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(tell(options))?;
    outcome.print(options.json)?;
    Ok(outcome.ok)
}

/// Tells the story to its end or to Ctrl-C. Whichever comes: no process is left behind.
async fn tell(options: &Options) -> Result<Outcome, StoryError> {
    let home = tempfile::Builder::new().prefix("clusterkit-fencing-").tempdir()?;
    let mut processes = Processes::default();
    let told = tokio::select! {
        told = Box::pin(story::tell(home.path(), options, &mut processes)) => told,
        interrupted = interruption() => Err(interrupted.map_or_else(StoryError::Io, |()| StoryError::Interrupted)),
    };
    processes.end().await;
    told
}

async fn interruption() -> io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let whole = |digits: &str| digits.parse().map_err(|_| "write it as 30s or 500ms");
    match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => whole(digits).map(Duration::from_millis),
        (None, Some(digits)) => whole(digits).map(Duration::from_secs),
        (None, None) => Err("write it as 30s or 500ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        let check = |text: &str, expect: Option<u64>| {
            assert_eq!(parse_duration(text).ok(), expect.map(Duration::from_millis), "{text}");
        };
        check("30s", Some(30_000));
        check("500ms", Some(500));
        check("30", None);
        check("s", None);
        check("-1s", None);
    }
}
