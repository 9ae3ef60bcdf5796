//! What `kv-store`, `queue` and `cache` are around their routes: a node, or three of them and the story
//! that shows what they promise.

use std::error::Error;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use clap::Parser;
use tokio::time::timeout;

use crate::http::{Http, HttpError, PatientClient};
use crate::limits::STORY_TIMEOUT;
use crate::process::{ProcessError, Processes, Program};
use crate::serve::{self, Node, NodeArgs, Shape};

/// Runs three nodes on this machine, shows what the example promises, and checks it.
#[derive(Debug, Parser)]
struct Cli {
    /// Leave the nodes running afterwards, until Ctrl-C.
    #[arg(long)]
    stay: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// One node; the demonstration starts it.
    #[command(hide = true)]
    Node(NodeArgs),
}

/// Nodes of a demonstration.
const NODES: usize = 3;

/// The `main` of an example. As a node it serves `routes`; started by hand it starts three nodes and
/// has `story` use them. The exit code is 1 when a promise was broken.
pub async fn main(
    shape: Shape,
    routes: impl FnOnce(Node) -> Router,
    story: impl AsyncFnOnce(&mut Processes, &PatientClient) -> Result<(), DemoError>,
) -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Node(args)) => exit(serve::run(args, shape, routes).await),
        None => exit(Box::pin(tell(cli.stay, shape.copies, story)).await),
    }
}

async fn tell(
    stay: bool,
    copies: u32,
    story: impl AsyncFnOnce(&mut Processes, &PatientClient) -> Result<(), DemoError>,
) -> Result<(), DemoError> {
    let mut cluster = Processes::start(Program::this(["node"])?, NODES).await?;
    println!("{NODES} nodes run, with each partition on {copies} of them");
    let client = PatientClient::new(Http::new(), cluster.addrs());
    let told = timeout(STORY_TIMEOUT, story(&mut cluster, &client)).await;
    told.map_err(|_| DemoError::TooLong(STORY_TIMEOUT))??;
    if stay {
        cluster.nodes().iter().for_each(|node| println!("{} serves http://{}", node.id, node.public_addr));
        tokio::signal::ctrl_c().await?;
    }
    Ok(cluster.stop().await?)
}

/// Checks a promise at the end of a story: `count` is how often it was seen broken.
///
/// # Errors
///
/// [`DemoError::Broken`] unless it is 0.
pub fn promised(promise: &'static str, count: usize) -> Result<(), DemoError> {
    if count > 0 {
        return Err(DemoError::Broken { promise, count });
    }
    println!("kept: {promise}");
    Ok(())
}

/// Ends the process: an error is told with its causes.
#[must_use]
pub fn exit(outcome: Result<(), impl Error>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        write!(text, ": {cause}").expect("it is memory");
        source = cause.source();
    }
    eprintln!("error: {text}");
    ExitCode::FAILURE
}

/// A demonstration did not come to its good end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The example does not keep what it promises: a bug.
    #[error("broken {count} times: {promise}")]
    Broken {
        /// What was promised.
        promise: &'static str,
        /// How often it was seen broken.
        count: usize,
    },
    /// A request was not answered as it should be, however often it was sent.
    #[error("a request failed")]
    Http(#[from] HttpError),
    /// The nodes are not as they should be.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It took too long.
    #[error("not done after {0:?}")]
    TooLong(Duration),
}

impl From<std::io::Error> for DemoError {
    fn from(error: std::io::Error) -> Self {
        Self::Process(error.into())
    }
}
