//! What ends a node: signals, and the end of its parent.

use std::io::{self, Read};
use std::thread;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The wish that this process ends.
pub(super) struct StopWishes {
    terminate: Signal,
    interrupt: Signal,
    parent_gone: CancellationToken,
}

impl StopWishes {
    /// Listens from now on; with `parent_pipe` also for the end of standard input.
    pub(super) fn listen(parent_pipe: bool) -> io::Result<Self> {
        let parent_gone = CancellationToken::new();
        if parent_pipe {
            let gone = parent_gone.clone();
            thread::Builder::new().name("parent-pipe".to_owned()).spawn(move || {
                wait_for_end(io::stdin().lock());
                gone.cancel();
            })?;
        }
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            parent_gone,
        })
    }

    /// Waits for the first wish, and says which it was.
    pub(super) async fn first(&mut self) -> &'static str {
        let parent_gone = self.parent_gone.clone();
        tokio::select! {
            () = parent_gone.cancelled() => "its parent is gone",
            name = self.signal() => name,
        }
    }

    /// Waits for a signal. The end of the parent counts once, so that it cannot cut short the stop
    /// that it began.
    pub(super) async fn signal(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Reads until nobody holds the other end any more. An error means the same.
fn wait_for_end(mut input: impl Read) {
    let mut ignored = [0; 64];
    while matches!(input.read(&mut ignored), Ok(count) if count > 0) {}
}
