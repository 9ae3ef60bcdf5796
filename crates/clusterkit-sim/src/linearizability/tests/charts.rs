//! Counterexamples are short, and are shown as charts.

use super::super::{Counter, List, Register};
use super::{counterexample, history};

#[test]
fn a_chart_shows_what_contradicts_itself() {
    let noise: String = (0..50)
        .map(|at| {
            format!(
                "p7 k1 {}..{} write {} -> done\np8 k1 {}.. read -> unknown\n",
                at * 4,
                at * 4 + 1,
                at + 100,
                at
            )
        })
        .collect();
    let stale = "p0 k1 300..310 write 1 -> done\np0 k1 320..330 write 2 -> done\np1 k1 340..350 read -> 1\n";
    let later = "p0 k1 400..410 read -> 2\np1 k1 400..410 read -> 77\np2 k1 345.. write 8 -> unknown";
    let counterexample = counterexample::<Register>(&history::<Register>(&format!("{noise}{stale}{later}")));
    let expect = "\
register k1 is not linearizable: no order explains these operations, none of which can be left out
(3 of 106; |--| invoked and returned, |~~> at any time from there, or never)
  p0  write 1 -> done  300..310  |-|
  p0  write 2 -> done  320..330      |-|
  p1  read -> 1        340..350          |-|
";
    assert_eq!(counterexample.to_string(), expect);
}

#[test]
fn a_chart_shows_once_what_is_alike_and_may_explain_outputs() {
    let adds: String = (0..9).map(|at| format!("p{at} k1 {at}..20 add 1 -> done\n")).collect();
    let reads = "p20 k1 30..40 read -> 9\np20 k1 50..60 read -> 8";
    let counterexample = counterexample::<Counter>(&history::<Counter>(&format!("{adds}{reads}")));
    let expect = "\
counter k1 is not linearizable: no order explains these operations, none of which can be left out
(11 of 11; |--| invoked and returned, |~~> at any time from there, or never)
  p0..  9 x (add 1 -> done)  0..     |~~~~~~~>
  p20   read -> 9            30..40  |-|
  p20   read -> 8            50..60      |-|
";
    assert_eq!(counterexample.to_string(), expect);
}

#[test]
fn a_counterexample_is_a_history_to_keep() {
    let appends: String =
        (0..40).map(|at| format!("p{at} k1 {at}..{} append {at} -> done\n", at + 3)).collect();
    let reads = "p90 k1 50..60 read -> [0 1 2 3]\np90 k1 70..80 read -> [0 1]";
    let found = counterexample::<List>(&history::<List>(&format!("{appends}{reads}")));
    let again = counterexample::<List>(&found.history().expect("a history"));
    assert!(found.is_minimal());
    assert!(again.contradiction().eq(found.contradiction()));
}

#[test]
fn what_comes_after_the_contradiction_is_cut_off() {
    let broken = "p0 k1 0..1 read -> 5\np1 k1 0..90 write 6 -> done\n";
    let later: String = (10..99).map(|at| format!("p2 k1 {at}0..{at}1 write {at} -> done\n")).collect();
    let counterexample = counterexample::<Register>(&history::<Register>(&format!("{broken}{later}")));
    assert_eq!(counterexample.contradiction().count(), 1);
}
