//! Who may take part: the controller's answer to a node that wants in, or is back.

use std::sync::Arc;

use clusterkit_core::control::{Applied, Command, Registration, Rejected};
use clusterkit_core::member::ProbeOutcome;
use clusterkit_core::topology::{Cluster, Liveness, Stage, Topology};

use super::controller::{probe, timed_propose};
use super::message::{Join, JoinAnswer, JoinRefusal};
use super::shared::Shared;
use crate::coordinator::raft::RaftGroup;

/// Lets a node in, or says why not.
pub(super) async fn admit(shared: &Shared, raft: &RaftGroup, join: Join) -> JoinAnswer {
    let topology = Arc::new(raft.view().state.topology.clone());
    let Some(cluster) = topology.cluster.clone() else { return JoinAnswer::TryAgain };
    // Before anything is written: a registration beyond the limits must not reach the log.
    if let Err(reason) = join.registration.check() {
        return JoinAnswer::Refused(JoinRefusal::Rejected(Rejected::Invalid { reason }));
    }
    if let Some(refusal) = mismatch(&cluster, &join) {
        return JoinAnswer::Refused(refusal);
    }
    let replace = match earlier_store(shared, &topology, &join.registration).await {
        Ok(replace) => replace,
        Err(refusal) => return JoinAnswer::Refused(refusal),
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

fn mismatch(cluster: &Cluster, join: &Join) -> Option<JoinRefusal> {
    if cluster.name != join.cluster_name {
        let (found, wanted) = (cluster.name.clone(), join.cluster_name.clone());
        return Some(JoinRefusal::OtherName { found, wanted });
    }
    let found = cluster.config.partition_count;
    let wanted = join.partition_count.filter(|wanted| *wanted != found)?;
    Some(JoinRefusal::OtherPartitionCount { found, wanted })
}

/// Another store under the same name: the same machine with a new disk, or a second one that was
/// given the same name. Whoever answers at the old address decides it.
async fn earlier_store(
    shared: &Shared,
    topology: &Topology,
    registration: &Registration,
) -> Result<bool, JoinRefusal> {
    let Some(known) = topology.node(&registration.node) else { return Ok(false) };
    let gone = known.liveness == Liveness::Dead || known.stage == Stage::Left;
    if known.store == registration.store || gone {
        return Ok(false);
    }
    let in_use = || {
        let (node, node_addr) = (known.id.clone(), known.node_addr.clone());
        Err(JoinRefusal::Rejected(Rejected::NodeIdInUse { node, node_addr }))
    };
    if known.store == shared.store {
        return in_use();
    }
    match probe(shared, known.store, &known.node_addr).await {
        ProbeOutcome::Refused => Ok(true),
        _ => in_use(),
    }
}
