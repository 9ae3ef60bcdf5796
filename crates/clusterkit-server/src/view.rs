//! What nodes answer, as far as the commands read it. Fields that a later release adds do not matter.

use std::collections::BTreeMap;

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
    pub(crate) nodes: Vec<NodeStatus>,
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
    /// Only where one partition is asked for.
    #[serde(default)]
    pub(crate) reasons: Vec<String>,
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
