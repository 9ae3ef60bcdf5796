//! Replicas told as stories: what happens, and everything that comes of it.

mod lab;

use super::*;
use crate::id::NodeId;
use alloc::string::String;
use alloc::vec;
use lab::Lab;

#[test]
fn a_write_is_answered_when_every_member_has_it_on_its_disk() {
    let mut lab = Lab::led_by("a", &["a", "b", "c"]);
    lab.hold_disk("c");
    let write = lab.write("a", "x", Ack::Quorum);
    lab.settle();
    assert_eq!(lab.outcome(&write), None, "c has it in memory only");
    lab.release_disk("c");
    lab.settle();
    assert!(lab.is_done(&write));
    lab.assert_state(&["a", "b", "c"], &["x"]);
}

#[test]
fn ack_leader_is_answered_before_it_is_committed() {
    let mut lab = Lab::led_by("a", &["a", "b"]);
    lab.hold_disk("b");
    let write = lab.write("a", "x", Ack::Leader);
    lab.settle();
    assert!(lab.is_done(&write));
    lab.assert_state(&["a", "b"], &[]);
}

#[test]
fn ack_all_is_refused_while_a_replica_is_away_and_waits_for_each() {
    let mut lab = Lab::led_by("a", &["a", "b", "c"]);
    lab.settle();
    lab.record(|record| {
        record.in_sync.remove(&node("c"));
    });
    lab.cut("c");
    let write = lab.write("a", "x", Ack::All);
    lab.settle();
    assert_eq!(lab.outcome(&write), None, "c is out of sync, and yet a replica");
    lab.join("c");
    lab.pass(200);
    assert!(lab.is_done(&write));
}

#[test]
fn a_deposed_leader_knows_of_no_outcome() {
    let mut lab = Lab::led_by("a", &["a", "b"]);
    lab.cut("b");
    let write = lab.write("a", "x", Ack::Quorum);
    lab.settle();
    lab.elect("b", "a");
    assert_eq!(lab.outcome(&write), Some(WriteOutcome::Unknown));
    let refused = lab.try_write("a", "y", Ack::Quorum);
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(node("b")), epoch: crate::id::Epoch(2) }));
}

#[test]
fn a_log_that_parts_from_the_leaders_is_cut_where_it_parts() {
    let mut lab = Lab::led_by("a", &["a", "b", "c"]);
    lab.write("a", "both", Ack::Quorum);
    lab.settle();
    for other in ["b", "c"] {
        lab.cut(other);
    }
    lab.write("a", "lost", Ack::Leader);
    lab.settle();
    lab.cut("a");
    lab.join("b");
    lab.join("c");
    lab.elect("b", "a");
    lab.write("b", "kept", Ack::Quorum);
    lab.pass(300);
    lab.join("a");
    lab.pass(2_000);
    lab.assert_state(&["a", "b", "c"], &["both", "kept"]);
    assert_eq!(lab.log("a"), lab.log("b"));
}

#[test]
fn a_member_that_lags_is_left_out_down_to_the_minimum_and_no_further() {
    let mut lab = Lab::led_by("a", &["a", "b", "c"]);
    lab.settle();
    lab.cut("b");
    lab.cut("c");
    let write = lab.write("a", "x", Ack::Quorum);
    lab.pass(600);
    let proposals = lab.proposals();
    assert!(!proposals.is_empty());
    assert!(proposals.iter().all(|proposal| proposal.in_sync.len() == 2), "{proposals:?}");
    assert_eq!(lab.outcome(&write), None, "proposed or not, all three count until a higher version is known");
}

#[test]
fn a_proposal_is_sent_again_as_it_was_and_counts_until_a_higher_version() {
    let mut lab = Lab::without_c();
    let write = lab.write("a", "x", Ack::Quorum);
    lab.pass(1_000);
    let proposals = lab.proposals();
    assert!(proposals.len() > 1 && proposals.iter().all(|other| *other == proposals[0]), "{proposals:?}");
    assert_eq!(lab.outcome(&write), None);
    lab.accept(&proposals[0]);
    lab.settle();
    assert!(lab.is_done(&write));
}

#[test]
fn a_write_is_refused_at_once_where_nothing_can_be_committed() {
    let mut lab = Lab::led_by("a", &["a", "b"]);
    lab.settle();
    lab.cut("b");
    lab.write("a", "x", Ack::Quorum);
    lab.pass(600);
    assert_eq!(lab.try_write("a", "y", Ack::Quorum), Err(ProposeError::NotEnoughReplicas));
    assert!(lab.try_write("a", "z", Ack::Leader).is_ok());
}

#[test]
fn a_new_leader_keeps_still_until_its_promises_have_run_out() {
    let mut lab = Lab::led_by("a", &["a", "b"]);
    lab.settle();
    lab.read("a");
    lab.settle();
    lab.pass(50);
    lab.elect("b", "a");
    let write = lab.write("b", "x", Ack::Quorum);
    lab.settle();
    assert_eq!(lab.outcome(&write), None, "b promised to support a");
    lab.pass(200);
    assert!(lab.is_done(&write));
}

#[test]
fn a_leader_that_nobody_promised_anything_waits_for_nothing() {
    let mut lab = Lab::led_by("a", &["a", "b"]);
    lab.pass(1_000);
    lab.elect("b", "a");
    let write = lab.write("b", "x", Ack::Quorum);
    lab.settle();
    assert!(lab.is_done(&write));
}

#[test]
fn a_leader_that_yielded_is_owed_nothing() {
    let mut lab = Lab::led_by("a", &["a", "b"]);
    lab.settle();
    lab.read("a");
    lab.settle();
    lab.resign("a");
    assert!(matches!(lab.wishes().as_slice(), [Wish::Resign { .. }]));
    lab.elect_yielded("b", "a");
    let write = lab.write("b", "x", Ack::Quorum);
    lab.settle();
    assert!(lab.is_done(&write));
}

#[test]
fn a_read_is_served_by_lease_while_support_lasts_and_by_barrier_else() {
    let mut lab = Lab::led_by("a", &["a", "b"]);
    lab.write("a", "x", Ack::Quorum);
    lab.settle();
    let first = lab.read("a");
    lab.settle();
    assert_eq!(lab.answer(&first), Some(vec!["x"]));
    lab.cut("b");
    lab.pass(50);
    let leased = lab.read("a");
    lab.settle();
    assert_eq!(lab.answer(&leased), Some(vec!["x"]), "b supports a for 135 ms");
    lab.pass(150);
    let late = lab.read("a");
    lab.settle();
    assert_eq!(lab.answer(&late), None, "nobody says that a still leads");
    lab.join("b");
    lab.pass(300);
    assert_eq!(lab.answer(&late), Some(vec!["x"]));
}

#[test]
fn a_lease_is_looked_at_after_the_read_was_evaluated() {
    let mut lab = Lab::led_by("a", &["a", "b"]);
    lab.settle();
    lab.read("a");
    lab.settle();
    lab.hold_reads();
    let read = lab.read("a");
    lab.settle();
    lab.cut("b");
    lab.pass(200);
    lab.release_reads();
    lab.settle();
    assert_eq!(lab.answer(&read), None, "the lease ran out while it was evaluated");
}

#[test]
fn a_handover_drains_and_then_says_nothing_until_a_higher_version() {
    let mut lab = Lab::led_by("a", &["a", "b"]);
    lab.write("a", "x", Ack::Quorum);
    lab.settle();
    lab.record(|record| record.transfer = Some(node("b")));
    lab.settle();
    let wishes = lab.wishes();
    assert!(matches!(wishes.as_slice(), [Wish::Handoff { log_end: 2, .. }]), "{wishes:?}");
    assert_eq!(lab.try_write("a", "y", Ack::Quorum), Err(ProposeError::HandingOver));
    lab.pass(400);
    assert!(lab.wishes().iter().all(|wish| wishes.contains(wish)), "the same one, again and again");
    lab.record(|record| record.transfer = None);
    assert!(lab.try_write("a", "y", Ack::Quorum).is_ok(), "nobody followed, so it goes on");
}

#[test]
fn a_follower_behind_the_start_of_the_log_gets_the_state() {
    let mut lab = Lab::without_c();
    let values = write_more_than_memory_keeps(&mut lab);
    lab.restart("c");
    lab.compact("a");
    lab.join("c");
    lab.pass(2_000);
    lab.assert_state(&["a", "b", "c"], &values.each_ref().map(String::as_str));
    assert_eq!(lab.status("c").log_start, 7, "the state came, not the records");
}

#[test]
fn a_follower_that_streams_and_falls_behind_the_start_of_the_log_gets_the_state() {
    let mut lab = Lab::without_c();
    let values = write_more_than_memory_keeps(&mut lab);
    lab.compact("a");
    lab.pass(5_000);
    lab.join("c");
    lab.pass(3_000);
    lab.assert_state(&["a", "b", "c"], &values.each_ref().map(String::as_str));
}

#[test]
fn a_follower_behind_the_start_of_the_log_gets_records_as_long_as_memory_has_them() {
    let mut lab = Lab::without_c();
    lab.write("a", "x", Ack::Quorum);
    leave_out(&mut lab);
    lab.compact("a");
    lab.join("c");
    lab.pass(3_000);
    lab.assert_state(&["a", "b", "c"], &["x"]);
    assert_eq!(lab.status("c").log_start, 0);
}

/// Writes that are committed without c.
fn write_more_than_memory_keeps(lab: &mut Lab) -> [String; 6] {
    let values = ["1", "2", "3", "4", "5", "6"].map(|value| value.repeat(1 << 20));
    values.iter().for_each(|value| drop(lab.write("a", value, Ack::Quorum)));
    leave_out(lab);
    values
}

/// c lags, and the control plane agrees to go on without it.
fn leave_out(lab: &mut Lab) {
    lab.pass(600);
    let left_out = lab.proposals().pop().expect("c lags");
    lab.accept(&left_out);
}

#[test]
fn a_follower_that_is_a_moment_behind_with_every_write_is_taken_in_again() {
    let mut lab = Lab::without_c();
    lab.write("a", "x", Ack::Quorum);
    leave_out(&mut lab);
    lab.join("c");
    let before = lab.proposals().len();
    for _ in 0..100 {
        lab.hold_disk("c");
        lab.write("a", "y", Ack::Quorum);
        lab.pass(20);
        lab.release_disk("c");
        lab.pass(20);
    }
    let proposals = lab.proposals();
    let last = proposals[before..].last().expect("c kept up for four seconds");
    assert!(last.added.contains_key(&node("c")), "{last:?}");
}

#[test]
fn the_first_write_after_a_pause_is_not_stalled_at_once() {
    let mut lab = Lab::led_by("a", &["a", "b"]);
    lab.pass(5_000);
    lab.hold_disk("b");
    lab.write("a", "x", Ack::Quorum);
    lab.pass(900);
    let stalled = |wishes: &[Wish]| wishes.iter().any(|wish| matches!(wish, Wish::Stalled { .. }));
    assert!(!stalled(&lab.wishes()));
    lab.pass(200);
    assert!(stalled(&lab.wishes()), "nothing was committed for twice the lag");
}

#[test]
fn what_was_due_is_done_though_the_timer_is_late_and_something_else_came_first() {
    let mut lab = Lab::led_by("a", &["a", "b"]);
    lab.settle();
    lab.cut("a");
    lab.restart("b");
    lab.freeze(500);
    assert!(lab.try_write("b", "refused", Ack::Quorum).is_err());
    lab.join("a");
    lab.pass(2_000);
    let write = lab.write("a", "x", Ack::Quorum);
    lab.settle();
    assert!(lab.is_done(&write), "b asked again");
}

#[test]
fn nothing_is_said_and_no_time_is_awaited_while_nothing_happens() {
    let mut lab = Lab::led_by("a", &["a", "b", "c"]);
    lab.write("a", "x", Ack::Quorum);
    lab.pass(5_000);
    let sent = lab.sent();
    lab.pass(60_000);
    assert_eq!(lab.sent(), sent);
    assert_eq!(lab.next_timeout(), None);
}

#[test]
fn data_of_a_replica_that_was_taken_away_stay_for_a_while() {
    let mut lab = Lab::led_by("a", &["a", "b", "c"]);
    lab.settle();
    lab.record(|record| {
        record.in_sync.remove(&node("c"));
        record.replicas.retain(|replica| replica.node != node("c"));
    });
    lab.pass(59_000);
    assert_eq!(lab.removed("c"), 0);
    lab.pass(2_000);
    assert_eq!(lab.removed("c"), 1);
}

#[test]
fn a_damaged_replica_serves_nothing_and_does_not_lead() {
    let mut lab = Lab::led_by("a", &["a", "b"]);
    lab.settle();
    lab.damage("a");
    assert!(matches!(lab.wishes().as_slice(), [Wish::Resign { .. }]));
    assert!(lab.status("a").damaged);
    lab.elect("b", "a");
    lab.elect("a", "b");
    assert!(matches!(lab.wishes().as_slice(), [.., Wish::Resign { .. }]), "it was elected all the same");
    assert_eq!(lab.status("a").role, RoleStatus::Idle);
}

#[test]
fn a_refused_write_does_not_put_off_what_is_due() {
    let mut lab = Lab::led_by("a", &["a", "b"]);
    lab.settle();
    lab.cut("a");
    lab.elect("b", "a");
    lab.elect("a", "b");
    let sent = lab.sent();
    let due = lab.next_timeout_of("b").expect("b asks again");
    lab.skip_to(due);
    assert!(lab.try_write("b", "x", Ack::Quorum).is_err());
    lab.settle();
    assert!(lab.sent() > sent, "b attaches, though nobody told it the time");
}

#[test]
fn a_barrier_does_not_wait_for_who_is_no_member_any_more() {
    let mut lab = Lab::without_c();
    let read = lab.read("a");
    lab.settle();
    assert_eq!(lab.answer(&read), None);
    lab.declare_dead("c");
    lab.record(|record| {
        record.in_sync.remove(&node("c"));
    });
    assert_eq!(lab.answer(&read), Some(vec![]));
}

#[test]
fn a_member_that_answers_no_barrier_is_left_out_though_nothing_is_written() {
    let mut lab = Lab::without_c();
    lab.read("a");
    lab.pass(2_000);
    let left_out = lab.proposals().pop().expect("c lags");
    assert!(!left_out.in_sync.contains(&node("c")));
}

#[test]
fn ack_all_is_refused_once_an_attached_replica_lags() {
    let mut lab = Lab::without_c();
    lab.write("a", "x", Ack::Quorum);
    lab.pass(600);
    assert_eq!(lab.try_write("a", "y", Ack::All), Err(ProposeError::NotAllReplicas));
}

#[test]
fn a_resignation_is_repeated_by_a_leader_that_nobody_could_follow() {
    let mut lab = Lab::led_by("a", &["a", "b"]);
    lab.settle();
    lab.resign("a");
    assert_eq!(lab.wishes().len(), 1);
    lab.record(|_| {});
    assert!(lab.try_write("a", "x", Ack::Quorum).is_ok(), "it leads, and so it serves");
    lab.pass(1_000);
    assert!(matches!(lab.wishes().as_slice(), [_, Wish::Resign { .. }]), "{:?}", lab.wishes());
}

#[test]
fn a_state_is_not_served_before_it_is_installed() {
    let mut lab = Lab::without_c();
    let values = write_more_than_memory_keeps(&mut lab);
    lab.restart("c");
    lab.compact("a");
    lab.hold_disk("c");
    lab.join("c");
    lab.pass(1_500);
    assert_eq!(lab.status("c").applied, 0, "the state has arrived, and is not in its place");
    let read = lab.read_session("c", 7);
    lab.settle();
    assert_eq!(lab.answer(&read), None);
    lab.release_disk("c");
    lab.settle();
    assert_eq!(lab.answer(&read).map(|state| state.len()), Some(values.len()));
}

#[test]
fn nothing_is_applied_that_is_not_on_the_own_disk() {
    let mut lab = Lab::without_c();
    lab.write("a", "x", Ack::Quorum);
    leave_out(&mut lab);
    lab.hold_disk("c");
    lab.join("c");
    lab.pass(1_500);
    let status = lab.status("c");
    assert_eq!((status.commit, status.commit_durable, status.applied), (2, 1, 1));
}

#[test]
fn a_session_is_not_opened_where_it_may_be_lost() {
    let mut lab = Lab::led_by("a", &["a", "b"]);
    assert_eq!(lab.open_session("a", Ack::Leader), Err(ProposeError::SessionNeedsQuorum));
    assert!(lab.open_session("a", Ack::Quorum).is_ok());
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("a name")
}
