//! Which replicas the user's code may hold something of, on disk.

use std::path::PathBuf;
use std::sync::Arc;

use clusterkit_core::id::{PartitionId, ReplicaUid};
use clusterkit_storage::checked::{WriteFileError, read_checked, write_checked};
use clusterkit_storage::disk::{Disk, DiskLock};
use clusterkit_wire::versioned;

use crate::coordinator::raft::IoMode;
use crate::error::DataDirError;

/// The version that the list is written under.
const NOTES_VERSION: u8 = 1;
const NOTES_FILE: &str = "replicas";

/// The list's file.
#[derive(Debug, Clone)]
pub(super) struct ReplicaNotes {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file: PathBuf,
    io: IoMode,
    /// Held while the list is written, even when nobody waits for it any more.
    _lock: Arc<DiskLock>,
}

impl ReplicaNotes {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        data_dir: &std::path::Path,
        io: IoMode,
        lock: Arc<DiskLock>,
    ) -> Self {
        Self { disk, dir: data_dir.to_owned(), file: data_dir.join(NOTES_FILE), io, _lock: lock }
    }

    /// What was written last; nothing when nothing was.
    pub(super) fn load(&self) -> Result<Vec<(PartitionId, ReplicaUid)>, DataDirError> {
        let read = read_checked(self.disk.as_ref(), &self.file);
        let Some(bytes) = read.map_err(|source| DataDirError::of_read(&self.dir, &self.file, source))? else {
            return Ok(Vec::new());
        };
        versioned::decode(&bytes, NOTES_VERSION..=NOTES_VERSION)
            .map_err(|error| DataDirError::of_decode(&self.file, error))
    }

    /// Writes the list; it is durable when this returns.
    pub(super) async fn save(&self, replicas: Vec<(PartitionId, ReplicaUid)>) -> Result<(), DataDirError> {
        let notes = self.clone();
        let write = move || notes.write(&replicas);
        let written = match &self.io {
            // A sync must not hold up the runtime.
            IoMode::Thread => tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| {
                std::panic::resume_unwind(error.into_panic());
            }),
            IoMode::Task { sync_time } => {
                let time = *sync_time.borrow();
                tokio::time::sleep(time).await;
                write()
            }
        };
        written.map_err(|source| DataDirError::Write { file: self.file.clone(), source })
    }

    fn write(&self, replicas: &[(PartitionId, ReplicaUid)]) -> Result<(), WriteFileError> {
        write_checked(self.disk.as_ref(), &self.file, &versioned::encode(NOTES_VERSION, &replicas))
    }
}
