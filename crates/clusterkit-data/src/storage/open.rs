//! What an earlier run left: opens log and states, ends what was begun, and says what there is of each replica.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clusterkit_core::id::ReplicaUid;
use clusterkit_core::replica::{LogTime, Recovered, ReplicaKey, SessionConfig};
use clusterkit_storage::checked::{ReadFileError, WriteFileError, read_checked, write_checked};
use clusterkit_storage::disk::{Disk, DiskError, DiskLock, LockError};
use clusterkit_storage::shared_log::{self, ChangeError, Log, LogError, SharedLog, StreamId, StreamStatus};
use clusterkit_storage::state_store::{
    self, Damage, MemoryStore, RedbStore, ReplicaKey as StateKey, StateError, StateStore,
};
use tracing::{info, warn};

use super::codec::{Note, Unknown, decode_record, unversioned, versioned};
use super::limits::{RECOVERY_BYTES, STATE_THREADS};
use super::log_worker::stream_of;
use super::rows::{Applied, RowError};
use super::shared::{Shared, state_of};
use super::{LogWorker, Maintenance, Running, Snapshots, StateWorker, Tell};
use crate::machine::StateMachine;

const LOCK_NAME: &str = "lock";
const IDENTITY_NAME: &str = "identity";
const LOG_NAME: &str = "log";
const STATE_NAME: &str = "state";

/// How to open the storage of a node.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Any number, chosen by chance. Storage that is made gets it as its name; other storage keeps its own.
    pub(crate) identity: u128,
    /// How to open the log.
    pub(crate) log: shared_log::Options,
    /// Where states are.
    pub(crate) state: StateOptions,
}

/// Where states are.
#[derive(Debug, Clone)]
pub(crate) enum StateOptions {
    /// On the disk. The name of the store is that of the storage, whatever the options say.
    Disk(state_store::Options),
    /// In memory: after a restart every replica is missing, and has to be sent by another node.
    Memory,
}

/// The storage of a node, and what it has.
#[derive(Debug)]
pub(crate) struct Opened {
    /// What there is of each replica that was ever created here and not removed.
    pub(crate) recovered: BTreeMap<ReplicaKey, Recovered>,
    /// Damaged replicas of which it is not known to which partition they belong. Creating one of them again is told to
    /// be damage.
    pub(crate) unnamed: BTreeSet<ReplicaUid>,
    /// To be started.
    pub(crate) storage: NodeStorage,
}

/// Log and states, which nobody works on yet.
#[derive(Debug)]
pub(crate) struct NodeStorage {
    log: SharedLog,
    store: Arc<dyn StateStore>,
    notes: BTreeMap<ReplicaKey, Note>,
    damaged: BTreeSet<ReplicaKey>,
    damages: Vec<Damage>,
    lock: DiskLock,
}

/// The workers of a node.
#[derive(Debug)]
pub(crate) struct Workers {
    /// Changes logs.
    pub(crate) log: LogWorker,
    /// Apply and evaluate; a replica's is the one that [`worker_of`](super::queue::worker_of) says.
    pub(crate) states: [StateWorker; STATE_THREADS],
    /// Keeps order.
    pub(crate) maintenance: Maintenance,
    /// States on their way.
    pub(crate) snapshots: Snapshots,
    pub(super) shared: Arc<Shared>,
    pub(super) lock: DiskLock,
}

/// Storage could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The disk failed. Retry only in a new process.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file that names the storage cannot be used. Keep the directory aside, and have everything sent again.
    #[error("the file that names the storage cannot be used")]
    Identity(#[source] ReadFileError),
    /// The file that names the storage is nothing that this program wrote. As [`Identity`](Self::Identity).
    #[error("{} is nothing that this program wrote", path.display())]
    IdentityUnknown {
        /// The file.
        path: PathBuf,
    },
    /// The file that names the storage could not be written. Retry only in a new process.
    #[error("the storage could not be given a name")]
    IdentityUnwritten(#[source] WriteFileError),
    /// Another process has the directory open, or it cannot be locked.
    #[error("the storage cannot be locked")]
    Lock(#[source] LockError),
    /// The log cannot be used.
    #[error("the log cannot be opened")]
    Log(#[source] shared_log::OpenError),
    /// The log could not be brought in order. What was durable still is.
    #[error("the log cannot be changed")]
    LogChange(#[source] ChangeError),
    /// The log could not be brought in order. What was durable still is.
    #[error("the log cannot be synced")]
    LogSync(#[source] LogError),
    /// A part of the storage is gone as a whole. Keep the rest aside, and have everything sent again.
    #[error("{} is gone", path.display())]
    Missing {
        /// What is gone.
        path: PathBuf,
    },
    /// It serves another node of this process. Give each node partitions of its own. Nothing was changed.
    #[error("it was opened for another node of this process")]
    OpenedBefore,
    /// The system has no randomness to name things by. Nothing was changed.
    #[error("the system gives no randomness: {0}")]
    Randomness(getrandom::Error),
    /// The state store failed.
    #[error("the state store cannot be read")]
    State(#[source] StateError),
    /// The state store cannot be used.
    #[error("the state store cannot be opened")]
    StateOpen(#[source] state_store::OpenError),
    /// The operating system has no thread left for the storage. Retry when it has.
    #[error("the threads of the storage cannot be started")]
    Threads(#[source] std::io::Error),
}

impl NodeStorage {
    /// Opens the storage in a directory, or makes one. What it then has is durable. Nothing but damaged files of states
    /// is set aside.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]; no replica may take part.
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<Opened, OpenError> {
        disk.create_dir_all(dir)?;
        let lock = disk.lock(&dir.join(LOCK_NAME)).map_err(OpenError::Lock)?;
        let identity = Identity::read(&**disk, dir)?;
        if identity.is_some_and(|identity| identity.is_made) {
            check_there(&**disk, dir, &options.state)?;
        }
        let identity = identity.unwrap_or(Identity { name: options.identity, is_made: false });
        identity.write(&**disk, dir)?;
        let (log, recovery) =
            SharedLog::open(Arc::clone(disk), &dir.join(LOG_NAME), &options.log).map_err(OpenError::Log)?;
        if recovery != shared_log::Recovery::default() {
            info!(?recovery, "the log was not closed");
        }
        let store = open_states(disk, dir, &options.state, identity.name)?;
        Identity { is_made: true, ..identity }.write(&**disk, dir)?;
        Recovery::new(log, store).run(lock)
    }

    /// The workers, to be run by whoever calls.
    pub(crate) fn workers(
        self,
        machine: &Arc<dyn StateMachine>,
        sessions: &SessionConfig,
        tell: Tell,
    ) -> Workers {
        let Self { log, store, notes, damaged, damages, lock } = self;
        let keys = notes.keys().copied().collect();
        let shared = Arc::new(Shared::new(store, tell, keys, damaged, damages));
        let state = |_| StateWorker::new(Arc::clone(&shared), Arc::clone(machine), sessions.clone());
        Workers {
            log: LogWorker::new(log, Arc::clone(&shared), notes),
            states: std::array::from_fn(state),
            maintenance: Maintenance::new(Arc::clone(&shared)),
            snapshots: Snapshots::new(Arc::clone(&shared)),
            shared,
            lock,
        }
    }

    /// Gives each worker a thread.
    ///
    /// # Errors
    ///
    /// The operating system has no thread left. Nothing changed.
    pub(crate) fn start(
        self,
        machine: &Arc<dyn StateMachine>,
        sessions: &SessionConfig,
        tell: Tell,
    ) -> std::io::Result<Running> {
        Running::start(self.workers(machine, sessions, tell))
    }
}

/// The name of the storage, and whether all of it was made once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    name: u128,
    is_made: bool,
}

impl Identity {
    fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = dir.join(IDENTITY_NAME);
        let Some(body) = read_checked(disk, &path).map_err(OpenError::Identity)? else { return Ok(None) };
        match unversioned(&body) {
            Ok((name, is_made)) => Ok(Some(Self { name, is_made })),
            Err(Unknown) => Err(OpenError::IdentityUnknown { path }),
        }
    }

    fn write(self, disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
        if Self::read(disk, dir)? == Some(self) || Self::read(disk, dir)?.is_some_and(|known| known.is_made) {
            return Ok(());
        }
        let body = versioned(&(self.name, self.is_made));
        write_checked(disk, &dir.join(IDENTITY_NAME), &body).map_err(OpenError::IdentityUnwritten)
    }
}

/// Storage that was made once has a log, and states if they are to be on the disk and were: else they were taken away.
fn check_there(disk: &dyn Disk, dir: &Path, state: &StateOptions) -> Result<(), OpenError> {
    let is_on_disk = matches!(state, StateOptions::Disk(_));
    let parts = [Some(LOG_NAME), is_on_disk.then_some(STATE_NAME)];
    for path in parts.into_iter().flatten().map(|name| dir.join(name)) {
        if !disk.exists(&path)? {
            return Err(OpenError::Missing { path });
        }
    }
    Ok(())
}

/// Opens the state store. A file that is damaged is set aside, and its replicas are missing.
fn open_states(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    options: &StateOptions,
    name: u128,
) -> Result<Arc<dyn StateStore>, OpenError> {
    let StateOptions::Disk(options) = options else { return Ok(Arc::new(MemoryStore::new())) };
    let (dir, options) = (dir.join(STATE_NAME), state_store::Options { store: name, ..options.clone() });
    let mut left = options.file_count;
    loop {
        match RedbStore::open(Arc::clone(disk), &dir, &options) {
            Ok(store) => return Ok(Arc::new(store)),
            Err(state_store::OpenError::State(StateError::Damaged(damage))) if left > 0 => {
                warn!(
                    error = &damage as &dyn std::error::Error,
                    "a file of states is damaged, and set aside"
                );
                RedbStore::set_aside(&**disk, &dir, &options, &damage).map_err(OpenError::StateOpen)?;
                left -= 1;
            }
            Err(error) => return Err(OpenError::StateOpen(error)),
        }
    }
}

/// Goes through all streams and states.
struct Recovery {
    log: SharedLog,
    store: Arc<dyn StateStore>,
    notes: BTreeMap<ReplicaKey, Note>,
    recovered: BTreeMap<ReplicaKey, Recovered>,
    unnamed: BTreeSet<ReplicaUid>,
    damages: Vec<Damage>,
}

impl Recovery {
    fn new(log: SharedLog, store: Arc<dyn StateStore>) -> Self {
        Self {
            log,
            store,
            notes: BTreeMap::new(),
            recovered: BTreeMap::new(),
            unnamed: BTreeSet::new(),
            damages: Vec::new(),
        }
    }

    fn run(mut self, lock: DiskLock) -> Result<Opened, OpenError> {
        for status in self.log.streams() {
            self.recover_stream(status)?;
        }
        self.log.sync().map_err(OpenError::LogSync)?;
        self.drop_strangers()?;
        let damaged = self.recovered.iter().filter(|(_, recovered)| recovered.is_damaged());
        let damaged = damaged.map(|(key, _)| *key).collect();
        let Self { log, store, notes, recovered, unnamed, damages } = self;
        let storage = NodeStorage { log, store, notes, damaged, damages, lock };
        Ok(Opened { recovered, unnamed, storage })
    }

    fn recover_stream(&mut self, status: StreamStatus) -> Result<(), OpenError> {
        let StreamId(uid) = status.stream;
        let uid = ReplicaUid(uid);
        let note = match status.note.as_deref().map(Note::decode) {
            Some(Ok(note)) => note,
            // Its creation was not durable, and nobody was told of it.
            None if !status.damaged => return self.log.remove(status.stream).map_err(OpenError::LogChange),
            None | Some(Err(Unknown)) => {
                self.unnamed.insert(uid);
                return Ok(());
            }
        };
        let key = ReplicaKey { partition: note.partition, uid };
        let recovered = if self.store.is_durable() {
            self.recover(key, note, status)?
        } else {
            self.notes.insert(key, note);
            Recovered::missing()
        };
        self.recovered.insert(key, recovered);
        Ok(())
    }

    fn recover(&mut self, key: ReplicaKey, note: Note, status: StreamStatus) -> Result<Recovered, OpenError> {
        let applied = match Applied::read(&*self.store, state_of(key)) {
            Ok(applied) => applied,
            Err(error) => {
                self.notes.insert(key, note);
                self.take_row_error(key, error)?;
                return Ok(damaged(&status, note));
            }
        };
        let (note, status) = self.end_install(key, note, status, applied.end)?;
        self.notes.insert(key, note);
        if status.damaged {
            return Ok(Recovered { applied: applied.end, ..damaged(&status, note) });
        }
        let mut recovered = Recovered {
            log_start: status.records.start,
            log_end: status.records.end,
            epochs: applied.epochs,
            time_last: applied.time,
            commit: note.commit,
            applied: applied.end,
            damaged: false,
        };
        recovered.damaged = !self.read_on(key, &mut recovered);
        Ok(recovered)
    }

    /// A crash came between the steps of an installation. Once the state is the new one, the log begins anew behind it.
    fn end_install(
        &mut self,
        key: ReplicaKey,
        note: Note,
        status: StreamStatus,
        applied: u64,
    ) -> Result<(Note, StreamStatus), OpenError> {
        let Some(end) = note.installing else { return Ok((note, status)) };
        let stream = stream_of(key);
        let mut note = Note { installing: None, ..note };
        if applied == end {
            note.commit = end;
            if status.records != (end..end) || status.damaged {
                self.log.reset(stream, end).map_err(OpenError::LogChange)?;
            }
        } else if status.damaged {
            return Ok((note, status));
        }
        self.log.note(stream, note.encode()).map_err(OpenError::LogChange)?;
        Ok((note, self.log.stream(stream).unwrap_or(status)))
    }

    /// Reads the records that are not applied. Whether all of them are there.
    fn read_on(&self, key: ReplicaKey, recovered: &mut Recovered) -> bool {
        let mut next = recovered.applied.max(recovered.log_start);
        while next < recovered.log_end {
            let read = self.log.read(stream_of(key), next..recovered.log_end, RECOVERY_BYTES);
            let Ok(records) = read else { return false };
            for (offset, bytes) in records {
                let Ok(record) = decode_record(bytes) else { return false };
                recovered.epochs.note(record.epoch, offset);
                recovered.time_last = recovered.time_last.max(record.time);
                next = offset + 1;
            }
        }
        true
    }

    fn take_row_error(&mut self, key: ReplicaKey, error: RowError) -> Result<(), OpenError> {
        warn!(partition = %key.partition, uid = key.uid.0, error = &error as &dyn std::error::Error, "a state is damaged");
        match error {
            RowError::Row(Unknown) => Ok(()),
            RowError::State(StateError::Damaged(damage)) => {
                self.damages.push(damage);
                Ok(())
            }
            RowError::State(error) => match self.store.digest(state_of(key)) {
                Err(StateError::Damaged(damage)) => {
                    self.damages.push(damage);
                    Ok(())
                }
                _ => Err(OpenError::State(error)),
            },
        }
    }

    /// States without a stream: a crash came between the removals, or an installation came too late.
    fn drop_strangers(&mut self) -> Result<(), OpenError> {
        let found = self.store.replicas().map_err(OpenError::State)?;
        self.damages.extend(found.damages);
        for StateKey(uid) in found.indexes.into_keys() {
            if self.log.stream(StreamId(uid)).is_none() {
                match self.store.drop_replica(StateKey(uid)) {
                    Err(StateError::Damaged(damage)) => self.damages.push(damage),
                    outcome => outcome.map_err(OpenError::State)?,
                }
            }
        }
        Ok(())
    }
}

fn damaged(status: &StreamStatus, note: Note) -> Recovered {
    Recovered {
        log_start: status.records.start,
        log_end: status.records.end,
        commit: note.commit,
        time_last: LogTime(0),
        damaged: true,
        ..Recovered::default()
    }
}
