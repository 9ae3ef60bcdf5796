//! The storage as a whole, on a simulated disk.

mod crash;
mod damage;
mod excess;
mod sessions;
mod threads;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use clusterkit_core::id::{Epoch, Incarnation, PartitionId, ReplicaUid};
use clusterkit_core::replica::{
    Entry, EpochIndex, FetchToken, LogChange, LogOp, LogTime, ReadId, Record, Recovered, ReplicaKey,
    SessionConfig, SessionId, SessionRequest, SnapshotHeader,
};
use clusterkit_storage::checked::{read_checked, write_checked};
use clusterkit_storage::disk::{Disk, SimDisk};
use clusterkit_storage::state_store::{Digest, StateError};
use clusterkit_storage::{shared_log, state_store};

use super::open::{Opened, Workers};
use super::queue::worker_of;
use super::shared::{Shared, state_of};
use super::*;
use crate::machine::{Entry as Command, Question, StateMachine, Transaction, View};

pub(super) const DIR: &str = "/node";

/// A register: a command `key=value` sets a key, gives what it was before, and tells its command to those who watch.
#[derive(Debug)]
pub(super) struct Registers;

impl StateMachine for Registers {
    fn apply(&self, entry: &Command<'_>, state: &mut Transaction<'_>) -> Result<Bytes, StateError> {
        let at = entry.command.iter().position(|byte| *byte == b'=').expect("a command has a key");
        let key = entry.command.slice(..at);
        let before = state.get(&key)?.unwrap_or_default();
        state.put(key, entry.command.slice(at + 1..));
        state.emit(entry.command.clone());
        Ok(before)
    }

    fn query(&self, question: &Question<'_>, state: &View<'_>) -> Result<Bytes, StateError> {
        let value = state.get(question.question)?.unwrap_or_default();
        let value = String::from_utf8_lossy(&value);
        Ok(format!("{value} at {} by {}", question.now.0, question.applied).into())
    }
}

pub(super) fn key(uid: u64) -> ReplicaKey {
    ReplicaKey { partition: PartitionId(uid as u32 + 100), uid: ReplicaUid(uid) }
}

pub(super) fn record(epoch: u64, time: u64, entry: Entry) -> Record {
    Record { epoch: Epoch(epoch), time: LogTime(time), entry }
}

pub(super) fn set(command: impl Into<Bytes>) -> Entry {
    Entry::Write { request: None, payload: command.into() }
}

/// A command of the session that was opened at `offset` of epoch 1.
pub(super) fn request(offset: u64, sequence: u64, command: &'static str) -> Entry {
    let request = SessionRequest { session: SessionId { epoch: Epoch(1), offset }, sequence };
    Entry::Write { request: Some(request), payload: Bytes::from(command) }
}

pub(super) fn options() -> Options {
    Options {
        identity: 5,
        log: shared_log::Options { segment_bytes: 16 << 10, ..shared_log::Options::new(3) },
        state: StateOptions::Disk(state_store::Options {
            file_count: 2,
            cache_bytes: 512 << 10,
            ..state_store::Options::default()
        }),
    }
}

pub(super) fn sessions() -> SessionConfig {
    SessionConfig { sessions_max: 3, answers_max: 2, answers_bytes_max: 64, ..SessionConfig::default() }
}

pub(super) fn open(disk: &SimDisk) -> Result<Opened, OpenError> {
    open_with(disk, &options())
}

pub(super) fn open_with(disk: &SimDisk, options: &Options) -> Result<Opened, OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    NodeStorage::open(&disk, Path::new(DIR), options)
}

/// The storage of a node, whose workers run when the test says so.
pub(super) struct Node {
    pub(super) workers: Workers,
    events: Arc<Mutex<Vec<StorageEvent>>>,
    op_last: u64,
}

impl Node {
    pub(super) fn open(disk: &SimDisk) -> (Self, BTreeMap<ReplicaKey, Recovered>) {
        let opened = open(disk).unwrap_or_else(|error| panic!("the storage must open: {error:?}"));
        (Self::of(opened.storage), opened.recovered)
    }

    pub(super) fn new() -> Self {
        Self::open(&SimDisk::new()).0
    }

    pub(super) fn of(storage: NodeStorage) -> Self {
        Self::with(storage, Registers)
    }

    pub(super) fn with(storage: NodeStorage, machine: impl StateMachine) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        let tell: Tell = Arc::new(move |event| heard.lock().unwrap().push(event));
        let machine: Arc<dyn StateMachine> = Arc::new(machine);
        let mut workers = storage.workers(&machine, &sessions(), tell);
        workers.log.records_kept = 2;
        Self { workers, events, op_last: 0 }
    }

    pub(super) fn events(&self) -> Vec<StorageEvent> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    /// One step of the log worker, with all that it leaves to others.
    pub(super) fn log(&mut self, inputs: Vec<LogInput>) {
        let mut inputs = Some(inputs);
        while let Some(taken) = inputs.take() {
            for errand in self.workers.log.step(taken) {
                match errand {
                    Errand::Checkpoint => {}
                    Errand::Read(read) => read.run(self.shared()),
                    Errand::Upkeep(pending) => inputs = Some(vec![LogInput::Upkept(pending.run())]),
                }
            }
        }
    }

    pub(super) fn change(&mut self, key: ReplicaKey, change: LogChange) -> LogInput {
        self.op_last += 1;
        LogInput::Change { key, op: LogOp(self.op_last), change }
    }

    pub(super) fn change_now(&mut self, key: ReplicaKey, change: LogChange) {
        let input = self.change(key, change);
        self.log(vec![input]);
    }

    pub(super) fn create(&mut self, key: ReplicaKey) {
        self.change_now(key, LogChange::Create);
    }

    pub(super) fn append(&mut self, key: ReplicaKey, first: u64, records: &[Record]) {
        self.change_now(key, LogChange::Append { first, records: records.to_vec() });
    }

    pub(super) fn state(&mut self, input: StateInput) {
        self.workers.states[worker_of(input.key())].step(vec![input]);
    }

    pub(super) fn apply(&mut self, key: ReplicaKey, first: u64, records: &[Record]) {
        self.state(StateInput::Apply { key, first, records: records.to_vec() });
    }

    pub(super) fn evaluate(&mut self, key: ReplicaKey, question: &'static str, now_ms: u64) -> Option<Bytes> {
        self.state(StateInput::Evaluate { key, read: ReadId(1), question: question.into(), now_ms });
        match self.events().pop() {
            Some(StorageEvent::Evaluated { answer, .. }) => answer.ok(),
            other => panic!("a question is answered, not {other:?}"),
        }
    }

    pub(super) fn maintain(&mut self) {
        if let Some(input) = self.workers.maintenance.step() {
            self.log(vec![input]);
        }
    }

    pub(super) fn fetch(&mut self, key: ReplicaKey, range: std::ops::Range<u64>) -> Vec<Record> {
        self.log(vec![LogInput::Fetch { key, token: FetchToken::Apply, range, bytes_max: 1 << 20 }]);
        match self.events().pop() {
            Some(StorageEvent::Fetched { records, .. }) => records,
            other => panic!("a fetch is answered, not {other:?}"),
        }
    }

    pub(super) fn digest(&self, key: ReplicaKey) -> Option<Digest> {
        self.shared().store.digest(state_of(key)).expect("the state is whole")
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.workers.shared
    }

    /// Takes the state of a replica of another node, up to where it is to be installed.
    pub(super) fn receive(&self, key: ReplicaKey, from: (&Node, ReplicaKey)) -> u64 {
        let (node, of) = from;
        let (end, mut reader) = node.workers.snapshots.open_snapshot(of).unwrap().expect("it has a state");
        let mut receiver = self.workers.snapshots.begin_install(key).unwrap();
        while let Some(entries) = reader.next_chunk(100).unwrap() {
            receiver.push(&entries).unwrap();
        }
        assert!(receiver.ready(reader.digest()));
        end
    }
}

pub(super) fn header(key: ReplicaKey, history: &[Record]) -> SnapshotHeader {
    SnapshotHeader {
        partition: key.partition,
        epoch: Epoch(9),
        uid: key.uid,
        incarnation: Incarnation(1),
        end: history.len() as u64,
        epochs: epochs(history),
        time_last: history.last().map_or(LogTime(0), |record| record.time),
    }
}

pub(super) fn epochs(history: &[Record]) -> EpochIndex {
    (0..).zip(history).map(|(offset, record)| (record.epoch, offset)).collect()
}

/// A node whose states are in memory, with one replica to which these records were applied, all at once.
pub(super) fn twin_of(key: ReplicaKey, history: &[Record]) -> Node {
    let options = Options { state: StateOptions::Memory, ..options() };
    let mut node = Node::of(open_with(&SimDisk::new(), &options).unwrap().storage);
    node.create(key);
    node.apply(key, 0, history);
    node
}

#[test]
fn a_record_is_applied_once_and_a_question_sees_it() {
    let mut node = Node::new();
    let records = [record(1, 5, Entry::NoOp), record(1, 7, set("a=1")), record(1, 7, set("a=2"))];
    node.create(key(1));
    node.append(key(1), 0, &records);
    let durable = node.events();
    assert!(
        matches!(&durable[..], [StorageEvent::Durable(first), StorageEvent::Durable(second)]
        if first[..] == [(key(1), LogOp(1))] && second[..] == [(key(1), LogOp(2))]),
        "{durable:?}"
    );
    node.apply(key(1), 0, &records);
    let answers =
        [(0, Answer::Nothing), (1, Answer::Applied(Bytes::new())), (2, Answer::Applied(Bytes::from("1")))];
    let told = [(1, Bytes::from("a=1")), (2, Bytes::from("a=2"))];
    let applied = node.events();
    assert!(
        matches!(&applied[..], [StorageEvent::Applied { end: 3, answers: given, events, .. }]
        if given[..] == answers && events[..] == told),
        "{applied:?}"
    );
    node.apply(key(1), 0, &records);
    assert!(node.events().is_empty(), "what is applied is not applied again");
    assert_eq!(node.evaluate(key(1), "a", 6).unwrap(), "2 at 7 by 3");
    assert_eq!(node.evaluate(key(1), "a", 8).unwrap(), "2 at 8 by 3");
    assert_eq!(node.fetch(key(1), 1..3), records[1..]);
    assert_eq!(node.fetch(key(1), 1..4), []);
}

#[test]
fn what_waits_is_made_durable_with_one_sync() {
    let disk = SimDisk::new();
    let (mut node, _) = Node::open(&disk);
    let inputs: Vec<_> = (0..4).map(|uid| node.change(key(uid), LogChange::Create)).collect();
    node.log(inputs);
    let durable = node.events();
    assert!(matches!(&durable[..], [StorageEvent::Durable(ops)] if ops.len() == 4), "{durable:?}");
}

#[test]
fn states_in_memory_are_missing_after_a_restart() {
    let disk = SimDisk::new();
    let options = Options { state: StateOptions::Memory, ..options() };
    let mut node = Node::of(open_with(&disk, &options).unwrap().storage);
    node.create(key(1));
    node.append(key(1), 0, &[record(1, 1, set("a=1"))]);
    drop(node);
    let opened = open_with(&disk, &options).unwrap();
    assert_eq!(opened.recovered, [(key(1), Recovered::missing())].into());
}

#[test]
fn storage_is_opened_once_at_a_time() {
    let disk = SimDisk::new();
    let (node, _) = Node::open(&disk);
    assert!(matches!(open(&disk), Err(OpenError::Lock(_))));
    drop(node);
    assert!(open(&disk).is_ok());
}

#[test]
fn storage_of_which_a_part_is_gone_does_not_open() {
    let made = SimDisk::new();
    drop(Node::open(&made));
    let path = Path::new(DIR).join("identity");
    let identity = read_checked(&made, &path).unwrap().unwrap();
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    write_checked(&disk, &path, &identity).unwrap();
    assert!(matches!(open(&disk), Err(OpenError::Missing { path }) if path.ends_with("log")));
}

#[test]
fn a_state_without_a_log_is_dropped() {
    let disk = SimDisk::new();
    let (mut node, _) = Node::open(&disk);
    node.create(key(1));
    node.append(key(1), 0, &[record(1, 1, set("a=1"))]);
    node.apply(key(1), 0, &[record(1, 1, set("a=1"))]);
    node.log(vec![LogInput::Remove { key: key(1) }]);
    drop(node);
    let (node, recovered) = Node::open(&disk);
    assert_eq!((recovered.len(), node.digest(key(1))), (0, None));
}

#[test]
fn a_commit_is_noted_with_the_next_checkpoint_and_never_beyond_the_log() {
    let disk = SimDisk::new();
    let (mut node, _) = Node::open(&disk);
    let commits = |disk: &SimDisk| {
        disk.crash_clean();
        Node::open(disk).1.values().map(|recovered| recovered.commit).collect::<Vec<_>>()
    };
    for uid in [1, 2] {
        node.create(key(uid));
        node.append(key(uid), 0, &vec![record(1, 1, Entry::NoOp); 3]);
    }
    node.log(vec![
        LogInput::NoteCommit { key: key(1), commit: 2 },
        LogInput::NoteCommit { key: key(2), commit: 9 },
    ]);
    assert_eq!(commits(&disk.fork()), [0, 0]);
    node.maintain();
    assert_eq!(commits(&disk), [2, 3]);
}

#[test]
fn the_log_below_a_checkpoint_is_released() {
    let mut node = Node::new();
    let records: Vec<_> = (0..5).map(|time| record(1, time, set("a=1"))).collect();
    node.create(key(1));
    node.append(key(1), 0, &records);
    node.apply(key(1), 0, &records[..4]);
    node.events();
    node.maintain();
    let released = node.events();
    assert!(matches!(released[..], [StorageEvent::Released { start: 2, .. }]), "{released:?}");
    assert_eq!(node.fetch(key(1), 1..5), []);
    assert_eq!(node.fetch(key(1), 2..5), records[2..]);
}

#[test]
fn a_sync_that_fails_stops_everything_and_is_told_once() {
    let disk = SimDisk::new();
    let (mut node, _) = Node::open(&disk);
    node.create(key(1));
    node.events();
    disk.fail(clusterkit_storage::disk::Operation::Sync, 0);
    node.append(key(1), 0, &[record(1, 1, set("a=1"))]);
    let failed = node.events();
    assert!(matches!(failed[..], [StorageEvent::Failed(StorageError::Sync(_))]), "{failed:?}");
    node.append(key(1), 1, &[record(1, 1, set("a=1"))]);
    node.apply(key(1), 0, &[record(1, 1, set("a=1"))]);
    node.maintain();
    assert!(node.events().is_empty());
}

#[test]
fn a_full_log_is_told_as_such() {
    let disk = SimDisk::new();
    let (mut node, _) = Node::open(&disk);
    node.create(key(1));
    node.events();
    disk.set_capacity_bytes(Some(1));
    let payload = Bytes::from([b"a=", &[0; 10_000][..]].concat());
    for first in 0..9 {
        node.append(key(1), first, &[record(1, 1, set(payload.clone()))]);
    }
    let failed = node.events().pop();
    assert!(matches!(failed, Some(StorageEvent::Failed(StorageError::LogFull(_)))), "{failed:?}");
}
