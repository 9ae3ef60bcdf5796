//! What only the stream of events tells: how often things happened, and how long moves took.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::id::PartitionId;
use clusterkit_core::time::Instant;
use clusterkit_core::topology::{Event, Topology};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::events::{Events, EventsLost};
use crate::handle::{ClusterKit, TopologyWatch};
use crate::net::Clock;

/// Upper bounds of rebalances in seconds: from an empty partition to a day of copying.
const REBALANCE_SECONDS: [f64; 10] = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0, 86_400.0];

type KindLabel = [(&'static str, &'static str); 1];

/// Counts of what happened since the router was made.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    events: Family<KindLabel, Counter>,
    lost: Counter,
    /// Times in which replicas moved, from the first move to the last.
    pub(super) rebalances: Counter,
    pub(super) rebalance_durations: Histogram,
    /// Replicas that arrived.
    pub(super) migrations: Counter,
}

impl Default for Observed {
    fn default() -> Self {
        Self {
            events: Family::default(),
            lost: Counter::default(),
            rebalances: Counter::default(),
            rebalance_durations: Histogram::new(REBALANCE_SECONDS),
            migrations: Counter::default(),
        }
    }
}

impl Observed {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("clusterkit_events", "Events that this node saw", self.events.clone());
        let help = "Events that the metrics missed, since they came too fast";
        registry.register("clusterkit_events_lost", help, self.lost.clone());
    }
}

/// Counts until the node stops. Holds no handle on it, so that it does not keep it running.
pub(super) fn run(ck: &ClusterKit, observed: Observed) -> impl Future<Output = ()> + Send + use<> {
    let (events, topology, clock) = (ck.events(), ck.watch(), Arc::clone(&ck.shared().settings.clock));
    follow(events, topology, clock, observed)
}

async fn follow(mut events: Events, topology: TopologyWatch, clock: Arc<dyn Clock>, observed: Observed) {
    let mut rebalance = Rebalance::default();
    rebalance.restart(&topology.current(), clock.now());
    while let Some(next) = events.next().await {
        let now = clock.now();
        match next {
            Ok(event) => {
                observed.events.get_or_create(&[("kind", event.event.kind())]).inc();
                observed.note(&rebalance.take(&event.event, now));
            }
            Err(EventsLost { count }) => {
                observed.lost.inc_by(count);
                rebalance.restart(&topology.current(), now);
            }
        }
    }
}

impl Observed {
    fn note(&self, change: &Change) {
        if change.arrived {
            self.migrations.inc();
        }
        if let Some(took) = change.finished {
            self.rebalances.inc();
            self.rebalance_durations.observe(took.as_secs_f64());
        }
    }
}

/// The moves under way.
#[derive(Debug, Default)]
struct Rebalance {
    moving: BTreeSet<PartitionId>,
    start: Instant,
}

/// What one event changed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    /// A replica is where it shall be.
    arrived: bool,
    /// Nothing moves any more; how long something did.
    finished: Option<Duration>,
}

impl Rebalance {
    /// Takes the moves from the topology: events before it are not known.
    fn restart(&mut self, topology: &Topology, now: Instant) {
        let moving = topology.partitions.iter().filter(|record| record.movement.is_some());
        self.moving = moving.map(|record| record.id).collect();
        self.start = now;
    }

    fn take(&mut self, event: &Event, now: Instant) -> Change {
        match event {
            Event::MoveStarted { partition, .. } => self.started(*partition, now),
            Event::MoveFinished { partition, arrived, .. } => self.ended(*partition, *arrived, now),
            _ => Change::default(),
        }
    }

    fn started(&mut self, partition: PartitionId, now: Instant) -> Change {
        if self.moving.is_empty() {
            self.start = now;
        }
        self.moving.insert(partition);
        Change::default()
    }

    fn ended(&mut self, partition: PartitionId, arrived: bool, now: Instant) -> Change {
        let was_last = self.moving.remove(&partition) && self.moving.is_empty();
        Change { arrived, finished: was_last.then(|| now.since(self.start)) }
    }
}

#[cfg(test)]
mod tests {
    use clusterkit_core::id::NodeId;

    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).expect("a node id")
    }

    fn start(partition: u32) -> Event {
        Event::MoveStarted { partition: PartitionId(partition), source: None, target: node("b") }
    }

    fn finish(partition: u32, arrived: bool) -> Event {
        Event::MoveFinished { partition: PartitionId(partition), source: None, target: node("b"), arrived }
    }

    #[test]
    fn a_rebalance_lasts_from_the_first_move_to_the_last() {
        let at = |seconds| Instant::at(Duration::from_secs(seconds));
        let mut rebalance = Rebalance::default();
        let mut check = |event: Event, second, arrived, finished: Option<u64>| {
            let expect = Change { arrived, finished: finished.map(Duration::from_secs) };
            assert_eq!(rebalance.take(&event, at(second)), expect, "{event:?}");
        };
        check(start(1), 10, false, None);
        check(start(2), 11, false, None);
        check(finish(1, true), 12, true, None);
        check(finish(2, false), 15, false, Some(5));
        check(finish(3, true), 16, true, None);
        check(start(1), 20, false, None);
        check(finish(1, true), 21, true, Some(1));
    }
}
