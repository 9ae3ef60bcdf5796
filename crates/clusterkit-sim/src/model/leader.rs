//! What a leader does: take writes, stream, commit, answer, propose, and leave.

use super::limits::LOG_MAX;
use super::message::{Kind, Message};
use super::record::{ROOT, Record};
use super::rules::{Invariant, Rule};
use super::set::Set;
use super::state::{Barrier, Leader, NONE, Proposal, Silence, World};

/// How a leader wants to change the in-sync set.
#[derive(Debug, Clone, Copy)]
struct Change {
    in_sync: Set,
    added: Option<usize>,
}

impl World {
    /// F4: `node` learned that it leads.
    pub(crate) fn lead(&mut self, node: usize, partition: usize) {
        let epoch = usize::from(self.view(node, partition).epoch);
        let led_by = self.ghosts[partition].led_by[epoch];
        if led_by != NONE && usize::from(led_by) != node {
            self.fail(Invariant::I1);
        }
        self.ghosts[partition].led_by[epoch] = node as u8;
        let before = self.leaders[partition][node];
        let barrier = Barrier { round: before.barrier.round, ..Barrier::default() };
        let mut leader = Leader { barrier, ..Leader::default() };
        if !self.holds(Rule::ProgressClearedOnElection) {
            leader.matched = before.matched;
            leader.matched_inc = before.matched_inc;
            leader.attached = before.attached;
        }
        leader.epoch_start = self.log_end(node, partition);
        leader.wait = self.wait_owed(node, partition);
        self.leaders[partition][node] = leader;
        self.leading[partition] = self.leading[partition].with(node);
        if self.holds(Rule::NoOpOnElection) {
            self.append(node, partition, (0, 0));
        }
        self.touch(node, partition);
    }

    /// W1 to W3: a write of `client`, its next one or its last one again.
    pub(crate) fn write(&mut self, node: usize, partition: usize, client: u8, is_new: bool) -> bool {
        let leader = &self.leaders[partition][node];
        if !self.is_leading(node, partition) || leader.silence != Silence::None {
            return false;
        }
        let seq = self.ghosts[partition].seq[usize::from(client)] + u8::from(is_new);
        let replica = &self.replicas[partition][node];
        let applied = self.records[partition].cut(replica.tip, replica.commit);
        let is_repeated = self.records[partition].repeated(applied, client, seq) > replica.sessions_from;
        if seq == 0 || is_repeated && self.holds(Rule::DeduplicateOnAppend) {
            return false;
        }
        if !self.append(node, partition, (client, seq)) {
            return false;
        }
        self.ghosts[partition].seq[usize::from(client)] = seq;
        true
    }

    fn append(&mut self, node: usize, partition: usize, (client, seq): (u8, u8)) -> bool {
        let parent = self.replicas[partition][node].tip;
        let len = self.records[partition].len(parent) + 1;
        if len > LOG_MAX || self.records[partition].is_full() {
            return false;
        }
        let epoch = self.view(node, partition).epoch;
        let made = &mut self.ghosts[partition].made[usize::from(epoch)];
        let is_made_twice = *made >= len;
        *made = len.max(*made);
        let last = self.records[partition].at(parent).time;
        let wall = self.nodes[node].wall;
        let time = if self.holds(Rule::LogTimeForward) { wall.max(last) } else { wall };
        let record = Record { parent, epoch, client, seq, time, ..Record::default() };
        self.replicas[partition][node].tip = self.records[partition].push(record);
        self.touch(node, partition);
        if is_made_twice {
            self.fail(Invariant::I5);
        }
        if time < last {
            self.fail(Invariant::I13);
        }
        true
    }

    /// W4: streams to `follower`. `choice` says from where, and how much.
    pub(crate) fn stream(&mut self, node: usize, partition: usize, follower: usize, choice: u8) -> bool {
        let leader = &self.leaders[partition][node];
        if !self.is_leading(node, partition) || !leader.attached.has(follower) || follower == node {
            return false;
        }
        let replica = &self.replicas[partition][node];
        let end = self.log_end(node, partition);
        let (matched, sent) = (leader.matched[follower], leader.sent[follower]);
        let start = if choice & 3 == 0 { matched } else { matched.max(sent) }.min(end);
        let to = if choice & 4 == 0 { end } else { (start + 1).min(end) };
        // Empty ones only tell the commit, or try the stream: a few of them do.
        if start == to && choice & 0x78 != 0 {
            return false;
        }
        let records = &self.records[partition];
        let message = Message {
            kind: Kind::Append,
            x: start,
            y: records.epoch(records.cut(replica.tip, start)),
            z: replica.commit,
            record: records.cut(replica.tip, to),
            inc: leader.matched_inc[follower],
            ..self.to_follower(node, partition, follower)
        };
        self.leaders[partition][node].sent[follower] = to;
        self.send(message)
    }

    /// The head of a message to `follower`, as the leader knows its replica.
    pub(crate) fn to_follower(&self, node: usize, partition: usize, follower: usize) -> Message {
        let view = self.view(node, partition);
        Message {
            partition: partition as u8,
            from: node as u8,
            to: follower as u8,
            epoch: view.epoch,
            uid: view.uid[follower],
            ..Message::default()
        }
    }

    /// Puts `message` under way, unless the same one is.
    pub(crate) fn send(&mut self, message: Message) -> bool {
        let is_new = !self.bag.all().contains(&message);
        if is_new {
            self.bag.send(message);
        }
        is_new
    }

    /// T2: compares the end of a follower's log with the own log.
    pub(crate) fn handle_attach(&mut self, message: &Message) -> bool {
        let (node, partition) = (usize::from(message.to), usize::from(message.partition));
        let follower = usize::from(message.from);
        let (view, leader) = (self.view(node, partition), &self.leaders[partition][node]);
        let is_of_epoch = view.epoch == message.epoch || !self.holds(Rule::AttachChecksEpoch);
        let is_of_uid = view.uid[follower] == message.uid || !self.holds(Rule::UidChecked);
        let is_late = message.inc < leader.matched_inc[follower];
        let is_dropped = is_late && self.holds(Rule::AttachChecksIncarnation);
        if !self.is_leading(node, partition) || !is_of_epoch || !is_of_uid || is_dropped {
            return false;
        }
        if !view.replicas.has(follower) {
            return false;
        }
        let (epoch, end) = self.epoch_end(node, partition, message.y);
        let end = end.min(message.x);
        let is_match = epoch == message.y && message.x == end;
        let is_blind = !self.holds(Rule::TruncateAtAll) || !self.holds(Rule::TruncateByEpoch);
        if !(is_match || is_blind && message.x <= self.log_end(node, partition)) {
            return self.diverge(message, epoch, end);
        }
        if message.x < self.replicas[partition][node].log_start {
            return self.send_snapshot(node, partition, message);
        }
        self.attach_at(message, message.x);
        true
    }

    /// The epoch index of a leader: [`Records::epoch_end`](super::record::Records::epoch_end) of its log.
    fn epoch_end(&self, node: usize, partition: usize, epoch: u8) -> (u8, u8) {
        let replica = &self.replicas[partition][node];
        let (epoch, end) = self.records[partition].epoch_end(replica.tip, epoch);
        if end < replica.log_start && !self.holds(Rule::SnapshotKeepsEpochIndex) {
            return (0, 0);
        }
        (epoch, end)
    }

    fn attach_at(&mut self, message: &Message, end: u8) {
        let (node, partition) = (usize::from(message.to), usize::from(message.partition));
        let leader = &mut self.leaders[partition][node];
        let follower = usize::from(message.from);
        leader.attached = leader.attached.with(follower);
        leader.matched[follower] = end;
        leader.sent[follower] = end;
        leader.matched_inc[follower] = message.inc;
        self.touch(node, partition);
    }

    fn diverge(&mut self, attach: &Message, epoch: u8, end: u8) -> bool {
        let (node, partition) = (usize::from(attach.to), usize::from(attach.partition));
        if !self.holds(Rule::TruncateUntilMatch) {
            self.attach_at(attach, end);
        }
        let message = Message {
            kind: Kind::Diverge,
            uid: attach.uid,
            inc: attach.inc,
            x: epoch,
            y: end,
            z: attach.x,
            w: attach.y,
            ..self.to_follower(node, partition, usize::from(attach.from))
        };
        self.bag.send(message);
        true
    }

    /// T4: the state up to the start of the log.
    fn send_snapshot(&mut self, node: usize, partition: usize, attach: &Message) -> bool {
        let replica = &self.replicas[partition][node];
        let message = Message {
            kind: Kind::Snapshot,
            uid: attach.uid,
            inc: attach.inc,
            record: self.records[partition].cut(replica.tip, replica.log_start),
            ..self.to_follower(node, partition, usize::from(attach.from))
        };
        self.bag.send(message);
        true
    }

    /// W6, first half.
    pub(crate) fn handle_ack(&mut self, message: &Message) -> bool {
        let (node, partition) = (usize::from(message.to), usize::from(message.partition));
        let follower = usize::from(message.from);
        let (view, leader) = (self.view(node, partition), &self.leaders[partition][node]);
        let is_of_uid = view.uid[follower] == message.uid || !self.holds(Rule::UidChecked);
        let is_of_run =
            leader.matched_inc[follower] == message.inc || !self.holds(Rule::AckChecksIncarnation);
        let is_news = leader.attached.has(follower) && leader.matched[follower] < message.x;
        if !self.is_leading(node, partition) || view.epoch != message.epoch || !is_of_uid || !is_of_run {
            return false;
        }
        if is_news {
            self.leaders[partition][node].matched[follower] = message.x;
            self.touch(node, partition);
        }
        is_news
    }

    /// How far a replica may say that it holds its log.
    pub(crate) fn held_end(&self, node: usize, partition: usize) -> u8 {
        let is_synced = self.setting.is_synced;
        if is_synced { self.replicas[partition][node].durable } else { self.log_end(node, partition) }
    }

    /// W6, second half: moves the commit to where every member of the maximal set is.
    pub(crate) fn commit(&mut self, node: usize, partition: usize) -> bool {
        let is_waiting = self.is_waiting(node, partition) && self.holds(Rule::NoCommitWhileWaiting);
        let leader = &self.leaders[partition][node];
        if !self.is_leading(node, partition) || is_waiting || leader.silence == Silence::Stop {
            return false;
        }
        let in_sync = self.view(node, partition).in_sync;
        if in_sync.len() < self.setting.minimum && self.holds(Rule::InSyncAtLeastMinimum) {
            return false;
        }
        let is_maximal = self.holds(Rule::CommitByMaximalSet);
        let members = if is_maximal { self.maximal(node, partition) } else { in_sync };
        let is_durable = self.holds(Rule::CommitOwnDurable);
        let own = if is_durable { self.held_end(node, partition) } else { self.log_end(node, partition) };
        let reached = members.without(node).into_iter().map(|member| leader.matched[member]);
        let to = reached.fold(own, u8::min);
        if to <= self.replicas[partition][node].commit {
            return false;
        }
        self.apply(node, partition, to);
        self.extend_committed(node, partition);
        true
    }

    /// Notes what was committed, and that it continues what was committed before.
    fn extend_committed(&mut self, node: usize, partition: usize) {
        let records = &self.records[partition];
        let replica = &self.replicas[partition][node];
        let committed = records.cut(replica.tip, replica.commit);
        let before = self.ghosts[partition].committed;
        if records.starts_with(committed, before) {
            self.ghosts[partition].committed = committed;
        } else if !records.starts_with(before, committed) {
            self.fail(Invariant::I6);
        }
        self.answers_stand(partition);
        self.touch(node, partition);
    }

    /// Notes a record that a client was told is safe, unless it is committed already.
    fn acknowledged(&mut self, partition: usize, record: u16) {
        let ghost = &mut self.ghosts[partition];
        if !self.records[partition].starts_with(ghost.committed, record)
            && let Some(free) = ghost.answered.iter_mut().find(|slot| **slot == ROOT)
        {
            *free = record;
            self.answers_stand(partition);
        }
    }

    /// I7: what was answered before it was committed has not been passed over.
    fn answers_stand(&mut self, partition: usize) {
        let records = &self.records[partition];
        let ghost = &mut self.ghosts[partition];
        let mut is_lost = false;
        for slot in ghost.answered.iter_mut().filter(|slot| **slot != ROOT) {
            let is_due = records.len(*slot) <= records.len(ghost.committed);
            is_lost |= is_due && !records.starts_with(ghost.committed, *slot);
            if is_due {
                *slot = ROOT;
            }
        }
        if is_lost {
            self.fail(Invariant::I7);
        }
    }

    /// W7: answers ack=quorum, or ack=all, for a record `back` before the last that may be answered.
    pub(crate) fn reply(&mut self, node: usize, partition: usize, is_all: bool, back: u8) -> bool {
        let leader = &self.leaders[partition][node];
        if !self.is_leading(node, partition) || self.is_waiting(node, partition) {
            return false;
        }
        if leader.silence == Silence::Stop {
            return false;
        }
        let rule = if is_all { Rule::ReplyAllAfterCommit } else { Rule::ReplyAfterCommit };
        let own = self.held_end(node, partition);
        let mut limit = if self.holds(rule) { self.replicas[partition][node].commit } else { own };
        if is_all {
            let others = self.view(node, partition).replicas.without(node);
            limit = others.into_iter().map(|other| leader.matched[other]).fold(limit, u8::min);
        }
        let answered =
            self.records[partition].cut(self.replicas[partition][node].tip, limit.saturating_sub(back));
        if self.records[partition].at(answered).client == 0 {
            return false;
        }
        self.acknowledged(partition, answered);
        true
    }

    /// S1: leaves `member` out.
    pub(crate) fn shrink(&mut self, node: usize, partition: usize, member: usize) -> bool {
        let in_sync = self.view(node, partition).in_sync;
        let is_enough = in_sync.len() > self.setting.minimum || !self.holds(Rule::InSyncAtLeastMinimum);
        let is_member = in_sync.has(member) && member != node;
        is_member
            && is_enough
            && self.propose(node, partition, Change { in_sync: in_sync.without(member), added: None })
    }

    /// S2, and R4 for a tainted member: takes in `member`, which has caught up.
    pub(crate) fn expand(&mut self, node: usize, partition: usize, member: usize) -> bool {
        let in_sync = self.view(node, partition).in_sync;
        self.has_caught_up(node, partition, member)
            && self.propose(node, partition, Change { in_sync: in_sync.with(member), added: Some(member) })
    }

    /// S3: puts `member` into the place of `dead`.
    pub(crate) fn swap(&mut self, node: usize, partition: usize, dead: usize, member: usize) -> bool {
        let in_sync = self.view(node, partition).in_sync;
        let is_due = in_sync.len() == self.setting.minimum && in_sync.has(dead) && dead != node;
        let change = Change { in_sync: in_sync.without(dead).with(member), added: Some(member) };
        is_due
            && self.holds(Rule::SwapAtMinimum)
            && !in_sync.has(member)
            && self.has_caught_up(node, partition, member)
            && self.propose(node, partition, change)
    }

    pub(crate) fn has_caught_up(&self, node: usize, partition: usize, member: usize) -> bool {
        let (view, leader) = (self.view(node, partition), &self.leaders[partition][node]);
        let is_wanted = !view.in_sync.has(member) || view.tainted.has(member);
        let commit = self.replicas[partition][node].commit;
        let is_after_start = self.holds(Rule::ExpandAfterEpochStart);
        let bound = if is_after_start { commit.max(leader.epoch_start) } else { commit };
        view.replicas.has(member)
            && is_wanted
            && leader.attached.has(member)
            && leader.matched[member] >= bound
    }

    fn propose(&mut self, node: usize, partition: usize, change: Change) -> bool {
        let is_waiting = self.is_waiting(node, partition) && self.holds(Rule::NoProposalWhileWaiting);
        let leader = &self.leaders[partition][node];
        let is_free = leader.silence == Silence::None && leader.proposal.version == 0;
        if !self.is_leading(node, partition) || is_waiting || !is_free {
            return false;
        }
        let message = Message {
            kind: Kind::Propose,
            y: change.in_sync.0,
            z: change.added.map_or(Set::EMPTY, Set::one).0,
            w: change.added.map_or(0, |member| leader.matched_inc[member]),
            ..self.to_control(node, partition)
        };
        let version = self.view(node, partition).version;
        self.leaders[partition][node].proposal = Proposal { version, in_sync: change.in_sync, message };
        self.bag.send(message);
        self.touch(node, partition);
        true
    }

    /// The head of a message to the control plane: version, epoch and run are what it compares.
    fn to_control(&self, node: usize, partition: usize) -> Message {
        let view = self.view(node, partition);
        Message {
            partition: partition as u8,
            from: node as u8,
            to: NONE,
            epoch: view.epoch,
            inc: self.nodes[node].inc,
            x: view.version,
            ..Message::default()
        }
    }

    /// S4 and M4: sends a proposal, a Handoff or a Stop that was not answered once more.
    pub(crate) fn resend(&mut self, node: usize, partition: usize) -> bool {
        let leader = &self.leaders[partition][node];
        if !self.is_leading(node, partition) {
            return false;
        }
        if leader.silence != Silence::None {
            return self.send(leader.farewell);
        }
        let is_due = leader.proposal.version != 0 && self.holds(Rule::ProposalResent);
        is_due && self.send(leader.proposal.message)
    }

    /// What only a leader without [`Rule::ProposalKeptUntilVersion`] does: gives its proposal up.
    pub(crate) fn give_up(&mut self, node: usize, partition: usize) -> bool {
        let is_wrong = !self.holds(Rule::ProposalKeptUntilVersion) && self.is_leading(node, partition);
        let proposal = &mut self.leaders[partition][node].proposal;
        if !is_wrong || proposal.version == 0 {
            return false;
        }
        *proposal = Proposal::default();
        self.touch(node, partition);
        true
    }

    /// The answer to a proposal from a control plane without [`Rule::RefusalRaisesVersion`].
    pub(crate) fn handle_refuse(&mut self, message: &Message) -> bool {
        let (node, partition) = (usize::from(message.to), usize::from(message.partition));
        let proposal = self.leaders[partition][node].proposal;
        if !self.is_leading(node, partition) || proposal.version != message.x || proposal.version == 0 {
            return false;
        }
        self.leaders[partition][node].proposal = Proposal::default();
        self.touch(node, partition);
        true
    }

    /// M3: hands the partition to the target of its move.
    pub(crate) fn hand_off(&mut self, node: usize, partition: usize) -> bool {
        let is_waiting = self.is_waiting(node, partition) && self.holds(Rule::NoHandoffWhileWaiting);
        let (view, leader) = (self.view(node, partition), &self.leaders[partition][node]);
        if !self.is_leading(node, partition) || is_waiting || leader.silence != Silence::None {
            return false;
        }
        let target = usize::from(view.target);
        if view.target == NONE || target == node || !view.in_sync.has(target) {
            return false;
        }
        let end = self.log_end(node, partition);
        let is_drained = leader.attached.has(target)
            && leader.matched[target] == end
            && self.replicas[partition][node].commit == end;
        if self.holds(Rule::HandoffDrains) && !is_drained {
            return false;
        }
        self.leave(node, partition, Kind::Handoff);
        true
    }

    /// F6b: asks the control plane to let somebody else lead.
    pub(crate) fn stop_leading(&mut self, node: usize, partition: usize) -> bool {
        let is_waiting = self.is_waiting(node, partition) && self.holds(Rule::NoStopWhileWaiting);
        let leader = &self.leaders[partition][node];
        if !self.is_leading(node, partition) || is_waiting || leader.silence != Silence::None {
            return false;
        }
        self.leave(node, partition, Kind::Stop);
        true
    }

    fn leave(&mut self, node: usize, partition: usize, kind: Kind) {
        let message = Message { kind, ..self.to_control(node, partition) };
        let leader = &mut self.leaders[partition][node];
        leader.silence = if kind == Kind::Handoff { Silence::Handoff } else { Silence::Stop };
        leader.farewell = message;
        leader.barrier.is_open = false;
        self.bag.send(message);
        self.touch(node, partition);
    }

    /// What only a leader without [`Rule::SilentUntilVersion`] does: goes on although it sent a Handoff.
    pub(crate) fn resume(&mut self, node: usize, partition: usize) -> bool {
        let is_wrong = !self.holds(Rule::SilentUntilVersion) && self.is_leading(node, partition);
        let leader = &mut self.leaders[partition][node];
        if !is_wrong || leader.silence == Silence::None {
            return false;
        }
        leader.silence = Silence::None;
        self.touch(node, partition);
        true
    }

    /// T4: drops the records that a snapshot holds.
    pub(crate) fn compact(&mut self, node: usize, partition: usize) -> bool {
        let acts = self.acts(node);
        let is_committed = self.holds(Rule::SnapshotOfCommitted);
        let end = self.log_end(node, partition);
        let replica = &mut self.replicas[partition][node];
        let to = if is_committed { replica.commit } else { end };
        if !acts || replica.uid == 0 || to <= replica.log_start {
            return false;
        }
        replica.log_start = to;
        replica.mark = replica.mark.max(to.min(replica.commit));
        // The snapshot that takes their place is durable.
        replica.durable = replica.durable.max(to);
        replica.on_disk = replica.on_disk.max(to);
        true
    }
}
