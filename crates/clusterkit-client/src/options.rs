//! What a user may set.

use std::time::Duration;

use crate::limits::{DEADLINE_DEFAULT, REQUESTS_PER_NODE_DEFAULT};

/// How a [`Client`](crate::Client) works. The defaults are meant to be kept.
///
/// How keys become partitions, and how many there are, is no option: the cluster says it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// How long a call may take, retries included; 5 s unless set. Below the 2 s for which a node holds a request while
    /// a leader is elected, calls fail when a node does. A [`Kv`](crate::Kv) can have its own.
    pub deadline: Duration,
    /// Requests under way to one node, 64 unless set, at least 1. More wait for their turn, within their deadline.
    pub requests_per_node_max: usize,
}

impl Options {
    /// The same with another deadline.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The same with another bound of the requests under way to one node.
    #[must_use]
    pub fn requests_per_node_max(mut self, requests: usize) -> Self {
        self.requests_per_node_max = requests.max(1);
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { deadline: DEADLINE_DEFAULT, requests_per_node_max: REQUESTS_PER_NODE_DEFAULT }
    }
}

/// When a write is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ack {
    /// Once every replica has it: refused while one is away.
    All,
    /// Once it cannot be lost while one replica in sync is left.
    #[default]
    Quorum,
}

/// What a read may miss.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Read {
    /// Anything newer than what some replica has. The fastest, and served while no leader is there.
    Any,
    /// What the leader has, or a moment ago had.
    Leader,
    /// Nothing that was acknowledged before the read began.
    #[default]
    Linearizable,
    /// Nothing that this client, all its clones counted, wrote or read itself.
    Session,
    /// Nothing that the token stands for: what another client wrote, perhaps in another process.
    After(crate::Token),
}
