//! Every bound of the examples, in one place.

use std::time::Duration;

/// Keys of one answer to a node that copies a partition.
pub const COPY_KEYS_MAX: usize = 1_000;
/// How soon a copy is tried again that a source could not serve.
pub const COPY_PAUSE: Duration = Duration::from_millis(200);
/// How long a source waits until it has adopted the record that a copy is for.
pub const ADOPTION_PATIENCE: Duration = Duration::from_secs(2);
/// How long a request waits while leadership passes from one node to another.
pub const ROUTE_PATIENCE: Duration = Duration::from_secs(2);
/// How long one request between two programs may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);
/// How long one copy of a write may take before it is sent again.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a leader tries to bring a write to all copies.
pub const REPLICATION_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two rounds of that.
pub const REPLICATION_PAUSE: Duration = Duration::from_millis(20);
/// Writes of one node that were acknowledged and are still being copied.
pub const WRITES_BEHIND_MAX: usize = 256;
/// Redirects that a client follows for one request.
pub const REDIRECTS_MAX: usize = 5;
/// How long a client waits before it asks another node.
pub const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause that a server's `Retry-After` makes a client wait.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(2);
/// How long a patient client goes on with one request.
pub const CLIENT_PATIENCE: Duration = Duration::from_secs(60);
/// Connections to one address that are kept for the next request.
pub const IDLE_CONNECTIONS_MAX: usize = 64;
/// How often a cluster is begun anew because somebody else took one of its ports.
pub const STARTS_MAX: usize = 3;
/// How long nodes may take to form a cluster, or to join one.
pub const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks at the cluster.
pub const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// How long a whole demonstration may take.
pub const STORY_TIMEOUT: Duration = Duration::from_secs(240);
/// How long a node that was told to stop may take before it is killed.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);

const _: () = assert!(SEND_TIMEOUT.as_millis() < REPLICATION_TIMEOUT.as_millis());
const _: () = assert!(
    ROUTE_PATIENCE.as_millis() + REPLICATION_TIMEOUT.as_millis() < REQUEST_TIMEOUT.as_millis(),
    "who asks waits longer than who answers"
);
