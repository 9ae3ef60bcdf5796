use super::*;
use crate::net::TokioClock;

/// More than any wait of these tests takes, in virtual time.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// What `wait` ends with, and when, by `clock`.
async fn ends<T>(clock: &TokioClock, wait: impl Future<Output = T>) -> (T, Instant) {
    let output = tokio::time::timeout(PATIENCE, wait).await.expect("it ends");
    (output, clock.now())
}

/// A lease on virtual time, supported until `until`.
fn led(until: Instant) -> (TokioClock, Leases, Lease) {
    let clock = TokioClock::new(WallTime(0));
    let leases = Leases::new(Arc::new(Support::new(Arc::new(clock))));
    leases.support().extend(until);
    leases.gate(PARTITION).open(Epoch(1), PartitionVersion(1), holders(1));
    let lease = leases.lead(PARTITION).expect("it leads");
    (clock, leases, lease)
}

#[test]
fn nothing_is_led_that_was_not_opened() {
    let house = House::new();
    house.leases.support().extend(at(10));
    let check = |partition| assert_eq!(house.leases.lead(partition).map(drop), Err(LeaseLost::NotLeader));
    check(PARTITION);
    check(PartitionId(6));
}

#[test]
fn a_lease_names_what_it_is_for() {
    let house = House::leading(at(10));
    let lease = house.lead();
    assert_eq!((lease.partition(), lease.epoch()), (PARTITION, Epoch(1)));
    assert_eq!(format!("{lease:?}"), "Lease { partition: PartitionId(5), epoch: Epoch(1), .. }");
    let permit = lease.begin().expect("it leads");
    assert_eq!(permit.epoch(), Epoch(1));
    let shown = "Permit { partition: PartitionId(5), epoch: Epoch(1), version: PartitionVersion(1), .. }";
    assert_eq!(format!("{permit:?}"), shown);
}

#[test]
fn leases_and_what_waits_for_them_go_between_threads() {
    fn check<T: Send + Sync>(_: &T) {}
    fn check_future(_: &impl Send) {}
    let house = House::leading(at(10));
    let lease = house.lead();
    check(&lease);
    check(&lease.begin().expect("it leads"));
    check_future(&lease.lost());
    check_future(&house.gate.drained());
    check_future(&house.gate.adopted(PartitionVersion(1)));
}

#[test]
fn a_lease_ends_with_its_support_and_comes_back_with_it() {
    let house = House::leading(at(10));
    let lease = house.lead();
    assert_eq!(lease.remaining(), Duration::from_millis(10));
    house.clock.set(at(9));
    assert!(lease.is_valid());
    assert_eq!(lease.remaining(), Duration::from_millis(1));
    house.clock.set(at(10));
    assert_eq!(lease.check(), Err(LeaseLost::Expired));
    assert_eq!(lease.begin().map(drop), Err(LeaseLost::Expired));
    assert_eq!(lease.remaining(), Duration::ZERO);
    assert_eq!(house.leases.lead(PARTITION).map(drop), Err(LeaseLost::Expired));
    house.leases.support().extend(at(20));
    assert!(lease.is_valid(), "nobody else was elected");
}

#[test]
fn a_process_that_was_stopped_confirms_nothing() {
    let house = House::leading(at(10));
    let permit = house.lead().begin().expect("it leads");
    house.clock.set(at(5_000));
    assert_eq!(permit.check(), Err(LeaseLost::Expired));
    assert_eq!(permit.confirm(), Err(LeaseLost::Expired));
}

#[test]
fn a_node_that_stops_confirms_nothing() {
    let house = House::leading(at(10));
    let lease = house.lead();
    let permit = lease.begin().expect("it leads");
    house.leases.support().end();
    house.leases.support().extend(at(20));
    assert_eq!(permit.confirm(), Err(LeaseLost::Stopped));
    assert_eq!(lease.check(), Err(LeaseLost::Stopped));
    assert_eq!(lease.remaining(), Duration::ZERO);
}

/// What happens to a thread that is stopped in the middle of a look: the clock was read while there
/// was support, then another node was elected, and then support came back.
#[test]
fn support_that_came_back_confirms_nothing_of_an_epoch_that_ended() {
    let stop_in = |look: fn(&Lease, Permit) -> Result<(), LeaseLost>| {
        let house = House::leading(at(10));
        let lease = house.lead();
        let permit = lease.begin().expect("it leads");
        let (gate, support) = (Arc::clone(&house.gate), Arc::clone(house.leases.support()));
        house.clock.after_look(move || {
            gate.close(LeaseLost::Superseded { epoch: Epoch(2) });
            support.extend(at(30));
        });
        look(&lease, permit)
    };
    let lost = Err(LeaseLost::Superseded { epoch: Epoch(2) });
    assert_eq!(stop_in(|_, permit| permit.confirm()), lost);
    assert_eq!(stop_in(|_, permit| permit.check()), lost);
    assert_eq!(stop_in(|lease, _| lease.check()), lost);
    assert_eq!(stop_in(|lease, _| lease.begin().map(drop)), lost);
    let no_time = |lease: &Lease, _: Permit| match lease.remaining() {
        Duration::ZERO => Ok(()),
        _ => Err(LeaseLost::Expired),
    };
    assert_eq!(stop_in(no_time), Ok(()));
}

#[test]
fn a_permit_is_out_until_it_is_confirmed() {
    let house = House::leading(at(10));
    let permit = house.lead().begin().expect("it leads");
    let seen = Arc::new(Mutex::new(None));
    let (gate, in_confirm) = (Arc::clone(&house.gate), Arc::clone(&seen));
    house.clock.after_look(move || *in_confirm.lock().expect("no panic") = gate.outstanding());
    assert_eq!(permit.confirm(), Ok(()));
    assert_eq!(*seen.lock().expect("no panic"), Some((1, at(0))), "a handoff has to wait so long");
    assert_eq!(house.gate.outstanding(), None);
}

#[tokio::test(start_paused = true)]
async fn lost_waits_for_as_long_as_support_is_renewed() {
    let (clock, leases, lease) = led(at(300));
    let renew = async {
        for renewal in 1..=20 {
            clock.sleep_until(at(100 * renewal)).await;
            leases.support().extend(at(100 * renewal + 300));
        }
    };
    let (lost, ()) = tokio::join!(ends(&clock, lease.lost()), renew);
    assert_eq!(lost, (LeaseLost::Expired, at(2_300)));
}

#[test]
fn lost_sleeps_once_for_each_time_that_support_is_known_to_end() {
    let house = House::leading(at(300));
    let lease = house.lead();
    let mut lost = Waiting::new(async move { lease.lost().await });
    for millis in 1..=1_000 {
        house.clock.set(at(millis));
        if millis % 100 == 0 {
            house.leases.support().extend(at(millis + 300));
        }
        assert_eq!(lost.poll(), Poll::Pending);
    }
    let sleeps = house.clock.sleeps.load(Ordering::Relaxed);
    // It knew of an end at 300, slept, found 500 or 600, and so on.
    assert!(sleeps <= 5, "slept {sleeps} times");
}

#[tokio::test(start_paused = true)]
async fn lost_ends_at_once_when_the_epoch_or_the_node_does() {
    async fn check(act: impl FnOnce(&Leases), expect: LeaseLost) {
        let (clock, leases, lease) = led(at(60_000));
        let act = async {
            clock.sleep_until(at(50)).await;
            act(&leases);
        };
        let (lost, ()) = tokio::join!(ends(&clock, lease.lost()), act);
        assert_eq!(lost, (expect.clone(), at(50)));
        assert_eq!(ends(&clock, lease.lost()).await, (expect, at(50)), "and again");
    }
    let newer = LeaseLost::Superseded { epoch: Epoch(2) };
    check(|leases| leases.gate(PARTITION).close(newer.clone()), newer.clone()).await;
    check(|leases| leases.gate(PARTITION).close(LeaseLost::NotLeader), LeaseLost::NotLeader).await;
    let reopen = |leases: &Leases| {
        leases.gate(PARTITION).open(Epoch(2), PartitionVersion(2), holders(1));
    };
    check(reopen, newer.clone()).await;
    check(|leases| leases.support().end(), LeaseLost::Stopped).await;
}

#[tokio::test(start_paused = true)]
async fn a_handoff_under_way_is_no_end() {
    let (clock, leases, lease) = led(at(60_000));
    let gate = leases.gate(PARTITION);
    assert!(gate.suspend(Epoch(1)));
    let wait = tokio::time::timeout(Duration::from_secs(1), lease.lost());
    assert!(wait.await.is_err(), "it may be called off");
    gate.close(LeaseLost::Superseded { epoch: Epoch(2) });
    assert_eq!(ends(&clock, lease.lost()).await.0, LeaseLost::Superseded { epoch: Epoch(2) });
}

#[tokio::test(start_paused = true)]
async fn support_without_an_end_can_be_waited_for() {
    let (clock, leases, lease) = led(Instant::at(Duration::MAX));
    assert!(tokio::time::timeout(Duration::from_secs(60), lease.lost()).await.is_err());
    assert!(lease.remaining() > PATIENCE);
    leases.support().end();
    assert_eq!(ends(&clock, lease.lost()).await.0, LeaseLost::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_was_dropped_can_be_begun_again() {
    let (clock, leases, lease) = led(at(1_000));
    for _ in 0..10 {
        assert!(tokio::time::timeout(Duration::from_millis(10), lease.lost()).await.is_err());
    }
    leases.support().extend(at(2_000));
    assert!(tokio::time::timeout(Duration::from_millis(1_500), lease.lost()).await.is_err());
    assert_eq!(ends(&clock, lease.lost()).await, (LeaseLost::Expired, at(2_000)));
}

#[tokio::test(start_paused = true)]
async fn a_handoff_waits_for_the_last_write() {
    let (clock, leases, lease) = led(at(60_000));
    let gate = leases.gate(PARTITION);
    let write = async {
        let permit = lease.begin().expect("it leads");
        clock.sleep_until(at(700)).await;
        permit.confirm()
    };
    let hand_over = async {
        clock.sleep_until(at(100)).await;
        assert!(gate.suspend(Epoch(1)));
        ends(&clock, gate.drained()).await
    };
    assert_eq!(tokio::join!(write, hand_over), (Ok(()), ((), at(700))));
}

#[test]
fn threads_that_write_end_with_the_gate() {
    const WRITERS: usize = 4;
    let house = House::leading(at(10));
    let lease = house.lead();
    let closed = AtomicBool::new(false);
    let written = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let writer = || loop {
            let was_closed = closed.load(Ordering::SeqCst);
            let Ok(permit) = lease.begin() else { return };
            assert!(!was_closed, "a permit was issued after the gate closed");
            written.fetch_add(1, Ordering::Relaxed);
            drop(permit);
        };
        let writers = [(); WRITERS].map(|()| scope.spawn(writer));
        while written.load(Ordering::Relaxed) < 1_000 {
            std::thread::yield_now();
        }
        house.gate.close(LeaseLost::NotLeader);
        closed.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.join().expect("no panic");
        }
    });
    assert_eq!(house.gate.outstanding(), None);
}
