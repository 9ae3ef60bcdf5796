//! What was sealed, and for whom.

use super::*;

#[test]
fn a_handover_to_another_target_is_sealed_anew() {
    let mut world = World::leading();
    world.learn(|record| record.transfer = Some(node("b")));
    world.drained(4);
    assert_eq!(world.done(5), NOTHING);
    assert_eq!(world.facts(), ["sealed e1 v2"]);
    assert_eq!(world.learn(|record| record.transfer = Some(node("c"))), ["run#6 seal e1 for c"]);
    assert_eq!(world.facts(), NOTHING);
    assert_eq!(world.done(6), NOTHING);
    assert_eq!(world.facts(), ["sealed e1 v3"]);
}

#[test]
fn a_seal_that_was_called_off_and_is_done_all_the_same_counts_for_nothing() {
    let mut world = World::leading();
    world.learn(|record| record.transfer = Some(node("b")));
    assert_eq!(world.drained(4), ["run#5 seal e1 for b"]);
    assert_eq!(world.learn(|record| record.transfer = Some(node("c"))), ["cancel#5"]);
    assert_eq!(world.done(5), ["run#6 seal e1 for c"]);
    assert_eq!(world.facts(), NOTHING);
    assert_eq!(world.done(6), NOTHING);
    assert_eq!(world.facts(), ["sealed e1 v3"]);
}

#[test]
fn what_was_sealed_for_a_stop_is_sealed_anew_for_a_handover() {
    let mut world = World::leading();
    world.stages.stop(world.now);
    assert_eq!(world.actions(), ["close#4 e1"]);
    assert_eq!(world.drained(4), ["run#5 seal e1 stopping"]);
    assert_eq!(world.done(5), NOTHING);
    assert!(world.stages.is_sealed());
    assert_eq!(world.learn(|record| record.transfer = Some(node("b"))), ["run#6 seal e1 for b"]);
    assert_eq!(world.done(6), NOTHING);
    assert_eq!(world.facts(), ["sealed e1 v2"]);
}
