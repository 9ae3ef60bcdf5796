//! Errors as RFC 9457 wants them, and the one table from what went wrong to a status code.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use clusterkit_core::control::Rejected;
use clusterkit_core::id::PartitionId;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ChangeError;

/// The media type of a [`ProblemBody`].
pub(super) const PROBLEM_JSON: &str = "application/problem+json";
/// Where each code is explained.
const TYPE_PREFIX: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/http.md#");

/// When a client may come back that was sent away because of what passes: an election takes about a second.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What went wrong, as a word for programs. docs/http.md explains each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Code {
    /// The request body is too large.
    BodyTooLarge,
    /// The request body took too long.
    BodyTooSlow,
    /// No controller is known.
    ControllerUnknown,
    /// The keys lie in several partitions.
    CrossPartition,
    /// Another web site may not change anything here.
    CrossSite,
    /// The entry is there already.
    Exists,
    /// The node still holds replicas.
    HoldsReplicas,
    /// An error inside the server.
    Internal,
    /// A value cannot be used.
    InvalidValue,
    /// A node joins by itself.
    JoinFromNode,
    /// There is no such key.
    KeyNotFound,
    /// The request body is not JSON.
    MalformedJson,
    /// The route has no such method.
    MethodNotAllowed,
    /// A value is missing.
    MissingParameter,
    /// No controller can be reached.
    NoController,
    /// This node has stopped.
    NodeStopped,
    /// The value is not a number.
    NotANumber,
    /// A replica is away.
    NotAllReplicas,
    /// Too few replicas can be reached.
    NotEnoughReplicas,
    /// The cluster has not formed yet.
    NotFormed,
    /// There is no such route.
    NotFound,
    /// This node holds no copy of the partition.
    NotHeld,
    /// Another node leads the partition.
    NotLeader,
    /// The number would leave its range.
    NumberOverflow,
    /// The outcome is unknown.
    OutcomeUnknown,
    /// Too much is under way.
    Overloaded,
    /// The cluster refused the change.
    Refused,
    /// The session is over.
    SessionExpired,
    /// Too much of this is under way.
    TooBusy,
    /// Something is above its limit.
    TooLarge,
    /// Nobody leads the partition just now.
    Unavailable,
    /// The change is still under way.
    UnderWay,
    /// A field is not known.
    UnknownField,
    /// There is no such node.
    UnknownNode,
    /// There is no such partition.
    UnknownPartition,
    /// The request body must be JSON.
    UnsupportedMediaType,
    /// The entry has another version.
    VersionMismatch,
    /// Data would be lost.
    WouldLoseData,
}

/// What a code means to HTTP and to people.
pub(super) struct Row {
    pub(super) status: StatusCode,
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// Whether the same request may succeed later.
    pub(super) retryable: bool,
}

const fn row(status: StatusCode, name: &'static str, title: &'static str, retryable: bool) -> Row {
    Row { status, name, title, retryable }
}

impl Code {
    /// Every code.
    #[cfg(test)]
    const ALL: [Self; 38] = [
        Self::BodyTooLarge,
        Self::BodyTooSlow,
        Self::ControllerUnknown,
        Self::CrossPartition,
        Self::CrossSite,
        Self::Exists,
        Self::HoldsReplicas,
        Self::Internal,
        Self::InvalidValue,
        Self::JoinFromNode,
        Self::KeyNotFound,
        Self::MalformedJson,
        Self::MethodNotAllowed,
        Self::MissingParameter,
        Self::NoController,
        Self::NodeStopped,
        Self::NotANumber,
        Self::NotAllReplicas,
        Self::NotEnoughReplicas,
        Self::NotFormed,
        Self::NotFound,
        Self::NotHeld,
        Self::NotLeader,
        Self::NumberOverflow,
        Self::OutcomeUnknown,
        Self::Overloaded,
        Self::Refused,
        Self::SessionExpired,
        Self::TooBusy,
        Self::TooLarge,
        Self::Unavailable,
        Self::UnderWay,
        Self::UnknownField,
        Self::UnknownNode,
        Self::UnknownPartition,
        Self::UnsupportedMediaType,
        Self::VersionMismatch,
        Self::WouldLoseData,
    ];

    /// Its name, as it stands in the field `code`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The table.
    #[rustfmt::skip]
    pub(super) const fn row(self) -> Row {
        use StatusCode as S;
        match self {
            Self::BodyTooLarge => row(S::PAYLOAD_TOO_LARGE, "body_too_large", "The request body is too large", false),
            Self::BodyTooSlow => row(S::REQUEST_TIMEOUT, "body_too_slow", "The request body took too long", true),
            Self::ControllerUnknown => row(S::NOT_FOUND, "controller_unknown", "No controller is known", true),
            Self::CrossPartition => row(S::BAD_REQUEST, "cross_partition", "The keys lie in several partitions", false),
            Self::CrossSite => row(S::FORBIDDEN, "cross_site", "Another web site may not change anything here", false),
            Self::Exists => row(S::PRECONDITION_FAILED, "exists", "The entry is there already", false),
            Self::HoldsReplicas => row(S::CONFLICT, "holds_replicas", "The node still holds replicas", false),
            Self::Internal => row(S::INTERNAL_SERVER_ERROR, "internal", "An error inside the server", true),
            Self::InvalidValue => row(S::BAD_REQUEST, "invalid_value", "A value cannot be used", false),
            Self::JoinFromNode => row(S::CONFLICT, "join_from_node", "A node joins by itself", false),
            Self::KeyNotFound => row(S::NOT_FOUND, "not_found_key", "There is no such key", false),
            Self::MalformedJson => row(S::BAD_REQUEST, "malformed_json", "The request body is not JSON", false),
            Self::MethodNotAllowed => row(S::METHOD_NOT_ALLOWED, "method_not_allowed", "The route has no such method", false),
            Self::MissingParameter => row(S::BAD_REQUEST, "missing_parameter", "A value is missing", false),
            Self::NoController => row(S::SERVICE_UNAVAILABLE, "no_controller", "No controller can be reached", true),
            Self::NodeStopped => row(S::SERVICE_UNAVAILABLE, "node_stopped", "This node has stopped", true),
            Self::NotANumber => row(S::CONFLICT, "not_a_number", "The value is not a number", false),
            Self::NotAllReplicas => row(S::SERVICE_UNAVAILABLE, "not_all_replicas", "A replica is away", true),
            Self::NotEnoughReplicas => row(S::SERVICE_UNAVAILABLE, "not_enough_replicas", "Too few replicas can be reached", true),
            Self::NotFormed => row(S::SERVICE_UNAVAILABLE, "not_formed", "The cluster has not formed yet", true),
            Self::NotFound => row(S::NOT_FOUND, "not_found", "There is no such route", false),
            Self::NotHeld => row(S::MISDIRECTED_REQUEST, "not_held", "This node holds no copy of the partition", true),
            Self::NotLeader => row(S::MISDIRECTED_REQUEST, "not_leader", "Another node leads the partition", true),
            Self::NumberOverflow => row(S::CONFLICT, "number_overflow", "The number would leave its range", false),
            Self::OutcomeUnknown => row(S::GATEWAY_TIMEOUT, "outcome_unknown", "The outcome is unknown", true),
            Self::Overloaded => row(S::TOO_MANY_REQUESTS, "overloaded", "Too much is under way", true),
            Self::Refused => row(S::CONFLICT, "refused", "The cluster refused the change", false),
            Self::SessionExpired => row(S::GONE, "session_expired", "The session is over", false),
            Self::TooBusy => row(S::TOO_MANY_REQUESTS, "too_busy", "Too much of this is under way", true),
            Self::TooLarge => row(S::PAYLOAD_TOO_LARGE, "too_large", "Something is above its limit", false),
            Self::Unavailable => row(S::SERVICE_UNAVAILABLE, "unavailable", "Nobody leads the partition just now", true),
            Self::UnderWay => row(S::GATEWAY_TIMEOUT, "under_way", "The change is still under way", true),
            Self::UnknownField => row(S::BAD_REQUEST, "unknown_field", "A field is not known", false),
            Self::UnknownNode => row(S::NOT_FOUND, "unknown_node", "There is no such node", false),
            Self::UnknownPartition => row(S::NOT_FOUND, "unknown_partition", "There is no such partition", false),
            Self::UnsupportedMediaType => row(S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The request body must be JSON", false),
            Self::VersionMismatch => row(S::PRECONDITION_FAILED, "version_mismatch", "The entry has another version", false),
            Self::WouldLoseData => row(S::CONFLICT, "would_lose_data", "Data would be lost", false),
        }
    }

    /// The code of an error answer that carries no body, if it stands for one.
    fn of_bare(status: StatusCode) -> Option<Self> {
        let bare = [Self::NotFound, Self::MethodNotAllowed, Self::BodyTooLarge, Self::Internal];
        bare.into_iter().find(|code| code.row().status == status)
    }
}

/// An error on its way to the client, which a handler gives instead of an answer. The port writes it as RFC
/// 9457 wants it. A client that may come back soon is told by `Retry-After`.
#[derive(Debug, Clone)]
pub struct Problem {
    code: Code,
    detail: String,
    partition: Option<u32>,
    leader: Option<String>,
    reasons: Vec<String>,
}

impl Problem {
    /// A problem of this kind. `detail` says in a sentence without its full stop what is wrong this time, and
    /// what helps.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), partition: None, leader: None, reasons: Vec::new() }
    }

    pub(super) fn unknown_node(node: impl std::fmt::Display, meant: Option<&str>) -> Self {
        let hint = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        Self::new(Code::UnknownNode, format!("no node is called \"{node}\"{hint}"))
    }

    pub(super) fn not_formed() -> Self {
        Self::new(
            Code::NotFormed,
            "the cluster has not formed yet, so there are no partitions; try again later",
        )
    }

    /// What kind of problem it is.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// What is wrong this time.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The partition that it is about.
    #[must_use]
    pub fn partition(mut self, partition: PartitionId) -> Self {
        self.partition = Some(partition.0);
        self
    }

    /// The public address of who leads that partition.
    #[must_use]
    pub fn leader(mut self, public_addr: impl Into<String>) -> Self {
        self.leader = Some(public_addr.into());
        self
    }

    /// What stands in the way, one sentence each.
    #[must_use]
    pub fn reasons(mut self, reasons: impl IntoIterator<Item = String>) -> Self {
        self.reasons = reasons.into_iter().collect();
        self
    }

    fn body(self, instance: &str, request_id: &str) -> ProblemBody {
        let row = self.code.row();
        ProblemBody {
            r#type: format!("{TYPE_PREFIX}{}", row.name),
            title: row.title,
            status: row.status.as_u16(),
            detail: self.detail,
            instance: instance.to_owned(),
            code: row.name,
            request_id: request_id.to_owned(),
            retryable: row.retryable,
            partition: self.partition,
            leader: self.leader,
            reasons: self.reasons,
        }
    }
}

/// The body is written at the edge, which knows the request.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let row = self.code.row();
        let mut response = row.status.into_response();
        let is_soon = matches!(row.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        if row.retryable && is_soon {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER.as_secs()));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives `response` its problem body when it is an error without one. Headers stay.
pub(super) fn render(mut response: Response, instance: &str, request_id: &str) -> Response {
    let carried = response.extensions_mut().remove::<Problem>();
    let bare = || {
        let has_body = response.headers().contains_key(header::CONTENT_TYPE);
        let code = Code::of_bare(response.status()).filter(|_| !has_body)?;
        Some(Problem::new(code, bare_detail(code, instance)))
    };
    let Some(problem) = carried.or_else(bare) else { return response };
    let headers = std::mem::take(response.headers_mut());
    let status = problem.code.row().status;
    let mut rendered = (status, Json(problem.body(instance, request_id))).into_response();
    let kept = headers.into_iter().filter_map(|(name, value)| Some((name?, value)));
    rendered.headers_mut().extend(kept.filter(|(name, _)| *name != header::CONTENT_LENGTH));
    rendered.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    rendered
}

fn bare_detail(code: Code, instance: &str) -> String {
    match code {
        Code::NotFound => format!("there is no route {instance}; /v1/openapi.json lists those that are"),
        Code::MethodNotAllowed => {
            format!("{instance} does not take this method; the header `allow` names those it takes")
        }
        other => other.row().title.to_owned(),
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let detail = error.to_string();
        match error {
            ChangeError::Rejected(rejected) => rejected.into(),
            ChangeError::NoController => Self::new(Code::NoController, detail),
            ChangeError::OutcomeUnknown => Self::new(Code::OutcomeUnknown, detail),
            ChangeError::UnderWay { .. } => Self::new(Code::UnderWay, detail),
            ChangeError::Stopped => Self::new(Code::NodeStopped, detail),
        }
    }
}

impl From<Rejected> for Problem {
    fn from(rejected: Rejected) -> Self {
        let detail = rejected.to_string();
        match rejected {
            Rejected::HoldsReplicas { .. } => Self::new(Code::HoldsReplicas, detail),
            Rejected::Invalid { .. } => Self::new(Code::InvalidValue, detail),
            Rejected::NotFormed => Self::new(Code::NotFormed, detail),
            Rejected::UnknownNode { .. } => Self::new(Code::UnknownNode, detail),
            Rejected::UnknownPartition { partition } => {
                Self::new(Code::UnknownPartition, detail).partition(partition)
            }
            Rejected::WouldLoseData { partitions } => {
                let reasons =
                    partitions.iter().map(|partition| format!("{partition} has no other good copy"));
                Self::new(Code::WouldLoseData, detail).reasons(reasons)
            }
            _ => Self::new(Code::Refused, detail),
        }
    }
}

/// An error, as RFC 9457 describes it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    /// Where the error is explained.
    r#type: String,
    /// What went wrong, the same text for every error of this code.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What went wrong this time, and what helps.
    detail: String,
    /// The path that was asked for.
    instance: String,
    /// What went wrong, for programs.
    code: &'static str,
    /// The id of the request, also in the header `x-request-id`.
    request_id: String,
    /// Whether the same request may succeed later.
    retryable: bool,
    /// The partition that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    /// The public address of who leads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<String>,
    /// What stands in the way, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_listed_once_and_is_an_error() {
        let names: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.row().name).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            let row = code.row();
            assert!(row.status.is_client_error() || row.status.is_server_error(), "{}", row.name);
        }
    }

    #[test]
    fn every_code_is_explained_where_its_type_points_to() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/http.md");
        let page = std::fs::read_to_string(page).expect("docs/http.md");
        for code in Code::ALL {
            let row = code.row();
            let heading = format!("### {}\n\n{} ", row.name, row.status.as_u16());
            assert!(page.contains(&heading), "docs/http.md lacks {heading:?}");
        }
    }

    #[test]
    fn headers_of_a_bare_error_stay() {
        let mut bare = StatusCode::METHOD_NOT_ALLOWED.into_response();
        bare.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET,HEAD"));
        let rendered = render(bare, "/livez", "r1");
        assert_eq!(rendered.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(rendered.headers()[header::ALLOW], "GET,HEAD");
        assert_eq!(rendered.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
    }

    #[test]
    fn an_answer_with_a_body_of_its_own_stays_as_it_is() {
        let answer = (StatusCode::NOT_FOUND, "no such file").into_response();
        let rendered = render(answer, "/ui/x", "r1");
        assert_eq!(rendered.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    }
}
