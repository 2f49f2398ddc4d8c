//! A client with a private key instead of a secret. It generates a secret from the key when one is needed, as Apple
//! requires.
//!
//! Apple permits a secret that is valid for six months, and most applications generate one by hand and forget to replace it.
//! Generating one for minutes needs no calendar, and a secret in a log is soon worthless. It is reused while it is fresh,
//! because a signature for each request would cost more than the request needs.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use oauth_dance_core::{Secret, Timestamp};
use serde_json::json;

/// How long a secret is valid.
const LIFETIME: Duration = Duration::from_secs(5 * 60);
/// How long a secret is used. The rest is a margin for clock differences.
const USE: Duration = Duration::from_secs(3 * 60);
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// A private key that an application has instead of a client secret; see
/// [`Provider::client_with_key`](crate::Provider::client_with_key).
///
/// When a secret is needed, a JWT signed with ES256 is generated from the key. It is valid for five minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKey {
    team_id: String,
    key_id: String,
    private_key: Secret,
    audience: &'static str,
}

impl ClientKey {
    /// A key for Sign in with Apple: the team's identifier, the key's identifier, and the content of the `.p8` file, which
    /// Apple lets you download once, in PEM (PKCS #8). The key is checked by
    /// [`OAuthBuilder::build`](crate::OAuthBuilder::build).
    pub fn apple(team_id: impl Into<String>, key_id: impl Into<String>, private_key: impl Into<Secret>) -> Self {
        Self {
            team_id: team_id.into(),
            key_id: key_id.into(),
            private_key: private_key.into(),
            audience: "https://appleid.apple.com",
        }
    }
}

/// A parsed key.
pub(crate) struct SecretMaker {
    key: ClientKey,
    client_id: String,
    pair: EcdsaKeyPair,
    made: Mutex<Option<(Secret, Timestamp)>>,
}

impl SecretMaker {
    /// Parses the key, or describes what is wrong with it.
    pub(crate) fn new(key: ClientKey, client_id: &str) -> Result<Self, &'static str> {
        let problem = "is not a private key on the curve P-256 in PEM (PKCS #8)";
        let pem = key.private_key.expose().split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
        let base64: String = pem.ok_or(problem)?.0.split_whitespace().collect();
        let der = zeroize::Zeroizing::new(STANDARD.decode(base64).map_err(|_| problem)?);
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).map_err(|_| problem)?;
        Ok(Self { key, client_id: client_id.to_owned(), pair, made: Mutex::default() })
    }

    /// A secret that is valid now. `None` if signing fails.
    pub(crate) fn secret(&self, now: Timestamp) -> Option<Secret> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((secret, at)) = made.as_ref()
            && now >= *at
            && now.saturating_since(*at) < USE
        {
            return Some(secret.clone());
        }
        let secret = Secret::new(self.make(now)?);
        *made = Some((secret.clone(), now));
        Some(secret)
    }

    /// A JWT signed with ES256 (RFC 7519, RFC 7518 section 3.4).
    fn make(&self, now: Timestamp) -> Option<String> {
        let header = json!({ "alg": "ES256", "kid": self.key.key_id });
        let claims = json!({
            "iss": self.key.team_id,
            "sub": self.client_id,
            "aud": self.key.audience,
            "iat": now.as_unix_seconds(),
            "exp": now.saturating_add(LIFETIME).as_unix_seconds(),
        });
        let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
        let input = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), input.as_bytes()).ok()?;
        Some(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl fmt::Debug for SecretMaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretMaker").field("key", &self.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, KeyPair as _, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn pem(der: &[u8]) -> String {
        let base64 = STANDARD.encode(der);
        let lines: Vec<_> = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("{BEGIN}\n{}\n{END}\n", lines.join("\n"))
    }

    fn key(private_key: &str) -> ClientKey {
        ClientKey::apple("TEAM123456", "KEY1234567", private_key)
    }

    fn generated() -> String {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        pem(document.as_ref())
    }

    fn part(jwt: &str, index: usize) -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').nth(index).unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn a_secret_is_a_jwt_signed_by_the_key_for_minutes() {
        let maker = SecretMaker::new(key(&generated()), "com.example.app").unwrap();
        let secret = maker.secret(at(1_000_000)).unwrap();
        let jwt = secret.expose();
        assert_eq!(part(jwt, 0), json!({ "alg": "ES256", "kid": "KEY1234567" }));
        let expected = json!({
            "iss": "TEAM123456", "sub": "com.example.app", "aud": "https://appleid.apple.com",
            "iat": 1_000_000, "exp": 1_000_300,
        });
        assert_eq!(part(jwt, 1), expected);

        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, maker.pair.public_key().as_ref());
        public.verify(signed.as_bytes(), &signature).unwrap();
        public.verify(&signed.as_bytes()[1..], &signature).unwrap_err();
    }

    #[test]
    fn a_secret_is_reused_while_it_is_fresh() {
        let maker = SecretMaker::new(key(&generated()), "com.example.app").unwrap();
        let first = maker.secret(at(1_000)).unwrap();
        assert_eq!(maker.secret(at(1_179)), Some(first.clone()));
        assert_ne!(maker.secret(at(1_180)), Some(first.clone()));
        let earlier = maker.secret(at(10)).unwrap();
        assert_eq!(part(earlier.expose(), 1)["iat"], 10, "the clock was set back");
    }

    #[test]
    fn an_invalid_key_is_rejected_and_not_shown() {
        let other_curve =
            EcdsaKeyPair::generate_pkcs8(&aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING, &SystemRandom::new());
        let bad = ["", "CANARY", &format!("{BEGIN}CANARY{END}"), &pem(b"CANARY"), &pem(other_curve.unwrap().as_ref())];
        for bad in bad {
            assert!(SecretMaker::new(key(bad), "id").is_err());
        }
        let maker = SecretMaker::new(key(&generated()), "id").unwrap();
        assert!(!format!("{maker:?}").contains("PRIVATE"));
    }
}
