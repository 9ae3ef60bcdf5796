//! What happened, in order, for whoever watches.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clusterkit_core::id::TopologyVersion;
use clusterkit_core::topology::{Event, Topology};
use tokio::sync::broadcast;

use crate::net::{Clock, WallTime};

/// Events kept for those who come back, and that a slow watcher may lag behind.
pub const EVENTS_KEPT: usize = 1_024;

/// One event, with its place in the history of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterEvent {
    /// Its place: the same on every node that saw it.
    pub id: EventId,
    /// When this node learned of it.
    pub at: WallTime,
    /// What happened.
    pub event: Event,
}

/// The place of an event: the topology version that brought it, and its number within.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// The version.
    pub version: TopologyVersion,
    /// The number, from 0.
    pub number: u32,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.version, self.number)
    }
}

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        let (version, number) = text.split_once('.').ok_or(InvalidEventId)?;
        let version = version.parse().map(TopologyVersion).map_err(|_| InvalidEventId)?;
        Ok(Self { version, number: number.parse().map_err(|_| InvalidEventId)? })
    }
}

/// The text is no event id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event id is a version and a number, as in 42.0")]
pub struct InvalidEventId;

/// A subscription: events from the moment it was made.
#[derive(Debug)]
pub struct Events {
    backlog: VecDeque<ClusterEvent>,
    receiver: broadcast::Receiver<ClusterEvent>,
}

impl Events {
    /// The next event; `None` once the node has stopped.
    ///
    /// # Errors
    ///
    /// [`EventsLost`] when this watcher was so slow that events were dropped for it. The next call
    /// goes on with the oldest that is kept.
    pub async fn next(&mut self) -> Option<Result<ClusterEvent, EventsLost>> {
        if let Some(event) = self.backlog.pop_front() {
            return Some(Ok(event));
        }
        match self.receiver.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(Err(EventsLost { count })),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// A watcher was too slow. Look at the topology for what is true now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{count} events were lost: this watcher was too slow")]
pub struct EventsLost {
    /// How many.
    pub count: u64,
}

/// The history that one node keeps. Nothing is kept before [`open`](Self::open): what a restarting
/// node replays from its log happened in another run.
#[derive(Debug)]
pub(crate) struct EventLog {
    clock: Arc<dyn Clock>,
    history: Mutex<History>,
}

#[derive(Debug)]
struct History {
    open: bool,
    kept: VecDeque<ClusterEvent>,
    sender: Option<broadcast::Sender<ClusterEvent>>,
}

impl EventLog {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let (sender, _) = broadcast::channel(EVENTS_KEPT);
        let history = History { open: false, kept: VecDeque::new(), sender: Some(sender) };
        Self { clock, history: Mutex::new(history) }
    }

    /// From now on events are kept and passed on.
    pub(crate) fn open(&self) {
        self.history().open = true;
    }

    /// No more events; watchers are told.
    pub(crate) fn close(&self) {
        let mut history = self.history();
        history.open = false;
        history.sender = None;
    }

    /// Notes what happened between two versions.
    pub(crate) fn record(&self, older: &Topology, newer: &Topology) {
        let mut history = self.history();
        if !history.open || older.version == newer.version {
            return;
        }
        let at = self.clock.wall();
        for (number, event) in (0..).zip(newer.events_since(older)) {
            let id = EventId { version: newer.version, number };
            history.push(ClusterEvent { id, at, event });
        }
    }

    /// Events from now on, or after `last` as far back as they are kept.
    pub(crate) fn subscribe(&self, last: Option<EventId>) -> Events {
        let history = self.history();
        let missed = |event: &&ClusterEvent| last.is_some_and(|last| event.id > last);
        let backlog = history.kept.iter().filter(missed).cloned().collect();
        let receiver = match &history.sender {
            Some(sender) => sender.subscribe(),
            None => broadcast::channel(1).1,
        };
        Events { backlog, receiver }
    }

    /// The newest events, oldest first.
    pub(crate) fn recent(&self, count: usize) -> Vec<ClusterEvent> {
        let history = self.history();
        history.kept.iter().skip(history.kept.len().saturating_sub(count)).cloned().collect()
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    fn push(&mut self, event: ClusterEvent) {
        if self.kept.len() == EVENTS_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(event.clone());
        if let Some(sender) = &self.sender {
            // Nobody watches: the history keeps it.
            drop(sender.send(event));
        }
    }
}
