//! Proofs of possession of a key, checked as a provider does (RFC 9449 section 4.3).

use std::collections::HashSet;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::Settings;
use super::log::LoggedRequest;

/// The tolerance of a proof's time, in seconds.
const TOLERANCE: u64 = 300;

/// What is wrong with a proof.
pub(super) enum BadProof {
    Invalid(&'static str),
    /// It has no nonce, or a wrong one.
    Nonce,
}

/// The identifiers of all proofs so far: each is valid once.
#[derive(Debug, Default)]
pub(super) struct Proofs(HashSet<String>);

impl Proofs {
    /// The thumbprint of the key that a request proves, or `None` if it has no proof. With an access token, the proof must
    /// be bound to it.
    pub(super) fn check(
        &mut self,
        settings: &Settings,
        issuer: &str,
        request: &LoggedRequest,
        access_token: Option<&str>,
    ) -> Result<Option<String>, BadProof> {
        if !request.headers.contains_key("dpop") {
            return Ok(None);
        }
        let (header, claims) = request.header("dpop").and_then(signed).ok_or(BadProof::Invalid("it cannot be read"))?;
        let jwk = &header["jwk"];
        let is_public = jwk["kty"] == "EC" && jwk["crv"] == "P-256" && jwk.get("d").is_none();
        let expected = [
            (header["typ"] == "dpop+jwt" && header["alg"] == "ES256" && is_public, "it is of another kind"),
            (claims["htm"] == request.method.as_str(), "it is for another method"),
            (claims["htu"] == format!("{issuer}{}", request.path), "it is for another URL"),
            (is_recent(settings, &claims["iat"]), "it is too old or too new"),
            (access_token.is_none_or(|token| claims["ath"] == hash(token)), "it is for another token"),
            (self.is_new(&claims["jti"]), "it was used before"),
        ];
        if let Some((_, why)) = expected.into_iter().find(|(is_met, _)| !is_met) {
            return Err(BadProof::Invalid(why));
        }
        if settings.dpop_nonce.as_deref().is_some_and(|nonce| claims["nonce"] != nonce) {
            return Err(BadProof::Nonce);
        }
        Ok(Some(hash(&format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"]))))
    }

    fn is_new(&mut self, jti: &Value) -> bool {
        jti.as_str().is_some_and(|jti| self.0.insert(jti.to_owned()))
    }
}

/// Header and claims of a proof that is signed with the key in its header.
fn signed(proof: &str) -> Option<(Value, Value)> {
    let (input, signature) = proof.rsplit_once('.')?;
    let (header, claims) = input.split_once('.')?;
    let (header, claims) = (json(header)?, json(claims)?);
    let coordinate = |name: &str| decoded(header["jwk"][name].as_str()?);
    let point = [&[4][..], &coordinate("x")?, &coordinate("y")?].concat();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    key.verify(input.as_bytes(), &decoded(signature)?).ok()?;
    Some((header, claims))
}

fn is_recent(settings: &Settings, iat: &Value) -> bool {
    let now = settings.clock.now().as_unix_seconds();
    iat.as_u64().is_some_and(|iat| iat.abs_diff(now) <= TOLERANCE)
}

fn json(part: &str) -> Option<Value> {
    serde_json::from_slice(&decoded(part)?).ok()
}

fn decoded(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}
