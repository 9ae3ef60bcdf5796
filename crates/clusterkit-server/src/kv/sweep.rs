//! Entries that have expired are removed by whoever leads their partition.

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
    loop {
        rounds.tick().await;
        for partition in led(&data) {
            if is_due(&data, partition).await {
                sweep_partition(&data, partition).await;
            }
        }
    }
}

fn led(data: &Data) -> Vec<PartitionId> {
    let Some(node) = data.node() else { return Vec::new() };
    let all = (0..data.partition_count().unwrap_or_default()).map(PartitionId);
    all.filter(|partition| node.is_leader(*partition)).collect()
}

async fn is_due(data: &Data, partition: PartitionId) -> bool {
    let options = ReadOptions { read: Read::Leader, deadline: SWEEP_TIMEOUT, forward: false };
    let question = Question::ExpiryDue.encode(&Namespace::default());
    let Ok(answered) = data.query(partition, question, &options).await else { return false };
    let found = Found::decode(&answered.answer);
    matches!(found, Ok(Found::ExpiryDue { at: Some(at) }) if at <= LogTime(SystemClock.wall().0))
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
