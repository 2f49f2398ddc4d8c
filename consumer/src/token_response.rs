//! Reads what token endpoints really answer.
//!
//! RFC 6749 section 5 asks for JSON with a few well-typed members. Providers send forms, JSON labelled as something
//! else, errors with status 200, numbers as strings. All of that is understood here, and nothing that is not a token is
//! ever taken for one. No error quotes the body.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use oauth_dance_core::{Extra, OAuth2Token, Secret, Timestamp};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::error::TokenEndpointError;
use crate::quirks::Quirks;

/// How long an access token is taken to last that can be refreshed and does not say. Short enough that a lost
/// expiry costs little, and long enough not to refresh all the time.
pub(crate) const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
const MAX_ERROR_TEXT: usize = 512;
/// What a token response says of a token (RFC 6749 section 5.1, OpenID Connect Core section 3.1.3.3).
const TOKEN_MEMBERS: [&str; 6] = ["access_token", "token_type", "refresh_token", "id_token", "scope", "expires_in"];

/// The token in an answer of the token endpoint, or what went wrong. Where an error repeats a secret that was `sent`, it is
/// left out. `is_bound` says that a token bound to a key was asked for.
pub(crate) fn read(
    quirks: &Quirks,
    is_bound: bool,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    sent: &[&str],
    now: Timestamp,
) -> Result<OAuth2Token, TokenEndpointError> {
    let Some(members) = members(body) else {
        return Err(if status.is_success() {
            TokenEndpointError::Answer("it is neither a JSON object nor a form")
        } else {
            failed(status, headers)
        });
    };
    if let Some(refused) = refusal(&members, sent) {
        return Err(refused);
    }
    if !status.is_success() {
        return Err(failed(status, headers));
    }
    token(quirks, is_bound, Members::of(quirks, members), now)
}

/// The members of a JSON object, whatever its content type, or the fields of a form.
fn members(body: &[u8]) -> Option<Map<String, Value>> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    if body.starts_with(b"{") {
        return object(body);
    }
    let form: Map<String, Value> = form_urlencoded::parse(body)
        .map(|(name, value)| (name.into_owned(), Value::from(value.into_owned())))
        .collect();
    (form.contains_key("access_token") || form.contains_key("error")).then_some(form)
}

/// A JSON object. A member that is a number beyond all ranges is there as null, so that it does not cost the others.
fn object(body: &[u8]) -> Option<Map<String, Value>> {
    let raw: BTreeMap<String, &RawValue> = serde_json::from_slice(body).ok()?;
    let read = |raw: &RawValue| match serde_json::from_str(raw.get()) {
        Ok(value) => Some(value),
        Err(_) => raw.get().starts_with(|c: char| c == '-' || c.is_ascii_digit()).then_some(Value::Null),
    };
    raw.into_iter().map(|(name, raw)| Some((name, read(raw)?))).collect()
}

/// The error that an answer tells of by its body alone, as some revocation endpoints do.
pub(crate) fn refused(body: &[u8], sent: &[&str]) -> Option<TokenEndpointError> {
    refusal(&members(body)?, sent)
}

/// An error of RFC 6749 section 5.2, also where it comes with status 200 (GitHub) or as an object (Facebook).
fn refusal(members: &Map<String, Value>, sent: &[&str]) -> Option<TokenEndpointError> {
    let (code, description) = match members.get("error")? {
        Value::Null | Value::Bool(false) => return None,
        Value::String(code) => (code.as_str(), members.get("error_description").and_then(Value::as_str)),
        Value::Object(error) => {
            let text = |name| error.get(name).and_then(Value::as_str);
            (text("type").or_else(|| text("code")).unwrap_or("unspecified"), text("message"))
        }
        _ => ("unspecified", None),
    };
    let tame = |text: &str| printable(&without_secrets(text, sent));
    Some(TokenEndpointError::Refused { code: tame(code), description: description.map(tame) })
}

pub(crate) fn failed(status: StatusCode, headers: &HeaderMap) -> TokenEndpointError {
    let retry_after = retry_after(headers).map(|asked| asked.min(MAX_RETRY_AFTER));
    TokenEndpointError::Status { status, retry_after }
}

/// In seconds, or until a date by the server's own clock (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let asked = text(header::RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let [until, now] = [asked, text(header::DATE)?].map(httpdate::parse_http_date);
    until.ok()?.duration_since(now.ok()?).ok()
}

/// A token response taken apart: what it says of the user's token, and the rest.
struct Members {
    token: Map<String, Value>,
    extra: Map<String, Value>,
}

impl Members {
    /// Takes the token from the object inside that holds it, if it does; what stands beside that object is no less kept.
    fn of(quirks: &Quirks, mut extra: Map<String, Value>) -> Self {
        let inside = quirks.token_member.as_ref().and_then(|name| extra.get_mut(name)).and_then(Value::as_object_mut);
        let token = match inside {
            Some(inside) if inside.contains_key("access_token") => take_token(inside),
            _ => take_token(&mut extra),
        };
        Self { token, extra }
    }
}

fn take_token(members: &mut Map<String, Value>) -> Map<String, Value> {
    TOKEN_MEMBERS.iter().filter_map(|name| members.remove_entry(*name)).collect()
}

fn token(quirks: &Quirks, is_bound: bool, members: Members, now: Timestamp) -> Result<OAuth2Token, TokenEndpointError> {
    let Members { token: mut members, extra } = members;
    let access_token = match members.remove("access_token") {
        Some(Value::String(token)) if token.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) => token,
        Some(Value::String(_)) => {
            return Err(TokenEndpointError::Answer("the access token has characters no header can carry"));
        }
        Some(Value::Null) | None => return Err(TokenEndpointError::Answer("there is no access token in it")),
        Some(_) => return Err(TokenEndpointError::Answer("the access token is not a string")),
    };
    if access_token.trim().is_empty() {
        return Err(TokenEndpointError::Answer("the access token is empty"));
    }
    let token_type = match members.remove("token_type") {
        None | Some(Value::Null) if !is_bound => "Bearer".to_owned(),
        Some(Value::String(kind)) if quirks.accepts_bound(&kind, is_bound) => kind,
        _ if is_bound => return Err(TokenEndpointError::Answer("the token type is not DPoP")),
        _ => return Err(TokenEndpointError::Answer("the token type is not Bearer")),
    };

    let mut token = OAuth2Token::bearer(access_token);
    token.token_type = token_type;
    token.refresh_token = take_secret(&mut members, "refresh_token");
    token.id_token = take_secret(&mut members, "id_token");
    token.scope = members.remove("scope").and_then(scope);
    let lifetime = members.remove("expires_in").as_ref().and_then(seconds).map(Duration::from_secs);
    token.expires_at = lifetime
        .or_else(|| token.refresh_token.as_ref().map(|_| DEFAULT_LIFETIME))
        .map(|lifetime| now.saturating_add(lifetime));
    token.issued_at = Some(now);
    token.extra = Extra::from(extra);
    Ok(token)
}

/// A string that is not empty; anything else counts as missing.
fn take_secret(members: &mut Map<String, Value>, name: &str) -> Option<Secret> {
    match members.remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.into()),
        _ => None,
    }
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

/// A lifetime in whole seconds: a number or a number in a string. Negative, absurd or unreadable ones count as missing.
pub(crate) fn seconds(value: &Value) -> Option<u64> {
    let seconds = match value {
        Value::Number(number) => number.as_u64().map(|seconds| seconds as f64).or_else(|| number.as_f64())?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    // The cast saturates, and `Timestamp` is bounded.
    (seconds.is_finite() && seconds >= 0.0).then_some(seconds as u64)
}

pub(crate) fn without_secrets(text: &str, secrets: &[&str]) -> String {
    let secrets = secrets.iter().filter(|secret| !secret.is_empty());
    secrets.fold(text.to_owned(), |text, secret| text.replace(secret, "[secret]"))
}

/// Text from outside, fit for a log and an error: printable ASCII of a bounded length (RFC 6749 section 5.2).
pub(crate) fn printable(text: &str) -> String {
    let keep = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    let capped: String = text.chars().take(MAX_ERROR_TEXT).map(keep).collect();
    capped
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_000);

    fn ok(body: &str) -> OAuth2Token {
        read(&Quirks::default(), false, StatusCode::OK, &HeaderMap::new(), body.as_bytes(), &[], NOW).unwrap()
    }

    fn error(status: u16, body: &[u8]) -> TokenEndpointError {
        let status = StatusCode::from_u16(status).unwrap();
        read(&Quirks::default(), false, status, &HeaderMap::new(), body, &[], NOW).unwrap_err()
    }

    fn expiry(expires_in: &str) -> Option<u64> {
        ok(&format!(r#"{{"access_token":"a","expires_in":{expires_in}}}"#)).expires_at.map(Timestamp::as_unix_seconds)
    }

    /// The answer of RFC 6749 section 5.1, with the token type that clients can use.
    #[test]
    fn the_answer_of_the_rfc() {
        let token = ok(r#"{"access_token":"2YotnFZFEjr1zCsicMWpAA","token_type":"bearer","expires_in":3600,
                "refresh_token":"tGzv3JOkF0XG5Qx2TlKWIA","example_parameter":"example_value"}"#);
        assert_eq!(token.access_token.expose(), "2YotnFZFEjr1zCsicMWpAA");
        assert_eq!(token.refresh_token.unwrap().expose(), "tGzv3JOkF0XG5Qx2TlKWIA");
        assert_eq!(token.expires_at, Some(Timestamp::from_unix_seconds(4_600)));
        assert_eq!(token.extra.get("example_parameter"), Some(&"example_value".into()));
    }

    #[test]
    fn forms_and_mislabelled_json_are_read() {
        for body in [
            "access_token=a&scope=repo%2Cgist&token_type=bearer",
            r#"{"access_token":"a","scope":"repo,gist","token_type":"bearer"}"#,
            "\u{feff} {\"access_token\":\"a\",\"scope\":\"repo gist\"}",
            r#"{"access_token":"a","scope":["repo","gist"],"token_type":null}"#,
        ] {
            let token = ok(body);
            assert_eq!(token.access_token.expose(), "a", "{body}");
            assert_eq!(token.scope.as_deref(), Some(&["repo".to_owned(), "gist".to_owned()][..]), "{body}");
        }
        assert_eq!(ok(r#"{"access_token":"a"}"#).scope, None);
        assert_eq!(ok(r#"{"access_token":"a","scope":""}"#).scope, Some(Vec::new()));
    }

    #[test]
    fn lifetimes_of_every_kind() {
        for (given, expected) in [
            ("3600", Some(4_600)),
            ("\"3600\"", Some(4_600)),
            ("\" 60.9 \"", Some(1_060)),
            ("59.9", Some(1_059)),
            ("0", Some(1_000)),
            ("null", None),
            ("-1", None),
            ("\"soon\"", None),
            ("true", None),
            ("[]", None),
            ("\"NaN\"", None),
            ("\"inf\"", None),
        ] {
            assert_eq!(expiry(given), expected, "{given}");
        }
        let last = Timestamp::from_unix_seconds(u64::MAX).as_unix_seconds();
        for huge in ["18446744073709551615", "99999999999999999999", "1e300"] {
            assert_eq!(expiry(huge), Some(last), "{huge}");
        }
        let refreshable = ok(r#"{"access_token":"a","refresh_token":"r","expires_in":"soon"}"#);
        assert_eq!(refreshable.expires_at, Some(NOW.saturating_add(DEFAULT_LIFETIME)));
    }

    #[test]
    fn everything_else_is_kept() {
        let token =
            ok(r#"{"access_token":"a","team":{"id":1},"refresh_token":"","id_token":null,"access_token_type":"x"}"#);
        assert_eq!(token.extra.get("team"), Some(&serde_json::json!({"id": 1})));
        assert_eq!(token.extra.names().count(), 2);
        assert_eq!((token.refresh_token, token.id_token), (None, None));
    }

    /// As Slack answers where a bot's and a user's scopes are asked for, and where a user's token is refreshed.
    #[test]
    fn a_token_inside_an_object_is_found_where_the_provider_puts_it() {
        let quirks = Quirks {
            token_member: Some("authed_user".to_owned()),
            token_types: vec!["user".to_owned(), "bot".to_owned()],
            ..Quirks::default()
        };
        let read =
            |body: &str| read(&quirks, false, StatusCode::OK, &HeaderMap::new(), body.as_bytes(), &[], NOW).unwrap();
        let both = read(
            r#"{"ok":true,"access_token":"xoxb","token_type":"bot","scope":"commands","team":{"id":"T1"},
                "authed_user":{"id":"U1","access_token":"xoxp","token_type":"user","scope":"chat:write,im:read",
                "refresh_token":"xoxe","expires_in":43200}}"#,
        );
        assert_eq!((both.access_token.expose(), both.token_type.as_str()), ("xoxp", "user"));
        assert_eq!(both.refresh_token.unwrap().expose(), "xoxe");
        assert_eq!(both.scope.unwrap(), ["chat:write", "im:read"]);
        assert_eq!(both.expires_at, Some(Timestamp::from_unix_seconds(44_200)));
        assert_eq!(both.extra.get("access_token"), Some(&"xoxb".into()), "the bot's token is not lost");
        assert_eq!(both.extra.get("authed_user"), Some(&serde_json::json!({"id": "U1"})));

        let refreshed = read(r#"{"ok":true,"access_token":"xoxp-2","token_type":"user","authed_user":{"id":"U1"}}"#);
        assert_eq!(refreshed.access_token.expose(), "xoxp-2");
        assert_eq!(ok(r#"{"access_token":"a","authed_user":{"access_token":"b"}}"#).access_token.expose(), "a");
    }

    #[test]
    fn token_types_are_accepted_where_the_provider_is_known_for_them() {
        let quirks = Quirks { token_types: vec!["Zoho-oauthtoken".to_owned()], ..Quirks::default() };
        for (kind, accepted) in [("Bearer", true), ("zoho-OAuthtoken", true), ("mac", false), ("DPoP", false)] {
            let body = format!(r#"{{"access_token":"a","token_type":"{kind}"}}"#);
            let answer = read(&quirks, false, StatusCode::OK, &HeaderMap::new(), body.as_bytes(), &[], NOW);
            assert_eq!(answer.is_ok(), accepted, "{kind}");
        }
    }

    #[test]
    fn what_is_no_token_is_an_error() {
        for body in [
            "",
            "<html>access_token=1</html>",
            "[]",
            "null",
            "\"a\"",
            "{",
            r#"{"access_token":"a""#,
            "{}",
            r#"{"access_token":""}"#,
            r#"{"access_token":" "}"#,
            r#"{"access_token":null}"#,
            r#"{"access_token":1}"#,
            r#"{"access_token":"a\r\nX: y"}"#,
            r#"{"access_token":"é"}"#,
            r#"{"access_token":"a","token_type":"mac"}"#,
            r#"{"access_token":"a","token_type":"DPoP"}"#,
            r#"{"access_token":"a","token_type":7}"#,
        ] {
            assert!(matches!(error(200, body.as_bytes()), TokenEndpointError::Answer(_)), "{body}");
        }
        let deep = format!("{{\"access_token\":\"a\",\"x\":{}", "[".repeat(100_000));
        assert!(matches!(error(200, deep.as_bytes()), TokenEndpointError::Answer(_)));
        assert!(matches!(error(200, b"{\"access_token\":\"\xff\"}"), TokenEndpointError::Answer(_)));
        for status in [302, 400, 401, 500, 503] {
            let failed = error(status, b"<html>oops</html>");
            assert!(matches!(failed, TokenEndpointError::Status { status: found, .. } if found == status));
            let not_ok = error(status, br#"{"access_token":"a"}"#);
            assert!(matches!(not_ok, TokenEndpointError::Status { .. }), "{status}");
        }
    }

    #[test]
    fn refusals_in_every_dress() {
        for (status, body) in [
            (400, r#"{"error":"invalid_grant","error_description":"gone"}"#),
            (200, r#"{"error":"invalid_grant","error_description":"gone"}"#),
            (200, "error=invalid_grant&error_description=gone&error_uri=https%3A%2F%2Fx"),
            (500, r#"{"error":{"type":"invalid_grant","message":"gone"},"access_token":"a"}"#),
        ] {
            let refused = error(status, body.as_bytes());
            assert!(refused.needs_authorization(), "{body}");
            assert!(
                matches!(refused, TokenEndpointError::Refused { description: Some(text), .. } if text == "gone"),
                "{body}"
            );
        }
        assert!(!error(401, br#"{"error":"invalid_client"}"#).needs_authorization());
        assert!(matches!(error(400, br#"{"error":7}"#), TokenEndpointError::Refused { .. }));
    }

    #[test]
    fn text_from_outside_is_tamed() {
        let body = format!(r#"{{"error":"a\r\nINFO ok<b>\u0000é","error_description":"{}"}}"#, "x".repeat(10_000));
        let TokenEndpointError::Refused { code, description } = error(400, body.as_bytes()) else { panic!() };
        assert_eq!(code, "a??INFO ok<b>??");
        assert_eq!(description.unwrap().len(), MAX_ERROR_TEXT);
    }

    #[test]
    fn retry_after_is_read_and_capped() {
        for (value, expected) in [("7", Some(7)), ("999999", Some(3600)), ("soon", None), ("-1", None)] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let failed = read(&Quirks::default(), false, status, &headers, b"", &[], NOW).unwrap_err();
            let TokenEndpointError::Status { retry_after, .. } = failed else { panic!() };
            assert_eq!(retry_after, expected.map(Duration::from_secs), "{value}");
        }
    }

    /// What the server's clock is at is in its own answer; whether ours agrees does not matter.
    #[test]
    fn retry_after_may_be_a_date() {
        let wait = |date: Option<&str>, until: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, until.parse().unwrap());
            headers.extend(date.map(|date| (header::DATE, date.parse().unwrap())));
            let TokenEndpointError::Status { retry_after, .. } = failed(StatusCode::SERVICE_UNAVAILABLE, &headers)
            else {
                panic!()
            };
            retry_after
        };
        let until = "Fri, 31 Dec 1999 23:59:59 GMT";
        assert_eq!(wait(Some("Fri, 31 Dec 1999 23:59:29 GMT"), until), Some(Duration::from_secs(30)));
        assert_eq!(wait(Some("Thu, 31 Dec 1998 23:59:29 GMT"), until), Some(MAX_RETRY_AFTER));
        assert_eq!(wait(Some("Sat, 01 Jan 2000 00:00:29 GMT"), until), None);
        assert_eq!(wait(None, until), None);
        assert_eq!(wait(Some("yesterday"), until), None);
    }
}
