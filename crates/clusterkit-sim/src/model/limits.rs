//! The bounds of the model's world.

/// The most nodes of a world.
pub(crate) const NODES_MAX: usize = 5;

/// Two partitions, since leases are shared among the partitions of a node and holes hide there.
pub(crate) const PARTITIONS: usize = 2;

/// Records of one partition and run, over all epochs and branches.
pub(crate) const RECORDS_MAX: usize = 120;

/// The longest log; clients are refused above, and elections go on without their no-op.
pub(crate) const LOG_MAX: u8 = 24;

/// Messages in flight; one more replaces another, which is a loss.
pub(crate) const MESSAGES_MAX: usize = 24;

/// Topology versions that are kept for nodes which lag.
pub(crate) const TOPOLOGIES_KEPT: usize = 32;

/// The last topology version of a run, so that versions and epochs fit into a byte.
pub(crate) const TOPOLOGY_MAX: u8 = 250;

/// How long a promise of support lasts, in units of true time.
pub(crate) const SUPPORT: u32 = 20;

/// What a clock of the right rate counts in a unit of true time. Rates lie within 5 % of it.
pub(crate) const RATE: u32 = 20;

/// What is left of [`RATE`] for the asker's own count: eps is 10 %.
pub(crate) const RATE_ASKER: u32 = 18;

/// Clients that write, each with a sequence of its own for every partition.
pub(crate) const CLIENTS: u8 = 2;

/// The most steps of one run before the world starts anew.
pub(crate) const RUN_STEPS_MAX: u32 = 500;

/// Draws in a row that lead to no step before a run is given up: everything may be down.
pub(crate) const IDLE_DRAWS_MAX: u32 = 2_000;

/// Rounds in which a world without faults must heal.
pub(crate) const HEAL_ROUNDS_MAX: u32 = 60;

const _: () = {
    assert!(NODES_MAX <= 8, "a set of nodes is a byte");
    assert!(RATE * 19 * RATE_ASKER < 20 * RATE * RATE, "the asker counts less than the promise");
    assert!((LOG_MAX as usize) < RECORDS_MAX);
};
