//! Sessions of the node itself: so that it may repeat a client's write where a leader was lost.
//!
//! A write that was sent to a leader which then died may be in the log or not. With a session request it can be
//! sent again to the next leader, and takes effect once. Clients may bring sessions of their own; for those that do
//! not, the node that they speak to lends them one of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clusterkit_core::id::PartitionId;
use clusterkit_core::replica::{SessionId, SessionRequest};
use clusterkit_core::time::Instant;
use tokio::sync::Mutex as AsyncMutex;

use crate::limits::{GATEWAY_IDLE_MAX, GATEWAY_SESSIONS_MAX, GATEWAY_WINDOW};

/// The sessions that this node has open, by partition.
///
/// Invariants, of each session:
/// - a number is lent once;
/// - the numbers that are lent span less than the window, so that no answer is forgotten while somebody may ask for it.
#[derive(Debug, Default)]
pub(crate) struct Gateway {
    partitions: Mutex<BTreeMap<PartitionId, Vec<Session>>>,
    turns: Mutex<BTreeMap<PartitionId, Arc<AsyncMutex<()>>>>,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    last: u64,
    lent: BTreeSet<u64>,
    used_at: Instant,
}

/// Whether a request can be numbered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Loan {
    /// It can. Give it back when it is answered for good.
    Lent(SessionRequest),
    /// Another session is needed first.
    OpenAnother,
    /// So many are under way that no more can be.
    Exhausted,
}

impl Gateway {
    fn partitions(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Vec<Session>>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers a request. Sessions that were not used for long may be over where the partition is, and are left alone.
    pub(crate) fn lend(&self, now: Instant, partition: PartitionId) -> Loan {
        let mut partitions = self.partitions();
        let sessions = partitions.entry(partition).or_default();
        sessions.retain(|session| !session.lent.is_empty() || now.since(session.used_at) < GATEWAY_IDLE_MAX);
        let has_room = |session: &&mut Session| {
            session.lent.first().is_none_or(|first| session.last + 1 - first < GATEWAY_WINDOW)
        };
        if let Some(session) = sessions.iter_mut().find(has_room) {
            session.used_at = now;
            session.last += 1;
            session.lent.insert(session.last);
            return Loan::Lent(SessionRequest { session: session.id, sequence: session.last });
        }
        if sessions.len() < GATEWAY_SESSIONS_MAX { Loan::OpenAnother } else { Loan::Exhausted }
    }

    /// Who opens a session, while the others wait for it.
    pub(crate) fn turn(&self, partition: PartitionId) -> Arc<AsyncMutex<()>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry(partition).or_default().clone()
    }

    /// A session was opened for this node.
    pub(crate) fn opened(&self, now: Instant, partition: PartitionId, id: SessionId) {
        let mut partitions = self.partitions();
        partitions.entry(partition).or_default().push(Session {
            id,
            last: 0,
            lent: BTreeSet::new(),
            used_at: now,
        });
    }

    /// A request is answered.
    pub(crate) fn give_back(&self, partition: PartitionId, request: SessionRequest) {
        let mut partitions = self.partitions();
        let sessions = partitions.get_mut(&partition).into_iter().flatten();
        if let Some(session) = sessions.into_iter().find(|session| session.id == request.session) {
            session.lent.remove(&request.sequence);
        }
    }

    /// A session is over, whyever.
    pub(crate) fn ended(&self, partition: PartitionId, id: SessionId) {
        if let Some(sessions) = self.partitions().get_mut(&partition) {
            sessions.retain(|session| session.id != id);
        }
    }
}

#[cfg(test)]
mod tests {
    use clusterkit_core::id::Epoch;

    use super::*;

    const P: PartitionId = PartitionId(1);

    fn id(offset: u64) -> SessionId {
        SessionId { epoch: Epoch(1), offset }
    }

    fn lend(gateway: &Gateway) -> SessionRequest {
        match gateway.lend(Instant::ORIGIN, P) {
            Loan::Lent(request) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn numbers_that_are_lent_stay_within_the_window() {
        let gateway = Gateway::default();
        assert_eq!(gateway.lend(Instant::ORIGIN, P), Loan::OpenAnother);
        gateway.opened(Instant::ORIGIN, P, id(5));
        let first = lend(&gateway);
        for _ in 1..GATEWAY_WINDOW {
            gateway.give_back(P, lend(&gateway));
        }
        assert_eq!(gateway.lend(Instant::ORIGIN, P), Loan::OpenAnother, "the first is still out");
        gateway.give_back(P, first);
        assert_eq!(lend(&gateway).sequence, GATEWAY_WINDOW + 1);
    }

    #[test]
    fn sessions_are_bounded() {
        let gateway = Gateway::default();
        for offset in 0..GATEWAY_SESSIONS_MAX as u64 {
            gateway.opened(Instant::ORIGIN, P, id(offset));
        }
        let window = GATEWAY_WINDOW as usize * GATEWAY_SESSIONS_MAX;
        let lent: BTreeSet<_> = (0..window).map(|_| lend(&gateway)).collect();
        assert_eq!((lent.len(), gateway.lend(Instant::ORIGIN, P)), (window, Loan::Exhausted));
        gateway.ended(P, id(0));
        assert_eq!(gateway.lend(Instant::ORIGIN, P), Loan::OpenAnother);
    }

    #[test]
    fn a_session_that_was_not_used_for_long_is_left_alone() {
        let gateway = Gateway::default();
        gateway.opened(Instant::ORIGIN, P, id(1));
        let request = lend(&gateway);
        let later = Instant::ORIGIN + GATEWAY_IDLE_MAX;
        assert!(matches!(gateway.lend(later, P), Loan::Lent(_)), "it is in use");
        gateway.give_back(P, request);
        let second = SessionRequest { sequence: 2, ..request };
        gateway.give_back(P, second);
        assert_eq!(gateway.lend(later + GATEWAY_IDLE_MAX, P), Loan::OpenAnother);
    }
}
