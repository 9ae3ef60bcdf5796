use std::io;

use tokio::time::Instant;

use super::*;

#[tokio::test(start_paused = true)]
async fn partition_stalls_calls_and_they_work_again_when_it_heals() {
    let net = MemNet::new();
    let (a, b) = (node(&net, "a").await, node(&net, "b").await);
    assert_echo(a.echo("b").await);
    net.partition(&[&["a"], &["b"]]);
    assert_matches!(a.echo("b").await, Err(CallError::TimedOut));
    net.heal();
    assert_echo(a.echo("b").await);
    assert!(a.losses.is_empty() && b.losses.is_empty());
}

#[tokio::test(start_paused = true)]
async fn connection_that_is_silent_for_long_is_lost_at_both_ends() {
    let net = MemNet::new();
    let (mut a, mut b) = (node(&net, "a").await, node(&net, "b").await);
    assert_echo(a.echo("b").await);
    net.partition(&[&["a"], &["b"]]);
    let start = Instant::now();
    let call = a.transport.call(&target("b"), Class::Control, kinds::ECHO, Bytes::new(), MINUTE).await;
    assert_matches!(call, Err(CallError::Lost));
    assert!(start.elapsed() <= limits::SILENCE_MAX);
    assert_eq!(a.loss().await, lost("b"));
    assert_eq!(b.loss().await, lost("a"));
    assert_matches!(a.echo("b").await, Err(CallError::NotSent { .. }));
    net.heal();
    tokio::time::sleep(limits::DIAL_BACKOFF_MAX).await; // tidy: the clock is paused
    assert_echo(a.echo("b").await);
}

#[tokio::test(start_paused = true)]
async fn call_that_was_never_sent_says_so() {
    let net = MemNet::new();
    let (a, mut b) = (node(&net, "a").await, node(&net, "b").await);
    net.block("b", "a");
    let error = a.call("b", kinds::TELL, "late").await.unwrap_err();
    assert_matches!(error, CallError::NotSent { reason: NotSent::TimedOut });
    net.heal();
    a.call("b", kinds::TELL, "told").await.unwrap();
    assert_eq!(b.told.recv().await.unwrap(), "told");
    assert!(b.told.is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_way_block_lets_the_other_way_through() {
    let net = MemNet::new();
    let (a, mut b) = (node(&net, "a").await, node(&net, "b").await);
    assert_echo(a.echo("b").await);
    net.block("b", "a");
    assert_matches!(a.call("b", kinds::TELL, "heard").await, Err(CallError::TimedOut));
    assert_eq!(b.told.recv().await.unwrap(), "heard");
}

#[tokio::test(start_paused = true)]
async fn killed_node_is_a_loss_at_once_wherever_it_was_connected() {
    let net = MemNet::new();
    let (mut a, b, mut c) = (node(&net, "a").await, node(&net, "b").await, node(&net, "c").await);
    assert_echo(a.echo("b").await);
    assert_echo(b.echo("c").await);
    let start = Instant::now();
    net.kill("b");
    assert_eq!(a.loss().await, lost("b"));
    assert_eq!(c.loss().await, lost("b"));
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(a.probe("b:7000").await, ProbeOutcome::Refused);
    assert_matches!(a.echo("b").await, Err(CallError::NotSent { reason: NotSent::Unreachable(_) }));
}

#[tokio::test(start_paused = true)]
async fn store_is_heard_while_a_connection_that_it_dialled_stands() {
    let net = MemNet::new();
    let (a, mut b) = (node(&net, "a").await, node(&net, "b").await);
    let (store_a, store_b) = (identity("a").store, identity("b").store);
    assert!(!b.transport.hears(store_a));
    assert_echo(a.echo("b").await);
    assert!(b.transport.hears(store_a) && !a.transport.hears(store_b));
    net.kill("a");
    assert_eq!(b.loss().await, lost("a"));
    assert!(!b.transport.hears(store_a), "the loss is told when the connection is gone");
}

#[tokio::test(start_paused = true)]
async fn call_in_flight_to_a_killed_node_is_lost() {
    let net = MemNet::new();
    let (a, _b) = (node(&net, "a").await, node(&net, "b").await);
    let kill = async {
        assert_echo(a.echo("b").await);
        net.kill("b");
    };
    let (call, ()) = tokio::join!(a.call("b", kinds::GATED, ""), kill);
    assert_matches!(call, Err(CallError::Lost));
}

#[tokio::test(start_paused = true)]
async fn node_that_comes_back_is_reached_within_the_backoff() {
    let net = MemNet::new();
    let (a, b) = (node(&net, "a").await, node(&net, "b").await);
    assert_echo(a.echo("b").await);
    net.kill("b");
    drop(b);
    for _ in 0..100 {
        let error = a.echo("b").await.unwrap_err();
        assert_matches!(error, CallError::NotSent { .. } | CallError::Lost);
        tokio::time::sleep(Duration::from_millis(50)).await; // tidy: the clock is paused
    }
    let _b = node(&net, "b").await;
    let start = Instant::now();
    while a.echo("b").await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await; // tidy: the clock is paused
    }
    assert!(start.elapsed() <= limits::DIAL_BACKOFF_MAX);
}

#[tokio::test(start_paused = true)]
async fn call_fails_at_once_while_dialling_just_failed() {
    let net = MemNet::new();
    let a = node(&net, "a").await;
    let start = Instant::now();
    for _ in 0..100 {
        let error = a.echo("nobody").await.unwrap_err();
        let CallError::NotSent { reason: NotSent::Unreachable(source) } = error else {
            panic!("{error:?}");
        };
        assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn probe_of_a_frozen_node_times_out() {
    let net = MemNet::new();
    let (a, _b) = (node(&net, "a").await, node(&net, "b").await);
    net.block("b", "a");
    let start = Instant::now();
    assert_eq!(a.probe("b:7000").await, ProbeOutcome::TimedOut);
    assert_eq!(start.elapsed(), SECOND);
    assert_eq!(a.probe("b").await, ProbeOutcome::Unreachable(io::ErrorKind::InvalidInput));
}

#[tokio::test(start_paused = true)]
async fn latency_delays_a_call_by_one_round_trip() {
    let net = MemNet::new();
    let (a, _b) = (node(&net, "a").await, node(&net, "b").await);
    assert_echo(a.echo("b").await);
    net.delay("a", "b", Duration::from_millis(30));
    net.delay("b", "a", Duration::from_millis(20));
    let start = Instant::now();
    assert_echo(a.echo("b").await);
    assert_eq!(start.elapsed(), Duration::from_millis(50));
}
