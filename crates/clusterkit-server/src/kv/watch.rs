//! Following keys as they change: `GET /v1/kv/watch`.
//!
//! A watch follows one partition, or all that this node holds, and is a stream of server-sent events. The id of an
//! event says how far the client is in each of them (`partition:offset`, with commas between), so that it can go on
//! from there, here or at another node that holds them. What happened before that and is not remembered any more is
//! told by an event `lost`: the client reads what it watches anew.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Uri};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use clusterkit::PartitionId;
use clusterkit::http::{Closing, Code, Endpoint, Problem, Query};
use clusterkit_data::{Data, Watch};
use clusterkit_services::Namespace;
use clusterkit_services::kv::{Event, EventKind, EventValue};
use futures_util::FutureExt;
use futures_util::stream::{self, BoxStream, SelectAll, Stream, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;

use super::answer::time;
use super::limits::{WATCH_KEEP_ALIVE, WATCH_PARTITIONS_MAX, WATCH_PAUSE, WATCH_RETRY, WATCHES_MAX};
use super::text::{base64, bytes_in_query, text_or_base64};
use super::wish::{Flag, Origin, namespace};
use super::{KvApi, failure};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The media type of the stream.
const EVENT_STREAM: &str = "text/event-stream";
/// The name of the event that says that others were dropped.
const LOST: &str = "lost";

pub(super) fn endpoints() -> Vec<Endpoint<KvApi>> {
    vec![
        Endpoint::get("/v1/kv/watch", watch)
            .summary("The changes of a key, or of those with a prefix, as server-sent events.")
            .query::<WatchQuery>()
            .header("last-event-id", "The id of the last event that was seen: goes on after it.")
            .text(EVENT_STREAM, "`put`, `deleted`, `expired` and `lost`, with their fields as JSON.")
            .fails(&[Code::InvalidValue, Code::MissingParameter, Code::NotFormed, Code::NotHeld])
            .fails(&[Code::TooBusy, Code::UnknownField]),
    ]
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct WatchQuery {
    /// This key alone. The node must hold its partition.
    #[allow(dead_code, reason = "read from the address, where it may have any bytes")]
    key: Option<String>,
    /// Keys that begin with this, in the partitions that the node holds.
    #[allow(dead_code, reason = "read from the address, where it may have any bytes")]
    prefix: Option<String>,
    /// With `prefix`: in this partition alone.
    partition: Option<u32>,
    /// The namespace; `default` unless another one is named.
    ns: Option<String>,
    /// The id of the last event that was seen, for clients that cannot set the header.
    after: Option<String>,
    /// Answer 307 with the address of a node that holds the partition.
    #[param(value_type = Option<bool>)]
    redirect: Option<Flag>,
}

/// Which keys are watched.
#[derive(Debug, Clone)]
struct Filter {
    namespace: Namespace,
    keys: Keys,
}

#[derive(Debug, Clone)]
enum Keys {
    One(Bytes),
    Prefix(Bytes),
}

impl Filter {
    fn takes(&self, namespace: &Namespace, key: &[u8]) -> bool {
        let is_ours = match &self.keys {
            Keys::One(wanted) => wanted == key,
            Keys::Prefix(prefix) => key.starts_with(prefix),
        };
        is_ours && *namespace == self.namespace
    }
}

async fn watch(
    State(api): State<KvApi>,
    uri: Uri,
    headers: HeaderMap,
    Query(query): Query<WatchQuery>,
    origin: Origin,
    closing: Closing,
) -> Result<Response, Problem> {
    let keys = keys(uri.query().unwrap_or_default())?;
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).or(query.after.as_deref());
    let places = places_of(last.unwrap_or_default())?;
    let partitions = match wanted(&api, &keys, query.partition)? {
        Some(partition) if !api.ck.holds(partition) => {
            let redirect = query.redirect.is_some_and(|Flag(redirect)| redirect);
            return Ok(not_held(&api, partition, redirect.then_some(&origin)));
        }
        Some(partition) => vec![partition],
        None => held(&api)?,
    };
    let busy = || Problem::new(Code::TooBusy, format!("{WATCHES_MAX} watches are open on this node"));
    let permit = Arc::clone(&api.watches).try_acquire_owned().map_err(|_| busy())?;
    let filter = Filter { namespace: namespace(query.ns.as_deref())?, keys };
    let feed = Feed::open(api.store.data(), partitions, places, filter, closing, permit).await;
    let keep_alive = KeepAlive::new().interval(WATCH_KEEP_ALIVE).text("");
    Ok(Sse::new(feed.into_stream()).keep_alive(keep_alive).into_response())
}

fn keys(query: &str) -> Result<Keys, Problem> {
    match (bytes_in_query(query, "key")?, bytes_in_query(query, "prefix")?) {
        (Some(key), None) => Ok(Keys::One(key)),
        (None, Some(prefix)) => Ok(Keys::Prefix(prefix)),
        (Some(_), Some(_)) => Err(Problem::new(Code::InvalidValue, "give `key` or `prefix`, not both")),
        (None, None) => {
            let detail = "give `key` or `prefix`; the key that is called `watch` is read as /v1/kv/%77atch";
            Err(Problem::new(Code::MissingParameter, detail))
        }
    }
}

/// The one partition that is watched, if it is one.
fn wanted(api: &KvApi, keys: &Keys, partition: Option<u32>) -> Result<Option<PartitionId>, Problem> {
    let not_formed = || Problem::new(Code::NotFormed, "the cluster has not formed yet; try again later");
    let count = api.store.data().partition_count().ok_or_else(not_formed)?;
    match (keys, partition) {
        (Keys::One(key), None) => Ok(Some(api.partition(key).ok_or_else(not_formed)?)),
        (Keys::One(_), Some(_)) => Err(Problem::new(Code::InvalidValue, "`partition` goes with `prefix`")),
        (Keys::Prefix(_), Some(partition)) if partition >= count => {
            Err(Problem::new(Code::InvalidValue, format!("`partition` is below {count}, not {partition}")))
        }
        (Keys::Prefix(_), partition) => Ok(partition.map(PartitionId)),
    }
}

fn held(api: &KvApi) -> Result<Vec<PartitionId>, Problem> {
    let all = (0..api.store.data().partition_count().unwrap_or_default()).map(PartitionId);
    let held: Vec<_> = all.filter(|partition| api.ck.holds(*partition)).collect();
    if held.len() <= WATCH_PARTITIONS_MAX {
        return Ok(held);
    }
    let detail =
        format!("a watch follows at most {WATCH_PARTITIONS_MAX} partitions; name one by `partition`");
    Err(Problem::new(Code::InvalidValue, detail))
}

/// Another node is to be asked: one that holds the partition, best the one that leads it.
fn not_held(api: &KvApi, partition: PartitionId, redirect: Option<&Origin>) -> Response {
    let leader = api.ck.leader(partition);
    let holder = leader.or_else(|| api.ck.replicas(partition).into_iter().next());
    let Some(holder) = holder else {
        let problem = Problem::new(Code::NotHeld, format!("this node does not hold {partition}"));
        return problem.partition(partition).into_response();
    };
    if let Some(origin) = redirect {
        return failure::redirection(&holder.public_addr, &origin.target);
    }
    let detail = format!("this node does not hold {partition}; ask {} at {}", holder.id, holder.public_addr);
    Problem::new(Code::NotHeld, detail).partition(partition).leader(&*holder.public_addr).into_response()
}

/// Where a client is: the offset that comes next, of each partition.
type Places = BTreeMap<PartitionId, u64>;

/// The id of an event: the offset of the last command that was seen, of each partition.
fn id_of(places: &Places) -> String {
    let places = places.iter().filter_map(|(partition, next)| Some((partition.0, next.checked_sub(1)?)));
    let places: Vec<_> = places.map(|(partition, offset)| format!("{partition}:{offset}")).collect();
    places.join(",")
}

fn places_of(id: &str) -> Result<Places, Problem> {
    let wrong = || Problem::new(Code::InvalidValue, format!("\"{id}\" is no id of an event of a watch"));
    let parse = |place: &str| {
        let (partition, offset) = place.split_once(':')?;
        Some((PartitionId(partition.parse().ok()?), offset.parse::<u64>().ok()?.checked_add(1)?))
    };
    let places = id.split(',').filter(|place| !place.is_empty()).map(parse);
    places.collect::<Option<_>>().ok_or_else(wrong)
}

/// What comes of one partition.
enum Told {
    /// Events, and where the client is after them.
    Events { events: Vec<(Namespace, Event)>, next: u64 },
    /// Some were missed; the client is there now. Nothing where the partition has gone elsewhere.
    Lost { next: Option<u64> },
}

/// Follows one partition by this node's replica.
struct Follower {
    data: Data,
    partition: PartitionId,
    watch: Watch,
    next: u64,
    has_ended: bool,
}

impl Follower {
    async fn open(data: &Data, partition: PartitionId, next: Option<u64>) -> Self {
        let next = match next {
            Some(next) => next,
            None => data.status(partition).await.map_or(0, |status| status.applied),
        };
        let watch = data.watch(partition, next);
        Self { data: data.clone(), partition, watch, next, has_ended: false }
    }

    fn into_stream(self) -> BoxStream<'static, (PartitionId, Told)> {
        let told = stream::unfold(self, |mut follower| async move {
            let told = follower.told().await?;
            Some(((follower.partition, told), follower))
        });
        told.boxed()
    }

    /// What comes next; nothing when the node stops or the partition has gone elsewhere.
    async fn told(&mut self) -> Option<Told> {
        if self.has_ended {
            return None;
        }
        loop {
            if let Ok(events) = self.watch.next().await? {
                return Some(self.read(&events));
            }
            // The past was missed, or the replica is not made yet: then nothing was.
            tokio::time::sleep(WATCH_PAUSE).await;
            let Some(status) = self.data.status(self.partition).await else {
                self.has_ended = true;
                return Some(Told::Lost { next: None });
            };
            match self.watch.next().now_or_never() {
                Some(None) => return None,
                Some(Some(Ok(events))) => return Some(self.read(&events)),
                Some(Some(Err(_))) if status.applied > self.next => return Some(self.skip(status.applied)),
                Some(Some(Err(_))) | None => {}
            }
        }
    }

    fn read(&mut self, events: &[(u64, Bytes)]) -> Told {
        self.next = events.last().map_or(self.next, |(offset, _)| offset + 1);
        // Other services tell of what they do in the same way.
        let ours = events.iter().filter_map(|(_, event)| Event::decode(event).ok());
        Told::Events { events: ours.collect(), next: self.next }
    }

    fn skip(&mut self, next: u64) -> Told {
        self.next = next;
        self.watch = self.data.watch(self.partition, next);
        Told::Lost { next: Some(next) }
    }
}

/// A stream of changes on its way to one client.
struct Feed {
    followers: SelectAll<BoxStream<'static, (PartitionId, Told)>>,
    filter: Filter,
    places: Places,
    closing: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Feed {
    async fn open(
        data: &Data,
        partitions: Vec<PartitionId>,
        last: Places,
        filter: Filter,
        closing: Closing,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let (mut followers, mut places) = (SelectAll::new(), Places::new());
        for partition in partitions {
            let follower = Follower::open(data, partition, last.get(&partition).copied()).await;
            places.insert(partition, follower.next);
            followers.push(follower.into_stream());
        }
        Self { followers, filter, places, closing: closing.0, _permit: permit }
    }

    fn into_stream(self) -> impl Stream<Item = Result<SseEvent, Infallible>> + Send {
        // Sent first, so that the client knows at once that it is heard, and has a place to go on from.
        let hello = SseEvent::default().id(id_of(&self.places)).comment("watching").retry(WATCH_RETRY);
        let rest = stream::unfold(self, |mut feed| async move { Some((feed.next().await?, feed)) });
        stream::iter([hello]).chain(rest.flat_map(stream::iter)).map(Ok)
    }

    async fn next(&mut self) -> Option<Vec<SseEvent>> {
        let closing = self.closing.clone();
        let (partition, told) = tokio::select! {
            told = self.followers.next() => told?,
            () = closing.cancelled() => return None,
        };
        Some(self.told(partition, told))
    }

    /// The events for the client, the last of which says where it is: those of one command are seen together.
    fn told(&mut self, partition: PartitionId, told: Told) -> Vec<SseEvent> {
        let (mut events, next) = match told {
            Told::Lost { next } => (vec![lost(partition)], next),
            Told::Events { events, next } => {
                let ours =
                    events.iter().filter(|(namespace, event)| self.filter.takes(namespace, &event.key));
                (ours.map(|(_, event)| change(partition, event)).collect(), Some(next))
            }
        };
        match next {
            Some(next) => self.places.insert(partition, next),
            None => self.places.remove(&partition),
        };
        if let Some(last) = events.pop() {
            events.push(last.id(id_of(&self.places)));
        }
        events
    }
}

/// A change of a key. Fields that its kind does not have are left out.
#[derive(Debug, Serialize)]
struct ChangeDto {
    kind: &'static str,
    partition: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_bytes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

impl ChangeDto {
    fn new(partition: PartitionId, event: &Event) -> Self {
        let (key, key_base64) = text_or_base64(&event.key);
        let (value_base64, value_bytes, expires_at) = match &event.kind {
            EventKind::Put { value: EventValue::Whole(value), expires_at } => {
                (Some(base64(value)), u32::try_from(value.len()).ok(), *expires_at)
            }
            EventKind::Put { value: EventValue::Omitted { value_bytes }, expires_at } => {
                (None, Some(*value_bytes), *expires_at)
            }
            _ => (None, None, None),
        };
        Self {
            kind: kind(&event.kind),
            partition: partition.0,
            key,
            key_base64,
            version: event.version.0,
            value_base64,
            value_bytes,
            expires_at: expires_at.map(time),
        }
    }
}

fn kind(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Deleted => "deleted",
        EventKind::Expired => "expired",
        EventKind::Put { .. } => "put",
        _ => "changed",
    }
}

fn change(partition: PartitionId, event: &Event) -> SseEvent {
    SseEvent::default().event(kind(&event.kind)).data(json(&ChangeDto::new(partition, event)))
}

/// Changes of a partition were missed: what is watched there is to be read anew.
#[derive(Debug, Serialize)]
struct LostDto {
    kind: &'static str,
    partition: u32,
}

fn lost(partition: PartitionId) -> SseEvent {
    SseEvent::default().event(LOST).data(json(&LostDto { kind: LOST, partition: partition.0 }))
}

fn json<T: Serialize>(body: &T) -> String {
    serde_json::to_string(body).expect("strings and numbers can be written as JSON")
}

#[cfg(test)]
mod tests {
    use clusterkit_data::LogTime;
    use clusterkit_services::kv::Version;

    use super::*;

    #[test]
    fn the_id_of_an_event_says_where_to_go_on() {
        let check = |id: &str, expect: &[(u32, u64)]| {
            let expect: Places =
                expect.iter().map(|(partition, next)| (PartitionId(*partition), *next)).collect();
            assert_eq!(places_of(id).ok(), Some(expect.clone()), "{id}");
            assert_eq!(id_of(&expect), id);
        };
        check("", &[]);
        check("5:16", &[(5, 17)]);
        check("5:16,6:0,63:1000", &[(5, 17), (6, 1), (63, 1_001)]);
        assert_eq!(id_of(&Places::from([(PartitionId(1), 0)])), "", "nothing of it was seen yet");
        for id in ["5", "5:", ":5", "a:1", "5:-1", "5:18446744073709551615"] {
            assert!(places_of(id).is_err(), "{id}");
        }
    }

    #[test]
    fn either_a_key_or_a_prefix_is_watched() {
        assert!(matches!(keys("key=a%2Fb"), Ok(Keys::One(key)) if key == "a/b"));
        assert!(matches!(keys("prefix="), Ok(Keys::Prefix(prefix)) if prefix.is_empty()));
        assert!(keys("key=a&prefix=b").is_err() && keys("ns=a").is_err());
    }

    #[test]
    fn keys_of_others_are_not_told() {
        let namespace = Namespace::default();
        let other: Namespace = "other".parse().expect("a name");
        let filter = |keys| Filter { namespace: namespace.clone(), keys };
        let prefix = filter(Keys::Prefix("user:".into()));
        assert!(prefix.takes(&namespace, b"user:1") && prefix.takes(&namespace, b"user:"));
        assert!(!prefix.takes(&namespace, b"use") && !prefix.takes(&other, b"user:1"));
        let one = filter(Keys::One("a".into()));
        assert!(one.takes(&namespace, b"a") && !one.takes(&namespace, b"ab"));
    }

    #[test]
    fn a_change_carries_the_fields_of_its_kind() {
        let check = |kind, expect: &str| {
            let event = Event { key: "k".into(), version: Version(9), kind };
            assert_eq!(json(&ChangeDto::new(PartitionId(5), &event)), expect);
        };
        check(EventKind::Deleted, r#"{"kind":"deleted","partition":5,"key":"k","version":9}"#);
        check(EventKind::Expired, r#"{"kind":"expired","partition":5,"key":"k","version":9}"#);
        let expires_at = Some(LogTime(0));
        check(
            EventKind::Put { value: EventValue::Whole("hi".into()), expires_at },
            r#"{"kind":"put","partition":5,"key":"k","version":9,"value_base64":"aGk=","value_bytes":2,"expires_at":"1970-01-01T00:00:00.000Z"}"#,
        );
        check(
            EventKind::Put { value: EventValue::Omitted { value_bytes: 70_000 }, expires_at: None },
            r#"{"kind":"put","partition":5,"key":"k","version":9,"value_bytes":70000}"#,
        );
    }
}
