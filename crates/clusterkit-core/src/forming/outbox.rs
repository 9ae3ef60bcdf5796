//! What the machine wants done.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use super::problem::PROBLEMS_MAX;
use super::{Action, Candidate, Problem, Vote};
use crate::id::ClusterId;

/// One place for each kind of work, so that nothing piles up when the shell is slow: there is one
/// vote at most, one cluster, and an address is greeted once however often it was due.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    vote: Option<Vote>,
    formed: Option<(ClusterId, Vec<Candidate>)>,
    join: Option<(String, ClusterId)>,
    problems: VecDeque<Problem>,
    greets: BTreeSet<String>,
}

impl Outbox {
    pub(super) fn persist(&mut self, vote: Vote) {
        self.vote = Some(vote);
    }

    /// What was wanted before serves no purpose any more, but for what the operator shall know.
    pub(super) fn form(&mut self, cluster: ClusterId, members: Vec<Candidate>) {
        self.vote = None;
        self.join = None;
        self.greets.clear();
        self.formed = Some((cluster, members));
    }

    pub(super) fn join(&mut self, addr: String, cluster: ClusterId) {
        self.join = Some((addr, cluster));
    }

    pub(super) fn report(&mut self, problem: Problem) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push_back(problem);
        }
    }

    pub(super) fn greet(&mut self, addr: String) {
        self.greets.insert(addr);
    }

    pub(super) fn pop(&mut self) -> Option<Action> {
        if let Some(vote) = self.vote.take() {
            return Some(Action::PersistVote(vote));
        }
        if let Some((cluster, members)) = self.formed.take() {
            return Some(Action::Formed { cluster, members });
        }
        if let Some((addr, cluster)) = self.join.take() {
            return Some(Action::Join { addr, cluster });
        }
        if let Some(problem) = self.problems.pop_front() {
            return Some(Action::Report(problem));
        }
        self.greets.pop_first().map(|addr| Action::Greet { addr })
    }
}
