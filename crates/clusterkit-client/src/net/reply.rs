//! What an answer says.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use clusterkit_core::id::PartitionId;
use hyper::header::{ETAG, RETRY_AFTER};
use hyper::{HeaderMap, Response, StatusCode};
use serde::de::DeserializeOwned;

use super::http::SendError;
use crate::error::{Cause, Error, Problem, ProtocolFault};
use crate::kv::Version;
use crate::plan::Ending;
use crate::wire::{self, ProblemBody};

/// An answer that ends its call.
#[derive(Debug)]
pub(crate) struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    pub(crate) body: Bytes,
    request_id: String,
}

/// What an answer means for its call.
#[derive(Debug)]
pub(super) enum Verdict {
    Again(Ending, Box<Problem>),
    Final(Result<Reply, Error>),
}

/// What an answer tells beside that.
#[derive(Debug, Default)]
pub(super) struct Marks {
    pub(super) partition: Option<PartitionId>,
    pub(super) epoch: Option<u64>,
    pub(super) index: Option<u64>,
    pub(super) version: Option<u64>,
    /// The address of who leads, when it is not the node that answers, and since which epoch where that is told.
    pub(super) leader: Option<String>,
    pub(super) leader_epoch: Option<u64>,
}

impl Marks {
    pub(super) fn of(answer: &Response<Bytes>) -> Self {
        let number = |name: &str| text(answer.headers(), name)?.parse().ok();
        let body = if answer.status() == StatusCode::MISDIRECTED_REQUEST {
            body(answer)
        } else {
            ProblemBody::default()
        };
        Self {
            partition: number("ck-partition")
                .and_then(|id| u32::try_from(id).ok())
                .or(body.partition)
                .map(PartitionId),
            epoch: number("ck-epoch"),
            index: number("ck-index"),
            version: number("ck-topology"),
            leader: body.leader,
            leader_epoch: body.epoch,
        }
    }
}

/// What `answer` means. `is_to_be_missing` says that the request was for a key that is not there.
pub(super) fn judge(answer: Response<Bytes>, is_to_be_missing: bool, request_id: &str) -> Verdict {
    let status = answer.status();
    if status.is_success() {
        return Verdict::Final(Ok(Reply::new(answer, request_id)));
    }
    let problem = problem(&answer, request_id);
    if let Some(ending) = ending(status, &problem, &answer) {
        return Verdict::Again(ending, Box::new(problem));
    }
    if status == StatusCode::NOT_FOUND {
        let is_route = problem.code == "not_found" && !answer.headers().contains_key("ck-partition");
        let route_missing = || Error::protocol(ProtocolFault::RouteMissing, request_id);
        return Verdict::Final(if is_route {
            Err(route_missing())
        } else {
            Ok(Reply::new(answer, request_id))
        });
    }
    let current = text(answer.headers(), ETAG.as_str()).and_then(wire::etag);
    Verdict::Final(Err(refusal(status, problem, current.map(Version), is_to_be_missing)))
}

/// How an attempt ended that was answered so. None if the answer is final.
fn ending(status: StatusCode, problem: &Problem, answer: &Response<Bytes>) -> Option<Ending> {
    let retry_after = text(answer.headers(), RETRY_AFTER.as_str()).and_then(|seconds| seconds.parse().ok());
    let not_done = Ending::NotDone { retry_after: retry_after.map(Duration::from_secs) };
    match status {
        StatusCode::GONE => Some(Ending::SessionOver),
        StatusCode::MISDIRECTED_REQUEST => {
            Some(Ending::Misdirected { is_leader_named: body(answer).leader.is_some() })
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Some(not_done),
        StatusCode::SERVICE_UNAVAILABLE => {
            // Only a node of ClusterKit can say that it did nothing, and not one that stopped meanwhile.
            let is_unsure = matches!(problem.code(), UNKNOWN | "node_stopped" | "outcome_unknown");
            Some(if is_unsure { Ending::Unknown } else { not_done })
        }
        status if status.is_server_error() => Some(Ending::Unknown),
        _ => None,
    }
}

/// The one table from statuses and codes to errors.
pub(crate) fn refusal(
    status: StatusCode,
    problem: Problem,
    current: Option<Version>,
    is_to_be_missing: bool,
) -> Error {
    let problem = Box::new(problem);
    match (status, problem.code()) {
        (_, "not_a_number") => Error::NotANumber { problem },
        (_, "number_overflow") => Error::NumberOverflow { problem },
        (_, "invalid_value") => Error::InvalidArgument { problem },
        (_, "too_large") => Error::TooLarge { problem },
        (_, "exists") => Error::AlreadyExists { current, problem },
        (StatusCode::PRECONDITION_FAILED, _) if is_to_be_missing => Error::AlreadyExists { current, problem },
        (StatusCode::PRECONDITION_FAILED, _) => Error::VersionMismatch { current, problem },
        (StatusCode::BAD_REQUEST, _) => Error::InvalidArgument { problem },
        (StatusCode::PAYLOAD_TOO_LARGE | StatusCode::URI_TOO_LONG, _) => Error::TooLarge { problem },
        (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, _) => Error::TooLarge { problem },
        (status, _) if status.is_client_error() => Error::Refused { problem },
        _ => Error::protocol(ProtocolFault::Status, problem.request_id().unwrap_or_default()),
    }
}

/// The code of an answer that brings none.
const UNKNOWN: &str = "unknown";

/// What a node says that did not do something.
pub(super) fn problem(answer: &Response<Bytes>, request_id: &str) -> Problem {
    let mut body = body(answer);
    if body.detail.is_empty() {
        body.detail = format!("status {}", answer.status());
    }
    problem_of(body, request_id)
}

pub(crate) fn problem_of(body: ProblemBody, request_id: &str) -> Problem {
    Problem {
        code: if body.code.is_empty() { UNKNOWN.into() } else { body.code.into() },
        detail: body.detail.into(),
        request_id: Some(body.request_id.unwrap_or_else(|| request_id.to_owned())),
        retryable: body.retryable,
        partition: body.partition.map(PartitionId),
        reasons: body.reasons,
    }
}

fn body(answer: &Response<Bytes>) -> ProblemBody {
    serde_json::from_slice(answer.body()).unwrap_or_default()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

impl Reply {
    fn new(answer: Response<Bytes>, request_id: &str) -> Self {
        let (head, body) = answer.into_parts();
        Self { status: head.status, headers: head.headers, body, request_id: request_id.to_owned() }
    }

    /// None if the key was missing.
    pub(crate) fn unless_missing(self) -> Option<Self> {
        (self.status != StatusCode::NOT_FOUND).then_some(self)
    }

    /// What was done. A key that was missing was to be there.
    pub(crate) fn done(self) -> Result<Self, Error> {
        if self.status != StatusCode::NOT_FOUND {
            return Ok(self);
        }
        let body = serde_json::from_slice(&self.body).unwrap_or_default();
        Err(Error::VersionMismatch { current: None, problem: Box::new(problem_of(body, &self.request_id)) })
    }

    pub(crate) fn version(&self) -> Result<Version, Error> {
        let version = text(&self.headers, ETAG.as_str()).and_then(wire::etag).map(Version);
        version.ok_or_else(|| Error::protocol(ProtocolFault::Header, &self.request_id))
    }

    /// None if the entry does not expire.
    pub(crate) fn expires_at(&self) -> Result<Option<SystemTime>, Error> {
        let Some(at) = text(&self.headers, "ck-expires-at") else { return Ok(None) };
        let unreadable = || Error::protocol(ProtocolFault::Header, &self.request_id);
        wire::time(at).map(Some).ok_or_else(unreadable)
    }

    pub(crate) fn request_id(&self) -> &str {
        &self.request_id
    }

    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Protocol {
            fault: ProtocolFault::Body,
            request_id: self.request_id.clone(),
            source: Some(Arc::new(error)),
        })
    }

    pub(crate) fn malformed(&self) -> Error {
        Error::protocol(ProtocolFault::Body, &self.request_id)
    }
}

impl From<SendError> for Cause {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Lost(source) => Self::Lost(source.into()),
            SendError::Unreachable(source) => Self::Unreachable(source.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
        let mut answer = Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        if code == "version_mismatch" {
            answer = answer.header("etag", "\"7\"");
        }
        let body = format!(r#"{{"code":"{code}","leader":"n2:1","epoch":4,"retryable":true}}"#);
        answer.body(if code.is_empty() { Bytes::new() } else { body.into() }).unwrap()
    }

    #[test]
    fn answers_that_are_not_final_say_what_is_known_of_the_attempt() {
        let check = |status, code, headers: &[(&str, &str)], expect| match judge(
            answer(status, code, headers),
            false,
            "r",
        ) {
            Verdict::Again(ending, _) => assert_eq!(ending, expect, "{status} {code}"),
            Verdict::Final(ended) => panic!("{status} {code}: {ended:?}"),
        };
        let not_done =
            |seconds: Option<u64>| Ending::NotDone { retry_after: seconds.map(Duration::from_secs) };
        check(410, "session_expired", &[], Ending::SessionOver);
        check(421, "not_leader", &[], Ending::Misdirected { is_leader_named: true });
        check(421, "", &[], Ending::Misdirected { is_leader_named: false });
        check(429, "too_busy", &[("retry-after", "3")], not_done(Some(3)));
        check(503, "unavailable", &[], not_done(None));
        check(503, "node_stopped", &[], Ending::Unknown);
        check(503, "", &[], Ending::Unknown);
        check(500, "internal", &[], Ending::Unknown);
        check(504, "outcome_unknown", &[], Ending::Unknown);
    }

    #[test]
    fn answers_that_are_final_become_errors_by_status_and_code() {
        let check = |status, code, is_to_be_missing, expect: &str| match judge(
            answer(status, code, &[]),
            is_to_be_missing,
            "r",
        ) {
            Verdict::Again(ending, _) => panic!("{status} {code}: {ending:?}"),
            Verdict::Final(ended) => {
                let shown = format!("{:?}", ended.map(|_| ()));
                assert!(shown.starts_with(expect), "{status} {code}: {shown}");
            }
        };
        check(204, "", false, "Ok");
        check(400, "invalid_value", false, "Err(InvalidArgument");
        check(404, "not_found_key", false, "Ok");
        check(404, "", false, "Ok");
        check(404, "not_found", false, "Err(Protocol { fault: RouteMissing");
        check(409, "not_a_number", false, "Err(NotANumber");
        check(409, "of_tomorrow", false, "Err(Refused");
        check(412, "version_mismatch", false, "Err(VersionMismatch { current: Some(Version(7))");
        check(412, "exists", false, "Err(AlreadyExists { current: None");
        check(412, "", true, "Err(AlreadyExists { current: None");
        check(413, "body_too_large", false, "Err(TooLarge");
        check(302, "", false, "Err(Protocol { fault: Status");
    }
}
