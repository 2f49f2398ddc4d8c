//! Reads a token response (RFC 6749 section 5.1) or an error response (section 5.2).

use std::time::Duration;

use oauth_dance_core::{OAuth2Token, Secret, Timestamp};
use serde_json::{Map, Value};

/// The lifetime of an access token that can be refreshed, if the response does not contain one.
pub(crate) const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);
/// The longest error code that is reported.
const MAX_ERROR: usize = 64;

/// Reads the members of a token response. `None` if it contains no access token that can be sent in a header.
///
/// A token in a refresh response is used even if other members are invalid, because its refresh token may be spent.
pub(crate) fn token(mut members: Map<String, Value>, now: Timestamp) -> Option<OAuth2Token> {
    let access_token = text(members.remove("access_token"))?;
    if access_token.is_empty() || !access_token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut token = OAuth2Token::bearer(access_token);
    if let Some(token_type) = text(members.remove("token_type")) {
        token.token_type = token_type;
    }
    let refresh_token = text(members.remove("refresh_token")).filter(|token| !token.is_empty());
    token.refresh_token = refresh_token.map(Secret::from);
    token.scope = text(members.remove("scope")).map(|scope| scopes(&scope));
    token.id_token = text(members.remove("id_token")).map(Secret::from);
    token.issued_at = Some(now);
    let lifetime = members.remove("expires_in").as_ref().and_then(seconds);
    let lifetime = lifetime.or_else(|| token.refresh_token.as_ref().map(|_| DEFAULT_LIFETIME));
    token.expires_at = lifetime.map(|lifetime| now.saturating_add(lifetime));
    token.extra = members.into();
    Some(token)
}

/// Whether a token can be sent as a bearer token (RFC 6750).
pub(crate) fn is_bearer(token: &OAuth2Token) -> bool {
    token.token_type.eq_ignore_ascii_case("bearer")
}

/// The error code of a response, if it has one. Other text from outside is not reported.
pub(crate) fn error_code(members: &Map<String, Value>) -> Option<&str> {
    let code = members.get("error")?.as_str()?;
    let is_code = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (!code.is_empty() && code.len() <= MAX_ERROR && code.bytes().all(is_code)).then_some(code)
}

pub(crate) fn scopes(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

fn text(value: Option<Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// `expires_in`, which some servers send as a text or with a fraction. A negative one is zero.
fn seconds(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    // The conversion saturates, and is zero for what is negative or not a number.
    seconds.is_finite().then(|| Duration::from_secs(seconds as u64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_000);

    fn read(response: &Value) -> Option<OAuth2Token> {
        token(response.as_object().unwrap().clone(), NOW)
    }

    #[test]
    fn lifetimes_are_read_leniently() {
        for (expires_in, expected) in [
            (json!(60), Some(1_060)),
            (json!("60"), Some(1_060)),
            (json!(60.9), Some(1_060)),
            (json!(-1), Some(1_000)),
            (json!(0), Some(1_000)),
            (json!(1e300), Some(253_402_300_799)),
            (json!("soon"), None),
            (json!("NaN"), None),
            (json!(null), None),
            (json!([60]), None),
        ] {
            let response = json!({"access_token": "a", "token_type": "bearer", "expires_in": expires_in});
            let found = read(&response).unwrap().expires_at.map(Timestamp::as_unix_seconds);
            assert_eq!(found, expected, "{expires_in}");
            let mut refreshable = response;
            refreshable["refresh_token"] = "r".into();
            let found = read(&refreshable).unwrap().expires_at.map(Timestamp::as_unix_seconds);
            assert_eq!(found, expected.or(Some(4_600)), "{expires_in}, with a refresh token");
        }
    }

    #[test]
    fn only_tokens_that_fit_a_header_are_used() {
        for invalid in [json!(""), json!("a b"), json!("a\r\nX: y"), json!("é"), json!(null), json!(1)] {
            assert!(read(&json!({ "access_token": invalid })).is_none(), "{invalid}");
        }
        let odd = json!({"access_token": "a", "token_type": 7, "refresh_token": "", "scope": ["x"], "team": 1});
        let token = read(&odd).unwrap();
        assert_eq!((token.refresh_token, token.scope), (None, None));
        assert_eq!(token.extra.get("team").unwrap(), 1);
    }

    #[test]
    fn only_codes_are_reported_of_errors() {
        let code = |error: Value| error_code(json!({ "error": error }).as_object().unwrap()).map(str::to_owned);
        assert_eq!(code(json!("invalid_grant")).as_deref(), Some("invalid_grant"));
        for other in [json!("<script>"), json!(""), json!({"code": 1}), json!("x".repeat(65)), json!("a b")] {
            assert_eq!(code(other.clone()), None, "{other}");
        }
    }
}
