//! Making entries durable, on a thread of its own if the caller wants that.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::BufMut;

use super::error::LogError;
use super::stream::Loss;
use super::{Change, Kind, SegmentId, SharedLog, StreamId};
use crate::disk::{DiskError, DiskFile};

/// Bytes of the file `mark`: the number below which every entry is durable (8), and its CRC-32C (4).
pub(super) const MARK_BYTES: usize = 12;

/// A sync that is to be run, on any thread. Appends may go on meanwhile; they are not part of it.
///
/// One that is dropped changes nothing: the next one covers what it was to cover. Several may be run, and then
/// one waits for the other: an operating system tells a failure to the first that asks, and to no other.
#[derive(Debug)]
#[must_use = "nothing is durable before it was run and finished"]
pub struct PendingSync {
    end: u64,
    files: Vec<Arc<dyn DiskFile>>,
    turn: Arc<SyncTurn>,
}

/// A sync that was run. Give it to [`SharedLog::finish_sync`]. The log is poisoned by one that failed even if it
/// never gets it.
#[derive(Debug)]
#[must_use = "the log does not know of it before it is finished"]
pub struct FinishedSync {
    end: u64,
    outcome: Result<(), LogError>,
}

/// Whose turn it is to sync, and whether any sync failed: those after it prove nothing.
#[derive(Debug, Default)]
pub(super) struct SyncTurn {
    held: Mutex<()>,
    failed: AtomicBool,
}

impl SyncTurn {
    /// Whether a sync failed or panicked.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst) || self.held.is_poisoned()
    }

    fn sync(&self, files: &[Arc<dyn DiskFile>]) -> Result<(), LogError> {
        let held = self.held.lock();
        if held.is_err() || self.failed.load(Ordering::SeqCst) {
            return Err(LogError::Poisoned);
        }
        let outcome = files.iter().try_for_each(|file| file.sync_data());
        self.failed.store(outcome.is_err(), Ordering::SeqCst);
        Ok(outcome?)
    }
}

impl PendingSync {
    /// Syncs. Blocks for as long as the disk takes. After a failure it does not try again.
    pub fn run(self) -> FinishedSync {
        let outcome = self.turn.sync(&self.files);
        FinishedSync { end: self.end, outcome }
    }

    /// The number below which every entry is durable once this was run.
    pub fn end(&self) -> u64 {
        self.end
    }
}

impl SharedLog {
    /// Begins to make everything durable that was appended until now: hands it to the operating system, and
    /// gives back what is to be synced, or nothing if everything is durable.
    pub fn begin_sync(&mut self) -> Result<Option<PendingSync>, LogError> {
        self.check_poisoned()?;
        if self.synced_end == self.number_next {
            return Ok(None);
        }
        self.flush()?;
        let sealed = self.unsynced.iter().map(|(_, file)| file.clone());
        let files = sealed.chain([self.active.file.clone()]).collect();
        Ok(Some(PendingSync { end: self.number_next, files, turn: self.turn.clone() }))
    }

    /// Takes over what a sync came to, and says below which number every entry is durable.
    pub fn finish_sync(&mut self, finished: FinishedSync) -> Result<u64, LogError> {
        if let Err(error) = finished.outcome {
            self.poisoned = true;
            return Err(error);
        }
        self.check_poisoned()?;
        if finished.end > self.synced_end {
            self.synced_end = finished.end;
            self.index.count_from(finished.end);
            self.unsynced.retain(|(end, _)| *end > finished.end);
            let marked = self.write_mark();
            self.poisoned |= marked.is_err();
            marked?;
        }
        self.free_dead()?;
        Ok(self.synced_end)
    }

    /// Notes how far the log is synced, for the next opening. Only [`SharedLog::close`] syncs the note itself.
    pub(super) fn write_mark(&self) -> Result<(), DiskError> {
        self.mark.write_at(0, &mark_bytes(self.synced_end))
    }

    /// Gives up segments in which nothing is needed. That is an entry as well: once it is durable, so is
    /// everything before it that made the segment useless, and the file may go. It waits for a later sync if
    /// there is no room for it.
    fn free_dead(&mut self) -> Result<(), LogError> {
        let dead: Vec<SegmentId> = self.sealed.keys().copied().filter(|id| self.is_dead(*id)).collect();
        if dead.is_empty() || !self.tell_losses()? {
            return Ok(());
        }
        for id in dead {
            if self.takes_an_entry() {
                let (number, _) = self.push(Kind::Free, StreamId(0), u64::from(id.0), &[])?;
                let segment = self.sealed.remove(&id).expect("it was just found");
                self.crippled.remove(&id);
                self.doomed.push((number, segment.path.to_path_buf()));
            }
        }
        Ok(())
    }

    /// Says in an entry of each stream what is lost of it, unless one does already. What proves it may lie in a
    /// segment that is to be freed, and older segments may hold records that were truncated since and would
    /// pass for the lost ones. Answers whether there was room for all.
    fn tell_losses(&mut self) -> Result<bool, LogError> {
        let untold = self.index.streams().filter(|(_, stream)| stream.loss() != stream.told);
        let untold: Vec<(StreamId, Loss)> = untold.map(|(id, stream)| (id, stream.loss())).collect();
        for (id, loss) in untold {
            if !self.takes_an_entry() {
                return Ok(false);
            }
            let (number, _) = self.push(Kind::Lose, id, u64::from(loss.bits()), &[])?;
            self.index.apply(id, number, Change::Lose(loss));
        }
        Ok(true)
    }

    fn is_dead(&self, id: SegmentId) -> bool {
        let needed = self.crippled.range(id.next()..).next().is_some();
        self.index.live_bytes(id) == 0 && !needed
    }

    /// Files that nothing needs any more, and that no opening will ask for.
    pub(super) fn take_doomed(&mut self) -> Vec<PathBuf> {
        let durable = |(number, _): &(u64, PathBuf)| *number < self.synced_end;
        let (doomed, kept) = std::mem::take(&mut self.doomed).into_iter().partition(durable);
        self.doomed = kept;
        let doomed: Vec<(u64, PathBuf)> = doomed;
        doomed.into_iter().map(|(_, path)| path).collect()
    }
}

pub(super) fn mark_bytes(synced_end: u64) -> Vec<u8> {
    let mut bytes = synced_end.to_le_bytes().to_vec();
    bytes.put_u32_le(crc32c::crc32c(&bytes));
    bytes
}

/// The number in the file `mark`, if it is whole. One that is not proves nothing: it is the one place that is
/// written over, so a crash may tear it.
pub(super) fn mark_in(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    (bytes == mark_bytes(number)).then_some(number)
}
