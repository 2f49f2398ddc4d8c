//! Fuzz targets for untrusted bytes: records, keys and key rings. Each panics if a property does not hold.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use crate::key::TokenKey;
use crate::seal::{KeyRing, SealingKey};
use crate::wire;
use crate::wrapped_key::WrappedKey;

/// A key ring, and the parameters of the data that it sealed.
const RING: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const PURPOSE: &str = "fuzz";
const BOUND_TO: &[u8] = b"alice";
const PLAIN: &[u8] = b"plain";

/// Fails if an error quotes its input.
fn has_no_canary(error: &(impl std::fmt::Debug + std::fmt::Display)) {
    assert!(!format!("{error} {error:?}").contains("CANARY"), "{error:?}");
}

/// A decoded record can be encoded and decoded again, and an error never quotes the record.
pub fn stored_record(bytes: &[u8]) {
    let key = TokenKey::new("example", "alice").unwrap();
    match wire::decode(&key, bytes) {
        Ok(stored) => assert_eq!(wire::decode(&key, &wire::encode(&key, &stored)).unwrap(), stored),
        Err(error) => has_no_canary(&error),
    }
}

/// Nothing but the exact sealed bytes can be opened.
pub fn sealed_record(bytes: &[u8]) {
    let ring = KeyRing::new(SealingKey::parse(RING).unwrap());
    if let Ok(plain) = ring.open(PURPOSE, BOUND_TO, bytes) {
        assert_eq!((bytes, &plain[..]), (sealed().as_slice(), PLAIN));
    }
    assert!(ring.open(PURPOSE, b"bob", bytes).is_err() && ring.open("other", BOUND_TO, bytes).is_err());
}

/// Data that the ring sealed.
fn sealed() -> Vec<u8> {
    let hex =
        "015d4e661c3df90f1e0df305367c29584a7e727f88cb1e58beba98ae957d499f6448e75b2b128e969d203477155f0ea12813228efeba";
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Each key has exactly one encoding.
pub fn token_key(bytes: &[u8]) {
    match TokenKey::from_bytes(bytes) {
        Ok(key) => assert_eq!(key.to_bytes(), bytes),
        Err(error) => has_no_canary(&error),
    }
}

/// Neither a parsed key ring nor an error shows a key.
pub fn key_ring(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match KeyRing::parse(&text) {
        Ok(ring) => assert!(!format!("{ring:?}").contains(text.trim())),
        Err(error) => has_no_canary(&error),
    }
    for line in text.lines() {
        if let Some(key) = WrappedKey::parse(line) {
            assert_eq!(WrappedKey::parse(&key.to_string()), Some(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use oauth_dance_fuzz::{check, check_with};

    use super::*;

    #[test]
    fn stored_record_target_holds() {
        check("stored_record", stored_record);
    }

    #[test]
    fn sealed_record_target_holds() {
        check_with("sealed_record", vec![sealed()], sealed_record);
    }

    #[test]
    fn token_key_target_holds() {
        let keys = [TokenKey::new("example", "alice"), TokenKey::from_parts("t", "u", "p", "a")];
        check_with("token_key", keys.map(|key| key.unwrap().to_bytes()).to_vec(), token_key);
    }

    #[test]
    fn key_ring_target_holds() {
        check("key_ring", key_ring);
    }
}
