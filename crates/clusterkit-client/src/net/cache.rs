//! The topology that requests are routed by.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use clusterkit_core::id::PartitionId;
use tokio::sync::{Notify, watch};

use crate::limits::LEARNED_MAX;
use crate::plan::{Candidates, Routes};

#[derive(Debug)]
pub(crate) struct Cache {
    seeds: Vec<String>,
    routes: watch::Sender<Arc<Routes>>,
    learned: Mutex<BTreeMap<PartitionId, Learned>>,
    wanted: Notify,
}

/// A leader whom an answer named by address, at an epoch that the topology does not have yet.
#[derive(Debug, Clone)]
struct Learned {
    epoch: u64,
    leader: String,
}

impl Cache {
    pub(super) fn new(seeds: Vec<String>) -> Self {
        let routes = watch::Sender::new(Arc::default());
        Self { seeds, routes, learned: Mutex::default(), wanted: Notify::new() }
    }

    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.routes.borrow().clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<Routes>> {
        self.routes.subscribe()
    }

    /// Routes by `routes` from now on, unless what is there is as new.
    pub(super) fn adopt(&self, routes: Routes) {
        let is_newer = |known: &mut Arc<Routes>| {
            let is_newer = routes.supersedes(known);
            if is_newer {
                *known = Arc::new(routes);
            }
            is_newer
        };
        if self.routes.send_if_modified(is_newer) {
            let routes = self.routes();
            let is_news = |partition: &PartitionId, learned: &mut Learned| {
                routes.route(*partition).is_some_and(|route| route.epoch < learned.epoch)
            };
            self.lock_learned().retain(is_news);
        }
    }

    /// Somebody needs a newer topology than this.
    pub(super) fn want_newer(&self) {
        self.wanted.notify_one();
    }

    /// Waits until somebody does.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// An answer came from a partition at `epoch`, under a topology of `version`.
    pub(super) fn saw(&self, partition: Option<PartitionId>, epoch: Option<u64>, version: Option<u64>) {
        let routes = self.routes();
        let known = partition.and_then(|partition| routes.route(partition)).map(|route| route.epoch);
        let is_old = epoch.zip(known).is_some_and(|(epoch, known)| epoch > known)
            || version.is_some_and(|version| version > routes.version);
        if is_old {
            self.want_newer();
        }
    }

    /// An answer named the leader of a partition, by address.
    pub(super) fn learn(&self, partition: PartitionId, epoch: u64, leader: &str) {
        let is_news = self.routes().route(partition).is_some_and(|route| route.epoch < epoch);
        let mut learned = self.lock_learned();
        let is_newest = learned.get(&partition).is_none_or(|known| known.epoch < epoch);
        let has_room = learned.len() < LEARNED_MAX || learned.contains_key(&partition);
        if is_news && is_newest && has_room {
            learned.insert(partition, Learned { epoch, leader: leader.to_owned() });
        }
    }

    /// The address of whoever leads `partition`. None while nobody is known to.
    pub(crate) fn leader(&self, partition: PartitionId) -> Option<String> {
        let learned = self.lock_learned().get(&partition).map(|learned| learned.leader.clone());
        learned.or_else(|| self.routes().leader(partition).map(ToOwned::to_owned))
    }

    /// Who may be asked for something of `partition`, or of any.
    pub(super) fn candidates(&self, partition: Option<PartitionId>, needs_leader: bool) -> Candidates {
        let routes = self.routes();
        let leader = partition.filter(|_| needs_leader).and_then(|partition| self.leader(partition));
        let holders = partition.and_then(|partition| routes.route(partition)).map(|route| &route.holders);
        let holders = holders.into_iter().flatten();
        let holders = holders.filter_map(|node| routes.addr(node)).map(ToOwned::to_owned).collect();
        Candidates { leader, holders, others: self.addrs() }
    }

    /// Every address: those of nodes, and those that the client was given.
    pub(super) fn addrs(&self) -> Vec<String> {
        let routes = self.routes();
        let mut addrs: Vec<_> = routes.addrs().map(ToOwned::to_owned).collect();
        for seed in &self.seeds {
            if !addrs.contains(seed) {
                addrs.push(seed.clone());
            }
        }
        addrs
    }

    fn lock_learned(&self) -> std::sync::MutexGuard<'_, BTreeMap<PartitionId, Learned>> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
