//! Keys by their prefix: `GET` and `DELETE /v1/kv`.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use clusterkit::PartitionId;
use clusterkit::http::{Code, Endpoint, Problem, Query};
use clusterkit_services::kv::{Cursor, Page, PageEntry, Scan};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::time;
use super::limits::{PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX};
use super::text::{base64, base64_url, bytes_in_query, from_base64, text_or_base64};
use super::wish::{AckWish, Flag, ReadWish, namespace, read_options, write_options};
use super::{KvApi, READ_CODES, WRITE_CODES, failure};

/// In a cursor: only a partition follows, at whose beginning the scan goes on.
const AT_BEGINNING: u8 = 0;
/// In a cursor: a partition and a key of it follow.
const AT_KEY: u8 = 1;

pub(super) fn endpoints() -> Vec<Endpoint<KvApi>> {
    vec![
        Endpoint::get("/v1/kv", scan)
            .summary("Keys that begin with a prefix, in pages: partition by partition, in order within each.")
            .query::<ScanQuery>()
            .json::<PageDto>("A page, which may be empty although there are more.")
            .fails(READ_CODES),
        Endpoint::delete("/v1/kv", delete)
            .summary("Removes all keys that begin with a prefix.")
            .query::<DeleteQuery>()
            .json::<DeletedDto>("They are not there any more.")
            .fails(WRITE_CODES),
    ]
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ScanQuery {
    /// What the keys begin with; every key unless said otherwise.
    #[allow(dead_code, reason = "read from the address, where it may have any bytes")]
    prefix: Option<String>,
    /// Keys of a page; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// Whether values are wanted.
    #[param(value_type = Option<bool>)]
    values: Option<Flag>,
    /// The namespace; `default` unless another one is named.
    ns: Option<String>,
    /// How new the answer must be; `linearizable` unless said otherwise.
    #[param(inline)]
    read: Option<ReadWish>,
    /// How long each partition may take, as in `500ms`; 5 s unless said otherwise, 60 s at most.
    timeout: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct DeleteQuery {
    /// What the keys begin with.
    #[allow(dead_code, reason = "read from the address, where it may have any bytes")]
    prefix: Option<String>,
    /// With an empty prefix: yes, every key of the namespace.
    #[param(value_type = Option<bool>)]
    all: Option<Flag>,
    /// The namespace; `default` unless another one is named.
    ns: Option<String>,
    /// When it is answered; `quorum` unless said otherwise.
    #[param(inline)]
    ack: Option<AckWish>,
    /// How long each command may take, as in `500ms`; 5 s unless said otherwise, 60 s at most.
    timeout: Option<String>,
}

/// A page of keys.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KvPage)]
struct PageDto {
    items: Vec<EntryDto>,
    /// Where the next page begins; null after the last one.
    next_cursor: Option<String>,
}

/// A key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KvEntry)]
struct EntryDto {
    /// The key, where it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The key, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    version: u64,
    value_bytes: u32,
    /// When it expires; left out for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// The same in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
    /// The value, if values are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl From<PageEntry> for EntryDto {
    fn from(entry: PageEntry) -> Self {
        let (key, key_base64) = text_or_base64(&entry.key);
        let about = entry.description;
        Self {
            key,
            key_base64,
            version: about.version.0,
            value_bytes: about.value_bytes,
            expires_at: about.expires_at.map(time),
            expires_at_ms: about.expires_at.map(|at| at.0),
            value_base64: entry.value.map(|value| base64(&value)),
        }
    }
}

impl From<Page> for PageDto {
    fn from(page: Page) -> Self {
        let items = page.entries.into_iter().map(EntryDto::from).collect();
        Self { items, next_cursor: page.cursor.as_ref().map(cursor_text) }
    }
}

/// A cursor on its way through a client, who is not to look into it.
fn cursor_text(cursor: &Cursor) -> String {
    let mut bytes = vec![if cursor.key.is_some() { AT_KEY } else { AT_BEGINNING }];
    bytes.extend_from_slice(&cursor.partition.0.to_be_bytes());
    bytes.extend_from_slice(cursor.key.as_deref().unwrap_or_default());
    base64_url(&bytes)
}

fn cursor_of(text: &str) -> Option<Cursor> {
    let bytes = from_base64(text)?;
    let (kind, rest) = bytes.split_first()?;
    let (partition, key) = rest.split_first_chunk()?;
    let key = match *kind {
        AT_BEGINNING if key.is_empty() => None,
        AT_KEY => Some(Bytes::copy_from_slice(key)),
        _ => return None,
    };
    Some(Cursor { partition: PartitionId(u32::from_be_bytes(*partition)), key })
}

fn cursor(text: Option<&str>) -> Result<Option<Cursor>, Problem> {
    let wrong = || Problem::new(Code::InvalidValue, "`cursor` is none that a page of this scan ended with");
    text.map(|text| cursor_of(text).ok_or_else(wrong)).transpose()
}

fn limit(limit: Option<u32>) -> Result<u32, Problem> {
    let limit = limit.unwrap_or(PAGE_LIMIT_DEFAULT);
    let wrong = || {
        Problem::new(Code::InvalidValue, format!("`limit` is between 1 and {PAGE_LIMIT_MAX}, not {limit}"))
    };
    (1..=PAGE_LIMIT_MAX).contains(&limit).then_some(limit).ok_or_else(wrong)
}

async fn scan(
    State(api): State<KvApi>,
    uri: Uri,
    Query(query): Query<ScanQuery>,
) -> Result<Response, Problem> {
    let prefix = bytes_in_query(uri.query().unwrap_or_default(), "prefix")?.unwrap_or_default();
    let namespace = namespace(query.ns.as_deref())?;
    let options = read_options(query.read, None, query.timeout.as_deref(), true)?;
    let scan = Scan {
        entries_max: limit(query.limit)?,
        with_values: query.values.is_some_and(|Flag(values)| values),
        ..Scan::new(prefix)
    };
    let cursor = cursor(query.cursor.as_deref())?;
    Ok(match api.store.scan(&namespace, cursor, &scan, &options).await {
        Ok(page) => Json(PageDto::from(page)).into_response(),
        Err(error) => failure::answer(&api.ck, &error, None, None),
    })
}

/// What was removed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KvDeleted)]
struct DeletedDto {
    /// How many keys.
    deleted: u64,
}

async fn delete(
    State(api): State<KvApi>,
    uri: Uri,
    Query(query): Query<DeleteQuery>,
) -> Result<Response, Problem> {
    let prefix = bytes_in_query(uri.query().unwrap_or_default(), "prefix")?.unwrap_or_default();
    if prefix.is_empty() && query.all != Some(Flag(true)) {
        let detail = "without a `prefix` every key of the namespace is removed: say so by `all=true`";
        return Err(Problem::new(Code::InvalidValue, detail));
    }
    if query.ack == Some(AckWish::Leader) {
        let detail = "with `ack=leader` nobody would learn how many are left; choose quorum or all";
        return Err(Problem::new(Code::InvalidValue, detail));
    }
    let namespace = namespace(query.ns.as_deref())?;
    let options = write_options(query.ack, query.timeout.as_deref(), true)?;
    Ok(match api.store.delete_prefix(&namespace, &prefix, &options).await {
        Ok(deleted) => Json(DeletedDto { deleted }).into_response(),
        Err(error) => failure::answer(&api.ck, &error, None, None),
    })
}

#[cfg(test)]
mod tests {
    use clusterkit_data::LogTime;
    use clusterkit_services::kv::{Description, Version};

    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let check = |partition, key: Option<&'static [u8]>| {
            let cursor = Cursor { partition: PartitionId(partition), key: key.map(Bytes::from_static) };
            let text = cursor_text(&cursor);
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{text}");
            assert_eq!(cursor_of(&text), Some(cursor));
        };
        check(0, None);
        check(63, Some(b"user:1"));
        check(u32::MAX, Some(&[0xff, 0, 0xfe]));
        check(1, Some(b""));
        for text in ["", "AA", "AAAAAAAx", "AgAAAAA", "!"] {
            assert_eq!(cursor_of(text), None, "{text}");
        }
    }

    #[test]
    fn pages_are_bounded() {
        assert_eq!(limit(None).ok(), Some(PAGE_LIMIT_DEFAULT));
        assert_eq!(limit(Some(1_000)).ok(), Some(1_000));
        assert!(limit(Some(0)).is_err() && limit(Some(1_001)).is_err());
    }

    #[test]
    fn a_page_tells_keys_as_text_where_they_are() {
        let entry = |key: &'static [u8], expires_at| PageEntry {
            key: Bytes::from_static(key),
            description: Description { version: Version(7), expires_at, value_bytes: 2 },
            value: Some(Bytes::from_static(b"hi")),
        };
        let cursor = Some(Cursor { partition: PartitionId(1), key: None });
        let page = Page { entries: vec![entry(b"a", None), entry(&[0xff], Some(LogTime(1_000)))], cursor };
        let expect = serde_json::json!({
            "items": [
                {"key": "a", "version": 7, "value_bytes": 2, "value_base64": "aGk="},
                {"key_base64": "/w==", "version": 7, "value_bytes": 2, "value_base64": "aGk=",
                 "expires_at": "1970-01-01T00:00:01.000Z", "expires_at_ms": 1000},
            ],
            "next_cursor": "AAAAAAE",
        });
        assert_eq!(serde_json::to_value(PageDto::from(page)).expect("JSON"), expect);
    }
}
