//! Histories are read as they are written.

use super::super::{Counter, History, List, Register, Specification, TextError, specification_name};

fn round_trip<S: Specification>(lines: &str) {
    let text = format!("history {}\n{lines}", S::NAME);
    let history = History::read::<S>(&text).expect("a history");
    assert_eq!(history.text::<S>(), text);
    assert_eq!(specification_name(&text), Some(S::NAME));
}

fn refused(text: &str, expect: &TextError) {
    assert_eq!(History::read::<Register>(text).as_ref(), Err(expect), "{text}");
}

#[test]
fn every_operation_is_read_as_it_is_written() {
    round_trip::<Register>(
        "p0 k7 10..25 write 1 -> done\np1 k7 12..30 read -> none\np5 k7 13..14 read -> 5\n\
         p2 k7 20.. cas none 2 -> unknown\np3 k8 20..21 cas 1 2 -> swapped\np3 k8 22..23 cas 1 2 -> kept\n\
         p0 k7 30..31 delete -> failed\n",
    );
    round_trip::<Counter>("p0 k0 0..1 add -5 -> done\np0 k0 2..3 add 5 -> 0\np0 k0 4..5 read -> -3\n");
    round_trip::<List>(
        "p0 k0 0..1 append 1 -> done\np0 k0 2..3 append 2 -> length 2\np0 k0 4..5 read -> [1 2]\n\
         p0 k0 6..7 read -> []\n",
    );
}

#[test]
fn comments_and_empty_lines_say_nothing() {
    let history =
        History::read::<Register>("# kept\n\nhistory register\n\n  # more\n  p0 k1 0..1 read -> none\n");
    assert_eq!(history.expect("a history").operations().len(), 1);
}

#[test]
fn what_is_no_history_is_refused_with_its_line() {
    let expected = "register";
    refused("", &TextError::Specification { expected });
    refused("history counter\n", &TextError::Specification { expected });
    let line = |line: &str| refused(&format!("history register\n\n{line}"), &TextError::Line { line: 3 });
    line("p0");
    line("p0 k1 0..1 read");
    line("0 k1 0..1 read -> 1");
    line("p0 1 0..1 read -> 1");
    line("p0 k1 0-1 read -> 1");
    line("p0 k1 0.. read -> 1");
    line("p0 k1 0..1 read -> unknown");
    line("p0 k1 0.. read -> failed");
    line("p0 k1 0..1 fly -> 1");
    line("p0 k1 0..1 read -> x");
    line("p99999999999 k1 0..1 read -> 1");
    let backward = History::read::<Register>("history register\np0 k1 5..1 read -> 1");
    assert!(matches!(backward, Err(TextError::History(_))));
}
