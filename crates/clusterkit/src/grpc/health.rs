//! `grpc.health.v1.Health` on a node: it serves when the node is ready.

use std::sync::Arc;

use clusterkit_core::id::NodeId;
use clusterkit_core::topology::{Stage, Topology};
use clusterkit_wire::grpc::cluster::v1::cluster_service_server::SERVICE_NAME;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::streams::{OpenStream, Streams};
use crate::handle::ClusterKit;
use crate::node::Phase;

/// The names under which health can be asked: the node as a whole, and its service. Both follow the
/// node's readiness.
const NAMES: [&str; 2] = ["", SERVICE_NAME];

/// Tells whether its node is ready.
pub(super) struct HealthApi {
    node: ClusterKit,
    streams: Streams,
}

impl HealthApi {
    pub(super) fn new(node: ClusterKit, streams: Streams) -> Self {
        Self { node, streams }
    }
}

#[tonic::async_trait]
impl Health for HealthApi {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match Watched::of(&self.node, &request.get_ref().service).status() {
            // The protocol wants an error here, and in a watch a status.
            ServingStatus::ServiceUnknown => Err(Status::not_found("no service of this name is served here")),
            status => Ok(Response::new(response(status))),
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let open = self.streams.open()?;
        let watched = Watched::of(&self.node, &request.get_ref().service);
        Ok(Response::new(watched.changes(open)))
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// One service and what its health follows from.
struct Watched {
    is_known: bool,
    node: NodeId,
    phase: watch::Receiver<Phase>,
    topology: watch::Receiver<Arc<Topology>>,
    stop: CancellationToken,
}

impl Watched {
    fn of(node: &ClusterKit, service: &str) -> Self {
        let shared = node.shared();
        Self {
            is_known: NAMES.contains(&service),
            node: shared.node.clone(),
            phase: shared.phase.subscribe(),
            topology: shared.topology.subscribe(),
            stop: shared.stop.clone(),
        }
    }

    fn status(&self) -> ServingStatus {
        match (self.is_known, self.is_ready()) {
            (false, _) => ServingStatus::ServiceUnknown,
            (true, true) => ServingStatus::Serving,
            (true, false) => ServingStatus::NotServing,
        }
    }

    /// Takes part, does not drain, and goes on.
    fn is_ready(&self) -> bool {
        let takes_part = matches!(*self.phase.borrow(), Phase::Ready);
        takes_part && !self.is_leaving() && !self.stop.is_cancelled()
    }

    fn is_leaving(&self) -> bool {
        self.topology.borrow().node(&self.node).is_some_and(|node| node.stage != Stage::Member)
    }

    /// The status, and then each other one, until the node stops.
    fn changes(self, open: OpenStream) -> BoxStream<'static, Result<HealthCheckResponse, Status>> {
        let start = (self, None, open);
        stream::unfold(start, |(mut watched, told, open)| async move {
            let status = watched.other_than(told).await?;
            Some((Ok(response(status)), (watched, Some(status), open)))
        })
        .boxed()
    }

    /// The status, once it is not `told`; `None` once the node has stopped and that was told.
    async fn other_than(&mut self, told: Option<ServingStatus>) -> Option<ServingStatus> {
        loop {
            let status = self.status();
            if told != Some(status) {
                return Some(status);
            }
            if self.stop.is_cancelled() {
                return None;
            }
            self.change().await;
        }
    }

    async fn change(&mut self) {
        // The senders live until the node has stopped.
        tokio::select! {
            _ = self.phase.changed() => {}
            _ = self.topology.changed() => {}
            () = self.stop.cancelled() => {}
        }
    }
}
