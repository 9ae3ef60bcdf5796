//! The naive twin of a shared log, and scripts of steps that run on both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use clusterkit_storage::disk::SimDisk;
use clusterkit_storage::limits::SHARED_SEGMENT_BYTES_MIN;
use clusterkit_storage::shared_log::{Log, OpenError, Options, Recovery, SharedLog, StreamId};

use crate::support::Chance;

pub(crate) const DIR: &str = "/node/log";

/// What one stream holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) start: u64,
    pub(crate) records: Vec<Bytes>,
    pub(crate) note: Option<Bytes>,
}

/// What a log holds: its streams.
pub(crate) type Streams = BTreeMap<u64, Stream>;

/// All states that the log went through since the last sync. A crash leaves one of them, or one in the middle
/// of the batch that was being appended.
#[derive(Clone, Debug)]
pub(crate) struct Twin {
    pub(crate) now: Streams,
    pub(crate) possible: Vec<Streams>,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Append(u64, Vec<Bytes>),
    Close,
    Compact(u64),
    Create(u64, u64),
    Kill,
    /// Upkeep that runs while records are appended.
    LateUpkeep(u64, Vec<Bytes>),
    Note(u64, Bytes),
    Release(u64, u64),
    Remove(u64),
    Reset(u64, u64),
    Sync,
    Truncate(u64, u64),
    Upkeep,
}

impl Stream {
    pub(crate) fn end(&self) -> u64 {
        self.start + self.records.len() as u64
    }
}

impl Twin {
    pub(crate) fn new() -> Self {
        Twin { now: Streams::new(), possible: vec![Streams::new()] }
    }

    /// Does the step, after which everything may be durable, and nothing since the last sync need be.
    pub(crate) fn apply(&mut self, step: &Step) {
        if let Step::Append(stream, payloads) | Step::LateUpkeep(stream, payloads) = step {
            for payload in payloads {
                self.stream(*stream).records.push(payload.clone());
                self.possible.push(self.now.clone());
            }
            return;
        }
        match step {
            Step::Create(stream, start) => {
                self.now.insert(*stream, Stream { start: *start, ..Stream::default() });
            }
            Step::Note(stream, note) => self.stream(*stream).note = Some(note.clone()),
            Step::Release(stream, below) => {
                let stream = self.stream(*stream);
                stream.records.drain(..(below - stream.start) as usize);
                stream.start = *below;
            }
            Step::Remove(stream) => {
                self.now.remove(stream);
            }
            Step::Reset(stream, start) => {
                let stream = self.stream(*stream);
                (stream.start, stream.records) = (*start, Vec::new());
            }
            Step::Truncate(stream, end) => {
                let stream = self.stream(*stream);
                stream.records.truncate((end - stream.start) as usize);
            }
            _ => {}
        }
        self.possible.push(self.now.clone());
    }

    /// Everything that happened is durable.
    pub(crate) fn settle(&mut self) {
        self.possible = vec![self.now.clone()];
    }

    fn stream(&mut self, stream: u64) -> &mut Stream {
        self.now.get_mut(&stream).expect("scripts use streams that exist")
    }
}

pub(crate) fn options() -> Options {
    Options { segment_bytes: SHARED_SEGMENT_BYTES_MIN, ..Options::new(0x5eed) }
}

pub(crate) fn open(disk: &SimDisk) -> Result<(SharedLog, Recovery), OpenError> {
    SharedLog::open(Arc::new(disk.clone()), Path::new(DIR), &options())
}

/// Opens a log that must be whole.
pub(crate) fn reopen(disk: &SimDisk) -> SharedLog {
    let (log, recovery) = open(disk).unwrap_or_else(|error| panic!("the log must open: {error:?}"));
    assert_eq!(recovery.damage, None, "nothing was damaged");
    log
}

/// What a log holds of the streams that are not damaged, as its reads tell.
pub(crate) fn contents(log: &SharedLog) -> Streams {
    let whole = log.streams().into_iter().filter(|status| !status.damaged);
    whole.map(|status| (status.stream.0, stream_of(log, status.stream))).collect()
}

fn stream_of(log: &SharedLog, id: StreamId) -> Stream {
    let status = log.stream(id).expect("it was just listed");
    let (start, end) = (status.records.start, status.records.end);
    let mut records = Vec::new();
    while start + (records.len() as u64) < end {
        let from = start + records.len() as u64;
        for (offset, payload) in log.read(id, from..end, 3_000).expect("a record that is held is read") {
            assert_eq!(offset, start + records.len() as u64);
            records.push(payload);
        }
    }
    Stream { start, records, note: status.note }
}

/// Runs steps until one fails, and gives the twin of what the log may be then, or the disk if none did. The log agrees
/// with the twin all along.
pub(crate) fn run(disk: &SimDisk, script: &[Step]) -> Result<SimDisk, Twin> {
    let mut twin = Twin::new();
    let Ok((log, _)) = open(disk) else {
        return Err(twin);
    };
    let mut slot = Some(log);
    for step in script {
        twin.apply(step);
        if !take(disk, &mut slot, step) {
            return Err(twin);
        }
        if matches!(step, Step::Close | Step::Kill | Step::Sync) {
            twin.settle();
        }
        let log = slot.as_ref().expect("a step that succeeds leaves a log");
        let found: Vec<_> =
            log.streams().into_iter().map(|status| (status.stream.0, status.records)).collect();
        let expected: Vec<_> =
            twin.now.iter().map(|(id, stream)| (*id, stream.start..stream.end())).collect();
        assert_eq!(found, expected, "after {step:?}");
        if matches!(step, Step::Close | Step::Compact(_) | Step::Kill) {
            assert_eq!(contents(log), twin.now, "after {step:?}");
        }
    }
    Ok(disk.fork())
}

fn take(disk: &SimDisk, slot: &mut Option<SharedLog>, step: &Step) -> bool {
    let mut log = slot.take().expect("a step begins with a log");
    let done = match step {
        Step::Append(stream, payloads) => {
            let end = log.stream(StreamId(*stream)).expect("it exists").records.end;
            log.append(StreamId(*stream), end, payloads).is_ok()
        }
        Step::Close => return log.close().is_ok() && restart(disk, slot),
        Step::Compact(budget) => log.compact(*budget).is_ok(),
        Step::Create(stream, start) => log.create(StreamId(*stream), *start).is_ok(),
        Step::Kill => {
            // What is staged is lost with the process, unless it was synced.
            let synced = log.sync().is_ok();
            drop(log);
            return synced && restart(disk, slot);
        }
        Step::LateUpkeep(stream, payloads) => late_upkeep(&mut log, *stream, payloads),
        Step::Note(stream, note) => log.note(StreamId(*stream), note.clone()).is_ok(),
        Step::Release(stream, below) => log.release(StreamId(*stream), *below).is_ok(),
        Step::Remove(stream) => log.remove(StreamId(*stream)).is_ok(),
        Step::Reset(stream, start) => log.reset(StreamId(*stream), *start).is_ok(),
        Step::Sync => log.sync().is_ok(),
        Step::Truncate(stream, end) => log.truncate(StreamId(*stream), *end).is_ok(),
        Step::Upkeep => log.prepare_next().is_ok(),
    };
    *slot = Some(log);
    done
}

fn late_upkeep(log: &mut SharedLog, stream: u64, payloads: &[Bytes]) -> bool {
    let pending = log.begin_upkeep();
    let end = log.stream(StreamId(stream)).expect("it exists").records.end;
    let appended = log.append(StreamId(stream), end, payloads).is_ok();
    let finished = pending.is_none_or(|pending| log.finish_upkeep(pending.run()).is_ok());
    appended && finished
}

fn restart(disk: &SimDisk, slot: &mut Option<SharedLog>) -> bool {
    *slot = open(disk).ok().map(|(log, recovery)| {
        assert_eq!(recovery.damage, None, "a restart damages nothing");
        log
    });
    slot.is_some()
}

/// Steps that a log of this twin can take, chosen by a seed.
pub(crate) fn script(seed: u64, steps: usize) -> Vec<Step> {
    let mut author = Author { chance: Chance(seed), twin: Twin::new(), serial: 0, used: BTreeSet::new() };
    (0..steps).map(|_| author.step()).collect()
}

struct Author {
    chance: Chance,
    twin: Twin,
    serial: u64,
    used: BTreeSet<u64>,
}

impl Author {
    fn step(&mut self) -> Step {
        let step = self.choose();
        self.twin.apply(&step);
        self.twin.settle();
        step
    }

    fn choose(&mut self) -> Step {
        let Some(stream) = self.stream() else {
            return self.create();
        };
        let (start, end) = (self.twin.now[&stream].start, self.twin.now[&stream].end());
        let held = end - start;
        match self.chance.below(30) {
            0..=10 => Step::Append(stream, (0..1 + self.chance.below(4)).map(|_| self.payload()).collect()),
            11..=14 => Step::Sync,
            15 | 16 => Step::Truncate(stream, end - self.chance.below(1 + held.min(6))),
            17..=20 => Step::Release(stream, start + self.chance.below(1 + held)),
            21 => Step::Reset(stream, (end + self.chance.below(12)).saturating_sub(6)),
            22 if self.chance.below(3) == 0 => Step::Remove(stream),
            23 => Step::Note(stream, self.payload().slice(..8)),
            24 if self.twin.now.len() < 6 => self.create(),
            25 => Step::Compact(1 + self.chance.below(20_000)),
            26 => Step::Upkeep,
            27 => Step::LateUpkeep(stream, (0..1 + self.chance.below(4)).map(|_| self.payload()).collect()),
            28 => Step::Close,
            29 => Step::Kill,
            _ => Step::Sync,
        }
    }

    fn stream(&mut self) -> Option<u64> {
        let count = self.twin.now.len() as u64;
        let chosen = self.chance.below(count.max(1)) as usize;
        self.twin.now.keys().nth(chosen).copied()
    }

    fn create(&mut self) -> Step {
        let stream = (0..).map(|_| self.chance.below(1_000)).find(|stream| self.used.insert(*stream));
        Step::Create(stream.expect("there are enough names"), self.chance.below(50))
    }

    /// No two payloads are equal, so that a record that comes back is known.
    fn payload(&mut self) -> Bytes {
        self.serial += 1;
        let length = match self.chance.below(10) {
            0 => 0,
            1 => 19_000,
            2..=5 => 2_500,
            _ => self.chance.below(300),
        };
        let mut bytes = self.serial.to_le_bytes().to_vec();
        bytes.resize(8 + length as usize, self.serial as u8);
        Bytes::from(bytes)
    }
}
