//! Frames from and into the halves of a connection.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use clusterkit_core::id::{ClusterId, Epoch};
use clusterkit_wire::frame::{CallId, Exchange, Frame, FrameError, kind};
use clusterkit_wire::hello::PREFACE;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};
use tokio::time::{Instant, timeout};

use super::limits::{PING_EVERY, READ_CHUNK_BYTES, READ_ROOM_BYTES_MIN, WRITE_BUFFER_BYTES};
use crate::net::{ReadHalf, WriteHalf};

/// Takes frames out of the bytes that come.
///
/// Invariant: the buffer holds at most one frame of the allowed size and one chunk, whatever the
/// other side announces.
pub(super) struct FrameReader {
    half: ReadHalf,
    buffer: BytesMut,
    bytes_max: usize,
}

impl FrameReader {
    pub(super) fn new(half: ReadHalf, bytes_max: usize) -> Self {
        Self { half, buffer: BytesMut::new(), bytes_max }
    }

    /// From the next frame on, this is the most that one may have.
    pub(super) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// The next frame. Gives up when no byte comes for `silence_max`. Dropping the future loses
    /// nothing.
    pub(super) async fn next(&mut self, silence_max: Duration) -> Result<Frame, ReadError> {
        loop {
            if let Some(frame) = Frame::take_from(&mut self.buffer, self.bytes_max)? {
                return Ok(frame);
            }
            self.fill(silence_max).await?;
        }
    }

    /// Takes the other side's preface.
    pub(super) async fn preface(&mut self, silence_max: Duration) -> Result<(), PrefaceError> {
        while self.buffer.len() < PREFACE.len() {
            match self.fill(silence_max).await {
                Ok(()) => {}
                Err(ReadError::Ended) if !self.buffer.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
        }
        if !self.buffer.starts_with(&PREFACE) {
            return Err(PrefaceError::Stranger { looks_like_http: self.buffer.starts_with(b"HTTP/") });
        }
        let _ = self.buffer.split_to(PREFACE.len());
        Ok(())
    }

    async fn fill(&mut self, silence_max: Duration) -> Result<(), ReadError> {
        if self.buffer.capacity() - self.buffer.len() < READ_ROOM_BYTES_MIN {
            self.buffer.reserve(READ_CHUNK_BYTES.min(self.bytes_max));
        }
        match timeout(silence_max, self.half.read_buf(&mut self.buffer)).await {
            Ok(Ok(0)) => Err(ReadError::Ended),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ReadError::Io(error)),
            Err(_) => Err(ReadError::Silent),
        }
    }
}

/// No more frames come from this connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("the other side closed the connection")]
    Ended,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Io(io::Error),
    #[error("nothing came for too long")]
    Silent,
}

/// The other side does not begin as a ClusterKit node does.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrefaceError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("its first bytes are not those of a ClusterKit node")]
    Stranger { looks_like_http: bool },
}

/// Writes frames, many small ones at once and large ones without copying their bodies.
pub(super) struct FrameWriter {
    half: BufWriter<WriteHalf>,
    bytes_max: usize,
    written_at: Instant,
}

impl FrameWriter {
    pub(super) fn new(half: WriteHalf, bytes_max: usize) -> Self {
        let half = BufWriter::with_capacity(WRITE_BUFFER_BYTES, half);
        Self { half, bytes_max, written_at: Instant::now() }
    }

    /// From the next frame on, this is the most that one may have.
    pub(super) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    pub(super) async fn preface(&mut self) -> io::Result<()> {
        self.half.write_all(&PREFACE).await
    }

    /// Writes one frame, which may stay in the buffer until [`flush`](Self::flush).
    pub(super) async fn write(&mut self, frame: &Frame) -> io::Result<()> {
        let header = frame.header(self.bytes_max).map_err(io::Error::other)?;
        self.half.write_all(&header).await?;
        self.half.write_all(&frame.body).await
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.half.flush().await?;
        self.written_at = Instant::now();
        Ok(())
    }

    /// Writes one frame and everything before it.
    pub(super) async fn send(&mut self, frame: &Frame) -> io::Result<()> {
        self.write(frame).await?;
        self.flush().await
    }

    /// Tells the other side that nothing more comes.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        self.half.shutdown().await
    }

    /// When the other side should hear that this one lives.
    pub(super) fn ping_due(&self) -> Instant {
        self.written_at + PING_EVERY
    }
}

/// A frame of the transport itself.
pub(super) fn own_frame(kind: u8, cluster: Option<ClusterId>, body: Vec<u8>) -> Frame {
    let exchange = match kind {
        kind::HELLO => Exchange::Request,
        kind::WELCOME => Exchange::Response,
        kind::REFUSED => Exchange::ErrorResponse,
        _ => Exchange::OneWay,
    };
    let body = Bytes::from(body);
    Frame { kind, exchange, call: CallId::default(), cluster, epoch: Epoch::default(), body }
}
