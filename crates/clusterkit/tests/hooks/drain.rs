//! Planned change is seen by no client: nodes leave while clients write, and no write fails.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use clusterkit::hooks::{CatchUp, PartitionHandler, Seal, Stage, StageResult};
use clusterkit::testing::Cluster;
use clusterkit::{ClusterKit, NodeId, NodeStatus, PartitionId, Route, Topology};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::node;

const NODES: u32 = 5;
const PARTITIONS: u32 = 16;
const CLIENTS: u32 = 12;
/// How long a write may take in all before its client gives up.
const CLIENT_PATIENCE: Duration = Duration::from_secs(2);
/// What a write costs beside waiting.
const WRITE: Duration = Duration::from_millis(3);
/// Between two writes, and between two hops.
const PAUSE: Duration = Duration::from_millis(2);

/// A program whose copies and last writes take their time.
#[derive(Debug, Clone, Copy)]
struct Slow;

impl PartitionHandler for Slow {
    async fn catch_up(&self, _: CatchUp) -> StageResult {
        sleep(Duration::from_millis(40)).await; // tidy: the clock is paused
        Ok(())
    }

    async fn seal(&self, _: Seal) -> StageResult {
        sleep(Duration::from_millis(10)).await; // tidy: the clock is paused
        Ok(())
    }
}

struct World {
    nodes: BTreeMap<NodeId, ClusterKit>,
    over: Cell<bool>,
    writes: Cell<u64>,
    longest: Cell<Duration>,
}

impl World {
    /// Sends a write to `entry`, which passes it on to the leader, as any node of a program does.
    async fn write(&self, entry: &ClusterKit, partition: PartitionId) -> Result<(), String> {
        let mut at = entry;
        loop {
            match at.route_settled(partition, CLIENT_PATIENCE).await {
                Route::Local(lease) => {
                    // A handover that begins just now is waited for at the next look.
                    if let Ok(permit) = lease.begin() {
                        sleep(WRITE).await; // tidy: the clock is paused
                        return permit.confirm().map_err(|lost| format!("outcome unknown: {lost}"));
                    }
                }
                Route::Remote { leader, .. } => at = &self.nodes[&leader.id],
                other => return Err(format!("{other:?}")),
            }
            sleep(PAUSE).await; // tidy: the clock is paused
        }
    }

    /// Nodes that a load balancer would send to: those that serve, and are not about to leave.
    fn entries(&self) -> Vec<&ClusterKit> {
        let stays = |ck: &&ClusterKit| {
            let topology = ck.topology();
            ck.is_ready()
                && topology.node(ck.node_id()).is_some_and(|node| node.status() == NodeStatus::Alive)
        };
        self.nodes.values().filter(stays).collect()
    }

    async fn client(&self, number: u32) {
        let mut turn = number;
        while !self.over.get() {
            turn = turn.wrapping_add(7);
            let entries = self.entries();
            let entry = entries[turn as usize % entries.len()];
            let (begun, partition) = (Instant::now(), PartitionId(turn % PARTITIONS));
            let written = timeout(CLIENT_PATIENCE, self.write(entry, partition)).await;
            let wrong = |error| panic!("{partition} through {}: {error}", entry.node_id());
            written.unwrap_or_else(|_| Err("no answer in time".to_owned())).unwrap_or_else(wrong);
            self.writes.set(self.writes.get() + 1);
            self.longest.set(self.longest.get().max(begun.elapsed()));
            sleep(PAUSE).await; // tidy: the clock is paused
        }
    }
}

async fn start() -> Cluster {
    let mut cluster = Cluster::new();
    let configure = |builder: clusterkit::Builder| {
        builder.expect(NODES).partitions(PARTITIONS).replication_factor(3).handler(Slow)
    };
    cluster.launch(1..=NODES, configure).await;
    for number in 1..=NODES {
        cluster.ready(number).await.expect("it becomes a member");
    }
    let whole = |topology: &Topology| {
        let whole = |record: &clusterkit::Partition| record.leader.is_some() && record.in_sync.len() == 3;
        topology.partitions.iter().all(|record| whole(record))
    };
    cluster.until(1, "every partition is whole", whole).await;
    cluster
}

#[tokio::test(start_paused = true)]
async fn nodes_leave_one_after_the_other_and_no_write_fails() {
    let cluster = start().await;
    let nodes = (1..=NODES).map(|number| (node(number), cluster.node(number).clone())).collect();
    let (over, writes, longest) = (Cell::new(false), Cell::new(0), Cell::new(Duration::ZERO));
    let world = World { nodes, over, writes, longest };
    let leaving = async {
        for number in [2, 1] {
            sleep(Duration::from_millis(300)).await; // tidy: the clock is paused
            cluster.node(4).drain(&node(number)).await.expect("it is ordered");
            cluster.node(number).stopped().await.expect("it leaves in order");
        }
        sleep(Duration::from_millis(300)).await; // tidy: the clock is paused
        world.over.set(true);
    };
    timeout(Duration::from_secs(120), async {
        tokio::join!(leaving, join_all((0..CLIENTS).map(|number| world.client(number))));
    })
    .await
    .expect("both leave");
    let (writes, longest) = (world.writes.get(), world.longest.get());
    println!("{writes} writes, the longest took {longest:?}");
    assert!(writes > 1_000, "only {writes}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

/// A node that follows the control plane without a vote may know last that nothing is left on it.
#[tokio::test(start_paused = true)]
async fn a_node_that_hears_late_that_it_has_left_releases_what_it_held_first() {
    let (mut cluster, recorders) = super::start(6, 3).await;
    let voters = cluster.node(1).control_plane().voters;
    let learner = (1..=6).find(|number| !voters.contains(&node(*number))).expect("five of six vote");
    let other = cluster.running().into_iter().find(|number| *number != learner).expect("six run");
    // Whoever holds the partition leaves until the learner is one of them.
    let holds = |topology: &Topology| topology.partitions[0].in_sync.contains(&node(learner));
    if !holds(&cluster.node(other).topology()) {
        let topology = cluster.node(other).topology();
        let holder = topology.partitions[0].replicas.iter().find(|replica| replica.node != node(other));
        let holder = holder.expect("three hold it").node.clone();
        let number = (1..=6).find(|number| node(*number) == holder).expect("one of six");
        cluster.node(other).drain(&holder).await.expect("it is ordered");
        cluster.node(number).stopped().await.expect("it leaves in order");
        cluster.stop(number).await;
    }
    cluster.until(other, "the learner holds it", holds).await;
    for number in cluster.running().into_iter().filter(|number| *number != learner) {
        cluster.net().delay(node(number).as_str(), node(learner).as_str(), Duration::from_millis(50));
    }
    recorders.forget(learner);
    cluster.node(other).drain(&node(learner)).await.expect("it is ordered");
    cluster.node(learner).stopped().await.expect("it leaves in order");
    assert!(recorders.stages(learner).contains(&Stage::Release), "{:?}", recorders.stages(learner));
}
