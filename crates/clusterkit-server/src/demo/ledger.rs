//! What was written, and what became of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clusterkit_client::{Client, Kv};

use crate::failure::Failure;

/// Everything that the load did.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Values that were put, by key, each once, and whether that was acknowledged.
    puts: BTreeMap<String, Outcome>,
    /// By key, how often one was added.
    counters: BTreeMap<String, Count>,
    acks: Vec<Ack>,
    errors: Vec<String>,
}

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Acked,
    /// It may have taken effect.
    Unknown,
    /// Nothing was written.
    Failed,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    acked: i64,
    unknown: i64,
}

/// An acknowledged write: when it was due, and when it was acknowledged.
#[derive(Debug, Clone, Copy)]
struct Ack {
    partition: u32,
    due: Instant,
    at: Instant,
}

/// What was found afterwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) acked: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) unknown: u64,
    pub(super) errors: u64,
}

impl Ledger {
    pub(super) fn note_put(&mut self, key: String, outcome: Outcome) {
        self.puts.insert(key, outcome);
    }

    pub(super) fn note_count(&mut self, key: &str, outcome: Outcome) {
        let count = self.counters.entry(key.to_owned()).or_default();
        match outcome {
            Outcome::Acked => count.acked += 1,
            Outcome::Unknown => count.unknown += 1,
            Outcome::Failed => {}
        }
    }

    pub(super) fn note_ack(&mut self, partition: u32, due: Instant, at: Instant) {
        self.acks.push(Ack { partition, due, at });
    }

    pub(super) fn note_error(&mut self, error: String) {
        self.errors.push(error);
    }

    /// One of the errors that clients saw.
    pub(super) fn first_error(&self) -> Option<&str> {
        self.errors.first().map(String::as_str)
    }

    /// The longest that a write of each of these partitions waited since `from`.
    pub(super) fn waits(&self, partitions: impl IntoIterator<Item = u32>, from: Instant) -> Vec<Duration> {
        let longest = |partition: u32| {
            let later = self.acks.iter().filter(|ack| ack.partition == partition && ack.at > from);
            later.map(|ack| ack.at - ack.due.max(from)).max()
        };
        partitions.into_iter().filter_map(longest).collect()
    }

    /// Looks for every write.
    pub(super) async fn check(&self, client: &Client) -> Result<Verdict, Failure> {
        let kv = client.kv();
        let mut verdict = Verdict { errors: self.errors.len() as u64, ..Verdict::default() };
        self.check_puts(&kv, &mut verdict).await?;
        for (key, count) in &self.counters {
            let found = kv.get(key).await.map_err(Failure::Load)?;
            let text = found.map(|entry| entry.value).unwrap_or_default();
            let value: i64 = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
            verdict.acked += count.acked.unsigned_abs();
            verdict.unknown += count.unknown.unsigned_abs();
            verdict.lost += (count.acked - value).max(0).unsigned_abs();
            verdict.duplicated += (value - count.acked - count.unknown).max(0).unsigned_abs();
        }
        Ok(verdict)
    }

    async fn check_puts(&self, kv: &Kv, verdict: &mut Verdict) -> Result<(), Failure> {
        for (key, outcome) in &self.puts {
            match outcome {
                Outcome::Failed => {}
                Outcome::Unknown => verdict.unknown += 1,
                Outcome::Acked => {
                    verdict.acked += 1;
                    let found = kv.get(key).await.map_err(Failure::Load)?;
                    let is_there = found.is_some_and(|entry| entry.value == key.as_bytes());
                    verdict.lost += u64::from(!is_there);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_counted_from_the_fault_on() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut ledger = Ledger::default();
        for (partition, due, done) in [(1, 0, 5), (1, 90, 130), (1, 110, 120), (2, 95, 96), (3, 120, 150)] {
            ledger.note_ack(partition, at(due), at(done));
        }
        let waits = ledger.waits([1, 2, 3], at(100));
        assert_eq!(waits, [Duration::from_millis(30), Duration::from_millis(30)], "of 2 nothing came later");
    }
}
