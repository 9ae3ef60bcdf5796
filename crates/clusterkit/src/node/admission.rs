//! Who may take part: the controller's answer to a node that wants in, or is back.

use std::sync::Arc;

use clusterkit_core::control::{Applied, Command, Registration, Rejected};
use clusterkit_core::topology::{Cluster, Liveness, Node, Stage, Topology};
use clusterkit_wire::hello::Identity;

use super::controller::timed_propose;
use super::message::{Join, JoinAnswer, JoinRefusal};
use super::shared::Shared;
use crate::coordinator::raft::RaftGroup;
use crate::transport::ProbeOutcome;

/// Lets a node in, or says why not.
pub(super) async fn admit(shared: &Shared, raft: &RaftGroup, join: Join) -> JoinAnswer {
    let topology = Arc::new(raft.view().state.topology.clone());
    let Some(cluster) = topology.cluster.clone() else { return JoinAnswer::TryAgain };
    if let Some(refusal) = refusal(&cluster, &join) {
        return JoinAnswer::Refused(refusal);
    }
    let replace = match earlier_run(shared, &topology, &join.registration).await {
        Ok(replace) => replace,
        Err(answer) => return answer,
    };
    let command = Command::RegisterNode { registration: join.registration, replace };
    match timed_propose(shared, raft, &[command]).await.map(|mut outcomes| outcomes.pop()) {
        Ok(Some(Ok(Applied::Registered { incarnation }))) => {
            JoinAnswer::Joined { cluster: cluster.as_ref().clone(), incarnation }
        }
        Ok(Some(Err(Rejected::NotFormed))) => JoinAnswer::TryAgain,
        Ok(Some(Err(rejected))) => JoinAnswer::Refused(JoinRefusal::Rejected(rejected)),
        Ok(_) | Err(_) => JoinAnswer::TryAgain,
    }
}

/// What speaks against `join` whatever the state says. Asked before anything is written: a
/// registration beyond the limits must not reach the log.
pub(super) fn refusal(cluster: &Cluster, join: &Join) -> Option<JoinRefusal> {
    if let Err(reason) = join.registration.check() {
        return Some(JoinRefusal::Rejected(Rejected::Invalid { reason }));
    }
    if cluster.name != join.cluster_name {
        let (found, wanted) = (cluster.name.clone(), join.cluster_name.clone());
        return Some(JoinRefusal::OtherName { found, wanted });
    }
    let found = cluster.config.partition_count;
    let wanted = join.partition_count.filter(|wanted| *wanted != found)?;
    Some(JoinRefusal::OtherPartitionCount { found, wanted })
}

/// What the record under the name of a node that registers says against it: nothing, and then
/// whether its store, when that is another one, is to be replaced; else the answer.
///
/// A record that is not dead belongs to a process that may live: the same machine with a new disk, a
/// restart at another address, a second machine of that name, or a copy of the data directory.
/// Whoever answers at the recorded address decides it.
async fn earlier_run(
    shared: &Shared,
    topology: &Topology,
    registration: &Registration,
) -> Result<bool, JoinAnswer> {
    let Some(known) = topology.node(&registration.node) else { return Ok(false) };
    let gone = known.liveness == Liveness::Dead || known.stage == Stage::Left;
    let same_store = known.store == registration.store;
    if gone || (same_store && known.boot == registration.boot) {
        return Ok(false);
    }
    if known.store == shared.store {
        let is_me = same_store && registration.boot == shared.boot;
        return if is_me { Ok(false) } else { Err(in_use(known)) };
    }
    let timeout = shared.settings.controller.detector.probe_timeout;
    match shared.transport().probe(&known.node_addr, timeout).await {
        ProbeOutcome::Answered(identity) | ProbeOutcome::Declined { identity, .. } => {
            let other = identity.store == known.store && !is_itself(&identity, known, registration);
            if other { Err(in_use(known)) } else { Ok(true) }
        }
        // This says nothing of the process there. Its silence will, or its heartbeats.
        ProbeOutcome::TimedOut | ProbeOutcome::Unreachable(_) if same_store => {
            tracing::warn!(
                target: "clusterkit::controller", node = %known.id, recorded = %known.node_addr,
                claimed = %registration.node_addr,
                "a node is back at another address, and nobody says whether its process lives at the old one; it is let in when the record is dead"
            );
            Err(JoinAnswer::TryAgain)
        }
        ProbeOutcome::TimedOut | ProbeOutcome::Unreachable(_) => Err(in_use(known)),
        ProbeOutcome::Refused | ProbeOutcome::NotClusterKit { .. } | ProbeOutcome::OtherCluster(_) => {
            Ok(true)
        }
    }
}

/// Whether the process that answered is the one that registers: it is reached where it says, and it
/// does not run under the recorded incarnation.
fn is_itself(answered: &Identity, known: &Node, registration: &Registration) -> bool {
    answered.node_addr == registration.node_addr && answered.incarnation != known.incarnation
}

fn in_use(known: &Node) -> JoinAnswer {
    let (node, node_addr) = (known.id.clone(), known.node_addr.clone());
    JoinAnswer::Refused(JoinRefusal::Rejected(Rejected::NodeIdInUse { node, node_addr }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clusterkit_core::control::InvalidReason;
    use clusterkit_core::id::{NodeId, StoreId};

    use super::super::cluster::join_request;
    use super::*;
    use crate::testing::Cluster;

    /// Asked at the controller and at another node, which passes it on.
    #[tokio::test(start_paused = true)]
    async fn a_registration_beyond_the_limits_is_refused_and_not_written() {
        let cluster = Cluster::start(3).await;
        cluster.until(1, "healthy", |topology| topology.health(true).is_healthy()).await;
        let own = join_request(cluster.node(1).shared());
        let node = NodeId::new("node-4").unwrap();
        let small = Registration { node, store: StoreId(4), ..own.registration.clone() };
        let many = (0..65).map(|number| (number.to_string(), String::new())).collect();
        let long = BTreeMap::from([("key".to_owned(), "x".repeat(257))]);
        for (metadata, weight, reason) in [
            (many, 1, InvalidReason::Metadata),
            (long, 1, InvalidReason::Metadata),
            (BTreeMap::new(), 0, InvalidReason::Weight),
        ] {
            let registration = Registration { metadata, weight, ..small.clone() };
            let join = Join { registration, ..own.clone() };
            let expect = JoinAnswer::Refused(JoinRefusal::Rejected(Rejected::Invalid { reason }));
            for number in 1..=3 {
                let shared = cluster.node(number).shared();
                let before = shared.raft.get().unwrap().stats().log_index_last;
                assert_eq!(shared.join(join.clone()).await, expect);
                assert_eq!(shared.raft.get().unwrap().stats().log_index_last, before);
            }
        }
    }
}
