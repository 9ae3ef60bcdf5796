//! Bytes in text: escapes, base64, and JSON that holds either text or bytes.

use bytes::Bytes;
use clusterkit::http::{Code, Problem};

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64 with padding (RFC 4648, section 4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut text = digits(bytes, STANDARD);
    text.extend(std::iter::repeat_n('=', (4 - text.len() % 4) % 4));
    text
}

/// Base64 for addresses, without padding (RFC 4648, section 5).
pub(crate) fn base64_url(bytes: &[u8]) -> String {
    digits(bytes, URL_SAFE)
}

fn digits(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for position in 0..=chunk.len() {
            let digit = word >> (18 - 6 * position) & 63;
            text.push(char::from(alphabet[digit as usize]));
        }
    }
    text
}

/// The bytes of base64 of either kind, with or without padding.
pub(crate) fn from_base64(text: &str) -> Option<Bytes> {
    let digits = text.trim_end_matches('=').as_bytes();
    if digits.len() % 4 == 1 || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for chunk in digits.chunks(4) {
        let word = chunk.iter().try_fold(0_u32, |word, digit| Some(word << 6 | sextet(*digit)?))?;
        let word = word << (6 * (4 - chunk.len()));
        bytes.extend_from_slice(&word.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes.into())
}

fn sextet(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

/// What stands in an address, where a plus sign is what `space` says.
fn unescaped(text: &str, space: u8) -> Option<Bytes> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'+' => bytes.push(space),
            b'%' => {
                let (pair, tail) = rest.split_at_checked(2)?;
                let digit = |at: usize| char::from(pair[at]).to_digit(16);
                bytes.push(u8::try_from(digit(0)? * 16 + digit(1)?).ok()?);
                rest = tail;
            }
            other => bytes.push(other),
        }
    }
    Some(bytes.into())
}

fn wrong_escape(what: &str) -> Problem {
    Problem::new(Code::InvalidValue, format!("in `{what}`, `%` is followed by two hexadecimal digits"))
}

/// The key of `/v1/kv/{key}`, whatever bytes it has.
pub(crate) fn key_in_path(path: &str) -> Result<Bytes, Problem> {
    let segment = path.split('/').nth(3).unwrap_or_default();
    unescaped(segment, b'+').ok_or_else(|| wrong_escape("key"))
}

/// The value of a parameter of a query, whatever bytes it has.
pub(crate) fn bytes_in_query(query: &str, name: &str) -> Result<Option<Bytes>, Problem> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let Some((_, text)) = pairs.into_iter().find(|(found, _)| *found == name) else { return Ok(None) };
    unescaped(text, b' ').map(Some).ok_or_else(|| wrong_escape(name))
}

/// Bytes in JSON: as text where they are, and else as base64.
pub(crate) fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(base64(bytes))),
    }
}

/// Bytes from JSON, where `name` gives text and `name_base64` bytes; nothing where neither is there.
pub(crate) fn either(
    name: &str,
    text: Option<String>,
    encoded: Option<String>,
) -> Result<Option<Bytes>, Problem> {
    match (text, encoded) {
        (Some(_), Some(_)) => {
            Err(Problem::new(Code::InvalidValue, format!("give `{name}` or `{name}_base64`, not both")))
        }
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(encoded)) => {
            let wrong = || Problem::new(Code::InvalidValue, format!("`{name}_base64` is not base64"));
            from_base64(&encoded).map(Some).ok_or_else(wrong)
        }
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let check = |bytes: &[u8], text: &str| {
            assert_eq!(base64(bytes), text);
            assert_eq!(from_base64(text).as_deref(), Some(bytes), "{text}");
            assert_eq!(from_base64(&base64_url(bytes)).as_deref(), Some(bytes), "{text}");
        };
        check(b"", "");
        check(b"f", "Zg==");
        check(b"fo", "Zm8=");
        check(b"foo", "Zm9v");
        check(b"foob", "Zm9vYg==");
        check(b"foobar", "Zm9vYmFy");
        check(&[0xfb, 0xff, 0xfe], "+//+");
        assert_eq!(base64_url(&[0xfb, 0xff, 0xfe, 0]), "-__-AA");
        for text in ["Z", "Zg=a", "Z!==", "Zg===", "Z\u{e4}"] {
            assert_eq!(from_base64(text), None, "{text}");
        }
    }

    #[test]
    fn keys_in_addresses_may_have_any_bytes() {
        let check = |path: &str, expect: Option<&[u8]>| {
            assert_eq!(key_in_path(path).ok().as_deref(), expect, "{path}");
        };
        check("/v1/kv/user:1", Some(b"user:1"));
        check("/v1/kv/a%2Fb%00%ff/incr", Some(b"a/b\0\xff"));
        check("/v1/kv/a+b", Some(b"a+b"));
        check("/v1/kv/a%2", None);
        check("/v1/kv/%zz", None);
        let check = |query: &str, expect: Option<&[u8]>| {
            assert_eq!(bytes_in_query(query, "prefix").expect("valid").as_deref(), expect, "{query}");
        };
        check("ns=a&prefix=a+b%ff&limit=1", Some(b"a b\xff"));
        check("prefix", Some(b""));
        check("prefixes=a", None);
        check("", None);
    }
}
