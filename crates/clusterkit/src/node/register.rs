//! Registering: a node of a cluster says that it runs, and learns its incarnation. Before that it
//! acknowledges and serves nothing (protocol rule R1).

use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::forming::Greeting;
use clusterkit_core::id::{ClusterId, Incarnation};
use clusterkit_wire::hello::{Class, Refusal};
use tokio::time::timeout;

use super::cluster::{ask_to_join, greet, join_request};
use super::message::{self, Join, JoinAnswer, kind};
use super::shared::Shared;
use crate::coordinator::raft::{Leadership, RaftGroup};
use crate::error::StartError;
use crate::transport::{CallError, Target};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one of the others is waited for: a machine that is silent must not hold up the start. An
/// answer that comes later is not missed, since the next round finds this run registered.
const OTHER_TIMEOUT: Duration = Duration::from_secs(1);
/// Seeds of another cluster make a start fail after so many rounds without a better answer: a
/// member that is merely late answers before.
const OTHER_CLUSTER_ROUNDS: u32 = 30;
/// Addresses asked in one round.
const ADDRS_MAX: usize = 16;

/// Registers this run of the node; asks until it is told its incarnation, or that it is not wanted.
pub(super) async fn register(shared: &Arc<Shared>, cluster: ClusterId) -> Result<Incarnation, StartError> {
    let join = join_request(shared);
    let mut strangers = 0;
    loop {
        let before = shared.raft.get().map(RaftGroup::leadership).unwrap_or_default();
        // Nobody waits for a machine that is silent once the controller is another one.
        let answer = tokio::select! {
            answer = ask(shared, &join, cluster, &mut strangers) => answer?,
            () = other_controller(shared, before) => JoinAnswer::TryAgain,
        };
        match answer {
            JoinAnswer::Joined { incarnation, .. } => return Ok(incarnation),
            JoinAnswer::Refused(refusal) => return Err(StartError::Refused(refusal)),
            JoinAnswer::TryAgain => {}
        }
    }
}

/// Asks the controller when it is known, else whoever may know it.
async fn ask(
    shared: &Arc<Shared>,
    join: &Join,
    cluster: ClusterId,
    strangers: &mut u32,
) -> Result<JoinAnswer, StartError> {
    match shared.join(join.clone()).await {
        JoinAnswer::TryAgain => {}
        answer => return Ok(answer),
    }
    // The controller that this node knows of, if any, may have moved or fallen: others know better.
    for addr in known_addrs(shared) {
        match timeout(OTHER_TIMEOUT, ask_to_join(shared, &addr, join)).await {
            Ok(Some(JoinAnswer::TryAgain) | None) | Err(_) => {}
            Ok(Some(answer)) => return Ok(answer),
        }
    }
    match greet_seeds(shared, cluster).await {
        Err(error) if *strangers >= OTHER_CLUSTER_ROUNDS => return Err(error),
        Err(_) => *strangers += 1,
        Ok(()) => *strangers = 0,
    }
    tokio::time::sleep(PAUSE).await;
    Ok(JoinAnswer::TryAgain)
}

/// Waits until this node learns of another controller than it knew.
async fn other_controller(shared: &Shared, mut known: Leadership) {
    let Some(raft) = shared.raft.get() else { return std::future::pending().await };
    while raft.leadership_changed(known).await {
        known = raft.leadership();
        if known.leader.is_some() {
            return;
        }
    }
    // The group has stopped: its failure ends the node.
    std::future::pending::<()>().await;
}

/// Where members may be: whoever founded the cluster, is in the last known topology, or was heard.
fn known_addrs(shared: &Shared) -> Vec<String> {
    shared.book.addrs_but(shared.store).into_iter().take(ADDRS_MAX).collect()
}

/// Greets the seeds, so that nodes whose addresses changed while they were down find each other
/// again, and says when a seed turns out to be of another cluster.
async fn greet_seeds(shared: &Arc<Shared>, ours: ClusterId) -> Result<(), StartError> {
    let Some(greeting) = shared.greeting.borrow().clone() else { return Ok(()) };
    let (mut strangers, mut met) = (None, false);
    for addr in shared.settings.seeds.iter().take(ADDRS_MAX) {
        let target = Target { addr: addr.clone(), node: None };
        let call = shared.transport().call(
            &target,
            Class::Control,
            kind::GREETING,
            message::encode(&greeting),
            PAUSE * 5,
        );
        match call.await {
            Ok(body) => {
                let answer: Option<Greeting> = message::decode(&body).ok();
                if let Some(answer) = answer.filter(|answer| answer.candidate.store != shared.store) {
                    note(shared, &answer, ours);
                    met = true;
                }
            }
            Err(CallError::Refused { reason: Refusal::OtherCluster { cluster, name } }) => {
                strangers =
                    Some(StartError::OtherCluster { ours, theirs: cluster, name, addr: addr.clone() });
            }
            Err(CallError::NotClusterKit { .. }) => {
                if let Ok(answer) = greet(shared, addr, &greeting).await {
                    note(shared, &answer, ours);
                    met = true;
                }
            }
            Err(_) => {}
        }
    }
    strangers.filter(|_| !met).map_or(Ok(()), Err)
}

/// Notes where the node listens that answered, when it is of this cluster.
fn note(shared: &Shared, answer: &Greeting, ours: ClusterId) {
    if answer.formed == Some(ours) {
        shared.book.note(answer.candidate.store, &answer.candidate.node_addr);
    }
}
