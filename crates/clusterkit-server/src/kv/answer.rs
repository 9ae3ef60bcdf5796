//! The shapes of answers, and the headers that say where they stand in the history of their partition.

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use clusterkit::http::rfc3339;
use clusterkit::net::WallTime;
use clusterkit_data::LogTime;
use clusterkit_services::kv::{Done, Outcome, Place, Version};
use serde::Serialize;
use utoipa::ToSchema;

/// The partition that answered.
const CK_PARTITION: HeaderName = HeaderName::from_static("ck-partition");
/// The epoch that it answered under.
const CK_EPOCH: HeaderName = HeaderName::from_static("ck-epoch");
/// What to give as `min_index`, to see at least as much.
const CK_INDEX: HeaderName = HeaderName::from_static("ck-index");
/// The write had taken effect before; this is the answer of then.
const CK_REPLAYED: HeaderName = HeaderName::from_static("ck-replayed");
/// When the entry expires.
const CK_EXPIRES_AT: HeaderName = HeaderName::from_static("ck-expires-at");

/// The tag of a version.
pub(super) fn etag(version: Version) -> HeaderValue {
    HeaderValue::try_from(format!("\"{}\"", version.0)).expect("digits and quotes may stand in a header")
}

/// A point in time for people and programs.
pub(super) fn time(at: LogTime) -> String {
    rfc3339(WallTime(at.0))
}

/// The headers that say where an answer stands.
pub(super) fn place(place: Place) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert(CK_PARTITION, place.partition.0.into());
    headers.insert(CK_EPOCH, place.epoch.0.into());
    headers.insert(CK_INDEX, place.end.into());
    headers
}

/// The headers of an entry.
pub(super) fn entry(at: Place, version: Version, expires_at: Option<LogTime>) -> HeaderMap {
    let mut headers = place(at);
    headers.insert(header::ETAG, etag(version));
    // A time this side of the year 10000 or not, it is made of digits and signs.
    if let Some(expiry) = expires_at.and_then(|at| HeaderValue::try_from(time(at)).ok()) {
        headers.insert(CK_EXPIRES_AT, expiry);
    }
    headers
}

/// What came of a write. Fields that its kind does not have are left out.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = KvWritten)]
pub(super) struct WrittenDto {
    /// The new version of the entry, which is also its `ETag`.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    /// Of a put: whether another value was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced: Option<bool>,
    /// Of a delete: whether the entry was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    existed: Option<bool>,
    /// Of an increment or decrement: what the number is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<i64>,
    /// Of an append: bytes of the value now.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_bytes: Option<u32>,
    /// Of an expire: when.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// Of a persist: whether the entry would have expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<bool>,
}

impl From<Outcome> for WrittenDto {
    fn from(outcome: Outcome) -> Self {
        let of = |version: Version| Self { version: Some(version.0), ..Self::default() };
        match outcome {
            Outcome::Appended { value_bytes, version } => {
                Self { value_bytes: Some(value_bytes), ..of(version) }
            }
            Outcome::Deleted { existed } => Self { existed: Some(existed), ..Self::default() },
            Outcome::Expires { expires_at, version } => {
                Self { expires_at: Some(time(expires_at)), ..of(version) }
            }
            Outcome::Number { value, version } => Self { number: Some(value), ..of(version) },
            Outcome::Persisted { changed, version } => Self { changed: Some(changed), ..of(version) },
            Outcome::Put { replaced, version } => Self { replaced: Some(replaced), ..of(version) },
            _ => Self::default(),
        }
    }
}

/// A write was done: 200, or 202 where nobody waited for what came of it.
pub(super) fn written(done: &Done<Outcome>) -> Response {
    let mut headers = place(done.place);
    if done.replayed {
        headers.insert(CK_REPLAYED, HeaderValue::from_static("true"));
    }
    let Some(outcome) = done.outcome else {
        return (StatusCode::ACCEPTED, headers, Json(WrittenDto::default())).into_response();
    };
    let body = WrittenDto::from(outcome);
    if let Some(version) = body.version {
        headers.insert(header::ETAG, etag(Version(version)));
    }
    (headers, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use clusterkit::{Epoch, PartitionId};

    use super::*;

    const PLACE: Place = Place { partition: PartitionId(5), epoch: Epoch(3), end: 18 };

    #[test]
    fn each_outcome_has_its_own_fields_and_no_others() {
        let check = |outcome: Outcome, expect: &str| {
            assert_eq!(serde_json::to_string(&WrittenDto::from(outcome)).expect("JSON"), expect);
        };
        let version = Version(9);
        check(Outcome::Put { replaced: false, version }, r#"{"version":9,"replaced":false}"#);
        check(Outcome::Deleted { existed: true }, r#"{"existed":true}"#);
        check(Outcome::Number { value: -1, version }, r#"{"version":9,"number":-1}"#);
        check(Outcome::Appended { value_bytes: 3, version }, r#"{"version":9,"value_bytes":3}"#);
        let expires_at = LogTime(0);
        let expect = r#"{"version":9,"expires_at":"1970-01-01T00:00:00.000Z"}"#;
        check(Outcome::Expires { expires_at, version }, expect);
        check(Outcome::Persisted { changed: true, version }, r#"{"version":9,"changed":true}"#);
        check(Outcome::Checked, "{}");
    }

    #[test]
    fn answers_say_where_they_stand() {
        let outcome = Some(Outcome::Put { replaced: true, version: Version(18) });
        let response = written(&Done { outcome, place: PLACE, replayed: false });
        let headers =
            ["ck-partition", "ck-epoch", "ck-index", "etag"].map(|name| response.headers()[name].clone());
        assert_eq!(headers, ["5", "3", "18", "\"18\""]);
        let blind = written(&Done { outcome: None, place: PLACE, replayed: false });
        assert_eq!((blind.status(), blind.headers().get("etag")), (StatusCode::ACCEPTED, None));
        let expiring = entry(PLACE, Version(1), Some(LogTime(1_000)));
        assert_eq!(expiring["ck-expires-at"], "1970-01-01T00:00:01.000Z");
    }
}
