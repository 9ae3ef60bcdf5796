//! What carries requests: connections, the clock, chance and the tasks. It decides nothing.

mod cache;
mod call;
mod chance;
mod course;
mod desk;
mod follower;
mod http;
mod nodes;
mod reply;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use clusterkit_core::id::PartitionId;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::error::Error;
use crate::options::Options;
use crate::plan::Budget;
use crate::token::Token;

use cache::Cache;
use chance::Chance;
use desk::Desk;
use follower::Follower;
use http::Http;
use nodes::Nodes;

pub(crate) use call::{Call, Kind, Target};
pub(crate) use reply::{problem_of, refusal};

/// What all clones of a client share. The follower's task has its own parts of it, and ends with it.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) cache: Arc<Cache>,
    http: Http,
    nodes: Arc<Nodes>,
    chance: Arc<Chance>,
    started: Instant,
    budget: Mutex<Budget>,
    token: Mutex<Token>,
    desks: Mutex<BTreeMap<PartitionId, Arc<Desk>>>,
    follower: JoinHandle<()>,
}

impl Shared {
    pub(crate) async fn connect(seeds: Vec<String>, options: Options) -> Result<Arc<Self>, Error> {
        let seeds = http::addresses(&seeds)?;
        let (chance, started) = (Arc::new(Chance::drawn()), Instant::now());
        let nodes = Arc::new(Nodes::new(options.requests_per_node_max, started));
        let http = Http::new(options.requests_per_node_max);
        let cache = Arc::new(Cache::new(seeds));
        let mut follower = Follower::new(cache.clone(), http.clone(), nodes.clone(), chance.clone(), started);
        follower.first(options.deadline).await?;
        Ok(Arc::new(Self {
            options,
            cache,
            http,
            nodes,
            chance,
            started,
            budget: Mutex::new(Budget::new(started.elapsed())),
            token: Mutex::default(),
            desks: Mutex::default(),
            follower: tokio::spawn(follower.run()),
        }))
    }

    pub(crate) fn token(&self) -> Token {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.follower.abort();
    }
}
