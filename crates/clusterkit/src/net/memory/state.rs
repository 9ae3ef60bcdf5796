//! What a network in memory knows: hosts, listeners, faults and the bytes on their way.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::Connection;

/// Bytes on their way in one direction of one connection before its writer waits.
const PIPE_BYTES_MAX: usize = 256 * 1024;
/// The first port that the network chooses by itself.
const PORT_FIRST: u16 = 49_152;

pub(super) type Backlog = mpsc::Sender<Connection>;

/// Why a pipe is there when one of its ends asks.
const HELD: &str = "a pipe is here as long as one of its ends is held";

/// Which of a host's lives: a kill ends one and begins the next.
type Life = u64;

/// Invariants:
///
/// * A pipe is here as long as one of its ends is held.
/// * A life that has ended has no listener.
/// * Nothing is woken or dropped in here whose code might come back for this state: that waits in
///   `released` until the lock is free.
#[derive(Default)]
pub(super) struct State {
    hosts: BTreeMap<Arc<str>, Host>,
    links: BTreeMap<Arc<str>, BTreeMap<Arc<str>, LinkFaults>>,
    listeners: BTreeMap<(Arc<str>, u16), Backlog>,
    pipes: BTreeMap<PipeId, Pipe>,
    pipe_next: u64,
    released: Released,
}

/// What to wake and to drop when the lock is free.
#[derive(Default)]
pub(super) struct Released {
    wakers: Vec<Waker>,
    backlogs: Vec<Backlog>,
}

impl Released {
    pub(super) fn settle(self) {
        self.wakers.into_iter().for_each(Waker::wake);
        drop(self.backlogs);
    }
}

impl State {
    pub(super) fn release(&mut self) -> Released {
        std::mem::take(&mut self.released)
    }

    /// The present life of `host`.
    pub(super) fn life(&self, host: &str) -> Life {
        self.hosts.get(host).map_or(0, |host| host.life)
    }

    fn host(&mut self, host: &str) -> &mut Host {
        self.hosts.entry(host.into()).or_insert(Host { life: 0, port_next: PORT_FIRST })
    }

    /// Fails when that life of the host has ended.
    pub(super) fn check_alive(&self, host: &str, life: Life) -> io::Result<()> {
        if self.life(host) == life { Ok(()) } else { Err(io::ErrorKind::NetworkDown.into()) }
    }

    /// A port of `host` that nobody listens on.
    pub(super) fn port(&mut self, host: &str) -> u16 {
        loop {
            let entry = self.host(host);
            let port = entry.port_next;
            entry.port_next = port.checked_add(1).unwrap_or(PORT_FIRST);
            if self.listener(host, port).is_none() {
                return port;
            }
        }
    }

    pub(super) fn link(&mut self, from: &str, to: &str) -> &mut LinkFaults {
        self.links.entry(from.into()).or_default().entry(to.into()).or_default()
    }

    fn faults(&self, from: &str, to: &str) -> LinkFaults {
        self.links.get(from).and_then(|links| links.get(to)).copied().unwrap_or_default()
    }

    pub(super) fn is_blocked(&self, from: &str, to: &str) -> bool {
        self.faults(from, to).blocked
    }

    pub(super) fn round_trip(&self, from: &str, to: &str) -> Duration {
        self.faults(from, to).latency + self.faults(to, from).latency
    }

    pub(super) fn unblock_all(&mut self) {
        self.links.values_mut().flat_map(BTreeMap::values_mut).for_each(|link| link.blocked = false);
    }

    pub(super) fn listener(&self, host: &str, port: u16) -> Option<Backlog> {
        self.listeners.get(&(host.into(), port)).cloned()
    }

    pub(super) fn listen(&mut self, host: &str, port: u16, backlog: Backlog) -> io::Result<()> {
        if self.listener(host, port).is_some() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.listeners.insert((host.into(), port), backlog);
        Ok(())
    }

    /// Removes a listener that has closed; one of a later life stays.
    pub(super) fn unlisten(&mut self, host: &str, port: u16) {
        let at = (Arc::from(host), port);
        if self.listeners.get(&at).is_some_and(Backlog::is_closed) {
            self.released.backlogs.extend(self.listeners.remove(&at));
        }
    }

    pub(super) fn kill(&mut self, host: &str) {
        self.host(host).life += 1;
        let gone = self.listeners.extract_if(.., |(listening, _), _| &**listening == host);
        self.released.backlogs.extend(gone.map(|(_, backlog)| backlog));
        for pipe in self.pipes.values_mut().filter(|pipe| pipe.ends.includes(host)) {
            pipe.reset = true;
        }
    }

    /// Wakes all who wait for bytes or for room: after a change of the faults each looks again.
    pub(super) fn wake_all(&mut self) {
        self.released.wakers.extend(self.pipes.values_mut().flat_map(Pipe::take_wakers));
    }

    pub(super) fn open(&mut self, ends: Ends) -> PipeId {
        let id = PipeId(self.pipe_next);
        self.pipe_next += 1;
        self.pipes.insert(id, Pipe::new(ends));
        id
    }

    pub(super) fn poll_read(
        &mut self,
        id: PipeId,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Arrival>> {
        let ends = &self.pipe(id).ends;
        let blocked = self.is_blocked(&ends.source.host, &ends.target.host);
        let sees_reset = self.is_dead(&ends.target) || !blocked;
        let pipe = self.pipes.get_mut(&id).expect(HELD);
        if pipe.reset && sees_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if blocked {
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let polled = pipe.poll_read(cx, buffer);
        if matches!(polled, Poll::Ready(Arrival::Now)) {
            self.released.wakers.extend(pipe.writer.take());
        }
        polled.map(Ok)
    }

    pub(super) fn poll_write(
        &mut self,
        id: PipeId,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let ends = &self.pipe(id).ends;
        let link = self.faults(&ends.source.host, &ends.target.host);
        let hears = !link.blocked && !self.is_blocked(&ends.target.host, &ends.source.host);
        let sees_reset = self.is_dead(&ends.source) || hears;
        let pipe = self.pipes.get_mut(&id).expect(HELD);
        if pipe.reset && sees_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if pipe.reader_gone && hears {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let polled = pipe.poll_write(cx, bytes, Instant::now() + link.latency);
        if polled.is_ready() {
            self.released.wakers.extend(pipe.reader.take());
        }
        polled.map(Ok)
    }

    /// No more bytes come after those on their way.
    pub(super) fn end(&mut self, id: PipeId) {
        let ends = &self.pipe(id).ends;
        let latency = self.faults(&ends.source.host, &ends.target.host).latency;
        let pipe = self.pipes.get_mut(&id).expect(HELD);
        pipe.end.get_or_insert(Instant::now() + latency);
        self.released.wakers.extend(pipe.reader.take());
    }

    pub(super) fn drop_reader(&mut self, id: PipeId) {
        let pipe = self.pipes.get_mut(&id).expect(HELD);
        pipe.reader_gone = true;
        self.released.wakers.extend(pipe.writer.take());
        self.forget_unheld(id);
    }

    pub(super) fn drop_writer(&mut self, id: PipeId) {
        self.end(id);
        self.pipes.get_mut(&id).expect(HELD).writer_gone = true;
        self.forget_unheld(id);
    }

    fn forget_unheld(&mut self, id: PipeId) {
        if self.pipe(id).reader_gone && self.pipe(id).writer_gone {
            let pipe = self.pipes.remove(&id);
            self.released.wakers.extend(pipe.into_iter().flat_map(|mut pipe| pipe.take_wakers()));
        }
    }

    fn is_dead(&self, end: &End) -> bool {
        self.life(&end.host) != end.life
    }

    fn pipe(&self, id: PipeId) -> &Pipe {
        self.pipes.get(&id).expect(HELD)
    }
}

struct Host {
    life: Life,
    port_next: u16,
}

/// What is wrong with one direction between two hosts.
#[derive(Clone, Copy, Default)]
pub(super) struct LinkFaults {
    pub(super) blocked: bool,
    pub(super) latency: Duration,
}

/// One direction of one connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PipeId(u64);

/// Who writes into a pipe and who reads from it.
pub(super) struct Ends {
    pub(super) source: End,
    pub(super) target: End,
}

impl Ends {
    fn includes(&self, host: &str) -> bool {
        &*self.source.host == host || &*self.target.host == host
    }
}

/// A host, and the life in which it holds an end.
#[derive(Clone)]
pub(super) struct End {
    pub(super) host: Arc<str>,
    pub(super) life: Life,
}

/// What a reader found.
pub(super) enum Arrival {
    /// Bytes, or the end.
    Now,
    /// Nothing yet; the next bytes are due at this instant.
    At(Instant),
}

/// Bytes on their way, oldest first, each with the instant at which it may arrive.
struct Pipe {
    ends: Ends,
    chunks: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    end: Option<Instant>,
    reset: bool,
    reader_gone: bool,
    writer_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn new(ends: Ends) -> Self {
        Self {
            ends,
            chunks: VecDeque::new(),
            bytes: 0,
            end: None,
            reset: false,
            reader_gone: false,
            writer_gone: false,
            reader: None,
            writer: None,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Arrival> {
        let due = self.chunks.front().map(|(due, _)| *due).or(self.end);
        match due {
            None => {
                self.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(due) if due > Instant::now() => Poll::Ready(Arrival::At(due)),
            Some(_) => {
                self.take_into(buffer);
                Poll::Ready(Arrival::Now)
            }
        }
    }

    /// Moves the oldest bytes out; leaves `buffer` as it is at the end of the stream.
    fn take_into(&mut self, buffer: &mut ReadBuf<'_>) {
        let Some((_, chunk)) = self.chunks.front_mut() else {
            return;
        };
        let count = chunk.len().min(buffer.remaining());
        buffer.put_slice(&chunk[..count]);
        chunk.advance(count);
        if chunk.is_empty() {
            self.chunks.pop_front();
        }
        self.bytes -= count;
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8], due: Instant) -> Poll<usize> {
        if bytes.is_empty() {
            return Poll::Ready(0);
        }
        let count = bytes.len().min(PIPE_BYTES_MAX - self.bytes);
        if count == 0 {
            self.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.chunks.push_back((due, Bytes::copy_from_slice(&bytes[..count])));
        self.bytes += count;
        Poll::Ready(count)
    }

    fn take_wakers(&mut self) -> impl Iterator<Item = Waker> + use<> {
        self.reader.take().into_iter().chain(self.writer.take())
    }
}
