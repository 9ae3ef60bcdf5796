//! Each rule of forming as a short story: facts at milliseconds, then all that came out.
//!
//! The machine under test is always node `a` unless a story says otherwise; nodes are named by one
//! letter and live at `<letter>:1`.

use alloc::vec;
use core::iter;

use super::*;
use crate::id::{NodeId, StoreId};

const fn at(millis: u64) -> Instant {
    Instant::at(Duration::from_millis(millis))
}

fn candidate(name: char) -> Candidate {
    Candidate {
        node: NodeId::new(&name.to_string()).expect("a valid name"),
        store: StoreId(u64::from(u32::from(name))),
        node_addr: addr(name),
    }
}

fn addr(name: char) -> String {
    [name, ':', '1'].iter().collect()
}

fn candidates(names: &str) -> Vec<Candidate> {
    names.chars().map(candidate).collect()
}

fn vote(round: u64, names: &str) -> Vote {
    Vote { round, members: candidates(names) }
}

fn config(name: char, expect: Option<u32>) -> Config {
    Config { expect, ..Config::new(candidate(name), "blue".to_string()) }
}

/// Node `a` of a cluster of three.
fn node() -> Forming {
    node_with(config('a', Some(3)), None)
}

fn node_with(config: Config, recovered: Option<Vote>) -> Forming {
    Forming::new(config, recovered, 1, at(0))
}

/// What `name`, of a cluster of three, says when it hears `known`.
fn hello(name: char, known: &str) -> Greeting {
    Greeting {
        candidate: candidate(name),
        cluster_name: "blue".to_string(),
        expect: Some(3),
        known: candidates(known),
        vote: None,
        formed: None,
    }
}

fn hello_with_vote(name: char, known: &str, vote: Vote) -> Greeting {
    Greeting { vote: Some(vote), ..hello(name, known) }
}

fn hello_of_cluster(name: char, cluster: ClusterId) -> Greeting {
    Greeting { formed: Some(cluster), ..hello(name, "") }
}

fn hear(node: &mut Forming, millis: u64, greeting: Greeting) {
    node.handle_greeting(at(millis), "client:5", greeting);
}

/// Calls every timeout that is due by `millis`, each on time.
fn pass_until(node: &mut Forming, millis: u64) {
    while let Some(due) = node.poll_timeout().filter(|&due| due <= at(millis)) {
        node.handle_timeout(due);
    }
}

fn actions(node: &mut Forming) -> Vec<Action> {
    iter::from_fn(|| node.poll_action()).collect()
}

/// Everything but the greetings, which most stories are not about.
fn decisions(node: &mut Forming) -> Vec<Action> {
    let mut actions = actions(node);
    actions.retain(|action| !matches!(action, Action::Greet { .. }));
    actions
}

/// The addresses that were greeted, in order of address.
fn greets(node: &mut Forming) -> Vec<String> {
    let greeted = |action| if let Action::Greet { addr } = action { Some(addr) } else { None };
    actions(node).into_iter().filter_map(greeted).collect()
}

fn persist(round: u64, names: &str) -> Action {
    Action::PersistVote(vote(round, names))
}

fn formed(round: u64, names: &str) -> Action {
    Action::Formed { cluster: vote(round, names).cluster_id("blue"), members: candidates(names) }
}

fn join(name: char, cluster: ClusterId) -> Action {
    Action::Join { addr: addr(name), cluster }
}

/// A node that has the durable vote (`round`, abc), hears both others, and did all it wanted.
fn voter(round: u64) -> Forming {
    let mut node = node_with(config('a', Some(3)), Some(vote(round, "abc")));
    hear(&mut node, 0, hello('b', "ac"));
    hear(&mut node, 0, hello('c', "ab"));
    assert_eq!(decisions(&mut node), []);
    node
}

#[test]
fn expect_one_forms_alone_once_its_vote_is_durable() {
    let mut node = node_with(config('a', Some(1)), None);
    assert_eq!(actions(&mut node), [persist(1, "a")]);
    assert_eq!(node.greeting().vote, None);
    node.handle_vote_durable(at(5), 1);
    assert_eq!(actions(&mut node), [formed(1, "a")]);
    assert_eq!(node.greeting().vote, Some(vote(1, "a")));
}

#[test]
fn restart_of_one_alone_forms_the_same_cluster_at_once() {
    let mut node = node_with(config('a', Some(1)), Some(vote(1, "a")));
    assert_eq!(actions(&mut node), [formed(1, "a")]);
}

#[test]
fn exactly_as_many_as_expected_are_the_set() {
    let mut node = node();
    hear(&mut node, 10, hello('c', "ab"));
    assert_eq!(decisions(&mut node), []);
    hear(&mut node, 20, hello('b', "ac"));
    assert_eq!(decisions(&mut node), [persist(1, "abc")]);
}

#[test]
fn more_than_expected_leave_the_lowest_ids() {
    let mut node = node_with(config('b', Some(3)), None);
    for (name, known) in [('d', "bc"), ('a', "c")] {
        hear(&mut node, 10, hello(name, known));
    }
    assert_eq!(decisions(&mut node), []);
    // One message tells both that c is there and that it hears b; a does not hear b yet.
    hear(&mut node, 20, hello('a', "bcd"));
    assert_eq!(decisions(&mut node), [persist(1, "abd")]);
    let mut late = node_with(config('d', Some(3)), None);
    for (name, known) in [('a', "bcd"), ('c', "abd"), ('b', "acd")] {
        hear(&mut late, 10, hello(name, known));
    }
    pass_until(&mut late, 2_000);
    assert_eq!(decisions(&mut late), [persist(1, "acd")], "what it had before it heard of b");
}

#[test]
fn node_above_the_lowest_ids_waits_and_joins() {
    let mut node = node_with(config('d', Some(2)), None);
    for (name, known) in [('a', "bd"), ('b', "ad")] {
        hear(&mut node, 10, Greeting { expect: Some(2), ..hello(name, "") });
        hear(&mut node, 11, Greeting { expect: Some(2), ..hello(name, known) });
    }
    // It heard a alone for a moment, and voted with it; the set of a and b leaves it behind.
    assert_eq!(decisions(&mut node), [persist(1, "ad")]);
    node.handle_vote_durable(at(20), 1);
    hear(&mut node, 30, Greeting { expect: Some(2), ..hello_with_vote('a', "bd", vote(2, "ab")) });
    assert_eq!(decisions(&mut node), []);
    let cluster = vote(2, "ab").cluster_id("blue");
    hear(&mut node, 40, hello_of_cluster('b', cluster));
    assert_eq!(decisions(&mut node), [join('b', cluster)]);
}

#[test]
fn candidate_that_does_not_hear_this_node_does_not_count() {
    let mut node = node();
    hear(&mut node, 10, hello('b', "ac"));
    hear(&mut node, 20, hello('c', "b"));
    assert_eq!(decisions(&mut node), []);
    hear(&mut node, 30, hello('c', "ab"));
    assert_eq!(decisions(&mut node), [persist(1, "abc")]);
}

#[test]
fn candidate_that_fell_silent_does_not_count() {
    let mut node = node();
    hear(&mut node, 10, hello('b', "ac"));
    pass_until(&mut node, 3_011);
    decisions(&mut node);
    hear(&mut node, 3_011, hello('c', "ab"));
    assert_eq!(decisions(&mut node), []);
    assert_eq!(node.greeting().known, candidates("c"));
}

#[test]
fn vote_is_shown_only_when_it_is_durable() {
    let mut node = node();
    hear(&mut node, 10, hello('b', "ac"));
    hear(&mut node, 10, hello('c', "ab"));
    assert_eq!(decisions(&mut node), [persist(1, "abc")]);
    assert_eq!(node.greeting().vote, None);
    node.handle_vote_durable(at(20), 7);
    assert_eq!(node.greeting().vote, None);
    node.handle_vote_durable(at(21), 1);
    assert_eq!(node.greeting().vote, Some(vote(1, "abc")));
    // Members are told at once, and a late word of it changes nothing.
    assert_eq!(greets(&mut node), ["b:1", "c:1"]);
    node.handle_vote_durable(at(22), 1);
    assert_eq!(actions(&mut node), []);
}

#[test]
fn shown_vote_is_adopted_before_an_own_one() {
    let mut node = node();
    hear(&mut node, 10, hello('c', "abd"));
    hear(&mut node, 20, hello_with_vote('d', "abc", vote(4, "acd")));
    assert_eq!(decisions(&mut node), [persist(4, "acd")]);
}

#[test]
fn of_many_shown_votes_the_highest_round_is_adopted() {
    let mut node = node_with(config('a', Some(2)), None);
    let greeting = |name, vote| Greeting { expect: Some(2), ..hello_with_vote(name, "", vote) };
    for (name, vote) in [('b', vote(3, "ab")), ('d', vote(5, "ad")), ('c', vote(5, "ac"))] {
        hear(&mut node, 10, greeting(name, vote));
    }
    // All three become mutual in one instant: b brings the node to vote first.
    for (name, shown) in [('c', vote(5, "ac")), ('d', vote(5, "ad")), ('b', vote(3, "ab"))] {
        hear(&mut node, 20, Greeting { known: candidates("a"), ..greeting(name, shown) });
    }
    assert_eq!(decisions(&mut node), [persist(5, "ac")]);
}

#[test]
fn vote_for_a_node_that_is_not_heard_is_not_adopted() {
    let mut node = node();
    hear(&mut node, 10, hello_with_vote('b', "acx", vote(1, "abx")));
    assert_eq!(decisions(&mut node), []);
    // The own vote is of a round above, so that b has evidence and follows.
    hear(&mut node, 20, hello('c', "ab"));
    assert_eq!(decisions(&mut node), [persist(2, "abc")]);
}

#[test]
fn vote_with_an_address_of_before_is_not_adopted() {
    let mut node = node();
    hear(&mut node, 10, hello('c', "ab"));
    let moved = Candidate { node_addr: "elsewhere:1".to_string(), ..candidate('b') };
    let greeting = hello_with_vote('b', "ac", vote(1, "abc"));
    hear(&mut node, 20, Greeting { candidate: moved.clone(), ..greeting });
    let members = vec![candidate('a'), moved, candidate('c')];
    assert_eq!(decisions(&mut node), [Action::PersistVote(Vote { round: 2, members })]);
}

#[test]
fn vote_that_nobody_can_have_cast_does_not_count() {
    let unsorted = Vote { round: 1, members: candidates("cba") };
    let twice = Vote { round: 1, members: candidates("abb") };
    for invalid in [vote(0, "abc"), vote(1, "acd"), unsorted, twice] {
        let mut node = node();
        hear(&mut node, 10, hello('c', "ab"));
        hear(&mut node, 20, hello_with_vote('b', "ac", invalid));
        assert_eq!(decisions(&mut node), [persist(1, "abc")]);
    }
}

#[test]
fn unanimous_vote_forms_the_cluster() {
    let mut node = voter(2);
    hear(&mut node, 10, hello_with_vote('b', "ac", vote(2, "abc")));
    assert_eq!(decisions(&mut node), []);
    hear(&mut node, 20, hello_with_vote('c', "ab", vote(2, "abc")));
    assert_eq!(actions(&mut node), [formed(2, "abc")]);
}

#[test]
fn durable_vote_counts_however_long_ago_it_was_shown() {
    let mut node = voter(2);
    hear(&mut node, 10, hello_with_vote('b', "ac", vote(2, "abc")));
    pass_until(&mut node, 60_000);
    let waiting = Problem::VotesMissing { round: 2, nodes: vec![candidate('c').node] };
    assert_eq!(decisions(&mut node), [Action::Report(waiting)]);
    hear(&mut node, 60_001, hello_with_vote('c', "ab", vote(2, "abc")));
    assert_eq!(actions(&mut node), [formed(2, "abc")]);
}

#[test]
fn late_greeting_takes_no_vote_back() {
    let mut node = voter(2);
    hear(&mut node, 10, hello_with_vote('b', "ac", vote(2, "abc")));
    hear(&mut node, 20, hello_with_vote('b', "ac", vote(1, "bcd")));
    hear(&mut node, 30, hello('b', "ac"));
    hear(&mut node, 40, hello_with_vote('c', "ab", vote(2, "abc")));
    assert_eq!(decisions(&mut node), [formed(2, "abc")]);
}

#[test]
fn vote_is_left_when_a_member_has_another_of_the_same_round() {
    let mut node = voter(2);
    hear(&mut node, 10, hello_with_vote('b', "ac", vote(2, "bcd")));
    assert_eq!(decisions(&mut node), [persist(3, "abc")]);
    assert_eq!(node.greeting().vote, Some(vote(2, "abc")), "until the next one is durable");
    node.handle_vote_durable(at(20), 3);
    assert_eq!(node.greeting().vote, Some(vote(3, "abc")));
}

#[test]
fn vote_is_left_for_one_of_a_higher_round() {
    let mut node = voter(2);
    hear(&mut node, 10, hello_with_vote('b', "ac", vote(9, "abc")));
    assert_eq!(decisions(&mut node), [persist(9, "abc")]);
}

#[test]
fn vote_is_not_left_for_a_members_vote_of_a_lower_round() {
    let mut node = voter(2);
    hear(&mut node, 10, hello_with_vote('b', "ac", vote(1, "bcd")));
    pass_until(&mut node, 2_000);
    assert_eq!(decisions(&mut node), []);
}

#[test]
fn vote_is_not_left_for_the_vote_of_a_node_outside_the_set() {
    let mut node = voter(2);
    hear(&mut node, 10, hello_with_vote('0', "abc", vote(5, "0ab")));
    assert_eq!(decisions(&mut node), []);
    // The same name with another disk is no member either: b may have formed the cluster.
    let replaced = Candidate { store: StoreId(1), ..candidate('b') };
    let members = vec![candidate('a'), replaced.clone(), candidate('c')];
    let greeting = hello_with_vote('b', "ac", Vote { round: 5, members });
    pass_until(&mut node, 4_000);
    hear(&mut node, 4_000, Greeting { candidate: replaced, ..greeting });
    hear(&mut node, 4_000, hello('c', "ab"));
    let waiting = Problem::VotesMissing { round: 2, nodes: vec![candidate('b').node, candidate('c').node] };
    assert_eq!(decisions(&mut node), [Action::Report(waiting)]);
}

#[test]
fn own_votes_after_the_first_keep_a_pause() {
    let mut node = voter(2);
    for round in 2..4 {
        hear(&mut node, 10, hello_with_vote('b', "ac", vote(round * 10, "bcd")));
        let casts = decisions(&mut node);
        if round == 2 {
            assert_eq!(casts, [persist(21, "abc")]);
            node.handle_vote_durable(at(10), 21);
        } else {
            assert_eq!(casts, []);
        }
    }
    pass_until(&mut node, 300);
    assert_eq!(decisions(&mut node), [persist(31, "abc")]);
}

#[test]
fn recovered_vote_goes_on_after_a_restart() {
    let mut node = node_with(config('a', Some(3)), Some(vote(4, "abc")));
    assert_eq!(greets(&mut node), ["b:1", "c:1"], "members are greeted without any seed");
    assert_eq!(node.greeting().vote, Some(vote(4, "abc")));
    hear(&mut node, 10, hello_with_vote('b', "ac", vote(4, "abc")));
    hear(&mut node, 20, hello_with_vote('c', "ab", vote(4, "abc")));
    assert_eq!(decisions(&mut node), [formed(4, "abc")]);
}

#[test]
fn recovered_vote_of_another_disk_counts_for_nothing() {
    let mut replaced = config('a', Some(3));
    replaced.me.store = StoreId(1);
    let node = node_with(replaced, Some(vote(4, "abc")));
    assert_eq!(node.greeting().vote, None);
}

#[test]
fn cluster_of_the_own_vote_is_formed_and_another_one_is_joined() {
    let mut node = voter(2);
    hear(&mut node, 10, hello_of_cluster('c', vote(2, "abc").cluster_id("blue")));
    assert_eq!(actions(&mut node), [formed(2, "abc")]);
    let mut node = voter(2);
    let other = vote(3, "abc").cluster_id("blue");
    hear(&mut node, 10, hello_of_cluster('c', other));
    assert_eq!(decisions(&mut node), [join('c', other)]);
}

#[test]
fn join_is_repeated_but_once_a_beat() {
    let mut node = node();
    for (millis, expect) in [(10, 1), (11, 0), (209, 0), (210, 1), (500, 1)] {
        hear(&mut node, millis, hello_of_cluster('x', ClusterId(7)));
        assert_eq!(decisions(&mut node), vec![join('x', ClusterId(7)); expect], "at {millis}");
    }
}

#[test]
fn node_that_may_join_does_not_vote() {
    let mut node = node();
    hear(&mut node, 10, hello_of_cluster('x', ClusterId(7)));
    assert_eq!(decisions(&mut node), [join('x', ClusterId(7))]);
    for millis in (100..=3_100).step_by(200) {
        hear(&mut node, millis, hello('b', "ac"));
        hear(&mut node, millis, hello('c', "ab"));
        assert_eq!(decisions(&mut node), if millis > 3_010 { vec![persist(1, "abc")] } else { vec![] });
    }
}

#[test]
fn node_without_expect_only_joins() {
    let mut node = node_with(config('a', None), None);
    hear(&mut node, 10, hello('b', "ac"));
    hear(&mut node, 20, hello_with_vote('c', "ab", vote(1, "abc")));
    pass_until(&mut node, 10_000);
    assert_eq!(decisions(&mut node), []);
    hear(&mut node, 10_001, hello_of_cluster('b', ClusterId(7)));
    assert_eq!(decisions(&mut node), [join('b', ClusterId(7))]);
}

#[test]
fn node_that_only_joins_is_no_candidate() {
    let mut node = node();
    hear(&mut node, 10, hello('b', "ac"));
    hear(&mut node, 20, Greeting { expect: None, ..hello('c', "ab") });
    assert_eq!(decisions(&mut node), []);
    assert_eq!(node.greeting().known, candidates("b"));
}

#[test]
fn formed_machine_only_answers() {
    let mut node = node_with(config('a', Some(1)), Some(vote(1, "a")));
    assert_eq!(actions(&mut node), [formed(1, "a")]);
    let greeting = node.greeting();
    assert_eq!(greeting.formed, Some(vote(1, "a").cluster_id("blue")));
    assert_eq!(node.poll_timeout(), None);
    node.handle_timeout(at(500));
    hear(&mut node, 500, hello_of_cluster('b', ClusterId(7)));
    node.handle_unreachable(at(500), "b:1", Unreachable::NotClusterKit);
    node.handle_seeds(at(500), ["c:1".to_string()]);
    assert_eq!(actions(&mut node), []);
    assert_eq!(node.greeting(), greeting);
}

#[test]
fn other_name_or_number_is_reported_once_and_does_not_count() {
    let mut node = node();
    hear(&mut node, 10, hello('b', "ac"));
    let four = Greeting { expect: Some(4), ..hello('c', "ab") };
    let green = Greeting { cluster_name: "green".to_string(), ..hello('d', "ab") };
    for millis in [20, 30] {
        hear(&mut node, millis, four.clone());
        hear(&mut node, millis, green.clone());
    }
    node.handle_unreachable(at(40), "e:1", Unreachable::OtherCluster { name: "red".to_string() });
    let differs = |name, theirs: &str| {
        Action::Report(Problem::ClusterNameDiffers { addr: addr(name), theirs: theirs.to_string() })
    };
    let expect = Problem::ExpectDiffers { node: candidate('c').node, addr: addr('c'), theirs: 4 };
    assert_eq!(decisions(&mut node), [Action::Report(expect), differs('d', "green"), differs('e', "red")]);
}

#[test]
fn problem_that_lasts_is_reported_once_a_minute() {
    let mut node = node_with(config('a', None), None);
    let count = (0..=60_000)
        .step_by(500)
        .filter(|millis| {
            node.handle_unreachable(at(*millis), "b:1", Unreachable::NotClusterKit);
            !decisions(&mut node).is_empty()
        })
        .count();
    assert_eq!(count, 2);
}

#[test]
fn nobody_votes_while_two_nodes_have_one_name() {
    let mut node = node();
    let twin = Candidate { store: StoreId(1), node_addr: "twin:1".to_string(), ..candidate('c') };
    hear(&mut node, 10, hello('c', "ab"));
    hear(&mut node, 20, Greeting { candidate: twin, ..hello('c', "ab") });
    hear(&mut node, 2_000, hello('c', "ab"));
    hear(&mut node, 2_000, hello('b', "ac"));
    let addrs = vec!["twin:1".to_string(), addr('c')];
    let clash = Problem::NodeIdClash { node: candidate('c').node, addrs };
    assert_eq!(decisions(&mut node), [Action::Report(clash)]);
    // The twin falls silent.
    pass_until(&mut node, 3_300);
    assert_eq!(decisions(&mut node), [persist(1, "abc")]);
}

#[test]
fn own_name_elsewhere_is_a_clash() {
    let mut node = node();
    let twin = Candidate { store: StoreId(1), node_addr: "twin:1".to_string(), ..candidate('a') };
    hear(&mut node, 10, Greeting { candidate: twin, ..hello('a', "bc") });
    let addrs = vec!["twin:1".to_string(), addr('a')];
    let clash = Problem::NodeIdClash { node: candidate('a').node, addrs };
    assert_eq!(decisions(&mut node), [Action::Report(clash)]);
}

#[test]
fn copied_data_directory_is_reported_and_does_not_count() {
    let mut node = node();
    hear(&mut node, 10, hello('b', "ac"));
    let copy = Candidate { store: candidate('a').store, ..candidate('c') };
    hear(&mut node, 20, Greeting { candidate: copy, ..hello('c', "ab") });
    let (store, node_id) = (candidate('a').store, candidate('c').node);
    let clash = Problem::StoreClash { store, node: node_id, addr: addr('c') };
    assert_eq!(decisions(&mut node), [Action::Report(clash)]);
}

#[test]
fn own_address_among_the_seeds_is_harmless() {
    let seeds = ["a:1", "localhost:1", "b:1"].map(ToString::to_string).to_vec();
    let mut node = node_with(Config { seeds, ..config('a', Some(3)) }, None);
    assert_eq!(greets(&mut node), ["b:1", "localhost:1"]);
    let myself = node.greeting();
    node.handle_greeting(at(10), "localhost:1", myself);
    pass_until(&mut node, 1_200);
    assert_eq!(greets(&mut node), ["b:1"]);
    assert_eq!(node.greeting().known, []);
}

#[test]
fn candidates_known_at_second_hand_are_greeted() {
    let mut node = node();
    hear(&mut node, 10, hello('b', "acd"));
    assert_eq!(greets(&mut node), ["b:1", "c:1", "d:1"]);
    assert_eq!(node.greeting().known, candidates("b"), "but only b was heard");
    // Nobody speaks of them any more.
    pass_until(&mut node, 3_100);
    greets(&mut node);
    pass_until(&mut node, 6_000);
    assert_eq!(greets(&mut node), Vec::<String>::new());
}

#[test]
fn seeds_can_be_looked_up_again() {
    let mut node = node_with(Config { seeds: vec![addr('b')], ..config('a', Some(3)) }, None);
    assert_eq!(greets(&mut node), ["b:1"]);
    node.handle_seeds(at(50), [addr('c'), addr('a')]);
    assert_eq!(greets(&mut node), ["c:1"]);
    pass_until(&mut node, 5_000);
    assert_eq!(greets(&mut node), ["c:1"]);
}

#[test]
fn unreachable_seed_is_greeted_less_and_less_often_and_reported() {
    let mut node = node_with(Config { seeds: vec![addr('b')], ..config('a', None) }, None);
    let mut greeted_at = vec![];
    let mut reports = vec![];
    while greeted_at.len() < 12 {
        let now = node.poll_timeout().expect("not formed");
        for action in actions(&mut node) {
            match action {
                Action::Greet { .. } => {
                    greeted_at.push(now);
                    node.handle_unreachable(now, "b:1", Unreachable::Refused);
                }
                other => reports.push(other),
            }
        }
        node.handle_timeout(now);
    }
    let pauses: Vec<_> = greeted_at.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!(pauses[0] < Duration::from_millis(500), "{pauses:?}");
    for pause in &pauses[5..] {
        assert!((1_000..=2_300).contains(&pause.as_millis()), "{pauses:?}");
    }
    assert_eq!(reports, [Action::Report(Problem::NoAnswer { addr: addr('b') })]);
}

#[test]
fn greeting_without_any_outcome_is_sent_again() {
    let mut node = node_with(Config { seeds: vec![addr('b')], ..config('a', None) }, None);
    assert_eq!(greets(&mut node), ["b:1"]);
    pass_until(&mut node, 999);
    assert_eq!(greets(&mut node), Vec::<String>::new());
    pass_until(&mut node, 1_225);
    assert_eq!(greets(&mut node), ["b:1"]);
}

#[test]
fn greetings_of_one_beat_are_bounded_and_everybody_has_a_turn() {
    let seeds: Vec<_> = (0..40).map(|i| alloc::format!("seed-{i}:1")).collect();
    let mut node = node_with(Config { seeds: seeds.clone(), ..config('a', None) }, None);
    let mut greeted = greets(&mut node);
    assert_eq!(greeted.len(), GREETS_PER_BEAT_MAX);
    for _ in 0..2 {
        let due = node.poll_timeout().expect("not formed");
        node.handle_timeout(due);
        greeted.extend(greets(&mut node));
    }
    greeted.sort();
    let mut seeds = seeds;
    seeds.sort();
    assert_eq!(greeted, seeds);
}

#[test]
fn of_too_many_candidates_the_lowest_ids_are_remembered() {
    let mut node = node();
    let named = |i: usize| Candidate {
        node: NodeId::new(&alloc::format!("n{i:04}")).expect("a valid name"),
        store: StoreId(1_000 + i as u64),
        node_addr: alloc::format!("n{i}:1"),
    };
    for i in (0..CANDIDATES_MAX + 50).rev() {
        hear(&mut node, 10, Greeting { candidate: named(i), ..hello('x', "") });
    }
    let known = node.greeting().known;
    assert_eq!(known, (0..CANDIDATES_MAX).map(named).collect::<Vec<_>>());
}

#[test]
fn waiting_for_candidates_is_reported() {
    let mut node = node();
    for millis in (100..4_000).step_by(500) {
        pass_until(&mut node, millis);
        hear(&mut node, millis, hello('b', "a"));
    }
    let heard = vec![candidate('a').node, candidate('b').node];
    let waiting = Problem::CandidatesMissing { expect: 3, heard };
    assert_eq!(decisions(&mut node), [Action::Report(waiting)]);
}

#[test]
fn three_nodes_form_in_a_few_beats() {
    let seeds: Vec<_> = "abc".chars().map(addr).collect();
    let start = |name| node_with(Config { seeds: seeds.clone(), ..config(name, Some(3)) }, None);
    let mut nodes: Vec<_> = "abc".chars().map(start).collect();
    let mut formed_count = 0;
    for millis in 0..700 {
        for i in 0..nodes.len() {
            nodes[i].handle_timeout(at(millis));
            for action in actions(&mut nodes[i]) {
                match action {
                    Action::Greet { addr } => {
                        let greeting = nodes[i].greeting();
                        let other = seeds.iter().position(|seed| *seed == addr).expect("one of three");
                        nodes[other].handle_greeting(at(millis), "client:5", greeting);
                        let answer = nodes[other].greeting();
                        nodes[i].handle_greeting(at(millis), &addr, answer);
                    }
                    Action::PersistVote(vote) => nodes[i].handle_vote_durable(at(millis), vote.round),
                    Action::Formed { members, .. } => {
                        assert_eq!(members, candidates("abc"));
                        formed_count += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    assert_eq!(formed_count, 3);
}

#[test]
fn cluster_id_is_frozen() {
    assert_eq!(vote(1, "abc").cluster_id("blue"), ClusterId(0x1418_8279_f033_b93c));
}

#[test]
fn cluster_id_depends_on_everything_in_the_vote() {
    let base = vote(1, "abc").cluster_id("blue");
    let mut moved = vote(1, "abc");
    moved.members[0].node_addr.push('0');
    let mut replaced = vote(1, "abc");
    replaced.members[0].store = StoreId(1);
    for other in [vote(2, "abc"), vote(1, "abd"), moved, replaced] {
        assert_ne!(other.cluster_id("blue"), base);
    }
    assert_ne!(vote(1, "abc").cluster_id("red"), base);
}

#[test]
fn greeting_survives_encoding() {
    let mut greeting = hello_with_vote('a', "bc", vote(3, "abc"));
    greeting.formed = Some(ClusterId(7));
    let text = serde_json::to_string(&greeting).expect("plain values");
    assert_eq!(serde_json::from_str::<Greeting>(&text).expect("what was written"), greeting);
}

#[test]
fn values_that_do_not_fit_are_refused() {
    let check = |change: fn(&mut Config), expect| {
        let mut config = config('a', Some(3));
        change(&mut config);
        assert_eq!(config.check(), expect);
    };
    check(|_| (), Ok(()));
    check(|c| c.expect = Some(0), Err(InvalidConfig::Expect { expect: 0 }));
    check(|c| c.expect = Some(65), Err(InvalidConfig::Expect { expect: 65 }));
    check(|c| c.beat = Duration::ZERO, Err(InvalidConfig::BeatTooShort));
    check(|c| c.beat *= 2, Err(InvalidConfig::CandidateTimeoutTooShort));
}

#[test]
fn seed_of_another_cluster_is_greeted_less_and_less_often() {
    let mut node = node_with(Config { seeds: vec![addr('b')], ..config('a', None) }, None);
    let mut count = 0;
    for millis in 0..10_000 {
        node.handle_timeout(at(millis));
        for _ in greets(&mut node) {
            count += 1;
            let green = Greeting { cluster_name: "green".to_string(), ..hello('b', "") };
            node.handle_greeting(at(millis), "b:1", green);
        }
    }
    assert!((5..=12).contains(&count), "{count}");
}
