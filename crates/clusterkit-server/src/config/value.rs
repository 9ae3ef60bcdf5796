//! Values as people write them: in a file, in the environment, as an option.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use clusterkit::RaftRole;
use serde::{Deserialize, Deserializer};

/// A length of time with its unit, as `200ms`, `30s`, `5m` or `2h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| InvalidSpan)?;
        let milliseconds = match unit {
            "ms" => Some(number),
            "s" => number.checked_mul(1_000),
            "m" => number.checked_mul(60_000),
            "h" => number.checked_mul(3_600_000),
            _ => None,
        };
        milliseconds.map(|count| Self(Duration::from_millis(count))).ok_or(InvalidSpan)
    }
}

impl TryFrom<String> for Span {
    type Error = InvalidSpan;

    fn try_from(text: String) -> Result<Self, InvalidSpan> {
        text.parse()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            count if count % 1_000 != 0 => write!(f, "{count}ms"),
            count => write!(f, "{}s", count / 1_000),
        }
    }
}

/// The text is no length of time. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a length of time is a number and a unit, as in 200ms, 30s, 5m or 2h")]
pub(crate) struct InvalidSpan;

/// Whether the node may vote in the control plane. A learner follows and never votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Voter,
    Learner,
}

impl From<Role> for RaftRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Voter => Self::Voter,
            Role::Learner => Self::Learner,
        }
    }
}

/// How log lines look: text for people, or one JSON object a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// One entry of metadata.
pub(crate) type Pair = (String, String);

/// `key=value`.
pub(crate) fn pair(text: &str) -> Result<Pair, InvalidPair> {
    let (key, value) = text.split_once('=').ok_or(InvalidPair)?;
    if key.is_empty() { Err(InvalidPair) } else { Ok((key.to_owned(), value.to_owned())) }
}

/// The text is no `key=value`. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("metadata is written key=value, as in rack=r12")]
pub(crate) struct InvalidPair;

/// A file writes metadata as a map.
pub(super) fn pairs_of_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Pair>, D::Error> {
    Ok(BTreeMap::deserialize(deserializer)?.into_iter().collect())
}

/// Where a listener binds, or where a node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address<'a> {
    /// Without the brackets of an IPv6 address; empty for any.
    pub(crate) host: &'a str,
    pub(crate) port: u16,
}

impl<'a> Address<'a> {
    /// `host:port`, or `:port` for any host. `None` when the port is missing.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_ambiguous = bare.is_none() && host.contains(':');
        let port = port.parse().ok()?;
        (!is_ambiguous).then_some(Self { host: bare.unwrap_or(host), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_needs_a_unit() {
        let check = |text: &str, milliseconds: Option<u64>| {
            let parsed = text.parse::<Span>().ok().map(|Span(span)| span);
            assert_eq!(parsed, milliseconds.map(Duration::from_millis), "{text}");
        };
        check("200ms", Some(200));
        check("30s", Some(30_000));
        check("5m", Some(300_000));
        check("2h", Some(7_200_000));
        check("0s", Some(0));
        check("30", None);
        check("", None);
        check("s", None);
        check("-1s", None);
        check("1.5s", None);
        check("1 s", None);
        check("1d", None);
        check("99999999999999999999s", None);
        check("18446744073709551615h", None);
    }

    #[test]
    fn a_length_of_time_is_shown_as_it_is_written() {
        for text in ["200ms", "30s", "1500ms", "0s"] {
            assert_eq!(text.parse::<Span>().expect("valid").to_string(), text);
        }
    }

    #[test]
    fn an_address_has_a_port() {
        let check = |text: &str, expect: Option<(&str, u16)>| {
            let parsed = Address::parse(text).map(|address| (address.host, address.port));
            assert_eq!(parsed, expect, "{text}");
        };
        check("10.0.0.1:7000", Some(("10.0.0.1", 7000)));
        check(":8080", Some(("", 8080)));
        check("[::1]:8080", Some(("::1", 8080)));
        check("host.example:0", Some(("host.example", 0)));
        check("10.0.0.1", None);
        check("10.0.0.1:", None);
        check("10.0.0.1:http", None);
        check("10.0.0.1:70000", None);
        check("::1:8080", None);
        check("", None);
    }

    #[test]
    fn metadata_is_key_and_value() {
        assert_eq!(pair("rack=r12"), Ok(("rack".to_owned(), "r12".to_owned())));
        assert_eq!(pair("query=a=b"), Ok(("query".to_owned(), "a=b".to_owned())));
        assert_eq!(pair("empty="), Ok(("empty".to_owned(), String::new())));
        assert_eq!(pair("rack"), Err(InvalidPair));
        assert_eq!(pair("=r12"), Err(InvalidPair));
    }
}
