//! The files of the control plane: found, read, and believed or refused.
//!
//! | file | holds | why it is believed |
//! | --- | --- | --- |
//! | `vote` | the vote, and the store that all of this belongs to | written, with no vote in it, before anything else; each vote is saved before entries of its term are |
//! | `log/` | the entries behind the purge | knows itself what of it was synced |
//! | `snapshot` | the state at one index | written before a purge up to there |
//! | `purged` | up to where the log was purged | written before the log is cut |
//!
//! So whatever else is there without `vote`, or in a later term, has lost its vote: a node that went
//! on could vote twice in one term. Entry 0, the group's first membership, is of term 0 and needs none.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use clusterkit_core::id::StoreId;
use clusterkit_storage::checked::{ReadFileError, read_checked, temporary, write_checked};
use clusterkit_storage::disk::{Disk, DiskError};
use clusterkit_storage::record_log::{OpenError, Options, ReadError, RecordLog, ResetError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::log_store::{self, Stored};
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
    pub(super) store: StoreId,
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    pub(super) snapshot: Option<Bytes>,
    /// What the log holds behind `purged`.
    pub(super) entries: BTreeMap<u64, Stored>,
}

/// The vote, and the store it was given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VoteRecord {
    pub(super) store: StoreId,
    pub(super) vote: Option<Vote>,
}

impl RaftFiles {
    /// Opens the files in `dir`, which `store` has written before. Nothing is written before all of
    /// them were believed, but for what the log repairs of itself.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path, store: StoreId) -> Result<Self, DataDirError> {
        let reader = Reader { disk: disk.as_ref(), dir };
        let Some(vote) = reader.vote()? else {
            return Err(reader.vote_missing()?);
        };
        if reader.names(Path::new(LOG_DIR))?.is_empty() {
            return Err(DataDirError::LogMissing { dir: dir.to_owned() });
        }
        Self::read(disk, dir, store, vote)
    }

    /// Like [`open`](Self::open), and makes what is not there yet: nothing was promised from these
    /// files so far.
    pub(crate) fn open_or_create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        store: StoreId,
    ) -> Result<Self, DataDirError> {
        let reader = Reader { disk: disk.as_ref(), dir };
        let vote = match reader.vote()? {
            Some(vote) => vote,
            None if Self::exist(disk.as_ref(), dir)? => return Err(reader.vote_missing()?),
            None => reader.write_first_vote(store)?,
        };
        Self::read(disk, dir, store, vote)
    }

    fn read(disk: Arc<dyn Disk>, dir: &Path, store: StoreId, vote: VoteRecord) -> Result<Self, DataDirError> {
        let reader = Reader { disk: disk.as_ref(), dir };
        if vote.store != store {
            return Err(DataDirError::OtherStore { dir: dir.to_owned(), found: vote.store, wanted: store });
        }
        let purged: Option<LogId> = reader.record(PURGED_FILE)?;
        let snapshot = reader.bytes(SNAPSHOT_FILE)?;
        if purged.is_some() && snapshot.is_none() {
            return Err(reader.lost(SNAPSHOT_FILE, false));
        }
        // An earlier process may have ended before it synced the names that were just read, and from
        // here on everything builds on them: a vote that came back older could be given twice.
        disk.sync_dir(dir).map_err(|source| reader.disk_error(source))?;
        let mut log = reader.open_log(&disk)?;
        let first = purged.map_or(0, |log_id| log_id.index + 1);
        if log.first_index() > first {
            return Err(reader.lost(PURGED_FILE, purged.is_some()));
        }
        let entries = reader.entries(&log, first)?;
        let last = entries.last_key_value().map(|(_, stored)| stored.entry.log_id).or(purged);
        let term_voted = vote.vote.map_or(0, |vote| vote.leader_id.term);
        if last.map_or(0, |log_id| log_id.leader_id.term) > term_voted {
            return Err(reader.lost(VOTE_FILE, true));
        }
        reader.finish_purge(&mut log, first)?;
        let recovered = Recovered { store, vote: vote.vote, purged, snapshot, entries };
        Ok(Self { disk, dir: dir.to_owned(), log, recovered })
    }

    /// Whether anything was ever written in `dir`. What a crash leaves of the very first write is
    /// nothing.
    pub(crate) fn exist(disk: &dyn Disk, dir: &Path) -> Result<bool, DataDirError> {
        let reader = Reader { disk, dir };
        let first_write = temporary(Path::new(VOTE_FILE));
        let is_content = |name: &OsString| name != LOG_DIR && *name != first_write;
        Ok(reader.names(Path::new(""))?.iter().any(is_content)
            || !reader.names(Path::new(LOG_DIR))?.is_empty())
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
    fn vote(&self) -> Result<Option<VoteRecord>, DataDirError> {
        self.record(VOTE_FILE)
    }

    /// Writes that no vote was given yet, before anything else is written.
    fn write_first_vote(&self, store: StoreId) -> Result<VoteRecord, DataDirError> {
        self.disk.create_dir_all(self.dir).map_err(|source| self.disk_error(source))?;
        let (file, record) = (self.dir.join(VOTE_FILE), VoteRecord { store, vote: None });
        write_checked(self.disk, &file, &log_store::encode(&record))
            .map_err(|source| DataDirError::Write { file, source })?;
        Ok(record)
    }

    /// What it means that there is no vote: it is lost, alone or with everything else.
    fn vote_missing(&self) -> Result<DataDirError, DataDirError> {
        if RaftFiles::exist(self.disk, self.dir)? {
            return Ok(self.lost(VOTE_FILE, false));
        }
        Ok(DataDirError::LogMissing { dir: self.dir.to_owned() })
    }

    /// A file is gone, or an older one is there in its place.
    fn lost(&self, name: &str, is_there: bool) -> DataDirError {
        DataDirError::of_lost(self.dir.join(name), self.dir.to_owned(), is_there)
    }

    /// The names in a directory below this one: none if it is not there.
    fn names(&self, below: &Path) -> Result<Vec<OsString>, DataDirError> {
        let dir = self.dir.join(below);
        let names = || if self.disk.exists(&dir)? { self.disk.list(&dir) } else { Ok(Vec::new()) };
        names().map_err(|source| self.disk_error(source))
    }

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

    /// Every entry from `first` on: they are bounded by the snapshot policy.
    fn entries(&self, log: &RecordLog, first: u64) -> Result<BTreeMap<u64, Stored>, DataDirError> {
        let mut entries = BTreeMap::new();
        let mut next = first;
        while next < log.next_index() {
            let records = log.read(next..log.next_index(), READ_BYTES).map_err(|error| match error {
                ReadError::Disk(source) => self.disk_error(source),
                source => DataDirError::LogUnreadable { dir: self.dir.to_owned(), source },
            })?;
            next += records.len() as u64;
            for (index, bytes) in records {
                let entry: Entry = self.decode(&self.dir.join(LOG_DIR), &bytes)?;
                entries.insert(index, Stored { entry, bytes: bytes.len() });
            }
        }
        Ok(entries)
    }

    /// Ends a purge that a crash cut off between its marker and its work: everything below `first` is
    /// in a snapshot, so the log goes on there.
    fn finish_purge(&self, log: &mut RecordLog, first: u64) -> Result<(), DataDirError> {
        if log.next_index() >= first {
            return Ok(());
        }
        log.reset_to(first).map_err(|error| match error {
            ResetError::Disk(source) => self.disk_error(source),
            source => DataDirError::LogReset { dir: self.dir.to_owned(), source },
        })
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

    fn disk_error(&self, source: DiskError) -> DataDirError {
        DataDirError::Disk { dir: self.dir.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use clusterkit_storage::disk::{Operation, SimDisk};
    use clusterkit_wire::versioned;
    use openraft::EntryPayload;
    use openraft::impls::leader_id_std::LeaderId;
    use openraft::vote::RaftLeaderId;

    use super::*;

    const DIR: &str = "/data/raft";
    const STORE: StoreId = StoreId(7);

    fn open(disk: &SimDisk) -> Result<RaftFiles, DataDirError> {
        RaftFiles::open(Arc::new(disk.clone()), Path::new(DIR), STORE)
    }

    fn open_or_create(disk: &SimDisk) -> Result<RaftFiles, DataDirError> {
        RaftFiles::open_or_create(Arc::new(disk.clone()), Path::new(DIR), STORE)
    }

    fn log_id(term: u64, index: u64) -> LogId {
        LogId::new(LeaderId::new(term, 1).to_committed(), index)
    }

    fn append(files: &mut RaftFiles, term: u64, indexes: std::ops::Range<u64>) {
        let entry = |index| Entry { log_id: log_id(term, index), payload: EntryPayload::Blank };
        let records: Vec<_> = indexes.map(|index| log_store::encode(&entry(index))).collect();
        files.log.append(&records).unwrap();
        files.log.sync().unwrap();
    }

    fn write(disk: &SimDisk, name: &str, record: &[u8]) {
        write_checked(disk, &Path::new(DIR).join(name), record).unwrap();
    }

    fn vote(disk: &SimDisk, term: u64) {
        let vote = Vote { leader_id: LeaderId::new(term, 1), committed: true };
        write(disk, VOTE_FILE, &log_store::encode(&VoteRecord { store: STORE, vote: Some(vote) }));
    }

    fn remove(disk: &SimDisk, name: &str) {
        disk.remove(&Path::new(DIR).join(name)).unwrap();
    }

    /// A log of term 3 that goes on behind a snapshot.
    fn used() -> SimDisk {
        let disk = SimDisk::new();
        let mut files = open_or_create(&disk).unwrap();
        vote(&disk, 3);
        append(&mut files, 3, 0..10);
        write(&disk, SNAPSHOT_FILE, b"up to 5");
        write(&disk, PURGED_FILE, &log_store::encode(&log_id(3, 5)));
        files.log.purge_to(6).unwrap();
        let indexes: Vec<_> = open(&disk).unwrap().recovered.entries.into_keys().collect();
        assert_eq!(indexes, [6, 7, 8, 9]);
        disk
    }

    fn check_refused(disk: &SimDisk, text: &str) {
        for open in [open, open_or_create] {
            assert_eq!(open(disk).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn a_purge_that_was_cut_off_after_its_marker_is_finished() {
        let disk = used();
        // A snapshot reaches to 20; the marker is written, and the power is cut before the rest.
        write(&disk, PURGED_FILE, &log_store::encode(&log_id(3, 20)));
        disk.crash_clean();
        append(&mut open(&disk).unwrap(), 3, 21..24);
        disk.crash_clean();
        let files = open(&disk).unwrap();
        assert_eq!(files.recovered.entries.into_keys().collect::<Vec<_>>(), [21, 22, 23]);
        assert_eq!(files.log.next_index(), 24);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_in_its_own_words() {
        let disk = used();
        disk.fail(Operation::Read, 0);
        let error = open(&disk).unwrap_err().to_string();
        let text = "cannot use the data directory /data/raft: cannot read /data/raft/vote: simulated input/output error";
        assert_eq!(error, text);

        write(&disk, PURGED_FILE, &versioned::encode(2, &0_u64));
        check_refused(
            &disk,
            "/data/raft/purged was written by a newer release, in version 2 of its format; start that release",
        );

        let disk = used();
        disk.flip_bit(&Path::new(DIR).join("log/manifest"), 30, 0).unwrap();
        let text = "the control-plane log in /data/raft is damaged: the manifest of the log cannot be used: /data/raft/log/manifest is damaged: its checksum does not match; start with an empty --data-dir: the node then comes back as a new replica";
        assert_eq!(open(&disk).unwrap_err().to_string(), text);
    }

    #[test]
    fn a_log_without_what_it_was_written_with_is_refused() {
        const ANEW: &str = "start with an empty --data-dir: the node then comes back as a new replica";
        for file in [VOTE_FILE, SNAPSHOT_FILE, PURGED_FILE] {
            let disk = used();
            remove(&disk, file);
            check_refused(
                &disk,
                &format!(
                    "/data/raft/{file} is gone, and the control-plane log in /data/raft cannot be used without it; {ANEW}"
                ),
            );
        }
        let disk = used();
        vote(&disk, 2);
        check_refused(
            &disk,
            &format!(
                "/data/raft/vote is older than the control-plane log in /data/raft, which cannot be used with it; {ANEW}"
            ),
        );
        let disk = used();
        write(&disk, PURGED_FILE, &log_store::encode(&log_id(3, 2)));
        assert!(matches!(open(&disk), Err(DataDirError::FileOutdated { .. })));
    }

    #[test]
    fn the_files_of_another_store_are_refused() {
        let disk = used();
        let open = RaftFiles::open(Arc::new(disk.clone()), Path::new(DIR), StoreId(9));
        let text = "the control-plane log in /data/raft belongs to another data directory, 0000000000000007 and not 0000000000000009; put it back there, or start with an empty --data-dir: the node then comes back as a new replica";
        assert_eq!(open.unwrap_err().to_string(), text);
    }

    #[test]
    fn a_log_that_was_written_once_is_never_made_anew() {
        let disk = used();
        for name in disk.list(&Path::new(DIR).join(LOG_DIR)).unwrap() {
            disk.remove(&Path::new(DIR).join(LOG_DIR).join(name)).unwrap();
        }
        assert!(matches!(open(&disk), Err(DataDirError::LogMissing { .. })));
        for name in [VOTE_FILE, SNAPSHOT_FILE, PURGED_FILE] {
            remove(&disk, name);
        }
        assert!(matches!(open(&disk), Err(DataDirError::LogMissing { .. })));
        assert!(matches!(open(&SimDisk::new()), Err(DataDirError::LogMissing { .. })));
    }

    #[test]
    fn a_crash_while_the_files_are_made_leaves_some_that_can_be_completed() {
        let endings: [fn(&SimDisk); 4] =
            [SimDisk::crash_clean, |disk| disk.crash(1), |disk| disk.crash(2), SimDisk::kill];
        for ending in endings {
            for count in 0.. {
                let disk = SimDisk::new();
                disk.stop_after(count);
                let is_done = open_or_create(&disk).is_ok();
                ending(&disk);
                let files = open_or_create(&disk).unwrap();
                assert_eq!((files.recovered.vote, files.recovered.entries.len()), (None, 0));
                // What was opened is durable, whatever the process before it had synced.
                disk.crash_clean();
                open(&disk).unwrap();
                if is_done {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_vote_that_an_earlier_process_did_not_live_to_sync_is_made_durable() {
        let disk = used();
        disk.fail(Operation::SyncDir, 0);
        let record = VoteRecord {
            store: STORE,
            vote: Some(Vote { leader_id: LeaderId::new(4, 2), committed: false }),
        };
        write_checked(&disk, &Path::new(DIR).join(VOTE_FILE), &log_store::encode(&record)).unwrap_err();
        disk.kill();
        assert_eq!(open(&disk).unwrap().recovered.vote, record.vote);
        disk.crash_clean();
        assert_eq!(
            open(&disk).unwrap().recovered.vote,
            record.vote,
            "it was given once, and is not taken back"
        );
    }
}
