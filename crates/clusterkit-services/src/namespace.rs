//! Named parts of the keyspace.

use std::fmt;
use std::str::FromStr;

/// Bytes of the name of a namespace.
pub const NAMESPACE_BYTES_MAX: usize = 64;

/// The namespace of requests that name none.
const DEFAULT: &str = "default";

/// The name of a part of the keyspace: what is in one is invisible in every other.
///
/// It has 1 to [`NAMESPACE_BYTES_MAX`] bytes of ASCII letters, digits, `.`, `_` and `-`. A namespace is there as soon
/// as something is written to it, and gone with the last entry. The default is called `default`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(String);

impl Namespace {
    /// The namespace of this name.
    ///
    /// # Errors
    ///
    /// If the name is empty, too long, or has other characters.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidNamespace> {
        let name = name.into();
        let is_valid = (1..=NAMESPACE_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_allowed);
        if is_valid { Ok(Self(name)) } else { Err(InvalidNamespace) }
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As it was written by us, with no name for the default.
    pub(crate) fn read(name: &[u8]) -> Result<Self, InvalidNamespace> {
        match std::str::from_utf8(name) {
            Ok("") => Ok(Self::default()),
            Ok(name) => Self::new(name),
            Err(_) => Err(InvalidNamespace),
        }
    }

    /// Its length in a byte, then its name.
    pub(crate) fn write(&self, into: &mut Vec<u8>) {
        into.push(u8::try_from(self.0.len()).expect("a namespace has at most 64 bytes"));
        into.extend_from_slice(self.0.as_bytes());
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Namespace {
    type Err = InvalidNamespace;

    fn from_str(name: &str) -> Result<Self, InvalidNamespace> {
        Self::new(name)
    }
}

/// The name is no name of a namespace. Nothing changed; choose another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a namespace has 1 to {NAMESPACE_BYTES_MAX} letters, digits, `.`, `_` and `-`")]
#[non_exhaustive]
pub struct InvalidNamespace;

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

const _: () = assert!(NAMESPACE_BYTES_MAX <= u8::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        let check =
            |name: &str, expect: bool| assert_eq!(name.parse::<Namespace>().is_ok(), expect, "{name}");
        check("default", true);
        check("Tenant-1.eu_west", true);
        check("", false);
        check("a b", false);
        check("\u{e4}", false);
        check(&"a".repeat(NAMESPACE_BYTES_MAX), true);
        check(&"a".repeat(NAMESPACE_BYTES_MAX + 1), false);
    }
}
