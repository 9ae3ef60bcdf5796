//! The replication protocol as an executable model.
//!
//! A world has three to five nodes, two partitions, a control plane and a bag of messages. A step is one thing
//! that one of them does, or that befalls it; steps are drawn at random, by seed, and after each the invariants
//! hold or the walk ends with a trace. Every [`Rule`] of the protocol can be taken out, and a walk without it
//! must find what it is there for.
//!
//! What is abstract: payloads (a record is who wrote it and when), disks (a log has a durable end and an end that
//! a power cut leaves), clocks (each node's counts at a constant rate within 5 % of true time), the control
//! plane's own replication (one log applied in order; what a controller decides reaches it late, twice or never).

mod checks;
mod control;
mod exhaust;
mod faults;
mod follower;
mod heal;
mod leader;
mod limits;
mod message;
mod random;
mod reads;
mod record;
mod report;
mod rules;
mod set;
mod state;
mod step;
mod trace;
mod transcript;
mod walk;

pub use exhaust::{Bounds, Exhaustion, exhaust};
pub use report::{Finding, Walk, hunt};
pub use rules::{Invariant, Purpose, Rule};
pub use trace::Trace;
pub use transcript::{TraceError, replay};
