//! Leaders that cannot serve: when they give up, and that they do so for good.

use super::*;

fn not_in_time(version: u64) -> String {
    format!("declined activate v{version}: it was not called in time, or took too long")
}

#[test]
fn a_leader_whose_prepare_hangs_gives_its_leadership_up() {
    let mut world = World::recovered(&["a", "b"], vec![(P, ReplicaUid(1))]);
    assert_eq!(world.see(), ["run#1 prepare u1"]);
    assert_eq!(world.pass(Duration::from_secs(30)), ["overran prepare"]);
    assert_eq!(world.facts(), ["overran prepare"]);
    assert_eq!(world.stages.poll_timeout(), Some(Instant::at(Duration::from_secs(35))));
    assert_eq!(world.pass(Duration::from_secs(5)), NOTHING);
    assert_eq!(world.facts(), [&not_in_time(1), "overran prepare"]);
    assert_eq!(world.elect("b", 2), NOTHING);
    assert_eq!(world.facts(), ["overran prepare"]);
}

#[test]
fn a_leader_whose_prepare_is_refused_gives_its_leadership_up() {
    let mut world = World::recovered(&["a", "b"], vec![(P, ReplicaUid(1))]);
    assert_eq!(world.see(), ["run#1 prepare u1"]);
    assert_eq!(world.refuse(1), NOTHING);
    assert_eq!(world.facts(), ["declined activate v1: no"]);
    // It is tried again all the same: where nobody else can lead, this node leads in the next epoch.
    assert_eq!(world.pass(Duration::from_millis(500)), ["run#2 prepare u1"]);
    assert_eq!(world.done(2), NOTHING);
    assert_eq!(world.facts(), ["declined activate v1: no"]);
    assert_eq!(world.learn(|record| record.epoch = Epoch(2)), ["run#3 activate e2 first"]);
    assert_eq!(world.done(3), ["open e2"]);
}

#[test]
fn a_leader_that_cannot_seal_what_it_led_before_gives_its_leadership_up() {
    let mut world = World::leading();
    assert_eq!(world.elect("b", 2), ["end e1", "close#4 e1"]);
    assert_eq!(world.drained(4), ["run#5 seal e1 deposed"]);
    assert_eq!(world.elect("a", 3), ["end e1"]);
    assert_eq!(world.pass(Duration::from_secs(2)), ["overran seal"]);
    assert_eq!(world.facts(), ["overran seal"]);
    assert_eq!(world.pass(Duration::from_secs(5)), NOTHING);
    assert_eq!(world.facts(), [&not_in_time(3), "overran seal"]);
    // It ends after all, before anybody rolled it back: another may be elected already.
    assert_eq!(world.done(5), NOTHING);
    assert_eq!(world.facts(), [not_in_time(3)]);
    assert_eq!(world.learn(|record| record.epoch = Epoch(5)), ["run#6 activate e5 first"]);
    assert_eq!(world.done(6), ["open e5"]);
}

#[test]
fn an_activation_that_ends_after_the_leadership_was_given_up_opens_no_lease() {
    let mut world = World::recovered(&["a", "b"], vec![(P, ReplicaUid(1))]);
    assert_eq!(world.see(), ["run#1 prepare u1"]);
    assert_eq!(world.pass(Duration::from_millis(34_500)), ["overran prepare"]);
    assert_eq!(world.done(1), ["run#2 activate e1 first"]);
    assert_eq!(world.pass(Duration::from_millis(500)), ["cancel#2"]);
    assert_eq!(world.facts(), [not_in_time(1)]);
    assert_eq!(world.done(2), NOTHING);
    assert_eq!(world.facts(), [not_in_time(1)]);
    assert_eq!(world.pass(Duration::from_secs(60)), NOTHING);
    assert_eq!(world.elect("b", 2), ["end e1", "run#3 seal e1 deposed"]);
}

#[test]
fn an_activation_that_is_done_when_it_was_told_to_end_is_not_called_again_in_its_epoch() {
    let mut world = World::new(&["a", "b"]);
    world.see();
    world.saved(1);
    world.done(2);
    assert_eq!(world.pass(Duration::from_secs(5)), ["overran activate", "cancel#3"]);
    assert_eq!(world.done(3), NOTHING);
    assert_eq!(world.facts(), ["declined activate v1: it took too long"]);
    // Nor once a handover came and went before the leadership was taken.
    assert_eq!(world.learn(|record| record.transfer = Some(node("b"))), ["run#4 seal e1 for b"]);
    assert_eq!(world.done(4), NOTHING);
    assert_eq!(world.learn(|record| record.transfer = None), NOTHING);
    assert_eq!(world.facts(), ["declined activate v3: it took too long"]);
}

#[test]
fn a_seal_that_nothing_ends_costs_the_leadership() {
    let mut world = World::leading();
    world.learn(|record| record.transfer = Some(node("b")));
    world.drained(4);
    assert_eq!(world.pass(Duration::from_secs(2)), ["overran seal", "cancel#5"]);
    assert_eq!(world.learn(|record| record.transfer = None), NOTHING);
    assert_eq!(world.facts(), ["overran seal"]);
    assert_eq!(world.pass(Duration::from_secs(7)), ["abort#5"]);
    assert_eq!(world.facts(), [&not_in_time(3), "overran seal"]);
}

#[test]
fn what_was_declined_in_another_epoch_is_not_said_of_this_one() {
    let mut world = World::new(&["a", "b"]);
    world.see();
    world.saved(1);
    world.done(2);
    assert_eq!(world.pass(Duration::from_secs(5)), ["overran activate", "cancel#3"]);
    assert_eq!(world.facts(), ["declined activate v1: it took too long", "overran activate"]);
    // Elected anew: whether it can be led now is not known yet.
    assert_eq!(world.learn(|record| record.epoch = Epoch(3)), ["end e1"]);
    assert_eq!(world.facts(), ["overran activate"]);
    assert_eq!(world.answer(3, Outcome::Aborted), ["run#4 seal e1 deposed"]);
    assert_eq!(world.done(4), ["run#5 activate e3 first"]);
}

#[test]
fn a_handover_that_waits_for_an_earlier_seal_for_too_long_costs_the_leadership() {
    let mut world = World::leading();
    assert_eq!(world.elect("b", 2), ["end e1", "close#4 e1"]);
    assert_eq!(world.drained(4), ["run#5 seal e1 deposed"]);
    let elected = |record: &mut Partition| {
        record.leader = Some(node("a"));
        record.epoch = Epoch(3);
        record.transfer = Some(node("b"));
    };
    assert_eq!(world.learn(elected), ["end e1"]);
    assert_eq!(world.pass(Duration::from_secs(2)), ["overran seal"]);
    assert_eq!(world.facts(), ["overran seal"]);
    // The time goes on when the handover is called off and begun anew.
    assert_eq!(world.learn(|record| record.transfer = None), ["end e1"]);
    assert_eq!(world.pass(Duration::from_secs(4)), NOTHING);
    assert_eq!(world.learn(|record| record.transfer = Some(node("b"))), ["end e1"]);
    assert_eq!(world.pass(Duration::from_secs(1)), NOTHING);
    assert_eq!(world.facts(), [&not_in_time(5), "overran seal"]);
}
