//! The Raft log behind openraft's storage trait: entries in memory for reading, on disk for
//! surviving.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use clusterkit_core::id::StoreId;
use clusterkit_wire::versioned;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::config::APPEND_BYTES_MAX;
use super::files::{Recovered, VoteRecord};
use super::log_worker::LogWorkerHandle;
use super::types::{Entry, LogId, TypeConfig, Vote};

/// The version that entries, votes and markers are written under.
const RECORD_VERSION: u8 = 1;

/// A handle on the log. Clones share it.
///
/// Invariants:
/// - `entries` holds what the disk holds or will hold, after `purged`, without a hole; it is bounded
///   by the snapshot policy;
/// - the lock is held for a map access, never over a wait.
#[derive(Debug, Clone)]
pub(crate) struct LogStore {
    store: StoreId,
    worker: LogWorkerHandle,
    cache: Arc<Mutex<Cache>>,
}

#[derive(Debug, Default)]
struct Cache {
    entries: BTreeMap<u64, Stored>,
    purged: Option<LogId>,
    vote: Option<Vote>,
}

/// An entry, and the bytes that it takes on disk and, near enough, in a message.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) entry: Entry,
    pub(super) bytes: usize,
}

impl LogStore {
    /// The log as the files left it.
    pub(super) fn new(worker: LogWorkerHandle, recovered: Recovered) -> Self {
        let Recovered { store, vote, purged, entries, .. } = recovered;
        Self { store, worker, cache: Arc::new(Mutex::new(Cache { entries, purged, vote })) }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // A panic while the lock was held cannot leave the map half changed: each access is one call.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + std::fmt::Debug + Send,
    {
        Ok(self.cache().entries.range(range).map(|(_, stored)| stored.entry.clone()).collect())
    }

    /// As many as fit into one append message: the others go with the next. The first one goes in any
    /// case, or nothing behind it ever would.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let mut bytes = 0;
        let mut fits = |stored: &&Stored| {
            let is_first = bytes == 0;
            bytes += stored.bytes;
            is_first || bytes <= APPEND_BYTES_MAX
        };
        let cache = self.cache();
        let stored = cache.entries.range(start..end).map(|(_, stored)| stored);
        Ok(stored.take_while(|stored| fits(stored)).map(|stored| stored.entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.cache().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let cache = self.cache();
        let last = cache.entries.last_key_value().map(|(_, stored)| stored.entry.log_id);
        Ok(LogState { last_purged_log_id: cache.purged, last_log_id: last.or(cache.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let record = VoteRecord { store: self.store, vote: Some(*vote) };
        self.worker.save_vote(encode(&record)).await?;
        self.cache().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        let Some(first) = entries.first().map(|entry| entry.log_id.index) else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let records: Vec<_> = entries.iter().map(encode).collect();
        let stored = entries.into_iter().zip(&records).map(|(entry, record)| {
            let index = entry.log_id.index;
            (index, Stored { entry, bytes: record.len() })
        });
        self.cache().entries.extend(stored);
        self.worker.append(first, records, callback).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let first_gone = last.map_or(0, |log_id| log_id.index + 1);
        drop(self.cache().entries.split_off(&first_gone));
        self.worker.truncate(last.map(|log_id| log_id.index)).await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        {
            let mut cache = self.cache();
            cache.entries = cache.entries.split_off(&(log_id.index + 1));
            cache.purged = Some(log_id);
        }
        self.worker.purge(log_id.index, encode(&log_id)).await
    }
}

pub(super) fn encode<T: serde::Serialize>(value: &T) -> Bytes {
    Bytes::from(versioned::encode(RECORD_VERSION, value))
}

pub(super) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, versioned::DecodeError> {
    versioned::decode(bytes, RECORD_VERSION..=RECORD_VERSION)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clusterkit_core::control::{Command, LivenessChange};
    use clusterkit_core::id::{Incarnation, NodeId};
    use clusterkit_core::limits::{ENTRY_BYTES_MAX, NODE_ID_BYTES_MAX, NODES_MAX, TEXT_BYTES_MAX};
    use clusterkit_core::topology::Liveness;
    use clusterkit_storage::disk::SimDisk;
    use openraft::{EntryPayload, Membership};
    use std::collections::BTreeSet;

    use super::super::files::RaftFiles;
    use super::super::log_worker::{IoMode, LogWorker};
    use super::super::types::{CommandBatch, RaftNode};
    use super::*;

    /// An entry of at least so many bytes.
    fn entry(index: u64, bytes: usize) -> Entry {
        let node = NodeId::new(&"n".repeat(60)).unwrap();
        let change = LivenessChange { node, incarnation: Incarnation(1), liveness: Liveness::Dead };
        let batch = CommandBatch::new(&[Command::SetLiveness { changes: vec![change; bytes / 60] }]);
        let log_id = LogId::new_term_index(1, index);
        Entry { log_id, payload: EntryPayload::Normal(batch.unwrap()) }
    }

    async fn log_of(sizes: &[usize]) -> LogStore {
        let disk = Arc::new(SimDisk::new());
        let files = RaftFiles::open_or_create(disk, Path::new("/raft"), StoreId(1)).unwrap();
        let worker = LogWorker::new(files.disk, files.dir, files.log);
        let worker = LogWorkerHandle::start(worker, IoMode::task()).unwrap();
        let mut log = LogStore::new(worker, files.recovered);
        let entries: Vec<_> = (0..).zip(sizes).map(|(index, bytes)| entry(index, *bytes)).collect();
        log.append(entries, IOFlushed::noop()).await.unwrap();
        log
    }

    #[tokio::test]
    async fn one_message_has_no_more_entries_than_fit() {
        let (small, half, large) = (100, APPEND_BYTES_MAX / 2 - 100, 2 * APPEND_BYTES_MAX);
        let mut log = log_of(&[small, half, half, small, large, small]).await;
        let mut counts = Vec::new();
        let mut next = 0;
        while next < 6 {
            let entries = log.limited_get_log_entries(next, 6).await.unwrap();
            counts.push(entries.len());
            next += entries.len() as u64;
        }
        assert_eq!(counts, [2, 2, 1, 1], "what is too large for any message goes alone");
        assert_eq!(log.limited_get_log_entries(0, 1).await.unwrap().len(), 1, "no more than was asked for");
        assert_eq!(log.try_get_log_entries(0..6).await.unwrap().len(), 6, "what is applied is not cut");
    }

    /// Members are not proposed as commands are, so nothing else bounds their entry.
    #[test]
    fn the_members_of_the_largest_cluster_fit_into_one_entry() {
        let node = RaftNode { node: "n".repeat(NODE_ID_BYTES_MAX), addr: "a".repeat(TEXT_BYTES_MAX) };
        let stores = (0..=u64::MAX).rev().take(2 * NODES_MAX);
        let members: BTreeMap<_, _> = stores.map(|store| (store, node.clone())).collect();
        let voters: BTreeSet<_> = members.keys().copied().collect();
        let membership = Membership::new(vec![voters.clone(), voters], members).unwrap();
        let log_id = LogId::new_term_index(u64::MAX, u64::MAX);
        let entry = Entry { log_id, payload: EntryPayload::Membership(membership) };
        assert!(encode(&entry).len() < ENTRY_BYTES_MAX, "even twice as many");
    }
}
