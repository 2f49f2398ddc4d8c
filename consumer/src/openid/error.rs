use std::sync::Arc;

use oauth_dance_core::BoxError;

/// Why an issuer's metadata or its keys are not there. It carries no body.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// The issuer could not be reached, or not in time.
    #[error("the issuer could not be reached")]
    Unreachable(#[source] Arc<BoxError>),
    /// It answered with a status that is not 200. Redirects are not followed.
    #[error("the issuer answered with status {0}")]
    Status(u16),
    /// Its answer is no document of the kind that was asked for.
    #[error("the issuer's answer cannot be used: {0}")]
    Answer(&'static str),
    /// The metadata is of another issuer (OpenID Connect Discovery section 4.3).
    #[error("the metadata is of another issuer")]
    IssuerMismatch,
    /// An endpoint in it is one that secrets may not travel to, or is missing.
    #[error("{endpoint} in the metadata is missing or cannot be used: it must be https")]
    Endpoint {
        /// The member of the metadata.
        endpoint: &'static str,
    },
}

/// Why an ID token is not believed (OpenID Connect Core section 3.1.3.7). It carries no claim.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdTokenError {
    /// There is none, although `openid` was asked for.
    #[error("the provider gave no ID token")]
    Missing,
    /// It cannot be read.
    #[error("the ID token cannot be read")]
    Malformed,
    /// It is signed by an algorithm that proves nothing here, or not at all.
    #[error("the ID token is not signed by an algorithm that is accepted")]
    Algorithm,
    /// It is signed by none of the issuer's keys.
    #[error("the ID token is signed by a key that the issuer does not have")]
    UnknownKey,
    /// The signature is wrong.
    #[error("the ID token's signature is wrong")]
    Signature,
    /// It is by another issuer.
    #[error("the ID token is by another issuer")]
    Issuer,
    /// It is for another client, also where `azp` says so.
    #[error("the ID token is for another client")]
    Audience,
    /// It names nobody.
    #[error("the ID token names nobody")]
    Subject,
    /// It has expired.
    #[error("the ID token has expired")]
    Expired,
    /// It was issued in the future.
    #[error("the ID token was issued in the future")]
    IssuedInFuture,
    /// It belongs to another login.
    #[error("the ID token is of another login")]
    Nonce,
    /// It belongs to another access token (section 3.1.3.8).
    #[error("the ID token is of another access token")]
    AccessTokenHash,
    /// The issuer's keys are not there to verify it with.
    #[error("the ID token cannot be verified")]
    Keys(#[from] DiscoveryError),
}
