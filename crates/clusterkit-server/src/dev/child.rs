//! One node of a development cluster: a child process that runs `serve`.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, ChildStdin, Command};

use super::layout::NodePlan;
use crate::config;

/// Copies of a partition where there are nodes enough.
const REPLICATION_FACTOR_MAX: u32 = 3;
/// How much of a child's last words is read.
const LAST_WORDS_BYTES_MAX: usize = 4 * 1024;

/// What all nodes of the cluster are told alike.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) seeds: Vec<String>,
    pub(crate) count: u32,
    pub(crate) partitions: Option<u32>,
}

/// A child process, but for the handle that waits for its end. It stops when its standard input
/// ends, so also when this process is killed.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    pub(crate) plan: NodePlan,
    pub(crate) pid: Option<u32>,
    /// Closed, it tells the child to stop in order.
    pub(crate) input: Option<ChildStdin>,
}

impl NodeProcess {
    pub(crate) fn start(plan: &NodePlan, shape: &Shape) -> io::Result<(Self, Child)> {
        // A node that is started again goes on behind what it said before.
        let log = File::options().create(true).append(true).open(&plan.log)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments(plan, shape)).stdin(Stdio::piped());
        command.stdout(log.try_clone()?).stderr(log);
        for name in config::variables() {
            command.env_remove(name);
        }
        // Ctrl-C reaches this process alone, which then stops the children in order.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn()?;
        let input = child.stdin.take();
        Ok((Self { plan: plan.clone(), pid: child.id(), input }, child))
    }

    /// Why the child ended, in one line.
    pub(crate) fn obituary(&self, status: &io::Result<ExitStatus>) -> String {
        let reason = last_words(&self.plan.log).unwrap_or_else(|| match status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        });
        format!("{} has ended: {reason}", self.plan.id)
    }
}

fn arguments(plan: &NodePlan, shape: &Shape) -> Vec<String> {
    let count = shape.count.to_string();
    let copies = shape.count.min(REPLICATION_FACTOR_MAX).to_string();
    let data_dir = plan.data_dir.display().to_string();
    let mut arguments: Vec<String> = [
        ["--node-id", &plan.id],
        ["--http-addr", &plan.public_addr],
        ["--listen", &plan.node_addr],
        ["--data-dir", &data_dir],
        ["--cluster-name", "dev"],
        ["--expect", &count],
        ["--replication-factor", &copies],
        ["--log-format", "text"],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect();
    if shape.count > 1 {
        arguments.extend(["--seeds".to_owned(), shape.seeds.join(",")]);
    }
    if let Some(partitions) = shape.partitions {
        arguments.extend(["--partitions".to_owned(), partitions.to_string()]);
    }
    arguments.insert(0, "serve".to_owned());
    arguments.push("--parent-pipe".to_owned());
    arguments
}

/// The error that a child wrote before it ended.
fn last_words(log: &Path) -> Option<String> {
    let bytes = fs::read(log).ok()?;
    let tail = &bytes[bytes.len().saturating_sub(LAST_WORDS_BYTES_MAX)..];
    let text = String::from_utf8_lossy(tail);
    let error = text.lines().rev().find_map(|line| line.strip_prefix("error: "))?;
    Some(error.to_owned())
}
