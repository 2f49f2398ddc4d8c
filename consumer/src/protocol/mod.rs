//! The requests to a provider and its responses, with neither a storage nor a router.
//!
//! Each module uses only the ones before it: `dpop` and `http`, then `oauth1` and `openid`, then `registered`, then
//! `oauth2`.

pub(crate) mod dpop;
pub(crate) mod http;
#[cfg(feature = "oauth1")]
pub(crate) mod oauth1;
#[cfg(not(feature = "oauth1"))]
#[path = "oauth1/without.rs"]
pub(crate) mod oauth1;
pub(crate) mod oauth2;
pub(crate) mod openid;
pub(crate) mod registered;
