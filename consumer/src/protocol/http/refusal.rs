//! Classifies a response without a token, in particular whether it means that the grant is dead.
//!
//! The patterns of the provider and the codes of the standards decide first, then sentences, then the status. Text of the
//! response becomes part of an error and of a log, so it is truncated and reduced to printable ASCII. Secrets of the request
//! are redacted in it, because some providers quote the refresh token.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use oauth_dance_core::Timestamp;
use serde_json::Value;

use super::challenge;
use super::document::Document;
use super::text::{MAX_ERROR_TEXT, bare_name, printable, without_secrets};
use super::words::{self, MAX_SENTENCE};
use crate::config::error_pattern::ErrorPattern;
use crate::error::{Fault, TokenEndpointError};

const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// How deep inside a response an error is searched.
const MAX_DEPTH: usize = 5;
/// How many texts of a response are compared.
const MAX_WORDS: usize = 100;
/// Values of `error` in responses that are not errors.
const NO_ERROR: [&str; 9] = ["", "0", "false", "null", "nil", "none", "no", "ok", "success"];
/// Members that contain a code, in order of precedence.
const CODES: [&str; 11] =
    ["error", "error_code", "errorCode", "errorType", "type", "code", "status", "name", "reason", "key", "errors"];
/// Members that contain a description.
const SENTENCES: [&str; 12] = [
    "error_description",
    "errorDescription",
    "message",
    "description",
    "detail",
    "error_message",
    "errorMessage",
    "error_msg",
    "errmsg",
    "msg",
    "reason",
    "title",
];
/// Codes of the standards (RFC 6749 section 5.2, RFC 8628, RFC 9126, RFC 9449), which are never redacted, whatever the
/// secret is.
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

/// A response that is searched for an error.
#[derive(Clone, Copy)]
pub(crate) struct ParsedResponse<'a> {
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) document: &'a Document,
}

impl ParsedResponse<'_> {
    /// The error of RFC 6749 section 5.2 in a response, also with status 200 (GitHub), as an object (Facebook) or in a list.
    /// With another status, the provider's substitute for one. Secrets that were `sent` are redacted after all comparisons.
    fn error(self, sent: &[&str], now: Timestamp) -> Option<TokenEndpointError> {
        let is_one = self.has_error() || !self.status.is_success() && self.says_anything();
        is_one.then(|| self.as_error(self.fault(&[]), sent, now))
    }

    /// The error in a response without a token. With status 200, any message in it is then an error.
    pub(crate) fn refusal(self, dead: &[ErrorPattern], sent: &[&str], now: Timestamp) -> Option<TokenEndpointError> {
        let fault = self.fault(dead);
        let is_one = fault == Fault::Grant || self.has_error() || self.says_anything();
        is_one.then(|| self.as_error(fault, sent, now))
    }

    /// Whether `error` is present and an actual error.
    pub(crate) fn has_error(self) -> bool {
        self.document.members().and_then(|members| members.get("error")).is_some_and(says_something)
    }

    fn says_anything(self) -> bool {
        let value = &self.document.value;
        let is_error = |(name, value): (&String, &Value)| bare_name(name).contains("err") && says_something(value);
        let has_number = self.document.members().is_some_and(|members| members.iter().any(is_error));
        code(value, 0).is_some()
            || sentence(value).is_some_and(|sentence| !is_good(sentence))
            || has_number
            || self.challenged().is_some()
    }

    fn as_error(self, fault: Fault, sent: &[&str], now: Timestamp) -> TokenEndpointError {
        let value = &self.document.value;
        let challenged = self.challenged();
        let code = code(value, 0).or(challenged.as_deref());
        let code = code.unwrap_or(if fault == Fault::Grant { "invalid_grant" } else { "unspecified" });
        let tame = |text: &str| printable(&without_secrets(text, sent));
        TokenEndpointError::Refused {
            code: if STANDARD.contains(&code) { code.to_owned() } else { tame(code) },
            description: sentence(value).map(tame),
            status: self.status,
            retry_after: retry_after(self.headers, now),
            fault,
        }
    }

    /// The error of a challenge, which some servers send as a resource server would (RFC 6750 section 3).
    fn challenged(self) -> Option<String> {
        challenge::errors(self.headers).find(|error| !error.is_empty())
    }

    /// The cause of the refusal. A grant of another client comes first, because every provider calls it invalid. Then come
    /// the patterns of this provider, the codes of the standards, and descriptions.
    fn fault(self, dead: &[ErrorPattern]) -> Fault {
        let value = &self.document.value;
        let words = self.words();
        let any = |is: fn(&str) -> bool| words.iter().any(|text| is(text));
        if any(words::is_of_another_client) {
            return Fault::Client;
        }
        if dead.iter().any(|dead| dead.matches(self.status, value)) {
            return Fault::Grant;
        }
        if any(words::says_invalid_grant) || is_xml_invalid_grant(value) {
            // Salesforce sends this code also while it processes an earlier request with the same refresh token.
            return if words::may_succeed_later(&words) { Fault::Unknown } else { Fault::Grant };
        }
        if any(words::is_temporary) {
            return Fault::Temporary;
        }
        if self.says_so_in_words(&words) {
            return Fault::Grant;
        }
        // RFC 6749 section 5.2 defines status 401 only for client authentication.
        let is_of_grant = any(words::is_of_grant);
        let is_of_endpoint = match self.status.as_u16() {
            401 => !is_of_grant || self.asks_for_client(),
            404 | 410 => !is_of_grant,
            405 | 415 => true,
            _ => false,
        };
        if is_of_endpoint || any(words::is_of_client) { Fault::Client } else { Fault::Unknown }
    }

    /// Whether the response asks the client to authenticate with HTTP Basic (RFC 6749 section 5.2).
    fn asks_for_client(self) -> bool {
        let mut challenges = self.headers.get_all(header::WWW_AUTHENTICATE).iter();
        challenges.any(|value| value.as_bytes().get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic")))
    }

    /// Whether a response without a code says in a sentence, and nothing else, that the refresh token is invalid.
    fn says_so_in_words(self, all: &[String]) -> bool {
        let is_refusal = match self.status.as_u16() {
            408 | 425 | 429 => false,
            status => self.status.is_success() || (400..500).contains(&status),
        };
        let is_other = || {
            code(&self.document.value, 0).is_some_and(words::is_of_something_else)
                || all.iter().any(|text| words::is_of_client(text))
        };
        is_refusal && all.iter().any(|text| words::means_invalid_token(text)) && !is_other()
    }

    /// All codes and descriptions in a response, at any depth.
    fn words(self) -> Vec<String> {
        let mut words: Vec<String> = challenge::errors(self.headers).collect();
        match &self.document.value {
            Value::String(text) if text.len() <= MAX_SENTENCE && !text.starts_with('<') => words.push(text.clone()),
            Value::String(_) => {}
            value => collect_words(value, false, 0, &mut words),
        }
        words
    }
}

/// Adds each text in a member that describes an error.
fn collect_words(value: &Value, is_named: bool, depth: usize, words: &mut Vec<String>) {
    match value {
        _ if depth > MAX_DEPTH || words.len() >= MAX_WORDS => {}
        Value::String(text) if is_named => words.push(text.chars().take(MAX_ERROR_TEXT).collect()),
        Value::Array(items) => items.iter().for_each(|item| collect_words(item, is_named, depth + 1, words)),
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| collect_words(value, is_descriptive(name), depth + 1, words));
        }
        _ => {}
    }
}

/// Whether a member with this name describes an error.
fn is_descriptive(name: &str) -> bool {
    const PARTS: [&str; 16] = [
        "err", "code", "message", "msg", "desc", "reason", "detail", "title", "status", "resource", "field", "param",
        "fault", "hint", "issue", "problem",
    ];
    const WHOLE: [&str; 3] = ["type", "name", "key"];
    let name = bare_name(name);
    let is_address = ["uri", "url", "link", "href"].iter().any(|part| name.contains(part));
    !is_address && (WHOLE.contains(&name.as_str()) || PARTS.iter().any(|part| name.contains(part)))
}

/// Whether a document in XML has the code. A page for people may list all codes.
fn is_xml_invalid_grant(value: &Value) -> bool {
    let Some(text) = value.as_str().filter(|text| text.starts_with('<') && text.contains(">invalid_grant<")) else {
        return false;
    };
    let text = text.to_ascii_lowercase();
    !["<!doctype html", "<html", "<body"].iter().any(|page| text.contains(page))
}

/// Whether a sentence reports success.
fn is_good(sentence: &str) -> bool {
    NO_ERROR.iter().any(|none| sentence.trim().eq_ignore_ascii_case(none))
}

/// The error in the body of a response. Some revocation endpoints report one with any status.
pub(crate) fn refused(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    sent: &[&str],
    now: Timestamp,
) -> Option<TokenEndpointError> {
    ParsedResponse { status, headers, document: &Document::read(headers, body, false) }.error(sent, now)
}

/// The error of a response by its status alone.
pub(crate) fn failed(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> TokenEndpointError {
    TokenEndpointError::Status { status, retry_after: retry_after(headers, now) }
}

/// In seconds, or until a date by the server's own clock if the response contains that (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let requested = text(header::RETRY_AFTER)?;
    let wait = match requested.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds.ceil()).ok()?,
        Err(_) => {
            let until = httpdate::parse_http_date(requested).ok()?;
            let ours = std::time::UNIX_EPOCH + Duration::from_secs(now.as_unix_seconds());
            let theirs = text(header::DATE).and_then(|date| httpdate::parse_http_date(date).ok());
            until.duration_since(theirs.unwrap_or(ours)).ok()?
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// Whether the value of `error` is an actual error. Some servers send the member with every response.
pub(crate) fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !NO_ERROR.iter().any(|none| text.trim().eq_ignore_ascii_case(none)),
        Value::Array(items) => items.iter().any(says_something),
        Value::Object(members) => {
            // An identifier of the request does not count.
            let named = CODES.iter().chain(&SENTENCES).filter_map(|name| members.get(*name));
            let named: Vec<_> = named.collect();
            if named.is_empty() { members.values().any(says_something) } else { named.into_iter().any(says_something) }
        }
    }
}

/// The first code in a response.
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

/// The first description in a response, outermost first.
fn sentence(value: &Value) -> Option<&str> {
    let outer = items(value).iter();
    let inner = outer.clone().flat_map(|value| ["error", "errors"].into_iter().filter_map(|name| value.get(name)));
    let mut all = outer.chain(inner.flat_map(items));
    all.find_map(|value| SENTENCES.iter().find_map(|name| value.get(*name)?.as_str()))
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}
