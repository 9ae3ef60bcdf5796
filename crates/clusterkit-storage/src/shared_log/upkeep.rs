//! Freeing and preparing segments, which takes long and therefore has a thread of its own if the caller wants.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::UpkeepError;
use super::segment::{Home, is_full};
use super::{Segment, SegmentId, SharedLog};
use crate::disk::DiskError;
use crate::limits::SHARED_SEGMENTS_PREPARED;

/// Upkeep that is to be run, on any thread. Appends and syncs may go on meanwhile.
///
/// One that is dropped leaves files behind that the next opening removes. One that runs on when the log was
/// dropped changes no file that a log uses.
#[derive(Debug)]
#[must_use = "no segment is freed or prepared before it was run and finished"]
pub struct PendingUpkeep {
    home: Home,
    segment_bytes: u64,
    doomed: Vec<PathBuf>,
    create: Vec<SegmentId>,
    lease: Arc<Mutex<bool>>,
}

/// Ends with the log: upkeep that runs on must not touch the files of the next one. Holds whether it ended.
#[derive(Debug, Default)]
pub(super) struct Lease(Arc<Mutex<bool>>);

impl Drop for Lease {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// Upkeep that was run. Give it to [`SharedLog::finish_upkeep`], also if it failed.
#[derive(Debug)]
#[must_use = "the log does not know of it before it is finished"]
pub struct FinishedUpkeep {
    prepared: Vec<Segment>,
    outcome: Result<(), DiskError>,
}

impl PendingUpkeep {
    /// Removes the files of freed segments and fills new ones with zeros. Takes as long as writing and syncing
    /// [`Options::segment_bytes`](super::Options::segment_bytes) does, once for each new segment.
    pub fn run(self) -> FinishedUpkeep {
        let mut prepared = Vec::new();
        let outcome = self.remove().and_then(|()| self.prepare(&mut prepared));
        FinishedUpkeep { prepared, outcome }
    }

    fn remove(&self) -> Result<(), DiskError> {
        self.doomed.iter().try_for_each(|path| self.leased(|| self.home.disk.remove(path)).unwrap_or(Ok(())))
    }

    fn prepare(&self, prepared: &mut Vec<Segment>) -> Result<(), DiskError> {
        for id in &self.create {
            let file = self.home.prepare_unnamed(*id, self.segment_bytes)?;
            prepared.extend(self.leased(|| self.home.give_name(*id, file, self.segment_bytes)).transpose()?);
        }
        Ok(())
    }

    /// Does a step as long as the log is there, which does not end meanwhile.
    fn leased<T>(&self, step: impl FnOnce() -> T) -> Option<T> {
        let ended = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        (!*ended).then(step)
    }
}

impl SharedLog {
    /// Begins to free what is not needed and to prepare the segments to come, up to
    /// [`SHARED_SEGMENTS_PREPARED`]; nothing if there is nothing to do. Ask after each sync; run one at a time.
    /// An append that finds too few segments prepared them itself, and takes that much longer.
    pub fn begin_upkeep(&mut self) -> Option<PendingUpkeep> {
        if self.is_poisoned() {
            return None;
        }
        let doomed = self.take_doomed();
        let missing = SHARED_SEGMENTS_PREPARED.saturating_sub(self.prepared.len());
        let create: Vec<SegmentId> = (0..missing).map(|_| self.next_id()).collect();
        let nothing = doomed.is_empty() && create.is_empty();
        let pending = PendingUpkeep {
            home: self.home.clone(),
            segment_bytes: self.segment_bytes,
            doomed,
            create,
            lease: self.lease.0.clone(),
        };
        (!nothing).then_some(pending)
    }

    /// Takes over what upkeep came to.
    pub fn finish_upkeep(&mut self, finished: FinishedUpkeep) -> Result<(), UpkeepError> {
        self.check_poisoned()?;
        finished.prepared.into_iter().for_each(|segment| self.adopt(segment));
        match finished.outcome {
            Ok(()) => Ok(()),
            Err(error) if is_full(&error) => Err(UpkeepError::DiskFull(error)),
            Err(error) => {
                self.poisoned = true;
                Err(UpkeepError::Log(error.into()))
            }
        }
    }

    /// Frees what is not needed and prepares the segments to come, here and now.
    pub fn prepare_next(&mut self) -> Result<(), UpkeepError> {
        self.check_poisoned()?;
        match self.begin_upkeep() {
            Some(pending) => self.finish_upkeep(pending.run()),
            None => Ok(()),
        }
    }

    /// Segments follow one another in the order of their ids, so one that comes too late is of no use.
    fn adopt(&mut self, segment: Segment) {
        let newest = self.prepared.back().map_or(self.active.id, |segment| segment.id);
        if segment.id > newest {
            self.prepared.push_back(segment);
        } else {
            self.doomed.push((0, segment.path.to_path_buf()));
        }
    }
}
