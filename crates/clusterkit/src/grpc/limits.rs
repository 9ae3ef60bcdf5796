//! Every bound of the gRPC side, in one place.

use std::time::Duration;

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
