//! The topology, and where a key goes.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use clusterkit_core::hash::{KeyHash, slot_of};
use clusterkit_core::id::{NodeId, RouteVersion};
use clusterkit_core::topology::{Partition, Topology};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::conditional::{Known, unless_known};
use super::dto::{ClusterDto, HashConfigDto, NodeDto, PartitionDto};
use super::endpoint::Endpoint;
use super::limits::WAIT_MAX;
use super::problem::{Code, Problem};
use super::request::{Closing, Key, Query, find_partition};
use super::text::parse_duration;

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    vec![
        Endpoint::get("/v1/topology", topology)
            .summary("The whole topology; with `wait`, as soon as it is newer than the client's.")
            .query::<TopologyQuery>()
            .conditional()
            .json::<TopologyDto>("The topology.")
            .fails(&[Code::InvalidValue, Code::UnknownField]),
        Endpoint::get("/v1/route", route)
            .summary("Where requests for a key go.")
            .query::<KeyQuery>()
            .json::<RouteDto>("The partition of the key, and who holds it.")
            .fails(&[Code::InvalidValue, Code::MissingParameter, Code::NotFormed]),
    ]
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct TopologyQuery {
    /// How long to wait for a topology newer than the one of `If-None-Match`, as in `30s`; 60 s at
    /// most.
    #[param(pattern = "^[0-9]+(ms|s|m|h)$")]
    wait: Option<String>,
}

/// How a key is given. The handlers read it by hand, since keys need not be text.
#[derive(IntoParams)]
#[allow(dead_code)]
pub(super) struct KeyQuery {
    /// The key, with escapes where its bytes are no text.
    key: Option<String>,
    /// The key in hexadecimal digits, instead of `key`.
    #[param(pattern = "^([0-9A-Fa-f]{2})*$")]
    key_hex: Option<String>,
}

/// One version of the cluster, as far as clients need it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Topology)]
struct TopologyDto {
    /// None before the cluster formed.
    cluster: Option<ClusterDto>,
    /// Grows with every change.
    version: u64,
    /// Grows only with leaders, replicas and addresses: the `ETag`.
    route_version: u64,
    /// Copies of each partition, leader included.
    replication_factor: Option<u32>,
    /// None before the cluster formed.
    hash_config: Option<HashConfigDto>,
    /// Every registered node, in the order of their ids.
    nodes: Vec<NodeDto>,
    /// Every partition; the one with id `n` is the `n`th.
    partitions: Vec<PartitionDto>,
}

impl From<&Topology> for TopologyDto {
    fn from(topology: &Topology) -> Self {
        let cluster = topology.cluster.as_deref();
        let partition = |record: &Arc<Partition>| PartitionDto::new(topology, record);
        Self {
            cluster: cluster.map(ClusterDto::from),
            version: topology.version.0,
            route_version: topology.route_version.0,
            replication_factor: cluster.map(|cluster| cluster.config.replication_factor),
            hash_config: cluster.map(HashConfigDto::from),
            nodes: topology.nodes.values().map(|node| NodeDto::from(node.as_ref())).collect(),
            partitions: topology.partitions.iter().map(partition).collect(),
        }
    }
}

async fn topology(
    State(api): State<Api>,
    headers: HeaderMap,
    Query(query): Query<TopologyQuery>,
    closing: Closing,
) -> Result<Response, Problem> {
    let (known, wait) = (Known::of(&headers), wait_of(&query)?);
    if let (Known::Version(version), Some(wait)) = (known, wait) {
        wait_past(&api, version, wait, &closing).await;
    }
    let topology = api.ck().topology();
    Ok(unless_known(known, topology.route_version, || Json(TopologyDto::from(topology.as_ref()))))
}

fn wait_of(query: &TopologyQuery) -> Result<Option<Duration>, Problem> {
    let Some(text) = &query.wait else { return Ok(None) };
    match parse_duration(text) {
        Some(wait) if wait <= WAIT_MAX => Ok(Some(wait)),
        _ => {
            let detail = format!(
                "`wait` must be a duration of at most {} s, as in 30s, not \"{text}\"",
                WAIT_MAX.as_secs()
            );
            Err(Problem::new(Code::InvalidValue, detail))
        }
    }
}

/// Waits for a version above `known`, for `wait` at most. A node that lags behind the client's
/// version waits too, so that a client does not ask it again and again at once.
async fn wait_past(api: &Api, known: RouteVersion, wait: Duration, closing: &Closing) {
    let mut watch = api.ck().watch();
    let newer = async {
        tokio::select! {
            newest = watch.wait_for(|topology| topology.route_version > known) => drop(newest),
            () = closing.0.cancelled() => {}
            () = api.ck().shared().stop.cancelled() => {}
        }
    };
    // Whether it came in time shows in the topology.
    drop(timeout(wait, newer).await);
}

/// Where requests for a key go.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Route)]
struct RouteDto {
    /// The key, when it is text.
    key: Option<String>,
    /// The key in hexadecimal digits.
    key_hex: String,
    /// Its slot, when the cluster hashes keys to slots.
    slot: Option<u32>,
    partition: u32,
    /// The partition with a prefix, as in `partition-5`.
    name: String,
    /// To be sent along with what goes to the leader.
    epoch: u64,
    /// Who takes writes; none while an election runs.
    leader: Option<RouteNodeDto>,
    /// Who holds a copy, the leader first.
    replicas: Vec<RouteNodeDto>,
}

/// A node that a request may go to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RouteNode)]
struct RouteNodeDto {
    id: String,
    /// Where clients reach it.
    public_addr: String,
    #[schema(value_type = String)]
    status: &'static str,
}

async fn route(State(api): State<Api>, Key(key): Key) -> Result<Json<RouteDto>, Problem> {
    let topology = api.ck().topology();
    let (Some(cluster), Some(partition)) = (&topology.cluster, topology.partition_of(&key)) else {
        return Err(Problem::not_formed());
    };
    let record = find_partition(&topology, partition)?;
    let node = |id: &NodeId| route_node(&topology, id);
    Ok(Json(RouteDto {
        slot: (cluster.config.key_hash == KeyHash::Crc16Slots).then(|| slot_of(&key)),
        key_hex: key.iter().map(|byte| format!("{byte:02x}")).collect(),
        key: String::from_utf8(key).ok(),
        partition: partition.0,
        name: partition.to_string(),
        epoch: record.epoch.0,
        leader: record.leader.as_ref().and_then(node),
        replicas: record.holders().filter_map(node).collect(),
    }))
}

fn route_node(topology: &Topology, id: &NodeId) -> Option<RouteNodeDto> {
    let node = topology.node(id)?;
    let (id, public_addr) = (node.id.to_string(), node.public_addr.clone());
    Some(RouteNodeDto { id, public_addr, status: node.status().as_str() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_is_a_duration_of_a_minute_at_most() {
        let check = |text: &str, expect: Option<u64>| {
            let wait = wait_of(&TopologyQuery { wait: Some(text.to_owned()) }).ok().flatten();
            assert_eq!(wait.map(|wait| wait.as_secs()), expect, "{text}");
        };
        check("30s", Some(30));
        check("1m", Some(60));
        check("61s", None);
        check("30", None);
        check("soon", None);
    }
}
