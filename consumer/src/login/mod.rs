//! What every login does, in a web application and in a program on the user's machine: the authorization request, the
//! parameters of its response, and the way of a token from the token endpoint into the storage.
//!
//! A check that protects a login is here if it does not depend on cookies or pages, so that it exists once.

pub(crate) mod attempt;
pub(crate) mod earlier;
pub(crate) mod parameters;
pub(crate) mod query;
pub(crate) mod redeem;
pub(crate) mod request;

use http::{HeaderMap, HeaderName};

/// Whether the browser, or a script on the page, only prefetches: the user has not opened the page yet. Fetch and the
/// Speculation Rules use `Sec-Purpose`, older browsers `Purpose`, `X-Purpose` or `X-Moz`, and Turbo `X-Sec-Purpose`.
pub(crate) fn is_prefetch(headers: &HeaderMap) -> bool {
    let is_purpose = |name: &HeaderName| name.as_str().ends_with("purpose") || name == "x-moz";
    let values = headers.iter().filter(|(name, _)| is_purpose(name)).filter_map(|(_, value)| value.to_str().ok());
    values
        .map(str::to_ascii_lowercase)
        .any(|value| ["prefetch", "prerender", "preview"].iter().any(|ahead| value.contains(ahead)))
}
