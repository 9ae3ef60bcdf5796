//! Clients that write all the time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clusterkit_client::{Client, Error, Kv};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ledger::{Ledger, Outcome};

/// The partition that gets all load where one gets all.
pub(super) const HOT: u32 = 0;
/// Writes under way at once: more than come due while nobody leads.
const WRITES_MAX: usize = 4_096;
/// How often it is looked what is due.
const TICK: Duration = Duration::from_millis(2);
/// Names that are tried to find one in each partition.
const NAMES_MAX: u32 = 100_000;

/// Writes at a fixed rate, whatever becomes of the writes before.
pub(super) struct Load {
    ledger: Arc<Mutex<Ledger>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Load {
    /// Begins: each second write puts a key of its own, and each other adds one to the number of its partition.
    pub(super) fn start(client: &Client, rate: u32, partitions: u32, hot: bool) -> Self {
        let load = Self { ledger: Arc::default(), tasks: TaskTracker::new(), stop: CancellationToken::new() };
        let tags = tags(client, if hot { 1 } else { partitions });
        let writer = Writer { kv: client.kv(), tags, ledger: load.ledger.clone(), tasks: load.tasks.clone() };
        let stop = load.stop.clone();
        load.tasks.spawn(async move { stop.run_until_cancelled(writer.run(rate)).await });
        load
    }

    /// Waits for what is under way, and gives the ledger.
    pub(super) async fn stop(self) -> Ledger {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        std::mem::take(&mut *self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A tag of each partition.
fn tags(client: &Client, partitions: u32) -> Vec<(u32, String)> {
    let mut tags = BTreeMap::new();
    for number in 0..NAMES_MAX {
        let tag = format!("{{t{number}}}");
        if let Some(partition) =
            client.partition_of(tag.as_bytes()).filter(|partition| partition.0 < partitions)
        {
            tags.entry(partition.0).or_insert(tag);
        }
        if tags.len() == partitions as usize {
            break;
        }
    }
    tags.into_iter().collect()
}

struct Writer {
    kv: Kv,
    tags: Vec<(u32, String)>,
    ledger: Arc<Mutex<Ledger>>,
    tasks: TaskTracker,
}

impl Writer {
    async fn run(self, rate: u32) {
        let (begun, places) = (Instant::now(), Arc::new(Semaphore::new(WRITES_MAX)));
        let gap = Duration::from_secs(1) / rate.max(1);
        let mut tick = tokio::time::interval(TICK);
        let mut number = 0_u32;
        loop {
            tick.tick().await;
            while begun + gap * number <= Instant::now() {
                let Ok(place) = places.clone().acquire_owned().await else { return };
                let write = self.write(number, begun + gap * number);
                self.tasks.spawn(async move {
                    write.await;
                    drop(place);
                });
                number += 1;
            }
        }
    }

    fn write(&self, number: u32, due: Instant) -> impl Future<Output = ()> + use<> {
        let (kv, ledger) = (self.kv.clone(), self.ledger.clone());
        let (partition, tag) = self.tags[number as usize / 2 % self.tags.len()].clone();
        async move {
            let is_put = number.is_multiple_of(2);
            let key = if is_put { format!("{tag}.{number}") } else { format!("{tag}.count") };
            let error = match is_put {
                true => kv.put(&key, Bytes::from(key.clone())).await.err(),
                false => kv.incr(&key, 1).await.err(),
            };
            let at = Instant::now();
            let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let outcome = outcome(error.as_ref());
            match is_put {
                true => ledger.note_put(key, outcome),
                false => ledger.note_count(&key, outcome),
            }
            match error {
                None => ledger.note_ack(partition, due, at),
                Some(error) => ledger.note_error(error.to_string()),
            }
        }
    }
}

fn outcome(error: Option<&Error>) -> Outcome {
    match error {
        None => Outcome::Acked,
        Some(error) if error.may_have_taken_effect() => Outcome::Unknown,
        Some(_) => Outcome::Failed,
    }
}
