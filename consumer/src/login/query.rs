//! Query parameters, which are untrusted.

use url::form_urlencoded;

use crate::error::LoginError;

/// Longer than any callback; an authorization code alone may have 4 KiB.
const MAX_QUERY: usize = 32 * 1024;

/// A parameter that may occur once or not at all (RFC 6749 section 3.1).
pub(crate) fn one(query: &str, name: &str) -> Result<Option<String>, LoginError> {
    if query.len() > MAX_QUERY {
        return Err(LoginError::Malformed("the query is too long"));
    }
    let mut found = form_urlencoded::parse(query.as_bytes()).filter(|(found, _)| found == name);
    let value = found.next().map(|(_, value)| value.into_owned());
    if found.next().is_some() {
        return Err(LoginError::Malformed("a parameter is repeated"));
    }
    Ok(value.filter(|value| !value.is_empty()))
}

/// The first value of a parameter that affects no decision, so that it may be repeated.
pub(crate) fn first(query: &str, name: &str) -> Option<String> {
    let value = form_urlencoded::parse(query.as_bytes()).find(|(found, _)| found == name)?.1.into_owned();
    (!value.is_empty()).then_some(value)
}
