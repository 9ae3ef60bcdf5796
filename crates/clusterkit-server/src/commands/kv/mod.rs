//! `clusterkit kv ...`

mod transfer;
mod watch;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::{HeaderMap, header};

pub(super) use self::transfer::{export, import};
pub(super) use self::watch::watch;

use super::{Outcome, client, print, print_json, table};
use crate::cli::{AckMode, KvDel, KvGet, KvIncr, KvKey, KvPut, KvRemote, KvScan, Output, ReadMode};
use crate::client::{Client, escaped};
use crate::failure::Failure;
use crate::kv::{base64, from_base64};
use crate::terminal::{self, counted};

/// Whom to ask, by its parameters.
struct Target {
    client: Client,
    ns: Option<String>,
}

impl Target {
    fn new(to: &KvRemote) -> Result<Self, Failure> {
        Ok(Self { client: client(&to.remote)?, ns: to.ns.clone() })
    }

    /// The address of a key, or of something below it.
    fn key(&self, key: &str, below: &str, parameters: &[(&str, Option<String>)]) -> String {
        self.path(&format!("/v1/kv/{}{below}", escaped_key(key)), parameters)
    }

    fn path(&self, path: &str, parameters: &[(&str, Option<String>)]) -> String {
        let ns = [("ns", self.ns.clone())];
        let given = ns.iter().chain(parameters).filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let pairs: Vec<_> = given.map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
    }
}

/// Escaped from its first byte on: `batch` and `watch` are routes, and `.` and `..` would be taken for steps.
fn escaped_key(key: &str) -> String {
    let is_word = |key: &str| matches!(key, "batch" | "watch" | "." | "..");
    if is_word(key) { key.bytes().map(|byte| format!("%{byte:02X}")).collect() } else { escaped(key) }
}

fn some(value: &(impl ToString + ?Sized)) -> Option<String> {
    Some(value.to_string())
}

fn read_name(mode: ReadMode) -> &'static str {
    match mode {
        ReadMode::Any => "any",
        ReadMode::Leader => "leader",
        ReadMode::Linearizable => "linearizable",
    }
}

fn ack_name(mode: AckMode) -> &'static str {
    match mode {
        AckMode::Leader => "leader",
        AckMode::Quorum => "quorum",
        AckMode::All => "all",
    }
}

fn if_match(version: Option<u64>) -> Option<(&'static str, String)> {
    version.map(|version| ("if-match", format!("\"{version}\"")))
}

pub(super) fn get(options: &KvGet) -> Outcome {
    let target = Target::new(&options.to)?;
    let path = target.key(&options.key, "", &[("read", some(read_name(options.read)))]);
    let (headers, value) = target.client.bytes(&path)?;
    match options.to.remote.format.output {
        Output::Json => print_json(&entry(&options.key, &headers, &value))?,
        Output::Table => write_value(&value)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn entry(key: &str, headers: &HeaderMap, value: &[u8]) -> Value {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let version = text(header::ETAG.as_str()).and_then(|tag| tag.trim_matches('"').parse::<u64>().ok());
    json!({
        "key": key,
        "version": version,
        "expires_at": text("ck-expires-at"),
        "value": std::str::from_utf8(value).ok(),
        "value_base64": base64(value),
    })
}

/// A terminal gets a line break behind it; a file gets what was put.
fn write_value(value: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(value)?;
    if terminal::is_terminal() && !value.ends_with(b"\n") {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// What came of a write.
#[derive(Debug, Deserialize)]
struct Written {
    version: Option<u64>,
    replaced: Option<bool>,
    existed: Option<bool>,
    number: Option<i64>,
    deleted: Option<u64>,
}

pub(super) fn put(options: &KvPut) -> Outcome {
    let target = Target::new(&options.to)?;
    let value = value(options)?;
    let parameters = [
        ("ttl", options.ttl.map(|ttl| ttl.to_string())),
        ("keep_ttl", options.keep_ttl.then(|| "true".to_owned())),
        ("ack", some(ack_name(options.ack))),
    ];
    let path = target.key(&options.key, "", &parameters);
    let absent = options.if_absent.then(|| ("if-none-match", "*".to_owned()));
    let answer = target.client.put_bytes(&path, if_match(options.if_version).or(absent), &value)?;
    print(&options.to.remote, answer, |written: &Written| put_sentence(&options.key, written))?;
    Ok(ExitCode::SUCCESS)
}

fn put_sentence(key: &str, written: &Written) -> String {
    match (written.version, written.replaced) {
        (Some(version), Some(true)) => format!("{key} is replaced, at version {version}"),
        (Some(version), _) => format!("{key} is set, at version {version}"),
        (None, _) => format!("{key} is on its way"),
    }
}

fn value(options: &KvPut) -> Result<Vec<u8>, Failure> {
    if let Some(value) = &options.value {
        return Ok(value.clone().into_bytes());
    }
    let mut value = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut value);
    read.map_err(|source| Failure::Input { what: "standard input".to_owned(), source })?;
    Ok(value)
}

pub(super) fn delete(options: &KvDel) -> Outcome {
    let target = Target::new(&options.to)?;
    let answer = match (&options.key, &options.prefix) {
        (Some(key), _) => target.client.delete(&target.key(key, "", &[]), if_match(options.if_version))?,
        (None, prefix) => {
            target.client.delete(&target.path("/v1/kv", &[("prefix", prefix.clone())]), None)?
        }
    };
    print(&options.to.remote, answer, |written: &Written| deleted_sentence(options.key.as_deref(), written))?;
    Ok(ExitCode::SUCCESS)
}

fn deleted_sentence(key: Option<&str>, written: &Written) -> String {
    match (key, written.existed) {
        (Some(key), Some(true)) => format!("{key} is removed"),
        (Some(key), _) => format!("{key} was not there"),
        (None, _) => {
            let count = usize::try_from(written.deleted.unwrap_or_default()).unwrap_or(usize::MAX);
            format!("{} removed", counted(count, "key"))
        }
    }
}

pub(super) fn increment(options: &KvIncr) -> Outcome {
    let target = Target::new(&options.to)?;
    let path = target.key(&options.key, "/incr", &[("by", some(&options.by))]);
    let answer = target.client.post(&path, &json!({}))?;
    print(&options.to.remote, answer, |written: &Written| {
        written.number.map_or_else(|| "-".to_owned(), |number| number.to_string())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// How long a key lives.
#[derive(Debug, Deserialize)]
struct Ttl {
    ttl: Option<String>,
}

pub(super) fn ttl(options: &KvKey) -> Outcome {
    let target = Target::new(&options.to)?;
    let answer = target.client.get(&target.key(&options.key, "/ttl", &[]))?;
    print(&options.to.remote, answer, |ttl: &Ttl| {
        ttl.ttl.clone().unwrap_or_else(|| "it does not expire".to_owned())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A page of keys.
#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<Entry>,
    next_cursor: Option<String>,
}

/// A key.
#[derive(Debug, Deserialize)]
struct Entry {
    key: Option<String>,
    key_base64: Option<String>,
    version: u64,
    value_bytes: u32,
    expires_at: Option<String>,
    value_base64: Option<String>,
}

impl Entry {
    /// The key for people.
    fn name(&self) -> String {
        name(self.key.as_deref(), self.key_base64.as_deref())
    }
}

/// A key for people: as it is where that is text.
fn name(key: Option<&str>, key_base64: Option<&str>) -> String {
    match (key, key_base64) {
        (Some(key), _) => key.to_owned(),
        (None, encoded) => format!("base64:{}", encoded.unwrap_or_default()),
    }
}

/// A value for people: as it is where that is text without breaks.
fn shown(value_base64: &str) -> String {
    let bytes = from_base64(value_base64).unwrap_or_default();
    match std::str::from_utf8(&bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => format!("base64:{value_base64}"),
    }
}

pub(super) fn scan(options: &KvScan) -> Outcome {
    let target = Target::new(&options.to)?;
    let parameters = [
        ("prefix", some(&options.prefix)),
        ("limit", some(&options.limit)),
        ("cursor", options.cursor.clone()),
        ("values", options.values.then(|| "true".to_owned())),
    ];
    let answer = target.client.get(&target.path("/v1/kv", &parameters))?;
    print(&options.to.remote, answer, rows)?;
    Ok(ExitCode::SUCCESS)
}

fn rows(page: &Page) -> String {
    let rows = page.items.iter().map(|entry| {
        [
            entry.name(),
            entry.version.to_string(),
            entry.value_bytes.to_string(),
            table::or_dash(entry.expires_at.as_deref()),
            entry.value_base64.as_deref().map(shown).unwrap_or_default(),
        ]
    });
    let mut text = table::columns(["KEY", "VERSION", "BYTES", "EXPIRES", "VALUE"], rows);
    if let Some(cursor) = &page.next_cursor {
        text.push_str(&format!("\nthere may be more: --cursor {cursor}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(ns: Option<&str>) -> Target {
        Target { client: Client::new("http://127.0.0.1:1").expect("a URL"), ns: ns.map(str::to_owned) }
    }

    #[test]
    fn keys_stand_in_addresses_whatever_they_are() {
        let check = |key: &str, expect: &str| assert_eq!(target(None).key(key, "", &[]), expect);
        check("user:1", "/v1/kv/user%3A1");
        check("a/b", "/v1/kv/a%2Fb");
        check("batch", "/v1/kv/%62%61%74%63%68");
        check("..", "/v1/kv/%2E%2E");
        let parameters = [("by", some(&-1)), ("ack", None)];
        assert_eq!(target(Some("t1")).key("n", "/incr", &parameters), "/v1/kv/n/incr?ns=t1&by=-1");
    }

    #[test]
    fn what_came_of_a_write_is_said_in_a_sentence() {
        let written = |json: &str| serde_json::from_str::<Written>(json).expect("an answer");
        let put = |json: &str| put_sentence("k", &written(json));
        assert_eq!(put(r#"{"version":7,"replaced":false}"#), "k is set, at version 7");
        assert_eq!(put(r#"{"version":8,"replaced":true}"#), "k is replaced, at version 8");
        assert_eq!(put("{}"), "k is on its way");
        let deleted = |key, json: &str| deleted_sentence(key, &written(json));
        assert_eq!(deleted(Some("k"), r#"{"existed":true}"#), "k is removed");
        assert_eq!(deleted(Some("k"), r#"{"existed":false}"#), "k was not there");
        assert_eq!(deleted(None, r#"{"deleted":1}"#), "1 key removed");
    }

    #[test]
    fn a_page_shows_what_people_can_read() {
        let page = r#"{"items": [
            {"key": "a", "version": 3, "value_bytes": 2, "value_base64": "aGk="},
            {"key_base64": "/w==", "version": 4, "value_bytes": 1, "expires_at": "2026-01-01T00:00:00.000Z", "value_base64": "AA=="}
        ], "next_cursor": "AAAA"}"#;
        let expect = "\
KEY          VERSION  BYTES  EXPIRES                   VALUE
a            3        2      -                         hi
base64:/w==  4        1      2026-01-01T00:00:00.000Z  base64:AA==

there may be more: --cursor AAAA
";
        assert_eq!(rows(&serde_json::from_str(page).expect("a page")), expect);
    }

    #[test]
    fn an_entry_is_printed_with_what_its_headers_say() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ETAG, "\"12\"".parse().expect("a tag"));
        let entry = entry("k", &headers, b"hi");
        assert_eq!(
            entry,
            json!({"key": "k", "version": 12, "expires_at": null, "value": "hi", "value_base64": "aGk="})
        );
    }
}
