//! Whom this node hears, and what follows from it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::time::Duration;

use super::vote::{Candidate, Vote};
use super::{CANDIDATES_MAX, Greeting};
use crate::id::{NodeId, StoreId};
use crate::time::Instant;

/// The other nodes that could form the cluster with this one, or voted for it.
///
/// The members of this node's vote are kept for good, since their votes are facts that count
/// however old they are. All others are dropped when they fall silent, and when there are too many
/// the highest node ids are.
#[derive(Debug)]
pub(super) struct Peers {
    me: Candidate,
    timeout: Duration,
    by_key: BTreeMap<Key, Peer>,
    /// The members of this node's vote but for itself.
    pinned: Vec<Candidate>,
}

type Key = (NodeId, StoreId);

#[derive(Debug)]
struct Peer {
    candidate: Candidate,
    expect: Option<u32>,
    heard_at: Instant,
    hears_me: bool,
    /// Its vote of the highest round that was ever shown.
    vote: Option<Vote>,
}

impl Peers {
    pub(super) fn new(me: Candidate, timeout: Duration) -> Self {
        Self { me, timeout, by_key: BTreeMap::new(), pinned: Vec::new() }
    }

    /// Takes in a greeting. A node that only joins and never voted is no candidate.
    pub(super) fn hear(&mut self, now: Instant, greeting: Greeting) {
        let key = key(&greeting.candidate);
        let shown = greeting.vote.filter(|vote| vote.is_cast_by(&greeting.candidate));
        let counts = greeting.expect.is_some() || shown.is_some();
        if !counts || !self.make_room(now, &key) {
            return;
        }
        let before = self.by_key.remove(&key).and_then(|peer| peer.vote);
        let peer = Peer {
            expect: greeting.expect,
            heard_at: now,
            hears_me: greeting.known.contains(&self.me),
            vote: later(before, shown),
            candidate: greeting.candidate,
        };
        self.by_key.insert(key, peer);
    }

    /// Keeps the members of this node's durable vote from now on.
    pub(super) fn pin(&mut self, vote: Option<&Vote>) {
        let members = vote.map(|vote| vote.members.as_slice()).unwrap_or_default();
        self.pinned = members.iter().filter(|member| !member.is_same_node(&self.me)).cloned().collect();
    }

    /// Drops those that fell silent.
    pub(super) fn expire(&mut self, now: Instant) {
        let timeout = self.timeout;
        let pinned = &self.pinned;
        self.by_key.retain(|_, peer| {
            peer.is_fresh(now, timeout) || pinned.iter().any(|member| member.is_same_node(&peer.candidate))
        });
    }

    /// Where the members of this node's vote are reached: where they were when it was cast, and where
    /// they said last.
    pub(super) fn pinned_addrs(&self) -> Vec<String> {
        let moved = |member: &Candidate| {
            let addr = &self.by_key.get(&key(member))?.candidate.node_addr;
            (*addr != member.node_addr).then(|| addr.clone())
        };
        self.pinned
            .iter()
            .flat_map(|member| [Some(member.node_addr.clone()), moved(member)])
            .flatten()
            .collect()
    }

    /// Whom this node heard directly and recently.
    pub(super) fn heard(&self, now: Instant) -> Vec<Candidate> {
        self.fresh(now).map(|peer| peer.candidate.clone()).collect()
    }

    /// The same by name, this node with them.
    pub(super) fn heard_nodes(&self, now: Instant) -> Vec<NodeId> {
        let mut nodes: Vec<_> = self.fresh(now).map(|peer| peer.candidate.node.clone()).collect();
        nodes.push(self.me.node.clone());
        nodes.sort();
        nodes
    }

    /// Two data directories that go by one node id at the same time, with their addresses.
    pub(super) fn clash(&self, now: Instant) -> Option<(NodeId, Vec<String>)> {
        let mut candidates: Vec<_> = self.fresh(now).map(|peer| &peer.candidate).collect();
        candidates.push(&self.me);
        candidates.sort();
        let node = candidates.windows(2).find(|pair| pair[0].node == pair[1].node)?[0].node.clone();
        candidates.retain(|candidate| candidate.node == node);
        let addrs = candidates.into_iter().map(|candidate| candidate.node_addr.clone()).collect();
        Some((node, addrs))
    }

    /// The `expect` lowest node ids of this node and its mutual candidates, if there are so many and
    /// this node is among them.
    pub(super) fn lowest(&self, now: Instant, expect: u32) -> Option<Vec<Candidate>> {
        let mut members: Vec<_> = self.mutual(now, expect).map(|peer| peer.candidate.clone()).collect();
        members.push(self.me.clone());
        members.sort();
        members.truncate(expect as usize);
        (members.len() == expect as usize && members.contains(&self.me)).then_some(members)
    }

    /// The vote to follow: of the highest round above `round`, then of the lowest members, among
    /// those that name exactly `expect` nodes, all of them heard now and this one among them.
    pub(super) fn adoptable(&self, now: Instant, expect: u32, round: u64) -> Option<&Vote> {
        let votes = self.by_key.values().filter_map(|peer| peer.vote.as_ref());
        votes
            .filter(|vote| vote.round > round && vote.members.len() == expect as usize)
            .filter(|vote| vote.members.contains(&self.me))
            .filter(|vote| vote.members.iter().all(|member| self.is_electable(now, expect, member)))
            .max_by_key(|vote| (vote.round, Reverse(&vote.members)))
    }

    /// Whether some member of `vote`, which is this node's, has shown a vote of its round or a higher
    /// one that is another: then it can never be unanimous.
    pub(super) fn is_evidence_against(&self, vote: &Vote) -> bool {
        let differs = |other: &Vote| other.round >= vote.round && other != vote;
        vote.members.iter().any(|member| self.vote_of(member).is_some_and(differs))
    }

    /// Whether every other member of `vote`, which is this node's, has shown the same.
    pub(super) fn is_unanimous(&self, vote: &Vote) -> bool {
        self.missing(vote).is_empty()
    }

    /// The other members of `vote` that have not shown the same.
    pub(super) fn missing(&self, vote: &Vote) -> Vec<NodeId> {
        let others = vote.members.iter().filter(|member| !member.is_same_node(&self.me));
        others.filter(|member| self.vote_of(member) != Some(vote)).map(|member| member.node.clone()).collect()
    }

    /// The highest round of any vote that was shown.
    pub(super) fn round_max(&self) -> u64 {
        self.by_key.values().filter_map(|peer| peer.vote.as_ref()).map(|vote| vote.round).max().unwrap_or(0)
    }

    fn vote_of(&self, member: &Candidate) -> Option<&Vote> {
        self.by_key.get(&key(member))?.vote.as_ref()
    }

    fn is_electable(&self, now: Instant, expect: u32, member: &Candidate) -> bool {
        let is_mutual = |peer: &Peer| peer.candidate == *member && peer.is_mutual(now, self.timeout, expect);
        *member == self.me || self.by_key.get(&key(member)).is_some_and(is_mutual)
    }

    fn fresh(&self, now: Instant) -> impl Iterator<Item = &Peer> {
        self.by_key.values().filter(move |peer| peer.is_fresh(now, self.timeout))
    }

    fn mutual(&self, now: Instant, expect: u32) -> impl Iterator<Item = &Peer> {
        self.by_key.values().filter(move |peer| peer.is_mutual(now, self.timeout, expect))
    }

    fn is_pinned(&self, key: &Key) -> bool {
        self.pinned.iter().any(|member| member.node == key.0 && member.store == key.1)
    }

    /// Whether `newcomer` has a place, which another may have to give up.
    fn make_room(&mut self, now: Instant, newcomer: &Key) -> bool {
        if self.by_key.contains_key(newcomer) || self.by_key.len() < CANDIDATES_MAX {
            return true;
        }
        self.expire(now);
        if self.by_key.len() < CANDIDATES_MAX {
            return true;
        }
        let Some(last) = self.by_key.keys().rev().find(|key| !self.is_pinned(key)).cloned() else {
            return false;
        };
        let has_place = *newcomer < last || self.is_pinned(newcomer);
        if has_place {
            self.by_key.remove(&last);
        }
        has_place
    }
}

impl Peer {
    fn is_fresh(&self, now: Instant, timeout: Duration) -> bool {
        now.since(self.heard_at) <= timeout
    }

    /// Whether both hear each other and want the same.
    fn is_mutual(&self, now: Instant, timeout: Duration, expect: u32) -> bool {
        self.hears_me && self.expect == Some(expect) && self.is_fresh(now, timeout)
    }
}

fn key(candidate: &Candidate) -> Key {
    (candidate.node.clone(), candidate.store)
}

/// The vote of the higher round: a late greeting takes nothing back.
fn later(before: Option<Vote>, shown: Option<Vote>) -> Option<Vote> {
    match (before, shown) {
        (Some(before), Some(shown)) => Some(if shown.round > before.round { shown } else { before }),
        (before, shown) => before.or(shown),
    }
}
