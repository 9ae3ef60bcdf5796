//! Replacing a controller whose process is known to be dead, without waiting for its silence.
//!
//! A broken connection is a hint; one refused probe confirms it, exactly as the controller does for
//! others. The first voter in the order of stores stands at once, each next one a little later, so
//! that they do not split the vote.

use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::id::StoreId;
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
    let before = raft.leadership();
    let Some(Some(target)) = shared.controller() else { return };
    if target.node.as_ref().is_none_or(|node| node.as_str() != lost) {
        return;
    }
    let timeout = shared.settings.controller.detector.probe_timeout;
    if shared.transport().probe(&target.addr, timeout).await != ProbeOutcome::Refused {
        return;
    }
    let Some(place) = place_in_line(shared.store, before.leader, &shared.topology(), raft) else { return };
    tokio::time::sleep(STAGGER * place).await;
    if raft.leadership() == before {
        tracing::info!(target: "clusterkit::raft", dead = lost, "the controller's process is gone; standing for election");
        raft.campaign(before.term).await;
    }
}

/// How many living voters come before this one.
fn place_in_line(me: StoreId, dead: Option<StoreId>, topology: &Topology, raft: &RaftGroup) -> Option<u32> {
    let live = |store: &StoreId| topology.nodes.values().any(|node| node.store == *store && node.is_live());
    let view = raft.view();
    let line = view.voters.iter().filter(|store| Some(**store) != dead && live(store));
    let place = line.into_iter().position(|store| *store == me)?;
    u32::try_from(place).ok()
}
