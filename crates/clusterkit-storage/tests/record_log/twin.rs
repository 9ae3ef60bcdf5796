//! The naive twin of a log, and scripts of steps that run on both.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use clusterkit_storage::disk::SimDisk;
use clusterkit_storage::limits::SEGMENT_BYTES_MIN;
use clusterkit_storage::record_log::{OpenError, Options, RecordLog, Recovery};

use crate::support::Chance;

pub(crate) const DIR: &str = "/node/log";

/// What a log holds, and how much of it must survive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Twin {
    pub(crate) first: u64,
    pub(crate) records: Vec<Bytes>,
    pub(crate) durable_end: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Append(Vec<Bytes>),
    Close,
    Kill,
    Purge(u64),
    Reset(u64),
    Sync,
    Truncate(u64),
}

impl Twin {
    pub(crate) fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    pub(crate) fn apply(&mut self, step: &Step) {
        match step {
            Step::Append(payloads) => self.records.extend_from_slice(payloads),
            Step::Close | Step::Kill | Step::Sync => self.durable_end = self.end(),
            Step::Purge(index) => {
                self.records.drain(..(index - self.first) as usize);
                self.first = *index;
                self.durable_end = self.durable_end.max(*index);
            }
            Step::Reset(index) => *self = Twin { first: *index, records: Vec::new(), durable_end: *index },
            Step::Truncate(index) => {
                self.durable_end = if *index < self.end() { *index } else { self.durable_end };
                self.records.truncate((index - self.first) as usize);
            }
        }
    }

    /// Whether a log that holds what `found` holds can be what a crash left of this one.
    pub(crate) fn can_become(&self, found: &Twin) -> bool {
        let durable = found.end() >= self.durable_end;
        found.first == self.first && durable && self.records.starts_with(&found.records)
    }
}

pub(crate) fn options() -> Options {
    Options { index_first: 1, segment_bytes: SEGMENT_BYTES_MIN }
}

pub(crate) fn open(disk: &SimDisk) -> Result<(RecordLog, Recovery), OpenError> {
    RecordLog::open(Arc::new(disk.clone()), Path::new(DIR), &options())
}

pub(crate) fn reopen(disk: &SimDisk) -> RecordLog {
    open(disk).unwrap_or_else(|error| panic!("the log must open: {error:?}")).0
}

/// What a log holds, as its reads tell.
pub(crate) fn contents(log: &RecordLog) -> Twin {
    let (first, end) = (log.first_index(), log.next_index());
    let mut records = Vec::new();
    while first + (records.len() as u64) < end {
        let from = first + records.len() as u64;
        for (index, payload) in log.read(from..end, 1_500).expect("a record that is held is read") {
            assert_eq!(index, first + records.len() as u64);
            records.push(payload);
        }
    }
    Twin { first, records, durable_end: log.synced_end() }
}

/// Runs steps until one fails, and gives the twins before and after that one, or the disk if none did.
pub(crate) fn run(disk: &SimDisk, script: &[Step]) -> Result<SimDisk, (Twin, Twin)> {
    let mut twin = new_twin();
    let Ok((log, _)) = open(disk) else {
        return Err((twin.clone(), twin));
    };
    let mut log = Some(log);
    for step in script {
        let before = twin.clone();
        twin.apply(step);
        if !take(disk, &mut log, step) {
            return Err((before, twin));
        }
        let held = log.as_ref().expect("a step that succeeds leaves a log");
        assert_eq!((held.first_index(), held.next_index()), (twin.first, twin.end()), "after {step:?}");
        if matches!(step, Step::Close | Step::Kill) {
            assert_eq!(contents(held), twin);
        }
    }
    Ok(disk.fork())
}

pub(crate) fn new_twin() -> Twin {
    Twin { first: 1, records: Vec::new(), durable_end: 1 }
}

fn take(disk: &SimDisk, slot: &mut Option<RecordLog>, step: &Step) -> bool {
    let mut log = slot.take().expect("a step begins with a log");
    let done = match step {
        Step::Append(payloads) => log.append(payloads).is_ok(),
        Step::Close => return log.close().is_ok() && restart(disk, slot),
        Step::Kill => {
            drop(log);
            return restart(disk, slot);
        }
        Step::Purge(index) => log.purge_to(*index).is_ok(),
        Step::Reset(index) => log.reset_to(*index).is_ok(),
        Step::Sync => log.sync().is_ok(),
        Step::Truncate(index) => log.truncate_from(*index).is_ok(),
    };
    assert_eq!(done, log.sync_is_possible(), "a failed step poisons, a good one does not");
    *slot = Some(log);
    done
}

fn restart(disk: &SimDisk, slot: &mut Option<RecordLog>) -> bool {
    *slot = open(disk).ok().map(|(log, _)| log);
    slot.is_some()
}

trait Poison {
    fn sync_is_possible(&self) -> bool;
}

impl Poison for RecordLog {
    fn sync_is_possible(&self) -> bool {
        self.read(0..0, 0).is_ok()
    }
}

/// Steps that a log of this twin can take, chosen by a seed.
pub(crate) fn script(seed: u64, steps: usize) -> Vec<Step> {
    let mut chance = Chance(seed);
    let mut twin = new_twin();
    let mut serial = 0;
    let mut script = Vec::new();
    while script.len() < steps {
        let step = next_step(&mut chance, &twin, &mut serial);
        twin.apply(&step);
        script.push(step);
    }
    script
}

fn next_step(chance: &mut Chance, twin: &Twin, serial: &mut u64) -> Step {
    let held = twin.records.len() as u64;
    match chance.below(20) {
        0..=8 => Step::Append((0..1 + chance.below(4)).map(|_| payload(chance, serial)).collect()),
        9..=13 => Step::Sync,
        14 | 15 => Step::Truncate(twin.end() - chance.below(1 + held.min(6))),
        16 => Step::Purge(twin.first + chance.below(1 + held)),
        17 if chance.below(3) == 0 => Step::Reset((twin.end() + chance.below(12)).saturating_sub(6)),
        18 => Step::Close,
        _ => Step::Kill,
    }
}

/// No two payloads are equal, so that a record that comes back is known.
fn payload(chance: &mut Chance, serial: &mut u64) -> Bytes {
    *serial += 1;
    let length = match chance.below(10) {
        0 => 0,
        1 => 9_000,
        2..=4 => 1_300,
        _ => chance.below(200),
    };
    let mut bytes = serial.to_le_bytes().to_vec();
    bytes.resize(8 + length as usize, *serial as u8);
    Bytes::from(bytes)
}
