//! Candidates, votes, and the one vote that a node has.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::{ClusterId, NodeId, StoreId};
use crate::limits::EXPECT_MAX;

/// A node that wants to be in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name.
    pub node: NodeId,
    /// Its data directory. A node with another one is another candidate.
    pub store: StoreId,
    /// Where other nodes reach it, `host:port`.
    pub node_addr: String,
}

impl Candidate {
    /// Whether both are one node with one data directory, wherever it is reached.
    #[must_use]
    pub fn is_same_node(&self, other: &Self) -> bool {
        self.node == other.node && self.store == other.store
    }
}

/// One node's word that the cluster shall consist of `members`.
///
/// Two votes agree only when they are equal in everything, addresses included, so that all members
/// of a cluster begin with the same list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Vote {
    /// 1 or more. A node has one vote in a round, and its rounds only grow.
    pub round: u64,
    /// The set, ordered by node id, the voter among them.
    pub members: Vec<Candidate>,
}

impl Vote {
    /// The identity of the cluster called `name` that this vote forms once it is unanimous: the
    /// first eight bytes of a SHA-256 over everything in it, each text with its length before it.
    #[must_use]
    pub fn cluster_id(&self, name: &str) -> ClusterId {
        let mut hash = Sha256::new();
        update_text(&mut hash, "clusterkit forming 1");
        update_text(&mut hash, name);
        hash.update(self.round.to_be_bytes());
        hash.update((self.members.len() as u64).to_be_bytes());
        for member in &self.members {
            update_text(&mut hash, member.node.as_str());
            hash.update(member.store.0.to_be_bytes());
            update_text(&mut hash, &member.node_addr);
        }
        let mut first = [0; 8];
        first.copy_from_slice(&hash.finalize()[..8]);
        ClusterId(u64::from_be_bytes(first))
    }

    /// Whether this is a vote that `voter` can have cast. One from elsewhere is checked once, when
    /// it comes in.
    #[must_use]
    pub fn is_cast_by(&self, voter: &Candidate) -> bool {
        self.round > 0
            && self.members.len() <= EXPECT_MAX as usize
            && self.members.is_sorted_by(|one, next| one.node < next.node)
            && self.members.iter().any(|member| member.is_same_node(voter))
    }
}

fn update_text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text.as_bytes());
}

/// This node's vote: the durable one, and the one on its way to be that.
#[derive(Debug)]
pub(super) struct Ballot {
    durable: Option<Vote>,
    casting: Option<Vote>,
}

impl Ballot {
    pub(super) fn recovered(durable: Option<Vote>) -> Self {
        Self { durable, casting: None }
    }

    pub(super) fn durable(&self) -> Option<&Vote> {
        self.durable.as_ref()
    }

    pub(super) fn is_casting(&self) -> bool {
        self.casting.is_some()
    }

    pub(super) fn cast(&mut self, vote: Vote) {
        assert!(!self.is_casting(), "one vote at a time");
        assert!(self.durable.as_ref().is_none_or(|before| before.round < vote.round), "rounds only grow");
        self.casting = Some(vote);
    }

    /// The vote that became durable, if `round` is the one that was waited for.
    pub(super) fn confirm(&mut self, round: u64) -> Option<&Vote> {
        self.durable = Some(self.casting.take_if(|vote| vote.round == round)?);
        self.durable()
    }
}
