//! The nodes as the story sees them: told by orders, known by their reports.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use clusterkit::Epoch;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::limits::{DEADLINE, NODES};
use crate::pipe::{Attempts, Order, Report};
use crate::processes::{self, LastWords, Processes};
use crate::stores::{Held, Places};

/// The running nodes, by their number from 0.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    reports: watch::Sender<Vec<View>>,
    views: watch::Receiver<Vec<View>>,
}

struct Node {
    pid: Pid,
    orders: ChildStdin,
    log: LastWords,
}

impl Cluster {
    /// Starts the nodes, and waits until all of them vote and hold the partition.
    pub(crate) async fn start(
        home: &Path,
        places: &Places,
        processes: &mut Processes,
    ) -> Result<Self, ClusterError> {
        let (reports, views) = watch::channel(vec![View::default(); NODES]);
        let mut cluster = Self { nodes: Vec::new(), reports, views };
        let mut seed = None;
        for number in 0..NODES {
            let log = home.join(name(number)).with_extension("log");
            let command = command(home, number, places, seed.as_deref())?;
            let child = processes.start_piped(command, &log, Signal::TERM)?;
            let (node, output) = Node::of(child, LastWords(log));
            cluster.nodes.push(node);
            tokio::spawn(follow(number, output, cluster.reports.clone()));
            // The others join the first, which knows its address only once it listens.
            let addr = cluster.until("a node listens", |views| views[0].addr.clone()).await?;
            seed.get_or_insert(addr);
        }
        let is_whole = |views: &[View]| views.iter().all(|view| view.is_whole).then_some(());
        cluster.until("all nodes hold the partition", is_whole).await?;
        Ok(cluster)
    }

    /// Waits until `found` finds something in what the nodes have reported.
    pub(crate) async fn until<T>(
        &mut self,
        what: &'static str,
        mut found: impl FnMut(&[View]) -> Option<T>,
    ) -> Result<T, ClusterError> {
        let mut result = None;
        let looked = self.views.wait_for(|views| {
            result = match views.iter().position(|view| view.has_ended) {
                Some(number) => Some(Err(number)),
                None => found(views).map(Ok),
            };
            result.is_some()
        });
        // The result says how it ended.
        drop(timeout(DEADLINE, looked).await);
        match result {
            Some(Ok(found)) => Ok(found),
            Some(Err(number)) => Err(self.ended(number)),
            None => Err(ClusterError::TooLong { what }),
        }
    }

    /// What the nodes have reported so far.
    pub(crate) fn views(&self) -> watch::Ref<'_, Vec<View>> {
        self.views.borrow()
    }

    /// Asks `number` to begin `writes` writes and hold them back, and says under which epoch it did; `None`
    /// when it does not lead.
    pub(crate) async fn prepare(
        &mut self,
        number: usize,
        writes: u32,
    ) -> Result<Option<Epoch>, ClusterError> {
        self.reports.send_modify(|views| views[number].prepared = None);
        self.order(number, &Order::Prepare { writes }).await?;
        self.until("the owner is ready", |views| views[number].prepared).await
    }

    pub(crate) async fn order(&mut self, number: usize, order: &Order) -> Result<(), ClusterError> {
        let line = format!("{}\n", serde_json::to_string(order).map_err(io::Error::other)?);
        Ok(self.nodes[number].orders.write_all(line.as_bytes()).await?)
    }

    pub(crate) fn pid(&self, number: usize) -> Pid {
        self.nodes[number].pid
    }

    fn ended(&self, number: usize) -> ClusterError {
        let words = LastWords(self.nodes[number].log.0.clone());
        ClusterError::Ended { node: name(number), words }
    }
}

impl Node {
    fn of(child: &mut Child, log: LastWords) -> (Self, BufReader<ChildStdout>) {
        let pid = processes::pid(child).expect("nobody waited for it");
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(orders), Some(reports)) = pipes else { unreachable!("it was started with both pipes") };
        (Self { pid, orders, log }, BufReader::new(reports))
    }
}

/// What people call a node.
pub(crate) fn name(number: usize) -> String {
    format!("node-{}", number + 1)
}

fn command(home: &Path, number: usize, places: &Places, seed: Option<&str>) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["node", "--id", &name(number), "--data-dir"]).arg(home.join(name(number)));
    command.arg("--file").arg(&places.file);
    for (option, place) in [("--postgres", &places.postgres), ("--redis", &places.redis)] {
        if let Some(place) = place {
            command.arg(option).arg(place);
        }
    }
    if let Some(seed) = seed {
        command.args(["--seed", seed]);
    }
    Ok(command)
}

/// Takes in what a node reports, to its end.
async fn follow(number: usize, output: BufReader<ChildStdout>, views: watch::Sender<Vec<View>>) {
    let mut lines = output.lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(report) => views.send_modify(|views| views[number].apply(report)),
            Err(_) => break,
        }
    }
    views.send_modify(|views| views[number].has_ended = true);
}

/// What one node has reported.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    addr: Option<String>,
    is_whole: bool,
    has_ended: bool,
    pub(crate) has_halted: bool,
    /// The newest answer: under which epoch writes are held back, if under any.
    prepared: Option<Option<Epoch>>,
    pub(crate) attempted: Option<Result<Attempts, String>>,
    /// What it did as the leader, by epoch.
    pub(crate) led: BTreeMap<Epoch, Led>,
}

/// What a node did under one epoch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Led {
    /// Writes that were confirmed.
    pub(crate) writes: u64,
    /// The newest that is in every store.
    pub(crate) newest: Held,
    /// When the lease was looked at for the last confirmed write, at the earliest.
    pub(crate) looked: Duration,
    /// Why it ended.
    pub(crate) failure: Option<Failure>,
}

/// Why a write was not confirmed.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) in_flight: bool,
    pub(crate) why: String,
}

impl View {
    fn apply(&mut self, report: Report) {
        match report {
            Report::Listening { addr } => self.addr = Some(addr),
            Report::Whole => self.is_whole = true,
            Report::TookOver(held) => self.led(held.epoch).took_over(held),
            Report::Wrote { held, looked } => self.led(held.epoch).wrote(held, looked),
            Report::Failed { epoch, in_flight, why } => {
                self.led(epoch).failure = Some(Failure { in_flight, why });
            }
            Report::Prepared { epoch } => self.prepared = Some(epoch),
            Report::Attempted(attempted) => self.attempted = Some(attempted),
            Report::Halted => self.has_halted = true,
        }
    }

    fn led(&mut self, epoch: Epoch) -> &mut Led {
        self.led.entry(epoch).or_default()
    }
}

impl Led {
    fn took_over(&mut self, held: Held) {
        self.newest = held;
    }

    fn wrote(&mut self, held: Held, looked: Duration) {
        self.writes += 1;
        self.newest = held;
        self.looked = looked;
    }
}

/// The nodes do not do what the story needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ClusterError {
    #[error("{node} has ended: {words}")]
    Ended { node: String, words: LastWords },
    #[error("a node: {0}")]
    Io(#[from] io::Error),
    #[error("not within {} s: {what}", DEADLINE.as_secs())]
    TooLong { what: &'static str },
}
