//! The state machine that is replicated: a register for each key, and the sessions of the clients.

use bytes::{BufMut, Bytes, BytesMut};
use clusterkit_core::replica::{Entry, Record, SessionConfig, SessionRequest, Sessions, Verdict};

use super::chance::roll;

/// Registers of a partition.
pub(super) const KEYS: usize = 4;
/// Bytes of a payload before its padding.
const HEADER_BYTES: usize = 9;

/// A replica's state.
#[derive(Debug, Clone, Default)]
pub(super) struct Machine {
    /// All records below are applied.
    pub(super) applied: u64,
    /// The operation that wrote each register last, 0 for none.
    pub(super) values: [u64; KEYS],
    /// Of everything that took effect, in order.
    pub(super) digest: u64,
    sessions: Sessions,
}

/// What a record did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// An operation took effect.
    Applied { op: u64, key: usize, request: Option<SessionRequest> },
    /// Its session was over.
    Expired,
    /// No effect on the registers.
    Nothing,
    /// It had taken effect at this offset before.
    Repeated { first: u64 },
    /// Too old to tell.
    TooOld,
}

impl Machine {
    /// Applies the next record.
    pub(super) fn apply(&mut self, config: &SessionConfig, record: &Record) -> Effect {
        let offset = self.applied;
        self.applied += 1;
        let verdict = self.sessions.judge(config, offset, record);
        let effect = match (verdict, &record.entry) {
            (Verdict::Apply, Entry::Write { request, payload }) => {
                self.write(config, offset, (*request, payload))
            }
            (Verdict::Repeated(answer), _) => Effect::Repeated { first: number(&answer) },
            (Verdict::SessionExpired, _) => Effect::Expired,
            (Verdict::TooOld, _) => Effect::TooOld,
            (Verdict::Apply | Verdict::Nothing | Verdict::SessionOpened(_), _) => Effect::Nothing,
        };
        self.digest = roll(self.digest, effect.number());
        effect
    }

    fn write(
        &mut self,
        config: &SessionConfig,
        offset: u64,
        (request, payload): (Option<SessionRequest>, &Bytes),
    ) -> Effect {
        let (op, key) = decode(payload);
        self.values[key] = op;
        if let Some(request) = request {
            self.sessions.note_answer(config, request, Bytes::copy_from_slice(&offset.to_be_bytes()));
        }
        Effect::Applied { op, key, request }
    }

    /// Where a request took effect, if that is known.
    pub(super) fn answer(&self, request: SessionRequest) -> Option<u64> {
        self.sessions.answer(request).map(number)
    }
}

impl Effect {
    /// To be rolled into a digest.
    fn number(self) -> u64 {
        match self {
            Self::Applied { op, .. } => op << 3,
            Self::Expired => 1,
            Self::Nothing => 2,
            Self::Repeated { first } => 3 | first << 3,
            Self::TooOld => 4,
        }
    }
}

/// What is logged for a write.
pub(super) fn encode(op: u64, key: usize, padding: usize) -> Bytes {
    let mut payload = BytesMut::with_capacity(HEADER_BYTES + padding);
    payload.put_u64(op);
    payload.put_u8(u8::try_from(key).unwrap_or(0));
    payload.put_bytes(0, padding);
    payload.freeze()
}

/// The operation and its key.
pub(super) fn decode(payload: &Bytes) -> (u64, usize) {
    (number(payload), usize::from(payload.get(8).copied().unwrap_or(0)) % KEYS)
}

fn number(bytes: &Bytes) -> u64 {
    bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// A number for a record: two records have the same one only if they are the same.
pub(super) fn fingerprint(record: &Record) -> u64 {
    let entry = match &record.entry {
        Entry::NoOp => 1,
        Entry::OpenSession => 2,
        Entry::Write { request, payload } => {
            let request = request.map_or(0, |request| {
                let session = roll(request.session.epoch.0, request.session.offset + 1);
                roll(session, request.sequence)
            });
            roll(roll(request, number(payload)), payload.len() as u64)
        }
    };
    roll(roll(record.epoch.0, record.time.0), entry)
}
