//! Why a call failed, and whether it may have done something.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::id::PartitionId;

use crate::Version;
use crate::limits::REASONS_MAX;

/// A call failed.
///
/// Whether it may have done something is said by [`may_have_taken_effect`](Self::may_have_taken_effect): of writes,
/// only [`OutcomeUnknown`](Self::OutcomeUnknown) may have.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The key was to be missing. Nothing changed; read it, and decide anew.
    #[error("the key is there already: {problem}")]
    AlreadyExists {
        /// The version that it has, where the node said it.
        current: Option<Version>,
        /// What the node said.
        problem: Box<Problem>,
    },
    /// Something about the call is wrong. Nothing changed, and a retry cannot help.
    #[error("{problem}")]
    InvalidArgument {
        /// What is wrong.
        problem: Box<Problem>,
    },
    /// The value is not the decimal text of an `i64`. Nothing changed; a retry helps once somebody puts another.
    #[error("the value is not a number: {problem}")]
    NotANumber {
        /// What the node said.
        problem: Box<Problem>,
    },
    /// The number would leave the range of an `i64`. Nothing changed.
    #[error("the number would be too large or too small: {problem}")]
    NumberOverflow {
        /// What the node said.
        problem: Box<Problem>,
    },
    /// The write may or may not have taken effect, and may still. Read the key before writing again.
    #[error("whether the write took effect is not known: {reasons}")]
    OutcomeUnknown {
        /// How the attempts ended.
        reasons: Box<Reasons>,
    },
    /// The nodes had too much to do, or this client has too much under way, for as long as the call could wait.
    /// Nothing changed. Retry later, and less often.
    #[error("overloaded: {reasons}")]
    Overloaded {
        /// How long the node asks to wait.
        retry_after: Option<Duration>,
        /// How the attempts ended.
        reasons: Box<Reasons>,
    },
    /// What a node answered is none of its answers. A write may have taken effect. Does the address belong to a node
    /// of ClusterKit, of a release that this client knows?
    #[error("the answer cannot be understood: {fault}")]
    Protocol {
        /// What is wrong with it.
        fault: ProtocolFault,
        /// The id of the request.
        request_id: String,
        /// What the decoder said.
        source: Option<Arc<dyn StdError + Send + Sync>>,
    },
    /// The cluster refused the call for a reason without a variant of its own; [`code`](Self::code) has it. Nothing
    /// changed.
    #[error("refused: {problem}")]
    Refused {
        /// What the node said.
        problem: Box<Problem>,
    },
    /// A key, a value or a batch is above its limit. Nothing changed, and a retry cannot help.
    #[error("too large: {problem}")]
    TooLarge {
        /// What is too large.
        problem: Box<Problem>,
    },
    /// No node served the call before its deadline. Nothing changed; a retry may help.
    #[error("unavailable: {reasons}")]
    Unavailable {
        /// How the attempts ended.
        reasons: Box<Reasons>,
    },
    /// The key has another version than the one that was named, or is missing. Nothing changed; read it, and decide
    /// anew.
    #[error("the key has another version: {problem}")]
    VersionMismatch {
        /// The version that it has. Nothing if it is missing, or if the node did not say.
        current: Option<Version>,
        /// What the node said.
        problem: Box<Problem>,
    },
}

impl Error {
    /// Whether the same call may succeed later. Where it [may have taken effect](Self::may_have_taken_effect), it
    /// may then do so twice.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::OutcomeUnknown { .. } | Self::Overloaded { .. } | Self::Unavailable { .. } => true,
            Self::Refused { problem } => problem.retryable,
            _ => false,
        }
    }

    /// Whether the call, if it was a write, may have changed something or may still change it.
    #[must_use]
    pub fn may_have_taken_effect(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { .. } | Self::Protocol { .. })
    }

    /// What went wrong, as a word for programs: the code of the node's answer, if it was one that ended the call.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::OutcomeUnknown { .. } => "outcome_unknown",
            Self::Overloaded { .. } => "overloaded",
            Self::Protocol { .. } => "protocol",
            Self::Unavailable { .. } => "unavailable",
            Self::AlreadyExists { problem, .. }
            | Self::InvalidArgument { problem }
            | Self::NotANumber { problem }
            | Self::NumberOverflow { problem }
            | Self::Refused { problem }
            | Self::TooLarge { problem }
            | Self::VersionMismatch { problem, .. } => problem.code(),
        }
    }

    /// The id under which the nodes' logs have the call. None if it was refused before it was sent.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::OutcomeUnknown { reasons }
            | Self::Overloaded { reasons, .. }
            | Self::Unavailable { reasons } => Some(reasons.request_id()),
            Self::Protocol { request_id, .. } => Some(request_id),
            Self::AlreadyExists { problem, .. }
            | Self::InvalidArgument { problem }
            | Self::NotANumber { problem }
            | Self::NumberOverflow { problem }
            | Self::Refused { problem }
            | Self::TooLarge { problem }
            | Self::VersionMismatch { problem, .. } => problem.request_id(),
        }
    }

    pub(crate) fn invalid(detail: &'static str) -> Self {
        Self::InvalidArgument { problem: Box::new(Problem::here("invalid_value", detail)) }
    }

    pub(crate) fn too_large(detail: &'static str) -> Self {
        Self::TooLarge { problem: Box::new(Problem::here("too_large", detail)) }
    }

    pub(crate) fn protocol(fault: ProtocolFault, request_id: &str) -> Self {
        Self::Protocol { fault, request_id: request_id.to_owned(), source: None }
    }
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolFault {
    /// The body is not the JSON that the route answers with.
    #[error("the body is not what the route answers with")]
    Body,
    /// A header is missing or unreadable.
    #[error("a header is missing or unreadable")]
    Header,
    /// The answer has another number of results than the request had parts.
    #[error("there are not as many results as there were questions")]
    ResultCount,
    /// The node has no such route: its release is older, or its key-value service is off.
    #[error("the node has no key-value service")]
    RouteMissing,
    /// A status that the route does not give.
    #[error("the route does not answer with this status")]
    Status,
}

/// What a node said of a call that it did not do, as RFC 9457 has it; or what this client said before it sent anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub(crate) code: Cow<'static, str>,
    pub(crate) detail: Cow<'static, str>,
    pub(crate) request_id: Option<String>,
    pub(crate) retryable: bool,
    pub(crate) partition: Option<PartitionId>,
    pub(crate) reasons: Vec<String>,
}

impl Problem {
    fn here(code: &'static str, detail: &'static str) -> Self {
        Self {
            code: Cow::Borrowed(code),
            detail: Cow::Borrowed(detail),
            request_id: None,
            retryable: false,
            partition: None,
            reasons: Vec::new(),
        }
    }

    /// What went wrong, as a word for programs.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What went wrong, and what helps.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The id under which the node's log has the call.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// Which partition it is about.
    #[must_use]
    pub fn partition(&self) -> Option<PartitionId> {
        self.partition
    }

    /// What stands in the way, one sentence each.
    #[must_use]
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.detail.is_empty() { &self.code } else { &self.detail })
    }
}

/// How the attempts of a call ended: the newest eight, oldest first.
#[derive(Debug, Clone)]
pub struct Reasons {
    request_id: String,
    reasons: Vec<Reason>,
}

impl Reasons {
    pub(crate) fn new(request_id: String) -> Self {
        Self { request_id, reasons: Vec::new() }
    }

    pub(crate) fn push(&mut self, node: &str, cause: Cause) {
        if self.reasons.len() == REASONS_MAX {
            self.reasons.remove(0);
        }
        self.reasons.push(Reason { node: node.to_owned(), cause });
    }

    /// The id under which the nodes' logs have the call.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// How each attempt ended, oldest first. None if the time was up before the first.
    pub fn iter(&self) -> impl Iterator<Item = &Reason> {
        self.reasons.iter()
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reasons.is_empty() {
            return f.write_str("the time was up");
        }
        for (at, reason) in self.reasons.iter().enumerate() {
            write!(f, "{}{reason}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// How one attempt ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Reason {
    /// The address that was asked; empty where there was none to ask.
    pub node: String,
    /// How it ended.
    pub cause: Cause,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node.as_str() {
            "" => self.cause.fmt(f),
            node => write!(f, "{node}: {}", self.cause),
        }
    }
}

/// Why an attempt brought nothing.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The node said so.
    #[error("{0}")]
    Answered(Box<Problem>),
    /// The connection broke, so that the node may have done it.
    #[error("the connection broke")]
    Lost(#[source] Arc<dyn StdError + Send + Sync>),
    /// Another node leads by now, so that the answer was not waited for.
    #[error("it leads no longer")]
    Moved,
    /// It is no member of a cluster yet.
    #[error("the cluster has not formed yet")]
    NotFormed,
    /// No address is known that a request could go to.
    #[error("no node is known")]
    NoNode,
    /// The answer did not come in time, so that the node may have done it.
    #[error("no answer in time")]
    TimedOut,
    /// No connection could be made, so that nothing was sent.
    #[error("it cannot be reached")]
    Unreachable(#[source] Arc<dyn StdError + Send + Sync>),
}
