//! What state machines tell those who watch a partition.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use clusterkit_core::id::{PartitionId, ReplicaUid};
use clusterkit_core::replica::ReplicaKey;
use tokio::sync::watch;

use crate::limits::{EVENTS_BYTES_MAX, EVENTS_KEPT};

/// The newest events of each partition that this node holds, and who waits for more.
///
/// Invariants, of each partition:
/// - `kept` has the events of all commands from `start` up to `end`, in order;
/// - it begins where this node began to apply, where a snapshot ended, or where the oldest were forgotten.
#[derive(Debug, Default)]
pub(crate) struct EventHub {
    partitions: Mutex<BTreeMap<PartitionId, Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The replica that is followed; none if this node has none.
    uid: Option<ReplicaUid>,
    start: u64,
    end: u64,
    events: VecDeque<(u64, Bytes)>,
    bytes: usize,
    changed: watch::Sender<()>,
}

impl Kept {
    /// Everything up to `applied` was not heard, everything from there on will be.
    fn begin(&mut self, uid: ReplicaUid, applied: u64) {
        let changed = self.changed.clone();
        *self = Self { uid: Some(uid), start: applied, end: applied, changed, ..Self::default() };
        self.changed.send_replace(());
    }

    fn push(&mut self, end: u64, events: Vec<(u64, Bytes)>) {
        self.end = end;
        for (offset, event) in events {
            self.bytes += event.len();
            self.events.push_back((offset, event));
        }
        // Events of one command are kept or forgotten together.
        let is_old = |kept: &Self, offset| {
            offset < kept.start || kept.events.len() > EVENTS_KEPT || kept.bytes > EVENTS_BYTES_MAX
        };
        while let Some(offset) = self.events.front().map(|(offset, _)| *offset).filter(|at| is_old(self, *at))
        {
            self.start = offset + 1;
            self.bytes -= self.events.pop_front().map_or(0, |(_, event)| event.len());
        }
        self.changed.send_replace(());
    }
}

impl EventHub {
    fn partitions(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Kept>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of a replica stands at `applied`: at the start of the node, when a replica is made, or by a snapshot.
    /// Does nothing where that is known.
    pub(crate) fn begin(&self, key: ReplicaKey, applied: u64) {
        let mut partitions = self.partitions();
        let kept = partitions.entry(key.partition).or_default();
        if kept.uid != Some(key.uid) || kept.end < applied {
            kept.begin(key.uid, applied);
        }
    }

    /// The commands of a replica from `first` up to `end` were applied, and `events` came of them.
    pub(crate) fn publish(&self, key: ReplicaKey, first: u64, end: u64, events: Vec<(u64, Bytes)>) {
        let mut partitions = self.partitions();
        let kept = partitions.entry(key.partition).or_default();
        if kept.uid != Some(key.uid) || kept.end < first {
            kept.begin(key.uid, first);
        }
        // What was under way when a snapshot came is behind it.
        if first == kept.end {
            kept.push(end, events);
        }
    }

    /// This node has no replica of a partition any more.
    pub(crate) fn forget(&self, partition: PartitionId) {
        if let Some(kept) = self.partitions().get_mut(&partition).filter(|kept| kept.uid.is_some()) {
            *kept = Kept { changed: kept.changed.clone(), ..Kept::default() };
            kept.changed.send_replace(());
        }
    }

    /// Events of commands from `from` on, and where to go on; `None` if the oldest of them were not heard or are
    /// forgotten.
    pub(crate) fn since(&self, partition: PartitionId, from: u64) -> Option<(Vec<(u64, Bytes)>, u64)> {
        let partitions = self.partitions();
        let kept = partitions.get(&partition).filter(|kept| kept.uid.is_some() && kept.start <= from)?;
        let begin = kept.events.partition_point(|(offset, _)| *offset < from);
        Some((kept.events.iter().skip(begin).cloned().collect(), kept.end.max(from)))
    }

    /// How far the replica of a partition is applied.
    pub(crate) fn applied(&self, partition: PartitionId) -> Option<u64> {
        self.partitions().get(&partition).filter(|kept| kept.uid.is_some()).map(|kept| kept.end)
    }

    /// Changes with each event of a partition.
    pub(crate) fn watch(&self, partition: PartitionId) -> watch::Receiver<()> {
        self.partitions().entry(partition).or_default().changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartitionId = PartitionId(3);

    fn event(offset: u64) -> (u64, Bytes) {
        (offset, Bytes::from(offset.to_string()))
    }

    fn key(uid: u64) -> ReplicaKey {
        ReplicaKey { partition: P, uid: ReplicaUid(uid) }
    }

    #[test]
    fn who_comes_back_gets_what_it_missed_or_is_told_that_it_cannot() {
        let hub = EventHub::default();
        assert_eq!(hub.since(P, 0), None, "there is no replica here");
        hub.publish(key(1), 9, 12, vec![event(10), event(11)]);
        assert_eq!(hub.since(P, 8), None);
        assert_eq!(hub.since(P, 9), Some((vec![event(10), event(11)], 12)));
        assert_eq!(hub.since(P, 11), Some((vec![event(11)], 12)));
        assert_eq!(hub.since(P, 12), Some((vec![], 12)));
    }

    #[test]
    fn who_missed_nothing_of_a_quiet_partition_waits() {
        let hub = EventHub::default();
        hub.begin(key(1), 7);
        assert_eq!((hub.since(P, 6), hub.since(P, 7)), (None, Some((vec![], 7))));
        hub.publish(key(1), 7, 9, vec![event(8)]);
        hub.begin(key(1), 7);
        assert_eq!(hub.since(P, 7), Some((vec![event(8)], 9)), "it was known to begin there");
        hub.forget(P);
        assert_eq!(hub.since(P, 9), None, "there is no replica here any more");
    }

    #[test]
    fn the_oldest_are_forgotten_by_whole_commands() {
        let hub = EventHub::default();
        let count = EVENTS_KEPT as u64;
        let twice = (0..count).flat_map(|offset| [event(offset), event(offset)]);
        hub.publish(key(1), 0, count, twice.collect());
        let first = (count / 2..count).find(|from| hub.since(P, *from).is_some()).expect("something is kept");
        let (events, end) = hub.since(P, first).expect("it is kept");
        assert_eq!((events.len() as u64, end), (2 * (count - first), count));
        assert_eq!(hub.since(P, first - 1), None);
    }

    #[test]
    fn what_a_snapshot_jumps_over_was_missed() {
        let hub = EventHub::default();
        hub.publish(key(1), 0, 2, vec![event(1)]);
        hub.begin(key(1), 40);
        assert_eq!((hub.since(P, 2), hub.since(P, 40)), (None, Some((vec![], 40))));
        hub.publish(key(1), 2, 3, vec![event(2)]);
        assert_eq!(hub.since(P, 40), Some((vec![], 40)), "it was under way when the snapshot came");
        hub.publish(key(1), 40, 41, vec![event(40)]);
        assert_eq!(hub.since(P, 40), Some((vec![event(40)], 41)));
    }

    #[test]
    fn another_copy_that_begins_anew_is_followed_from_its_beginning() {
        let hub = EventHub::default();
        hub.publish(key(1), 0, 5, vec![event(4)]);
        hub.begin(key(2), 0);
        assert_eq!(hub.since(P, 5), Some((vec![], 5)), "it was heard by the copy before");
        hub.publish(key(2), 0, 7, vec![event(4), event(6)]);
        assert_eq!(hub.since(P, 5), Some((vec![event(6)], 7)));
    }
}
