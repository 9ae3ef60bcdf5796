//! Messages between the programs that embed nodes.
#![allow(clippy::unwrap_used, reason = "steps of a test that cannot go on without the value")]

mod harness;

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use clusterkit::messages::{Lane, MessageError, MessageHandler, NotSent};
use clusterkit::testing::Cluster;
use clusterkit::{Builder, NodeId};
use tokio::sync::mpsc;

use crate::harness::id;

const SECOND: Duration = Duration::from_secs(1);
/// Longer than anything here takes: a test that hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(120);
/// More than goes into one write, and less than may wait.
const MANY: u32 = 500;

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it takes far less")
}

/// A program that shows its notices to the test, and answers a request with its body and who asked.
struct Program {
    heard: mpsc::Sender<(NodeId, Bytes)>,
}

impl MessageHandler for Program {
    fn handle_notice(&self, from: NodeId, body: Bytes) {
        assert_ne!(body, "panic");
        self.heard.try_send((from, body)).unwrap();
    }

    async fn handle_request(&self, from: NodeId, body: Bytes) -> Bytes {
        match body.as_ref() {
            b"hang" => std::future::pending().await,
            b"panic" => panic!("asked for"),
            b"too much" => vec![0; Lane::Data.body_bytes_max() + 1].into(),
            body => [from.as_str().as_bytes(), b": ", body].concat().into(),
        }
    }
}

type Heard = mpsc::Receiver<(NodeId, Bytes)>;

/// Node 1 without a program, and node 2 with one.
async fn two() -> (Cluster, Heard) {
    let mut cluster = Cluster::new();
    let (heard, notices) = mpsc::channel(MANY as usize);
    let heard = Mutex::new(Some(heard));
    cluster.launch([1], |builder| builder.expect(2)).await;
    let with_program = |builder: Builder| {
        let heard = heard.lock().unwrap().take().expect("it is launched once");
        builder.expect(2).messages(Program { heard })
    };
    cluster.launch([2], with_program).await;
    for number in [1, 2] {
        within(cluster.ready(number)).await.unwrap();
        cluster.until(number, "both are there", |topology| topology.nodes.len() == 2).await;
    }
    (cluster, notices)
}

/// Node 1 asks node 2.
async fn ask_on(cluster: &Cluster, lane: Lane, body: Bytes) -> Result<Bytes, MessageError> {
    within(cluster.node(1).request(&id(2), lane, body, SECOND)).await
}

async fn ask(cluster: &Cluster, from: u32, to: u32, body: &'static str) -> Result<Bytes, MessageError> {
    let body = Bytes::from_static(body.as_bytes());
    within(cluster.node(from).request(&id(to), Lane::Data, body, SECOND)).await
}

#[tokio::test(start_paused = true)]
async fn requests_are_answered_on_both_lanes() {
    let (cluster, _heard) = two().await;
    for lane in [Lane::Data, Lane::Bulk] {
        assert_eq!(ask_on(&cluster, lane, Bytes::from_static(b"hello")).await.unwrap(), "node-1: hello");
    }
    assert_eq!(ask(&cluster, 2, 2, "myself").await.unwrap(), "node-2: myself");
}

#[tokio::test(start_paused = true)]
async fn notices_come_in_the_order_in_which_they_were_sent() {
    let (cluster, mut heard) = two().await;
    for number in 0..MANY {
        cluster.node(1).notify(&id(2), Lane::Data, number.to_be_bytes().to_vec().into()).unwrap();
    }
    for number in 0..MANY {
        let (from, body) = within(heard.recv()).await.unwrap();
        assert_eq!((from, body.as_ref()), (id(1), number.to_be_bytes().as_slice()));
    }
    assert!(heard.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_the_topology_does_not_have_is_sent_nothing() {
    let (cluster, _heard) = two().await;
    let told = cluster.node(1).notify(&id(9), Lane::Data, Bytes::new()).unwrap_err();
    let asked = ask(&cluster, 1, 9, "").await.unwrap_err();
    for error in [told, asked] {
        assert!(matches!(&error, MessageError::UnknownNode { node } if *node == id(9)), "{error}");
        assert!(!error.was_sent());
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_program_says_that_it_takes_no_messages() {
    let (cluster, _heard) = two().await;
    let error = ask(&cluster, 2, 1, "hello").await.unwrap_err();
    assert!(matches!(error, MessageError::NotTaken), "{error}");
    assert!(error.was_sent());
}

#[tokio::test(start_paused = true)]
async fn a_program_that_panics_keeps_its_connection() {
    let (cluster, mut heard) = two().await;
    let error = ask(&cluster, 1, 2, "panic").await.unwrap_err();
    assert!(matches!(error, MessageError::Failed), "{error}");
    for body in ["panic", "after"] {
        cluster.node(1).notify(&id(2), Lane::Data, Bytes::from_static(body.as_bytes())).unwrap();
    }
    assert_eq!(within(heard.recv()).await.unwrap(), (id(1), Bytes::from_static(b"after")));
}

#[tokio::test(start_paused = true)]
async fn what_fits_no_message_is_told_apart_by_whether_it_was_carried_out() {
    let (cluster, _heard) = two().await;
    let largest = Lane::Data.body_bytes_max();
    let answer = ask_on(&cluster, Lane::Bulk, vec![0; largest + 1].into()).await.unwrap();
    assert_eq!(answer.len(), largest + 1 + "node-1: ".len());
    let error = cluster.node(1).notify(&id(2), Lane::Data, vec![0; largest + 1].into()).unwrap_err();
    let MessageError::TooLarge { bytes, bytes_max } = error else { panic!("{error}") };
    assert_eq!((bytes, bytes_max), (largest + 1, largest));
    let error = ask(&cluster, 1, 2, "too much").await.unwrap_err();
    assert!(matches!(error, MessageError::AnswerTooLarge), "{error}");
    assert!(error.was_sent());
}

#[tokio::test(start_paused = true)]
async fn an_error_says_whether_the_request_was_sent() {
    let (mut cluster, _heard) = two().await;
    let error = ask(&cluster, 1, 2, "hang").await.unwrap_err();
    assert!(matches!(error, MessageError::TimedOut), "{error}");
    assert!(error.was_sent());
    let asking = cluster.node(1).clone();
    let asked = tokio::spawn(async move {
        asking.request(&id(2), Lane::Data, Bytes::from_static(b"hang"), PATIENCE).await
    });
    // A request behind it has its answer, so it has arrived.
    ask(&cluster, 1, 2, "hello").await.unwrap();
    cluster.kill(2).await;
    let error = within(asked).await.unwrap().unwrap_err();
    assert!(matches!(error, MessageError::Lost), "{error}");
    let error = ask(&cluster, 1, 2, "hello").await.unwrap_err();
    assert!(matches!(&error, MessageError::NotSent { reason: NotSent::Unreachable(_) }), "{error:?}");
    assert!(!error.was_sent());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_registered_sends_nothing() {
    let mut cluster = Cluster::new();
    cluster.launch([1], |builder| builder.expect(2)).await;
    let error = cluster.node(1).notify(&id(2), Lane::Data, Bytes::new()).unwrap_err();
    assert!(matches!(&error, MessageError::NotSent { reason: NotSent::NotReady }), "{error:?}");
}
