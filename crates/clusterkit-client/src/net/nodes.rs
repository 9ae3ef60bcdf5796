//! What is known of each address: how much is under way there, and whether it can be reached.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::plan::Breaker;

#[derive(Debug)]
pub(super) struct Nodes {
    requests_max: usize,
    started: Instant,
    nodes: Mutex<BTreeMap<String, Node>>,
}

#[derive(Debug)]
struct Node {
    places: Arc<Semaphore>,
    breaker: Breaker,
}

impl Nodes {
    pub(super) fn new(requests_max: usize, started: Instant) -> Self {
        Self { requests_max: requests_max.clamp(1, Semaphore::MAX_PERMITS), started, nodes: Mutex::default() }
    }

    /// Waits until a request may be under way to `addr`.
    pub(super) async fn place(&self, addr: &str) -> OwnedSemaphorePermit {
        let places = self.with(addr, |node| node.places.clone());
        places.acquire_owned().await.expect("places are never closed")
    }

    /// Whether `addr` is to be asked, and not left alone.
    pub(super) fn admits(&self, addr: &str) -> bool {
        let now = self.started.elapsed();
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.get(addr).is_none_or(|node| node.breaker.admits(now))
    }

    pub(super) fn sent(&self, addr: &str) {
        let now = self.started.elapsed();
        self.with(addr, |node| node.breaker.sent(now));
    }

    pub(super) fn answered(&self, addr: &str) {
        self.with(addr, |node| node.breaker.answered());
    }

    pub(super) fn failed(&self, addr: &str) {
        let now = self.started.elapsed();
        self.with(addr, |node| node.breaker.failed(now));
    }

    /// Forgets the addresses that are not among `addrs`, unless something is under way there.
    pub(super) fn keep(&self, addrs: &[String]) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_busy = |node: &Node| node.places.available_permits() < self.requests_max;
        nodes.retain(|addr, node| addrs.contains(addr) || is_busy(node));
    }

    fn with<T>(&self, addr: &str, act: impl FnOnce(&mut Node) -> T) -> T {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let node = nodes.entry(addr.to_owned()).or_insert_with(|| Node {
            places: Arc::new(Semaphore::new(self.requests_max)),
            breaker: Breaker::new(),
        });
        act(node)
    }
}
