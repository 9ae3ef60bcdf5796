//! The control plane as one Raft group on openraft. No type of that crate leaves this module.

mod config;
mod files;
#[cfg(test)]
mod golden;
mod group;
mod log_store;
mod log_worker;
mod network;
mod quorum;
mod state_machine;
mod types;

pub(crate) use self::config::ELECTION_TIMEOUT_MAX;
pub(crate) use self::files::RaftFiles;
pub(crate) use self::group::{
    Leadership, ProposeError, RaftGroup, RaftIdentity, RaftNodeStats, RaftOptions, View,
};
pub(crate) use self::log_worker::IoMode;
pub(crate) use self::network::AddressBook;
