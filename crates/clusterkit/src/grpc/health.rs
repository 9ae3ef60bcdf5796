//! `grpc.health.v1.Health` on a node: it serves when the node is ready.

use std::sync::Arc;

use clusterkit_core::topology::{Stage, Topology};
use clusterkit_wire::grpc::cluster::v1::cluster_service_server::SERVICE_NAME;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::limits::HEALTH_INTERVAL;
use super::streams::{OpenStream, Streams};
use crate::handle::ClusterKit;
use crate::node::{Phase, Shared};

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
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    topology: watch::Receiver<Arc<Topology>>,
}

impl Watched {
    fn of(node: &ClusterKit, service: &str) -> Self {
        let shared = Arc::clone(node.shared());
        Self {
            is_known: NAMES.contains(&service),
            phase: shared.phase.subscribe(),
            topology: shared.topology.subscribe(),
            shared,
        }
    }

    fn status(&self) -> ServingStatus {
        match (self.is_known, self.is_ready()) {
            (false, _) => ServingStatus::ServiceUnknown,
            (true, true) => ServingStatus::Serving,
            (true, false) => ServingStatus::NotServing,
        }
    }

    /// Takes part, is in touch with the controller, does not drain, and goes on: what `/readyz` asks.
    fn is_ready(&self) -> bool {
        let takes_part = matches!(*self.phase.borrow(), Phase::Ready);
        takes_part && self.shared.has_controller() && !self.is_leaving() && !self.is_stopping()
    }

    fn is_leaving(&self) -> bool {
        self.topology.borrow().node(&self.shared.node).is_some_and(|node| node.stage != Stage::Member)
    }

    fn is_stopping(&self) -> bool {
        self.shared.stop.is_cancelled()
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
            if self.is_stopping() {
                return None;
            }
            self.change().await;
        }
    }

    /// Waits for what may change the status. Losing touch with the controller is no event, so the
    /// status is looked at from time to time as well.
    async fn change(&mut self) {
        let look = self.shared.now() + HEALTH_INTERVAL;
        // The senders live until the node has stopped.
        tokio::select! {
            _ = self.phase.changed() => {}
            _ = self.topology.changed() => {}
            () = self.shared.settings.clock.sleep_until(look) => {}
            () = self.shared.stop.cancelled() => {}
        }
    }
}
