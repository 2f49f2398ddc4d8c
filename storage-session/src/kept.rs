//! A record as it is written down, in a session or a cookie: its version, its hints and its payload.

use std::time::Duration;

use oauth_dance_core::{Record, Timestamp, Version, Versioned};

const FORMAT: u8 = 1;
const NONE: u64 = u64::MAX;

/// A record with what a storage must know of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) version: Version,
    pub(crate) written_at: Timestamp,
    record: Record,
    retain_until: Option<Timestamp>,
}

impl Kept {
    /// A record written now.
    pub(crate) fn new(record: &Record, now: Timestamp) -> Self {
        let retain_until = record.retain_seconds().map(|seconds| now.saturating_add(Duration::from_secs(seconds)));
        Self { version: Version::random(), written_at: now, record: record.clone().with_retain_for(None), retain_until }
    }

    /// Whether it is still to be kept.
    pub(crate) fn is_live(&self, now: Timestamp) -> bool {
        self.retain_until.is_none_or(|until| until > now)
    }

    /// The record as a reader gets it.
    pub(crate) fn read(self, now: Timestamp) -> Versioned<Record> {
        let left = self.retain_until.map(|until| until.saturating_since(now));
        Versioned::new(self.record.with_retain_for(left), self.version)
    }

    /// The format's number (1 byte), the version (16), the instants of writing, expiry and retention (8 each), the key id
    /// with its length (1), and the payload.
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

    /// Reads [`Kept::to_bytes`]; `None` for anything else.
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

/// Appends a part with its length before it.
pub(crate) fn push_part(bytes: &mut Vec<u8>, part: &[u8]) {
    // Nothing that is written down here comes near 4 GiB.
    bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(part);
}

/// Takes a part of [`push_part`] off.
pub(crate) fn take_part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk()?;
    let (part, tail) = tail.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *rest = tail;
    Some(part)
}

fn take_instant(rest: &[u8]) -> Option<(Option<Timestamp>, &[u8])> {
    let (seconds, rest) = rest.split_first_chunk()?;
    let seconds = u64::from_be_bytes(*seconds);
    Some(((seconds != NONE).then(|| Timestamp::from_unix_seconds(seconds)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(record: &Record) -> Kept {
        Kept::new(record, Timestamp::from_unix_seconds(1_000))
    }

    #[test]
    fn every_field_comes_back() {
        let hints = [
            Record::new([]),
            Record::new([0, 1, 255]).with_expires_at(Some(Timestamp::from_unix_seconds(0))),
            Record::new("x").with_key_id(Some("id".to_owned())).with_retain_for(Some(Duration::from_millis(1_500))),
            Record::new("x").with_retain_for(Some(Duration::MAX)),
        ];
        for record in hints {
            let kept = kept(&record);
            let read = Kept::from_bytes(&kept.to_bytes()).unwrap();
            assert!(read == kept, "{record:?}");
            let now = Timestamp::from_unix_seconds(1_000);
            let found = read.read(now).value;
            assert_eq!((found.payload, found.key_id), (record.payload, record.key_id));
            assert_eq!(found.expires_at, record.expires_at);
            assert_eq!(found.retain_for.is_some(), record.retain_for.is_some());
        }
    }

    #[test]
    fn other_bytes_are_no_record() {
        let bytes = kept(&Record::new([])).to_bytes();
        for length in 0..bytes.len() {
            assert!(Kept::from_bytes(&bytes[..length]).is_none(), "cut to {length}");
        }
        let mut newer = bytes;
        newer[0] = 2;
        assert!(Kept::from_bytes(&newer).is_none());
    }
}
