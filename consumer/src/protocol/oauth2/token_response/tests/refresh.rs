//! After a refresh token was sent it may be spent: whatever holds a new access token is kept.

use super::*;

fn kept(status: u16, body: &str) -> Reading {
    refresh(status, body.as_bytes()).unwrap_or_else(|error| panic!("{status} {body}: {error}"))
}

#[test]
fn a_token_is_kept_whatever_is_wrong_beside_it() {
    for (status, body, doubts) in [
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
        let Reading { token, doubts: found } = kept(status, body);
        assert_eq!(token.access_token.expose(), "new", "{body}");
        assert_eq!(token.refresh_token.unwrap().expose(), "r2", "{body}");
        assert_eq!(found.len(), doubts, "{status} {body}: {found:?}");
    }
    assert_eq!(kept(200, r#"{"access_token":12345}"#).token.access_token.expose(), "12345");
}

/// The old one is spent, and the next refresh has one that is not.
#[test]
fn a_new_refresh_token_is_kept_without_an_access_token() {
    for body in [
        r#"{"refresh_token":"r2"}"#,
        r#"{"refresh_token":"r2","access_token":null}"#,
        r#"{"refresh_token":"r2","access_token":"é"}"#,
        r#"{"refresh_token":"r2","access_token":{}}"#,
    ] {
        let Reading { token, doubts } = kept(200, body);
        assert_eq!(
            (token.access_token.expose(), token.refresh_token.unwrap().expose()),
            ("old-access", "r2"),
            "{body}"
        );
        assert_eq!(token.expires_at, Some(NOW.saturating_add(PAUSE)), "{body}");
        assert_eq!(doubts.len(), 1, "{body}");
    }
    assert!(refresh(200, br#"{"refresh_token":"old-refresh"}"#).is_err());
    assert!(refresh(500, br#"{"refresh_token":"r2"}"#).is_err());
}

#[test]
fn an_error_that_repeats_what_was_sent_is_no_token() {
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

/// RFC 9449 section 5: the key goes with it, so it is never presented as a bearer token, and its operator hears of it.
#[test]
fn a_token_that_is_not_said_to_be_bound_is_doubtful() {
    for (body, doubts) in [
        (r#"{"access_token":"new","token_type":"DPoP"}"#, 0),
        (r#"{"access_token":"new","token_type":"Bearer"}"#, 1),
        (r#"{"access_token":"new"}"#, 1),
    ] {
        assert_eq!(refresh_bound(true, 200, body.as_bytes()).unwrap().doubts.len(), doubts, "{body}");
    }
}

#[test]
fn what_was_read_of_an_answer_that_broke_off_counts() {
    let read_cut = |old: Option<&OAuth2Token>, body: &str| {
        let quirks = Quirks::default();
        let asked = Asked { quirks: &quirks, dead_grants: &[], is_bound: false, old, sent: &[], now: NOW };
        let (body, cut) = (body.to_owned().into(), Some(TokenEndpointError::Timeout));
        read(&asked, Received { status: StatusCode::OK, headers: &HeaderMap::new(), body: &body, cut })
    };
    let whole = r#"{"access_token":"new","refresh_token":"r2"}"#;
    assert_eq!(read_cut(None, whole).unwrap().token.access_token.expose(), "new", "it was there to its end");
    assert!(matches!(read_cut(None, &whole[..whole.len() - 1]), Err(TokenEndpointError::Timeout)));
    assert!(matches!(read_cut(None, "access_token=ne"), Err(TokenEndpointError::Timeout)));
    let old = old();
    assert_eq!(read_cut(Some(&old), whole).unwrap().doubts.len(), 1);
    assert!(read_cut(Some(&old), "access_token=ne").is_err(), "it may be half a token");
    let form = read_cut(Some(&old), "access_token=new&refresh_token=r").unwrap().token;
    assert_eq!((form.access_token.expose(), form.refresh_token), ("new", None));
}
