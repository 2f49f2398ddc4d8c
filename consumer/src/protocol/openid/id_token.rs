//! Verifies ID tokens (OpenID Connect Core section 3.1.3.7).
//!
//! Claims that are verified are parsed strictly. Invalid values of other claims have no effect.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use oauth_dance_core::{Secret, Timestamp};
use serde_json::{Map, Value};

use super::IdTokenExpectations;
use super::identity::{Identity, subject_in};
use super::json::{self, BASE64URL};
use super::keys::{Algorithm, KeySet};
use crate::config::issuer::Issuer;
use crate::error::IdTokenError;
use crate::protocol::http::text::printable;

/// The tolerated difference to the issuer's clock.
const LEEWAY: Duration = Duration::from_secs(60);

/// What an ID token must match.
pub(super) struct Expected<'a> {
    /// The issuer in its metadata.
    pub(super) issuer: &'a str,
    pub(super) algorithms: &'a [String],
    pub(super) client_id: &'a str,
    pub(super) access_token: &'a Secret,
    pub(super) asked: IdTokenExpectations<'a>,
    pub(super) now: Timestamp,
}

/// Verifies an ID token. Before that, none of its claims is used, except that an error may contain its issuer.
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

/// The claims, which are not verified.
pub(super) fn claims(id_token: &Secret) -> Option<Map<String, Value>> {
    Signed::read(id_token.expose())?.claims()
}

/// A JSON Web Signature in its compact form (RFC 7515 section 7.1).
struct Signed<'a> {
    header: Map<String, Value>,
    payload: Vec<u8>,
    signature: Vec<u8>,
    /// The signed text.
    signed: &'a [u8],
}

impl<'a> Signed<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let header = json::members(&BASE64URL.decode(header).ok()?)?;
        // Critical parameters would have to be understood (RFC 7515 section 4.1.11), and none is supported.
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
    /// A claim, if it is present. `null` counts as missing.
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn required(&self, name: &str) -> Result<&Value, IdTokenError> {
        self.get(name).ok_or(IdTokenError::Malformed)
    }

    /// The issuer, if it is the expected one.
    fn issuer(&self, described: &str) -> Result<String, IdTokenError> {
        let found = json::exact(self.required("iss")?).ok_or(IdTokenError::Malformed)?;
        let tenant = self.get("tid").and_then(Value::as_str);
        let expected = Issuer::of_tenant(described, tenant);
        let mismatch = || IdTokenError::Issuer { expected: described.to_owned(), found: printable(found) };
        expected.filter(|expected| expected == found).ok_or_else(mismatch)
    }

    /// Whether it was issued to this client. `azp`, if present, must be this client too.
    fn check_audience(&self, client_id: &str) -> Result<(), IdTokenError> {
        let audiences = match self.required("aud")? {
            Value::Array(audiences) => audiences.as_slice(),
            audience => std::slice::from_ref(audience),
        };
        // Some issuers have numeric client identifiers, and send them as numbers.
        let is_this_client = |party: &Value| subject_in(party).is_some_and(|party| party == client_id);
        let includes_this_client = audiences.iter().any(is_this_client);
        let is_for_another = self.get("azp").is_some_and(|party| !is_this_client(party));
        if !includes_this_client || is_for_another { Err(IdTokenError::Audience) } else { Ok(()) }
    }

    /// The subject, which must be unambiguous.
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

    /// Whether it belongs to this login, and the user signed in within the requested `max_age` (section 3.1.2.1).
    fn check_login(&self, asked: &IdTokenExpectations<'_>) -> Result<(), IdTokenError> {
        if asked.nonce.is_some() && self.get("nonce").and_then(Value::as_str) != asked.nonce {
            return Err(IdTokenError::Nonce);
        }
        let Some(since) = asked.signed_in_since else { return Ok(()) };
        let signed_in = self.get("auth_time").and_then(json::seconds).ok_or(IdTokenError::SignInTime)?;
        if signed_in.saturating_add(LEEWAY.as_secs()) < since { Err(IdTokenError::SignInTime) } else { Ok(()) }
    }

    /// Whether it belongs to this access token, if it contains a hash of one (section 3.1.3.8).
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
