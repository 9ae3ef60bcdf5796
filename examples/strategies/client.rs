//! The clients of the three modes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::http::{Http, Reply, escape};
use common::limits::RETRY_PAUSE;
use common::store::{Entry, ValueVersion};
use common::view::Views;
use hyper::StatusCode;
use tokio::time::{Instant, sleep};

use crate::node::{Mode, SetAnswer, SetBody};
use crate::quorum::QuorumClient;

/// How long a client goes on with one operation before it gives up.
pub(crate) const OP_PATIENCE: Duration = Duration::from_secs(30);

/// A client, as it is written for its mode.
#[derive(Debug)]
pub(crate) struct Client {
    mode: Mode,
    http: Http,
    views: Arc<Views>,
    quorum: QuorumClient,
    /// Spreads requests over nodes where any will do.
    turn: AtomicUsize,
}

impl Client {
    pub(crate) async fn new(mode: Mode, addrs: Vec<String>) -> Self {
        let http = Http::new();
        let views = Arc::new(Views::new(http.clone(), addrs));
        views.refresh().await;
        let quorum = QuorumClient::new(http.clone(), Arc::clone(&views), 1);
        Self { mode, http, views, quorum, turn: AtomicUsize::new(0) }
    }

    /// Sets a key, and says under which version it was acknowledged; `None` when it was not.
    pub(crate) async fn set(&self, key: &str, value: String) -> Option<ValueVersion> {
        if self.mode == Mode::Sync {
            return self.quorum.set(key, value).await;
        }
        let body = SetBody { key: key.to_owned(), value };
        let deadline = Instant::now() + OP_PATIENCE;
        while Instant::now() < deadline {
            if let Some(addr) = self.writer_of(key)
                && let Ok(reply) = self.http.post(&addr, "/kv/set", &body).await
                && let Ok(answer) = reply.success::<SetAnswer>()
            {
                return Some(answer.version);
            }
            self.views.refresh().await;
            sleep(RETRY_PAUSE).await;
        }
        None
    }

    /// What a key has, as the mode reads it; `None` when nobody says.
    pub(crate) async fn get(&self, key: &str) -> Option<Option<Entry>> {
        if self.mode == Mode::Sync {
            return self.quorum.get(key).await;
        }
        let path = format!("/kv/get?key={}", escape(key));
        let deadline = Instant::now() + OP_PATIENCE;
        while Instant::now() < deadline {
            if let Some(addr) = self.reader_of(key)
                && let Ok(reply) = self.http.get(&addr, &path).await
                && let Some(found) = found(&reply)
            {
                return Some(found);
            }
            self.views.refresh().await;
            sleep(RETRY_PAUSE).await;
        }
        None
    }

    /// What a majority of the copies says, in every mode; `None` when there is none.
    pub(crate) async fn count(&self, key: &str) -> Option<Option<Entry>> {
        self.quorum.get(key).await
    }

    /// Learns the newest topology, so that what follows is read by it.
    pub(crate) async fn refresh(&self) {
        self.views.refresh().await;
    }

    /// Who takes a write: the leader, or anybody.
    fn writer_of(&self, key: &str) -> Option<String> {
        if self.mode == Mode::ServerSide {
            return self.anybody();
        }
        let view = self.views.current();
        let leader = view.partition_of(key)?.leader.as_ref()?;
        view.addr(leader).map(ToOwned::to_owned)
    }

    /// Who answers a read: whoever holds a copy, or anybody.
    fn reader_of(&self, key: &str) -> Option<String> {
        if self.mode == Mode::ServerSide {
            return self.anybody();
        }
        let view = self.views.current();
        let in_sync = &view.partition_of(key)?.in_sync;
        view.addr(in_sync.get(self.turn() % in_sync.len().max(1))?).map(ToOwned::to_owned)
    }

    fn anybody(&self) -> Option<String> {
        let view = self.views.current();
        let alive: Vec<_> = view.nodes.iter().filter(|node| node.status == "alive").collect();
        alive.get(self.turn() % alive.len().max(1)).map(|node| node.public_addr.clone())
    }

    fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

fn found(reply: &Reply) -> Option<Option<Entry>> {
    if reply.status == StatusCode::NOT_FOUND { Some(None) } else { reply.success().ok().map(Some) }
}
