//! Client of ClusterKit's key-value service.
//!
//! ```no_run
//! # async fn example() -> Result<(), clusterkit_client::Error> {
//! use clusterkit_client::{Client, Options};
//!
//! let client = Client::connect(["10.0.0.1:8080", "10.0.0.2:8080"], Options::default()).await?;
//! let kv = client.kv();
//! let version = kv.put("user:1", "Ann").await?;
//! kv.compare_and_set("user:1", version, "Anna").await?;
//! let entry = kv.get("user:1").await?.expect("it was put just now");
//! assert_eq!(entry.value, "Anna");
//! # Ok(())
//! # }
//! ```
//!
//! - A request goes straight to the node that leads the partition of its key; the client keeps up with the topology.
//!   A node that does not lead passes requests on, so that an old topology costs a detour and no error.
//! - Every call has a deadline and is repeated until then. A write carries a number in a session with its partition,
//!   so that it takes effect once however often it is sent; [`Error::OutcomeUnknown`] says when even that cannot tell.
//! - Repeats are bounded: they wait longer and longer, at random, and come to a tenth of the calls and 10 a second at
//!   most. A node that cannot be reached is left alone for a while.
//!
//! It needs a running tokio runtime, and runs one task in it that follows the topology until the last clone of the
//! [`Client`] is dropped.

mod client;
mod error;
mod kv;
pub mod limits;
mod net;
mod options;
mod plan;
mod token;
mod wire;

pub use client::Client;
pub use clusterkit_core::id::PartitionId;
pub use error::{Cause, Error, Problem, ProtocolFault, Reason, Reasons};
pub use kv::{Entry, Kv, PutCondition, PutOptions, Scan, ScanEntry, Ttl, Version};
pub use options::{Ack, Options, Read};
pub use token::{InvalidToken, Token};
