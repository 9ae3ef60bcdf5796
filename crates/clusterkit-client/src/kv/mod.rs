//! Keys and values.

mod many;
mod scan;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::Method;

use crate::client::Client;
use crate::error::Error;
use crate::limits::{KEY_BYTES_MAX, NAMESPACE_BYTES_MAX};
use crate::net::{Call, Kind, Target};
use crate::options::{Ack, Read};
use crate::token::Token;
use crate::wire::{self, Lives, Query};

pub use scan::{Scan, ScanEntry};
pub use write::{PutCondition, PutOptions};

/// The version of an entry. It grows with each change of the entry; that of another key says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// What is at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its value.
    pub value: Bytes,
    /// Its version.
    pub version: Version,
    /// When it expires, by the clocks of the nodes. None if it does not.
    pub expires_at: Option<SystemTime>,
}

/// How long an entry still lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ttl {
    /// It expires after this time.
    Expires(Duration),
    /// The key is missing.
    Missing,
    /// It does not expire.
    Never,
}

/// The keys and values of one namespace, cheap to clone.
///
/// Keys have 1 to [`KEY_BYTES_MAX`] bytes. Keys with the same text between `{` and `}` share a partition. Every
/// call may fail with [`Error::Unavailable`], [`Error::Overloaded`] and [`Error::Protocol`], and refuses keys and
/// values above the limits with [`Error::TooLarge`]. Every write may fail with [`Error::OutcomeUnknown`]; other errors
/// of writes mean that nothing changed.
#[derive(Clone)]
pub struct Kv {
    pub(crate) client: Client,
    namespace: Option<Arc<str>>,
    read: Read,
    ack: Ack,
    deadline: Duration,
}

impl Kv {
    pub(crate) fn new(client: Client) -> Self {
        let deadline = client.shared.options.deadline;
        Self { client, namespace: None, read: Read::default(), ack: Ack::default(), deadline }
    }

    /// The keys and values of another namespace, with the settings of this one.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] unless the name has 1 to 64 letters, digits, `.`, `_` and `-`.
    pub fn namespace(&self, name: &str) -> Result<Self, Error> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > NAMESPACE_BYTES_MAX || !name.bytes().all(is_allowed) {
            return Err(Error::invalid("a namespace has 1 to 64 ASCII letters, digits, `.`, `_` and `-`"));
        }
        Ok(Self { namespace: Some(name.into()), ..self.clone() })
    }

    /// The same with another deadline for each call.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The same with reads that may miss less or more.
    #[must_use]
    pub fn read(mut self, read: Read) -> Self {
        self.read = read;
        self
    }

    /// The same with writes that are answered earlier or later.
    #[must_use]
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// How far this client, all its clones counted, has written and read.
    #[must_use]
    pub fn token(&self) -> Token {
        self.client.shared.token()
    }

    /// What is at `key`. None if it is missing.
    ///
    /// # Errors
    ///
    /// See [`Kv`].
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Entry>, Error> {
        let call = self.read_call(Method::GET, key.as_ref(), "")?;
        let Some(reply) = self.client.shared.run(&call).await?.unless_missing() else { return Ok(None) };
        let (version, expires_at) = (reply.version()?, reply.expires_at()?);
        Ok(Some(Entry { value: reply.body, version, expires_at }))
    }

    /// Whether `key` is there.
    ///
    /// # Errors
    ///
    /// See [`Kv`].
    pub async fn exists(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let call = self.read_call(Method::HEAD, key.as_ref(), "")?;
        Ok(self.client.shared.run(&call).await?.unless_missing().is_some())
    }

    /// How long `key` still lives.
    ///
    /// # Errors
    ///
    /// See [`Kv`].
    pub async fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Ttl, Error> {
        let call = self.read_call(Method::GET, key.as_ref(), "/ttl")?;
        let Some(reply) = self.client.shared.run(&call).await?.unless_missing() else {
            return Ok(Ttl::Missing);
        };
        let Some(ttl) = reply.json::<Lives>()?.ttl else { return Ok(Ttl::Never) };
        wire::duration(&ttl).map(Ttl::Expires).ok_or_else(|| reply.malformed())
    }

    fn read_call(&self, method: Method, key: &[u8], noun: &str) -> Result<Call, Error> {
        let path = wire::key_path(checked_key(key)?, noun);
        Ok(self.call(method, path, self.query(), Kind::Read(self.read.clone()), Target::key(key)))
    }

    fn query(&self) -> Query {
        Query::new().text("ns", self.namespace.as_deref())
    }

    fn call(&self, method: Method, path: String, query: Query, kind: Kind, target: Target) -> Call {
        let path = query.after(path);
        Call { method, path, body: Bytes::new(), headers: Vec::new(), kind, target, deadline: self.deadline }
    }
}

impl fmt::Debug for Kv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client: _, namespace, read, ack, deadline } = self;
        let mut shown = f.debug_struct("Kv");
        shown.field("namespace", namespace).field("read", read).field("ack", ack);
        shown.field("deadline", deadline).finish_non_exhaustive()
    }
}

fn checked_key(key: &[u8]) -> Result<&[u8], Error> {
    match key.len() {
        0 => Err(Error::invalid("a key has at least one byte")),
        1..=KEY_BYTES_MAX => Ok(key),
        _ => Err(Error::too_large("a key has at most 4 KiB")),
    }
}
