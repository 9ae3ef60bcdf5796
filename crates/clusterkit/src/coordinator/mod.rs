//! Where the control plane lives: an embedded Raft group.

pub(crate) mod raft;
