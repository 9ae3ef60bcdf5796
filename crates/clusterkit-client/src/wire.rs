//! What requests and answers look like: paths, queries and JSON.

use std::fmt::{Display, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::kv::{Entry, ScanEntry, Version};
use crate::options::Ack;

/// The path of a key, with every byte escaped that is not plain everywhere.
pub(crate) fn key_path(key: &[u8], verb: &str) -> String {
    match key {
        // Routes have these names, where nothing is escaped.
        [first, rest @ ..] if ROUTES.contains(&key) => format!("/v1/kv/%{first:02X}{}{verb}", escaped(rest)),
        _ => format!("/v1/kv/{}{verb}", escaped(key)),
    }
}

/// What lies beside the keys.
const ROUTES: [&[u8]; 3] = [b"batch", b"sessions", b"watch"];

/// `bytes` as a part of a path or query.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            // A dot as well: a key of one or two dots is no step in a path.
            write!(text, "%{byte:02X}").expect("text grows without errors");
        }
    }
    text
}

/// What stands behind the question mark.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(String);

impl Query {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn bytes(mut self, name: &str, value: &[u8]) -> Self {
        let mark = if self.0.is_empty() { '?' } else { '&' };
        write!(self.0, "{mark}{name}={}", escaped(value)).expect("text grows without errors");
        self
    }

    pub(crate) fn text(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.bytes(name, value.as_bytes()),
            None => self,
        }
    }

    pub(crate) fn number(self, name: &str, value: impl Display) -> Self {
        self.bytes(name, value.to_string().as_bytes())
    }

    pub(crate) fn flag(self, name: &str, value: bool) -> Self {
        self.text(name, value.then_some("true"))
    }

    pub(crate) fn ttl(self, ttl: Option<Duration>) -> Self {
        // A time to live that is not nothing does not become nothing.
        let millis = ttl.map(|ttl| ttl.as_nanos().div_ceil(1_000_000));
        self.text("ttl", millis.map(|millis| format!("{millis}ms")).as_deref())
    }

    /// `path`, which may have a query, with this one behind it.
    pub(crate) fn extend(self, path: String) -> String {
        match self.0.strip_prefix('?') {
            Some(more) if path.contains('?') => format!("{path}&{more}"),
            _ => path + &self.0,
        }
    }

    /// `path` with this query.
    pub(crate) fn after(self, path: String) -> String {
        path + &self.0
    }
}

/// How `ack` is asked for; the default is not.
pub(crate) fn ack(ack: Ack) -> Option<&'static str> {
    match ack {
        Ack::All => Some("all"),
        Ack::Quorum => None,
    }
}

/// Reads `1500ms`, `30s`, `2m` or `1h`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let count: u64 = text[..digits].parse().ok()?;
    match &text[digits..] {
        "ms" => Some(Duration::from_millis(count)),
        "s" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_secs(count.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(count.checked_mul(3_600)?)),
        _ => None,
    }
}

/// Reads `2026-01-31T12:00:00.250Z`.
pub(crate) fn time(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(time, ':')?;
    let is_date =
        (1..=12).contains(&month) && (1..=31).contains(&day) && (1_970..=999_999_999).contains(&year);
    if !is_date || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    let millis: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::from_millis(seconds * 1_000 + millis))
}

fn numbers(text: &str, between: char) -> Option<[u64; 3]> {
    let numbers: Option<Vec<_>> = text.split(between).map(|number| number.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// Counts in years that begin in March, so that the leap day is the last of its year.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let year = if month > 2 { year } else { year - 1 };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

/// The version in an `ETag`.
pub(crate) fn etag(text: &str) -> Option<u64> {
    text.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

/// The answer to a number that was changed.
#[derive(Debug, Deserialize)]
pub(crate) struct Number {
    pub(crate) number: i64,
}

/// The answer to something that was appended.
#[derive(Debug, Deserialize)]
pub(crate) struct Appended {
    pub(crate) value_bytes: u64,
}

/// The answer to a time to live that was taken away.
#[derive(Debug, Deserialize)]
pub(crate) struct Changed {
    pub(crate) changed: bool,
}

/// The answer to a key that was deleted.
#[derive(Debug, Deserialize)]
pub(crate) struct Deleted {
    pub(crate) existed: bool,
}

/// The answer to a prefix that was deleted.
#[derive(Debug, Deserialize)]
pub(crate) struct DeletedCount {
    pub(crate) deleted: u64,
}

/// The answer to how long a key lives.
#[derive(Debug, Deserialize)]
pub(crate) struct Lives {
    /// None for one that does not expire.
    pub(crate) ttl: Option<String>,
}

/// The answer to a session that was opened.
#[derive(Debug, Deserialize)]
pub(crate) struct SessionOpened {
    pub(crate) session: String,
}

/// A page of a scan.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    pub(crate) items: Vec<Item>,
    pub(crate) next_cursor: Option<String>,
}

/// A key of a page: as text where it is UTF-8, else in base64 under a second name.
#[derive(Debug, Deserialize)]
pub(crate) struct Item {
    key: Option<String>,
    key_base64: Option<String>,
    value_base64: Option<String>,
    value_bytes: u64,
    version: u64,
    expires_at_ms: Option<u64>,
}

impl Item {
    /// None if there is no key, or a key or a value is no base64.
    pub(crate) fn entry(self) -> Option<ScanEntry> {
        let key = either(self.key, self.key_base64.as_deref())?;
        let value = match self.value_base64 {
            Some(value) => Some(from_base64(&value)?.into()),
            None => None,
        };
        let expires_at = self.expires_at_ms.map(|millis| UNIX_EPOCH + Duration::from_millis(millis));
        let (value_bytes, version) = (self.value_bytes, Version(self.version));
        Some(ScanEntry { key, value, value_bytes, version, expires_at })
    }
}

fn either(text: Option<String>, base64: Option<&str>) -> Option<Bytes> {
    match (text, base64) {
        (Some(text), None) => Some(Bytes::from(text)),
        (None, Some(base64)) => from_base64(base64).map(Bytes::from),
        _ => None,
    }
}

/// One operation of a batch.
#[derive(Debug, Serialize)]
pub(crate) struct Op<'a> {
    op: &'static str,
    #[serde(flatten)]
    key: KeyBytes<'a>,
    #[serde(flatten)]
    value: Option<ValueBytes<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum KeyBytes<'a> {
    Key(&'a str),
    KeyBase64(String),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum ValueBytes<'a> {
    Value(&'a str),
    ValueBase64(String),
}

impl<'a> Op<'a> {
    pub(crate) fn get(key: &'a [u8]) -> Self {
        Self { op: "get", key: KeyBytes::new(key), value: None }
    }

    pub(crate) fn put(key: &'a [u8], value: &'a [u8]) -> Self {
        Self { op: "put", key: KeyBytes::new(key), value: Some(ValueBytes::new(value)) }
    }
}

impl<'a> KeyBytes<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        std::str::from_utf8(bytes).map_or_else(|_| Self::KeyBase64(to_base64(bytes)), Self::Key)
    }
}

impl<'a> ValueBytes<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        std::str::from_utf8(bytes).map_or_else(|_| Self::ValueBase64(to_base64(bytes)), Self::Value)
    }
}

/// Several operations: those of an atomic batch are one write of one partition, all or none of which is done.
#[derive(Debug, Serialize)]
pub(crate) struct Batch<'a> {
    pub(crate) atomic: bool,
    pub(crate) operations: Vec<Op<'a>>,
}

/// What came of a batch, one result an operation.
#[derive(Debug, Deserialize)]
pub(crate) struct BatchDone {
    pub(crate) results: Vec<OpDone>,
}

/// What came of one operation: a version where something was put, an entry where one was asked for, or a problem.
#[derive(Debug, Deserialize)]
pub(crate) struct OpDone {
    pub(crate) version: Option<u64>,
    pub(crate) entry: Option<Found>,
    pub(crate) error: Option<ProblemBody>,
}

/// What was asked for, if it is there.
#[derive(Debug, Deserialize)]
pub(crate) struct Found {
    found: bool,
    value_base64: Option<String>,
    version: Option<u64>,
    expires_at: Option<String>,
}

impl Found {
    /// What was found. None if it is something else than an entry, or none.
    pub(crate) fn entry(self) -> Option<Option<Entry>> {
        if !self.found {
            return Some(None);
        }
        let value = from_base64(&self.value_base64?)?.into();
        let expires_at = match self.expires_at {
            Some(at) => Some(time(&at)?),
            None => None,
        };
        Some(Some(Entry { value, version: Version(self.version?), expires_at }))
    }
}

/// An error as RFC 9457 has it, with what the cluster adds.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ProblemBody {
    #[serde(default)]
    pub(crate) code: String,
    #[serde(default)]
    pub(crate) detail: String,
    pub(crate) request_id: Option<String>,
    #[serde(default)]
    pub(crate) retryable: bool,
    pub(crate) partition: Option<u32>,
    #[serde(default)]
    pub(crate) reasons: Vec<String>,
    /// The public address of who leads the partition, when the node that answers does not.
    pub(crate) leader: Option<String>,
    /// Since which epoch.
    pub(crate) epoch: Option<u64>,
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `bytes` in base64 with padding, as RFC 4648 has it.
fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |index: usize| u32::from(group.get(index).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for position in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * position)) as usize & 63];
            text.push(if position <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// The bytes of base64 with padding. None if it is none.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in digits.as_bytes().chunks(4) {
        let mut bits = 0;
        for position in 0..4 {
            bits = bits << 6 | group.get(position).map_or(Some(0), |&digit| value_of(digit))?;
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

fn value_of(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_that_is_not_plain_is_escaped() {
        let check = |key: &[u8], expect: &str| assert_eq!(escaped(key), expect);
        check(b"user-1_~", "user-1_~");
        check(b"user:1/a?b#c%", "user%3A1%2Fa%3Fb%23c%25");
        check(b"..", "%2E%2E");
        check(b"\xff\x00 ", "%FF%00%20");
    }

    #[test]
    fn keys_that_are_called_like_a_route_are_escaped() {
        let check = |key: &[u8], expect: &str| assert_eq!(key_path(key, "/ttl"), expect);
        check(b"batch", "/v1/kv/%62atch/ttl");
        check(b"sessions", "/v1/kv/%73essions/ttl");
        check(b"watch", "/v1/kv/%77atch/ttl");
        check(b"watches", "/v1/kv/watches/ttl");
    }

    #[test]
    fn queries_have_only_what_was_set() {
        let query = Query::new().text("ns", None).ttl(Some(Duration::from_micros(1_500)));
        assert_eq!(query.flag("keep_ttl", false).number("by", -3).after("/p".to_owned()), "/p?ttl=2ms&by=-3");
    }

    #[test]
    fn base64_is_that_of_its_standard() {
        let check = |bytes: &[u8], text: &str| {
            assert_eq!(to_base64(bytes), text);
            assert_eq!(from_base64(text).as_deref(), Some(bytes), "{text}");
        };
        check(b"", "");
        check(b"f", "Zg==");
        check(b"fo", "Zm8=");
        check(b"foo", "Zm9v");
        check(b"\xff\xfe\xfd\xfc", "//79/A==");
        assert_eq!(from_base64("Zg="), None);
        assert_eq!(from_base64("Z*=="), None);
    }

    #[test]
    fn bytes_that_are_no_text_travel_in_base64() {
        let check = |op: Op<'_>, expect: &str| assert_eq!(serde_json::to_string(&op).unwrap(), expect);
        check(Op::get(b"a"), r#"{"op":"get","key":"a"}"#);
        check(Op::put(b"\xff", b"\xfe"), r#"{"op":"put","key_base64":"/w==","value_base64":"/g=="}"#);
    }

    #[test]
    fn durations_and_versions_are_read() {
        assert_eq!(duration("1500ms"), Some(Duration::from_millis(1_500)));
        assert_eq!(duration("2m"), Some(Duration::from_mins(2)));
        assert_eq!(duration("2"), None);
        let since_1970 = |text| time(text).map(|at| at.duration_since(UNIX_EPOCH).unwrap().as_millis());
        assert_eq!(since_1970("1970-01-01T00:00:00.000Z"), Some(0));
        assert_eq!(since_1970("2024-02-29T12:00:00.250Z"), Some(1_709_208_000_250));
        assert_eq!(since_1970("2026-01-31T12:00:00Z"), Some(1_769_860_800_000));
        assert_eq!(since_1970("2026-13-31T12:00:00Z"), None);
        assert_eq!(since_1970("soon"), None);
        assert_eq!(etag("\"17\""), Some(17));
        assert_eq!(etag("17"), None);
    }
}
