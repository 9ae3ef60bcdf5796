//! Every bound and time of the example.

use std::time::Duration;

/// Nodes of the cluster.
pub(crate) const NODES: usize = 3;
/// The most stale writes at each place: each is a permit that a node holds in its memory.
pub(crate) const WRITES_MAX: i64 = 1_000_000;
/// Writes that must be confirmed under an epoch before the story goes on.
pub(crate) const GOOD_WRITES_MIN: u64 = 20;
/// How long a write takes at least, with its permit out: so the stop hits the owner in one.
pub(crate) const WRITE_TIME_MIN: Duration = Duration::from_millis(10);
/// How often an owner is asked to get ready, since leadership may move just then.
pub(crate) const PREPARATIONS_MAX: u32 = 10;
/// How often an owner is stopped anew because it was stopped while it held the lock of the file.
pub(crate) const STOPS_MAX: u32 = 100;

/// How long anything may take that is waited for. Far more than it needs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// How long a process may take to end before it is killed.
pub(crate) const END_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at something that does not tell when it changes.
pub(crate) const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// How long a node waits for leadership to settle before it asks again.
pub(crate) const ROUTE_PATIENCE: Duration = Duration::from_secs(5);
/// How much of the last words of a process is shown.
pub(crate) const LAST_WORDS_LINES_MAX: usize = 5;
