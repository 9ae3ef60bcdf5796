//! Every bound of the gRPC side, in one place.

use std::time::Duration;

/// How long a connection to another node may take to be made.
pub const CHANNEL_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a connection with calls under way is asked for a sign of life.
pub const CHANNEL_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long that sign may take before the calls fail.
pub const CHANNEL_KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a request: a key and little else.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Streams that one node serves at once, watches of its health included. Each remembers the version
/// that its client has, and almost all of a version is shared with the next.
pub const STREAMS_MAX: usize = 1_024;
/// How often a watched health is looked at, beside the events that change it: a node that loses the
/// controller is told of at most this much later.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

pub use clusterkit_wire::grpc::TOPOLOGY_BYTES_MAX;

const _: () = assert!(REQUEST_BYTES_MAX < TOPOLOGY_BYTES_MAX);
