//! Questions.

use std::ops::Bound;

use bytes::Bytes;
use clusterkit_core::replica::LogTime;
use clusterkit_data::View;
use clusterkit_storage::state_store::{Query, StateError};

use super::limits::{EXAMINED_BYTES_MAX, EXAMINED_ENTRIES_MAX, PAGE_ENTRIES_MAX, READ_BYTES_MAX};
use super::question::{Description, Found, PageEntry, Question, Scan, Value};
use super::row;
use crate::namespace::Namespace;

/// Answers a question.
pub(crate) fn query(
    namespace: &Namespace,
    question: &Question,
    now: LogTime,
    state: &View<'_>,
) -> Result<Found, StateError> {
    if let Err(refusal) = question.check() {
        return Ok(Found::Refused(refusal));
    }
    let reader = Reader { namespace, now, state };
    match question {
        Question::Describe { keys } => reader.describe(keys),
        Question::ExpiryDue => reader.expiry_due(),
        Question::Read { key } => reader.value(key).map(|entry| Found::Read { entry }),
        Question::ReadMany { keys } => reader.read_many(keys),
        Question::Scan(scan) => reader.scan(scan),
        Question::Stats => reader.stats(),
    }
}

struct Reader<'a> {
    namespace: &'a Namespace,
    now: LogTime,
    state: &'a View<'a>,
}

impl Reader<'_> {
    fn describe(&self, keys: &[Bytes]) -> Result<Found, StateError> {
        let entries = self.each(keys, EXAMINED_BYTES_MAX, |entry, _| entry)?;
        Ok(Found::Described { entries, now: self.now })
    }

    fn expiry_due(&self) -> Result<Found, StateError> {
        let (start, end) = row::expiry_range(LogTime(u64::MAX));
        let (start, end) = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
        let found = self.state.range(&Query { start, end, entries_max: 1, ..Query::default() })?;
        let at = found.entries.first().map(|(key, _)| row::read_expiry_key(key).0);
        Ok(Found::ExpiryDue { at })
    }

    fn read_many(&self, keys: &[Bytes]) -> Result<Found, StateError> {
        Ok(Found::ReadMany { entries: self.each(keys, READ_BYTES_MAX, value)? })
    }

    fn scan(&self, scan: &Scan) -> Result<Found, StateError> {
        let start = row::entry_key(self.namespace, &scan.prefix);
        let mut page = Page::new(scan);
        let mut behind = scan.cursor.as_ref().map(|key| row::entry_key(self.namespace, key));
        let end = row::prefix_end(&start);
        while page.has_budget() {
            let found = self.state.range(&Query {
                start: behind.as_deref().map_or(Bound::Included(&start[..]), Bound::Excluded),
                end: Bound::Excluded(&end),
                entries_max: page.query_entries_max(),
                bytes_max: page.query_bytes_max(),
                ..Query::default()
            })?;
            for (at, row) in &found.entries {
                if !page.take(row::key_of(self.namespace, at), row.clone(), self.now) {
                    return Ok(page.end(false));
                }
            }
            if found.is_complete {
                return Ok(page.end(true));
            }
            behind = found.entries.last().map(|(at, _)| at.clone());
        }
        Ok(page.end(false))
    }

    fn stats(&self) -> Result<Found, StateError> {
        Ok(Found::Stats(row::read_stats(self.state.get(&row::stats_key(self.namespace))?)))
    }

    /// The first entries of which no more than so many bytes must be read, but one at least.
    fn each<T>(
        &self,
        keys: &[Bytes],
        bytes_max: usize,
        shown: impl Fn(Description, Bytes) -> T,
    ) -> Result<Vec<Option<T>>, StateError> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for key in keys {
            let found = self.entry(key)?;
            bytes += found.as_ref().map_or(0, |(_, value)| value.len());
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(found.map(|(entry, value)| shown(entry, value)));
        }
        Ok(entries)
    }

    fn value(&self, key: &[u8]) -> Result<Option<Value>, StateError> {
        Ok(self.entry(key)?.map(|(entry, bytes)| value(entry, bytes)))
    }

    fn entry(&self, key: &[u8]) -> Result<Option<(Description, Bytes)>, StateError> {
        let row = self.state.get(&row::entry_key(self.namespace, key))?;
        Ok(row.map(row::read_entry).filter(|(entry, _)| !row::has_expired(entry.expires_at, self.now)))
    }
}

fn value(entry: Description, bytes: Bytes) -> Value {
    Value { bytes, version: entry.version, expires_at: entry.expires_at }
}

/// A page of a scan while it is filled.
struct Page {
    with_values: bool,
    entries: Vec<PageEntry>,
    entries_max: usize,
    bytes_left: usize,
    /// How many rows to read at once: more each time, since those before had expired.
    rows_next: usize,
    /// How many more rows may be read.
    entries_left: usize,
    /// How many bytes of rows may be read.
    examined_left: usize,
    cursor: Option<Bytes>,
}

impl Page {
    fn new(scan: &Scan) -> Self {
        Self {
            with_values: scan.with_values,
            entries: Vec::new(),
            entries_max: (scan.entries_max as usize).clamp(1, PAGE_ENTRIES_MAX),
            rows_next: (scan.entries_max as usize).clamp(1, PAGE_ENTRIES_MAX) + 1,
            bytes_left: (scan.bytes_max as usize).min(READ_BYTES_MAX),
            entries_left: EXAMINED_ENTRIES_MAX,
            examined_left: EXAMINED_BYTES_MAX,
            cursor: scan.cursor.clone(),
        }
    }

    fn has_budget(&self) -> bool {
        self.entries_left > 0 && self.examined_left > 0
    }

    /// One more than the page takes tells whether there are more.
    fn query_entries_max(&mut self) -> usize {
        let rows = self.rows_next;
        self.rows_next = rows * 2;
        rows.min(self.entries_left)
    }

    /// How much to read at once: with values, no more than what the page can take.
    fn query_bytes_max(&self) -> usize {
        if self.with_values { self.bytes_left.min(self.examined_left) } else { self.examined_left }
    }

    /// Takes the next row. Not if the page is full.
    fn take(&mut self, key: Bytes, row: Bytes, now: LogTime) -> bool {
        let row_bytes = key.len() + row.len();
        let (description, value) = row::read_entry(row);
        if !row::has_expired(description.expires_at, now) {
            let bytes = key.len() + if self.with_values { value.len() } else { 0 };
            let is_full = self.entries.len() == self.entries_max;
            if is_full || bytes > self.bytes_left && !self.entries.is_empty() {
                return false;
            }
            self.bytes_left = self.bytes_left.saturating_sub(bytes);
            let value = self.with_values.then_some(value);
            self.entries.push(PageEntry { key: key.clone(), description, value });
        }
        self.entries_left -= 1;
        self.examined_left = self.examined_left.saturating_sub(row_bytes);
        self.cursor = Some(key);
        true
    }

    fn end(self, is_complete: bool) -> Found {
        Found::Page { entries: self.entries, cursor: self.cursor.filter(|_| !is_complete) }
    }
}
