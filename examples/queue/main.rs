//! A work queue: each topic is in order, every message is delivered at least once, and nothing that was
//! published or acknowledged is forgotten when its leader dies.
//!
//! ```console
//! $ cargo run --release --example queue
//! ```
//!
//! starts three nodes, with 16 partitions in three copies, publishes, lets a worker die with messages in
//! its hands, kills a node, and works everything off. With `-- --stay` the nodes run on, to be tried by
//! hand:
//!
//! ```console
//! $ NODE=http://127.0.0.1:40001
//! $ curl -L -X POST "$NODE/publish?topic=mail&payload=hello"
//! {"message_id":"2-41"}
//! $ curl -L -X POST "$NODE/consume?topic=mail"
//! {"message":{"id":"2-41","payload":"hello"}}
//! $ curl -L -X POST "$NODE/ack?topic=mail&id=2-41"
//! ```
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /publish?topic=&payload=` | 200 once every in-sync copy has the message |
//! | `POST /consume?topic=` | the first message that nobody works on, for 3 s |
//! | `POST /ack?topic=&id=` | 200 once every in-sync copy knows that it is done; as often as you like |
//!
//! A topic lies in one partition, whose leader alone publishes and delivers: it numbers messages by its
//! epoch and a count, so those of a new leader come after all of the old one. Who works on which message
//! only the leader knows. When another one takes over, or after 3 s without an acknowledgement, a
//! message is delivered again. A client that publishes again because it got no answer may publish twice.

use std::collections::{BTreeSet, HashMap};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use clusterkit::{Lease, Route};
use common::copies::CopyFrom;
use common::demo::{self, DemoError, promised};
use common::http::{HttpError, PatientClient};
use common::process::Processes;
use common::serve::{Node, Shape, busy, elsewhere};
use common::store::Change;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

const SHAPE: Shape = Shape { partitions: 16, copies: 3, copy_from: CopyFrom::Leader };
/// How long whoever took a message has it to itself. Short, so that the demonstration is.
const VISIBILITY: Duration = Duration::from_secs(3);
/// Messages that are worked on at once; more are not delivered.
const IN_FLIGHT_MAX: usize = 100_000;
/// The topics of the demonstration.
const TOPICS: [&str; 3] = ["mail", "print", "resize"];
/// Messages of each.
const MESSAGES: usize = 40;
/// Between two looks of a worker that found nothing.
const IDLE_PAUSE: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() -> ExitCode {
    demo::main(SHAPE, |node| routes(Queue::new(node)), story).await
}

/// What a user sees: all that was published is worked off in order, although a worker and a node died.
async fn story(cluster: &mut Processes, client: &PatientClient) -> Result<(), DemoError> {
    for number in 0..MESSAGES {
        for topic in TOPICS {
            let path = format!("/publish?topic={topic}&payload={number}");
            client.ask(Method::POST, &path).await?.success::<Value>()?;
        }
    }
    println!("{MESSAGES} messages were published on each of {} topics", TOPICS.len());
    let mut works = TOPICS.map(Work::new);
    for work in &mut works {
        work.consume(client).await?;
    }
    println!("a worker took one of each topic, and died");
    println!("{} is killed", cluster.kill(1).await?);
    for work in &mut works {
        work.finish(client).await?;
    }
    let count = |of: fn(&Work) -> usize| works.iter().map(of).sum();
    println!("all topics are worked off; {} messages came twice", count(|work| work.repeated));
    promised("every message that was published is done", count(|work| MESSAGES - work.done.len()))?;
    promised("none is delivered again that was acknowledged", count(|work| work.risen))?;
    let unordered = count(|work| usize::from(!work.delivered.is_sorted()));
    promised("the messages of a topic come in their order at first", unordered)
}

/// What workers have seen of one topic.
#[derive(Debug)]
struct Work {
    topic: &'static str,
    /// What came, each once, in the order in which it came first.
    delivered: Vec<usize>,
    done: BTreeSet<usize>,
    acknowledged: BTreeSet<String>,
    repeated: usize,
    /// How often something came that was acknowledged before.
    risen: usize,
}

impl Work {
    fn new(topic: &'static str) -> Self {
        let (delivered, done, acknowledged) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        Self { topic, delivered, done, acknowledged, repeated: 0, risen: 0 }
    }

    async fn consume(&mut self, client: &PatientClient) -> Result<Option<Message>, HttpError> {
        let path = format!("/consume?topic={}", self.topic);
        let message = client.ask(Method::POST, &path).await?.success::<Delivery>()?.message;
        if let Some(Message { id, payload }) = &message {
            self.risen += usize::from(self.acknowledged.contains(id));
            if self.delivered.contains(payload) {
                self.repeated += 1;
            } else {
                self.delivered.push(*payload);
            }
        }
        Ok(message)
    }

    /// Works until all is done, or nothing has come for longer than a message can be hidden.
    async fn finish(&mut self, client: &PatientClient) -> Result<(), HttpError> {
        let mut idle_since = Instant::now();
        while self.done.len() < MESSAGES && idle_since.elapsed() < 2 * VISIBILITY {
            let Some(message) = self.consume(client).await? else {
                sleep(IDLE_PAUSE).await;
                continue;
            };
            let path = format!("/ack?topic={}&id={}", self.topic, message.id);
            client.ask(Method::POST, &path).await?.success::<Value>()?;
            self.done.insert(message.payload);
            self.acknowledged.insert(message.id);
            idle_since = Instant::now();
        }
        self.consume(client).await.map(drop)
    }
}

/// What a worker is told.
#[derive(Debug, Deserialize)]
struct Delivery {
    message: Option<Message>,
}

#[derive(Debug, Deserialize)]
struct Message {
    id: String,
    #[serde(deserialize_with = "number")]
    payload: usize,
}

/// The payloads of the demonstration are numbers.
fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn routes(queue: Queue) -> Router {
    Router::new()
        .route("/publish", post(publish))
        .route("/consume", post(consume))
        .route("/ack", post(acknowledge))
        .with_state(queue)
}

#[derive(Debug, Clone)]
struct Queue {
    node: Node,
    published: Arc<AtomicU64>,
    /// Which messages somebody works on, by their keys, and until when.
    in_flight: Arc<Mutex<HashMap<String, Instant>>>,
}

#[derive(Debug, Deserialize)]
struct Publish {
    topic: String,
    payload: String,
}

#[derive(Debug, Deserialize)]
struct Topic {
    topic: String,
}

#[derive(Debug, Deserialize)]
struct Ack {
    topic: String,
    id: String,
}

async fn publish(State(queue): State<Queue>, uri: Uri, Query(ask): Query<Publish>) -> Response {
    if ask.topic.contains(char::is_control) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let lease = match queue.node.route(&ask.topic).await {
        Route::Local(lease) => lease,
        route => return elsewhere(&route, &uri),
    };
    let id = MessageId(lease.epoch().0, queue.published.fetch_add(1, Ordering::Relaxed));
    match queue.node.leader.write(&lease, &id.key(&ask.topic), Change::Set(ask.payload)).await {
        Ok(_) => Json(json!({ "message_id": id.text() })).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn consume(State(queue): State<Queue>, uri: Uri, Query(ask): Query<Topic>) -> Response {
    let lease = match queue.node.route(&ask.topic).await {
        Route::Local(lease) => lease,
        route => return elsewhere(&route, &uri),
    };
    let message = queue.take(&lease, &ask.topic);
    // Looked at after the message was taken: nobody else delivered meanwhile.
    if !lease.is_valid() {
        return busy("the lease ended before the message was delivered");
    }
    Json(json!({ "message": message })).into_response()
}

async fn acknowledge(State(queue): State<Queue>, uri: Uri, Query(ask): Query<Ack>) -> Response {
    let lease = match queue.node.route(&ask.topic).await {
        Route::Local(lease) => lease,
        route => return elsewhere(&route, &uri),
    };
    let Some(key) = MessageId::parse(&ask.id).map(|id| id.key(&ask.topic)) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    // What is not there any more was acknowledged long ago.
    let is_known = queue.node.store.peek(lease.partition(), &key).is_some();
    if is_known && let Err(error) = queue.node.leader.write(&lease, &key, Change::Delete).await {
        return error.into_response();
    }
    if !is_known && !lease.is_valid() {
        return busy("the lease ended before the message was looked up");
    }
    queue.in_flight().remove(&key);
    Json(json!({ "acknowledged": ask.id })).into_response()
}

impl Queue {
    fn new(node: Node) -> Self {
        Self { node, published: Arc::new(AtomicU64::new(1)), in_flight: Arc::default() }
    }

    /// The first message of `topic` that nobody works on. Whoever gets it has it to itself for a while.
    fn take(&self, lease: &Lease, topic: &str) -> Option<Value> {
        let now = Instant::now();
        let mut in_flight = self.in_flight();
        in_flight.retain(|_, until| *until > now);
        if in_flight.len() >= IN_FLIGHT_MAX {
            return None;
        }
        let prefix = format!("{topic}\0");
        let free = |key: &str, _: &str| !in_flight.contains_key(key);
        let found = self.node.store.find(lease.partition(), &prefix, 1, free).pop()?;
        let id = MessageId::of_key(&found.key)?.text();
        in_flight.insert(found.key, now + VISIBILITY);
        Some(json!({ "id": id, "payload": found.value }))
    }

    fn in_flight(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The epoch of the leader that took the message, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MessageId(u64, u64);

impl MessageId {
    /// The key of the message, which sorts as the id does.
    fn key(self, topic: &str) -> String {
        format!("{topic}\0{:020}-{:020}", self.0, self.1)
    }

    fn of_key(key: &str) -> Option<Self> {
        Self::parse(key.rsplit_once('\0')?.1)
    }

    fn parse(text: &str) -> Option<Self> {
        let (epoch, number) = text.split_once('-')?;
        Some(Self(epoch.parse().ok()?, number.parse().ok()?))
    }

    fn text(self) -> String {
        format!("{}-{}", self.0, self.1)
    }
}
