//! What happened, as a stream or as a list.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use clusterkit_core::id::{NodeId, PartitionId};
use clusterkit_core::topology::Event;
use futures_util::stream::{self, Stream};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::endpoint::{EVENT_STREAM, Endpoint};
use super::limits::{EVENT_KEEP_ALIVE, EVENT_RETRY, EVENT_STREAMS_MAX};
use super::problem::{Code, Problem};
use super::request::{Closing, Query};
use super::text::rfc3339;
use crate::events::{ClusterEvent, EVENTS_KEPT, EventId, Events};
use crate::handle::ClusterKit;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The name of the event that says that others were dropped.
const LOST: &str = "lost";

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    vec![
        Endpoint::get("/v1/events", events)
            .summary(
                "What happens from now on, as server-sent events; with `follow=false`, what is remembered.",
            )
            .query::<EventsQuery>()
            .header("last-event-id", "The id of the last event that was seen: goes on after it.")
            .text(EVENT_STREAM, "Events, each with its id, its kind and its fields as JSON.")
            .json::<EventListDto>("Events.")
            .fails(&[Code::InvalidValue, Code::TooBusy, Code::UnknownField]),
    ]
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    /// Whether to wait for more; `false` answers at once with what is remembered.
    follow: Option<bool>,
    /// The id of the last event that was seen, for clients that cannot set the header.
    #[param(pattern = "^([0-9]+\\.[0-9]+)?$")]
    after: Option<String>,
}

async fn events(
    State(api): State<Api>,
    headers: HeaderMap,
    Query(query): Query<EventsQuery>,
    closing: Closing,
) -> Result<Response, Problem> {
    let last = last_seen(&headers, &query)?;
    if query.follow == Some(false) {
        return Ok(Json(kept(api.ck(), last)).into_response());
    }
    let busy = || {
        Problem::new(
            Code::TooBusy,
            format!("{EVENT_STREAMS_MAX} streams of events are open; poll with follow=false"),
        )
    };
    let permit = Arc::clone(&api.0.event_streams).try_acquire_owned().map_err(|_| busy())?;
    let feed = Feed::open(api.ck(), last, closing, permit);
    let keep_alive = KeepAlive::new().interval(EVENT_KEEP_ALIVE).text("");
    Ok(Sse::new(feed.into_stream()).keep_alive(keep_alive).into_response())
}

fn last_seen(headers: &HeaderMap, query: &EventsQuery) -> Result<Option<EventId>, Problem> {
    let header = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let Some(text) = header.or(query.after.as_deref()).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let wrong = |error| Problem::new(Code::InvalidValue, format!("{error}, not \"{text}\""));
    text.parse().map(Some).map_err(wrong)
}

fn kept(ck: &ClusterKit, last: Option<EventId>) -> EventListDto {
    let events = ck.events_recent(EVENTS_KEPT).into_iter();
    let unseen = events.filter(|event| last.is_none_or(|last| event.id > last));
    EventListDto { items: unseen.map(|event| EventDto::from(&event)).collect() }
}

/// A stream of events on its way to one client.
struct Feed {
    events: Events,
    /// The newest event that the client saw before: a node that lags behind it repeats none.
    last: Option<EventId>,
    ready: Vec<SseEvent>,
    closing: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Feed {
    fn open(ck: &ClusterKit, last: Option<EventId>, closing: Closing, permit: OwnedSemaphorePermit) -> Self {
        let events = last.map_or_else(|| ck.events(), |last| ck.events_after(last));
        let mut ready = Vec::new();
        if last.is_some_and(|last| has_gap(ck, last)) {
            ready.push(lost(None));
        }
        // Sent first, so that the client knows at once that it is heard.
        ready.push(SseEvent::default().comment("events").retry(EVENT_RETRY));
        Self { events, last, ready, closing: closing.0, _permit: permit }
    }

    fn into_stream(self) -> impl Stream<Item = Result<SseEvent, Infallible>> + Send {
        stream::unfold(self, |mut feed| async move { feed.next().await.map(|event| (Ok(event), feed)) })
    }

    async fn next(&mut self) -> Option<SseEvent> {
        if let Some(event) = self.ready.pop() {
            return Some(event);
        }
        loop {
            let next = tokio::select! {
                next = self.events.next() => next?,
                () = self.closing.cancelled() => return None,
            };
            match next {
                Ok(event) if self.last.is_some_and(|last| event.id <= last) => {}
                Ok(event) => return Some(told(&event)),
                Err(gap) => return Some(lost(Some(gap.count))),
            }
        }
    }
}

/// Whether events after `last` may have been forgotten: nothing as old is remembered any more.
fn has_gap(ck: &ClusterKit, last: EventId) -> bool {
    let oldest = ck.events_recent(EVENTS_KEPT).first().map(|event| event.id);
    oldest.is_none_or(|oldest| oldest > last) && ck.topology().version > last.version
}

fn told(event: &ClusterEvent) -> SseEvent {
    let dto = EventDto::from(event);
    let (id, kind) = (dto.id.clone(), dto.kind);
    SseEvent::default().id(id).event(kind).data(json(&dto))
}

fn lost(count: Option<u64>) -> SseEvent {
    SseEvent::default().event(LOST).data(json(&LostDto { kind: LOST, count }))
}

fn json<T: Serialize>(body: &T) -> String {
    serde_json::to_string(body).expect("strings, numbers and lists can be written as JSON")
}

/// Events were dropped: look at the topology for what is true now.
#[derive(Debug, Serialize)]
struct LostDto {
    kind: &'static str,
    /// How many; not known when they lie too far back.
    count: Option<u64>,
}

/// What is remembered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventList)]
struct EventListDto {
    /// Oldest first.
    items: Vec<EventDto>,
}

/// Something that happened. Fields that its kind does not have are left out.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = Event)]
struct EventDto {
    /// Its place: the topology version that brought it, and its number within.
    id: String,
    /// What happened, as in `leader_elected`.
    #[schema(value_type = String)]
    kind: &'static str,
    /// When this node learned of it.
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    /// Who leads, or led.
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<String>,
    /// How the epoch began: `first`, `handover`, `membership`, `position` or `unclean`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    origin: Option<&'static str>,
    /// Who led before.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_sync: Option<Vec<String>>,
    /// From where a copy moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// To where a copy moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// Whether the copy is there now.
    #[serde(skip_serializing_if = "Option::is_none")]
    arrived: Option<bool>,
    /// The hook that is late, or that a move waits for: `prepare`, `catch_up`, `seal`, `activate` or
    /// `release`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    stage: Option<&'static str>,
}

impl From<&ClusterEvent> for EventDto {
    fn from(event: &ClusterEvent) -> Self {
        let about = Self::about(&event.event);
        Self { id: event.id.to_string(), kind: event.event.kind(), at: rfc3339(event.at), ..about }
    }
}

impl EventDto {
    /// The fields of the event itself.
    fn about(event: &Event) -> Self {
        match event {
            Event::LeaderElected { partition, leader, epoch, origin, previous } => Self {
                epoch: Some(epoch.0),
                leader: Some(leader.to_string()),
                origin: Some(origin.as_str()),
                previous: previous.as_ref().map(ToString::to_string),
                ..Self::of_partition(*partition)
            },
            Event::LeaderLost { partition, leader, epoch } => Self {
                epoch: Some(epoch.0),
                leader: Some(leader.to_string()),
                ..Self::of_partition(*partition)
            },
            Event::DataLossPossible { partition, epoch } => {
                Self { epoch: Some(epoch.0), ..Self::of_partition(*partition) }
            }
            Event::InSyncChanged { partition, in_sync } => {
                let in_sync = in_sync.iter().map(ToString::to_string).collect();
                Self { in_sync: Some(in_sync), ..Self::of_partition(*partition) }
            }
            Event::HookOverran { partition, node, stage } => {
                Self { stage: Some(stage.as_str()), ..Self::of_replica(*partition, node) }
            }
            Event::MoveAdvanced { partition, source, target, stage } => {
                Self { stage: Some(stage.as_str()), ..Self::of_move(*partition, source.as_ref(), target) }
            }
            Event::MoveStarted { partition, source, target } => {
                Self::of_move(*partition, source.as_ref(), target)
            }
            Event::MoveFinished { partition, source, target, arrived } => {
                Self { arrived: Some(*arrived), ..Self::of_move(*partition, source.as_ref(), target) }
            }
            Event::HookOnTime { partition, node }
            | Event::ReplicaAdded { partition, node }
            | Event::ReplicaRemoved { partition, node } => Self::of_replica(*partition, node),
            Event::NodeFailed { node }
            | Event::NodeJoined { node }
            | Event::NodeLeaving { node }
            | Event::NodeLeft { node }
            | Event::NodeRecovered { node }
            | Event::NodeRegistered { node }
            | Event::NodeRemoved { node }
            | Event::NodeSuspected { node } => Self { node: Some(node.to_string()), ..Self::default() },
            _ => Self::default(),
        }
    }

    fn of_partition(partition: PartitionId) -> Self {
        Self { partition: Some(partition.0), ..Self::default() }
    }

    fn of_replica(partition: PartitionId, node: &NodeId) -> Self {
        Self { node: Some(node.to_string()), ..Self::of_partition(partition) }
    }

    fn of_move(partition: PartitionId, source: Option<&NodeId>, target: &NodeId) -> Self {
        let (source, target) = (source.map(ToString::to_string), Some(target.to_string()));
        Self { source, target, ..Self::of_partition(partition) }
    }
}

#[cfg(test)]
mod tests {
    use clusterkit_core::handoff::Stage;
    use clusterkit_core::id::{Epoch, TopologyVersion};
    use clusterkit_core::topology::Origin;

    use super::*;
    use crate::net::WallTime;

    #[test]
    fn an_event_carries_the_fields_of_its_kind_and_no_others() {
        let check = |event: Event, expect: &str| {
            let id = EventId { version: TopologyVersion(42), number: 0 };
            let event = ClusterEvent { id, at: WallTime(0), event };
            assert_eq!(json(&EventDto::from(&event)), expect);
        };
        let node = || NodeId::new("n1").expect("a node id");
        let head = |kind: &str| format!(r#"{{"id":"42.0","kind":"{kind}","at":"1970-01-01T00:00:00.000Z""#);
        check(Event::NodeFailed { node: node() }, &format!(r#"{},"node":"n1"}}"#, head("node_failed")));
        check(Event::ClusterFormed, &format!("{}}}", head("cluster_formed")));
        let elected = Event::LeaderElected {
            partition: PartitionId(5),
            leader: node(),
            epoch: Epoch(3),
            origin: Origin::Handover,
            previous: None,
        };
        let expect = r#""partition":5,"epoch":3,"leader":"n1","origin":"handover"}"#;
        check(elected, &format!("{},{expect}", head("leader_elected")));
        let overran = Event::HookOverran { partition: PartitionId(5), node: node(), stage: Stage::CatchUp };
        let expect = r#""node":"n1","partition":5,"stage":"catch_up"}"#;
        check(overran, &format!("{},{expect}", head("hook_overran")));
        let advanced = Event::MoveAdvanced {
            partition: PartitionId(5),
            source: None,
            target: node(),
            stage: Stage::Activate,
        };
        let expect = r#""partition":5,"target":"n1","stage":"activate"}"#;
        check(advanced, &format!("{},{expect}", head("move_advanced")));
    }
}
