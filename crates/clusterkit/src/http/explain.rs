//! Why a partition stands as it does, in sentences.

use clusterkit_core::handoff::Stage;
use clusterkit_core::id::NodeId;
use clusterkit_core::topology::{Overrun, Partition, PartitionHealth, StageAwaited, Topology};

use super::stages::{OwnStage, is_like};

/// A partition, as the node that answers knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) topology: &'a Topology,
    pub(super) record: &'a Partition,
    /// The node that answers.
    pub(super) me: &'a NodeId,
    /// The hook of this partition that is under way on it.
    pub(super) own: Option<&'a OwnStage>,
}

/// What blocks the partition or is under way on it, most serious first. Empty when it is as it should
/// be.
pub(super) fn explain(subject: &Subject<'_>) -> Vec<String> {
    let (topology, record) = (subject.topology, subject.record);
    let mut sentences = Vec::new();
    match topology.partition_health(record) {
        PartitionHealth::Leaderless => sentences.extend(why_leaderless(topology, record)),
        PartitionHealth::BelowMinInSync => sentences.push(why_unwritable(topology, record)),
        PartitionHealth::UnderReplicated => sentences.push(why_few_copies(topology, record)),
        PartitionHealth::Ok => {}
    }
    sentences.extend(out_of_sync(topology, record));
    sentences.extend(under_way(topology, record));
    sentences.extend(record.overrun.as_ref().map(late));
    sentences.extend(subject.own.and_then(|own| refusal(subject.me, own)));
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

fn late(overrun: &Overrun) -> String {
    format!("{} on {} is past its deadline", overrun.stage, overrun.node)
}

fn refusal(me: &NodeId, own: &OwnStage) -> Option<String> {
    let reason = own.reason.as_ref()?;
    Some(format!("{} on {me} is not done: {reason}", own.stage))
}

/// What the move of a copy waits for, in a sentence; `None` where nothing moves.
pub(super) fn what_blocks(subject: &Subject<'_>) -> Option<String> {
    let record = subject.record;
    record.movement.as_ref()?;
    let Some(awaited) = record.move_awaits() else {
        return Some("the move waits until the partition has a leader".to_owned());
    };
    let node = &awaited.node;
    if !subject.topology.is_live(node) {
        return Some(format!("the move waits for {node}, which is {}", standing(subject.topology, node)));
    }
    let epoch = record.epoch;
    let what = match awaited.stage {
        Stage::Prepare => format!("{node} has made room for its copy"),
        Stage::Seal if record.transfer.is_none() => format!("the controller has {node} hand the lead over"),
        Stage::Seal => format!("{node} has sealed epoch {epoch}"),
        Stage::Activate => format!("{node} has activated epoch {epoch}"),
        Stage::CatchUp | Stage::Release => format!("{node} has what the other copies have"),
    };
    Some(format!("the move waits until {what}{}", details(subject, &awaited)))
}

/// What more is known of the hook that is waited for.
fn details(subject: &Subject<'_>, awaited: &StageAwaited) -> String {
    let own = subject.own.filter(|own| awaited.node == *subject.me && is_like(own.stage, awaited.stage));
    let named = subject.record.overrun.as_ref();
    let is_late = named.is_some_and(|late| late.node == awaited.node && late.stage == awaited.stage)
        || own.is_some_and(|own| own.overdue_since.is_some());
    let mut details = String::new();
    if is_late {
        details.push_str(", which is past its deadline");
    }
    if let Some(writes) = own.and_then(|own| own.permits).map(|(count, _)| count) {
        details.push_str(&format!("; {writes} writes of that epoch have not ended"));
    }
    if let Some(reason) = own.and_then(|own| own.reason.as_ref()) {
        details.push_str(&format!("; last answer: {reason}"));
    }
    details
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
    use clusterkit_core::time::Instant;
    use clusterkit_core::topology::{self, Cluster, ClusterConfig, Liveness, Move, Node, RaftRole, Replica};

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
            stage: topology::Stage::Member,
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
            yielded_by: None,
            transfer: None,
            movement: None,
            unclean: None,
            overrun: None,
            history: Vec::new(),
            origin: topology::Origin::First,
        }
    }

    fn check(record: &Partition, expect: &[&str]) {
        let (topology, me) = (topology(), id("a"));
        assert_eq!(explain(&Subject { topology: &topology, record, me: &me, own: None }), expect);
    }

    fn check_blocks(record: &Partition, own: Option<&OwnStage>, expect: &str) {
        let (topology, me) = (topology(), id("a"));
        let found = what_blocks(&Subject { topology: &topology, record, me: &me, own });
        assert_eq!(found.as_deref(), Some(expect).filter(|text| !text.is_empty()));
    }

    fn own(stage: Stage) -> OwnStage {
        OwnStage {
            stage,
            since: Instant::ORIGIN,
            overdue_since: None,
            running: true,
            calls: 1,
            reason: None,
            progress: None,
            permits: None,
        }
    }

    #[test]
    fn a_move_is_blocked_by_the_hook_that_it_waits_for() {
        let mut moving = record(Some("a"), &["a", "c"]);
        check_blocks(&moving, None, "");
        moving.movement = Some(Move { source: Some(id("a")), target: id("b") });
        check_blocks(&moving, None, "the move waits until b has what the other copies have");
        moving.overrun = Some(Overrun { node: id("b"), stage: Stage::CatchUp });
        let late = "the move waits until b has what the other copies have, which is past its deadline";
        check_blocks(&moving, None, late);
        moving.in_sync.insert(id("b"));
        check_blocks(&moving, None, "the move waits until the controller has a hand the lead over");
        moving.transfer = Some(id("b"));
        check_blocks(&moving, None, "the move waits until a has sealed epoch 1");
        (moving.transfer, moving.leader) = (None, Some(id("b")));
        check_blocks(&moving, None, "the move waits until b has activated epoch 1");
        moving.leader = Some(id("c"));
        check_blocks(&moving, None, "the move waits for c, which is dead");
        moving.leader = None;
        check_blocks(&moving, None, "the move waits until the partition has a leader");
    }

    #[test]
    fn the_node_that_runs_the_hook_knows_more() {
        let mut moving = record(Some("a"), &["a", "b"]);
        moving.movement = Some(Move { source: Some(id("a")), target: id("b") });
        moving.transfer = Some(id("b"));
        let draining = OwnStage { permits: Some((3, Instant::ORIGIN)), ..own(Stage::Seal) };
        let expect = "the move waits until a has sealed epoch 1; 3 writes of that epoch have not ended";
        check_blocks(&moving, Some(&draining), expect);
        let refused = OwnStage {
            reason: Some("disk full".to_owned()),
            overdue_since: Some(Instant::ORIGIN),
            ..own(Stage::Seal)
        };
        let expect = "the move waits until a has sealed epoch 1, which is past its deadline; \
                      last answer: disk full";
        check_blocks(&moving, Some(&refused), expect);
        check_blocks(&moving, Some(&own(Stage::Release)), "the move waits until a has sealed epoch 1");
    }

    #[test]
    fn a_late_hook_is_named_wherever_it_is_late() {
        let mut late = record(Some("a"), &["a", "b", "c"]);
        late.overrun = Some(Overrun { node: id("b"), stage: Stage::Release });
        let few = "2 of 3 copies are in sync and alive";
        check(&late, &[few, "release on b is past its deadline"]);
        let refused = OwnStage { reason: Some("busy".to_owned()), ..own(Stage::Activate) };
        let (topology, me) = (topology(), id("a"));
        let found = explain(&Subject { topology: &topology, record: &late, me: &me, own: Some(&refused) });
        assert_eq!(found[1..], ["release on b is past its deadline", "activate on a is not done: busy"]);
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
