//! Many keys, one page after the other.

use std::time::SystemTime;

use bytes::Bytes;
use hyper::Method;

use super::{Kv, Version};
use crate::error::Error;
use crate::limits::{KEY_BYTES_MAX, PAGE_ENTRIES_MAX};
use crate::net::{Kind, Target};
use crate::wire::{DeletedCount, Page};

/// A key and what is at it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanEntry {
    /// The key.
    pub key: Bytes,
    /// Its value. None if the scan is of keys alone.
    pub value: Option<Bytes>,
    /// Bytes of its value.
    pub value_bytes: u64,
    /// Its version.
    pub version: Version,
    /// When it expires, by the clocks of the nodes. None if it does not.
    pub expires_at: Option<SystemTime>,
}

/// A walk through the keys with a prefix: partition by partition, within one in the order of keys.
///
/// It misses nothing that was acknowledged before a page was asked for, unless the [`Kv`] reads
/// [any](crate::Read::Any) or [leader](crate::Read::Leader). It is no snapshot. What was there from beginning to end comes once; what comes or goes meanwhile may or may not.
#[derive(Debug)]
pub struct Scan {
    kv: Kv,
    prefix: Bytes,
    limit: usize,
    with_values: bool,
    next: Next,
}

#[derive(Debug)]
enum Next {
    Cursor(String),
    End,
    Start,
}

impl Scan {
    /// Pages of at most `entries`, 1 to 1,000; 1,000 unless set. Large entries make them shorter.
    #[must_use]
    pub fn page_entries(mut self, entries: usize) -> Self {
        self.limit = entries.clamp(1, PAGE_ENTRIES_MAX);
        self
    }

    /// Keys without their values.
    #[must_use]
    pub fn keys_only(mut self) -> Self {
        self.with_values = false;
        self
    }

    /// The next entries; none after the last page. A page may be empty although others follow it.
    ///
    /// # Errors
    ///
    /// See [`Kv`]. The scan stays where it is: call again to retry.
    pub async fn next_page(&mut self) -> Result<Option<Vec<ScanEntry>>, Error> {
        let cursor = match &self.next {
            Next::Cursor(cursor) => Some(cursor.as_str()),
            Next::End => return Ok(None),
            Next::Start => None,
        };
        let query = self.kv.query().bytes("prefix", &self.prefix).number("limit", self.limit);
        let (query, kind) =
            (query.text("cursor", cursor).flag("values", self.with_values), Kind::Read(self.kv.read.clone()));
        let call = self.kv.call(Method::GET, "/v1/kv".to_owned(), query, kind, Target::Any);
        let reply = self.kv.client.shared.run(&call).await?.done()?;
        let page: Page = reply.json()?;
        let entries = page.items.into_iter().map(|item| item.entry().ok_or_else(|| reply.malformed()));
        let entries = entries.collect::<Result<_, _>>()?;
        self.next = page.next_cursor.map_or(Next::End, Next::Cursor);
        Ok(Some(entries))
    }
}

impl Kv {
    /// Walks through the keys that begin with `prefix`; through all of the namespace if it is empty.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if the prefix has more bytes than a key may have.
    pub fn scan(&self, prefix: impl AsRef<[u8]>) -> Result<Scan, Error> {
        let prefix = checked_prefix(prefix.as_ref())?;
        Ok(Scan { kv: self.clone(), prefix, limit: PAGE_ENTRIES_MAX, with_values: true, next: Next::Start })
    }

    /// Removes the keys that begin with `prefix`, all of the namespace if it is empty. Returns how many it found.
    ///
    /// It is no single write: of keys that come meanwhile some may go as well, and after an error some may be left.
    /// Repeat it then: that harms nothing but keys that came meanwhile.
    ///
    /// # Errors
    ///
    /// See [`Kv`]. After [`Error::OutcomeUnknown`] some may have gone.
    pub async fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<u64, Error> {
        let prefix = checked_prefix(prefix.as_ref())?;
        let query = self.write_query(None).bytes("prefix", &prefix).flag("all", prefix.is_empty());
        let call = self.call(Method::DELETE, "/v1/kv".to_owned(), query, Kind::Sweep, Target::Any);
        Ok(self.client.shared.run(&call).await?.done()?.json::<DeletedCount>()?.deleted)
    }
}

fn checked_prefix(prefix: &[u8]) -> Result<Bytes, Error> {
    if prefix.len() > KEY_BYTES_MAX {
        return Err(Error::too_large("a prefix has at most 4 KiB"));
    }
    Ok(Bytes::copy_from_slice(prefix))
}
