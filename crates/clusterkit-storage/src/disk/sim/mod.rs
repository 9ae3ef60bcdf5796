//! A disk in memory that fails as real ones do, and repeats each failure exactly.

mod chance;
mod inode;
mod state;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::chance::Chance;
use self::state::{Fate, InodeId, State};
use super::{Disk, DiskError, DiskFile, DiskLock, LockError, OpenMode, Operation};
use crate::limits::PAGE_BYTES;

/// A disk in memory, for tests. Clones are the same disk; [`SimDisk::fork`] makes another one.
///
/// It starts empty, with the directories `/` and `.` alone. What a crash leaves of the changes that were not synced is chosen by
/// its seed: each page of a file in any of the states it went through, at times torn at the edge of a
/// sector; the file's length likewise; each change of a directory by itself. A cut of a file's length comes
/// before what was written after it, and a rename happens as a whole.
///
/// Operations that change something are counted, so that a test can stop the disk after each of them:
///
/// ```
/// use std::path::Path;
/// use clusterkit_storage::disk::{Disk, OpenMode, SimDisk};
///
/// let disk = SimDisk::new();
/// disk.create_dir_all(Path::new("/d"))?;
/// let file = disk.open(Path::new("/d/f"), OpenMode::Create)?;
/// file.write_at(0, b"lost")?;
/// disk.crash_clean();
/// assert!(!disk.exists(Path::new("/d/f"))?);
/// # Ok::<(), clusterkit_storage::disk::DiskError>(())
/// ```
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk without faults and without a limit.
    pub fn new() -> Self {
        SimDisk { state: Arc::new(Mutex::new(State::new())) }
    }

    /// Another disk with the same contents, down to what is not synced. Files that are open belong to this
    /// one only.
    #[must_use]
    pub fn fork(&self) -> Self {
        SimDisk { state: Arc::new(Mutex::new(self.state().clone())) }
    }

    /// Cuts the power. Of what was not synced, the seed chooses what survives. Files and locks that are held
    /// end, faults that were ordered are forgotten, and the disk runs again.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state();
        state.crash(seed);
        state.boot();
    }

    /// Like [`SimDisk::crash`], with nothing left of what was not synced.
    pub fn crash_clean(&self) {
        let mut state = self.state();
        state.crash_clean();
        state.boot();
    }

    /// Ends the process and not the machine: files and locks that are held end, every write is kept, and what
    /// was not synced is still not synced.
    pub fn kill(&self) {
        self.state().boot();
    }

    /// Lets `count` more operations change the disk and cuts the power during the next one. What that one did
    /// is as unsure as all that is not synced. Everything fails from then on, until a crash.
    pub fn stop_after(&self, count: u64) {
        let mut state = self.state();
        state.stop_at = Some(state.operations + count);
    }

    /// How many operations changed the disk.
    pub fn operation_count(&self) -> u64 {
        self.state().operations
    }

    /// Lets one operation fail with an input/output error, after `before` more of its kind. A write that
    /// fails is done in part. A sync that fails keeps some pages and forgets the others, while readers still
    /// see them: a later sync does not bring them back.
    pub fn fail(&self, operation: Operation, before: u64) {
        self.state().faults.insert(operation, before);
    }

    /// Seeds the choices of what a failing write or sync still does.
    pub fn set_fault_seed(&self, seed: u64) {
        self.state().chance = Chance::new(seed);
    }

    /// Limits the bytes of all files together, or lifts the limit.
    pub fn set_capacity_bytes(&self, capacity_bytes: Option<u64>) {
        self.state().capacity_bytes = capacity_bytes;
    }

    /// Flips a bit of a file, on the disk and in the cache. A byte behind the end is left alone.
    pub fn flip_bit(&self, path: &Path, byte: u64, bit: u32) -> Result<(), DiskError> {
        self.damage(path, byte as usize..byte as usize + 1, |byte| *byte ^= 1 << (bit % 8))
    }

    /// Overwrites a page of a file with zeros, on the disk and in the cache: a write that the disk lost.
    pub fn lose_page(&self, path: &Path, page: u64) -> Result<(), DiskError> {
        let start = page as usize * PAGE_BYTES;
        self.damage(path, start..start + PAGE_BYTES, |byte| *byte = 0)
    }

    fn damage(
        &self,
        path: &Path,
        range: std::ops::Range<usize>,
        change: impl Fn(&mut u8) + Copy,
    ) -> Result<(), DiskError> {
        let mut state = self.state();
        let id = state.inode_of(path).map_err(|error| DiskError::new(Operation::Open, path, error))?;
        range.for_each(|offset| state.inode(id).damage(offset, change));
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run<T>(
        &self,
        operation: Operation,
        path: &Path,
        step: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> Result<T, DiskError> {
        step(&mut self.state()).map_err(|error| DiskError::new(operation, path, error))
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("operations", &self.operation_count()).finish_non_exhaustive()
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, dir: &Path) -> Result<(), DiskError> {
        self.run(Operation::CreateDir, dir, |state| state.create_dir_all(dir))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn DiskFile>, DiskError> {
        let (inode, boot) =
            self.run(mode.operation(), path, |state| Ok((state.open(path, mode)?, state.boot)))?;
        let writable = mode != OpenMode::Read;
        Ok(Box::new(SimFile { disk: self.clone(), inode, boot, writable, path: path.to_path_buf() }))
    }

    fn list(&self, dir: &Path) -> Result<Vec<OsString>, DiskError> {
        let paths = self.run(Operation::List, dir, |state| state.list(dir))?;
        Ok(paths.iter().filter_map(|path| path.file_name()).map(OsString::from).collect())
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.run(Operation::Remove, path, |state| state.remove(path))
    }

    fn rename(&self, source: &Path, target: &Path) -> Result<(), DiskError> {
        self.run(Operation::Rename, source, |state| state.rename(source, target))
    }

    fn exists(&self, path: &Path) -> Result<bool, DiskError> {
        self.run(Operation::Exists, path, |state| state.exists(path))
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), DiskError> {
        self.run(Operation::SyncDir, dir, |state| state.sync_dir(dir))
    }

    fn lock(&self, path: &Path) -> Result<DiskLock, LockError> {
        let boot = self.run(Operation::Lock, path, |state| {
            state.observe(Operation::Lock)?;
            state.open(path, OpenMode::Create).map(|_| state.boot)
        })?;
        if !self.state().locks.insert(path.to_path_buf()) {
            return Err(LockError::Locked { path: path.to_path_buf() });
        }
        Ok(DiskLock::new(SimLock { disk: self.clone(), boot, path: path.to_path_buf() }))
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64, DiskError> {
        self.run(Operation::FreeBytes, dir, |state| {
            state.observe(Operation::FreeBytes)?;
            state.check_dir(dir).map(|()| state.free_bytes())
        })
    }
}

/// What a [`SimDisk`] answers inside an [`io::Error`] when a test asked for the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SimFault {
    /// The input/output error that [`SimDisk::fail`] ordered.
    #[error("simulated input/output error")]
    Injected,
    /// [`SimDisk::stop_after`] cut the power.
    #[error("simulated power cut")]
    PowerOff,
    /// The file was opened before a crash.
    #[error("the simulated process that opened this file is gone")]
    Stale,
}

impl From<SimFault> for io::Error {
    fn from(fault: SimFault) -> Self {
        io::Error::other(fault)
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: InodeId,
    boot: u64,
    writable: bool,
    path: PathBuf,
}

impl SimFile {
    fn run<T>(
        &self,
        operation: Operation,
        step: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> Result<T, DiskError> {
        self.disk.run(operation, &self.path, |state| {
            if state.boot != self.boot {
                return Err(SimFault::Stale.into());
            }
            step(state)
        })
    }

    /// Like [`SimFile::run`], for a file that was opened for writing.
    fn alter<T>(
        &self,
        operation: Operation,
        step: impl FnOnce(&mut State, Fate) -> io::Result<T>,
    ) -> Result<T, DiskError> {
        self.run(operation, |state| {
            if !self.writable {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            let fate = state.change(operation)?;
            step(state, fate)
        })
    }

    fn sync(&self) -> Result<(), DiskError> {
        self.run(Operation::Sync, |state| {
            let fate = state.change(Operation::Sync)?;
            let mut chance = state.chance.clone();
            match fate {
                Fate::Done => state.inode(self.inode).sync(),
                Fate::Fails => state.inode(self.inode).sync_fails(&mut chance),
                Fate::PowerGoes => {}
            }
            state.chance = chance;
            fate.answer()
        })
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        self.run(Operation::Read, |state| {
            state.observe(Operation::Read)?;
            Ok(state.inode(self.inode).read(offset as usize, buffer))
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.alter(Operation::Write, |state, fate| {
            let offset = offset as usize;
            let growth = (offset + bytes.len()).saturating_sub(state.inode(self.inode).length()) as u64;
            let missing = growth.saturating_sub(state.free_bytes()) as usize;
            let fits = bytes.len().saturating_sub(missing);
            let count = if fate == Fate::Fails { state.chance.below(fits + 1) } else { fits };
            state.inode(self.inode).write(offset, &bytes[..count]);
            fate.answer()?;
            if missing > 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }

    fn length(&self) -> Result<u64, DiskError> {
        self.run(Operation::Length, |state| {
            state.observe(Operation::Length)?;
            Ok(state.inode(self.inode).length() as u64)
        })
    }

    fn set_length(&self, length: u64) -> Result<(), DiskError> {
        self.alter(Operation::SetLength, |state, fate| {
            let growth = length.saturating_sub(state.inode(self.inode).length() as u64);
            if growth > state.free_bytes() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if fate != Fate::Fails {
                state.inode(self.inode).set_length(length as usize);
            }
            fate.answer()
        })
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.sync()
    }

    fn sync_all(&self) -> Result<(), DiskError> {
        self.sync()
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    boot: u64,
    path: PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.boot == self.boot {
            state.locks.remove(&self.path);
        }
    }
}
