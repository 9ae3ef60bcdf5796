//! Where requests go, as the topology has it.

use std::collections::BTreeMap;

use clusterkit_core::hash::KeyHash;
use clusterkit_core::id::PartitionId;
use serde::Deserialize;

/// One version of the cluster, as far as requests are routed by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    /// The route version, which is the `ETag`.
    pub(crate) version: u64,
    /// The cluster's id.
    pub(crate) cluster: String,
    /// How keys become partitions. None if this client does not know the hash, or gets other partitions by it.
    hash: Option<(KeyHash, u32)>,
    /// Public addresses by the names of nodes.
    nodes: BTreeMap<String, String>,
    partitions: Vec<Route>,
}

/// Who has a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) epoch: u64,
    /// Who takes writes, by name. None while an election runs.
    pub(crate) leader: Option<String>,
    /// Who has a copy, by name.
    pub(crate) holders: Vec<String>,
}

/// What was answered is no topology that can be routed by.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidTopology {
    #[error("it is no topology")]
    Malformed(#[from] serde_json::Error),
    #[error("the cluster has not formed yet")]
    NotFormed,
}

impl Routes {
    /// Reads the answer of `GET /v1/topology`.
    pub(crate) fn read(json: &[u8]) -> Result<Self, InvalidTopology> {
        let topology: TopologyBody = serde_json::from_slice(json)?;
        let (Some(cluster), Some(hash)) = (topology.cluster, topology.hash_config) else {
            return Err(InvalidTopology::NotFormed);
        };
        Ok(Self {
            version: topology.route_version,
            cluster: cluster.id,
            hash: hash.known(),
            nodes: topology.nodes.into_iter().filter_map(NodeBody::address).collect(),
            partitions: topology.partitions.into_iter().map(PartitionBody::route).collect(),
        })
    }

    pub(crate) fn partition_of(&self, key: &[u8]) -> Option<PartitionId> {
        self.hash.map(|(hash, count)| hash.partition_of(key, count))
    }

    pub(crate) fn route(&self, partition: PartitionId) -> Option<&Route> {
        self.partitions.get(partition.0 as usize)
    }

    pub(crate) fn addr(&self, node: &str) -> Option<&str> {
        self.nodes.get(node).map(String::as_str)
    }

    /// The public address of who leads `partition`. None while nobody is known to.
    pub(crate) fn leader(&self, partition: PartitionId) -> Option<&str> {
        self.addr(self.route(partition)?.leader.as_deref()?)
    }

    /// Public addresses of all nodes, in the order of their names.
    pub(crate) fn addrs(&self) -> impl Iterator<Item = &str> {
        self.nodes.values().map(String::as_str)
    }

    /// Whether `self` is to be used instead of `other`: it is of the same cluster, and newer.
    pub(crate) fn supersedes(&self, other: &Self) -> bool {
        other.cluster.is_empty() || self.cluster == other.cluster && self.version > other.version
    }
}

#[derive(Deserialize)]
struct TopologyBody {
    cluster: Option<ClusterBody>,
    route_version: u64,
    hash_config: Option<HashBody>,
    nodes: Vec<NodeBody>,
    partitions: Vec<PartitionBody>,
}

#[derive(Deserialize)]
struct ClusterBody {
    id: String,
}

#[derive(Deserialize)]
struct HashBody {
    algorithm: String,
    partition_count: u32,
    samples: Vec<SampleBody>,
}

#[derive(Deserialize)]
struct SampleBody {
    key: String,
    partition: u32,
}

#[derive(Deserialize)]
struct NodeBody {
    id: String,
    status: String,
    public_addr: String,
}

#[derive(Deserialize)]
struct PartitionBody {
    epoch: u64,
    leader: Option<String>,
    replicas: Vec<ReplicaBody>,
}

#[derive(Deserialize)]
struct ReplicaBody {
    node: String,
}

impl HashBody {
    fn known(&self) -> Option<(KeyHash, u32)> {
        let hash: KeyHash = self.algorithm.parse().ok()?;
        let count = Some(self.partition_count).filter(|count| *count > 0)?;
        let holds =
            |sample: &SampleBody| hash.partition_of(sample.key.as_bytes(), count).0 == sample.partition;
        self.samples.iter().all(holds).then_some((hash, count))
    }
}

impl NodeBody {
    /// None if nothing listens there any more, or it is not known where.
    fn address(self) -> Option<(String, String)> {
        let is_there = self.status != "left" && !self.public_addr.is_empty();
        is_there.then_some((self.id, self.public_addr))
    }
}

impl PartitionBody {
    fn route(self) -> Route {
        let holders = self.replicas.into_iter().map(|replica| replica.node).collect();
        Route { epoch: self.epoch, leader: self.leader, holders }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(hash: &str, sample: u32) -> String {
        format!(
            r#"{{"cluster":{{"id":"c1","name":"x"}},"version":9,"route_version":7,"replication_factor":2,
            "hash_config":{{"algorithm":"{hash}","partition_count":16,"slot_count":16384,"key_tags":true,
            "samples":[{{"key":"123456789","partition":{sample}}}]}},
            "nodes":[{{"id":"n1","status":"alive","public_addr":"h1:1","role":"voter"}},
            {{"id":"n2","status":"left","public_addr":"h2:1"}}],
            "partitions":[{{"id":0,"epoch":3,"leader":null,"replicas":[{{"node":"n1","uid":1,"lapses":0}}]}}]}}"#
        )
    }

    #[test]
    fn keys_are_hashed_only_by_a_hash_that_gives_the_samples() {
        let check = |hash: &str, sample: u32, expect: Option<u32>| {
            let routes = Routes::read(topology(hash, sample).as_bytes()).unwrap();
            assert_eq!(routes.partition_of(b"123456789").map(|partition| partition.0), expect, "{hash}");
        };
        // 0x31C3 is slot 12,739 of 16,384, and 16 partitions have 1,024 slots each.
        check("crc16-slots", 12, Some(12));
        check("crc16-slots", 13, None);
        check("of-tomorrow", 12, None);
    }

    #[test]
    fn a_topology_has_addresses_of_nodes_that_are_there_and_routes_of_partitions() {
        let routes = Routes::read(topology("crc16-slots", 12).as_bytes()).unwrap();
        assert_eq!((routes.version, routes.cluster.as_str()), (7, "c1"));
        assert_eq!((routes.addr("n1"), routes.addr("n2")), (Some("h1:1"), None));
        let route = Route { epoch: 3, leader: None, holders: vec!["n1".to_owned()] };
        assert_eq!(routes.route(PartitionId(0)), Some(&route));
        assert_eq!(routes.route(PartitionId(1)), None);
    }

    #[test]
    fn a_cluster_that_has_not_formed_has_no_routes() {
        let json =
            r#"{"cluster":null,"version":0,"route_version":0,"hash_config":null,"nodes":[],"partitions":[]}"#;
        assert!(matches!(Routes::read(json.as_bytes()), Err(InvalidTopology::NotFormed)));
        assert!(matches!(Routes::read(b"<html>"), Err(InvalidTopology::Malformed(_))));
    }

    #[test]
    fn only_a_newer_topology_of_the_same_cluster_replaces_another() {
        let of =
            |cluster: &str, version| Routes { cluster: cluster.to_owned(), version, ..Routes::default() };
        assert!(of("a", 1).supersedes(&Routes::default()));
        assert!(of("a", 2).supersedes(&of("a", 1)));
        assert!(!of("a", 1).supersedes(&of("a", 1)));
        assert!(!of("b", 9).supersedes(&of("a", 1)));
    }
}
