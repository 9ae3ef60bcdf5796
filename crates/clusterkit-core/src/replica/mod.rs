//! Replicated partitions: what a node does with the copies that it holds.
//!
//! [`Replicas`] is the state machine of a whole node. It is told what the topology says, what other nodes say, what
//! its disk has done and what clients want, and says what is to be done: write to a log, send, apply, answer, ask the
//! control plane. Configuration is owned by the control plane, the log by the leader; an entry is committed when every
//! member of the maximal in-sync set has it on its disk (PacificA; Kafka's in-sync set, KIP-966; divergence by epoch,
//! KIP-101 and KIP-279; leases by support between nodes). The rules named in comments (W5, T3, ..) are those of the
//! protocol in ARCHITECTURE.md.
//!
//! One node has one machine for all partitions, and not one a partition, because a topology has to be adopted by all
//! of them at once: a promise of support that is given under a version counts for every partition (rule L3).
//!
//! | module | decides |
//! | --- | --- |
//! | `host` | what a node adopts, whom it supports, which replica a message is for |
//! | `leader` | writes, streaming, commit, answers; in-sync set, leaving, reads |
//! | `follower` | attach, records, truncation, snapshots |
//! | `log` | where a log ends, what of it is durable, its newest records |
//! | `support` | promises between nodes |
//! | `session` | that each request of a client takes effect once |
//! | `stamp` | the time in a record |

mod action;
mod config;
mod follower;
mod host;
mod leader;
mod log;
mod message;
mod mistake;
mod record;
mod session;
mod stamp;
mod support;
#[cfg(test)]
mod transcripts;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

pub use self::action::{
    Ack, Action, Alarm, Consistency, FetchToken, LogChange, ProposeError, ReadError, ReadId, ReadOutcome,
    ReadStamp, ReplicaKey, RequestId, Wish, WriteOutcome,
};
pub use self::config::{Config, InvalidConfig, PAYLOAD_BYTES_MAX, READS_MAX, SUPPORT_MAX, WRITES_MAX};
use self::follower::{Batch, Divergence, Follower};
pub use self::host::{Recovered, ReplicaStatus, Replicas, RoleStatus};
pub use self::leader::Write;
use self::leader::{Leader, Peer, Reads};
use self::log::Log;
pub use self::log::LogOp;
pub use self::message::{Body, Message, ReplicaMessage, SnapshotHeader};
pub use self::mistake::{Mistake, Mistakes};
pub use self::record::{
    EPOCHS_MAX, Entry, EpochIndex, LogTime, RECORD_BYTES, Record, SessionId, SessionRequest,
};
pub use self::session::{SESSIONS_ENDED_MAX, SessionChanges, SessionConfig, SessionRow, Sessions, Verdict};
use self::support::Support;
use crate::handoff::Position;
use crate::id::{Incarnation, NodeId};
use crate::time::Instant;
use crate::topology::{Partition, Topology};

/// What a replica is told with everything that happens.
struct Context<'a> {
    config: &'a Config,
    me: &'a NodeId,
    /// This node's run.
    incarnation: Incarnation,
    now: Instant,
    wall_ms: u64,
    topology: &'a Topology,
    support: &'a Support,
}

/// One copy of a partition.
///
/// Invariants:
/// - `applied <= commit <= log.end()`, and nothing below `commit` is ever cut off;
/// - at most one batch is being applied;
/// - a damaged replica has no role.
#[derive(Debug)]
struct Replica {
    key: ReplicaKey,
    /// The partition's configuration, as the adopted topology has it.
    record: Arc<Partition>,
    log: Log,
    commit: u64,
    applied: u64,
    /// Up to where records are being applied, or fetched to be.
    applying: Option<u64>,
    is_fetching: bool,
    /// A snapshot that takes the place of the state; until then nothing is applied or served.
    installing: Option<LogOp>,
    damaged: bool,
    /// When a damaged replica that is named leader says again that it cannot lead.
    resign_at: Instant,
    role: Role,
    reads: Reads,
    actions: VecDeque<Action>,
}

/// What a replica is to its partition.
#[derive(Debug)]
enum Role {
    Follower(Follower),
    /// Nobody leads, or it is damaged.
    Idle,
    Leader(Box<Leader>),
}

impl Replica {
    fn new(key: ReplicaKey, record: Arc<Partition>, recovered: Recovered) -> Self {
        let range = recovered.log_start..recovered.log_end;
        Self {
            key,
            record,
            commit: recovered.commit.max(recovered.applied).min(recovered.log_end),
            applied: recovered.applied.min(recovered.log_end),
            damaged: recovered.is_damaged(),
            log: Log::new(range, recovered.epochs, recovered.time_last),
            applying: None,
            is_fetching: false,
            installing: None,
            resign_at: Instant::ORIGIN,
            role: Role::Idle,
            reads: Reads::default(),
            actions: VecDeque::new(),
        }
        .announced()
    }

    fn announced(mut self) -> Self {
        if self.damaged {
            self.announce_damage();
        }
        self
    }

    /// An empty one, whose log is still to be made.
    fn create(key: ReplicaKey, record: Arc<Partition>) -> Self {
        let mut replica = Self::new(key, record, Recovered::default());
        let op = replica.log.reset(0, EpochIndex::default(), LogTime(0));
        replica.actions.push_back(Action::Log { replica: key, op, change: LogChange::Create });
        replica
    }

    fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// The configuration has changed. `is_first` is after a start, when nothing of an earlier run goes on.
    fn adopt(&mut self, cx: &Context<'_>, record: Arc<Partition>, is_first: bool) {
        let before = core::mem::replace(&mut self.record, record);
        let is_leader = self.record.leader.as_ref() == Some(cx.me);
        let same_epoch = self.record.epoch == before.epoch && !is_first;
        let leads = matches!(self.role, Role::Leader(_));
        if leads && is_leader && same_epoch {
            self.learn_as_leader(cx);
        } else if !(same_epoch && self.record.leader == before.leader) {
            self.change_role(cx, is_leader && !same_epoch);
        }
        // Whatever was said before, was said of an older version.
        self.resign_at = cx.now;
        self.advance(cx);
    }

    fn change_role(&mut self, cx: &Context<'_>, leads: bool) {
        self.depose();
        self.role = Role::Idle;
        if self.damaged {
            return;
        }
        match self.record.leader.clone() {
            Some(_) if leads => self.lead(cx),
            Some(leader) if leader != *cx.me => self.follow(cx, leader),
            Some(_) | None => {}
        }
    }

    /// Whatever is to be done after anything happened.
    fn advance(&mut self, cx: &Context<'_>) {
        match &self.role {
            Role::Follower(_) => self.advance_follower(cx),
            Role::Idle => self.decline_to_lead(cx),
            Role::Leader(_) => self.advance_leader(cx),
        }
        self.advance_apply(cx);
        self.advance_reads(cx);
        self.flush_log();
        let needed = self.needed_by_followers(cx).min(self.applied);
        self.log.trim(needed, cx.config.tail_bytes_max);
    }

    /// A damaged replica that is named leader says that it cannot lead, until somebody else is named.
    fn decline_to_lead(&mut self, cx: &Context<'_>) {
        if self.is_unfit_leader(cx) && self.resign_at <= cx.now {
            self.resign_at = cx.now + cx.config.drain_pause;
            self.wish_resign(self.record.version);
        }
    }

    fn is_unfit_leader(&self, cx: &Context<'_>) -> bool {
        self.damaged && self.record.leader.as_ref() == Some(cx.me)
    }

    fn flush_log(&mut self) {
        if let Some((op, first, records)) = self.log.take_unwritten() {
            let change = LogChange::Append { first, records };
            self.actions.push_back(Action::Log { replica: self.key, op, change });
        }
    }

    fn handle_timeout(&mut self, cx: &Context<'_>) {
        self.expire_reads(cx.now);
        self.advance(cx);
    }

    fn poll_timeout(&self, cx: &Context<'_>) -> Option<Instant> {
        let role = match &self.role {
            Role::Follower(_) => self.poll_follower(),
            Role::Idle => self.is_unfit_leader(cx).then_some(self.resign_at),
            Role::Leader(_) => self.poll_leader(cx),
        };
        [role, self.reads.timeout()].into_iter().flatten().filter(|time| *time > cx.now).min()
    }

    fn handle_durable(&mut self, cx: &Context<'_>, op: LogOp) {
        self.log.handle_durable(op);
        if self.installing.take_if(|awaited| *awaited <= op).is_some() {
            self.applied = self.commit;
            self.note_installed();
        }
        self.advance(cx);
    }

    fn position(&self) -> Position {
        let log_end = self.log.durable();
        Position { last_epoch: self.log.epochs().before(log_end), log_end, damaged: self.damaged }
    }
}

// Applying (rule W8).
impl Replica {
    fn advance_apply(&mut self, cx: &Context<'_>) {
        let ahead = cx.config.mistakes.has(Mistake::ApplyUncommitted);
        // What is not on this disk is not applied, so that no state is ever ahead of its log after a crash.
        let to = if ahead { self.log.end() } else { self.commit.min(self.log.durable()) };
        if self.damaged || self.applying.is_some() || self.installing.is_some() || self.applied >= to {
            return;
        }
        let (range, bytes_max) = (self.applied..to, cx.config.batch_bytes);
        match self.log.records(range.clone(), bytes_max) {
            Some(records) => self.apply(records),
            None => {
                self.applying = Some(to);
                self.is_fetching = true;
                let (replica, token) = (self.key, FetchToken::Apply);
                let range = range.start..to.min(self.log.remembered());
                self.actions.push_back(Action::Fetch { replica, token, range, bytes_max });
            }
        }
    }

    fn apply(&mut self, records: Vec<Record>) {
        let first = self.applied;
        self.applying = Some(first + records.len() as u64);
        self.actions.push_back(Action::Apply { replica: self.key, first, records });
    }

    fn handle_applied(&mut self, cx: &Context<'_>, end: u64) {
        if self.applying == Some(end) && !self.is_fetching {
            self.applying = None;
            self.applied = end;
            self.advance(cx);
        }
    }

    /// Records came back from the disk.
    fn handle_fetched(&mut self, cx: &Context<'_>, token: FetchToken, first: u64, records: Vec<Record>) {
        match token {
            FetchToken::Apply if self.is_fetching && first == self.applied => {
                self.is_fetching = false;
                if records.is_empty() {
                    self.become_damaged();
                } else {
                    self.apply(records);
                }
            }
            FetchToken::Apply => {}
            FetchToken::Stream { follower, incarnation, epoch } if epoch == self.record.epoch => {
                self.handle_fetched_for(cx, (&follower, incarnation), first, records);
            }
            FetchToken::Stream { .. } => {}
        }
        self.advance(cx);
    }
}

// Messages.
impl Replica {
    fn message(&self, uid: crate::id::ReplicaUid, incarnation: Incarnation, body: Body) -> Message {
        let (partition, epoch) = (self.key.partition, self.record.epoch);
        Message::Replica(ReplicaMessage { partition, epoch, uid, incarnation, body })
    }

    /// A message of the epoch that this replica knows.
    fn handle_message(&mut self, cx: &Context<'_>, from: &NodeId, message: ReplicaMessage) {
        let peer = Peer { node: from, uid: message.uid, incarnation: message.incarnation };
        let anybody = cx.config.mistakes.has(Mistake::UidUnchecked);
        let of_me = (message.uid == self.key.uid || anybody) && message.incarnation == cx.incarnation;
        let of_peer = self.record.replica(from).is_some_and(|replica| replica.uid == message.uid || anybody);
        match message.body {
            Body::Attach { log_end, last_epoch } if of_peer => {
                self.handle_attach(cx, &peer, (log_end, last_epoch));
            }
            Body::Ack { durable, commit } if of_peer => self.handle_ack(cx, &peer, (durable, commit)),
            Body::Append { start, previous_epoch, records, commit } if of_me => {
                self.handle_append(cx, Batch { start, previous_epoch, records, commit });
            }
            Body::Diverge { epoch, end, log_end, last_epoch } if of_me => {
                self.handle_diverge(cx, &Divergence { epoch, end, echo: (log_end, last_epoch) });
            }
            Body::Barrier { round } if !self.damaged => self.handle_barrier(&peer, round),
            Body::BarrierAck { round } => self.handle_barrier_ack(cx, from, round),
            _ => return,
        }
        self.advance(cx);
    }
}
