//! Nodes on clocks that misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use clusterkit::core::control::Rejected;
use clusterkit::core::time::Instant;
use clusterkit::net::{BoxFuture, Clock, WallTime};
use clusterkit::testing::{Cluster, SimDisk, TokioClock};
use clusterkit::{Builder, JoinRefusal, StartError};

/// Longer than anything here takes: a test that hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(200);
const HOUR_MILLIS: i64 = 3_600_000;

/// A clock whose time of day moves by a fixed step at each look, and which can break.
#[derive(Debug)]
struct OddClock {
    steady: TokioClock,
    wall: AtomicI64,
    wall_step: i64,
    broken: AtomicBool,
}

impl OddClock {
    fn new(wall_step: i64) -> Arc<Self> {
        let wall = AtomicI64::new(1_000 * HOUR_MILLIS);
        Arc::new(Self {
            steady: TokioClock::new(WallTime(0)),
            wall,
            wall_step,
            broken: AtomicBool::new(false),
        })
    }
}

impl Clock for OddClock {
    fn now(&self) -> Instant {
        self.steady.now()
    }

    fn wall(&self) -> WallTime {
        WallTime(self.wall.fetch_add(self.wall_step, Ordering::Relaxed).unsigned_abs())
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        assert!(!self.broken.load(Ordering::Relaxed), "the clock is broken");
        self.steady.sleep_until(deadline)
    }
}

/// The node `number` on a host of its own with a new disk and that clock.
fn node(cluster: &mut Cluster, number: u32, host: &str, clock: Arc<OddClock>) -> Builder {
    let net = Arc::new(cluster.net().host(host));
    let builder = cluster.builder(number).environment(clock, net, Arc::new(SimDisk::new()));
    builder.listen(&format!("{host}:7000"))
}

#[tokio::test(start_paused = true)]
async fn how_long_a_name_clash_is_borne_does_not_depend_on_the_time_of_day() {
    for step in [HOUR_MILLIS, 0, -HOUR_MILLIS] {
        let mut cluster = Cluster::start(3).await;
        let start = tokio::time::Instant::now();
        let double = node(&mut cluster, 3, "elsewhere", OddClock::new(step));
        let ended = tokio::time::timeout(PATIENCE, double.start()).await;
        let error = ended.expect("an answer").expect_err("the name is taken");
        let in_use =
            |refusal: &JoinRefusal| matches!(refusal, JoinRefusal::Rejected(Rejected::NodeIdInUse { .. }));
        assert!(matches!(&error, StartError::Refused(refusal) if in_use(refusal)), "{error}");
        let took = start.elapsed();
        assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(5), "it took {took:?}");
    }
}

/// The controller's task sleeps by the node's clock, and nothing else of a node that is ready does.
#[tokio::test(start_paused = true)]
async fn a_panic_of_the_controllers_task_ends_the_node() {
    let mut cluster = Cluster::new();
    let clock = OddClock::new(1);
    let node = node(&mut cluster, 1, "node-1", clock.clone()).expect(1).start();
    let node = tokio::time::timeout(PATIENCE, node).await.expect("an answer").expect("it forms alone");
    clock.broken.store(true, Ordering::Relaxed);
    let error =
        tokio::time::timeout(PATIENCE, node.stopped()).await.expect("it ends").expect_err("a failure");
    assert!(error.to_string().contains("a task of this node panicked"), "{error}");
    assert!(!node.is_ready());
}
