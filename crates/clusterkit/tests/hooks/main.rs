//! Ownership moves only when user code says so: whole nodes in one process, on a network, disks and a
//! clock that obey the test, with handlers that write down what they are asked.

mod claims;
mod crashes;
mod drain;
mod leases;
mod positions;
mod recorder;
mod stop;

use std::time::Duration;

use clusterkit::hooks::{ActivateCause, HookConfig, SealCause, Stage};
use clusterkit::testing::Cluster;
use clusterkit::{LeaseLost, NodeId, PartitionId, Route, Topology};

use self::recorder::{Recorders, Rule};

fn node(number: u32) -> NodeId {
    NodeId::new(&format!("node-{number}")).expect("a node id")
}

/// `count` nodes, each with a recorder, and one partition of `copies` copies.
async fn start(count: u32, copies: u32) -> (Cluster, Recorders) {
    let mut cluster = Cluster::new();
    let recorders = Recorders::default();
    for number in 1..=count {
        launch(&mut cluster, &recorders, number, count, copies).await;
    }
    for number in 1..=count {
        cluster.ready(number).await.expect("it becomes a member");
    }
    (cluster, recorders)
}

async fn launch(cluster: &mut Cluster, recorders: &Recorders, number: u32, count: u32, copies: u32) {
    let handler = recorders.of(number);
    let configure = move |builder: clusterkit::Builder| {
        builder.expect(count).partitions(1).replication_factor(copies).handler(handler.clone())
    };
    cluster.launch([number], configure).await;
}

/// How soon after its deadline every node names a hook that hangs.
const NAMED_WITHIN: Duration = Duration::from_secs(5);

const P: PartitionId = PartitionId(0);

fn leader(topology: &Topology) -> Option<u32> {
    let leader = topology.partition(P)?.leader.as_ref()?;
    leader.as_str().strip_prefix("node-")?.parse().ok()
}

/// The number of the node that leads, once its lease is open.
async fn led(cluster: &Cluster) -> u32 {
    let any = cluster.running()[0];
    let topology = cluster.until(any, "somebody leads", |topology| leader(topology).is_some()).await;
    let number = leader(&topology).expect("somebody leads");
    let route = cluster.node(number).route_settled(P, Duration::from_secs(30)).await;
    assert!(matches!(route, Route::Local(_)), "{route:?}");
    number
}

#[tokio::test(start_paused = true)]
async fn the_first_leader_is_prepared_and_activated_before_it_has_a_lease() {
    let (cluster, recorders) = start(3, 3).await;
    let number = led(&cluster).await;
    assert_eq!(recorders.stages(number), [Stage::Prepare, Stage::Activate]);
    let lease = cluster.node(number).lead(P).expect("it leads");
    assert_eq!(lease.check(), Ok(()));
    for other in cluster.running().into_iter().filter(|other| *other != number) {
        assert_eq!(recorders.stages(other), [Stage::Prepare]);
        assert_eq!(cluster.node(other).lead(P).expect_err("it follows"), LeaseLost::NotLeader);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drained_leader_seals_before_another_activates_and_releases_at_the_end() {
    let (mut cluster, recorders) = start(4, 3).await;
    let source = led(&cluster).await;
    let lease = cluster.node(source).lead(P).expect("it leads");
    let leaving = cluster.node(source).clone();
    let other = cluster.running().into_iter().find(|number| *number != source).expect("four run");
    leaving.leave().await.expect("it leaves");
    drop(leaving);
    cluster.stop(source).await;
    assert!(matches!(lease.check(), Err(LeaseLost::Superseded { .. } | LeaseLost::Stopped)));
    let moved = |topology: &Topology| leader(topology).is_some_and(|leader| leader != source);
    let topology = cluster.until(other, "another leads", moved).await;
    let target = leader(&topology).expect("another leads");
    let story = recorders.story();
    let place = |number, stage| {
        let at = story.iter().position(|(who, what)| *who == number && *what == stage);
        at.unwrap_or_else(|| panic!("node-{number} {stage} is not in {story:?}"))
    };
    assert!(place(source, Stage::Seal) < place(target, Stage::Activate), "{story:?}");
    assert!(place(target, Stage::Activate) < place(source, Stage::Release), "{story:?}");
    assert_eq!(recorders.seal_causes(source), [SealCause::Handover(node(target))]);
}

#[tokio::test(start_paused = true)]
async fn a_failover_calls_activate_alone_and_the_old_leader_seals_and_catches_up_when_it_returns() {
    let (mut cluster, recorders) = start(3, 3).await;
    let source = led(&cluster).await;
    let other = cluster.running().into_iter().find(|number| *number != source).expect("three run");
    cluster.kill(source).await;
    let moved = |topology: &Topology| leader(topology).is_some_and(|leader| leader != source);
    let topology = cluster.until(other, "another leads", moved).await;
    let target = leader(&topology).expect("another leads");
    led(&cluster).await;
    assert_eq!(recorders.stages(target), [Stage::Prepare, Stage::Activate]);
    assert!(matches!(recorders.causes(target)[..], [ActivateCause::Elected(_)]));
    recorders.forget(source);
    launch(&mut cluster, &recorders, source, 3, 3).await;
    cluster.ready(source).await.expect("it returns");
    let in_sync = |topology: &Topology| topology.partitions[0].in_sync.len() == 3;
    cluster.until(other, "all are in sync", in_sync).await;
    assert_eq!(recorders.stages(source), [Stage::Prepare, Stage::CatchUp]);
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_out_holds_the_handover_back() {
    let (cluster, recorders) = start(4, 3).await;
    let source = led(&cluster).await;
    let lease = cluster.node(source).lead(P).expect("it leads");
    let permit = lease.begin().expect("it is open");
    let other = cluster.running().into_iter().find(|number| *number != source).expect("four run");
    cluster.node(other).drain(&node(source)).await.expect("it is ordered");
    cluster.until(other, "the handover begins", |topology| topology.partitions[0].transfer.is_some()).await;
    cluster.until(source, "it knows", |topology| topology.partitions[0].transfer.is_some()).await;
    tokio::time::sleep(Duration::from_millis(500)).await; // tidy: the clock is paused
    assert_eq!(lease.begin().expect_err("no new writes"), LeaseLost::HandingOver);
    assert!(!recorders.stages(source).contains(&Stage::Seal));
    assert_eq!(permit.confirm(), Ok(()));
    let moved = |topology: &Topology| leader(topology).is_some_and(|leader| leader != source);
    cluster.until(other, "another leads", moved).await;
    assert!(recorders.stages(source).contains(&Stage::Seal));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_refuses_to_activate_gives_up_and_another_leads() {
    let (mut cluster, recorders) = start(3, 3).await;
    let source = led(&cluster).await;
    let others: Vec<_> = cluster.running().into_iter().filter(|number| *number != source).collect();
    recorders.rule(others[0], Stage::Activate, Rule::Refuse);
    cluster.kill(source).await;
    let expected = others[1];
    cluster.until(expected, "the willing one leads", |topology| leader(topology) == Some(expected)).await;
    let route = cluster.node(expected).route_settled(P, Duration::from_secs(30)).await;
    assert!(matches!(route, Route::Local(_)), "{route:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_hangs_is_named_in_the_record_of_every_node_and_forgotten_when_it_is_over() {
    let (mut cluster, recorders) = start(3, 2).await;
    let source = led(&cluster).await;
    let holds = |number: u32| {
        let topology = cluster.node(number).topology();
        topology.partitions[0].holds(&node(number))
    };
    let target = cluster.running().into_iter().find(|number| !holds(*number)).expect("one holds nothing");
    recorders.rule(target, Stage::Prepare, Rule::Hang);
    let follower = cluster
        .running()
        .into_iter()
        .find(|number| *number != source && holds(*number))
        .expect("one follows");
    let ordered = tokio::time::Instant::now();
    cluster.node(source).drain(&node(follower)).await.expect("it is ordered");
    let late = |topology: &Topology| {
        let overrun = topology.partitions[0].overrun.as_ref();
        overrun.is_some_and(|overrun| overrun.node == node(target) && overrun.stage == Stage::Prepare)
    };
    for number in cluster.running() {
        cluster.until(number, "the hook is named", late).await;
    }
    let deadline = HookConfig::default().prepare_deadline;
    let named = ordered.elapsed();
    assert!(named > deadline && named < deadline + NAMED_WITHIN, "named after {named:?}");
    assert_eq!(cluster.node(target).stages()[0].stage, Stage::Prepare);
    recorders.rule(target, Stage::Prepare, Rule::Agree);
    let over = |topology: &Topology| {
        topology.partitions[0].overrun.is_none() && topology.partitions[0].in_sync.contains(&node(target))
    };
    cluster.until(source, "it is over", over).await;
    let _ = &mut cluster;
}
