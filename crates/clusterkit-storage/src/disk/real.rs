//! The operating system's disk.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Disk, DiskError, DiskFile, DiskLock, LockError, OpenMode, Operation, parent};

/// The file system of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> Result<(), DiskError> {
        create_durably(dir).map_err(failed(Operation::CreateDir, dir))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn DiskFile>, DiskError> {
        let file = options(mode).open(path).map_err(failed(mode.operation(), path))?;
        Ok(Box::new(RealFile { file, path: path.to_path_buf() }))
    }

    fn list(&self, dir: &Path) -> Result<Vec<OsString>, DiskError> {
        sorted_names(dir).map_err(failed(Operation::List, dir))
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        fs::remove_file(path).map_err(failed(Operation::Remove, path))
    }

    fn rename(&self, source: &Path, target: &Path) -> Result<(), DiskError> {
        fs::rename(source, target).map_err(failed(Operation::Rename, source))
    }

    fn exists(&self, path: &Path) -> Result<bool, DiskError> {
        path.try_exists().map_err(failed(Operation::Exists, path))
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), DiskError> {
        sync_directory(dir).map_err(failed(Operation::SyncDir, dir))
    }

    fn lock(&self, path: &Path) -> Result<DiskLock, LockError> {
        let file = options(OpenMode::Create).open(path).map_err(failed(Operation::Lock, path))?;
        match file.try_lock() {
            Ok(()) => Ok(DiskLock::new(file)),
            Err(TryLockError::WouldBlock) => Err(LockError::Locked { path: path.to_path_buf() }),
            Err(TryLockError::Error(error)) => Err(DiskError::new(Operation::Lock, path, error).into()),
        }
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64, DiskError> {
        let answer =
            rustix::fs::statvfs(dir).map_err(|error| failed(Operation::FreeBytes, dir)(error.into()))?;
        Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
    path: PathBuf,
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        fill(&self.file, offset, buffer).map_err(failed(Operation::Read, &self.path))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write_all_at(bytes, offset).map_err(failed(Operation::Write, &self.path))
    }

    fn length(&self) -> Result<u64, DiskError> {
        Ok(self.file.metadata().map_err(failed(Operation::Length, &self.path))?.len())
    }

    fn set_length(&self, length: u64) -> Result<(), DiskError> {
        self.file.set_len(length).map_err(failed(Operation::SetLength, &self.path))
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(failed(Operation::Sync, &self.path))
    }

    fn sync_all(&self) -> Result<(), DiskError> {
        self.file.sync_all().map_err(failed(Operation::Sync, &self.path))
    }
}

fn failed(operation: Operation, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    move |source| DiskError::new(operation, path, source)
}

fn options(mode: OpenMode) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true);
    match mode {
        OpenMode::Create => options.write(true).create(true),
        OpenMode::CreateNew => options.write(true).create_new(true),
        OpenMode::Read => &mut options,
        OpenMode::Write => options.write(true),
    };
    options
}

/// The parent is synced even when the directory was there: a process may have ended between creating it and
/// syncing its name.
fn create_durably(dir: &Path) -> io::Result<()> {
    let above = parent(dir);
    if dir.parent().is_some() && !above.try_exists()? {
        create_durably(above)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        other => other?,
    }
    sync_directory(above)
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn sorted_names(dir: &Path) -> io::Result<Vec<OsString>> {
    let mut names =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<OsString>>>()?;
    names.sort();
    Ok(names)
}

fn fill(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
