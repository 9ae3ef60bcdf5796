//! Every decision of the client, without clock, IO or chance: they are told.

mod breaker;
mod budget;
mod choice;
mod pursuit;
mod routes;
mod sessions;

pub(crate) use breaker::Breaker;
pub(crate) use budget::Budget;
pub(crate) use choice::{Candidates, Choice, choose};
pub(crate) use pursuit::{Ending, Pursuit, Step, share};
pub(crate) use routes::{InvalidTopology, Routes};
pub(crate) use sessions::{Claim, SessionId, Sessions, Ticket};
