//! What a failure of the service means to HTTP.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use clusterkit::http::{Code, Problem};
use clusterkit::{ClusterKit, NodeId, PartitionId};
use clusterkit_data::{QueryError, WriteError};
use clusterkit_services::kv::{KvError, Refusal, Version};

use super::answer::etag;
use super::wish::Origin;

/// The kind of problem that a failure is.
pub(crate) fn code(error: &KvError) -> Code {
    match error {
        KvError::CrossPartition { .. } => Code::CrossPartition,
        KvError::Query(error) => code_of_query(error),
        KvError::Refused(refused) => code_of_refusal(&refused.refusal),
        KvError::Write(error) => code_of_write(error),
        // The answer of a newer version: whether anything changed is not known.
        _ => Code::Internal,
    }
}

fn code_of_query(error: &QueryError) -> Code {
    match error {
        QueryError::NoPartition => Code::NotFormed,
        QueryError::NotLeader { .. } => Code::NotLeader,
        QueryError::Overloaded => Code::Overloaded,
        QueryError::Stopped => Code::NodeStopped,
        _ => Code::Unavailable,
    }
}

fn code_of_refusal(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::Exists { .. } => Code::Exists,
        Refusal::NotANumber => Code::NotANumber,
        Refusal::NotFound => Code::KeyNotFound,
        Refusal::NumberOverflow => Code::NumberOverflow,
        Refusal::TooLarge { .. } => Code::TooLarge,
        Refusal::VersionMismatch { .. } => Code::VersionMismatch,
        _ => Code::InvalidValue,
    }
}

fn code_of_write(error: &WriteError) -> Code {
    match error {
        WriteError::NoPartition => Code::NotFormed,
        WriteError::NotAllReplicas => Code::NotAllReplicas,
        WriteError::NotEnoughReplicas { .. } => Code::NotEnoughReplicas,
        WriteError::NotLeader { .. } => Code::NotLeader,
        WriteError::Overloaded => Code::Overloaded,
        WriteError::SessionExpired | WriteError::SessionTooOld => Code::SessionExpired,
        WriteError::SessionNeedsQuorum => Code::InvalidValue,
        WriteError::Stopped => Code::NodeStopped,
        WriteError::EffectTooLarge(_) | WriteError::TooLarge { .. } => Code::TooLarge,
        WriteError::Unavailable => Code::Unavailable,
        // Also what a newer version may add: then nothing is promised.
        _ => Code::OutcomeUnknown,
    }
}

/// What is wrong, in a sentence.
pub(crate) fn detail(error: &KvError) -> String {
    match error {
        KvError::Refused(refused) if refused.position > 0 => {
            format!("operation {}: {}", refused.position, refused.refusal)
        }
        KvError::Refused(refused) => refused.refusal.to_string(),
        other => other.to_string(),
    }
}

/// Who leads instead.
fn leader(error: &KvError) -> Option<&NodeId> {
    match error {
        KvError::Query(QueryError::NotLeader { leader, .. })
        | KvError::Write(WriteError::NotLeader { leader, .. }) => leader.as_ref(),
        _ => None,
    }
}

/// The version that stood in the way.
fn current(error: &KvError) -> Option<Version> {
    let KvError::Refused(refused) = error else { return None };
    match refused.refusal {
        Refusal::Exists { version } => Some(version),
        Refusal::VersionMismatch { current } => current,
        _ => None,
    }
}

/// The answer to a request that failed: a problem, or for one that wants to be sent to the leader, its address.
pub(crate) fn answer(
    ck: &ClusterKit,
    error: &KvError,
    partition: Option<PartitionId>,
    redirect: Option<&Origin>,
) -> Response {
    let topology = ck.topology();
    let addr = leader(error).and_then(|leader| topology.node(leader)).map(|node| node.public_addr.as_str());
    if let (Some(addr), Some(origin)) = (addr, redirect) {
        return redirection(addr, &origin.target);
    }
    let problem = Problem::new(code(error), detail(error));
    let problem = partition.into_iter().fold(problem, Problem::partition);
    let problem = addr.into_iter().fold(problem, Problem::leader);
    let mut response = problem.into_response();
    if let Some(version) = current(error) {
        response.headers_mut().insert(header::ETAG, etag(version));
    }
    response
}

/// Sends the client to another node, with the same request.
pub(crate) fn redirection(public_addr: &str, target: &str) -> Response {
    let location: [(HeaderName, HeaderValue); 1] = match format!("http://{public_addr}{target}").try_into() {
        Ok(location) => [(header::LOCATION, location)],
        Err(_) => return Problem::new(Code::Internal, "the address of the leader is none").into_response(),
    };
    (StatusCode::TEMPORARY_REDIRECT, location).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_of_a_write_says_whether_it_may_have_happened() {
        let check = |error: WriteError, expect| assert_eq!(code(&error.into()), expect);
        check(WriteError::OutcomeUnknown, Code::OutcomeUnknown);
        check(WriteError::Unavailable, Code::Unavailable);
        check(WriteError::NotEnoughReplicas { missing: vec![] }, Code::NotEnoughReplicas);
        check(WriteError::SessionTooOld, Code::SessionExpired);
        check(WriteError::Overloaded, Code::Overloaded);
    }

    #[test]
    fn refusals_name_the_operation_but_for_the_first() {
        let refused = |position| {
            KvError::Refused(clusterkit_services::kv::Refused { position, refusal: Refusal::NotFound })
        };
        assert_eq!(detail(&refused(0)), "the entry is missing");
        assert_eq!(detail(&refused(3)), "operation 3: the entry is missing");
        assert_eq!(code(&refused(3)), Code::KeyNotFound);
    }

    #[test]
    fn a_mismatch_carries_the_version_that_is_there() {
        let mismatch = |current| KvError::from(Refusal::VersionMismatch { current });
        assert_eq!(current(&mismatch(Some(Version(9)))), Some(Version(9)));
        assert_eq!(current(&mismatch(None)), None);
        assert_eq!(current(&Refusal::Exists { version: Version(4) }.into()), Some(Version(4)));
    }
}
