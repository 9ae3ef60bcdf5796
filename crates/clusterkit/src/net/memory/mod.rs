//! A network in memory, for tests, that does what the test tells it.

mod pipe;
mod state;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use self::pipe::{PipeReader, PipeWriter};
use self::state::{Backlog, End, Ends, PipeId, State};
use super::{BoxFuture, Connection, Listener, Net};

/// Connections that wait to be accepted at one address.
const BACKLOG_MAX: usize = 128;

/// A network of named hosts in one process, and the switch for its faults.
///
/// Addresses are `host:port`. Bytes arrive in order and whole, as with TCP; what a fault does:
///
/// * **Blocked** from one host to another: bytes, and the end of a connection, wait until the block
///   is lifted. Nobody is told. Connecting needs both directions.
/// * **Killed**: every connection of the host is reset, nothing listens on it any more, and the
///   [`MemHost`]s made before are dead for ever; what still runs with them reaches nobody.
///   [`host`](Self::host) gives one that lives, which is how a node restarts. A block hides the
///   reset, as it hides everything.
/// * **Delay**: everything takes that long in that direction.
///
/// With a paused tokio runtime everything in it runs in virtual time.
#[derive(Clone, Default)]
pub struct MemNet {
    shared: Arc<Shared>,
}

impl MemNet {
    /// A network without hosts or faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The network as the host `name` sees it.
    #[must_use]
    pub fn host(&self, name: &str) -> MemHost {
        let life = self.shared.with(|state| state.life(name));
        MemHost { shared: self.shared.clone(), name: name.into(), life }
    }

    /// Blocks what goes from `from` to `to`; the other direction stays as it is.
    pub fn block(&self, from: &str, to: &str) {
        self.shared.change(|state| state.link(from, to).blocked = true);
    }

    /// Lifts the block of what goes from `from` to `to`.
    pub fn unblock(&self, from: &str, to: &str) {
        self.shared.change(|state| state.link(from, to).blocked = false);
    }

    /// Blocks both directions between hosts of different groups. A host in no group still reaches
    /// everyone.
    pub fn partition(&self, groups: &[&[&str]]) {
        self.shared.change(|state| {
            for (index, group) in groups.iter().enumerate() {
                let others = groups.iter().enumerate().filter(|(other, _)| *other != index);
                for (from, to) in others.flat_map(|(_, other)| pairs(group, other)) {
                    state.link(from, to).blocked = true;
                }
            }
        });
    }

    /// Lifts every block. Delays stay.
    pub fn heal(&self) {
        self.shared.change(State::unblock_all);
    }

    /// Everything that goes from `from` to `to` takes `latency` from now on.
    pub fn delay(&self, from: &str, to: &str, latency: Duration) {
        self.shared.change(|state| state.link(from, to).latency = latency);
    }

    /// Resets every connection of `host` and stops its listening.
    pub fn kill(&self, host: &str) {
        self.shared.change(|state| state.kill(host));
    }
}

impl fmt::Debug for MemNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemNet").finish_non_exhaustive()
    }
}

fn pairs<'a>(group: &'a [&'a str], other: &'a [&'a str]) -> impl Iterator<Item = (&'a str, &'a str)> {
    group.iter().flat_map(move |from| other.iter().map(move |to| (*from, *to)))
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Tells those who wait to connect that the faults changed.
    changes: watch::Sender<()>,
}

impl Shared {
    /// Does `work` on the state under its lock, and after it what the work released.
    fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        let (result, released) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (work(&mut state), state.release())
        };
        released.settle();
        result
    }

    /// Changes the faults: everyone who waits looks again.
    fn change(&self, change: impl FnOnce(&mut State)) {
        self.with(|state| {
            change(state);
            state.wake_all();
        });
        self.changes.send_replace(());
    }
}

/// [`MemNet`] as one host sees it, until the host is killed.
#[derive(Clone)]
pub struct MemHost {
    shared: Arc<Shared>,
    name: Arc<str>,
    life: u64,
}

impl MemHost {
    async fn connect_to(&self, addr: &str) -> io::Result<Connection> {
        let (host, port) = split(addr)?;
        let host = if is_loopback(host) { &*self.name } else { host };
        let mut changes = self.shared.changes.subscribe();
        let latency = self.shared.with(|state| state.round_trip(&self.name, host));
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        loop {
            changes.borrow_and_update();
            if let Some(backlog) = self.backlog(host, port)? {
                let Ok(seat) = backlog.reserve().await else {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                };
                let (ours, theirs) = self.join(host, port)?;
                seat.send(theirs);
                return Ok(ours);
            }
            // The sender lives as long as this host does, so this ends only with a change.
            let _ = changes.changed().await;
        }
    }

    /// Where to knock; `None` while the way there or back is blocked.
    fn backlog(&self, host: &str, port: u16) -> io::Result<Option<Backlog>> {
        self.shared.with(|state| {
            state.check_alive(&self.name, self.life)?;
            if state.is_blocked(&self.name, host) || state.is_blocked(host, &self.name) {
                return Ok(None);
            }
            let listener = state.listener(host, port);
            listener.map(Some).ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
        })
    }

    /// Makes the two ends of a connection to `host`.
    fn join(&self, host: &str, port: u16) -> io::Result<(Connection, Connection)> {
        let (inbound, outbound, port_local) = self.shared.with(|state| {
            state.check_alive(&self.name, self.life)?;
            let ours = End { host: self.name.clone(), life: self.life };
            let theirs = End { host: host.into(), life: state.life(host) };
            let inbound = state.open(Ends { source: theirs.clone(), target: ours.clone() });
            let outbound = state.open(Ends { source: ours, target: theirs });
            io::Result::Ok((inbound, outbound, state.port(&self.name)))
        })?;
        let local = format!("{}:{port_local}", self.name);
        let peer = format!("{host}:{port}");
        let ours = self.end(inbound, outbound, &local, &peer);
        Ok((ours, self.end(outbound, inbound, &peer, &local)))
    }

    fn end(&self, read: PipeId, write: PipeId, local: &str, peer: &str) -> Connection {
        let reader = PipeReader::new(self.shared.clone(), read);
        let writer = PipeWriter::new(self.shared.clone(), write);
        Connection::new(Box::new(reader), Box::new(writer), local.to_owned(), peer.to_owned())
    }

    fn listen_at(&self, addr: &str) -> io::Result<MemListener> {
        let (host, port) = split(addr)?;
        if !is_unspecified(host) && !is_loopback(host) && host != &*self.name {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let (sender, backlog) = mpsc::channel(BACKLOG_MAX);
        let port = self.shared.with(|state| {
            state.check_alive(&self.name, self.life)?;
            let port = if port == 0 { state.port(&self.name) } else { port };
            state.listen(&self.name, port, sender).map(|()| port)
        })?;
        Ok(MemListener { host: self.clone(), port, backlog })
    }
}

impl fmt::Debug for MemHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemHost").field("name", &self.name).field("life", &self.life).finish()
    }
}

impl Net for MemHost {
    fn listen<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Ok(Box::new(self.listen_at(addr)?) as Box<dyn Listener>) })
    }

    fn connect<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(self.connect_to(addr))
    }
}

fn split(addr: &str) -> io::Result<(&str, u16)> {
    let parts = addr.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    parts.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn is_unspecified(host: &str) -> bool {
    matches!(host, "" | "0.0.0.0" | "[::]")
}

fn is_loopback(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

struct MemListener {
    host: MemHost,
    port: u16,
    backlog: mpsc::Receiver<Connection>,
}

impl fmt::Debug for MemListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemListener").field("host", &self.host).field("port", &self.port).finish()
    }
}

impl Listener for MemListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async { self.backlog.recv().await.ok_or_else(|| io::ErrorKind::NetworkDown.into()) })
    }

    fn local_addr(&self) -> String {
        format!("{}:{}", self.host.name, self.port)
    }
}

impl Drop for MemListener {
    fn drop(&mut self) {
        self.backlog.close();
        self.host.shared.with(|state| state.unlisten(&self.host.name, self.port));
    }
}

#[cfg(test)]
mod tests;
