//! The task that owns a node's replicas: it brings facts in and carries actions out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use clusterkit::messages::Lane;
use clusterkit::{ClusterKit, TopologyWatch};
use clusterkit_core::handoff::Position;
use clusterkit_core::id::{Epoch, NodeId, PartitionId, PartitionVersion};
use clusterkit_core::replica::{
    Ack, Action, Alarm, Consistency, Message, ProposeError, ReadError, ReadId, ReadOutcome, ReadStamp,
    ReplicaKey, ReplicaStatus, Replicas, RequestId, RoleStatus, SnapshotHeader, Wish, Write, WriteOutcome,
};
use clusterkit_core::time::Instant;
use clusterkit_core::topology::Topology;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::error::{QueryError, WriteError};
use crate::limits::{ANSWERS_MAX, NOTICE_BYTES_MAX, SNAPSHOTS_MAX, SWEEP_EVERY, TURN_MAX, WISHES_MAX};
use crate::options::{Answered, Written};
use crate::shared::{Queues, Shared};
use crate::snapshots;
use crate::storage::{Answer, EvaluateError, LogInput, QUEUED_BYTES_MAX, StateInput, StorageEvent};
use crate::wire::Notice;

/// What reaches the engine, besides topologies and what its storage says.
#[derive(Debug)]
pub(crate) enum Input {
    /// Wait until this node leads a partition under an epoch, and has committed something of it; or until it
    /// never will.
    AwaitActive { partition: PartitionId, epoch: Epoch, reply: oneshot::Sender<bool> },
    /// Wait until a topology of this version, or a later one of the partition's, is adopted.
    AwaitAdopted { partition: PartitionId, version: PartitionVersion, reply: oneshot::Sender<()> },
    /// Another node says something.
    Message { from: NodeId, message: Message },
    /// What does a replica have?
    Position { partition: PartitionId, reply: oneshot::Sender<Option<Position>> },
    /// A client writes.
    Propose { partition: PartitionId, write: Write, reply: WriteReply },
    /// A client asks.
    Read { partition: PartitionId, read: ReadWish, reply: ReadReply },
    /// Somebody else shall lead.
    Resign { partition: PartitionId },
    /// What is to be sent with the state of a replica, which ends at `end`?
    SnapshotHeader { key: ReplicaKey, to: NodeId, end: u64, reply: oneshot::Sender<Option<SnapshotHeader>> },
    /// A snapshot was sent, or was not.
    SnapshotSent { key: ReplicaKey, to: NodeId, number: u64 },
    /// A snapshot has arrived, and its state lies ready. Is it used?
    SnapshotReceived { header: SnapshotHeader, reply: oneshot::Sender<bool> },
    /// How does a replica stand?
    Status { partition: PartitionId, reply: oneshot::Sender<Option<ReplicaStatus>> },
    /// A wish was carried out, or refused.
    WishEnded { key: WishKey },
}

pub(crate) type WriteReply = oneshot::Sender<Result<Written, WriteError>>;
pub(crate) type ReadReply = oneshot::Sender<Result<Answered, QueryError>>;
/// What is wished, of which record: once at a time.
pub(crate) type WishKey = (PartitionId, PartitionVersion, u8);

/// A question and how it is to be answered.
#[derive(Debug)]
pub(crate) struct ReadWish {
    pub(crate) consistency: Consistency,
    pub(crate) deadline: Instant,
    pub(crate) question: Bytes,
    /// Only the leader may answer, though not necessarily the last word.
    pub(crate) by_leader: bool,
}

#[derive(Debug)]
struct PendingWrite {
    partition: PartitionId,
    ack: Ack,
    reply: WriteReply,
}

#[derive(Debug)]
struct PendingRead {
    question: Bytes,
    reply: ReadReply,
}

/// See the [module](self).
///
/// Invariants:
/// - `writers` counts the `writes` of each partition that wait for an answer of its state, and `writers_all` those of them that wait for all replicas;
/// - `answers` has what was applied to partitions with writers, up to the last one that was replied, and that too where
///   some wait for all replicas.
pub(crate) struct Engine {
    shared: Arc<Shared>,
    storage: Queues,
    node: ClusterKit,
    replicas: Replicas,
    writes: BTreeMap<RequestId, PendingWrite>,
    writers: BTreeMap<PartitionId, usize>,
    writers_all: BTreeMap<PartitionId, usize>,
    answers: BTreeMap<PartitionId, BTreeMap<u64, Answer>>,
    /// The last write of each partition that was replied in this turn.
    replied: BTreeMap<PartitionId, u64>,
    reads: BTreeMap<ReadId, PendingRead>,
    outbox: BTreeMap<NodeId, Notice>,
    wishes: BTreeSet<WishKey>,
    /// Partitions that it said to be stalled, and how far they were committed then.
    stalled: BTreeMap<PartitionId, u64>,
    snapshots: Arc<Semaphore>,
    /// The snapshots under way, by whose they are and to whom they go, each with its number.
    sending: BTreeMap<(ReplicaKey, NodeId), (u64, CancellationToken)>,
    snapshot_last: u64,
    awaiting_active: Vec<(PartitionId, Epoch, oneshot::Sender<bool>)>,
    awaiting_adopted: Vec<(PartitionId, PartitionVersion, oneshot::Sender<()>)>,
    /// Partitions of which more was committed since that was noted.
    moved: BTreeSet<PartitionId>,
    sweep_at: Instant,
}

impl Engine {
    pub(crate) fn new(shared: Arc<Shared>, storage: Queues, node: ClusterKit, replicas: Replicas) -> Self {
        Self {
            sweep_at: shared.clock.now() + SWEEP_EVERY,
            shared,
            storage,
            node,
            replicas,
            writes: BTreeMap::new(),
            writers: BTreeMap::new(),
            writers_all: BTreeMap::new(),
            answers: BTreeMap::new(),
            replied: BTreeMap::new(),
            reads: BTreeMap::new(),
            outbox: BTreeMap::new(),
            wishes: BTreeSet::new(),
            stalled: BTreeMap::new(),
            snapshots: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
            sending: BTreeMap::new(),
            snapshot_last: 0,
            awaiting_active: Vec::new(),
            awaiting_adopted: Vec::new(),
            moved: BTreeSet::new(),
        }
    }

    /// Runs until the node stops, or its storage fails.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Input>) {
        let mut topology = self.node.watch();
        self.adopt(&topology.current());
        self.shared.running.send_replace(true);
        self.end_turn();
        let mut inputs = Vec::with_capacity(TURN_MAX);
        while self.turn(&mut topology, &mut inbox, &mut inputs).await {
            self.end_turn();
        }
    }

    /// Takes what there is; `false` when it is over.
    async fn turn(
        &mut self,
        topology: &mut TopologyWatch,
        inbox: &mut mpsc::Receiver<Input>,
        inputs: &mut Vec<Input>,
    ) -> bool {
        let due = self.replicas.poll_timeout().map_or(self.sweep_at, |due| due.min(self.sweep_at));
        tokio::select! {
            biased;
            () = self.shared.stop.cancelled() => return false,
            () = self.shared.storage_events.ready() => return self.take_events(),
            newer = topology.changed() => match newer {
                Some(newer) => self.adopt(&newer),
                None => return false,
            },
            count = inbox.recv_many(inputs, TURN_MAX) => {
                if count == 0 {
                    return false;
                }
                inputs.drain(..).for_each(|input| self.take(input));
            }
            () = self.shared.clock.sleep_until(due) => {}
        }
        self.handle_time();
        true
    }

    fn handle_time(&mut self) {
        let (now, wall_ms) = self.time();
        if self.replicas.poll_timeout().is_some_and(|due| due <= now) {
            self.replicas.handle_timeout(now, wall_ms);
        }
        if self.sweep_at <= now {
            self.sweep_at = now + SWEEP_EVERY;
            self.sweep();
            self.note_commits();
        }
    }

    /// Has the log note how far it is committed, where that moved.
    fn note_commits(&mut self) {
        let now = self.shared.clock.now();
        for partition in std::mem::take(&mut self.moved) {
            if let Some(status) = self.replicas.status(now, partition) {
                let (key, commit) = (status.key, status.commit_durable);
                self.storage.log.push(LogInput::NoteCommit { key, commit });
            }
        }
    }

    /// Forgets writes that nobody waits for any more.
    fn sweep(&mut self) {
        let gone = self.writes.iter().filter(|(_, write)| write.reply.is_closed());
        let gone: Vec<_> = gone.map(|(request, _)| *request).collect();
        for request in gone {
            self.replicas.forget_write(request);
            self.end_write(request);
        }
    }

    fn time(&self) -> (Instant, u64) {
        (self.shared.clock.now(), self.shared.clock.wall().0)
    }
}

// Facts.
impl Engine {
    fn adopt(&mut self, topology: &Arc<Topology>) {
        let (now, wall_ms) = self.time();
        self.replicas.handle_topology(now, wall_ms, topology);
        for record in &topology.partitions {
            match self.replicas.status(now, record.id) {
                Some(status) => self.shared.events.begin(status.key, status.applied),
                None => self.shared.events.forget(record.id),
            }
        }
    }

    fn take_events(&mut self) -> bool {
        for event in self.shared.storage_events.take(TURN_MAX) {
            if !self.take_event(event) {
                return false;
            }
        }
        self.handle_time();
        true
    }

    fn take_event(&mut self, event: StorageEvent) -> bool {
        let (now, wall_ms) = self.time();
        match event {
            StorageEvent::Applied { key, first, end, answers, events } => {
                self.note_answers(key.partition, answers);
                self.moved.insert(key.partition);
                self.shared.events.publish(key, first, end, events);
                self.replicas.handle_applied(now, wall_ms, key, end);
            }
            StorageEvent::Damaged { key } => {
                self.replicas.handle_damage(now, wall_ms, key);
            }
            StorageEvent::Durable(changes) => {
                for (key, op) in changes {
                    self.replicas.handle_durable(now, wall_ms, key, op);
                }
            }
            StorageEvent::Evaluated { read, answer } => self.finish_read(read, answer),
            StorageEvent::Failed(error) => {
                tracing::error!(target: "clusterkit::data", %error, "the disk failed: this node stops");
                self.shared.fail(error);
                return false;
            }
            StorageEvent::Fetched { key, token, first, records } => {
                self.replicas.handle_fetched(now, wall_ms, key, token, (first, records));
            }
            StorageEvent::Released { key, start } => self.replicas.handle_released(key, start),
        }
        true
    }

    fn note_answers(&mut self, partition: PartitionId, answers: Vec<(u64, Answer)>) {
        if self.writers.contains_key(&partition) {
            let kept = self.answers.entry(partition).or_default();
            kept.extend(answers);
            // More than writes can wait: those of the oldest were given up, or answered without it.
            while kept.len() > ANSWERS_MAX {
                kept.pop_first();
            }
        }
    }

    fn take(&mut self, input: Input) {
        let (now, wall_ms) = self.time();
        match input {
            Input::AwaitActive { partition, epoch, reply } => {
                self.awaiting_active.push((partition, epoch, reply));
            }
            Input::AwaitAdopted { partition, version, reply } => {
                self.awaiting_adopted.push((partition, version, reply));
            }
            Input::Message { from, message } => self.replicas.handle_message(now, wall_ms, &from, message),
            // Whoever asked may have given up, here and below.
            Input::Position { partition, reply } => drop(reply.send(self.replicas.position(partition))),
            Input::Propose { partition, write, reply } => self.propose(partition, write, reply),
            Input::Read { partition, read, reply } => self.begin_read(partition, read, reply),
            Input::Resign { partition } => self.replicas.resign(now, wall_ms, partition),
            Input::SnapshotHeader { key, to, end, reply } => {
                drop(reply.send(self.replicas.snapshot_header(key, &to, end)));
            }
            Input::SnapshotSent { key, to, number } => self.end_snapshot(key, to, number),
            Input::SnapshotReceived { header, reply } => {
                let installs = self.replicas.handle_snapshot(now, wall_ms, &header);
                if installs {
                    let key = ReplicaKey { partition: header.partition, uid: header.uid };
                    self.shared.events.begin(key, header.end);
                }
                // Whoever brought it may have given up.
                let _ = reply.send(installs);
            }
            Input::Status { partition, reply } => drop(reply.send(self.replicas.status(now, partition))),
            Input::WishEnded { key } => drop(self.wishes.remove(&key)),
        }
    }
}

// Writes and reads.
impl Engine {
    fn propose(&mut self, partition: PartitionId, write: Write, reply: WriteReply) {
        let ack = write.ack;
        let queued = self.storage.log.queued_bytes().max(self.storage.states.queued_bytes());
        let outcome = if queued > QUEUED_BYTES_MAX {
            Err(ProposeError::Overloaded)
        } else {
            self.replicas.propose(self.shared.clock.now(), partition, write)
        };
        match outcome {
            Ok(request) => {
                self.writes.insert(request, PendingWrite { partition, ack, reply });
                if ack != Ack::Leader {
                    *self.writers.entry(partition).or_default() += 1;
                }
                if ack == Ack::All {
                    *self.writers_all.entry(partition).or_default() += 1;
                }
            }
            Err(error) => drop(reply.send(Err(self.refusal(partition, error)))),
        }
    }

    fn refusal(&self, partition: PartitionId, error: ProposeError) -> WriteError {
        match error {
            ProposeError::NotLeader { leader, epoch } => WriteError::NotLeader { leader, epoch },
            ProposeError::NotAllReplicas => WriteError::NotAllReplicas,
            ProposeError::NotEnoughReplicas => {
                WriteError::NotEnoughReplicas { missing: self.missing(partition) }
            }
            ProposeError::SessionNeedsQuorum => WriteError::SessionNeedsQuorum,
            ProposeError::TooLarge { bytes, limit } => WriteError::TooLarge { bytes, limit },
            ProposeError::HandingOver => {
                let epoch =
                    self.replicas.topology().partition(partition).map_or(Epoch(0), |record| record.epoch);
                WriteError::NotLeader { leader: None, epoch }
            }
            _ => WriteError::Overloaded,
        }
    }

    /// The nodes that a partition misses.
    fn missing(&self, partition: PartitionId) -> Vec<NodeId> {
        let topology = self.replicas.topology();
        let Some(record) = topology.partition(partition) else { return Vec::new() };
        let replicas = record.replicas.iter().map(|replica| &replica.node);
        replicas.filter(|node| !topology.is_live(node) || !record.in_sync.contains(*node)).cloned().collect()
    }

    fn end_write(&mut self, request: RequestId) -> Option<PendingWrite> {
        let write = self.writes.remove(&request)?;
        if write.ack != Ack::Leader {
            count_down(&mut self.writers, write.partition);
        }
        if write.ack == Ack::All {
            count_down(&mut self.writers_all, write.partition);
        }
        Some(write)
    }

    fn reply(&mut self, request: RequestId, outcome: WriteOutcome) {
        let Some(write) = self.end_write(request) else { return };
        let result = match outcome {
            WriteOutcome::Unknown => {
                let partition = write.partition;
                tracing::debug!(target: "clusterkit::data", %partition, "the outcome of a write is unknown");
                Err(WriteError::OutcomeUnknown)
            }
            WriteOutcome::Done { epoch, offset } if write.ack == Ack::Leader => {
                Ok(Written { epoch, offset, answer: None, replayed: false })
            }
            WriteOutcome::Done { epoch, offset } => {
                let answer =
                    self.answers.get(&write.partition).and_then(|answers| answers.get(&offset)).cloned();
                self.replied.insert(write.partition, offset);
                written(epoch, offset, answer)
            }
        };
        // The client may be gone.
        drop(write.reply.send(result));
    }

    fn begin_read(&mut self, partition: PartitionId, wish: ReadWish, reply: ReadReply) {
        let (now, wall_ms) = self.time();
        let ReadWish { consistency, deadline, question, by_leader } = wish;
        let leads = || {
            let status = self.replicas.status(now, partition);
            status.is_some_and(|status| matches!(status.role, RoleStatus::Leader { .. }))
        };
        if by_leader && !leads() {
            return drop(reply.send(Err(self.not_leader(partition))));
        }
        match self.replicas.read(now, wall_ms, partition, consistency, deadline) {
            Ok(read) => drop(self.reads.insert(read, PendingRead { question, reply })),
            Err(error) => drop(reply.send(Err(query_error(error)))),
        }
    }

    fn not_leader(&self, partition: PartitionId) -> QueryError {
        let record = self.replicas.topology().partition(partition);
        let leader = record.and_then(|record| record.leader.clone());
        QueryError::NotLeader { leader, epoch: record.map_or(Epoch(0), |record| record.epoch) }
    }

    fn finish_read(&mut self, read: ReadId, answer: Result<Bytes, EvaluateError>) {
        let (now, wall_ms) = self.time();
        match self.replicas.finish_read(now, wall_ms, read) {
            ReadOutcome::Again | ReadOutcome::Gone => {}
            ReadOutcome::Done(ReadStamp { epoch, applied }) => {
                if let Some(pending) = self.reads.remove(&read) {
                    let answer = answer.map(|answer| Answered { epoch, applied, answer });
                    // The client may be gone.
                    drop(pending.reply.send(answer.map_err(|_| QueryError::Damaged)));
                }
            }
        }
    }

    fn fail_read(&mut self, read: ReadId, error: ReadError) {
        if let Some(pending) = self.reads.remove(&read) {
            // The client may be gone.
            drop(pending.reply.send(Err(query_error(error))));
        }
    }

    fn serve(&mut self, key: ReplicaKey, read: ReadId) {
        let Some(pending) = self.reads.get(&read) else { return };
        let (question, now_ms) = (pending.question.clone(), self.shared.clock.wall().0);
        self.storage.states.push(StateInput::Evaluate { key, read, question, now_ms });
    }
}

// Actions.
impl Engine {
    /// Carries out what is wanted, and tells those who wait.
    fn end_turn(&mut self) {
        while let Some(action) = self.replicas.poll_action() {
            self.carry_out(action);
        }
        for (to, notice) in std::mem::take(&mut self.outbox) {
            self.send(&to, notice);
        }
        self.forget_answers();
        self.look_at_stalled();
        self.tell_those_who_wait();
    }

    /// Replies come in the order of the log, but for those that wait for all replicas. A new leader may reply long
    /// after it applied (rule L3).
    fn forget_answers(&mut self) {
        for (partition, offset) in std::mem::take(&mut self.replied) {
            if self.writers_all.contains_key(&partition) {
                continue;
            }
            if let Some(answers) = self.answers.get_mut(&partition) {
                *answers = answers.split_off(&(offset + 1));
            }
            if !self.writers.contains_key(&partition) {
                self.answers.remove(&partition);
            }
        }
        let writers = &self.writers;
        self.answers.retain(|partition, _| writers.contains_key(partition));
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Alarm { partition, alarm } => self.hear_alarm(partition, &alarm),
            Action::Apply { replica, first, records } => {
                self.storage.states.push(StateInput::Apply { key: replica, first, records });
            }
            Action::FailRead { read, error } => self.fail_read(read, error),
            Action::Fetch { replica, token, range, bytes_max } => {
                self.storage.log.push(LogInput::Fetch { key: replica, token, range, bytes_max });
            }
            Action::Log { replica, op, change } => {
                self.storage.log.push(LogInput::Change { key: replica, op, change });
            }
            // The topology comes by itself, as soon as this node's control plane has it.
            Action::RefreshTopology => {}
            Action::Remove { replica } => {
                self.storage.log.push(LogInput::Remove { key: replica });
                self.storage.states.push(StateInput::Remove { key: replica });
            }
            Action::Reply { request, outcome } => self.reply(request, outcome),
            Action::Send { to, message } => self.gather(&to, &message),
            Action::SendSnapshot { replica, to } => self.send_snapshot(replica, to),
            Action::Serve { replica, read } => self.serve(replica, read),
            Action::Wish(wish) => self.wish(wish),
        }
    }

    fn hear_alarm(&mut self, partition: PartitionId, alarm: &Alarm) {
        match alarm {
            Alarm::Damaged => {
                let uid = self.replicas.topology().partition(partition).and_then(|record| {
                    record.replicas.iter().find(|replica| replica.node == *self.node.node_id())
                });
                let Some(uid) = uid.map(|replica| replica.uid) else { return };
                tracing::error!(target: "clusterkit::data", %partition, "a replica is damaged: it is copied anew");
                self.node.report_damaged(partition, uid);
            }
            Alarm::ClockJump { ahead_ms } => {
                tracing::warn!(target: "clusterkit::data", %partition, ahead_ms, "the wall clock of this node jumped");
            }
            _ => tracing::warn!(target: "clusterkit::data", %partition, ?alarm, "a replica needs attention"),
        }
    }

    fn gather(&mut self, to: &NodeId, message: &Message) {
        let notice = self.outbox.entry(to.clone()).or_default();
        notice.push(message);
        if notice.len() >= NOTICE_BYTES_MAX
            && let Some(full) = self.outbox.remove(to)
        {
            self.send(to, full);
        }
    }

    fn send(&self, to: &NodeId, notice: Notice) {
        // What is lost is sent again by who misses its answer.
        if let Err(error) = self.node.notify(to, Lane::Data, notice.into_bytes()) {
            tracing::debug!(target: "clusterkit::data", %to, %error, "a node was not told");
        }
    }

    /// One is under way to each follower: it replaces one that was begun for an earlier run or epoch.
    fn send_snapshot(&mut self, key: ReplicaKey, to: NodeId) {
        self.snapshot_last += 1;
        let number = self.snapshot_last;
        let aborted = self.shared.stop.child_token();
        if let Some((_, before)) = self.sending.insert((key, to.clone()), (number, aborted.clone())) {
            before.cancel();
        }
        let (shared, node, places) = (self.shared.clone(), self.node.clone(), self.snapshots.clone());
        self.shared.tracker.spawn(async move {
            let sent = async {
                if let Ok(_place) = places.acquire_owned().await {
                    snapshots::send(&shared, &node, key, &to).await;
                }
            };
            // One that was aborted has a successor, which says when it has ended.
            let ended = aborted.run_until_cancelled(sent).await;
            if ended.is_some() {
                shared.tell(Input::SnapshotSent { key, to, number }).await;
            }
        });
    }

    fn end_snapshot(&mut self, key: ReplicaKey, to: NodeId, number: u64) {
        let place = (key, to);
        if self.sending.get(&place).is_some_and(|(newest, _)| *newest == number) {
            self.sending.remove(&place);
            self.replicas.handle_snapshot_ended(key, &place.1);
        }
    }

    fn wish(&mut self, wish: Wish) {
        let key = match &wish {
            Wish::Handoff { partition, version, .. } => (*partition, *version, 0),
            Wish::Resign { partition, version, .. } => (*partition, *version, 1),
            Wish::SetInSync(proposal) => (proposal.partition, proposal.version, 2),
            Wish::Stalled { partition, epoch, .. } => return self.say_stalled(*partition, *epoch),
        };
        // It is repeated until the record moves on.
        if self.wishes.len() >= WISHES_MAX || !self.wishes.insert(key) {
            return;
        }
        let (shared, node) = (self.shared.clone(), self.node.clone());
        self.shared.tracker.spawn(async move {
            let outcome = match wish {
                Wish::Handoff { partition, version, epoch, log_end } => {
                    node.handoff(partition, epoch, version, log_end).await
                }
                Wish::Resign { partition, version, epoch } => node.resign(partition, epoch, version).await,
                Wish::SetInSync(proposal) => {
                    let (partition, version) = (proposal.partition, proposal.version);
                    node.propose_in_sync(partition, version, proposal.in_sync, proposal.added).await
                }
                Wish::Stalled { .. } => return,
            };
            if let Err(error) = outcome {
                tracing::debug!(target: "clusterkit::data", partition = %key.0, %error, "a wish was not followed");
            }
            shared.tell(Input::WishEnded { key }).await;
        });
    }

    fn say_stalled(&mut self, partition: PartitionId, epoch: Epoch) {
        if let Some(status) = self.replicas.status(self.shared.clock.now(), partition) {
            self.stalled.insert(partition, status.commit);
            self.node.report_no_progress(partition, epoch);
        }
    }

    /// Takes back what it said of partitions that get on again.
    fn look_at_stalled(&mut self) {
        let now = self.shared.clock.now();
        let (replicas, node) = (&self.replicas, &self.node);
        self.stalled.retain(|partition, commit| {
            let status = replicas.status(now, *partition);
            let leads = |status: &ReplicaStatus| matches!(status.role, RoleStatus::Leader { .. });
            let is_stalled = status.is_some_and(|status| leads(&status) && status.commit == *commit);
            if !is_stalled {
                node.report_progress(*partition);
            }
            is_stalled
        });
    }

    fn tell_those_who_wait(&mut self) {
        let now = self.shared.clock.now();
        let (replicas, topology) = (&self.replicas, self.replicas.topology());
        let is_active = |partition: PartitionId, epoch: Epoch| {
            let known = topology.partition(partition)?.epoch;
            let status = replicas.status(now, partition)?;
            let active = matches!(status.role, RoleStatus::Leader { active: true, .. });
            (known > epoch || known == epoch && active).then_some(known == epoch)
        };
        for (partition, epoch, reply) in std::mem::take(&mut self.awaiting_active) {
            match is_active(partition, epoch) {
                // The hook may be over.
                Some(active) => drop(reply.send(active)),
                None if reply.is_closed() => {}
                None => self.awaiting_active.push((partition, epoch, reply)),
            }
        }
        let is_adopted = |partition: PartitionId, version: PartitionVersion| {
            topology.partition(partition).is_some_and(|record| record.version >= version)
        };
        for (partition, version, reply) in std::mem::take(&mut self.awaiting_adopted) {
            match is_adopted(partition, version) {
                // The hook may be over.
                true => drop(reply.send(())),
                false if reply.is_closed() => {}
                false => self.awaiting_adopted.push((partition, version, reply)),
            }
        }
    }
}

fn count_down(counts: &mut BTreeMap<PartitionId, usize>, partition: PartitionId) {
    if let Some(count) = counts.get_mut(&partition) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&partition);
        }
    }
}

fn written(epoch: Epoch, offset: u64, answer: Option<Answer>) -> Result<Written, WriteError> {
    let done = |answer, replayed| Ok(Written { epoch, offset, answer: Some(answer), replayed });
    match answer {
        Some(Answer::Applied(answer)) => done(answer, false),
        Some(Answer::Repeated(answer)) => done(answer, true),
        Some(Answer::SessionOpened | Answer::Nothing) => done(Bytes::new(), false),
        Some(Answer::SessionExpired) => Err(WriteError::SessionExpired),
        Some(Answer::SessionTooOld) => Err(WriteError::SessionTooOld),
        Some(Answer::TooLarge(excess)) => Err(WriteError::EffectTooLarge(excess)),
        // It was applied, and what it came to is known no more: as if the answer had been lost.
        None => Err(WriteError::OutcomeUnknown),
    }
}

fn query_error(error: ReadError) -> QueryError {
    match error {
        ReadError::NotLeader { leader, epoch } => QueryError::NotLeader { leader, epoch },
        ReadError::Overloaded => QueryError::Overloaded,
        ReadError::NoReplica => QueryError::Damaged,
        _ => QueryError::Unavailable,
    }
}
