use std::fmt;
use std::time::Duration;

use crate::random::random_bytes;
use crate::time::Timestamp;

/// What a storage keeps under a key: opaque bytes, and hints that an operator can query.
///
/// The payload is the truth. The hints are copies of what the layer above knows, in the clear, so that a
/// storage can answer "which records expire soon" and "which still use that key" without opening anything.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The bytes to keep, exactly.
    pub payload: Vec<u8>,
    /// When the access token inside expires. It says nothing about how long to keep the record:
    /// an expired access token is what a refresh starts from.
    pub expires_at: Option<Timestamp>,
    /// How long to keep the record, counted from this write **on the storage's own clock**, in whole
    /// seconds (a fraction counts as a second). A storage whose clock has whole seconds may end it up to a second early.
    /// Zero is over at once. `None` keeps it until it is deleted. A record that is read carries the time it has left.
    pub retain_for: Option<Duration>,
    /// Which key of the key ring sealed the payload, in 64 bytes at most. `None` if it is not sealed.
    pub key_id: Option<String>,
}

impl Record {
    /// A record of these bytes, without hints, kept until it is deleted.
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: payload.into(), expires_at: None, retain_for: None, key_id: None }
    }

    /// Sets when the access token inside expires.
    #[must_use]
    pub fn with_expires_at(mut self, expires_at: Option<Timestamp>) -> Self {
        self.expires_at = expires_at;
        self
    }

    /// Sets how long the storage keeps the record.
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

    /// [`Record::retain_for`] in whole seconds, rounded up: what a storage adds to its clock.
    pub fn retain_seconds(&self) -> Option<u64> {
        let retain_for = self.retain_for?;
        Some(retain_for.as_secs().saturating_add(u64::from(retain_for.subsec_nanos() > 0)))
    }
}

/// Shows the payload's length only: without sealing it is a token.
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

/// Names one write of one key. Compared for equality only, and never handed out twice for a key,
/// not even after the record was deleted or the storage restarted.
///
/// [`Version::random`] on every write is enough to keep that promise and needs no state. A storage
/// with revisions of its own may use those, if they are never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version([u8; 16]);

impl Version {
    /// A new version: 128 random bits.
    pub fn random() -> Self {
        Self(random_bytes())
    }

    /// The version as a storage keeps it.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes to keep.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({:032x})", u128::from_be_bytes(self.0))
    }
}

/// Something read from a storage, with the version to name in the next conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// What was read.
    pub value: T,
    /// Which write it came from.
    pub version: Version,
}

impl<T> Versioned<T> {
    /// Puts both together.
    pub const fn new(value: T, version: Version) -> Self {
        Self { value, version }
    }
}
