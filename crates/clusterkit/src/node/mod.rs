//! A running node: the tasks behind the handle, and what they share.

mod admission;
mod agent;
mod campaign;
mod claims;
mod cluster;
mod controller;
mod identity;
mod lifecycle;
pub(crate) mod message;
mod notes;
mod register;
mod service;
mod shared;
mod stages;

pub(crate) use self::lifecycle::launch;
pub(crate) use self::message::Wish;
pub(crate) use self::shared::{Phase, Shared, StopReason};
