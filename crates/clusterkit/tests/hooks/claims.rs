//! What the program says of its replicas: that it cannot get on, that one is damaged.

use std::collections::BTreeMap;
use std::time::Duration;

use clusterkit::testing::Cluster;
use clusterkit::{PartitionId, Topology};
use clusterkit_core::id::ReplicaUid;

use crate::{P, leader, led, node, start};

/// More than a registration names.
const MANY: u32 = 1_030;

fn uid(topology: &Topology, partition: PartitionId, number: u32) -> Option<ReplicaUid> {
    Some(topology.partition(partition)?.replica(&node(number))?.uid)
}

fn is_whole(topology: &Topology) -> bool {
    topology.health(true).is_healthy()
        && topology.partition(P).is_some_and(|record| record.in_sync.len() == 3)
}

/// Longer than a report is repeated and counts.
async fn a_while() {
    tokio::time::sleep(Duration::from_secs(5)).await; // tidy: the clock is paused
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_progress_is_replaced_by_another_in_sync_member() {
    let (cluster, _recorders) = start(3, 3).await;
    let stalled = led(&cluster).await;
    let before = cluster.until(stalled, "all are in sync", is_whole).await;
    let epoch = before.partition(P).expect("it is there").epoch;
    cluster.node(stalled).report_no_progress(P, epoch);
    assert!(cluster.node(stalled).lead(P).is_ok(), "it leads until another does");
    let relieved = |topology: &Topology| leader(topology).is_some_and(|now| now != stalled);
    let after = cluster.until(stalled, "another leads", relieved).await;
    let record = after.partition(P).expect("it is there");
    assert!(record.epoch > epoch);
    assert!(
        before
            .partition(P)
            .expect("it is there")
            .in_sync
            .contains(record.leader.as_ref().expect("it is led"))
    );
    // What was said of an epoch that is over is not said of the next.
    let next = led(&cluster).await;
    cluster.node(stalled).report_no_progress(P, epoch);
    cluster.node(next).report_no_progress(P, epoch);
    a_while().await;
    assert_eq!(led(&cluster).await, next);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_gets_on_again_goes_on_leading() {
    let (cluster, _recorders) = start(3, 3).await;
    let leading = led(&cluster).await;
    let topology = cluster.until(leading, "all are in sync", is_whole).await;
    let epoch = topology.partition(P).expect("it is there").epoch;
    cluster.node(leading).report_no_progress(P, epoch);
    cluster.node(leading).report_progress(P);
    a_while().await;
    assert_eq!(cluster.node(leading).topology().partition(P).expect("it is there").epoch, epoch);
    assert!(cluster.node(leading).lead(P).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_leader_resigns_only_from_the_record_that_it_names() {
    let (cluster, _recorders) = start(3, 3).await;
    let leading = led(&cluster).await;
    let topology = cluster.until(leading, "all are in sync", is_whole).await;
    let record = topology.partition(P).expect("it is there");
    let mut earlier = record.version;
    earlier.0 -= 1;
    cluster.node(leading).resign(P, record.epoch, earlier).await.expect_err("the record has moved on");
    assert!(cluster.node(leading).lead(P).is_ok());
    let lease = cluster.node(leading).lead(P).expect("it leads");
    cluster.node(leading).resign(P, record.epoch, record.version).await.expect("it is written");
    assert!(lease.begin().is_err(), "the lease ended first");
    let relieved = |topology: &Topology| leader(topology).is_some_and(|now| now != leading);
    cluster.until(leading, "another leads", relieved).await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_replica_begins_anew() {
    let (cluster, _recorders) = start(3, 3).await;
    let leading = led(&cluster).await;
    cluster.until(leading, "all are in sync", is_whole).await;
    let follower = if leading == 1 { 2 } else { 1 };
    for number in [follower, leading] {
        let topology = cluster.until(number, "all are in sync", is_whole).await;
        let damaged = uid(&topology, P, number).expect("it holds a copy");
        cluster.node(number).report_damaged(P, damaged);
        let renewed = |topology: &Topology| uid(topology, P, number).is_some_and(|uid| uid != damaged);
        cluster.until(number, "it has another uid", renewed).await;
        cluster.until(number, "it has caught up", is_whole).await;
        // Said of the replica that is gone, it does nothing.
        let now = uid(&cluster.node(number).topology(), P, number);
        cluster.node(number).report_damaged(P, damaged);
        a_while().await;
        assert_eq!(uid(&cluster.node(number).topology(), P, number), now);
    }
    assert_ne!(led(&cluster).await, leading, "a damaged leader leads no longer");
}

/// Three nodes of `partitions`, all in sync; then node 3 starts again and says that all it has is damaged.
/// Gives the uids that these replicas had.
async fn damaged_at_start(partitions: u32) -> (Cluster, BTreeMap<PartitionId, ReplicaUid>) {
    let mut cluster = Cluster::new();
    let configure = |builder: clusterkit::Builder| builder.expect(3).partitions(partitions);
    cluster.launch(1..=3, configure).await;
    let topology = cluster.until(3, "all are in sync", is_whole).await;
    let ids = topology.partitions.iter().map(|record| record.id);
    let damaged: BTreeMap<_, _> = ids.filter_map(|id| Some((id, uid(&topology, id, 3)?))).collect();
    cluster.stop(3).await;
    let found = |builder| {
        let damaged = damaged.clone();
        configure(builder).opening(move |_| Ok(damaged))
    };
    cluster.launch([3], found).await;
    cluster.ready(3).await.expect("it is back");
    (cluster, damaged)
}

fn renewed_count(topology: &Topology, damaged: &BTreeMap<PartitionId, ReplicaUid>) -> usize {
    damaged.iter().filter(|(id, earlier)| uid(topology, **id, 3).is_some_and(|uid| uid != **earlier)).count()
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_damaged_at_the_start_begins_anew_before_the_node_is_ready() {
    let (cluster, damaged) = damaged_at_start(4).await;
    assert_eq!(damaged.len(), 4);
    assert_eq!(renewed_count(&cluster.node(3).topology(), &damaged), 4);
    cluster.until(3, "it has caught up", is_whole).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_registration_has_no_room_for_is_reported_later() {
    let (cluster, damaged) = damaged_at_start(MANY).await;
    assert_eq!(damaged.len(), MANY as usize);
    let renewed = |topology: &Topology| renewed_count(topology, &damaged) == damaged.len();
    cluster.until(3, "all have begun anew", renewed).await;
}
