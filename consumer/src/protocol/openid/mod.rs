//! OpenID Connect: issuers that are found by their metadata, and ID tokens that are verified.

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

/// What an authorization request asked of the ID token that comes of it (Core section 3.1.2.1). A refresh asks nothing.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(not(feature = "oidc"), expect(dead_code, reason = "only ID tokens are checked against it"))]
pub(crate) struct AskedOfIdToken<'a> {
    /// What it repeats.
    pub(crate) nonce: Option<&'a str>,
    /// Since when the user has to have signed in, in seconds since 1970: `max_age` before the login was started.
    pub(crate) signed_in_since: Option<u64>,
}
