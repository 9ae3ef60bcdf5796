//! Each request of a client takes effect once (rule W3).
//!
//! A client opens a session, which is a record of the log, and numbers its requests. Every replica keeps the last
//! answers of every session beside the state, changes them by applied records only, and so gives a repeated
//! request the answer of the first, on whichever node, also after a snapshot (the table is part of it).
//!
//! Whoever keeps the table as rows beside the state [restores](Sessions::restored) it from them, and writes after each
//! batch the rows that [`Sessions::take_changes`] names. What is done for one record is bounded, so that a batch is.

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::mistake::{Mistake, Mistakes};
use super::record::{Entry, LogTime, Record, SessionId, SessionRequest};

/// Sessions that a record ends at most because they were not used, and as many more because of their answers' bytes:
/// what is left is ended by later records. A record changes no more rows than these have, and a few of its own.
pub const SESSIONS_ENDED_MAX: usize = 64;

/// The bounds of a table of sessions. All replicas of a partition must have the same ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// How many sessions a partition keeps; another one ends the one that was used longest ago. Default 4,096.
    pub sessions_max: usize,
    /// How many answers a session keeps: the most requests that a client may have under way. Default 64.
    pub answers_max: usize,
    /// Bytes of all answers; above, the sessions that were used longest ago end, [`SESSIONS_ENDED_MAX`] for each
    /// record, and of the last one the oldest answers go. Default 4 MiB. All of it is part of every snapshot.
    pub answers_bytes_max: usize,
    /// For how long a session lives unused at least, by the time in the records. Default 10 min.
    pub idle_max: Duration,
    /// Rules left out on purpose, to see that a test notices.
    #[doc(hidden)]
    pub mistakes: Mistakes,
}

impl SessionConfig {
    /// What `answers_max` is unless somebody says otherwise.
    pub const ANSWERS_MAX_DEFAULT: usize = 64;
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            sessions_max: 4_096,
            answers_max: Self::ANSWERS_MAX_DEFAULT,
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
    /// What changed, if somebody writes it down.
    #[serde(skip)]
    touched: Option<Touched>,
}

/// The rows that may not be as they were last written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Touched {
    sessions: BTreeSet<SessionId>,
    answers: BTreeSet<(SessionId, u64)>,
}

/// What is kept of a session beside its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRow {
    /// When it was used last.
    pub used_at: LogTime,
    /// Requests up to this one were answered or refused, and their answers are not kept.
    pub floor: u64,
}

/// The rows that changed, as they are now; `None` where one is gone, if it was ever there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionChanges {
    /// By session.
    pub sessions: BTreeMap<SessionId, Option<SessionRow>>,
    /// By session and number of the request.
    pub answers: BTreeMap<(SessionId, u64), Option<Bytes>>,
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
    /// The table of these rows, which from now on notes what changes. Answers of sessions without a row are passed
    /// over.
    #[must_use]
    pub fn restored(
        sessions: impl IntoIterator<Item = (SessionId, SessionRow)>,
        answers: impl IntoIterator<Item = ((SessionId, u64), Bytes)>,
    ) -> Self {
        let mut restored = Self { touched: Some(Touched::default()), ..Self::default() };
        for (id, SessionRow { used_at, floor }) in sessions {
            restored.by_use.insert((used_at, id));
            restored.sessions.insert(id, Session { used_at, floor, answers: BTreeMap::new() });
        }
        for ((id, sequence), answer) in answers {
            if let Some(session) = restored.sessions.get_mut(&id) {
                restored.answers_bytes += answer.len();
                session.answers.insert(sequence, answer);
            }
        }
        restored
    }

    /// What changed since it was restored or this was called last. Nothing for a table that was not restored from
    /// rows, not even from none.
    pub fn take_changes(&mut self) -> SessionChanges {
        let Some(touched) = self.touched.as_mut().map(core::mem::take) else {
            return SessionChanges::default();
        };
        let session = |id: SessionId| (id, self.sessions.get(&id).map(Session::row));
        let answer = |(id, sequence): (SessionId, u64)| {
            let answers = self.sessions.get(&id).map(|session| &session.answers);
            ((id, sequence), answers.and_then(|answers| answers.get(&sequence)).cloned())
        };
        SessionChanges {
            sessions: touched.sessions.into_iter().map(session).collect(),
            answers: touched.answers.into_iter().map(answer).collect(),
        }
    }

    /// How many rows [`take_changes`](Self::take_changes) would name.
    #[must_use]
    pub fn changed_count(&self) -> usize {
        self.touched.as_ref().map_or(0, |touched| touched.sessions.len() + touched.answers.len())
    }

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
        self.touch(id, []);
        Verdict::SessionOpened(id)
    }

    fn judge_request(&mut self, request: SessionRequest, time: LogTime) -> Verdict {
        let Some(session) = self.sessions.get_mut(&request.session) else { return Verdict::SessionExpired };
        if let Some(touched) = &mut self.touched {
            touched.sessions.insert(request.session);
        }
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
        self.touch(request.session, [request.sequence]);
        self.forget_answers(request.session, |session, _| session.answers.len() > config.answers_max.max(1));
        for _ in 0..SESSIONS_ENDED_MAX {
            let oldest = self.by_use.iter().map(|(_, id)| *id).find(|id| *id != request.session);
            let Some(oldest) = oldest.filter(|_| self.answers_bytes > config.answers_bytes_max) else {
                break;
            };
            self.end(oldest);
        }
        if self.sessions.len() == 1 {
            self.forget_answers(request.session, |session, bytes| {
                bytes > config.answers_bytes_max && session.answers.len() > 1
            });
        }
    }

    /// Forgets the oldest answers of a session as long as they, or the bytes of all, are too many.
    fn forget_answers(&mut self, id: SessionId, too_many: impl Fn(&Session, usize) -> bool) {
        while let Some(session) =
            self.sessions.get_mut(&id).filter(|session| too_many(session, self.answers_bytes))
            && let Some((sequence, bytes)) = session.forget_oldest()
        {
            self.answers_bytes -= bytes;
            self.touch(id, [sequence]);
        }
    }

    fn end(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.by_use.remove(&(session.used_at, id));
            self.answers_bytes -= session.answers.values().map(Bytes::len).sum::<usize>();
            self.touch(id, session.answers.into_keys());
        }
    }

    fn touch(&mut self, id: SessionId, answers: impl IntoIterator<Item = u64>) {
        if let Some(touched) = &mut self.touched {
            touched.sessions.insert(id);
            touched.answers.extend(answers.into_iter().map(|sequence| (id, sequence)));
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
        for _ in 0..SESSIONS_ENDED_MAX {
            let oldest = self.by_use.first().filter(|(used_at, _)| is_over(*used_at)).copied();
            let Some((_, id)) = oldest else { return };
            self.end(id);
        }
    }
}

impl Session {
    /// Which one that is, and how many bytes that frees.
    fn forget_oldest(&mut self) -> Option<(u64, usize)> {
        let (sequence, answer) = self.answers.pop_first()?;
        self.floor = self.floor.max(sequence);
        Some((sequence, answer.len()))
    }

    fn row(&self) -> SessionRow {
        SessionRow { used_at: self.used_at, floor: self.floor }
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

    /// Rows of a table, as somebody keeps them who writes all changes down.
    #[derive(Default)]
    struct Rows {
        sessions: BTreeMap<SessionId, SessionRow>,
        answers: BTreeMap<(SessionId, u64), Bytes>,
    }

    impl Rows {
        fn write(&mut self, changes: SessionChanges) {
            for (id, row) in changes.sessions {
                let _ = match row {
                    Some(row) => self.sessions.insert(id, row),
                    None => self.sessions.remove(&id),
                };
            }
            for (key, answer) in changes.answers {
                let _ = match answer {
                    Some(answer) => self.answers.insert(key, answer),
                    None => self.answers.remove(&key),
                };
            }
        }

        fn restored(&self) -> Sessions {
            Sessions::restored(self.sessions.clone(), self.answers.clone())
        }
    }

    #[test]
    fn a_table_of_the_rows_that_were_written_down_is_the_same_table() {
        let (mut table, mut rows) = (Table::new(), Rows::default());
        table.config = SessionConfig { sessions_max: 3, answers_bytes_max: 40, ..table.config };
        table.sessions = rows.restored();
        let mut number = 7_u64;
        for step in 0..2_000 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (choice, of) = (number >> 60, table.offset.saturating_sub(number >> 32 & 15));
            let time = step * if step % 100 == 99 { 700_000 } else { 1_000 };
            match choice {
                0..3 => drop(table.judge(time, Entry::OpenSession)),
                _ => drop(table.request(time, of, number >> 40 & 7)),
            }
            if choice == 15 {
                rows.write(table.sessions.take_changes());
                assert_eq!(rows.restored(), table.sessions, "step {step}");
                assert_eq!(table.sessions.changed_count(), 0);
                assert_eq!(table.sessions.take_changes(), SessionChanges::default());
            }
        }
    }

    #[test]
    fn a_table_that_nobody_writes_down_notes_no_changes() {
        let mut table = Table::new();
        table.judge(0, Entry::OpenSession);
        assert_eq!(table.sessions.take_changes(), SessionChanges::default());
    }

    #[test]
    fn one_record_ends_a_bounded_number_of_sessions() {
        let mut table = Table::new();
        table.config.sessions_max = 200;
        (0..200).for_each(|_| drop(table.judge(0, Entry::OpenSession)));
        let mut left = || {
            table.judge(600_001, Entry::NoOp);
            table.sessions.count()
        };
        assert_eq!((left(), left(), left(), left()), (136, 72, 8, 0));
    }
}
