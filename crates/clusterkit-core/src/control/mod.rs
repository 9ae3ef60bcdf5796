//! The control plane's decisions: what a command does, and which commands come next.
//!
//! [`ControlState`] is the replicated state machine: every node applies the same commands in the
//! same order and has the same state. [`Controller`] runs on the one node that leads the control
//! plane, watches facts and asks for commands.

mod apply;
mod check;
mod command;
mod controller;
mod doubt;
mod election;
mod form;
mod pauses;
mod reconcile;
mod reports;
mod stalls;
mod state;
mod voters;

pub use self::check::InvalidState;
pub use self::command::{
    Applied, Command, InSyncProposal, InvalidReason, LivenessChange, MemberStatus, Registration, Rejected,
};
pub use self::controller::{Action, Controller, ControllerConfig};
pub use self::form::{FirstTable, MemberIndex};
pub use self::reconcile::{Ballot, Declined, Facts, Limits, reconcile};
pub use self::state::ControlState;
pub use self::voters::{VoterSet, VoterStep, next_voter_step, voters_wanted};

#[cfg(test)]
mod tests;
