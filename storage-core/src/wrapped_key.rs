//! The text of a key ring: one key on each line, plain or wrapped by a key management service.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::seal::{KeyRingError, SealingKey};

/// How a line with a wrapped key starts. Base64 contains no colon, so no plain key starts like this.
const START: &str = "wrapped:";
/// The maximum length of the name of a provider, in bytes.
const MAX_NAME: usize = 64;
/// The maximum length of a wrapped key, in bytes. A wrapped key of a usual service has a few hundred.
const MAX_WRAPPED: usize = 16 * 1024;
/// The number of digits in the id of a key.
const ID_DIGITS: usize = 16;

/// A [`SealingKey`] that a [`KeyProvider`](crate::KeyProvider) has wrapped: a line in the text of a key ring.
///
/// The line is `wrapped:PROVIDER:KEY-ID:BASE64`, with the name of the provider, the id of the key, and what
/// [`KeyProvider::wrap`](crate::KeyProvider::wrap) returned. It is not secret, because only the service can unwrap it.
/// `Display` writes the line.
///
/// ```
/// use oauth_dance_core::WrappedKey;
///
/// let line = "wrapped:vault:93b1f0a2c4d5e6f7:dmF1bHQ6djE6YWJj";
/// let key = WrappedKey::parse(line).expect("a wrapped key");
/// assert_eq!((key.provider(), key.key_id()), ("vault", "93b1f0a2c4d5e6f7"));
/// assert_eq!(key.as_bytes(), b"vault:v1:abc");
/// assert_eq!(key.to_string(), line);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    provider: String,
    key_id: String,
    wrapped: Vec<u8>,
}

impl WrappedKey {
    /// The wrapped form of a key. `None` if the name of the provider or the length is invalid.
    pub(crate) fn new(provider: &str, key_id: String, wrapped: Vec<u8>) -> Option<Self> {
        let is_valid = is_name(provider) && !wrapped.is_empty() && wrapped.len() <= MAX_WRAPPED;
        is_valid.then(|| Self { provider: provider.to_owned(), key_id, wrapped })
    }

    /// Parses a line. `None` if it is not a wrapped key.
    pub fn parse(line: &str) -> Option<Self> {
        let mut parts = line.trim().strip_prefix(START)?.splitn(3, ':');
        let (provider, key_id, wrapped) = (parts.next()?, parts.next()?, parts.next()?);
        let is_digit = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        if key_id.len() != ID_DIGITS || !key_id.bytes().all(is_digit) {
            return None;
        }
        let wrapped = STANDARD.decode(wrapped).or_else(|_| URL_SAFE_NO_PAD.decode(wrapped)).ok()?;
        Self::new(provider, key_id.to_owned(), wrapped)
    }

    /// The name of the provider that wrapped the key.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// The id of the key, as [`KeyRing::primary_id`](crate::KeyRing::primary_id) returns it for the unwrapped key.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// What [`KeyProvider::wrap`](crate::KeyProvider::wrap) returned.
    pub fn as_bytes(&self) -> &[u8] {
        &self.wrapped
    }
}

/// The line in the text of a key ring.
impl fmt::Display for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{START}{}:{}:{}", self.provider, self.key_id, URL_SAFE_NO_PAD.encode(&self.wrapped))
    }
}

/// Whether a provider may have this name: letters, digits, `-`, `_` and `.`.
pub(crate) fn is_name(name: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(is_plain)
}

/// A key in the text of a ring.
pub(crate) enum RingLine {
    Plain(SealingKey),
    Wrapped(WrappedKey),
}

/// The keys of a ring, each with its line number, counted from 1.
pub(crate) fn ring_lines(text: &str) -> Result<Vec<(usize, RingLine)>, KeyRingError> {
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = match WrappedKey::parse(line) {
            Some(key) => RingLine::Wrapped(key),
            None => RingLine::Plain(SealingKey::parse(line).ok_or(KeyRingError::BadKey { line: number })?),
        };
        keys.push((number, key));
    }
    if keys.is_empty() { Err(KeyRingError::Empty) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_key_is_one_line() {
        let key = WrappedKey::new("my-kms.v2", "0123456789abcdef".to_owned(), vec![0, 255, 13, 10]).unwrap();
        let line = key.to_string();
        assert_eq!(line, "wrapped:my-kms.v2:0123456789abcdef:AP8NCg");
        assert_eq!(WrappedKey::parse(&format!(" {line}\r")), Some(key.clone()));
        assert_eq!(WrappedKey::parse("wrapped:my-kms.v2:0123456789abcdef:AP8NCg=="), Some(key), "padded base64");
    }

    #[test]
    fn other_lines_are_no_wrapped_keys() {
        let long = "AAAA".repeat(MAX_WRAPPED / 3 + 1);
        for line in [
            "",
            "wrapped:",
            "wrapped:age:0123456789abcdef",
            "wrapped:age:0123456789abcdef:",
            "wrapped:age:0123456789abcdef:?",
            "wrapped:age:0123456789abcdef:AAAA:AAAA",
            "wrapped::0123456789abcdef:AAAA",
            "wrapped:a ge:0123456789abcdef:AAAA",
            "wrapped:age:0123456789ABCDEF:AAAA",
            "wrapped:age:0123456789abcde:AAAA",
            "Wrapped:age:0123456789abcdef:AAAA",
            &format!("wrapped:age:0123456789abcdef:{long}"),
            &format!("wrapped:{}:0123456789abcdef:AAAA", "a".repeat(MAX_NAME + 1)),
        ] {
            assert_eq!(WrappedKey::parse(line), None, "{line}");
            assert!(matches!(ring_lines(line), Err(KeyRingError::BadKey { line: 1 } | KeyRingError::Empty)), "{line}");
        }
    }
}
