use std::sync::Arc;

use oauth_dance_core::BoxError;

/// Why an issuer's metadata or its keys are not there. It carries no body.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// The issuer could not be reached.
    #[error("the issuer could not be reached")]
    Unreachable(#[source] Arc<BoxError>),
    /// No whole answer came within the time-out; see [`OAuthBuilder::timeout`](crate::OAuthBuilder::timeout).
    #[error("the issuer did not answer in time")]
    Timeout,
    /// It answered with a status that is not 200. Redirects are not followed.
    #[error("the issuer answered with status {0}")]
    Status(u16),
    /// Its answer is no document of the kind that was asked for.
    #[error("the issuer's answer cannot be used: {0}")]
    Answer(&'static str),
    /// The metadata is of another issuer (OpenID Connect Discovery section 4.3). They must be equal to the last slash.
    #[error("the metadata is of the issuer {found:?}, but {expected:?} is configured")]
    IssuerMismatch {
        /// The issuer in the configuration.
        expected: String,
        /// The issuer in the metadata, capped and in printable ASCII.
        found: String,
    },
    /// An endpoint that is needed is missing in the metadata, or may not be used.
    #[error("{endpoint} in the metadata {problem}")]
    Endpoint {
        /// The member of the metadata.
        endpoint: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Why an ID token is not believed (OpenID Connect Core section 3.1.3.7). It carries no claim but the issuer.
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
    /// It is by another issuer. They must be equal to the last slash.
    #[error("the ID token is by the issuer {found:?}, but the metadata is of {expected:?}")]
    Issuer {
        /// The issuer in the metadata.
        expected: String,
        /// The issuer in the ID token, which is not verified: capped and in printable ASCII.
        found: String,
    },
    /// It is for another client, also where `azp` says so.
    #[error("the ID token is for another client")]
    Audience,
    /// It has no subject.
    #[error("the ID token has no subject")]
    Subject,
    /// It has expired.
    #[error("the ID token has expired")]
    Expired,
    /// It was issued in the future, or is not valid yet: the clocks differ.
    #[error("the ID token was issued in the future; set the clock of this machine or of the issuer right")]
    IssuedInFuture,
    /// The login asked for `max_age`, and the ID token does not say that the user signed in within it.
    #[error("the ID token does not show that the user signed in within max_age")]
    SignInTime,
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
