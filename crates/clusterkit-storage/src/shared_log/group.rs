//! Many threads, one sync: whoever comes first syncs for all who came before it began, and the others wait.

use std::mem;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use bytes::Bytes;

use super::error::{AppendError, ChangeError, CompactError, LogError, ReadError, UpkeepError};
use super::{Compaction, Log, SharedLog, StreamId};
use crate::limits::{GATHER_IDLE_ROUNDS, GATHER_ROUNDS_MAX};

/// A [`SharedLog`] that many threads use. A thread that wants its entries durable either leads, and syncs for
/// all who wait, or follows, and waits. No thread holds the log while the disk syncs, so appends go on then and
/// are covered by the next sync. At most one sync runs at a time; who waits is bounded by the callers' threads.
#[derive(Debug)]
pub struct GroupCommit {
    shared: Mutex<Shared>,
    synced: Condvar,
}

#[derive(Debug)]
struct Shared {
    log: SharedLog,
    /// A thread leads.
    syncing: bool,
}

/// A change could not be made, or not be made durable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError<E: std::error::Error + 'static> {
    /// The change was refused or failed, as its own error says. It was not synced.
    #[error("the change was not made")]
    Change(#[source] E),
    /// The change was made, and whether it is durable is unknown. The log is poisoned: stop the node.
    #[error("the outcome of the change is unknown")]
    OutcomeUnknown(#[source] LogError),
}

impl GroupCommit {
    /// Shares a log.
    pub fn new(log: SharedLog) -> Self {
        GroupCommit { shared: Mutex::new(Shared { log, syncing: false }), synced: Condvar::new() }
    }

    /// The log itself, when no other thread uses it any more. Poisoned if one of them panicked with it.
    pub fn into_log(self) -> SharedLog {
        let panicked = self.shared.is_poisoned();
        let Shared { mut log, .. } = self.shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        log.poisoned |= panicked;
        log
    }

    /// Appends records at the end of a stream, which must be `start`, and returns when they are durable.
    pub fn append(
        &self,
        stream: StreamId,
        start: u64,
        payloads: &[Bytes],
    ) -> Result<(), CommitError<AppendError>> {
        self.commit(|log| log.append(stream, start, payloads))
    }

    /// Makes a change, or several, and returns what it gave when all of it is durable. The change holds the
    /// log: it must not sync, wait or read the disk.
    pub fn commit<T, E: std::error::Error + 'static>(
        &self,
        change: impl FnOnce(&mut SharedLog) -> Result<T, E>,
    ) -> Result<T, CommitError<E>> {
        let mut shared = self.lock();
        let made = change(&mut shared.log).map_err(CommitError::Change)?;
        let end = shared.log.end();
        self.wait(shared, end).map_err(CommitError::OutcomeUnknown)?;
        Ok(made)
    }

    /// Makes a change that need not be durable when this returns.
    pub fn change(
        &self,
        change: impl FnOnce(&mut SharedLog) -> Result<(), ChangeError>,
    ) -> Result<(), ChangeError> {
        change(&mut self.lock().log)
    }

    /// Makes everything durable that was changed until now.
    pub fn sync(&self) -> Result<(), LogError> {
        let shared = self.lock();
        let end = shared.log.end();
        self.wait(shared, end)
    }

    /// Compacts as [`SharedLog::compact`] does. It holds the log while it reads the disk, and all others wait:
    /// so let the budget be small, and call it often.
    pub fn compact(&self, budget_bytes: u64) -> Result<Compaction, CompactError> {
        self.lock().log.compact(budget_bytes)
    }

    /// Reads as [`Log::read`] does. Nobody waits for the disk with this.
    pub fn read(
        &self,
        stream: StreamId,
        range: Range<u64>,
        bytes_max: u64,
    ) -> Result<Vec<(u64, Bytes)>, ReadError> {
        let pending = self.lock().log.begin_read(stream, range, bytes_max)?;
        pending.run()
    }

    /// Frees what is not needed and prepares the segments to come. Nobody waits for the disk with this, so let
    /// a thread call it whenever it has time.
    pub fn upkeep(&self) -> Result<(), UpkeepError> {
        let mut shared = self.lock();
        shared.log.check_poisoned()?;
        let pending = shared.log.begin_upkeep();
        drop(shared);
        match pending {
            Some(pending) => {
                let finished = pending.run();
                self.lock().log.finish_upkeep(finished)
            }
            None => Ok(()),
        }
    }

    fn wait<'a>(&'a self, mut shared: MutexGuard<'a, Shared>, end: u64) -> Result<(), LogError> {
        while shared.log.synced_end() < end {
            shared = if shared.syncing {
                self.synced.wait(shared).unwrap_or_else(distrust)
            } else {
                self.lead(shared)?
            };
        }
        Ok(())
    }

    /// Syncs for all who appended until now.
    fn lead<'a>(&'a self, shared: MutexGuard<'a, Shared>) -> Result<MutexGuard<'a, Shared>, LogError> {
        let mut shared = self.gather(shared);
        let wake = Wake(&self.synced);
        let Some(pending) = shared.log.begin_sync()? else {
            return Ok(shared);
        };
        mem::forget(wake);
        shared.syncing = true;
        drop(shared);
        let lead = Lead(self);
        let finished = pending.run();
        mem::forget(lead);
        let mut shared = self.lock();
        shared.syncing = false;
        let outcome = shared.log.finish_sync(finished);
        // Whoever is woken needs the log at once.
        drop(shared);
        self.synced.notify_all();
        outcome.map(|_| self.lock())
    }

    /// Lets threads append that are about to, as those are that the last sync has woken: one sync for all of them
    /// instead of one for the first few. A thread that is alone gives way a few times.
    fn gather<'a>(&'a self, mut shared: MutexGuard<'a, Shared>) -> MutexGuard<'a, Shared> {
        shared.syncing = true;
        let mut idle = 0;
        for _ in 0..GATHER_ROUNDS_MAX {
            let end = shared.log.end();
            drop(shared);
            thread::yield_now();
            shared = self.lock();
            idle = if shared.log.end() == end { idle + 1 } else { 0 };
            if idle == GATHER_IDLE_ROUNDS {
                break;
            }
        }
        shared.syncing = false;
        shared
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(distrust)
    }
}

/// Those who slept while a thread gathered, and that it syncs nothing for, look again.
struct Wake<'a>(&'a Condvar);

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        self.0.notify_all();
    }
}

/// A thread that syncs for others. One that panics there leaves them a poisoned log instead of a wait without an
/// end.
struct Lead<'a>(&'a GroupCommit);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut shared = self.0.lock();
        shared.syncing = false;
        shared.log.poisoned = true;
        self.0.synced.notify_all();
    }
}

/// A thread that panicked while it held the log may have left it between two states: then the log is poisoned.
fn distrust(poisoned: PoisonError<MutexGuard<'_, Shared>>) -> MutexGuard<'_, Shared> {
    let mut shared = poisoned.into_inner();
    shared.log.poisoned = true;
    shared
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::Path;
    use std::sync::Arc;

    use super::super::Options;
    use super::*;
    use crate::disk::{DiskError, DiskFile, SimDisk};
    use crate::limits::SHARED_SEGMENT_BYTES_MIN;

    #[derive(Debug)]
    struct PanicsInSync;

    impl DiskFile for PanicsInSync {
        fn read_at(&self, _: u64, _: &mut [u8]) -> Result<usize, DiskError> {
            Ok(0)
        }

        fn write_at(&self, _: u64, _: &[u8]) -> Result<(), DiskError> {
            Ok(())
        }

        fn length(&self) -> Result<u64, DiskError> {
            Ok(0)
        }

        fn set_length(&self, _: u64) -> Result<(), DiskError> {
            Ok(())
        }

        fn sync_data(&self) -> Result<(), DiskError> {
            panic!("a sync panics, as the test wants it to")
        }

        fn sync_all(&self) -> Result<(), DiskError> {
            self.sync_data()
        }
    }

    #[test]
    fn a_leader_that_panics_leaves_nobody_waiting() {
        let options = Options { segment_bytes: SHARED_SEGMENT_BYTES_MIN, ..Options::new(0) };
        let (mut log, _) =
            SharedLog::open(Arc::new(SimDisk::new()), Path::new("/log"), &options).expect("a log opens");
        log.create(StreamId(1), 0).expect("a stream is created");
        log.active.file = Arc::new(PanicsInSync);
        let group = GroupCommit::new(log);
        let append = || group.append(StreamId(1), 0, &[Bytes::new()]);
        assert!(catch_unwind(AssertUnwindSafe(append)).is_err());
        let refused = append();
        assert!(
            matches!(refused, Err(CommitError::Change(AppendError::Log(LogError::Poisoned)))),
            "{refused:?}"
        );
        assert!(!group.lock().syncing);
    }
}
