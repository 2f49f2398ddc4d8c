//! After a refresh token was sent, it may be spent: a response with a new access token is retained.

use super::*;

fn retained(status: u16, body: &str) -> Reading {
    refresh(status, body.as_bytes()).unwrap_or_else(|error| panic!("{status} {body}: {error}"))
}

#[test]
fn a_new_token_is_retained_despite_other_faults() {
    for (status, body, concerns) in [
        (200, r#"{"access_token":"new","refresh_token":"r2"}"#, 0),
        (200, r#"{"access_token":"new","refresh_token":"r2","error":""}"#, 0),
        (200, r#"{"access_token":"new","refresh_token":"r2","error":"odd"}"#, 1),
        (200, r#"{"access_token":"new","refresh_token":"r2","token_type":"mac"}"#, 1),
        (200, r#"{"access_token":"new","refresh_token":"r2","token_type":"DPoP"}"#, 1),
        (500, r#"{"access_token":"new","refresh_token":"r2"}"#, 1),
        (302, r#"{"access_token":"new","refresh_token":"r2","expires_in":60}"#, 1),
        (400, r#"{"access_token":"new","refresh_token":"r2","error":"odd"}"#, 2),
        (200, r#"{"access_token":"new","refresh_token":"r2""#, 0),
        (200, r#"{"access_token":"new","refresh_token":"r2","x"#, 0),
        (200, "<b>Warning</b>: deprecated {$x} in token.php\n{\"access_token\":\"new\",\"refresh_token\":\"r2\"}\n", 0),
        (200, r#"{"data":{"access_token":"new","refresh_token":"r2"}}"#, 0),
        (200, r#"{"access_token":"new","refresh_token":"r2","message":"Refresh token revoked"}"#, 0),
        (200, r#"{"access_token":"new","refresh_token":"r2","linked":[{"id":1,"error":"invalid_grant"}]}"#, 0),
        (200, r#"{"access_token":"new","refresh_token":"r2","error":"invalid_grant"}"#, 1),
        (400, r#"{"access_token":"new","refresh_token":"r2","error":"invalid_grant"}"#, 2),
        (200, r#"{"access_token":"new","refresh_token":"r2","error":{"code":"ok","message":"","log_id":"2022"}}"#, 0),
        (200, "access_token=new&refresh_token=r2&error=odd", 1),
    ] {
        let Reading { token, concerns: found } = retained(status, body);
        assert_eq!(token.access_token.expose(), "new", "{body}");
        assert_eq!(token.refresh_token.unwrap().expose(), "r2", "{body}");
        assert_eq!(found.len(), concerns, "{status} {body}: {found:?}");
    }
    assert_eq!(retained(200, r#"{"access_token":12345}"#).token.access_token.expose(), "12345");
}

/// The old refresh token is spent, and the next refresh needs the new one.
#[test]
fn a_new_refresh_token_is_retained_on_its_own() {
    for body in [
        r#"{"refresh_token":"r2"}"#,
        r#"{"refresh_token":"r2","access_token":null}"#,
        r#"{"refresh_token":"r2","access_token":"é"}"#,
        r#"{"refresh_token":"r2","access_token":{}}"#,
    ] {
        let Reading { token, concerns } = retained(200, body);
        assert_eq!(
            (token.access_token.expose(), token.refresh_token.unwrap().expose()),
            ("old-access", "r2"),
            "{body}"
        );
        assert_eq!(token.expires_at, Some(NOW.saturating_add(PAUSE)), "{body}");
        assert_eq!(concerns.len(), 1, "{body}");
    }
    assert!(refresh(200, br#"{"refresh_token":"old-refresh"}"#).is_err());
    assert!(refresh(500, br#"{"refresh_token":"r2"}"#).is_err());
}

/// A form has no null, and a script writes `undefined` for what it does not have.
#[test]
fn a_placeholder_is_no_token() {
    for placeholder in ["null", "NULL", "(null)", "undefined", "None", "nil", " null "] {
        let without = format!(r#"{{"access_token":"new","refresh_token":"{placeholder}"}}"#);
        let Reading { token, concerns } = retained(200, &without);
        assert_eq!((token.access_token.expose(), token.refresh_token), ("new", None), "{placeholder}");
        assert!(concerns.is_empty(), "{placeholder}: {concerns:?}");
        assert_eq!(ok(&without).refresh_token, None, "{placeholder}");

        let neither = format!(r#"{{"access_token":"{placeholder}","refresh_token":"{placeholder}"}}"#);
        assert!(refresh(200, neither.as_bytes()).is_err(), "{placeholder}");
        assert!(login(200, neither.as_bytes()).is_err(), "{placeholder}");
        let elsewhere =
            format!(r#"{{"access_token":"new","refresh_token":"{placeholder}","tokens":{{"refresh_token":"r2"}}}}"#);
        assert_eq!(retained(200, &elsewhere).token.refresh_token.unwrap().expose(), "r2", "{placeholder}");
    }
    assert_eq!(retained(200, "access_token=new&refresh_token=null").token.refresh_token, None);
    assert_eq!(retained(200, r#"{"access_token":"nullable"}"#).token.access_token.expose(), "nullable");
}

#[test]
fn an_error_that_repeats_the_request_is_no_token() {
    for (status, body) in [
        (400, r#"{"error":"odd","access_token":"old-access","refresh_token":"r2"}"#),
        (400, r#"{"error":"odd","access_token":"old-refresh","token_type":"bearer"}"#),
        (500, r#"{"access_token":"s3cret","expires_in":1}"#),
        (500, r#"{"access_token":"alone"}"#),
        (400, r#"{"error":"odd","access_token":"alone"}"#),
        (200, r#"{"error":"odd","access_token":"old-access","expires_in":60}"#),
        (200, r#"{"error":"odd","access_token":"old-access","refresh_token":"old-refresh"}"#),
        (200, r#"{"access_token":"cut o"#),
        (200, r#"{"one":{"access_token":"a"},"two":{"access_token":"b"}}"#),
        (200, "<script>{\"access_token\":\"a\"}</script>"),
        (200, "<html>access_token=x</html>"),
        (400, r#"{"error":"invalid_grant","access_token":"old-access","refresh_token":"r2"}"#),
        (400, r#"{"error":"invalid_grant","access_token":"alone"}"#),
        (200, r#"{"error":"invalid_grant","access_token":"old-refresh"}"#),
    ] {
        assert!(refresh(status, body.as_bytes()).is_err(), "{status} {body}");
    }
}

/// RFC 9449 section 5: the token stays with its key, so it is never presented as a bearer token, and the operator is
/// notified.
#[test]
fn a_token_that_is_not_declared_bound_is_a_concern() {
    for (body, concerns) in [
        (r#"{"access_token":"new","token_type":"DPoP"}"#, 0),
        (r#"{"access_token":"new","token_type":"Bearer"}"#, 1),
        (r#"{"access_token":"new"}"#, 1),
    ] {
        assert_eq!(refresh_bound(true, 200, body.as_bytes()).unwrap().concerns.len(), concerns, "{body}");
    }
}

#[test]
fn the_complete_part_of_a_truncated_response_counts() {
    let read_cut = |old: Option<&OAuth2Token>, body: &str| {
        let quirks = Quirks::default();
        let expected = Expectations { quirks: &quirks, dead_grants: &[], is_bound: false, old, sent: &[], now: NOW };
        let (body, cut) = (body.to_owned().into(), Some(TokenEndpointError::Timeout));
        read(&expected, Received { status: StatusCode::OK, headers: &HeaderMap::new(), body: &body, cut })
    };
    let whole = r#"{"access_token":"new","refresh_token":"r2"}"#;
    assert_eq!(read_cut(None, whole).unwrap().token.access_token.expose(), "new", "it was complete");
    assert!(matches!(read_cut(None, &whole[..whole.len() - 1]), Err(TokenEndpointError::Timeout)));
    assert!(matches!(read_cut(None, "access_token=ne"), Err(TokenEndpointError::Timeout)));
    let old = old();
    assert_eq!(read_cut(Some(&old), whole).unwrap().concerns.len(), 1);
    assert!(read_cut(Some(&old), "access_token=ne").is_err(), "the token may be truncated");
    let form = read_cut(Some(&old), "access_token=new&refresh_token=r").unwrap().token;
    assert_eq!((form.access_token.expose(), form.refresh_token), ("new", None));
}
