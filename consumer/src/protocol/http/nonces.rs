//! The nonces that servers require in proofs (RFC 9449 sections 8 and 9).
//!
//! A server provides its nonce in a response, and expects it in the next proof. Without a memory of it, every call would be
//! sent twice. Nonces are stored by origin, because the authorization server and the API have nonces of their own.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, HeaderName};
use url::{Origin, Url};

const NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
/// More than any server uses.
const MAX_LENGTH: usize = 1024;
/// More than any application has providers. A dropped nonce costs one more request.
const MAX_ORIGINS: usize = 256;

/// The latest nonce of each server (RFC 9449 sections 8.2 and 9).
#[derive(Debug, Default)]
pub(crate) struct Nonces(Mutex<HashMap<Origin, String>>);

impl Nonces {
    /// Stores the nonce of a response, and returns whether it has one.
    pub(super) fn learn(&self, url: &Url, headers: &HeaderMap) -> bool {
        let nonce = headers.get(NONCE).and_then(|value| value.to_str().ok());
        let Some(nonce) = nonce.filter(|nonce| !nonce.is_empty() && nonce.len() <= MAX_LENGTH) else { return false };
        let (origin, mut nonces) = (url.origin(), self.locked());
        if nonces.len() >= MAX_ORIGINS && !nonces.contains_key(&origin) {
            nonces.clear();
        }
        nonces.insert(origin, nonce.to_owned());
        true
    }

    /// The nonce for proofs at this URL's origin.
    pub(super) fn of(&self, url: &Url) -> Option<String> {
        self.locked().get(&url.origin()).cloned()
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<Origin, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn response(nonce: &str) -> HeaderMap {
        HeaderMap::from_iter([(NONCE, nonce.parse().unwrap())])
    }

    #[test]
    fn the_latest_nonce_of_each_origin_is_stored() {
        let nonces = Nonces::default();
        assert!(nonces.learn(&url("https://a.example/token"), &response("one")));
        assert!(nonces.learn(&url("https://a.example:443/par?x"), &response("two")));
        assert!(nonces.learn(&url("https://a.example:8443/"), &response("three")));
        assert_eq!(nonces.of(&url("https://a.example/me")).unwrap(), "two");
        assert_eq!(nonces.of(&url("https://a.example:8443/me")).unwrap(), "three");
        assert_eq!(nonces.of(&url("http://a.example/me")), None);
    }

    #[test]
    fn invalid_nonces_are_not_stored_and_memory_is_bounded() {
        let nonces = Nonces::default();
        for bad in [HeaderMap::new(), response(""), response(&"x".repeat(MAX_LENGTH + 1))] {
            assert!(!nonces.learn(&url("https://a.example"), &bad));
        }
        for port in 1..10_000 {
            assert!(nonces.learn(&url(&format!("https://a.example:{port}")), &response("n")));
            assert!(nonces.locked().len() <= MAX_ORIGINS);
        }
        assert_eq!(nonces.of(&url("https://a.example:9999")).unwrap(), "n");
    }
}
