//! What does not speak as a node does, at either end.

use clusterkit_core::id::Epoch;
use clusterkit_wire::frame::{CallId, Exchange, Frame, kind};
use clusterkit_wire::hello::{Hello, PREFACE, Refused, Welcome};
use clusterkit_wire::limits::HELLO_BYTES_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};

use super::*;
use crate::net::{Connection, Listener};
use crate::transport::limits::PUBLIC_ANSWER_BYTES_MAX;
use crate::transport::public::{AskError, PublicAnswer};
use clusterkit_wire::hello::Refusal;

/// Listens on host `stranger` and serves every connection with `serve`.
async fn stranger<F>(net: &MemNet, serve: fn(Connection) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut listener: Box<dyn Listener> = net.host("stranger").listen(":7000").await.unwrap();
    tokio::spawn(async move {
        while let Ok(connection) = listener.accept().await {
            tokio::spawn(serve(connection));
        }
    });
}

async fn http(mut connection: Connection) {
    let mut request = [0; 1_024];
    let _ = connection.read(&mut request).await;
    let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let _ = connection.write_all(answer).await;
}

async fn echo(connection: Connection) {
    let (mut reader, mut writer) = split(connection);
    let _ = copy(&mut reader, &mut writer).await;
}

async fn silence(connection: Connection) {
    std::future::pending::<()>().await;
    drop(connection);
}

async fn hang_up(connection: Connection) {
    drop(connection);
}

fn frame(kind: u8, exchange: Exchange, body: impl Into<Bytes>) -> Frame {
    Frame { kind, exchange, call: CallId(1), cluster: None, epoch: Epoch(0), body: body.into() }
}

fn hello() -> Frame {
    frame(kind::HELLO, Exchange::Request, Hello::new(Class::Control, identity("stranger")).encode())
}

/// A connection from host `stranger` to node `b` on which these bytes were sent.
async fn dial(net: &MemNet, bytes: &[u8]) -> Connection {
    let mut connection = net.host("stranger").connect("b:7000").await.unwrap();
    connection.write_all(bytes).await.unwrap();
    connection
}

/// A connection from host `stranger` to node `b` that is welcome there.
async fn welcome_guest(net: &MemNet) -> Connection {
    let bytes = [&PREFACE[..], &hello().encode(HELLO_BYTES_MAX).unwrap()].concat();
    let mut connection = dial(net, &bytes).await;
    let welcome = answer(&mut connection).await.unwrap();
    assert_eq!(welcome.kind, kind::WELCOME);
    assert_eq!(Welcome::decode(&welcome.body).unwrap().identity, identity("b"));
    connection
}

/// The frame behind the preface; `None` when the node only hangs up.
async fn answer(connection: &mut Connection) -> Option<Frame> {
    let mut preface = [0; 8];
    connection.read_exact(&mut preface).await.ok()?;
    assert_eq!(preface, PREFACE);
    Some(next_frame(connection).await)
}

async fn next_frame(connection: &mut Connection) -> Frame {
    let length = connection.read_u32_le().await.unwrap();
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.resize(length as usize + 8, 0);
    connection.read_exact(&mut bytes[4..]).await.unwrap();
    Frame::decode(&bytes.into(), 1 << 20).unwrap()
}

/// Waits until the node closes the connection and counts what it still sent.
async fn bytes_until_closed(connection: &mut Connection) -> usize {
    let mut rest = Vec::new();
    let _ = connection.read_to_end(&mut rest).await;
    rest.len()
}

#[tokio::test(start_paused = true)]
async fn http_server_is_recognised() {
    let net = MemNet::new();
    stranger(&net, http).await;
    let a = node(&net, "a").await;
    let error = a.echo("stranger").await.unwrap_err();
    assert_matches!(error, CallError::NotClusterKit { looks_like_http: true });
    assert_eq!(error.to_string(), "it answers HTTP; this is not a node address");
    let expect = ProbeOutcome::NotClusterKit { looks_like_http: true };
    assert_eq!(a.probe("stranger:7000").await, expect);
}

#[tokio::test(start_paused = true)]
async fn echo_is_no_node() {
    let net = MemNet::new();
    stranger(&net, echo).await;
    let a = node(&net, "a").await;
    let expect = ProbeOutcome::NotClusterKit { looks_like_http: false };
    assert_eq!(a.probe("stranger:7000").await, expect);
    assert_matches!(a.echo("stranger").await, Err(CallError::NotClusterKit { looks_like_http: false }));
}

#[tokio::test(start_paused = true)]
async fn silence_is_no_answer() {
    let net = MemNet::new();
    stranger(&net, silence).await;
    let a = node(&net, "a").await;
    assert_eq!(a.probe("stranger:7000").await, ProbeOutcome::TimedOut);
    let error = a.echo("stranger").await.unwrap_err();
    assert_matches!(error, CallError::NotSent { reason: NotSent::TimedOut });
}

#[tokio::test(start_paused = true)]
async fn hanging_up_is_no_proof_of_death() {
    let net = MemNet::new();
    stranger(&net, hang_up).await;
    let a = node(&net, "a").await;
    assert_matches!(a.probe("stranger:7000").await, ProbeOutcome::Unreachable(_));
}

#[tokio::test(start_paused = true)]
async fn first_bytes_of_a_stranger_end_the_connection_without_a_word() {
    let net = MemNet::new();
    let _b = node(&net, "b").await;
    let mut connection = dial(&net, b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(answer(&mut connection).await, None);
}

#[tokio::test(start_paused = true)]
async fn hello_must_come_in_time() {
    let net = MemNet::new();
    let b = node(&net, "b").await;
    let start = Instant::now();
    let mut connection = dial(&net, &PREFACE).await;
    tokio::task::yield_now().await;
    assert_eq!(b.transport.shared.handshakes.open_count(), 1);
    assert_eq!(bytes_until_closed(&mut connection).await, 0);
    assert_eq!(start.elapsed(), limits::HELLO_TIMEOUT);
    assert_eq!(b.transport.shared.handshakes.open_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_host_cannot_take_every_handshake() {
    let net = MemNet::new();
    let limits = Limits { handshakes_per_host_max: 2, ..Limits::default() };
    let b = node_with(&net, identity("b"), limits).await;
    let _held = [dial(&net, b"").await, dial(&net, b"").await];
    let mut third = dial(&net, b"").await;
    let refused = Refused::decode(&answer(&mut third).await.unwrap().body).unwrap();
    assert_eq!(refused, Refused { reason: Refusal::Busy, identity: identity("b") });
    let a = node(&net, "a").await;
    assert_eq!(a.probe("b:7000").await, ProbeOutcome::Answered(identity("b")));
    assert_eq!(b.transport.shared.handshakes.open_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn all_handshakes_together_are_bounded() {
    let net = MemNet::new();
    let limits = Limits { handshakes_max: 2, ..Limits::default() };
    let _b = node_with(&net, identity("b"), limits).await;
    let _held = [dial(&net, b"").await, dial(&net, b"").await];
    let a = node(&net, "a").await;
    let busy = ProbeOutcome::Declined { reason: Refusal::Busy, identity: identity("b") };
    assert_eq!(a.probe("b:7000").await, busy);
    tokio::time::sleep(limits::HELLO_TIMEOUT).await; // tidy: the clock is paused
    assert_eq!(a.probe("b:7000").await, ProbeOutcome::Answered(identity("b")));
}

#[tokio::test(start_paused = true)]
async fn hello_that_is_in_no_order_is_refused_with_the_reason() {
    let net = MemNet::new();
    let _b = node(&net, "b").await;
    let check = async |frame: &[u8], expect: Refusal| {
        let mut connection = dial(&net, &[&PREFACE, frame].concat()).await;
        let refused = answer(&mut connection).await.unwrap();
        assert_eq!(Refused::decode(&refused.body).unwrap().reason, expect);
        assert_eq!(bytes_until_closed(&mut connection).await, 0);
    };
    let encoded = |frame: Frame| frame.encode(1 << 20).unwrap();
    check(&encoded(frame(kind::HELLO, Exchange::Request, vec![1; 5_000])), Refusal::MessageTooLarge).await;
    check(&encoded(frame(kind::HELLO, Exchange::Request, "?")), Refusal::ProtocolUnknown { min: 1, max: 1 })
        .await;
    check(&encoded(frame(kind::HELLO, Exchange::Request, "\x01?")), Refusal::Malformed).await;
    check(&encoded(frame(kinds::ECHO, Exchange::Request, "")), Refusal::Malformed).await;
    let later = Hello { protocol_min: 2, protocol_max: 9, ..Hello::new(Class::Data, identity("c")) };
    let later = frame(kind::HELLO, Exchange::Request, later.encode());
    check(&encoded(later), Refusal::ProtocolUnknown { min: 1, max: 1 }).await;
    let mut damaged = encoded(hello()).to_vec();
    damaged[20] ^= 1;
    check(&damaged, Refusal::Malformed).await;
}

#[tokio::test(start_paused = true)]
async fn damaged_frame_ends_the_connection_and_reaches_no_service() {
    let net = MemNet::new();
    let mut b = node(&net, "b").await;
    let mut guest = welcome_guest(&net).await;
    let mut bytes = frame(kinds::TELL, Exchange::OneWay, "damage").encode(1_024).unwrap().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    guest.write_all(&bytes).await.unwrap();
    bytes_until_closed(&mut guest).await;
    assert_eq!(b.loss().await, lost("stranger"));
    assert!(b.told.is_empty());
}

#[tokio::test(start_paused = true)]
async fn frame_that_announces_too_much_ends_the_connection_at_once() {
    let net = MemNet::new();
    let mut b = node(&net, "b").await;
    let mut guest = welcome_guest(&net).await;
    let bytes_max = u32::try_from(Class::Control.frame_bytes_max()).unwrap();
    guest.write_all(&(bytes_max - 7).to_le_bytes()).await.unwrap();
    bytes_until_closed(&mut guest).await;
    assert_eq!(b.loss().await, lost("stranger"));
}

#[tokio::test(start_paused = true)]
async fn frames_that_have_no_place_end_the_connection() {
    let net = MemNet::new();
    let mut b = node(&net, "b").await;
    let misplaced = [
        hello(),
        frame(kinds::ECHO, Exchange::Response, ""),
        frame(kinds::ECHO, Exchange::ErrorResponse, ""),
        frame(kind::PING, Exchange::Request, ""),
        frame(0xff, Exchange::OneWay, ""),
    ];
    for frame in misplaced {
        let mut guest = welcome_guest(&net).await;
        guest.write_all(&frame.encode(HELLO_BYTES_MAX).unwrap()).await.unwrap();
        bytes_until_closed(&mut guest).await;
        assert_eq!(b.loss().await, lost("stranger"));
    }
}

#[tokio::test(start_paused = true)]
async fn guest_that_never_pings_is_closed_and_one_that_does_is_answered() {
    let net = MemNet::new();
    let mut b = node(&net, "b").await;
    let mut guest = welcome_guest(&net).await;
    let request = frame(kinds::ECHO, Exchange::Request, "hello").encode(1_024).unwrap();
    guest.write_all(&request).await.unwrap();
    let response = next_frame(&mut guest).await;
    assert_eq!((response.exchange, response.call), (Exchange::Response, CallId(1)));
    assert_eq!(response.body, "hello");
    let start = Instant::now();
    let pings = bytes_until_closed(&mut guest).await / clusterkit_wire::limits::FRAME_HEADER_BYTES;
    assert_eq!(start.elapsed(), limits::SILENCE_MAX);
    assert!((4..=5).contains(&pings), "{pings}");
    assert_eq!(b.loss().await, lost("stranger"));
}

/// Answers one request with `answer` on host `public` and asks it.
async fn ask_one(answer: impl Into<String>) -> Result<PublicAnswer, AskError> {
    let answer = answer.into();
    let net = MemNet::new();
    let mut listener = net.host("public").listen(":8080").await.unwrap();
    tokio::spawn(async move {
        let mut connection = listener.accept().await.unwrap();
        let mut request = vec![0; 4_096];
        let count = connection.read(&mut request).await.unwrap();
        let request = String::from_utf8_lossy(&request[..count]).into_owned();
        assert!(request.starts_with("GET /v1/cluster/info HTTP/1.1\r\nhost: public:8080\r\n"), "{request}");
        connection.write_all(answer.as_bytes()).await.unwrap();
        let _ = connection.read(&mut [0; 1]).await;
    });
    ask_public(&net.host("a"), "public:8080", SECOND).await
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test(start_paused = true)]
async fn public_address_tells_the_node_address() {
    let expect = PublicAnswer {
        node_addr: "10.0.0.1:7000".into(),
        node_id: name("node-1"),
        cluster_name: "demo".into(),
    };
    let answer = r#"{"local_id":"node-1","node_addr":"10.0.0.1:7000","cluster_name":"demo","more":[1,{}]}"#;
    assert_eq!(ask_one(ok(answer)).await.unwrap(), expect);
}

#[tokio::test(start_paused = true)]
async fn public_address_of_something_else_is_told_apart() {
    let moved = "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n";
    assert_matches!(ask_one(moved).await, Err(AskError::Status { status: 302 }));
    assert_matches!(ask_one(ok("{}")).await, Err(AskError::Answer(_)));
    assert_matches!(ask_one(ok(&" ".repeat(PUBLIC_ANSWER_BYTES_MAX + 1))).await, Err(AskError::Body { .. }));
    assert_matches!(ask_one("+PONG\r\n").await, Err(AskError::Http(_)));
    assert_matches!(ask_one("HTTP/1.1 200 OK\r\n").await, Err(AskError::TimedOut));
    let nobody = ask_public(&MemNet::new().host("a"), "public:8080", SECOND).await;
    assert_matches!(nobody, Err(AskError::Unreachable(_)));
}

#[tokio::test(start_paused = true)]
async fn node_address_given_for_a_public_one_answers_no_http() {
    let net = MemNet::new();
    let _b = node(&net, "b").await;
    assert_matches!(ask_public(&net.host("a"), "b:7000", SECOND).await, Err(AskError::Http(_)));
}
