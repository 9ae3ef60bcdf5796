//! A file that names its epoch in its first line, guarded by a lock.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clusterkit::Epoch;
use tempfile::NamedTempFile;

use super::{Held, Verdict};

/// A write is a new file that takes the place of the old one, so readers see the one or the other, and
/// never a part. The lock lies beside it: a lock on the file itself would stay with the old one.
#[derive(Debug, Clone)]
pub(crate) struct FileStore {
    path: PathBuf,
    lock: PathBuf,
}

impl FileStore {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), lock: path.with_extension("lock") }
    }

    pub(super) fn create(&self) -> io::Result<()> {
        File::create(&self.lock)?;
        self.replace(self.stage(&Held::default())?)
    }

    pub(super) fn read(&self) -> io::Result<Held> {
        let text = fs::read_to_string(&self.path)?;
        let held = text.split_once('\n').and_then(|(header, value)| {
            let epoch = header.strip_prefix("epoch ")?.parse().ok()?;
            Some(Held { epoch: Epoch(epoch), value: value.to_owned() })
        });
        held.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no epoch in the first line"))
    }

    /// The lock is held for two system calls, and no disk is waited for under it: an owner that is stopped
    /// while it holds the lock keeps everybody out until it goes on.
    pub(super) fn write(&self, new: &Held) -> io::Result<Verdict> {
        // Epochs only grow: what is stale now stays so. The last word is under the lock.
        if self.read()?.epoch > new.epoch {
            return Ok(Verdict::Stale);
        }
        let staged = self.stage(new)?;
        let lock = File::open(&self.lock)?;
        lock.lock()?;
        if self.read()?.epoch > new.epoch {
            return Ok(Verdict::Stale);
        }
        self.replace(staged)?;
        drop(lock);
        self.sync_directory()?;
        Ok(Verdict::Accepted)
    }

    /// Whether somebody holds the lock just now.
    pub(crate) fn is_locked(&self) -> io::Result<bool> {
        match File::open(&self.lock)?.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Writes down what shall take the file's place.
    fn stage(&self, new: &Held) -> io::Result<NamedTempFile> {
        let mut staged = NamedTempFile::new_in(self.directory())?;
        write!(staged, "epoch {}\n{}", new.epoch, new.value)?;
        staged.as_file().sync_all()?;
        Ok(staged)
    }

    fn replace(&self, staged: NamedTempFile) -> io::Result<()> {
        staged.persist(&self.path)?;
        Ok(())
    }

    /// The new name is as durable as the bytes only after this.
    fn sync_directory(&self) -> io::Result<()> {
        File::open(self.directory())?.sync_all()
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn held(epoch: u64, value: &str) -> Held {
        Held { epoch: Epoch(epoch), value: value.to_owned() }
    }

    fn created() -> (tempfile::TempDir, FileStore) {
        let dir = tempfile::tempdir().expect("a directory");
        let store = FileStore::new(&dir.path().join("value"));
        store.create().expect("made");
        (dir, store)
    }

    #[test]
    fn an_epoch_older_than_the_newest_is_refused() {
        let (_dir, store) = created();
        let check = |epoch: u64, value: &str, verdict: Verdict, then: &Held| {
            assert_eq!(store.write(&held(epoch, value)).expect("written"), verdict, "epoch {epoch}");
            assert_eq!(store.read().expect("read"), *then);
        };
        check(3, "a", Verdict::Accepted, &held(3, "a"));
        check(3, "b\nc", Verdict::Accepted, &held(3, "b\nc"));
        check(2, "d", Verdict::Stale, &held(3, "b\nc"));
        check(5, "e", Verdict::Accepted, &held(5, "e"));
        check(4, "f", Verdict::Stale, &held(5, "e"));
    }

    #[test]
    fn a_write_that_waits_for_the_lock_is_compared_once_more() {
        let (dir, store) = created();
        let lock = File::open(&store.lock).expect("there");
        lock.lock().expect("free");
        let files = || fs::read_dir(dir.path()).expect("readable").count();
        let before = files();
        let late = thread::spawn({
            let store = store.clone();
            move || store.write(&held(1, "late")).expect("written")
        });
        // It is past its first look once its own file is there.
        while files() == before {
            thread::yield_now();
        }
        store.replace(store.stage(&held(2, "newer")).expect("staged")).expect("replaced");
        drop(lock);
        assert_eq!(late.join().expect("no panic"), Verdict::Stale);
        assert_eq!(store.read().expect("read"), held(2, "newer"));
    }
}
