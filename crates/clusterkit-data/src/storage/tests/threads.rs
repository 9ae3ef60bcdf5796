//! The threads do what the workers do.

use std::sync::mpsc::{Receiver as Events, sync_channel};
use std::time::Duration;

use super::*;

/// A state machine that panics.
#[derive(Debug)]
struct Panics;

impl StateMachine for Panics {
    fn apply(&self, _: &Command<'_>, _: &mut Transaction<'_>) -> Result<Bytes, StateError> {
        panic!("the state machine panics, as the test wants it to")
    }

    fn query(&self, _: &Question<'_>, _: &View<'_>) -> Result<Bytes, StateError> {
        Ok(Bytes::new())
    }
}

fn start(disk: &SimDisk, machine: impl StateMachine) -> (Running, Events<StorageEvent>) {
    let (sender, events) = sync_channel(1_000);
    let tell: Tell = Arc::new(move |event| drop(sender.try_send(event)));
    let machine: Arc<dyn StateMachine> = Arc::new(machine);
    let running = open(disk).unwrap().storage.start(&machine, &sessions(), tell).unwrap();
    (running, events)
}

fn next(events: &Events<StorageEvent>) -> StorageEvent {
    events.recv_timeout(Duration::from_secs(20)).expect("an event comes")
}

fn change(op: u64, change: LogChange) -> LogInput {
    LogInput::Change { key: key(1), op: LogOp(op), change }
}

#[test]
fn what_is_pushed_is_done_and_outlives_the_threads() {
    let disk = SimDisk::new();
    let records = vec![record(1, 1, set("a=1")), record(1, 2, set("a=2"))];
    let (running, events) = start(&disk, Registers);
    running.log.push(change(1, LogChange::Create));
    assert!(matches!(next(&events), StorageEvent::Durable(_)));
    running.log.push(change(2, LogChange::Append { first: 0, records: records.clone() }));
    assert!(matches!(next(&events), StorageEvent::Durable(_)));
    running.states.push(StateInput::Apply { key: key(1), first: 0, records: records.clone() });
    assert!(matches!(next(&events), StorageEvent::Applied { end: 2, .. }));
    running.log.push(LogInput::Fetch { key: key(1), token: FetchToken::Apply, range: 0..2, bytes_max: 999 });
    assert!(matches!(next(&events), StorageEvent::Fetched { records: found, .. } if found == records));
    assert_eq!((running.log.queued_bytes(), running.states.queued_bytes()), (0, 0));
    drop(running);
    let recovered = open(&disk).unwrap().recovered;
    assert_eq!((recovered[&key(1)].log_end, recovered[&key(1)].is_damaged()), (2, false));
}

#[test]
fn a_thread_that_panics_stops_everything() {
    let (running, events) = start(&SimDisk::new(), Panics);
    running.states.push(StateInput::Apply { key: key(1), first: 0, records: vec![record(1, 1, set("a=1"))] });
    assert!(matches!(next(&events), StorageEvent::Failed(StorageError::Panicked)));
}
