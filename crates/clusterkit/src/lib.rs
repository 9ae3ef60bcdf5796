//! ClusterKit, the embeddable library: it knows who is alive, which partition a key belongs to,
//! which nodes hold it and who leads it under which epoch.
//!
//! ```no_run
//! # async fn example() -> Result<(), clusterkit::StartError> {
//! let ck = clusterkit::ClusterKit::builder("node-1", "127.0.0.1:8080").start().await?;
//! println!("{:?}", ck.route(b"user:1"));
//! # Ok(()) }
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`hooks`] | user code decides: what is awaited before ownership moves |
//! | [`messages`] | what the programs that embed nodes say to each other |
//! | [`net`] | everything that touches time and network, behind two traits |

mod builder;
mod coordinator;
mod error;
mod events;
#[cfg(test)]
mod golden;
#[cfg(feature = "grpc")]
pub mod grpc;
mod handle;
pub mod hooks;
#[cfg(feature = "http")]
pub mod http;
mod lease;
pub mod messages;
pub mod net;
mod node;
mod opening;
mod status;
mod stop_check;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[allow(unreachable_pub, reason = "it is written as a library of its own: what it offers the node is `pub`")]
mod transport;

pub use clusterkit_core as core;
pub use clusterkit_core::control::ControllerConfig;
pub use clusterkit_core::hash::KeyHash;
pub use clusterkit_core::id::{Epoch, NodeId, PartitionId, PartitionVersion};
pub use clusterkit_core::placement::Strategy;
pub use clusterkit_core::topology::{
    Event, Health, HealthReason, HealthState, Node, NodeStatus, Partition, RaftRole, Topology,
};

pub use self::builder::{
    Builder, CLUSTER_NAME_DEFAULT, DATA_DIR_DEFAULT, JOIN_TIMEOUT_DEFAULT, LISTEN_DEFAULT,
};
pub use self::error::{
    ChangeError, ControlPlaneError, DataDirError, FormingProblem, InvalidSettings, JoinRefusal, OpeningError,
    StartError,
};
pub use self::events::{ClusterEvent, EVENTS_KEPT, EventId, Events, EventsLost, InvalidEventId};
pub use self::handle::{ClusterKit, LEAVE_TIMEOUT, NotAdopted, Route, TopologyWatch};
pub use self::lease::{Lease, LeaseLost, Permit};
pub use self::status::{ControlPlaneStatus, MoveStatus, NodeShare, Stats, Status};
pub use self::stop_check::{StopCheck, StopReason};

/// The examples of the front page of the project, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct FrontPage;
