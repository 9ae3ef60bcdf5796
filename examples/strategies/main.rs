//! Three ways to keep copies in step in a program's own storage, side by side: run with load, a node
//! killed and a node added meanwhile, and then counted.
//!
//! ```console
//! $ cargo run --release --example strategies -- sync
//! $ cargo run --release --example strategies -- async --ops 5000
//! $ cargo run --release --example strategies -- server-side --nodes 10 --json
//! ```
//!
//! | mode | who writes the copies | acknowledged when | a killed node loses |
//! | --- | --- | --- | --- |
//! | `sync` | the client, all of them | a majority has it | nothing |
//! | `async` | the leader, afterwards | the leader has it | what it had not passed on |
//! | `server-side` | the leader; any node takes the request | every in-sync copy has it | nothing |
//!
//! Each run starts 6 to 10 nodes as processes, with 64 partitions in three copies. A third of the
//! writes in, it kills one (`kill -9`: its store is memory, so its copies are gone). After two thirds it
//! tells the cluster that the dead node does not come back, and adds a new one. The last third is
//! written slowly, so that copies move under it. Then everything is read, and at last each acknowledged
//! write is looked for on a majority of the copies.
//!
//! With `--json` standard output is one object:
//!
//! | field | what it is |
//! | --- | --- |
//! | `mode`, `nodes`, `ops` | as asked for |
//! | `success`, `failed` | writes that were acknowledged, and that were not within 30 s |
//! | `lost` | acknowledged writes that a majority of the copies does not have, or only in an older version |
//! | `duration_s` | from the first write to the last read |
//! | `writes_per_s` | of the first two thirds, the kill included |
//! | `reads_per_s` | of all reads |
//!
//! The exit code is 1 where a mode lost what it promised to keep.

mod client;
mod load;
mod node;
mod quorum;
mod report;
mod run;

use std::process::ExitCode;

use clap::Parser;
use common::demo;
use common::serve::NodeArgs;

use self::node::Mode;
use self::run::Plan;

/// Three ways to keep copies in step, under load, with a node killed and a node added.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The client writes all copies; a majority is enough.
    Sync(Plan),
    /// The leader acknowledges, and copies afterwards.
    Async(Plan),
    /// Any node takes it; the leader writes every in-sync copy first.
    ServerSide(Plan),
    /// One node; a run starts it.
    #[command(hide = true)]
    Node {
        /// What it does with requests.
        #[arg(long)]
        mode: Mode,
        #[command(flatten)]
        args: NodeArgs,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Sync(plan) => run(Mode::Sync, plan).await,
        Command::Async(plan) => run(Mode::Async, plan).await,
        Command::ServerSide(plan) => run(Mode::ServerSide, plan).await,
        Command::Node { mode, args } => demo::exit(node::run(mode, args).await),
    }
}

async fn run(mode: Mode, plan: Plan) -> ExitCode {
    match run::run(mode, &plan).await {
        Ok(report) => {
            println!("{}", if plan.json { report.json() } else { report.table() });
            if report.keeps_its_promise() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => demo::exit(Err(error)),
    }
}
