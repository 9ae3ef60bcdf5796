//! Every bound of the transport, in one place, with the relations between them checked.

use std::time::Duration;

use clusterkit_core::limits::NODES_MAX;
use clusterkit_wire::hello::Class;
use clusterkit_wire::limits::{FRAME_BYTES_MAX_BULK, HELLO_BYTES_MAX};

/// How long a node waits for a connection to come about.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long either side gives the other for its hello and the answer to it.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// A side that has had nothing to say for so long says that it lives.
pub(super) const PING_EVERY: Duration = Duration::from_secs(1);
/// A connection on which not one byte came for so long is closed.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(5);
/// A link without calls for so long says goodbye; the next call dials again.
pub(super) const LINK_IDLE_MAX: Duration = Duration::from_secs(60);
/// The pause after the first dial that failed; it doubles with each that follows.
pub(super) const DIAL_BACKOFF_MIN: Duration = Duration::from_millis(20);
/// The longest pause between two dials: how late, at most, a node that came back is noticed.
pub(super) const DIAL_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// The pause after a connection could not be accepted, as when the process has no descriptor left.
pub(super) const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// The longest that one call may take; a longer wish is cut to it.
pub(super) const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(3_600);

/// Addresses to which this node has links at once.
pub(super) const LINK_ADDRS_MAX: usize = 4 * NODES_MAX;
/// Calls that wait at one link to be written.
pub(super) const CALL_QUEUE_MAX: usize = 1_024;
/// How often a call that meets a link in the moment of its end tries with a new one.
pub(super) const LINK_ATTEMPTS_MAX: usize = 3;
/// Bytes of bodies that wait at one connection to be written, or to be answered.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Frames written before the connection is flushed.
pub(super) const BATCH_MAX: usize = 64;
/// Losses kept for a listener that is slow; beyond them the oldest go.
pub(super) const LOSSES_MAX: usize = 256;

/// Bytes that a reader makes room for at once. Memory follows what came, not what was announced.
pub(super) const READ_CHUNK_BYTES: usize = 64 * 1024;
/// When there is less room than this, a reader makes more.
pub(super) const READ_ROOM_BYTES_MIN: usize = 4 * 1024;
/// Bytes of small frames that are gathered into one write.
pub(super) const WRITE_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes of the answer of a node's public address.
pub(super) const PUBLIC_ANSWER_BYTES_MAX: usize = 1 << 20;
/// Bytes of the head of that answer.
pub(super) const PUBLIC_HEAD_BYTES_MAX: usize = 16 * 1024;

const _: () = assert!(HELLO_BYTES_MAX <= READ_CHUNK_BYTES);
const _: () = assert!(READ_ROOM_BYTES_MIN <= READ_CHUNK_BYTES);
const _: () = assert!(FRAME_BYTES_MAX_BULK <= BODY_BYTES_MAX);
const _: () = assert!(BODY_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(BATCH_MAX <= CALL_QUEUE_MAX);
const _: () = assert!(DIAL_BACKOFF_MIN.as_millis() <= DIAL_BACKOFF_MAX.as_millis());
const _: () = assert!(2 * PING_EVERY.as_millis() < SILENCE_MAX.as_millis());
const _: () = assert!(SILENCE_MAX.as_millis() < LINK_IDLE_MAX.as_millis());

/// How much of itself a node gives to others at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections that said hello, from all nodes together. Default 4,096: three classes from each
    /// node of the largest cluster, and room for those that are being replaced. With fewer than three
    /// for each node of a cluster, some are told that this node is busy.
    pub connections_max: usize,
    /// Connections that did not yet say hello, from everywhere together. Default 1,024.
    pub handshakes_max: usize,
    /// Connections that did not yet say hello, from one host. Default 64; not above
    /// `handshakes_max`, or one host could take all of them.
    pub handshakes_per_host_max: usize,
    /// Requests of one connection that are being carried out. Default 1,024. The other side's next
    /// request is read when one of them is answered.
    pub in_flight_max: usize,
}

impl Limits {
    const DEFAULT: Self = Self {
        connections_max: 4 * NODES_MAX,
        handshakes_max: 1_024,
        handshakes_per_host_max: 64,
        in_flight_max: 1_024,
    };
}

const _: () = assert!(Limits::DEFAULT.connections_max >= Class::ALL.len() * NODES_MAX);
const _: () = assert!(Limits::DEFAULT.handshakes_per_host_max <= Limits::DEFAULT.handshakes_max);

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
