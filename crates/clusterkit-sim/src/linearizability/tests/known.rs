//! Histories whose verdicts are known.

use super::super::{Counter, Limits, List, Register, Specification, Verdict, check};
use super::{history, report};

fn linearizable<S: Specification + Default>(lines: &str) {
    let report = report::<S>(&history::<S>(lines));
    assert!(report.is_linearizable(), "{report}");
}

fn broken<S: Specification + Default>(lines: &str) {
    let report = report::<S>(&history::<S>(lines));
    assert!(matches!(report.verdict, Verdict::Broken(_)), "{report}");
}

#[test]
fn nothing_is_linearizable() {
    linearizable::<Register>("");
}

#[test]
fn a_read_finds_the_last_write() {
    linearizable::<Register>("p0 k1 0..1 read -> none\np0 k1 2..3 write 1 -> done\np1 k1 4..5 read -> 1");
}

#[test]
fn a_stale_read_is_found() {
    broken::<Register>("p0 k1 0..1 write 1 -> done\np0 k1 2..3 write 2 -> done\np1 k1 4..5 read -> 1");
    broken::<Register>("p0 k1 0..1 write 1 -> done\np1 k1 2..3 read -> none");
}

#[test]
fn a_read_beside_a_write_finds_either_value() {
    let check = |read: &str| {
        let before = "p0 k1 0..1 write 1 -> done\np0 k1 2..9 write 2 -> done\n";
        linearizable::<Register>(&format!("{before}p1 k1 3..4 read -> {read}"));
    };
    check("1");
    check("2");
}

#[test]
fn reads_do_not_go_back() {
    let writes = "p0 k1 0..1 write 1 -> done\np0 k1 2..9 write 2 -> done\n";
    broken::<Register>(&format!("{writes}p1 k1 3..4 read -> 2\np2 k1 5..6 read -> 1"));
    linearizable::<Register>(&format!("{writes}p1 k1 3..5 read -> 2\np2 k1 5..6 read -> 1"));
}

#[test]
fn a_value_that_was_never_written_is_found() {
    broken::<Register>("p0 k1 0..1 write 1 -> done\np1 k1 0..5 read -> 7");
}

#[test]
fn a_value_that_is_written_later_is_found() {
    broken::<Register>("p1 k1 0..5 read -> 1\np0 k1 6..7 write 1 -> done");
}

#[test]
fn a_lost_update_is_found() {
    let write = "p0 k1 0..1 write 1 -> done\n";
    broken::<Register>(&format!("{write}p1 k1 2..9 cas 1 2 -> swapped\np2 k1 2..9 cas 1 3 -> swapped"));
    linearizable::<Register>(&format!("{write}p1 k1 2..9 cas 1 2 -> swapped\np2 k1 2..9 cas 1 3 -> kept"));
}

#[test]
fn a_swap_keeps_only_what_is_different() {
    broken::<Register>("p0 k1 0..1 write 1 -> done\np1 k1 2..3 cas 1 2 -> kept");
    broken::<Register>("p0 k1 0..1 write 1 -> done\np1 k1 2..3 cas 5 2 -> swapped");
    linearizable::<Register>("p0 k1 0..1 write 1 -> done\np1 k1 2..3 cas 5 2 -> kept\np1 k1 4..5 read -> 1");
    linearizable::<Register>("p0 k1 0..1 cas none 2 -> swapped\np1 k1 2..3 cas none 3 -> kept");
    broken::<Register>("p0 k1 0..1 cas none 2 -> swapped\np1 k1 2..3 cas none 3 -> swapped");
}

#[test]
fn a_chain_of_swaps_has_one_order() {
    let chain = "p1 k1 0..9 cas 2 3 -> swapped\np2 k1 0..9 cas 1 2 -> swapped\np3 k1 0..9 write 1 -> done\n";
    linearizable::<Register>(&format!("{chain}p4 k1 10..11 read -> 3"));
    broken::<Register>(&format!("{chain}p4 k1 10..11 read -> 2"));
}

#[test]
fn a_deleted_value_stays_deleted() {
    let deleted = "p0 k1 0..1 write 1 -> done\np0 k1 2..3 delete -> done\n";
    linearizable::<Register>(&format!("{deleted}p1 k1 4..5 read -> none"));
    broken::<Register>(&format!("{deleted}p1 k1 4..5 read -> 1"));
}

#[test]
fn an_unknown_write_may_be_observed_at_any_time_later() {
    let unknown = "p0 k1 0.. write 1 -> unknown\np0 k1 2..3 write 2 -> done\n";
    linearizable::<Register>(&format!("{unknown}p1 k1 4..5 read -> 2"));
    linearizable::<Register>(&format!("{unknown}p1 k1 4..5 read -> 1"));
    linearizable::<Register>(&format!("{unknown}p1 k1 4..5 read -> 2\np1 k1 600..700 read -> 1"));
}

#[test]
fn an_unknown_write_is_not_observed_before_its_invocation() {
    broken::<Register>("p1 k1 0..4 read -> 1\np0 k1 5.. write 1 -> unknown");
    linearizable::<Register>("p1 k1 0..5 read -> 1\np0 k1 5.. write 1 -> unknown");
}

#[test]
fn an_unknown_write_that_was_observed_does_not_vanish() {
    let seen = "p0 k1 0..1 write 1 -> done\np1 k1 2.. write 2 -> unknown\np2 k1 3..4 read -> 2\n";
    broken::<Register>(&format!("{seen}p2 k1 5..6 read -> 1"));
    linearizable::<Register>(&format!("{seen}p3 k1 5..6 write 1 -> done\np2 k1 7..8 read -> 1"));
}

#[test]
fn an_unknown_write_takes_effect_once() {
    let seen = "p1 k1 2.. write 2 -> unknown\np2 k1 3..4 read -> 2\np2 k1 5..6 write 3 -> done\n";
    broken::<Register>(&format!("{seen}p2 k1 7..8 read -> 2"));
    linearizable::<Register>(&format!("p4 k1 0.. write 2 -> unknown\n{seen}p2 k1 7..8 read -> 2"));
}

#[test]
fn an_unknown_write_that_was_not_needed_is_there_for_later() {
    let read = "p0 k1 0..10 write 1 -> done\np1 k1 0..12 write 2 -> done\np2 k1 0.. write 1 -> unknown\n\
                p3 k1 13..14 read -> 1\n";
    linearizable::<Register>(&format!("{read}p3 k1 15..16 write 3 -> done\np3 k1 17..18 read -> 1"));
}

#[test]
fn an_unknown_write_explains_a_swap_that_kept() {
    let write = "p0 k1 0..1 write 1 -> done\np1 k1 4..5 cas 1 2 -> kept\n";
    broken::<Register>(write);
    linearizable::<Register>(&format!("{write}p2 k1 0.. write 9 -> unknown"));
    linearizable::<Register>(&format!("{write}p2 k1 0.. delete -> unknown"));
    broken::<Register>(&format!("{write}p2 k1 0.. write 1 -> unknown"));
    broken::<Register>(&format!("{write}p2 k1 6.. write 9 -> unknown"));
}

#[test]
fn an_unknown_swap_takes_effect_only_on_what_it_expects() {
    let swap = "p0 k1 0..1 write 1 -> done\np1 k1 2.. cas 1 2 -> unknown\n";
    linearizable::<Register>(&format!("{swap}p2 k1 3..4 read -> 2"));
    linearizable::<Register>(&format!("{swap}p2 k1 3..4 read -> 1"));
    broken::<Register>(&format!("{swap}p2 k1 3..4 write 5 -> done\np2 k1 5..6 read -> 2"));
    linearizable::<Register>(&format!("{swap}p3 k1 2.. cas 2 3 -> unknown\np2 k1 3..4 read -> 3"));
}

#[test]
fn a_failed_write_is_never_observed() {
    broken::<Register>("p0 k1 0..1 write 1 -> failed\np1 k1 0..5 read -> 1");
    linearizable::<Register>("p0 k1 0..1 write 1 -> failed\np1 k1 2..3 read -> none");
}

#[test]
fn keys_are_independent() {
    linearizable::<Register>("p0 k1 0..1 write 1 -> done\np1 k2 2..3 read -> none");
    broken::<Register>("p0 k1 0..1 write 1 -> done\np1 k2 2..3 read -> 1");
}

#[test]
fn an_increment_that_was_applied_twice_is_found() {
    broken::<Counter>("p0 k1 0..1 add 1 -> done\np0 k1 2..3 read -> 2");
    broken::<Counter>("p0 k1 0.. add 1 -> unknown\np0 k1 2..3 read -> 2");
    broken::<Counter>("p0 k1 0.. add 1 -> unknown\np0 k1 2..3 read -> 1\np0 k1 4..5 read -> 2");
}

#[test]
fn an_increment_that_was_lost_is_found() {
    broken::<Counter>("p0 k1 0..9 add 1 -> done\np1 k1 0..9 add 1 -> done\np2 k1 10..11 read -> 1");
    broken::<Counter>("p0 k1 0..9 add 1 -> 1\np1 k1 0..9 add 1 -> 1");
    linearizable::<Counter>("p0 k1 0..9 add 1 -> 2\np1 k1 0..9 add 1 -> 1");
}

#[test]
fn unknown_increments_add_up_to_what_is_read() {
    let unknown: String = (0..40).map(|at| format!("p{at} k1 0.. add 1 -> unknown\n")).collect();
    linearizable::<Counter>(&format!("{unknown}p99 k1 5..6 read -> 17\np99 k1 7..8 read -> 40"));
    broken::<Counter>(&format!("{unknown}p99 k1 5..6 read -> 41"));
    broken::<Counter>(&format!("{unknown}p99 k1 5..6 read -> 17\np99 k1 7..8 read -> 16"));
}

#[test]
fn elements_of_a_list_come_once_and_in_one_order() {
    let appended = "p0 k1 0..9 append 1 -> done\np1 k1 0..9 append 2 -> done\n";
    linearizable::<List>(&format!("{appended}p2 k1 10..11 read -> [2 1]"));
    linearizable::<List>(&format!("{appended}p2 k1 5..8 read -> [2]\np2 k1 10..11 read -> [2 1]"));
    broken::<List>(&format!("{appended}p2 k1 10..11 read -> [2 1]\np2 k1 12..13 read -> [1 2]"));
    broken::<List>(&format!("{appended}p2 k1 10..11 read -> [2]"));
    broken::<List>(&format!("{appended}p2 k1 10..11 read -> [2 1 2]"));
    broken::<List>(&format!("{appended}p2 k1 5..8 read -> [1]\np2 k1 10..11 read -> [2 1]"));
}

#[test]
fn the_length_of_a_list_counts_what_nobody_read() {
    linearizable::<List>("p0 k1 0.. append 1 -> unknown\np1 k1 0..9 append 2 -> length 2");
    broken::<List>("p0 k1 0..1 append 1 -> done\np1 k1 5..9 append 2 -> length 1");
}

#[test]
fn unknown_elements_of_a_list_come_late_or_never() {
    let unknown: String = (0..30).map(|at| format!("p{at} k1 0.. append {at} -> unknown\n")).collect();
    let known: String = (40..70).map(|at| format!("p40 k1 {at}0..{at}1 append {at} -> done\n")).collect();
    let all: Vec<u64> = (40..70).flat_map(|at| [at - 40, at]).collect();
    let read = |elements: &[u64]| {
        let elements: Vec<String> = elements.iter().map(u64::to_string).collect();
        format!("{unknown}{known}p40 k1 800..801 read -> [{}]", elements.join(" "))
    };
    linearizable::<List>(&read(&all));
    let is_left = |element: &u64| *element != 41;
    broken::<List>(&read(&all.into_iter().filter(is_left).collect::<Vec<_>>()));
}

#[test]
fn unknown_writes_cost_little() {
    let unknown: String = (0..300).map(|at| format!("p{at} k1 0.. write {at} -> unknown\n")).collect();
    let reads: String =
        (0..300).rev().map(|at| format!("p900 k1 {at}0..{at}1 read -> {}\n", 299 - at)).collect();
    let history = history::<Register>(&format!("{unknown}{reads}"));
    let report =
        check(&Register::default(), &history, Limits { steps_per_key: 200_000, ..Limits::default() });
    assert!(report.is_linearizable(), "{report}");
}

#[test]
fn what_takes_too_many_steps_is_undecided() {
    let adds: String = (0..20).map(|at| format!("p{at} k1 0.. add {} -> unknown\n", 1 << at)).collect();
    let history = history::<Counter>(&format!("{adds}p99 k1 1..2 read -> 700001\np99 k2 3..4 read -> 0"));
    let limits = Limits { steps_per_key: 1_000, steps_shortening: 1_000 };
    let report = check(&Counter::default(), &history, limits);
    assert!(!report.is_linearizable());
    assert!(matches!(&report.verdict, Verdict::Undecided { keys } if keys.len() == 1), "{report}");
}

#[test]
fn a_contradiction_is_found_where_the_whole_takes_too_many_steps() {
    let unknown: String = (0..20).map(|at| format!("p{at} k1 0.. add {} -> unknown\n", 64 << at)).collect();
    let known: String = (10..60).map(|at| format!("p98 k1 {at}0..{at}1 add 1 -> done\n")).collect();
    let reads = "p99 k1 700..701 read -> 50\np99 k1 702..703 read -> 49";
    let history = history::<Counter>(&format!("{unknown}{known}{reads}"));
    let is_broken = |steps_shortening| {
        let limits = Limits { steps_per_key: 5_000, steps_shortening };
        matches!(check(&Counter::default(), &history, limits).verdict, Verdict::Broken(_))
    };
    assert!(!is_broken(0));
    assert!(is_broken(100_000));
}

#[test]
fn a_broken_key_is_found_behind_an_undecided_one() {
    let adds: String = (0..20).map(|at| format!("p{at} k1 0.. add {} -> unknown\n", 1 << at)).collect();
    let history = history::<Counter>(&format!("{adds}p99 k1 1..2 read -> 700001\np99 k2 3..4 read -> 1"));
    let limits = Limits { steps_per_key: 1_000, steps_shortening: 1_000 };
    let report = check(&Counter::default(), &history, limits);
    assert!(matches!(report.verdict, Verdict::Broken(_)), "{report}");
}
