//! Replacing a controller whose process is known to be dead, without waiting for its silence.
//!
//! A broken connection is a hint; one refused probe confirms it, exactly as the controller does for
//! others. But nobody stands against a leader that may be heard: whoever stands here asks the others
//! to forget that they heard it, and to one voter alone a reset connection and a full accept queue
//! look like its death. A process that died has no connection left; one that lives holds that on
//! which it replicates. The first voter in the order of stores stands at once, each next one a little
//! later, so that they do not split the vote.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use clusterkit_core::id::StoreId;
use clusterkit_core::time::Instant;
use clusterkit_core::topology::Topology;

use super::shared::Shared;
use crate::coordinator::raft::RaftGroup;
use crate::transport::ProbeOutcome;

/// How much later each next voter stands.
const STAGGER: Duration = Duration::from_millis(50);

/// Runs until the node stops.
pub(super) async fn run(shared: Arc<Shared>, raft: RaftGroup) {
    let mut losses = shared.transport().connection_losses();
    loop {
        tokio::select! {
            loss = losses.recv() => match loss {
                Ok(loss) => stand_if_dead(&shared, &raft, loss.node.as_str()).await,
                // What was missed shows at the next loss, or by silence.
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            },
            () = shared.asked_to_stop.cancelled() => return,
            () = shared.stop.cancelled() => return,
        }
    }
}

async fn stand_if_dead(shared: &Shared, raft: &RaftGroup, lost: &str) {
    let lost_at = shared.now();
    let before = raft.leadership();
    let Some(Some(target)) = shared.controller() else { return };
    if target.node.as_ref().is_none_or(|node| node.as_str() != lost) {
        return;
    }
    let timeout = shared.settings.controller.detector.probe_timeout;
    if shared.transport().probe(&target.addr, timeout).await != ProbeOutcome::Refused {
        return;
    }
    let dead = || !may_be_heard(shared, before.leader, lost_at);
    if !dead() {
        return;
    }
    let Some(place) = place_in_line(shared.store, before.leader, &shared.topology(), raft) else { return };
    tokio::time::sleep(STAGGER * place).await;
    if raft.leadership() == before && dead() {
        tracing::info!(target: "clusterkit::raft", dead = lost, "the controller's process is gone; standing for election");
        raft.campaign(before.term).await;
    }
}

/// Whether the leader spoke after `lost_at`, or has a connection on which it can. When that one ends
/// too, its end is a loss of its own.
fn may_be_heard(shared: &Shared, leader: Option<StoreId>, lost_at: Instant) -> bool {
    let contact = *shared.leader_contact.lock().unwrap_or_else(PoisonError::into_inner);
    let spoke = contact.is_some_and(|(store, at)| Some(store) == leader && at > lost_at);
    spoke || leader.is_some_and(|store| shared.transport().hears(store))
}

/// How many living voters come before this one.
fn place_in_line(me: StoreId, dead: Option<StoreId>, topology: &Topology, raft: &RaftGroup) -> Option<u32> {
    let live = |store: &StoreId| topology.nodes.values().any(|node| node.store == *store && node.is_live());
    let view = raft.view();
    let line = view.voters.iter().filter(|store| Some(**store) != dead && live(store));
    let place = line.into_iter().position(|store| *store == me)?;
    u32::try_from(place).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    #[tokio::test(start_paused = true)]
    async fn nobody_stands_against_a_leader_that_is_heard() {
        let cluster = Cluster::start(3).await;
        cluster.until(1, "healthy", |topology| topology.health(true).is_healthy()).await;
        let nodes = (1..=3).map(|number| cluster.node(number).shared());
        let (leader, voters): (Vec<_>, Vec<_>) = nodes.partition(|shared| shared.is_in_charge());
        let name = leader[0].node.as_str();
        for shared in voters {
            let raft = shared.raft.get().unwrap();
            let before = raft.leadership();
            // One connection broke, and the accept queue is full: it is as if nobody listened there.
            shared.book.note(leader[0].store, "nobody:7000");
            stand_if_dead(shared, raft, name).await;
            tokio::time::sleep(Duration::from_secs(1)).await; // tidy: the clock is paused
            assert_eq!(raft.leadership(), before);
            assert!(leader[0].is_in_charge());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_spoke_after_the_loss_may_be_heard() {
        let cluster = Cluster::start(1).await;
        let (shared, leader) = (cluster.node(1).shared(), StoreId(7));
        let lost_at = shared.now();
        shared.note_leader_contact(leader);
        assert!(!may_be_heard(shared, Some(leader), lost_at), "that was before the loss");
        tokio::time::sleep(Duration::from_millis(1)).await; // tidy: the clock is paused
        shared.note_leader_contact(leader);
        assert!(may_be_heard(shared, Some(leader), lost_at));
        assert!(!may_be_heard(shared, Some(StoreId(8)), lost_at), "that was another one");
    }
}
