//! The sessions of a client with one partition.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::limits::{SESSION_WINDOW, SESSIONS_PER_PARTITION_MAX};

/// A session, as the partition names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionId {
    epoch: u64,
    offset: u64,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.offset)
    }
}

impl FromStr for SessionId {
    type Err = InvalidSessionId;

    fn from_str(text: &str) -> Result<Self, InvalidSessionId> {
        let (epoch, offset) = text.split_once('.').ok_or(InvalidSessionId)?;
        let number = |text: &str| text.parse().map_err(|_| InvalidSessionId);
        Ok(Self { epoch: number(epoch)?, offset: number(offset)? })
    }
}

/// The text names no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session is named by an epoch and an offset")]
pub(crate) struct InvalidSessionId;

/// The number of one write. It is given back by [`Sessions::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) session: SessionId,
    pub(crate) sequence: u64,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.session, self.sequence)
    }
}

/// What a write gets that wants a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// None yet: the caller shall open a session, and say how that ended.
    Open,
    /// A number.
    Ready(Ticket),
    /// None, until another write ends or a session is open.
    Wait,
}

/// The sessions with one partition, and the numbers in use.
///
/// Invariants:
/// - a number is given out once;
/// - in each session the newest number is less than [`SESSION_WINDOW`] above the oldest in use;
/// - sessions, with the one that is being opened, are never more than [`SESSIONS_PER_PARTITION_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: Vec<Session>,
    is_opening: bool,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    next: u64,
    in_use: BTreeSet<u64>,
}

impl Session {
    fn has_room(&self) -> bool {
        self.in_use.first().is_none_or(|oldest| self.next < oldest + SESSION_WINDOW)
    }
}

impl Sessions {
    /// A write wants a number.
    pub(crate) fn claim(&mut self) -> Claim {
        if let Some(session) = self.open.iter_mut().find(|session| session.has_room()) {
            let sequence = session.next;
            session.next += 1;
            session.in_use.insert(sequence);
            return Claim::Ready(Ticket { session: session.id, sequence });
        }
        if self.is_opening || self.open.len() >= SESSIONS_PER_PARTITION_MAX {
            return Claim::Wait;
        }
        self.is_opening = true;
        Claim::Open
    }

    /// The session that was to be opened is open, or could not be.
    pub(crate) fn opened(&mut self, id: Option<SessionId>) {
        self.is_opening = false;
        self.open.extend(id.map(|id| Session { id, next: 1, in_use: BTreeSet::new() }));
    }

    /// A write ended, and its number is never sent again.
    pub(crate) fn release(&mut self, ticket: Ticket) {
        if let Some(session) = self.open.iter_mut().find(|session| session.id == ticket.session) {
            session.in_use.remove(&ticket.sequence);
        }
    }

    /// The partition says that a session is over. Writes that have numbers of it learn that themselves.
    pub(crate) fn end(&mut self, id: SessionId) {
        self.open.retain(|session| session.id != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: SessionId = SessionId { epoch: 1, offset: 10 };

    fn opened() -> Sessions {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.claim(), Claim::Open);
        sessions.opened(Some(FIRST));
        sessions
    }

    fn claim(sessions: &mut Sessions) -> String {
        match sessions.claim() {
            Claim::Open => "open".to_owned(),
            Claim::Ready(ticket) => ticket.to_string(),
            Claim::Wait => "wait".to_owned(),
        }
    }

    #[test]
    fn the_first_write_opens_a_session_and_others_wait() {
        let mut sessions = Sessions::default();
        assert_eq!(claim(&mut sessions), "open");
        assert_eq!(claim(&mut sessions), "wait");
        sessions.opened(None);
        assert_eq!(claim(&mut sessions), "open");
        sessions.opened(Some(FIRST));
        assert_eq!(claim(&mut sessions), "1.10.1");
        assert_eq!(claim(&mut sessions), "1.10.2");
    }

    #[test]
    fn the_window_moves_with_the_oldest_write_not_with_their_count() {
        let mut sessions = opened();
        (0..SESSION_WINDOW).for_each(|_| drop(claim(&mut sessions)));
        sessions.release(Ticket { session: FIRST, sequence: 2 });
        assert_eq!(claim(&mut sessions), "open");
        sessions.release(Ticket { session: FIRST, sequence: 1 });
        assert_eq!(claim(&mut sessions), "1.10.49");
        assert_eq!(claim(&mut sessions), "1.10.50");
        assert_eq!(claim(&mut sessions), "wait");
    }

    #[test]
    fn sessions_are_bounded() {
        let mut sessions = Sessions::default();
        for offset in 0..SESSIONS_PER_PARTITION_MAX as u64 {
            assert_eq!(claim(&mut sessions), "open");
            sessions.opened(Some(SessionId { epoch: 1, offset }));
            (0..SESSION_WINDOW).for_each(|_| drop(claim(&mut sessions)));
        }
        assert_eq!(claim(&mut sessions), "wait");
    }

    #[test]
    fn a_session_that_is_over_is_replaced() {
        let mut sessions = opened();
        assert_eq!(claim(&mut sessions), "1.10.1");
        sessions.end(FIRST);
        assert_eq!(claim(&mut sessions), "open");
        sessions.release(Ticket { session: FIRST, sequence: 1 });
    }

    #[test]
    fn names_of_sessions_read_back() {
        assert_eq!("1.10".parse(), Ok(FIRST));
        assert_eq!(FIRST.to_string(), "1.10");
        assert_eq!("110".parse::<SessionId>(), Err(InvalidSessionId));
        assert_eq!("1.10.2".parse::<SessionId>(), Err(InvalidSessionId));
    }
}
