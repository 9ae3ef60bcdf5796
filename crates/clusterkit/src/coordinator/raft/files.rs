//! The files of the control plane: found, read, and believed or refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use clusterkit_storage::checked::{ReadFileError, read_checked};
use clusterkit_storage::disk::Disk;
use clusterkit_storage::record_log::{OpenError, Options, ReadError, RecordLog, ResetError};
use serde::de::DeserializeOwned;

use super::log_store;
use super::types::{Entry, LogId, Vote};
use crate::error::DataDirError;

/// Bytes read at once when the log is opened.
const READ_BYTES: u64 = 8 << 20;
/// The log's entries are small and few: small segments are freed sooner.
const LOG_OPTIONS: Options = Options { index_first: 0, segment_bytes: 4 << 20 };

const LOG_DIR: &str = "log";
pub(super) const VOTE_FILE: &str = "vote";
pub(super) const PURGED_FILE: &str = "purged";
pub(super) const SNAPSHOT_FILE: &str = "snapshot";

/// The opened files, for the one worker that writes them.
#[derive(Debug)]
pub(crate) struct RaftFiles {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) log: RecordLog,
    pub(super) recovered: Recovered,
}

/// What the files said when they were opened.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    pub(super) snapshot: Option<Bytes>,
    /// What the log holds behind `purged`.
    pub(super) entries: BTreeMap<u64, Entry>,
}

impl RaftFiles {
    /// Opens the log and the files beside it in `dir`, or makes them.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, DataDirError> {
        let reader = Reader { disk: disk.as_ref(), dir };
        disk.create_dir_all(dir).map_err(|source| reader.disk_error(source))?;
        let vote = reader.record(VOTE_FILE)?;
        let purged: Option<LogId> = reader.record(PURGED_FILE)?;
        let snapshot = reader.bytes(SNAPSHOT_FILE)?;
        let mut log = reader.open_log(&disk)?;
        if let Some(purged) = purged {
            reader.finish_purge(&mut log, purged.index)?;
        }
        let entries = reader.entries(&log, purged.map_or(0, |log_id| log_id.index + 1))?;
        let recovered = Recovered { vote, purged, snapshot, entries };
        Ok(Self { disk, dir: dir.to_owned(), log, recovered })
    }

    pub(super) fn snapshot_path(&self) -> PathBuf {
        self.dir.join(SNAPSHOT_FILE)
    }
}

/// Reads the files of one directory, and says in which of them something is wrong.
struct Reader<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
}

impl Reader<'_> {
    fn bytes(&self, name: &str) -> Result<Option<Bytes>, DataDirError> {
        let file = self.dir.join(name);
        read_checked(self.disk, &file).map_err(|error| DataDirError::of_read(self.dir, &file, error))
    }

    fn record<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, DataDirError> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        self.decode(&self.dir.join(name), &bytes).map(Some)
    }

    fn decode<T: DeserializeOwned>(&self, file: &Path, bytes: &[u8]) -> Result<T, DataDirError> {
        log_store::decode(bytes).map_err(|error| DataDirError::of_decode(file, error))
    }

    fn open_log(&self, disk: &Arc<dyn Disk>) -> Result<RecordLog, DataDirError> {
        let opened = RecordLog::open(Arc::clone(disk), &self.dir.join(LOG_DIR), &LOG_OPTIONS);
        let (log, recovery) = opened.map_err(|error| self.open_error(error))?;
        if let Some(torn) = recovery.torn {
            tracing::warn!(target: "clusterkit::storage", ?torn, "cut a torn tail off the control-plane log");
        }
        Ok(log)
    }

    /// Ends a purge that a crash cut off between its marker and its work: everything up to `index` is
    /// in a snapshot, so the log goes on behind it.
    fn finish_purge(&self, log: &mut RecordLog, index: u64) -> Result<(), DataDirError> {
        if log.next_index() > index {
            return Ok(());
        }
        log.reset_to(index + 1).map_err(|error| match error {
            ResetError::Disk(source) => self.disk_error(source),
            source => DataDirError::LogReset { dir: self.dir.to_owned(), source },
        })
    }

    /// Every entry from `first` on: they are bounded by the snapshot policy.
    fn entries(&self, log: &RecordLog, first: u64) -> Result<BTreeMap<u64, Entry>, DataDirError> {
        let mut entries = BTreeMap::new();
        let mut next = first.max(log.first_index());
        while next < log.next_index() {
            let records = log.read(next..log.next_index(), READ_BYTES).map_err(|error| match error {
                ReadError::Disk(source) => self.disk_error(source),
                source => DataDirError::LogUnreadable { dir: self.dir.to_owned(), source },
            })?;
            next += records.len() as u64;
            for (index, bytes) in records {
                entries.insert(index, self.decode(&self.dir.join(LOG_DIR), &bytes)?);
            }
        }
        Ok(entries)
    }

    fn open_error(&self, error: OpenError) -> DataDirError {
        match error {
            OpenError::Disk(source) | OpenError::Manifest(ReadFileError::Disk(source)) => {
                self.disk_error(source)
            }
            OpenError::Manifest(ReadFileError::Unsupported { path, version }) => {
                DataDirError::NewerRelease { file: path, version }
            }
            OpenError::Unsupported { segment, version } => {
                DataDirError::NewerRelease { file: segment, version }
            }
            source => DataDirError::LogDamaged { dir: self.dir.to_owned(), source },
        }
    }

    fn disk_error(&self, source: clusterkit_storage::disk::DiskError) -> DataDirError {
        DataDirError::Disk { dir: self.dir.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use clusterkit_storage::checked::write_checked;
    use clusterkit_storage::disk::{Operation, SimDisk};
    use clusterkit_wire::versioned;
    use openraft::EntryPayload;
    use openraft::vote::RaftLeaderId;

    use super::*;

    const DIR: &str = "/raft";

    fn open(disk: &SimDisk) -> Result<RaftFiles, DataDirError> {
        RaftFiles::open(Arc::new(disk.clone()), Path::new(DIR))
    }

    fn log_id(term: u64, index: u64) -> LogId {
        LogId::new(openraft::impls::leader_id_std::LeaderId::new(term, 1).to_committed(), index)
    }

    fn record(term: u64, index: u64) -> Bytes {
        log_store::encode(&Entry { log_id: log_id(term, index), payload: EntryPayload::Blank })
    }

    fn append(files: &mut RaftFiles, indexes: std::ops::Range<u64>) {
        let records: Vec<_> = indexes.map(|index| record(1, index)).collect();
        files.log.append(&records).unwrap();
        files.log.sync().unwrap();
    }

    fn write(disk: &SimDisk, name: &str, record: &[u8]) {
        write_checked(disk, &Path::new(DIR).join(name), record).unwrap();
    }

    #[test]
    fn a_purge_that_was_cut_off_after_its_marker_is_finished() {
        let disk = SimDisk::new();
        append(&mut open(&disk).unwrap(), 0..10);
        // A snapshot reaches to 20; the marker is written, and the power is cut before the rest.
        write(&disk, PURGED_FILE, &log_store::encode(&log_id(1, 20)));
        disk.crash_clean();
        append(&mut open(&disk).unwrap(), 21..24);
        disk.crash_clean();
        let files = open(&disk).unwrap();
        assert_eq!(files.recovered.entries.into_keys().collect::<Vec<_>>(), [21, 22, 23]);
        assert_eq!(files.log.next_index(), 24);
    }

    fn check_refused(disk: &SimDisk, text: &str) {
        assert_eq!(open(disk).unwrap_err().to_string(), text);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_in_its_own_words() {
        let disk = SimDisk::new();
        append(&mut open(&disk).unwrap(), 0..3);

        disk.fail(Operation::List, 0);
        check_refused(
            &disk,
            "cannot use the data directory /raft: cannot list /raft/log: simulated input/output error",
        );
        write(&disk, PURGED_FILE, &versioned::encode(2, &0_u64));
        check_refused(
            &disk,
            "/raft/purged was written by a newer release, in version 2 of its format; start that release",
        );
        disk.remove(&Path::new(DIR).join(PURGED_FILE)).unwrap();

        let manifest = Path::new(DIR).join("log/manifest");
        disk.flip_bit(&manifest, 30, 0).unwrap();
        check_refused(
            &disk,
            "the control-plane log in /raft is damaged: the manifest of the log cannot be used: /raft/log/manifest is damaged: its checksum does not match; start with an empty --data-dir: the node then comes back as a new replica",
        );
    }
}
