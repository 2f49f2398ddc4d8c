//! Reads what token endpoints really answer.
//!
//! RFC 6749 section 5 asks for JSON with a few well-typed members. Providers send forms, JSON labelled as something
//! else, errors with status 200, numbers as strings, members that nobody needs in any shape. All of that is understood
//! here, and nothing that is not a token is ever taken for one. No error quotes the body.
//!
//! At a login an answer that contradicts itself is refused: the user is there and can try again. After a refresh token was
//! sent it may be spent, so whatever holds a new access token is kept, and what is doubtful about it is reported.

mod lifetime;
#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::body::Bytes;
use http::{HeaderMap, StatusCode};
use oauth_dance_core::{Extra, OAuth2Token, Secret, Timestamp};
use serde_json::{Map, Value};

pub(super) use self::lifetime::seconds;
use crate::config::dead_grant::DeadGrant;
use crate::config::quirks::Quirks;
use crate::error::TokenEndpointError;
use crate::protocol::http::document::Document;
use crate::protocol::http::refusal::{self, Answered, failed};

/// How deep inside of an answer a token is looked for.
const MAX_DEPTH: usize = 3;
/// How long a new refresh token is left alone that came without a usable access token.
const PAUSE: Duration = Duration::from_secs(60);
/// What a token response says of a token (RFC 6749 section 5.1, OpenID Connect Core section 3.1.3.3).
const TOKEN_MEMBERS: [&str; 6] = ["access_token", "token_type", "refresh_token", "id_token", "scope", "expires_in"];

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
pub(crate) fn read(asked: &Asked<'_>, received: Received<'_>) -> Result<Reading, TokenEndpointError> {
    let Received { status, headers, body, cut } = received;
    let document = Document::read(headers, body, cut.is_some());
    let answered = Answered { status, headers, document: &document };
    let refused = answered.refusal(asked.dead_grants, asked.sent, asked.now);
    if let Some(old) = asked.old
        && !refused.as_ref().is_some_and(TokenEndpointError::needs_authorization)
    {
        let behind_noise = || Members::of(asked.quirks, Document::behind_noise(headers, body)?.members()?.clone());
        let found = document.members().and_then(|members| Members::of(asked.quirks, members.clone()));
        let is_clean = status.is_success() && refused.is_none();
        let kept = found.or_else(behind_noise).and_then(|members| keep(asked, old, members, is_clean));
        if let Some(mut reading) = kept {
            let doubts = [
                (refused.is_some(), "it came with an error"),
                (!status.is_success(), "it came with a status that is no success"),
                (cut.is_some(), "the answer was cut off"),
            ];
            reading.doubts.extend(doubts.into_iter().filter_map(|(is_so, doubt)| is_so.then_some(doubt)));
            return Ok(reading);
        }
    }
    if let Some(refused) = refused {
        return Err(refused);
    }
    if !status.is_success() {
        return Err(failed(status, headers, asked.now));
    }
    if let Some(cut) = cut.filter(|_| !document.is_whole) {
        return Err(cut);
    }
    let unreadable = TokenEndpointError::Answer("it is neither a JSON object nor a form");
    let members = document.members().filter(|_| document.is_whole).ok_or(unreadable)?;
    let members = Members::of(asked.quirks, members.clone()).unwrap_or_default();
    let token_type = members.token_type();
    if asked.is_bound && !token_type.is_some_and(Quirks::is_bound) {
        return Err(TokenEndpointError::Answer("the token type is not DPoP"));
    }
    let access_token = members.access_token()?;
    if !asked.is_bound && !token_type.is_none_or(|token_type| asked.quirks.accepts(token_type)) {
        return Err(TokenEndpointError::Answer("the token type is none that can be presented"));
    }
    Ok(Reading { token: token(asked, members, access_token), doubts: Vec::new() })
}

/// What is kept of an answer after a refresh token was sent. One that is not `is_clean` must hold a token that is new, and
/// not alone: an error may repeat what it is about.
fn keep(asked: &Asked<'_>, old: &OAuth2Token, members: Members, is_clean: bool) -> Option<Reading> {
    let access_token = members.access_token().ok().or_else(|| members.number("access_token"));
    let is_new =
        access_token.as_ref().is_some_and(|new| *new != old.access_token && !asked.sent.contains(&new.expose()));
    let is_said = |name: &str| members.token.get(name).is_some_and(refusal::says_something);
    let is_in_company = ["refresh_token", "expires_in", "token_type"].into_iter().any(is_said);
    if !(is_clean || is_new && is_in_company) {
        return None;
    }
    let token_type = members.token_type();
    let doubts = [
        (asked.is_bound && !token_type.is_some_and(Quirks::is_bound), "it is not said to be bound to the key"),
        (
            !asked.is_bound && !token_type.is_none_or(|token_type| asked.quirks.accepts(token_type)),
            "its type is none that can be presented",
        ),
        (members.access_token().is_err(), "its access token is not one"),
    ];
    let doubts = doubts.into_iter().filter_map(|(is_so, doubt)| is_so.then_some(doubt)).collect();
    let Some(access_token) = access_token else {
        let refresh_token = secret(members.token.get("refresh_token"))?;
        let is_new = old.refresh_token.as_ref() != Some(&refresh_token);
        let mut token = old.clone();
        token.refresh_token = Some(refresh_token);
        token.expires_at = Some(asked.now.saturating_add(PAUSE));
        return is_new.then_some(Reading { token, doubts });
    };
    Some(Reading { token: token(asked, members, access_token), doubts })
}

/// A token response taken apart: what it says of the user's token, and the rest.
#[derive(Default)]
struct Members {
    token: Map<String, Value>,
    extra: Map<String, Value>,
}

impl Members {
    /// Takes the token from the object inside that the provider has for it, from the answer itself, or from the only object
    /// inside that holds one. What stands beside it is no less kept. `None` if there is no access token at all.
    fn of(quirks: &Quirks, mut extra: Map<String, Value>) -> Option<Self> {
        let own = quirks.token_member.as_ref().and_then(|name| extra.get_mut(name)).and_then(Value::as_object_mut);
        if let Some(own) = own.filter(|own| holds_token(own)) {
            let token = take_token(own);
            return Some(Self { token, extra });
        }
        if extra.contains_key("access_token") || holds_token(&extra) {
            return Some(Self { token: take_token(&mut extra), extra });
        }
        let mut paths = Vec::new();
        token_paths(&extra, &mut Vec::new(), &mut paths);
        let [path] = paths.as_slice() else {
            let token = take_token(&mut extra);
            return token.contains_key("refresh_token").then_some(Self { token, extra });
        };
        let inside = path.iter().try_fold(&mut extra, |members, name| members.get_mut(name)?.as_object_mut())?;
        let token = take_token(inside);
        Some(Self { token, extra })
    }

    fn access_token(&self) -> Result<Secret, TokenEndpointError> {
        let unusable = |problem| Err(TokenEndpointError::Answer(problem));
        match self.token.get("access_token") {
            Some(Value::String(token)) => match token.trim() {
                "" => unusable("the access token is empty"),
                token if token.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) => Ok(token.into()),
                _ => unusable("the access token has characters no header can carry"),
            },
            Some(Value::Null) | None => unusable("there is no access token in it"),
            Some(_) => unusable("the access token is not a string"),
        }
    }

    /// A token that is written as a number.
    fn number(&self, name: &str) -> Option<Secret> {
        self.token.get(name)?.as_u64().map(|number| number.to_string().into())
    }

    /// What kind of token it is; `None` if that is not said, or not in a word.
    fn token_type(&self) -> Option<&str> {
        self.token.get("token_type")?.as_str().map(str::trim).filter(|token_type| !token_type.is_empty())
    }
}

fn holds_token(members: &Map<String, Value>) -> bool {
    ["access_token", "accessToken"].iter().any(|name| members.get(*name).is_some_and(|token| !token.is_null()))
}

/// The ways to objects inside that hold an access token.
fn token_paths(members: &Map<String, Value>, path: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    if path.len() == MAX_DEPTH {
        return;
    }
    for (name, value) in members {
        let Value::Object(inside) = value else { continue };
        path.push(name.clone());
        if holds_token(inside) {
            paths.push(path.clone());
        } else {
            token_paths(inside, path, paths);
        }
        path.pop();
    }
}

/// Takes what the standards have, or, where nothing is called as they call it, the same in camel case.
fn take_token(members: &mut Map<String, Value>) -> Map<String, Value> {
    let is_standard = members.contains_key("access_token");
    let mut take = |name: &str| {
        if is_standard || members.contains_key(name) {
            return members.remove(name);
        }
        let (first, second) = name.split_once('_')?;
        let (initial, rest) = second.split_at_checked(1)?;
        members.remove(&format!("{first}{}{rest}", initial.to_ascii_uppercase()))
    };
    TOKEN_MEMBERS.iter().filter_map(|name| Some(((*name).to_owned(), take(name)?))).collect()
}

fn token(asked: &Asked<'_>, members: Members, access_token: Secret) -> OAuth2Token {
    let token_type = members.token_type().unwrap_or("Bearer").to_owned();
    let Members { token: mut members, extra } = members;
    let mut token = OAuth2Token::bearer(access_token);
    token.token_type = token_type;
    token.refresh_token = secret(members.get("refresh_token"));
    token.id_token = secret(members.get("id_token"));
    token.scope = members.remove("scope").and_then(scope);
    let can_be_refreshed = token.refresh_token.is_some() || asked.old.is_some();
    let own = asked.quirks.lifetime_member.as_deref();
    token.expires_at = lifetime::expiry(own, [&members, &extra], can_be_refreshed, asked.now);
    token.issued_at = Some(asked.now);
    token.extra = Extra::from(extra);
    token
}

/// A string that is not empty and was read without gaps; anything else counts as missing.
fn secret(value: Option<&Value>) -> Option<Secret> {
    let text = value?.as_str()?;
    let is_usable = !text.trim().is_empty() && !text.contains([char::REPLACEMENT_CHARACTER, '\0']);
    is_usable.then(|| text.into())
}

/// Scopes as a list: a string with spaces or commas, or an array. Anything else counts as missing.
fn scope(value: Value) -> Option<Vec<String>> {
    let split = |text: &str| -> Vec<String> {
        text.split(|c: char| c.is_ascii_whitespace() || c == ',').filter(|s| !s.is_empty()).map(str::to_owned).collect()
    };
    match value {
        Value::String(text) => Some(split(&text)),
        Value::Array(items) => Some(items.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        _ => None,
    }
}
