//! The control state behind openraft's state-machine trait: in memory, with snapshots on disk.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use clusterkit_core::control::{ControlState, InvalidState};
use clusterkit_wire::versioned;
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, RaftSnapshotBuilder};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::group::View;
use super::log_worker::LogWorkerHandle;
use super::types::{BatchOutcome, CommandBatch, LogId, RaftNode, SnapshotMeta, StoredMembership, TypeConfig};
use crate::error::DataDirError;
use crate::events::EventLog;

/// The version that snapshots are written under.
const SNAPSHOT_VERSION: u8 = 1;

type RaftSnapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, Bytes>;

/// Applies entries and publishes what came of them.
///
/// Invariants:
/// - `state` is exactly the effect of the entries up to `last_applied`;
/// - a view is published only after an entry was applied in full, so no watcher sees half a batch.
pub(crate) struct StateMachine {
    state: ControlState,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    views: watch::Sender<Arc<View>>,
    events: Arc<EventLog>,
    worker: LogWorkerHandle,
}

/// The bytes of a snapshot.
#[derive(Serialize, Deserialize)]
struct SnapshotRecord {
    last_applied: Option<LogId>,
    membership: StoredMembership,
    state: ControlState,
}

impl StateMachine {
    /// Opens at the last snapshot, or empty.
    pub(super) fn open(
        worker: LogWorkerHandle,
        snapshot: Option<&[u8]>,
        views: watch::Sender<Arc<View>>,
        events: Arc<EventLog>,
    ) -> Result<Self, SnapshotError> {
        let mut machine = Self {
            state: ControlState::default(),
            last_applied: None,
            membership: StoredMembership::default(),
            views,
            events,
            worker,
        };
        if let Some(bytes) = snapshot {
            let record = decode_snapshot(bytes)?;
            machine.adopt(record);
            machine.publish();
        }
        Ok(machine)
    }

    fn adopt(&mut self, record: SnapshotRecord) {
        self.state = record.state;
        self.last_applied = record.last_applied;
        self.membership = record.membership;
    }

    fn apply_entry(
        &mut self,
        payload: EntryPayload<CommandBatch, u64, RaftNode>,
        log_id: LogId,
    ) -> io::Result<BatchOutcome> {
        self.last_applied = Some(log_id);
        match payload {
            EntryPayload::Blank => Ok(BatchOutcome::default()),
            EntryPayload::Normal(batch) => self.apply_batch(&batch),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(log_id), membership);
                Ok(BatchOutcome::default())
            }
        }
    }

    /// A batch that this release cannot read stops the node: going on without it would be another
    /// history.
    fn apply_batch(&mut self, batch: &CommandBatch) -> io::Result<BatchOutcome> {
        let commands = batch.commands().map_err(io::Error::other)?;
        Ok(BatchOutcome(commands.iter().map(|command| self.state.apply(command)).collect()))
    }

    fn publish(&self) {
        self.events.record(&self.views.borrow().state.topology, &self.state.topology);
        self.views.send_replace(Arc::new(View::new(self.state.clone(), self.membership.membership())));
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let outcome = self.apply_entry(entry.payload, entry.log_id)?;
            self.publish();
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let record = SnapshotRecord {
            last_applied: self.last_applied,
            membership: self.membership.clone(),
            state: self.state.clone(),
        };
        SnapshotBuilder { record, worker: self.worker.clone() }
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, snapshot: Bytes) -> io::Result<()> {
        let record = decode_snapshot(&snapshot).map_err(io::Error::other)?;
        self.worker.save_snapshot(snapshot).await?;
        self.adopt(record);
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        // The builder writes to disk and not to this struct, so disk is where the newest one is.
        let Some(bytes) = self.worker.read_snapshot().await? else { return Ok(None) };
        let record = decode_snapshot(&bytes).map_err(io::Error::other)?;
        let meta = SnapshotMeta { last_log_id: record.last_applied, last_membership: record.membership };
        Ok(Some(Snapshot { meta, snapshot: bytes }))
    }
}

/// Writes one snapshot of the state as it was when the builder was made.
pub(crate) struct SnapshotBuilder {
    record: SnapshotRecord,
    worker: LogWorkerHandle,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        let bytes = Bytes::from(versioned::encode(SNAPSHOT_VERSION, &self.record));
        self.worker.save_snapshot(bytes.clone()).await?;
        let last_membership = self.record.membership.clone();
        let meta = SnapshotMeta { last_log_id: self.record.last_applied, last_membership };
        Ok(Snapshot { meta, snapshot: bytes })
    }
}

/// A record that may be adopted: its bytes can be read, and its state can be one.
fn decode_snapshot(bytes: &[u8]) -> Result<SnapshotRecord, SnapshotError> {
    let record: SnapshotRecord = versioned::decode(bytes, SNAPSHOT_VERSION..=SNAPSHOT_VERSION)?;
    record.state.check()?;
    Ok(record)
}

/// A snapshot cannot be adopted. Nothing changed, and another try with the same bytes brings the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SnapshotError {
    /// It is written by another release, or damaged in a way its checksum did not show.
    #[error("the snapshot cannot be read")]
    Decode(#[from] versioned::DecodeError),
    /// It is read, and its state breaks a rule that every state keeps.
    #[error("the snapshot holds no valid state")]
    State(#[from] InvalidState),
}

impl SnapshotError {
    /// What it means for the node whose `file` it is about.
    pub(super) fn in_file(self, file: &Path) -> DataDirError {
        match self {
            Self::Decode(error) => DataDirError::of_decode(file, error),
            Self::State(source) => DataDirError::State { file: file.to_owned(), source },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::path::Path;

    use clusterkit_core::id::{StoreId, TopologyVersion};
    use clusterkit_storage::disk::SimDisk;

    use super::super::files::RaftFiles;
    use super::super::log_worker::{IoMode, LogWorker};
    use super::*;
    use crate::net::SystemClock;

    fn open(disk: &SimDisk, snapshot: Option<&[u8]>) -> Result<StateMachine, SnapshotError> {
        let files =
            RaftFiles::open_or_create(Arc::new(disk.clone()), Path::new("/raft"), StoreId(1)).unwrap();
        let worker = LogWorker::new(files.disk, files.dir, files.log);
        let worker = LogWorkerHandle::start(worker, IoMode::task()).unwrap();
        let (views, _) = watch::channel(Arc::new(View::default()));
        StateMachine::open(worker, snapshot, views, Arc::new(EventLog::new(Arc::new(SystemClock))))
    }

    /// A state that no history leads to: a version, and no cluster that could have had one.
    fn bytes_of_an_impossible_state() -> Bytes {
        let mut state = ControlState::default();
        state.topology.version = TopologyVersion(7);
        let record = SnapshotRecord { last_applied: None, membership: StoredMembership::default(), state };
        Bytes::from(versioned::encode(SNAPSHOT_VERSION, &record))
    }

    #[tokio::test]
    async fn a_node_does_not_start_from_a_snapshot_that_is_no_state() {
        let error = open(&SimDisk::new(), Some(&bytes_of_an_impossible_state())).err().unwrap();
        assert!(matches!(error, SnapshotError::State(InvalidState::NotFormed)), "{error:?}");
        assert!(error.source().is_some());
    }

    #[tokio::test]
    async fn a_snapshot_that_is_no_state_is_not_installed() {
        let disk = SimDisk::new();
        let mut machine = open(&disk, None).unwrap();
        let bytes = bytes_of_an_impossible_state();
        let error = machine.install_snapshot(&SnapshotMeta::default(), bytes).await.unwrap_err();
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<SnapshotError>());
        assert!(matches!(inner, Some(SnapshotError::State(InvalidState::NotFormed))), "{error:?}");
        assert_eq!(machine.state, ControlState::default());
        assert_eq!(machine.worker.read_snapshot().await.unwrap(), None, "nothing was written");
    }
}
