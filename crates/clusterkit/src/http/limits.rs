//! Every bound of the public port, in one place, with the relations between them checked.

use std::time::Duration;

/// Bytes of a request body that is JSON.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// How long a JSON body may take to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections of the whole port. One more is closed as soon as it comes in.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Connections of one address; for IPv6 of one /64 network, which one machine has to itself. This
/// machine's own addresses count only towards [`CONNECTIONS_MAX`].
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 64;
/// Bytes of an answer that the client of other nodes reads.
pub const CLIENT_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long its connections may take to be made.
pub const CLIENT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it keeps a connection that nobody uses.
pub const CLIENT_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Its requests to one node at once, each on a connection of its own.
pub const CLIENT_REQUESTS_PER_NODE_MAX: usize = 32;
/// How long its requests may take unless another time is set.
pub const CLIENT_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection that was asked to end may take for that.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long no connection is taken after one could not be, for instance for want of descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Rounds of the controller that the rehearsal of a drain goes through before it is cut off.
pub const DRAIN_ROUNDS_MAX: usize = 64;
/// Rehearsals of a drain at once.
pub const DRAIN_PLANS_MAX: usize = 2;
/// How often a stream of events without an event sends a comment, so that nobody between takes it
/// for dead.
pub const EVENT_KEEP_ALIVE: Duration = Duration::from_secs(15);
/// When a client shall come back whose stream of events broke.
pub const EVENT_RETRY: Duration = Duration::from_secs(1);
/// Streams of events at once.
pub const EVENT_STREAMS_MAX: usize = 1_024;
/// How long a new connection may take until its first request is read.
pub const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// How long a request's head may take from its first byte.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may lie there without a request.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a key in a query.
pub const KEY_BYTES_MAX: usize = 4 * 1024;
/// Items of one page when none is asked for.
pub const PAGE_LIMIT_DEFAULT: usize = 1_000;
/// Items of one page.
pub const PAGE_LIMIT_MAX: usize = 1_000;
/// Nodes of one page of `/nodes` when none is asked for.
pub const NODES_PAGE_LIMIT_DEFAULT: usize = 50;
/// Bytes of a request id that a client chose. A longer one is replaced.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// How long requests under way may take when the port closes.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// Moves, and late hooks, that a status lists.
pub const STATUS_ROWS_MAX: usize = 100;
/// Requests at once on one HTTP/2 connection.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 100;
/// The longest `?wait=`.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

const _: () = assert!(CONNECTIONS_PER_ADDRESS_MAX < CONNECTIONS_MAX);
const _: () =
    assert!(CLIENT_IDLE_TIMEOUT.as_millis() < IDLE_TIMEOUT.as_millis(), "who uses it again closes it");
const _: () = assert!(CLIENT_REQUESTS_PER_NODE_MAX < CONNECTIONS_PER_ADDRESS_MAX);
const _: () = assert!(HEADER_BYTES_MAX >= 8 * 1024, "hyper reads into a buffer of 8 KiB at least");
const _: () = assert!(KEY_BYTES_MAX * 3 < HEADER_BYTES_MAX, "an escaped key fits into the head");
const _: () = assert!(HEADER_TIMEOUT.as_millis() < IDLE_TIMEOUT.as_millis());
const _: () = assert!(PAGE_LIMIT_DEFAULT <= PAGE_LIMIT_MAX && NODES_PAGE_LIMIT_DEFAULT <= PAGE_LIMIT_MAX);
const _: () = assert!(EVENT_STREAMS_MAX < CONNECTIONS_MAX);
