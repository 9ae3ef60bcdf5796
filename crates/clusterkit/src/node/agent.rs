//! What every member does for the cluster: it says that it lives, and carries out what the topology
//! asks of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::control::CaughtUp;
use clusterkit_core::id::PartitionId;
use clusterkit_core::topology::{Node, Partition, Topology};
use clusterkit_wire::hello::Class;
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use super::controller::ControllerInput;
use super::message::{self, Handoff, Heartbeat, HeartbeatAnswer, Standing, kind};
use super::service;
use super::shared::Shared;
use crate::transport::Target;

/// Reports of one message.
pub(super) const REPORTS_MAX: usize = 512;

/// How long a node that stops waits for others to lead what it led: never, when it is the last one.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// How soon it says so again.
const GOODBYE_REPEAT: Duration = Duration::from_millis(50);

/// Runs until the node stops. Everything it sends is a fact that it sends again while it is true.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut topology = shared.topology.subscribe();
    let mut beat = tokio::time::interval(shared.settings.controller.detector.heartbeat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut beats = 0_usize;
    let mut facts = Facts { caught_up: Told(BTreeMap::new()), handoffs: Told(BTreeMap::new()) };
    loop {
        let is_beat = tokio::select! {
            _ = beat.tick() => true,
            changed = topology.changed() => if changed.is_ok() { false } else { return },
            () = shared.asked_to_stop.cancelled() => return,
            () = shared.stop.cancelled() => return,
        };
        if is_beat {
            say_alive(&shared, beats);
            beats = beats.wrapping_add(1);
        }
        look_at_myself(&shared);
        let current = Arc::clone(&topology.borrow_and_update());
        facts.tell(&shared, &current, is_beat);
    }
}

fn heartbeat(shared: &Shared) -> Heartbeat {
    Heartbeat { node: shared.node.clone(), incarnation: shared.incarnation() }
}

/// The controller itself is watched by nobody but the others' elections.
fn say_alive(shared: &Arc<Shared>, beats: usize) {
    let Some(target) = hearer(shared, beats) else { return };
    let body = message::encode(&heartbeat(shared));
    let timeout = shared.settings.controller.detector.dead_after;
    let shared = Arc::clone(shared);
    shared.clone().tracker.spawn(async move {
        let answer = shared.transport().call(&target, Class::Control, kind::HEARTBEAT, body, timeout).await;
        let answer: Option<HeartbeatAnswer> = answer.ok().and_then(|body| message::decode(&body).ok());
        if let Some(answer) = answer.filter(|answer| answer.in_charge) {
            shared.note_controller_backed();
            shared.note_standing(answer.standing);
        }
    });
}

/// Whom to tell that this node lives: the controller, `None` when that is this node. A node that is
/// cut out of the group is not told who leads it next, so without an answer each other member is
/// asked in turn.
fn hearer(shared: &Shared, beats: usize) -> Option<Target> {
    let known = shared.controller();
    if let Some(target) = known.clone().filter(|_| beats.is_multiple_of(2) || shared.has_controller()) {
        return target;
    }
    let topology = shared.topology();
    let others: Vec<_> = topology.nodes.values().filter(|node| node.id != shared.node).collect();
    let other = others.get(beats / 2 % others.len().max(1));
    let target = |node: &&Arc<Node>| Target { addr: node.node_addr.clone(), node: Some(node.id.clone()) };
    other.map(target).or(known.flatten())
}

/// A node that its own topology says has left need not wait to be told.
fn look_at_myself(shared: &Shared) {
    let standing = shared.raft.get().map(|raft| service::standing(&raft.view(), &heartbeat(shared)));
    if standing == Some(Standing::Left) {
        shared.note_standing(Standing::Left);
    }
}

/// Tells the controller that this node stops, and waits a moment for others to lead what it led.
pub(super) async fn say_goodbye(shared: &Arc<Shared>) {
    let mut topology = shared.topology.subscribe();
    let alone = !shared.topology().nodes.values().any(|node| node.id != shared.node && node.is_live());
    if alone {
        return;
    }
    let leads = |topology: &Arc<Topology>| {
        topology.partitions.iter().any(|record| record.leader.as_ref() == Some(&shared.node))
    };
    let passed_on = async {
        while leads(&topology.borrow_and_update()) {
            let beat = heartbeat(shared);
            let input = ControllerInput::Stopping { node: beat.node.clone(), incarnation: beat.incarnation };
            tell_controller(shared, kind::STOPPING, &beat, input);
            // A new controller may not know yet that it is one: say it again.
            drop(tokio::time::timeout(GOODBYE_REPEAT, topology.changed()).await);
        }
    };
    if tokio::time::timeout(GOODBYE_TIMEOUT, passed_on).await.is_err() {
        tracing::warn!(target: "clusterkit::node", "stopping while this node still leads partitions; the others will find out");
    }
}

/// What was told to the controller. Any of it may be lost, and the controller drops what comes while
/// it is busy, so all that is still true is told again at each beat; in between only what is new,
/// or every change of the topology would repeat what the changes before it left undone.
struct Told<T>(BTreeMap<PartitionId, T>);

impl<T: Clone + PartialEq> Told<T> {
    /// What of the `facts` that are true now is to be told.
    fn due(&mut self, facts: BTreeMap<PartitionId, T>, is_beat: bool) -> Vec<T> {
        let is_due = |(partition, fact): &(&PartitionId, &T)| is_beat || self.0.get(partition) != Some(fact);
        let due = facts.iter().filter(is_due).map(|(_, fact)| fact.clone()).collect();
        self.0 = facts;
        due
    }
}

/// The facts that the topology makes true of this node.
struct Facts {
    caught_up: Told<CaughtUp>,
    handoffs: Told<Handoff>,
}

impl Facts {
    fn tell(&mut self, shared: &Arc<Shared>, topology: &Topology, is_beat: bool) {
        let caught_up = self.caught_up.due(caught_up(shared, topology), is_beat);
        if !caught_up.is_empty() {
            tell_controller(
                shared,
                kind::CAUGHT_UP,
                &caught_up,
                ControllerInput::CaughtUp(caught_up.clone()),
            );
        }
        let handoffs = self.handoffs.due(handoffs(shared, topology), is_beat);
        if !handoffs.is_empty() {
            tell_controller(shared, kind::HANDOFF, &handoffs, ControllerInput::Handoffs(handoffs.clone()));
        }
    }
}

/// Layer 1 keeps no data, so a replica has everything as soon as it is placed under a leader.
fn caught_up(shared: &Shared, topology: &Topology) -> BTreeMap<PartitionId, CaughtUp> {
    let waiting = topology.partitions.iter().filter(|record| waits_for(record, shared));
    let report = |record: &Arc<Partition>| {
        let report = CaughtUp {
            node: shared.node.clone(),
            incarnation: shared.incarnation(),
            partition: record.id,
            uid: record.replica(&shared.node)?.uid,
            epoch: record.epoch,
        };
        Some((record.id, report))
    };
    waiting.filter_map(report).take(REPORTS_MAX).collect()
}

fn waits_for(record: &Partition, shared: &Shared) -> bool {
    record.leader.is_some() && record.holds(&shared.node) && !record.is_electable(&shared.node)
}

/// A leader that is asked to hand over stops and says so.
fn handoffs(shared: &Shared, topology: &Topology) -> BTreeMap<PartitionId, Handoff> {
    let asked = topology
        .partitions
        .iter()
        .filter(|record| record.leader.as_ref() == Some(&shared.node) && record.transfer.is_some());
    let handoff = |record: &Arc<Partition>| {
        let handoff = Handoff {
            partition: record.id,
            version: record.version,
            epoch: record.epoch,
            from: shared.node.clone(),
            log_end: 0,
        };
        (record.id, handoff)
    };
    asked.map(handoff).take(REPORTS_MAX).collect()
}

/// Sends a fact to wherever the controller is. Lost ones are sent again at the next beat.
fn tell_controller<T: Serialize>(shared: &Arc<Shared>, message_kind: u8, body: &T, input: ControllerInput) {
    match shared.controller() {
        None => {}
        Some(None) => drop(shared.controller_inbox.try_send(input)),
        Some(Some(target)) => {
            let sent =
                shared.transport().notify(&target, Class::Control, message_kind, message::encode(body));
            if let Err(error) = sent {
                tracing::debug!(target: "clusterkit::membership", %error, "the controller was not told");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_is_told_when_it_is_new_and_again_at_each_beat() {
        let mut told = Told(BTreeMap::new());
        let mut check = |facts: &[(u32, u32)], is_beat: bool, expect: &[u32]| {
            let facts = facts.iter().map(|(partition, fact)| (PartitionId(*partition), *fact)).collect();
            assert_eq!(told.due(facts, is_beat), expect);
        };
        check(&[(1, 10), (2, 20)], false, &[10, 20]);
        check(&[(1, 10), (2, 20), (3, 30)], false, &[30]);
        check(&[(2, 20), (3, 30)], false, &[]);
        check(&[(2, 21), (3, 30)], false, &[21]);
        check(&[(2, 21), (3, 30)], true, &[21, 30]);
        check(&[], true, &[]);
        check(&[(2, 21)], false, &[21]);
    }
}
