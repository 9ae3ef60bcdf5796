//! The hooks that a partition waits for, and its epochs.

use std::collections::BTreeMap;

use clusterkit_core::handoff::{Progress, Stage};
use clusterkit_core::id::{Epoch, PartitionId};
use clusterkit_core::time::Instant;
use clusterkit_core::topology::{EpochRecord, Event, Partition, StageAwaited};
use serde::Serialize;
use utoipa::ToSchema;

use super::explain::Subject;
use super::text::rfc3339;
use crate::events::EVENTS_KEPT;
use crate::handle::ClusterKit;
use crate::net::{Clock, WallTime};

/// A hook that the node which answers runs, or tries to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnStage {
    pub(super) stage: Stage,
    pub(super) since: Instant,
    pub(super) overdue_since: Option<Instant>,
    pub(super) running: bool,
    pub(super) calls: u32,
    pub(super) reason: Option<String>,
    pub(super) progress: Option<Progress>,
    /// The writes that it waits for before it is called, and since when the oldest of them is out.
    pub(super) permits: Option<(usize, Instant)>,
}

impl OwnStage {
    /// The hook of `partition` on this node.
    pub(super) fn of(ck: &ClusterKit, partition: PartitionId) -> Option<Self> {
        let status = ck.stages().into_iter().find(|status| status.partition == partition)?;
        let drains = status.stage == Stage::Seal && status.calls == 0;
        let permits = ck.shared().leases.outstanding(partition).filter(|_| drains);
        Some(Self {
            stage: status.stage,
            since: status.since,
            overdue_since: status.overdue_since,
            running: status.running,
            calls: status.calls,
            reason: status.reason,
            progress: status.progress,
            permits,
        })
    }
}

/// Whether a hook that runs may be the one that a record waits for: a record does not tell `prepare`
/// from the `catch_up` that follows it.
pub(super) fn is_like(running: Stage, awaited: Stage) -> bool {
    let copies = |stage| matches!(stage, Stage::Prepare | Stage::CatchUp);
    running == awaited || (copies(running) && copies(awaited))
}

/// What the partition waits for: what the record says of living nodes, and what this node runs itself.
fn awaited(subject: &Subject<'_>) -> Vec<StageAwaited> {
    let mut awaited = subject.record.stages_awaited();
    awaited.retain(|awaited| subject.topology.is_live(&awaited.node));
    if let Some(own) = subject.own {
        let known = awaited
            .iter_mut()
            .find(|awaited| awaited.node == *subject.me && is_like(own.stage, awaited.stage));
        match known {
            Some(known) => known.stage = own.stage,
            None => awaited.push(StageAwaited { node: subject.me.clone(), stage: own.stage }),
        }
    }
    awaited
}

/// A hook that a partition waits for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Stage)]
pub(super) struct StageDto {
    /// Where it runs.
    node: String,
    /// Where that node can be asked how it goes.
    public_addr: Option<String>,
    /// `prepare`, `catch_up`, `seal`, `activate` or `release`. What another node shows as `catch_up`
    /// may be the `prepare` before it.
    #[schema(value_type = String)]
    stage: &'static str,
    /// Whether it is past its deadline.
    late: bool,
    /// How it goes. Only the node that runs it knows; ask that one.
    attempt: Option<AttemptDto>,
}

/// How a hook goes.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Attempt)]
struct AttemptDto {
    /// When it was first wanted.
    since: String,
    /// When its deadline passed, if it has.
    late_since: Option<String>,
    /// Whether it runs just now; else it waits to be called.
    running: bool,
    /// How often it was called.
    calls: u32,
    /// What it said when it last refused or deferred.
    reason: Option<String>,
    /// Bytes copied, where it tells.
    bytes: Option<u64>,
    /// Bytes in all, where it tells.
    bytes_total: Option<u64>,
    /// Writes that have to end before it is called.
    permits: usize,
    /// When the oldest of them began.
    permits_since: Option<String>,
}

/// The hooks that the partition waits for.
pub(super) fn stages(subject: &Subject<'_>, clock: &dyn Clock) -> Vec<StageDto> {
    let wall = |at: Instant| wall_at(clock, at);
    awaited(subject).into_iter().map(|awaited| stage(subject, &awaited, &wall)).collect()
}

fn stage(subject: &Subject<'_>, awaited: &StageAwaited, wall: &dyn Fn(Instant) -> WallTime) -> StageDto {
    let own = subject.own.filter(|own| awaited.node == *subject.me && own.stage == awaited.stage);
    let named = subject.record.overrun.as_ref();
    let is_named = named.is_some_and(|late| late.node == awaited.node && late.stage == awaited.stage);
    StageDto {
        node: awaited.node.to_string(),
        public_addr: subject.topology.node(&awaited.node).map(|node| node.public_addr.clone()),
        stage: awaited.stage.as_str(),
        late: is_named || own.is_some_and(|own| own.overdue_since.is_some()),
        attempt: own.map(|own| AttemptDto::new(own, wall)),
    }
}

impl AttemptDto {
    fn new(own: &OwnStage, wall: &dyn Fn(Instant) -> WallTime) -> Self {
        let text = |at: Instant| rfc3339(wall(at));
        Self {
            since: text(own.since),
            late_since: own.overdue_since.map(text),
            running: own.running,
            calls: own.calls,
            reason: own.reason.clone(),
            bytes: own.progress.map(|progress| progress.bytes),
            bytes_total: own.progress.and_then(|progress| progress.bytes_total),
            permits: own.permits.map_or(0, |(count, _)| count),
            permits_since: own.permits.map(|(_, since)| text(since)),
        }
    }
}

/// The time of day at `at`, by what it is now.
fn wall_at(clock: &dyn Clock, at: Instant) -> WallTime {
    let ago = clock.now().since(at).as_millis();
    WallTime(clock.wall().0.saturating_sub(u64::try_from(ago).unwrap_or(u64::MAX)))
}

/// An epoch of a partition.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Epoch)]
pub(super) struct EpochDto {
    epoch: u64,
    /// Who leads it, or led it.
    leader: String,
    /// How it began: `first`, `handover`, `membership`, `position` or `unclean`.
    #[schema(value_type = String)]
    origin: &'static str,
    /// When the node that answers learned of it, if it remembers.
    at: Option<String>,
}

/// The newest epochs of a partition, oldest first.
pub(super) fn history(ck: &ClusterKit, record: &Partition) -> Vec<EpochDto> {
    let events = ck.events_recent(EVENTS_KEPT);
    let elected = events.iter().map(|event| (event.at, &event.event));
    dated(&record.history, &elections(record.id, elected))
}

/// When the epochs of `partition` began, as far as the events tell.
fn elections<'a>(
    partition: PartitionId,
    events: impl Iterator<Item = (WallTime, &'a Event)>,
) -> BTreeMap<Epoch, WallTime> {
    let elected = events.filter_map(|(at, event)| match event {
        Event::LeaderElected { partition: of, epoch, .. } if *of == partition => Some((*epoch, at)),
        _ => None,
    });
    elected.collect()
}

fn dated(history: &[EpochRecord], elections: &BTreeMap<Epoch, WallTime>) -> Vec<EpochDto> {
    let row = |record: &EpochRecord| EpochDto {
        epoch: record.epoch.0,
        leader: record.leader.to_string(),
        origin: record.origin.as_str(),
        at: elections.get(&record.epoch).map(|at| rfc3339(*at)),
    };
    history.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use clusterkit_core::id::NodeId;
    use clusterkit_core::topology::Origin;

    use super::*;

    fn id(name: &str) -> NodeId {
        NodeId::new(name).expect("a node id")
    }

    #[test]
    fn an_epoch_has_a_time_while_its_election_is_remembered() {
        let record =
            |epoch, leader| EpochRecord { epoch: Epoch(epoch), leader: id(leader), origin: Origin::Handover };
        let elected = |partition, epoch| Event::LeaderElected {
            partition: PartitionId(partition),
            leader: id("b"),
            epoch: Epoch(epoch),
            origin: Origin::Handover,
            previous: None,
        };
        let events = [elected(5, 3), elected(6, 2), Event::ClusterFormed];
        let events = events.iter().map(|event| (WallTime(0), event));
        let elections = elections(PartitionId(5), events);
        let shown = dated(&[record(2, "a"), record(3, "b")], &elections);
        let times: Vec<_> = shown.iter().map(|epoch| (epoch.epoch, epoch.at.as_deref())).collect();
        assert_eq!(times, [(2, None), (3, Some("1970-01-01T00:00:00.000Z"))]);
    }

    #[test]
    fn a_copy_that_is_prepared_here_looks_like_one_that_catches_up_elsewhere() {
        for (running, awaited, expect) in [
            (Stage::Prepare, Stage::CatchUp, true),
            (Stage::CatchUp, Stage::CatchUp, true),
            (Stage::Seal, Stage::Seal, true),
            (Stage::Activate, Stage::CatchUp, false),
            (Stage::Release, Stage::Seal, false),
        ] {
            assert_eq!(is_like(running, awaited), expect, "{running} for {awaited}");
        }
    }
}
