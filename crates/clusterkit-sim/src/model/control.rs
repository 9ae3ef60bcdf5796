//! What the control plane does: one log, applied in order, whichever controller decides.

use super::message::{Kind, Message};
use super::rules::{Invariant, Rule};
use super::set::Set;
use super::state::{Cause, Configuration, NONE, Status, Verdict, World};

impl World {
    fn configuration(&mut self, partition: usize) -> &mut Configuration {
        &mut self.control.partitions[partition]
    }

    /// Takes `node` out of an in-sync set, if the minimum allows it.
    fn leave_out(&mut self, partition: usize, node: usize) -> bool {
        let is_bound = self.holds(Rule::InSyncAtLeastMinimum);
        let minimum = if is_bound { self.setting.minimum } else { 1 };
        let configuration = self.configuration(partition);
        let is_member = configuration.in_sync.has(node) && configuration.in_sync.len() > minimum;
        if is_member {
            configuration.in_sync = configuration.in_sync.without(node);
            configuration.tainted = configuration.tainted.without(node);
        }
        is_member
    }

    fn depose(&mut self, partition: usize) {
        let configuration = self.configuration(partition);
        configuration.predecessor = configuration.leader;
        configuration.leader = NONE;
    }

    fn appoint(&mut self, partition: usize, leader: usize, cause: Cause) {
        let configuration = self.configuration(partition);
        if configuration.leader != NONE {
            configuration.predecessor = configuration.leader;
        }
        configuration.leader = leader as u8;
        configuration.cause = cause;
        configuration.epoch += 1;
        configuration.version += 1;
        self.commit_topology();
    }

    /// F1: declares a node dead, rightly or wrongly.
    pub(crate) fn fence(&mut self, node: usize) -> bool {
        if !self.control.live.has(node) || self.control.live.len() == 1 {
            return false;
        }
        self.control.live = self.control.live.without(node);
        for partition in 0..self.control.partitions.len() {
            let is_leader = self.control.partitions[partition].is_led_by(node);
            if is_leader {
                self.depose(partition);
            }
            if self.leave_out(partition, node) || is_leader {
                self.configuration(partition).version += 1;
            }
        }
        self.commit_topology();
        true
    }

    /// R1 to R3: a run of `node` becomes a member, or one that was declared dead becomes one again.
    pub(crate) fn register(&mut self, node: usize) -> bool {
        let is_member = self.nodes[node].inc != 0 && self.control.live.has(node);
        if !self.nodes[node].is_up || self.nodes[node].is_paused || is_member {
            return false;
        }
        self.control.inc[node] += u8::from(self.holds(Rule::RestartRaisesIncarnation));
        self.control.live = self.control.live.with(node);
        for partition in 0..self.control.partitions.len() {
            let is_damaged = self.replicas[partition][node].is_damaged
                && self.replicas[partition][node].uid == self.control.partitions[partition].uid[node];
            let is_deposed = self.control.partitions[partition].is_led_by(node)
                && (self.holds(Rule::RestartEndsEpoch) || is_damaged);
            if is_deposed {
                self.depose(partition);
            }
            let is_changed = self.taint(partition, node, is_damaged);
            self.configuration(partition).version += u8::from(is_changed || is_deposed);
        }
        self.commit_topology();
        self.begin_run(node);
        true
    }

    /// R3, D2: doubts what `node` holds, and gives a damaged replica a new uid.
    fn taint(&mut self, partition: usize, node: usize, is_damaged: bool) -> bool {
        let is_doubtful = self.nodes[node].has_lost && self.holds(Rule::TaintAfterLoss) || is_damaged;
        let is_doubted = is_doubtful && self.control.partitions[partition].in_sync.has(node);
        if is_doubted && !self.leave_out(partition, node) {
            let configuration = self.configuration(partition);
            configuration.tainted = configuration.tainted.with(node);
        }
        if is_damaged {
            let uid = self.next_uid;
            self.next_uid += 1;
            self.configuration(partition).uid[node] = uid;
        }
        is_doubted || is_damaged
    }

    /// The node's side of a registration: it holds nothing over from the run before, and adopts.
    fn begin_run(&mut self, node: usize) {
        let inc = self.control.inc;
        let is_new_process = self.nodes[node].inc == 0;
        let run = &mut self.nodes[node];
        run.has_lost = false;
        if is_new_process {
            // The promises of the process before were to no later runs than these.
            run.promised_inc = inc;
        }
        run.inc = inc[node];
        if self.holds(Rule::SupportEndsWithRun) {
            self.nodes[node].support = Default::default();
        }
        for partition in 0..self.control.partitions.len() {
            self.replicas[partition][node].is_streaming = false;
            self.leading[partition] = self.leading[partition].without(node);
        }
        self.adopt(node, self.version, None);
        for partition in 0..self.control.partitions.len() {
            self.attach(node, partition);
        }
    }

    fn candidates(&self, partition: usize) -> Set {
        let configuration = &self.control.partitions[partition];
        let is_strict = self.holds(Rule::OnlyUntaintedLead);
        let members = if is_strict { configuration.electable() } else { configuration.in_sync };
        members.and(self.control.live)
    }

    /// F2: a controller decides who shall lead; the decision takes its way through the log.
    pub(crate) fn decide(&mut self, partition: usize, choice: usize) -> bool {
        let configuration = &self.control.partitions[partition];
        let Some(elected) = self.candidates(partition).pick(choice) else { return false };
        if configuration.leader != NONE {
            return false;
        }
        let message = Message {
            kind: Kind::Elect,
            partition: partition as u8,
            from: NONE,
            to: NONE,
            x: configuration.version,
            y: elected as u8,
            ..Message::default()
        };
        self.send(message)
    }

    /// F3: the decision is applied, if nothing has changed since.
    pub(crate) fn handle_elect(&mut self, message: &Message) -> bool {
        let partition = usize::from(message.partition);
        let (configuration, elected) = (&self.control.partitions[partition], usize::from(message.y));
        let is_current = configuration.version == message.x || !self.holds(Rule::ElectionChecksVersion);
        if !is_current || configuration.leader != NONE || !self.control.live.has(elected) {
            return false;
        }
        self.appoint(partition, elected, Cause::Election);
        true
    }

    /// F6: takes the leadership from a leader that stalls, or seems to.
    pub(crate) fn revoke(&mut self, partition: usize, choice: usize) -> bool {
        let leader = self.control.partitions[partition].leader;
        if leader == NONE {
            return false;
        }
        let others = self.candidates(partition).without(usize::from(leader));
        let Some(elected) = others.pick(choice) else { return false };
        self.appoint(partition, elected, Cause::Election);
        true
    }

    /// M4: the leader hands over to the target of the move.
    pub(crate) fn handle_handoff(&mut self, message: &Message) -> bool {
        let partition = usize::from(message.partition);
        let configuration = &self.control.partitions[partition];
        let is_current = configuration.version == message.x || !self.holds(Rule::HandoffChecksVersion);
        let is_leader = configuration.leader == message.from && configuration.epoch == message.epoch;
        if !is_current || !is_leader || configuration.target == NONE {
            return false;
        }
        let target = usize::from(configuration.target);
        let is_strict = self.holds(Rule::HandoffToUntainted);
        let members = if is_strict { configuration.electable() } else { configuration.in_sync };
        if !members.and(self.control.live).has(target) {
            return is_current && self.refuse_farewell(partition);
        }
        self.configuration(partition).target = NONE;
        self.appoint(partition, target, Cause::Handoff);
        true
    }

    /// F6b: the leader leaves; any live untainted member follows it.
    pub(crate) fn handle_stop(&mut self, message: &Message, choice: usize) -> bool {
        let partition = usize::from(message.partition);
        let configuration = &self.control.partitions[partition];
        let is_current = configuration.version == message.x
            && configuration.leader == message.from
            && configuration.epoch == message.epoch;
        if !is_current {
            return false;
        }
        let others = self.candidates(partition).without(usize::from(message.from));
        let Some(elected) = others.pick(choice) else { return self.refuse_farewell(partition) };
        self.appoint(partition, elected, Cause::Stop(message.from));
        true
    }

    /// Tells a leader that wants to leave, and has nobody to leave to, to go on.
    fn refuse_farewell(&mut self, partition: usize) -> bool {
        let answers = self.holds(Rule::FarewellRefused);
        if answers {
            self.configuration(partition).version += 1;
            self.commit_topology();
        }
        answers
    }

    /// S5: a leader's change of the in-sync set.
    pub(crate) fn handle_propose(&mut self, message: &Message) -> bool {
        let partition = usize::from(message.partition);
        let configuration = self.control.partitions[partition];
        let is_current = configuration.version == message.x || !self.holds(Rule::ProposalChecksVersion);
        let from = usize::from(message.from);
        let is_leader = configuration.leader == message.from
            && configuration.epoch == message.epoch
            && self.control.inc[from] == message.inc;
        if !is_current || !is_leader {
            return false;
        }
        let (in_sync, added) = (Set(message.y), Set(message.z));
        if !self.is_acceptable(&configuration, message) {
            return self.refuse(message);
        }
        let accepted = self.configuration(partition);
        accepted.in_sync = in_sync;
        accepted.tainted = accepted.tainted.and(in_sync).minus(added);
        accepted.version += 1;
        self.make_good(partition, added);
        self.commit_topology();
        true
    }

    /// A disk that holds again what was committed counts as lost no more; what a run acknowledged before it
    /// crashed may be gone.
    fn make_good(&mut self, partition: usize, added: Set) {
        for node in added {
            let tip = self.replicas[partition][node].tip;
            let ghost = &mut self.ghosts[partition];
            let is_running = self.nodes[node].inc == self.control.inc[node];
            if is_running && self.records[partition].starts_with(tip, ghost.committed) {
                ghost.lost = ghost.lost.without(node);
            }
        }
    }

    fn is_acceptable(&self, configuration: &Configuration, message: &Message) -> bool {
        let (in_sync, added) = (Set(message.y), Set(message.z));
        let is_bound = self.holds(Rule::InSyncAtLeastMinimum);
        let is_of_run = |node: usize| self.control.inc[node] == message.w;
        let checks_run = self.holds(Rule::ProposalChecksIncarnation);
        let checks_live = self.holds(Rule::ProposalChecksLiveness);
        in_sync.is_within(configuration.replicas)
            && (in_sync.len() >= self.setting.minimum || !is_bound)
            && in_sync.has(usize::from(configuration.leader))
            && (added.into_iter().all(is_of_run) || !checks_run)
            && (added.is_within(self.control.live) || !checks_live)
    }

    fn refuse(&mut self, message: &Message) -> bool {
        if self.holds(Rule::RefusalRaisesVersion) {
            self.configuration(usize::from(message.partition)).version += 1;
            self.commit_topology();
            return true;
        }
        self.send(Message { kind: Kind::Refuse, to: message.from, ..*message })
    }

    /// M1: gives `node` a new, empty replica.
    pub(crate) fn place(&mut self, partition: usize, node: usize) -> bool {
        let configuration = &self.control.partitions[partition];
        let is_wanted = !configuration.replicas.has(node) && self.control.live.has(node);
        if !is_wanted || self.next_uid == u8::MAX {
            return false;
        }
        let uid = self.next_uid;
        self.next_uid += 1;
        let configuration = self.configuration(partition);
        configuration.replicas = configuration.replicas.with(node);
        configuration.uid[node] = uid;
        configuration.version += 1;
        self.commit_topology();
        true
    }

    /// M5, first half: takes a member out of the in-sync set.
    pub(crate) fn exclude(&mut self, partition: usize, node: usize) -> bool {
        let is_leader = self.control.partitions[partition].is_led_by(node);
        if is_leader || !self.leave_out(partition, node) {
            return false;
        }
        self.configuration(partition).version += 1;
        self.commit_topology();
        true
    }

    /// M5, second half: takes a replica away that is not in sync.
    pub(crate) fn remove(&mut self, partition: usize, node: usize) -> bool {
        let configuration = self.configuration(partition);
        if !configuration.replicas.has(node) || configuration.in_sync.has(node) {
            return false;
        }
        configuration.replicas = configuration.replicas.without(node);
        configuration.uid[node] = 0;
        if usize::from(configuration.target) == node {
            configuration.target = NONE;
        }
        configuration.version += 1;
        self.commit_topology();
        true
    }

    /// M1, M4: sets the target of a move, or gives the move up.
    pub(crate) fn aim(&mut self, partition: usize, target: u8) -> bool {
        let configuration = self.configuration(partition);
        let is_replica = target == NONE || configuration.replicas.has(usize::from(target));
        if !is_replica || configuration.target == target || configuration.leader == target {
            return false;
        }
        configuration.target = target;
        configuration.version += 1;
        self.commit_topology();
        true
    }

    /// The controller changes: what only it remembered is gone.
    pub(crate) fn change_controller(&mut self) -> bool {
        let is_known = self.status.iter().flatten().any(|status| status.inc != 0);
        self.status = Default::default();
        is_known
    }

    /// F5: whether only an unclean election helps.
    fn is_stuck(&self, partition: usize) -> bool {
        let configuration = &self.control.partitions[partition];
        configuration.leader == NONE && configuration.electable().is_empty()
    }

    /// F5: a replica says what it has.
    pub(crate) fn report_status(&mut self, node: usize, partition: usize) -> bool {
        let is_member = self.control.partitions[partition].in_sync.has(node);
        if !self.acts(node) || !is_member || !self.is_stuck(partition) {
            return false;
        }
        // A replica that was placed anew, and has not made room for it yet, has nothing.
        let has = self.is_replica(node, partition);
        let tip = if has { self.replicas[partition][node].tip } else { 0 };
        let message = Message {
            kind: Kind::Status,
            partition: partition as u8,
            from: node as u8,
            to: NONE,
            epoch: self.control.partitions[partition].epoch,
            inc: self.nodes[node].inc,
            x: self.records[partition].len(tip),
            y: self.records[partition].epoch(tip),
            record: tip,
            ..Message::default()
        };
        self.send(message)
    }

    pub(crate) fn handle_status(&mut self, message: &Message) -> bool {
        let (node, partition) = (usize::from(message.from), usize::from(message.partition));
        let is_of_run = self.control.inc[node] == message.inc || !self.holds(Rule::UncleanChecksIncarnation);
        let status = Status {
            epoch: message.epoch,
            inc: message.inc,
            last_epoch: message.y,
            log_end: message.x,
            tip: message.record,
        };
        let known = &mut self.status[partition][node];
        let is_taken = *known != status && is_of_run;
        if is_taken {
            *known = status;
        }
        is_taken
    }

    /// F5: elects among tainted members the one with the most, once all have said what they have.
    pub(crate) fn elect_unclean(&mut self, partition: usize, choice: usize) -> bool {
        let configuration = &self.control.partitions[partition];
        let members = configuration.in_sync;
        let checks_run = self.holds(Rule::UncleanChecksIncarnation);
        let checks_epoch = self.holds(Rule::UncleanChecksEpoch);
        let has_said = |node: &usize| {
            let status = &self.status[partition][*node];
            let is_of_run = status.inc == self.control.inc[*node] || !checks_run;
            let is_of_epoch = status.epoch == configuration.epoch || !checks_epoch;
            status.inc != 0 && is_of_run && is_of_epoch
        };
        let said = members.into_iter().filter(has_said).fold(Set::EMPTY, Set::with);
        let is_complete = said == members || !self.holds(Rule::UncleanNeedsAll);
        let chosen = if self.holds(Rule::UncleanTakesLongest) {
            said.into_iter().max_by_key(|node| {
                let status = &self.status[partition][*node];
                (status.last_epoch, status.log_end)
            })
        } else {
            said.pick(choice)
        };
        let Some(chosen) = chosen else { return false };
        if !self.is_stuck(partition) || !is_complete || !self.control.live.has(chosen) {
            return false;
        }
        self.judge_unclean(partition, chosen);
        let configuration = self.configuration(partition);
        configuration.tainted = configuration.tainted.without(chosen);
        self.appoint(partition, chosen, Cause::Election);
        true
    }

    /// An unclean election may lose what was committed only after as many disks lost data as the minimum
    /// has members.
    fn judge_unclean(&mut self, partition: usize, chosen: usize) {
        let ghost = &self.ghosts[partition];
        if self.records[partition].starts_with(self.status[partition][chosen].tip, ghost.committed) {
            return;
        }
        let is_excused = ghost.lost.len() >= self.setting.minimum;
        self.verdict = if is_excused { Verdict::Over } else { Verdict::Broken(Invariant::I12) };
    }
}
