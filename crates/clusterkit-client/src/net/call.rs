//! Carries one call to its end.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::id::PartitionId;
use hyper::header::{HeaderName, IF_NONE_MATCH, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Shared;
use super::course::Course;
use super::desk::{Desk, Held};
use super::http::SendError;
use super::reply::{Marks, Reply, Verdict, judge};
use crate::error::{Cause, Error, ProtocolFault};
use crate::limits::{ATTEMPT_TIMEOUT, DOUBT_AFTER, NODE_TIMEOUT_MAX};
use crate::options::Read;
use crate::plan::{Choice, Ending, SessionId, Step, Ticket, choose};
use crate::wire::{self, SessionOpened};

/// What is to be asked, whatever node is.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// With its query.
    pub(crate) path: String,
    pub(crate) body: Bytes,
    pub(crate) headers: Vec<(HeaderName, String)>,
    pub(crate) kind: Kind,
    pub(crate) target: Target,
    pub(crate) deadline: Duration,
}

/// What repeating a call means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Opens a session. One too many harms nothing.
    Open,
    /// Changes nothing.
    Read(Read),
    /// Changes something, bit by bit, and may do so repeatedly.
    Sweep,
    /// Changes something, without a number: it is not sent again once it may have arrived.
    Unnumbered,
    /// Changes something once, under a number.
    Write,
}

/// Which node a call is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// Any.
    Any,
    /// Those that have the partition of this key.
    Key(Bytes),
    /// This address first, then any.
    Node(String),
}

impl Target {
    pub(crate) fn key(key: &[u8]) -> Self {
        Self::Key(Bytes::copy_from_slice(key))
    }
}

impl Call {
    fn needs_leader(&self) -> bool {
        !matches!(self.kind, Kind::Sweep | Kind::Read(Read::After(_) | Read::Any | Read::Session))
    }

    fn is_write(&self) -> bool {
        matches!(self.kind, Kind::Sweep | Kind::Unnumbered | Kind::Write)
    }

    /// How long one node has for an answer. One that goes through all partitions has as long as there is.
    fn patience(&self, deadline: Instant) -> Duration {
        let rest = deadline.saturating_duration_since(Instant::now());
        if self.target == Target::Any { rest } else { rest.min(ATTEMPT_TIMEOUT) }
    }

    fn is_to_be_missing(&self) -> bool {
        self.headers.iter().any(|(name, _)| *name == IF_NONE_MATCH)
    }
}

/// How an exchange with a node ended.
enum Exchanged {
    Answered(Response<Bytes>),
    Failed(SendError),
    Moved,
    TimedOut,
}

impl Shared {
    /// Carries out `call` within its deadline.
    pub(crate) async fn run(&self, call: &Call) -> Result<Reply, Error> {
        let deadline = Instant::now() + call.deadline;
        let partition = match &call.target {
            Target::Key(key) => self.cache.routes().partition_of(key),
            Target::Any | Target::Node(_) => None,
        };
        let is_repeatable = match call.kind {
            Kind::Open | Kind::Read(_) | Kind::Sweep => true,
            Kind::Unnumbered => false,
            Kind::Write => partition.is_some(),
        };
        let mut course = Course::new(format!("{:016x}", self.chance.draw()), is_repeatable);
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).earn();
        let pursued = timeout_at(deadline, self.pursue(call, partition, deadline, &mut course)).await;
        match pursued {
            Ok(Some(ended)) => ended,
            Ok(None) | Err(_) => Err(course.end(call.is_write())),
        }
    }

    /// None if the call is given up.
    async fn pursue(
        &self,
        call: &Call,
        partition: Option<PartitionId>,
        deadline: Instant,
        course: &mut Course,
    ) -> Option<Result<Reply, Error>> {
        let mut held = None;
        loop {
            if let (Kind::Write, Some(partition), None) = (&call.kind, partition, &held) {
                match self.claim(call, partition, deadline).await {
                    Ok(claimed) => held = Some(claimed),
                    Err(error) => return Some(Err(error)),
                }
            }
            let ticket = held.as_ref().map(|held| held.ticket);
            let ending = match self.attempt(call, (partition, ticket), deadline, course).await {
                Ok(ended) => return Some(ended),
                Err(ending) => ending,
            };
            if let (Ending::SessionOver, Some(held)) = (ending, &held) {
                held.end_session();
            }
            match course.pursuit.next(ending, self.chance.draw()) {
                Step::GiveUp => return None,
                Step::Later(wait) => self.pause(wait, deadline).await?,
                Step::Now => {}
                Step::Renew(wait) => {
                    held.take()?;
                    if let Some(wait) = wait {
                        self.pause(wait, deadline).await?;
                    }
                }
            }
        }
    }

    /// Waits, for longer if there are too many retries. None if the deadline comes before.
    async fn pause(&self, wait: Duration, deadline: Instant) -> Option<()> {
        let (now, patience) = (self.started.elapsed(), deadline.saturating_duration_since(Instant::now()));
        let delay = self.budget.lock().unwrap_or_else(PoisonError::into_inner).take(now, patience)?;
        let wait = wait.max(delay);
        if wait >= patience {
            return None;
        }
        sleep(wait).await;
        Some(())
    }

    /// One request to one node: its answer if that ends the call, else how it ended.
    async fn attempt(
        &self,
        call: &Call,
        (partition, ticket): (Option<PartitionId>, Option<Ticket>),
        deadline: Instant,
        course: &mut Course,
    ) -> Result<Result<Reply, Error>, Ending> {
        let Some(mut choice) = self.choose(call, partition, course) else {
            course.note("", Cause::NoNode);
            self.cache.want_newer();
            return Err(Ending::NotDone { retry_after: None });
        };
        choice.is_direct &= course.pursuit.wants_redirects();
        // If the time is up before there is room, this client has too much under way.
        course.overload = Some(None);
        let place = self.nodes.place(&choice.addr).await;
        course.overload = None;
        let patience = call.patience(deadline);
        let path = self.path(call, partition, patience);
        let request = request(call, path, ticket, choice.is_direct, course.reasons.request_id());
        let request = match request {
            Ok(request) => request,
            Err(error) => return Ok(Err(error)),
        };
        self.nodes.sent(&choice.addr);
        course.is_under_way = true;
        let watched = partition.filter(|_| choice.is_direct && course.pursuit.is_repeatable());
        let exchanged = self.exchange(&choice.addr, request, watched, patience).await;
        drop(place);
        match exchanged {
            Exchanged::Answered(answer) => self.answered(call, partition, &choice.addr, answer, course),
            failed => Err(self.failed(&choice.addr, failed, course)),
        }
    }

    fn choose(&self, call: &Call, partition: Option<PartitionId>, course: &mut Course) -> Option<Choice> {
        let mut candidates = self.cache.candidates(partition, call.needs_leader());
        if let Target::Node(addr) = &call.target {
            candidates.holders.push(addr.clone());
        }
        candidates.leader = course.leader.take().or(candidates.leader);
        choose(&candidates, &course.failed, |addr| self.nodes.admits(addr), self.chance.draw())
    }

    async fn exchange(
        &self,
        addr: &str,
        request: Request<Bytes>,
        watched: Option<PartitionId>,
        patience: Duration,
    ) -> Exchanged {
        tokio::select! {
            biased;
            answer = self.http.send(addr, request) => answer.map_or_else(Exchanged::Failed, Exchanged::Answered),
            () = self.superseded(addr, watched) => Exchanged::Moved,
            () = sleep(patience) => Exchanged::TimedOut,
        }
    }

    /// Waits until another node leads than the one at `addr`, asking for the topology anew from time to time. For ever,
    /// if no partition is watched.
    async fn superseded(&self, addr: &str, watched: Option<PartitionId>) {
        let Some(partition) = watched else { return std::future::pending().await };
        let mut routes = self.cache.watch();
        loop {
            let is_over = self.cache.leader(partition).is_some_and(|leader| leader != addr);
            if is_over {
                return;
            }
            match timeout(DOUBT_AFTER, routes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return std::future::pending().await,
                Err(_) => self.cache.want_newer(),
            }
        }
    }

    fn answered(
        &self,
        call: &Call,
        partition: Option<PartitionId>,
        addr: &str,
        answer: Response<Bytes>,
        course: &mut Course,
    ) -> Result<Result<Reply, Error>, Ending> {
        self.nodes.answered(addr);
        let marks = Marks::of(&answer);
        let partition = marks.partition.or(partition);
        self.cache.saw(partition, marks.epoch, marks.version);
        let is_overload = answer.status() == StatusCode::TOO_MANY_REQUESTS;
        match judge(answer, call.is_to_be_missing(), course.reasons.request_id()) {
            Verdict::Again(ending, problem) => {
                course.note(addr, Cause::Answered(problem));
                course.overload = is_overload.then_some(match ending {
                    Ending::NotDone { retry_after } => retry_after,
                    _ => None,
                });
                let ending = self.redirected(ending, partition, marks, addr, course);
                // What goes bit by bit may have done some of them.
                let is_partial = call.kind == Kind::Sweep && matches!(ending, Ending::NotDone { .. });
                Err(if is_partial { Ending::Unknown } else { ending })
            }
            Verdict::Final(ended) => {
                self.note_place(partition, marks.index);
                Ok(ended)
            }
        }
    }

    /// Notes the leader that an answer names: for this call, and for others as well if it can be told that it is
    /// news.
    fn redirected(
        &self,
        ending: Ending,
        partition: Option<PartitionId>,
        marks: Marks,
        addr: &str,
        course: &mut Course,
    ) -> Ending {
        if !matches!(ending, Ending::Misdirected { .. }) {
            return ending;
        }
        self.cache.want_newer();
        course.pass_over(addr);
        course.leader = marks.leader.filter(|leader| leader != addr);
        if let (Some(partition), Some(leader), Some(epoch)) = (partition, &course.leader, marks.leader_epoch)
        {
            self.cache.learn(partition, epoch, leader);
        }
        Ending::Misdirected { is_leader_named: course.leader.is_some() }
    }

    fn failed(&self, addr: &str, exchanged: Exchanged, course: &mut Course) -> Ending {
        course.overload = None;
        let (cause, ending) = match exchanged {
            Exchanged::Failed(error @ SendError::Unreachable(_)) => {
                (error.into(), Ending::NotDone { retry_after: None })
            }
            Exchanged::Failed(error) => (error.into(), Ending::Unknown),
            Exchanged::Moved => (Cause::Moved, Ending::Replaced),
            Exchanged::TimedOut | Exchanged::Answered(_) => (Cause::TimedOut, Ending::Unknown),
        };
        if !matches!(cause, Cause::Moved) {
            self.nodes.failed(addr);
        }
        self.cache.want_newer();
        course.note(addr, cause);
        course.pass_over(addr);
        ending
    }

    fn note_place(&self, partition: Option<PartitionId>, index: Option<u64>) {
        if let Some((partition, index)) = partition.zip(index) {
            self.token.lock().unwrap_or_else(PoisonError::into_inner).note(partition, index);
        }
    }

    /// The path of `call` with what is for this attempt alone: how much may be missed, and how long the node has.
    fn path(&self, call: &Call, partition: Option<PartitionId>, patience: Duration) -> String {
        if call.kind == Kind::Open {
            return call.path.clone();
        }
        let query = match &call.kind {
            Kind::Read(read) if call.method != Method::POST => self.read_query(read, partition),
            _ => wire::Query::new(),
        };
        // The node gives up a little before this client does, so that its answer can tell why.
        let timeout = (patience - patience / 8).clamp(Duration::from_millis(1), NODE_TIMEOUT_MAX);
        query.number("timeout", format_args!("{}ms", timeout.as_millis())).extend(call.path.clone())
    }

    /// What may be missed, as the routes have it. Only of one partition can a place in its log be named; a read of more
    /// misses nothing at all instead.
    fn read_query(&self, read: &Read, partition: Option<PartitionId>) -> wire::Query {
        let query = wire::Query::new();
        let index =
            |token: &crate::Token| partition.map(|partition| token.index(partition).unwrap_or_default());
        let session = |index: Option<u64>| match index {
            Some(index) => query.clone().text("read", Some("session")).number("min_index", index),
            None => query.clone(),
        };
        match read {
            Read::After(token) => session(index(token)),
            Read::Any => query.text("read", Some("any")),
            Read::Leader => query.text("read", Some("leader")),
            Read::Linearizable => query,
            Read::Session => session(index(&self.token())),
        }
    }

    async fn claim(&self, call: &Call, partition: PartitionId, deadline: Instant) -> Result<Held, Error> {
        let desk = {
            let mut desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(desks.entry(partition).or_insert_with(|| Arc::new(Desk::default())))
        };
        desk.claim(|| self.open_session(call, deadline)).await
    }

    async fn open_session(&self, call: &Call, deadline: Instant) -> Result<SessionId, Error> {
        let key: &[u8] = if let Target::Key(key) = &call.target { key } else { b"" };
        let path = wire::Query::new().bytes("key", key).after("/v1/kv/sessions".to_owned());
        let rest = deadline.saturating_duration_since(Instant::now());
        let open = Call {
            method: Method::POST,
            path,
            body: Bytes::new(),
            headers: Vec::new(),
            kind: Kind::Open,
            target: call.target.clone(),
            // It ends a little before the write does, so that its error can tell why.
            deadline: rest - rest / 16,
        };
        let reply = Box::pin(self.run(&open)).await?.done()?;
        let opened: SessionOpened = reply.json()?;
        opened.session.parse().map_err(|_| Error::protocol(ProtocolFault::Body, reply.request_id()))
    }
}

fn request(
    call: &Call,
    path: String,
    ticket: Option<Ticket>,
    is_direct: bool,
    request_id: &str,
) -> Result<Request<Bytes>, Error> {
    let mut request = Request::builder().method(&call.method).uri(path).header("x-request-id", request_id);
    request = request.header(USER_AGENT, PRODUCT);
    if is_direct {
        request = request.header("ck-route", "direct");
    }
    if let Some(ticket) = ticket {
        request = request.header("ck-request", ticket.to_string());
    }
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    let wrong = |_| Error::invalid("the key makes no path of a request");
    request.body(call.body.clone()).map_err(wrong)
}

const PRODUCT: &str = concat!("clusterkit-client/", env!("CARGO_PKG_VERSION"));
