//! Reads the responses of token endpoints as providers really send them.
//!
//! RFC 6749 section 5 requires JSON with a few well-typed members. Providers send forms, JSON with another content type,
//! errors with status 200, numbers as strings, and unneeded members of any type. This module reads all of these, and never
//! takes anything else for a token. No error quotes the body.
//!
//! A success that contains an access token is a success, whatever surrounds the token: no text in it counts as a refusal. At
//! a login, a token that cannot be presented is rejected, because the user can try again. After a refresh token was sent, it
//! may be spent, so a response with a new access token is stored, and any concern about it is reported.

mod lifetime;
mod members;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use oauth_dance_core::{Extra, OAuth2Token, Secret, Timestamp};
use serde_json::Value;

pub(super) use self::lifetime::seconds;
use self::members::{Found, Members, secret};
use crate::config::error_pattern::ErrorPattern;
use crate::config::quirks::Quirks;
use crate::error::TokenEndpointError;
use crate::protocol::http::document::Document;
use crate::protocol::http::refusal::{self, ParsedResponse, failed};

/// How long a refresh is deferred after a response with a new refresh token but no usable access token.
const PAUSE: Duration = Duration::from_secs(60);
const WITH_ERROR: &str = "it came with an error";

/// What a response of a token endpoint should contain, with the peculiarities of its provider.
#[derive(Clone, Copy)]
pub(crate) struct Expectations<'a> {
    pub(crate) quirks: &'a Quirks,
    pub(crate) dead_grants: &'a [ErrorPattern],
    /// Whether a token bound to a key was requested.
    pub(crate) is_bound: bool,
    /// The token whose refresh token was sent; `None` at a login.
    pub(crate) old: Option<&'a OAuth2Token>,
    /// The secrets in the request, which are redacted in an error.
    pub(crate) sent: &'a [&'a str],
    pub(crate) now: Timestamp,
}

/// A response of an endpoint of the authorization server.
pub(crate) struct Received<'a> {
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a Bytes,
    /// Why the body is incomplete, if it is.
    pub(crate) cut: Option<TokenEndpointError>,
}

/// A token, and what could not be verified about it.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) token: OAuth2Token,
    pub(crate) concerns: Vec<&'static str>,
}

/// The token in a response of the token endpoint, or the error.
///
/// A response with an access token is never a refusal, whatever else it contains.
pub(crate) fn read(expected: &Expectations<'_>, received: Received<'_>) -> Result<Reading, TokenEndpointError> {
    let Received { status, headers, body, cut } = received;
    let document = Document::read(headers, body, cut.is_some());
    let behind_noise = || Document::behind_noise(headers, body).filter(|_| document.value.is_string());
    let document = behind_noise().unwrap_or(document);
    let parsed = ParsedResponse { status, headers, document: &document };
    let found = Found::within(expected, &document.value);
    let is_success = status.is_success();
    let no_token = match found {
        Found::One(members) | Found::None(members) if expected.old.is_some() => {
            let retained = retain(expected, &members, &parsed, cut.is_some());
            retained.ok_or_else(|| without_token(&members, expected.is_bound))
        }
        Found::One(members) if is_success && document.is_whole => return at_login(expected, &members, &parsed),
        Found::One(members) | Found::None(members) => Err(without_token(&members, expected.is_bound)),
        Found::Several if is_success => {
            return Err(TokenEndpointError::InvalidResponse("it contains several access tokens"));
        }
        Found::Several => Err(TokenEndpointError::InvalidResponse("the status is not a success")),
    };
    let no_token = match no_token {
        Ok(reading) => return Ok(reading),
        Err(error) => error,
    };
    if let Some(refused) = parsed.refusal(expected.dead_grants, expected.sent, expected.now) {
        return Err(refused);
    }
    if !is_success {
        return Err(failed(status, headers, expected.now));
    }
    if let Some(cut) = cut.filter(|_| !document.is_whole) {
        return Err(cut);
    }
    let is_readable = document.is_whole && document.members().is_some();
    Err(if is_readable {
        no_token
    } else {
        TokenEndpointError::InvalidResponse("it is neither a JSON object nor a form")
    })
}

/// The token of a login. A contradictory response is rejected, because the user can simply try again.
fn at_login(
    expected: &Expectations<'_>,
    members: &Members,
    parsed: &ParsedResponse<'_>,
) -> Result<Reading, TokenEndpointError> {
    let unusable = |problem| Err(TokenEndpointError::InvalidResponse(problem));
    let access_token = members.access_token()?;
    let has_error = parsed.has_error();
    if has_error && expected.sent.contains(&access_token.expose()) {
        return parsed
            .refusal(expected.dead_grants, expected.sent, expected.now)
            .map_or_else(|| unusable("it repeats a secret of the request"), Err);
    }
    let token_type = members.token_type();
    if expected.is_bound && !token_type.is_some_and(Quirks::is_bound) {
        return unusable("the token type is not DPoP");
    }
    if !expected.is_bound && !token_type.is_none_or(|token_type| expected.quirks.accepts(token_type)) {
        return unusable("this client cannot present a token of this type");
    }
    let concerns = has_error.then_some(WITH_ERROR).into_iter().collect();
    Ok(Reading { token: token(expected, members, access_token), concerns })
}

fn without_token(members: &Members, is_bound: bool) -> TokenEndpointError {
    match members.access_token() {
        Err(error) => error,
        Ok(_) if is_bound => TokenEndpointError::InvalidResponse("the token type is not DPoP"),
        Ok(_) => TokenEndpointError::InvalidResponse("it repeats the old access token"),
    }
}

/// The token to retain from a response after a refresh token was sent. If the response has an error, it must contain a new
/// token, because an error may repeat the old one. With a status that is not a success, it must also contain another member
/// of a token.
fn retain(
    expected: &Expectations<'_>,
    members: &Members,
    parsed: &ParsedResponse<'_>,
    is_cut: bool,
) -> Option<Reading> {
    let old = expected.old?;
    let (has_error, is_success) = (parsed.has_error(), parsed.status.is_success());
    let access_token = members.access_token().ok();
    let refresh_token = secret(members.token.get("refresh_token"));
    let is_new =
        access_token.as_ref().is_some_and(|new| *new != old.access_token && !expected.sent.contains(&new.expose()));
    let is_said = |name: &str| members.token.get(name).is_some_and(refusal::says_something);
    let is_in_company = ["refresh_token", "expires_in", "token_type"].into_iter().any(is_said);
    let has_new_refresh_token = refresh_token.as_ref().is_some_and(|new| Some(new) != old.refresh_token.as_ref());
    let counts = match (is_success, has_error) {
        (true, false) => true,
        (true, true) => is_new || access_token.is_some() && has_new_refresh_token,
        (false, _) => is_new && is_in_company,
    };
    let token_type = members.token_type();
    let concerns = [
        (expected.is_bound && !token_type.is_some_and(Quirks::is_bound), "it is not declared to be bound to the key"),
        (
            !expected.is_bound && !token_type.is_none_or(|token_type| expected.quirks.accepts(token_type)),
            "this client cannot present a token of this type",
        ),
        (access_token.is_none(), "its access token is not usable"),
        (has_error, WITH_ERROR),
        (!is_success, "its status is not a success"),
        (is_cut, "the response is incomplete"),
    ];
    let concerns = concerns.into_iter().filter_map(|(is_so, concern)| is_so.then_some(concern)).collect();
    if !counts {
        return None;
    }
    let Some(access_token) = access_token else {
        let mut token = old.clone();
        token.refresh_token = refresh_token;
        token.expires_at = Some(expected.now.saturating_add(PAUSE));
        return has_new_refresh_token.then_some(Reading { token, concerns });
    };
    Some(Reading { token: token(expected, members, access_token), concerns })
}

fn token(expected: &Expectations<'_>, members: &Members, access_token: Secret) -> OAuth2Token {
    let mut token = OAuth2Token::bearer(access_token);
    token.token_type = members.token_type().unwrap_or("Bearer").to_owned();
    let Members { token: members, beside, extra } = members;
    token.refresh_token = secret(members.get("refresh_token"));
    token.id_token = secret(members.get("id_token"));
    token.scope = members.get("scope").and_then(scope);
    let can_be_refreshed = token.refresh_token.is_some() || expected.old.is_some();
    let own = expected.quirks.lifetime_member.as_deref();
    token.expires_at = lifetime::expiry(own, [members, beside, extra], can_be_refreshed, expected.now);
    token.issued_at = Some(expected.now);
    token.extra = Extra::from(extra.clone());
    token
}

/// Scopes as a list: a string separated by spaces or commas, or an array. Anything else counts as missing.
fn scope(value: &Value) -> Option<Vec<String>> {
    let split = |text: &str| -> Vec<String> {
        text.split(|c: char| c.is_ascii_whitespace() || c == ',').filter(|s| !s.is_empty()).map(str::to_owned).collect()
    };
    match value {
        Value::String(text) => Some(split(text)),
        Value::Array(items) => Some(items.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        _ => None,
    }
}
