//! The replicas of one node: what it adopts, whom it supports, which replica a message is for.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::action::{
    Action, Consistency, FetchToken, ProposeError, ReadError, ReadId, ReadOutcome, ReplicaKey, RequestId,
};
use super::config::Config;
use super::leader::{Farewell, Write};
use super::log::LogOp;
use super::message::{Body, Message, ReplicaMessage, SnapshotHeader};
use super::mistake::Mistake;
use super::record::{EpochIndex, LogTime, Record};
use super::support::{self, Support};
use super::{Context, Replica, Role};
use crate::handoff::Position;
use crate::id::{Epoch, Incarnation, NodeId, PartitionId};
use crate::time::Instant;
use crate::topology::Topology;

/// All replicas of one node.
///
/// It is told facts by `handle_*`, and says by [`poll_action`](Self::poll_action) what is to be done and by
/// [`poll_timeout`](Self::poll_timeout) when it wants to be called again. Every fact may come late or twice, but for
/// those of its own disk, which come in the order of the changes.
///
/// What its shell owes it: changes of a log are carried out in the order of their numbers, and whatever is noted of a
/// replica (commit, checkpoint of its state) is durable no sooner than the records that it covers; every fetch, batch
/// and snapshot is answered, also when it failed; its clock goes on while the machine sleeps.
///
/// Invariants:
/// - a topology is adopted by all replicas in one step, and never one that is older, or that this run is not in;
/// - before the first topology nothing is acknowledged, served or answered (rule R1);
/// - data are removed only after a topology without their uid is adopted (rule M5).
#[derive(Debug)]
pub struct Replicas {
    config: Config,
    me: NodeId,
    incarnation: Incarnation,
    topology: Arc<Topology>,
    support: Support,
    replicas: BTreeMap<PartitionId, Replica>,
    /// What an earlier run left, until the first topology says what of it stays.
    recovered: BTreeMap<ReplicaKey, Recovered>,
    /// Replicas that are placed here no more, and when they are removed.
    leaving: BTreeMap<ReplicaKey, Instant>,
    reads: BTreeMap<ReadId, PartitionId>,
    requests: BTreeMap<RequestId, PartitionId>,
    number_last: u64,
    /// When linearizable reads were asked for last, and support.
    read_at: BTreeMap<PartitionId, Instant>,
    last_read: Option<Instant>,
    asked_at: Option<Instant>,
    timeouts: BTreeMap<PartitionId, Instant>,
    alarms: BTreeSet<(Instant, PartitionId)>,
    actions: VecDeque<Action>,
}

/// What an earlier run left of a replica.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The first offset that its log has.
    pub log_start: u64,
    /// Where its log ends. All of it is durable.
    pub log_end: u64,
    /// The log's epochs, those before its start too.
    pub epochs: EpochIndex,
    /// The time of the last record, or later.
    pub time_last: LogTime,
    /// How far it was noted to be committed: what [`ReplicaStatus::commit_durable`] said, never more.
    pub commit: u64,
    /// How far the state is applied. The log must not begin behind it.
    pub applied: u64,
    /// Something that must be there is missing or wrong.
    pub damaged: bool,
}

impl Recovered {
    /// A replica that was created here, and of which nothing can be found.
    #[must_use]
    pub fn missing() -> Self {
        Self { damaged: true, ..Self::default() }
    }

    /// Whether it may not take part any more (rule D2). The node says so when it registers, and sets the data
    /// aside once that is acknowledged.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        let gap = self.applied < self.log_start;
        self.damaged || self.log_end < self.commit.max(self.applied) || gap
    }
}

/// How a replica stands, for people and tests.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaStatus {
    /// Which copy.
    pub key: ReplicaKey,
    /// The epoch of its configuration.
    pub epoch: Epoch,
    /// What it is to its partition.
    pub role: RoleStatus,
    /// The first offset of its log.
    pub log_start: u64,
    /// Where its log ends.
    pub log_end: u64,
    /// How far that is durable.
    pub durable: u64,
    /// How far it is known to be committed.
    pub commit: u64,
    /// How far it may be noted to be committed: that much is on this disk, too.
    pub commit_durable: u64,
    /// How far it is applied.
    pub applied: u64,
    /// Whether it misses what it must have.
    pub damaged: bool,
    /// Since it leads: who may be a member of the next in-sync set.
    pub maximal: BTreeSet<NodeId>,
}

/// What a replica is to its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoleStatus {
    /// It takes records from a leader.
    Follower,
    /// Nobody leads, or it is damaged.
    Idle,
    /// It leads.
    Leader {
        /// It has committed something of its own epoch.
        active: bool,
        /// It may read without asking.
        leased: bool,
        /// It takes writes.
        writable: bool,
    },
}

impl Replicas {
    /// Begins for run `incarnation` of node `me`, whose process started at `started_at`, by the same clock as all
    /// later times.
    ///
    /// `recovered` must have every replica that was ever created here and not removed, as the node's own notes say.
    /// One of which nothing is found is passed as [`Recovered::missing`]: left out, it would begin anew, empty, as
    /// the member that the cluster takes it for.
    ///
    /// # Panics
    ///
    /// When [`Config::check`] would refuse `config`.
    #[must_use]
    pub fn new(
        config: Config,
        me: NodeId,
        incarnation: Incarnation,
        started_at: Instant,
        recovered: BTreeMap<ReplicaKey, Recovered>,
    ) -> Self {
        assert_eq!(config.check(), Ok(()), "the configuration was checked before");
        Self {
            support: Support::new(&config, started_at),
            config,
            me,
            incarnation,
            topology: Arc::default(),
            replicas: BTreeMap::new(),
            recovered,
            leaving: BTreeMap::new(),
            reads: BTreeMap::new(),
            requests: BTreeMap::new(),
            number_last: 0,
            read_at: BTreeMap::new(),
            last_read: None,
            asked_at: None,
            timeouts: BTreeMap::new(),
            alarms: BTreeSet::new(),
            actions: VecDeque::new(),
        }
    }

    /// The control plane says how things stand. Older topologies, and such that do not know this run, are ignored.
    pub fn handle_topology(&mut self, now: Instant, wall_ms: u64, topology: &Arc<Topology>) {
        let is_older =
            topology.version <= self.topology.version && !self.config.mistakes.has(Mistake::StaleTopology);
        let outlives = self.config.mistakes.has(Mistake::LeaderOutlivesRestart);
        let knows_run =
            topology.node(&self.me).is_some_and(|node| node.incarnation == self.incarnation || outlives);
        if is_older || !knows_run || topology.version == self.topology.version {
            return;
        }
        let before = core::mem::replace(&mut self.topology, topology.clone());
        let is_first = before.cluster.is_none();
        for (index, record) in topology.partitions.iter().enumerate() {
            let known = before.partitions.get(index);
            if is_first || known.is_none_or(|known| known.version != record.version) {
                self.adopt(now, wall_ms, record.id, is_first);
            }
        }
        if before.nodes != topology.nodes {
            self.advance_leaders(now, wall_ms);
        }
        self.retire_strangers(now);
        self.support.handle_applied(topology.version);
        self.support.forget(now, topology);
        // Promises that have become valid may let reads through.
        self.advance_readers(now, wall_ms);
    }

    /// A node says something.
    pub fn handle_message(&mut self, now: Instant, wall_ms: u64, from: &NodeId, message: Message) {
        if self.topology.cluster.is_none() {
            return;
        }
        match message {
            Message::Replica(message) => self.handle_replica_message(now, wall_ms, from, message),
            Message::SupportRequest { incarnation, sent_at } => {
                if self.support.promise(&self.config, now, from, incarnation) {
                    let (version, lasts) = (self.topology.version, self.config.support);
                    let message = Message::Support { incarnation, sent_at, version, lasts };
                    self.actions.push_back(Action::Send { to: from.clone(), message });
                }
            }
            Message::Support { incarnation, sent_at, version, lasts } if incarnation == self.incarnation => {
                let ignored = self.config.mistakes.has(Mistake::MarginIgnored);
                let sent_at = if ignored { now } else { support::sent_at(sent_at) };
                let versions = (version, self.topology.version);
                let until = sent_at + self.config.support_counted(lasts);
                self.support.handle_promise(&self.config, from, until, versions);
                self.advance_readers(now, wall_ms);
            }
            Message::Support { .. } => {}
        }
    }

    fn handle_replica_message(&mut self, now: Instant, wall_ms: u64, from: &NodeId, message: ReplicaMessage) {
        let Some(known) = self.topology.partition(message.partition).map(|record| record.epoch) else {
            return;
        };
        if message.epoch > known {
            return self.actions.push_back(Action::RefreshTopology);
        }
        if message.epoch < known {
            if message.body != Body::Fenced {
                let body = Body::Fenced;
                let message = Message::Replica(ReplicaMessage { epoch: known, body, ..message });
                self.actions.push_back(Action::Send { to: from.clone(), message });
            }
            return;
        }
        let partition = message.partition;
        self.with(now, wall_ms, partition, |replica, cx| replica.handle_message(cx, from, message));
    }

    /// The disk has carried out `op` and everything before it, durably.
    pub fn handle_durable(&mut self, now: Instant, wall_ms: u64, key: ReplicaKey, op: LogOp) {
        self.with_key(now, wall_ms, key, |replica, cx| replica.handle_durable(cx, op));
    }

    /// The state machine has applied the whole batch that [`Action::Apply`] gave it, which ended at `end`.
    pub fn handle_applied(&mut self, now: Instant, wall_ms: u64, key: ReplicaKey, end: u64) {
        self.with_key(now, wall_ms, key, |replica, cx| replica.handle_applied(cx, end));
    }

    /// Records came back from the disk, from `first` on. None at all means that they are not there.
    pub fn handle_fetched(
        &mut self,
        now: Instant,
        wall_ms: u64,
        key: ReplicaKey,
        token: FetchToken,
        (first, records): (u64, Vec<Record>),
    ) {
        self.with_key(now, wall_ms, key, |replica, cx| replica.handle_fetched(cx, token, first, records));
    }

    /// The log of a replica has nothing below `start` any more: a durable state covers it.
    pub fn handle_released(&mut self, key: ReplicaKey, start: u64) {
        if let Some(replica) = self.replicas.get_mut(&key.partition).filter(|replica| replica.key == key) {
            replica.log.release(start.min(replica.applied));
        }
    }

    /// A whole state has arrived from a leader. If it is of use, `Action::Log` with `LogChange::Install` follows and
    /// this is true; if not, it is to be thrown away.
    pub fn handle_snapshot(&mut self, now: Instant, wall_ms: u64, header: &SnapshotHeader) -> bool {
        let mut installs = false;
        self.with(now, wall_ms, header.partition, |replica, cx| {
            installs = replica.handle_snapshot(cx, header);
        });
        installs
    }

    /// What the state of a leader is to be sent to `to` with, all records below `state_end` being applied to it;
    /// `None` if that is of no use any more. The state may have been told of later than it was applied, so the
    /// caller names its end.
    ///
    /// # Panics
    ///
    /// When the state has records that are not committed.
    #[must_use]
    pub fn snapshot_header(&self, key: ReplicaKey, to: &NodeId, state_end: u64) -> Option<SnapshotHeader> {
        let replica = self.replicas.get(&key.partition).filter(|replica| replica.key == key)?;
        let Role::Leader(leader) = &replica.role else { return None };
        let progress = leader.followers.get(to)?;
        let ahead = self.config.mistakes.has(Mistake::SnapshotUncommitted);
        let end = if ahead { replica.log.end() } else { state_end };
        assert!(ahead || end <= replica.commit, "only what is committed is applied");
        Some(SnapshotHeader {
            partition: key.partition,
            epoch: replica.record.epoch,
            uid: progress.uid(),
            incarnation: progress.incarnation(),
            end,
            epochs: replica.log.epochs().up_to(end),
            time_last: replica.log.time_last(),
        })
    }

    /// The snapshot for `to` has arrived, or failed: nothing else is sent to it before this.
    pub fn handle_snapshot_ended(&mut self, key: ReplicaKey, to: &NodeId) {
        if let Some(replica) = self.replicas.get_mut(&key.partition).filter(|replica| replica.key == key) {
            replica.handle_snapshot_ended(to);
        }
    }

    /// Something is wrong with the data of a replica (rule D2). It serves nothing any more.
    pub fn handle_damage(&mut self, now: Instant, wall_ms: u64, key: ReplicaKey) {
        self.with_key(now, wall_ms, key, |replica, cx| {
            replica.become_damaged();
            replica.advance(cx);
        });
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant, wall_ms: u64) {
        while let Some((_, partition)) = self.alarms.first().filter(|(due, _)| *due <= now).copied() {
            self.with(now, wall_ms, partition, |_, _| {});
        }
        let due: Vec<_> = self.leaving.iter().filter(|(_, due)| **due <= now).map(|(key, _)| *key).collect();
        for replica in due {
            self.leaving.remove(&replica);
            self.actions.push_back(Action::Remove { replica });
        }
        self.ask_support(now);
    }

    /// The next work to be begun.
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front()?;
        match &action {
            Action::Reply { request, .. } => drop(self.requests.remove(request)),
            Action::FailRead { read, .. } => drop(self.reads.remove(read)),
            _ => {}
        }
        Some(action)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let replica = self.alarms.first().map(|(due, _)| *due);
        let removal = self.leaving.values().min().copied();
        let support = self.support_due();
        [replica, removal, support].into_iter().flatten().min()
    }
}

// Wishes.
impl Replicas {
    /// Writes to a partition that this node leads. `Action::Reply` says what became of it.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]; nothing was written.
    pub fn propose(
        &mut self,
        now: Instant,
        partition: PartitionId,
        write: Write,
    ) -> Result<RequestId, ProposeError> {
        let request = RequestId(self.number_next());
        let wall_ms = write.wall_ms;
        let epoch = self.topology.partition(partition).map_or(Epoch(0), |record| record.epoch);
        let mut outcome = Err(ProposeError::NotLeader { leader: None, epoch });
        self.with(now, wall_ms, partition, |replica, cx| outcome = replica.propose(cx, request, write));
        outcome?;
        self.requests.insert(request, partition);
        Ok(request)
    }

    /// Nobody waits for the answer to a write any more. It may take effect all the same.
    pub fn forget_write(&mut self, request: RequestId) {
        if let Some(replica) =
            self.requests.remove(&request).and_then(|partition| self.replicas.get_mut(&partition))
        {
            replica.forget_write(request);
        }
    }

    /// Begins a read. `Action::Serve` says when it can be evaluated, `Action::FailRead` that it cannot.
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    pub fn read(
        &mut self,
        now: Instant,
        wall_ms: u64,
        partition: PartitionId,
        consistency: Consistency,
        deadline: Instant,
    ) -> Result<ReadId, ReadError> {
        let read = ReadId(self.number_next());
        let mut outcome = Err(ReadError::NoReplica);
        if consistency == Consistency::Linearizable {
            self.read_at.insert(partition, now);
            self.last_read = Some(now);
        }
        // Known before it is begun, since it may be served at once.
        self.reads.insert(read, partition);
        self.with(now, wall_ms, partition, |replica, cx| {
            outcome = replica.read(cx, read, consistency, deadline);
        });
        self.ask_support(now);
        match outcome {
            Ok(()) => Ok(read),
            Err(error) => {
                self.reads.remove(&read);
                Err(error)
            }
        }
    }

    /// The read was evaluated: may it be answered? `now` is taken after the evaluation.
    pub fn finish_read(&mut self, now: Instant, wall_ms: u64, read: ReadId) -> ReadOutcome {
        let Some(partition) = self.reads.get(&read).copied() else { return ReadOutcome::Gone };
        let mut outcome = ReadOutcome::Gone;
        self.with(now, wall_ms, partition, |replica, cx| outcome = replica.finish_read(cx, read));
        if outcome != ReadOutcome::Again {
            self.reads.remove(&read);
        }
        outcome
    }

    /// Asks that somebody else lead `partition`, again and again until somebody does. Writes are refused while an
    /// answer is out, and taken again for a moment where nobody can follow.
    pub fn resign(&mut self, now: Instant, wall_ms: u64, partition: PartitionId) {
        self.with(now, wall_ms, partition, Replica::resign);
    }

    fn number_next(&mut self) -> u64 {
        self.number_last += 1;
        self.number_last
    }
}

// What others want to know.
impl Replicas {
    /// The topology that all replicas have adopted.
    #[must_use]
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// What a replica has, for an election (rule F2).
    #[must_use]
    pub fn position(&self, partition: PartitionId) -> Option<Position> {
        self.replicas.get(&partition).map(Replica::position)
    }

    /// How a replica stands.
    #[must_use]
    pub fn status(&self, now: Instant, partition: PartitionId) -> Option<ReplicaStatus> {
        let replica = self.replicas.get(&partition)?;
        let cx = self.context(now, 0);
        let role = match &replica.role {
            Role::Follower(_) => RoleStatus::Follower,
            Role::Idle => RoleStatus::Idle,
            Role::Leader(leader) => RoleStatus::Leader {
                active: replica.is_active(),
                leased: replica.has_lease(&cx),
                writable: leader.farewell == Farewell::None,
            },
        };
        let leads = matches!(role, RoleStatus::Leader { .. });
        Some(ReplicaStatus {
            key: replica.key,
            epoch: replica.record.epoch,
            role,
            log_start: replica.log.start(),
            log_end: replica.log.end(),
            durable: replica.log.durable(),
            commit: replica.commit,
            commit_durable: replica.commit.min(replica.log.durable()),
            applied: replica.applied,
            damaged: replica.damaged,
            maximal: replica.maximal().filter(|_| leads).cloned().collect(),
        })
    }

    /// The partitions that this node has copies of.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.replicas.keys().copied()
    }
}

// Adopting.
impl Replicas {
    fn adopt(&mut self, now: Instant, wall_ms: u64, partition: PartitionId, is_first: bool) {
        let record = self.topology.partitions[partition.index()].clone();
        let placed = record.replica(&self.me).map(|replica| ReplicaKey { partition, uid: replica.uid });
        let here = self.replicas.get(&partition).map(|replica| replica.key);
        if let Some(old) = here.filter(|old| Some(*old) != placed) {
            self.retire(now, wall_ms, old, placed.is_some());
        }
        let Some(key) = placed else { return };
        let is_new = here != Some(key);
        if is_new {
            // One that waits for its removal has an older uid, so it cannot be this one.
            let replica = match self.recovered.remove(&key) {
                Some(recovered) => Replica::new(key, record.clone(), recovered),
                None => Replica::create(key, record.clone()),
            };
            self.replicas.insert(partition, replica);
        }
        self.with(now, wall_ms, partition, |replica, cx| replica.adopt(cx, record, is_first || is_new));
    }

    /// Nodes came, went or were declared dead: leaders may have to change their in-sync sets.
    fn advance_leaders(&mut self, now: Instant, wall_ms: u64) {
        let leads = |(_, replica): &(&PartitionId, &Replica)| matches!(replica.role, Role::Leader(_));
        let led: Vec<_> = self.replicas.iter().filter(leads).map(|(partition, _)| *partition).collect();
        for partition in led {
            self.with(now, wall_ms, partition, Replica::advance);
        }
    }

    /// A replica is placed here no more.
    fn retire(&mut self, now: Instant, wall_ms: u64, key: ReplicaKey, at_once: bool) {
        self.with_key(now, wall_ms, key, |replica, _| {
            replica.depose();
            replica.fail_all_reads();
        });
        self.replicas.remove(&key.partition);
        self.set_alarm(key.partition, None);
        if at_once {
            self.actions.push_back(Action::Remove { replica: key });
        } else {
            self.leaving.insert(key, now + self.config.removal_grace);
        }
    }

    /// What an earlier run left, and no configuration names.
    fn retire_strangers(&mut self, now: Instant) {
        for (key, _) in core::mem::take(&mut self.recovered) {
            self.leaving.insert(key, now + self.config.removal_grace);
        }
    }

    fn context(&self, now: Instant, wall_ms: u64) -> Context<'_> {
        Context {
            config: &self.config,
            me: &self.me,
            incarnation: self.incarnation,
            now,
            wall_ms,
            topology: &self.topology,
            support: &self.support,
        }
    }

    fn with(
        &mut self,
        now: Instant,
        wall_ms: u64,
        partition: PartitionId,
        act: impl FnOnce(&mut Replica, &Context<'_>),
    ) {
        // Taken out as a whole, so that the rest can be lent to one of them; none is moved.
        let mut replicas = core::mem::take(&mut self.replicas);
        let timeout = replicas.get_mut(&partition).and_then(|replica| {
            let cx = self.context(now, wall_ms);
            act(replica, &cx);
            // The shell may be late: what was due is done before another time is named, or nobody would do it.
            if self.timeouts.get(&partition).is_some_and(|due| *due <= now) {
                replica.handle_timeout(&cx);
            }
            let timeout = replica.poll_timeout(&cx);
            self.actions.append(&mut replica.actions);
            timeout
        });
        self.replicas = replicas;
        self.set_alarm(partition, timeout);
    }

    fn set_alarm(&mut self, partition: PartitionId, timeout: Option<Instant>) {
        let before = match timeout {
            Some(timeout) => self.timeouts.insert(partition, timeout),
            None => self.timeouts.remove(&partition),
        };
        if before != timeout {
            self.alarms.extend(timeout.map(|timeout| (timeout, partition)));
            if let Some(before) = before {
                self.alarms.remove(&(before, partition));
            }
        }
    }

    fn with_key(
        &mut self,
        now: Instant,
        wall_ms: u64,
        key: ReplicaKey,
        act: impl FnOnce(&mut Replica, &Context<'_>),
    ) {
        if self.replicas.get(&key.partition).is_some_and(|replica| replica.key == key) {
            self.with(now, wall_ms, key.partition, act);
        }
    }
}

// Support.
impl Replicas {
    /// When support is to be asked for next: only while linearizable reads come in (rule L1).
    fn support_due(&self) -> Option<Instant> {
        let due = self.asked_at? + self.config.support / 3;
        (due <= self.last_read? + self.config.support).then_some(due)
    }

    fn ask_support(&mut self, now: Instant) {
        let window = self.config.support;
        if self.asked_at.is_some_and(|asked| now.since(asked) < window / 3) {
            return;
        }
        self.read_at.retain(|_, read_at| now.since(*read_at) <= window);
        if self.read_at.is_empty() {
            return;
        }
        self.asked_at = Some(now);
        let leads = |partition: &PartitionId| {
            self.replicas.get(partition).filter(|replica| matches!(replica.role, Role::Leader(_)))
        };
        let members: BTreeSet<&NodeId> =
            self.read_at.keys().filter_map(leads).flat_map(Replica::maximal).collect();
        for to in members.into_iter().filter(|member| **member != self.me).cloned() {
            let message = Message::SupportRequest { incarnation: self.incarnation, sent_at: now.elapsed() };
            self.actions.push_back(Action::Send { to, message });
        }
    }

    /// Promises have come: reads that waited may go on.
    fn advance_readers(&mut self, now: Instant, wall_ms: u64) {
        let waits =
            |partition: &&PartitionId| self.replicas.get(partition).is_some_and(Replica::awaits_support);
        let readers: Vec<_> = self.read_at.keys().filter(waits).copied().collect();
        for partition in readers {
            self.with(now, wall_ms, partition, Replica::advance);
        }
    }
}
