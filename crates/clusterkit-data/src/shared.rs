//! What the tasks of a node's data share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use clusterkit::ClusterKit;
use clusterkit::net::Clock;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::Input;
use crate::events::EventHub;
use crate::gateway::Gateway;
use crate::snapshots::Incoming;
use crate::storage::{LogQueue, Running, Snapshots, StateQueue, StorageError, StorageEvent};

/// See the [module](self).
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    /// Once the node has opened it, which is before it listens.
    pub(crate) storage: OnceLock<Storage>,
    pub(crate) storage_events: Arc<StorageInbox>,
    pub(crate) inbox: mpsc::Sender<Input>,
    pub(crate) events: EventHub,
    pub(crate) incoming: Incoming,
    pub(crate) gateway: Gateway,
    /// Requests of clients that may be under way.
    pub(crate) requests: Semaphore,
    /// The node, once it takes part in its cluster.
    pub(crate) node: OnceLock<ClusterKit>,
    pub(crate) running: watch::Sender<bool>,
    pub(crate) tracker: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) failure: watch::Sender<Option<Arc<StorageError>>>,
}

/// The storage of the node.
pub(crate) struct Storage {
    pub(crate) queues: Queues,
    /// Until everything has ended.
    running: Mutex<Option<Running>>,
}

/// What storage is asked by.
#[derive(Clone)]
pub(crate) struct Queues {
    pub(crate) log: LogQueue,
    pub(crate) states: StateQueue,
    pub(crate) snapshots: Snapshots,
}

impl Storage {
    pub(crate) fn new(running: Running) -> Self {
        let (log, states) = (running.log.clone(), running.states.clone());
        let queues = Queues { log, states, snapshots: running.snapshots.clone() };
        Self { queues, running: Mutex::new(Some(running)) }
    }

    /// What is to be dropped for it to end.
    pub(crate) fn end(&self) -> Option<Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Shared {
    /// Where snapshots are read from and go to; nothing before the storage is opened.
    pub(crate) fn snapshots(&self) -> Option<Snapshots> {
        Some(self.storage.get()?.queues.snapshots.clone())
    }

    /// Hands an input to the engine; lost when the engine has ended.
    pub(crate) async fn tell(&self, input: Input) {
        // Nobody needs to be told any more then.
        drop(self.inbox.send(input).await);
    }

    /// Waits until the engine runs; `false` if it never will.
    pub(crate) async fn is_running(&self) -> bool {
        let mut running = self.running.subscribe();
        tokio::select! {
            begun = running.wait_for(|running| *running) => begun.is_ok(),
            () = self.stop.cancelled() => false,
        }
    }

    /// The disk failed: everything ends (rule D3).
    pub(crate) fn fail(&self, error: StorageError) {
        self.failure.send_replace(Some(Arc::new(error)));
        self.stop.cancel();
    }
}

/// What the storage says, until the engine takes it. It is bounded by what the engine asked for.
#[derive(Debug, Default)]
pub(crate) struct StorageInbox {
    events: Mutex<VecDeque<StorageEvent>>,
    is_there: AtomicBool,
    came: Notify,
}

impl StorageInbox {
    pub(crate) fn push(&self, event: StorageEvent) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
        if !self.is_there.swap(true, Ordering::AcqRel) {
            self.came.notify_one();
        }
    }

    /// Waits until there is something.
    pub(crate) async fn ready(&self) {
        while !self.is_there.load(Ordering::Acquire) {
            self.came.notified().await;
        }
    }

    /// Up to `count_max` of what there is.
    pub(crate) fn take(&self, count_max: usize) -> Vec<StorageEvent> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let count = events.len().min(count_max);
        let taken = events.drain(..count).collect();
        self.is_there.store(!events.is_empty(), Ordering::Release);
        taken
    }
}
