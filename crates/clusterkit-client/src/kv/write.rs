//! Writes of one key.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};

use super::{Kv, Version, checked_key};
use crate::error::Error;
use crate::limits::VALUE_BYTES_MAX;
use crate::net::{Call, Kind, Target};
use crate::options::Ack;
use crate::wire::{self, Appended, Changed, Deleted, Number, Query};

/// How a value is put.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PutOptions {
    /// After what time the entry expires, milliseconds at the finest. None: it does not, or when it did before if
    /// `keep_ttl` says so.
    pub ttl: Option<Duration>,
    /// Whether the entry expires when it would have before. Not together with `ttl`.
    pub keep_ttl: bool,
    /// What must hold, or nothing is done.
    pub condition: PutCondition,
    /// When the write is answered; as the [`Kv`] says unless set.
    pub ack: Option<Ack>,
}

/// What must hold for a value to be put.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PutCondition {
    /// Nothing.
    #[default]
    Any,
    /// The key is there, at whatever version.
    Exists,
    /// The key is missing.
    Missing,
    /// The key has this version.
    Version(Version),
}

impl PutOptions {
    /// The entry expires after `ttl`.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// The entry expires when it would have before.
    #[must_use]
    pub fn keep_ttl(mut self) -> Self {
        self.keep_ttl = true;
        self
    }

    /// It is put only if `condition` holds.
    #[must_use]
    pub fn condition(mut self, condition: PutCondition) -> Self {
        self.condition = condition;
        self
    }

    /// It is answered as `ack` says.
    #[must_use]
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = Some(ack);
        self
    }
}

impl Kv {
    /// Puts a value that does not expire, whatever is there.
    ///
    /// # Errors
    ///
    /// See [`Kv`].
    pub async fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Version, Error> {
        self.put_with(key, value, &PutOptions::default()).await
    }

    /// Puts a value, and gives its version.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put); [`Error::AlreadyExists`] or [`Error::VersionMismatch`] if the condition does not hold,
    /// [`Error::InvalidArgument`] if the options contradict each other.
    pub async fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: &PutOptions,
    ) -> Result<Version, Error> {
        if options.keep_ttl && options.ttl.is_some() {
            return Err(Error::invalid("`ttl` and `keep_ttl` contradict each other"));
        }
        let query = self.write_query(options.ack).ttl(options.ttl).flag("keep_ttl", options.keep_ttl);
        let mut call = self.write_call(Method::PUT, key.as_ref(), "", query)?;
        call.body = checked_value(value.into())?;
        call.headers.extend(options.condition.header());
        self.client.shared.run(&call).await?.done()?.version()
    }

    /// Puts a value without waiting until it is safe: it may be lost with the leader, and is not sent again once it may
    /// have arrived.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub async fn put_unconfirmed(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        ttl: Option<Duration>,
    ) -> Result<(), Error> {
        let query = self.query().text("ack", Some("leader")).ttl(ttl);
        let mut call = self.write_call(Method::PUT, key.as_ref(), "", query)?;
        call.kind = Kind::Unnumbered;
        call.body = checked_value(value.into())?;
        self.client.shared.run(&call).await?.done().map(drop)
    }

    /// Puts a value if the key still has `version`, and gives the new version.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put); [`Error::VersionMismatch`] if it has another.
    pub async fn compare_and_set(
        &self,
        key: impl AsRef<[u8]>,
        version: Version,
        value: impl Into<Bytes>,
    ) -> Result<Version, Error> {
        let options = PutOptions::default().condition(PutCondition::Version(version));
        self.put_with(key, value, &options).await
    }

    /// Removes `key`. Returns whether it was there.
    ///
    /// # Errors
    ///
    /// See [`Kv`].
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        self.delete_on(key.as_ref(), PutCondition::Any).await
    }

    /// Removes `key` if it still has `version`.
    ///
    /// # Errors
    ///
    /// As [`delete`](Self::delete); [`Error::VersionMismatch`] if it has another, or is missing.
    pub async fn delete_version(&self, key: impl AsRef<[u8]>, version: Version) -> Result<(), Error> {
        self.delete_on(key.as_ref(), PutCondition::Version(version)).await.map(drop)
    }

    async fn delete_on(&self, key: &[u8], condition: PutCondition) -> Result<bool, Error> {
        let mut call = self.write_call(Method::DELETE, key, "", self.write_query(None))?;
        call.headers.extend(condition.header());
        Ok(self.client.shared.run(&call).await?.done()?.json::<Deleted>()?.existed)
    }

    /// Adds `by` to the number at `key`, and gives what it is then. A missing key is 0.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put); [`Error::NotANumber`] and [`Error::NumberOverflow`].
    pub async fn incr(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64, Error> {
        self.add(key.as_ref(), "/incr", by).await
    }

    /// Takes `by` from the number at `key`, and gives what it is then. A missing key is 0.
    ///
    /// # Errors
    ///
    /// As [`incr`](Self::incr).
    pub async fn decr(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64, Error> {
        self.add(key.as_ref(), "/decr", by).await
    }

    async fn add(&self, key: &[u8], verb: &str, by: i64) -> Result<i64, Error> {
        let query = self.write_query(None).number("by", by);
        let call = self.write_call(Method::POST, key, verb, query)?;
        Ok(self.client.shared.run(&call).await?.done()?.json::<Number>()?.number)
    }

    /// Adds bytes to the end of the value at `key`, and gives how many it has then. A missing key is empty.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put); [`Error::TooLarge`] also if the value would become too large.
    pub async fn append(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<u64, Error> {
        let mut call = self.write_call(Method::POST, key.as_ref(), "/append", self.write_query(None))?;
        call.body = checked_value(value.into())?;
        Ok(self.client.shared.run(&call).await?.done()?.json::<Appended>()?.value_bytes)
    }

    /// Lets `key` expire after `ttl`. Returns whether it is there.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub async fn expire(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool, Error> {
        let query = self.write_query(None).ttl(Some(ttl));
        let call = self.write_call(Method::POST, key.as_ref(), "/expire", query)?;
        Ok(self.client.shared.run(&call).await?.unless_missing().is_some())
    }

    /// Lets `key` not expire. Returns whether it would have; not if it is missing.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub async fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let call = self.write_call(Method::POST, key.as_ref(), "/persist", self.write_query(None))?;
        let Some(reply) = self.client.shared.run(&call).await?.unless_missing() else { return Ok(false) };
        Ok(reply.json::<Changed>()?.changed)
    }

    pub(super) fn write_query(&self, ack: Option<Ack>) -> Query {
        self.query().text("ack", wire::ack(ack.unwrap_or(self.ack)))
    }

    fn write_call(&self, method: Method, key: &[u8], verb: &str, query: Query) -> Result<Call, Error> {
        let path = wire::key_path(checked_key(key)?, verb);
        Ok(self.call(method, path, query, Kind::Write, Target::key(key)))
    }
}

impl PutCondition {
    fn header(self) -> Option<(HeaderName, String)> {
        match self {
            Self::Any => None,
            Self::Exists => Some((IF_MATCH, "*".to_owned())),
            Self::Missing => Some((IF_NONE_MATCH, "*".to_owned())),
            Self::Version(version) => Some((IF_MATCH, format!("\"{}\"", version.0))),
        }
    }
}

pub(super) fn checked_value(value: Bytes) -> Result<Bytes, Error> {
    if value.len() <= VALUE_BYTES_MAX {
        Ok(value)
    } else {
        Err(Error::too_large("a value has at most 4 MiB"))
    }
}
