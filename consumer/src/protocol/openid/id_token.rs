//! Whether an ID token is to be believed (OpenID Connect Core section 3.1.3.7).
//!
//! What is checked is read strictly. Every other claim is what the issuer made of it, and decides nothing.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use oauth_dance_core::{Secret, Timestamp};
use serde_json::{Map, Value};

use super::AskedOfIdToken;
use super::identity::{Identity, subject_in};
use super::json::{self, BASE64URL};
use super::keys::{Algorithm, KeySet};
use crate::config::issuer::Issuer;
use crate::error::IdTokenError;
use crate::protocol::http::text::printable;

/// How far the issuer's clock may be off.
const LEEWAY: Duration = Duration::from_secs(60);

/// What an ID token must agree with.
pub(super) struct Expected<'a> {
    /// The issuer as its metadata has it.
    pub(super) issuer: &'a str,
    pub(super) algorithms: &'a [String],
    pub(super) client_id: &'a str,
    pub(super) access_token: &'a Secret,
    pub(super) asked: AskedOfIdToken<'a>,
    pub(super) now: Timestamp,
}

/// Checks everything about an ID token. No claim of it gets out before, but the issuer of one that is refused for it.
pub(super) fn verify(id_token: &Secret, keys: &KeySet, expected: &Expected<'_>) -> Result<Identity, IdTokenError> {
    let token = Signed::read(id_token.expose()).ok_or(IdTokenError::Malformed)?;
    let claims = Claims(token.claims().ok_or(IdTokenError::Malformed)?);
    let issuer = claims.issuer(expected.issuer)?;
    claims.check_audience(expected.client_id)?;

    let algorithm = token.text("alg").ok_or(IdTokenError::Malformed)?;
    let algorithm = Algorithm::named(algorithm).filter(|algorithm| algorithm.is_among(expected.algorithms));
    let algorithm = algorithm.ok_or(IdTokenError::Algorithm)?;
    keys.verify(algorithm, token.text("kid"), token.signed, &token.signature)?;

    let subject = claims.subject()?;
    claims.check_times(expected.now)?;
    claims.check_login(&expected.asked)?;
    claims.check_access_token(expected.access_token, algorithm)?;
    Ok(Identity::new(issuer, subject, claims.0))
}

/// The claims as they stand there. They are not verified yet.
pub(super) fn claims(id_token: &Secret) -> Option<Map<String, Value>> {
    Signed::read(id_token.expose())?.claims()
}

/// A JSON Web Signature in its compact form (RFC 7515 section 7.1).
struct Signed<'a> {
    header: Map<String, Value>,
    payload: Vec<u8>,
    signature: Vec<u8>,
    /// What is signed.
    signed: &'a [u8],
}

impl<'a> Signed<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let header = json::members(&BASE64URL.decode(header).ok()?)?;
        // What is critical would have to be understood (RFC 7515 section 4.1.11), and nothing is.
        if payload.contains('.') || header.contains_key("crit") {
            return None;
        }
        let (payload, signature) = (BASE64URL.decode(payload).ok()?, BASE64URL.decode(signature).ok()?);
        Some(Self { header, payload, signature, signed: signed.as_bytes() })
    }

    fn text(&self, parameter: &str) -> Option<&str> {
        self.header.get(parameter).and_then(json::exact)
    }

    fn claims(&self) -> Option<Map<String, Value>> {
        json::members(&self.payload)
    }
}

struct Claims(Map<String, Value>);

impl Claims {
    /// A claim, if it is there. `null` is as good as none.
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn required(&self, name: &str) -> Result<&Value, IdTokenError> {
        self.get(name).ok_or(IdTokenError::Malformed)
    }

    /// Who issued it, if that is who was expected to.
    fn issuer(&self, described: &str) -> Result<String, IdTokenError> {
        let found = json::exact(self.required("iss")?).ok_or(IdTokenError::Malformed)?;
        let tenant = self.get("tid").and_then(Value::as_str);
        let expected = Issuer::of_tenant(described, tenant);
        let mismatch = || IdTokenError::Issuer { expected: described.to_owned(), found: printable(found) };
        expected.filter(|expected| expected == found).ok_or_else(mismatch)
    }

    /// Whether it is for this client. `azp`, if it is there, is who it was issued to.
    fn check_audience(&self, client_id: &str) -> Result<(), IdTokenError> {
        let audiences = match self.required("aud")? {
            Value::Array(audiences) => audiences.as_slice(),
            audience => std::slice::from_ref(audience),
        };
        // Some issuers number their clients, and write it so.
        let is_this_client = |party: &Value| subject_in(party).is_some_and(|party| party == client_id);
        let is_ours = audiences.iter().any(is_this_client);
        let is_for_another = self.get("azp").is_some_and(|party| !is_this_client(party));
        if !is_ours || is_for_another { Err(IdTokenError::Audience) } else { Ok(()) }
    }

    /// Who it is, beyond doubt.
    fn subject(&self) -> Result<String, IdTokenError> {
        let subject = subject_in(self.required("sub")?).filter(|subject| json::is_exact(subject));
        let subject = subject.ok_or(IdTokenError::Malformed)?;
        if subject.is_empty() { Err(IdTokenError::Subject) } else { Ok(subject) }
    }

    fn check_times(&self, now: Timestamp) -> Result<(), IdTokenError> {
        let time = |name| json::seconds(self.required(name)?).ok_or(IdTokenError::Malformed);
        let (expires, issued) = (time("exp")?, time("iat")?);
        let latest = now.saturating_add(LEEWAY).as_unix_seconds();
        if now.as_unix_seconds() >= expires.saturating_add(LEEWAY.as_secs()) {
            return Err(IdTokenError::Expired);
        }
        let not_before = self.get("nbf").and_then(json::seconds);
        if issued > latest || not_before.is_some_and(|not_before| not_before > latest) {
            return Err(IdTokenError::IssuedInFuture);
        }
        Ok(())
    }

    /// Whether it is of this login, and the user signed in as recently as that asked for (section 3.1.2.1, `max_age`).
    fn check_login(&self, asked: &AskedOfIdToken<'_>) -> Result<(), IdTokenError> {
        if asked.nonce.is_some() && self.get("nonce").and_then(Value::as_str) != asked.nonce {
            return Err(IdTokenError::Nonce);
        }
        let Some(since) = asked.signed_in_since else { return Ok(()) };
        let signed_in = self.get("auth_time").and_then(json::seconds).ok_or(IdTokenError::SignInTime)?;
        if signed_in.saturating_add(LEEWAY.as_secs()) < since { Err(IdTokenError::SignInTime) } else { Ok(()) }
    }

    /// Whether it goes with this access token, if it says with which (section 3.1.3.8).
    fn check_access_token(&self, access_token: &Secret, algorithm: &Algorithm) -> Result<(), IdTokenError> {
        let Some(found) = self.get("at_hash") else { return Ok(()) };
        let hash = digest::digest(algorithm.hash, access_token.expose().as_bytes());
        let half = &hash.as_ref()[..hash.as_ref().len() / 2];
        let found = found.as_str().and_then(|found| BASE64URL.decode(found).ok());
        if found.as_deref() == Some(half) { Ok(()) } else { Err(IdTokenError::AccessTokenHash) }
    }
}

#[cfg(test)]
mod tests;
