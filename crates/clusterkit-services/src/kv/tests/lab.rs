//! One partition with the service on it, to which commands are applied in batches.

use bytes::Bytes;
use clusterkit_core::id::{Epoch, PartitionId};
use clusterkit_core::replica::LogTime;
use clusterkit_data::{Entry, Question as Asked, StateMachine, Transaction, View};
use clusterkit_storage::state_store::{Digest, MemoryStore, ReplicaKey, StateStore};

use crate::Services;
use crate::kv::{Answer, Change, Command, Deadline, Event, Expiry, Found, Question, Version, Write};
use crate::namespace::Namespace;

const REPLICA: ReplicaKey = ReplicaKey(1);
const PARTITION: PartitionId = PartitionId(3);

#[derive(Debug, Default)]
pub(super) struct Lab {
    pub(super) store: MemoryStore,
    pub(super) offset: u64,
    pub(super) now: u64,
    pub(super) events: Vec<(Namespace, Event)>,
}

impl Lab {
    /// Applies one command as a batch of its own.
    pub(super) fn run(&mut self, command: &Command) -> Answer {
        let bytes = command.encode(&Namespace::default());
        let answer = self.batch(&[(self.now, bytes)]).remove(0);
        Answer::decode(&answer).expect("an answer")
    }

    pub(super) fn write(&mut self, write: Write) -> Answer {
        self.run(&Command::Write(write))
    }

    /// Applies commands, each with its time, as one batch.
    pub(super) fn batch(&mut self, commands: &[(u64, Bytes)]) -> Vec<Bytes> {
        let mut state = Transaction::new(View::new(&self.store, REPLICA));
        let mut answers = Vec::new();
        for (time, command) in commands {
            let entry = Entry::new(PARTITION, (Epoch(1), self.offset), LogTime(*time), command);
            answers.push(Services::new().apply(&entry, &mut state).expect("memory can be read"));
            self.offset += 1;
            self.now = *time;
        }
        let events = state.take_events();
        self.events.extend(events.iter().map(|event| Event::decode(event).expect("an event")));
        self.store.apply(REPLICA, &state.into_changes(), self.offset).expect("it has room");
        answers
    }

    pub(super) fn ask(&self, question: &Question) -> Found {
        self.ask_in(&Namespace::default(), question)
    }

    pub(super) fn ask_in(&self, namespace: &Namespace, question: &Question) -> Found {
        Found::decode(&self.ask_bytes(&question.encode(namespace))).expect("an answer")
    }

    pub(super) fn ask_bytes(&self, question: &Bytes) -> Bytes {
        let asked = Asked::new(PARTITION, self.offset, LogTime(self.now), question);
        Services::new().query(&asked, &View::new(&self.store, REPLICA)).expect("memory can be read")
    }

    pub(super) fn digest(&self) -> Digest {
        self.store.digest(REPLICA).expect("memory can be read").unwrap_or_else(|| Digest::empty(0))
    }

    /// The value of a key as text, with its version and when it expires.
    pub(super) fn read(&self, key: &'static str) -> Option<(String, u64, Option<u64>)> {
        let Found::Read { entry } = self.ask(&Question::Read { key: key.into() }) else { panic!("a value") };
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).expect("text");
        entry.map(|entry| (text(&entry.bytes), entry.version.0, entry.expires_at.map(|at| at.0)))
    }

    /// The events since the last call, in short.
    pub(super) fn told(&mut self) -> Vec<String> {
        let short = |(_, event): (Namespace, Event)| {
            let kind = format!("{:?}", event.kind);
            let kind = kind.split([' ', '(']).next().expect("a word").to_owned();
            format!("{} {kind} {}", String::from_utf8_lossy(&event.key), event.version.0)
        };
        self.events.drain(..).map(short).collect()
    }
}

pub(super) fn put_until(key: &'static str, value: &'static str, at: u64) -> Write {
    let expiry = Expiry::Set(Deadline::At(LogTime(at)));
    Write::new(key, Change::Put { value: value.into(), expiry })
}

pub(super) fn version(version: u64) -> Version {
    Version(version)
}
