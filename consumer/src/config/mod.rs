//! What an application declares, as data, and what can be checked without asking anyone.

pub(crate) mod checked;
pub(crate) mod client_key;
pub(crate) mod dead_grant;
pub(crate) mod endpoint;
pub(crate) mod hosts;
pub(crate) mod issuer;
pub(crate) mod oauth1;
pub(crate) mod provider;
pub(crate) mod quirks;
pub(crate) mod registration;
pub(crate) mod reserved;
