//! Fuzz targets for private code that reads bytes from outside. Each panics if a property does not hold.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use http::{HeaderMap, HeaderValue, StatusCode, header};
use oauth_dance_core::{OAuth2Token, Timestamp};
use url::Url;

use crate::app::paths::Paths;
use crate::config::endpoint::PlainHttp;
use crate::config::quirks::Quirks;
use crate::protocol::http::challenge;
use crate::protocol::oauth2::token_response::{self, Expectations, Received};

/// A valid header value made from arbitrary bytes.
fn header_value(bytes: &[u8]) -> HeaderValue {
    let valid: Vec<u8> = bytes.iter().copied().filter(|byte| *byte == b'\t' || !byte.is_ascii_control()).collect();
    HeaderValue::from_bytes(&valid).unwrap()
}

fn errors(value: &[u8]) -> Vec<String> {
    let mut headers = HeaderMap::new();
    headers.insert(header::WWW_AUTHENTICATE, header_value(value));
    challenge::errors(&headers).collect()
}

/// Any challenge is parsed, and quoted text never becomes an error of its own.
pub fn challenges(bytes: &[u8]) {
    errors(bytes);
    let quoted: Vec<u8> = bytes.iter().flat_map(|byte| [b'\\', *byte]).collect();
    let challenge = [b"Bearer realm=\"", &quoted[..], b"\", error=\"one\", scope=\"", &quoted[..], b"\""].concat();
    // A control character is dropped, and then its backslash would escape the next character.
    if !bytes.iter().any(u8::is_ascii_control) && bytes.is_ascii() {
        assert_eq!(errors(&challenge), ["one"]);
    }
}

/// Any `next` of a login leads to a path of this origin.
pub fn next_paths(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for base in ["https://app.example", "https://app.example/prefix"] {
        let paths = Paths::new(
            base,
            &PlainHttp::default(),
            "/login/{provider}".to_owned(),
            "/login/{provider}/authorized".to_owned(),
        )
        .unwrap();
        let next = paths.local(Some(&text));
        let target = Url::parse(base).unwrap().join(&next).unwrap();
        assert_eq!(target.origin(), Url::parse(base).unwrap().origin(), "{next:?}");
        assert!(next.starts_with('/') && HeaderValue::from_str(&next).is_ok(), "{next:?}");
    }
}

/// A token is read whatever surrounds it and whatever the status of a success, and no member is taken for a refusal.
pub fn token_surroundings(bytes: &[u8]) {
    // Without this letter, the text contains no second token.
    let text = serde_json::Value::from(String::from_utf8_lossy(bytes).replace(['k', 'K'], "_"));
    let mut old = OAuth2Token::bearer("old-access");
    old.refresh_token = Some("old-refresh".into());
    let token = r#""access_token":"new-access","refresh_token":"new-refresh""#;
    let surroundings = [
        format!(r#"{{"error":{text},{token}}}"#),
        format!(r#"{{{token},"message":{text},"errors":[{text}]}}"#),
        format!(r#"{{"message":{text},"data":[{{{token},"error":{text}}}]}}"#),
        format!(r#"{{"status":{text},"body":{}}}"#, serde_json::Value::from(format!("{{{token}}}"))),
    ];
    for body in surroundings {
        let body = body.into();
        let quirks = Quirks::default();
        for old in [None, Some(&old)] {
            let expected = Expectations {
                quirks: &quirks,
                dead_grants: &[],
                is_bound: false,
                old,
                sent: &["old-refresh"],
                now: Timestamp::from_unix_seconds(1),
            };
            let received = Received { status: StatusCode::OK, headers: &HeaderMap::new(), body: &body, cut: None };
            let token = token_response::read(&expected, received).unwrap().token;
            assert_eq!(token.access_token.expose(), "new-access");
            assert_eq!(token.refresh_token, Some("new-refresh".into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use oauth_dance_fuzz::check;

    use super::*;

    #[test]
    fn challenges_are_read() {
        check("challenges", challenges);
    }

    #[test]
    fn a_token_is_read_in_all_surroundings() {
        check("token_answers", token_surroundings);
    }

    #[test]
    fn next_paths_are_read() {
        check("next_paths", next_paths);
    }
}
