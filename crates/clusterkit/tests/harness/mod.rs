//! What tests of whole nodes ask of a topology.
#![allow(dead_code, reason = "each test binary asks for a part of it")]

use std::collections::BTreeSet;
use std::time::Duration;

use clusterkit::testing::Cluster;
use clusterkit::{NodeId, NodeStatus, Topology};

/// The name of a node.
pub(crate) fn id(number: u32) -> NodeId {
    NodeId::new(&format!("node-{number}")).expect("a valid id")
}

/// Nothing is amiss.
pub(crate) fn healthy(topology: &Topology) -> bool {
    topology.health(true).is_healthy()
}

/// Nothing is amiss, and so many nodes are registered.
pub(crate) fn healthy_with(nodes: usize) -> impl Fn(&Topology) -> bool {
    move |topology| healthy(topology) && topology.nodes.len() == nodes
}

/// A node stands so.
pub(crate) fn status(number: u32, wanted: NodeStatus) -> impl Fn(&Topology) -> bool {
    move |topology| topology.node(&id(number)).is_some_and(|node| node.status() == wanted)
}

/// Every partition is led, and not by that node.
pub(crate) fn led_without(number: u32) -> impl Fn(&Topology) -> bool {
    move |topology| {
        let led_by_another = |leader: &NodeId| *leader != id(number);
        !topology.partitions.is_empty()
            && topology.partitions.iter().all(|record| record.leader.as_ref().is_some_and(led_by_another))
    }
}

/// How many partitions a node holds.
pub(crate) fn replicas(topology: &Topology, number: u32) -> usize {
    topology.partitions.iter().filter(|record| record.holds(&id(number))).count()
}

/// How many partitions a node leads.
pub(crate) fn leaders(topology: &Topology, number: u32) -> usize {
    topology.partitions.iter().filter(|record| record.leader == Some(id(number))).count()
}

/// Waits until all nodes that run show the same topology.
pub(crate) async fn agree(cluster: &Cluster) {
    let views = || -> BTreeSet<String> {
        let running = cluster.running().into_iter();
        running.map(|number| format!("{:?}", cluster.node(number).topology())).collect()
    };
    let mut waited = Duration::ZERO;
    while views().len() > 1 {
        assert!(waited < Duration::from_secs(60), "the nodes disagree");
        tokio::time::sleep(Duration::from_millis(100)).await; // tidy: the clock is paused
        waited += Duration::from_millis(100);
    }
}
