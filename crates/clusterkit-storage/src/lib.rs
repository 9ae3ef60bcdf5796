//! Disks and logs of ClusterKit.
//!
//! Everything here blocks: the caller runs it on a thread of its own. Nothing here asks a clock, draws a
//! random number or starts a thread, so a run on a [`disk::SimDisk`] repeats exactly.
//!
//! - [`disk`]: the one door to the file system, with a real and a simulated implementation.
//! - [`checked`]: small files replaced as a whole, whose damage is seen when they are read.
//! - [`record_log`]: a segmented log of indexed records that tells a torn tail from a hole.
//! - [`shared_log`]: the one log of a node, in which the replicas of all partitions write.
//! - [`state_store`]: the applied state of all replicas of a node, on disk or in memory.
//! - [`conformance`]: the suites that every implementation of [`disk::Disk`], of
//!   [`shared_log::Log`] and of [`state_store::StateStore`] has to pass.
//! - [`limits`]: every bound of this crate.

pub mod checked;
pub mod conformance;
pub mod disk;
pub mod limits;
pub mod record_log;
pub mod shared_log;
pub mod state_store;
