//! What becomes of the hooks that hang when their node stops, or when nobody waits for them any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clusterkit::PartitionId;
use clusterkit::hooks::{PartitionHandler, Position, Prepare, Stage, StageResult};
use clusterkit::testing::{Cluster, PATIENCE};
use tokio::time::{sleep, timeout};

use super::{leader, led, node};

/// Calls that hang.
#[derive(Debug, Clone, Default)]
struct Hanging(Arc<AtomicUsize>);

impl Hanging {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    async fn hang(&self) {
        let _hanging = Call::new(self);
        std::future::pending::<()>().await;
    }
}

struct Call(Hanging);

impl Call {
    fn new(hanging: &Hanging) -> Self {
        hanging.0.fetch_add(1, Ordering::Relaxed);
        Self(hanging.clone())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A handler of which one call hangs.
#[derive(Debug, Clone)]
struct Hangs {
    hanging: Hanging,
    prepare: bool,
}

impl PartitionHandler for Hangs {
    async fn prepare(&self, _: Prepare) -> StageResult {
        if self.prepare {
            self.hanging.hang().await;
        }
        Ok(())
    }

    fn reports_position(&self) -> bool {
        true
    }

    async fn position(&self, _: PartitionId) -> Option<Position> {
        self.hanging.hang().await;
        None
    }
}

async fn start(count: u32, prepare: bool) -> (Cluster, Hanging) {
    let (mut cluster, hanging) = (Cluster::new(), Hanging::default());
    let handler = Hangs { hanging: hanging.clone(), prepare };
    let build = |builder: clusterkit::Builder| {
        builder.expect(count).partitions(1).replication_factor(count).handler(handler.clone())
    };
    cluster.launch(1..=count, build).await;
    for number in 1..=count {
        cluster.ready(number).await.expect("it becomes a member");
    }
    (cluster, hanging)
}

#[tokio::test(start_paused = true)]
async fn no_hook_is_under_way_once_its_node_has_stopped() {
    let (cluster, hanging) = start(1, true).await;
    let is_prepared = async {
        while hanging.count() == 0 {
            sleep(Duration::from_millis(1)).await; // tidy: the clock is paused
        }
    };
    timeout(PATIENCE, is_prepared).await.expect("it is called");
    assert_eq!(cluster.node(1).stages()[0].stage, Stage::Prepare);
    timeout(PATIENCE, cluster.node(1).stop()).await.expect("it stops");
    assert_eq!(hanging.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_position_that_never_comes_is_given_up_on_every_node() {
    let (mut cluster, hanging) = start(3, false).await;
    let killed = led(&cluster).await;
    let other = cluster.running().into_iter().find(|number| *number != killed).expect("three run");
    cluster.kill(killed).await;
    let elected = |topology: &clusterkit::Topology| leader(topology).is_some_and(|now| now != killed);
    let topology = cluster.until(other, "another leads", elected).await;
    assert_ne!(topology.partitions[0].leader, Some(node(killed)));
    sleep(Duration::from_secs(1)).await; // tidy: the clock is paused
    assert_eq!(hanging.count(), 0);
}
