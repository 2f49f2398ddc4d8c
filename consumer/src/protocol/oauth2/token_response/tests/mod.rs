//! What is read from every response, and what is not.

mod corpus;
mod login;
mod meaning;
mod mutated;
mod refresh;
mod refusals;
mod wrapped;

use super::*;

const NOW: Timestamp = Timestamp::from_unix_seconds(1_000);

/// What is read at a login, with these quirks.
fn login_with(
    quirks: &Quirks,
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<OAuth2Token, TokenEndpointError> {
    let expected = Expectations { quirks, dead_grants: &[], is_bound: false, old: None, sent: &[], now: NOW };
    let status = StatusCode::from_u16(status).unwrap();
    let received = Received { status, headers, body: &Bytes::copy_from_slice(body), cut: None };
    read(&expected, received).map(|reading| reading.token)
}

fn login(status: u16, body: &[u8]) -> Result<OAuth2Token, TokenEndpointError> {
    login_with(&Quirks::default(), status, &HeaderMap::new(), body)
}

fn ok(body: &str) -> OAuth2Token {
    login(200, body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}"))
}

fn error(status: u16, body: &[u8]) -> TokenEndpointError {
    login(status, body).unwrap_err()
}

/// A token whose refresh token is sent.
fn old() -> OAuth2Token {
    let mut old = OAuth2Token::bearer("old-access");
    old.refresh_token = Some("old-refresh".into());
    old
}

/// What is read after a refresh token was sent, for a token with or without a key.
fn refresh_bound(is_bound: bool, status: u16, body: &[u8]) -> Result<Reading, TokenEndpointError> {
    let quirks = Quirks::default();
    let sent = ["old-refresh", "s3cret"];
    let expected =
        Expectations { quirks: &quirks, dead_grants: &[], is_bound, old: Some(&old()), sent: &sent, now: NOW };
    let status = StatusCode::from_u16(status).unwrap();
    let received = Received { status, headers: &HeaderMap::new(), body: &Bytes::copy_from_slice(body), cut: None };
    read(&expected, received)
}

fn refresh(status: u16, body: &[u8]) -> Result<Reading, TokenEndpointError> {
    refresh_bound(false, status, body)
}
