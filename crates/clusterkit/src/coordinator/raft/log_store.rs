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
    entries: BTreeMap<u64, Entry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
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
        Ok(self.cache().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.cache().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let cache = self.cache();
        let last = cache.entries.last_key_value().map(|(_, entry)| entry.log_id);
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
        let records = entries.iter().map(encode).collect();
        self.cache().entries.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
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
