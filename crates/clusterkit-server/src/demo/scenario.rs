//! The faults.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::failure::Failure;
use crate::fleet::Fleet;

/// How long a process is frozen: longer than anybody waits for it.
const FREEZE: Duration = Duration::from_secs(3);

/// What happens to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// A node joins, takes its share, and is drained again
    AddRemove,
    /// The process of a node that follows hangs for three seconds
    FreezeFollower,
    /// The process of a node that leads hangs for three seconds
    FreezeLeader,
    /// All processes are killed at once and started again
    KillAll,
    /// The process of the controller is killed
    KillController,
    /// The process of a node that leads, and is not the controller, is killed
    KillLeader,
    /// All load goes to one partition, whose leader is drained (at least 4 nodes)
    MoveHot,
    /// Each node in turn is stopped in order and started again
    RollingRestart,
}

impl Scenario {
    /// Whether all load goes to one partition.
    pub(super) fn is_hot(self) -> bool {
        self == Self::MoveHot
    }
}

/// When it happened, and to which partitions.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: Instant,
    pub(super) partitions: BTreeSet<u32>,
}

/// Makes the fault, and lets the cluster go on for a while.
pub(super) async fn run(scenario: Scenario, fleet: &mut Fleet, after: Duration) -> Result<Fault, Failure> {
    match scenario {
        Scenario::AddRemove => add_remove(fleet).await,
        Scenario::FreezeFollower => freeze(fleet, after, false).await,
        Scenario::FreezeLeader => freeze(fleet, after, true).await,
        Scenario::KillAll => kill_all(fleet, after).await,
        Scenario::KillController => kill(fleet, after, true).await,
        Scenario::KillLeader => kill(fleet, after, false).await,
        Scenario::MoveHot => move_hot(fleet).await,
        Scenario::RollingRestart => rolling_restart(fleet).await,
    }
}

/// The partitions that a node leads, or that it does not.
async fn partitions(fleet: &Fleet, index: usize, led: bool) -> Result<BTreeSet<u32>, Failure> {
    let topology = fleet.topology().await?;
    let name = fleet.name(index);
    let is_wanted = |leader: Option<&str>| (leader == Some(name)) == led;
    let wanted = topology.partitions.iter().filter(|partition| is_wanted(partition.leader.as_deref()));
    Ok(wanted.map(|partition| partition.id).collect())
}

async fn all(fleet: &Fleet) -> Result<BTreeSet<u32>, Failure> {
    Ok(fleet.topology().await?.partitions.iter().map(|partition| partition.id).collect())
}

/// The controller, or of the others the one that leads most.
async fn victim(fleet: &Fleet, controller: bool) -> Result<usize, Failure> {
    let decides = fleet.controller().await?;
    let topology = fleet.topology().await?;
    let candidates = fleet.running().into_iter().filter(|index| (Some(*index) == decides) == controller);
    let most = candidates.max_by_key(|index| topology.leaderships(fleet.name(*index)));
    Ok(most.or(decides).unwrap_or_default())
}

async fn kill(fleet: &mut Fleet, after: Duration, controller: bool) -> Result<Fault, Failure> {
    let victim = victim(fleet, controller).await?;
    let fault = Fault { partitions: partitions(fleet, victim, true).await?, at: Instant::now() };
    fleet.kill(victim).await?;
    tokio::time::sleep(after).await;
    fleet.begin(victim)?;
    Ok(fault)
}

async fn freeze(fleet: &mut Fleet, after: Duration, leads: bool) -> Result<Fault, Failure> {
    let victim = victim(fleet, false).await?;
    let fault = Fault { partitions: partitions(fleet, victim, leads).await?, at: Instant::now() };
    fleet.freeze(victim)?;
    tokio::time::sleep(FREEZE).await;
    fleet.thaw(victim)?;
    tokio::time::sleep(after).await;
    Ok(fault)
}

async fn kill_all(fleet: &mut Fleet, after: Duration) -> Result<Fault, Failure> {
    let fault = Fault { partitions: all(fleet).await?, at: Instant::now() };
    for index in fleet.running() {
        fleet.kill(index).await?;
    }
    for index in 0..fleet.urls().len() {
        fleet.begin(index)?;
    }
    tokio::time::sleep(after).await;
    Ok(fault)
}

async fn rolling_restart(fleet: &mut Fleet) -> Result<Fault, Failure> {
    let fault = Fault { partitions: all(fleet).await?, at: Instant::now() };
    for index in fleet.running() {
        fleet.stop(index).await?;
        fleet.begin(index)?;
        fleet.until_whole().await?;
    }
    Ok(fault)
}

async fn add_remove(fleet: &mut Fleet) -> Result<Fault, Failure> {
    let fault = Fault { partitions: all(fleet).await?, at: Instant::now() };
    let newest = fleet.add()?;
    let name = fleet.name(newest).to_owned();
    fleet.until("the new node to take its share", move |topology| topology.leaderships(&name) > 0).await?;
    fleet.until_whole().await?;
    fleet.drain(newest).await?;
    fleet.ended(newest).await?;
    Ok(fault)
}

async fn move_hot(fleet: &mut Fleet) -> Result<Fault, Failure> {
    let topology = fleet.topology().await?;
    let hot = topology.partitions.iter().find(|partition| partition.id == super::load::HOT);
    let leader = hot.and_then(|partition| partition.leader.as_deref()).and_then(|name| fleet.index_of(name));
    let leader = leader.unwrap_or_default();
    let fault = Fault { partitions: BTreeSet::from([super::load::HOT]), at: Instant::now() };
    fleet.drain(leader).await?;
    fleet.ended(leader).await?;
    Ok(fault)
}
