//! State stores, compared with each other, with a naive twin, and with what disks do to them.

#![allow(clippy::unwrap_used, reason = "steps of a test that cannot go on without the value")]

mod conform;
mod crash;
mod damage;
mod faults;
mod renew;
mod shape;
mod space;
#[path = "../support/mod.rs"]
mod support;
mod twin;
