//! Everything that touches time and network, behind two traits.
//!
//! A node asks [`Clock`] what time it is and [`Net`] for connections, and nothing else. In
//! production they are [`SystemClock`] and [`TcpNet`]; a test gives it others, and commands what
//! happens to the network between its nodes.

mod clock;
#[cfg(any(test, feature = "testing"))]
mod memory;
mod tcp;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[cfg(test)]
pub(crate) use self::clock::SuspendClock;
#[cfg(any(test, feature = "testing"))]
pub use self::clock::TokioClock;
pub use self::clock::{Clock, SystemClock, WallTime};
#[cfg(any(test, feature = "testing"))]
pub use self::memory::{MemHost, MemNet};
pub use self::tcp::TcpNet;

/// A future on the heap, for traits that are used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// The half of a connection that is read. Ends when the other side closed, fails when it died.
pub type ReadHalf = Box<dyn AsyncRead + Send + Sync + Unpin>;
/// The half of a connection that is written. Dropping it closes the connection in this direction.
pub type WriteHalf = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// Where connections come from.
pub trait Net: Send + Sync + fmt::Debug + 'static {
    /// Listens at `addr`, which is `host:port`; port 0 chooses a free one.
    fn listen<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;

    /// Connects to `addr`, which is `host:port`. It may wait for ever when nothing answers: the
    /// caller brings the deadline.
    fn connect<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Connection>>;

    /// The host of this side's address on the way to `addr`: what to advertise to others when the
    /// node listens on every address. The caller brings the deadline.
    fn local_host_towards<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<String>> {
        Box::pin(async move {
            let connection = self.connect(addr).await?;
            let local = connection.local_addr();
            Ok(local.rsplit_once(':').map_or(local, |(host, _)| host).to_owned())
        })
    }
}

/// Takes the connections that others make. Dropping it stops listening.
pub trait Listener: Send + Sync + fmt::Debug {
    /// The next connection. [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) is about one that
    /// ended before it came in; after any other error the caller waits a little before the next
    /// call, since what is missing (a descriptor, memory) may come back. Dropping the future loses no
    /// connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>>;

    /// Where it listens, as `host:port` with the port that was chosen.
    fn local_addr(&self) -> String;
}

/// A stream of bytes in both directions, and who is at its ends.
pub struct Connection {
    reader: ReadHalf,
    writer: WriteHalf,
    local: String,
    peer: String,
}

impl Connection {
    /// A connection of two halves between the addresses `local` and `peer`.
    #[must_use]
    pub fn new(reader: ReadHalf, writer: WriteHalf, local: String, peer: String) -> Self {
        Self { reader, writer, local, peer }
    }

    /// This side's address.
    #[must_use]
    pub fn local_addr(&self) -> &str {
        &self.local
    }

    /// The other side's address, as the network sees it.
    #[must_use]
    pub fn peer_addr(&self) -> &str {
        &self.peer
    }

    /// The other side's address without its port.
    #[must_use]
    pub fn peer_host(&self) -> &str {
        self.peer.rsplit_once(':').map_or(&self.peer, |(host, _)| host)
    }

    /// The two halves, which two tasks may use at once.
    #[must_use]
    pub fn into_halves(self) -> (ReadHalf, WriteHalf) {
        (self.reader, self.writer)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("local", &self.local).field("peer", &self.peer).finish()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}
