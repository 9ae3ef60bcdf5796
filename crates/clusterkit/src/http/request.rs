//! What a request says, checked at the door.

use std::convert::Infallible;

use axum::extract::{FromRequest, FromRequestParts, Path, Query as AxumQuery, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use clusterkit_core::id::{NodeId, PartitionId};
use clusterkit_core::topology::{Node, Partition, Topology};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::limits::{BODY_BYTES_MAX, BODY_TIMEOUT, KEY_BYTES_MAX};
use super::problem::{Code, Problem};
use super::text::nearest;

/// A JSON body without unknown fields, of at most `BYTES_MAX` bytes. No body at all counts as `{}`. It must
/// be sent as `application/json`.
#[derive(Debug)]
pub struct Body<T, const BYTES_MAX: usize = BODY_BYTES_MAX>(
    /// What it says.
    pub T,
);

impl<S: Sync, T: DeserializeOwned, const BYTES_MAX: usize> FromRequest<S> for Body<T, BYTES_MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        check_media_type(request.headers())?;
        let bytes = read_body(request, BYTES_MAX).await?;
        let bytes = if bytes.is_empty() { Bytes::from_static(b"{}") } else { bytes };
        serde_json::from_slice(&bytes).map(Self).map_err(|error| body_problem(&error))
    }
}

/// A body of at most `BYTES_MAX` bytes of whatever kind, all of which must come within
/// [`BODY_TIMEOUT`].
#[derive(Debug)]
pub struct RawBody<const BYTES_MAX: usize>(
    /// It.
    pub Bytes,
);

impl<S: Sync, const BYTES_MAX: usize> FromRequest<S> for RawBody<BYTES_MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        read_body(request, BYTES_MAX).await.map(Self)
    }
}

/// A browser sends JSON to another site only after it asked for leave, which is never given.
fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(media_type) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = media_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let detail = format!(
        "the body must be application/json, not {essence:?}: send it with `content-type: application/json`"
    );
    Err(Problem::new(Code::UnsupportedMediaType, detail))
}

async fn read_body(request: Request, bytes_max: usize) -> Result<Bytes, Problem> {
    let body = Limited::new(request.into_body(), bytes_max).collect();
    match timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("the body has more than {bytes_max} bytes");
            Err(Problem::new(Code::BodyTooLarge, detail))
        }
        Ok(Err(error)) => {
            Err(Problem::new(Code::MalformedJson, format!("the body ended before its end: {error}")))
        }
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
            Err(Problem::new(Code::BodyTooSlow, detail))
        }
    }
}

fn body_problem(error: &serde_json::Error) -> Problem {
    if error.is_data() {
        return field_problem(&error.to_string());
    }
    Problem::new(Code::MalformedJson, format!("the body is not JSON: {error}"))
}

/// Says which field is wrong. Serde names the unknown one and those it knows in backticks, and
/// nothing but its text tells them.
fn field_problem(text: &str) -> Problem {
    let names: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    match names.split_first() {
        Some((unknown, known)) if text.contains("unknown field") => {
            Problem::new(Code::UnknownField, unknown_field(unknown, known))
        }
        Some((missing, _)) if text.contains("missing field") => {
            Problem::new(Code::MissingParameter, format!("`{missing}` is missing"))
        }
        _ => Problem::new(Code::InvalidValue, text),
    }
}

fn unknown_field(unknown: &str, known: &[&str]) -> String {
    if let Some(meant) = nearest(unknown, known.iter().copied()) {
        return format!("`{unknown}` is not known; did you mean `{meant}`?");
    }
    let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
    match known.is_empty() {
        true => format!("`{unknown}` is not known; nothing can be given here"),
        false => format!("`{unknown}` is not known; there is {}", known.join(", ")),
    }
}

/// The query, without unknown names: one that is not known is refused with the one that was probably meant.
#[derive(Debug)]
pub struct Query<T>(
    /// What it says.
    pub T,
);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = AxumQuery::try_from_uri(&parts.uri);
        query.map(|AxumQuery(query)| Self(query)).map_err(|rejection| query_problem(&rejection.body_text()))
    }
}

fn query_problem(text: &str) -> Problem {
    let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(text);
    field_problem(text)
}

/// A key, from `?key=` or, as hexadecimal digits, from `?key_hex=`.
pub(super) struct Key(pub(super) Vec<u8>);

impl<S: Sync> FromRequestParts<S> for Key {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        key_of(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// Decodes the key by hand: a key is bytes, and what decodes queries for us puts a sign of its own
/// in place of those that are not UTF-8.
fn key_of(query: &str) -> Result<Vec<u8>, Problem> {
    let mut keys = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("key", text) => keys.push(percent_decoded(text)?),
            ("key_hex", text) => keys.push(from_hex(text)?),
            (unknown, _) => {
                return Err(Problem::new(Code::UnknownField, unknown_field(unknown, &["key", "key_hex"])));
            }
        }
    }
    match <[Vec<u8>; 1]>::try_from(keys) {
        Ok([key]) if key.len() <= KEY_BYTES_MAX => Ok(key),
        Ok(_) => Err(Problem::new(Code::InvalidValue, format!("a key has at most {KEY_BYTES_MAX} bytes"))),
        Err(keys) if keys.is_empty() => {
            Err(Problem::new(Code::MissingParameter, "`key` is missing: give `?key=` or `?key_hex=`"))
        }
        Err(_) => Err(Problem::new(Code::InvalidValue, "give one key, as `key` or as `key_hex`")),
    }
}

fn percent_decoded(text: &str) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = rest.get(..2).and_then(|digits| hex_byte(digits[0], digits[1]));
                let wrong = || {
                    Problem::new(Code::InvalidValue, "in `key`, `%` is followed by two hexadecimal digits")
                };
                bytes.push(digits.ok_or_else(wrong)?);
                rest = &rest[2..];
            }
            other => bytes.push(other),
        }
    }
    Ok(bytes)
}

fn from_hex(text: &str) -> Result<Vec<u8>, Problem> {
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => hex_byte(*high, *low),
        _ => None,
    });
    let wrong = || Problem::new(Code::InvalidValue, "`key_hex` has two hexadecimal digits for each byte");
    pairs.collect::<Option<Vec<u8>>>().ok_or_else(wrong)
}

fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// The node id in the path. Whether there is such a node is another question.
pub(super) struct NodeInPath(pub(super) NodeId);

impl<S: Sync + Send> FromRequestParts<S> for NodeInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let name = text_in_path(parts, state).await?;
        NodeId::new(&name).map(Self).map_err(|_| Problem::unknown_node(name, None))
    }
}

/// The partition in the path, by number or by name. Whether there is such a partition is another
/// question.
pub(super) struct PartitionInPath(pub(super) PartitionId);

impl<S: Sync + Send> FromRequestParts<S> for PartitionInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        parse_partition(&text_in_path(parts, state).await?).map(Self)
    }
}

async fn text_in_path<S: Sync + Send>(parts: &mut Parts, state: &S) -> Result<String, Problem> {
    let path = Path::<String>::from_request_parts(parts, state).await;
    path.map(|Path(text)| text).map_err(|rejection| Problem::new(Code::InvalidValue, rejection.body_text()))
}

pub(super) fn parse_partition(text: &str) -> Result<PartitionId, Problem> {
    text.parse().map_err(|error| Problem::new(Code::InvalidValue, format!("{error}, not \"{text}\"")))
}

/// The record of `partition`.
pub(super) fn find_partition(topology: &Topology, partition: PartitionId) -> Result<&Partition, Problem> {
    let count = topology.partitions.len();
    if count == 0 {
        return Err(Problem::not_formed());
    }
    let missing = || {
        let detail = format!("there is no {partition}: they are numbered from 0 to {}", count - 1);
        Problem::new(Code::UnknownPartition, detail).partition(partition)
    };
    topology.partition(partition).ok_or_else(missing)
}

/// The record of `node`.
pub(super) fn find_node<'a>(topology: &'a Topology, node: &NodeId) -> Result<&'a Node, Problem> {
    let missing = || {
        let meant = nearest(node.as_str(), topology.nodes.keys().map(NodeId::as_str));
        Problem::unknown_node(node, meant)
    };
    topology.node(node).ok_or_else(missing)
}

/// Says when the port that serves this request closes: what waits should end then.
#[derive(Debug, Clone, Default)]
pub struct Closing(
    /// Is cancelled then.
    pub CancellationToken,
);

impl<S: Sync> FromRequestParts<S> for Closing {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    fn code(problem: Problem) -> u16 {
        problem.into_response().status().as_u16()
    }

    #[test]
    fn keys_are_bytes_whether_or_not_they_are_text() {
        let check =
            |query: &str, expect: &[u8]| assert_eq!(key_of(query).ok().as_deref(), Some(expect), "{query}");
        check("key=user%3A1", b"user:1");
        check("key=a+b%2Bc", b"a b+c");
        check("key=%ff%00", &[0xff, 0]);
        check("key_hex=FF00", &[0xff, 0]);
        check("key=", b"");
    }

    #[test]
    fn a_query_without_exactly_one_key_is_refused() {
        for query in
            ["", "key=a&key=b", "key=a&key_hex=61", "kye=a", "key=%f", "key=%zz", "key_hex=f", "key_hex=zz"]
        {
            assert_eq!(key_of(query).err().map(code), Some(400), "{query}");
        }
        let long = format!("key={}", "a".repeat(KEY_BYTES_MAX + 1));
        assert_eq!(key_of(&long).err().map(code), Some(400));
    }

    #[test]
    fn the_nearest_known_field_is_named() {
        let check =
            |unknown: &str, known: &[&str], expect: &str| assert_eq!(unknown_field(unknown, known), expect);
        check("nodeId", &["node_id", "addr"], "`nodeId` is not known; did you mean `node_id`?");
        check("colour", &["node_id", "addr"], "`colour` is not known; there is `node_id`, `addr`");
        check("colour", &[], "`colour` is not known; nothing can be given here");
    }

    #[test]
    fn what_serde_says_of_fields_is_understood() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wish {
            #[allow(dead_code)]
            node_id: String,
            #[allow(dead_code)]
            force: Option<bool>,
        }
        let check = |json: &str, expect: &str| {
            let error = serde_json::from_str::<Wish>(json).expect_err("a wrong body");
            assert!(format!("{:?}", body_problem(&error)).contains(expect), "{json}: {error}");
        };
        check(r#"{"node_id":"a","forec":true}"#, "`forec` is not known; did you mean `force`?");
        check(r#"{"force":true}"#, "`node_id` is missing");
        check(r#"{"node_id":1}"#, "InvalidValue");
        check(r#"{"node_id":"#, "MalformedJson");
    }
}
