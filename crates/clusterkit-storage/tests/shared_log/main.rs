//! The shared log: what it keeps through crashes, damage, faults, full disks and many threads.

mod conformance;
mod crash;
mod twin;
