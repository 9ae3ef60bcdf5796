//! What a node does for clients: takes their requests, evaluates reads, answers.

use std::time::Duration;

use clusterkit_core::id::Epoch;
use clusterkit_core::replica::{
    Ack, Consistency, Entry, ProposeError, ReadError, ReadId, ReadOutcome, ReplicaKey, RequestId, Write,
    WriteOutcome,
};
use clusterkit_core::time::Instant;

use super::clients::{Answer, Asked, Outcome, Request};
use super::coverage::Step;
use super::machine::KEYS;
use super::node::index;
use super::world::{Event, World};

/// How long a node tries to serve a read, by its own clock.
const READ_TIME: Duration = Duration::from_millis(1_500);

/// A read that a node works on.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) request: Request,
    /// How much was committed when it came.
    pub(super) committed: u64,
}

/// What the state machine said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evaluated {
    pub(super) applied: u64,
    pub(super) values: [u64; KEYS],
}

// Requests.
impl World {
    /// A client's request has come.
    pub(super) fn serve(&mut self, node: usize, request: Request) {
        if self.nodes[node].replicas().is_none() {
            return self.answer_later(node, &request, Outcome::Refused { leader: None });
        }
        match request.asked.clone() {
            Asked::Open { ack } => self.propose(node, request, (Entry::OpenSession, ack)),
            Asked::Read { consistency, .. } => self.begin_read(node, request, consistency),
            Asked::Write { entry, ack } => self.write(node, request, (entry, ack)),
        }
    }

    fn write(&mut self, node: usize, request: Request, (entry, ack): (Entry, Ack)) {
        if let Entry::Write { request: Some(session), .. } = &entry
            && ack != Ack::Leader
            && self.chance.permille(500)
            && let Some(first) = self.known_answer(node, &request, *session)
        {
            return self.answer_later(node, &request, Outcome::Known { first });
        }
        self.propose(node, request, (entry, ack));
    }

    /// A leader need not log a request again whose answer it has.
    fn known_answer(
        &self,
        node: usize,
        request: &Request,
        session: clusterkit_core::replica::SessionRequest,
    ) -> Option<u64> {
        let process = self.nodes[node].process.as_ref()?;
        let key =
            process.replicas.as_ref()?.status(self.nodes[node].clock.local(self.now), request.partition)?;
        process.machines.get(&key.key)?.answer(session)
    }

    fn propose(&mut self, node: usize, request: Request, (entry, ack): (Entry, Ack)) {
        let (local, wall_ms) = self.clocks(node);
        let partition = request.partition;
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        let Some(replicas) = process.replicas.as_mut() else { return };
        match replicas.propose(local, partition, Write { entry, ack, wall_ms }) {
            Ok(id) => drop(process.requests.insert(id, request)),
            Err(error) => {
                let leader = self.leader_named(&error);
                self.answer_later(node, &request, Outcome::Refused { leader });
            }
        }
        self.settle(node, Some(partition));
    }

    fn leader_named(&mut self, error: &ProposeError) -> Option<usize> {
        match error {
            ProposeError::NotLeader { leader, .. } => leader.as_ref().map(index),
            ProposeError::NotEnoughReplicas => {
                self.cover(Step::NotEnough);
                None
            }
            _ => None,
        }
    }

    fn begin_read(&mut self, node: usize, request: Request, consistency: Consistency) {
        let (local, wall_ms) = self.clocks(node);
        let partition = request.partition;
        let committed = self.ghosts[partition.index()].end();
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        let Some(replicas) = process.replicas.as_mut() else { return };
        match replicas.read(local, wall_ms, partition, consistency, local + READ_TIME) {
            Ok(id) => drop(process.reads.insert(id, Reading { request, committed })),
            Err(error) => {
                let leader = match error {
                    ReadError::NotLeader { leader, .. } => leader.as_ref().map(index),
                    _ => None,
                };
                self.answer_later(node, &request, Outcome::Refused { leader });
            }
        }
        self.settle(node, Some(partition));
    }
}

// Reads.
impl World {
    pub(super) fn begin_evaluation(&mut self, node: usize, key: ReplicaKey, read: ReadId) {
        let run = self.nodes[node].disk.run;
        let is_slow = self.chance.permille(self.settings.slow_work);
        let delay = if is_slow { self.chance.millis(1, 400) } else { self.chance.micros(10, 200) };
        self.after(delay, Event::Evaluate { node, run, key, read });
    }

    /// The state machine evaluates a read; that it may be answered is asked afterwards.
    pub(super) fn evaluate(&mut self, node: usize, run: u64, key: ReplicaKey, read: ReadId) {
        let Some(process) = self.nodes[node].process.as_ref().filter(|process| process.run == run) else {
            return;
        };
        let Some(machine) = process.machines.get(&key) else { return };
        let evaluated = Evaluated { applied: machine.applied, values: machine.values };
        if self.chance.permille(self.settings.slow_work) {
            let delay = self.chance.millis(1, 600);
            return self.after(delay, Event::Finish { node, run, read, evaluated });
        }
        self.finish(node, run, read, &evaluated);
    }

    pub(super) fn finish(&mut self, node: usize, run: u64, read: ReadId, evaluated: &Evaluated) {
        if !self.nodes[node].runs(run) {
            return;
        }
        let outcome = self.act(node, None, |replicas, now, wall_ms| replicas.finish_read(now, wall_ms, read));
        let Some(ReadOutcome::Done(_)) = outcome else { return };
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        let Some(reading) = process.reads.remove(&read) else { return };
        self.check_served(node, &reading, evaluated);
        self.cover(Step::Read);
        let outcome = Outcome::Value { applied: evaluated.applied };
        self.answer_later(node, &reading.request, outcome);
    }

    pub(super) fn fail_read(&mut self, node: usize, read: ReadId, error: &ReadError) {
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        let Some(reading) = process.reads.remove(&read) else { return };
        let leader = match error {
            ReadError::NotLeader { leader, .. } => leader.as_ref().map(index),
            _ => None,
        };
        self.answer_later(node, &reading.request, Outcome::Refused { leader });
    }
}

// Answers.
impl World {
    pub(super) fn reply(&mut self, node: usize, id: RequestId, outcome: WriteOutcome) {
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        let Some(request) = process.requests.remove(&id) else { return };
        let outcome = match outcome {
            WriteOutcome::Unknown => Outcome::Unknown,
            WriteOutcome::Done { epoch, offset } => self.done(node, &request, (epoch, offset)),
        };
        self.answer_later(node, &request, outcome);
    }

    fn done(&mut self, node: usize, request: &Request, (epoch, offset): (Epoch, u64)) -> Outcome {
        self.cover(Step::Reply);
        if request.ack() == Some(Ack::Leader) {
            return Outcome::Written { offset };
        }
        self.check_acknowledged(node, request, (epoch, offset));
        Outcome::Done { epoch, offset, effect: self.ghosts[request.partition.index()].effect(offset) }
    }

    pub(super) fn answer_later(&mut self, node: usize, request: &Request, outcome: Outcome) {
        if !self.quiet && self.chance.permille(self.settings.loss) {
            return;
        }
        let delay = self.chance.micros(100, 3_000);
        let (client, op, attempt) = (request.client, request.op, request.attempt);
        let answer = Box::new(Answer { node, op, attempt, outcome });
        self.after(delay, Event::Answer { client, answer });
    }

    /// Whether a node counts itself as the leader of a partition, and as what.
    pub(super) fn status(
        &self,
        node: usize,
        partition: clusterkit_core::id::PartitionId,
    ) -> Option<clusterkit_core::replica::ReplicaStatus> {
        let local: Instant = self.nodes[node].clock.local(self.now);
        self.nodes[node].replicas()?.status(local, partition)
    }
}
