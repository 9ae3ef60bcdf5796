//! The house of the repository: its rules as tests, its public interfaces as files, and the one
//! command that runs everything.
//!
//! | module | holds |
//! | --- | --- |
//! | [`api`] | the listing of a crate's public interface, read from its sources |
//! | [`checkout`] | the files and packages that the rules look at |
//! | [`diff`] | how two texts differ, line by line |
//! | [`fence`] | the proof by compiler that core does not link std |
//! | [`metadata`] | what cargo knows about packages |
//! | [`source`] | one Rust file, taken apart for the rules |
//! | [`spdx`] | licence expressions |
//! | [`steps`] | steps run in order until one fails |
//! | [`tidy`] | the rules, each a function from what it reads to what breaks it |
//!
//! A rule of the house that matters is a function in [`tidy`] with a bad sample in its unit tests
//! and one line in `tests/tidy.rs`.

pub mod api;
pub mod checkout;
pub mod diff;
pub mod fence;
pub mod metadata;
pub mod servers;
pub mod source;
pub mod spdx;
pub mod steps;
pub mod tidy;
