//! Support between nodes, leases and barriers.

use super::limits::{NODES_MAX, RATE, RATE_ASKER, SUPPORT};
use super::message::{Kind, Message};

use super::rules::{Invariant, Rule};
use super::set::Set;
use super::state::{Barrier, Cause, Silence, World};

impl World {
    /// L1: `node` asks those for support who follow what it leads.
    pub(crate) fn ask(&mut self, node: usize, partition: usize) -> bool {
        if !self.is_leading(node, partition) {
            return false;
        }
        let message = Message {
            kind: Kind::Ask,
            from: node as u8,
            inc: self.nodes[node].inc,
            at: self.now,
            ..Message::default()
        };
        let until = self.support_until(node, self.now);
        let mut is_sent = false;
        for other in self.maximal(node, partition).without(node) {
            if until > self.nodes[node].support[other] {
                is_sent |= self.send(Message { to: other as u8, ..message });
            }
        }
        is_sent
    }

    /// L1, L3: promises support, and says under which topology version, in one step.
    pub(crate) fn handle_ask(&mut self, message: &Message) -> bool {
        let (node, asker) = (usize::from(message.to), usize::from(message.from));
        if !self.acts(node) || message.inc < self.nodes[node].promised_inc[asker] {
            return false;
        }
        let until = self.clock(node) + SUPPORT * RATE;
        let version = self.nodes[node].adopted;
        let promises = &mut self.nodes[node];
        promises.promised[asker] = promises.promised[asker].max(until);
        promises.promised_inc[asker] = message.inc;
        let named = if self.holds(Rule::AnswerNamesVersion) { version } else { 0 };
        let answer =
            Message { kind: Kind::Support, from: message.to, to: message.from, x: named, ..*message };
        self.bag.send(answer);
        true
    }

    /// Whether a promise may be counted already.
    pub(crate) fn is_support_due(&self, message: &Message) -> bool {
        let adopted = self.nodes[usize::from(message.to)].adopted;
        message.x <= adopted || !self.holds(Rule::AnswerWaitsForVersion)
    }

    /// L1: counts a promise, from when it was asked for and by eps shorter than it was given.
    pub(crate) fn handle_support(&mut self, message: &Message) -> bool {
        let (node, giver) = (usize::from(message.to), usize::from(message.from));
        let is_of_run = self.nodes[node].inc == message.inc || !self.holds(Rule::SupportEndsWithRun);
        if !self.acts(node) || !is_of_run {
            return false;
        }
        let from = if self.holds(Rule::ClockFromSending) { message.at } else { self.now };
        let until = self.support_until(node, from);
        let is_news = until > self.nodes[node].support[giver] && until > self.clock(node);
        if is_news {
            self.nodes[node].support[giver] = until;
            for partition in 0..self.leading.len() {
                self.touch(node, partition);
            }
        }
        is_news
    }

    /// Until when, by its own clock, an asker counts a promise that it asked for at `from`.
    fn support_until(&self, node: usize, from: u32) -> u32 {
        let counted = if self.holds(Rule::ClockMargin) { RATE_ASKER } else { RATE };
        from * u32::from(self.nodes[node].rate) + SUPPORT * counted
    }

    /// L2: whether every other member of the maximal set supports `node` now.
    pub(crate) fn has_lease(&self, node: usize, partition: usize) -> bool {
        let leader = &self.leaders[partition][node];
        let is_given_up = leader.silence != Silence::None && self.holds(Rule::LeaseGivenUp);
        if is_given_up || self.is_waiting(node, partition) {
            return false;
        }
        let is_maximal = self.holds(Rule::LeaseByMaximalSet);
        let maximal = self.maximal(node, partition);
        let members = if is_maximal { maximal } else { self.view(node, partition).in_sync };
        let now = self.clock(node);
        members.without(node).into_iter().all(|member| self.nodes[node].support[member] > now)
    }

    /// L3: until when, by its own clock, a new leader keeps still.
    pub(crate) fn wait_owed(&self, node: usize, partition: usize) -> u32 {
        if !self.holds(Rule::WaitAfterElection) {
            return 0;
        }
        let view = self.view(node, partition);
        let holder = &self.nodes[node];
        let mut owed_to = self.all().without(node);
        match view.cause {
            Cause::Handoff => return 0,
            Cause::Stop(_) if !self.holds(Rule::StopExemptsSenderOnly) => return 0,
            Cause::Stop(sender) => owed_to = owed_to.without(usize::from(sender)),
            Cause::Election => {}
        }
        if !self.holds(Rule::WaitForAllPromises) {
            owed_to = owed_to.and(Set(1_u8.checked_shl(u32::from(view.predecessor)).unwrap_or(0)));
        }
        let is_strict = self.holds(Rule::RunExemptsOlderOnly);
        let is_owed = |other: &usize| {
            let (promised, known) = (holder.promised_inc[*other], holder.topology.inc[*other]);
            if is_strict { known <= promised } else { known < promised }
        };
        owed_to.into_iter().filter(is_owed).map(|other| holder.promised[other]).max().unwrap_or(0)
    }

    /// L3: a process that starts counts as having promised every node, since it forgot what it promised.
    pub(crate) fn promise_everybody(&mut self, node: usize) {
        let until = self.clock(node) + SUPPORT * RATE;
        if self.holds(Rule::PromisesOutliveRestart) {
            self.nodes[node].promised = [until; NODES_MAX];
        }
    }

    /// L5: starts a barrier read.
    pub(crate) fn start_barrier(&mut self, node: usize, partition: usize) -> bool {
        let leader = &self.leaders[partition][node];
        let is_active = self.is_active(node, partition) || !self.holds(Rule::ReadsNeedActive);
        let may_read = is_active && !leader.barrier.is_open && leader.silence == Silence::None;
        if !self.is_leading(node, partition) || self.is_waiting(node, partition) || !may_read {
            return false;
        }
        let asked = self.maximal(node, partition).without(node);
        let round = leader.barrier.round + 1;
        self.leaders[partition][node].barrier = Barrier {
            round,
            is_open: true,
            index: self.replicas[partition][node].commit,
            missing: asked,
            floor: self.records[partition].len(self.ghosts[partition].committed),
        };
        for follower in asked {
            let head = self.to_follower(node, partition, follower);
            self.bag.send(Message { kind: Kind::Barrier, x: round, ..head });
        }
        self.complete_barrier(node, partition);
        true
    }

    /// L5: a follower of the same epoch answers.
    pub(crate) fn handle_barrier(&mut self, message: &Message) -> bool {
        let (node, partition) = (usize::from(message.to), usize::from(message.partition));
        let is_of_epoch = self.view(node, partition).epoch == message.epoch;
        if !self.acts(node) || !is_of_epoch && self.holds(Rule::BarrierChecksEpoch) {
            return false;
        }
        let answer = Message { kind: Kind::BarrierAck, from: message.to, to: message.from, ..*message };
        self.send(answer)
    }

    /// L5: counts an answer.
    pub(crate) fn handle_barrier_ack(&mut self, message: &Message) -> bool {
        let (node, partition) = (usize::from(message.to), usize::from(message.partition));
        let is_of_epoch = self.view(node, partition).epoch == message.epoch;
        let barrier = &self.leaders[partition][node].barrier;
        let is_own = barrier.round == message.x || !self.holds(Rule::BarrierAnswersOwn);
        let is_counted = barrier.is_open && is_own && barrier.missing.has(usize::from(message.from));
        if !self.is_leading(node, partition) || !is_of_epoch || !is_counted {
            return false;
        }
        let barrier = &mut self.leaders[partition][node].barrier;
        barrier.missing = barrier.missing.without(usize::from(message.from));
        self.complete_barrier(node, partition);
        true
    }

    fn complete_barrier(&mut self, node: usize, partition: usize) {
        let others = self.maximal(node, partition).len() - 1;
        let allowed = if self.holds(Rule::BarrierToAll) { 0 } else { others / 2 };
        let barrier = &mut self.leaders[partition][node].barrier;
        if barrier.missing.len() > allowed {
            return;
        }
        barrier.is_open = false;
        if barrier.index < barrier.floor {
            self.fail(Invariant::I11);
        }
    }
}
