//! The proof of ClusterKit's replication protocol.
//!
//! [`replicas`] runs the production code of a whole cluster in virtual time, under faults, by seed.
//!
//! [`model`] is the protocol itself as a state machine of a few kilobytes: small enough that millions of
//! steps a second are taken and every invariant is checked after each of them.

pub mod linearizability;
pub mod model;
pub mod replicas;
