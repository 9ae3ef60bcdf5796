//! Replicated partitions: give it a deterministic [`StateMachine`], and it is replicated, fails over and moves,
//! with no acknowledged write lost.

mod machine;
pub(crate) mod storage;

pub use machine::{Entry, Question, StateMachine, Transaction, View};
