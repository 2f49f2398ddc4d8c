//! Fuzz targets for cookies that browsers send. Each panics if a property does not hold.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use http::{HeaderMap, HeaderValue, header};
use oauth_dance_core::{KeyRing, SealingKey, Timestamp};

use super::chunks::{Chunks, new_generation};
use super::records::Records;
use crate::stored::StoredRecord;

const CHUNKS: Chunks<'static> = Chunks { name: "tokens", attributes: 60 };
const RING: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn received(cookies: &[u8]) -> Vec<(usize, String)> {
    let valid: Vec<u8> = cookies.iter().copied().filter(|byte| *byte == b'\t' || !byte.is_ascii_control()).collect();
    let mut headers = HeaderMap::new();
    headers.insert(header::COOKIE, HeaderValue::from_bytes(&valid).unwrap());
    CHUNKS.received(&headers)
}

/// Chunks from outside never join to a text that can be opened, and every text can be split and joined again.
pub fn token_cookies(bytes: &[u8]) {
    let keys = KeyRing::new(SealingKey::parse(RING).unwrap());
    for (generation, text) in Chunks::join(&received(bytes)) {
        assert!(Records::open(&keys, CHUNKS.name, generation, &text).is_err());
    }
    let text: String = bytes.iter().map(|byte| char::from(b'A' + byte % 26)).take(CHUNKS.capacity(60_000)).collect();
    let cookies = CHUNKS.split(new_generation(), &text);
    let header: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let joined = Chunks::join(&received(header.join("; ").as_bytes()));
    assert_eq!(joined.into_iter().map(|(_, joined)| joined).collect::<String>(), text);
}

/// A decoded record can be encoded and decoded again. Only instants that are out of range change.
pub fn kept_record(bytes: &[u8]) {
    if let Some(stored) = StoredRecord::from_bytes(bytes) {
        let written = stored.to_bytes();
        assert_eq!((written.len(), &written[..17]), (bytes.len(), &bytes[..17]));
        assert_eq!(StoredRecord::from_bytes(&written).unwrap().to_bytes(), written);
        stored.read(Timestamp::from_unix_seconds(1_700_000_000));
    }
}

#[cfg(test)]
mod tests {
    use oauth_dance_core::Record;
    use oauth_dance_fuzz::{check, check_with};

    use super::*;

    #[test]
    fn token_cookies_target_holds() {
        check("token_cookies", token_cookies);
    }

    #[test]
    fn kept_record_target_holds() {
        let now = Timestamp::from_unix_seconds(1_700_000_000);
        let record = Record::new("payload").with_expires_at(Some(now)).with_key_id(Some("key".to_owned()));
        check_with("kept_record", vec![StoredRecord::new(&record, now).to_bytes()], kept_record);
    }
}
