//! Whether an ID token is to be believed (OpenID Connect Core section 3.1.3.7).

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oauth_dance_core::{Secret, Timestamp};
use openidconnect::core::{CoreIdToken, CoreIdTokenVerifier, CoreJsonWebKeySet, CoreJwsSigningAlgorithm};
use openidconnect::{
    AccessToken, AccessTokenHash, ClaimsVerificationError, ClientId, IssuerUrl, Nonce, SignatureVerificationError,
};
use serde_json::{Map, Value};

use super::error::IdTokenError;
use super::identity::Identity;
use super::issuer::Issuer;

/// How far the issuer's clock may be off.
const LEEWAY: Duration = Duration::from_secs(60);
/// Those where the key that verifies cannot sign. A shared secret, or none at all, proves nothing.
const ASYMMETRIC: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// What an ID token must agree with.
pub(super) struct Expected<'a> {
    /// The issuer as its metadata has it.
    pub(super) issuer: &'a str,
    pub(super) algorithms: &'a [String],
    pub(super) client_id: &'a str,
    pub(super) access_token: &'a Secret,
    /// What the authorization request sent; `None` if there was none, as with a refresh.
    pub(super) nonce: Option<&'a str>,
    pub(super) now: Timestamp,
}

/// Checks everything about an ID token. No claim of it gets out before.
pub(super) fn verify(
    id_token: &Secret,
    keys: &CoreJsonWebKeySet,
    expected: &Expected<'_>,
) -> Result<Identity, IdTokenError> {
    let claims = claims(id_token).ok_or(IdTokenError::Malformed)?;
    let token = CoreIdToken::from_str(id_token.expose()).map_err(|_| IdTokenError::Malformed)?;
    let tenant = claims.get("tid").and_then(Value::as_str);
    let issuer = Issuer::of_tenant(expected.issuer, tenant).ok_or(IdTokenError::Issuer)?;

    let verifier = verifier(&issuer, keys, expected)?;
    let verified = match expected.nonce {
        Some(nonce) => token.claims(&verifier, &Nonce::new(nonce.to_owned())),
        None => token.claims(&verifier, |_: Option<&Nonce>| Ok(())),
    };
    let verified = verified.map_err(|error| meaning(&error))?;

    let latest = expected.now.saturating_add(LEEWAY);
    if SystemTime::from(verified.issue_time()) > system_time(latest) {
        return Err(IdTokenError::IssuedInFuture);
    }
    // With several audiences, `azp` is who it was issued to.
    let authorized_party = verified.authorized_party().map(|party| party.as_str());
    if authorized_party.is_some_and(|party| party != expected.client_id)
        || (verified.audiences().len() > 1 && authorized_party.is_none())
    {
        return Err(IdTokenError::Audience);
    }
    if let Some(hash) = verified.access_token_hash() {
        let access_token = AccessToken::new(expected.access_token.expose().to_owned());
        let computed = token
            .signing_alg()
            .ok()
            .zip(token.signing_key(&verifier).ok())
            .and_then(|(algorithm, key)| AccessTokenHash::from_token(&access_token, algorithm, key).ok());
        if computed.as_ref() != Some(hash) {
            return Err(IdTokenError::AccessTokenHash);
        }
    }
    let subject = verified.subject().as_str().to_owned();
    if subject.is_empty() {
        return Err(IdTokenError::Subject);
    }
    Ok(Identity::new(issuer, subject, claims))
}

fn verifier<'a>(
    issuer: &str,
    keys: &CoreJsonWebKeySet,
    expected: &Expected<'_>,
) -> Result<CoreIdTokenVerifier<'a>, IdTokenError> {
    let issuer = IssuerUrl::new(issuer.to_owned()).map_err(|_| IdTokenError::Issuer)?;
    let earliest =
        system_time(Timestamp::from_unix_seconds(expected.now.as_unix_seconds().saturating_sub(LEEWAY.as_secs())));
    let announced = |algorithm: &&&str| {
        expected.algorithms.is_empty() || expected.algorithms.iter().any(|found| found == **algorithm)
    };
    let algorithms = ASYMMETRIC.iter().filter(announced).filter_map(|name| algorithm(name));
    // As of a public client, so that no secret of ours is ever taken for a key.
    Ok(CoreIdTokenVerifier::new_public_client(ClientId::new(expected.client_id.to_owned()), issuer, keys.clone())
        .set_allowed_algs(algorithms)
        .set_other_audience_verifier_fn(|_| true)
        .set_time_fn(move || earliest.into()))
}

fn algorithm(name: &str) -> Option<CoreJwsSigningAlgorithm> {
    serde_json::from_value(name.into()).ok()
}

fn system_time(timestamp: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(timestamp.as_unix_seconds())
}

/// The claims as they stand there. They are nobody's yet.
pub(super) fn claims(id_token: &Secret) -> Option<Map<String, Value>> {
    let payload = id_token.expose().split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

fn meaning(error: &ClaimsVerificationError) -> IdTokenError {
    use ClaimsVerificationError as Claims;
    use SignatureVerificationError as Signature;

    match error {
        Claims::InvalidIssuer(_) => IdTokenError::Issuer,
        Claims::InvalidAudience(_) => IdTokenError::Audience,
        Claims::InvalidSubject(_) => IdTokenError::Subject,
        Claims::InvalidNonce(_) => IdTokenError::Nonce,
        Claims::Expired(_) => IdTokenError::Expired,
        Claims::SignatureVerification(
            Signature::DisallowedAlg(_) | Signature::UnsupportedAlg(_) | Signature::NoSignature,
        ) => IdTokenError::Algorithm,
        Claims::SignatureVerification(Signature::NoMatchingKey | Signature::AmbiguousKeyId(_)) => {
            IdTokenError::UnknownKey
        }
        Claims::SignatureVerification(_) => IdTokenError::Signature,
        _ => IdTokenError::Malformed,
    }
}
