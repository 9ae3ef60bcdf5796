//! `clusterkit.cluster.v1.ClusterService` on a node.

use std::sync::Arc;

use clusterkit_core::id::{NodeId, PartitionId, TopologyVersion};
use clusterkit_core::topology::{Node, Topology};
use clusterkit_wire::grpc::cluster::v1;
use clusterkit_wire::grpc::cluster::v1::cluster_service_server::ClusterService;
use clusterkit_wire::grpc::cluster::v1::get_partition_request::Selector;
use clusterkit_wire::grpc::cluster::v1::get_topology_response::Result as TopologyResult;
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::convert;
use super::refusal::Refusal;
use super::streams::Streams;
use super::watch::Follower;
use crate::handle::ClusterKit;

/// Answers from the topology that its node has applied.
pub(super) struct ClusterApi {
    node: ClusterKit,
    streams: Streams,
}

impl ClusterApi {
    pub(super) fn new(node: ClusterKit, streams: Streams) -> Self {
        Self { node, streams }
    }

    /// The newest topology, of a cluster that has formed and a node that goes on.
    fn topology(&self) -> Result<Arc<Topology>, Refusal> {
        if self.node.shared().stop.is_cancelled() {
            return Err(Refusal::Stopping);
        }
        let topology = self.node.topology();
        if topology.cluster.is_none() {
            return Err(Refusal::NotFormed);
        }
        Ok(topology)
    }

    fn follower(&self, request: &v1::WatchTopologyRequest) -> Result<Follower, Refusal> {
        let topology = self.topology()?;
        let known = request.from_version.filter(|_| is_of(&topology, request.cluster_id.as_deref()));
        Ok(Follower {
            watch: self.node.watch(),
            stop: self.node.shared().stop.clone(),
            known: known.map(TopologyVersion),
            _open: self.streams.open()?,
        })
    }
}

#[tonic::async_trait]
impl ClusterService for ClusterApi {
    type WatchTopologyStream = BoxStream<'static, Result<v1::TopologyUpdate, Status>>;

    async fn get_topology(
        &self,
        request: Request<v1::GetTopologyRequest>,
    ) -> Result<Response<v1::GetTopologyResponse>, Status> {
        Ok(Response::new(topology(&*self.topology()?, request.get_ref())))
    }

    async fn watch_topology(
        &self,
        request: Request<v1::WatchTopologyRequest>,
    ) -> Result<Response<Self::WatchTopologyStream>, Status> {
        Ok(Response::new(self.follower(request.get_ref())?.updates()))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        Ok(Response::new(nodes(&*self.topology()?, request.get_ref())?))
    }

    async fn get_node(
        &self,
        request: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::GetNodeResponse>, Status> {
        Ok(Response::new(node(&*self.topology()?, request.get_ref())?))
    }

    async fn get_partition(
        &self,
        request: Request<v1::GetPartitionRequest>,
    ) -> Result<Response<v1::GetPartitionResponse>, Status> {
        Ok(Response::new(partition(&*self.topology()?, request.get_ref())?))
    }

    async fn get_route(
        &self,
        request: Request<v1::GetRouteRequest>,
    ) -> Result<Response<v1::GetRouteResponse>, Status> {
        Ok(Response::new(route(&*self.topology()?, request.get_ref())?))
    }

    async fn get_status(
        &self,
        _request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(convert::status(&self.node, &self.node.topology())))
    }

    async fn get_stats(
        &self,
        _request: Request<v1::GetStatsRequest>,
    ) -> Result<Response<v1::GetStatsResponse>, Status> {
        Ok(Response::new(convert::stats(&*self.topology()?)))
    }
}

fn topology(topology: &Topology, request: &v1::GetTopologyRequest) -> v1::GetTopologyResponse {
    let is_known = request.known_route_version == Some(topology.route_version.0)
        && is_of(topology, request.cluster_id.as_deref());
    let result = if is_known {
        TopologyResult::NotModified(not_modified(topology))
    } else {
        TopologyResult::Topology(topology.into())
    };
    v1::GetTopologyResponse { result: Some(result) }
}

fn not_modified(topology: &Topology) -> v1::NotModified {
    v1::NotModified {
        version: topology.version.0,
        route_version: topology.route_version.0,
        cluster_id: cluster_id(topology).unwrap_or_default(),
    }
}

/// Whether a version that a client names is one of this cluster. Versions of two clusters have
/// nothing to do with each other.
fn is_of(topology: &Topology, cluster: Option<&str>) -> bool {
    cluster.is_none_or(|cluster| cluster_id(topology).as_deref() == Some(cluster))
}

fn cluster_id(topology: &Topology) -> Option<String> {
    topology.cluster.as_ref().map(|cluster| cluster.id.to_string())
}

fn nodes(topology: &Topology, request: &v1::ListNodesRequest) -> Result<v1::ListNodesResponse, Refusal> {
    for &number in &request.statuses {
        check_status(number)?;
    }
    let is_wanted = |node: &&Arc<Node>| {
        let status = i32::from(v1::NodeStatus::from(node.status()));
        request.statuses.is_empty() || request.statuses.contains(&status)
    };
    let nodes = topology.nodes.values().filter(is_wanted).map(|node| node.as_ref().into()).collect();
    Ok(v1::ListNodesResponse { nodes, version: topology.version.0 })
}

fn check_status(number: i32) -> Result<(), Refusal> {
    match v1::NodeStatus::try_from(number) {
        Err(_) | Ok(v1::NodeStatus::Unspecified) => Err(Refusal::UnknownStatus { number }),
        Ok(_) => Ok(()),
    }
}

fn node(topology: &Topology, request: &v1::GetNodeRequest) -> Result<v1::GetNodeResponse, Refusal> {
    let id = NodeId::new(&request.id).map_err(Refusal::InvalidNodeId)?;
    let node = topology.node(&id).ok_or(Refusal::NoSuchNode { node: id })?;
    Ok(v1::GetNodeResponse { node: Some(node.into()), version: topology.version.0 })
}

fn partition(
    topology: &Topology,
    request: &v1::GetPartitionRequest,
) -> Result<v1::GetPartitionResponse, Refusal> {
    let partition = match request.selector.as_ref().ok_or(Refusal::NoSelector)? {
        Selector::Id(number) => PartitionId(*number),
        Selector::Key(key) => partition_of(topology, key)?,
    };
    let count = topology.partitions.len();
    let record = topology.partition(partition).ok_or(Refusal::NoSuchPartition { partition, count })?;
    Ok(v1::GetPartitionResponse {
        partition: Some(v1::Partition::of(record, topology)),
        version: topology.version.0,
        route_version: topology.route_version.0,
        history: record.history.iter().map(Into::into).collect(),
    })
}

fn route(topology: &Topology, request: &v1::GetRouteRequest) -> Result<v1::GetRouteResponse, Refusal> {
    let partition = partition_of(topology, &request.key)?;
    let count = topology.partitions.len();
    let record = topology.partition(partition).ok_or(Refusal::NoSuchPartition { partition, count })?;
    let message = |id: &NodeId| topology.node(id).map(Into::into);
    Ok(v1::GetRouteResponse {
        partition: partition.0,
        epoch: record.epoch.0,
        leader: record.leader.as_ref().and_then(message),
        followers: record.followers().filter_map(message).collect(),
        route_version: topology.route_version.0,
    })
}

fn partition_of(topology: &Topology, key: &[u8]) -> Result<PartitionId, Refusal> {
    if key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    topology.partition_of(key).ok_or(Refusal::NotFormed)
}
