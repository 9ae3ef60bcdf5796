//! The bounds of the checker.

/// The most operations of one history: their numbers are kept in 32 bits.
pub const OPERATIONS_MAX: usize = 1 << 24;

/// Steps for each key, if the caller names no other number: a few seconds at most.
pub const STEPS_PER_KEY: u64 = 50_000_000;

/// Steps for shortening one counterexample, if the caller names no other number.
pub const STEPS_SHORTENING: u64 = 200_000_000;

/// The most steps of one search, whatever the caller allows: states are counted in 32 bits.
pub const STEPS_MAX: u64 = 1 << 31;

/// How often unknown operations that cannot matter are looked for: leaving some out may free others.
pub(super) const PRUNE_ROUNDS_MAX: usize = 4;

/// How many trials the steps of shortening suffice for, however hard each is.
pub(super) const TRIALS_MIN: u64 = 16;

const _: () = assert!(OPERATIONS_MAX <= u32::MAX as usize);
const _: () = assert!(STEPS_SHORTENING <= STEPS_MAX);
const _: () = assert!(STEPS_PER_KEY <= STEPS_SHORTENING);
