//! The records of a partition as a tree: a log is the path from the root to its tip.
//!
//! Two logs share a prefix exactly where their paths do, so that "this log starts with that one" is a short
//! walk, and a message names the records it carries by the last of them.

use super::limits::RECORDS_MAX;

/// The empty log.
pub(crate) const ROOT: u16 = 0;

/// One record, and with it the log that ends in it.
#[derive(Debug, Clone, Copy, Default, Hash)]
pub(crate) struct Record {
    pub(crate) parent: u16,
    /// The length of the log that ends here.
    pub(crate) len: u8,
    pub(crate) epoch: u8,
    /// Who wrote it, 0 for the no-op of a new leader.
    pub(crate) client: u8,
    pub(crate) seq: u8,
    /// The length of the log up to the last earlier record of the client with this seq or a later one,
    /// 0 if there is none.
    pub(crate) repeats: u8,
    /// The leader's stamp.
    pub(crate) time: u8,
}

/// All records that were ever made in a partition.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    made: [Record; RECORDS_MAX],
    count: u16,
}

impl Records {
    pub(crate) fn new() -> Self {
        Self { made: [Record::default(); RECORDS_MAX], count: 1 }
    }

    pub(crate) fn clear(&mut self) {
        self.count = 1;
    }

    pub(crate) fn is_full(&self) -> bool {
        usize::from(self.count) == RECORDS_MAX
    }

    /// All of them, in the order in which they were made.
    pub(crate) fn all(&self) -> &[Record] {
        &self.made[..usize::from(self.count)]
    }

    pub(crate) fn at(&self, id: u16) -> &Record {
        &self.made[usize::from(id)]
    }

    pub(crate) fn len(&self, id: u16) -> u8 {
        self.at(id).len
    }

    pub(crate) fn epoch(&self, id: u16) -> u8 {
        self.at(id).epoch
    }

    /// Adds a record after `record.parent`; its length and what it repeats are filled in here.
    pub(crate) fn push(&mut self, mut record: Record) -> u16 {
        record.len = self.len(record.parent) + 1;
        record.repeats = self.repeated(record.parent, record.client, record.seq);
        let id = self.count;
        self.made[usize::from(id)] = record;
        self.count += 1;
        id
    }

    /// The length up to the last record of `client` with `seq` or a later one in the log `tip`.
    pub(crate) fn repeated(&self, tip: u16, client: u8, seq: u8) -> u8 {
        let mut at = tip;
        while client != 0 && at != ROOT {
            let record = self.at(at);
            if record.client == client && record.seq >= seq {
                return record.len;
            }
            at = record.parent;
        }
        0
    }

    /// The log `tip` cut to `len` records, or all of it if it is shorter.
    pub(crate) fn cut(&self, tip: u16, len: u8) -> u16 {
        let mut at = tip;
        while self.len(at) > len {
            at = self.at(at).parent;
        }
        at
    }

    /// Whether the log `tip` starts with the log `prefix`.
    pub(crate) fn starts_with(&self, tip: u16, prefix: u16) -> bool {
        self.cut(tip, self.len(prefix)) == prefix
    }

    /// The last entry of the epoch index of `tip` with an epoch of at most `epoch`: that epoch and its end.
    pub(crate) fn epoch_end(&self, tip: u16, epoch: u8) -> (u8, u8) {
        let mut at = tip;
        while self.epoch(at) > epoch {
            at = self.at(at).parent;
        }
        (self.epoch(at), self.len(at))
    }
}
