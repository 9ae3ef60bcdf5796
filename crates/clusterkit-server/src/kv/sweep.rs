//! Entries that have expired are removed by whoever leads their partition.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clusterkit::PartitionId;
use clusterkit::net::{Clock, SystemClock};
use clusterkit_data::{Ack, Data, LogTime, Read, ReadOptions, WriteOptions};
use clusterkit_services::Namespace;
use clusterkit_services::kv::limits::REMOVED_ENTRIES_MAX;
use clusterkit_services::kv::{Answer, Command, Found, Question};
use tokio::time::{MissedTickBehavior, interval};

use super::limits::{SWEEP_EVERY, SWEEP_TIMEOUT, SWEEPS_PER_ROUND_MAX};

/// Sweeps the partitions that this node leads, for as long as it is polled. What fails is tried again in the next
/// round: what expired is gone for everybody in any case, and only takes up space.
pub(crate) async fn sweep(data: Data) {
    let mut rounds = interval(SWEEP_EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = BTreeMap::new();
    loop {
        rounds.tick().await;
        let led = led(&data);
        known.retain(|partition, _| led.contains(partition));
        for partition in led {
            if is_due(&data, partition, &mut known).await {
                sweep_partition(&data, partition).await;
            }
        }
    }
}

/// When the next entry of a partition expires, as of how far it is applied. While neither time nor partition has moved
/// on, nobody needs to be asked: partitions that are idle cost nothing.
#[derive(Debug, Clone, Copy)]
struct Due {
    applied: u64,
    at: Option<LogTime>,
}

fn led(data: &Data) -> BTreeSet<PartitionId> {
    let Some(node) = data.node() else { return BTreeSet::new() };
    let topology = node.topology();
    let led = topology.partitions.iter().filter(|record| record.leader.as_ref() == Some(node.node_id()));
    led.map(|record| record.id).collect()
}

async fn is_due(data: &Data, partition: PartitionId, known: &mut BTreeMap<PartitionId, Due>) -> bool {
    let now = LogTime(SystemClock.wall().0);
    let applied = data.applied(partition).unwrap_or_default();
    if let Some(due) = known.get(&partition).filter(|due| due.applied == applied) {
        return due.at.is_some_and(|at| at <= now);
    }
    let options = ReadOptions { read: Read::Leader, deadline: SWEEP_TIMEOUT, forward: false };
    let question = Question::ExpiryDue.encode(&Namespace::default());
    let Ok(answered) = data.query(partition, question, &options).await else { return false };
    let Ok(Found::ExpiryDue { at }) = Found::decode(&answered.answer) else { return false };
    known.insert(partition, Due { applied: answered.applied, at });
    at.is_some_and(|at| at <= now)
}

async fn sweep_partition(data: &Data, partition: PartitionId) {
    let command = Command::Sweep { entries_max: REMOVED_ENTRIES_MAX as u32 }.encode(&Namespace::default());
    let options = options(SWEEP_TIMEOUT);
    for _ in 0..SWEEPS_PER_ROUND_MAX {
        let written = data.write(partition, command.clone(), &options).await;
        let answer = written.ok().and_then(|written| written.answer);
        if !answer.is_some_and(|answer| has_more(&answer)) {
            return;
        }
    }
}

/// It need not be numbered: one that is done twice removes what expired meanwhile.
fn options(deadline: Duration) -> WriteOptions {
    WriteOptions { ack: Ack::Quorum, deadline, forward: false, repeat: false, ..WriteOptions::default() }
}

fn has_more(answer: &[u8]) -> bool {
    matches!(Answer::decode(answer), Ok(Answer::Swept { more: true, .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_goes_on_only_while_there_is_more() {
        assert!(has_more(&Answer::Swept { expired: 9, more: true }.encode()));
        assert!(!has_more(&Answer::Swept { expired: 9, more: false }.encode()));
        assert!(!has_more(b"something else"));
    }
}
