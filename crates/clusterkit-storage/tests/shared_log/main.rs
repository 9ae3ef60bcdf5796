//! The shared log: what it keeps through crashes, damage, faults, full disks and many threads.

#![allow(clippy::unwrap_used, reason = "steps of a test that cannot go on without the value")]

mod conformance;
mod crash;
mod damage;
mod faults;
mod group;
mod space;
#[path = "../support/mod.rs"]
mod support;
mod twin;
