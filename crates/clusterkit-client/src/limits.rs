//! Every bound of the client, with the relations between them checked.

use std::time::Duration;

/// How long a call may take unless told otherwise, retries included.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);
/// Bytes of a key, of which it has one at least, and of a prefix, which may have none.
pub const KEY_BYTES_MAX: usize = 4 << 10;
/// Bytes of a value.
pub const VALUE_BYTES_MAX: usize = 4 << 20;
/// Bytes of the name of a namespace.
pub const NAMESPACE_BYTES_MAX: usize = 64;
/// Requests under way to one node unless told otherwise; more wait for their turn, within their deadline.
pub const REQUESTS_PER_NODE_DEFAULT: usize = 64;
/// Bytes of an answer that are read: a page of the largest entries, in JSON.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Entries of one page of a scan.
pub const PAGE_ENTRIES_MAX: usize = 1_000;
/// Keys, or pairs of a key and a value, that one request carries.
pub const BATCH_OPS_MAX: usize = 256;
/// Bytes of keys and values that one request carries.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Requests that one call for many keys has under way.
pub const BATCH_REQUESTS_MAX: usize = 32;

/// How long a connection may take to stand.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection is kept unused.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one node has for an answer. Longer than a node holds a request while an election runs.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(2_500);
/// The longest that a node may be asked to take.
pub(crate) const NODE_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// How long an answer may take until the topology is asked whether the node still leads.
pub(crate) const DOUBT_AFTER: Duration = Duration::from_millis(500);
/// The first wait before a retry is at most this long, and each later one at most twice the one before it.
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(25);
/// No wait before a retry is longer, unless a node asks for it.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// The longest wait that a node may ask for; what it asks above is taken as this.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// Retries at once, after a node named the leader, in one call.
pub(crate) const REDIRECTS_MAX: u32 = 1;
/// Retries at once, after another node began to lead, in one call.
pub(crate) const REPLACED_MAX: u32 = 4;
/// Sessions that one call replaces at once, each found to be over.
pub(crate) const RENEWALS_MAX: u32 = 1;
/// Why attempts failed, as far as an error tells it.
pub(crate) const REASONS_MAX: usize = 8;

/// Retries that each call earns, in thousandths: one call in ten.
pub(crate) const BUDGET_EARNED_MILLIS: u64 = 100;
/// Retries a second that are allowed however few calls there are.
pub(crate) const BUDGET_FLOOR_PER_SECOND: u64 = 10;
/// Retries that can be saved up.
pub(crate) const BUDGET_RETRIES_MAX: u64 = 100;

/// Failures to connect, one after the other, after which a node is left alone.
pub(crate) const BREAKER_FAILURES_MAX: u32 = 3;
/// For how long it is left alone at first; twice as long after each probe that fails.
pub(crate) const BREAKER_OPEN_FIRST: Duration = Duration::from_millis(250);
/// The longest that a node is left alone.
pub(crate) const BREAKER_OPEN_MAX: Duration = Duration::from_secs(5);

/// Numbers between the oldest request of a session that is under way and the newest, both counted. A partition keeps
/// the answers of 64, and the rest is for requests that were given up and may still arrive.
pub(crate) const SESSION_WINDOW: u64 = 48;
/// Sessions that a client has open with one partition.
pub(crate) const SESSIONS_PER_PARTITION_MAX: usize = 4;

/// How long a node may hold a request for a newer topology.
pub(crate) const TOPOLOGY_WAIT: Duration = Duration::from_secs(30);
/// How much longer its answer may take.
pub(crate) const TOPOLOGY_GRACE: Duration = Duration::from_secs(5);
/// How long an answer may take that is to come at once.
pub(crate) const TOPOLOGY_TIMEOUT: Duration = Duration::from_secs(2);
/// The topology is not asked for more often than this, however many calls want it.
pub(crate) const TOPOLOGY_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Partitions whose leader was learned from answers before the topology had it.
pub(crate) const LEARNED_MAX: usize = 16_384;

const _: () = assert!(ATTEMPT_TIMEOUT.as_millis() < DEADLINE_DEFAULT.as_millis());
const _: () = assert!(DOUBT_AFTER.as_millis() < ATTEMPT_TIMEOUT.as_millis());
const _: () = assert!(BACKOFF_FIRST.as_millis() < BACKOFF_MAX.as_millis());
const _: () = assert!(BREAKER_OPEN_FIRST.as_millis() < BREAKER_OPEN_MAX.as_millis());
const _: () = assert!(SESSION_WINDOW < 64);
const _: () = assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX <= ANSWER_BYTES_MAX);
