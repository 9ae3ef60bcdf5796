//! One node: it writes to the stores while it leads, and takes over what others wrote before.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use clusterkit::hooks::{Activate, Decline, PartitionHandler, StageResult};
use clusterkit::{ClusterKit, Epoch, Lease, LeaseLost, PartitionId, Permit, Route, StartError};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::limits::{LOOK_PAUSE, NODES, ROUTE_PATIENCE, WRITE_TIME_MIN};
use crate::pipe::{Attempts, Order, Report, Tally, machine_time};
use crate::stores::{Held, Kind, Places, Store, StoreError, Verdict};

/// The only one.
const PARTITION: PartitionId = PartitionId(0);
/// Clients would reach the node here; there are none.
const PUBLIC_ADDR: &str = "127.0.0.1:0";

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long)]
    id: String,
    #[arg(long)]
    data_dir: PathBuf,
    /// The address of a node that is in the cluster; without it, this is the first.
    #[arg(long)]
    seed: Option<String>,
    #[command(flatten)]
    places: Places,
}

/// Runs the node until its standard input ends.
pub(crate) fn run(options: Options) -> Result<(), NodeError> {
    let runtime = tokio::runtime::Runtime::new()?;
    let ended = runtime.block_on(serve(options));
    runtime.shutdown_background();
    ended
}

async fn serve(options: Options) -> Result<(), NodeError> {
    let stores: Arc<[Store]> = options.places.connect().await?.into();
    let node = ClusterKit::builder(&options.id, PUBLIC_ADDR)
        .listen("127.0.0.1:0")
        .data_dir(options.data_dir)
        .seeds(options.seed)
        .partitions(1)
        .handler(TakeOver { stores: Arc::clone(&stores) })
        .launch()
        .await?;
    report(&Report::Listening { addr: node.node_addr() });
    node.ready().await?;
    let owner = Owner { node: node.clone(), stores, halt: CancellationToken::new() };
    tokio::select! {
        ended = node.stopped() => Ok(ended?),
        ended = follow_orders(owner) => ended,
        never = tell_when_whole(&node) => match never {},
    }
}

/// The hook that closes the stores to everybody who led before.
struct TakeOver {
    stores: Arc<[Store]>,
}

impl PartitionHandler for TakeOver {
    /// Called before the lease opens. A store refuses what is older than what it has seen, so let it see
    /// the new epoch now: writes that are still on their way from an old leader come too late from here on.
    async fn activate(&self, stage: Activate) -> StageResult {
        for store in self.stores.iter() {
            let held = Held { epoch: stage.epoch, value: store.read().await?.value };
            if store.write(&held).await? == Verdict::Stale {
                return Err(Decline::refuse(format!("the {} has seen a newer epoch", store.kind())));
            }
            report(&Report::TookOver(held));
        }
        Ok(())
    }
}

/// Writes while this node leads.
#[derive(Clone)]
struct Owner {
    node: ClusterKit,
    stores: Arc<[Store]>,
    halt: CancellationToken,
}

impl Owner {
    async fn write_while_leading(self) {
        let mut topology = self.node.watch();
        while !self.halt.is_cancelled() {
            let route = tokio::select! {
                route = self.node.route_settled(PARTITION, ROUTE_PATIENCE) => route,
                () = self.halt.cancelled() => return,
            };
            match route {
                Route::Local(lease) => self.write_under(&lease).await,
                Route::Remote { .. } => tokio::select! {
                    _ = topology.changed() => {}
                    () = self.halt.cancelled() => {}
                },
                _ => {}
            }
        }
    }

    /// Writes until the lease has ended.
    async fn write_under(&self, lease: &Lease) {
        let mut count = 0_u64;
        while !self.halt.is_cancelled() {
            count += 1;
            let value = format!("write {count} of {} under epoch {}", self.node.node_id(), lease.epoch());
            if let Err(failed) = self.write(lease, value).await {
                let (epoch, in_flight) = (lease.epoch(), failed.in_flight());
                report(&Report::Failed { epoch, in_flight, why: failed.to_string() });
                return sleep(LOOK_PAUSE).await;
            }
        }
    }

    /// One write, as every owner should make it.
    async fn write(&self, lease: &Lease, value: String) -> Result<(), WriteError> {
        let permit = lease.begin().map_err(WriteError::NotBegun)?;
        let held = Held { epoch: permit.epoch(), value };
        for store in self.stores.iter() {
            if store.write(&held).await? == Verdict::Stale {
                return Err(WriteError::Fenced { store: store.kind() });
            }
        }
        sleep(WRITE_TIME_MIN).await;
        let looked = machine_time();
        permit.confirm().map_err(WriteError::NotConfirmed)?;
        // Now, and not before, is it done.
        report(&Report::Wrote { held, looked });
        Ok(())
    }
}

/// A write that is not confirmed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
enum WriteError {
    /// Some stores may have it and others not. It is for the newer leader to say what holds.
    #[error("the {store} has seen a newer epoch")]
    Fenced { store: Kind },
    /// Nothing changed.
    #[error("not begun: {0}")]
    NotBegun(LeaseLost),
    /// The outcome is unknown.
    #[error("not confirmed: {0}")]
    NotConfirmed(LeaseLost),
    /// The outcome is unknown.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl WriteError {
    fn in_flight(&self) -> bool {
        !matches!(self, Self::NotBegun(_))
    }
}

/// Does what the story says, until standard input ends.
async fn follow_orders(owner: Owner) -> Result<(), NodeError> {
    let mut writing = Some(tokio::spawn(owner.clone().write_while_leading()));
    let mut prepared = None;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line)? {
            Order::Prepare { writes } => prepared = prepare(&owner, writes),
            Order::Attempt => attempt(&owner, prepared.take()).await,
            Order::Halt => halt(&owner, writing.take()).await,
        }
    }
    Ok(())
}

/// Writes that are begun and not ended: what an owner has in its hands when it is stopped.
struct Prepared {
    lease: Lease,
    permits: Vec<Permit>,
}

fn prepare(owner: &Owner, writes: u32) -> Option<Prepared> {
    let prepared = owner.node.lead(PARTITION).and_then(|lease| {
        let permits = (0..writes).map(|_| lease.begin()).collect::<Result<_, _>>()?;
        Ok(Prepared { lease, permits })
    });
    let prepared = prepared.ok();
    report(&Report::Prepared { epoch: prepared.as_ref().map(|prepared| prepared.lease.epoch()) });
    prepared
}

async fn attempt(owner: &Owner, prepared: Option<Prepared>) {
    let attempted = match prepared {
        Some(prepared) => prepared.attempt(&owner.stores).await.map_err(|error| error.to_string()),
        None => Err("nothing was prepared".to_owned()),
    };
    report(&Report::Attempted(attempted));
}

impl Prepared {
    /// Tries to get the writes accepted, though another leads: first by the rules, then against them.
    async fn attempt(self, stores: &[Store]) -> Result<Attempts, StoreError> {
        let (lease, writes) = (self.lease, self.permits.len());
        let confirm = self.permits.into_iter().map(|permit| permit.confirm().is_ok()).collect();
        let begin = (0..writes).map(|_| lease.begin().is_ok()).collect();
        let mut attempts = Attempts { confirm, begin, stores: Default::default() };
        for store in stores {
            attempts.stores.insert(store.kind(), write_stale(store, lease.epoch(), writes).await?);
        }
        Ok(attempts)
    }
}

/// Asks no lease: as a write that was sent before the stop and arrives after it.
async fn write_stale(store: &Store, epoch: Epoch, writes: usize) -> Result<Tally, StoreError> {
    let mut tally = Tally::default();
    for number in 1..=writes {
        let stale = Held { epoch, value: format!("stale write {number}") };
        tally.count(store.write(&stale).await? == Verdict::Accepted);
    }
    Ok(tally)
}

async fn halt(owner: &Owner, writing: Option<JoinHandle<()>>) {
    owner.halt.cancel();
    if let Some(writing) = writing {
        // It ends after its write, and does not panic.
        drop(writing.await);
    }
    report(&Report::Halted);
}

/// Never ends, so that it can be polled beside what does.
async fn tell_when_whole(node: &ClusterKit) -> std::convert::Infallible {
    while !is_whole(node) {
        sleep(LOOK_PAUSE).await;
    }
    report(&Report::Whole);
    std::future::pending().await
}

/// Whether every node votes and holds the partition.
fn is_whole(node: &ClusterKit) -> bool {
    let in_sync = node.partition_info(PARTITION).map_or(0, |record| record.in_sync.len());
    in_sync == NODES && node.control_plane().voters.len() == NODES
}

fn report(report: &Report) {
    let line = serde_json::to_string(report).expect("it has text for keys");
    // Nobody reads it only when the story has ended, and then this node ends too.
    drop(writeln!(io::stdout().lock(), "{line}"));
}

/// The node cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NodeError {
    #[error("standard input: {0}")]
    Io(#[from] io::Error),
    #[error("an order: {0}")]
    Order(#[from] serde_json::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Store(#[from] StoreError),
}
