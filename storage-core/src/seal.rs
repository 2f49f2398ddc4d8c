//! Sealing: authenticated encryption of tokens and cookies.
//!
//! The cipher is XChaCha20-Poly1305. Its nonce is random and has 192 bits, so that processes need no common counter and
//! the number of messages per key is practically unlimited. The id of the key is part of sealed data, so that a ring
//! with several keys knows which one to use, and an operator can see which records still use an old key.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::cipher::{self, KEY_LENGTH, NONCE_LENGTH, TAG_LENGTH};
use crate::random::random_bytes;
use crate::secret::SecretBytes;
use crate::wrapped_key::{RingLine, ring_lines};

const KEY_ID_LENGTH: usize = 8;
/// The first byte of sealed data. It identifies the scheme: XChaCha20-Poly1305 with a key id of 8 bytes.
const SCHEME: u8 = 1;
const HEADER_LENGTH: usize = 1 + KEY_ID_LENGTH + NONCE_LENGTH;

/// The keys that seal tokens and cookies. The first key is the primary key, which seals. Every key can open.
///
/// Sealed data is bound to a purpose and a context. A token that was sealed for one user can therefore not be opened as
/// the token of another user, and a cookie not as a token.
///
/// All processes of an application need the same ring. Store it outside the database, in a secret manager or a file, so
/// that neither a backup nor an SQL injection reveals tokens. `oauth-dance key generate` writes one.
///
/// To rotate keys, add the new key to all processes as an older key. Then make it the first key and reseal the stored
/// tokens. Finally remove the old key. [`Tokens::reseal_all`](crate::Tokens::reseal_all) describes the steps.
///
/// ```
/// use oauth_dance_core::{KeyRing, SealingKey};
///
/// let old = SealingKey::generate();
/// let sealed = KeyRing::new(old.clone()).seal("greeting", b"alice", b"hello");
///
/// let ring = KeyRing::new(SealingKey::generate()).with_older(old);
/// assert_eq!(ring.open("greeting", b"alice", &sealed)?.as_slice(), b"hello");
/// assert!(ring.open("greeting", b"bob", &sealed).is_err(), "bound to alice");
/// # Ok::<(), oauth_dance_core::OpenError>(())
/// ```
#[derive(Clone)]
pub struct KeyRing(Arc<Vec<SealingKey>>);

impl KeyRing {
    /// A ring with one key.
    pub fn new(primary: SealingKey) -> Self {
        Self(Arc::new(vec![primary]))
    }

    /// A ring with one new random key. For tests, because nothing that it seals can be opened after the process has
    /// ended.
    pub fn generate() -> Self {
        Self::new(SealingKey::generate())
    }

    /// Adds a key that opens and does not seal.
    #[must_use]
    pub fn with_older(self, key: SealingKey) -> Self {
        let mut keys = self.0.as_ref().clone();
        keys.push(key);
        Self(Arc::new(keys))
    }

    /// Parses text with one key per line, as [`SealingKey::encode`] writes it. The first key is the primary key. Empty
    /// lines and lines that start with `#` are ignored.
    ///
    /// ```
    /// use oauth_dance_core::{KeyRing, SealingKey};
    ///
    /// let (new, old) = (SealingKey::generate(), SealingKey::generate());
    /// let text = format!("# since May\n{}\n# until May\n{}\n", *new.encode(), *old.encode());
    /// let ring = KeyRing::parse(&text)?;
    /// assert_eq!(ring.primary_id(), KeyRing::new(new).primary_id());
    /// assert!(ring.has_older());
    /// # Ok::<(), oauth_dance_core::KeyRingError>(())
    /// ```
    ///
    /// # Errors
    /// [`KeyRingError`], which contains the number of the line and never its text. A [`WrappedKey`](crate::WrappedKey)
    /// needs a [`KeyLoader`](crate::KeyLoader).
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        let mut keys = Vec::new();
        for (line, key) in ring_lines(text)? {
            match key {
                RingLine::Plain(key) => keys.push(key),
                RingLine::Wrapped(_) => return Err(KeyRingError::Wrapped { line }),
            }
        }
        Self::of(keys).ok_or(KeyRingError::Empty)
    }

    /// The ring of these keys, of which the first seals. `None` without any.
    pub(crate) fn of(keys: Vec<SealingKey>) -> Option<Self> {
        if keys.is_empty() { None } else { Some(Self(Arc::new(keys))) }
    }

    /// The id of the primary key in hexadecimal, as [`Record::key_id`](crate::Record::key_id) stores it. It is derived
    /// from the key, and may be logged.
    pub fn primary_id(&self) -> String {
        self.primary().id()
    }

    /// Whether the ring has more than one key, which is the case during a rotation.
    pub fn has_older(&self) -> bool {
        self.0.len() > 1
    }

    /// The id of the key that sealed this data. `None` if no key ring sealed it. Because nothing is opened, the data
    /// may have been altered.
    pub fn key_id_of(sealed: &[u8]) -> Option<String> {
        let (header, _) = sealed.split_first_chunk::<HEADER_LENGTH>()?;
        (header[0] == SCHEME).then(|| hex(&header[1..1 + KEY_ID_LENGTH]))
    }

    /// Whether the primary key sealed this data.
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        sealed.get(1..1 + KEY_ID_LENGTH).is_some_and(|id| *id == self.primary().id)
    }

    /// Encrypts and authenticates `plain` for one purpose, bound to a context such as a token's key.
    ///
    /// `purpose` and `bound_to` are not part of the result. Pass the same values to [`open`](Self::open). The result is
    /// 49 bytes longer than `plain`: the scheme (1 byte), the key id (8 bytes), the nonce (24 bytes), the ciphertext,
    /// and the tag (16 bytes).
    pub fn seal(&self, purpose: &str, bound_to: &[u8], plain: &[u8]) -> Vec<u8> {
        let key = self.primary();
        let nonce: [u8; NONCE_LENGTH] = random_bytes();
        let mut sealed = Vec::with_capacity(HEADER_LENGTH + plain.len() + TAG_LENGTH);
        sealed.push(SCHEME);
        sealed.extend_from_slice(&key.id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let aad = associated_data(purpose, bound_to);
        #[expect(clippy::expect_used, reason = "fails only above 256 GiB")]
        let tag = cipher::encrypt(&key.key, nonce, &aad, &mut sealed[HEADER_LENGTH..])
            .expect("a message that fits in memory can be sealed");
        sealed.extend_from_slice(&tag);
        sealed
    }

    /// Opens the result of [`KeyRing::seal`] for the same purpose and context. Any key of the ring may have sealed it.
    ///
    /// # Errors
    /// [`OpenError`]. Data that cannot be opened is never returned as it is.
    pub fn open(&self, purpose: &str, bound_to: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.open_in_place(purpose, bound_to, sealed.to_vec()).map(|plain| Zeroizing::new(plain.into_inner()))
    }

    /// The same, in the buffer of the sealed data.
    pub(crate) fn open_in_place(
        &self,
        purpose: &str,
        bound_to: &[u8],
        sealed: Vec<u8>,
    ) -> Result<SecretBytes, OpenError> {
        let mut buffer = SecretBytes::new(sealed);
        let (header, ciphertext) =
            buffer.as_mut_vec().split_first_chunk_mut::<HEADER_LENGTH>().ok_or(OpenError::NotSealed)?;
        let (scheme, rest) = header.split_first().ok_or(OpenError::NotSealed)?;
        let (id, nonce) = rest.split_first_chunk::<KEY_ID_LENGTH>().ok_or(OpenError::NotSealed)?;
        if *scheme != SCHEME {
            return Err(OpenError::NotSealed);
        }
        let nonce = nonce.try_into().map_err(|_| OpenError::NotSealed)?;
        let Some(key) = self.0.iter().find(|key| key.id == *id) else {
            return Err(OpenError::KeyUnavailable { key_id: hex(id) });
        };
        let aad = associated_data(purpose, bound_to);
        cipher::decrypt(&key.key, nonce, &aad, ciphertext).map_err(|_| OpenError::Tampered)?;
        let length = ciphertext.len() - TAG_LENGTH;
        buffer.as_mut_vec().drain(..HEADER_LENGTH);
        buffer.as_mut_vec().truncate(length);
        Ok(buffer)
    }

    fn primary(&self) -> &SealingKey {
        // Every constructor adds a key, and none is ever removed.
        &self.0[0]
    }
}

/// Parses a text with [`KeyRing::parse`].
impl FromStr for KeyRing {
    type Err = KeyRingError;

    fn from_str(text: &str) -> Result<Self, KeyRingError> {
        Self::parse(text)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyRing").field(&self.0).finish()
    }
}

/// One 256-bit key of a [`KeyRing`]. Its memory is overwritten on drop.
///
/// ```
/// use oauth_dance_core::SealingKey;
///
/// let key = SealingKey::generate();
/// let stored = key.encode(); // for a secret manager
/// assert!(SealingKey::parse(&stored).is_some());
/// assert!(!format!("{key:?}").contains(stored.as_str()));
/// assert!(SealingKey::parse("a passphrase").is_none());
/// ```
#[derive(Clone)]
pub struct SealingKey {
    key: Zeroizing<[u8; KEY_LENGTH]>,
    /// Derived from the key, so that different keys have different ids.
    id: [u8; KEY_ID_LENGTH],
}

impl SealingKey {
    /// A new random key.
    ///
    /// # Panics
    /// Panics if the operating system cannot generate random bytes.
    pub fn generate() -> Self {
        Self::new(Zeroizing::new(random_bytes()))
    }

    /// Parses a key of 32 bytes in base64, with the standard or the URL-safe alphabet. `None` if the text is anything
    /// else.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).ok().map(Zeroizing::new)?;
        Some(Self::new(Zeroizing::new(bytes.as_slice().try_into().ok()?)))
    }

    /// The key in base64, for a file or a secret manager. The result is secret.
    pub fn encode(&self) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE_NO_PAD.encode(self.key.as_slice()))
    }

    /// The id of the key, as [`KeyRing::primary_id`] returns it. It is derived from the key, and is not secret.
    pub fn id(&self) -> String {
        hex(&self.id)
    }

    fn new(key: Zeroizing<[u8; KEY_LENGTH]>) -> Self {
        let digest = Sha256::new().chain_update(b"oauth-dance key id").chain_update(key.as_slice()).finalize();
        let mut id = [0; KEY_ID_LENGTH];
        id.copy_from_slice(&digest[..KEY_ID_LENGTH]);
        Self { key, id }
    }
}

/// Shows the key id, which may be logged.
impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", self.id())
    }
}

/// Why a text is not a key ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyRingError {
    /// The text contains no key.
    #[error("the key ring contains no key; write one key of 32 bytes in base64 per line")]
    Empty,
    /// A line is not a key.
    #[error("line {line} of the key ring is not a key of 32 bytes in base64; correct or remove it")]
    BadKey {
        /// The line number, counted from 1.
        line: usize,
    },
    /// A line is a key that a key management service has wrapped.
    #[error("line {line} of the key ring is a wrapped key; load the key ring with the key provider that wrapped it")]
    Wrapped {
        /// The line number, counted from 1.
        line: usize,
    },
}

/// Why sealed data could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The data is not the output of a key ring.
    #[error("the data was not sealed by a key ring")]
    NotSealed,
    /// The data is sealed with a key that is not in the ring.
    #[error("the data is sealed with key {key_id}, which is not in the key ring; add that key as an older key")]
    KeyUnavailable {
        /// The id of the missing key.
        key_id: String,
    },
    /// The data was altered, or was sealed for another purpose or context.
    #[error("the data was altered after it was sealed, or was sealed for another purpose")]
    Tampered,
}

/// Encodes purpose and context, so that two different pairs never have the same encoding.
fn associated_data(purpose: &str, bound_to: &[u8]) -> Vec<u8> {
    let length = u32::try_from(purpose.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length, purpose.as_bytes(), bound_to].concat()
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_byte_is_detected() {
        let ring = KeyRing::generate();
        let sealed = ring.seal("test", b"here", b"secret");
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(ring.open("test", b"here", &changed).is_err(), "byte {index}");
        }
        for length in 0..sealed.len() {
            assert!(ring.open("test", b"here", &sealed[..length]).is_err(), "cut to {length}");
        }
        assert!(ring.open("test", b"here", &[&sealed[..], b"x"].concat()).is_err());
        assert_eq!(KeyRing::key_id_of(&sealed), Some(ring.primary_id()));
        assert_eq!(KeyRing::key_id_of(b"{\"format\":1}"), None);
        assert_eq!(ring.open("test", b"here", &sealed).unwrap().as_slice(), b"secret");
    }

    #[test]
    fn purpose_and_context_are_not_interchangeable() {
        let ring = KeyRing::generate();
        let sealed = ring.seal("ab", b"c", b"secret");
        assert_eq!(ring.open("a", b"bc", &sealed), Err(OpenError::Tampered));
        assert_eq!(ring.open("abc", b"", &sealed), Err(OpenError::Tampered));
    }

    #[test]
    fn error_names_the_missing_key() {
        let ring = KeyRing::generate();
        let sealed = ring.seal("test", b"", b"secret");
        let missing = KeyRing::generate().open("test", b"", &sealed);
        assert_eq!(missing, Err(OpenError::KeyUnavailable { key_id: ring.primary_id() }));
    }

    #[test]
    fn equal_plaintexts_seal_differently() {
        let ring = KeyRing::generate();
        assert_ne!(ring.seal("test", b"", b"secret"), ring.seal("test", b"", b"secret"));
    }

    #[test]
    fn ring_is_parsed_from_text() {
        let (new, old) = (SealingKey::generate(), SealingKey::generate());
        let text = format!("# new\n{}\n\n# old\n {} \n", *new.encode(), *old.encode());
        let ring = KeyRing::parse(&text).unwrap();
        assert_eq!(ring.primary_id(), KeyRing::new(new).primary_id());
        assert!(ring.open("test", b"", &KeyRing::new(old).seal("test", b"", b"x")).is_ok());
        assert_eq!(text.parse::<KeyRing>().unwrap().primary_id(), ring.primary_id());
        assert_eq!(KeyRing::parse("\n#\n").unwrap_err(), KeyRingError::Empty);
        assert_eq!(KeyRing::parse("# one\nc2hvcnQ=\n").unwrap_err(), KeyRingError::BadKey { line: 2 });
        let wrapped = "\nwrapped:age:0123456789abcdef:AAAA\n";
        assert_eq!(KeyRing::parse(wrapped).unwrap_err(), KeyRingError::Wrapped { line: 2 });
    }

    #[test]
    fn debug_output_contains_no_key() {
        let key = SealingKey::generate();
        let ring = KeyRing::new(key.clone());
        let printed = format!("{key:?} {ring:?}");
        assert!(printed.contains(&ring.primary_id()));
        assert!(!printed.contains(key.encode().as_str()));
    }
}
