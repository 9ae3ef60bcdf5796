//! Each request of a client takes effect once (rule W3).
//!
//! A client opens a session, which is a record of the log, and numbers its requests. Every replica keeps the last
//! answers of every session beside the state, changes them by applied records only, and so gives a repeated
//! request the answer of the first, on whichever node, also after a snapshot (the table is part of it).

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::mistake::{Mistake, Mistakes};
use super::record::{Entry, LogTime, Record, SessionId, SessionRequest};

/// The bounds of a table of sessions. All replicas of a partition must have the same ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// How many sessions a partition keeps; another one ends the one that was used longest ago. Default 4,096.
    pub sessions_max: usize,
    /// How many answers a session keeps: the most requests that a client may have under way. Default 64.
    pub answers_max: usize,
    /// Bytes of all answers; above, the sessions that were used longest ago end, and of the last one the oldest
    /// answers go. Default 4 MiB. All of it is part of every snapshot.
    pub answers_bytes_max: usize,
    /// For how long a session lives unused, by the time in the records. Default 10 min.
    pub idle_max: Duration,
    /// Rules left out on purpose, to see that a test notices.
    #[doc(hidden)]
    pub mistakes: Mistakes,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            sessions_max: 4_096,
            answers_max: 64,
            answers_bytes_max: 4 << 20,
            idle_max: Duration::from_mins(10),
            mistakes: Mistakes::default(),
        }
    }
}

/// The sessions of one partition.
///
/// Invariants:
/// - it depends on the records that were applied, and on nothing else;
/// - `by_use` has every session once, under the time at which it was used last;
/// - `answers_bytes` is the sum of all answers' bytes;
/// - a session keeps answers above `floor` only, and whatever is not above it was answered or refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    sessions: BTreeMap<SessionId, Session>,
    by_use: BTreeSet<(LogTime, SessionId)>,
    answers_bytes: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    used_at: LogTime,
    floor: u64,
    answers: BTreeMap<u64, Bytes>,
}

/// What is to be done with a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Apply its payload; with a request, say the answer by [`Sessions::note_answer`].
    Apply,
    /// Nothing: it took effect before. This was the answer.
    Repeated(Bytes),
    /// Nothing: its session is over, or never was. Whether an earlier copy took effect is not known any more.
    SessionExpired,
    /// Nothing but that the session is open now.
    SessionOpened(SessionId),
    /// Nothing: so many later requests were answered that it cannot be told whether this one was.
    TooOld,
    /// Nothing.
    Nothing,
}

impl Sessions {
    /// The next record, at `offset`.
    pub fn judge(&mut self, config: &SessionConfig, offset: u64, record: &Record) -> Verdict {
        self.expire(config, record.time);
        match &record.entry {
            Entry::NoOp => Verdict::Nothing,
            Entry::OpenSession => self.open(config, SessionId { epoch: record.epoch, offset }, record.time),
            Entry::Write { request: None, .. } => Verdict::Apply,
            Entry::Write { request: Some(request), .. } => {
                let verdict = self.judge_request(*request, record.time);
                let ignored = config.mistakes.has(Mistake::SessionsIgnored);
                if ignored && matches!(verdict, Verdict::Repeated(_)) { Verdict::Apply } else { verdict }
            }
        }
    }

    fn open(&mut self, config: &SessionConfig, id: SessionId, time: LogTime) -> Verdict {
        if self.sessions.len() >= config.sessions_max
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.end(oldest);
        }
        self.sessions.insert(id, Session { used_at: time, ..Session::default() });
        self.by_use.insert((time, id));
        Verdict::SessionOpened(id)
    }

    fn judge_request(&mut self, request: SessionRequest, time: LogTime) -> Verdict {
        let Some(session) = self.sessions.get_mut(&request.session) else { return Verdict::SessionExpired };
        self.by_use.remove(&(session.used_at, request.session));
        session.used_at = time;
        self.by_use.insert((time, request.session));
        match session.answers.get(&request.sequence) {
            Some(answer) => Verdict::Repeated(answer.clone()),
            None if request.sequence <= session.floor => Verdict::TooOld,
            None => Verdict::Apply,
        }
    }

    /// The answer to a request that was applied just now.
    pub fn note_answer(&mut self, config: &SessionConfig, request: SessionRequest, answer: Bytes) {
        let Some(session) = self.sessions.get_mut(&request.session) else { return };
        self.answers_bytes += answer.len();
        if let Some(before) = session.answers.insert(request.sequence, answer) {
            self.answers_bytes -= before.len();
        }
        while session.answers.len() > config.answers_max.max(1) {
            self.answers_bytes -= session.forget_oldest();
        }
        while self.answers_bytes > config.answers_bytes_max && self.sessions.len() > 1 {
            let oldest = self.by_use.iter().map(|(_, id)| *id).find(|id| *id != request.session);
            let Some(oldest) = oldest else { break };
            self.end(oldest);
        }
        let Some(session) = self.sessions.get_mut(&request.session) else { return };
        while self.answers_bytes > config.answers_bytes_max && session.answers.len() > 1 {
            self.answers_bytes -= session.forget_oldest();
        }
    }

    fn end(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.by_use.remove(&(session.used_at, id));
            self.answers_bytes -= session.answers.values().map(Bytes::len).sum::<usize>();
        }
    }

    /// The answer to a request, if it is known to have taken effect: a leader need not log it again.
    #[must_use]
    pub fn answer(&self, request: SessionRequest) -> Option<&Bytes> {
        self.sessions.get(&request.session)?.answers.get(&request.sequence)
    }

    /// How many sessions are open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sessions.len()
    }

    fn expire(&mut self, config: &SessionConfig, now: LogTime) {
        let idle_ms = u64::try_from(config.idle_max.as_millis()).unwrap_or(u64::MAX);
        let is_over = |used_at: LogTime| used_at.0.saturating_add(idle_ms) < now.0;
        while let Some((_, id)) = self.by_use.first().filter(|(used_at, _)| is_over(*used_at)).copied() {
            self.end(id);
        }
    }
}

impl Session {
    /// How many bytes that frees.
    fn forget_oldest(&mut self) -> usize {
        let Some((sequence, answer)) = self.answers.pop_first() else { return 0 };
        self.floor = self.floor.max(sequence);
        answer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;

    struct Table {
        config: SessionConfig,
        sessions: Sessions,
        offset: u64,
    }

    impl Table {
        fn new() -> Self {
            let config = SessionConfig { sessions_max: 2, answers_max: 2, ..SessionConfig::default() };
            Self { config, sessions: Sessions::default(), offset: 0 }
        }

        fn judge(&mut self, time: u64, entry: Entry) -> Verdict {
            let record = Record { epoch: Epoch(1), time: LogTime(time), entry };
            self.offset += 1;
            self.sessions.judge(&self.config, self.offset - 1, &record)
        }

        fn request(&mut self, time: u64, session: u64, sequence: u64) -> Verdict {
            let request = SessionRequest { session: id(session), sequence };
            let payload = Bytes::new();
            let verdict = self.judge(time, Entry::Write { request: Some(request), payload });
            if verdict == Verdict::Apply {
                self.sessions.note_answer(
                    &self.config,
                    request,
                    Bytes::from(sequence.to_be_bytes().to_vec()),
                );
            }
            verdict
        }
    }

    fn id(offset: u64) -> SessionId {
        SessionId { epoch: Epoch(1), offset }
    }

    fn answer(sequence: u64) -> Verdict {
        Verdict::Repeated(Bytes::from(sequence.to_be_bytes().to_vec()))
    }

    #[test]
    fn a_repeated_request_gets_the_first_answer() {
        let mut table = Table::new();
        assert_eq!(table.judge(0, Entry::OpenSession), Verdict::SessionOpened(id(0)));
        assert_eq!(table.request(0, 0, 1), Verdict::Apply);
        assert_eq!(table.request(0, 0, 1), answer(1));
    }

    #[test]
    fn requests_may_overtake_each_other_within_the_window() {
        let mut table = Table::new();
        table.judge(0, Entry::OpenSession);
        assert_eq!(table.request(0, 0, 2), Verdict::Apply);
        assert_eq!(table.request(0, 0, 1), Verdict::Apply);
        assert_eq!(table.request(0, 0, 3), Verdict::Apply);
        assert_eq!(table.request(0, 0, 1), Verdict::TooOld);
        assert_eq!(table.request(0, 0, 2), answer(2));
    }

    #[test]
    fn answers_beyond_their_bytes_make_room_for_the_newest() {
        let mut table = Table::new();
        table.config.answers_bytes_max = 12;
        for _ in 0..2 {
            table.judge(0, Entry::OpenSession);
        }
        assert_eq!(table.request(0, 0, 1), Verdict::Apply);
        assert_eq!(table.request(0, 1, 1), Verdict::Apply, "16 bytes are too many");
        assert_eq!(table.request(0, 0, 1), Verdict::SessionExpired);
        assert_eq!(table.request(0, 1, 2), Verdict::Apply);
        assert_eq!((table.request(0, 1, 1), table.request(0, 1, 2)), (Verdict::TooOld, answer(2)));
    }

    #[test]
    fn a_session_of_another_epoch_is_another_one() {
        let mut table = Table::new();
        table.judge(0, Entry::OpenSession);
        let lost = SessionRequest { session: SessionId { epoch: Epoch(0), offset: 0 }, sequence: 1 };
        let verdict = table.judge(0, Entry::Write { request: Some(lost), payload: Bytes::new() });
        assert_eq!(verdict, Verdict::SessionExpired);
    }

    #[test]
    fn an_unused_session_ends_by_the_time_in_the_records() {
        let mut table = Table::new();
        table.judge(0, Entry::OpenSession);
        assert_eq!(table.request(600_000, 0, 1), Verdict::Apply);
        assert_eq!(table.request(1_200_001, 0, 2), Verdict::SessionExpired);
    }

    #[test]
    fn the_session_that_was_used_longest_ago_makes_room() {
        let mut table = Table::new();
        for _ in 0..2 {
            table.judge(0, Entry::OpenSession);
        }
        assert_eq!(table.request(1, 0, 1), Verdict::Apply);
        table.judge(2, Entry::OpenSession);
        assert_eq!(table.request(3, 1, 1), Verdict::SessionExpired);
        assert_eq!((table.request(3, 0, 1), table.sessions.count()), (answer(1), 2));
    }
}
