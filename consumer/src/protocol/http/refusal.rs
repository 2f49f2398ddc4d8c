//! What an answer without a token says, and whether it says that the grant is dead.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use oauth_dance_core::Timestamp;
use serde_json::{Map, Value};

use super::document::Document;
use super::text::{printable, without_secrets};
use crate::config::dead_grant::DeadGrant;
use crate::error::TokenEndpointError;

const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// How deep inside an answer an error is looked for.
const MAX_DEPTH: usize = 5;
/// What is longer is not the sentence that is looked for.
const MAX_SENTENCE: usize = 200;
/// Words that stand in `error` where there is none.
const NO_ERROR: [&str; 9] = ["", "0", "false", "null", "nil", "none", "no", "ok", "success"];
/// Members that hold a code, in the order in which they are looked at.
const CODES: [&str; 11] =
    ["error", "error_code", "errorCode", "errorType", "type", "code", "status", "name", "reason", "key", "errors"];
/// Members that hold a sentence.
const SENTENCES: [&str; 9] = [
    "error_description",
    "errorDescription",
    "message",
    "description",
    "detail",
    "error_message",
    "msg",
    "reason",
    "title",
];
/// Codes of the standards (RFC 6749 section 5.2, RFC 8628, RFC 9126, RFC 9449), which are no secret whatever the secret is.
const STANDARD: [&str; 13] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
    "slow_down",
    "invalid_dpop_proof",
    "use_dpop_nonce",
    "invalid_redirect_uri",
];

/// An answer in which an error is looked for.
#[derive(Clone, Copy)]
pub(crate) struct Answered<'a> {
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) document: &'a Document,
}

impl Answered<'_> {
    /// The error in an answer: the one of RFC 6749 section 5.2, also with status 200 (GitHub), as an object (Facebook) or in
    /// a list, or with another status what the provider has in its place. Where it repeats a secret that was `sent`, that is
    /// left out, once everything is compared.
    pub(crate) fn refusal(self, dead: &[DeadGrant], sent: &[&str], now: Timestamp) -> Option<TokenEndpointError> {
        let is_dead = self.is_dead(dead);
        let value = &self.document.value;
        let members = self.document.members();
        let has_error = members.and_then(|members| members.get("error")).is_some_and(says_something);
        let code = (has_error || !self.status.is_success()).then(|| code(value, 0)).flatten();
        if !is_dead && !has_error && code.is_none() {
            return None;
        }
        let code = code.unwrap_or(if is_dead { "invalid_grant" } else { "unspecified" });
        let tame = |text: &str| printable(&without_secrets(text, sent));
        Some(TokenEndpointError::Refused {
            code: if STANDARD.contains(&code) { code.to_owned() } else { tame(code) },
            description: sentence(value).map(tame),
            status: self.status,
            retry_after: retry_after(self.headers, now),
            needs_authorization: is_dead,
        })
    }

    fn is_dead(self, dead: &[DeadGrant]) -> bool {
        let value = &self.document.value;
        says_invalid_grant(value, 0)
            || in_challenge(self.headers)
            || dead.iter().any(|dead| dead.is(self.status, value))
            || self.says_so_in_words()
    }

    /// Whether a provider that has no word for it says in a sentence, and nothing else, that the refresh token is of no use.
    fn says_so_in_words(self) -> bool {
        let is_refusal = self.status.is_success() || matches!(self.status.as_u16(), 400 | 401 | 403 | 422);
        let Some(members) = self.document.members().filter(|_| is_refusal) else { return false };
        let is_said = |value: &Value| matches!(value, Value::String(text) if means_useless(text));
        let holds = |members: &Map<String, Value>| {
            let named = CODES.iter().chain(&SENTENCES).filter_map(|name| members.get(*name));
            named.into_iter().any(is_said)
        };
        let other = code(&self.document.value, 0).is_some_and(is_of_something_else);
        !other && (holds(members) || members.get("error").and_then(Value::as_object).is_some_and(holds))
    }
}

/// The error that an answer reports by its body, as some revocation endpoints do whatever its status.
pub(crate) fn refused(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    sent: &[&str],
    now: Timestamp,
) -> Option<TokenEndpointError> {
    Answered { status, headers, document: &Document::read(headers, body, false) }.refusal(&[], sent, now)
}

/// The answer's error as far as its status tells.
pub(crate) fn failed(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> TokenEndpointError {
    TokenEndpointError::Status { status, retry_after: retry_after(headers, now) }
}

/// In seconds, or until a date, by the server's own clock if it says what that shows (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let asked = text(header::RETRY_AFTER)?;
    let wait = match asked.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds.ceil()).ok()?,
        Err(_) => {
            let until = httpdate::parse_http_date(asked).ok()?;
            let ours = std::time::UNIX_EPOCH + Duration::from_secs(now.as_unix_seconds());
            let theirs = text(header::DATE).and_then(|date| httpdate::parse_http_date(date).ok());
            until.duration_since(theirs.unwrap_or(ours)).ok()?
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// Whether what stands in `error` is one. Some servers send the member with every answer.
pub(crate) fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !NO_ERROR.iter().any(|none| text.trim().eq_ignore_ascii_case(none)),
        Value::Array(items) => items.iter().any(says_something),
        Value::Object(members) => members.values().any(says_something),
    }
}

/// The first code in an answer.
fn code(value: &Value, depth: usize) -> Option<&str> {
    match value {
        _ if depth > MAX_DEPTH => None,
        Value::String(text) if depth > 0 => Some(text.trim()).filter(|_| says_something(value)),
        Value::Array(items) => items.iter().find_map(|item| code(item, depth + 1)),
        Value::Object(members) => {
            CODES.iter().filter_map(|name| members.get(*name)).find_map(|value| code(value, depth + 1))
        }
        _ => None,
    }
}

/// The first sentence in an answer, outermost first.
fn sentence(value: &Value) -> Option<&str> {
    let outer = items(value).iter();
    let inner = outer.clone().flat_map(|value| ["error", "errors"].into_iter().filter_map(|name| value.get(name)));
    let mut all = outer.chain(inner.flat_map(items));
    all.find_map(|value| SENTENCES.iter().find_map(|name| value.get(*name)?.as_str()))
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

/// Whether `invalid_grant` is the code of an answer, whatever it is wrapped in.
fn says_invalid_grant(value: &Value, depth: usize) -> bool {
    match value {
        _ if depth > MAX_DEPTH => false,
        Value::String(text) => {
            let text = text.trim().trim_matches('"');
            let is_xml = depth == 0 && text.starts_with('<') && text.contains(">invalid_grant<");
            is_xml || plain(text) == "invalid grant"
        }
        Value::Array(items) => items.iter().any(|item| says_invalid_grant(item, depth + 1)),
        Value::Object(members) => members.iter().any(|(name, value)| {
            let is_wrapper = value.is_object() || value.is_array();
            let is_code = ["error", "code"].into_iter().any(|part| name.to_ascii_lowercase().contains(part));
            let is_known = is_code || CODES.contains(&name.as_str()) || SENTENCES.contains(&name.as_str());
            (is_wrapper || is_known) && says_invalid_grant(value, depth + 1)
        }),
        _ => false,
    }
}

/// Some servers answer as a resource server would (RFC 6750 section 3).
fn in_challenge(headers: &HeaderMap) -> bool {
    let mut challenges = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    challenges
        .any(|challenge| challenge.contains("error=\"invalid_grant\"") || challenge.contains("error=invalid_grant"))
}

/// Whether the error is of the client or of the server, and speaks of a refresh token for another reason.
fn is_of_something_else(code: &str) -> bool {
    let code = plain(code);
    ["client", "grant type", "scope", "server", "unavailable", "slow down", "dpop", "rate", "limit"]
        .into_iter()
        .any(|other| code.contains(other))
}

/// Whether a text says that the refresh token is of no use, and only that.
fn means_useless(text: &str) -> bool {
    const SUBJECTS: [&str; 5] = ["", "the ", "this ", "your ", "the provided "];
    const STATES: [&str; 8] =
        ["invalid", "expired", "revoked", "not valid", "no longer valid", "not found", "unknown", "already used"];
    const VERBS: [&str; 6] = [" ", " is ", " was ", " has ", " has been ", " has already been "];
    if text.len() > MAX_SENTENCE {
        return false;
    }
    let text = plain(text);
    let first = text.split(". ").next().unwrap_or_default().trim_end_matches('.');
    let is_state = |text: &str| text.split(" or ").all(|state| STATES.contains(&state.trim_start_matches("has been ")));
    let before = first.strip_suffix(" refresh token").is_some_and(is_state);
    let after = SUBJECTS.iter().any(|subject| {
        let rest = first.strip_prefix(subject).and_then(|rest| rest.strip_prefix("refresh token"));
        rest.is_some_and(|rest| VERBS.iter().any(|verb| rest.strip_prefix(verb).is_some_and(is_state)))
    });
    before || after || first == "bad refresh token"
}

/// In small letters, with spaces for what else stands between words.
fn plain(text: &str) -> String {
    let words = text.trim().trim_end_matches(['!', ';', ':']).replace(['_', '-'], " ").to_ascii_lowercase();
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}
