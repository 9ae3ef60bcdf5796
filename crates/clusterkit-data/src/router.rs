//! Where a request goes: to this node's replica, or one hop on; and what it waits for on the way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clusterkit::messages::{Lane, MessageError};
use clusterkit::{ClusterKit, TopologyWatch};
use clusterkit_core::id::{NodeId, PartitionId};
use clusterkit_core::replica::{Ack, Consistency, Entry, SessionId, SessionRequest, Write};
use clusterkit_core::time::Instant;
use clusterkit_core::topology::Partition;
use tokio::sync::oneshot;

use crate::engine::{Input, ReadWish};
use crate::error::{QueryError, WriteError};
use crate::gateway::{Gateway, Loan};
use crate::limits::{DEADLINE_MAX, ROUTE_PAUSE, SESSION_ATTEMPTS_MAX};
use crate::options::{Answered, Read, ReadOptions, WriteOptions, Written};
use crate::shared::Shared;
use crate::wire::{self, Request, Response};

/// See the [module](self).
pub(crate) struct Router<'a> {
    shared: &'a Arc<Shared>,
}

/// What an attempt came to.
enum Attempt<T, E> {
    Done(Result<T, E>),
    /// Nothing was done, for this reason: another attempt may do better, once the topology has moved on or after a
    /// moment.
    Again(E),
}

impl<'a> Router<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Writes, wherever the leader is, under a number of this node's own if the client has none.
    pub(crate) async fn write(
        &self,
        partition: PartitionId,
        entry: Entry,
        options: &WriteOptions,
    ) -> Result<Written, WriteError> {
        let Ok(_place) = self.shared.requests.try_acquire() else { return Err(WriteError::Overloaded) };
        let deadline = self.shared.clock.now() + options.deadline.min(DEADLINE_MAX);
        match entry {
            Entry::Write { request: None, payload } if options.repeat && options.ack != Ack::Leader => {
                self.write_numbered(partition, payload, options, deadline).await
            }
            entry => self.write_by(partition, entry, options, deadline).await,
        }
    }

    async fn write_numbered(
        &self,
        partition: PartitionId,
        payload: Bytes,
        options: &WriteOptions,
        deadline: Instant,
    ) -> Result<Written, WriteError> {
        for _ in 0..SESSION_ATTEMPTS_MAX {
            let borrowed = self.borrow(partition, options, deadline).await?;
            let entry = Entry::Write { request: Some(borrowed.request), payload: payload.clone() };
            let options = WriteOptions { request: Some(borrowed.request), ..options.clone() };
            match self.write_by(partition, entry, &options, deadline).await {
                // Unused for long, or crowded out: no copy of it took effect.
                Err(WriteError::SessionExpired | WriteError::SessionTooOld) => borrowed.end(),
                result => return result,
            }
        }
        Err(WriteError::Unavailable)
    }

    async fn borrow(
        &self,
        partition: PartitionId,
        options: &WriteOptions,
        deadline: Instant,
    ) -> Result<Borrowed<'_>, WriteError> {
        let gateway = &self.shared.gateway;
        for _ in 0..SESSION_ATTEMPTS_MAX {
            let loan = match gateway.lend(self.shared.clock.now(), partition) {
                // One opens it for all who need it.
                Loan::OpenAnother => {
                    let patience = deadline.since(self.shared.clock.now());
                    let turn = self.within(patience, gateway.turn(partition).lock_owned()).await;
                    let _turn = turn.ok_or(WriteError::Unavailable)?;
                    self.lend_or_open(partition, options, deadline).await?
                }
                loan => loan,
            };
            match loan {
                Loan::Lent(request) => return Ok(Borrowed { gateway, partition, request }),
                Loan::Exhausted => return Err(WriteError::Overloaded),
                Loan::OpenAnother => {}
            }
        }
        Err(WriteError::Overloaded)
    }

    async fn lend_or_open(
        &self,
        partition: PartitionId,
        options: &WriteOptions,
        deadline: Instant,
    ) -> Result<Loan, WriteError> {
        let gateway = &self.shared.gateway;
        match gateway.lend(self.shared.clock.now(), partition) {
            Loan::OpenAnother => {}
            loan => return Ok(loan),
        }
        let options = WriteOptions { ack: Ack::Quorum, request: None, ..options.clone() };
        let opened = self.write_by(partition, Entry::OpenSession, &options, deadline).await;
        let opened = opened.map_err(|error| match error {
            // Whatever became of the session: nothing was written in it.
            WriteError::OutcomeUnknown => WriteError::Unavailable,
            error => error,
        })?;
        gateway.opened(
            self.shared.clock.now(),
            partition,
            SessionId { epoch: opened.epoch, offset: opened.offset },
        );
        Ok(gateway.lend(self.shared.clock.now(), partition))
    }

    async fn write_by(
        &self,
        partition: PartitionId,
        entry: Entry,
        options: &WriteOptions,
        deadline: Instant,
    ) -> Result<Written, WriteError> {
        let node = self.node(deadline).await.ok_or(WriteError::Unavailable)?;
        let mut topology = node.watch();
        let mut why = WriteError::Unavailable;
        loop {
            let seen = topology.current();
            let Some(record) = seen.partition(partition) else { return Err(WriteError::NoPartition) };
            let patience = deadline.since(self.shared.clock.now());
            if patience.is_zero() {
                return Err(why);
            }
            let attempt = match &record.leader {
                Some(leader) if leader == node.node_id() => {
                    self.write_once(partition, entry.clone(), options.ack, patience).await
                }
                leader if !options.forward => {
                    let (leader, epoch) = (leader.clone(), record.epoch);
                    return Err(WriteError::NotLeader { leader, epoch });
                }
                Some(leader) => {
                    self.forward_write(node, leader, (partition, &entry), options.ack, patience).await
                }
                None => Attempt::Again(WriteError::Unavailable),
            };
            match attempt {
                Attempt::Done(Ok(written)) => return Ok(written),
                Attempt::Done(Err(WriteError::OutcomeUnknown)) if can_repeat(&entry) => {
                    why = WriteError::OutcomeUnknown;
                }
                // The session says so of all copies alike.
                Attempt::Done(Err(error @ WriteError::EffectTooLarge(_))) => return Err(error),
                // Once an attempt may have taken effect, no later refusal takes that back.
                Attempt::Done(Err(WriteError::SessionExpired | WriteError::SessionTooOld))
                    if why == WriteError::OutcomeUnknown =>
                {
                    return Err(why);
                }
                Attempt::Done(Err(_)) | Attempt::Again(_) if why == WriteError::OutcomeUnknown => {}
                Attempt::Done(Err(error)) => return Err(error),
                Attempt::Again(reason) => why = reason,
            }
            self.pause(&mut topology, partition, record, deadline).await;
        }
    }

    /// Writes for another node, if this one leads: one hop is enough.
    pub(crate) async fn write_here(
        &self,
        partition: PartitionId,
        entry: Entry,
        ack: Ack,
        deadline_ms: u32,
    ) -> Result<Written, WriteError> {
        let patience = Duration::from_millis(u64::from(deadline_ms)).min(DEADLINE_MAX);
        match self.write_once(partition, entry, ack, patience).await {
            Attempt::Done(result) => result,
            Attempt::Again(reason) => Err(reason),
        }
    }

    async fn write_once(
        &self,
        partition: PartitionId,
        entry: Entry,
        ack: Ack,
        patience: Duration,
    ) -> Attempt<Written, WriteError> {
        let (reply, answer) = oneshot::channel();
        let write = Write { entry, ack, wall_ms: self.shared.clock.wall().0 };
        // A full inbox is told at once: whoever waits in it waits in vain.
        if self.shared.inbox.try_send(Input::Propose { partition, write, reply }).is_err() {
            return Attempt::Done(Err(WriteError::Overloaded));
        }
        match self.within(patience, answer).await {
            Some(Ok(Err(error @ WriteError::NotLeader { .. }))) => Attempt::Again(error),
            Some(Ok(result)) => Attempt::Done(result),
            // The engine ended, or the time: what was proposed may be committed yet.
            Some(Err(_)) | None => Attempt::Done(Err(WriteError::OutcomeUnknown)),
        }
    }

    async fn forward_write(
        &self,
        node: &ClusterKit,
        leader: &NodeId,
        (partition, entry): (PartitionId, &Entry),
        ack: Ack,
        patience: Duration,
    ) -> Attempt<Written, WriteError> {
        let deadline_ms = millis(patience);
        let body = wire::encode(&Request::Write { partition, entry: entry.clone(), ack, deadline_ms });
        let asked = node.request(leader, Lane::Data, body, patience);
        let Some(answer) = unless_replaced(node, partition, leader, asked).await else {
            return Attempt::Done(Err(WriteError::OutcomeUnknown));
        };
        match answer.map(|body| wire::decode(&body)) {
            Ok(Some(Response::Written(Err(error @ WriteError::NotLeader { .. })))) => Attempt::Again(error),
            Ok(Some(Response::Written(Err(WriteError::Stopped)))) => Attempt::Again(WriteError::Unavailable),
            Ok(Some(Response::Written(result))) => Attempt::Done(result),
            Ok(Some(Response::Refused)) => Attempt::Again(WriteError::Unavailable),
            // A newer release may have carried it out.
            Ok(_) => Attempt::Done(Err(WriteError::OutcomeUnknown)),
            Err(MessageError::TooLarge { bytes, bytes_max: limit }) => {
                Attempt::Done(Err(WriteError::TooLarge { bytes, limit }))
            }
            Err(MessageError::NotReady | MessageError::NotTaken) => Attempt::Again(WriteError::Unavailable),
            Err(error) if error.was_sent() => Attempt::Done(Err(WriteError::OutcomeUnknown)),
            Err(_) => Attempt::Again(WriteError::Unavailable),
        }
    }
}

// Reads.
impl Router<'_> {
    /// Asks, wherever the answer can be given.
    pub(crate) async fn query(
        &self,
        partition: PartitionId,
        question: Bytes,
        options: &ReadOptions,
    ) -> Result<Answered, QueryError> {
        let Ok(_place) = self.shared.requests.try_acquire() else { return Err(QueryError::Overloaded) };
        let deadline = self.shared.clock.now() + options.deadline.min(DEADLINE_MAX);
        let node = self.node(deadline).await.ok_or(QueryError::Unavailable)?;
        let mut topology = node.watch();
        let mut why = QueryError::Unavailable;
        let mut tries = 0;
        loop {
            let seen = topology.current();
            let Some(record) = seen.partition(partition) else { return Err(QueryError::NoPartition) };
            let patience = deadline.since(self.shared.clock.now());
            if patience.is_zero() {
                return Err(why);
            }
            let attempt = match target(node, record, options.read, tries) {
                Some(target) if target == *node.node_id() => {
                    self.query_once(partition, question.clone(), options.read, patience).await
                }
                target if !options.forward => {
                    return Err(QueryError::NotLeader { leader: target, epoch: record.epoch });
                }
                Some(target) => {
                    self.forward_query(node, &target, (partition, &question), options.read, patience).await
                }
                None => Attempt::Again(QueryError::Unavailable),
            };
            match attempt {
                Attempt::Done(result) => return result,
                Attempt::Again(reason) => why = reason,
            }
            tries += 1;
            self.pause(&mut topology, partition, record, deadline).await;
        }
    }

    /// Answers another node, by this one's replica.
    pub(crate) async fn query_here(
        &self,
        partition: PartitionId,
        question: Bytes,
        read: Read,
        deadline_ms: u32,
    ) -> Result<Answered, QueryError> {
        let patience = Duration::from_millis(u64::from(deadline_ms)).min(DEADLINE_MAX);
        match self.query_once(partition, question, read, patience).await {
            Attempt::Done(result) => result,
            Attempt::Again(reason) => Err(reason),
        }
    }

    async fn query_once(
        &self,
        partition: PartitionId,
        question: Bytes,
        read: Read,
        patience: Duration,
    ) -> Attempt<Answered, QueryError> {
        let consistency = match read {
            Read::Linearizable => Consistency::Linearizable,
            Read::Any | Read::Leader => Consistency::Session { min_end: 0 },
            Read::Session { min_end } => Consistency::Session { min_end },
        };
        let deadline = self.shared.clock.now() + patience;
        let read = ReadWish { consistency, deadline, question, by_leader: read == Read::Leader };
        let (reply, answer) = oneshot::channel();
        if self.shared.inbox.try_send(Input::Read { partition, read, reply }).is_err() {
            return Attempt::Done(Err(QueryError::Overloaded));
        }
        match self.within(patience, answer).await {
            Some(Ok(Err(error @ (QueryError::NotLeader { .. } | QueryError::Damaged)))) => {
                Attempt::Again(error)
            }
            Some(Ok(result)) => Attempt::Done(result),
            Some(Err(_)) => Attempt::Done(Err(QueryError::Stopped)),
            None => Attempt::Done(Err(QueryError::Unavailable)),
        }
    }

    async fn forward_query(
        &self,
        node: &ClusterKit,
        target: &NodeId,
        (partition, question): (PartitionId, &Bytes),
        read: Read,
        patience: Duration,
    ) -> Attempt<Answered, QueryError> {
        let deadline_ms = millis(patience);
        let body = wire::encode(&Request::Query { partition, question: question.clone(), read, deadline_ms });
        let asked = node.request(target, Lane::Data, body, patience);
        let answer = match read {
            Read::Leader | Read::Linearizable => unless_replaced(node, partition, target, asked).await,
            Read::Any | Read::Session { .. } => Some(asked.await),
        };
        let Some(answer) = answer else { return Attempt::Again(QueryError::Unavailable) };
        match answer.map(|body| wire::decode(&body)) {
            Ok(Some(Response::Answered(Err(error)))) => match error {
                QueryError::Overloaded | QueryError::NoPartition => Attempt::Done(Err(error)),
                _ => Attempt::Again(error),
            },
            Ok(Some(Response::Answered(result))) => Attempt::Done(result),
            // A question changes nothing: it may be asked again.
            _ => Attempt::Again(QueryError::Unavailable),
        }
    }
}

// Waiting.
impl Router<'_> {
    async fn node(&self, deadline: Instant) -> Option<&ClusterKit> {
        let patience = deadline.since(self.shared.clock.now());
        let running = self.within(patience, self.shared.is_running()).await;
        running.filter(|running| *running).and_then(|_| self.shared.node.get())
    }

    async fn within<T>(&self, patience: Duration, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = future => Some(done),
            () = self.shared.clock.sleep_until(self.shared.clock.now() + patience) => None,
        }
    }

    /// Waits until the record is another one than `seen`, or for a moment.
    async fn pause(
        &self,
        topology: &mut TopologyWatch,
        partition: PartitionId,
        seen: &Partition,
        deadline: Instant,
    ) {
        let patience = deadline.since(self.shared.clock.now()).min(ROUTE_PAUSE);
        let moved = topology
            .wait_for(|newer| newer.partition(partition).is_none_or(|record| record.version != seen.version));
        // Either is reason enough to look again.
        drop(self.within(patience, moved).await);
    }
}

/// What comes of a request to the leader of a partition; nothing once another node leads it: one that hangs answers
/// no more.
async fn unless_replaced<T>(
    node: &ClusterKit,
    partition: PartitionId,
    leader: &NodeId,
    asked: impl Future<Output = T>,
) -> Option<T> {
    let mut topology = node.watch();
    let replaced = topology.wait_for(|newer| {
        let now = newer.partition(partition).and_then(|record| record.leader.as_ref());
        now.is_some_and(|now| now != leader)
    });
    tokio::select! {
        biased;
        answer = asked => Some(answer),
        _ = replaced => None,
    }
}

/// A number that this node gave to a client's write, until that is answered.
struct Borrowed<'a> {
    gateway: &'a Gateway,
    partition: PartitionId,
    request: SessionRequest,
}

impl Borrowed<'_> {
    /// Its session is over.
    fn end(self) {
        self.gateway.ended(self.partition, self.request.session);
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.gateway.give_back(self.partition, self.request);
    }
}

/// Whether it takes effect once, however often it is sent. A session that was opened in vain expires.
fn can_repeat(entry: &Entry) -> bool {
    match entry {
        Entry::NoOp | Entry::OpenSession => true,
        Entry::Write { request, .. } => request.is_some(),
    }
}

/// Who can answer: the leader, or any replica, this node's first, and another one with each try.
fn target(node: &ClusterKit, record: &Partition, read: Read, tries: usize) -> Option<NodeId> {
    if matches!(read, Read::Linearizable | Read::Leader) {
        return record.leader.clone();
    }
    let me = node.node_id();
    let mut holders: Vec<&NodeId> = record.holders().collect();
    holders.sort_by_key(|holder| *holder != me);
    holders.get(tries % holders.len().max(1)).copied().cloned()
}

fn millis(patience: Duration) -> u32 {
    u32::try_from(patience.as_millis()).unwrap_or(u32::MAX).max(1)
}
