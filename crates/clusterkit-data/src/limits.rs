//! Every bound of this crate, in one place.

use std::time::Duration;

use clusterkit_storage::limits::{
    STATE_BATCH_BYTES_MAX, STATE_CHANGES_MAX, STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX,
};

/// Bytes of a key of a state machine.
pub const KEY_BYTES_MAX: usize = STATE_KEY_BYTES_MAX - 1;
/// Bytes of a value of a state machine.
pub const VALUE_BYTES_MAX: usize = STATE_VALUE_BYTES_MAX;
/// Bytes of what a state machine answers to a command.
pub const ANSWER_BYTES_MAX: usize = STATE_VALUE_BYTES_MAX - 1;
/// Entries that one command puts and deletes; one that is changed again counts again.
pub const COMMAND_CHANGES_MAX: usize = STATE_CHANGES_MAX / 2;
/// Bytes of their keys and values, and one more for each.
pub const COMMAND_BYTES_MAX: usize = STATE_BATCH_BYTES_MAX / 2 - (2 << 20);

const _: () = assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX < COMMAND_BYTES_MAX);

/// Requests and messages that wait for the engine; beyond, requests wait and messages are dropped, which their
/// senders repair.
pub(crate) const INBOX_MAX: usize = 8_192;
/// What the engine takes at a time before it carries out what follows from it.
pub(crate) const TURN_MAX: usize = 512;
/// Bytes of one notice to another node; a single message may have more.
pub(crate) const NOTICE_BYTES_MAX: usize = 1 << 20;
/// Wishes to the control plane that are under way at once.
pub(crate) const WISHES_MAX: usize = 256;
/// Requests of clients that one node holds, forwards or answers at once.
pub(crate) const REQUESTS_MAX: usize = 65_536;
/// How long a request waits before it looks again where to go, if nothing tells it to.
pub(crate) const ROUTE_PAUSE: Duration = Duration::from_millis(20);
/// The longest that a client may have a request wait.
pub(crate) const DEADLINE_MAX: Duration = Duration::from_secs(60);
/// How often writes that nobody waits for any more are forgotten.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Bytes of one piece of a snapshot.
pub(crate) const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;
/// Snapshots that are sent at once, and as many that are received.
pub(crate) const SNAPSHOTS_MAX: usize = 4;
/// How long the answer to a piece of a snapshot may take.
pub(crate) const SNAPSHOT_PIECE_TIMEOUT: Duration = Duration::from_secs(10);
/// After how long without a piece a snapshot that comes in is given up.
pub(crate) const SNAPSHOT_SILENCE_MAX: Duration = Duration::from_secs(30);
/// How often a hook that waits looks how far its replica is.
pub(crate) const HOOK_PAUSE: Duration = Duration::from_millis(200);
/// Events of a partition that are kept for watchers that come back, or are slow.
pub(crate) const EVENTS_KEPT: usize = 4_096;
/// Bytes of those events.
pub(crate) const EVENTS_BYTES_MAX: usize = 1 << 20;
/// Bytes of snapshots that a node sends in a second to one other, so that clients have their share.
pub(crate) const SNAPSHOT_BYTES_PER_SECOND: u64 = 64 << 20;
/// How far the numbers of a node's requests in one of its sessions may lie apart: fewer than a session's answers.
pub(crate) const GATEWAY_WINDOW: u64 = 48;
/// Sessions that a node has open with a partition.
pub(crate) const GATEWAY_SESSIONS_MAX: usize = 64;
/// How often a write looks for a session of this node's before it is given up.
pub(crate) const SESSION_ATTEMPTS_MAX: usize = 4;
/// Answers of one partition that are kept for writes that are not replied yet.
pub(crate) const ANSWERS_MAX: usize = 16_384;
/// A session of this node's that was not used for so long is left to expire: half of what sessions live unused by
/// default.
pub(crate) const GATEWAY_IDLE_MAX: Duration = Duration::from_mins(5);

const _: () = assert!(ANSWERS_MAX >= 2 * clusterkit_core::replica::WRITES_MAX);
