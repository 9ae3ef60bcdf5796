//! How the cluster stands, in one word, with reasons.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use super::{NodeStatus, PartitionHealth, Topology};
use crate::handoff;
use crate::id::{NodeId, PartitionId};

/// How the cluster stands. Whoever asks, by page, command or metric, gets this one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The one word.
    pub state: HealthState,
    /// Why, worst first. Empty when healthy.
    pub reasons: Vec<HealthReason>,
}

impl Health {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.state == HealthState::Healthy
    }
}

/// The one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HealthState {
    /// Every partition is led and has all its copies.
    Healthy,
    /// Everything works, with less protection or fewer nodes than there should be.
    Degraded,
    /// Something does not work: some partitions cannot be written, or nothing can be decided.
    Unavailable,
}

impl HealthState {
    /// The word shown to people and put in metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One reason why the cluster is not healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HealthReason {
    /// No cluster has formed yet.
    NotFormed,
    /// Nobody can change the topology: this node sees no majority of the voters.
    NoController,
    /// Partitions that no replica leads.
    Leaderless {
        /// How many.
        partitions: u32,
    },
    /// Partitions that can be read and not written, until another copy is back.
    BelowMinInSync {
        /// How many.
        partitions: u32,
    },
    /// A hook of a node is past its deadline, and goes on.
    HookOverran {
        /// Which node.
        node: NodeId,
        /// Which hook.
        stage: handoff::Stage,
        /// For which partition; the first of them where it is late for several.
        partition: PartitionId,
        /// For how many.
        partitions: u32,
    },
    /// A node is not there.
    NodeDown {
        /// Which node.
        node: NodeId,
        /// Suspect, dead, or not heard since it joined.
        status: NodeStatus,
    },
    /// A node is on its way out.
    NodeLeaving {
        /// Which node.
        node: NodeId,
    },
    /// Partitions with fewer copies in sync than configured.
    UnderReplicated {
        /// How many.
        partitions: u32,
        /// The configured number of copies.
        wanted: u32,
        /// There are fewer nodes than copies: only more nodes help.
        too_few_nodes: bool,
    },
}

impl HealthReason {
    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> HealthState {
        match self {
            Self::NotFormed | Self::NoController | Self::Leaderless { .. } | Self::BelowMinInSync { .. } => {
                HealthState::Unavailable
            }
            Self::HookOverran { .. }
            | Self::NodeDown { .. }
            | Self::NodeLeaving { .. }
            | Self::UnderReplicated { .. } => HealthState::Degraded,
        }
    }

    /// A word for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFormed => "not_formed",
            Self::NoController => "no_controller",
            Self::Leaderless { .. } => "leaderless",
            Self::BelowMinInSync { .. } => "below_min_in_sync",
            Self::HookOverran { .. } => "hook_overran",
            Self::NodeDown { .. } => "node_down",
            Self::NodeLeaving { .. } => "node_leaving",
            Self::UnderReplicated { .. } => "under_replicated",
        }
    }
}

impl fmt::Display for HealthReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFormed => f.write_str("the cluster has not formed yet"),
            Self::NoController => {
                f.write_str("no majority of the voters is in reach, nothing can be changed from here")
            }
            Self::Leaderless { partitions } => write!(f, "{partitions} partitions have no leader"),
            Self::BelowMinInSync { partitions } => {
                write!(f, "{partitions} partitions cannot be written until another copy is back")
            }
            Self::HookOverran { node, stage, partition, partitions: 1 } => {
                write!(f, "{stage} of {partition} on {node} is past its deadline")
            }
            Self::HookOverran { node, stage, partition, partitions } => {
                let others = partitions.saturating_sub(1);
                write!(f, "{stage} of {partition} and {others} more on {node} is past its deadline")
            }
            Self::NodeDown { node, status } => write!(f, "{node} is {status}"),
            Self::NodeLeaving { node } => write!(f, "{node} is leaving"),
            Self::UnderReplicated { partitions, wanted, too_few_nodes } => {
                write!(f, "{partitions} partitions have fewer than {wanted} copies in sync")?;
                if *too_few_nodes {
                    f.write_str(" (there are fewer nodes than copies)")?;
                }
                Ok(())
            }
        }
    }
}

impl Topology {
    /// How the cluster stands, for a node that sees a controller or does not.
    #[must_use]
    pub fn health(&self, has_controller: bool) -> Health {
        let mut reasons = Vec::new();
        if self.cluster.is_none() {
            reasons.push(HealthReason::NotFormed);
        } else if !has_controller {
            reasons.push(HealthReason::NoController);
        }
        self.partition_reasons(&mut reasons);
        self.node_reasons(&mut reasons);
        self.overrun_reasons(&mut reasons);
        reasons.sort_by_key(|reason| core::cmp::Reverse(reason.severity()));
        let state = reasons.iter().map(HealthReason::severity).max().unwrap_or(HealthState::Healthy);
        Health { state, reasons }
    }

    fn partition_reasons(&self, reasons: &mut Vec<HealthReason>) {
        let count = |health| {
            let matching = self.partitions.iter().filter(|record| self.partition_health(record) == health);
            u32::try_from(matching.count()).unwrap_or(u32::MAX)
        };
        let leaderless = count(PartitionHealth::Leaderless);
        let below = count(PartitionHealth::BelowMinInSync);
        let under = count(PartitionHealth::UnderReplicated);
        if leaderless > 0 {
            reasons.push(HealthReason::Leaderless { partitions: leaderless });
        }
        if below > 0 {
            reasons.push(HealthReason::BelowMinInSync { partitions: below });
        }
        if under > 0 {
            let wanted = self.cluster.as_ref().map_or(0, |cluster| cluster.config.replication_factor);
            let too_few_nodes = self.replication_factor_effective() < wanted;
            reasons.push(HealthReason::UnderReplicated { partitions: under, wanted, too_few_nodes });
        }
    }

    fn node_reasons(&self, reasons: &mut Vec<HealthReason>) {
        for node in self.nodes.values() {
            match node.status() {
                NodeStatus::Alive | NodeStatus::Left => {}
                NodeStatus::Leaving => reasons.push(HealthReason::NodeLeaving { node: node.id.clone() }),
                status => reasons.push(HealthReason::NodeDown { node: node.id.clone(), status }),
            }
        }
    }

    /// One for each hook of each node, so that they are few however many partitions wait.
    fn overrun_reasons(&self, reasons: &mut Vec<HealthReason>) {
        let mut late = BTreeMap::<_, (PartitionId, u32)>::new();
        for record in &self.partitions {
            if let Some(overrun) = &record.overrun {
                let (_, count) = late.entry((&overrun.node, overrun.stage)).or_insert((record.id, 0));
                *count += 1;
            }
        }
        reasons.extend(late.into_iter().map(|((node, stage), (partition, partitions))| {
            HealthReason::HookOverran { node: node.clone(), stage, partition, partitions }
        }));
    }
}
