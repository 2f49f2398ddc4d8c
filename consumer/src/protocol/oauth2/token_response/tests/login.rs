//! What is read from responses at a login.

use super::*;
use crate::protocol::oauth2::token_response::lifetime::DEFAULT_LIFETIME;

fn expiry(expires_in: &str) -> Option<u64> {
    ok(&format!(r#"{{"access_token":"a","expires_in":{expires_in}}}"#)).expires_at.map(Timestamp::as_unix_seconds)
}

/// The response of RFC 6749 section 5.1, with the token type `bearer`.
#[test]
fn the_response_of_the_rfc_is_read() {
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
fn a_lifetime_is_read_in_any_format() {
    for (given, expected) in [
        ("3600", Some(4_600)),
        ("\"3600\"", Some(4_600)),
        ("\" 60.9 \"", Some(1_060)),
        ("90.9", Some(1_090)),
        ("0", None),
        ("59", None),
        ("60", Some(1_060)),
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
fn other_members_are_retained() {
    let token =
        ok(r#"{"access_token":"a","team":{"id":1},"refresh_token":"","id_token":null,"access_token_type":"x"}"#);
    assert_eq!(token.extra.get("team"), Some(&serde_json::json!({"id": 1})));
    assert_eq!(token.extra.names().count(), 2);
    assert_eq!((token.refresh_token, token.id_token), (None, None));
}

/// Slack's responses to a request for scopes of a bot and a user, and to a refresh of the user's token.
#[test]
fn a_token_in_the_provider_s_own_member_is_found() {
    let quirks = Quirks {
        token_member: Some("authed_user".to_owned()),
        token_types: vec!["user".to_owned(), "bot".to_owned()],
        ..Quirks::default()
    };
    let read = |body: &str| login_with(&quirks, 200, &HeaderMap::new(), body.as_bytes()).unwrap();
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
fn configured_token_types_are_accepted() {
    let quirks = Quirks { token_types: vec!["Zoho-oauthtoken".to_owned()], ..Quirks::default() };
    for (kind, accepted) in [("Bearer", true), ("zoho-OAuthtoken", true), ("mac", false), ("DPoP", false)] {
        let body = format!(r#"{{"access_token":"a","token_type":"{kind}"}}"#);
        let response = login_with(&quirks, 200, &HeaderMap::new(), body.as_bytes());
        assert_eq!(response.is_ok(), accepted, "{kind}");
    }
}

#[test]
fn a_response_without_a_token_is_an_error() {
    for body in [
        "",
        "<html>access_token=1</html>",
        "[]",
        r#"[{"access_token":"a"},{"access_token":"b"}]"#,
        r#"{"one":{"access_token":"a"},"two":{"access_token":"b"}}"#,
        "<html>&access_token=1</html>",
        "null",
        "\"a\"",
        "{",
        r#"{"access_token":"a""#,
        "{}",
        r#"{"access_token":""}"#,
        r#"{"access_token":" "}"#,
        r#"{"access_token":null}"#,
        r#"{"access_token":0}"#,
        r#"{"access_token":-1}"#,
        r#"{"access_token":true}"#,
        r#"{"access_token":"a\r\nX: y"}"#,
        r#"{"access_token":"é"}"#,
        r#"{"access_token":"a","token_type":"mac"}"#,
        r#"{"access_token":"a","token_type":"DPoP"}"#,
    ] {
        assert!(matches!(error(200, body.as_bytes()), TokenEndpointError::InvalidResponse(_)), "{body}");
    }
    let deep = format!("{{\"access_token\":\"a\",\"x\":{}", "[".repeat(100_000)); // which does not end
    assert!(matches!(error(200, deep.as_bytes()), TokenEndpointError::InvalidResponse(_)));
    assert!(matches!(error(200, b"{\"access_token\":\"\xff\"}"), TokenEndpointError::InvalidResponse(_)));
    for status in [302, 400, 401, 500, 503] {
        let failed = error(status, b"<html>oops</html>");
        assert!(matches!(failed, TokenEndpointError::Status { status: found, .. } if found == status));
        let not_ok = error(status, br#"{"access_token":"a"}"#);
        assert!(matches!(not_ok, TokenEndpointError::Status { .. }), "{status}");
    }
}

/// A member that is unneeded, or has a default, never affects the result.
#[test]
fn unneeded_members_do_not_affect_the_result() {
    for body in [
        r#"{"access_token":"a","error":""}"#,
        r#"{"access_token":"a","error":0,"error_description":"all is well"}"#,
        r#"{"access_token":"a","error":[]}"#,
        r#"{"access_token":"a","error":{}}"#,
        r#"{"access_token":"a","error":{"code":0,"message":""}}"#,
        r#"{"access_token":"a","error":"none"}"#,
        r#"{"access_token":"a","error":null,"errors":["x"]}"#,
        r#"{"access_token":"a","error":{"code":"ok","message":"","log_id":"20220829"}}"#,
        r#"{"access_token":"a","error":"odd","error_description":"and yet"}"#,
        r#"{"access_token":"a","token_type":""}"#,
        r#"{"access_token":"a","token_type":7}"#,
        r#"{"access_token":"a","token_type":["Bearer"]}"#,
        r#"{"access_token":"a","token_type":"JWT"}"#,
        r#"{"access_token":"a","x":1e999,"y":NaN,"z":undefined}"#,
        r#"{"access_token":"a","x":"\ud800"}"#,
        r#"{"access_token":"a","x":'single',}"#,
        "{\"access_token\":\"a\",\"x\":\"two\nlines\tand a tab\"}",
        "{\"access_token\":\"a\",\"x\":{\n\t\"y\":\"\u{1}\"}}",
        r#"{"access_token":"a","access_token":null}"#,
        r#"{"access_token":"a","access_token":""}"#,
        r#"{"access_token":" a\n"}"#,
        r#"{"access_token":"a"} trailing </html>"#,
        r#"{"access_token":"a"}{"access_token":"b"}"#,
        r#"[{"access_token":"a"}]"#,
        r#""{\"access_token\":\"a\"}""#,
        r#"{"data":{"access_token":"a"},"status":"success"}"#,
        r#"{"result":{"token":{"access_token":"a"}}}"#,
        r#"{"accessToken":"a","tokenType":"bearer"}"#,
        ")]}',\n{\"access_token\":\"a\"}",
        "access_token=a&error=&error_description=",
        "?access_token=a&token_type=",
    ] {
        assert_eq!(ok(body).access_token.expose(), "a", "{body}");
    }
    let deep = format!(r#"{{"x":{}{},"access_token":"a"}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(ok(&deep).access_token.expose(), "a");
    for body in [
        &b"{\"access_token\":\"a\",\"x\":\"\xff\"}"[..],
        b"{\"x\xff\":1,\"access_token\":\"a\"}",
        b"{\"access_token\":\"a\"}\0\0",
    ] {
        assert_eq!(login(200, body).unwrap().access_token.expose(), "a");
    }
    for status in [200, 201, 202, 203, 206] {
        assert!(login(status, br#"{"access_token":"a"}"#).is_ok(), "{status}");
    }
}

#[test]
fn text_is_read_in_its_encoding() {
    let json = r#"{"access_token":"a","name":"Jörg"}"#;
    let utf16 =
        |bom: &[u8], to: fn(u16) -> [u8; 2]| [bom, &json.encode_utf16().flat_map(to).collect::<Vec<_>>()].concat();
    let latin1: Vec<u8> = json.chars().map(|c| c as u8).collect();
    for (label, body) in [
        ("application/json", json.as_bytes().to_vec()),
        ("application/json; charset=utf-16", json.as_bytes().to_vec()),
        ("text/html; charset=nonsense", json.as_bytes().to_vec()),
        ("application/json; charset=utf-8", utf16(b"\xff\xfe", u16::to_le_bytes)),
        ("application/json", utf16(b"\xfe\xff", u16::to_be_bytes)),
        ("application/json", utf16(b"", u16::to_le_bytes)),
        ("application/json", utf16(b"", u16::to_be_bytes)),
        ("application/json; charset=\"ISO-8859-1\"", latin1),
    ] {
        let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, label.parse().unwrap())]);
        let token = login_with(&Quirks::default(), 200, &headers, &body).unwrap();
        assert_eq!(token.extra.get("name"), Some(&"Jörg".into()), "{label}");
    }
}

/// RFC 6749 section 7.1: a token of a type that needs a proof is not presented without one.
#[test]
fn a_token_that_needs_a_proof_is_rejected() {
    for kind in ["mac", "MAC", "DPoP", "pop", " hok "] {
        let response = error(200, format!(r#"{{"access_token":"a","token_type":"{kind}"}}"#).as_bytes());
        assert!(matches!(response, TokenEndpointError::InvalidResponse(_)), "{kind}");
    }
}

/// Otherwise the next login would bring the same, and so on.
#[test]
fn a_lifetime_that_has_passed_is_ignored() {
    for said in ["0", "-1", "1", "\"0\"", "59.9"] {
        assert_eq!(expiry(said), None, "{said}");
        let with_refresh = ok(&format!(r#"{{"access_token":"a","refresh_token":"r","expires_in":{said}}}"#));
        assert!(with_refresh.expires_at.unwrap() > NOW, "{said}");
    }
}

#[test]
fn an_instant_of_expiry_is_read_in_any_format() {
    const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);
    let quirks = Quirks { lifetime_member: Some("ttl".to_owned()), ..Quirks::default() };
    let expiry = |members: &str| {
        let expected =
            Expectations { quirks: &quirks, dead_grants: &[], is_bound: false, old: None, sent: &[], now: NOW };
        let body = format!(r#"{{"access_token":"a",{members}}}"#).into();
        let received = Received { status: StatusCode::OK, headers: &HeaderMap::new(), body: &body, cut: None };
        let token = read(&expected, received).unwrap().token;
        token.expires_at.map(|expiry| expiry.as_unix_seconds() - NOW.as_unix_seconds())
    };
    for (members, expected) in [
        (r#""expires_at":1700003600"#, Some(3600)),
        (r#""expires_at":"1700003600""#, Some(3600)),
        (r#""expires_at":1700003600000"#, Some(3600)),
        (r#""expires_at":1700003600.5"#, Some(3600)),
        (r#""expires_at":"2023-11-14T23:13:20Z""#, Some(3600)),
        (r#""expires_at":"2023-11-14T23:13:20.123+00:00""#, Some(3600)),
        (r#""expires_at":"2023-11-15 00:13:20+01:00""#, Some(3600)),
        (r#""expires_at":"2023-11-14 23:13:20""#, Some(3600)),
        (r#""expires":"Tue, 14 Nov 2023 23:13:20 GMT""#, Some(3600)),
        (r#""expires":3600"#, Some(3600)),
        (r#""expires":"3600""#, Some(3600)),
        (r#""expires_on":"1700003600""#, Some(3600)),
        (r#""expires_in":60,"expires_at":1700003600"#, Some(60)),
        (r#""expires_in":0,"expires_at":1700003600"#, Some(3600)),
        (r#""expires_in":1700003600"#, Some(3600)),
        (r#""expires_in":1600000000"#, None),
        (r#""expires_in":631138518"#, Some(631_138_518)),
        (r#""expires_in":3600000,"ttl":3600"#, Some(3600)),
        (r#""expires_at":1600000000"#, None),
        (r#""expires_at":"soon""#, None),
        (r#""expires_at":-1"#, None),
        (r#""expires_at":{}"#, None),
        (r#""expires":0"#, None),
    ] {
        assert_eq!(expiry(members), expected, "{members}");
    }
}
