//! OAuth 2.0: the authorization request, and what is exchanged with the authorization server.

mod authenticated;
pub(crate) mod authorize;
pub(crate) mod pushed_request;
pub(crate) mod revoke;
pub(crate) mod token_request;
pub(crate) mod token_response;

pub use revoke::Revocation;
