//! What one node is told before it looks for others.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::BACKOFF_MAX;
use super::vote::Candidate;
use crate::limits::EXPECT_MAX;

/// Beats that fit into the candidate timeout at least.
pub(super) const BEATS_PER_TIMEOUT_MIN: u32 = 10;

/// What one node is told before it looks for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This node, with the address at which others reach it.
    pub me: Candidate,
    /// The name of the cluster, the same for all of its nodes.
    pub cluster_name: String,
    /// How many nodes form the cluster, 1 to [`EXPECT_MAX`], the same for all that have one; three
    /// or five are good values. `Some(1)` forms a cluster alone and at once, `None` only joins one
    /// that exists. With twice as many nodes as this, a network that is split at the first start
    /// can form two clusters.
    pub expect: Option<u32>,
    /// Addresses to greet first. One node that is up is enough, and this node's own address among
    /// them does no harm. At most [`SEEDS_MAX`](super::SEEDS_MAX) count.
    pub seeds: Vec<String>,
    /// How often to greet, default 200 ms. A shorter one forms the cluster faster and costs one
    /// message more for each candidate and beat.
    pub beat: Duration,
    /// Silence after which a candidate counts no more, default 3 s. At least ten beats, so that all
    /// have their turn and a lost message does not matter; much longer, and a node that was stopped
    /// is still voted for.
    pub candidate_timeout: Duration,
}

impl Config {
    /// The defaults for a node: alone, without seeds.
    #[must_use]
    pub fn new(me: Candidate, cluster_name: String) -> Self {
        Self {
            me,
            cluster_name,
            expect: Some(1),
            seeds: Vec::new(),
            beat: Duration::from_millis(200),
            candidate_timeout: Duration::from_secs(3),
        }
    }

    /// Whether the values are possible and fit each other.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        if self.beat < Duration::from_millis(1) {
            return Err(InvalidConfig::BeatTooShort);
        }
        if self.candidate_timeout < self.beat * BEATS_PER_TIMEOUT_MIN {
            return Err(InvalidConfig::CandidateTimeoutTooShort);
        }
        match self.expect {
            Some(expect) if !(1..=EXPECT_MAX).contains(&expect) => Err(InvalidConfig::Expect { expect }),
            _ => Ok(()),
        }
    }

    /// How long to wait after `count` vain attempts: a beat, and twice as long each time.
    pub(super) fn backoff(&self, count: u32) -> Duration {
        self.beat.saturating_mul(1 << count.min(16)).min(BACKOFF_MAX.max(self.beat))
    }
}

/// The values are impossible or do not fit each other. Nothing changed; configure others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidConfig {
    /// Less than a millisecond from one greeting to the next.
    #[error("the greeting interval must be at least 1 ms")]
    BeatTooShort,
    /// Candidates would be forgotten before they had their turn.
    #[error("the candidate timeout must be at least {BEATS_PER_TIMEOUT_MIN} greeting intervals")]
    CandidateTimeoutTooShort,
    /// No cluster has so many first nodes.
    #[error("1 to {EXPECT_MAX} nodes can be expected to form a cluster, not {expect}")]
    Expect {
        /// The number given.
        expect: u32,
    },
}
