//! Why a partition stands as it does, in sentences.

use clusterkit_core::id::NodeId;
use clusterkit_core::topology::{Partition, PartitionHealth, Topology};

/// What blocks the partition or is under way on it, most serious first. Empty when it is as it should
/// be.
pub(super) fn explain(topology: &Topology, record: &Partition) -> Vec<String> {
    let mut sentences = Vec::new();
    match topology.partition_health(record) {
        PartitionHealth::Leaderless => sentences.extend(why_leaderless(topology, record)),
        PartitionHealth::BelowMinInSync => sentences.push(why_unwritable(topology, record)),
        PartitionHealth::UnderReplicated => sentences.push(why_few_copies(topology, record)),
        PartitionHealth::Ok => {}
    }
    sentences.extend(out_of_sync(topology, record));
    sentences.extend(under_way(topology, record));
    if let Some(epoch) = record.unclean {
        sentences.push(format!(
            "the leader of epoch {epoch} was elected although acknowledged writes may be missing"
        ));
    }
    sentences
}

fn why_leaderless(topology: &Topology, record: &Partition) -> Vec<String> {
    if record.replicas.is_empty() {
        return vec!["no node holds it: it waits for a node that takes data".to_owned()];
    }
    let reason = |node: &NodeId| {
        let standing = standing(topology, node);
        match record.tainted.contains(node) {
            true => format!("{node} cannot lead: it may have lost acknowledged writes ({standing})"),
            false if topology.is_live(node) => {
                format!("{node} is in sync and alive: its election is under way")
            }
            false => format!("{node} is in sync and cannot lead while it is {standing}"),
        }
    };
    record.in_sync.iter().map(reason).collect()
}

fn why_unwritable(topology: &Topology, record: &Partition) -> String {
    let missing = record.in_sync.iter().filter(|node| !topology.is_live(node));
    let missing: Vec<_> = missing.map(|node| format!("{node} ({})", standing(topology, node))).collect();
    let live = record.in_sync.len() - missing.len();
    let (needed, missing) = (record.min_in_sync, missing.join(", "));
    format!("writes need {needed} copies in sync and alive, and there are {live}: waiting for {missing}")
}

fn why_few_copies(topology: &Topology, record: &Partition) -> String {
    let wanted = topology.cluster.as_ref().map_or(0, |cluster| cluster.config.replication_factor);
    let live = record.in_sync.iter().filter(|node| topology.is_live(node)).count();
    let nodes = topology.replication_factor_effective();
    match nodes < wanted {
        true => {
            format!("{live} of {wanted} copies are in sync and alive; only {nodes} nodes take data, add more")
        }
        false => format!("{live} of {wanted} copies are in sync and alive"),
    }
}

fn out_of_sync(topology: &Topology, record: &Partition) -> Vec<String> {
    let behind = record.replicas.iter().filter(|replica| !record.in_sync.contains(&replica.node));
    let sentence = |node: &NodeId| match topology.is_live(node) {
        true => format!("{node} is catching up"),
        false => format!("{node} is not in sync and {}", standing(topology, node)),
    };
    behind.map(|replica| sentence(&replica.node)).collect()
}

fn under_way(topology: &Topology, record: &Partition) -> Vec<String> {
    let mut sentences = Vec::new();
    if let Some(movement) = &record.movement {
        let target = &movement.target;
        let waits = match record.in_sync.contains(target) {
            true => "which is in sync".to_owned(),
            false if topology.is_live(target) => "which is catching up".to_owned(),
            false => format!("which is {}", standing(topology, target)),
        };
        sentences.push(match &movement.source {
            Some(source) => format!("its copy moves from {source} to {target}, {waits}"),
            None => format!("a copy is added on {target}, {waits}"),
        });
    }
    if let (Some(leader), Some(target)) = (&record.leader, &record.transfer) {
        sentences.push(format!("{leader} is handing the lead over to {target}"));
    }
    sentences
}

fn standing(topology: &Topology, node: &NodeId) -> &'static str {
    topology.node(node).map_or("unknown", |node| node.status().as_str())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use clusterkit_core::id::{
        BootId, ClusterId, Epoch, Incarnation, PartitionId, PartitionVersion, ReplicaUid, StoreId,
    };
    use clusterkit_core::topology::{Cluster, ClusterConfig, Liveness, Move, Node, RaftRole, Replica, Stage};

    use super::*;

    fn id(name: &str) -> NodeId {
        NodeId::new(name).expect("a node id")
    }

    fn node(name: &str, liveness: Liveness) -> (NodeId, Arc<Node>) {
        let node = Node {
            id: id(name),
            store: StoreId(1),
            boot: BootId(1),
            incarnation: Incarnation(1),
            node_addr: String::new(),
            public_addr: String::new(),
            zone: None,
            weight: 1,
            role: RaftRole::Voter,
            holds_data: true,
            reports_position: false,
            liveness,
            stage: Stage::Member,
            software: String::new(),
            metadata: BTreeMap::new(),
        };
        (id(name), Arc::new(node))
    }

    /// Nodes `a` and `b` are alive, `c` is dead; three copies are wanted.
    fn topology() -> Topology {
        let cluster = Cluster { id: ClusterId(1), name: "test".to_owned(), config: ClusterConfig::default() };
        let nodes = [node("a", Liveness::Alive), node("b", Liveness::Alive), node("c", Liveness::Dead)];
        Topology { cluster: Some(Arc::new(cluster)), nodes: nodes.into(), ..Topology::default() }
    }

    fn record(leader: Option<&str>, in_sync: &[&str]) -> Partition {
        let replica = |(uid, name)| Replica { node: id(name), uid: ReplicaUid(uid), lapses: 0 };
        Partition {
            id: PartitionId(0),
            version: PartitionVersion(1),
            epoch: Epoch(1),
            leader: leader.map(id),
            replicas: (1..).zip(["a", "b", "c"]).map(replica).collect(),
            in_sync: in_sync.iter().map(|name| id(name)).collect(),
            tainted: BTreeSet::new(),
            min_in_sync: 2,
            transfer: None,
            movement: None,
            unclean: None,
            overrun: None,
            history: Vec::new(),
            origin: clusterkit_core::topology::Origin::First,
        }
    }

    fn check(record: &Partition, expect: &[&str]) {
        assert_eq!(explain(&topology(), record), expect);
    }

    #[test]
    fn each_standing_is_explained_by_what_it_waits_for() {
        check(&record(Some("a"), &["a", "b", "c"]), &["2 of 3 copies are in sync and alive"]);
        let below = "writes need 2 copies in sync and alive, and there are 1: waiting for c (dead)";
        check(&record(Some("a"), &["a", "c"]), &[below, "b is catching up"]);
        check(
            &record(None, &["c"]),
            &["c is in sync and cannot lead while it is dead", "a is catching up", "b is catching up"],
        );
        let few = "2 of 3 copies are in sync and alive";
        check(&record(Some("a"), &["a", "b"]), &[few, "c is not in sync and dead"]);
    }

    #[test]
    fn moves_transfers_and_losses_are_named() {
        let mut moving = record(Some("a"), &["a", "b", "c"]);
        moving.movement = Some(Move { source: Some(id("b")), target: id("c") });
        moving.transfer = Some(id("b"));
        moving.unclean = Some(Epoch(3));
        check(
            &moving,
            &[
                "2 of 3 copies are in sync and alive",
                "its copy moves from b to c, which is in sync",
                "a is handing the lead over to b",
                "the leader of epoch 3 was elected although acknowledged writes may be missing",
            ],
        );
    }

    #[test]
    fn a_tainted_copy_is_told_from_a_dead_one() {
        let mut lost = record(None, &["a", "c"]);
        lost.tainted = [id("a")].into();
        let expect = [
            "a cannot lead: it may have lost acknowledged writes (alive)",
            "c is in sync and cannot lead while it is dead",
            "b is catching up",
        ];
        check(&lost, &expect);
    }
}
