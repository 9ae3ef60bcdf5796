//! What nodes answer, as far as the commands read it. Fields that a later release adds do not matter.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// How the cluster stands. The order is from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Healthy,
    Degraded,
    Unavailable,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Status {
    pub(crate) node: String,
    pub(crate) cluster: Option<Cluster>,
    pub(crate) version: u64,
    pub(crate) health: Health,
    pub(crate) control_plane: ControlPlane,
    pub(crate) partitions: PartitionCounts,
    pub(crate) moves: u32,
    /// The first of them.
    #[serde(default)]
    pub(crate) movements: Vec<Movement>,
    #[serde(default)]
    pub(crate) overruns: Vec<Overrun>,
    pub(crate) nodes: Vec<NodeStatus>,
}

/// A copy on its way.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Movement {
    pub(crate) partition: u32,
    #[serde(flatten)]
    pub(crate) way: Way,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Way {
    pub(crate) source: Option<String>,
    pub(crate) target: String,
    pub(crate) awaits: Option<Hook>,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{source} to {}", self.target),
            None => write!(f, "to {}", self.target),
        }
    }
}

/// A hook that is late.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Overrun {
    pub(crate) partition: u32,
    #[serde(flatten)]
    pub(crate) hook: Hook,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Hook {
    pub(crate) node: String,
    pub(crate) stage: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Cluster {
    pub(crate) id: String,
    pub(crate) name: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Health {
    pub(crate) state: State,
    pub(crate) sentence: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ControlPlane {
    pub(crate) controller: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct PartitionCounts {
    pub(crate) total: u32,
    pub(crate) ok: u32,
    pub(crate) under_replicated: u32,
    pub(crate) below_min_in_sync: u32,
    pub(crate) leaderless: u32,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct NodeStatus {
    pub(crate) id: String,
    pub(crate) status: String,
    pub(crate) public_addr: String,
    pub(crate) node_addr: String,
    pub(crate) zone: Option<String>,
    pub(crate) is_controller: bool,
    pub(crate) raft: String,
    pub(crate) replicas: u32,
    pub(crate) leaders: u32,
    pub(crate) software: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) status: String,
    pub(crate) node_addr: String,
    pub(crate) public_addr: String,
    pub(crate) zone: Option<String>,
    pub(crate) weight: u32,
    pub(crate) role: String,
    pub(crate) holds_data: bool,
    pub(crate) incarnation: u64,
    pub(crate) store: String,
    pub(crate) software: String,
    pub(crate) metadata: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct StopCheck {
    pub(crate) safe: bool,
    pub(crate) reasons: Vec<Reason>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Reason {
    pub(crate) message: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DrainPlan {
    pub(crate) moves: Vec<PlannedMove>,
    pub(crate) leads: Vec<PlannedMove>,
    pub(crate) drops: Vec<u32>,
    pub(crate) leaves: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct PlannedMove {
    pub(crate) partition: u32,
    pub(crate) target: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Partition {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) epoch: u64,
    pub(crate) leader: Option<String>,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) in_sync: Vec<String>,
    pub(crate) min_in_sync: u32,
    pub(crate) health: String,
    pub(crate) movement: Option<Way>,
    // The rest comes only where one partition is asked for.
    #[serde(default)]
    pub(crate) origin: String,
    #[serde(default)]
    pub(crate) history: Vec<Epoch>,
    #[serde(default)]
    pub(crate) stages: Vec<Stage>,
    pub(crate) blocked_by: Option<String>,
    #[serde(default)]
    pub(crate) reasons: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Epoch {
    pub(crate) epoch: u64,
    pub(crate) leader: String,
    pub(crate) origin: String,
    pub(crate) at: Option<String>,
}

/// A hook that a partition waits for.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Stage {
    pub(crate) node: String,
    pub(crate) public_addr: Option<String>,
    pub(crate) stage: String,
    pub(crate) late: bool,
    /// Only the node that runs it tells.
    pub(crate) attempt: Option<Attempt>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) since: String,
    pub(crate) running: bool,
    pub(crate) calls: u32,
    pub(crate) reason: Option<String>,
    pub(crate) bytes: Option<u64>,
    pub(crate) bytes_total: Option<u64>,
    pub(crate) permits: usize,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Replica {
    pub(crate) node: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Route {
    pub(crate) slot: Option<u32>,
    pub(crate) name: String,
    pub(crate) epoch: u64,
    pub(crate) leader: Option<RouteNode>,
    pub(crate) replicas: Vec<RouteNode>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RouteNode {
    pub(crate) id: String,
    pub(crate) public_addr: String,
    pub(crate) status: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Event {
    pub(crate) kind: String,
    /// Missing where events were lost.
    #[serde(default)]
    pub(crate) at: String,
    pub(crate) node: Option<String>,
    pub(crate) partition: Option<u32>,
    pub(crate) epoch: Option<u64>,
    pub(crate) leader: Option<String>,
    pub(crate) previous: Option<String>,
    pub(crate) in_sync: Option<Vec<String>>,
    pub(crate) source: Option<String>,
    pub(crate) target: Option<String>,
    pub(crate) arrived: Option<bool>,
    pub(crate) origin: Option<String>,
    pub(crate) stage: Option<String>,
    pub(crate) count: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Topology {
    pub(crate) replication_factor: Option<u32>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) partitions: Vec<Partition>,
}

impl Topology {
    pub(crate) fn count_alive(&self) -> usize {
        self.nodes.iter().filter(|node| node.status == "alive").count()
    }

    /// Whether there are partitions, and each is led and has all its copies.
    pub(crate) fn is_whole(&self) -> bool {
        !self.partitions.is_empty() && self.partitions.iter().all(|partition| partition.health == "ok")
    }

    /// How many partitions `node` leads.
    pub(crate) fn leaderships(&self, node: &str) -> u32 {
        let led = self.partitions.iter().filter(|partition| partition.leader.as_deref() == Some(node));
        u32::try_from(led.count()).unwrap_or(u32::MAX)
    }
}
