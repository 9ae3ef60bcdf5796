//! Nodes that leave for good: by themselves, by another's order, and with the control plane's vote.
#![allow(clippy::unwrap_used, reason = "steps of a test that cannot go on without the value")]

mod harness;

use std::future::Future;
use std::time::Duration;

use clusterkit::testing::Cluster;
use clusterkit::{ChangeError, NodeStatus, StartError, Topology};

use crate::harness::{healthy, healthy_with, id, replicas, status};

/// Longer than anything here takes: a test that hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(120);

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it takes far less")
}

/// The number of the controller, and that of another node.
fn controller_and_another(cluster: &Cluster) -> (u32, u32) {
    let running = cluster.running();
    let controller = cluster.node(running[0]).status().control_plane.controller.expect("a controller");
    let of = |wanted: bool| running.iter().copied().find(|number| (id(*number) == controller) == wanted);
    (of(true).expect("it runs"), of(false).expect("another runs"))
}

/// The same, with one that does not vote: so many nodes have one.
fn controller_and_learner(cluster: &Cluster) -> (u32, u32) {
    let (controller, _) = controller_and_another(cluster);
    let learners = cluster.node(controller).control_plane().learners;
    let learner = cluster.running().into_iter().find(|number| learners.contains(&id(*number)));
    (controller, learner.expect("a learner"))
}

/// Has `witness` drain `number`, whose node must then end by itself, without a failure.
async fn drained_and_ended(cluster: &Cluster, witness: u32, number: u32) {
    let drained = cluster.node(number).clone();
    cluster.node(witness).drain(&id(number)).await.unwrap();
    within(drained.stopped()).await.unwrap();
    let left = status(number, NodeStatus::Left);
    cluster.until(witness, "it has left", |topology| left(topology) && replicas(topology, number) == 0).await;
    let refused = drained.ready().await.unwrap_err();
    assert!(matches!(&refused, StartError::Left));
}

/// What is left of the cluster can still decide.
async fn decides(cluster: &Cluster, number: u32) {
    cluster.node(number).set_replication_factor(2).await.unwrap();
    let changed = |topology: &Topology| topology.cluster.as_ref().unwrap().config.replication_factor == 2;
    cluster.until(number, "a change is applied", changed).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_another_one_drains_ends_by_itself() {
    for is_controller in [false, true] {
        let cluster = Cluster::start(4).await;
        cluster.until(1, "healthy", healthy_with(4)).await;
        let (controller, another) = controller_and_another(&cluster);
        let (witness, number) = if is_controller { (another, controller) } else { (controller, another) };
        drained_and_ended(&cluster, witness, number).await;
        cluster.until(witness, "all is well", healthy).await;
        decides(&cluster, witness).await;
    }
}

/// Of two voters the one that goes is needed until the other one votes alone.
#[tokio::test(start_paused = true)]
async fn of_two_voters_the_one_that_leaves_waits_until_the_other_can_do_without_it() {
    for latency in [0, 3, 20] {
        let mut cluster = Cluster::start(1).await;
        for (from, to) in [("node-1", "node-2"), ("node-2", "node-1")] {
            cluster.net().delay(from, to, Duration::from_millis(latency));
        }
        // It holds nothing, so it has nothing to give away and leaves at once.
        cluster.launch([2], |builder| builder.holds_data(false)).await;
        cluster.ready(2).await.unwrap();
        let voters = async {
            while cluster.node(1).control_plane().voters.len() < 2 {
                tokio::time::sleep(Duration::from_millis(1)).await; // tidy: the clock is paused
            }
        };
        within(voters).await;
        drained_and_ended(&cluster, 1, 2).await;
        decides(&cluster, 1).await;
        assert_eq!(cluster.node(1).control_plane().voters, [id(1)].into());
    }
}

#[tokio::test(start_paused = true)]
async fn leaving_and_being_drained_at_once_is_one_departure() {
    for pause in [0, 1, 5, 20, 100, 300] {
        let cluster = Cluster::start(4).await;
        cluster.until(1, "healthy", healthy_with(4)).await;
        let (witness, number) = controller_and_another(&cluster);
        let leaving = cluster.node(number).clone();
        cluster.node(witness).drain(&id(number)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await; // tidy: the clock is paused
        let left = within(leaving.leave()).await;
        // A node that ended before it was asked to leave says that it has.
        assert_eq!(left, Ok(()), "after {pause} ms");
        assert!(leaving.stopped().await.is_ok());
    }
}

/// Gives every node time to learn what the controller wrote.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(1)).await; // tidy: the clock is paused
}

/// Has `witness` drain `number`, and cuts it off before it can see that it has left.
async fn drained_unheard(cluster: &Cluster, witness: u32, number: u32) {
    let all: Vec<_> = cluster.running().into_iter().map(|number| id(number).to_string()).collect();
    let others: Vec<_> = all.iter().map(String::as_str).filter(|name| *name != id(number).as_str()).collect();
    cluster.node(witness).drain(&id(number)).await.unwrap();
    cluster.until(number, "it knows the order", status(number, NodeStatus::Leaving)).await;
    cluster.net().partition(&[&[id(number).as_str()], &others]);
    cluster.until(witness, "it has left", status(number, NodeStatus::Left)).await;
    let cut_out = async {
        loop {
            let group = cluster.node(witness).control_plane();
            if !group.voters.contains(&id(number)) && !group.learners.contains(&id(number)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await; // tidy: the clock is paused
        }
    };
    within(cut_out).await;
    settle().await;
    assert!(!status(number, NodeStatus::Left)(&cluster.node(number).topology()));
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_record_is_deleted_before_it_learns_that_it_has_left_ends_without_a_failure() {
    let cluster = Cluster::start(4).await;
    cluster.until(1, "healthy", healthy_with(4)).await;
    let (witness, number) = controller_and_another(&cluster);
    drained_unheard(&cluster, witness, number).await;
    cluster.node(witness).remove(&id(number), false).await.unwrap();
    settle().await;
    cluster.net().heal();
    within(cluster.node(number).stopped()).await.unwrap();
}

/// Whoever leads next tells nothing to a node that is not in the group any more.
#[tokio::test(start_paused = true)]
async fn a_node_that_has_left_learns_it_though_the_controller_has_died() {
    let mut cluster = Cluster::start(4).await;
    cluster.until(1, "healthy", healthy_with(4)).await;
    // A learner does not ask for votes either.
    let (controller, number) = controller_and_learner(&cluster);
    drained_unheard(&cluster, controller, number).await;
    cluster.kill(controller).await;
    cluster.net().heal();
    within(cluster.node(number).stopped()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_sees_that_it_has_left_needs_nobody_to_tell_it() {
    let cluster = Cluster::start(4).await;
    cluster.until(1, "healthy", healthy_with(4)).await;
    let (witness, number) = controller_and_learner(&cluster);
    cluster.node(witness).drain(&id(number)).await.unwrap();
    cluster.until(number, "it has left", status(number, NodeStatus::Left)).await;
    cluster.net().kill(id(number).as_str());
    within(cluster.node(number).stopped()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_left_comes_back_as_a_member() {
    let mut cluster = Cluster::start(4).await;
    cluster.until(1, "healthy", healthy_with(4)).await;
    let (witness, number) = controller_and_another(&cluster);
    drained_and_ended(&cluster, witness, number).await;
    cluster.stop(number).await;
    cluster.launch([number], |builder| builder).await;
    within(cluster.ready(number)).await.unwrap();
    cluster.until(witness, "a member again", status(number, NodeStatus::Alive)).await;
    assert!(!matches!(cluster.node(number).leave().await, Err(ChangeError::Rejected(_))));
}
