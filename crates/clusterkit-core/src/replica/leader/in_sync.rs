//! The in-sync set: who is left out, who is taken in (rules S1 to S6).

use alloc::collections::{BTreeMap, BTreeSet};

use super::super::action::{Action, Wish};
use super::super::mistake::Mistake;
use super::super::{Context, Replica, Role};
use super::{Leader, Progress};
use crate::control::InSyncProposal;
use crate::id::{Incarnation, NodeId};
use crate::time::Instant;

/// A change that was sent. It may come true at any time until a higher version is known, so its members count
/// as members (rule S4).
#[derive(Debug)]
pub(crate) struct Proposal {
    sent: InSyncProposal,
    resend_at: Instant,
}

impl Proposal {
    pub(super) fn in_sync(&self) -> &BTreeSet<NodeId> {
        &self.sent.in_sync
    }

    pub(super) fn resend_at(&self) -> Instant {
        self.resend_at
    }
}

impl Replica {
    /// Proposes another in-sync set where one is due. One proposal is out at a time.
    pub(super) fn change_in_sync(&mut self, cx: &Context<'_>) {
        self.measure(cx);
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(proposal) = &mut leader.proposal {
            if proposal.resend_at <= cx.now {
                proposal.resend_at = cx.now + cx.config.resend;
                let wish = Wish::SetInSync(proposal.sent.clone());
                self.actions.push_back(Action::Wish(wish));
                if cx.config.mistakes.has(Mistake::ProposalForgotten) {
                    leader.proposal = None;
                }
            }
            return;
        }
        if leader.is_quiet(cx.now) {
            return;
        }
        if let Some(proposal) = self.wanted(cx) {
            self.propose_in_sync(cx, proposal);
        }
    }

    fn measure(&mut self, cx: &Context<'_>) {
        let (end, commit) = (self.log.end(), self.commit);
        let Role::Leader(leader) = &mut self.role else { return };
        let early = cx.config.mistakes.has(Mistake::ExpandEarly);
        let bound = if early { commit.min(leader.epoch_start) } else { commit.max(leader.epoch_start) };
        for progress in leader.followers.values_mut() {
            let is_level = progress.is_attached() && progress.matched() >= bound;
            progress.measure(cx, end, is_level);
        }
    }

    /// The set without those that lag and with those that have caught up, if that is another one.
    fn wanted(&self, cx: &Context<'_>) -> Option<InSyncProposal> {
        let Role::Leader(leader) = &self.role else { return None };
        let record = &self.record;
        let added = self.ready(cx, leader);
        let lags = |node: &&NodeId| leader.followers.get(*node).is_some_and(|follower| follower.lags(cx));
        if added.is_empty() && !record.in_sync.iter().any(|node| lags(&node)) {
            return None;
        }
        let (lagging, keeping): (BTreeSet<_>, BTreeSet<_>) = record.in_sync.iter().partition(lags);
        let mut in_sync: BTreeSet<NodeId> = keeping.into_iter().chain(added.keys()).cloned().collect();
        // Those that live are the last to be left out.
        let (alive, dead): (BTreeSet<_>, BTreeSet<_>) =
            lagging.into_iter().partition(|node| cx.topology.is_live(node));
        let minimum = record.min_in_sync as usize;
        for node in alive.into_iter().chain(dead) {
            if in_sync.len() < minimum {
                in_sync.insert(node.clone());
            }
        }
        let is_due = in_sync != record.in_sync || !added.is_empty();
        (is_due && in_sync.len() >= minimum).then(|| InSyncProposal {
            partition: self.key.partition,
            version: record.version,
            epoch: record.epoch,
            leader: cx.me.clone(),
            leader_incarnation: cx.incarnation,
            in_sync,
            added,
        })
    }

    /// Who is outside, or tainted, and has everything (rules S2, R4).
    fn ready(&self, cx: &Context<'_>, leader: &Leader) -> BTreeMap<NodeId, Incarnation> {
        let record = &self.record;
        let is_wanted =
            |node: &NodeId| !record.is_electable(node) && record.holds(node) && cx.topology.is_live(node);
        let is_ready = |(node, progress): &(&NodeId, &Progress)| {
            let is_of_run =
                cx.topology.node(node).is_some_and(|known| known.incarnation == progress.incarnation);
            is_wanted(node) && is_of_run && progress.has_proved_itself(cx) && !progress.lags(cx)
        };
        let ready = leader.followers.iter().filter(is_ready);
        ready.map(|(node, progress)| (node.clone(), progress.incarnation)).collect()
    }

    fn propose_in_sync(&mut self, cx: &Context<'_>, sent: InSyncProposal) {
        let Role::Leader(leader) = &mut self.role else { return };
        for node in self.record.in_sync.difference(&sent.in_sync) {
            if let Some(progress) = leader.followers.get_mut(node) {
                progress.note_expelled();
            }
        }
        self.actions.push_back(Action::Wish(Wish::SetInSync(sent.clone())));
        leader.proposal = Some(Proposal { sent, resend_at: cx.now + cx.config.resend });
    }
}
