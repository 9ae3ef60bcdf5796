//! The schema: every setting, as one source may give it.

use std::path::PathBuf;

use clap::Args;
use clusterkit::{KeyHash, Strategy};
use serde::Deserialize;

use super::value::{self, LogFormat, Pair, Role, Span};

/// What one source says. A file has these names as keys, the environment has them in capitals after
/// `CK_`, the command line with dashes; what a source does not give, the next lower one may.
///
/// The comments are the help that `clusterkit serve --help` shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Layer {
    /// This node's id, unique in the cluster and kept for good. Required
    #[arg(long, value_name = "ID")]
    pub(crate) node_id: Option<String>,
    /// The public port: HTTP, gRPC and metrics [default: 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) http_addr: Option<String>,
    /// A second public port, with the same services, for clients that expect gRPC apart
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) grpc_addr: Option<String>,
    /// Where other nodes reach this one's node port [default: 127.0.0.1:7000]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// The node address that others are told [default: --listen]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// The public address that clients are told [default: --http-addr]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise_http: Option<String>,
    /// What must survive the process; belongs to one node of one cluster [default: ./clusterkit-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Nodes of another name never join [default: clusterkit-cluster]
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster_name: Option<String>,
    /// Other nodes, by node or public address; any that lives is enough
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    #[serde(default)]
    pub(crate) seeds: Vec<String>,
    /// How many nodes form the cluster together; all are told the same number
    #[arg(long, value_name = "N")]
    pub(crate) expect: Option<u32>,
    /// Form a cluster of one, as --expect 1 does
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) bootstrap: Option<bool>,
    /// Partitions, fixed when the cluster forms [default: 64]
    #[arg(long, value_name = "N")]
    pub(crate) partitions: Option<u32>,
    /// Copies of each partition, leader included [default: 3]
    #[arg(long, value_name = "N")]
    pub(crate) replication_factor: Option<u32>,
    /// crc16-slots, fnv1a32, md5-be32, sha256-be32 or xxh3-64, fixed when the cluster forms [default: crc16-slots]
    #[arg(long, value_name = "NAME")]
    pub(crate) key_hash: Option<KeyHash>,
    /// How the first table is laid out: balanced, ring, rendezvous or round-robin [default: balanced]
    #[arg(long, value_name = "NAME")]
    pub(crate) strategy: Option<Strategy>,
    /// The failure domain; copies of a partition lie in different ones where that is feasible
    #[arg(long, value_name = "NAME")]
    pub(crate) zone: Option<String>,
    /// The share of partitions relative to other nodes, 1 to 1000 [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) weight: Option<u32>,
    /// Whether the node may vote in the control plane [default: voter]
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Option<Role>,
    /// Place no partition on this node
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) no_data: Option<bool>,
    /// Shown with the node; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = value::pair)]
    #[serde(default, deserialize_with = "value::pairs_of_map")]
    pub(crate) metadata: Vec<Pair>,
    /// How often nodes say that they live [default: 200ms]
    #[arg(long, value_name = "TIME")]
    pub(crate) heartbeat: Option<Span>,
    /// Silence until a node loses what it leads [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub(crate) dead_after: Option<Span>,
    /// How long a node is dead before its copies are rebuilt elsewhere [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub(crate) gone_after: Option<Span>,
    /// How long membership is quiet before copies move for balance [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub(crate) rebalance_delay: Option<Span>,
    /// How long the node looks for its cluster before it gives up [default: 2m]
    #[arg(long, value_name = "TIME")]
    pub(crate) join_timeout: Option<Span>,
    /// How long an orderly stop may take [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub(crate) grace: Option<Span>,
    /// error, warn, info, debug, trace, or such by module, as in info,openraft=debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// [default: text on a terminal, else json]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// Listen beyond this machine although nothing is encrypted or authenticated yet
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) insecure: Option<bool>,

    #[arg(skip)]
    pub(super) cluster: Option<ClusterBlock>,
    #[arg(skip)]
    pub(super) server: Option<ServerBlock>,
    #[arg(skip)]
    pub(super) storage: Option<StorageBlock>,
}

/// `cluster:` of the nested form of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterBlock {
    pub(super) enabled: Option<bool>,
    node_id: Option<String>,
    raft_addr: Option<String>,
    bootstrap: Option<bool>,
    #[serde(default)]
    seed_nodes: Vec<String>,
    replication: Option<u32>,
}

/// `server:` of the nested form of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerBlock {
    http_addr: Option<String>,
    grpc_addr: Option<String>,
}

/// `storage:` of the nested form of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StorageBlock {
    data_dir: Option<PathBuf>,
}

impl Layer {
    /// This layer where it says something, `lower` where it does not. Metadata adds up, key by key.
    pub(crate) fn over(self, lower: Self) -> Self {
        // A cluster of one is an expectation too: whoever states either states both.
        let (expect, bootstrap) = match (self.expect, self.bootstrap) {
            (None, None) => (lower.expect, lower.bootstrap),
            stated => stated,
        };
        Self {
            node_id: self.node_id.or(lower.node_id),
            http_addr: self.http_addr.or(lower.http_addr),
            grpc_addr: self.grpc_addr.or(lower.grpc_addr),
            listen: self.listen.or(lower.listen),
            advertise: self.advertise.or(lower.advertise),
            advertise_http: self.advertise_http.or(lower.advertise_http),
            data_dir: self.data_dir.or(lower.data_dir),
            cluster_name: self.cluster_name.or(lower.cluster_name),
            seeds: if self.seeds.is_empty() { lower.seeds } else { self.seeds },
            expect,
            bootstrap,
            partitions: self.partitions.or(lower.partitions),
            replication_factor: self.replication_factor.or(lower.replication_factor),
            key_hash: self.key_hash.or(lower.key_hash),
            strategy: self.strategy.or(lower.strategy),
            zone: self.zone.or(lower.zone),
            weight: self.weight.or(lower.weight),
            role: self.role.or(lower.role),
            no_data: self.no_data.or(lower.no_data),
            metadata: lower.metadata.into_iter().chain(self.metadata).collect(),
            heartbeat: self.heartbeat.or(lower.heartbeat),
            dead_after: self.dead_after.or(lower.dead_after),
            gone_after: self.gone_after.or(lower.gone_after),
            rebalance_delay: self.rebalance_delay.or(lower.rebalance_delay),
            join_timeout: self.join_timeout.or(lower.join_timeout),
            grace: self.grace.or(lower.grace),
            log_level: self.log_level.or(lower.log_level),
            log_format: self.log_format.or(lower.log_format),
            insecure: self.insecure.or(lower.insecure),
            cluster: None,
            server: None,
            storage: None,
        }
    }

    /// The layer with what its nested blocks say under the names of this schema. A plain key wins
    /// over a nested one.
    pub(super) fn unfolded(mut self) -> Self {
        let cluster = self.cluster.take().unwrap_or_default();
        let server = self.server.take().unwrap_or_default();
        let storage = self.storage.take().unwrap_or_default();
        let nested = Self {
            node_id: cluster.node_id,
            listen: cluster.raft_addr,
            // False is that form's way to leave it to the seeds.
            bootstrap: cluster.bootstrap.filter(|bootstrap| *bootstrap),
            seeds: cluster.seed_nodes,
            replication_factor: cluster.replication,
            http_addr: server.http_addr,
            grpc_addr: server.grpc_addr,
            data_dir: storage.data_dir,
            ..Self::default()
        };
        self.over(nested)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_upper_layer_wins_where_it_speaks() {
        let lower = Layer { node_id: text("low"), zone: text("low"), weight: Some(1), ..Layer::default() };
        let upper =
            Layer { node_id: text("up"), weight: Some(2), role: Some(Role::Learner), ..Layer::default() };
        let expect = Layer {
            node_id: text("up"),
            zone: text("low"),
            weight: Some(2),
            role: Some(Role::Learner),
            ..Layer::default()
        };
        assert_eq!(upper.over(lower), expect);
    }

    #[test]
    fn lists_replace_and_metadata_adds_up() {
        let seeds = |seed: &str| Layer { seeds: vec![seed.to_owned()], ..Layer::default() };
        assert_eq!(seeds("a:1").over(seeds("b:1")).seeds, ["a:1"]);
        assert_eq!(Layer::default().over(seeds("b:1")).seeds, ["b:1"]);
        let pairs = |pair: (&str, &str)| Layer {
            metadata: vec![(pair.0.to_owned(), pair.1.to_owned())],
            ..Layer::default()
        };
        let both = pairs(("rack", "2")).over(pairs(("rack", "1"))).metadata;
        assert_eq!(both.last().map(|(_, value)| value.as_str()), Some("2"), "the later one wins");
    }

    #[test]
    fn an_expectation_replaces_a_bootstrap_below_it() {
        let check = |upper: (Option<u32>, Option<bool>), lower: (Option<u32>, Option<bool>), expect| {
            let layer = |(expect, bootstrap)| Layer { expect, bootstrap, ..Layer::default() };
            let merged = layer(upper).over(layer(lower));
            assert_eq!((merged.expect, merged.bootstrap), expect, "{upper:?} over {lower:?}");
        };
        check((Some(3), None), (None, Some(true)), (Some(3), None));
        check((None, Some(true)), (Some(3), None), (None, Some(true)));
        check((None, Some(false)), (None, Some(true)), (None, Some(false)));
        check((None, None), (None, Some(true)), (None, Some(true)));
        check((None, None), (Some(3), None), (Some(3), None));
    }
}
