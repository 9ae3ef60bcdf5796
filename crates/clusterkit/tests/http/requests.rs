//! The program's own requests to other nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use clusterkit::http::limits::{CLIENT_ANSWER_BYTES_MAX, CLIENT_REQUESTS_PER_NODE_MAX};
use clusterkit::http::{HttpClient, RequestError};
use clusterkit::{ClusterKit, NodeId};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::node::eventually;

/// A program with a node in it and routes of its own on the public port.
struct Program {
    ck: ClusterKit,
    node: NodeId,
    _dir: TempDir,
}

impl Program {
    async fn start(routes: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address").to_string();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self::start_at(&addr).await
    }

    async fn start_at(public_addr: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let builder = ClusterKit::builder("node-1", public_addr).listen("127.0.0.1:0").data_dir(dir.path());
        let ck = builder.start().await.expect("a node");
        Self { node: ck.node_id().clone(), ck, _dir: dir }
    }

    async fn refusal(&self, client: &HttpClient, path: &str) -> RequestError {
        client.get(&self.node, path).await.expect_err("no answer")
    }
}

#[tokio::test]
async fn nodes_are_asked_by_their_ids() {
    let echo = post(|body: String| async move { format!("{body} came") });
    let program = Program::start(Router::new().route("/echo", echo)).await;
    let (client, node) = (program.ck.http(), &program.node);
    let answer = client.post_json(node, "/echo?x=1", "{}").await.expect("an answer");
    assert_eq!(answer.body(), "{} came");
    let missing = client.get(node, "/nothing").await.expect("an answer of any status");
    assert_eq!(missing.status(), 404);
}

#[tokio::test]
async fn what_cannot_be_sent_says_so() {
    let program = Program::start(Router::new()).await;
    let client = program.ck.http();
    let stranger = NodeId::new("stranger").expect("an id");
    let error = client.get(&stranger, "/").await.expect_err("nobody");
    assert!(matches!(&error, RequestError::UnknownNode { node } if *node == stranger), "{error:?}");
    for path in ["no path", "http://127.0.0.1/other", "*", ""] {
        let error = program.refusal(&client, path).await;
        assert!(matches!(&error, RequestError::Target { .. }) && !error.was_sent(), "{path}: {error:?}");
    }
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_was_sent_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let program = Program::start_at(&addr).await;
    let error = program.refusal(&program.ck.http(), "/").await;
    assert!(matches!(&error, RequestError::Unreachable { .. }) && !error.was_sent(), "{error:?}");
}

#[tokio::test]
async fn a_node_that_breaks_off_may_have_done_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.readable().await.expect("a request");
        }
    });
    let program = Program::start_at(&addr).await;
    let error = program.refusal(&program.ck.http(), "/").await;
    assert!(matches!(&error, RequestError::Lost { .. }) && error.was_sent(), "{error:?}");
}

#[tokio::test]
async fn a_node_that_never_answers_is_given_up() {
    let never = get(|| async { std::future::pending::<String>().await });
    let program = Program::start(Router::new().route("/", never)).await;
    let client = program.ck.http().timeout(Duration::from_millis(50));
    let error = program.refusal(&client, "/").await;
    assert!(matches!(&error, RequestError::TimedOut { .. }) && error.was_sent(), "{error:?}");
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_the_end() {
    let long = get(|| async { vec![0_u8; CLIENT_ANSWER_BYTES_MAX + 1] });
    let program = Program::start(Router::new().route("/", long)).await;
    let error = program.refusal(&program.ck.http(), "/").await;
    assert!(matches!(&error, RequestError::AnswerTooLarge { .. }), "{error:?}");
}

/// Counts the requests that are there at once, and lets them go when told.
#[tokio::test]
async fn requests_to_one_node_are_bounded() {
    let (here, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let held = {
        let (here, gate) = (here.clone(), gate.clone());
        get(async move || {
            here.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.expect("it stays open").forget();
            "done"
        })
    };
    let program = Program::start(Router::new().route("/", held)).await;
    let mut asked = JoinSet::new();
    for _ in 0..=CLIENT_REQUESTS_PER_NODE_MAX {
        let (client, node) = (program.ck.http(), program.node.clone());
        asked.spawn(async move { client.get(&node, "/").await });
    }
    eventually("all but one are there", || here.load(Ordering::SeqCst) == CLIENT_REQUESTS_PER_NODE_MAX).await;
    gate.add_permits(1);
    eventually("the last one is there", || here.load(Ordering::SeqCst) > CLIENT_REQUESTS_PER_NODE_MAX).await;
    gate.add_permits(CLIENT_REQUESTS_PER_NODE_MAX);
    while let Some(answer) = asked.join_next().await {
        assert_eq!(answer.expect("no panic").expect("an answer").body(), "done");
    }
}
