//! Whole nodes on disks whose syncs take their time.

use std::time::Duration;

use clusterkit::testing::Cluster;
use clusterkit::{Builder, DataDirError, HealthReason, StartError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Longer than anything here takes, so that a node that hangs is seen.
const DEADLINE: Duration = Duration::from_secs(600);

/// Changes come faster than they can be stored.
async fn change_every_20_ms(cluster: &Cluster, seconds: u64) {
    let (end, mut changes) = (Instant::now() + Duration::from_secs(seconds), JoinSet::new());
    for number in (1..=3).cycle() {
        if Instant::now() >= end {
            break;
        }
        let node = cluster.node(number).clone();
        assert!(!node.health().reasons.contains(&HealthReason::NoController), "a slow controller is one");
        changes.spawn(async move { node.set_replication_factor(number).await });
        sleep(Duration::from_millis(20)).await; // tidy: the clock is paused
    }
    while let Some(outcome) = timeout(DEADLINE, changes.join_next()).await.expect("it hangs") {
        outcome.expect("no panic").expect("each change is stored in time");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_syncs_delay_changes_and_lose_neither_them_nor_the_controller() {
    for sync_millis in [75, 100, 200, 400] {
        let mut cluster = Cluster::new();
        let (slow, sync_time) = watch::channel(Duration::ZERO);
        let build = |builder: Builder| builder.expect(3).partitions(8).sync_time(sync_time.clone());
        cluster.launch(1..=3, build).await;
        for number in 1..=3 {
            cluster.ready(number).await.unwrap();
        }
        let before = cluster.node(1).status().control_plane;
        slow.send_replace(Duration::from_millis(sync_millis));
        change_every_20_ms(&cluster, 5).await;
        let after = cluster.node(1).status().control_plane;
        assert_eq!((after.term, after.controller), (before.term, before.controller));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_forms_on_disks_whose_votes_take_almost_an_election() {
    let mut cluster = Cluster::new();
    let (_slow, sync_time) = watch::channel(Duration::from_millis(140));
    cluster.launch(1..=3, |builder| builder.expect(3).sync_time(sync_time.clone())).await;
    for number in 1..=3 {
        timeout(DEADLINE, cluster.ready(number)).await.expect("it hangs").unwrap();
    }
}

/// A node of its own whose changes wait for the disk.
async fn alone(sync_time: &watch::Receiver<Duration>) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.launch([1], |builder| builder.expect(1).sync_time(sync_time.clone())).await;
    cluster.ready(1).await.expect("it forms alone");
    cluster
}

/// Asks for changes, so that each waits for the disk.
async fn ask_for_changes(cluster: &Cluster) {
    for copies in 1..=3 {
        let node = cluster.node(1).clone();
        tokio::spawn(async move { node.set_replication_factor(copies).await });
        sleep(Duration::from_millis(1)).await; // tidy: the clock is paused
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_stopped_writes_nothing_more_and_starts_again_at_once() {
    let (slow, sync_time) = watch::channel(Duration::ZERO);
    let mut cluster = alone(&sync_time).await;
    for _ in 0..3 {
        slow.send_replace(Duration::from_secs(1));
        ask_for_changes(&cluster).await;
        timeout(DEADLINE, cluster.node(1).stop()).await.expect("it hangs");
        let written = cluster.disk(1).operation_count();
        sleep(Duration::from_secs(60)).await; // tidy: the clock is paused
        assert_eq!(cluster.disk(1).operation_count(), written);
        cluster.launch([1], |builder| builder.expect(1).sync_time(sync_time.clone())).await;
        slow.send_replace(Duration::ZERO);
        timeout(DEADLINE, cluster.ready(1)).await.expect("it hangs").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_stops_on_a_disk_that_hangs_and_keeps_its_directory_locked() {
    let (slow, sync_time) = watch::channel(Duration::ZERO);
    let mut cluster = alone(&sync_time).await;
    let year = Duration::from_secs(365 * 24 * 3_600);
    slow.send_replace(year);
    ask_for_changes(&cluster).await;
    let start = Instant::now();
    timeout(DEADLINE, cluster.node(1).stop()).await.expect("it hangs");
    assert!(start.elapsed() < Duration::from_secs(30), "it took {:?}", start.elapsed());
    let error = cluster.builder(1).expect(1).start().await.unwrap_err();
    let StartError::DataDir(cause) = &error else { panic!("{error}") };
    assert!(matches!(**cause, DataDirError::InUse { .. }), "{error}");
    // The disk goes on.
    slow.send_replace(Duration::ZERO);
    sleep(10 * year).await; // tidy: the clock is paused
    cluster.launch([1], |builder| builder.expect(1).sync_time(sync_time.clone())).await;
    timeout(DEADLINE, cluster.ready(1)).await.expect("it hangs").unwrap();
}
