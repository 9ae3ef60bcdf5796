//! A log on a simulated disk, compared with a naive twin.

#![allow(clippy::unwrap_used, reason = "steps of a test that cannot go on without the value")]

mod crash;
mod damage;
mod faults;
mod shape;
#[path = "../support/mod.rs"]
mod support;
mod twin;
