//! What an application declares, as data, and what can be checked without a request.

pub(crate) mod checked;
pub(crate) mod client_key;
pub(crate) mod endpoint;
pub(crate) mod error_pattern;
pub(crate) mod hosts;
pub(crate) mod issuer;
pub(crate) mod oauth1;
pub(crate) mod provider;
pub(crate) mod quirks;
pub(crate) mod registration;
pub(crate) mod reserved;
