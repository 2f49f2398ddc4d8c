//! What refusals report, and what they redact.

use http::header;

use super::*;
use crate::protocol::http::text::MAX_ERROR_TEXT;

#[test]
fn refusals_are_found_in_any_form() {
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
    assert!(error(400, br#"{"error":"invalid_grant""#).needs_authorization(), "truncated");
    assert!(error(400, b"invalid_grant").needs_authorization());
    assert!(error(400, b"<OAuth><error>invalid_grant</error></OAuth>").needs_authorization());
    assert!(!error(401, br#"{"error":"invalid_client"}"#).needs_authorization());
    assert!(matches!(error(400, br#"{"error":7}"#), TokenEndpointError::Refused { .. }));
}

#[test]
fn text_from_outside_is_made_printable() {
    let body = format!(r#"{{"error":"a\r\nINFO ok<b>\u0000é","error_description":"{}"}}"#, "x".repeat(10_000));
    let TokenEndpointError::Refused { code, description, .. } = error(400, body.as_bytes()) else { panic!() };
    assert_eq!(code, "a??INFO ok<b>??");
    assert_eq!(description.unwrap().len(), MAX_ERROR_TEXT);
}

#[test]
fn retry_after_is_read_and_capped() {
    for (value, expected) in
        [("7", Some(7)), ("1.2", Some(2)), ("999999", Some(3600)), ("1e300", None), ("soon", None), ("-1", None)]
    {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, value.parse().unwrap());
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let failed = login_with(&Quirks::default(), status.as_u16(), &headers, b"").unwrap_err();
        let TokenEndpointError::Status { retry_after, .. } = failed else { panic!() };
        assert_eq!(retry_after, expected.map(Duration::from_secs), "{value}");
        // It counts the same with an error of the protocol.
        let refused = login_with(&Quirks::default(), 429, &headers, br#"{"error":"slow_down"}"#).unwrap_err();
        let TokenEndpointError::Refused { retry_after, .. } = refused else { panic!() };
        assert_eq!(retry_after, expected.map(Duration::from_secs), "{value}");
    }
}

/// The response contains the server's clock, so a difference from the local clock does not matter.
#[test]
fn retry_after_may_be_a_date() {
    let wait = |date: Option<&str>, until: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, until.parse().unwrap());
        headers.extend(date.map(|date| (header::DATE, date.parse().unwrap())));
        let error = login_with(&Quirks::default(), 503, &headers, b"").unwrap_err();
        let TokenEndpointError::Status { retry_after, .. } = error else { panic!() };
        retry_after
    };
    let until = "Fri, 31 Dec 1999 23:59:59 GMT";
    assert_eq!(wait(Some("Fri, 31 Dec 1999 23:59:29 GMT"), until), Some(Duration::from_secs(30)));
    assert_eq!(wait(Some("Thu, 31 Dec 1998 23:59:29 GMT"), until), Some(Duration::from_secs(3600)));
    assert_eq!(wait(Some("Sat, 01 Jan 2000 00:00:29 GMT"), until), None);
    assert_eq!(
        wait(None, until),
        Some(Duration::from_secs(3600)),
        "by the local clock, which is at the beginning of 1970"
    );
    assert_eq!(wait(Some("yesterday"), "Thu, 01 Jan 1970 00:17:00 GMT"), Some(Duration::from_secs(20)));
}

/// Codes are compared before the client secret is redacted, even if the secret is a part of the code.
#[test]
fn a_secret_inside_a_code_does_not_hide_the_code() {
    for secret in ["grant", "invalid", "invalid_grant", "_", "a"] {
        let quirks = Quirks::default();
        let expected =
            Expectations { quirks: &quirks, dead_grants: &[], is_bound: false, old: None, sent: &[secret], now: NOW };
        let body = br#"{"error":"invalid_grant","error_description":"invalid grant a_b"}"#.to_vec().into();
        let received = Received { status: StatusCode::BAD_REQUEST, headers: &HeaderMap::new(), body: &body, cut: None };
        let refused = read(&expected, received).unwrap_err();
        assert!(refused.needs_authorization(), "{secret}");
        let TokenEndpointError::Refused { code, description, .. } = refused else { panic!() };
        assert_eq!(code, "invalid_grant", "a code of the standard is no secret");
        assert!(!description.unwrap().replace("[secret]", "").contains(secret), "{secret}");
    }
}

/// An unknown provider may say so only in a sentence.
#[test]
fn a_sentence_about_an_invalid_refresh_token_counts() {
    for (status, body) in [
        (400, r#"{"error":"Bad Request","status":400,"message":"Invalid refresh token"}"#),
        (401, r#"{"message":"The refresh token has expired."}"#),
        (403, r#"{"error":"access_denied","error_description":"Refresh token is invalid or expired"}"#),
        (400, r#"{"error":"invalid_request","error_description":"The refresh_token is invalid."}"#),
        (401, r#"{"error":"refresh_token_expired"}"#),
        (400, r#"{"error":{"message":"refresh token was revoked","code":17}}"#),
        (200, r#"{"ok":false,"error":"invalid_refresh_token"}"#),
        (422, r#"{"message":"Refresh token not found"}"#),
        (404, r#"{"message":"Refresh token not found"}"#),
        (410, r#"{"error":{"message":"The refresh token has expired"}}"#),
        (200, r#"{"errcode":61023,"errmsg":"refresh_token is invalid hint: [Iq5ta10ge8]"}"#),
        (200, r#"{"data":{"error_code":10010,"description":"Refresh token expired"},"message":"error"}"#),
        (200, r#"{"code":"IllegalRefreshToken","message":"The specified refresh token is invalid or expired"}"#),
        (400, r#"{"error":"invalid_token","error_description":"Refresh token expired"}"#),
    ] {
        assert!(error(status, body.as_bytes()).needs_authorization(), "{body}");
    }
    for (status, body) in [
        (400, r#"{"error":"invalid_client","error_description":"Invalid refresh token"}"#),
        (403, r#"{"error":"unauthorized_client","error_description":"refresh_token is invalid"}"#),
        (400, r#"{"error":"unsupported_grant_type","error_description":"refresh_token is invalid"}"#),
        (400, r#"{"message":"The refresh token is missing"}"#),
        (400, r#"{"message":"missing or invalid refresh token"}"#),
        (400, r#"{"message":"Invalid refresh token or client id"}"#),
        (400, r#"{"message":"Use of an expired refresh token policy is invalid here"}"#),
        (400, r#"{"message":"refresh_token required"}"#),
        (401, r#"{"message":"Invalid access token"}"#),
        (429, r#"{"message":"Invalid refresh token"}"#),
        (500, r#"{"message":"Invalid refresh token"}"#),
        (503, r#"{"message":"refresh token is unknown"}"#),
        (400, r#"{"error":"server_error","message":"refresh token not found"}"#),
        (400, r#"{"error":"invalid_request"}"#),
        (403, r#"{"error":"access_denied"}"#),
    ] {
        assert!(!error(status, body.as_bytes()).needs_authorization(), "{body}");
    }
}
