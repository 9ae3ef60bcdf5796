//! The same on the machine's own network, in real time.

use super::*;
use crate::net::TcpNet;
use clusterkit_wire::hello::Refusal;

async fn tcp_node(node: &str) -> Node {
    start(Arc::new(TcpNet), "127.0.0.1:0", identity(node), Limits::default()).await
}

fn to(node: &Node) -> Target {
    Target { addr: node.transport.local_addr().to_owned(), node: None }
}

#[tokio::test]
async fn calls_of_every_size_are_answered() {
    let (a, b) = (tcp_node("a").await, tcp_node("b").await);
    for bytes in [0, 1, 1_000, 100_000, 10_000_000] {
        let body = Bytes::from(vec![7; bytes]);
        let answer = a.transport.call(&to(&b), Class::Data, kinds::ECHO, body.clone(), MINUTE).await;
        assert_eq!(answer.unwrap(), body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_are_answered() {
    let (a, b) = (tcp_node("a").await, tcp_node("b").await);
    let target = to(&b);
    let calls = (0..5_000_u32).map(|number| {
        let (transport, target) = (a.transport.clone(), target.clone());
        let body = Bytes::copy_from_slice(&number.to_le_bytes());
        tokio::spawn(async move {
            let answer = transport.call(&target, Class::Data, kinds::ECHO, body.clone(), MINUTE).await;
            assert_eq!(answer.unwrap(), body);
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
}

#[tokio::test]
async fn stopped_node_is_a_loss_and_then_refuses() {
    let (mut a, b) = (tcp_node("a").await, tcp_node("b").await);
    let target = to(&b);
    a.transport.call(&target, Class::Control, kinds::ECHO, Bytes::new(), MINUTE).await.unwrap();
    assert_eq!(a.transport.probe(&target.addr, MINUTE).await, ProbeOutcome::Answered(identity("b")));
    b.stop.cancel();
    b.transport.shared.tracker.close();
    b.transport.shared.tracker.wait().await;
    let loss = ConnectionLoss { node: name("b"), addr: target.addr.clone() };
    assert_eq!(a.loss().await, loss);
    assert_eq!(a.transport.probe(&target.addr, MINUTE).await, ProbeOutcome::Refused);
    let error = a.transport.call(&target, Class::Control, kinds::ECHO, Bytes::new(), MINUTE).await;
    assert_matches!(error, Err(CallError::NotSent { reason: NotSent::Unreachable(_) }));
}

#[tokio::test]
async fn busy_node_is_not_taken_for_a_dead_one() {
    let limits = Limits { handshakes_max: 0, handshakes_per_host_max: 0, ..Limits::default() };
    let b = start(Arc::new(TcpNet), "127.0.0.1:0", identity("b"), limits).await;
    let a = tcp_node("a").await;
    let busy = ProbeOutcome::Declined { reason: Refusal::Busy, identity: identity("b") };
    for _ in 0..200 {
        assert_eq!(a.transport.probe(b.transport.local_addr(), MINUTE).await, busy);
    }
}

#[tokio::test]
async fn web_server_of_hyper_is_recognised_as_http() {
    use http_body_util::Empty;
    use hyper::service::service_fn;
    let mut listener = TcpNet.listen("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr();
    tokio::spawn(async move {
        let io = hyper_util::rt::TokioIo::new(listener.accept().await.unwrap());
        let answer = async |_| Ok::<_, std::convert::Infallible>(hyper::Response::new(Empty::<Bytes>::new()));
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service_fn(answer)).await;
    });
    let a = tcp_node("a").await;
    let expect = ProbeOutcome::NotClusterKit { looks_like_http: true };
    assert_eq!(a.transport.probe(&addr, MINUTE).await, expect);
}
