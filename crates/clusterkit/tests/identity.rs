//! Which process is the node of its name: restarts, copies, other addresses.

mod harness;

use std::sync::Arc;
use std::time::Duration;

use clusterkit::core::control::Rejected;
use clusterkit::testing::{Cluster, SimDisk};
use clusterkit::{Builder, JoinRefusal, NodeStatus, StartError};

use crate::harness::{agree, healthy, healthy_with, id, status};

/// Longer than anything here takes: a test that hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(60);

/// The node `number` as it would start on another machine, from what its disk holds now.
fn copy_of(cluster: &mut Cluster, number: u32, host: &str) -> Builder {
    let disk: SimDisk = cluster.disk(number).fork();
    // The lock is held on the original's machine alone.
    disk.kill();
    let (clock, net) = (cluster.clock(), Arc::new(cluster.net().host(host)));
    let builder = cluster.builder(number).environment(clock, net, Arc::new(disk));
    builder.listen(&format!("{host}:7000"))
}

#[tokio::test(start_paused = true)]
async fn a_copied_data_directory_is_refused_while_its_original_lives() {
    let mut cluster = Cluster::start(3).await;
    let before = cluster.until(1, "healthy", healthy).await;
    // One of them is the controller.
    for number in 1..=3 {
        let copy = copy_of(&mut cluster, number, "elsewhere").start();
        let error = tokio::time::timeout(PATIENCE, copy).await.expect("an answer").unwrap_err();
        let StartError::Refused(JoinRefusal::Rejected(Rejected::NodeIdInUse { node, node_addr })) = &error
        else {
            panic!("{error}");
        };
        assert_eq!((node, node_addr), (&id(number), &format!("node-{number}:7000")));
        cluster.net().kill("elsewhere");
    }
    agree(&cluster).await;
    let after = cluster.until(1, "still healthy", healthy).await;
    assert_eq!(after.nodes, before.nodes, "nobody was replaced");
    for number in 1..=3 {
        assert!(cluster.node(number).is_ready());
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_moved_is_let_in_at_once_when_nobody_is_at_its_old_address() {
    let mut cluster = Cluster::start(3).await;
    cluster.until(1, "healthy", healthy).await;
    let moved = copy_of(&mut cluster, 3, "new-3");
    let start = tokio::time::Instant::now();
    cluster.kill(3).await;
    let moved = tokio::time::timeout(PATIENCE, moved.start()).await.expect("an answer").unwrap();
    assert!(start.elapsed() < Duration::from_millis(500), "it took {:?}", start.elapsed());
    assert_eq!(moved.node_addr(), "new-3:7000");
    cluster.until(1, "healed", healthy_with(3)).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_old_address_is_silent_is_let_in_when_it_is_known_to_be_dead() {
    let mut cluster = Cluster::start(3).await;
    cluster.until(1, "healthy", healthy).await;
    let controller = cluster.node(1).status().control_plane.controller.unwrap();
    let number = (1..=3).find(|number| id(*number) != controller).unwrap();
    let witness = (1..=3).find(|other| *other != number).unwrap();
    let others: Vec<_> =
        (1..=3).filter(|other| *other != number).map(|other| id(other).to_string()).collect();
    let others: Vec<_> = others.iter().map(String::as_str).collect();
    cluster.net().partition(&[&[id(number).as_str()], &others]);
    let start = tokio::time::Instant::now();
    let moved = copy_of(&mut cluster, number, "elsewhere").start();
    let moved = tokio::time::timeout(PATIENCE, moved).await.expect("an answer").unwrap();
    // Five beats of silence make it dead; before that nobody can know.
    assert!(start.elapsed() >= Duration::from_millis(700), "let in after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(5), "let in after {:?}", start.elapsed());
    cluster.until(witness, "it is back", status(number, NodeStatus::Alive)).await;
    cluster.net().heal();
    let replaced = cluster.node(number).clone();
    let error = tokio::time::timeout(PATIENCE, replaced.stopped()).await.expect("it ends").unwrap_err();
    assert!(error.to_string().contains("another process registered under this node id"), "{error}");
    assert!(moved.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_restart_at_the_same_address_is_let_in_before_its_death_is_known() {
    let mut cluster = Cluster::start(3).await;
    cluster.until(1, "healthy", healthy).await;
    for number in 1..=3 {
        let before = cluster.node(number).incarnation();
        cluster.kill(number).await;
        cluster.launch([number], |builder| builder).await;
        let ready = tokio::time::timeout(PATIENCE, cluster.ready(number)).await;
        ready.expect("an answer").unwrap();
        assert!(cluster.node(number).incarnation() > before);
        cluster.until(number, "healed", healthy).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_cluster_does_not_wait_for_an_address_that_is_silent() {
    let mut cluster = Cluster::start(3).await;
    cluster.until(1, "healthy", healthy).await;
    for number in 1..=3 {
        cluster.kill(number).await;
    }
    // One machine stays dark: nobody there says that nobody listens.
    cluster.net().partition(&[&["node-1"], &["node-2", "node-3"]]);
    let start = tokio::time::Instant::now();
    cluster.launch([2, 3], |builder| builder).await;
    for number in [2, 3] {
        let ready = tokio::time::timeout(PATIENCE, cluster.ready(number)).await;
        ready.expect("an answer").unwrap();
    }
    assert!(start.elapsed() < Duration::from_millis(1_800), "it took {:?}", start.elapsed());
}
