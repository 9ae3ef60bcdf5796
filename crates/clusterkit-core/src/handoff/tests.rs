//! Transcripts: what the topology says, what the hooks answer, and everything that comes out.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use core::time::Duration;

use super::*;
use crate::id::{BootId, ClusterId, PartitionVersion, StoreId};
use crate::topology::{
    self, Cluster, ClusterConfig, Liveness, Move, Node, Origin, Overrun, RaftRole, Replica,
};

mod giving_up;
mod places;
mod sealing;

const P: PartitionId = PartitionId(0);

fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("test names are valid")
}

fn member(name: &str) -> Node {
    Node {
        id: node(name),
        store: StoreId(1),
        boot: BootId(1),
        incarnation: Incarnation(1),
        node_addr: format!("{name}:7000"),
        public_addr: format!("{name}:8080"),
        zone: None,
        weight: 1,
        role: RaftRole::Voter,
        holds_data: true,
        reports_position: false,
        liveness: Liveness::Alive,
        stage: topology::Stage::Member,
        software: "0.1.0".to_string(),
        metadata: BTreeMap::new(),
    }
}

/// Node `a`, and what it is told of partition 0.
struct World {
    now: Instant,
    stages: Stages,
    topology: Topology,
    record: Partition,
}

impl World {
    /// Partition 0 with copies on these nodes, all of them in sync, led by the first at epoch 1.
    fn new(nodes: &[&str]) -> Self {
        Self::recovered(nodes, Vec::new())
    }

    fn recovered(nodes: &[&str], noted: Vec<(PartitionId, ReplicaUid)>) -> Self {
        let replicas =
            (1..).zip(nodes).map(|(uid, name)| Replica { node: node(name), uid: ReplicaUid(uid), lapses: 0 });
        let record = Partition {
            id: P,
            version: PartitionVersion(1),
            epoch: Epoch(1),
            origin: Origin::First,
            leader: nodes.first().map(|name| node(name)),
            replicas: replicas.collect(),
            in_sync: nodes.iter().map(|name| node(name)).collect(),
            tainted: BTreeSet::new(),
            min_in_sync: 1,
            yielded_by: None,
            transfer: None,
            movement: None,
            unclean: None,
            overrun: None,
            history: Vec::new(),
        };
        let cluster =
            Cluster { id: ClusterId(1), name: String::from("test"), config: ClusterConfig::default() };
        let members = ["a", "b", "c"].map(|name| (node(name), Arc::new(member(name))));
        let nodes = members.into_iter().collect();
        let topology = Topology { cluster: Some(Arc::new(cluster)), nodes, ..Topology::default() };
        let stages = Stages::new(Config::default(), node("a"), Incarnation(1), noted);
        Self { now: Instant::ORIGIN, stages, topology, record }
    }

    /// The record changes and is seen.
    fn learn(&mut self, change: impl FnOnce(&mut Partition)) -> Vec<String> {
        change(&mut self.record);
        self.record.version = self.record.version.next();
        self.see()
    }

    /// Another epoch begins.
    fn elect(&mut self, leader: &str, epoch: u64) -> Vec<String> {
        self.learn(|record| {
            record.leader = Some(node(leader));
            record.epoch = Epoch(epoch);
        })
    }

    fn see(&mut self) -> Vec<String> {
        self.topology.version = self.topology.version.next();
        self.topology.partitions = vec![Arc::new(self.record.clone())];
        self.stages.handle_topology(self.now, &self.topology);
        self.actions()
    }

    fn configure(&mut self, change: impl FnOnce(&mut ClusterConfig)) {
        let mut cluster = self.topology.cluster.as_deref().expect("it has formed").clone();
        change(&mut cluster.config);
        self.topology.cluster = Some(Arc::new(cluster));
    }

    /// As many partitions as this, all alike, are seen.
    fn see_many(&mut self, count: u32) {
        self.topology.version = self.topology.version.next();
        let record = |p| Arc::new(Partition { id: PartitionId(p), ..self.record.clone() });
        self.topology.partitions = (0..count).map(record).collect();
        self.stages.handle_topology(self.now, &self.topology);
    }

    /// One of them changes.
    fn see_beside(&mut self, record: Partition) -> Vec<String> {
        self.topology.version = self.topology.version.next();
        let index = record.id.index();
        self.topology.partitions[index] = Arc::new(record);
        self.stages.handle_topology(self.now, &self.topology);
        self.actions()
    }

    fn saved(&mut self, token: u64) -> Vec<String> {
        self.stages.handle_saved(self.now, Token(token));
        self.actions()
    }

    fn done(&mut self, token: u64) -> Vec<String> {
        self.answer(token, Outcome::Done)
    }

    fn answer(&mut self, token: u64, outcome: Outcome) -> Vec<String> {
        self.stages.handle_outcome(self.now, Token(token), outcome);
        self.actions()
    }

    fn refuse(&mut self, token: u64) -> Vec<String> {
        self.answer(token, Outcome::Refused(String::from("no")))
    }

    fn drained(&mut self, token: u64) -> Vec<String> {
        self.stages.handle_drained(self.now, P, Token(token));
        self.actions()
    }

    fn pass(&mut self, duration: Duration) -> Vec<String> {
        self.now = self.now + duration;
        self.stages.handle_timeout(self.now);
        let due = self.stages.poll_timeout();
        assert!(
            due.is_none_or(|due| due > self.now),
            "it wants to be woken for what it has just done nothing about"
        );
        self.actions()
    }

    fn actions(&mut self) -> Vec<String> {
        core::iter::from_fn(|| self.stages.poll_action()).map(|action| shown(&action)).collect()
    }

    fn facts(&self) -> Vec<String> {
        self.stages.reports().map(|report| shown_fact(&report.fact)).collect()
    }

    /// A leader with an open lease: the tokens up to 3 are spent.
    fn leading() -> Self {
        let mut world = Self::new(&["a", "b"]);
        assert_eq!(world.see(), ["save#1 [p0/u1]"]);
        assert_eq!(world.saved(1), ["run#2 prepare u1"]);
        assert_eq!(world.done(2), ["run#3 activate e1 first"]);
        assert_eq!(world.done(3), ["open e1"]);
        world
    }

    /// A copy that follows `b` and is not in sync: the tokens up to 3 are spent, `catch_up` runs.
    fn learning() -> Self {
        let mut world = Self::new(&["b", "a"]);
        world.record.in_sync.remove(&node("a"));
        world.record.movement = Some(Move { source: Some(node("b")), target: node("a") });
        assert_eq!(world.see(), ["save#1 [p0/u2]"]);
        assert_eq!(world.saved(1), ["run#2 prepare u2"]);
        assert_eq!(world.done(2), ["run#3 catch_up u2 e1 from b"]);
        world
    }
}

fn shown(action: &Action) -> String {
    match action {
        Action::Abort { token } => format!("abort#{token}"),
        Action::Adopt { .. } => "adopt".to_string(),
        Action::Cancel { token } => format!("cancel#{token}"),
        Action::CloseLease { token, epoch, .. } => format!("close#{token} e{epoch}"),
        Action::EndLease { epoch, .. } => format!("end e{epoch}"),
        Action::OpenLease { epoch, .. } => format!("open e{epoch}"),
        Action::Overran { stage, .. } => format!("overran {stage}"),
        Action::Run { token, call } => format!("run#{token} {}", shown_call(call)),
        Action::Save { token, replicas } => {
            let list: Vec<_> = replicas.iter().map(|(p, uid)| format!("p{}/u{uid}", p.0)).collect();
            format!("save#{token} [{}]", list.join(" "))
        }
    }
}

fn shown_call(call: &Call) -> String {
    match call {
        Call::Prepare { uid, .. } => format!("prepare u{uid}"),
        Call::CatchUp { uid, epoch, leader, .. } => format!("catch_up u{uid} e{epoch} from {leader}"),
        Call::Seal { epoch, cause: SealCause::Handover(target), .. } => format!("seal e{epoch} for {target}"),
        Call::Seal { epoch, cause: SealCause::Deposed, .. } => format!("seal e{epoch} deposed"),
        Call::Seal { epoch, cause: SealCause::Stopping, .. } => format!("seal e{epoch} stopping"),
        Call::Activate { epoch, cause: ActivateCause::Elected(origin), .. } => {
            format!("activate e{epoch} {origin}")
        }
        Call::Activate { epoch, cause: ActivateCause::Resumed, .. } => format!("activate e{epoch} resumed"),
        Call::Release { uid, .. } => format!("release u{uid}"),
    }
}

fn shown_fact(fact: &Fact) -> String {
    match fact {
        Fact::Activated { epoch } => format!("activated e{epoch}"),
        Fact::CaughtUp { uid, epoch, lapses } => format!("caught_up u{uid} e{epoch} l{lapses}"),
        Fact::Declined { stage, version, reason, .. } => format!("declined {stage} v{version}: {reason}"),
        Fact::Overran { stage } => format!("overran {stage}"),
        Fact::OnTime => "on time".to_string(),
        Fact::Sealed { epoch, version } => format!("sealed e{epoch} v{version}"),
        Fact::Damaged { uid } => format!("damaged u{}", uid.0),
        Fact::Stalled { epoch } => format!("stalled e{epoch}"),
    }
}

fn in_sync(record: &mut Partition) {
    record.in_sync.insert(node("a"));
}

fn out_of_sync(record: &mut Partition) {
    record.in_sync.remove(&node("a"));
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_replica_is_prepared_before_it_leads_and_noted_before_it_is_prepared() {
    let world = World::leading();
    assert_eq!(world.facts(), NOTHING);
}

#[test]
fn a_follower_that_is_in_sync_is_prepared_and_nothing_more() {
    let mut world = World::new(&["b", "a"]);
    assert_eq!(world.see(), ["save#1 [p0/u2]"]);
    assert_eq!(world.saved(1), ["run#2 prepare u2"]);
    assert_eq!(world.done(2), NOTHING);
    assert_eq!(world.facts(), NOTHING);
}

#[test]
fn a_copy_says_that_it_caught_up_until_the_record_shows_it() {
    let mut world = World::learning();
    assert_eq!(world.facts(), NOTHING);
    assert_eq!(world.done(3), NOTHING);
    assert_eq!(world.facts(), ["caught_up u2 e1 l0"]);
    assert_eq!(world.learn(in_sync), NOTHING);
    assert_eq!(world.facts(), NOTHING);
}

#[test]
fn another_leader_means_to_catch_up_again() {
    let mut world = World::learning();
    assert_eq!(world.done(3), NOTHING);
    let elected = |record: &mut Partition| record.epoch = Epoch(2);
    assert_eq!(world.learn(elected), ["run#4 catch_up u2 e2 from b"]);
    assert_eq!(world.learn(|record| record.epoch = Epoch(3)), ["cancel#4"]);
    assert_eq!(world.answer(4, Outcome::Aborted), ["run#5 catch_up u2 e3 from b"]);
}

#[test]
fn a_lapse_means_to_catch_up_again_even_when_the_time_in_sync_was_not_seen() {
    let mut world = World::learning();
    assert_eq!(world.done(3), NOTHING);
    assert_eq!(world.learn(|record| record.replicas[1].lapses = 1), ["run#4 catch_up u2 e1 from b"]);
    assert_eq!(world.facts(), NOTHING);
}

#[test]
fn being_in_sync_once_says_nothing_of_the_next_time() {
    let mut world = World::learning();
    assert_eq!(world.done(3), NOTHING);
    assert_eq!(world.learn(in_sync), NOTHING);
    assert_eq!(world.learn(out_of_sync), ["run#4 catch_up u2 e1 from b"]);
}

#[test]
fn a_handover_closes_the_lease_then_drains_then_seals_then_says_so() {
    let mut world = World::leading();
    assert_eq!(world.learn(|record| record.transfer = Some(node("b"))), ["close#4 e1"]);
    assert_eq!(world.facts(), NOTHING);
    assert_eq!(world.pass(Duration::from_millis(1)), NOTHING);
    assert_eq!(world.drained(4), ["run#5 seal e1 for b"]);
    assert_eq!(world.facts(), NOTHING);
    assert_eq!(world.done(5), NOTHING);
    assert_eq!(world.facts(), ["sealed e1 v2"]);
    let handed = |record: &mut Partition| {
        record.leader = Some(node("b"));
        record.epoch = Epoch(2);
        record.transfer = None;
    };
    assert_eq!(world.learn(handed), ["end e1"]);
    assert_eq!(world.facts(), NOTHING);
}

#[test]
fn a_handover_called_off_before_the_seal_opens_the_lease_again() {
    let mut world = World::leading();
    assert_eq!(world.learn(|record| record.transfer = Some(node("b"))), ["close#4 e1"]);
    assert_eq!(world.learn(|record| record.transfer = None), ["open e1"]);
    // The permit that was waited for ends later: nobody asks for it any more.
    assert_eq!(world.drained(4), NOTHING);
    assert_eq!(world.learn(|record| record.transfer = Some(node("b"))), ["close#5 e1"]);
    assert_eq!(world.drained(4), NOTHING);
    assert_eq!(world.drained(5), ["run#6 seal e1 for b"]);
}

#[test]
fn a_handover_called_off_after_the_seal_activates_again_under_the_same_epoch() {
    let mut world = World::leading();
    world.learn(|record| record.transfer = Some(node("b")));
    world.drained(4);
    world.done(5);
    assert_eq!(world.learn(|record| record.transfer = None), ["run#6 activate e1 resumed"]);
    // It may serve before it says so, and is sealed once more when it is to hand over after all.
    assert_eq!(world.learn(|record| record.transfer = Some(node("b"))), ["cancel#6"]);
    assert_eq!(world.done(6), ["run#7 seal e1 for b"]);
    world.done(7);
    assert_eq!(world.learn(|record| record.transfer = None), ["run#8 activate e1 resumed"]);
    assert_eq!(world.done(8), ["open e1"]);
}

#[test]
fn a_seal_that_is_refused_is_rolled_back_and_not_called_again() {
    let mut world = World::leading();
    world.learn(|record| record.transfer = Some(node("b")));
    world.drained(4);
    assert_eq!(world.refuse(5), NOTHING);
    assert_eq!(world.facts(), ["declined seal v2: no"]);
    assert_eq!(world.pass(Duration::from_secs(60)), ["overran seal"]);
    assert_eq!(world.learn(|record| record.transfer = None), ["run#6 activate e1 resumed"]);
    assert_eq!(world.done(6), ["open e1"]);
    assert_eq!(world.facts(), NOTHING);
}

#[test]
fn a_seal_that_hangs_is_named_rolled_back_told_to_end_and_ended_by_force() {
    let mut world = World::leading();
    world.learn(|record| record.transfer = Some(node("b")));
    world.drained(4);
    assert_eq!(world.pass(Duration::from_secs(2)), ["overran seal", "cancel#5"]);
    assert_eq!(world.facts(), ["declined seal v2: it took too long", "overran seal"]);
    assert_eq!(world.pass(Duration::from_secs(1)), ["abort#5"]);
    assert_eq!(world.answer(5, Outcome::Aborted), NOTHING);
    assert_eq!(world.learn(|record| record.transfer = None), ["run#6 activate e1 resumed"]);
}

#[test]
fn a_permit_that_is_never_dropped_is_named_as_the_seal_it_holds_up() {
    let mut world = World::leading();
    world.learn(|record| record.transfer = Some(node("b")));
    assert_eq!(world.pass(Duration::from_secs(2)), ["overran seal"]);
    assert_eq!(world.facts(), ["declined seal v2: it took too long", "overran seal"]);
    assert_eq!(world.learn(|record| record.transfer = None), ["open e1"]);
}

#[test]
fn a_deposed_leader_ends_its_lease_at_once_and_seals_before_it_catches_up() {
    let mut world = World::leading();
    let deposed = |record: &mut Partition| {
        record.leader = Some(node("b"));
        record.epoch = Epoch(2);
        record.in_sync.remove(&node("a"));
        record.replicas[0].lapses = 1;
    };
    assert_eq!(world.learn(deposed), ["end e1", "close#4 e1"]);
    assert_eq!(world.drained(4), ["run#5 seal e1 deposed"]);
    assert_eq!(world.done(5), ["run#6 catch_up u1 e2 from b"]);
}

#[test]
fn a_leader_whose_replica_is_taken_away_seals_and_then_releases() {
    let mut world = World::leading();
    let evicted = |record: &mut Partition| {
        record.replicas.remove(0);
        record.in_sync.remove(&node("a"));
        record.leader = None;
    };
    assert_eq!(world.learn(evicted), ["end e1", "close#4 e1"]);
    assert_eq!(world.drained(4), ["run#5 seal e1 deposed"]);
    assert_eq!(world.done(5), ["run#6 release u1"]);
    assert!(!world.stages.is_released());
    assert_eq!(world.done(6), ["save#7 []"]);
    assert!(world.stages.is_released());
}

#[test]
fn an_activation_that_is_refused_gives_the_leadership_up() {
    let mut world = World::new(&["a", "b"]);
    world.see();
    world.saved(1);
    world.done(2);
    assert_eq!(world.refuse(3), NOTHING);
    assert_eq!(world.facts(), ["declined activate v1: no"]);
    // It may have begun to serve: it is sealed, though no lease was ever open.
    assert_eq!(world.elect("b", 2), ["end e1", "run#4 seal e1 deposed"]);
    assert_eq!(world.done(4), NOTHING);
    assert_eq!(world.facts(), NOTHING);
}

#[test]
fn a_newer_epoch_cancels_an_activation_and_no_lease_opens_for_the_old_one() {
    let mut world = World::new(&["a", "b"]);
    world.see();
    world.saved(1);
    world.done(2);
    assert_eq!(world.learn(|record| record.epoch = Epoch(3)), ["end e1", "cancel#3"]);
    assert_eq!(world.done(3), ["run#4 seal e1 deposed"]);
    assert_eq!(world.done(4), ["run#5 activate e3 first"]);
    assert_eq!(world.done(5), ["open e3"]);
}

#[test]
fn a_deferral_is_honoured_up_to_the_longest_pause() {
    let mut world = World::learning();
    assert_eq!(world.answer(3, Outcome::Deferred(Duration::from_secs(3_600))), NOTHING);
    assert_eq!(world.stages.poll_timeout(), Some(Instant::at(Duration::from_secs(30))));
    assert_eq!(world.pass(Duration::from_secs(29)), NOTHING);
    assert_eq!(world.pass(Duration::from_secs(1)), ["run#4 catch_up u2 e1 from b"]);
}

#[test]
fn what_nobody_waits_for_is_not_said() {
    // A copy that no move brings: its refusal can be rolled back by nobody.
    let mut world = World::learning();
    world.learn(|record| record.movement = None);
    assert_eq!(world.refuse(3), NOTHING);
    assert_eq!(world.facts(), NOTHING);
    // One late hook is named at a time.
    let other =
        |record: &mut Partition| record.overrun = Some(Overrun { node: node("b"), stage: Stage::Release });
    world.learn(other);
    assert_eq!(world.pass(Duration::from_millis(500)), ["run#4 catch_up u2 e1 from b"]);
    assert_eq!(world.pass(Duration::from_secs(60)), ["overran catch_up"]);
    assert_eq!(world.facts(), NOTHING);
    world.learn(|record| record.overrun = None);
    assert_eq!(world.facts(), ["overran catch_up"]);
    // A node that counts as dead is not listened to.
    world.topology.nodes.insert(node("a"), Arc::new(Node { liveness: Liveness::Dead, ..member("a") }));
    world.see();
    assert_eq!(world.facts(), NOTHING);
}

#[test]
fn a_refused_copy_is_declined_and_tried_again_with_growing_pauses() {
    let mut world = World::learning();
    assert_eq!(world.refuse(3), NOTHING);
    assert_eq!(world.facts(), ["declined catch_up v1: no"]);
    assert_eq!(world.pass(Duration::from_millis(500)), ["run#4 catch_up u2 e1 from b"]);
    world.refuse(4);
    assert_eq!(world.pass(Duration::from_millis(999)), NOTHING);
    assert_eq!(world.pass(Duration::from_millis(1)), ["run#5 catch_up u2 e1 from b"]);
    assert_eq!(world.done(5), NOTHING);
    assert_eq!(world.facts(), ["caught_up u2 e1 l0"]);
}

#[test]
fn a_move_that_is_rolled_back_releases_what_was_copied() {
    let mut world = World::learning();
    let aborted = |record: &mut Partition| {
        record.replicas.pop();
        record.movement = None;
    };
    assert_eq!(world.learn(aborted), ["cancel#3"]);
    assert_eq!(world.pass(Duration::from_secs(1)), ["abort#3"]);
    assert_eq!(world.answer(3, Outcome::Aborted), ["run#4 release u2"]);
}

#[test]
fn a_copy_is_late_only_while_it_stands_still() {
    let mut world = World::learning();
    for _ in 0..3 {
        assert_eq!(world.pass(Duration::from_secs(59)), NOTHING);
        world.stages.handle_progress(world.now, Token(3), Progress { bytes: 1, bytes_total: None });
    }
    assert_eq!(world.pass(Duration::from_secs(60)), ["overran catch_up"]);
    assert_eq!(world.facts(), ["overran catch_up"]);
    let named =
        |record: &mut Partition| record.overrun = Some(Overrun { node: node("a"), stage: Stage::CatchUp });
    assert_eq!(world.learn(named), NOTHING);
    assert_eq!(world.facts(), NOTHING);
    world.stages.handle_progress(world.now, Token(3), Progress { bytes: 2, bytes_total: None });
    assert_eq!(world.facts(), ["on time"]);
}

#[test]
fn after_a_restart_what_was_taken_away_meanwhile_is_released_first() {
    let mut world = World::recovered(&["b", "a"], vec![(P, ReplicaUid(1)), (PartitionId(9), ReplicaUid(7))]);
    assert_eq!(world.see(), ["run#1 release u1", "run#2 release u7"]);
    assert_eq!(world.done(1), ["save#3 [p0/u2 p9/u7]"]);
    assert_eq!(world.saved(3), ["run#4 prepare u2"]);
}

#[test]
fn after_a_restart_what_is_noted_is_prepared_without_a_write() {
    let mut world = World::recovered(&["a", "b"], vec![(P, ReplicaUid(1))]);
    assert_eq!(world.see(), ["run#1 prepare u1"]);
}

#[test]
fn a_leader_that_never_activated_hands_over_at_once() {
    let mut world = World::new(&["a", "b"]);
    world.record.transfer = Some(node("b"));
    assert_eq!(world.see(), ["save#1 [p0/u1]"]);
    assert_eq!(world.facts(), ["sealed e1 v1"]);
}

#[test]
fn a_leader_in_a_move_says_that_it_serves() {
    let mut world = World::leading();
    let moving =
        |record: &mut Partition| record.movement = Some(Move { source: Some(node("b")), target: node("a") });
    assert_eq!(world.learn(moving), ["adopt"]);
    assert_eq!(world.facts(), ["activated e1"]);
}

#[test]
fn a_leader_with_more_copies_than_there_shall_be_says_that_it_serves() {
    let mut world = World::leading();
    assert_eq!(world.facts(), NOTHING);
    world.configure(|config| config.replication_factor = 1);
    world.see();
    assert_eq!(world.facts(), ["activated e1"]);
    let dropped = |record: &mut Partition| {
        record.replicas.pop();
        record.in_sync.remove(&node("b"));
    };
    assert_eq!(world.learn(dropped), ["adopt"]);
    assert_eq!(world.facts(), NOTHING);
}

#[test]
fn a_node_that_stops_seals_what_it_leads_and_begins_nothing() {
    let mut world = World::leading();
    world.stages.stop(world.now);
    assert_eq!(world.actions(), ["close#4 e1"]);
    assert_eq!(world.pass(Duration::from_millis(1)), NOTHING);
    assert!(!world.stages.is_sealed());
    assert_eq!(world.drained(4), ["run#5 seal e1 stopping"]);
    assert_eq!(world.done(5), NOTHING);
    assert!(world.stages.is_sealed());
    let deposed = |record: &mut Partition| {
        record.leader = Some(node("b"));
        record.epoch = Epoch(2);
        record.in_sync.remove(&node("a"));
    };
    assert_eq!(world.learn(deposed), ["end e1"]);
}

#[test]
fn a_lease_that_drains_wakes_nobody_before_it_is_late() {
    let mut world = World::leading();
    assert_eq!(world.learn(|record| record.transfer = Some(node("b"))), ["close#4 e1"]);
    assert_eq!(world.stages.poll_timeout(), Some(Instant::at(Duration::from_secs(2))));
    assert_eq!(world.pass(Duration::from_secs(2)), ["overran seal"]);
    assert_eq!(world.stages.poll_timeout(), None);
}

#[test]
fn a_copy_that_a_stop_holds_back_wakes_nobody_and_is_not_late() {
    let mut world = World::learning();
    world.stages.stop(world.now);
    assert_eq!(world.actions(), ["cancel#3"]);
    let released = |record: &mut Partition| {
        record.replicas.pop();
    };
    assert_eq!(world.learn(released), NOTHING);
    assert_eq!(world.answer(3, Outcome::Aborted), NOTHING);
    assert_eq!(world.stages.poll_timeout(), None);
    assert_eq!(world.pass(Duration::from_secs(3_600)), NOTHING);
    assert_eq!(world.facts(), NOTHING);
}

#[test]
fn a_late_outcome_changes_nothing() {
    let mut world = World::leading();
    assert_eq!(world.done(3), NOTHING);
    assert_eq!(world.refuse(77), NOTHING);
    assert_eq!(world.facts(), NOTHING);
}
