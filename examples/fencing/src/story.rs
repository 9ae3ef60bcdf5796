//! What happens: an owner writes, is stopped, is replaced, goes on, and tries what it still has in its
//! hands.

use std::io;
use std::path::Path;
use std::time::Duration;

use clusterkit::Epoch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Options;
use crate::cluster::{Cluster, ClusterError, Led, View, name};
use crate::limits::{DEADLINE, GOOD_WRITES_MIN, LOOK_PAUSE, NODES, PREPARATIONS_MAX, STOPS_MAX};
use crate::outcome::{GoodWrites, Local, Outcome, StoreOutcome, Trial, seconds};
use crate::pipe::{Attempts, Order, Tally, machine_time};
use crate::processes::{self, Processes};
use crate::servers::{self, ServerError, Skipped};
use crate::stores::{FileStore, Held, Places, Store, StoreError};

/// Tells the story once. What it starts is in `processes`, for others to end.
pub(crate) async fn tell(
    home: &Path,
    options: &Options,
    processes: &mut Processes,
) -> Result<Outcome, StoryError> {
    let (places, skipped) = servers::start(home, processes).await?;
    let stores = places.connect().await?;
    for store in &stores {
        store.create().await?;
    }
    say_stores(options, &stores, &skipped);
    let cluster = Cluster::start(home, &places, processes).await?;
    let mut story = Story { options, places, stores, skipped, cluster };
    let owner = story.prepare().await?;
    let absence = story.stop(&owner).await?;
    let attempts = story.go_on(&owner, &absence).await?;
    story.finish(&owner, absence, &attempts).await
}

fn say_stores(options: &Options, stores: &[Store], skipped: &[Skipped]) {
    for store in stores {
        options.say(&format!("guarded by the epoch of its owner: a {}", store.kind()));
    }
    for Skipped { kind, reason } in skipped {
        options.say(&format!("skipped: the {kind}, since {reason}"));
    }
}

struct Story<'a> {
    options: &'a Options,
    places: Places,
    stores: Vec<Store>,
    skipped: Vec<Skipped>,
    cluster: Cluster,
}

/// Who is stopped.
struct Owner {
    number: usize,
    /// Under which it led when it was stopped.
    epoch: Epoch,
}

/// How long the owner was away.
struct Absence {
    until_takeover: Duration,
    whole: Duration,
    /// When it went on, by [`machine_time`].
    end: Duration,
}

impl Story<'_> {
    /// Lets whoever leads write for a while, and begin the writes that it shall end too late.
    async fn prepare(&mut self) -> Result<Owner, StoryError> {
        for _ in 0..PREPARATIONS_MAX {
            let writer = |views: &[View]| writer_since(views, Epoch::default());
            let (number, _) = self.cluster.until("a node leads and writes", writer).await?;
            if let Some(epoch) = self.cluster.prepare(number, self.options.writes).await? {
                let (name, writes) = (name(number), self.options.writes);
                self.options.say(&format!(
                    "\n{name} leads under epoch {epoch} and writes; {writes} more writes are begun and not ended"
                ));
                return Ok(Owner { number, epoch });
            }
        }
        Err(StoryError::NoOwner)
    }

    /// Stops the owner until another node has taken over, and for as long as was asked for.
    async fn stop(&mut self, owner: &Owner) -> Result<Absence, StoryError> {
        let stopped = self.stop_outside_of_the_lock(owner).await?;
        self.options.say(&format!("{} is stopped", name(owner.number)));
        let successor = |views: &[View]| writer_since(views, owner.epoch.next());
        let (number, epoch) = self.cluster.until("another node leads and writes", successor).await?;
        let until_takeover = stopped.elapsed();
        self.options.say(&format!(
            "{} leads under epoch {epoch} and has written {GOOD_WRITES_MIN} times, {:.1} s later",
            name(number),
            until_takeover.as_secs_f64()
        ));
        sleep_until(stopped + self.options.stop_for).await;
        // It waits in the pipe, and is among the first that the owner hears.
        self.cluster.order(owner.number, &Order::Attempt).await?;
        let end = machine_time();
        processes::go_on(self.cluster.pid(owner.number))?;
        Ok(Absence { until_takeover, whole: stopped.elapsed(), end })
    }

    /// An owner that is stopped while it holds the lock of the file keeps its successor out for as long:
    /// nothing stale is written, but nothing else is. That is not what this story is about.
    async fn stop_outside_of_the_lock(&self, owner: &Owner) -> Result<Instant, StoryError> {
        let (file, pid) = (FileStore::new(&self.places.file), self.cluster.pid(owner.number));
        for _ in 0..STOPS_MAX {
            processes::stop(pid).await?;
            if !file.is_locked()? {
                return Ok(Instant::now());
            }
            processes::go_on(pid)?;
            sleep(LOOK_PAUSE).await;
        }
        Err(StoryError::AlwaysLocked)
    }

    /// Waits until the old owner has tried everything, and others have written once more.
    async fn go_on(&mut self, owner: &Owner, absence: &Absence) -> Result<Attempts, StoryError> {
        let (name, whole) = (name(owner.number), absence.whole.as_secs_f64());
        self.options.say(&format!("{name} goes on after {whole:.1} s, and ends its writes"));
        let attempted = |views: &[View]| views[owner.number].attempted.clone();
        let attempts = self.cluster.until("the stale writes were tried", attempted).await?;
        let attempts = attempts.map_err(|why| StoryError::NotTried { why })?;
        let ended = |views: &[View]| led(views, owner).failure.clone();
        let failure = self.cluster.until("the old lease has ended", ended).await?;
        self.options.say(&format!("{name} learns of it in its own loop: {}", failure.why));
        let before = writes_since(&self.cluster.views(), owner.epoch.next());
        let more = |views: &[View]| {
            (writes_since(views, owner.epoch.next()) >= before + GOOD_WRITES_MIN).then_some(())
        };
        self.cluster.until("good writes go on", more).await?;
        Ok(attempts)
    }

    /// Lets everybody end, and compares what the stores hold with what was written last.
    async fn finish(
        &mut self,
        owner: &Owner,
        absence: Absence,
        attempts: &Attempts,
    ) -> Result<Outcome, StoryError> {
        for number in 0..NODES {
            self.cluster.order(number, &Order::Halt).await?;
        }
        let halted = |views: &[View]| views.iter().all(|view| view.has_halted).then_some(());
        self.cluster.until("all nodes have ended their writes", halted).await?;
        let stores = self.trials(attempts).await?;
        let views = self.cluster.views();
        let old = led(&views, owner);
        let outcome = Outcome {
            ok: false,
            nodes: NODES,
            writes: self.options.writes,
            stopped_s: seconds(absence.whole),
            takeover_s: seconds(absence.until_takeover),
            epoch_old: owner.epoch,
            epoch_new: newest(&views).epoch,
            good_writes: GoodWrites { before: old.writes, after: writes_since(&views, owner.epoch.next()) },
            local: Local {
                confirm: attempts.confirm,
                begin: attempts.begin,
                in_flight: in_flight(&old, absence.end),
            },
            stores,
        };
        Ok(outcome.judged())
    }

    /// What became of each store.
    async fn trials(&self, attempts: &Attempts) -> Result<Vec<StoreOutcome>, StoryError> {
        let mut outcomes = Vec::new();
        for store in &self.stores {
            let stale = attempts.stores.get(&store.kind()).copied().unwrap_or_default();
            let trial = Trial::Ran { stale, holds_newest: self.holds_newest(store).await? };
            outcomes.push(StoreOutcome { store: store.kind(), trial });
        }
        for Skipped { kind, reason } in &self.skipped {
            outcomes.push(StoreOutcome { store: *kind, trial: Trial::Skipped(reason.clone()) });
        }
        Ok(outcomes)
    }

    /// Whether `store` holds what was written last under the newest epoch. Leadership may just have moved,
    /// so it has some time to become true.
    async fn holds_newest(&self, store: &Store) -> Result<bool, StoryError> {
        let deadline = Instant::now() + DEADLINE / 4;
        while store.read().await? != newest(&self.cluster.views()) {
            if Instant::now() > deadline {
                return Ok(false);
            }
            sleep(LOOK_PAUSE).await;
        }
        Ok(true)
    }
}

/// Who has written enough under the newest epoch, if that is not before `epoch`.
fn writer_since(views: &[View], epoch: Epoch) -> Option<(usize, Epoch)> {
    let all = views
        .iter()
        .enumerate()
        .flat_map(|(number, view)| view.led.iter().map(move |(epoch, led)| (*epoch, number, led.writes)));
    let (newest, number, writes) = all.max()?;
    (newest >= epoch && writes >= GOOD_WRITES_MIN).then_some((number, newest))
}

/// Writes that were confirmed under `epoch` and all after it.
fn writes_since(views: &[View], epoch: Epoch) -> u64 {
    let epochs = views.iter().flat_map(|view| view.led.range(epoch..));
    epochs.map(|(_, led)| led.writes).sum()
}

/// What every store should hold when nobody writes any more.
fn newest(views: &[View]) -> Held {
    let all = views.iter().flat_map(|view| view.led.values());
    all.map(|led| &led.newest).max_by_key(|held| held.epoch).cloned().unwrap_or_default()
}

/// What the owner did under the epoch that it was stopped in.
fn led(views: &[View], owner: &Owner) -> Led {
    views[owner.number].led.get(&owner.epoch).cloned().unwrap_or_default()
}

/// The write of the owner's loop that was under way while it was stopped, if one was.
fn in_flight(old: &Led, end: Duration) -> Tally {
    let is_confirmed = old.looked > end;
    let is_refused = old.failure.as_ref().is_some_and(|failure| failure.in_flight);
    Tally { tried: u32::from(is_confirmed) + u32::from(is_refused), accepted: u32::from(is_confirmed) }
}

/// The story has no end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StoryError {
    #[error("the owner was always stopped while it held the lock of the file")]
    AlwaysLocked,
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("interrupted; everything that was started has ended")]
    Interrupted,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("nobody led for long enough to be stopped")]
    NoOwner,
    #[error("the stale writes were not tried: {why}")]
    NotTried { why: String },
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Store(#[from] StoreError),
}
