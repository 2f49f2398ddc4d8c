//! OpenID Connect: issuers that are found by their metadata, and ID tokens that are verified.

#[cfg(feature = "oidc")]
mod cache;
pub(crate) mod error;
#[cfg(feature = "oidc")]
mod id_token;
pub(crate) mod identity;
pub(crate) mod issuer;
#[cfg(feature = "oidc")]
mod metadata;
#[cfg(feature = "oidc")]
mod provider;
#[cfg(not(feature = "oidc"))]
#[path = "without.rs"]
mod provider;

pub(crate) use provider::OpenId;

/// The scope that makes an authorization request one of OpenID Connect (Core section 3.1.2.1).
pub(crate) const SCOPE: &str = "openid";
