//! What state machines tell those who watch a partition.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use clusterkit_core::id::PartitionId;
use tokio::sync::watch;

use crate::limits::{EVENTS_BYTES_MAX, EVENTS_KEPT};

/// The newest events of each partition that this node holds, and who waits for more.
///
/// Invariants, of each partition:
/// - `kept` has the events of all commands from `start` up to `end`, in order;
/// - it begins where this node began to apply, or where the oldest were forgotten.
#[derive(Debug, Default)]
pub(crate) struct EventHub {
    partitions: Mutex<BTreeMap<PartitionId, Kept>>,
}

#[derive(Debug)]
struct Kept {
    start: u64,
    end: u64,
    events: VecDeque<(u64, Bytes)>,
    bytes: usize,
    changed: watch::Sender<u64>,
}

impl Default for Kept {
    fn default() -> Self {
        Self { start: 0, end: 0, events: VecDeque::new(), bytes: 0, changed: watch::Sender::new(0) }
    }
}

impl EventHub {
    /// The commands of a partition are applied up to `end`, and `events` came of them.
    pub(crate) fn publish(&self, partition: PartitionId, end: u64, events: Vec<(u64, Bytes)>) {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = partitions.entry(partition).or_default();
        let first = events.first().map_or(end, |(offset, _)| *offset);
        if kept.end == 0 || end < kept.end {
            // This node begins to apply, or another placement of the replica does.
            *kept = Kept { start: first, changed: kept.changed.clone(), ..Kept::default() };
        }
        kept.end = end;
        for (offset, event) in events {
            kept.bytes += event.len();
            kept.events.push_back((offset, event));
        }
        while kept.events.len() > EVENTS_KEPT || kept.bytes > EVENTS_BYTES_MAX {
            let Some((offset, event)) = kept.events.pop_front() else { break };
            kept.bytes -= event.len();
            kept.start = offset + 1;
        }
        // Events of one command are kept or forgotten together.
        while kept.events.front().is_some_and(|(offset, _)| *offset < kept.start) {
            if let Some((_, event)) = kept.events.pop_front() {
                kept.bytes -= event.len();
            }
        }
        kept.changed.send_replace(end);
    }

    /// The state of a partition was replaced: what is kept says nothing of how it came to be.
    pub(crate) fn forget(&self, partition: PartitionId) {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = partitions.get_mut(&partition) {
            *kept = Kept { changed: kept.changed.clone(), ..Kept::default() };
            kept.changed.send_modify(|_| {});
        }
    }

    /// Events of commands from `from` on, and where to go on; `None` if the oldest of them are forgotten.
    pub(crate) fn since(&self, partition: PartitionId, from: u64) -> Option<(Vec<(u64, Bytes)>, u64)> {
        let partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = partitions.get(&partition)?;
        if kept.end == 0 || from < kept.start {
            return None;
        }
        let begin = kept.events.partition_point(|(offset, _)| *offset < from);
        Some((kept.events.iter().skip(begin).cloned().collect(), kept.end.max(from)))
    }

    /// Changes with each event of a partition.
    pub(crate) fn watch(&self, partition: PartitionId) -> watch::Receiver<u64> {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        partitions.entry(partition).or_default().changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartitionId = PartitionId(3);

    fn event(offset: u64) -> (u64, Bytes) {
        (offset, Bytes::from(offset.to_string()))
    }

    #[test]
    fn who_comes_back_gets_what_it_missed_or_is_told_that_it_cannot() {
        let hub = EventHub::default();
        assert_eq!(hub.since(P, 0), None, "nothing was applied here yet");
        hub.publish(P, 12, vec![event(10), event(11)]);
        assert_eq!(hub.since(P, 9), None);
        assert_eq!(hub.since(P, 11), Some((vec![event(11)], 12)));
        assert_eq!(hub.since(P, 12), Some((vec![], 12)));
    }

    #[test]
    fn the_oldest_are_forgotten_by_whole_commands() {
        let hub = EventHub::default();
        let count = EVENTS_KEPT as u64;
        let twice = (0..count).flat_map(|offset| [event(offset), event(offset)]);
        hub.publish(P, count, twice.collect());
        let first = (count / 2..count).find(|from| hub.since(P, *from).is_some()).expect("something is kept");
        let (events, end) = hub.since(P, first).expect("it is kept");
        assert_eq!((events.len() as u64, end), (2 * (count - first), count));
    }

    #[test]
    fn a_state_that_was_replaced_has_no_past() {
        let hub = EventHub::default();
        hub.publish(P, 2, vec![event(1)]);
        hub.forget(P);
        assert_eq!(hub.since(P, 2), None);
        hub.publish(P, 40, vec![event(39)]);
        assert_eq!((hub.since(P, 2), hub.since(P, 39)), (None, Some((vec![event(39)], 40))));
    }
}
