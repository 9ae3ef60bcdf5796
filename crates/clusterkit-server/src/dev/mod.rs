//! `clusterkit dev`: a cluster of child processes on this machine, with real sockets and real disks.

mod banner;
pub(crate) mod child;
pub(crate) mod layout;

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use tokio::process::Child;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::banner::Formed;
use self::child::{NodeProcess, Shape};
use self::layout::{FirstPort, Home, NodePlan, plan};
use crate::cli::Dev;
use crate::client::{Client, ClientError};
use crate::failure::Failure;
use crate::terminal::{self, counted};
use crate::view::Topology;

/// The most nodes of a development cluster.
pub(crate) const NODES_MAX: u32 = 9;
/// Nodes where nobody says how many.
const NODES_DEFAULT: u32 = 3;
/// How often a cluster is begun because somebody else took one of its ports.
const STARTS_MAX: u32 = 3;
/// How long the nodes may take to form the cluster.
const FORM_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at the forming cluster.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// How long the nodes may take to stop in order.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the cluster until Ctrl-C.
pub(crate) fn run(options: &Dev) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::Runtime)?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::listen().map_err(Failure::Runtime)?;
        match start(options, &mut signals).await? {
            Some(cluster) => supervise(cluster, &mut signals).await,
            None => Ok(()),
        }
    });
    runtime.shutdown_background();
    outcome
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Starts the nodes and waits until they have formed the cluster; `None` after a signal.
async fn start(options: &Dev, signals: &mut Signals) -> Result<Option<Cluster>, Failure> {
    let open = || Home::open(options.data.as_deref());
    let mut home = open()?;
    // Counted before any node has made its directory, which a start that fails may leave behind.
    let count = home.node_count(options.nodes)?;
    let mut starts = 1;
    loop {
        let first = if starts == 1 { FirstPort::Known } else { FirstPort::Any };
        let plans = plan(home.path(), count, first)?;
        match attempt(home, &plans, options.partitions, signals).await {
            Err(Failure::Dev(error)) if error.is_port_conflict() && starts < STARTS_MAX => starts += 1,
            outcome => return outcome,
        }
        home = open()?;
    }
}

async fn attempt(
    home: Home,
    plans: &[NodePlan],
    partitions: Option<u32>,
    signals: &mut Signals,
) -> Result<Option<Cluster>, Failure> {
    let begun = Instant::now();
    let mut cluster = Cluster::spawn(home, plans, partitions)?;
    let formed = tokio::select! {
        formed = wait_until_formed(plans, begun) => formed.map(Some),
        (node, status) = cluster.next_death() => Err(cluster.stillborn(node, &status).into()),
        () = signals.next() => Ok(None),
    };
    match formed {
        Ok(Some(seen)) => {
            terminal::say(&cluster.formed(&seen).to_string())?;
            Ok(Some(cluster))
        }
        nothing => {
            cluster.kill().await;
            nothing.map(|_| None)
        }
    }
}

/// The running children.
struct Cluster {
    nodes: Vec<NodeProcess>,
    /// Each waits for the end of one child.
    ends: JoinSet<(usize, io::Result<ExitStatus>)>,
    kill: CancellationToken,
    // Dropped last: the directory goes when nobody writes there any more.
    home: Home,
}

impl Cluster {
    fn spawn(home: Home, plans: &[NodePlan], partitions: Option<u32>) -> Result<Self, DevError> {
        let seeds = plans.iter().map(|plan| plan.node_addr.clone()).collect();
        let count = u32::try_from(plans.len()).unwrap_or(NODES_MAX);
        let shape = Shape { seeds, count, partitions };
        let mut cluster =
            Self { nodes: Vec::new(), ends: JoinSet::new(), kill: CancellationToken::new(), home };
        for plan in plans {
            let (node, child) = NodeProcess::start(plan, &shape).map_err(DevError::Spawn)?;
            let index = cluster.nodes.len();
            cluster.ends.spawn(end_of(index, child, cluster.kill.clone()));
            cluster.nodes.push(node);
        }
        Ok(cluster)
    }

    /// Waits for the next child to end; without end when none is left.
    async fn next_death(&mut self) -> (usize, io::Result<ExitStatus>) {
        match self.ends.join_next().await {
            Some(Ok(end)) => end,
            // The tasks neither panic nor are they cancelled.
            Some(Err(_)) | None => std::future::pending().await,
        }
    }

    fn stillborn(&self, node: usize, status: &io::Result<ExitStatus>) -> DevError {
        DevError::Stillborn { obituary: self.nodes[node].obituary(status) }
    }

    fn formed(&self, seen: &Seen) -> Formed<'_> {
        let leaders = self.nodes.iter().map(|node| seen.topology.leaderships(&node.plan.id));
        let (fewest, most) =
            leaders.fold((u32::MAX, 0), |(fewest, most), count| (fewest.min(count), most.max(count)));
        Formed {
            home: &self.home,
            nodes: self.nodes.iter().map(|node| (&node.plan, node.pid)).collect(),
            joined: seen.joined,
            led: seen.led,
            partitions: seen.topology.partitions.len(),
            leaders: (fewest, most),
            copies: seen.topology.replication_factor.unwrap_or_default(),
        }
    }

    /// Lets the children stop in order, and kills those that do not in time.
    async fn stop(&mut self) {
        for node in &mut self.nodes {
            node.input = None;
        }
        if tokio::time::timeout(STOP_TIMEOUT, self.all_ended()).await.is_err() {
            self.kill().await;
        }
    }

    /// Ends the children at once. Nobody writes to their directories after this.
    async fn kill(&mut self) {
        self.kill.cancel();
        self.all_ended().await;
    }

    async fn all_ended(&mut self) {
        while self.ends.join_next().await.is_some() {}
    }
}

async fn end_of(index: usize, mut child: Child, kill: CancellationToken) -> (usize, io::Result<ExitStatus>) {
    tokio::select! {
        status = child.wait() => return (index, status),
        () = kill.cancelled() => {}
    }
    let killed = child.kill().await;
    (
        index,
        match killed {
            Ok(()) => child.wait().await,
            Err(error) => Err(error),
        },
    )
}

/// Tells of children that end, until a signal ends them all, or none is left.
async fn supervise(mut cluster: Cluster, signals: &mut Signals) -> Result<(), Failure> {
    loop {
        tokio::select! {
            (node, status) = cluster.next_death() => {
                terminal::say(&format!("   {}", cluster.nodes[node].obituary(&status)))?;
                if cluster.ends.is_empty() {
                    terminal::say("   no node is left")?;
                    return Ok(());
                }
            }
            () = signals.next() => break,
        }
    }
    terminal::say(&format!("\n   stopping {}", counted(cluster.ends.len(), "node")))?;
    tokio::select! {
        () = cluster.stop() => {}
        () = signals.next() => cluster.kill().await,
    }
    Ok(())
}

/// What the first node saw, and when.
struct Seen {
    topology: Topology,
    joined: Duration,
    led: Duration,
}

async fn wait_until_formed(plans: &[NodePlan], begun: Instant) -> Result<Seen, Failure> {
    let client = Client::new(&plans[0].url())?;
    let mut joined = None;
    loop {
        let answer = look(&client).await;
        if answer.as_ref().is_ok_and(|topology| topology.count_alive() == plans.len()) {
            joined.get_or_insert_with(|| begun.elapsed());
        }
        match (answer, joined) {
            (Ok(topology), Some(joined)) if topology.is_whole() => {
                return Ok(Seen { topology, joined, led: begun.elapsed().saturating_sub(joined) });
            }
            (answer, _) if begun.elapsed() > FORM_TIMEOUT => return Err(not_formed(answer).into()),
            _ => tokio::time::sleep(LOOK_PAUSE).await,
        }
    }
}

async fn look(client: &Client) -> Result<Topology, ClientError> {
    let asking = client.clone();
    let answer = tokio::task::spawn_blocking(move || asking.get("/v1/topology")).await;
    let gone = || ClientError::Unreachable { url: client.url().to_owned(), reason: "interrupted".to_owned() };
    answer.unwrap_or_else(|_| Err(gone()))
}

fn not_formed(answer: Result<Topology, ClientError>) -> DevError {
    let last = match answer {
        Ok(topology) => format!("{} alive", counted(topology.count_alive(), "node")),
        Err(error) => error.to_string(),
    };
    DevError::NotFormed { seconds: FORM_TIMEOUT.as_secs(), last }
}

/// The cluster cannot begin. No child runs any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DevError {
    /// A directory cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    /// The directory holds something else. Nothing in it was touched.
    #[error("{} holds something else than a development cluster; give --data another directory", path.display())]
    ForeignDirectory { path: PathBuf },
    /// There is no free port.
    #[error("no free port on 127.0.0.1: {0}")]
    NoPort(io::Error),
    /// The nodes found no common ground in time.
    #[error("the nodes formed no cluster within {seconds} s: {last}")]
    NotFormed { seconds: u64, last: String },
    /// The directory holds another number of nodes. Nothing in it was touched.
    #[error(
        "{} holds {present} nodes, not {wanted}; leave out --nodes, or give --data another directory", path.display()
    )]
    OtherCount { path: PathBuf, present: u32, wanted: u32 },
    /// A child cannot be started.
    #[error("cannot start a node: {0}")]
    Spawn(io::Error),
    /// A child ended before the cluster had formed.
    #[error("{obituary}")]
    Stillborn { obituary: String },
}

impl DevError {
    /// Whether somebody took a port between its choice and its use; the next start takes others.
    pub(crate) fn is_port_conflict(&self) -> bool {
        matches!(self, Self::Stillborn { obituary } if obituary.contains("cannot listen"))
    }
}
