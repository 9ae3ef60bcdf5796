//! What every member does for the cluster: it says that it lives, and carries out what the topology
//! asks of it.

use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::control::CaughtUp;
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
    loop {
        tokio::select! {
            _ = beat.tick() => {
                say_alive(&shared, beats);
                beats = beats.wrapping_add(1);
            }
            changed = topology.changed() => if changed.is_err() { return },
            () = shared.asked_to_stop.cancelled() => return,
            () = shared.stop.cancelled() => return,
        }
        look_at_myself(&shared);
        let current = Arc::clone(&topology.borrow_and_update());
        report_caught_up(&shared, &current);
        hand_off(&shared, &current);
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

/// Layer 1 keeps no data, so a replica has everything as soon as it is placed under a leader.
fn report_caught_up(shared: &Arc<Shared>, topology: &Topology) {
    let waiting = topology.partitions.iter().filter(|record| waits_for(record, shared));
    let report = |record: &Arc<Partition>| {
        Some(CaughtUp {
            node: shared.node.clone(),
            incarnation: shared.incarnation(),
            partition: record.id,
            uid: record.replica(&shared.node)?.uid,
            epoch: record.epoch,
        })
    };
    let reports: Vec<_> = waiting.filter_map(report).take(REPORTS_MAX).collect();
    if !reports.is_empty() {
        tell_controller(shared, kind::CAUGHT_UP, &reports, ControllerInput::CaughtUp(reports.clone()));
    }
}

fn waits_for(record: &Partition, shared: &Shared) -> bool {
    record.leader.is_some() && record.holds(&shared.node) && !record.is_electable(&shared.node)
}

/// A leader that is asked to hand over stops and says so.
fn hand_off(shared: &Arc<Shared>, topology: &Topology) {
    let asked = topology
        .partitions
        .iter()
        .filter(|record| record.leader.as_ref() == Some(&shared.node) && record.transfer.is_some());
    let handoff = |record: &Arc<Partition>| Handoff {
        partition: record.id,
        version: record.version,
        epoch: record.epoch,
        from: shared.node.clone(),
        log_end: 0,
    };
    let handoffs: Vec<_> = asked.map(handoff).take(REPORTS_MAX).collect();
    if !handoffs.is_empty() {
        tell_controller(shared, kind::HANDOFF, &handoffs, ControllerInput::Handoffs(handoffs.clone()));
    }
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
