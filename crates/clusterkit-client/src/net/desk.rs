//! Gives out the numbers of writes to one partition.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::error::Error;
use crate::plan::{Claim, SessionId, Sessions, Ticket};

#[derive(Debug, Default)]
pub(super) struct Desk {
    sessions: Mutex<Sessions>,
    changed: Notify,
}

/// The number of a write, which is free again once this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    desk: Arc<Desk>,
    pub(super) ticket: Ticket,
}

impl Desk {
    /// A number, waiting for one if all are in use. `open` opens a session where one is needed.
    pub(super) async fn claim<F>(self: &Arc<Self>, open: impl Fn() -> F) -> Result<Held, Error>
    where
        F: Future<Output = Result<SessionId, Error>>,
    {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let claim = self.lock().claim();
            match claim {
                Claim::Open => {
                    let mut opening = Opening { desk: self, opened: None };
                    opening.opened = Some(open().await?);
                }
                Claim::Ready(ticket) => return Ok(Held { desk: self.clone(), ticket }),
                Claim::Wait => changed.await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// The partition says that the session is over.
    pub(super) fn end_session(&self) {
        self.desk.lock().end(self.ticket.session);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.desk.lock().release(self.ticket);
        self.desk.changed.notify_waiters();
    }
}

/// A session that is being opened. Whoever opens it may be dropped meanwhile, and another has to then.
struct Opening<'a> {
    desk: &'a Desk,
    opened: Option<SessionId>,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.desk.lock().opened(self.opened);
        self.desk.changed.notify_waiters();
    }
}
