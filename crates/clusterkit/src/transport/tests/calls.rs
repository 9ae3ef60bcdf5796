use futures_util::future::join_all;

use super::*;

#[tokio::test(start_paused = true)]
async fn call_is_answered_on_every_class() {
    let net = MemNet::new();
    let (a, _b) = (node(&net, "a").await, node(&net, "b").await);
    for class in Class::ALL {
        let body = Bytes::from(vec![class.index() as u8; 1_000_000]);
        let answer = a.transport.call(&target("b"), class, kinds::ECHO, body.clone(), SECOND).await;
        assert_eq!(answer.unwrap(), body);
    }
}

#[tokio::test(start_paused = true)]
async fn node_can_call_itself() {
    let net = MemNet::new();
    let a = node(&net, "a").await;
    assert_echo(a.echo("a").await);
    assert_eq!(a.probe("a:7000").await, ProbeOutcome::Answered(identity("a")));
}

#[tokio::test(start_paused = true)]
async fn error_of_the_service_comes_back_with_its_code() {
    let net = MemNet::new();
    let (a, _b) = (node(&net, "a").await, node(&net, "b").await);
    let error = a.call("b", kinds::FAIL, "why").await.unwrap_err();
    assert_matches!(error, CallError::Remote { code: 7, body } if *body == "why");
}

#[tokio::test(start_paused = true)]
async fn panic_of_the_service_is_an_answer_and_no_more() {
    let net = MemNet::new();
    let (a, _b) = (node(&net, "a").await, node(&net, "b").await);
    for kind in [kinds::PANIC_AT_ONCE, kinds::PANIC_LATER] {
        let error = a.call("b", kind, "").await.unwrap_err();
        assert_matches!(error, CallError::Remote { code: ServiceError::PANICKED, .. });
    }
    assert_echo(a.echo("b").await);
    assert!(a.losses.is_empty());
}

#[tokio::test(start_paused = true)]
async fn more_calls_than_fit_are_all_answered() {
    let net = MemNet::new();
    let limits = Limits { in_flight_max: 10, ..Limits::default() };
    let a = node_with(&net, identity("a"), limits).await;
    let _b = node_with(&net, identity("b"), limits).await;
    let calls = (0..3_000_u32).map(|number| {
        let body = Bytes::copy_from_slice(&number.to_le_bytes());
        let a = &a;
        async move {
            let answer = a.transport.call(&target("b"), Class::Data, kinds::ECHO, body.clone(), MINUTE).await;
            assert_eq!(answer.unwrap(), body);
        }
    });
    join_all(calls).await;
}

#[tokio::test(start_paused = true)]
async fn call_that_takes_long_delays_no_other() {
    let net = MemNet::new();
    let (a, b) = (node(&net, "a").await, node(&net, "b").await);
    let slow = a.call("b", kinds::GATED, "slow");
    let fast = async {
        assert_echo(a.echo("b").await);
        b.gate.send_replace(true);
    };
    let (slow, ()) = tokio::join!(slow, fast);
    assert_eq!(slow.unwrap(), "slow");
}

#[tokio::test(start_paused = true)]
async fn requests_of_one_connection_are_handed_over_in_order() {
    let net = MemNet::new();
    let (a, mut b) = (node(&net, "a").await, node(&net, "b").await);
    let body = |number: u32| Bytes::copy_from_slice(&number.to_le_bytes());
    for number in 0..500 {
        a.transport.notify(&target("b"), Class::Data, kinds::TELL, body(number)).unwrap();
    }
    for number in 0..500 {
        assert_eq!(b.told.recv().await.unwrap(), body(number));
    }
}

#[tokio::test(start_paused = true)]
async fn notify_does_not_wait_and_says_when_the_queue_is_full() {
    let net = MemNet::new();
    let a = node(&net, "a").await;
    net.block("a", "b");
    let tell = || a.transport.notify(&target("b"), Class::Data, kinds::TELL, Bytes::new());
    let queued = (0..10_000).take_while(|_| tell().is_ok()).count();
    assert_eq!(queued, limits::CALL_QUEUE_MAX);
    assert_matches!(tell().unwrap_err(), CallError::NotSent { reason: NotSent::QueueFull });
}

#[tokio::test(start_paused = true)]
async fn request_that_fits_no_frame_is_not_sent() {
    let net = MemNet::new();
    let a = node(&net, "a").await;
    let bytes_max = Class::Control.frame_bytes_max();
    let call = async |bytes: usize| {
        let body = Bytes::from(vec![0; bytes]);
        a.transport.call(&target("a"), Class::Control, kinds::ECHO, body, MINUTE).await
    };
    let most = bytes_max - clusterkit_wire::limits::FRAME_HEADER_BYTES;
    assert_eq!(call(most).await.unwrap().len(), most);
    let error = call(most + 1).await.unwrap_err();
    assert_matches!(error, CallError::TooLarge { bytes, bytes_max: max } if *bytes == max + 1 && *max == bytes_max);
}

#[tokio::test(start_paused = true)]
async fn answer_that_fits_no_frame_is_an_error() {
    let net = MemNet::new();
    let (a, _b) = (node(&net, "a").await, node(&net, "b").await);
    let error = a.call("b", kinds::TOO_MUCH, "").await.unwrap_err();
    assert_matches!(error, CallError::Remote { code: ServiceError::ANSWER_TOO_LARGE, .. });
    assert_echo(a.echo("b").await);
}

#[tokio::test(start_paused = true)]
async fn service_knows_who_asks_and_in_which_cluster_that_node_is_now() {
    let net = MemNet::new();
    let (a, _b) = (node(&net, "a").await, node(&net, "b").await);
    a.identity.send_modify(|identity| identity.cluster = None);
    assert_eq!(a.call("b", kinds::WHO, "").await.unwrap(), "a None");
    a.identity.send_modify(|identity| identity.cluster = Some(ClusterId(1)));
    assert_eq!(a.call("b", kinds::WHO, "").await.unwrap(), "a Some(0000000000000001)");
}

#[tokio::test(start_paused = true)]
async fn slow_node_makes_no_other_wait() {
    let net = MemNet::new();
    let limits = Limits { in_flight_max: 2, ..Limits::default() };
    let a = node_with(&net, identity("a"), limits).await;
    let b = node_with(&net, identity("b"), limits).await;
    let _c = node_with(&net, identity("c"), limits).await;
    let stuck = join_all((0..10).map(|_| a.call("b", kinds::GATED, "")));
    let others = async {
        tokio::task::yield_now().await;
        assert_echo(a.echo("c").await);
        assert_echo(b.echo("a").await);
    };
    let (stuck, ()) = tokio::join!(stuck, others);
    let sent = stuck.iter().filter(|end| matches!(end, Err(CallError::TimedOut))).count();
    let unsent = stuck.iter().filter(|end| matches!(end, Err(CallError::NotSent { .. }))).count();
    assert_eq!((sent, unsent), (2, 8));
    b.gate.send_replace(true);
    assert_echo(a.echo("b").await);
}

#[tokio::test(start_paused = true)]
async fn idle_link_ends_without_a_loss_and_the_next_call_dials_again() {
    let net = MemNet::new();
    let (a, b) = (node(&net, "a").await, node(&net, "b").await);
    assert_echo(a.echo("b").await);
    tokio::time::sleep(10 * MINUTE).await; // tidy: the clock is paused
    assert_eq!(b.transport.shared.seats.available_permits(), Limits::default().connections_max);
    assert_echo(a.echo("b").await);
    assert!(a.losses.is_empty() && b.losses.is_empty());
}

#[tokio::test(start_paused = true)]
async fn quiet_connection_in_use_stays() {
    let net = MemNet::new();
    let (a, b) = (node(&net, "a").await, node(&net, "b").await);
    let b_target = target("b");
    let long = a.transport.call(&b_target, Class::Data, kinds::GATED, Bytes::new(), 10 * MINUTE);
    let open = async {
        tokio::time::sleep(5 * MINUTE).await; // tidy: the clock is paused
        b.gate.send_replace(true);
    };
    let (long, ()) = tokio::join!(long, open);
    long.unwrap();
    assert!(a.losses.is_empty() && b.losses.is_empty());
}

#[tokio::test(start_paused = true)]
async fn stopped_transport_sends_nothing_and_ends_every_task() {
    let net = MemNet::new();
    let (a, mut b) = (node(&net, "a").await, node(&net, "b").await);
    let stopping = async {
        assert_echo(a.echo("b").await);
        a.stop.cancel();
    };
    let (unanswered, ()) = tokio::join!(a.call("b", kinds::GATED, ""), stopping);
    assert_matches!(unanswered, Err(CallError::Lost));
    assert_matches!(a.echo("b").await, Err(CallError::Closed));
    let told = a.transport.notify(&target("b"), Class::Data, kinds::TELL, Bytes::new());
    assert_matches!(told, Err(CallError::Closed));
    a.transport.shared.tracker.close();
    timeout(SECOND, a.transport.shared.tracker.wait()).await.unwrap();
    assert_eq!(b.loss().await, lost("a"));
    assert!(a.losses.is_empty());
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "belongs to the transport")]
async fn kinds_of_the_transport_are_no_requests() {
    let net = MemNet::new();
    let a = node(&net, "a").await;
    let _ = a.call("a", 0xf0, "").await;
}

#[tokio::test(start_paused = true)]
async fn links_are_bounded_and_forgotten_when_idle() {
    let net = MemNet::new();
    let (a, _b) = (node(&net, "a").await, node(&net, "b").await);
    let tell = |addr: String| {
        let target = Target { addr, node: None };
        a.transport.notify(&target, Class::Data, kinds::TELL, Bytes::new())
    };
    for number in 0..limits::LINK_ADDRS_MAX {
        tell(format!("gone-{number}:7000")).unwrap();
    }
    assert_matches!(a.echo("b").await, Err(CallError::NotSent { reason: NotSent::TooManyLinks }));
    tell("gone-7:7000".into()).unwrap();
    tokio::time::sleep(2 * limits::LINK_IDLE_MAX).await; // tidy: the clock is paused
    assert_echo(a.echo("b").await);
    assert_eq!(a.transport.shared.links.addrs_count(), 1);
}
