//! Conditional requests: the `ETag` is the quoted route version.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use clusterkit_core::id::RouteVersion;

/// What the client has already, by its `If-None-Match`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Whatever there is: `*`.
    Anything,
    /// Nothing that could be compared.
    Nothing,
    /// This version.
    Version(RouteVersion),
}

impl Known {
    /// Reads the header. Of several versions the newest counts. A weak tag is compared like a strong
    /// one, as RFC 9110 wants it for this header.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let tags: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
        if tags.contains(&"*") {
            return Self::Anything;
        }
        let newest = tags.into_iter().filter_map(version_of).max();
        newest.map_or(Self::Nothing, |version| Self::Version(RouteVersion(version)))
    }

    /// Whether the client has `version`.
    pub(super) fn is(self, version: RouteVersion) -> bool {
        match self {
            Self::Anything => true,
            Self::Nothing => false,
            Self::Version(known) => known == version,
        }
    }
}

fn version_of(tag: &str) -> Option<u64> {
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

/// The tag of `version`.
pub(super) fn etag(version: RouteVersion) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).expect("digits and quotes may stand in a header")
}

/// `answer` at `version`, or 304 when the client has it.
pub(super) fn unless_known<T: IntoResponse>(
    known: Known,
    version: RouteVersion,
    answer: impl FnOnce() -> T,
) -> Response {
    let tag = [(header::ETAG, etag(version))];
    if known.is(version) {
        return (StatusCode::NOT_MODIFIED, tag).into_response();
    }
    (tag, answer()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match_is_read_as_a_list_of_tags() {
        let check = |value: &'static str, expect| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static(value));
            assert_eq!(Known::of(&headers), expect, "{value}");
        };
        check("\"7\"", Known::Version(RouteVersion(7)));
        check("W/\"7\"", Known::Version(RouteVersion(7)));
        check("\"7\", \"12\", \"x\"", Known::Version(RouteVersion(12)));
        check("*", Known::Anything);
        check("7", Known::Nothing);
        assert_eq!(Known::of(&HeaderMap::new()), Known::Nothing);
    }
}
