//! Room on the disk for what was applied and is not written yet.
//!
//! The engine keeps what was applied since the last checkpoint in its buffers, as far as they go. The free space of
//! the disk does not tell of it, and a checkpoint that finds the disk full would end the store: so each write is
//! admitted only while all that waits still has room beside the headroom.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Inner;
use crate::limits::PAGE_BYTES;
use crate::state_store::StateError;

/// Pages that a write changes beside those of its entries: rows, garbage, roots, and what leads to them.
const FIXED_PAGES: u64 = 16;

/// Bytes that the next checkpoint has to write, at most.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    /// Of writes under way.
    admitted: AtomicU64,
    /// Of writes that were done since the last checkpoint began.
    done: AtomicU64,
}

/// A write that was admitted. It counts as done when this is dropped, whatever became of it.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    unwritten: &'a Unwritten,
    cost_bytes: u64,
}

/// Too little space is free.
#[derive(Clone, Copy, Debug)]
pub(super) struct MissingRoom {
    pub(super) free_bytes: u64,
    pub(super) needed_bytes: u64,
}

impl Unwritten {
    fn bytes(&self) -> u64 {
        self.admitted.load(Ordering::Acquire).saturating_add(self.done.load(Ordering::Acquire))
    }

    pub(super) fn admit(&self, cost_bytes: u64) -> Admitted<'_> {
        self.admitted.fetch_add(cost_bytes, Ordering::AcqRel);
        Admitted { unwritten: self, cost_bytes }
    }

    /// What a checkpoint that begins now covers for certain.
    pub(super) fn begin_checkpoint(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    pub(super) fn end_checkpoint(&self, covered: u64) {
        self.done.fetch_sub(covered, Ordering::AcqRel);
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        // It counts twice for a moment rather than not at all.
        self.unwritten.done.fetch_add(self.cost_bytes, Ordering::AcqRel);
        self.unwritten.admitted.fetch_sub(self.cost_bytes, Ordering::AcqRel);
    }
}

/// The most that changes of so many entries cost. A value lies in pages of up to twice its size, and each entry may
/// lie on a page of its own.
pub(super) fn cost_bytes(entries: usize, bytes: usize) -> u64 {
    2 * bytes as u64 + (entries as u64 + FIXED_PAGES) * PAGE_BYTES as u64
}

impl Inner {
    /// Lets a write begin if it has room, if need be after an early checkpoint.
    pub(super) fn admit(&self, cost_bytes: u64) -> Result<Result<Admitted<'_>, MissingRoom>, StateError> {
        self.health.check()?;
        let Err(missing) = self.check_room(cost_bytes)? else {
            return Ok(Ok(self.unwritten.admit(cost_bytes)));
        };
        let waiting_bytes = self.waiting_bytes();
        if waiting_bytes == 0 || missing.free_bytes < waiting_bytes {
            return Ok(Err(missing));
        }
        self.checkpoint()?;
        Ok(self.check_room(cost_bytes)?.map(|()| self.unwritten.admit(cost_bytes)))
    }

    fn check_room(&self, cost_bytes: u64) -> Result<Result<(), MissingRoom>, StateError> {
        let needed_bytes =
            self.headroom_bytes.saturating_add(self.waiting_bytes()).saturating_add(cost_bytes);
        let free_bytes = self.disk.free_bytes(&self.dir).map_err(|error| self.fail(error))?;
        let missing = MissingRoom { free_bytes, needed_bytes };
        Ok(if free_bytes < needed_bytes { Err(missing) } else { Ok(()) })
    }

    /// Half of each cache may hold what is not written; what goes beyond was written before.
    fn waiting_bytes(&self) -> u64 {
        self.unwritten.bytes().min((self.file_cache_bytes / 2 * self.files.len()) as u64)
    }
}
