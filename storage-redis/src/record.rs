//! The stored format of a record: a header line and the payload.
//!
//! The header is text, so that an operator can read it with `redis-cli` and a script can compare the version with a
//! prefix of the record. For example: `v1 0f1e2d3c4b5a69788796a5b4c3d2e1f0 1767225600 - =2f9a`.

use std::time::Duration;

use oauth_dance_core::{Entry, Record, Timestamp, TokenKey, Version, Versioned};

use crate::layout::{escape, unescape};

/// The first word of every record in this format.
const FORMAT: &str = "v1";
/// The text of an absent hint.
const ABSENT: &str = "-";
/// The number of bytes of a record that a list reads first. A header with a key id of the usual length is shorter.
pub(crate) const HEADER_GUESS: usize = 256;

/// The line before a payload. It consists of the format, the version, the expiry of the access token in seconds, the
/// end of the retention in milliseconds on the server's clock, and `=` with the key id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    version: Version,
    expires_at: Option<Timestamp>,
    deadline: Option<u64>,
    key_id: Option<String>,
}

/// The two parts of a header. The script inserts the end of the retention between them, because only the server knows
/// it.
pub(crate) struct HeaderHalves {
    pub(crate) before_deadline: String,
    pub(crate) after_deadline: String,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("the record has no header line")]
    NoHeader,
    #[error("the header line of the record has an unknown format")]
    BadHeader,
    #[error("the value of the key is not a string")]
    WrongType,
}

impl HeaderHalves {
    /// The header of a record that is about to be written.
    pub(crate) fn new(record: &Record, version: &Version) -> Self {
        let expires_at = record.expires_at.map_or(ABSENT.to_owned(), |expiry| expiry.as_unix_seconds().to_string());
        let key_id = record.key_id.as_ref().map_or(ABSENT.to_owned(), |id| format!("={}", escape(id)));
        Self {
            before_deadline: format!("{} {expires_at} ", version_prefix(version)),
            after_deadline: format!(" {key_id}\n"),
        }
    }

    /// The whole record, if it has no retention.
    pub(crate) fn without_retention(&self, payload: &[u8]) -> Vec<u8> {
        [self.before_deadline.as_bytes(), ABSENT.as_bytes(), self.after_deadline.as_bytes(), payload].concat()
    }
}

/// The beginning of every record of this version, and of no other record. A script compares it.
pub(crate) fn version_prefix(version: &Version) -> String {
    format!("{FORMAT} {:032x}", u128::from_be_bytes(*version.as_bytes()))
}

impl Header {
    /// Reads the header, and returns it with the offset of the payload.
    pub(crate) fn read(stored: &[u8]) -> Result<(Self, usize), RecordError> {
        let has_line = || stored.contains(&b'\n');
        Self::parse(stored).ok_or_else(|| if has_line() { RecordError::BadHeader } else { RecordError::NoHeader })
    }

    /// Parses a header, and returns it with the offset of the payload.
    fn parse(stored: &[u8]) -> Option<(Self, usize)> {
        // The format and the version have a fixed length, so only the rest is searched for spaces.
        let after_format = stored.strip_prefix(FORMAT.as_bytes())?.strip_prefix(b" ")?;
        let (version, rest) = after_format.split_first_chunk()?;
        let rest = rest.strip_prefix(b" ")?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let mut words = rest[..end].split(|byte| *byte == b' ');
        let (expires_at, deadline, key_id) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() {
            return None;
        }
        let expires_at = number(expires_at)?.map(i64::try_from).transpose().ok()?;
        let header = Self {
            version: Version::from_bytes(hexadecimal(version)?),
            expires_at: match expires_at {
                None => None,
                Some(seconds) => Some(Timestamp::from_unix_seconds_signed(seconds)?),
            },
            deadline: number(deadline)?,
            key_id: match optional(key_id)? {
                None => None,
                Some(id) => Some(unescape(id.strip_prefix('=')?)?),
            },
        };
        Some((header, stored.len() - rest.len() + end + 1))
    }

    /// The entry of a list.
    pub(crate) fn entry(self, key: TokenKey) -> Entry {
        let hints = Record::new("").with_expires_at(self.expires_at).with_key_id(self.key_id);
        Entry::new(key, self.version, &hints)
    }
}

/// A record as it is stored, with its header read.
#[derive(Debug)]
pub(crate) struct Stored {
    header: Header,
    bytes: Vec<u8>,
    /// The offset of the payload.
    start: usize,
}

impl Stored {
    /// Reads the header of a record.
    ///
    /// # Errors
    /// [`RecordError`] if the bytes are not a record.
    pub(crate) fn read(bytes: Vec<u8>) -> Result<Self, RecordError> {
        let (header, start) = Header::read(&bytes)?;
        Ok(Self { header, bytes, start })
    }

    /// The end of the retention in milliseconds on the server's clock.
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.header.deadline
    }

    /// The record at an instant of the server's clock, in milliseconds. `None` if its retention has ended.
    pub(crate) fn at(mut self, now: u64) -> Option<Versioned<Record>> {
        let left = match self.header.deadline {
            Some(deadline) if deadline <= now => return None,
            deadline => deadline.map(|deadline| Duration::from_millis(deadline - now)),
        };
        self.bytes.drain(..self.start);
        let record = Record::new(self.bytes)
            .with_expires_at(self.header.expires_at)
            .with_retain_for(left)
            .with_key_id(self.header.key_id);
        Some(Versioned::new(record, self.header.version))
    }
}

/// Reads a word that may be absent. `None` if it is not UTF-8.
fn optional(word: &[u8]) -> Option<Option<&str>> {
    if word == ABSENT.as_bytes() { Some(None) } else { std::str::from_utf8(word).ok().map(Some) }
}

/// Parses a number that may be absent. `None` if the word is invalid.
fn number(word: &[u8]) -> Option<Option<u64>> {
    match optional(word)? {
        None => Some(None),
        Some(digits) => digits.parse().ok().map(Some),
    }
}

/// Parses 32 hexadecimal digits, several times as fast as `u128::from_str_radix`.
fn hexadecimal(digits: &[u8; 32]) -> Option<[u8; 16]> {
    // Without an early return, the compiler checks all digits at once.
    if !digits.iter().fold(true, |valid, digit| valid & digit.is_ascii_hexdigit()) {
        return None;
    }
    // The low four bits of a letter are its value minus 9.
    let value = |digit: u8| (digit & 15) + 9 * (digit >> 6);
    Some(std::array::from_fn(|index| value(digits[2 * index]) << 4 | value(digits[2 * index + 1])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: Vec<u8>, now: u64) -> Result<Option<Versioned<Record>>, RecordError> {
        Stored::read(bytes).map(|stored| stored.at(now))
    }

    fn stored(record: &Record, version: &Version, deadline: &str) -> Vec<u8> {
        let halves = HeaderHalves::new(record, version);
        [halves.before_deadline.as_bytes(), deadline.as_bytes(), halves.after_deadline.as_bytes(), &record.payload]
            .concat()
    }

    #[test]
    fn record_round_trips() {
        let version = Version::random();
        for key_id in [None, Some(""), Some("-"), Some("a b\n=%é")] {
            for expires_at in
                [None, Some(Timestamp::from_unix_seconds(0)), Some(Timestamp::from_unix_seconds(u64::MAX))]
            {
                let record =
                    Record::new("\n\0 payload\n").with_expires_at(expires_at).with_key_id(key_id.map(str::to_owned));
                let bytes = stored(&record, &version, "-");
                assert!(bytes.starts_with(version_prefix(&version).as_bytes()));
                assert_eq!(read(bytes, 7), Ok(Some(Versioned::new(record, version))));
            }
        }
    }

    #[test]
    fn retention_is_exact_to_the_millisecond() {
        let (record, version) = (Record::new("x"), Version::random());
        let left = |now| read(stored(&record, &version, "5000"), now).unwrap().map(|found| found.value.retain_for);
        assert_eq!(left(3500), Some(Some(Duration::from_millis(1500))));
        assert_eq!(left(4999), Some(Some(Duration::from_millis(1))));
        assert_eq!(left(5000), None);
    }

    #[test]
    fn malformed_records_are_rejected() {
        let valid = stored(&Record::new(""), &Version::random(), "12");
        for cut in 0..valid.len() {
            assert_eq!(read(valid[..cut].to_vec(), 0), Err(RecordError::NoHeader));
        }
        let line = |text: String| read(format!("{text}\n").into_bytes(), 0);
        let version = "0".repeat(32);
        assert!(line(format!("v1 {version} 1 2 =k")).is_ok());
        for invalid in [
            String::new(),
            format!("v2 {version} 1 2 =k"),
            format!("v1 {version}0 1 2 =k"),
            format!("v1 {} 1 2 =k", "g".repeat(32)),
            format!("v1 {}+{} 1 2 =k", "0".repeat(16), "0".repeat(15)),
            format!("v1 +{} 1 2 =k", "0".repeat(31)),
            format!("v1 {version} -1 2 =k"),
            format!("v1 {version} 253402300800 2 =k"),
            format!("v1 {version} 1 x =k"),
            format!("v1 {version} 1 2 k"),
            format!("v1 {version} 1 2 =k more"),
        ] {
            assert_eq!(line(invalid.clone()), Err(RecordError::BadHeader), "{invalid}");
        }
        assert_eq!(read(b"\xff\xfe\n".to_vec(), 0), Err(RecordError::BadHeader));
    }
}
