//! The values under the keys: hints, retention and payload.
//!
//! | bytes | meaning |
//! | --- | --- |
//! | 1 | the format, 1 |
//! | 8 | the end of the retention in seconds since 1970, or the largest number if there is none |
//! | 8 | when the access token expires, in the same way |
//! | 1 | the length of the key id |
//! | that many | the key id |
//! | the rest | the payload; none in an entry of a list |

use oauth_dance_core::{Record, StorageError, Timestamp};

const FORMAT: u8 = 1;
/// Stands for an absent instant. A [`Timestamp`] ends in the year 9999.
const NONE: u64 = u64::MAX;

/// A value that was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) record: Record,
    pub(crate) retain_until: Option<Timestamp>,
}

impl Value {
    /// Whether the retention has not ended. The lease cannot decide that: etcd removes records up to a second late, and
    /// much later if its leader has changed.
    pub(crate) fn is_live_at(&self, now: Timestamp) -> bool {
        self.retain_until.is_none_or(|until| until > now)
    }

    /// The record with its remaining retention.
    pub(crate) fn into_record(self, now: Timestamp) -> Record {
        self.record.with_retain_for(self.retain_until.map(|until| until.saturating_since(now)))
    }
}

/// Encodes a record that is written now, with its payload or without.
pub(crate) fn encode(
    record: &Record,
    retain_until: Option<Timestamp>,
    payload: &[u8],
) -> Result<Vec<u8>, StorageError> {
    let key_id = record.key_id.as_deref().unwrap_or_default();
    let limit = usize::from(u8::MAX);
    let length = u8::try_from(key_id.len()).map_err(|_| StorageError::TooLarge { size: key_id.len(), limit })?;
    let mut bytes = vec![FORMAT];
    for instant in [retain_until, record.expires_at] {
        bytes.extend(instant.map_or(NONE, Timestamp::as_unix_seconds).to_be_bytes());
    }
    bytes.push(length);
    bytes.extend_from_slice(key_id.as_bytes());
    bytes.extend_from_slice(payload);
    Ok(bytes)
}

/// Decodes a value. `None` if it has another format.
pub(crate) fn decode(bytes: &[u8]) -> Option<Value> {
    let (&[FORMAT], rest) = bytes.split_first_chunk()? else { return None };
    let (retain_until, rest) = rest.split_first_chunk()?;
    let (expires_at, rest) = rest.split_first_chunk()?;
    let (&[length], rest) = rest.split_first_chunk()?;
    let (key_id, payload) = rest.split_at_checked(usize::from(length))?;
    let key_id = std::str::from_utf8(key_id).ok()?;
    let record = Record::new(payload)
        .with_expires_at(instant(*expires_at))
        .with_key_id(Some(key_id.to_owned()).filter(|key_id| !key_id.is_empty()));
    Some(Value { record, retain_until: instant(*retain_until) })
}

fn instant(bytes: [u8; 8]) -> Option<Timestamp> {
    let seconds = u64::from_be_bytes(bytes);
    (seconds != NONE).then(|| Timestamp::from_unix_seconds(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_truncated_ones_do_not() {
        let record =
            Record::new("x").with_key_id(Some("key".to_owned())).with_expires_at(Some(Timestamp::from_unix_seconds(7)));
        let until = Some(Timestamp::from_unix_seconds(9));
        let bytes = encode(&record, until, &record.payload).unwrap();
        assert_eq!(decode(&bytes), Some(Value { record: record.clone(), retain_until: until }));
        assert!((0..bytes.len() - 1).all(|length| decode(&bytes[..length]).is_none()));
        assert_eq!(decode(b"garbage that is long enough for a value"), None);
    }
}
