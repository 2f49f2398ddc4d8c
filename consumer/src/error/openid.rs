//! Errors of OpenID Connect: an issuer's documents, and the verification of its ID tokens.
//!
//! Each rule of the standard has its own variant, because the operator has to know which one failed: a wrong clock, a wrong
//! client id and an attack look the same to the user.

use std::sync::Arc;

use oauth_dance_core::BoxError;

/// Why an issuer's metadata or keys are not available. It contains no body.
///
/// It is the cause of [`LoginError::Discovery`](crate::LoginError::Discovery) and
/// [`ConnectError::Discovery`](crate::ConnectError::Discovery). The documents are cached, and an old one remains in use
/// if it cannot be fetched again, so a short outage of the issuer matters only to a process that has just started.
/// After a failure, nothing is fetched for five seconds.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// The issuer could not be reached.
    #[error("the issuer could not be reached")]
    Unreachable(#[source] Arc<BoxError>),
    /// The response did not arrive completely within the timeout; see
    /// [`OAuthBuilder::timeout`](crate::OAuthBuilder::timeout).
    #[error("the issuer did not respond in time")]
    Timeout,
    /// The issuer responded with a status other than 200. Redirects are not followed.
    #[error("the issuer responded with status {0}")]
    Status(u16),
    /// The response is not a document of the expected kind.
    #[error("the issuer's response is not usable: {0}")]
    InvalidResponse(&'static str),
    /// The metadata names another issuer (OpenID Connect Discovery section 4.3). The two must be identical, including any
    /// trailing slash.
    #[error("the metadata names the issuer {found:?}, but {expected:?} is configured")]
    IssuerMismatch {
        /// The issuer in the configuration.
        expected: String,
        /// The issuer in the metadata, truncated and in printable ASCII.
        found: String,
    },
    /// A required endpoint is missing in the metadata, or is not allowed.
    #[error("{endpoint} in the metadata {problem}")]
    Endpoint {
        /// The member of the metadata.
        endpoint: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Why an ID token failed verification (OpenID Connect Core section 3.1.3.7). It contains no claim except the issuer.
///
/// It is the cause of [`LoginError::IdToken`](crate::LoginError::IdToken): nothing is stored then.
/// [`Expired`](Self::Expired) and [`IssuedInFuture`](Self::IssuedInFuture) usually mean that a clock is wrong,
/// [`Issuer`](Self::Issuer) and [`Audience`](Self::Audience) that the configuration is. All others are faults of the
/// provider, or an attack.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdTokenError {
    /// The response contains no ID token, although `openid` was requested.
    #[error("the provider returned no ID token")]
    Missing,
    /// The ID token is not well-formed.
    #[error("the ID token is malformed")]
    Malformed,
    /// The ID token is unsigned, or signed with an algorithm that is not accepted.
    #[error("the ID token is not signed with an accepted algorithm")]
    Algorithm,
    /// The ID token is signed with none of the issuer's keys.
    #[error("the ID token is signed with a key that is not among the issuer's")]
    UnknownKey,
    /// The signature is invalid.
    #[error("the ID token's signature is invalid")]
    Signature,
    /// The ID token names another issuer. The two must be identical, including any trailing slash.
    #[error("the ID token names the issuer {found:?}, but the metadata names {expected:?}")]
    Issuer {
        /// The issuer in the metadata.
        expected: String,
        /// The issuer in the ID token, which is not verified: truncated and in printable ASCII.
        found: String,
    },
    /// The ID token was issued to another client, according to `aud` or `azp`.
    #[error("the ID token was issued to another client")]
    Audience,
    /// The ID token has no subject.
    #[error("the ID token has no subject")]
    Subject,
    /// The ID token has expired.
    #[error("the ID token has expired")]
    Expired,
    /// The ID token was issued in the future, or is not valid yet: the clocks differ.
    #[error("the ID token was issued in the future; correct the clock of this machine or of the issuer")]
    IssuedInFuture,
    /// The login requested `max_age`, and the ID token does not show that the user signed in within that time.
    #[error("the ID token does not show that the user signed in within max_age")]
    SignInTime,
    /// The ID token belongs to another login.
    #[error("the ID token belongs to another login")]
    Nonce,
    /// The ID token belongs to another access token (section 3.1.3.8).
    #[error("the ID token belongs to another access token")]
    AccessTokenHash,
    /// The issuer's keys, which verify the ID token, are not available.
    #[error("the ID token cannot be verified")]
    Keys(#[from] DiscoveryError),
}
