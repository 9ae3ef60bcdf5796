//! What a request wants besides its key: how it is carried out, and on which condition.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use bytes::Bytes;
use clusterkit::core::hash::SLOT_COUNT;
use clusterkit::http::{Code, Problem, parse_duration};
use clusterkit::{Epoch, PartitionId};
use clusterkit_data::{Ack, Read, ReadOptions, SessionId, SessionRequest, WriteOptions};
use clusterkit_services::Namespace;
use clusterkit_services::kv::{Condition, Deadline, Expiry, Version};
use serde::{Deserialize, Deserializer, de};
use utoipa::ToSchema;

use super::limits::TIMEOUT_MAX;
use super::text::key_in_path;

/// Says `direct` when a request shall not be passed on.
pub(crate) const CK_ROUTE: &str = "ck-route";
const CK_ROUTE_NAME: HeaderName = HeaderName::from_static(CK_ROUTE);
/// Says which request of which session a write is.
pub(crate) const CK_REQUEST: &str = "ck-request";

/// The key in the path.
#[derive(Debug)]
pub(crate) struct KeyInPath(pub(crate) Bytes);

impl<S: Sync> FromRequestParts<S> for KeyInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        key_in_path(parts.uri.path()).map(Self)
    }
}

/// Where a request came in, and whether it may be passed on.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) is_direct: bool,
    /// Path and query.
    pub(crate) target: String,
}

impl<S: Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let target = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        let is_direct = parts.headers.get(CK_ROUTE_NAME).is_some_and(|route| route == "direct");
        Ok(Self { is_direct, target })
    }
}

/// `true` or `1`, `false` or `0`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flag(pub(crate) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "" | "1" | "true" => Ok(Self(true)),
            "0" | "false" => Ok(Self(false)),
            _ => Err(de::Error::custom("it is true or false")),
        }
    }
}

/// When a write is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AckWish {
    /// As soon as its leader has written it: it may be lost with the leader.
    Leader,
    /// When it cannot be lost while one replica in sync is left.
    #[default]
    Quorum,
    /// When every replica has it.
    All,
}

impl From<AckWish> for Ack {
    fn from(wish: AckWish) -> Self {
        match wish {
            AckWish::Leader => Self::Leader,
            AckWish::Quorum => Self::Quorum,
            AckWish::All => Self::All,
        }
    }
}

/// How new what is read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReadWish {
    /// Whatever any replica has.
    Any,
    /// What the leader has, which may be one no more without knowing.
    Leader,
    /// All that was acknowledged to anybody.
    Linearizable,
    /// All that the client has seen: everything up to `min_index`.
    Session,
}

/// The name of a session for clients: its partition is part of it, so that it cannot be taken for one of another.
pub(crate) fn session_name(partition: PartitionId, session: SessionId) -> String {
    format!("{}.{}", session.epoch.0 * PARTITIONS + u64::from(partition.0), session.offset)
}

/// How many partitions there may be.
const PARTITIONS: u64 = SLOT_COUNT as u64;

/// The request of a session that a write is, where it says so: the name of the session, a dot and the number of the
/// request. `partition` is that of the write.
pub(crate) fn session_request(
    headers: &HeaderMap,
    partition: Option<PartitionId>,
) -> Result<Option<SessionRequest>, Problem> {
    let Some(text) = headers.get(CK_REQUEST) else { return Ok(None) };
    let text = text.to_str().unwrap_or_default();
    let numbers: Result<Vec<u64>, _> = text.split('.').map(str::parse).collect();
    let Ok([place, offset, sequence @ 1_u64..=u64::MAX]) = numbers.as_deref() else {
        return Err(invalid(format!(
            "`{CK_REQUEST}` is a session and the number of the request in it, from 1 on, as in 16389.17.1, not \"{text}\""
        )));
    };
    let of = PartitionId(u32::try_from(place % PARTITIONS).unwrap_or_default());
    if partition.is_some_and(|partition| partition != of) {
        return Err(invalid(format!("the session is one with {of}, and the key is of another partition")));
    }
    let session = SessionId { epoch: Epoch(place / PARTITIONS), offset: *offset };
    Ok(Some(SessionRequest { session, sequence: *sequence }))
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(Code::InvalidValue, detail)
}

/// How a write is carried out.
pub(crate) fn write_options(
    ack: Option<AckWish>,
    timeout: Option<&str>,
    forward: bool,
) -> Result<WriteOptions, Problem> {
    let default = WriteOptions::default();
    let deadline = deadline(timeout)?.unwrap_or(default.deadline);
    Ok(WriteOptions { ack: ack.unwrap_or_default().into(), deadline, forward, ..default })
}

/// How something is read.
pub(crate) fn read_options(
    read: Option<ReadWish>,
    min_index: Option<u64>,
    timeout: Option<&str>,
    forward: bool,
) -> Result<ReadOptions, Problem> {
    let default = ReadOptions::default();
    let read = match (read, min_index) {
        (Some(ReadWish::Session) | None, Some(min_end)) => Read::Session { min_end },
        (_, Some(_)) => return Err(invalid("`min_index` goes with `read=session`")),
        (Some(ReadWish::Session), None) => {
            return Err(Problem::new(
                Code::MissingParameter,
                "`min_index` is missing: the `ck-index` of the last answer",
            ));
        }
        (Some(ReadWish::Any), None) => Read::Any,
        (Some(ReadWish::Leader), None) => Read::Leader,
        (Some(ReadWish::Linearizable) | None, None) => Read::Linearizable,
    };
    Ok(ReadOptions { read, deadline: deadline(timeout)?.unwrap_or(default.deadline), forward })
}

fn deadline(timeout: Option<&str>) -> Result<Option<Duration>, Problem> {
    let wrong = |text: &str| {
        invalid(format!(
            "`timeout` is more than nothing and at most {}s, not \"{text}\"",
            TIMEOUT_MAX.as_secs()
        ))
    };
    let check = |text: &str| {
        let timeout = parse_duration(text).filter(|timeout| !timeout.is_zero() && *timeout <= TIMEOUT_MAX);
        timeout.ok_or_else(|| wrong(text))
    };
    timeout.map(check).transpose()
}

/// The namespace that is asked for.
pub(crate) fn namespace(name: Option<&str>) -> Result<Namespace, Problem> {
    let wrong = |error| invalid(format!("`ns`: {error}"));
    name.map_or_else(|| Ok(Namespace::default()), |name| name.parse().map_err(wrong))
}

/// A time to live.
pub(crate) fn ttl(text: &str) -> Result<Deadline, Problem> {
    let wrong = || invalid(format!("`ttl` is a time as in 500ms, 30s, 5m or 2h, not \"{text}\""));
    parse_duration(text).map(Deadline::After).ok_or_else(wrong)
}

/// When an entry that is put expires.
pub(crate) fn expiry(time_to_live: Option<&str>, keeps: bool) -> Result<Expiry, Problem> {
    match (time_to_live, keeps) {
        (Some(_), true) => Err(invalid("give `ttl` or `keep_ttl`, not both")),
        (Some(text), false) => Ok(Expiry::Set(ttl(text)?)),
        (None, true) => Ok(Expiry::Keep),
        (None, false) => Ok(Expiry::Never),
    }
}

/// On which condition a write is done. The headers of RFC 9110 say more than can be held here; what cannot is
/// refused, for a condition that is passed over would be worse.
pub(crate) fn condition(headers: &HeaderMap, ack: Option<AckWish>) -> Result<Condition, Problem> {
    let tag = |name: &HeaderName| headers.get(name).map(|tag| tag.to_str().unwrap_or_default().trim());
    let condition = match (tag(&header::IF_MATCH), tag(&header::IF_NONE_MATCH)) {
        (None, None) => return Ok(Condition::Any),
        (Some("*"), None) => Condition::MustExist,
        (Some(tag), None) => {
            let wrong = || invalid(format!("`if-match` is `*` or the `etag` of one version, not {tag}"));
            Condition::VersionIs(version(tag).ok_or_else(wrong)?)
        }
        (None, Some("*")) => Condition::MustNotExist,
        (None, Some(tag)) => {
            return Err(invalid(format!("of a write, `if-none-match` can only be `*`, not {tag}")));
        }
        (Some(_), Some(_)) => return Err(invalid("give `if-match` or `if-none-match`, not both")),
    };
    if ack == Some(AckWish::Leader) {
        return Err(invalid("with `ack=leader` nobody would learn whether the condition held"));
    }
    Ok(condition)
}

/// The version that an `ETag` stands for.
pub(crate) fn version(tag: &str) -> Option<Version> {
    tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok().map(Version)
}

/// Whether a reader has this version already, by its `If-None-Match`.
pub(crate) fn is_known(headers: &HeaderMap, current: Version) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || version(tag.strip_prefix("W/").unwrap_or(tag)) == Some(current))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    #[test]
    fn conditions_are_understood_or_refused() {
        let check = |pairs: &[_], expect: Option<Condition>| {
            assert_eq!(condition(&headers(pairs), None).ok(), expect, "{pairs:?}");
        };
        check(&[], Some(Condition::Any));
        check(&[("if-match", "\"17\"")], Some(Condition::VersionIs(Version(17))));
        check(&[("if-match", "*")], Some(Condition::MustExist));
        check(&[("if-none-match", "*")], Some(Condition::MustNotExist));
        check(&[("if-match", "17")], None);
        check(&[("if-match", "W/\"17\"")], None);
        check(&[("if-match", "\"1\", \"2\"")], None);
        check(&[("if-none-match", "\"17\"")], None);
        check(&[("if-match", "*"), ("if-none-match", "*")], None);
        let blind = condition(&headers(&[("if-match", "*")]), Some(AckWish::Leader));
        assert!(blind.is_err(), "nobody would learn what came of it");
    }

    #[test]
    fn readers_say_what_they_have_by_any_of_several_tags() {
        let check = |tags: &'static str, expect: bool| {
            assert_eq!(is_known(&headers(&[("if-none-match", tags)]), Version(7)), expect, "{tags}");
        };
        check("\"7\"", true);
        check("\"1\", W/\"7\"", true);
        check("*", true);
        check("\"8\"", false);
        assert!(!is_known(&headers(&[]), Version(7)));
    }

    #[test]
    fn reads_of_a_session_name_what_was_seen() {
        let check = |read, min_index, expect: Option<Read>| {
            let options = read_options(read, min_index, None, true);
            assert_eq!(options.ok().map(|options| options.read), expect, "{read:?} {min_index:?}");
        };
        check(None, None, Some(Read::Linearizable));
        check(None, Some(5), Some(Read::Session { min_end: 5 }));
        check(Some(ReadWish::Session), Some(5), Some(Read::Session { min_end: 5 }));
        check(Some(ReadWish::Any), None, Some(Read::Any));
        check(Some(ReadWish::Session), None, None);
        check(Some(ReadWish::Leader), Some(5), None);
    }

    #[test]
    fn times_are_bounded() {
        for text in ["", "0s", "61s", "5", "-1s"] {
            assert!(write_options(None, Some(text), true).is_err(), "{text}");
        }
        let options = write_options(Some(AckWish::All), Some("250ms"), false).expect("valid");
        assert_eq!(
            (options.ack, options.deadline, options.forward),
            (Ack::All, Duration::from_millis(250), false)
        );
        assert_eq!(
            expiry(Some("30s"), false).ok(),
            Some(Expiry::Set(Deadline::After(Duration::from_secs(30))))
        );
        assert_eq!(expiry(None, true).ok(), Some(Expiry::Keep));
        assert!(expiry(Some("30s"), true).is_err());
        assert!(expiry(Some("soon"), false).is_err());
    }

    #[test]
    fn a_request_of_a_session_names_it_and_its_number() {
        let partition = PartitionId(5);
        let check = |text: &str, expect: Option<(u64, u64, u64)>| {
            let value = HeaderValue::try_from(text).expect("text");
            let headers = HeaderMap::from_iter([(HeaderName::from_static(CK_REQUEST), value)]);
            let request = session_request(&headers, Some(partition)).ok().flatten();
            let parts =
                request.map(|request| (request.session.epoch.0, request.session.offset, request.sequence));
            assert_eq!(parts, expect, "{text}");
        };
        let session = SessionId { epoch: Epoch(3), offset: 17 };
        check(&format!("{}.1", session_name(partition, session)), Some((3, 17, 1)));
        check(&format!("{}.1", session_name(PartitionId(6), session)), None);
        check(&format!("{}.0", session_name(partition, session)), None);
        check("5.17", None);
        check("5.17.1.2", None);
        check("5.-1.1", None);
        check("", None);
        assert_eq!(session_request(&HeaderMap::new(), Some(partition)).ok(), Some(None));
    }
}
