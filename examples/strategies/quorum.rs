//! The client of `sync`: it writes all copies by itself, and a majority is enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use common::http::Http;
use common::limits::{RETRY_PAUSE, SEND_TIMEOUT};
use common::quorum;
use common::replica::{Read, Write};
use common::store::{Entry, ValueVersion};
use common::view::{PartitionView, View, Views};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client::OP_PATIENCE;

/// Copies on their way at once: those of writes that a majority has already may be among them.
const SENDS_MAX: usize = 512;

/// A client that keeps the copies in step.
///
/// Two clients that write one key at once are decided by their clocks. Who must build on what it read
/// takes a version above the one that it read.
#[derive(Debug)]
pub(crate) struct QuorumClient {
    http: Http,
    views: Arc<Views>,
    clock: VersionClock,
    sends: Arc<Semaphore>,
}

impl QuorumClient {
    pub(crate) fn new(http: Http, views: Arc<Views>, number: u64) -> Self {
        let clock = VersionClock { number, last: AtomicU64::new(0) };
        Self { http, views, clock, sends: Arc::new(Semaphore::new(SENDS_MAX)) }
    }

    /// Sets a key, and says under which version it counts; `None` when it is not known to.
    ///
    /// A try that did not reach a majority may have left some copies. The next one has the same version,
    /// so it finishes what that one began.
    pub(crate) async fn set(&self, key: &str, value: String) -> Option<ValueVersion> {
        let entry = Entry { version: self.clock.next(), value: Some(value) };
        let deadline = Instant::now() + OP_PATIENCE;
        while Instant::now() < deadline {
            let view = self.views.current();
            if let Some(record) = view.partition_of(key)
                && self.write(&view, record, key, &entry).await
            {
                return Some(entry.version);
            }
            self.views.refresh().await;
            sleep(RETRY_PAUSE).await;
        }
        None
    }

    /// The newest of so many copies that one of them has what any counted write left; `None` when so
    /// many do not answer.
    pub(crate) async fn get(&self, key: &str) -> Option<Option<Entry>> {
        let deadline = Instant::now() + OP_PATIENCE;
        while Instant::now() < deadline {
            let view = self.views.current();
            if let Some(record) = view.partition_of(key)
                && let Some(newest) = self.read(&view, record, key).await
            {
                return Some(newest);
            }
            self.views.refresh().await;
            sleep(RETRY_PAUSE).await;
        }
        None
    }

    /// Writes all copies at once; whether a majority of them took it.
    async fn write(&self, view: &View, record: &PartitionView, key: &str, entry: &Entry) -> bool {
        let write = Write {
            partition: record.id,
            routed: record.routed(),
            key: key.to_owned(),
            entry: entry.clone(),
        };
        let mut sends = JoinSet::new();
        for addr in record.replicas.iter().filter_map(|replica| view.addr(&replica.node)) {
            let place = Arc::clone(&self.sends).acquire_owned().await.expect("nobody closes it");
            let (http, addr, write) = (self.http.clone(), addr.to_owned(), write.clone());
            sends.spawn(async move {
                let taken = http.write_copy(&addr, &write, SEND_TIMEOUT).await.is_ok();
                drop(place);
                taken
            });
        }
        let (needed, mut taken) = (quorum::for_write(record.replicas.len()), 0);
        while let Some(ended) = sends.join_next().await {
            taken += usize::from(matches!(ended, Ok(true)));
            if taken == needed {
                // The others shall have it too, and nobody waits for them.
                sends.detach_all();
                return true;
            }
        }
        false
    }

    async fn read(&self, view: &View, record: &PartitionView, key: &str) -> Option<Option<Entry>> {
        let read = Read { partition: record.id, routed: record.routed(), key: key.to_owned() };
        let addrs = record.in_sync.iter().filter_map(|node| view.addr(node));
        let mut asked: FuturesUnordered<_> =
            addrs.map(|addr| self.http.read_copy(addr, &read, SEND_TIMEOUT)).collect();
        let needed = quorum::for_read(record.replicas.len(), record.in_sync.len());
        let mut copies = Vec::new();
        while let Some(answer) = asked.next().await {
            copies.extend(answer.ok());
            if copies.len() == needed {
                return Some(copies.into_iter().flatten().max_by_key(|entry| entry.version));
            }
        }
        None
    }
}

/// Gives out versions: the time, and never the same or an older one.
#[derive(Debug)]
struct VersionClock {
    /// Which client this is.
    number: u64,
    last: AtomicU64,
}

impl VersionClock {
    fn next(&self) -> ValueVersion {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let later = |last: u64| Some(micros.max(last + 1));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
        let last = last.expect("a later time is always given");
        ValueVersion(micros.max(last + 1), self.number)
    }
}
