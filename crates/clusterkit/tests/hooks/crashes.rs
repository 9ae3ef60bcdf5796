//! A move survives a crash of its source, its target or the controller at every stage: within ten
//! seconds it has ended, or is rolled back, and the partition is served.

use std::time::Duration;

use clusterkit::hooks::Stage;
use clusterkit::testing::Cluster;
use clusterkit::{NodeId, Route, Topology};

use super::recorder::Rule;
use super::{P, launch, led, node, start};

/// How long after the fault a move may take to end or to be rolled back.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);
const NODES: u32 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Source,
    Target,
    Controller,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// While the hook runs.
    During,
    /// As soon as it has answered.
    After,
}

async fn controller(cluster: &Cluster) -> u32 {
    let any = cluster.running()[0];
    loop {
        if let Some(controller) = cluster.node(any).control_plane().controller.as_ref() {
            return number(controller);
        }
        tokio::time::sleep(Duration::from_millis(20)).await; // tidy: the clock is paused
    }
}

fn number(node: &NodeId) -> u32 {
    node.as_str().strip_prefix("node-").and_then(|number| number.parse().ok()).expect("a node of ours")
}

/// Who takes over from the drained node, in the stage that `place` is in.
fn counterpart(topology: &Topology, place: u32, source: u32) -> u32 {
    let record = &topology.partitions[0];
    let movement = record.movement.as_ref().map(|movement| &movement.target);
    let other = record.transfer.as_ref().or(movement).or(record.leader.as_ref());
    if place == source { other.map(number).expect("somebody takes over") } else { place }
}

/// Nothing is under way any more, but for a source that the minimum of copies in sync needs until a dead
/// node is back or replaced.
fn settled(topology: &Topology) -> bool {
    topology.partition(P).is_some_and(|record| {
        let arrived = |target: &NodeId| record.in_sync.contains(target) && record.leader.is_some();
        let needed = record.in_sync.len() <= record.min_in_sync as usize;
        let ended = record.movement.as_ref().is_none_or(|movement| arrived(&movement.target) && needed);
        ended && record.transfer.is_none() && record.leader.is_some()
    })
}

/// Waits until nothing moves, and somebody's lease is open.
async fn settle(cluster: &Cluster, what: &str) {
    let any = cluster.running()[0];
    let served = async {
        loop {
            let topology = cluster.until(any, "nothing moves", settled).await;
            let leader = topology.partitions[0].leader.clone().expect("somebody leads");
            let running = cluster.running().into_iter().find(|number| node(*number) == leader);
            if let Some(number) = running {
                let route = cluster.node(number).route_settled(P, Duration::from_millis(100)).await;
                if matches!(route, Route::Local(_)) && settled(&cluster.node(any).topology()) {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await; // tidy: the clock is paused
        }
    };
    if tokio::time::timeout(SETTLED_WITHIN, served).await.is_err() {
        panic!("{what}: {:#?}", cluster.node(any).topology().partitions[0]);
    }
}

/// One copy alone moves as a whole, in the order of the stages. Of two, the lead goes first, and the copy
/// afterwards.
async fn survive(copies: u32, stage: Stage, moment: Moment, victim: Victim, returns: bool) {
    let what = format!("{copies} copies, {victim:?} {moment:?} {stage}, returns: {returns}");
    let (mut cluster, recorders) = start(NODES, copies).await;
    let source = led(&cluster).await;
    for number in cluster.running() {
        recorders.forget(number);
        recorders.rule(number, stage, Rule::Hang);
    }
    let other = if source == 1 { 2 } else { 1 };
    cluster.node(other).drain(&node(source)).await.expect("it is ordered");
    let called = tokio::time::timeout(Duration::from_secs(60), recorders.called(stage)).await;
    let place = called.unwrap_or_else(|_| panic!("{what}: the hook is not called"));
    let any = if other == place { source } else { other };
    let target = counterpart(&cluster.node(any).topology(), place, source);
    if moment == Moment::After {
        recorders.rule(place, stage, Rule::Agree);
        recorders.answered(place, stage).await;
    }
    let number = match victim {
        Victim::Source => source,
        Victim::Target => target,
        Victim::Controller => controller(&cluster).await,
    };
    cluster.kill(number).await;
    for other in 1..=NODES {
        recorders.rule(other, stage, Rule::Agree);
    }
    if returns {
        tokio::time::sleep(Duration::from_secs(1)).await; // tidy: the clock is paused
        launch(&mut cluster, &recorders, number, NODES, copies).await;
    }
    settle(&cluster, &what).await;
}

async fn survive_all(copies: u32, victim: Victim) {
    let stages = [Stage::Prepare, Stage::CatchUp, Stage::Seal, Stage::Activate, Stage::Release];
    for stage in stages {
        for moment in [Moment::During, Moment::After] {
            survive(copies, stage, moment, victim, true).await;
            // The only copy is gone with its node.
            if copies > 1 {
                survive(copies, stage, moment, victim, false).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_move_survives_a_crash_of_its_source_at_every_stage() {
    survive_all(2, Victim::Source).await;
}

#[tokio::test(start_paused = true)]
async fn a_move_survives_a_crash_of_its_target_at_every_stage() {
    survive_all(2, Victim::Target).await;
}

#[tokio::test(start_paused = true)]
async fn a_move_survives_a_crash_of_the_controller_at_every_stage() {
    survive_all(2, Victim::Controller).await;
}

#[tokio::test(start_paused = true)]
async fn a_move_of_the_only_copy_survives_a_crash_of_its_source_at_every_stage() {
    survive_all(1, Victim::Source).await;
}

#[tokio::test(start_paused = true)]
async fn a_move_of_the_only_copy_survives_a_crash_of_its_target_at_every_stage() {
    survive_all(1, Victim::Target).await;
}

#[tokio::test(start_paused = true)]
async fn a_move_of_the_only_copy_survives_a_crash_of_the_controller_at_every_stage() {
    survive_all(1, Victim::Controller).await;
}
