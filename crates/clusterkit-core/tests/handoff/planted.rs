//! Mistakes made on purpose: each breaks the rule that it should, so no check is one that cannot fail.

use std::time::Duration;

use crate::faults::Mischief;
use crate::seeds::{chaos, run};
use crate::world::Settings;

/// One mistake. Each is made by the simulator between the production code and the user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// A hook that shall be ended by force is said to have ended while it runs on.
    AbortedAtOnce,
    /// A leader says that it serves as soon as it was elected.
    ActivatedAtOnce,
    /// A leader says that it serves as soon as it was elected, where there are more copies than there
    /// shall be.
    ActivatedForSurplus,
    /// A replica says that it caught up as soon as it is placed.
    CaughtUpAtOnce,
    /// A leader says that it cannot lead while it is about to.
    ActivatedAfterAll,
    /// What was copied once is not copied again after a lapse or under another leader.
    CopiedOnce,
    /// A copy does not wait until its source has adopted the record that names it.
    CopiedTooEarly,
    /// A leader waits for copies that count for nothing any more.
    CopiesKept,
    /// A write is acknowledged without the copies that were taken from its leader.
    CopiesUncounted,
    /// A closed lease is said to be drained while permits are out.
    DrainedAtOnce,
    /// The lease is not ended when its epoch is.
    LeaseOutlivesEpoch,
    /// What was noted is not there after a restart.
    NotesForgotten,
    /// One more copy is made at once than is allowed.
    OneCopyMore,
    /// A process that restarts goes on as the run before it.
    RunContinued,
    /// Notes are said to be durable before they are.
    SavedAtOnce,
    /// `seal` is said to be done, and was not called.
    SealedAtOnce,
    /// Nobody is told that a replica was caught up.
    SilentOfCopies,
    /// Places take writes of any epoch.
    Unfenced,
}

/// Seeds that are tried; each mistake is seen in one of the first fifty.
const SEEDS_MAX: u64 = 400;

/// Every other run is one in which nodes lose the control plane and go on: there stale leaders are common.
fn settings(mistake: Mistake, seed: u64) -> Settings {
    let settings = Settings { mistake: Some(mistake), ..chaos(seed, Duration::from_secs(30)) };
    if seed.is_multiple_of(2) {
        return settings;
    }
    let mischief = Mischief::of_cuts();
    Settings { nodes: 5, spares: 1, partitions: 6, replication_factor: 3, mischief, ..settings }
}

fn check(mistake: Mistake, rule: &str) {
    let breaks = |seed: u64| run(settings(mistake, seed), seed).violation.map(|violation| violation.rule);
    assert!((0..SEEDS_MAX).any(|seed| breaks(seed) == Some(rule)), "{mistake:?} never broke '{rule}'");
}

macro_rules! seen {
    ($($name:ident: $mistake:ident breaks $rule:literal;)*) => { $(
        #[test]
        fn $name() {
            check(Mistake::$mistake, $rule);
        }
    )* };
}

seen! {
    a_hook_that_outlives_its_end_is_seen: AbortedAtOnce breaks "one hook a partition";
    a_leader_that_serves_too_soon_is_seen: ActivatedAtOnce breaks "replaced before dropped";
    a_copy_that_goes_too_soon_is_seen: ActivatedForSurplus breaks "served before dropped";
    a_copy_that_was_not_made_is_seen: CaughtUpAtOnce breaks "nothing acknowledged is lost";
    a_leader_that_gave_up_and_goes_on_is_seen: ActivatedAfterAll breaks "given up for good";
    a_copy_that_is_not_made_again_is_seen: CopiedOnce breaks "nothing acknowledged is lost";
    a_copy_that_is_made_too_early_is_seen: CopiedTooEarly breaks "nothing acknowledged is lost";
    a_wait_for_copies_that_are_gone_is_seen: CopiesKept breaks "written while it may be";
    a_write_without_the_copies_is_seen: CopiesUncounted breaks "nothing acknowledged is lost";
    a_seal_beside_permits_is_seen: DrainedAtOnce breaks "drained before sealed";
    a_lease_that_outlives_its_epoch_is_seen: LeaseOutlivesEpoch breaks "closed when deposed";
    a_replica_that_is_never_released_is_seen: NotesForgotten breaks "released before placed anew";
    a_copy_too_many_is_seen: OneCopyMore breaks "few copies at once";
    a_run_that_acts_as_another_is_seen: RunContinued breaks "opened by its leader";
    a_place_that_was_not_noted_is_seen: SavedAtOnce breaks "noted before prepared";
    a_handover_without_a_seal_is_seen: SealedAtOnce breaks "sealed before handed over";
    an_epoch_after_one_that_was_not_sealed_is_seen: SealedAtOnce breaks "stages in order";
    a_cluster_that_never_heals_is_seen: SilentOfCopies breaks "faults stop, and everything heals";
    a_store_that_takes_writes_of_any_epoch_is_seen: Unfenced breaks "nothing acknowledged is lost";
}
