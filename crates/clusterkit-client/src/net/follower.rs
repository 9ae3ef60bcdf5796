//! Keeps the topology current.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::IF_NONE_MATCH;
use hyper::{Request, StatusCode};
use tokio::time::{Instant, sleep, timeout};

use super::cache::Cache;
use super::chance::Chance;
use super::http::{Http, SendError};
use super::nodes::Nodes;
use super::reply::problem;
use crate::error::{Cause, Error, ProtocolFault, Reasons};
use crate::limits::{
    BACKOFF_FIRST, BACKOFF_MAX, TOPOLOGY_GRACE, TOPOLOGY_INTERVAL_MIN, TOPOLOGY_TIMEOUT, TOPOLOGY_WAIT,
};
use crate::plan::{InvalidTopology, Routes, share};

pub(super) struct Follower {
    cache: Arc<Cache>,
    http: Http,
    nodes: Arc<Nodes>,
    chance: Arc<Chance>,
    started: Instant,
    /// Who answered last.
    addr: Option<String>,
    failures: u32,
}

/// Why a node brought no topology.
enum PollError {
    Answer(Box<dyn std::error::Error + Send + Sync>),
    Send(Cause),
}

impl Follower {
    pub(super) fn new(
        cache: Arc<Cache>,
        http: Http,
        nodes: Arc<Nodes>,
        chance: Arc<Chance>,
        started: Instant,
    ) -> Self {
        Self { cache, http, nodes, chance, started, addr: None, failures: 0 }
    }

    /// Asks the seeds, one after the other, until one has a topology.
    pub(super) async fn first(&mut self, deadline: Duration) -> Result<(), Error> {
        let seeds = self.cache.addrs();
        let mut reasons = Reasons::new(format!("{:016x}", self.chance.draw()));
        loop {
            let mut foreign = None;
            for seed in &seeds {
                match self.poll(seed, None).await {
                    Ok(()) => {
                        self.addr = Some(seed.clone());
                        return Ok(());
                    }
                    Err(PollError::Answer(source)) => foreign = Some(source),
                    Err(PollError::Send(cause)) => {
                        foreign = None;
                        reasons.push(seed, cause);
                    }
                }
            }
            if let Some(source) = foreign {
                let (fault, request_id) = (ProtocolFault::Body, reasons.request_id().to_owned());
                return Err(Error::Protocol { fault, request_id, source: Some(source.into()) });
            }
            self.failures += 1;
            let pause = self.pause();
            if self.started.elapsed() + pause >= deadline {
                return Err(Error::Unavailable { reasons: Box::new(reasons) });
            }
            sleep(pause).await;
        }
    }

    /// Follows the topology for ever.
    pub(super) async fn run(mut self) {
        loop {
            let cache = self.cache.clone();
            tokio::select! {
                () = self.follow(Some(TOPOLOGY_WAIT)) => {}
                () = cache.wanted() => self.hasten().await,
            }
            sleep(self.pause()).await;
        }
    }

    /// Asks two nodes at once, since one of them may be why a newer topology is wanted.
    async fn hasten(&mut self) {
        let one = self.any();
        let others: Vec<_> = self.cache.addrs().into_iter().filter(|addr| *addr != one).collect();
        let at = self.chance.draw() % (others.len() as u64).max(1);
        let other = others.get(at as usize).cloned().unwrap_or_else(|| one.clone());
        self.addr = tokio::select! {
            Ok(()) = self.poll(&one, None) => Some(one.clone()),
            Ok(()) = self.poll(&other, None) => Some(other.clone()),
            else => None,
        };
        self.failures = if self.addr.is_some() { 0 } else { self.failures + 1 };
    }

    async fn follow(&mut self, wait: Option<Duration>) {
        let addr = self.addr.take().unwrap_or_else(|| self.any());
        match self.poll(&addr, wait).await {
            Ok(()) => {
                self.failures = 0;
                self.addr = Some(addr);
            }
            Err(_) => self.failures += 1,
        }
    }

    fn any(&self) -> String {
        let addrs = self.cache.addrs();
        let admitted: Vec<_> = addrs.iter().filter(|addr| self.nodes.admits(addr)).collect();
        let from = if admitted.is_empty() { addrs.iter().collect() } else { admitted };
        let at = self.chance.draw() % from.len() as u64;
        from[at as usize].clone()
    }

    /// How long nobody is asked now: longer after each failure, and never at the same time as other clients.
    fn pause(&self) -> Duration {
        let backoff = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX);
        let bound = if self.failures == 0 { TOPOLOGY_INTERVAL_MIN } else { backoff };
        TOPOLOGY_INTERVAL_MIN + share(bound, self.chance.draw())
    }

    async fn poll(&self, addr: &str, wait: Option<Duration>) -> Result<(), PollError> {
        let version = self.cache.routes().version;
        let path = match wait {
            Some(wait) => format!("/v1/topology?wait={}s", wait.as_secs()),
            None => "/v1/topology".to_owned(),
        };
        let request = Request::get(path).header(IF_NONE_MATCH, format!("\"{version}\"")).body(Bytes::new());
        let request = request.expect("a path and a number make a request");
        let patience = wait.map_or(TOPOLOGY_TIMEOUT, |wait| wait + TOPOLOGY_GRACE);
        let sent = timeout(patience, self.http.send(addr, request)).await;
        let answer = sent.map_err(|_| PollError::Send(Cause::TimedOut))?.map_err(PollError::from)?;
        match answer.status() {
            StatusCode::NOT_MODIFIED => Ok(()),
            StatusCode::OK => self.adopt(answer.body()),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(PollError::Send(Cause::Answered(Box::new(problem(&answer, "")))))
            }
            status => Err(PollError::Answer(format!("{addr} answers with status {status}").into())),
        }
    }

    fn adopt(&self, body: &Bytes) -> Result<(), PollError> {
        match Routes::read(body) {
            Ok(routes) => {
                self.cache.adopt(routes);
                self.nodes.keep(&self.cache.addrs());
                Ok(())
            }
            Err(InvalidTopology::NotFormed) => Err(PollError::Send(Cause::NotFormed)),
            Err(error) => Err(PollError::Answer(error.into())),
        }
    }
}

impl From<SendError> for PollError {
    fn from(error: SendError) -> Self {
        Self::Send(error.into())
    }
}
