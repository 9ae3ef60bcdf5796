//! The services that a node offers on its replicated partitions, as deterministic state machines: what each command
//! does to the state and what it answers, without a clock, a disk or a network.
//!
//! [`Services`] is the one [`StateMachine`](clusterkit_data::StateMachine) of a node. It reads from the header of a
//! command or question for which service and which [`Namespace`] it is. Each service has a module with its commands,
//! questions and what comes back:
//!
//! - [`kv`]: keys and values, with versions, conditions, expiry, prefixes and atomic batches.
//!
//! The bytes of everything here are in logs and on the wire. Within a version of the header, variants and fields keep
//! their places, and what is new comes last.

mod codec;
mod header;
pub mod kv;
mod namespace;
mod services;

pub use header::{AnswerError, RequestError};
pub use namespace::{InvalidNamespace, NAMESPACE_BYTES_MAX, Namespace};
pub use services::Services;
