//! What a node says of itself when it starts: a block for people, one event for programs.

use std::io;
use std::time::Duration;

use clusterkit::ClusterKit;

use crate::config::{Config, LogFormat};
use crate::terminal::{self, counted};

/// Where this node listens for clients, and as what.
#[derive(Debug, Clone)]
pub(super) struct Started<'a> {
    pub(super) config: &'a Config,
    pub(super) node: &'a ClusterKit,
    pub(super) http_local: &'a str,
    pub(super) format: LogFormat,
}

impl Started<'_> {
    /// Says what the node goes by, before it looks for its cluster.
    pub(super) fn announce(&self) -> io::Result<()> {
        match self.format {
            LogFormat::Text => terminal::say(&self.block()),
            LogFormat::Json => {
                tracing::info!(
                    version = env!("CARGO_PKG_VERSION"),
                    node = %self.node.node_id(),
                    settings = %self.config.sources,
                    data_dir = %self.config.data_dir.display(),
                    public_addr = self.node.public_addr(),
                    http_local = self.http_local,
                    node_addr = self.node.node_addr(),
                    cluster_name = %self.config.cluster_name,
                    seeds = %self.config.seeds.join(","),
                    "starting"
                );
                Ok(())
            }
        }
    }

    /// Says that the node takes part in its cluster.
    pub(super) fn ready(&self, took: Duration) -> io::Result<()> {
        let status = self.node.status();
        let cluster = status.cluster.map(|id| id.to_string()).unwrap_or_default();
        let (milliseconds, nodes) = (took.as_millis(), self.node.nodes().len());
        match self.format {
            LogFormat::Text => {
                let (name, alive) = (&status.cluster_name, counted(nodes, "node"));
                terminal::say(&format!(
                    "ready in {milliseconds} ms: cluster {cluster} ({name:?}), {alive} alive"
                ))
            }
            LogFormat::Json => {
                tracing::info!(%cluster, cluster_name = %status.cluster_name, nodes, "ready in {milliseconds} ms");
                Ok(())
            }
        }
    }

    /// Says that the node was drained and has ended. The node has told programs already.
    pub(super) fn left(&self) -> io::Result<()> {
        match self.format {
            LogFormat::Text => terminal::say("this node has left the cluster"),
            LogFormat::Json => Ok(()),
        }
    }

    fn block(&self) -> String {
        let (config, node) = (self.config, self.node);
        let mut block = format!("clusterkit {} {}\n", env!("CARGO_PKG_VERSION"), node.node_id());
        let mut row = |name: &str, text: &str| block.push_str(&format!("  {name:<9} {text}\n"));
        row("settings", &config.sources.to_string());
        row("data", &config.data_dir.display().to_string());
        row("clients", &told(self.http_local, &node.public_addr()));
        row("nodes", &told(&config.listen, &node.node_addr()));
        row("cluster", &format!("{:?}, {}", config.cluster_name, intent(config)));
        block
    }
}

fn told(local: &str, advertised: &str) -> String {
    if local == advertised { local.to_owned() } else { format!("{local}, known to others as {advertised}") }
}

/// How the node comes to its cluster when it has none yet.
fn intent(config: &Config) -> String {
    let seeds = config.seeds.join(", ");
    match config.expect {
        Some(1) => "one node forms it".to_owned(),
        None if config.seeds.is_empty() => "one node forms it".to_owned(),
        Some(count) => format!("{count} nodes form it, found by {seeds}"),
        None => format!("joined by {seeds}"),
    }
}
