//! What one call has been through.

use std::time::Duration;

use crate::error::{Cause, Error, Reasons};
use crate::plan::Pursuit;

#[derive(Debug)]
pub(super) struct Course {
    pub(super) pursuit: Pursuit,
    pub(super) reasons: Reasons,
    /// Whom the newest answer named as the leader.
    pub(super) leader: Option<String>,
    /// Addresses that brought no answer in this call.
    pub(super) failed: Vec<String>,
    /// Whether a request is on its way.
    pub(super) is_under_way: bool,
    /// Whether the newest attempt was turned away for lack of room, and how long it was to wait.
    pub(super) overload: Option<Option<Duration>>,
}

impl Course {
    pub(super) fn new(request_id: String, is_repeatable: bool) -> Self {
        Self {
            pursuit: Pursuit::new(is_repeatable),
            reasons: Reasons::new(request_id),
            leader: None,
            failed: Vec::new(),
            is_under_way: false,
            overload: None,
        }
    }

    pub(super) fn note(&mut self, addr: &str, cause: Cause) {
        self.is_under_way = false;
        self.reasons.push(addr, cause);
    }

    /// `addr` brought no answer: others have their turn first.
    pub(super) fn pass_over(&mut self, addr: &str) {
        if !self.failed.iter().any(|failed| failed == addr) {
            self.failed.push(addr.to_owned());
        }
    }

    /// The error of a call that ended without an answer.
    pub(super) fn end(self, is_write: bool) -> Error {
        let reasons = Box::new(self.reasons);
        if is_write && (self.is_under_way || self.pursuit.is_unknown()) {
            return Error::OutcomeUnknown { reasons };
        }
        match self.overload {
            Some(retry_after) => Error::Overloaded { retry_after, reasons },
            None => Error::Unavailable { reasons },
        }
    }
}
