//! What a follower does: attach, take records, acknowledge, truncate, install snapshots, adopt.

use super::limits::PARTITIONS;
use super::message::{Kind, Message};
use super::rules::{Invariant, Rule};
use super::state::{NONE, Proposal, Replica, Silence, World};

impl World {
    /// T1: asks the leader to compare logs.
    pub(crate) fn attach(&mut self, node: usize, partition: usize) -> bool {
        let view = *self.view(node, partition);
        let is_led = view.leader != NONE && !view.is_led_by(node);
        if !self.acts(node) || !is_led || !self.is_replica(node, partition) {
            return false;
        }
        if !self.holds(Rule::TruncateByEpoch) {
            let commit = self.replicas[partition][node].commit;
            self.truncate(node, partition, commit);
        }
        if self.holds(Rule::AttachDurable) {
            self.make_durable(node, partition);
        }
        let replica = &self.replicas[partition][node];
        let message = Message {
            kind: Kind::Attach,
            partition: partition as u8,
            from: node as u8,
            to: view.leader,
            epoch: view.epoch,
            uid: replica.uid,
            inc: self.nodes[node].inc,
            x: self.log_end(node, partition),
            y: self.records[partition].epoch(replica.tip),
            ..Message::default()
        };
        self.send(message)
    }

    fn make_durable(&mut self, node: usize, partition: usize) {
        let end = self.log_end(node, partition);
        let replica = &mut self.replicas[partition][node];
        replica.durable = end;
        replica.on_disk = end;
    }

    pub(crate) fn truncate(&mut self, node: usize, partition: usize, len: u8) {
        let tip = self.replicas[partition][node].tip;
        let tip = self.records[partition].cut(tip, len);
        let replica = &mut self.replicas[partition][node];
        replica.tip = tip;
        replica.durable = replica.durable.min(len);
        replica.on_disk = replica.on_disk.min(len);
        self.touch(node, partition);
    }

    /// Whether `message` of a leader is for the replica and the run that it arrives at, in their epoch.
    fn is_for_follower(&self, message: &Message, checks_run: bool) -> bool {
        let (node, partition) = (usize::from(message.to), usize::from(message.partition));
        let view = self.view(node, partition);
        let is_of_uid = self.replicas[partition][node].uid == message.uid || !self.holds(Rule::UidChecked);
        let is_of_run = self.nodes[node].inc == message.inc && is_of_uid || !checks_run;
        self.acts(node)
            && self.is_replica(node, partition)
            && !self.leading[partition].has(node)
            && view.epoch == message.epoch
            && is_of_run
    }

    /// W5: takes records that continue the log.
    pub(crate) fn handle_append(&mut self, message: &Message) -> bool {
        let (node, partition) = (usize::from(message.to), usize::from(message.partition));
        if !self.is_for_follower(message, true) {
            return false;
        }
        let records = &self.records[partition];
        let replica = &self.replicas[partition][node];
        let end = records.len(replica.tip);
        let is_at_end = message.x == end || message.x < end && !self.holds(Rule::AppendChecksStart);
        let before = records.cut(replica.tip, message.x);
        let is_after_epoch = records.epoch(before) == message.y || !self.holds(Rule::AppendChecksEpoch);
        let is_news = replica.tip != message.record
            || !replica.is_streaming
            || replica.commit < message.z.min(records.len(message.record));
        if !is_at_end || !is_after_epoch || !is_news {
            return false;
        }
        if records.cut(message.record, message.x) != before {
            self.fail(Invariant::I5);
            return true;
        }
        if message.x < end {
            self.truncate(node, partition, message.x);
        }
        self.take(node, partition, message);
        true
    }

    fn take(&mut self, node: usize, partition: usize, message: &Message) {
        let replica = &mut self.replicas[partition][node];
        replica.tip = message.record;
        replica.is_streaming = true;
        let to = message.z.min(self.log_end(node, partition));
        if to > self.replicas[partition][node].commit {
            self.apply(node, partition, to);
        }
        self.touch(node, partition);
        if !self.setting.is_synced || !self.holds(Rule::AckDurable) {
            self.acknowledge(node, partition);
        }
    }

    /// Makes the log durable; a follower tells the leader.
    pub(crate) fn sync(&mut self, node: usize, partition: usize) -> bool {
        let end = self.log_end(node, partition);
        let replica = &self.replicas[partition][node];
        let is_due = replica.durable < end || replica.on_disk < end;
        if !self.acts(node) || !self.is_replica(node, partition) || !is_due {
            return false;
        }
        if !self.holds(Rule::SyncErrorStops) && replica.durable > replica.on_disk {
            // The system takes the lost pages for written, so that another sync finds nothing to do.
            self.replicas[partition][node].durable = end;
        } else {
            self.make_durable(node, partition);
        }
        self.acknowledge(node, partition);
        true
    }

    /// W5: says how far the log is held.
    pub(crate) fn acknowledge(&mut self, node: usize, partition: usize) -> bool {
        let view = self.view(node, partition);
        let replica = &self.replicas[partition][node];
        if !self.acts(node) || !replica.is_streaming || view.leader == NONE || view.is_led_by(node) {
            return false;
        }
        let is_durable = self.holds(Rule::AckDurable);
        let end = if is_durable { self.held_end(node, partition) } else { self.log_end(node, partition) };
        let message = Message {
            kind: Kind::Ack,
            partition: partition as u8,
            from: node as u8,
            to: view.leader,
            epoch: view.epoch,
            uid: replica.uid,
            inc: self.nodes[node].inc,
            x: end,
            ..Message::default()
        };
        self.send(message)
    }

    /// W8: applies up to `to`, each write of a client once.
    pub(crate) fn apply(&mut self, node: usize, partition: usize, to: u8) {
        let records = &self.records[partition];
        let replica = &self.replicas[partition][node];
        let deduplicates = self.holds(Rule::DeduplicateOnApply);
        let mut at = records.cut(replica.tip, to);
        let mut is_right = true;
        while records.len(at) > replica.commit {
            let record = records.at(at);
            let is_seen = record.repeats > replica.sessions_from && deduplicates;
            is_right &= is_seen == (record.repeats > 0);
            at = record.parent;
        }
        self.replicas[partition][node].commit = to;
        if !is_right {
            self.fail(Invariant::I7);
        }
    }

    /// T3: cuts off what the leader does not have, and asks again.
    pub(crate) fn handle_diverge(&mut self, message: &Message) -> bool {
        let (node, partition) = (usize::from(message.to), usize::from(message.partition));
        let tip = self.replicas[partition][node].tip;
        let records = &self.records[partition];
        let is_echo = (records.len(tip), records.epoch(tip)) == (message.z, message.w);
        if !self.is_for_follower(message, true) || !is_echo && self.holds(Rule::DivergeEchoed) {
            return false;
        }
        let (_, own) = records.epoch_end(tip, message.x);
        let to = own.min(message.y);
        if to >= records.len(tip) {
            return false;
        }
        if to < self.replicas[partition][node].commit {
            self.fail(Invariant::I6);
        }
        self.truncate(node, partition, to);
        self.replicas[partition][node].is_streaming = !self.holds(Rule::TruncateUntilMatch);
        self.attach(node, partition);
        true
    }

    /// T4: replaces the log by the leader's state, if that is ahead.
    pub(crate) fn handle_snapshot(&mut self, message: &Message) -> bool {
        let (node, partition) = (usize::from(message.to), usize::from(message.partition));
        let checks_run = self.holds(Rule::SnapshotChecksIncarnation);
        let len = self.records[partition].len(message.record);
        let is_ahead = self.log_end(node, partition) < len || !self.holds(Rule::SnapshotOnlyForward);
        let replica = &self.replicas[partition][node];
        if !self.is_for_follower(message, checks_run) || !is_ahead || replica.tip == message.record {
            return false;
        }
        let keeps_sessions = self.holds(Rule::SnapshotKeepsSessions);
        self.replicas[partition][node] = Replica {
            uid: replica.uid,
            tip: message.record,
            commit: len,
            durable: len,
            on_disk: len,
            mark: len,
            log_start: len,
            sessions_from: if keeps_sessions { replica.sessions_from } else { len },
            is_streaming: false,
            is_damaged: false,
        };
        self.touch(node, partition);
        self.attach(node, partition);
        true
    }

    /// Notes on disk how far the log is committed.
    pub(crate) fn checkpoint(&mut self, node: usize, partition: usize) -> bool {
        let (acts, is_synced) = (self.acts(node), self.setting.is_synced);
        let replica = &mut self.replicas[partition][node];
        let to = if is_synced { replica.commit.min(replica.on_disk) } else { replica.commit };
        let is_due = acts && replica.uid != 0 && to > replica.mark;
        if is_due {
            replica.mark = to;
        }
        is_due
    }

    /// A node learns a version of the topology. `only` is the one partition of it that a model without
    /// [`Rule::AdoptAtOnce`] takes over.
    pub(crate) fn adopt(&mut self, node: usize, version: u8, only: Option<usize>) -> bool {
        let adopted = self.nodes[node].adopted;
        if !self.acts(node) || version == adopted || version > self.version {
            return false;
        }
        if version < adopted && self.holds(Rule::AdoptForward) {
            return false;
        }
        let (version, topology) = self.topology_at(version);
        let topology = *topology;
        if topology.inc[node] != self.nodes[node].inc {
            return false;
        }
        if version < adopted {
            self.fail(Invariant::I14);
        }
        let before = self.nodes[node].topology;
        self.nodes[node].adopted = version;
        self.nodes[node].topology.inc = topology.inc;
        self.nodes[node].topology.live = topology.live;
        for partition in 0..PARTITIONS {
            if only.is_none_or(|only| only == partition) {
                self.nodes[node].topology.partitions[partition] = topology.partitions[partition];
                self.adopt_partition(node, partition, &before.partitions[partition]);
            }
        }
        true
    }

    fn adopt_partition(&mut self, node: usize, partition: usize, before: &super::state::Configuration) {
        let view = *self.view(node, partition);
        if view.version == before.version && self.holds(Rule::RestartEndsEpoch) {
            return;
        }
        self.touch(node, partition);
        let was_leading = self.leading[partition].has(node);
        let goes_on = was_leading && view.is_led_by(node) && view.epoch == before.epoch;
        if goes_on {
            return self.learn_as_leader(node, partition, before);
        }
        self.leading[partition] = self.leading[partition].without(node);
        let is_new_epoch = view.epoch != before.epoch || !self.holds(Rule::RestartEndsEpoch);
        if view.is_led_by(node) && self.nodes[node].topology.inc[node] == self.nodes[node].inc {
            if is_new_epoch && self.is_replica(node, partition) {
                self.lead(node, partition);
            }
            return;
        }
        if view.epoch != before.epoch {
            self.replicas[partition][node].is_streaming = false;
            self.attach(node, partition);
        }
    }

    fn learn_as_leader(&mut self, node: usize, partition: usize, before: &super::state::Configuration) {
        let view = *self.view(node, partition);
        let clears = self.holds(Rule::ProgressClearedOnUid);
        let leader = &mut self.leaders[partition][node];
        leader.proposal = Proposal::default();
        leader.silence = Silence::None;
        for follower in before.replicas {
            if view.uid[follower] != before.uid[follower] && clears {
                leader.attached = leader.attached.without(follower);
                leader.matched[follower] = 0;
                leader.matched_inc[follower] = 0;
            }
        }
    }

    /// M5: deletes data that no configuration names any more, and makes room for a new replica.
    pub(crate) fn tidy_up(&mut self, node: usize, partition: usize) -> bool {
        let view = *self.view(node, partition);
        let replica = &self.replicas[partition][node];
        let uid = view.uid[node];
        if !self.acts(node) || replica.uid == uid {
            return false;
        }
        self.replicas[partition][node] = Replica { uid, ..Replica::default() };
        self.touch(node, partition);
        if view.is_led_by(node) {
            self.lead(node, partition);
        } else {
            self.attach(node, partition);
        }
        true
    }

    /// What only a node without [`Rule::DeleteAfterConfiguration`] does: deletes a replica as soon as it is
    /// not in sync.
    pub(crate) fn delete_early(&mut self, node: usize, partition: usize) -> bool {
        let view = self.view(node, partition);
        let uid = self.replicas[partition][node].uid;
        let is_spare = view.replicas.has(node) && !view.in_sync.has(node) && uid == view.uid[node];
        let has_data = self.log_end(node, partition) > 0;
        if self.holds(Rule::DeleteAfterConfiguration) || !self.acts(node) || !is_spare || !has_data {
            return false;
        }
        self.replicas[partition][node] = Replica { uid, ..Replica::default() };
        self.touch(node, partition);
        true
    }
}
