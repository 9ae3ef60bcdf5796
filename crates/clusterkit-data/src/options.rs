//! How requests are to be carried out, and what came of them.

use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::id::Epoch;
use clusterkit_core::replica::{Ack, SessionRequest};
use serde::{Deserialize, Serialize};

/// How a write is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOptions {
    /// When it is answered. Default [`Ack::Quorum`].
    pub ack: Ack,
    /// Which request of which session it is: a retry of the same takes effect once. Default none.
    pub request: Option<SessionRequest>,
    /// How long it may take until it is answered, at most a minute. Default 5 s. While nobody leads, it waits.
    pub deadline: Duration,
    /// Whether another node's partition is written through that node. Default true.
    pub forward: bool,
    /// Whether this node numbers the write itself where `request` is none, and so can repeat it when its leader is
    /// lost on the way. Default true; without, such a write ends as [`OutcomeUnknown`](crate::WriteError::OutcomeUnknown),
    /// and costs a little less.
    pub repeat: bool,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            ack: Ack::Quorum,
            request: None,
            deadline: Duration::from_secs(5),
            forward: true,
            repeat: true,
        }
    }
}

/// How a question is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOptions {
    /// How new the answer is. Default [`Read::Linearizable`].
    pub read: Read,
    /// How long it may take, at most a minute. Default 5 s.
    pub deadline: Duration,
    /// Whether another node is asked where this one cannot answer. Default true.
    pub forward: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { read: Read::Linearizable, deadline: Duration::from_secs(5), forward: true }
    }
}

/// How new an answer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Read {
    /// Whatever a replica has, this node's where it has one.
    Any,
    /// What the leader has applied. It may be a leader no more without knowing, for as long as it takes to be
    /// replaced.
    Leader,
    /// Everything that was acknowledged to anybody before the question was asked.
    #[default]
    Linearizable,
    /// At least all entries below this offset, by any replica: what the asker has seen so far.
    Session {
        /// `applied` of an earlier answer, or the offset of a write + 1.
        min_end: u64,
    },
}

/// A write was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Written {
    /// The epoch that it was written in.
    pub epoch: Epoch,
    /// Its place in the log.
    pub offset: u64,
    /// What the state machine said; nothing with [`Ack::Leader`].
    pub answer: Option<Bytes>,
    /// It had taken effect before: this is the answer of then.
    pub replayed: bool,
}

/// A question was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Answered {
    /// The epoch that the replica knows.
    pub epoch: Epoch,
    /// All entries below are applied.
    pub applied: u64,
    /// What the state machine said.
    pub answer: Bytes,
}
