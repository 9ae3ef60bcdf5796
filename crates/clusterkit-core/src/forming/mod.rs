//! How nodes that know little of each other become exactly one cluster, whatever their start order,
//! and how later nodes find it.
//!
//! Every node greets its seeds and whomever it hears of, and answers greetings. Once it hears enough
//! candidates that hear it as well, it casts a [`Vote`]: *this set of nodes, in this round*. A
//! cluster has formed when each member of a set has a durable vote for the same set and round.
//!
//! # Rules
//!
//! 1. A node has at most one vote in each round, and its rounds only grow.
//! 2. A vote is durable before anybody is shown it, and survives a restart.
//! 3. A node whose vote is (r, S) votes in a higher round only on *evidence* that (r, S) can never
//!    be unanimous: some member of S has a durable vote of round r or higher that is not (r, S).
//! 4. (r, S) forms the cluster once each member of S has, or once had, the durable vote (r, S).
//!
//! # Why two clusters never share a node
//!
//! Let (r, S) be unanimous, be it over time. No member of S ever votes after it: take the member m
//! that does so first. By rule 3 it was shown a vote v of some member s of S, of round r or higher,
//! that is not (r, S). Were v of round r, then s would have two votes in one round, against rule 1.
//! Were v of a higher round, then s had voted (r, S) before it, since rounds only grow and (r, S) is
//! unanimous, and so s voted after (r, S) before m did. So m was not the first, and a first mover
//! cannot exist. Now let a node be a member of two sets that were unanimous. By rule 1 their rounds
//! differ, so it voted after the lower one, which no member of that one ever does.
//!
//! A node that lost its disk has another [`StoreId`](crate::id::StoreId), so it is another candidate
//! and never votes twice for the one that it was.
//!
//! # Why it ends
//!
//! A node without a vote, or with one that it may leave, adopts the vote of the highest round that
//! names only nodes which it hears now; only when there is none it casts its own, of a round above
//! all it knows and for the lowest node ids among its candidates, and less and less often. Once
//! messages flow all own votes name the same set, so that a higher round only ever repeats it and
//! the others follow. What cannot
//! end is a set of which a member stays away for good: it may have formed with that member's help,
//! so its voters wait, and say for whom ([`Problem::VotesMissing`]).

mod config;
mod contacts;
mod jitter;
mod outbox;
mod peers;
mod problem;
mod vote;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::config::{Config, InvalidConfig};
use self::contacts::Contacts;
use self::jitter::Jitter;
use self::outbox::Outbox;
use self::peers::Peers;
pub use self::problem::Problem;
use self::problem::Problems;
use self::vote::Ballot;
pub use self::vote::{Candidate, Vote};
use crate::id::ClusterId;
use crate::time::Instant;

/// Candidates that one node remembers at once; when there are more, the lowest node ids count.
pub const CANDIDATES_MAX: usize = crate::limits::EXPECT_MAX as usize * 2;
/// Seeds that one node greets; further ones are left out.
pub const SEEDS_MAX: usize = 128;
/// The longest pause: between two greetings of an address that does not answer, and before a node
/// that already voted casts another vote of its own.
pub const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Greetings that one node sends in one beat. All candidates must have their turn well within
/// [`Config::candidate_timeout`].
pub const GREETS_PER_BEAT_MAX: usize = 16;

const _: () = assert!(CANDIDATES_MAX / GREETS_PER_BEAT_MAX <= config::BEATS_PER_TIMEOUT_MIN as usize);

/// The part of a node that forms a cluster or finds one.
///
/// The shell makes one at every start of a node that belongs to no cluster yet, answers each
/// incoming greeting with [`Self::greeting`] after [`Self::handle_greeting`], carries out what
/// [`Self::poll_action`] says, and drops it once the node belongs to a cluster.
///
/// Invariants:
/// - the vote that is shown is durable;
/// - at most one vote is being made durable, and its round is above that of the durable one;
/// - once formed, a machine changes nothing any more.
#[derive(Debug)]
pub struct Forming {
    config: Config,
    /// The latest time this machine was told.
    now: Instant,
    ballot: Ballot,
    peers: Peers,
    contacts: Contacts,
    problems: Problems,
    jitter: Jitter,
    outbox: Outbox,
    formed: Option<ClusterId>,
    /// When somebody last said that a cluster of this name exists.
    cluster_heard_at: Option<Instant>,
    joined_at: Option<Instant>,
    /// How often this node voted, and before when it casts no further vote of its own.
    vote_count: u32,
    vote_again_at: Instant,
    beat_at: Instant,
    greets_left: usize,
    /// Since when this node waits for candidates or for the votes of its set.
    waiting_since: Instant,
}

impl Forming {
    /// Begins, or goes on after a restart with the vote that was last made durable. The first
    /// greetings are due at once.
    ///
    /// A recovered vote that does not name this node with this store was cast by somebody else, and
    /// counts for nothing.
    ///
    /// # Panics
    ///
    /// When [`Config::check`] would refuse `config`.
    #[must_use]
    pub fn new(config: Config, recovered: Option<Vote>, seed: u64, now: Instant) -> Self {
        assert_eq!(config.check(), Ok(()), "the configuration was checked before");
        let recovered = recovered.filter(|vote| vote.is_cast_by(&config.me));
        let mut contacts = Contacts::new(config.beat, config.me.node_addr.clone());
        contacts.replace_seeds(now, config.seeds.iter().cloned());
        let mut forming = Self {
            now,
            ballot: Ballot::recovered(recovered),
            peers: Peers::new(config.me.clone(), config.candidate_timeout),
            contacts,
            problems: Problems::default(),
            jitter: Jitter::new(seed),
            outbox: Outbox::default(),
            formed: None,
            cluster_heard_at: None,
            joined_at: None,
            vote_count: 0,
            vote_again_at: now,
            beat_at: now,
            greets_left: GREETS_PER_BEAT_MAX,
            waiting_since: now,
            config,
        };
        forming.peers.pin(forming.ballot.durable());
        forming.beat(now);
        forming
    }

    /// The seeds are exactly `seeds`: for a shell that looks them up again and again.
    pub fn handle_seeds(&mut self, now: Instant, seeds: impl IntoIterator<Item = String>) {
        self.now = self.now.max(now);
        if self.formed.is_none() {
            self.contacts.replace_seeds(now, seeds);
            self.greet(now);
        }
    }

    /// A greeting came, as a request or as the answer to [`Action::Greet`]. `from_addr` is the
    /// address that was greeted if it is an answer, and where the request came from otherwise.
    pub fn handle_greeting(&mut self, now: Instant, from_addr: &str, greeting: Greeting) {
        self.now = self.now.max(now);
        if self.formed.is_some() {
            return;
        }
        if greeting.candidate == self.config.me {
            return self.contacts.forget(from_addr);
        }
        if let Some(problem) = self.foreign(&greeting) {
            self.put_off(now, from_addr);
            return self.report(now, problem);
        }
        self.contacts.answered(now, from_addr, &greeting.candidate.node_addr);
        self.hear(now, greeting);
        self.decide(now);
        self.greet(now);
    }

    /// A greeting to `addr` got no answer that counts. It is tried again, less and less often.
    pub fn handle_unreachable(&mut self, now: Instant, addr: &str, why: Unreachable) {
        self.now = self.now.max(now);
        if self.formed.is_some() {
            return;
        }
        self.put_off(now, addr);
        let failing_since = self.contacts.failing_since(addr);
        let addr = addr.to_string();
        match why {
            Unreachable::NotClusterKit => self.report(now, Problem::NotClusterKit { addr }),
            Unreachable::OtherCluster { name } => {
                self.report(now, Problem::ClusterNameDiffers { addr, theirs: name });
            }
            Unreachable::Refused | Unreachable::TimedOut => {
                if failing_since.is_some_and(|since| self.is_overdue(now, since)) {
                    self.report(now, Problem::NoAnswer { addr });
                }
            }
        }
    }

    /// The vote of `round` is durable: from now on it is shown. Another round changes nothing.
    pub fn handle_vote_durable(&mut self, now: Instant, round: u64) {
        self.now = self.now.max(now);
        let Some(vote) = self.ballot.confirm(round) else { return };
        self.peers.pin(Some(vote));
        self.waiting_since = now;
        for addr in self.peers.pinned_addrs() {
            self.contacts.hurry(now, &addr);
        }
        self.decide(now);
        self.greet(now);
    }

    /// Time passed. Harmless when it is called early or late.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if self.formed.is_none() && now >= self.beat_at {
            self.beat(now);
        }
    }

    /// The next thing for the shell to do, `None` when there is nothing more for now.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.outbox.pop()
    }

    /// When [`Self::handle_timeout`] wants to be called; `None` once the cluster has formed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.formed.is_none().then_some(self.beat_at)
    }

    /// What to send with [`Action::Greet`], and to answer every greeting with.
    #[must_use]
    pub fn greeting(&self) -> Greeting {
        Greeting {
            candidate: self.config.me.clone(),
            cluster_name: self.config.cluster_name.clone(),
            expect: self.config.expect,
            known: self.peers.heard(self.now),
            vote: self.ballot.durable().cloned(),
            formed: self.formed,
        }
    }

    /// Greets `addr` again after a while, and later each time.
    fn put_off(&mut self, now: Instant, addr: &str) {
        let pause = self.config.backoff(self.contacts.failures(addr));
        self.contacts.failed(now, addr, self.jitter.upper_half(pause));
    }

    /// Why a greeting does not count at all, if so.
    fn foreign(&self, greeting: &Greeting) -> Option<Problem> {
        let Candidate { node, store, node_addr: addr } = greeting.candidate.clone();
        if greeting.cluster_name != self.config.cluster_name {
            Some(Problem::ClusterNameDiffers { addr, theirs: greeting.cluster_name.clone() })
        } else if store == self.config.me.store {
            Some(Problem::StoreClash { store, node, addr })
        } else {
            None
        }
    }

    /// Takes in the greeting of another node of a cluster of this name.
    fn hear(&mut self, now: Instant, greeting: Greeting) {
        let until = now + self.config.candidate_timeout;
        if greeting.is_to_be_greeted() {
            self.contacts.mention(now, &greeting.candidate.node_addr, until);
        }
        for candidate in greeting.known.iter().take(CANDIDATES_MAX) {
            self.contacts.mention(now, &candidate.node_addr, until);
        }
        match greeting.formed {
            Some(cluster) => self.hear_cluster(now, cluster, &greeting.candidate),
            None => self.check_expect(now, &greeting),
        }
        self.peers.hear(now, greeting);
        if let Some((node, addrs)) = self.peers.clash(now) {
            self.report(now, Problem::NodeIdClash { node, addrs });
        }
    }

    /// A cluster of this name exists: it is the one this node voted for, or one to join.
    fn hear_cluster(&mut self, now: Instant, cluster: ClusterId, teller: &Candidate) {
        let voted = self.ballot.durable().map(|vote| vote.cluster_id(&self.config.cluster_name));
        if voted == Some(cluster) {
            return self.form();
        }
        self.cluster_heard_at = Some(now);
        if self.joined_at.is_none_or(|at| now.since(at) >= self.config.beat) {
            self.joined_at = Some(now);
            self.outbox.join(teller.node_addr.clone(), cluster);
        }
    }

    fn check_expect(&mut self, now: Instant, greeting: &Greeting) {
        if let (Some(mine), Some(theirs)) = (self.config.expect, greeting.expect)
            && mine != theirs
        {
            let Candidate { node, node_addr, .. } = greeting.candidate.clone();
            self.report(now, Problem::ExpectDiffers { node, addr: node_addr, theirs });
        }
    }

    /// Forms the cluster if that is so, and votes if that is due.
    fn decide(&mut self, now: Instant) {
        if self.formed.is_some() {
            return;
        }
        if self.ballot.durable().is_some_and(|vote| self.peers.is_unanimous(vote)) {
            return self.form();
        }
        if let Some(vote) = self.next_vote(now) {
            self.cast(now, vote);
        }
    }

    /// While nodes do not hear each other well, each could find a reason for a vote of its own in
    /// every vote of another. So they do that less and less often, and in no common rhythm.
    fn cast(&mut self, now: Instant, vote: Vote) {
        let pause = self.config.backoff(self.vote_count);
        self.vote_count = self.vote_count.saturating_add(1);
        self.vote_again_at = now + self.jitter.upper_half(pause);
        self.ballot.cast(vote.clone());
        self.outbox.persist(vote);
    }

    /// The vote to cast now: one that others have shown, or else this node's own.
    fn next_vote(&self, now: Instant) -> Option<Vote> {
        let expect = self.config.expect?;
        if !self.may_vote(now) {
            return None;
        }
        let round = self.ballot.durable().map_or(0, |vote| vote.round);
        let shown = self.peers.adoptable(now, expect, round);
        shown.cloned().or_else(|| self.own_vote(now, expect, round))
    }

    /// The third rule, and the two conditions under which a vote would be a mistake.
    fn may_vote(&self, now: Instant) -> bool {
        let may_leave = self.ballot.durable().is_none_or(|vote| self.peers.is_evidence_against(vote));
        let may_join = self.cluster_heard_at.is_some_and(|at| now.since(at) <= self.config.candidate_timeout);
        may_leave && !self.ballot.is_casting() && !may_join && self.peers.clash(now).is_none()
    }

    fn own_vote(&self, now: Instant, expect: u32, round: u64) -> Option<Vote> {
        if now < self.vote_again_at {
            return None;
        }
        let members = self.peers.lowest(now, expect)?;
        let round = round.max(self.peers.round_max()).checked_add(1)?;
        Some(Vote { round, members })
    }

    /// The durable vote is unanimous.
    fn form(&mut self) {
        let vote = self.ballot.durable().expect("only a durable vote forms a cluster");
        let cluster = vote.cluster_id(&self.config.cluster_name);
        self.formed = Some(cluster);
        self.outbox.form(cluster, vote.members.clone());
    }

    fn beat(&mut self, now: Instant) {
        self.beat_at = now + self.jitter.around(self.config.beat);
        self.greets_left = GREETS_PER_BEAT_MAX;
        self.peers.expire(now);
        for addr in self.peers.pinned_addrs() {
            self.contacts.mention(now, &addr, now + self.config.candidate_timeout);
        }
        self.report_waiting(now);
        self.decide(now);
        self.greet(now);
    }

    /// Sends the greetings that are due, as far as this beat allows.
    fn greet(&mut self, now: Instant) {
        if self.formed.is_some() {
            return;
        }
        for addr in self.contacts.take_due(now, self.greets_left) {
            self.greets_left -= 1;
            self.outbox.greet(addr);
        }
    }

    fn report_waiting(&mut self, now: Instant) {
        if !self.is_overdue(now, self.waiting_since) || self.cluster_heard_at.is_some() {
            return;
        }
        if let Some(vote) = self.ballot.durable() {
            let problem = Problem::VotesMissing { round: vote.round, nodes: self.peers.missing(vote) };
            self.report(now, problem);
        } else if let Some(expect) = self.config.expect {
            let heard = self.peers.heard_nodes(now);
            if heard.len() < expect as usize {
                self.report(now, Problem::CandidatesMissing { expect, heard });
            }
        }
    }

    /// Whether something lasts longer than a start in ordinary order takes.
    fn is_overdue(&self, now: Instant, since: Instant) -> bool {
        now.since(since) > self.config.candidate_timeout
    }

    fn report(&mut self, now: Instant, problem: Problem) {
        if self.problems.is_news(now, &problem) {
            self.outbox.report(problem);
        }
    }
}

/// What a node says of itself to others, as a request and as the answer to one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Who speaks.
    pub candidate: Candidate,
    /// The cluster it is meant for. A greeting for another one does not count.
    pub cluster_name: String,
    /// How many nodes shall form the cluster, `None` when the speaker only joins one.
    pub expect: Option<u32>,
    /// Whom the speaker heard directly and recently, at most [`CANDIDATES_MAX`]. The receiver greets
    /// them, and counts the speaker as a candidate only while it is among them itself.
    pub known: Vec<Candidate>,
    /// The speaker's last vote, which is durable.
    pub vote: Option<Vote>,
    /// The cluster that the speaker belongs to, once it does. The receiver joins that one, or finds
    /// that it formed it as well.
    pub formed: Option<ClusterId>,
}

impl Greeting {
    /// Whether the speaker is to be greeted as well. One that only joins tells nothing that it would
    /// not tell by itself, and there may be many of them.
    fn is_to_be_greeted(&self) -> bool {
        self.expect.is_some() || self.vote.is_some() || self.formed.is_some()
    }
}

/// What the shell does for the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The cluster has formed, and this node is one of its first members. Comes once in the life of
    /// a machine, and with the same values again after a restart.
    Formed {
        /// The cluster's identity.
        cluster: ClusterId,
        /// Its first members, the same list at each of them. An address is the one that the member
        /// had when it was voted for.
        members: Vec<Candidate>,
    },
    /// Send [`Forming::greeting`] to `addr` and hand the answer to [`Forming::handle_greeting`], or
    /// say by [`Forming::handle_unreachable`] why there is none.
    Greet {
        /// Whom to greet.
        addr: String,
    },
    /// Ask the node at `addr` to take this one into its cluster. Comes again while greetings tell of
    /// it, since joining may fail.
    Join {
        /// The node address of a node of that cluster.
        addr: String,
        /// Which cluster; refuse if the node says another one.
        cluster: ClusterId,
    },
    /// Make this vote durable, in place of the one before, and say so by
    /// [`Forming::handle_vote_durable`]. If that fails the node must end.
    PersistVote(Vote),
    /// Tell the operator.
    Report(Problem),
}

/// Why a greeting got no answer that counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unreachable {
    /// Somebody answered, and it was not ClusterKit.
    NotClusterKit,
    /// The node there belongs to a cluster of another name.
    OtherCluster {
        /// That name.
        name: String,
    },
    /// Nobody listens there.
    Refused,
    /// No answer in time.
    TimedOut,
}

#[cfg(test)]
mod tests;
