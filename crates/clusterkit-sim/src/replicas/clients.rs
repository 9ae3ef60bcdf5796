//! The clients: each has a session with every partition, writes values that nobody else writes, repeats what was
//! not answered, reads, and remembers what it must see.

use std::collections::BTreeMap;
use std::time::Duration;

use clusterkit_core::id::{Epoch, PartitionId};
use clusterkit_core::replica::{Ack, Consistency, Entry, SessionId, SessionRequest};
use clusterkit_core::time::Instant;

use super::machine::{Effect, KEYS, encode};
use super::node::index;
use super::world::{Event, World};

/// How long a client waits for an answer before it asks again.
const PATIENCE: Duration = Duration::from_millis(900);
/// How often it asks before it gives up.
const ATTEMPTS_MAX: u32 = 8;
/// Operations that a client has under way.
const UNDER_WAY_MAX: usize = 6;

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    index: usize,
    places: Vec<Place>,
    under_way: BTreeMap<u64, Operation>,
    op_last: u64,
}

/// What a client knows of one partition.
#[derive(Debug, Clone, Default)]
struct Place {
    session: Option<SessionId>,
    sequence_last: u64,
    leader: usize,
    /// Everything below was seen.
    seen: u64,
}

/// An operation that is not over.
#[derive(Debug, Clone)]
struct Operation {
    partition: PartitionId,
    asked: Asked,
    attempt: u32,
    asked_at: Instant,
    /// A linearizable read must have everything below.
    floor: u64,
}

/// What a client asks a node.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) client: usize,
    pub(super) op: u64,
    pub(super) attempt: u32,
    pub(super) partition: PartitionId,
    pub(super) asked: Asked,
}

/// What is wanted.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    Open { ack: Ack },
    Read { key: usize, consistency: Consistency },
    Write { entry: Entry, ack: Ack },
}

/// What a node says to a request.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) node: usize,
    pub(super) op: u64,
    pub(super) attempt: u32,
    pub(super) outcome: Outcome,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is committed and applied.
    Done {
        epoch: Epoch,
        offset: u64,
        effect: Option<Effect>,
    },
    /// It took effect before, at this offset.
    Known {
        first: u64,
    },
    /// Not here, or not now.
    Refused {
        leader: Option<usize>,
    },
    Unknown,
    /// A read: all records below this are in what it saw.
    Value {
        applied: u64,
    },
    /// The leader has it on its disk.
    Written {
        offset: u64,
    },
}

impl Request {
    pub(super) fn ack(&self) -> Option<Ack> {
        match &self.asked {
            Asked::Open { ack } | Asked::Write { ack, .. } => Some(*ack),
            Asked::Read { .. } => None,
        }
    }
}

impl Client {
    pub(super) fn new(index: usize, partitions: u32) -> Self {
        let places = (0..partitions).map(|_| Place::default()).collect();
        Self { index, places, under_way: BTreeMap::new(), op_last: 0 }
    }

    fn op_next(&mut self) -> u64 {
        self.op_last += 1;
        (self.op_last << 4) | (self.index as u64 + 1)
    }
}

// Asking.
impl World {
    pub(super) fn client_tick(&mut self, client: usize) {
        let pause = self.settings.pause;
        let delay = pause.mul_f64(0.2) + self.chance.micros(0, pause.as_micros() as u64 * 8 / 5);
        self.after(delay, Event::Client(client));
        self.repeat_late(client);
        if self.clients[client].under_way.len() < UNDER_WAY_MAX {
            self.begin_operation(client);
            // Some come in bursts.
            if self.chance.permille(100) {
                (0..4).for_each(|_| self.begin_operation(client));
            }
        }
    }

    fn repeat_late(&mut self, client: usize) {
        let now = self.now;
        let late = self.clients[client].under_way.iter().filter(|(_, op)| now.since(op.asked_at) >= PATIENCE);
        let late: Vec<u64> = late.map(|(op, _)| *op).collect();
        for op in late {
            self.ask_again(client, op);
        }
    }

    fn ask_again(&mut self, client: usize, op: u64) {
        let is_over = match self.clients[client].under_way.get_mut(&op) {
            Some(operation) => {
                operation.attempt += 1;
                operation.attempt > ATTEMPTS_MAX
            }
            None => return,
        };
        if is_over {
            self.clients[client].under_way.remove(&op);
        } else {
            self.ask(client, op);
        }
    }

    fn begin_operation(&mut self, client: usize) {
        let partition = PartitionId(self.chance.below(u64::from(self.settings.partitions)) as u32);
        let asked = if self.chance.below(100) < self.settings.reads_percent {
            self.draw_read(client, partition)
        } else {
            self.draw_write(client, partition)
        };
        self.begin_asked(client, partition, asked);
    }

    fn begin_asked(&mut self, client: usize, partition: PartitionId, asked: Asked) {
        let floor = self.ghosts[partition.index()].acknowledged;
        let op = match &asked {
            Asked::Write { entry: Entry::Write { payload, .. }, .. } => super::machine::decode(payload).0,
            _ => self.clients[client].op_next(),
        };
        let operation = Operation { partition, asked, attempt: 0, asked_at: self.now, floor };
        self.clients[client].under_way.insert(op, operation);
        self.ask(client, op);
    }

    fn draw_read(&mut self, client: usize, partition: PartitionId) -> Asked {
        let min_end = self.clients[client].places[partition.index()].seen;
        let is_session = self.chance.permille(250);
        let consistency =
            if is_session { Consistency::Session { min_end } } else { Consistency::Linearizable };
        Asked::Read { key: self.chance.index(KEYS), consistency }
    }

    fn draw_ack(&mut self) -> Ack {
        self.chance.pick(&[Ack::Quorum, Ack::Quorum, Ack::Quorum, Ack::Leader, Ack::All]).unwrap_or_default()
    }

    fn draw_write(&mut self, client: usize, partition: PartitionId) -> Asked {
        let ack = self.draw_ack();
        let is_plain = self.chance.permille(100);
        let (key, padding) = (self.chance.index(KEYS), self.chance.below(self.settings.padding_max));
        let place = &mut self.clients[client].places[partition.index()];
        if place.session.is_none() && !is_plain {
            return Asked::Open { ack: Ack::Quorum };
        }
        place.sequence_last += 1;
        let sequence = place.sequence_last;
        let request = place.session.filter(|_| !is_plain).map(|session| SessionRequest { session, sequence });
        let op = self.clients[client].op_next();
        let payload = encode(op, key, padding as usize);
        Asked::Write { entry: Entry::Write { request, payload }, ack }
    }

    /// Sends a request to the node that the client takes for the right one, and now and then to any.
    fn ask(&mut self, client: usize, op: u64) {
        let anywhere = self.chance.permille(80);
        let any = self.chance.index(self.settings.nodes);
        let now = self.now;
        let state = &mut self.clients[client];
        let Some(operation) = state.under_way.get_mut(&op) else { return };
        operation.asked_at = now;
        let place = &mut state.places[operation.partition.index()];
        let is_session =
            matches!(operation.asked, Asked::Read { consistency: Consistency::Session { .. }, .. });
        let lost_leader = operation.attempt > 1 && operation.attempt % 2 == 0;
        if lost_leader {
            place.leader = any;
        }
        let node = if anywhere || is_session { any } else { place.leader };
        let (partition, attempt, asked) = (operation.partition, operation.attempt, operation.asked.clone());
        let request = Box::new(Request { client, op, attempt, partition, asked });
        if !self.quiet && self.chance.permille(self.settings.loss) {
            return;
        }
        let delay = self.chance.micros(100, 3_000);
        self.after(delay, Event::Ask { node, request });
    }
}

// Hearing.
impl World {
    pub(super) fn hear_answer(&mut self, client: usize, answer: &Answer) {
        let Some(operation) = self.clients[client].under_way.get(&answer.op).cloned() else { return };
        match answer.outcome {
            Outcome::Done { epoch, offset, effect } => {
                self.hear_done(client, answer, (&operation, SessionId { epoch, offset }, effect));
            }
            Outcome::Known { first } => self.hear_known(client, answer, (&operation, first)),
            Outcome::Refused { leader } => self.hear_refused(client, answer, (&operation, leader)),
            Outcome::Unknown => self.ask_again(client, answer.op),
            Outcome::Value { applied } => self.hear_value(client, answer, (&operation, applied)),
            Outcome::Written { offset } => {
                self.end(client, answer, &operation);
                let _ = offset;
            }
        }
    }

    fn end(&mut self, client: usize, answer: &Answer, operation: &Operation) {
        let state = &mut self.clients[client];
        state.under_way.remove(&answer.op);
        if !matches!(operation.asked, Asked::Read { consistency: Consistency::Session { .. }, .. }) {
            state.places[operation.partition.index()].leader = answer.node;
        }
    }

    fn hear_done(
        &mut self,
        client: usize,
        answer: &Answer,
        (operation, place_in_log, effect): (&Operation, SessionId, Option<Effect>),
    ) {
        self.end(client, answer, operation);
        let partition = operation.partition;
        self.note_acknowledged(client, partition, place_in_log.offset + 1);
        let place = &mut self.clients[client].places[partition.index()];
        match (&operation.asked, effect) {
            (Asked::Open { .. }, _) => {
                place.session = Some(place_in_log);
                place.sequence_last = 0;
            }
            (_, Some(Effect::Expired)) => place.session = None,
            _ => {}
        }
    }

    fn hear_known(&mut self, client: usize, answer: &Answer, (operation, first): (&Operation, u64)) {
        self.end(client, answer, operation);
        self.check_known(operation.partition, answer.op, first);
        self.note_acknowledged(client, operation.partition, first + 1);
    }

    fn hear_refused(
        &mut self,
        client: usize,
        answer: &Answer,
        (operation, leader): (&Operation, Option<usize>),
    ) {
        if answer.attempt != operation.attempt {
            return;
        }
        let place = &mut self.clients[client].places[operation.partition.index()];
        match leader {
            Some(leader) if leader != place.leader => {
                place.leader = leader;
                self.ask_again(client, answer.op);
            }
            // Repeated when the client's patience ends.
            _ => {
                let record = self.control.state.topology.partition(operation.partition);
                let leader = record.and_then(|record| record.leader.as_ref()).map(index);
                let looks = self.chance.permille(500);
                let place = &mut self.clients[client].places[operation.partition.index()];
                place.leader = leader.filter(|_| looks).unwrap_or(place.leader);
            }
        }
    }

    fn hear_value(&mut self, client: usize, answer: &Answer, (operation, applied): (&Operation, u64)) {
        self.end(client, answer, operation);
        let Asked::Read { consistency, .. } = operation.asked else { return };
        if consistency == Consistency::Linearizable {
            self.check_read_floor(operation.partition, applied, operation.floor);
            self.note_acknowledged(client, operation.partition, applied);
        }
    }

    /// Everything below `end` was acknowledged to somebody.
    fn note_acknowledged(&mut self, client: usize, partition: PartitionId, end: u64) {
        let place = &mut self.clients[client].places[partition.index()];
        place.seen = place.seen.max(end);
        let ghost = &mut self.ghosts[partition.index()];
        ghost.acknowledged = ghost.acknowledged.max(end);
    }
}

// When faults have stopped.
impl World {
    /// A fresh operation of the first client, under a number to be asked for by [`is_answered`](Self::is_answered).
    pub(super) fn begin_probe(&mut self, partition: PartitionId, reads: bool) -> u64 {
        let asked = if reads {
            Asked::Read { key: 0, consistency: Consistency::Linearizable }
        } else {
            let op = self.clients[0].op_next();
            let entry = Entry::Write { request: None, payload: encode(op, 0, 1) };
            Asked::Write { entry, ack: Ack::Quorum }
        };
        self.begin_asked(0, partition, asked);
        let under_way = &self.clients[0].under_way;
        under_way.last_key_value().map_or(0, |(op, _)| *op)
    }

    pub(super) fn is_answered(&self, op: u64) -> bool {
        !self.clients[0].under_way.contains_key(&op)
    }
}
