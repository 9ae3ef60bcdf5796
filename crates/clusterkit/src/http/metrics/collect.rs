//! What is read of the node at each scrape.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use clusterkit_core::id::NodeId;
use clusterkit_core::topology::{HealthState, NodeStatus, PartitionHealth, Topology};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::hooks::{hook_metrics, lease_metrics};
use super::observe::Observed;
use crate::handle::ClusterKit;
use crate::net::WallTime;
use crate::status::{NodeShare, Stats};

/// The one kind of operation that this backend of the control plane has.
const OPERATION: &str = "propose";

/// Families of metrics on their way out, one a call.
pub(super) struct Sheet<'a>(DescriptorEncoder<'a>);

impl Sheet<'_> {
    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    pub(super) fn gauge<V: EncodeGaugeValue>(&mut self, name: &str, help: &str, value: V) -> fmt::Result {
        ConstGauge::new(value).encode(self.family(name, help, MetricType::Gauge)?)
    }

    /// A gauge whose name does not say that it is one.
    fn untyped(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstGauge::new(value).encode(self.family(name, help, MetricType::Unknown)?)
    }

    /// A gauge for each value of one label.
    pub(super) fn gauges<L: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        rows: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Gauge)?;
        for (value, count) in rows {
            let labels = [(label, value.as_ref())];
            ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// `name` comes without the `_total` that it is written with.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.family(name, help, MetricType::Counter)?)
    }

    /// A counter for each value of one label.
    pub(super) fn counters<L: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        rows: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Counter)?;
        for (value, count) in rows {
            let labels = [(label, value.as_ref())];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A histogram of which only sum and count are known.
    fn durations(&mut self, name: &str, help: &str, sum_micros: u64, count: u64) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Histogram)?;
        let labels = [("op", OPERATION)];
        let mut encoder = family.encode_family(&labels)?;
        let seconds = std::time::Duration::from_micros(sum_micros).as_secs_f64();
        encoder.encode_histogram::<[(&str, &str); 0]>(seconds, count, &[(f64::INFINITY, count)], None)
    }
}

/// Everything that a node knows of itself and its cluster.
#[derive(Debug)]
pub(super) struct NodeCollector {
    ck: ClusterKit,
    start: WallTime,
}

impl NodeCollector {
    pub(super) fn new(ck: ClusterKit) -> Self {
        let start = ck.shared().settings.clock.wall();
        Self { ck, start }
    }
}

impl Collector for NodeCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (mut sheet, topology, stats) = (Sheet(encoder), self.ck.topology(), self.ck.stats());
        self.process(&mut sheet)?;
        topology_metrics(&mut sheet, &topology)?;
        share_metrics(&mut sheet, &stats)?;
        self.health(&mut sheet)?;
        self.control_plane(&mut sheet)?;
        hook_metrics(&mut sheet, &self.ck)?;
        lease_metrics(&mut sheet, &self.ck)?;
        self.operations(&mut sheet)
    }
}

impl NodeCollector {
    fn process(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let version = self.ck.shared().settings.software.as_str();
        let help = "The release of this node, always 1.";
        sheet.gauges("clusterkit_build_info", help, "version", [(version, 1)])?;
        let help = "When this node's counters began, in seconds since 1970.";
        let start = std::time::Duration::from_millis(self.start.0).as_secs_f64();
        sheet.gauge("process_start_time_seconds", help, start)?;
        let help = "Whether this node takes part in its cluster.";
        sheet.gauge("clusterkit_ready", help, u64::from(self.ck.is_ready()))
    }

    fn health(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let state = self.ck.health().state;
        let states = [HealthState::Healthy, HealthState::Degraded, HealthState::Unavailable];
        let rows = states.map(|other| (other.as_str(), u64::from(other == state)));
        let help = "How the cluster stands, as this node sees it: 1 for the state it is in.";
        sheet.gauges("clusterkit_health", help, "state", rows)
    }

    fn control_plane(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let status = self.ck.control_plane();
        let is_controller = is_controller(&self.ck);
        sheet.gauge("clusterkit_is_controller", "Whether this node is the controller.", is_controller)?;
        let voters = u64::try_from(status.voters.len()).unwrap_or(u64::MAX);
        sheet.gauge("clusterkit_raft_voters", "Nodes that vote in the control plane.", voters)?;
        sheet.gauge("clusterkit_raft_term", "The term of the control plane.", status.term)?;
        let help = "The index up to which control-plane entries are known to be committed.";
        sheet.gauge("clusterkit_raft_index_committed", help, status.index_committed)?;
        let help = "The index up to which control-plane entries are applied.";
        sheet.gauge("clusterkit_raft_index_applied", help, status.index_applied)
    }

    fn operations(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let operations = Operations::of(&self.ck);
        let help = "Operations on the control plane that this node carried out as controller.";
        sheet.counters("clusterkit_control_operations", help, "op", [(OPERATION, operations.count)])?;
        let help = "Those of them that failed or whose outcome is unknown.";
        sheet.counters(
            "clusterkit_control_operation_errors",
            help,
            "op",
            [(OPERATION, operations.failed)],
        )?;
        let help = "How long operations on the control plane took.";
        let name = "clusterkit_control_operation_duration_seconds";
        sheet.durations(name, help, operations.micros, operations.count)?;
        let help = "Requests that this node passed on to another.";
        sheet.counters("clusterkit_forwarded_requests", help, "target_node", operations.forwarded)?;
        let help = "Requests that this node passed on and got no answer to.";
        sheet.counter("clusterkit_forward_errors", help, operations.forward_errors)
    }
}

/// The node's own counters.
struct Operations {
    count: u64,
    failed: u64,
    micros: u64,
    forwarded: Vec<(String, u64)>,
    forward_errors: u64,
}

impl Operations {
    fn of(ck: &ClusterKit) -> Self {
        let counters = &ck.shared().counters;
        let forwarded = counters.forwarded.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            count: counters.proposals.load(Ordering::Relaxed),
            failed: counters.proposals_failed.load(Ordering::Relaxed),
            micros: counters.proposal_micros.load(Ordering::Relaxed),
            forwarded: forwarded.iter().map(|(node, count)| (node.to_string(), *count)).collect(),
            forward_errors: counters.forward_errors.load(Ordering::Relaxed),
        }
    }
}

fn is_controller(ck: &ClusterKit) -> u64 {
    u64::from(ck.shared().controller_node().as_ref() == Some(ck.node_id()))
}

fn topology_metrics(sheet: &mut Sheet<'_>, topology: &Topology) -> fmt::Result {
    let count =
        |status: NodeStatus| topology.nodes.values().filter(|node| node.status() == status).count() as u64;
    let rows = NodeStatus::ALL.map(|status| (status.as_str(), count(status)));
    sheet.gauges("clusterkit_nodes", "Nodes by how they stand.", "status", rows)?;
    sheet.gauge(
        "clusterkit_topology_version",
        "The topology version this node applied.",
        topology.version.0,
    )?;
    let help = "The version of the routes this node applied.";
    sheet.gauge("clusterkit_route_version", help, topology.route_version.0)
}

fn share_metrics(sheet: &mut Sheet<'_>, stats: &Stats) -> fmt::Result {
    let all = [
        PartitionHealth::Ok,
        PartitionHealth::UnderReplicated,
        PartitionHealth::BelowMinInSync,
        PartitionHealth::Leaderless,
    ];
    let count = |health| stats.partitions_by_health.get(&health).copied().unwrap_or_default();
    let rows = all.map(|health| (health.as_str(), u64::from(count(health))));
    sheet.gauges("clusterkit_partitions", "Partitions by how they stand.", "health", rows)?;
    let help = "Partitions that each node leads.";
    sheet.gauges("clusterkit_partition_leaders", help, "node_id", shares(stats, |share| share.leaders))?;
    let help = "Partitions that each node holds, those it leads included.";
    sheet.gauges("clusterkit_partition_replicas", help, "node_id", shares(stats, |share| share.replicas))?;
    sheet.gauge("clusterkit_moves_running", "Replica moves under way.", stats.moves)
}

fn shares(stats: &Stats, part: impl Fn(&NodeShare) -> u32) -> Vec<(&str, u64)> {
    let row = |(node, share)| (NodeId::as_str(node), u64::from(part(share)));
    stats.nodes.iter().map(row).collect()
}

/// The names of other products, kept for the dashboards that know them.
#[derive(Debug)]
pub(super) struct SeedCollector {
    ck: ClusterKit,
    observed: Observed,
}

impl SeedCollector {
    pub(super) fn new(ck: ClusterKit, observed: Observed) -> Self {
        Self { ck, observed }
    }
}

impl Collector for SeedCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (mut sheet, operations) = (Sheet(encoder), Operations::of(&self.ck));
        self.rebalancing(&mut sheet)?;
        etcd_names(&mut sheet, &operations)?;
        self.rivetq_names(&mut sheet, operations)
    }
}

impl SeedCollector {
    fn rebalancing(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let stats = self.ck.stats();
        sheet.untyped("clusterkit_nodes_total", "Alias: nodes that are alive.", self.alive())?;
        let help = "Alias of clusterkit_partition_replicas.";
        sheet.gauges(
            "clusterkit_partitions_assigned",
            help,
            "node_id",
            shares(&stats, |share| share.replicas),
        )?;
        let help = "Alias of clusterkit_partition_leaders.";
        sheet.gauges(
            "clusterkit_partitions_leader",
            help,
            "node_id",
            shares(&stats, |share| share.leaders),
        )?;
        let observed = &self.observed;
        let help = "Times in which replicas moved, from the first move to the last.";
        sheet.counter("clusterkit_rebalance", help, observed.rebalances.get())?;
        let name = "clusterkit_rebalance_duration_seconds";
        let family = sheet.family(name, "How long those times were.", MetricType::Histogram)?;
        observed.rebalance_durations.encode(family)?;
        let help = "Replicas that arrived at another node.";
        sheet.counter("clusterkit_partition_migrations", help, observed.migrations.get())
    }

    fn rivetq_names(&self, sheet: &mut Sheet<'_>, operations: Operations) -> fmt::Result {
        let status = self.ck.control_plane();
        sheet.gauge("rivetq_cluster_nodes", "Alias: nodes that are alive.", self.alive())?;
        let help = "Alias of clusterkit_is_controller.";
        sheet.gauge("rivetq_cluster_is_leader", help, is_controller(&self.ck))?;
        let help = "Alias of clusterkit_raft_index_committed.";
        sheet.gauge("rivetq_raft_committed_index", help, status.index_committed)?;
        let help = "Alias of clusterkit_raft_index_applied.";
        sheet.gauge("rivetq_raft_applied_index", help, status.index_applied)?;
        let help = "Alias of clusterkit_forwarded_requests_total.";
        sheet.counters("rivetq_proxy_forwarded", help, "target_node", operations.forwarded)?;
        let help = "Alias of clusterkit_forward_errors_total.";
        sheet.counter("rivetq_proxy_forward_errors", help, operations.forward_errors)
    }

    fn alive(&self) -> u64 {
        self.ck.nodes().len() as u64
    }
}

fn etcd_names(sheet: &mut Sheet<'_>, operations: &Operations) -> fmt::Result {
    let help = "Alias of clusterkit_control_operations_total, whatever backend the control plane has.";
    sheet.counters("clusterkit_etcd_operations", help, "op", [(OPERATION, operations.count)])?;
    let help = "Alias of clusterkit_control_operation_duration_seconds.";
    let name = "clusterkit_etcd_operation_duration_seconds";
    sheet.durations(name, help, operations.micros, operations.count)
}

/// Each partition by itself.
#[derive(Debug)]
pub(super) struct PartitionCollector(Arc<Topology>);

impl PartitionCollector {
    pub(super) fn new(topology: Arc<Topology>) -> Self {
        Self(topology)
    }

    fn rows(&self, value: impl Fn(&clusterkit_core::topology::Partition) -> u64) -> Vec<(String, u64)> {
        self.0.partitions.iter().map(|record| (record.id.0.to_string(), value(record))).collect()
    }
}

impl Collector for PartitionCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut sheet = Sheet(encoder);
        let rows = self.rows(|record| record.epoch.0);
        sheet.gauges("clusterkit_partition_epoch", "The epoch of each partition.", "partition", rows)?;
        let rows = self.rows(|record| record.in_sync.len() as u64);
        let help = "Copies of each partition that are in sync.";
        sheet.gauges("clusterkit_partition_in_sync_replicas", help, "partition", rows)?;
        let rows = self.rows(|record| u64::from(record.leader.is_some()));
        sheet.gauges("clusterkit_partition_led", "Whether each partition has a leader.", "partition", rows)
    }
}
