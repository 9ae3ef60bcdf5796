//! What keeps nodes apart, for the operator to read.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::id::{NodeId, StoreId};
use crate::time::Instant;

/// Problems that are remembered so as not to be reported again; further ones are not reported.
pub(super) const PROBLEMS_MAX: usize = 64;
/// How long a problem is remembered, so also how often it is reported while it lasts.
const REPORT_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Something keeps this node from forming or finding its cluster. Nothing changed by it, and the
/// node goes on trying; each variant says what helps.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Fewer nodes than expected can be heard for longer than a start takes. Start the others, or
    /// look at the seeds and at other problems.
    #[error("{expect} nodes are expected to form the cluster, and only these are heard: {heard:?}")]
    CandidatesMissing {
        /// How many form the cluster.
        expect: u32,
        /// Who is heard, this node with them.
        heard: Vec<NodeId>,
    },
    /// A node there is meant for another cluster, and does not count. Correct the name or the seed.
    #[error("the node at {addr} is meant for another cluster, {theirs:?}")]
    ClusterNameDiffers {
        /// Where it is.
        addr: String,
        /// The name of its cluster.
        theirs: String,
    },
    /// A node expects another number of nodes, and does not count. Give all nodes the same.
    #[error("node {node} at {addr} expects {theirs} nodes to form the cluster, this node does not")]
    ExpectDiffers {
        /// Who it is.
        node: NodeId,
        /// Where it is.
        addr: String,
        /// How many it expects.
        theirs: u32,
    },
    /// A seed, or an address that another node calls its own, does not answer. Look at the address
    /// and at what lies between; a node that is not started yet needs nothing.
    #[error("nobody answers at {addr}")]
    NoAnswer {
        /// Where nobody answers.
        addr: String,
    },
    /// Two nodes with different data directories go by one name at the same time, and nobody votes
    /// while that lasts. Rename one. It ends by itself when a node was started with an emptied disk.
    #[error("two nodes are called {node}, at {addrs:?}")]
    NodeIdClash {
        /// The name.
        node: NodeId,
        /// Where they are.
        addrs: Vec<String>,
    },
    /// Something else listens there. Correct the seed.
    #[error("what listens at {addr} is not ClusterKit")]
    NotClusterKit {
        /// Where it is.
        addr: String,
    },
    /// Another process says that it has this node's data directory, and does not count. Was the
    /// directory copied? Then empty the copy.
    #[error("node {node} at {addr} has this node's data directory {store}")]
    StoreClash {
        /// The directory.
        store: StoreId,
        /// What the other is called.
        node: NodeId,
        /// Where it is.
        addr: String,
    },
    /// This node voted, and for longer than a start takes some nodes of its set have not shown the
    /// same vote. Start them with the data directories that they had. If one is lost for good then
    /// the others must begin anew, with empty directories, since the cluster may have formed.
    #[error("the vote of round {round} waits for {nodes:?}")]
    VotesMissing {
        /// The round of the vote.
        round: u64,
        /// Whose votes are missing.
        nodes: Vec<NodeId>,
    },
}

/// What was reported, and when.
#[derive(Debug, Default)]
pub(super) struct Problems {
    reported: BTreeMap<Problem, Instant>,
}

impl Problems {
    /// Whether `problem` was not reported for a while; from now on it was.
    pub(super) fn is_news(&mut self, now: Instant, problem: &Problem) -> bool {
        self.reported.retain(|_, at| now.since(*at) < REPORT_AGAIN_AFTER);
        let is_news = !self.reported.contains_key(problem) && self.reported.len() < PROBLEMS_MAX;
        if is_news {
            self.reported.insert(problem.clone(), now);
        }
        is_news
    }
}
