//! Each rule of the detector as a short story: facts at milliseconds, then all that came out.

use alloc::vec::Vec;

use super::*;

const fn at(millis: u64) -> Instant {
    Instant::at(Duration::from_millis(millis))
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("a valid name")
}

fn member(name: &str, incarnation: u64, recorded: Liveness) -> Member {
    Member { node: node(name), incarnation: Incarnation(incarnation), recorded }
}

fn watching(members: impl IntoIterator<Item = Member>) -> Detector {
    let mut detector = Detector::new(Config::default(), at(0));
    detector.handle_members(at(0), members);
    detector
}

fn beat(detector: &mut Detector, millis: u64, name: &str) {
    detector.handle_heartbeat(at(millis), &node(name), Incarnation(1));
}

/// Calls every timeout that is due by `millis`, each on time.
fn pass_until(detector: &mut Detector, millis: u64) {
    while let Some(due) = detector.poll_timeout().filter(|&due| due <= at(millis)) {
        detector.handle_timeout(due);
    }
}

fn actions(detector: &mut Detector) -> Vec<Action> {
    core::iter::from_fn(|| detector.poll_action()).collect()
}

fn report(name: &str, incarnation: u64, liveness: Liveness) -> Action {
    Action::Report { node: node(name), incarnation: Incarnation(incarnation), liveness }
}

fn probe(name: &str, token: u64) -> Action {
    Action::Probe { node: node(name), token: ProbeToken(token) }
}

#[test]
fn silence_makes_suspect_and_then_dead_each_reported_once() {
    let mut detector = watching([member("a", 1, Liveness::Alive)]);
    pass_until(&mut detector, 599);
    assert_eq!(actions(&mut detector), []);
    pass_until(&mut detector, 600);
    assert_eq!(actions(&mut detector), [report("a", 1, Liveness::Suspect)]);
    pass_until(&mut detector, 999);
    assert_eq!(actions(&mut detector), []);
    pass_until(&mut detector, 1_000);
    assert_eq!(actions(&mut detector), [report("a", 1, Liveness::Dead)]);
    detector.handle_members(at(1_010), [member("a", 1, Liveness::Dead)]);
    pass_until(&mut detector, 10_000);
    assert_eq!(actions(&mut detector), []);
}

#[test]
fn heartbeat_makes_joining_suspect_and_dead_alive() {
    for recorded in [Liveness::Joining, Liveness::Suspect, Liveness::Dead] {
        let mut detector = watching([member("a", 1, recorded)]);
        beat(&mut detector, 100, "a");
        assert_eq!(actions(&mut detector), [report("a", 1, Liveness::Alive)]);
        beat(&mut detector, 300, "a");
        assert_eq!(actions(&mut detector), []);
    }
}

#[test]
fn joining_is_never_suspect_but_dies_of_silence() {
    let mut detector = watching([member("a", 1, Liveness::Joining)]);
    pass_until(&mut detector, 999);
    assert_eq!(actions(&mut detector), []);
    pass_until(&mut detector, 1_000);
    assert_eq!(actions(&mut detector), [report("a", 1, Liveness::Dead)]);
}

#[test]
fn recorded_suspect_stays_suspect_until_heard() {
    let mut detector = watching([member("a", 1, Liveness::Suspect)]);
    pass_until(&mut detector, 900);
    assert_eq!(detector.liveness(&node("a")), Some(Liveness::Suspect));
    assert_eq!(actions(&mut detector), []);
}

#[test]
fn heartbeat_of_an_older_incarnation_is_ignored() {
    let mut detector = watching([member("a", 2, Liveness::Alive)]);
    pass_until(&mut detector, 500);
    beat(&mut detector, 500, "a");
    pass_until(&mut detector, 600);
    assert_eq!(actions(&mut detector), [report("a", 2, Liveness::Suspect)]);
}

#[test]
fn heartbeat_faster_than_the_topology_begins_the_newer_incarnation() {
    let mut detector = watching([member("a", 1, Liveness::Alive)]);
    detector.handle_heartbeat(at(50), &node("a"), Incarnation(2));
    assert_eq!(actions(&mut detector), [report("a", 2, Liveness::Alive)]);
    // The topology of before says nothing of this incarnation, and the next one catches up.
    detector.handle_members(at(60), [member("a", 1, Liveness::Dead)]);
    detector.handle_members(at(70), [member("a", 2, Liveness::Joining)]);
    detector.handle_members(at(80), [member("a", 2, Liveness::Alive)]);
    assert_eq!(actions(&mut detector), []);
}

#[test]
fn registering_again_begins_anew() {
    let mut detector = watching([member("a", 1, Liveness::Dead)]);
    detector.handle_members(at(500), [member("a", 2, Liveness::Joining)]);
    pass_until(&mut detector, 1_499);
    assert_eq!(actions(&mut detector), []);
    pass_until(&mut detector, 1_500);
    assert_eq!(actions(&mut detector), [report("a", 2, Liveness::Dead)]);
}

#[test]
fn lost_report_is_repeated_until_the_record_shows_it() {
    let mut detector = watching([member("a", 1, Liveness::Dead)]);
    beat(&mut detector, 0, "a");
    assert_eq!(actions(&mut detector), [report("a", 1, Liveness::Alive)]);
    for time in (200..1_000).step_by(200) {
        pass_until(&mut detector, time);
        beat(&mut detector, time, "a");
        assert_eq!(actions(&mut detector), []);
    }
    pass_until(&mut detector, 1_000);
    assert_eq!(actions(&mut detector), [report("a", 1, Liveness::Alive)]);
    beat(&mut detector, 1_000, "a");
    detector.handle_members(at(1_001), [member("a", 1, Liveness::Alive)]);
    for time in (1_200..4_000).step_by(200) {
        pass_until(&mut detector, time);
        beat(&mut detector, time, "a");
    }
    assert_eq!(actions(&mut detector), []);
}

#[test]
fn record_that_somebody_else_changed_is_corrected() {
    let mut detector = watching([member("a", 1, Liveness::Alive)]);
    beat(&mut detector, 100, "a");
    detector.handle_members(at(100), [member("a", 1, Liveness::Dead)]);
    assert_eq!(actions(&mut detector), [report("a", 1, Liveness::Alive)]);
}

#[test]
fn report_that_is_no_longer_true_is_not_given_out() {
    let mut detector = watching([member("a", 1, Liveness::Alive)]);
    pass_until(&mut detector, 600);
    beat(&mut detector, 600, "a");
    assert_eq!(actions(&mut detector), []);
}

#[test]
fn lost_connection_asks_for_one_probe() {
    let mut detector = watching([member("a", 1, Liveness::Alive), member("b", 1, Liveness::Alive)]);
    detector.handle_connection_lost(at(10), &node("a"));
    detector.handle_connection_lost(at(11), &node("a"));
    detector.handle_connection_lost(at(12), &node("nobody"));
    assert_eq!(actions(&mut detector), [probe("a", 1)]);
    detector.handle_connection_lost(at(13), &node("a"));
    detector.handle_connection_lost(at(14), &node("b"));
    assert_eq!(actions(&mut detector), [probe("b", 2)]);
}

#[test]
fn refused_probe_kills_at_once() {
    let mut detector = watching([member("a", 1, Liveness::Alive)]);
    detector.handle_connection_lost(at(10), &node("a"));
    assert_eq!(actions(&mut detector), [probe("a", 1)]);
    detector.handle_probe(at(11), &node("a"), ProbeToken(1), ProbeOutcome::Refused);
    assert_eq!(actions(&mut detector), [report("a", 1, Liveness::Dead)]);
    // The dead are not probed.
    detector.handle_connection_lost(at(12), &node("a"));
    assert_eq!(actions(&mut detector), []);
}

#[test]
fn probe_answered_by_a_newer_incarnation_kills_the_watched_one() {
    let mut detector = watching([member("a", 1, Liveness::Alive)]);
    detector.handle_connection_lost(at(10), &node("a"));
    assert_eq!(actions(&mut detector), [probe("a", 1)]);
    detector.handle_probe(at(11), &node("a"), ProbeToken(1), ProbeOutcome::Answered(Incarnation(2)));
    assert_eq!(actions(&mut detector), [report("a", 1, Liveness::Dead)]);
}

#[test]
fn answered_probe_clears_the_hint_and_is_no_heartbeat() {
    let mut detector = watching([member("a", 1, Liveness::Alive)]);
    pass_until(&mut detector, 500);
    detector.handle_connection_lost(at(500), &node("a"));
    assert_eq!(actions(&mut detector), [probe("a", 1)]);
    detector.handle_probe(at(510), &node("a"), ProbeToken(1), ProbeOutcome::Answered(Incarnation(1)));
    detector.handle_connection_lost(at(520), &node("a"));
    assert_eq!(actions(&mut detector), [probe("a", 2)]);
    detector.handle_probe(at(530), &node("a"), ProbeToken(2), ProbeOutcome::TimedOut);
    assert_eq!(actions(&mut detector), []);
    pass_until(&mut detector, 600);
    assert_eq!(actions(&mut detector), [report("a", 1, Liveness::Suspect)]);
}

#[test]
fn late_token_is_harmless() {
    let mut detector = watching([member("a", 1, Liveness::Alive)]);
    detector.handle_connection_lost(at(10), &node("a"));
    pass_until(&mut detector, 311);
    // The first probe is given up after its timeout, so the next hint begins another.
    detector.handle_connection_lost(at(311), &node("a"));
    assert_eq!(actions(&mut detector), [probe("a", 2)]);
    detector.handle_probe(at(312), &node("a"), ProbeToken(1), ProbeOutcome::Refused);
    assert_eq!(actions(&mut detector), []);
    // A probe of the incarnation before says nothing of the next one.
    detector.handle_heartbeat(at(313), &node("a"), Incarnation(2));
    detector.handle_probe(at(314), &node("a"), ProbeToken(2), ProbeOutcome::Refused);
    assert_eq!(actions(&mut detector), [report("a", 2, Liveness::Alive)]);
}

#[test]
fn removed_member_is_forgotten() {
    let mut detector = watching([member("a", 1, Liveness::Alive)]);
    detector.handle_connection_lost(at(10), &node("a"));
    detector.handle_members(at(20), []);
    beat(&mut detector, 30, "a");
    assert_eq!(actions(&mut detector), []);
    assert_eq!(detector.poll_timeout(), None);
    assert_eq!(detector.liveness(&node("a")), None);
}

#[test]
fn new_controller_counts_the_old_ones_silence_from_its_last_contact() {
    let mut detector = Detector::new(Config::default(), at(5_000));
    detector.handle_members(at(5_000), [member("old", 1, Liveness::Alive), member("b", 1, Liveness::Alive)]);
    detector.assume_heard(&node("old"), at(3_900));
    assert_eq!(detector.poll_timeout(), Some(at(5_000)));
    detector.handle_timeout(at(5_001));
    assert_eq!(actions(&mut detector), [report("old", 1, Liveness::Dead)]);
}

#[test]
fn assumption_yields_to_a_heartbeat() {
    let mut detector = Detector::new(Config::default(), at(5_000));
    detector.handle_members(at(5_000), [member("old", 1, Liveness::Alive)]);
    beat(&mut detector, 5_000, "old");
    detector.assume_heard(&node("old"), at(3_900));
    pass_until(&mut detector, 5_599);
    assert_eq!(actions(&mut detector), []);
}

#[test]
fn own_pause_is_nobodys_silence() {
    let mut detector = watching([member("a", 1, Liveness::Alive)]);
    pass_until(&mut detector, 400);
    // Asked to be woken at 500, woken at 2,500: two seconds are forgiven, 400 ms stay counted.
    detector.handle_timeout(at(2_500));
    assert_eq!(actions(&mut detector), []);
    pass_until(&mut detector, 2_599);
    assert_eq!(actions(&mut detector), []);
    pass_until(&mut detector, 3_000);
    assert_eq!(
        actions(&mut detector),
        [report("a", 1, Liveness::Dead)],
        "suspicion was overtaken before anybody asked"
    );
}

#[test]
fn own_pause_is_noticed_whatever_is_handled_first() {
    let mut detector = watching([member("a", 1, Liveness::Alive), member("b", 1, Liveness::Alive)]);
    beat(&mut detector, 3_000, "b");
    detector.handle_timeout(at(3_000));
    assert_eq!(actions(&mut detector), []);
}

#[test]
fn gone_counts_from_the_death_or_the_takeover() {
    let mut detector = watching([member("a", 1, Liveness::Alive), member("b", 1, Liveness::Dead)]);
    pass_until(&mut detector, 29_999);
    assert_eq!(detector.gone(at(29_999)), BTreeSet::new());
    pass_until(&mut detector, 30_000);
    assert_eq!(detector.gone(at(30_000)), BTreeSet::from([node("b")]));
    pass_until(&mut detector, 31_000);
    assert_eq!(detector.gone(at(31_000)), BTreeSet::from([node("a"), node("b")]));
    beat(&mut detector, 31_000, "b");
    assert_eq!(detector.gone(at(31_000)), BTreeSet::from([node("a")]));
}

#[test]
fn times_that_do_not_fit_are_refused() {
    let check = |change: fn(&mut Config), expect| {
        let mut config = Config::default();
        change(&mut config);
        assert_eq!(config.check(), expect);
    };
    check(|_| (), Ok(()));
    check(|c| c.heartbeat = Duration::ZERO, Err(InvalidConfig::HeartbeatTooShort));
    check(|c| c.heartbeat = Duration::from_millis(301), Err(InvalidConfig::SuspectWithinTwoHeartbeats));
    check(|c| c.dead_after = c.suspect_after, Err(InvalidConfig::DeadBeforeSuspect));
    check(|c| c.probe_timeout = c.dead_after, Err(InvalidConfig::ProbeOutlastsSilence));
}
