//! The public gRPC side of a node: the cluster service and the standard health service.
//!
//! The schema lies in `proto/clusterkit/cluster/v1/cluster.proto`. Each call is answered from the
//! topology that this node has applied: no call waits for another node, and none changes anything.

mod channels;
mod convert;
mod health;
mod limits;
mod refusal;
mod service;
mod streams;
mod watch;

use clusterkit_wire::grpc::cluster::v1::cluster_service_server::ClusterServiceServer;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

pub use self::channels::ChannelError;
pub(crate) use self::channels::Channels;
use self::health::HealthApi;
pub use self::limits::{
    CHANNEL_CONNECT_TIMEOUT, CHANNEL_KEEP_ALIVE, CHANNEL_KEEP_ALIVE_TIMEOUT, HEALTH_INTERVAL,
    REQUEST_BYTES_MAX, STREAMS_MAX, TOPOLOGY_BYTES_MAX,
};
use self::service::ClusterApi;
use self::streams::Streams;
use crate::handle::ClusterKit;

/// The gRPC services of `node`, to be served over HTTP/2 or merged into another router.
///
/// The router has no fallback of its own. It is a handle on the node, which runs at least as long.
/// Streams end when the node stops, so a server that waits for its connections comes to an end.
/// Layers around the router must not cut off answers that take long: a watch never ends by itself.
pub fn routes(node: &ClusterKit) -> axum::Router {
    let streams = Streams::new(STREAMS_MAX);
    let cluster = ClusterServiceServer::new(ClusterApi::new(node.clone(), streams.clone()))
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(TOPOLOGY_BYTES_MAX);
    let health = HealthServer::new(HealthApi::new(node.clone(), streams))
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(REQUEST_BYTES_MAX);
    let routes = Routes::from(axum::Router::new()).add_service(cluster).add_service(health);
    routes.into_axum_router()
}
