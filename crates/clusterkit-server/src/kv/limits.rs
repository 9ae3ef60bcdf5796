//! Every bound of the routes of keys and values, beside those of the service itself.

use std::time::Duration;

use clusterkit_services::kv::limits::{BATCH_BYTES_MAX, PAGE_ENTRIES_MAX};

/// Bytes of the JSON of a batch.
pub(crate) const BATCH_BODY_BYTES_MAX: usize = 16 << 20;
/// Operations of a batch that is not atomic.
pub(crate) const OPERATIONS_MAX: usize = 4_096;
/// Bytes of the JSON of the routes that other products made us keep.
pub(crate) const SEED_BODY_BYTES_MAX: usize = 8 << 20;
/// Entries of a page when none are asked for.
pub(crate) const PAGE_LIMIT_DEFAULT: u32 = 100;
/// Entries of a page.
pub(crate) const PAGE_LIMIT_MAX: u32 = 1_000;
/// The longest that a client may have a request wait.
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Watches of this node at once.
pub(crate) const WATCHES_MAX: usize = 1_024;
/// Partitions that one watch follows: its place in all of them stands in the id of each event.
pub(crate) const WATCH_PARTITIONS_MAX: usize = 512;
/// How often a quiet watch sends a comment, so that nobody between takes it for dead.
pub(crate) const WATCH_KEEP_ALIVE: Duration = Duration::from_secs(15);
/// When a client shall come back whose watch broke.
pub(crate) const WATCH_RETRY: Duration = Duration::from_secs(1);
/// How long a watch whose past is forgotten waits before it looks again.
pub(crate) const WATCH_PAUSE: Duration = Duration::from_millis(100);

/// How often the partitions that this node leads are asked for what has expired.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Commands to sweep of one partition in one round.
pub(crate) const SWEEPS_PER_ROUND_MAX: usize = 8;
/// How long one question or command of a round may take.
pub(crate) const SWEEP_TIMEOUT: Duration = Duration::from_secs(1);

const _: () = assert!(PAGE_LIMIT_DEFAULT <= PAGE_LIMIT_MAX && PAGE_LIMIT_MAX as usize <= PAGE_ENTRIES_MAX);
const _: () = assert!(BATCH_BYTES_MAX / 3 * 4 < BATCH_BODY_BYTES_MAX, "an atomic batch fits as base64");
