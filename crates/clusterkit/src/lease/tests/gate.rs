use super::*;

/// A wait of the gate that owns it.
fn waiting<F>(house: &House, wait: impl FnOnce(Arc<Gate>) -> F) -> Waiting<()>
where
    F: Future<Output = ()> + 'static,
{
    Waiting::new(wait(Arc::clone(&house.gate)))
}

fn drained(house: &House) -> Waiting<()> {
    waiting(house, |gate| async move { gate.drained().await })
}

fn adopted(house: &House, version: u64) -> Waiting<()> {
    waiting(house, move |gate| async move { gate.adopted(PartitionVersion(version)).await })
}

#[test]
fn permits_carry_the_record_that_was_adopted_last() {
    let house = House::leading(at(10));
    let lease = house.lead();
    let before = lease.begin().expect("it leads");
    house.adopt(3);
    let after = lease.begin().expect("it leads");
    assert_eq!((before.version(), before.holders()), (PartitionVersion(1), &*holders(1)));
    assert_eq!((after.version(), after.holders()), (PartitionVersion(3), &*holders(3)));
    assert_eq!(before.confirm(), Ok(()), "the same leader, the same epoch");
}

#[test]
fn adoption_waits_for_the_permits_before_it_alone() {
    let house = House::leading(at(10));
    let lease = house.lead();
    let [first, second] = [(); 2].map(|()| lease.begin().expect("it leads"));
    house.adopt(2);
    let later = lease.begin().expect("it leads");
    let mut adopted = adopted(&house, 2);
    assert_eq!(adopted.poll(), Poll::Pending);
    drop(second);
    assert_eq!(adopted.poll(), Poll::Pending);
    assert_eq!(first.confirm(), Ok(()));
    assert_eq!(adopted.poll(), Poll::Ready(()));
    drop(later);
}

#[test]
fn a_handoff_lets_begun_writes_end_and_begins_none() {
    let house = House::leading(at(10));
    let lease = house.lead();
    let permit = lease.begin().expect("it leads");
    assert!(house.gate.suspend(Epoch(1)));
    let mut drained = drained(&house);
    assert_eq!(lease.begin().map(drop), Err(LeaseLost::HandingOver));
    assert_eq!(lease.check(), Err(LeaseLost::HandingOver));
    assert_eq!(lease.remaining(), Duration::ZERO);
    assert_eq!(house.leases.lead(PARTITION).map(drop), Err(LeaseLost::HandingOver));
    assert_eq!(drained.poll(), Poll::Pending);
    assert_eq!(permit.check(), Ok(()));
    assert_eq!(permit.confirm(), Ok(()));
    assert_eq!(drained.poll(), Poll::Ready(()));
}

#[test]
fn a_handoff_called_off_leaves_the_leases_as_they_were() {
    let house = House::leading(at(10));
    let lease = house.lead();
    assert!(house.gate.suspend(Epoch(1)));
    house.adopt(2);
    assert!(house.gate.reopen(Epoch(1)));
    assert_eq!(lease.check(), Ok(()));
    let permit = lease.begin().expect("it leads");
    assert_eq!(permit.version(), PartitionVersion(2), "a record adopted meanwhile counts");
}

#[test]
fn what_is_said_of_another_epoch_changes_nothing() {
    let house = House::leading(at(10));
    assert!(!house.gate.reopen(Epoch(1)), "no handoff is under way");
    assert!(!house.gate.suspend(Epoch(2)));
    assert_eq!(house.lead().check(), Ok(()));
    assert!(house.gate.suspend(Epoch(1)));
    assert!(!house.gate.suspend(Epoch(1)), "one is under way");
    assert!(!house.gate.reopen(Epoch(2)));
    house.gate.close(LeaseLost::Superseded { epoch: Epoch(2) });
    assert!(!house.gate.suspend(Epoch(1)) && !house.gate.reopen(Epoch(1)), "it does not lead");
    house.adopt(9);
    house.open(3, 2);
    assert_eq!(house.gate.epoch(), Some(Epoch(3)));
    assert!(house.gate.suspend(Epoch(3)));
    assert!(!house.gate.reopen(Epoch(1)), "of a handoff long ago");
}

#[test]
fn a_closed_gate_issues_nothing_and_confirms_nothing() {
    let house = House::leading(at(10));
    let lease = house.lead();
    let permit = lease.begin().expect("it leads");
    let lost = LeaseLost::Superseded { epoch: Epoch(2) };
    house.gate.close(lost.clone());
    let mut drained = drained(&house);
    assert_eq!(house.gate.epoch(), None);
    assert_eq!(lease.begin().map(drop), Err(lost.clone()));
    assert_eq!(drained.poll(), Poll::Pending, "the write that was begun still runs");
    assert_eq!(permit.confirm(), Err(lost));
    assert_eq!(drained.poll(), Poll::Ready(()));
    assert_eq!(house.leases.lead(PARTITION).map(drop), Err(LeaseLost::NotLeader));
}

#[test]
fn a_lease_of_an_earlier_epoch_never_comes_back() {
    let house = House::leading(at(10));
    let lease = house.lead();
    let permit = lease.begin().expect("it leads");
    house.gate.close(LeaseLost::NotLeader);
    assert_eq!(lease.check(), Err(LeaseLost::NotLeader));
    house.open(4, 7);
    let lost = LeaseLost::Superseded { epoch: Epoch(4) };
    assert_eq!(lease.check(), Err(lost.clone()));
    assert_eq!(lease.begin().map(drop), Err(lost.clone()));
    assert_eq!(permit.check(), Err(lost.clone()));
    let mut adopted = adopted(&house, 7);
    assert_eq!(adopted.poll(), Poll::Pending, "its write still runs");
    assert_eq!(permit.confirm(), Err(lost));
    assert_eq!(adopted.poll(), Poll::Ready(()));
    assert_eq!(house.lead().epoch(), Epoch(4));
}

#[test]
fn the_epoch_that_ended_one_may_be_led_next() {
    let house = House::leading(at(10));
    let lease = house.lead();
    let lost = LeaseLost::Superseded { epoch: Epoch(2) };
    house.gate.close(lost.clone());
    house.open(2, 2);
    assert_eq!(lease.check(), Err(lost));
    assert_eq!(house.lead().epoch(), Epoch(2));
}

#[test]
fn an_epoch_that_was_given_up_waits_for_a_newer_record() {
    let house = House::leading(at(10));
    let lease = house.lead();
    let permit = lease.begin().expect("it leads");
    house.adopt(2);
    house.gate.give_up(Epoch(1), PartitionVersion(2));
    assert_eq!(lease.check(), Err(LeaseLost::NotLeader));
    assert_eq!(permit.check(), Err(LeaseLost::NotLeader));
    assert_eq!(house.leases.lead(PARTITION).map(drop), Err(LeaseLost::NotLeader));
    assert!(house.gate.suspend(Epoch(1)) && house.gate.reopen(Epoch(1)), "hooks go on as before");
    assert_eq!(lease.check(), Err(LeaseLost::NotLeader));
    house.adopt(2);
    assert_eq!(lease.check(), Err(LeaseLost::NotLeader), "it is the same record");
    house.adopt(3);
    assert_eq!(permit.confirm(), Ok(()));
    assert_eq!(house.lead().check(), Ok(()));
}

#[test]
fn giving_up_an_epoch_ends_those_before_it_and_none_after_it() {
    let house = House::leading(at(10));
    let lease = house.lead();
    house.gate.give_up(Epoch(1), PartitionVersion(1));
    house.gate.give_up(Epoch(2), PartitionVersion(4));
    house.gate.give_up(Epoch(1), PartitionVersion(9));
    assert_eq!(lease.check(), Err(LeaseLost::NotLeader));
    house.open(2, 4);
    assert_eq!(house.leases.lead(PARTITION).map(drop), Err(LeaseLost::NotLeader));
    house.open(3, 4);
    assert_eq!(house.lead().check(), Ok(()));
}

#[test]
fn closing_again_gives_the_newer_reason() {
    let house = House::leading(at(10));
    let lease = house.lead();
    house.gate.close(LeaseLost::NotLeader);
    let lost = LeaseLost::Superseded { epoch: Epoch(2) };
    house.gate.close(lost.clone());
    assert_eq!(lease.check(), Err(lost));
}

#[test]
fn permits_out_are_counted_from_the_oldest() {
    let house = House::leading(at(100));
    let lease = house.lead();
    assert_eq!(house.gate.outstanding(), None);
    house.clock.set(at(10));
    let first = lease.begin().expect("it leads");
    house.clock.set(at(20));
    let second = lease.begin().expect("it leads");
    assert_eq!(house.gate.outstanding(), Some((2, at(10))));
    drop(first);
    assert_eq!(house.gate.outstanding(), Some((1, at(20))));
    drop(second);
    assert_eq!(house.gate.outstanding(), None);
}

#[test]
#[should_panic(expected = "partition-5: led at epoch 1 after epoch 2")]
fn opening_below_an_epoch_it_heard_of_is_a_bug() {
    let house = House::new();
    house.gate.close(LeaseLost::Superseded { epoch: Epoch(2) });
    house.open(1, 1);
}

#[test]
#[should_panic(expected = "partition-5: led at epoch 1 after epoch 1")]
fn opening_an_epoch_that_was_closed_is_a_bug() {
    let house = House::leading(at(10));
    house.gate.close(LeaseLost::NotLeader);
    house.open(1, 2);
}

#[test]
#[should_panic(expected = "partition-5: version 1 after 2")]
fn adopting_an_older_record_is_a_bug() {
    let house = House::leading(at(10));
    house.adopt(2);
    house.adopt(1);
}

#[test]
#[should_panic(expected = "partition-5: epoch 1 ended epoch 1")]
fn an_epoch_is_not_superseded_by_itself() {
    House::leading(at(10)).gate.close(LeaseLost::Superseded { epoch: Epoch(1) });
}

#[test]
#[should_panic(expected = "partition-5: a handoff suspends, it does not close")]
fn closing_for_a_handoff_is_a_bug() {
    House::leading(at(10)).gate.close(LeaseLost::HandingOver);
}
