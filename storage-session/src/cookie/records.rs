//! All tokens of one browser, sealed together.
//!
//! The seal is bound to the name and the generation of the cookie, so that a browser cannot rename a cookie or combine
//! the chunks of two responses. Within the seal, each record is still a sealed token of its own.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oauth_dance_core::{KeyRing, OpenError, TokenKey};

use super::chunks::Generation;
use crate::stored::{StoredRecord, push_part, take_part};

/// The purpose for which cookies are sealed.
const PURPOSE: &str = "oauth-dance token cookie";
/// The first byte of the records before they are sealed.
const FORMAT: u8 = 1;
/// The overhead of sealing: scheme, key id, nonce and tag.
const SEAL_OVERHEAD: usize = 1 + 8 + 24 + 16;
/// The maximum length of a key in bytes. The declared maximum size of a payload leaves space for such a key.
pub(super) const MAX_KEY: usize = 256;
/// The overhead of a record: two lengths, the key with its four lengths, and the hints with a key id of 64 bytes.
const RECORD_OVERHEAD: usize = 4 + (16 + MAX_KEY) + 4 + (1 + 16 + 3 * 8 + 4 + 64);

/// The records of one browser.
#[derive(Clone, Default)]
pub(super) struct Records(pub(super) BTreeMap<TokenKey, StoredRecord>);

impl Records {
    /// Seals the records for a cookie, bound to its name and generation.
    pub(super) fn seal(&self, keys: &KeyRing, name: &str, generation: Generation) -> String {
        let mut plain = vec![FORMAT];
        for (key, stored) in &self.0 {
            push_part(&mut plain, &key.to_bytes());
            push_part(&mut plain, &stored.to_bytes());
        }
        URL_SAFE_NO_PAD.encode(keys.seal(PURPOSE, &bound_to(name, generation), &plain))
    }

    /// Opens the result of [`Records::seal`] for this name and generation.
    ///
    /// # Errors
    /// [`OpenError`] if the text is not genuine, or if the key is missing.
    pub(super) fn open(keys: &KeyRing, name: &str, generation: Generation, text: &str) -> Result<Self, OpenError> {
        let sealed = URL_SAFE_NO_PAD.decode(text).map_err(|_| OpenError::NotSealed)?;
        let plain = keys.open(PURPOSE, &bound_to(name, generation), &sealed)?;
        // A genuine text that cannot be decoded has the format of another release.
        Self::read(&plain).ok_or(OpenError::NotSealed)
    }

    /// Whether the primary key sealed this text.
    pub(super) fn is_current(keys: &KeyRing, text: &str) -> bool {
        URL_SAFE_NO_PAD.decode(text).is_ok_and(|sealed| keys.is_current(&sealed))
    }

    /// The length of the text that [`Records::seal`] would return.
    pub(super) fn sealed_length(&self) -> usize {
        let length = |(key, stored): (&TokenKey, &StoredRecord)| 4 + key.to_bytes().len() + 4 + stored.to_bytes().len();
        let plain = 1 + self.0.iter().map(length).sum::<usize>();
        (SEAL_OVERHEAD + plain).saturating_mul(4).div_ceil(3)
    }

    /// Decodes the records.
    fn read(plain: &[u8]) -> Option<Self> {
        let (&FORMAT, mut rest) = plain.split_first()? else { return None };
        let mut records = BTreeMap::new();
        while !rest.is_empty() {
            let key = TokenKey::from_bytes(take_part(&mut rest)?).ok()?;
            records.insert(key, StoredRecord::from_bytes(take_part(&mut rest)?)?);
        }
        Some(Self(records))
    }
}

/// The maximum size of a payload if the sealed text of a single record, with the longest key, has at most this length.
pub(super) fn max_payload(text: usize) -> usize {
    (text / 4 * 3).saturating_sub(SEAL_OVERHEAD + 1 + RECORD_OVERHEAD)
}

/// The context that a cookie is sealed for.
fn bound_to(name: &str, generation: Generation) -> Vec<u8> {
    [&generation, name.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use oauth_dance_core::{Record, Timestamp};

    use super::*;

    fn records(payload: usize) -> Records {
        let key = TokenKey::new("p".repeat(64), "u".repeat(64)).unwrap();
        let key = key.with_tenant("t".repeat(64)).unwrap().with_account("a".repeat(64)).unwrap();
        let record = Record::new(vec![7; payload]).with_key_id(Some("k".repeat(64)));
        Records(BTreeMap::from([(key, StoredRecord::new(&record, Timestamp::from_unix_seconds(1)))]))
    }

    #[test]
    fn reported_lengths_are_correct() {
        let keys = KeyRing::generate();
        for text in [2_000, 2_001, 2_002, 2_003, 5_000] {
            let payload = max_payload(text);
            let sealed = records(payload).seal(&keys, "n", *b"AAAAAAAA");
            assert!(sealed.len() <= text && sealed.len() + 8 > text, "{} of {text}", sealed.len());
            assert_eq!(records(payload).sealed_length(), sealed.len());
        }
        assert_eq!(max_payload(100), 0);
    }

    #[test]
    fn cookie_opens_only_with_its_name_and_generation() {
        let keys = KeyRing::generate();
        let sealed = records(10).seal(&keys, "name", *b"AAAAAAAA");
        let open =
            |keys: &KeyRing, name, generation| Records::open(keys, name, generation, &sealed).map(|found| found.0);
        assert!(open(&keys, "name", *b"AAAAAAAA").unwrap().len() == 1);
        assert_eq!(open(&keys, "other", *b"AAAAAAAA").err(), Some(OpenError::Tampered));
        assert_eq!(open(&keys, "name", *b"AAAAAAAB").err(), Some(OpenError::Tampered));
        assert!(matches!(open(&KeyRing::generate(), "name", *b"AAAAAAAA"), Err(OpenError::KeyUnavailable { .. })));
        let text = sealed.clone().into_bytes();
        for index in 0..text.len() {
            let mut changed = text.clone();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(Records::open(&keys, "name", *b"AAAAAAAA", &changed).is_err(), "character {index}");
        }
    }
}
