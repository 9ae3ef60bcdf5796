//! How far one follower is, in this epoch and its present run.

use alloc::collections::VecDeque;
use core::time::Duration;

use super::super::Context;
use super::super::mistake::Mistake;
use super::super::record::Record;
use crate::id::{Incarnation, ReplicaUid};
use crate::time::Instant;

/// How far a follower is.
///
/// Invariants:
/// - `matched <= sent`, and `in_flight` has what lies between;
/// - `matched` is durable on the follower and equal to the leader's log, or 0.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(super) uid: ReplicaUid,
    /// The run that attached; 0 before.
    pub(super) incarnation: Incarnation,
    is_attached: bool,
    matched: u64,
    sent: u64,
    /// Ends and bytes of the messages that are not acknowledged yet.
    in_flight: VecDeque<(u64, usize)>,
    in_flight_bytes: usize,
    /// What the follower was told to be committed, and what it said that it knows.
    commit_told: u64,
    commit_known: u64,
    /// Since when the follower owes an answer.
    waiting_since: Option<Instant>,
    /// Answers in a row that did not come. While there are any, one message at a time is sent.
    silences: u32,
    is_fetching: bool,
    snapshot: Option<Incarnation>,
    /// To count as keeping up, it must reach this, and has had time since.
    lag_target: u64,
    lag_since: Instant,
    /// Since when it has had everything whenever it had time to get it, and when it had everything last.
    caught_up_since: Option<Instant>,
    level_at: Instant,
    is_level: bool,
    /// How often this leader left it out.
    expulsions: u32,
    greeted: bool,
}

impl Progress {
    pub(super) fn new(now: Instant, uid: ReplicaUid) -> Self {
        Self {
            uid,
            incarnation: Incarnation(0),
            is_attached: false,
            matched: 0,
            sent: 0,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            commit_told: 0,
            commit_known: 0,
            waiting_since: None,
            silences: 0,
            is_fetching: false,
            snapshot: None,
            lag_target: 1,
            lag_since: now,
            caught_up_since: None,
            level_at: now,
            is_level: false,
            expulsions: 0,
            greeted: true,
        }
    }

    pub(crate) fn uid(&self) -> ReplicaUid {
        self.uid
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(super) fn matched(&self) -> u64 {
        self.matched
    }

    pub(super) fn is_attached(&self) -> bool {
        self.is_attached
    }

    /// Whether a later run than `incarnation` has attached.
    pub(super) fn is_of_later_run(&self, incarnation: Incarnation) -> bool {
        incarnation < self.incarnation
    }

    /// Whether an `Attach` is older than what this run has acknowledged since.
    pub(super) fn is_late(&self, incarnation: Incarnation, log_end: u64) -> bool {
        self.is_attached && self.incarnation == incarnation && log_end < self.matched
    }

    /// The logs are the same up to `end`, and the follower has that much on its disk.
    /// What lies between that and the leader's `log_start` it needs a snapshot for; one may be under way.
    pub(super) fn attach(
        &mut self,
        cx: &Context<'_>,
        incarnation: Incarnation,
        (end, log_start): (u64, u64),
    ) {
        let is_same_run = self.is_attached && self.incarnation == incarnation;
        self.incarnation = incarnation;
        self.is_attached = true;
        self.snapshot = self.snapshot.filter(|sent_to| *sent_to == incarnation && end < log_start);
        self.matched = end;
        self.rewind();
        self.commit_known = 0;
        self.commit_told = 0;
        self.waiting_since = self.snapshot.map(|_| cx.now);
        self.silences = 0;
        if !is_same_run {
            self.note_keeping_up(cx);
        }
    }

    /// Whatever is under way is to be sent again.
    fn rewind(&mut self) {
        self.sent = self.matched;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.is_fetching = false;
        self.commit_told = self.commit_known;
    }

    /// An attached follower waits for a first message, though there may be nothing new.
    pub(super) fn must_hear(&mut self) {
        self.greeted = false;
    }

    /// What it needs next is in the log no more: nothing is sent until a snapshot was. It stays attached, since it
    /// does not ask again by itself.
    pub(super) fn await_snapshot(&mut self, now: Instant) {
        self.rewind();
        self.snapshot = Some(self.incarnation);
        self.waiting_since = Some(now);
    }

    pub(super) fn end_snapshot(&mut self) {
        self.snapshot = None;
    }

    pub(super) fn handle_ack(
        &mut self,
        cx: &Context<'_>,
        incarnation: Incarnation,
        (durable, commit): (u64, u64),
    ) {
        let is_of_run = incarnation == self.incarnation || cx.config.mistakes.has(Mistake::AckOfAnyRun);
        if !is_of_run || !self.is_attached {
            return;
        }
        let is_news = durable > self.matched || commit > self.commit_known;
        self.matched = self.matched.max(durable);
        self.sent = self.sent.max(self.matched);
        self.commit_known = self.commit_known.max(commit);
        while let Some((_, bytes)) = self.in_flight.pop_front_if(|(end, _)| *end <= self.matched) {
            self.in_flight_bytes -= bytes;
        }
        if is_news {
            self.silences = 0;
            self.waiting_since = Some(cx.now);
        }
        if self.sent == self.matched && self.commit_told <= self.commit_known && self.snapshot.is_none() {
            self.waiting_since = None;
        }
    }

    /// What the log's end is, for the measures of keeping up.
    pub(super) fn measure(&mut self, cx: &Context<'_>, log_end: u64, caught_up: bool) {
        if self.is_attached && self.matched >= self.lag_target {
            self.lag_target = log_end.max(1);
            self.lag_since = cx.now;
        }
        if self.is_attached && self.matched >= log_end {
            self.note_keeping_up(cx);
        }
        // Members commit before it acknowledges: it is behind for a moment with each record.
        self.is_level = caught_up;
        if caught_up {
            self.level_at = cx.now;
            self.caught_up_since.get_or_insert(cx.now);
        } else if cx.now.since(self.level_at) >= cx.config.lag_max {
            self.caught_up_since = None;
        }
    }

    fn note_keeping_up(&mut self, cx: &Context<'_>) {
        self.lag_since = cx.now;
    }

    /// Whether it has made no progress for too long (rule S1).
    pub(super) fn lags(&self, cx: &Context<'_>) -> bool {
        self.is_behind() && cx.now.since(self.lag_since) >= cx.config.lag_max
    }

    fn is_behind(&self) -> bool {
        !self.is_attached || self.matched < self.lag_target
    }

    /// Whether it has kept up for long enough to be taken in (rule S6).
    pub(super) fn has_proved_itself(&self, cx: &Context<'_>) -> bool {
        self.is_level && self.caught_up_since.is_some_and(|since| cx.now.since(since) >= self.probation(cx))
    }

    fn probation(&self, cx: &Context<'_>) -> Duration {
        match self.expulsions {
            0 => Duration::ZERO,
            count => {
                (cx.config.expand_after * 2_u32.saturating_pow(count - 1)).min(cx.config.expand_after_max)
            }
        }
    }

    pub(super) fn note_expelled(&mut self) {
        self.expulsions = (self.expulsions + 1).min(16);
        self.caught_up_since = None;
    }

    /// Sends again what has not been answered for too long.
    pub(super) fn resend_if_due(&mut self, cx: &Context<'_>) {
        if self.waiting_since.is_some_and(|since| cx.now.since(since) >= self.patience(cx)) {
            self.rewind();
            self.must_hear();
            // While a snapshot is under way nothing is sent; what comes after it is looked at again.
            self.waiting_since = self.snapshot.is_some().then_some(cx.now);
            self.silences = (self.silences + 1).min(16);
        }
    }

    fn patience(&self, cx: &Context<'_>) -> Duration {
        (cx.config.resend * 2_u32.saturating_pow(self.silences)).min(cx.config.attach_pause_max)
    }

    /// From where on something is to be sent now, if anything is.
    pub(super) fn next_start(&self, cx: &Context<'_>, log_end: u64, commit: u64) -> Option<u64> {
        let is_probing = self.silences > 0 && self.waiting_since.is_some();
        if !self.is_attached || self.is_fetching || is_probing || self.snapshot.is_some() {
            return None;
        }
        let has_room = self.in_flight_bytes < cx.config.window_bytes;
        let has_records = self.sent < log_end && has_room;
        let has_commit = self.in_flight.is_empty() && self.commit_told < commit;
        (has_records || has_commit || !self.greeted).then_some(self.sent)
    }

    pub(super) fn note_sent(&mut self, now: Instant, start: u64, records: &[Record], commit: u64) {
        let bytes = records.iter().map(Record::bytes).sum();
        self.sent = start + records.len() as u64;
        if !records.is_empty() {
            self.in_flight.push_back((self.sent, bytes));
            self.in_flight_bytes += bytes;
        }
        self.commit_told = self.commit_told.max(commit);
        self.greeted = true;
        self.waiting_since.get_or_insert(now);
    }

    pub(super) fn begin_fetch(&mut self) {
        self.is_fetching = true;
    }

    /// Whether the records that were read from `first` on are those that are to be sent next.
    pub(super) fn end_fetch(&mut self, first: u64, incarnation: Incarnation) -> bool {
        let was_fetching = core::mem::replace(&mut self.is_fetching, false);
        was_fetching && self.is_attached && self.sent == first && self.incarnation == incarnation
    }

    pub(super) fn timeouts(&self, cx: &Context<'_>) -> impl Iterator<Item = Instant> {
        let resend = self.waiting_since.map(|since| since + self.patience(cx));
        let lag = self.is_behind().then(|| self.lag_since + cx.config.lag_max);
        let proved = self.caught_up_since.map(|since| since + self.probation(cx));
        [resend, lag, proved].into_iter().flatten()
    }
}
