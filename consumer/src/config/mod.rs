//! What an application declares, as data, and what can be checked without a request.
//!
//! A provider is a value with public fields, and not a trait: an application can change a preset, read a provider from a
//! file, and compare two of them, and a provider with an unusual property needs a field and no code. `checked` turns the
//! declared strings into URLs, headers and keys once, at startup; everything else uses the checked values.

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
