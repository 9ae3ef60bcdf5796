//! Writes and reads, several at once, and what became of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::store::ValueVersion;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::client::Client;

/// Operations under way at once.
const WORKERS: usize = 16;
/// How long the slow part of the writes lasts, unless it is cut short.
const SLOW_PART: Duration = Duration::from_secs(15);

/// The writes of a run.
#[derive(Debug)]
pub(crate) struct Load {
    client: Arc<Client>,
    ops: usize,
    next: AtomicUsize,
    ended: watch::Sender<usize>,
    pace: Pace,
}

/// A write that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) key: String,
    pub(crate) version: ValueVersion,
}

impl Load {
    /// Writes, of which those from `slow_from` on are slow until [`hurry`](Self::hurry) is called.
    pub(crate) fn new(client: Arc<Client>, ops: usize, slow_from: usize) -> Arc<Self> {
        let pace = Pace::new(slow_from, ops.saturating_sub(slow_from));
        let (next, ended) = (AtomicUsize::new(0), watch::Sender::new(0));
        Arc::new(Self { client, ops, next, ended, pace })
    }

    /// Begins to write. Gives what was acknowledged, once all is written.
    pub(crate) fn start(self: &Arc<Self>) -> tokio::task::JoinHandle<Vec<Acknowledged>> {
        let mut workers = JoinSet::new();
        for _ in 0..WORKERS {
            workers.spawn(Arc::clone(self).work());
        }
        tokio::spawn(async move { workers.join_all().await.into_iter().flatten().collect() })
    }

    /// Waits until so many writes have ended, acknowledged or not.
    pub(crate) async fn reached(&self, count: usize) {
        // The sender lives as long as `self` does.
        drop(self.ended.subscribe().wait_for(|ended| *ended >= count.min(self.ops)).await);
    }

    /// No more slow writes.
    pub(crate) fn hurry(&self) {
        self.pace.hurried.send_replace(true);
    }

    async fn work(self: Arc<Self>) -> Vec<Acknowledged> {
        let mut acknowledged = Vec::new();
        loop {
            let op = self.next.fetch_add(1, Ordering::Relaxed);
            if op >= self.ops {
                return acknowledged;
            }
            self.pace.admit(op).await;
            let key = key(op, self.ops);
            if let Some(version) = self.client.set(&key, format!("value-{op}")).await {
                acknowledged.push(Acknowledged { key, version });
            }
            self.ended.send_modify(|ended| *ended += 1);
        }
    }
}

/// Every other write has a key of its own: what was written before the kill has to outlast it. The
/// others go to each key twice, half a run apart, so that an older value is found out.
pub(crate) fn key(op: usize, ops: usize) -> String {
    let half = (ops / 2).next_multiple_of(2).max(2);
    let slot = if op.is_multiple_of(2) { op } else { op % half };
    format!("key-{slot}")
}

/// Lets the last writes in one by one, so that they last while copies move.
#[derive(Debug)]
struct Pace {
    slow_from: usize,
    tick: Mutex<Interval>,
    hurried: watch::Sender<bool>,
}

impl Pace {
    fn new(slow_from: usize, slow_count: usize) -> Self {
        let pause = SLOW_PART / u32::try_from(slow_count.max(1)).unwrap_or(u32::MAX);
        let mut tick = interval(pause.max(Duration::from_millis(1)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { slow_from, tick: Mutex::new(tick), hurried: watch::Sender::new(false) }
    }

    async fn admit(&self, op: usize) {
        if op < self.slow_from {
            return;
        }
        let mut hurried = self.hurried.subscribe();
        tokio::select! {
            _ = hurried.wait_for(|hurried| *hurried) => {}
            () = async { self.tick.lock().await.tick().await; } => {}
        }
    }
}

/// Reads every key as often as it was written, several at once. Says how often nobody answered.
pub(crate) async fn read_all(client: &Arc<Client>, ops: usize) -> usize {
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let (client, next) = (Arc::clone(client), Arc::clone(&next));
        workers.spawn(async move {
            let mut unanswered = 0;
            loop {
                let op = next.fetch_add(1, Ordering::Relaxed);
                if op >= ops {
                    return unanswered;
                }
                unanswered += usize::from(client.get(&key(op, ops)).await.is_none());
            }
        });
    }
    workers.join_all().await.into_iter().sum()
}

/// How many of the acknowledged writes a majority of the copies does not have, or only in an older
/// version. What no majority says anything of counts as lost.
pub(crate) async fn count_lost(client: &Client, acknowledged: &[Acknowledged]) -> usize {
    let mut versions: BTreeMap<&str, Vec<ValueVersion>> = BTreeMap::new();
    for write in acknowledged {
        versions.entry(&write.key).or_default().push(write.version);
    }
    let mut lost = 0;
    for (key, versions) in versions {
        let kept = client.count(key).await.flatten().map(|entry| entry.version);
        lost += versions.into_iter().filter(|version| kept < Some(*version)).count();
    }
    lost
}
