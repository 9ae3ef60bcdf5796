//! Connections that other nodes dialled: their requests come in, the answers go out.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use clusterkit_core::id::{Epoch, StoreId};
use clusterkit_wire::frame::{CallId, Exchange, Frame, kind};
use clusterkit_wire::hello::{Class, Identity};
use clusterkit_wire::limits::FRAME_HEADER_BYTES;
use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::call::permits;
use super::handshake::{Greeted, answer, differ, turn_away};
use super::limits::{ACCEPT_RETRY, BATCH_MAX, BODY_BYTES_MAX, HELLO_TIMEOUT, Limits, SILENCE_MAX};
use super::link::HearError;
use super::stream::{FrameReader, FrameWriter, own_frame};
use super::{Peer, ServiceError, Shared};
use crate::net::{BoxFuture, Connection, Listener};

/// Takes connections until the transport stops.
pub(super) async fn accept(shared: Arc<Shared>, mut listener: Box<dyn Listener>) {
    let stop = shared.stop.clone();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok(connection) => admit(&shared, connection),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                warn!(%error, "could not accept a connection");
                stop.run_until_cancelled(sleep(ACCEPT_RETRY)).await;
            }
        }
    }
}

fn admit(shared: &Arc<Shared>, connection: Connection) {
    match shared.handshakes.begin(connection.peer_host()) {
        Some(pass) => {
            shared.tracker.spawn(serve(shared.clone(), connection, pass));
        }
        None => {
            debug!(peer = connection.peer_addr(), "too many connections that did not yet say hello");
            turn_away(connection, &shared.own());
        }
    }
}

async fn serve(shared: Arc<Shared>, connection: Connection, pass: HandshakePass) {
    let peer_addr = connection.peer_addr().to_owned();
    let answering = timeout(HELLO_TIMEOUT, answer(&shared, connection));
    let answered = shared.stop.run_until_cancelled(answering).await;
    drop(pass);
    match answered {
        Some(Ok(Ok((greeted, seat)))) => converse(shared, greeted, seat).await,
        Some(Ok(Err(error))) => debug!(peer = peer_addr, %error, "a connection was not taken"),
        Some(Err(_)) => debug!(peer = peer_addr, "no hello came in time"),
        None => {}
    }
}

/// Carries out the requests of one connection until it ends.
async fn converse(shared: Arc<Shared>, greeted: Greeted, _seat: OwnedSemaphorePermit) {
    let Greeted { reader, writer, peer, class } = greeted;
    let closed = shared.stop.child_token();
    let (queue, answers) = mpsc::channel(shared.limits.in_flight_max);
    shared.tracker.spawn(write_answers(shared.clone(), writer, answers, closed.clone()));
    let answers = Answers { queue, room: Arc::new(Semaphore::new(BODY_BYTES_MAX)), class };
    let in_flight = Arc::new(Semaphore::new(shared.limits.in_flight_max));
    let bodies = Arc::new(Semaphore::new(BODY_BYTES_MAX));
    let mut ear = Ear { shared: shared.clone(), reader, peer: peer.clone(), in_flight, bodies, answers };
    let hearing = Hearing::begin(&shared, peer.store);
    let heard = closed.run_until_cancelled(ear.hear()).await;
    closed.cancel();
    // Whoever is told of the loss must not find the connection still there.
    drop(hearing);
    match heard {
        Some(Ok(Bye)) => {}
        Some(Err(error)) => {
            debug!(node = %peer.node, %error, "a connection from a node ended");
            shared.report_loss(&peer.node, &peer.node_addr);
        }
        None => shared.report_loss(&peer.node, &peer.node_addr),
    }
}

/// One connection on which a store's process can speak, until it is dropped.
struct Hearing {
    shared: Arc<Shared>,
    store: StoreId,
}

impl Hearing {
    fn begin(shared: &Arc<Shared>, store: StoreId) -> Self {
        shared.heard().entry(store).and_modify(|count| *count += 1).or_insert(1);
        Self { shared: shared.clone(), store }
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        let mut heard = self.shared.heard();
        if let Some(count) = heard.get_mut(&self.store) {
            *count -= 1;
            if *count == 0 {
                heard.remove(&self.store);
            }
        }
    }
}

/// The other node no longer needs the connection.
struct Bye;

/// The reading side: it hands requests to the service.
struct Ear {
    shared: Arc<Shared>,
    reader: FrameReader,
    peer: Arc<Identity>,
    /// One for each request that is being carried out.
    in_flight: Arc<Semaphore>,
    /// The bytes of their bodies.
    bodies: Arc<Semaphore>,
    answers: Answers,
}

impl Ear {
    async fn hear(&mut self) -> Result<Bye, HearError> {
        loop {
            let frame = self.reader.next(SILENCE_MAX).await?;
            if differ(frame.cluster, self.shared.cluster()) {
                return Err(HearError::OtherCluster);
            }
            match (frame.kind, frame.exchange) {
                (kind::PING, Exchange::OneWay) => {}
                (kind::BYE, Exchange::OneWay) => return Ok(Bye),
                (..kind::TRANSPORT_FIRST, Exchange::Request | Exchange::OneWay) => self.begin(frame).await,
                (kind, _) => return Err(HearError::Unexpected { kind }),
            }
        }
    }

    /// Hands a request to the service, once there is room. While there is none nothing is read: the
    /// other node waits, and only that one.
    async fn begin(&mut self, frame: Frame) {
        let in_flight = self.in_flight.clone().acquire_owned().await;
        let room = self.bodies.clone().acquire_many_owned(permits(&frame.body)).await;
        let (Ok(in_flight), Ok(room)) = (in_flight, room) else {
            return;
        };
        let errand = Errand {
            kind: frame.kind,
            call: (frame.exchange == Exchange::Request).then_some(frame.call),
            answers: self.answers.clone(),
            shared: self.shared.clone(),
            in_flight,
            room,
        };
        let peer = Peer { identity: self.peer.clone(), cluster: frame.cluster, class: self.answers.class };
        let service = &self.shared.service;
        let begun = catch_unwind(AssertUnwindSafe(|| service.call(peer, frame.kind, frame.body)));
        let stop = self.shared.stop.clone();
        self.shared.tracker.spawn(stop.run_until_cancelled_owned(errand.finish(begun)));
    }
}

type Outcome = Result<Bytes, ServiceError>;
type Panic = Box<dyn Any + Send>;

/// One request that is being carried out.
struct Errand {
    kind: u8,
    /// What to answer to; `None` for what was only told.
    call: Option<CallId>,
    answers: Answers,
    shared: Arc<Shared>,
    in_flight: OwnedSemaphorePermit,
    room: OwnedSemaphorePermit,
}

impl Errand {
    async fn finish(self, begun: Result<BoxFuture<'static, Outcome>, Panic>) {
        let finished = match begun {
            Ok(future) => AssertUnwindSafe(future).catch_unwind().await,
            Err(panic) => Err(panic),
        };
        let outcome = finished.unwrap_or_else(|_| {
            error!(kind = self.kind, "the service panicked");
            Err(ServiceError::from_transport(ServiceError::PANICKED))
        });
        drop(self.room);
        if let Some(call) = self.call {
            let cluster = self.shared.cluster();
            let (exchange, body) = self.answers.fit(outcome);
            let epoch = Epoch::default();
            self.answers.send(Frame { kind: self.kind, exchange, call, cluster, epoch, body }).await;
        }
        drop(self.in_flight);
    }
}

/// An answer, and the bytes it takes in its queue.
type QueuedAnswer = (Frame, OwnedSemaphorePermit);

/// The way of answers to their connection.
#[derive(Clone)]
struct Answers {
    queue: mpsc::Sender<QueuedAnswer>,
    /// The bytes of answers that may wait to be written.
    room: Arc<Semaphore>,
    class: Class,
}

impl Answers {
    /// The body of an answer, or of the error that takes its place when it fits no frame.
    fn fit(&self, outcome: Outcome) -> (Exchange, Bytes) {
        let body_bytes_max = self.class.frame_bytes_max() - FRAME_HEADER_BYTES;
        let (exchange, body) = encode(outcome);
        if body.len() <= body_bytes_max {
            return (exchange, body);
        }
        encode(Err(ServiceError::from_transport(ServiceError::ANSWER_TOO_LARGE)))
    }

    async fn send(&self, frame: Frame) {
        if let Ok(room) = self.room.clone().acquire_many_owned(permits(&frame.body)).await {
            // The connection may have ended.
            let _ = self.queue.send((frame, room)).await;
        }
    }
}

fn encode(outcome: Outcome) -> (Exchange, Bytes) {
    match outcome {
        Ok(body) => (Exchange::Response, body),
        Err(ServiceError { code, body }) => {
            let mut bytes = BytesMut::with_capacity(1 + body.len());
            bytes.put_u8(code);
            bytes.put_slice(&body);
            (Exchange::ErrorResponse, bytes.freeze())
        }
    }
}

/// The writing side: answers, or signs of life.
async fn write_answers(
    shared: Arc<Shared>,
    writer: FrameWriter,
    answers: mpsc::Receiver<QueuedAnswer>,
    closed: CancellationToken,
) {
    if let Some(Err(error)) = closed.run_until_cancelled(speak(&shared, writer, answers)).await {
        debug!(%error, "could not write answers to a node");
    }
    closed.cancel();
}

async fn speak(
    shared: &Shared,
    mut writer: FrameWriter,
    mut answers: mpsc::Receiver<QueuedAnswer>,
) -> io::Result<()> {
    loop {
        let ping_due = writer.ping_due();
        let step = tokio::select! {
            biased;
            answer = answers.recv() => answer.map_or(Step::NoMoreAnswers, Step::Answer),
            () = sleep_until(ping_due) => Step::Ping,
        };
        match step {
            Step::Answer((frame, room)) => {
                writer.write(&frame).await?;
                drop(room);
                speak_waiting(&mut writer, &mut answers).await?;
            }
            Step::NoMoreAnswers => return Ok(()),
            Step::Ping => writer.send(&own_frame(kind::PING, shared.cluster(), Vec::new())).await?,
        }
    }
}

enum Step {
    Answer(QueuedAnswer),
    NoMoreAnswers,
    Ping,
}

/// Writes the answers that wait, then flushes.
async fn speak_waiting(
    writer: &mut FrameWriter,
    answers: &mut mpsc::Receiver<QueuedAnswer>,
) -> io::Result<()> {
    for _ in 1..BATCH_MAX {
        let Ok((frame, _room)) = answers.try_recv() else {
            break;
        };
        writer.write(&frame).await?;
    }
    writer.flush().await
}

/// Counts the connections that did not yet say hello.
pub(super) struct Handshakes {
    limits: Limits,
    counts: Mutex<HandshakeCounts>,
}

#[derive(Default)]
struct HandshakeCounts {
    total: usize,
    /// Only hosts that have one.
    hosts: BTreeMap<String, usize>,
}

impl Handshakes {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    fn counts(&self) -> MutexGuard<'_, HandshakeCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn open_count(&self) -> usize {
        self.counts().total
    }

    /// Lets one more begin, unless there are too many.
    fn begin(self: &Arc<Self>, host: &str) -> Option<HandshakePass> {
        let mut counts = self.counts();
        let of_host = counts.hosts.get(host).copied().unwrap_or_default();
        if counts.total >= self.limits.handshakes_max || of_host >= self.limits.handshakes_per_host_max {
            return None;
        }
        counts.total += 1;
        counts.hosts.insert(host.to_owned(), of_host + 1);
        Some(HandshakePass { handshakes: self.clone(), host: host.to_owned() })
    }

    fn end(&self, host: &str) {
        let mut counts = self.counts();
        counts.total -= 1;
        if let Some(of_host) = counts.hosts.get_mut(host) {
            *of_host -= 1;
            if *of_host == 0 {
                counts.hosts.remove(host);
            }
        }
    }
}

/// One connection that did not yet say hello, until it is dropped.
struct HandshakePass {
    handshakes: Arc<Handshakes>,
    host: String,
}

impl Drop for HandshakePass {
    fn drop(&mut self) {
        self.handshakes.end(&self.host);
    }
}
