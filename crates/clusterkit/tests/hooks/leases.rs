//! No two nodes may write a partition at once, whatever the network does: leases end by time before
//! another node's begin.

use std::collections::BTreeMap;
use std::time::Duration;

use clusterkit::core::control::Rejected;
use clusterkit::testing::{Cluster, PATIENCE};
use clusterkit::{ChangeError, Epoch, LeaseLost, PartitionId};

use super::{P, leader, led, node, start};

const NODES: u32 = 5;
/// Faults of one run.
const FAULTS: u32 = 25;
/// How often the leases are looked at.
const LOOK: Duration = Duration::from_millis(7);

/// A small seeded generator (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn node(&mut self) -> u32 {
        u32::try_from(self.below(u64::from(NODES))).expect("a small number") + 1
    }
}

/// What was seen of the leases so far.
#[derive(Default)]
struct Seen {
    newest: BTreeMap<PartitionId, Epoch>,
    looks_led: u64,
}

impl Seen {
    fn look(&mut self, cluster: &Cluster) {
        let running = cluster.running();
        for partition in std::iter::once(super::P) {
            let leases = running.iter().filter_map(|number| {
                let lease = cluster.node(*number).lead(partition).ok()?;
                Some((*number, lease.epoch()))
            });
            let leases: Vec<_> = leases.collect();
            assert!(leases.len() < 2, "{partition} can be written by several: {leases:?}");
            if let Some((number, epoch)) = leases.first() {
                let newest = self.newest.entry(partition).or_insert(*epoch);
                assert!(epoch >= newest, "node-{number} writes {partition} under {epoch} after {newest}");
                *newest = *epoch;
                self.looks_led += 1;
            }
        }
    }

    async fn watch(&mut self, cluster: &Cluster, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < end {
            self.look(cluster);
            tokio::time::sleep(LOOK).await; // tidy: the clock is paused
        }
    }
}

fn fault(cluster: &Cluster, chance: &mut Chance) {
    let (one, other) = (chance.node(), chance.node());
    let name = |number| node(number).as_str().to_owned();
    match chance.below(4) {
        // Cut off.
        0 | 1 => {
            let others: Vec<_> = (1..=NODES).filter(|number| *number != one).map(name).collect();
            let others: Vec<_> = others.iter().map(String::as_str).collect();
            cluster.net().partition(&[&[name(one).as_str()], &others]);
        }
        // One way.
        2 => cluster.net().block(&name(one), &name(other)),
        _ => cluster.net().delay(&name(one), &name(other), Duration::from_millis(chance.below(700))),
    }
}

async fn run(seed: u64) {
    let (cluster, _) = start(NODES, 3).await;
    let mut chance = Chance(seed);
    let mut seen = Seen::default();
    for _ in 0..FAULTS {
        fault(&cluster, &mut chance);
        seen.watch(&cluster, Duration::from_millis(100 + chance.below(2_500))).await;
        if chance.below(3) > 0 {
            cluster.net().heal();
            for (one, other) in (1..=NODES).flat_map(|one| (1..=NODES).map(move |other| (one, other))) {
                cluster.net().delay(node(one).as_str(), node(other).as_str(), Duration::ZERO);
            }
            seen.watch(&cluster, Duration::from_millis(chance.below(1_500))).await;
        }
    }
    assert!(seen.looks_led > 500, "seed {seed}: nobody led for most of the time: {}", seen.looks_led);
}

#[tokio::test(start_paused = true)]
async fn no_two_nodes_can_write_a_partition_at_once() {
    for seed in 0..2 {
        run(seed).await;
    }
}

/// Its death and its next election reach it in one topology.
#[tokio::test(start_paused = true)]
async fn a_node_that_slept_through_its_death_and_its_next_election_leads_again() {
    let (cluster, _) = start(3, 1).await;
    for _ in 0..3 {
        let source = led(&cluster).await;
        let before = cluster.node(source).topology().partitions[0].epoch;
        let name = |number: u32| node(number).as_str().to_owned();
        let others: Vec<_> = (1..=3).filter(|number| *number != source).collect();
        for other in &others {
            cluster.net().block(&name(*other), &name(source));
            cluster.net().block(&name(source), &name(*other));
        }
        let dead = |topology: &clusterkit::Topology| leader(topology).is_none();
        cluster.until(others[0], "it is dead", dead).await;
        others.iter().for_each(|other| cluster.net().unblock(&name(source), &name(*other)));
        let elected = |topology: &clusterkit::Topology| topology.partitions[0].epoch > before;
        cluster.until(others[0], "it is elected again", elected).await;
        assert_eq!(cluster.node(source).topology().partitions[0].epoch, before, "it knows of nothing");
        others.iter().for_each(|other| cluster.net().unblock(&name(*other), &name(source)));
        cluster.until(source, "it knows", elected).await;
        assert_eq!(led(&cluster).await, source, "nobody else has a copy");
        assert!(cluster.node(source).lead(P).is_ok());
    }
}

/// Looks at the leases until the partition is written under an epoch after `before`.
async fn led_after(cluster: &Cluster, seen: &mut Seen, before: Epoch) {
    let led = |seen: &Seen| seen.newest.get(&P).is_some_and(|newest| *newest > before);
    let end = tokio::time::Instant::now() + PATIENCE;
    while !led(seen) {
        assert!(tokio::time::Instant::now() < end, "nobody leads");
        seen.watch(cluster, LOOK).await;
    }
}

/// A leader that is told late of everything: it says that it stalls, and others know first.
#[tokio::test(start_paused = true)]
async fn a_leader_that_gives_up_writes_no_more_while_it_waits_for_the_answer() {
    let (cluster, _) = start(3, 3).await;
    let mut seen = Seen::default();
    for _ in 0..6 {
        let source = led(&cluster).await;
        let lease = cluster.node(source).lead(P).expect("it leads");
        let permit = lease.begin().expect("it leads");
        let others = (1..=3).filter(|number| *number != source);
        for other in others.clone() {
            cluster.net().delay(node(other).as_str(), node(source).as_str(), Duration::from_millis(250));
        }
        let leaving = cluster.node(source).clone();
        let told = tokio::spawn(async move { leaving.report_stalled(P).await });
        led_after(&cluster, &mut seen, lease.epoch()).await;
        assert!(permit.confirm().is_err(), "another one may have written since");
        told.await.expect("no panic").expect("it led");
        for other in others {
            cluster.net().delay(node(other).as_str(), node(source).as_str(), Duration::ZERO);
        }
        seen.watch(&cluster, Duration::from_secs(3)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_resignation_was_refused_goes_on_by_the_newer_record() {
    let (cluster, _) = start(3, 3).await;
    let source = led(&cluster).await;
    let leading = cluster.node(source).clone();
    let lease = leading.lead(P).expect("it leads");
    let record = leading.partition_info(P).expect("it leads");
    let fewer = record.in_sync.iter().take(2).chain([leading.node_id()]).cloned().collect();
    let change = leading.propose_in_sync(P, record.version, fewer, BTreeMap::new());
    let resign = async {
        let refused = leading.report_stalled(P).await;
        // It is told before it has adopted the record by which it was refused, or after.
        led(&cluster).await;
        refused
    };
    let check = async { assert_eq!(lease.check(), Err(LeaseLost::NotLeader)) };
    let (changed, refused, ()) = tokio::join!(change, resign, check);
    changed.expect("it leads");
    let refused = refused.expect_err("the record is another one");
    assert!(matches!(refused, ChangeError::Rejected(Rejected::StaleVersion { .. })), "{refused}");
    assert_eq!(lease.check(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_nobody_can_follow_goes_on() {
    let (cluster, _) = start(1, 1).await;
    let source = led(&cluster).await;
    let leading = cluster.node(source).clone();
    let lease = leading.lead(P).expect("it leads");
    let refused = leading.report_stalled(P).await.expect_err("nobody else has a copy");
    assert!(matches!(refused, ChangeError::Rejected(Rejected::NoSuccessor { .. })), "{refused}");
    led(&cluster).await;
    assert_eq!(lease.check(), Ok(()));
}

/// Its hook cannot be called while a write is under way, and it stops without.
#[tokio::test(start_paused = true)]
async fn a_write_that_a_stopping_node_does_not_wait_for_is_not_acknowledged() {
    let (cluster, _) = start(3, 3).await;
    let source = led(&cluster).await;
    let lease = cluster.node(source).lead(P).expect("it leads");
    let permit = lease.begin().expect("it leads");
    // Whoever leads next knows it before the one that stops.
    let others = || (1..=3).filter(|number| *number != source);
    for other in others() {
        cluster.net().delay(node(other).as_str(), node(source).as_str(), Duration::from_millis(250));
    }
    let stopping = cluster.node(source).clone();
    let stopped = tokio::spawn(async move { stopping.stop().await });
    let mut seen = Seen::default();
    let end = tokio::time::Instant::now() + PATIENCE;
    while !others().any(|number| cluster.node(number).lead(P).is_ok()) {
        assert!(tokio::time::Instant::now() < end, "nobody leads");
        seen.watch(&cluster, LOOK).await;
    }
    assert_eq!(permit.confirm(), Err(LeaseLost::Stopped));
    tokio::time::timeout(PATIENCE, stopped).await.expect("it stops").expect("no panic");
}
