//! What a partition's log is made of.

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::Epoch;

/// One entry of a partition's log. Its offset is its place.
///
/// What was asked is logged, not what it does: every replica applies it by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// In which epoch its leader made it.
    pub epoch: Epoch,
    /// What time it was, as its leader says. Never less than that of the record before.
    pub time: LogTime,
    /// What it asks for.
    pub entry: Entry,
}

/// Bytes that a record counts besides its payload.
pub const RECORD_BYTES: usize = 48;

impl Record {
    /// How many bytes it counts in queues and windows.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let payload = match &self.entry {
            Entry::NoOp | Entry::OpenSession => 0,
            Entry::Write { payload, .. } => payload.len(),
        };
        RECORD_BYTES + payload
    }
}

/// What a record asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// Nothing: with it a new leader brings its epoch into the log (rule F4).
    NoOp,
    /// A client begins a session, named after this record's epoch and offset.
    OpenSession,
    /// A change of the user's state machine.
    Write {
        /// Which request of which session it is, so that it takes effect once; `None` where a repeated
        /// write does no harm.
        request: Option<SessionRequest>,
        /// What the state machine is given.
        payload: Bytes,
    },
}

/// A request of a session: a retry carries the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionRequest {
    /// Which session.
    pub session: SessionId,
    /// Its number within the session, from 1 on, each one once.
    pub sequence: u64,
}

/// A client's session with one partition: where the record that opened it lies. The epoch makes it one of a kind,
/// also where records were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId {
    /// The epoch of that record.
    pub epoch: Epoch,
    /// Its offset.
    pub offset: u64,
}

/// A point in time as logs say it: milliseconds since 1970, by the clocks of those who led.
///
/// It never goes back within a log, whatever wall clocks do. What expires, expires by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogTime(pub u64);

impl fmt::Display for LogTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// Which epochs a log has, and where each begins (KIP-101).
///
/// It reaches back beyond the start of the log, and so is part of a snapshot: a replica that diverged
/// before the snapshot was made must be told from where, not to cut off everything.
///
/// Invariants:
/// - epochs grow, and starts do not fall; an epoch begins where it has its first record;
/// - at most [`EPOCHS_MAX`] are kept, and the oldest are forgotten first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochIndex(Vec<(Epoch, u64)>);

/// Epochs that an index remembers. A replica that parted from the others before all of them is called damaged, and
/// begins anew.
pub const EPOCHS_MAX: usize = 4_096;

impl EpochIndex {
    /// The epoch of the last record, 0 if there never was one.
    #[must_use]
    pub fn last(&self) -> Epoch {
        self.0.last().map_or(Epoch(0), |(epoch, _)| *epoch)
    }

    /// Notes that the record at `offset`, the next one of the log, is of `epoch`.
    pub fn note(&mut self, epoch: Epoch, offset: u64) {
        if self.last() >= epoch {
            return;
        }
        if self.0.len() == EPOCHS_MAX {
            self.0.remove(0);
        }
        self.0.push((epoch, offset));
    }

    /// The epoch of the record before `offset`, 0 if there is none.
    #[must_use]
    pub fn before(&self, offset: u64) -> Epoch {
        let count = self.0.partition_point(|(_, start)| *start < offset);
        count.checked_sub(1).map_or(Epoch(0), |at| self.0[at].0)
    }

    /// The last epoch that is not after `epoch`, and where its records end in a log that ends at `log_end`.
    #[must_use]
    pub fn end_of(&self, epoch: Epoch, log_end: u64) -> (Epoch, u64) {
        let count = self.0.partition_point(|(known, _)| *known <= epoch);
        let end = self.0.get(count).map_or(log_end, |(_, start)| *start);
        match count.checked_sub(1) {
            Some(at) => (self.0[at].0, end),
            None => (Epoch(0), end.min(self.0.first().map_or(0, |(_, start)| *start))),
        }
    }

    /// The log was cut at `end`.
    pub(super) fn truncate(&mut self, end: u64) {
        self.0.retain(|(_, start)| *start < end);
    }

    /// What a log that ends at `end` would have.
    #[must_use]
    pub fn up_to(&self, end: u64) -> Self {
        let mut index = self.clone();
        index.truncate(end);
        index
    }
}

impl FromIterator<(Epoch, u64)> for EpochIndex {
    /// The index of records in the order of their offsets; offsets and epochs that do not grow are passed over.
    fn from_iter<I: IntoIterator<Item = (Epoch, u64)>>(records: I) -> Self {
        let mut index = Self::default();
        records.into_iter().for_each(|(epoch, offset)| index.note(epoch, offset));
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> EpochIndex {
        [(1, 0), (1, 1), (3, 2), (3, 3), (4, 4)]
            .map(|(epoch, offset)| (Epoch(epoch), offset))
            .into_iter()
            .collect()
    }

    #[test]
    fn the_end_of_an_epoch_is_the_start_of_the_next() {
        let check = |epoch, expect: (u64, u64)| {
            assert_eq!(index().end_of(Epoch(epoch), 6), (Epoch(expect.0), expect.1), "epoch {epoch}");
        };
        check(0, (0, 0));
        check(1, (1, 2));
        check(2, (1, 2));
        check(3, (3, 4));
        check(4, (4, 6));
        check(9, (4, 6));
    }

    #[test]
    fn the_epoch_before_an_offset_is_that_of_the_last_record_below() {
        let check = |offset, expect| assert_eq!(index().before(offset), Epoch(expect), "offset {offset}");
        check(0, 0);
        check(1, 1);
        check(2, 1);
        check(3, 3);
        check(5, 4);
    }

    #[test]
    fn a_cut_forgets_epochs_that_began_behind_it() {
        assert_eq!(index().up_to(4).last(), Epoch(3));
        assert_eq!(index().up_to(2).last(), Epoch(1));
        assert_eq!(index().up_to(0), EpochIndex::default());
    }
}
