//! The two ends of one direction of a connection in memory.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::Shared;
use super::state::{Arrival, PipeId};

pub(super) struct PipeReader {
    shared: Arc<Shared>,
    id: PipeId,
    /// Runs while the next bytes are on their way and not yet due.
    timer: Option<Pin<Box<Sleep>>>,
}

impl PipeReader {
    pub(super) fn new(shared: Arc<Shared>, id: PipeId) -> Self {
        Self { shared, id, timer: None }
    }
}

impl AsyncRead for PipeReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let polled = this.shared.with(|state| state.poll_read(this.id, cx, buffer))?;
            let Poll::Ready(Arrival::At(due)) = polled else {
                return polled.map(|_| Ok(()));
            };
            let mut timer = Box::pin(tokio::time::sleep_until(due));
            let rang = timer.as_mut().poll(cx);
            this.timer = Some(timer);
            if rang.is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        self.shared.with(|state| state.drop_reader(self.id));
    }
}

pub(super) struct PipeWriter {
    shared: Arc<Shared>,
    id: PipeId,
}

impl PipeWriter {
    pub(super) fn new(shared: Arc<Shared>, id: PipeId) -> Self {
        Self { shared, id }
    }
}

impl AsyncWrite for PipeWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.with(|state| state.poll_write(self.id, cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.with(|state| state.end(self.id));
        Poll::Ready(Ok(()))
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.shared.with(|state| state.drop_writer(self.id));
    }
}
