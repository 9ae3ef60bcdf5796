//! Who is elected when programs say how much their copies have.

use std::time::Duration;

use clusterkit::hooks::Position;
use clusterkit::testing::Cluster;
use clusterkit::{Epoch, Route};
use clusterkit_core::topology::Origin;

use crate::recorder::Recorders;
use crate::{P, launch, leader, led};

const BEHIND: Position = Position { last_epoch: Epoch(1), log_end: 70, damaged: false };
const AHEAD: Position = Position { last_epoch: Epoch(1), log_end: 80, damaged: false };
const DAMAGED: Position = Position { last_epoch: Epoch(1), log_end: 90, damaged: true };

/// Three nodes that are asked for positions. The leader is killed once the two others have these; gives
/// who leads then, and how that came.
async fn elect(positions: [Option<Position>; 2]) -> (Cluster, [u32; 2], u32, Origin) {
    let mut cluster = Cluster::new();
    let recorders = Recorders::default();
    for number in 1..=3 {
        recorders.position(number, Some(BEHIND));
        launch(&mut cluster, &recorders, number, 3, 3).await;
    }
    for number in 1..=3 {
        cluster.ready(number).await.expect("it becomes a member");
    }
    let killed = led(&cluster).await;
    let others: Vec<_> = cluster.running().into_iter().filter(|number| *number != killed).collect();
    let others = [others[0], others[1]];
    for (number, position) in others.into_iter().zip(positions) {
        recorders.position(number, position);
    }
    cluster.kill(killed).await;
    let elected = move |topology: &clusterkit::Topology| leader(topology).is_some_and(|now| now != killed);
    let topology = cluster.until(others[0], "another leads", elected).await;
    let now = leader(&topology).expect("another leads");
    let route = cluster.node(now).route_settled(P, Duration::from_secs(30)).await;
    assert!(matches!(route, Route::Local(_)), "{route:?}");
    let origin = cluster.node(now).topology().partitions[0].origin;
    (cluster, others, now, origin)
}

#[tokio::test(start_paused = true)]
async fn whoever_has_most_is_elected() {
    for (positions, expected) in [([Some(AHEAD), Some(BEHIND)], 0), ([Some(BEHIND), Some(AHEAD)], 1)] {
        let (_cluster, others, elected, origin) = elect(positions).await;
        assert_eq!((elected, origin), (others[expected], Origin::Position));
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_copy_is_passed_over_though_it_has_most() {
    for (positions, expected) in [([Some(DAMAGED), Some(BEHIND)], 1), ([Some(BEHIND), Some(DAMAGED)], 0)] {
        let (_cluster, others, elected, _) = elect(positions).await;
        assert_eq!(elected, others[expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_does_not_answer_is_not_waited_for() {
    for (positions, expected) in [([None, Some(BEHIND)], 1), ([Some(BEHIND), None], 0)] {
        let (_cluster, others, elected, _) = elect(positions).await;
        assert_eq!(elected, others[expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_says_that_it_stalls_is_relieved() {
    let (cluster, others, stalled, _) = elect([Some(AHEAD), Some(BEHIND)]).await;
    assert_eq!(stalled, others[0]);
    let lease = cluster.node(stalled).lead(P).expect("it leads");
    cluster.node(stalled).report_stalled(P).await.expect("it is written");
    // The one that has most would be elected again, were it not passed over for a while.
    let relieved = |topology: &clusterkit::Topology| leader(topology) == Some(others[1]);
    cluster.until(others[1], "the other one leads", relieved).await;
    assert!(lease.begin().is_err());
}
