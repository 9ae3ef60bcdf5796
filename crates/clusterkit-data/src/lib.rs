//! Replicated partitions: give it a deterministic [`StateMachine`], and it is replicated, fails over and moves,
//! with no acknowledged write lost.
//!
//! Each partition has one log, which its leader writes and the others follow; every replica applies it to its own
//! state. The rules stand in `clusterkit_core::replica`; this crate carries them out, on the hooks and calls that
//! [`clusterkit`] gives to everybody.

mod data;
mod engine;
mod error;
mod events;
mod gateway;
mod hooks;
mod limits;
mod machine;
mod messages;
mod options;
mod router;
mod shared;
mod snapshots;
mod storage;
mod watch;
mod wire;

pub use clusterkit_core::replica::{Ack, LogTime, SessionId, SessionRequest};

pub use data::{Data, Options};
pub use error::{Excess, QueryError, WriteError};
pub use limits::{ANSWER_BYTES_MAX, COMMAND_BYTES_MAX, COMMAND_CHANGES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use machine::{Entry, Question, StateMachine, Transaction, View};
pub use options::{Answered, Read, ReadOptions, WriteOptions, Written};
pub use storage::{OpenError, StorageError};
pub use watch::{EventsForgotten, Watch};
