//! Every decision ClusterKit takes, and nothing else.
//!
//! This crate has no clock, no IO, no async, no thread and no randomness of its own: time and
//! seeds are arguments, facts go in by `handle_*`, work comes out by `poll_*`. That is what makes
//! the whole cluster testable in one thread, step by step, from a seed.
//!
//! | module | decides |
//! | --- | --- |
//! | [`hash`] | which partition a key belongs to |
//! | [`topology`] | what one version of the cluster looks like, and how two versions differ |
//! | [`placement`] | which node shall hold which partition, with the fewest moves |
//! | [`control`] | what a command changes, and which commands the controller wants next |
//! | [`member`] | which nodes are alive, suspect or dead |
//! | [`forming`] | which nodes become a cluster |
//! | [`handoff`] | which hook of which partition is called next on a node |
//! | [`replica`] | what a node does with the copies of partitions that it holds |

#![no_std]
#![warn(clippy::std_instead_of_core, clippy::std_instead_of_alloc)]

extern crate alloc;

pub mod control;
pub mod forming;
pub mod handoff;
pub mod hash;
pub mod id;
pub mod limits;
pub mod member;
pub mod placement;
pub mod replica;
pub mod time;
pub mod topology;
