//! Every byte of ClusterKit that outlives a process: what nodes say to each other and what they
//! write down.
//!
//! A layout in this crate is a promise to another version of ClusterKit, so each has tests that
//! compare its exact bytes. Nothing here does IO; decoding takes bytes from anyone and answers with
//! a value or a typed error, never with a panic, and never allocates more than the bytes it was
//! given can fill.
//!
//! | module | holds |
//! | --- | --- |
//! | [`frame`] | the header and checksum around every message between nodes |
//! | [`hello`] | the first words on a connection: who is there, and whether they may talk |
//! | [`versioned`] | small records: one version byte, then the fields |
//! | [`limits`] | every bound of this crate |

pub mod frame;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod hello;
pub mod limits;
pub mod versioned;
