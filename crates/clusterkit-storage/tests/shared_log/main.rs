//! The shared log: what it keeps through crashes, damage, faults, full disks and many threads.

mod conformance;
mod crash;
mod damage;
mod faults;
mod group;
mod space;
mod twin;
