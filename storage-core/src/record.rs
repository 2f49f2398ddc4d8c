//! What a storage stores: records and their versions.

use std::fmt;
use std::time::Duration;

use crate::random::random_bytes;
use crate::time::Timestamp;

/// The content of a storage under a key: opaque bytes, and hints that an operator can query.
///
/// The payload is authoritative. The hints are plaintext copies of facts inside it. With them, a storage finds the
/// records that expire soon, or those that still use an old key, without opening a payload.
///
/// ```
/// use std::time::Duration;
///
/// use oauth_dance_core::{Record, Timestamp};
///
/// let record = Record::new("sealed bytes")
///     .with_expires_at(Some(Timestamp::from_unix_seconds(1_900_000_000)))
///     .with_retain_for(Some(Duration::from_millis(1_500)));
/// assert_eq!(record.retain_seconds(), Some(2));
/// assert!(!format!("{record:?}").contains("sealed bytes"));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The bytes to store, unchanged.
    pub payload: Vec<u8>,
    /// When the access token expires. This does not limit the retention of the record, because a refresh starts from an
    /// expired access token.
    pub expires_at: Option<Timestamp>,
    /// How long the storage retains the record after this write, **on the storage's own clock**. `None` retains the
    /// record until it is deleted.
    ///
    /// Retention is measured in whole seconds, and a fraction counts as a second. A storage whose clock counts whole
    /// seconds may end the retention up to one second early. A retention of zero ends immediately. In a record that was
    /// read, this is the remaining time.
    pub retain_for: Option<Duration>,
    /// Which key of the key ring sealed the payload, in at most 64 bytes. `None` if the payload is not sealed.
    pub key_id: Option<String>,
}

impl Record {
    /// A record of these bytes without hints, retained until it is deleted.
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: payload.into(), expires_at: None, retain_for: None, key_id: None }
    }

    /// Sets when the access token expires.
    #[must_use]
    pub fn with_expires_at(mut self, expires_at: Option<Timestamp>) -> Self {
        self.expires_at = expires_at;
        self
    }

    /// Sets how long the storage retains the record.
    #[must_use]
    pub fn with_retain_for(mut self, retain_for: Option<Duration>) -> Self {
        self.retain_for = retain_for;
        self
    }

    /// Sets which key sealed the payload.
    #[must_use]
    pub fn with_key_id(mut self, key_id: Option<String>) -> Self {
        self.key_id = key_id;
        self
    }

    /// [`Record::retain_for`] in whole seconds, rounded up. A storage adds this to the time of its clock.
    pub fn retain_seconds(&self) -> Option<u64> {
        let retain_for = self.retain_for?;
        Some(retain_for.as_secs().saturating_add(u64::from(retain_for.subsec_nanos() > 0)))
    }
}

/// Shows only the length of the payload, because an unsealed payload is a token.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .field("expires_at", &self.expires_at)
            .field("retain_for", &self.retain_for)
            .field("key_id", &self.key_id)
            .finish()
    }
}

/// Identifies one write of one key. Versions are compared for equality only, and have no order.
///
/// A version is never used twice for a key, not even after the record was deleted or the storage was restarted.
/// Otherwise a conditional write could overwrite a record that its caller has never read. [`Version::random`] on every
/// write fulfils this promise without any state. A storage with its own revision numbers may use those, if they are
/// never reused.
///
/// ```
/// use oauth_dance_core::Version;
///
/// let version = Version::random();
/// assert_eq!(Version::from_bytes(*version.as_bytes()), version);
/// assert_ne!(Version::random(), version);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version([u8; 16]);

impl Version {
    /// A new version: 128 random bits.
    pub fn random() -> Self {
        Self(random_bytes())
    }

    /// The version that has these stored bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({:032x})", u128::from_be_bytes(self.0))
    }
}

/// A value that was read from a storage, with its version for the next conditional write.
///
/// The struct is exhaustive, so that a storage can construct it as a literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// The version of the value.
    pub version: Version,
}

impl<T> Versioned<T> {
    /// Combines a value and its version.
    pub const fn new(value: T, version: Version) -> Self {
        Self { value, version }
    }
}
