//! What a disk has of one replica: its log, a checkpoint of its state, and notes.

use std::collections::VecDeque;
use std::rc::Rc;

use clusterkit_core::id::Epoch;
use clusterkit_core::replica::{LogTime, Record, Recovered, ReplicaKey, SnapshotHeader};

use super::chance::roll;
use super::machine::{Machine, fingerprint};

/// A replica's log and state, as the operating system shows them.
#[derive(Debug, Clone)]
pub(super) struct Store {
    start: u64,
    records: VecDeque<Record>,
    /// The hash of the first n records, by n, those before the start too.
    hashes: Vec<u64>,
    epochs: Vec<(Epoch, u64)>,
    time_base: LogTime,
    pub(super) commit_noted: u64,
    pub(super) checkpoint: Rc<Machine>,
    /// A power cut leaves everything below.
    pub(super) durable: u64,
    /// Something of it cannot be read.
    pub(super) damaged: bool,
}

/// A state on its way to another node.
#[derive(Debug, Clone)]
pub(super) struct Package {
    /// Whose state it is.
    pub(super) of: ReplicaKey,
    pub(super) header: SnapshotHeader,
    pub(super) machine: Machine,
    hashes: Vec<u64>,
}

/// The end of a log that was cut off.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    records: Vec<Record>,
    durable: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            start: 0,
            records: VecDeque::new(),
            hashes: vec![0],
            epochs: Vec::new(),
            time_base: LogTime(0),
            commit_noted: 0,
            checkpoint: Rc::default(),
            durable: 0,
            damaged: false,
        }
    }
}

impl Store {
    /// What a snapshot leaves.
    pub(super) fn installed(package: &Package) -> Self {
        let end = package.header.end;
        Self {
            start: end,
            records: VecDeque::new(),
            hashes: package.hashes.clone(),
            epochs: entries(package),
            time_base: package.header.time_last,
            commit_noted: end,
            checkpoint: Rc::new(package.machine.clone()),
            durable: 0,
            damaged: false,
        }
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn end(&self) -> u64 {
        self.start + self.records.len() as u64
    }

    /// The hash of the first `end` records, if there are so many.
    pub(super) fn hash(&self, end: u64) -> Option<u64> {
        usize::try_from(end).ok().and_then(|end| self.hashes.get(end)).copied()
    }

    pub(super) fn record(&self, offset: u64) -> Option<&Record> {
        self.records.get(usize::try_from(offset.checked_sub(self.start)?).ok()?)
    }

    /// The time of the last record, if it is still there.
    pub(super) fn time_of_last(&self) -> Option<LogTime> {
        self.records.back().map(|record| record.time)
    }

    fn time_last(&self) -> LogTime {
        self.records.back().map_or(self.time_base, |record| record.time)
    }

    pub(super) fn append(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            let before = self.hashes.last().copied().unwrap_or(0);
            self.hashes.push(roll(before, fingerprint(&record)));
            if self.epochs.last().is_none_or(|(epoch, _)| *epoch < record.epoch) {
                self.epochs.push((record.epoch, self.end()));
            }
            self.records.push_back(record);
        }
    }

    /// Cuts the log at `end`, which is not below its start, and gives what was cut off.
    pub(super) fn truncate(&mut self, end: u64) -> Cut {
        let kept = usize::try_from(end.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let records = self.records.split_off(kept.min(self.records.len())).into();
        let cut = Cut { records, durable: self.durable };
        self.hashes.truncate(usize::try_from(self.end()).unwrap_or(usize::MAX).saturating_add(1));
        let end = self.end();
        self.epochs.retain(|(_, start)| *start < end);
        self.durable = self.durable.min(end);
        cut
    }

    /// Undoes a cut.
    pub(super) fn restore(&mut self, cut: Cut) {
        self.durable = cut.durable;
        self.append(cut.records);
    }

    /// Frees everything below `start`, which a checkpoint covers.
    pub(super) fn release(&mut self, start: u64) {
        while self.start < start.min(self.checkpoint.applied) {
            let Some(record) = self.records.pop_front() else { return };
            self.time_base = record.time;
            self.start += 1;
        }
    }

    /// Up to `bytes_max` bytes of records from `first` on, but one at least; none if they are not there.
    pub(super) fn read(&self, first: u64, end: u64, bytes_max: usize) -> Vec<Record> {
        let Some(skipped) = first.checked_sub(self.start) else { return Vec::new() };
        let (skipped, count) = (skipped as usize, end.saturating_sub(first) as usize);
        let mut bytes = 0;
        let records = self.records.iter().skip(skipped).take(count).take_while(|record| {
            let fits = bytes == 0 || bytes + record.bytes() <= bytes_max;
            bytes += record.bytes();
            fits
        });
        records.cloned().collect()
    }

    /// What a process that starts finds.
    pub(super) fn recovered(&self) -> Recovered {
        Recovered {
            log_start: self.start,
            log_end: self.end(),
            epochs: self.epochs.iter().copied().collect(),
            time_last: self.time_last(),
            commit: self.commit_noted,
            applied: self.checkpoint.applied,
            damaged: self.damaged,
        }
    }

    /// The state at the header's end, to be sent.
    pub(super) fn package(&self, of: ReplicaKey, header: SnapshotHeader, machine: Machine) -> Package {
        let hashes = self.hashes[..=(header.end as usize).min(self.hashes.len() - 1)].to_vec();
        Package { of, header, machine, hashes }
    }
}

/// The epochs that a snapshot names, in order.
fn entries(package: &Package) -> Vec<(Epoch, u64)> {
    let (index, mut end) = (&package.header.epochs, package.header.end);
    let mut entries = Vec::new();
    while end > 0 {
        let epoch = index.before(end);
        let Some(below) = epoch.0.checked_sub(1) else { break };
        let (_, start) = index.end_of(Epoch(below), end);
        entries.push((epoch, start));
        end = start;
    }
    entries.reverse();
    entries
}
