//! The stored format of a record in a session or a cookie: its version, hints and payload.
//!
//! The format is binary, because the space in a cookie is small. The end of the retention is stored as an instant and
//! not as a duration, because neither a cookie nor a session store measures the lifetime of one token.

use std::time::Duration;

use oauth_dance_core::{Record, Timestamp, Version, Versioned};

/// The first byte of every record in this format.
const FORMAT: u8 = 1;
/// Represents an absent instant.
const NONE: u64 = u64::MAX;

/// A record with its version, the time of its write and the end of its retention.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoredRecord {
    pub(crate) version: Version,
    pub(crate) written_at: Timestamp,
    record: Record,
    retain_until: Option<Timestamp>,
}

impl StoredRecord {
    /// A record with a new version that is written now.
    pub(crate) fn new(record: &Record, now: Timestamp) -> Self {
        let retain_until = record.retain_seconds().map(|seconds| now.saturating_add(Duration::from_secs(seconds)));
        Self { version: Version::random(), written_at: now, record: record.clone().with_retain_for(None), retain_until }
    }

    /// Whether the record is within its retention.
    pub(crate) fn is_live(&self, now: Timestamp) -> bool {
        self.retain_until.is_none_or(|until| until > now)
    }

    /// The record with its remaining retention. Call [`is_live`](Self::is_live) first, because a record past its
    /// retention has none left.
    pub(crate) fn read(self, now: Timestamp) -> Versioned<Record> {
        let left = self.retain_until.map(|until| until.saturating_since(now));
        Versioned::new(self.record.with_retain_for(left), self.version)
    }

    /// Encodes the record: the format (1 byte), the version (16 bytes), the instants of the write, the expiry and the
    /// end of the retention (8 bytes each), the key id with its length, and the payload.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let instant = |instant: Option<Timestamp>| instant.map_or(NONE, Timestamp::as_unix_seconds).to_be_bytes();
        let key_id = self.record.key_id.as_deref().unwrap_or_default().as_bytes();
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(self.version.as_bytes());
        bytes.extend_from_slice(&instant(Some(self.written_at)));
        bytes.extend_from_slice(&instant(self.record.expires_at));
        bytes.extend_from_slice(&instant(self.retain_until));
        push_part(&mut bytes, key_id);
        bytes.extend_from_slice(&self.record.payload);
        bytes
    }

    /// Decodes the result of [`StoredRecord::to_bytes`]. `None` if the bytes are invalid.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&FORMAT, rest) = bytes.split_first()? else { return None };
        let (version, rest) = rest.split_first_chunk()?;
        let (written_at, rest) = take_instant(rest)?;
        let (expires_at, rest) = take_instant(rest)?;
        let (retain_until, mut rest) = take_instant(rest)?;
        let key_id = take_part(&mut rest)?;
        let key_id = (!key_id.is_empty()).then(|| String::from_utf8(key_id.to_vec())).transpose().ok()?;
        let record = Record::new(rest).with_expires_at(expires_at).with_key_id(key_id);
        Some(Self { version: Version::from_bytes(*version), written_at: written_at?, record, retain_until })
    }
}

/// Appends a part, preceded by its length.
pub(crate) fn push_part(bytes: &mut Vec<u8>, part: &[u8]) {
    // No part here is close to 4 GiB.
    bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(part);
}

/// Takes a part that [`push_part`] appended.
pub(crate) fn take_part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk()?;
    let (part, tail) = tail.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *rest = tail;
    Some(part)
}

/// Takes eight bytes. The inner `None` is an absent instant.
fn take_instant(rest: &[u8]) -> Option<(Option<Timestamp>, &[u8])> {
    let (seconds, rest) = rest.split_first_chunk()?;
    let seconds = u64::from_be_bytes(*seconds);
    Some(((seconds != NONE).then(|| Timestamp::from_unix_seconds(seconds)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(record: &Record) -> StoredRecord {
        StoredRecord::new(record, Timestamp::from_unix_seconds(1_000))
    }

    #[test]
    fn every_field_round_trips() {
        let hints = [
            Record::new([]),
            Record::new([0, 1, 255]).with_expires_at(Some(Timestamp::from_unix_seconds(0))),
            Record::new("x").with_key_id(Some("id".to_owned())).with_retain_for(Some(Duration::from_millis(1_500))),
            Record::new("x").with_retain_for(Some(Duration::MAX)),
        ];
        for record in hints {
            let written = stored(&record);
            let read = StoredRecord::from_bytes(&written.to_bytes()).unwrap();
            assert!(read == written, "{record:?}");
            let now = Timestamp::from_unix_seconds(1_000);
            let found = read.read(now).value;
            assert_eq!((found.payload, found.key_id), (record.payload, record.key_id));
            assert_eq!(found.expires_at, record.expires_at);
            assert_eq!(found.retain_for.is_some(), record.retain_for.is_some());
        }
    }

    #[test]
    fn malformed_bytes_are_rejected() {
        let bytes = stored(&Record::new([])).to_bytes();
        for length in 0..bytes.len() {
            assert!(StoredRecord::from_bytes(&bytes[..length]).is_none(), "cut to {length}");
        }
        let mut newer = bytes;
        newer[0] = 2;
        assert!(StoredRecord::from_bytes(&newer).is_none());
    }
}
