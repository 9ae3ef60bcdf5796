//! What a replica knows of its log: where it ends, how far that is durable, and its newest records.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use super::record::{EpochIndex, LogTime, Record};
use crate::id::Epoch;

/// A change of a log on its way to the disk. Changes are carried out in the order of their numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogOp(pub u64);

/// The log of one replica, as far as memory has it.
///
/// Invariants:
/// - `start <= end`, `durable <= end`;
/// - `tail` has the records below `end`; of those the last `unwritten` are not handed to the disk yet;
/// - the ends in `ops` do not fall: what is cut off is cut from all that is under way.
#[derive(Debug)]
pub(super) struct Log {
    start: u64,
    end: u64,
    durable: u64,
    epochs: EpochIndex,
    time_last: LogTime,
    tail: VecDeque<Record>,
    tail_bytes: usize,
    unwritten: usize,
    ops: VecDeque<(LogOp, u64)>,
    op_last: LogOp,
}

impl Log {
    pub(super) fn new(range: Range<u64>, epochs: EpochIndex, time_last: LogTime) -> Self {
        Self {
            start: range.start,
            end: range.end,
            durable: range.end,
            epochs,
            time_last,
            tail: VecDeque::new(),
            tail_bytes: 0,
            unwritten: 0,
            ops: VecDeque::new(),
            op_last: LogOp(0),
        }
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    pub(super) fn epochs(&self) -> &EpochIndex {
        &self.epochs
    }

    pub(super) fn time_last(&self) -> LogTime {
        self.time_last
    }

    /// Whether nothing is on its way to the disk.
    pub(super) fn is_flushed(&self) -> bool {
        self.ops.is_empty() && self.unwritten == 0
    }

    fn op_next(&mut self, end: u64) -> LogOp {
        self.op_last = LogOp(self.op_last.0 + 1);
        self.ops.push_back((self.op_last, end));
        self.op_last
    }

    pub(super) fn push(&mut self, record: Record) {
        self.epochs.note(record.epoch, self.end);
        self.time_last = self.time_last.max(record.time);
        self.tail_bytes += record.bytes();
        self.tail.push_back(record);
        self.end += 1;
        self.unwritten += 1;
    }

    /// The records that the disk has not been given yet, and where they begin.
    pub(super) fn take_unwritten(&mut self) -> Option<(LogOp, u64, Vec<Record>)> {
        if self.unwritten == 0 {
            return None;
        }
        let first = self.end - self.unwritten as u64;
        let records = self.tail.iter().skip(self.tail.len() - self.unwritten).cloned().collect();
        self.unwritten = 0;
        Some((self.op_next(self.end), first, records))
    }

    /// Cuts off everything from `end` on. `None` if the disk never had any of it.
    pub(super) fn truncate(&mut self, end: u64) -> Option<LogOp> {
        let written_end = self.end - self.unwritten as u64;
        while self.end > end {
            self.end -= 1;
            self.unwritten = self.unwritten.saturating_sub(1);
            if let Some(record) = self.tail.pop_back() {
                self.tail_bytes -= record.bytes();
            }
        }
        self.epochs.truncate(end);
        self.durable = self.durable.min(end);
        self.ops.iter_mut().for_each(|(_, reached)| *reached = end.min(*reached));
        (end < written_end).then(|| self.op_next(end))
    }

    /// Begins anew at `start`, behind a snapshot.
    pub(super) fn reset(&mut self, start: u64, epochs: EpochIndex, time_last: LogTime) -> LogOp {
        let op_last = self.op_last;
        *self = Self { op_last, durable: 0, ..Self::new(start..start, epochs, time_last) };
        self.op_next(start)
    }

    /// Everything up to `op` is on the disk.
    pub(super) fn handle_durable(&mut self, op: LogOp) {
        while let Some((_, end)) = self.ops.pop_front_if(|(first, _)| *first <= op) {
            self.durable = self.durable.max(end);
        }
    }

    /// The disk has no records below `start` any more.
    pub(super) fn release(&mut self, start: u64) {
        self.start = self.start.max(start.min(self.end));
    }

    /// Where memory begins: everything below was given to the disk.
    pub(super) fn remembered(&self) -> u64 {
        self.end - self.tail.len() as u64
    }

    /// Records of `range` from its start on, of about `bytes_max` bytes but one at least; `None` if memory
    /// does not reach back that far.
    pub(super) fn records(&self, range: Range<u64>, bytes_max: usize) -> Option<Vec<Record>> {
        let first = self.remembered();
        let skipped = usize::try_from(range.start.checked_sub(first)?).ok()?;
        let count = usize::try_from(range.end.saturating_sub(range.start)).ok()?;
        let mut bytes = 0;
        let fits = |record: &&Record| {
            let is_first = bytes == 0;
            bytes += record.bytes();
            is_first || bytes <= bytes_max
        };
        Some(self.tail.iter().skip(skipped).take(count).take_while(fits).cloned().collect())
    }

    /// Forgets the oldest records: those that nobody needs (below `needed`), and, above `bytes_max`, needed ones
    /// too, which have to be read from the disk then. What is not durable stays, so that whatever has to be read
    /// can be.
    pub(super) fn trim(&mut self, needed: u64, bytes_max: usize) {
        while !self.tail.is_empty() {
            let first = self.remembered();
            if first >= self.durable || first >= needed && self.tail_bytes <= bytes_max {
                return;
            }
            if let Some(record) = self.tail.pop_front() {
                self.tail_bytes -= record.bytes();
            }
        }
    }

    /// The epoch of the last record.
    pub(super) fn last_epoch(&self) -> Epoch {
        self.epochs.last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::record::Entry;

    fn record(epoch: u64) -> Record {
        Record { epoch: Epoch(epoch), time: LogTime(epoch), entry: Entry::NoOp }
    }

    fn log(epochs: &[u64]) -> Log {
        let mut log = Log::new(0..0, EpochIndex::default(), LogTime(0));
        epochs.iter().for_each(|epoch| log.push(record(*epoch)));
        log
    }

    #[test]
    fn what_was_cut_off_is_not_durable_when_its_write_ends() {
        let mut log = log(&[1, 1, 1]);
        let (first, ..) = log.take_unwritten().expect("three records");
        let cut = log.truncate(1).expect("the disk has it");
        log.push(record(2));
        log.push(record(2));
        let (second, ..) = log.take_unwritten().expect("two records");
        log.handle_durable(first);
        assert_eq!((log.durable(), log.end()), (1, 3));
        log.handle_durable(cut);
        assert_eq!((log.durable(), log.is_flushed()), (1, false));
        log.handle_durable(second);
        assert_eq!((log.durable(), log.is_flushed()), (3, true));
    }

    #[test]
    fn what_the_disk_never_got_is_cut_in_memory() {
        let mut log = log(&[1, 1, 1]);
        assert_eq!(log.truncate(2), None);
        let (_, first, records) = log.take_unwritten().expect("two records");
        assert_eq!((first, records.len()), (0, 2));
    }

    #[test]
    fn memory_forgets_the_oldest_and_keeps_what_the_disk_needs() {
        let mut log = log(&[1, 1, 1]);
        log.trim(3, 0);
        assert_eq!(log.records(0..3, usize::MAX).map(|records| records.len()), Some(3));
        let (op, ..) = log.take_unwritten().expect("three records");
        log.trim(3, 0);
        assert_eq!(log.records(0..3, usize::MAX).map(|records| records.len()), Some(3), "not durable yet");
        log.handle_durable(op);
        log.trim(2, usize::MAX);
        assert_eq!(log.records(1..3, usize::MAX), None);
        assert_eq!(log.records(2..3, usize::MAX).map(|records| records.len()), Some(1));
    }

    #[test]
    fn a_batch_has_one_record_at_least() {
        let log = log(&[1, 1, 1]);
        assert_eq!(log.records(0..3, 1).map(|records| records.len()), Some(1));
        assert_eq!(log.records(3..3, 1), Some(Vec::new()));
    }
}
