//! OAuth 2.0: the authorization request, and the requests to the authorization server.

mod authenticated;
pub(crate) mod authorize;
#[cfg(feature = "native")]
pub(crate) mod device;
pub(crate) mod pushed_request;
pub(crate) mod revoke;
pub(crate) mod token_request;
pub(crate) mod token_response;

pub use revoke::Revocation;
