//! Reads what token endpoints really answer.
//!
//! RFC 6749 section 5 asks for JSON with a few well-typed members. Providers send forms, JSON labelled as something
//! else, errors with status 200, numbers as strings, members in any shape that are not needed. All of that is understood
//! here, and nothing that is not a token is ever taken for one. No error quotes the body.
//!
//! A success with an access token in it is one, whatever stands beside the token: no words inside it are a refusal. At a
//! login a token that cannot be presented is refused, because the user can try again. After a refresh token was sent it may
//! be spent, so whatever holds a new access token is stored, and what is doubtful about it is reported.

mod lifetime;
mod members;
#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::body::Bytes;
use http::{HeaderMap, StatusCode};
use oauth_dance_core::{Extra, OAuth2Token, Secret, Timestamp};
use serde_json::Value;

pub(super) use self::lifetime::seconds;
use self::members::{Found, Members, secret};
use crate::config::dead_grant::DeadGrant;
use crate::config::quirks::Quirks;
use crate::error::TokenEndpointError;
use crate::protocol::http::document::Document;
use crate::protocol::http::refusal::{self, Answered, failed};

/// How long a new refresh token is left alone that came without a usable access token.
const PAUSE: Duration = Duration::from_secs(60);
const WITH_ERROR: &str = "it came with an error";

/// What was asked of a token endpoint, and how its provider answers.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) quirks: &'a Quirks,
    pub(crate) dead_grants: &'a [DeadGrant],
    /// Whether a token bound to a key was asked for.
    pub(crate) is_bound: bool,
    /// The token whose refresh token was sent; `None` at a login.
    pub(crate) old: Option<&'a OAuth2Token>,
    /// The secrets that were sent, which are left out of an error that repeats them.
    pub(crate) sent: &'a [&'a str],
    pub(crate) now: Timestamp,
}

/// An answer of an endpoint of the authorization server.
pub(crate) struct Received<'a> {
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a Bytes,
    /// Why its end is missing, if it is.
    pub(crate) cut: Option<TokenEndpointError>,
}

/// A token, and what is doubtful about it.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) token: OAuth2Token,
    pub(crate) doubts: Vec<&'static str>,
}

/// The token in an answer of the token endpoint, or what went wrong.
///
/// An answer with an access token is no refusal, whatever else it says.
pub(crate) fn read(asked: &Asked<'_>, received: Received<'_>) -> Result<Reading, TokenEndpointError> {
    let Received { status, headers, body, cut } = received;
    let document = Document::read(headers, body, cut.is_some());
    let behind_noise = || Document::behind_noise(headers, body).filter(|_| document.value.is_string());
    let document = behind_noise().unwrap_or(document);
    let answered = Answered { status, headers, document: &document };
    let found = Found::within(asked, &document.value);
    let is_success = status.is_success();
    let no_token = match found {
        Found::One(members) | Found::None(members) if asked.old.is_some() => {
            let kept = keep(asked, &members, &answered, cut.is_some());
            kept.ok_or_else(|| without_token(&members, asked.is_bound))
        }
        Found::One(members) if is_success && document.is_whole => return at_login(asked, &members, &answered),
        Found::One(members) | Found::None(members) => Err(without_token(&members, asked.is_bound)),
        Found::Several if is_success => return Err(TokenEndpointError::Answer("it holds several access tokens")),
        Found::Several => Err(TokenEndpointError::Answer("it is no success")),
    };
    let no_token = match no_token {
        Ok(reading) => return Ok(reading),
        Err(error) => error,
    };
    if let Some(refused) = answered.refusal(asked.dead_grants, asked.sent, asked.now) {
        return Err(refused);
    }
    if !is_success {
        return Err(failed(status, headers, asked.now));
    }
    if let Some(cut) = cut.filter(|_| !document.is_whole) {
        return Err(cut);
    }
    let is_readable = document.is_whole && document.members().is_some();
    Err(if is_readable { no_token } else { TokenEndpointError::Answer("it is neither a JSON object nor a form") })
}

/// The token of a login, at which what contradicts itself costs nothing but another try.
fn at_login(asked: &Asked<'_>, members: &Members, answered: &Answered<'_>) -> Result<Reading, TokenEndpointError> {
    let unusable = |problem| Err(TokenEndpointError::Answer(problem));
    let access_token = members.access_token()?;
    let has_error = answered.has_error();
    if has_error && asked.sent.contains(&access_token.expose()) {
        return answered
            .refusal(asked.dead_grants, asked.sent, asked.now)
            .map_or_else(|| unusable("it repeats what was sent"), Err);
    }
    let token_type = members.token_type();
    if asked.is_bound && !token_type.is_some_and(Quirks::is_bound) {
        return unusable("the token type is not DPoP");
    }
    if !asked.is_bound && !token_type.is_none_or(|token_type| asked.quirks.accepts(token_type)) {
        return unusable("the token type is none that can be presented");
    }
    let doubts = has_error.then_some(WITH_ERROR).into_iter().collect();
    Ok(Reading { token: token(asked, members, access_token), doubts })
}

fn without_token(members: &Members, is_bound: bool) -> TokenEndpointError {
    match members.access_token() {
        Err(error) => error,
        Ok(_) if is_bound => TokenEndpointError::Answer("the token type is not DPoP"),
        Ok(_) => TokenEndpointError::Answer("it repeats the old access token"),
    }
}

/// What is kept of an answer after a refresh token was sent. Beside an error it must hold a token that is new, because an
/// error may repeat what it is about; with a status that is no success it must not be alone either.
fn keep(asked: &Asked<'_>, members: &Members, answered: &Answered<'_>, is_cut: bool) -> Option<Reading> {
    let old = asked.old?;
    let (has_error, is_success) = (answered.has_error(), answered.status.is_success());
    let access_token = members.access_token().ok();
    let refresh_token = secret(members.token.get("refresh_token"));
    let is_new =
        access_token.as_ref().is_some_and(|new| *new != old.access_token && !asked.sent.contains(&new.expose()));
    let is_said = |name: &str| members.token.get(name).is_some_and(refusal::says_something);
    let is_in_company = ["refresh_token", "expires_in", "token_type"].into_iter().any(is_said);
    let has_new_refresh_token = refresh_token.as_ref().is_some_and(|new| Some(new) != old.refresh_token.as_ref());
    let counts = match (is_success, has_error) {
        (true, false) => true,
        (true, true) => is_new || access_token.is_some() && has_new_refresh_token,
        (false, _) => is_new && is_in_company,
    };
    let token_type = members.token_type();
    let doubts = [
        (asked.is_bound && !token_type.is_some_and(Quirks::is_bound), "it is not said to be bound to the key"),
        (
            !asked.is_bound && !token_type.is_none_or(|token_type| asked.quirks.accepts(token_type)),
            "its type is none that can be presented",
        ),
        (access_token.is_none(), "its access token is not one"),
        (has_error, WITH_ERROR),
        (!is_success, "it came with a status that is no success"),
        (is_cut, "the answer was cut off"),
    ];
    let doubts = doubts.into_iter().filter_map(|(is_so, doubt)| is_so.then_some(doubt)).collect();
    if !counts {
        return None;
    }
    let Some(access_token) = access_token else {
        let mut token = old.clone();
        token.refresh_token = refresh_token;
        token.expires_at = Some(asked.now.saturating_add(PAUSE));
        return has_new_refresh_token.then_some(Reading { token, doubts });
    };
    Some(Reading { token: token(asked, members, access_token), doubts })
}

fn token(asked: &Asked<'_>, members: &Members, access_token: Secret) -> OAuth2Token {
    let mut token = OAuth2Token::bearer(access_token);
    token.token_type = members.token_type().unwrap_or("Bearer").to_owned();
    let Members { token: members, beside, extra } = members;
    token.refresh_token = secret(members.get("refresh_token"));
    token.id_token = secret(members.get("id_token"));
    token.scope = members.get("scope").and_then(scope);
    let can_be_refreshed = token.refresh_token.is_some() || asked.old.is_some();
    let own = asked.quirks.lifetime_member.as_deref();
    token.expires_at = lifetime::expiry(own, [members, beside, extra], can_be_refreshed, asked.now);
    token.issued_at = Some(asked.now);
    token.extra = Extra::from(extra.clone());
    token
}

/// Scopes as a list: a string with spaces or commas, or an array. Anything else counts as missing.
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
