//! OpenID Connect: discovery of issuers by their metadata, and verification of ID tokens.

#[cfg(feature = "oidc")]
mod cache;
mod discovered;
#[cfg(feature = "oidc")]
mod id_token;
pub(crate) mod identity;
#[cfg(feature = "oidc")]
mod json;
#[cfg(feature = "oidc")]
mod keys;
#[cfg(feature = "oidc")]
mod metadata;
#[cfg(feature = "oidc")]
mod provider;
#[cfg(not(feature = "oidc"))]
#[path = "without.rs"]
mod provider;

pub(crate) use discovered::Discovered;
pub(crate) use provider::OpenId;

/// What an authorization request requires of the ID token (Core section 3.1.2.1). A refresh requires nothing.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(not(feature = "oidc"), expect(dead_code, reason = "only ID tokens are checked against it"))]
pub(crate) struct IdTokenExpectations<'a> {
    /// The nonce that it must contain.
    pub(crate) nonce: Option<&'a str>,
    /// The earliest time of the user's sign-in, in seconds since 1970: `max_age` before the start of the login.
    pub(crate) signed_in_since: Option<u64>,
}
